"""A recipe of sd-webui-supermerger (scripts/mergers/mergers.py, smerge, 0b1c491) as steps.

Weight sum and add difference with calcmode "normal", with block weights of SD 1/2 (26 numbers) and SDXL (20).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from parentage.manifest.errors import RecipeError
from parentage.manifest.sd_merge import Checkpoint, Merge, exact
from parentage.manifest.tensor import TensorSpec

_WHERE: Final = "sd_merge_recipe"
_XL: Final = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.weight"
#: Tensors with "model" and either of "weight" and "bias" in their name.
_CHOSEN: Final = ("*model*weight*", "*weight*model*", "*model*bias*", "*bias*model*")
_HALVED: Final = frozenset({"F64", "F32", "BF16"})
_KEYS: Final = frozenset(
    {"type", "weights_alpha", "weights_beta", "weights_alpha_orig", "weights_beta_orig", "model_a"}
    | {
        "model_b",
        "model_c",
        "base_alpha",
        "base_beta",
        "mode",
        "mbw",
        "elemental_merge",
        "calcmode",
    }
    | {"Off", "Include", "Exclude"}
)


def read(
    recipe: dict[str, Any], parent: Callable[[Any], Checkpoint], merge: Merge, *, final: bool
) -> Checkpoint:
    """Append the steps of a recipe.

    Args:
        recipe: as parsed.
        parent: finds a parent by its SHA-256.
        merge: takes the steps.
        final: whether this recipe made the release itself.

    Raises:
        RecipeError: something that can't be recomputed; the message says what.
    """
    mode = _mode(recipe)
    merge.warnings += [
        "supermerger does not record its settings (old calc method, float32, adjust, fp16, prune)",
        *(f"unknown key: {key}" for key in sorted(set(recipe) - _KEYS)),
    ]
    if not final:
        raise RecipeError("a parent that supermerger made was not given", where=_WHERE)
    first, second = (merge.as_loaded(parent(recipe.get(key))) for key in ("model_a", "model_b"))
    names = first.specs.keys() | second.specs.keys()
    if any("double_block" in name for name in second.specs):
        raise RecipeError("Flux merges are not imported", where=_WHERE)
    alpha = exact(recipe.get("base_alpha"), f"{_WHERE}: base_alpha")
    overrides = _blocks(recipe, sorted(names), xl=_XL in second.specs)
    function = "weighted_sum"
    if mode == "Add":
        third = merge.as_loaded(parent(recipe.get("model_c")))
        inputs = [second, third]
        params: dict[str, Any] = {"function": "difference", "include": _CHOSEN}
        second = merge.function("supermerger", inputs, second.specs, **params)
        function = "add"
    specs = {**second.specs, **first.specs}
    found = merge.function(
        "supermerger",
        [first, second],
        specs,
        function=function,
        alpha=alpha,
        overrides=overrides,
        include=_CHOSEN,
        join=any("model" in name for name in second.specs.keys() - first.specs.keys()),
    )
    if any(_was_halved(merge, spec) for spec in specs.values()):
        merge.warnings.append('fp16 tensors of fp32 parents: saved with "fp16", says the release')
        halved = {
            name: msgspec.structs.replace(spec, dtype="F16") if spec.dtype in _HALVED else spec
            for name, spec in specs.items()
        }
        found = merge.function(
            "supermerger", [found], halved, function="keep", include=["*model*"], half=True
        )
    return merge.without_absent(found)


def _mode(recipe: dict[str, Any]) -> str:
    text = str(recipe.get("mode"))
    mode = next((name for name in ("Add", "Triple", "Twice") if name in text), "Weight")
    if mode in {"Triple", "Twice"} or (mode == "Weight" and "Weight" not in text):
        raise RecipeError("mode that is not imported", where=_WHERE, found=text)
    if recipe.get("calcmode") != "normal":
        found = str(recipe.get("calcmode"))
        raise RecipeError("calcmode that is not imported", where=_WHERE, found=found)
    if recipe.get("elemental_merge"):
        raise RecipeError("elemental merges are not imported", where=_WHERE)
    for key in ("Include", "Exclude"):
        if recipe.get(key) not in (None, [], [""]):
            raise RecipeError("merges of chosen blocks are not imported", where=_WHERE, found=key)
    return mode


def _was_halved(merge: Merge, spec: TensorSpec) -> bool:
    held = merge.release.get(spec.name)
    return held is not None and held.dtype == "F16" and spec.dtype in _HALVED


def _blocks(recipe: dict[str, Any], names: list[str], *, xl: bool) -> list[dict[str, Any]]:
    """Return the alphas of tensors outside BASE."""
    if not recipe.get("mbw"):
        return []
    weights = recipe.get("weights_alpha")
    sizes = {19, 20} if xl else {25}
    if not isinstance(weights, list) or len(weights) not in sizes:
        raise RecipeError("block weights of another length", where=_WHERE, expected=str(sizes))
    alphas = [exact(weight, f"{_WHERE}: weights_alpha") for weight in weights]
    groups: dict[str, list[str]] = {}
    for name in names:
        index = _block_xl(name) if xl else _block(name)
        if index is not None:
            groups.setdefault(alphas[index], []).append(name)
    return [{"tensors": found, "alpha": alpha} for alpha, found in groups.items()]


def _block(name: str) -> int | None:
    """Return IN00-IN11, M00, OUT00-OUT11 as 0 to 24; None: BASE."""
    if "time_embed" in name:
        return 0
    if ".out." in name:
        return 24
    for start, pattern in ((0, "input"), (12, "middle"), (13, "output")):
        found = re.search(rf"\.{pattern}_blocks?\.([0-9]{{1,2}})\.", name)
        if found:
            index = start + (0 if pattern == "middle" else int(found[1]))
            return index if index < 25 else None
    return None


def _block_xl(name: str) -> int | None:
    """Return IN00-IN08, M00, OUT00-OUT08 as 0 to 18; None: BASE."""
    if "label_emb" in name or "time_embed" in name:
        return 0
    if "model.diffusion_model" not in name:
        return None
    if "model.diffusion_model.out." in name:
        return 18
    for start, pattern in ((0, "input"), (9, "middle"), (10, "output")):
        found = re.search(rf"\.{pattern}_blocks?\.([0-9])\.", name)
        if found:
            return start + (0 if pattern == "middle" else int(found[1]))
    return None
