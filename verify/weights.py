"""Weights opened in any format that we read; a pickle needs torch, and is named as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from parentage.manifest import digest
from parentage.manifest.digest import Profile
from parentage.manifest.errors import MissingExtraError
from parentage.manifest.hashing import hash_model
from parentage.manifest.model import PICKLED, READERS, Model, open_model
from parentage.manifest.wire import DigestSet


def is_pickled(path: Path) -> bool:
    """Say whether only a pickle is there: a file of that name, or a folder with nothing better."""
    if not path.is_dir():
        return path.name.endswith(PICKLED)
    names = [entry.name for entry in path.iterdir()]
    return not any(n.endswith(tuple(READERS)) for n in names) and any(
        n.endswith(PICKLED) for n in names
    )


def open_weights(path: Path) -> Model:
    """Open safetensors, GGUF, ONNX, or a pickle.

    Raises:
        MissingExtraError: a pickle, and no torch.
        MalformedError: the file breaks a rule of its format.
    """
    if not is_pickled(path):
        return open_model(path)
    try:
        from parentage.verify.pickles import open_pickled
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError(
            "only torch can read a pickle, and it is not installed",
            where=str(path),
            hint="pip install 'parentage[recompute]'",
        ) from error
    return open_pickled(path)


def with_roots(
    parents: Mapping[str, Path], profiles: Sequence[Profile] = (digest.B3,)
) -> dict[str, Path | str | DigestSet]:
    """Return parents as `declare` takes them: those that are pickles by the roots of their weights."""
    found: dict[str, Path | str | DigestSet] = {}
    for name, path in parents.items():
        found[name] = path
        if path.exists() and is_pickled(path):
            with open_weights(path) as model:
                found[name] = dict(hash_model(model, profiles=profiles).roots)
    return found
