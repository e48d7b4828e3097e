"""C10: benchmark results that nobody's statement binds to these weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from parentage.manifest.card import MAX_MATTER, README
from parentage.manifest.errors import MalformedError
from parentage.manifest.strict_yaml import parse_marked
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.showing import Level

_INDEX: Final = "model-index"
_SHOWN: Final = 5
_NEXT: Final = "parentage bench attach, so that the score belongs to these weights"


def unbound(evidence: Evidence) -> Iterator[Hit]:
    """C10: scores of `model-index` and `.eval_results`, aggregated by file."""
    card = evidence.card
    if card is not None:
        found = list(_of_index(card.matter.get(_INDEX)))
        if found:
            yield _hit(found, README, card.line(_INDEX))
    for name in evidence.folder.score_files():
        try:
            data = evidence.folder.read(name) or b""
            text = data.decode("utf-8")
            document = parse_marked(text, where=name, limit=MAX_MATTER).value
        except (MalformedError, UnicodeDecodeError) as error:
            what = error.what if isinstance(error, MalformedError) else "not UTF-8"
            yield Hit(
                message=f"results that can't be read: {what}", file=name, at_most=Level.WARNING
            )
            continue
        found = list(_of_results(document))
        if found:
            yield _hit(found, name, 1)


def _of_index(value: Any) -> Iterator[str]:  # noqa: ANN401  (a YAML value)
    for model in _mappings(value):
        for result in _mappings(model.get("results")):
            task, data = result.get("task"), result.get("dataset")
            of = data if isinstance(data, dict) else task if isinstance(task, dict) else {}
            for metric in _mappings(result.get("metrics")):
                name = of.get("name") or of.get("type")
                yield f"{name}: {metric.get('type')} {metric.get('value')}"


def _of_results(value: Any) -> Iterator[str]:  # noqa: ANN401  (a YAML value)
    for entry in _mappings(value):
        data = entry.get("dataset")
        name = data.get("id") if isinstance(data, dict) else data
        yield f"{name}: {entry.get('value')}"


def _mappings(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (a YAML value)
    listed = value if isinstance(value, list) else [value]
    for item in listed:
        if isinstance(item, dict):
            yield item


def _hit(found: list[str], file: str, line: int) -> Hit:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Hit(
        message=f"{len(found)} benchmark results that no statement binds to these weights",
        where=_INDEX if file == README else "",
        expected="a benchmark statement over these weights",
        found="; ".join(found[:_SHOWN]) + more,
        next=_NEXT,
        file=file,
        line=line,
    )
