"""A recipe of webui's own checkpoint merger (modules/extras.py, run_modelmerger, 8faafb6) as steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from parentage.manifest.errors import RecipeError
from parentage.manifest.sd_merge import POSITIONS, Checkpoint, Merge, exact

_WHERE: Final = "sd_merge_recipe"
_KEYS: Final = frozenset(
    {"type", "primary_model_hash", "secondary_model_hash", "tertiary_model_hash", "interp_method"}
    | {"multiplier", "save_as_half", "custom_name", "config_source", "bake_in_vae"}
    | {"discard_weights", "is_inpainting", "is_instruct_pix2pix"}
)
_METHODS: Final = ("Weighted sum", "Add difference", "No interpolation")


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
    method = recipe.get("interp_method")
    if method not in _METHODS:
        expected = ", ".join(_METHODS)
        raise RecipeError(
            "unknown interp_method", where=_WHERE, expected=expected, found=str(method)
        )
    for key in ("is_inpainting", "is_instruct_pix2pix"):
        if recipe.get(key):
            raise RecipeError(f"{key}: merges of other shapes are not recomputed", where=_WHERE)
    if recipe.get("bake_in_vae") not in (None, "", "None"):
        found = str(recipe["bake_in_vae"])
        raise RecipeError("a VAE was baked in, and no digest names it", where=_WHERE, found=found)
    merge.warnings += [f"unknown key: {key}" for key in sorted(set(recipe) - _KEYS)]
    half = recipe.get("save_as_half", False)
    if not isinstance(half, bool):
        raise RecipeError("save_as_half is not true or false", where=_WHERE, found=str(half))
    first = merge.as_loaded(parent(recipe.get("primary_model_hash")))
    if method == "No interpolation":
        made = merge.function("webui", [first], first.specs, function="keep", half=half)
    else:
        made = _two(recipe, parent, merge, first, half=half)
    if not recipe.get("discard_weights"):
        return made
    if not final:
        raise RecipeError("discard_weights of a parent that was not given", where=_WHERE)
    # The pattern is a stranger's regular expression, so it is not run: what is gone shows in the release.
    return merge.without_absent(made)


def _two(
    recipe: dict[str, Any],
    parent: Callable[[Any], Checkpoint],
    merge: Merge,
    first: Checkpoint,
    *,
    half: bool,
) -> Checkpoint:
    chosen = {"include": ["*model*"], "exclude": [POSITIONS]}
    alpha = exact(recipe.get("multiplier"), f"{_WHERE}: multiplier")
    second = merge.as_loaded(parent(recipe.get("secondary_model_hash")))
    function = "weighted_sum"
    if recipe["interp_method"] == "Add difference":
        third = merge.as_loaded(parent(recipe.get("tertiary_model_hash")))
        inputs = [second, third]
        second = merge.function("webui", inputs, second.specs, function="difference", **chosen)
        function = "add"
    return merge.function(
        "webui", [first, second], first.specs, function=function, alpha=alpha, half=half, **chosen
    )
