"""`tokenizer_source` and `tokenizer:` of a mergekit config as moved rows (mergekit/tokenizer, both versions).

Ids come from `tokenizer.json` of the models; those of tokens that a union adds have a random order, so
they come from the release's own file. Every file is named by its SHA-256 in the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from parentage.manifest.companions import TOKENIZER, Vocabulary, read_vocabulary, vocabulary_size
from parentage.manifest.errors import RecipeError
from parentage.manifest.mergekit_config import Config, mapping, reference
from parentage.manifest.mergekit_inputs import EMBEDDINGS, HEAD, Inputs
from parentage.manifest.model import Model
from parentage.manifest.steps import Material
from parentage.manifest.tensor import TensorSpec

Document = dict[str, Any]
_MAX_RUNS: Final = 200_000


class Rule(msgspec.Struct, frozen=True):
    """Where the row of one token comes from; no model: zero.

    Attributes:
        model: whose row.
        row: which; None: that of the token itself.
        force: also for models that have the token.
    """

    model: str | None = None
    row: int | None = None
    force: bool = False


class Tokens(msgspec.Struct):
    """The vocabularies of a merge: of each model, and of the output."""

    models: dict[str, Vocabulary]
    sizes: dict[str, int]
    out: dict[str, int]


def permute_vocabulary(
    inputs: Inputs,
    document: Mapping[str, Any],
    config: Config,
    arithmetic: Document,
    release: Model | None,
    where: str,
) -> None:
    """Put the vocabulary rows of every model where the output's tokenizer wants them.

    Raises:
        RecipeError: a tokenizer is missing, or this merge has no fixed result; the message says why.
    """
    source, options = _options(document, where)
    if source is None:
        return
    references = [part.model for part in config.slices[0].sources]
    if set(references) != {part.model for part in config.slices[-1].sources}:
        raise RecipeError("tokenizer options with slices of other models", where=where)
    tokens = _tokens(inputs, config, source, options, release, where)
    if arithmetic["profile"] == "mk-0.1.4" and len(references) > 2:
        config.warnings.append(
            "mergekit 0.1.4 adds the vocabularies of three or more models in a random order"
        )
    base = config.slices[0].base or config.base
    rules = _rules(inputs, tokens, references, base, options, arithmetic, where)
    pad = options.get("pad_to_multiple_of")
    if pad is not None and (type(pad) is not int or pad < 1 or len(tokens.out) % pad):
        raise RecipeError(
            "padding rows are the mean of all rows, whose sum has no fixed order",
            where=where,
            found=f"pad_to_multiple_of: {pad}",
        )
    _add_steps(inputs, tokens, references, rules, arithmetic, where)


def _options(document: Mapping[str, Any], where: str) -> tuple[str | None, Mapping[str, Any]]:
    """Return "base", "union" or a model, and the rest of `tokenizer:`."""
    old, new = document.get("tokenizer_source"), document.get("tokenizer")
    if old and new:
        raise RecipeError("both tokenizer_source and tokenizer", where=where)
    if new is None:
        return (reference(old, where) if old else None), {}
    options = mapping(new, f"{where}: tokenizer")
    unknown = sorted(set(options) - {"source", "tokens", "pad_to_multiple_of"})
    if unknown:
        raise RecipeError("unknown key in tokenizer", where=where, found=unknown[0])
    return reference(options.get("source", "union"), f"{where}: tokenizer"), options


def _tokens(
    inputs: Inputs,
    config: Config,
    source: str,
    options: Mapping[str, Any],
    release: Model | None,
    where: str,
) -> Tokens:
    models: dict[str, Vocabulary] = {}
    sizes: dict[str, int] = {}
    for name, held in inputs.models.items():
        vocabulary = read_vocabulary(held.model)
        if vocabulary is None:
            raise RecipeError(f"model without a {TOKENIZER}", where=where, found=name)
        models[name] = vocabulary
        sizes[name] = vocabulary_size(held.model) or len(vocabulary.ids)
        folder = held.model.root.name
        inputs.materials.append(Material(sha256=vocabulary.sha256, name=f"{folder}/{TOKENIZER}"))
    own = read_vocabulary(release) if release is not None else None
    if own is not None:
        inputs.materials.append(Material(sha256=own.sha256, name=TOKENIZER))
    tokens = Tokens(models, sizes, {})
    if source != "union":
        added = mapping(options.get("tokens"), f"{where}: tokens")
        tokens.out = _of_model(tokens, config, source, list(added), own, where)
    elif own is not None:
        tokens.out = own.ids
    else:
        raise RecipeError(
            "union tokenizer: the order of added tokens is random",
            where=where,
            expected=f"the release with its {TOKENIZER}",
        )
    if sorted(tokens.out.values()) != list(range(len(tokens.out))):
        raise RecipeError("token ids with gaps or twice", where=where, found=source)
    return tokens


def _of_model(
    tokens: Tokens,
    config: Config,
    source: str,
    added: list[str],
    own: Vocabulary | None,
    where: str,
) -> dict[str, int]:
    """Return the ids of a model's tokenizer, and of the tokens that the config adds to it."""
    model = config.base if source == "base" else source
    if model is None or model not in tokens.models:
        raise RecipeError(
            "tokenizer of a model that is not merged, or no base_model", where=where, found=source
        )
    # mergekit strips a base's tokenizer of ids beyond its embeddings, and another's not.
    limit = tokens.sizes[model] if source == "base" else None
    out = {t: i for t, i in tokens.models[model].ids.items() if limit is None or i < limit}
    new = [text for text in added if text not in out]
    if new and (own is None or source == "base"):
        # It then gives a base's own tokenizer new ids beyond its vocabulary, and fails.
        raise RecipeError("tokens that the tokenizer does not have", where=where, found=new[0])
    if own is not None:
        out |= {text: own.ids[text] for text in new if text in own.ids}
        if own.ids != out:
            config.warnings.append(f"the release's {TOKENIZER} has other tokens than {model}")
    return out


