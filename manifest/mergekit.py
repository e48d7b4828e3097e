"""Import of a `mergekit_config.yml`: linear, slerp, task_arithmetic and passthrough.

A YAML does not determine the weights: two versions of mergekit agree on 61.6 % of the elements of
the commonest config. So it is resolved tensor by tensor as mergekit does (mergekit/config.py and
parameter_resolver.py), pinned to an engine profile, and kept verbatim as evidence with warnings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.strict_yaml import parse_yaml

MEDIA_TYPE: Final = "application/vnd.mergekit+yaml"
METHODS: Final = ("linear", "passthrough", "slerp", "task_arithmetic")
_DTYPES: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64"}
_TOP: Final = frozenset(
    {"models", "slices", "merge_method", "base_model", "dtype", "out_dtype", "parameters"}
    | {"tokenizer_source", "tokenizer", "chat_template"}
)
_PARAMETERS: Final = {
    "linear": {"weight", "normalize"},
    "slerp": {"t"},
    "task_arithmetic": {"weight", "normalize", "lambda", "int8_mask", "rescale"},
    "passthrough": {"scale"},
}
_LAYER: Final = re.compile(r"^(.*?\b(?:layers|layer|h|blocks)\.)(\d+)\.")
_MAX_YAML: Final = 1 << 20

Settings = Mapping[str, Any]
T = TypeVar("T", bound=Hashable)


class _Source(msgspec.Struct):
    """One model in one slice."""

    model: str
    parameters: Settings
    start: int = 0
    end: int = -1


class _Slice(msgspec.Struct):
    """One output slice: sources and its own parameters."""

    sources: list[_Source]
    parameters: Settings


class _Config(msgspec.Struct):
    """A config as read, before anything is resolved."""

    method: str
    base: str | None
    slices: list[_Slice]
    parameters: Settings
    layers: int = 1
    warnings: list[str] = msgspec.field(default_factory=list)


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
    config = _read(document, where)
    ids = model_ids(_models(config))
    for model, name in ids.items():
        if name not in parents:
            raise ParentMissingError(
                f"model of the config not given: {model}", hint=f"add --parent {name}=FOLDER"
            )
    names = _tensor_names(parents[ids[_models(config)[0]]])
    if any(map(_LAYER.match, names)):
        config.layers = _layers(names)[1]
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


def _read(document: dict[str, Any], where: str) -> _Config:
    method = str(document.get("merge_method"))
    if method not in METHODS:
        raise RecipeError(
            "merge method not imported yet", where=where, expected=", ".join(METHODS), found=method
        )
    if ("models" in document) == ("slices" in document):
        raise RecipeError("needs either models or slices", where=where)
    base = document.get("base_model")
    config = _Config(
        method, str(base) if base else None, [], _mapping(document.get("parameters"), where)
    )
    if "models" in document:
        sources = [_source(entry, f"{where}: models") for entry in _list(document["models"], where)]
        config.slices = [_Slice(sources, {})]
    else:
        for entry in _list(document["slices"], where):
            at = f"{where}: slices"
            parts = _mapping(entry, at)
            sources = [
                _source(source, at, ranged=True) for source in _list(parts.get("sources"), at)
            ]
            config.slices.append(_Slice(sources, _mapping(parts.get("parameters"), at)))
    _warn(config, document)
    return config


def _source(entry: Any, where: str, *, ranged: bool = False) -> _Source:  # noqa: ANN401
    parts = _mapping(entry, where)
    if not isinstance(parts.get("model"), str):
        raise RecipeError("entry without a model", where=where, found=str(parts.get("model")))
    source = _Source(parts["model"], _mapping(parts.get("parameters"), where))
    if ranged:
        span = parts.get("layer_range")
        if not isinstance(span, list) or len(span) != 2 or not all(type(n) is int for n in span):
            raise RecipeError("layer_range is not [start, end]", where=where, found=str(span))
        source.start, source.end = span
    return source


def _warn(config: _Config, document: Mapping[str, Any]) -> None:
    """Note what mergekit passes over in silence and what the YAML can't say."""
    warnings = config.warnings
    warnings += [
        f"{model}: no revision in the YAML" for model in _models(config) if "@" not in model
    ]
    warnings.append(
        "the YAML does not say which version of mergekit ran it; the profile is the signer's claim"
    )
    if document.get("dtype") is None:
        warnings.append("no dtype: arithmetic in whatever dtype the inputs promote to")
    warnings += [f"unknown key, dropped by mergekit: {key}" for key in sorted(set(document) - _TOP)]
    scopes = [("parameters", config.parameters)]
    for number, part in enumerate(config.slices):
        scopes.append((f"slices[{number}].parameters", part.parameters))
        scopes += [(f"{source.model}.parameters", source.parameters) for source in part.sources]
    for name, settings in scopes:
        unknown = sorted(set(settings) - _PARAMETERS[config.method])
        warnings += [
            f"parameter without effect on {config.method}: {name}.{key}" for key in unknown
        ]
    tokenizer = document.get("tokenizer")
    source = document.get("tokenizer_source") or (
        tokenizer.get("source") if isinstance(tokenizer, dict) else None
    )
    if source == "union":
        warnings.append(
            "union tokenizer: the order of added tokens is random, so embeddings can't be recomputed"
        )
    elif source or tokenizer:
        warnings.append("tokenizer options: a permuted vocabulary is not part of the recipe")


