"""Import of a `mergekit_config.yml`, all methods of mergekit 0.1.5.

A YAML does not determine the weights: two versions of mergekit agree on 61.6 % of the elements of
the commonest config. So it is resolved tensor by tensor as mergekit does, pinned to an engine
profile, and kept verbatim as evidence with warnings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.mergekit_config import LAYER, layers_of, models_of, read
from parentage.manifest.mergekit_steps import arithmetic, steps_of
from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe, parse
from parentage.manifest.strict_yaml import parse_yaml
from parentage.manifest.tensor import FLOAT_DTYPES

MEDIA_TYPE: Final = "application/vnd.mergekit+yaml"
_MAX_YAML: Final = 1 << 20


def load_config(
    path: Path, *, profile: str, parents: Mapping[str, Path], seed: int | None = None
) -> Recipe:
    """Import a config and resolve it on the tensors of its parents.

    Args:
        path: the YAML.
        profile: "mk-0.1.5" or "mk-0.1.4": the version that ran it, which the YAML does not say.
        parents: folder of each model, by the id that `model_ids` gives it.
        seed: the `--random-seed` of the run, which the YAML does not say either.

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
    names, dtypes = _tensors([parents[ids[model]] for model in models_of(config)])
    if any(map(LAYER.match, names)):
        config.layers = layers_of(names)[1]
    steps = steps_of(config, arithmetic(document, profile, where), ids, names, dtypes, seed, where)
    return parse(
        {
            "version": "0.1",
            "parents": [{"id": name, "uri": _uri(model)} for model, name in ids.items()],
            "steps": steps,
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


def _tensors(paths: list[Path]) -> tuple[list[str], set[str]]:
    """Return the tensor names of the first model, and the float dtypes of all."""
    names: list[list[str]] = []
    dtypes: set[str] = set()
    for path in paths:
        with open_model(path) as model:
            names.append(sorted(model.tensors))
            dtypes |= {t.spec.dtype for t in model.tensors.values()} & FLOAT_DTYPES
    return names[0], dtypes


def _uri(model: str) -> str:
    name, _, revision = model.partition("@")
    is_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()
    return f"pkg:huggingface/{name.lower()}{f'@{revision}' if revision else ''}" if is_hub else ""
