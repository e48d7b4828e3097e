"""Import of an sd-mecha recipe: a `.mecha` file, or "mecha_recipe" in a header.

A text of one instruction a line, `&n` naming the result of instruction n (sd_mecha/serialization.py, 1.1.8,
format 0.1.0). It names models by path only, and neither the dtype of the merge nor that of the output.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.mecha_text import Call, Ref, parse_text
from parentage.manifest.model import Model, open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.sd_merge import Checkpoint, Merge, exact
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec

MEDIA_TYPE: Final = "application/vnd.sd-mecha-recipe"
METADATA: Final = "mecha_recipe"
MAX_TEXT: Final = 1 << 20
_PROFILE: Final = "sd-mecha"
_STEPS: Final = re.compile(r"merge|step-[0-9]+")
Value = Checkpoint | str | dict[str, Any] | None


def load_mecha(path: Path | None, *, release: Path, parents: Mapping[str, Path]) -> Recipe:
    """Import a recipe.

    Args:
        path: a `.mecha` file; None: the text in the release's header.
        release: what the recipe made; it tells the output dtype.
        parents: checkpoints by id: the name of their file in the recipe, without its ending.

    Raises:
        RecipeError: no recipe, or one that can't be imported; the message says why.
        ParentMissingError: a model of the recipe was not given.
    """
    with ExitStack() as stack:
        made = stack.enter_context(open_model(release))
        text = _text(path, made)
        calls = parse_text(text)
        ids = _model_ids(calls)
        for name, identifier in ids.items():
            if identifier not in parents:
                raise ParentMissingError(
                    f"model of the recipe not given: {name}", hint=f"add --parent {identifier}=FILE"
                )
        opened = {
            name: stack.enter_context(open_model(parents[identifier]))
            for name, identifier in ids.items()
        }
        merge = Merge({name: tensor.spec for name, tensor in made.tensors.items()})
        models = {
            name: Checkpoint(ids[name], {k: t.spec for k, t in model.tensors.items()})
            for name, model in opened.items()
        }
        _run(calls, models, merge)
    warnings = [
        "the recipe names its models by path: which weights they were is the signer's claim",
        "the recipe does not say the dtype of the merge: fp32, sd-mecha's default, is assumed",
    ]
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": identifier} for identifier in ids.values()],
            "steps": merge.steps,
            "source": {
                "mediaType": MEDIA_TYPE,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "text": text,
                "warnings": [*warnings, *merge.warnings],
            },
        },
        where=METADATA,
    )


def has_recipe(release: Path) -> bool:
    """Say whether a release's header holds an sd-mecha recipe."""
    with open_model(release) as made:
        return any(METADATA in header.metadata for header in made.headers.values())