def _step(
    config: _Config,
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
        ts = {name: _shared(config, name, "t", where) for name in names}
        t, overrides = _grouped(ts)
        listed = [{"tensors": tensors, "t": value} for value, tensors in overrides.items()]
        return step | {"op": "slerp/v1", "params": {"t": t, "overrides": listed}}
    weighted = [model for model in inputs if config.method == "linear" or model != config.base]
    rows = {
        name: tuple(_of_model(config, name, model, "weight", where) for model in weighted)
        for name in names
    }
    weights, others = _grouped(rows)
    params: dict[str, Any] = {
        "weights": list(weights),
        "normalize": _flag(config, "normalize", default=config.method == "linear", where=where),
        "overrides": [
            {"tensors": tensors, "weights": list(row)} for row, tensors in others.items()
        ],
    }
    if config.method == "task_arithmetic":
        params |= {
            "base": ids[config.base or ""],
            "scale": _scalar(config.parameters.get("lambda", 1), where),
        }
    return step | {"op": "weighted_sum/v1", "params": params}


def _passthrough(
    config: _Config, ids: Mapping[str, str], names: list[str], where: str
) -> dict[str, Any]:
    if any(
        "scale" in s for s in (config.parameters, *(p.parameters for p in config.slices))
    ) or any("scale" in source.parameters for part in config.slices for source in part.sources):
        raise RecipeError("passthrough with a scale is not imported yet", where=where)
    prefix, count = _layers(names)
    sources: list[_Source] = []
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


def _inputs(config: _Config, where: str) -> list[str]:
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


def _check_slices(config: _Config, names: list[str], where: str) -> None:
    """Accept slices that leave every layer in its place."""
    if config.slices[0].sources[0].end < 0:
        return
    _, count = _layers(names)
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


def _place(config: _Config, name: str) -> tuple[_Slice, float]:
    """Return the slice that a tensor belongs to and its t inside it; 0 outside the layers."""
    found = _LAYER.match(name)
    if found is None:
        return config.slices[0 if "embed" in name else -1], 0.0
    layer = int(found.group(2))
    for part in config.slices:
        start, end = part.sources[0].start, part.sources[0].end
        if end < 0 or start <= layer < end:
            return part, layer - start
    return config.slices[-1], layer


def _lookup(config: _Config, name: str, key: str, scopes: list[Settings], where: str) -> str | None:
    part, offset = _place(config, name)
    first = part.sources[0]
    layers = (config.layers if first.end < 0 else first.end) - first.start
    inside = _LAYER.match(name) is not None
    t = (offset / (layers - 1) if layers > 1 else 1.0) if inside else 0.0
    for scope in scopes:
        if key in scope:
            value = _evaluate(scope[key], name, t, where)
            if value is not None:
                return value
    return None


def _shared(config: _Config, name: str, key: str, where: str) -> str:
    part, _ = _place(config, name)
    value = _lookup(config, name, key, [part.parameters, config.parameters], where)
    if value is None:
        raise RecipeError("parameter missing", where=f"{where}: {name}", expected=key)
    return value


def _of_model(config: _Config, name: str, model: str, key: str, where: str) -> str:
    part, _ = _place(config, name)
    own = [source.parameters for source in part.sources if source.model == model]
    value = _lookup(config, name, key, [*own, part.parameters, config.parameters], where)
    if value is None:
        raise RecipeError("parameter missing", where=f"{where}: {model}: {name}", expected=key)
    return value


def _evaluate(setting: Any, name: str, t: float, where: str) -> str | None:  # noqa: ANN401
    """Resolve filters and gradients (mergekit/config.py, evaluate_setting)."""
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return _scalar(setting, where)
    if not setting:
        return None
    if not any(isinstance(entry, dict) for entry in setting):
        return _gradient([_scalar(entry, where) for entry in setting], t)
    for entry in setting:
        condition = _mapping(entry, where)
        wanted = condition.get("filter")
        if wanted is None or wanted == "*" or str(wanted) in name:
            return _evaluate(condition.get("value"), name, t, where)
    return None


def _gradient(values: list[str], t: float) -> str:
    """Interpolate in float64 exactly as mergekit does; the result is a hex float."""
    numbers = [float(Decimal(value)) for value in values]
    scaled = t * (len(numbers) - 1)
    low = int(scaled)
    high = min(len(numbers) - 1, low + 1)
    part = scaled - low
    return ((1 - part) * numbers[low] + part * numbers[high]).hex()


def _scalar(value: Any, where: str) -> str:  # noqa: ANN401
    """Return a number as an exact decimal; 1e-3 becomes 0.001."""
    number = Decimal("NaN")
    if isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > 40:
        raise RecipeError("parameter is not a number", where=where, found=str(value))
    return format(number, "f") if number else "0"


def _flag(config: _Config, key: str, *, default: bool, where: str) -> bool:
    scopes = [*(part.parameters for part in config.slices), config.parameters]
    found = [scope[key] for scope in scopes if key in scope] or [default]
    if len(found) != 1 or not isinstance(found[0], bool):
        raise RecipeError(f"{key} is not one true or false", where=where, found=str(found))
    return found[0]


def _grouped(values: Mapping[str, T]) -> tuple[T, dict[T, list[str]]]:
    """Return the commonest value, and the tensors that have another, by value."""
    groups: dict[T, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    common = max(groups, key=lambda value: len(groups[value]))
    return common, {value: names for value, names in groups.items() if value != common}


def _layers(names: Iterable[str]) -> tuple[str, int]:
    found: dict[str, int] = {}
    for name in names:
        match = _LAYER.match(name)
        if match:
            found[match.group(1)] = max(found.get(match.group(1), 0), int(match.group(2)) + 1)
    if len(found) != 1:
        raise RecipeError("can't tell the layers of this model", found=str(sorted(found)))
    return next(iter(found.items()))


def _tensor_names(path: Path) -> list[str]:
    with open_model(path) as model:
        return sorted(model.tensors)


def _models(config: _Config) -> list[str]:
    listed = [source.model for part in config.slices for source in part.sources]
    base = [config.base] if config.base and config.method != "linear" else []
    return list(dict.fromkeys([*listed, *base]))


def _dtype(name: str, where: str) -> str:
    if name not in _DTYPES:
        raise RecipeError("unknown dtype", where=where, expected=", ".join(_DTYPES), found=name)
    return _DTYPES[name]


def _uri(model: str) -> str:
    name, _, revision = model.partition("@")
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()
    return f"pkg:huggingface/{name.lower()}{f'@{revision}' if revision else ''}" if is_hub else ""


def _mapping(value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError("not a mapping", where=where, found=str(value))
    return value


def _list(value: Any, where: str) -> list[Any]:  # noqa: ANN401
    if not isinstance(value, list) or not value or len(value) > 4096:
        raise RecipeError("not a list of at most 4096 entries", where=where, found=str(value))
    return value