def _rows(tokens: Tokens, model: str, where: str) -> dict[int, int]:
    """Return, by output id, the row of a model that has the token."""
    found: dict[int, int] = {}
    held, size = tokens.models[model].ids, tokens.sizes[model]
    for text, new in tokens.out.items():
        old = held.get(text)
        if old is None:
            continue
        if old >= size:
            raise RecipeError(
                "token beyond the model's vocabulary: mergekit fails on it",
                where=where,
                found=f"{model}: {text}",
            )
        found[new] = old
    return found


def _rules(
    inputs: Inputs,
    tokens: Tokens,
    references: list[str],
    base: str | None,
    options: Mapping[str, Any],
    arithmetic: Document,
    where: str,
) -> dict[int, Rule | list[str]]:
    """Return what fills a row where a model lacks it: a rule, or the models whose mean it is."""
    rows = {model: _rows(tokens, model, where) for model in references}
    explicit = _explicit(inputs, tokens, options, where)
    rules: dict[int, Rule | list[str]] = {}
    for text, new in tokens.out.items():
        having = [model for model in references if new in rows[model]]
        if text in explicit:
            rule = explicit[text]
            if rule.force or len(having) < len(references):
                rules[new] = rule
        elif len(having) == len(references):
            continue
        elif len(having) == 1:
            rules[new] = Rule(having[0])
        elif having and base in having:
            rules[new] = Rule(base)
        else:
            rules[new] = list(having) if having else Rule()
        used = rules.get(new)
        if used == Rule() and arithmetic["profile"] == "mk-0.1.4":
            raise RecipeError("mergekit 0.1.4 fails on a zero row", where=where, found=text)
        if (
            isinstance(used, Rule)
            and used.model
            and used.row is None
            and new not in rows[used.model]
        ):
            raise RecipeError("model without the token", where=where, found=f"{used.model}: {text}")
    return rules