def _text(path: Path | None, release: Model) -> str:
    if path is None:
        for header in release.headers.values():
            if METADATA in header.metadata:
                text = header.metadata[METADATA]
                break
        else:
            raise RecipeError(f"no {METADATA} in the header", where=release.root.name)
        data = text.encode()
    else:
        with path.open("rb") as stream:
            data = stream.read(MAX_TEXT + 1)
    if not data or len(data) > MAX_TEXT:
        raise RecipeError("empty or too large", where=METADATA, expected=f"<= {MAX_TEXT} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError("not UTF-8", where=METADATA) from error


def _model_ids(calls: list[Call]) -> dict[str, str]:
    """Return the id of each model: the name of its file without its ending."""
    found: dict[str, str] = {}
    for call in calls:
        if call.command != "model" or not call.args or not isinstance(call.args[0], str):
            continue
        path = call.args[0]
        stem = re.split(r"[/\\]", path)[-1].lower().removesuffix(".safetensors")
        name = re.sub(r"[^a-z0-9._-]", "-", stem).lstrip("._-")[:50] or "model"
        name += "-model" * (_STEPS.fullmatch(name) is not None)
        if found.get(path) != name and name in found.values():
            name = f"{name}-{sum(v.startswith(name) for v in found.values()) + 1}"
        found.setdefault(path, name)
    return found


def _run(calls: list[Call], models: Mapping[str, Checkpoint], merge: Merge) -> None:
    """Turn instructions into steps; the last gets the release's dtype."""
    results: list[Value] = []

    def value(argument: Any) -> Any:  # noqa: ANN401
        return results[argument.index] if isinstance(argument, Ref) else argument

    for number, call in enumerate(calls):
        where = f"{METADATA}: line {number + 2}"
        args = [value(argument) for argument in call.args]
        options = {key: value(argument) for key, argument in call.options.items()}
        if call.command == "dict":
            results.append(options)
        elif call.command == "literal":
            results.append(_literal(args, where))
        elif call.command == "model":
            results.append(_model(call, models, where))
        else:
            results.append(_merge(args, options, merge, where))
    last = results[-1] if results else None
    if not isinstance(last, Checkpoint) or not merge.steps or merge.steps[-1]["id"] != last.id:
        raise RecipeError("recipe that makes no checkpoint", where=METADATA)
    merge.steps[-1]["id"] = "merge"
    merge.steps[-1]["arithmetic"]["store"] = _store(merge)


def _store(merge: Merge) -> str:
    dtypes = {spec.dtype for spec in merge.release.values()}
    if len(dtypes) != 1 or not dtypes <= FLOAT_DTYPES:
        raise RecipeError("sd-mecha stores one float dtype", found=", ".join(sorted(dtypes)))
    return dtypes.pop()


def _literal(args: list[Any], where: str) -> str:
    """Return a number; block weights are not imported."""
    entries = args[0] if args else None
    if not isinstance(entries, dict) or set(entries) != {"key"}:
        raise RecipeError("literal that is not one number (block weights)", where=where)
    return exact(entries["key"], where)


def _model(call: Call, models: Mapping[str, Checkpoint], where: str) -> Checkpoint:
    path = call.args[0] if call.args else None
    if not isinstance(path, str) or path not in models:
        raise RecipeError("model without a path", where=where)
    if call.options.get("merge_space", "weight") not in {"weight", None}:
        raise RecipeError("model that is a difference (LoRA)", where=where, found=path)
    return models[path]


def _merge(args: list[Any], options: Mapping[str, Any], merge: Merge, where: str) -> Value:
    method, *rest = args or [None]
    build = _METHODS.get(method) if isinstance(method, str) else None
    if build is None or len(rest) + len(options) > 64:
        expected = ", ".join(sorted(_METHODS))
        raise RecipeError(
            "merge method that is not imported", where=where, expected=expected, found=str(method)
        )
    names = _PARAMETERS.get(method, ())
    if len(rest) > len(names) and names:
        raise RecipeError("too many arguments", where=where, found=str(method))
    given = {**dict(zip(names, rest, strict=False)), **options} if names else {"": rest}
    if names and not set(given) <= set(names):
        raise RecipeError(
            "unknown argument", where=where, found=str(sorted(set(given) - set(names)))
        )
    return build(given, merge, where)


def _checkpoints(values: list[Any], where: str) -> list[Checkpoint]:
    """Return models of the same tensors."""
    for held in values:
        if not isinstance(held, Checkpoint):
            raise RecipeError("argument that is no checkpoint", where=where, found=str(held)[:80])
        if held.specs.keys() != values[0].specs.keys():
            raise RecipeError("checkpoints with different tensors", where=where, found=held.id)
    return values


def _function(
    merge: Merge, function: str, inputs: list[Checkpoint], alpha: str = "1"
) -> Checkpoint:
    specs: dict[str, TensorSpec] = {
        name: msgspec.structs.replace(spec, dtype="F32") for name, spec in inputs[0].specs.items()
    }
    return merge.function(_PROFILE, inputs, specs, function=function, alpha=alpha)


def _two(function: str, default: str) -> Callable[[Mapping[str, Any], Merge, str], Checkpoint]:
    def build(given: Mapping[str, Any], merge: Merge, where: str) -> Checkpoint:
        inputs = _checkpoints([given.get("a"), given.get("b")], where)
        return _function(merge, function, inputs, _alpha(given, default, where))

    return build


def _scale(given: Mapping[str, Any], merge: Merge, where: str) -> Checkpoint:
    inputs = _checkpoints([given.get("a")], where)
    return _function(merge, "scale", inputs, _alpha(given, "1", where))


def _average(given: Mapping[str, Any], merge: Merge, where: str) -> Checkpoint:
    models = _checkpoints(list(given[""]), where)
    if not models:
        raise RecipeError("average of nothing", where=where)
    found = models[0] if len(models) > 1 else _function(merge, "scale", models)
    for count, model in enumerate(models[1:], start=2):
        found = _function(merge, "weighted_sum", [found, model], exact(1 / count, where))
    return found


def _fallback(given: Mapping[str, Any], _merge: Merge, where: str) -> Checkpoint:
    # Models of the same tensors: nothing is ever missing, so the first is the result.
    return _checkpoints([given.get("a"), given.get("default")], where)[0]


def _alpha(given: Mapping[str, Any], default: str, where: str) -> str:
    held = given.get("alpha", default)
    return held if isinstance(held, str) else exact(held, where)


def _singleton(given: Mapping[str, Any], _merge: Merge, where: str) -> str:
    if not isinstance(given.get("a"), str):
        raise RecipeError("argument that is no number", where=where)
    return str(given["a"])


_METHODS: Final[Mapping[str, Callable[[Mapping[str, Any], Merge, str], Value]]] = {
    "weighted_sum": _two("weighted_sum", exact(0.5, METADATA)),
    "add_difference": _two("add", "1"),
    "subtract": _two("difference", "1"),
    "scale": _scale,
    "n_average": _average,
    "fallback": _fallback,
    "convert_singleton": _singleton,
}
_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "weighted_sum": ("a", "b", "alpha"),
    "add_difference": ("a", "b", "alpha"),
    "subtract": ("a", "b"),
    "scale": ("a", "alpha"),
    "fallback": ("a", "default"),
    "convert_singleton": ("a",),
}
