"""Import of `sd_merge_recipe` and `sd_merge_models`, which webui and supermerger write into a header.

They name every parent by the SHA-256 of its file, and parents that were merges carry their own recipes,
which become earlier steps where the merged parent itself is not at hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec

from parentage.manifest import canonical, supermerger, webui
from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.model import Model, open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.sd_merge import Checkpoint, Merge
from parentage.manifest.steps import Material

MEDIA_TYPE: Final = "application/vnd.sd-merge-recipe+json"
_MAX_RECIPE: Final = 1 << 20
_MAX_MODELS: Final = 4 << 20
_MAX_DEPTH: Final = 8
_MAX_MERGES: Final = 32
_BLOCK: Final = 1 << 20
_READERS: Final = {"webui": webui.read, "sd-webui-supermerger": supermerger.read}
Document = dict[str, Any]


def load_sd_recipe(release: Path, *, parents: Mapping[str, Path]) -> Recipe:
    """Import the recipe in a release's own header.

    Args:
        release: the merged checkpoint.
        parents: checkpoints by id; which is which is told by their SHA-256.

    Raises:
        RecipeError: no recipe, or one that can't be imported; the message says why.
        ParentMissingError: no given file has a SHA-256 that the recipe names.
    """
    with ExitStack() as stack:
        model = stack.enter_context(open_model(release))
        metadata = _metadata(model)
        text = metadata.get("sd_merge_recipe", "")
        if not text:
            raise RecipeError("no sd_merge_recipe in the header", where=release.name)
        recipe = _object(text, "sd_merge_recipe", _MAX_RECIPE)
        nested = _object(metadata.get("sd_merge_models", "{}"), "sd_merge_models", _MAX_MODELS)
        given = {
            name: _checkpoint(name, stack.enter_context(open_model(path)))
            for name, path in parents.items()
        }
        expansion = _Expansion(nested, given)
        specs = {name: tensor.spec for name, tensor in model.tensors.items()}
        merge = Merge(specs)
        expansion.expand(recipe, merge, ())
    merge.steps[-1]["id"] = "merge"
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": name} for name in expansion.used],
            "steps": merge.steps,
            "source": {
                "mediaType": MEDIA_TYPE,
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
                "text": text,
                "warnings": [*expansion.warnings, *merge.warnings],
                "materials": msgspec.to_builtins(expansion.materials),
            },
        },
        where="sd_merge_recipe",
    )


class _Expansion:
    """A recipe, and those of its parents that are not at hand, on their way to steps."""

    def __init__(self, nested: Document, given: Mapping[str, Checkpoint]) -> None:
        self._nested = nested
        self._given = {checkpoint.sha256: checkpoint for checkpoint in given.values()}
        self._known: dict[str, Checkpoint] = {}
        self._merges = 0
        self.used: list[str] = []
        self.materials: list[Material] = []
        self.warnings: list[str] = []

    def expand(self, recipe: Document, merge: Merge, path: tuple[str, ...]) -> Checkpoint:
        """Append a recipe's steps, its parents' first."""
        kind = str(recipe.get("type"))
        reader = _READERS.get(kind)
        if reader is None:
            raise RecipeError(
                "merger that is not imported",
                where="sd_merge_recipe",
                expected=", ".join(_READERS),
                found=kind,
            )
        self._merges += 1
        if len(path) > _MAX_DEPTH or self._merges > _MAX_MERGES:
            raise RecipeError(
                "recipes nested too deeply",
                where="sd_merge_recipe",
                expected=f"<= {_MAX_MERGES} merges",
            )
        return reader(
            recipe, lambda sha256: self._parent(sha256, merge, path), merge, final=not path
        )

    def _parent(self, sha256: Any, merge: Merge, path: tuple[str, ...]) -> Checkpoint:  # noqa: ANN401
        if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise RecipeError(
                "parent without a SHA-256", where="sd_merge_recipe", found=str(sha256)
            )
        if sha256 in self._known:
            return self._known[sha256]
        entry = self._nested.get(sha256)
        name = str(entry.get("name", "")) if isinstance(entry, dict) else ""
        checkpoint = self._given.get(sha256)
        if checkpoint is not None:
            self.used.append(checkpoint.id)
            self.materials.append(Material(sha256=sha256, name=f"{checkpoint.id}: {name[:200]}"))
        else:
            inner = entry.get("sd_merge_recipe") if isinstance(entry, dict) else None
            if not inner:
                raise ParentMissingError(
                    f"no given file has the SHA-256 of parent {name[:100] or sha256}",
                    where=sha256,
                    hint="add --parent ID=FILE",
                )
            if sha256 in path:
                raise RecipeError(
                    "merge that is its own parent", where="sd_merge_models", found=sha256
                )
            if isinstance(inner, str):
                inner = _object(inner, "sd_merge_models", _MAX_RECIPE)
            if not isinstance(inner, dict):
                raise RecipeError("not a recipe", where="sd_merge_models", found=sha256)
            checkpoint = self.expand(inner, merge, (*path, sha256))
            self.materials.append(Material(sha256=sha256, name=name[:200]))
            self.warnings.append(
                f"{name[:100] or sha256} is a merge that was not given: recomputed from its own recipe, "
                "and its file's SHA-256 was not checked"
            )
        self._known[sha256] = checkpoint
        return checkpoint


def _metadata(model: Model) -> dict[str, str]:
    if len(model.headers) != 1:
        raise RecipeError("a checkpoint is one file", found=", ".join(model.headers))
    return next(iter(model.headers.values())).metadata


def _checkpoint(name: str, model: Model) -> Checkpoint:
    _metadata(model)
    file = model.files.files[next(iter(model.headers))]
    digest = hashlib.sha256()
    for at in range(0, file.size, _BLOCK):
        digest.update(file.read_at(at, min(_BLOCK, file.size - at)))
    specs = {key: tensor.spec for key, tensor in model.tensors.items()}
    return Checkpoint(name, specs, digest.hexdigest())


def _object(text: str, where: str, limit: int) -> Document:
    document = canonical.loads(text.encode(), where=where, max_bytes=limit, floats=True)
    if not isinstance(document, dict):
        raise RecipeError("not a JSON object", where=where)
    return document
