"""A `mergekit_config.yml` as read: every field of mergekit/config.py (0.1.4, 0.1.5), or a refusal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from parentage.manifest.errors import RecipeError

_KEYS: Final[Mapping[str, set[str]]] = {
    "config": {"models", "slices", "modules", "merge_method", "base_model", "dtype", "out_dtype"}
    | {"parameters", "tokenizer_source", "tokenizer", "chat_template"},
    "module": {"models", "slices", "parameters"},
    "slice": {"sources", "base_model", "residual_weight", "parameters"},
    "model": {"model", "parameters"},
    "source": {"model", "layer_range", "parameters"},
    "reference": {"model", "lora", "override_architecture"},
    "path": {"path", "revision"},
}
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
LAYER: Final = re.compile(r"^(.*?\b(?:layers|layer|h|blocks)\.)(\d+)\.")
_MAX_LAYER: Final = 100_000

Settings = Mapping[str, Any]


class Source(msgspec.Struct):
    """One model in one slice; `model` is "path[@revision][+adapter[@revision]]"."""

    model: str
    parameters: Settings
    start: int = 0
    end: int = -1


class Slice(msgspec.Struct):
    """One output slice: sources, its own parameters and base."""

    sources: list[Source]
    parameters: Settings
    base: str | None = None


class Config(msgspec.Struct):
    """A config as read, before anything is resolved."""

    method: str
    base: str | None
    slices: list[Slice]
    parameters: Settings
    module: Settings = {}
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
    base = reference(document["base_model"], where) if document.get("base_model") else None
    config = Config(method, base, [], mapping(document.get("parameters"), where))
    _unknown(config, document, "config", "")
    given = [key for key in ("models", "slices", "modules") if document.get(key)]
    if len(given) != 1:
        raise RecipeError("needs exactly one of models, slices, modules", where=where)
    part = document
    if given == ["modules"]:
        modules = mapping(document["modules"], f"{where}: modules")
        if len(modules) != 1:
            raise RecipeError(
                "models of several modules are not imported", where=where, found=", ".join(modules)
            )
        part = mapping(next(iter(modules.values())), f"{where}: modules")
        _unknown(config, part, "module", "modules: ")
        config.module = mapping(part.get("parameters"), f"{where}: modules")
        if bool(part.get("models")) == bool(part.get("slices")):
            raise RecipeError("module needs either models or slices", where=where)
    _slices(config, part, where)
    _warn(config, document)
    return config


def _slices(config: Config, part: Mapping[str, Any], where: str) -> None:
    if part.get("models"):
        at = f"{where}: models"
        sources = [_source(config, entry, at, "model") for entry in _list(part["models"], at)]
        if config.base and all(source.model != config.base for source in sources):
            sources.append(Source(config.base, {}))
        config.slices = [Slice(sources, {})]
    else:
        at = f"{where}: slices"
        for entry in _list(part["slices"], at):
            piece = mapping(entry, at)
            _unknown(config, piece, "slice", "slices: ")
            if piece.get("residual_weight") is not None:
                config.warnings.append("residual_weight has no effect in mergekit 0.1.4 and 0.1.5")
            sources = [
                _source(config, source, at, "source") for source in _list(piece.get("sources"), at)
            ]
            base = reference(piece["base_model"], at) if piece.get("base_model") else None
            config.slices.append(Slice(sources, mapping(piece.get("parameters"), at), base))
    for made in config.slices:
        models = [source.model for source in made.sources]
        if len(set(models)) != len(models):
            raise RecipeError(
                "the same model twice in one slice", where=where, found=", ".join(models)
            )


def _source(config: Config, entry: Any, where: str, kind: str) -> Source:  # noqa: ANN401
    parts = mapping(entry, where)
    _unknown(config, parts, kind, f"{kind}: ")
    if not parts.get("model"):
        raise RecipeError("entry without a model", where=where, found=str(parts.get("model")))
    source = Source(reference(parts["model"], where), mapping(parts.get("parameters"), where))
    if kind == "source":
        span = parts.get("layer_range")
        numbers = [str(n) for n in span] if isinstance(span, list) else []
        if len(numbers) != 2 or not all(re.fullmatch("[0-9]{1,6}", n) for n in numbers):
            raise RecipeError("layer_range is not [start, end]", where=where, found=str(span))
        source.start, source.end = map(int, numbers)
        if not source.start <= source.end <= _MAX_LAYER:
            raise RecipeError("layer_range runs backwards", where=where, found=str(span))
    return source


def reference(value: Any, where: str) -> str:  # noqa: ANN401
    """Return a model as "path[@revision][+adapter[@revision]]", from its text or object form.

    Raises:
        RecipeError: neither, or more than one `+` or `@`.
    """
    if isinstance(value, str):
        parts = value.split("+")
    else:
        entry = mapping(value, where)
        _closed(entry, "reference", where)
        parts = [_path(entry.get("model"), where)]
        if entry.get("lora") is not None:
            parts.append(_path(entry["lora"], where))
    if len(parts) > 2 or not all(part and part.count("@") <= 1 for part in parts):
        raise RecipeError(
            "not a model", where=where, expected="path[@revision][+adapter]", found=str(value)
        )
    return "+".join(parts)


def _path(value: Any, where: str) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return value
    entry = mapping(value, where)
    _closed(entry, "path", where)
    path, revision = entry.get("path"), entry.get("revision")
    if not isinstance(path, str) or not isinstance(revision, str | int | None):
        raise RecipeError("model without a path", where=where, found=str(value))
    return path if revision is None else f"{path}@{revision}"


def paths_of(model: str) -> tuple[str, str | None]:
    """Return the model and the adapter of a reference."""
    base, _, adapter = model.partition("+")
    return base, adapter or None


def _closed(entry: Mapping[str, Any], kind: str, where: str) -> None:
    """Mergekit drops unknown keys; where a model is named they could name another."""
    unknown = sorted(set(entry) - _KEYS[kind])
    if unknown:
        raise RecipeError("unknown key in a model", where=where, found=unknown[0])


def _unknown(config: Config, entry: Mapping[str, Any], kind: str, prefix: str) -> None:
    config.warnings += [
        f"unknown key, dropped by mergekit: {prefix}{key}"
        for key in sorted(set(entry) - _KEYS[kind])
    ]


def _warn(config: Config, document: Mapping[str, Any]) -> None:
    """Note what mergekit passes over in silence and what the YAML can't say."""
    warnings = config.warnings
    warnings += [
        f"{path}: no revision in the YAML"
        for path in all_paths(models_of(config))
        if "@" not in path
    ]
    warnings.append(
        "the YAML does not say which version of mergekit ran it; the profile is the signer's claim"
    )
    if document.get("dtype") is None:
        warnings.append("no dtype: arithmetic in whatever dtype the inputs promote to")
    scopes = [("parameters", config.parameters), ("modules.parameters", config.module)]
    for number, part in enumerate(config.slices):
        scopes.append((f"slices[{number}].parameters", part.parameters))
        scopes += [(f"{source.model}.parameters", source.parameters) for source in part.sources]
    for name, settings in scopes:
        unknown = sorted(set(settings) - PARAMETERS[config.method])
        warnings += [
            f"parameter without effect on {config.method}: {name}.{key}" for key in unknown
        ]


def models_of(config: Config) -> list[str]:
    """Return every model once, in order; the base last where it is not listed."""
    listed = [source.model for part in config.slices for source in part.sources]
    bases = [part.base or config.base for part in config.slices]
    needed = [base for base in bases if base and config.method not in BASELESS]
    return list(dict.fromkeys([*listed, *needed]))


def all_paths(models: Iterable[str]) -> list[str]:
    """Return every model and adapter once, in order."""
    pairs = [paths_of(model) for model in models]
    return list(dict.fromkeys(path for pair in pairs for path in pair if path))


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
