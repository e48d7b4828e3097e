"""The JSON files beside weights: config, tokenizer, adapter config; bounded and strict."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from parentage.manifest import canonical
from parentage.manifest.errors import RecipeError
from parentage.manifest.model import Model

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
ADAPTER: Final = "adapter_config.json"
INDEX: Final = "model.safetensors.index.json"
_MAX: Final = {CONFIG: 1 << 20, ADAPTER: 1 << 20, TOKENIZER: 64 << 20, INDEX: 64 << 20}
_MAX_TOKENS: Final = 1 << 22


class Vocabulary(msgspec.Struct, frozen=True):
    """A tokenizer's tokens by text, and the SHA-256 of its file."""

    ids: dict[str, int]
    sha256: str


def read_json(model: Model, name: str) -> dict[str, Any] | None:
    """Return a JSON object beside the weights; None where there is no such file.

    Raises:
        JsonError, RecipeError: not strict JSON, or no object.
    """
    file = model.files.files.get(name)
    if file is None:
        return None
    where = f"{model.root.name}/{name}"
    limit = _MAX[name]
    document = canonical.loads(file.read_small(limit), where=where, max_bytes=limit, floats=True)
    if not isinstance(document, dict):
        raise RecipeError("not a JSON object", where=where)
    return document


def read_vocabulary(model: Model) -> Vocabulary | None:
    """Return the tokens of `tokenizer.json`: its vocabulary, then its added tokens over it.

    Raises:
        RecipeError: ids that are no small natural numbers.
    """
    document = read_json(model, TOKENIZER)
    if document is None:
        return None
    where = f"{model.root.name}/{TOKENIZER}"
    inner = document.get("model")
    words = inner.get("vocab") if isinstance(inner, dict) else None
    if isinstance(words, dict):
        pairs = list(words.items())
    elif isinstance(words, list):
        # Unigram: [text, score], the id is the place.
        pairs = [
            (entry[0] if isinstance(entry, list) and entry else None, i)
            for i, entry in enumerate(words)
        ]
    else:
        raise RecipeError("tokenizer without a vocabulary", where=where)
    added = document.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(entry, dict) for entry in added):
        raise RecipeError("added_tokens is not a list of objects", where=where)
    pairs += [(entry.get("content"), entry.get("id")) for entry in added]
    ids: dict[str, int] = {}
    for text, number in pairs:
        if not isinstance(text, str) or type(number) is not int or not 0 <= number < _MAX_TOKENS:
            raise RecipeError("token without an id", where=where, found=f"{text!r}: {number!r}")
        ids[text] = number
    data = model.files.files[TOKENIZER].read_small(_MAX[TOKENIZER])
    return Vocabulary(ids, hashlib.sha256(data).hexdigest())


def vocabulary_size(model: Model) -> int | None:
    """Return `vocab_size` of config.json, at the top or in its text_config."""
    document = read_json(model, CONFIG) or {}
    for part in (document, document.get("text_config")):
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if type(size) is int and 0 < size < _MAX_TOKENS:
            return size
    return None