def _explicit(
    inputs: Inputs, tokens: Tokens, options: Mapping[str, Any], where: str
) -> dict[str, Rule]:
    """Read `tokens:` of the tokenizer block."""
    found: dict[str, Rule] = {}
    at = f"{where}: tokens"
    for text, value in mapping(options.get("tokens"), at).items():
        entry = mapping(value, at)
        source, force = entry.get("source"), entry.get("force", False)
        if set(entry) - {"source", "force"} or not isinstance(force, bool):
            raise RecipeError("not a token's source", where=at, found=str(value))
        parts = source if isinstance(source, dict) and "kind" in source else {}
        if parts.get("kind") == "zero":
            found[text] = Rule(force=force)
            continue
        model = reference(parts.get("model") if parts else source, at)
        if model not in inputs.models:
            raise RecipeError("row of a model that is not merged", where=at, found=model)
        row = None
        if parts:
            row = parts.get("token_id")
            if row is None:
                row = tokens.models[model].ids.get(str(parts.get("token")))
            if type(row) is not int or not 0 <= row < tokens.sizes[model]:
                raise RecipeError("no such token", where=at, found=str(source))
        found[text] = Rule(model, row, force)
    return found


def _add_steps(
    inputs: Inputs,
    tokens: Tokens,
    references: list[str],
    rules: Mapping[int, Rule | list[str]],
    arithmetic: Document,
    where: str,
) -> None:
    ids = {model: inputs.models[model].id for model in references}
    rows = {model: _rows(tokens, model, where) for model in references}
    total = 0
    for model in references:
        specs = inputs.models[model].specs
        names = [name for name in (EMBEDDINGS, HEAD) if name in specs]
        if not names:
            raise RecipeError("can't tell the vocabulary tensors", where=where, found=model)
        places, means = _places(model, len(tokens.out), rows, rules)
        whole = {(name, specs[name].shape[0]) for name in names}
        if (
            not means
            and places == [(model, i) for i in range(len(places))]
            and {n for _, n in whole} == {len(places)}
        ):
            continue
        copied = _runs(places)
        total += sum(map(len, copied.values()))
        if total > _MAX_RUNS:
            raise RecipeError(
                "vocabularies in too different an order",
                where=where,
                expected=f"<= {_MAX_RUNS} runs of rows",
                found=str(total),
            )
        lenders = [
            other
            for other in references
            if other in copied or any(other in m for m in means.values())
        ]
        # An average is summed in the order of the inputs, and that is mergekit's order of models.
        order = [model, *(other for other in references if other != model and other in lenders)]
        averaged = [
            {"to": to, "of": {ids[m]: row for m, row in of.items()}} for to, of in means.items()
        ]
        step = {
            "op": "vocab_permute/v1",
            "inputs": [ids[name] for name in order],
            "params": {
                "tensors": names,
                "rows": len(tokens.out),
                "copied": {ids[name]: runs for name, runs in copied.items()},
                "averaged": averaged,
            },
            "arithmetic": {k: v for k, v in arithmetic.items() if k != "store"},
        }
        inputs.add(
            model, "vocabulary", step, specs | _grown(specs, names, len(tokens.out), arithmetic)
        )


def _places(
    model: str,
    size: int,
    rows: Mapping[str, Mapping[int, int]],
    rules: Mapping[int, Rule | list[str]],
) -> tuple[list[tuple[str, int] | None], dict[int, dict[str, int]]]:
    """Return (model, row) for every output row, and the rows that are means."""
    places: list[tuple[str, int] | None] = []
    means: dict[int, dict[str, int]] = {}
    for new in range(size):
        rule = rules.get(new)
        own = rows[model].get(new)
        if own is not None and not (isinstance(rule, Rule) and rule.force):
            places.append((model, own))
        elif isinstance(rule, Rule) and rule.model is not None:
            row = rule.row if rule.row is not None else rows[rule.model][new]
            places.append((rule.model, row))
        else:
            if isinstance(rule, list):
                means[new] = {name: rows[name][new] for name in rule}
            places.append(None)
    return places, means


def _runs(places: list[tuple[str, int] | None]) -> dict[str, list[list[int]]]:
    """Return [to, from, count] by model."""
    found: dict[str, list[list[int]]] = {}
    for to, place in enumerate(places):
        if place is None:
            continue
        runs = found.setdefault(place[0], [])
        if runs and runs[-1][0] + runs[-1][2] == to and runs[-1][1] + runs[-1][2] == place[1]:
            runs[-1][2] += 1
        else:
            runs.append([to, place[1], 1])
    return found


def _grown(
    specs: Mapping[str, TensorSpec], names: Sequence[str], rows: int, arithmetic: Document
) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            name, arithmetic.get("compute", specs[name].dtype), (rows, *specs[name].shape[1:])
        )
        for name in names
    }
