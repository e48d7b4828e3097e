"""Steps of a checkpoint merge in the making, and what webui does to names when it reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from parentage.manifest.errors import RecipeError
from parentage.manifest.recipe import MAX_STEPS
from parentage.manifest.tensor import TensorSpec

Document = dict[str, Any]
POSITIONS: Final = "cond_stage_model.transformer.text_model.embeddings.position_ids"
#: modules/sd_models.py (8faafb6), get_state_dict_from_checkpoint.
_SD1: Final = {
    f"cond_stage_model.transformer.{part}.": f"cond_stage_model.transformer.text_model.{part}."
    for part in ("embeddings", "encoder", "final_layer_norm")
}
_TURBO: Final = {"conditioner.embedders.0.": "cond_stage_model."}
_TURBO_SIGN: Final = "conditioner.embedders.0.model.ln_final.weight"


class Checkpoint(msgspec.Struct, frozen=True):
    """A parent, or the output of a step.

    Attributes:
        id: of it.
        specs: its tensors.
        sha256: of the file, if it is one.
    """

    id: str
    specs: Mapping[str, TensorSpec]
    sha256: str = ""


class Merge(msgspec.Struct):
    """What is known so far.

    Attributes:
        release: tensors of what the merge made.
        steps: in order.
        warnings: what the document does not say.
    """

    release: Mapping[str, TensorSpec]
    steps: list[Document] = msgspec.field(default_factory=list)
    warnings: list[str] = msgspec.field(default_factory=list)

    def add(self, step: Document, specs: Mapping[str, TensorSpec]) -> Checkpoint:
        """Append a step; its number is its id."""
        if len(self.steps) >= MAX_STEPS:
            raise RecipeError("recipe with too many steps", expected=f"<= {MAX_STEPS}")
        step["id"] = f"step-{len(self.steps) + 1}"
        self.steps.append(step)
        return Checkpoint(step["id"], specs)

    def function(
        self,
        profile: str,
        inputs: list[Checkpoint],
        specs: Mapping[str, TensorSpec],
        **params: Any,  # noqa: ANN401
    ) -> Checkpoint:
        """Append a checkpoint_merge step."""
        return self.add(
            {
                "op": "checkpoint_merge/v1",
                "inputs": [checkpoint.id for checkpoint in inputs],
                "params": params,
                "arithmetic": {"profile": profile},
            },
            specs,
        )

    def without_absent(self, checkpoint: Checkpoint) -> Checkpoint:
        """Drop what the release lacks: tensors pruned or discarded by a pattern that is not run here."""
        absent = sorted(checkpoint.specs.keys() - self.release.keys())
        if not absent:
            return checkpoint
        if len(absent) == len(checkpoint.specs):
            raise RecipeError("the release has none of its parents' tensors")
        self.warnings.append(f"{len(absent)} tensors of the merge are not in the release")
        specs = {name: spec for name, spec in checkpoint.specs.items() if name in self.release}
        step = {"op": "copy/v1", "inputs": [checkpoint.id], "params": {"exclude": absent}}
        return self.add(step, specs)

    def as_loaded(self, checkpoint: Checkpoint) -> Checkpoint:
        """Rename tensors as webui does when it reads a file."""
        sign = checkpoint.specs.get(_TURBO_SIGN)
        renames = _TURBO if sign is not None and sign.shape[:1] == (1024,) else _SD1
        names: dict[str, str] = {}
        for old in checkpoint.specs:
            new = old
            for start, other in renames.items():
                if new.startswith(start):
                    new = other + new.removeprefix(start)
            if new != old:
                names[old] = new
        if not names:
            return checkpoint
        specs = {
            names.get(name, name): msgspec.structs.replace(spec, name=names.get(name, name))
            for name, spec in checkpoint.specs.items()
        }
        step = {"op": "rename/v1", "inputs": [checkpoint.id], "params": {"names": names}}
        return self.add(step, specs)


def exact(value: Any, where: str) -> str:  # noqa: ANN401
    """Return a JSON number as the exact float64 that Python made of it.

    Raises:
        RecipeError: no number between -100 and 100.
    """
    if type(value) in {int, float} and -100 <= value <= 100:
        return "0" if value == 0 else float(value).hex()
    raise RecipeError("not a number", where=where, found=str(value))
