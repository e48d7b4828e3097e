"""Import of a `mergekit_config.yml`, all methods of mergekit 0.1.5.

A YAML does not determine the weights: two versions of mergekit agree on 61.6 % of the elements of
the commonest config. So it is resolved tensor by tensor as mergekit does, pinned to an engine
profile, and kept verbatim as evidence with warnings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest.companions import INDEX, read_json
from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.mergekit_config import (
    LAYER,
    Config,
    all_paths,
    layers_of,
    models_of,
    paths_of,
    read,
)
from parentage.manifest.mergekit_inputs import Inputs, Prepared, apply_adapters, tie_heads
from parentage.manifest.mergekit_steps import DTYPES, arithmetic, steps_of
from parentage.manifest.mergekit_vocabulary import permute_vocabulary
from parentage.manifest.model import Model, open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.strict_yaml import parse_yaml

MEDIA_TYPE: Final = "application/vnd.mergekit+yaml"
_MAX_YAML: Final = 1 << 20
#: Names that steps of an import have.
_STEPS: Final = re.compile(r"merge|select|(column|cast|lora|tied|vocabulary)-[0-9]+")


def load_config(
    path: Path,
    *,
    profile: str,
    parents: Mapping[str, Path],
    seed: int | None = None,
    lora_dtype: str | None = None,
    release: Path | None = None,
) -> Recipe:
    """Import a config and resolve it on the tensors of its parents.

    Args:
        path: the YAML.
        profile: "mk-0.1.5" or "mk-0.1.4": the version that ran it, which the YAML does not say.
        parents: folder of each model and adapter, by the id that `model_ids` gives it.
        seed: the `--random-seed` of the run, which the YAML does not say either.
        lora_dtype: its `--lora-merge-dtype`, in mergekit's words, likewise.
        release: what the run made: its tokenizer, and the version in its shard index.

    Raises:
        RecipeError: not a config, or one that can't be imported; the message says why.
        ParentMissingError: a model of the config was not given.
    """
    data = path.read_bytes() if path.stat().st_size <= _MAX_YAML else b""
    if not data:
        raise RecipeError("empty or too large", where=str(path), expected=f"<= {_MAX_YAML} bytes")
    where = path.name
    document = parse_yaml(data, where=where)
    if not isinstance(document, dict):
        raise RecipeError("not a mergekit config", where=where)
    config = read(document, where)
    ids = model_ids(all_paths(models_of(config)))
    for model, name in ids.items():
        if name not in parents:
            raise ParentMissingError(
                f"model of the config not given: {model}", hint=f"add --parent {name}=FOLDER"
            )
    how = arithmetic(document, profile, where)
    with ExitStack() as stack:
        opened = {path: stack.enter_context(open_model(parents[ids[path]])) for path in ids}
        made = stack.enter_context(open_model(release)) if release is not None else None
        inputs = _prepare(config, document, opened, ids, how, lora_dtype, made, where)
    names = sorted(inputs.models[models_of(config)[0]].specs)
    if any(map(LAYER.match, names)):
        config.layers = layers_of(names)[1]
    sources = {reference: held.id for reference, held in inputs.models.items()}
    steps = steps_of(config, how, sources, names, inputs.dtypes, seed, where)
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": name, "uri": _uri(model)} for model, name in ids.items()],
            "steps": [*inputs.steps, *steps],
            "source": {
                "mediaType": MEDIA_TYPE,
                "sha256": hashlib.sha256(data).hexdigest(),
                "text": data.decode("utf-8"),
                "warnings": config.warnings,
                "materials": msgspec.to_builtins(inputs.materials),
            },
        },
        where=where,
    )


def _prepare(
    config: Config,
    document: Mapping[str, Any],
    opened: Mapping[str, Model],
    ids: Mapping[str, str],
    how: dict[str, Any],
    lora_dtype: str | None,
    release: Model | None,
    where: str,
) -> Inputs:
    """Do to the models what mergekit does before it merges them."""
    inputs = Inputs()
    for reference in models_of(config):
        path = paths_of(reference)[0]
        specs = {name: tensor.spec for name, tensor in opened[path].tensors.items()}
        inputs.models[reference] = Prepared(ids[path], specs, opened[path])
    if lora_dtype is not None and lora_dtype not in DTYPES:
        raise RecipeError("unknown dtype", expected=", ".join(DTYPES), found=lora_dtype)
    store = DTYPES[lora_dtype] if lora_dtype else None
    apply_adapters(inputs, opened, ids, how["profile"], store)
    tie_heads(inputs, config, where)
    permute_vocabulary(inputs, document, config, how, release, where)
    if document.get("chat_template"):
        config.warnings.append("chat_template changes the tokenizer's files, no weight")
    if release is not None:
        _check_version(config, release, how["profile"])
    return inputs


def _check_version(config: Config, release: Model, profile: str) -> None:
    """Compare the profile with the version that mergekit writes where it makes more than one shard."""
    metadata = (read_json(release, INDEX) or {}).get("metadata")
    version = metadata.get("mergekit_version") if isinstance(metadata, dict) else None
    if isinstance(version, str) and f"mk-{version}" != profile:
        config.warnings.append(
            f"{INDEX} names mergekit {version[:40]}, not the profile's {profile.removeprefix('mk-')}"
        )


def model_ids(models: Iterable[str]) -> dict[str, str]:
    """Return a recipe id for each model reference: its last part, made unique."""
    found: dict[str, str] = {}
    for model in models:
        last = model.partition("@")[0].rstrip("/").rpartition("/")[2].lower()
        name = re.sub(r"[^a-z0-9._-]", "-", last).lstrip("._-")[:50] or "model"
        name += "-model" * (_STEPS.fullmatch(name) is not None)
        taken = set(found.values())
        suffix = next(
            n for n in range(1, len(taken) + 2) if (name if n == 1 else f"{name}-{n}") not in taken
        )
        found[model] = name if suffix == 1 else f"{name}-{suffix}"
    return found


def _uri(model: str) -> str:
    name, _, revision = model.partition("@")
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()
    return f"pkg:huggingface/{name.lower()}{f'@{revision}' if revision else ''}" if is_hub else ""
