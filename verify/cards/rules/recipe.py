"""Rules about recipes: C06, C11."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any, Final

from parentage.manifest import mergekit_config
from parentage.manifest.card import README, Card
from parentage.manifest.errors import CardError, FileSetError, MalformedError, RecipeError
from parentage.manifest.merge_steps import WeightedSum
from parentage.manifest.mergekit import MEDIA_TYPE
from parentage.manifest.quantise_steps import QUANTISE, QuantiseNf4, QuantiseRtn
from parentage.manifest.strict_yaml import parse_yaml
from parentage.manifest.wire import ratio
from parentage.verify.cards import section
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.cards.names import texts
from parentage.verify.cards.surroundings import CONFIG, MERGEKIT
from parentage.verify.showing import Level

_FENCED: Final = re.compile(r"^```ya?ml[ \t]*\r?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_QUANTISED_TAGS: Final = frozenset(
    {"gguf", "awq", "gptq", "exl2", "exl3", "bitsandbytes", "mlx-4bit"}
)
#: What a merge config may have (bytes), and how many a card: reading them is slow.
_LARGEST: Final = 64 << 10
_BLOCKS: Final = 4
_NEXT: Final = (
    "put the file back that was signed, or declare and sign again: parentage declare --recipe"
)


def differs(evidence: Evidence) -> Iterator[Hit]:
    """C06: another mergekit config, in its file or in the card, than the recipe was imported from."""
    try:
        data = evidence.folder.read(MERGEKIT, _LARGEST)
    except FileSetError as error:
        yield _unread(error, MERGEKIT, 0)
        data = None
    if data is not None:
        yield from _compare(evidence, data, MERGEKIT, 0)
    card = evidence.card
    if card is None:
        return
    yield from _section(evidence, card)
    blocks = [one for one in _FENCED.finditer(card.text, card.body) if "merge_method" in one[1]]
    if len(blocks) > _BLOCKS:
        evidence.skip(f"{len(blocks) - _BLOCKS} more merge configs in the card")
    for block in blocks[:_BLOCKS]:
        if len(block[1]) > _LARGEST:
            evidence.skip(f"a merge config of {len(block[1]):,} characters in the card")
        else:
            yield from _compare(evidence, block[1].encode(), README, card.line_at(block.start(1)))


def _section(evidence: Evidence, card: Card) -> Iterator[Hit]:
    """Compare the provenance section with the one that the manifest gives."""
    body = card.text[card.body :]
    try:
        found = section.find(body)
    except CardError as error:
        yield _unread(error, README, 0)
        return
    if found is None:
        return
    line = card.line_at(card.body + found[0])
    here = body[found[0] : found[1]]
    yield from _recomputed(evidence, section.recomputed(here), line)
    written = section.section_of(evidence.authority.lineage, ())
    if section.plain(here) != section.plain(written):
        yield Hit(
            message="the provenance section is not what the manifest gives",
            where="the section between the parentage markers",
            next=f"parentage card sync {evidence.name}",
            line=line,
            at_most=Level.WARNING,
        )


def _recomputed(evidence: Evidence, said: list[str], line: int) -> Iterator[Hit]:
    """Look for the statements that lines of the section are of."""
    authority = evidence.authority
    if authority.state != "verified":
        if said:
            evidence.skip("how far the card says that it was recomputed (--policy FILE)")
        return
    unknown = sorted(set(said) - set(map(section.line_of, authority.recomputed)))
    if unknown:
        yield Hit(
            message="the card says a recompute that no verifier of the trust policy signed",
            where="the section between the parentage markers",
            found=unknown[0],
            next=f"parentage card sync {evidence.name} --policy FILE",
            line=line,
            at_most=Level.WARNING,
        )


def _compare(evidence: Evidence, data: bytes, file: str, line: int) -> Iterator[Hit]:
    source = evidence.authority.lineage.recipe.source
    if source is not None and hashlib.sha256(data).hexdigest() == source.sha256:
        return
    try:
        document = _config(data, file)
        if source is not None and source.media_type == MEDIA_TYPE and source.text:
            yield from _against_text(document, source.text, file, line)
        else:
            yield from _against_steps(evidence, document, file, line)
    except RecipeError as error:
        yield _unread(error, file, line)


def _config(data: bytes, file: str) -> dict[str, Any]:
    document = parse_yaml(data, where=file)
    if not isinstance(document, dict):
        raise RecipeError("not a mergekit config", where=file)
    return document


def _against_text(document: dict[str, Any], text: str, file: str, line: int) -> Iterator[Hit]:
    signed = parse_yaml(text.encode(), where="the recipe's source")
    if signed == document:
        return  # comments and spaces
    signed = signed if isinstance(signed, dict) else {}
    keys = sorted(k for k in signed.keys() | document.keys() if signed.get(k) != document.get(k))
    first = keys[0]
    yield Hit(
        message="the mergekit config is not the one that the signed recipe was imported from",
        where=", ".join(keys),
        expected=f"{first}: {signed.get(first)}",
        found=f"{first}: {document.get(first)}",
        next=_NEXT,
        file=file,
        line=line,
    )


def _against_steps(
    evidence: Evidence, document: dict[str, Any], file: str, line: int
) -> Iterator[Hit]:
    """Compare a config with a recipe that was written by hand: method, models and fixed weights."""
    config = mergekit_config.read(document, file)
    models = mergekit_config.models_of(config)
    steps = evidence.authority.lineage.recipe.steps
    sums = [step for step in steps if isinstance(step, WeightedSum)]
    if config.method != "linear" or len(sums) != 1 or len(config.slices) != 1:
        evidence.skip(
            f"{file}: whether it says what the recipe says, which was not imported from it"
        )
        return
    given = [
        (source.parameters or {}).get("weight", config.parameters.get("weight"))
        for source in config.slices[0].sources
    ]
    if not all(isinstance(weight, str | int) for weight in given):
        evidence.skip(f"{file}: weights that change from layer to layer")
        return
    found = sorted(str(weight) for weight in given)
    expected = sorted(sums[0].params.weights)
    try:
        same = [ratio(w) for w in sorted(found, key=float)] == [
            ratio(w) for w in sorted(expected, key=_number)
        ]
    except ValueError as error:
        raise RecipeError("weights that are no numbers", where=file, found=str(found)) from error
    if len(models) != len(sums[0].inputs) or not same:
        yield Hit(
            message="the mergekit config has other weights than the signed recipe",
            where="weight",
            expected=", ".join(sums[0].params.weights),
            found=", ".join(str(weight) for weight in given),
            next=_NEXT,
            file=file,
            line=line,
        )


def quantised(evidence: Evidence) -> Iterator[Hit]:
    """C11: weights that are called quantised, and a recipe that does not quantise."""
    kinds, card = evidence.kinds, evidence.card
    if not kinds.said or kinds.opaque:
        return
    try:
        config = evidence.folder.read_json(CONFIG) or {}
    except MalformedError as error:
        yield _unread(error, CONFIG, 0)
        config = {}
    declared = config.get("quantization_config")
    if not kinds.quantises:
        if isinstance(declared, dict):
            method = str(declared.get("quant_method", "unnamed"))
            yield _called("quantization_config", method, CONFIG, 0)
        if card is not None:
            tags = [tag for tag in texts(card.matter.get("tags")) if tag.lower() in _QUANTISED_TAGS]
            if tags:
                yield _called("tags", ", ".join(tags), README, card.line("tags"))
            if "quantized_by" in card.matter:
                who = str(card.matter["quantized_by"])
                yield _called("quantized_by", who, README, card.line("quantized_by"))
    elif isinstance(declared, dict):
        yield from _bits(evidence, declared)


def _bits(evidence: Evidence, declared: dict[str, Any]) -> Iterator[Hit]:
    step = next(
        (s for s in reversed(evidence.authority.lineage.recipe.steps) if isinstance(s, QUANTISE)),
        None,
    )
    four = declared.get("load_in_4bit") is True or declared.get("bits") == 4
    eight = declared.get("load_in_8bit") is True or declared.get("bits") == 8
    if (isinstance(step, QuantiseRtn) and four) or (isinstance(step, QuantiseNf4) and eight):
        yield Hit(
            message="the config says another width than the recipe's quantisation",
            where="quantization_config",
            expected=str(step.__struct_config__.tag),
            found="4 bits" if four else "8 bits",
            file=CONFIG,
        )
    evidence.skip(
        "whether the quantised weights come from the parent: parentage verify recomputes them"
    )


def _called(where: str, found: str, file: str, line: int) -> Hit:
    return Hit(
        message="it is called quantised; the manifest declares no such step",
        where=where,
        expected="a step that quantises",
        found=found,
        next="declare the step, or take the words out",
        file=file,
        line=line,
    )


def _unread(error: MalformedError, file: str, line: int) -> Hit:
    return Hit(
        message=f"can't be compared: {error.what}",
        where=error.where,
        expected=error.expected,
        found=error.found,
        file=file,
        line=line,
        at_most=Level.WARNING,
    )


def _number(text: str) -> float:
    return float(ratio(text))
