"""Import of a `mergekit_config.yml`: linear, slerp, task_arithmetic and passthrough.

A YAML does not determine the weights: two versions of mergekit agree on 61.6 % of the elements of
the commonest config. So it is resolved tensor by tensor as mergekit does, pinned to an engine
profile, and kept verbatim as evidence with warnings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.mergekit_config import (
    LAYER,
    Config,
    Source,
    flag,
    layers_of,
    models_of,
    of_model,
    read,
    scalar,
    shared,
)
from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.strict_yaml import parse_yaml

MEDIA_TYPE: Final = "application/vnd.mergekit+yaml"
_DTYPES: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
_MAX_YAML: Final = 1 << 20

T = TypeVar("T", bound=Hashable)


def load_config(path: Path, *, profile: str, parents: Mapping[str, Path]) -> Recipe:
    """Import a config and resolve it on the tensors of its parents.

    Args:
        path: the YAML.
        profile: "mk-0.1.5" or "mk-0.1.4": the version that ran it, which the YAML does not say.
        parents: folder of each model, by the id that `model_ids` gives it.

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
    ids = model_ids(models_of(config))
    for model, name in ids.items():
        if name not in parents:
            raise ParentMissingError(
                f"model of the config not given: {model}", hint=f"add --parent {name}=FOLDER"
            )
    names = _tensor_names(parents[ids[models_of(config)[0]]])
    if any(map(LAYER.match, names)):
        config.layers = layers_of(names)[1]
    step = _step(config, document, ids, names, profile, where)
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": name, "uri": _uri(model)} for model, name in ids.items()],
            "steps": [step],
            "source": {
                "mediaType": MEDIA_TYPE,
                "sha256": hashlib.sha256(data).hexdigest(),
                "text": data.decode("utf-8"),
                "warnings": config.warnings,
            },
        },
        where=where,
    )


def model_ids(models: Iterable[str]) -> dict[str, str]:
    """Return a recipe id for each model reference: its last part, made unique."""
    found: dict[str, str] = {}
    for model in models:
        last = model.partition("@")[0].rstrip("/").rpartition("/")[2].lower()
        name = re.sub(r"[^a-z0-9._-]", "-", last).lstrip("._-")[:60] or "model"
        taken = set(found.values())
        suffix = next(
            n for n in range(1, len(taken) + 2) if (name if n == 1 else f"{name}-{n}") not in taken
        )
        found[model] = name if suffix == 1 else f"{name}-{suffix}"
    return found


def _step(
    config: Config,
    document: Mapping[str, Any],
    ids: Mapping[str, str],
    names: list[str],
    profile: str,
    where: str,
) -> dict[str, Any]:
    if config.method == "passthrough":
        return _passthrough(config, ids, names, where)
    arithmetic: dict[str, Any] = {"profile": profile}
    for key, target in (("dtype", "compute"), ("out_dtype", "store")):
        if document.get(key) is not None:
            arithmetic[target] = _dtype(str(document[key]), where)
    _check_slices(config, names, where)
    inputs = _inputs(config, where)
    step: dict[str, Any] = {
        "id": "merge",
        "inputs": [ids[model] for model in inputs],
        "arithmetic": arithmetic,
    }
    if config.method == "slerp":
        ts = {name: shared(config, name, "t", where) for name in names}
        t, overrides = _grouped(ts)
        listed = [{"tensors": tensors, "t": value} for value, tensors in overrides.items()]
        return step | {"op": "slerp/v1", "params": {"t": t, "overrides": listed}}
    weighted = [model for model in inputs if config.method == "linear" or model != config.base]
    rows = {
        name: tuple(of_model(config, name, model, "weight", where) for model in weighted)
        for name in names
    }
    weights, others = _grouped(rows)
    params: dict[str, Any] = {
        "weights": list(weights),
        "normalize": flag(config, "normalize", default=config.method == "linear", where=where),
        "overrides": [
            {"tensors": tensors, "weights": list(row)} for row, tensors in others.items()
        ],
    }
    if config.method == "task_arithmetic":
        params |= {
            "base": ids[config.base or ""],
            "scale": scalar(config.parameters.get("lambda", 1), where),
        }
    return step | {"op": "weighted_sum/v1", "params": params}


def _passthrough(
    config: Config, ids: Mapping[str, str], names: list[str], where: str
) -> dict[str, Any]:
    if any(
        "scale" in s for s in (config.parameters, *(p.parameters for p in config.slices))
    ) or any("scale" in source.parameters for part in config.slices for source in part.sources):
        raise RecipeError("passthrough with a scale is not imported yet", where=where)
    prefix, count = layers_of(names)
    sources: list[Source] = []
    for part in config.slices:
        if len(part.sources) != 1:
            raise RecipeError("passthrough takes one source a slice", where=where)
        sources += part.sources
    slices = [
        {"input": ids[s.model], "start": s.start, "end": count if s.end < 0 else s.end}
        for s in sources
    ]
    # mergekit takes what stands before the layers from the first slice, the rest from the last.
    rest = [
        {"tensors": "*embed*", "input": ids[sources[0].model]},
        {"tensors": "*", "input": ids[sources[-1].model]},
    ]
    inputs = list(dict.fromkeys(ids[s.model] for s in sources))
    params = {"prefix": prefix, "slices": slices, "rest": rest}
    return {"id": "merge", "op": "layer_select/v1", "inputs": inputs, "params": params}


def _inputs(config: Config, where: str) -> list[str]:
    """Return the models in mergekit's order; the base is appended where it is not listed."""
    models = [source.model for source in config.slices[0].sources]
    if config.method == "linear":
        # A base that is not among the models would be merged with a weight that nobody gave.
        return models
    if config.base is None:
        raise RecipeError(f"{config.method} needs a base_model", where=where)
    if config.method == "slerp":
        others = [model for model in models if model != config.base]
        if len(others) != 1:
            raise RecipeError("slerp takes a base and one other model", where=where)
        return [config.base, others[0]]
    return models if config.base in models else [*models, config.base]


def _check_slices(config: Config, names: list[str], where: str) -> None:
    """Accept slices that leave every layer in its place."""
    if config.slices[0].sources[0].end < 0:
        return
    _, count = layers_of(names)
    at = 0
    for part in config.slices:
        spans = {(source.start, source.end) for source in part.sources}
        if spans != {(at, part.sources[0].end)} or part.sources[0].end <= at:
            raise RecipeError(
                "slices that move layers are imported for passthrough only",
                where=where,
                found=str(sorted(spans)),
            )
        at = part.sources[0].end
    if at != count:
        raise RecipeError(
            "slices leave layers out", where=where, expected=str(count), found=str(at)
        )


def _grouped(values: Mapping[str, T]) -> tuple[T, dict[T, list[str]]]:
    """Return the commonest value, and the tensors that have another, by value."""
    groups: dict[T, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    common = max(groups, key=lambda value: len(groups[value]))
    return common, {value: names for value, names in groups.items() if value != common}


def _tensor_names(path: Path) -> list[str]:
    with open_model(path) as model:
        return sorted(model.tensors)


def _dtype(name: str, where: str) -> str:
    if name not in _DTYPES:
        raise RecipeError("unknown dtype", where=where, expected=", ".join(_DTYPES), found=name)
    return _DTYPES[name]


def _uri(model: str) -> str:
    name, _, revision = model.partition("@")
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()
    return f"pkg:huggingface/{name.lower()}{f'@{revision}' if revision else ''}" if is_hub else ""
