"""A `mergekit_config.yml` as read, and each of its parameters resolved for one tensor.

Follows mergekit/config.py and parameter_resolver.py of mergekit 0.1.5: filters, gradients, and the
order source, slice, document in which a parameter is looked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from parentage.manifest.errors import RecipeError

_TOP: Final = frozenset(
    {"models", "slices", "merge_method", "base_model", "dtype", "out_dtype", "parameters"}
    | {"tokenizer_source", "tokenizer", "chat_template"}
)
_TASK: Final = {"normalize", "lambda", "int8_mask", "rescale", "weight", "density"}
#: The parameters that each method reads (merge_methods/*.py, 0.1.5); the rest has no effect.
PARAMETERS: Final[Mapping[str, set[str]]] = {
    "linear": {"weight", "normalize"},
    "slerp": {"t"},
    "nuslerp": {"weight", "nuslerp_row_wise", "nuslerp_flatten"},
    "multislerp": {"weight", "normalize_weights", "eps"},
    "karcher": {"max_iter", "tol"},
    "task_arithmetic": _TASK - {"density"},
    "ties": _TASK,
    "dare_linear": _TASK,
    "dare_ties": _TASK,
    "breadcrumbs": _TASK | {"gamma"},
    "breadcrumbs_ties": _TASK | {"gamma"},
    "della": _TASK | {"epsilon"},
    "della_linear": _TASK | {"epsilon"},
    "model_stock": {"filter_wise"},
    "sce": {"select_topk", "int8_mask"},
    "nearswap": {"t"},
    "arcee_fusion": set(),
    "ram": {"epsilon"},
    "ramplus_tl": {"epsilon", "r", "alpha"},
    "passthrough": {"scale"},
}
#: Methods that take no task vectors.
BASELESS: Final = frozenset({"linear", "passthrough", "karcher"})
_NOT_ADDED: Final = frozenset({"linear", "passthrough"})
LAYER: Final = re.compile(r"^(.*?\b(?:layers|layer|h|blocks)\.)(\d+)\.")

Settings = Mapping[str, Any]


class Source(msgspec.Struct):
    """One model in one slice."""

    model: str
    parameters: Settings
    start: int = 0
    end: int = -1


class Slice(msgspec.Struct):
    """One output slice: sources and its own parameters."""

    sources: list[Source]
    parameters: Settings


class Config(msgspec.Struct):
    """A config as read, before anything is resolved."""

    method: str
    base: str | None
    slices: list[Slice]
    parameters: Settings
    layers: int = 1
    warnings: list[str] = msgspec.field(default_factory=list)


def read(document: dict[str, Any], where: str) -> Config:
    """Read a parsed YAML.

    Raises:
        RecipeError: a method that is not imported, or a structure that mergekit would not take.
    """
    method = str(document.get("merge_method"))
    if method not in PARAMETERS:
        raise RecipeError(
            "no merge method of mergekit", where=where, expected=", ".join(PARAMETERS), found=method
        )
    if ("models" in document) == ("slices" in document):
        raise RecipeError("needs either models or slices", where=where)
    base = document.get("base_model")
    config = Config(
        method, str(base) if base else None, [], mapping(document.get("parameters"), where)
    )
    if "models" in document:
        sources = [_source(entry, f"{where}: models") for entry in _list(document["models"], where)]
        if config.base and method not in _NOT_ADDED:
            sources += [Source(config.base, {})] * all(s.model != config.base for s in sources)
        config.slices = [Slice(sources, {})]
    else:
        for entry in _list(document["slices"], where):
            at = f"{where}: slices"
            parts = mapping(entry, at)
            sources = [
                _source(source, at, ranged=True) for source in _list(parts.get("sources"), at)
            ]
            config.slices.append(Slice(sources, mapping(parts.get("parameters"), at)))
    _warn(config, document)
    return config


def _source(entry: Any, where: str, *, ranged: bool = False) -> Source:  # noqa: ANN401
    parts = mapping(entry, where)
    if not isinstance(parts.get("model"), str):
        raise RecipeError("entry without a model", where=where, found=str(parts.get("model")))
    source = Source(parts["model"], mapping(parts.get("parameters"), where))
    if ranged:
        span = parts.get("layer_range")
        if not isinstance(span, list) or len(span) != 2 or not all(type(n) is int for n in span):
            raise RecipeError("layer_range is not [start, end]", where=where, found=str(span))
        source.start, source.end = span
    return source


def _warn(config: Config, document: Mapping[str, Any]) -> None:
    """Note what mergekit passes over in silence and what the YAML can't say."""
    warnings = config.warnings
    warnings += [
        f"{model}: no revision in the YAML" for model in models_of(config) if "@" not in model
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
        unknown = sorted(set(settings) - PARAMETERS[config.method])
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


def models_of(config: Config) -> list[str]:
    """Return every model once, in order; the base last where it is not listed."""
    listed = [source.model for part in config.slices for source in part.sources]
    base = [config.base] if config.base and config.method not in _NOT_ADDED else []
    return list(dict.fromkeys([*listed, *base]))


def place(config: Config, name: str) -> tuple[Slice, int, float]:
    """Return the slice that makes a tensor, the layer inside it, and mergekit's t there.

    Outside the layers t is 0: what stands before them belongs to the first slice, the rest to the last.
    """
    found = LAYER.match(name)
    if found is None:
        return config.slices[0 if "embed" in name else -1], 0, 0.0
    layer = int(found.group(2))
    for part in config.slices:
        count = length(config, part)
        if layer < count:
            return part, layer, layer / (count - 1) if count > 1 else 1.0
        layer -= count
    return config.slices[-1], layer, 1.0


def length(config: Config, part: Slice) -> int:
    """Return how many layers a slice makes."""
    first = part.sources[0]
    return (config.layers if first.end < 0 else first.end) - first.start


def input_name(config: Config, name: str, source: Source) -> str:
    """Return the tensor of a source that goes into an output tensor."""
    found = LAYER.match(name)
    if found is None:
        return name
    _, layer, _ = place(config, name)
    return f"{found.group(1)}{source.start + layer}.{name[found.end() :]}"


def shared(config: Config, name: str, key: str, where: str, default: str | None = None) -> str:
    """Return a parameter of the whole merge for one tensor, as an exact number."""
    part, _, t = place(config, name)
    value = _lookup([part.parameters, config.parameters], name, key, t, where)
    if value is None:
        value = default
    if value is None:
        raise RecipeError("parameter missing", where=f"{where}: {name}", expected=key)
    return value


def of_source(
    config: Config, name: str, column: int, key: str, where: str, default: str | None = None
) -> str:
    """Return a parameter of one source for one output tensor, as an exact number."""
    part, _, t = place(config, name)
    source = part.sources[column]
    scopes = [source.parameters, part.parameters, config.parameters]
    value = _lookup(scopes, input_name(config, name, source), key, t, where)
    if value is None:
        value = default
    if value is None:
        raise RecipeError(
            "parameter missing", where=f"{where}: {source.model}: {name}", expected=key
        )
    return value


def _lookup(scopes: Sequence[Settings], name: str, key: str, t: float, where: str) -> str | None:
    for scope in scopes:
        if key in scope:
            value = _evaluate(scope[key], name, t, where)
            if value is not None:
                return value
    return None


def _evaluate(setting: Any, name: str, t: float, where: str) -> str | None:  # noqa: ANN401
    """Resolve filters and gradients (mergekit/config.py, evaluate_setting)."""
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return scalar(setting, where)
    if not setting:
        return None
    if not any(isinstance(entry, dict) for entry in setting):
        return _gradient([scalar(entry, where) for entry in setting], t)
    for entry in setting:
        condition = mapping(entry, where)
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


def scalar(value: Any, where: str) -> str:  # noqa: ANN401
    """Return a number as an exact decimal; 1e-3 becomes 0.001."""
    number = Decimal("NaN")
    if isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(InvalidOperation):
            number = Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > 40:
        raise RecipeError("parameter is not a number", where=where, found=str(value))
    return format(number, "f") if number else "0"


def flag(config: Config, key: str, *, default: bool, where: str) -> bool:
    """Return a switch, which must be the same everywhere."""
    scopes = [*(part.parameters for part in config.slices), config.parameters]
    found = [scope[key] for scope in scopes if key in scope] or [default]
    if len(found) != 1 or not isinstance(found[0], bool):
        raise RecipeError(f"{key} is not one true or false", where=where, found=str(found))
    return found[0]


def layers_of(names: Iterable[str]) -> tuple[str, int]:
    """Return what stands before the layer number, and how many layers there are."""
    found: dict[str, int] = {}
    for name in names:
        match = LAYER.match(name)
        if match:
            found[match.group(1)] = max(found.get(match.group(1), 0), int(match.group(2)) + 1)
    if len(found) != 1:
        raise RecipeError("can't tell the layers of this model", found=str(sorted(found)))
    return next(iter(found.items()))


def mapping(value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    """Return a mapping; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError("not a mapping", where=where, found=str(value))
    return value


def _list(value: Any, where: str) -> list[Any]:  # noqa: ANN401
    if not isinstance(value, list) or not value or len(value) > 4096:
        raise RecipeError("not a list of at most 4096 entries", where=where, found=str(value))
    return value
