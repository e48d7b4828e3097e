"""What mergekit does to its models before it merges: adapters, tied embeddings.

An adapter is merged by peft into a model that transformers loads (`ModelReference.merged`): in 0.1.4 in
fp32, in 0.1.5 in the model's own dtype, unless `--lora-merge-dtype` says otherwise. A model without an
`lm_head` lends its embeddings where another has one (`tied_names` in _data/architectures).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from parentage.manifest.adapter import read_adapter
from parentage.manifest.companions import ADAPTER
from parentage.manifest.errors import RecipeError
from parentage.manifest.mergekit_config import Config, paths_of
from parentage.manifest.model import Model
from parentage.manifest.steps import Material
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec

Document = dict[str, Any]
EMBEDDINGS: Final = "model.embed_tokens.weight"
HEAD: Final = "lm_head.weight"
#: A head, and the embeddings that stand in for it, whichever a model has.
_TIED: Final[Mapping[str, tuple[str, ...]]] = {
    HEAD: (
        *(EMBEDDINGS, "model.language_model.embed_tokens.weight", "transformer.wte.weight"),
        *("wte.weight", "backbone.embeddings.weight"),
    ),
    "output.weight": ("model.tok_embeddings.weight",),
}


class Prepared(msgspec.Struct):
    """A model on its way into the merge.

    Attributes:
        id: of the parent or step that gives it.
        specs: its tensors.
        model: its base's files.
    """

    id: str
    specs: dict[str, TensorSpec]
    model: Model


class Inputs(msgspec.Struct):
    """All models of a config, prepared.

    Attributes:
        models: by reference, in the config's order.
        steps: what was done to them.
        materials: files that this was resolved with.
    """

    models: dict[str, Prepared] = msgspec.field(default_factory=dict)
    steps: list[Document] = msgspec.field(default_factory=list)
    materials: list[Material] = msgspec.field(default_factory=list)

    def add(self, reference: str, kind: str, step: Document, specs: dict[str, TensorSpec]) -> None:
        """Append a step to what happens to a model."""
        step["id"] = f"{kind}-{sum(s['id'].startswith(f'{kind}-') for s in self.steps) + 1}"
        self.steps.append(step)
        held = self.models[reference]
        self.models[reference] = Prepared(step["id"], specs, held.model)

    @property
    def dtypes(self) -> set[str]:
        """Return the float dtypes of all models."""
        specs = (spec for held in self.models.values() for spec in held.specs.values())
        return {spec.dtype for spec in specs} & FLOAT_DTYPES


def apply_adapters(
    inputs: Inputs,
    opened: Mapping[str, Model],
    ids: Mapping[str, str],
    profile: str,
    store: str | None,
) -> None:
    """Merge the adapter of every "model+adapter".

    Args:
        inputs: changed in place.
        opened: models and adapters, by path.
        ids: the recipe's ids, by path.
        profile: which mergekit.
        store: of `--lora-merge-dtype`.

    Raises:
        RecipeError: an adapter that can't be imported.
    """
    for reference, held in list(inputs.models.items()):
        path = paths_of(reference)[1]
        if path is None:
            continue
        adapter = read_adapter(opened[path].root)
        inputs.materials.append(Material(sha256=adapter.sha256, name=f"{ids[path]}/{ADAPTER}"))
        missing = [name for name in adapter.targets if name not in held.specs]
        if missing:
            raise RecipeError("adapter finds no tensor", where=ids[path], found=missing[0])
        own = _own_dtype(held.specs)
        dtype = store or ("F32" if profile == "mk-0.1.4" else own)
        specs = {name: _as(spec, dtype) for name, spec in held.specs.items()}
        source = held.id
        if any(spec.dtype != dtype for spec in held.specs.values() if spec.dtype in FLOAT_DTYPES):
            arithmetic = {"profile": "parentage-1", "store": dtype}
            cast = {"op": "cast/v1", "inputs": [source], "arithmetic": arithmetic}
            inputs.add(reference, "cast", cast, specs)
            source = inputs.models[reference].id
        step = {
            "op": adapter.op,
            "inputs": [source, ids[path]],
            "params": adapter.params,
            "arithmetic": {"profile": "peft"},
        }
        inputs.add(reference, "lora", step, specs)


def tie_heads(inputs: Inputs, config: Config, where: str) -> None:
    """Give models without a head their embeddings as one, where another model has one.

    Raises:
        RecipeError: the models differ in other tensors too.
    """
    # mergekit looks at the sources of the last slice only: the head stands after the layers.
    last = [source.model for source in config.slices[-1].sources]
    for head, embeddings in _TIED.items():
        if not any(head in inputs.models[reference].specs for reference in last):
            continue
        for reference in last:
            specs = inputs.models[reference].specs
            stand_in = next((name for name in embeddings if name in specs), None)
            if head in specs or stand_in is None:
                continue
            step = {
                "op": "tie/v1",
                "inputs": [inputs.models[reference].id],
                "params": {"names": {head: stand_in}},
            }
            tied = specs | {head: msgspec.structs.replace(specs[stand_in], name=head)}
            inputs.add(reference, "tied", step, tied)
    if config.slices[0].sources[0].end < 0:
        first, *others = [inputs.models[reference] for reference in last]
        for other in others:
            odd = sorted(first.specs.keys() ^ other.specs.keys())
            if odd:
                raise RecipeError(
                    "models have different tensors",
                    where=f"{where}: {odd[0]}",
                    found=f"{first.id}, {other.id}",
                )


def _own_dtype(specs: Mapping[str, TensorSpec]) -> str:
    """Return the dtype of most of a model's elements: what transformers loads it in."""
    counts: Counter[str] = Counter()
    for spec in specs.values():
        if spec.dtype in FLOAT_DTYPES:
            counts[spec.dtype] += spec.elements
    return counts.most_common(1)[0][0] if counts else "F32"


def _as(spec: TensorSpec, dtype: str) -> TensorSpec:
    return msgspec.structs.replace(spec, dtype=dtype) if spec.dtype in FLOAT_DTYPES else spec
