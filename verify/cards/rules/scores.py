"""C10: benchmark results that nobody's statement binds to these weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec

from parentage.attest.statements.benchmark import Benchmark
from parentage.manifest.card import MAX_MATTER, README
from parentage.manifest.errors import MalformedError
from parentage.manifest.strict_yaml import parse_marked
from parentage.verify.cards.evidence import Evidence, Hit
from parentage.verify.showing import Level

_INDEX: Final = "model-index"
_SHOWN: Final = 5
_NEXT: Final = "parentage bench attach, so that the score belongs to these weights"
_LONGEST: Final = 64
_LARGEST: Final = 64 << 10
_ROUNDED: Final = Decimal("0.005")


#: Values by task or data set, and metric; the empty metric is any.
Signed = dict[tuple[str, str], set[str]]


class Claimed(msgspec.Struct, frozen=True):
    """A score as a card gives it.

    Attributes:
        names: of its task and data set, in small letters.
        metric: in small letters; empty where the format has none.
        value: as it stands.
    """

    names: tuple[str, ...]
    metric: str
    value: str

    def __str__(self) -> str:
        return f"{self.names[0] if self.names else 'unnamed'}: {f'{self.metric} ' if self.metric else ''}{self.value}"


def unbound(evidence: Evidence) -> Iterator[Hit]:
    """C10: scores of `model-index` and `.eval_results`, aggregated by file."""
    card = evidence.card
    if card is not None:
        yield from _of_file(
            evidence, list(_of_index(card.matter.get(_INDEX))), README, card.line(_INDEX)
        )
    for name in evidence.folder.score_files():
        try:
            text = (evidence.folder.read(name, _LARGEST) or b"").decode("utf-8")
            document = parse_marked(text, where=name, limit=MAX_MATTER).value
        except (MalformedError, UnicodeDecodeError) as error:
            what = error.what if isinstance(error, MalformedError) else "not UTF-8"
            yield Hit(
                message=f"results that can't be read: {what}", file=name, at_most=Level.WARNING
            )
            continue
        yield from _of_file(evidence, list(_of_results(document)), name, 1)


def _of_file(evidence: Evidence, said: list[Claimed], file: str, line: int) -> Iterator[Hit]:
    if not said:
        return
    root = evidence.authority.lineage.weights.root
    benchmarks = evidence.authority.benchmarks
    ours = _signed(one for one in benchmarks if one.weights == root)
    others = _signed(one for one in benchmarks if one.weights != root)
    loose = [score for score in said if not _is_bound(score, ours)]
    moved = [score for score in loose if _is_bound(score, others)]
    if moved:
        yield _hit("benchmark results that a statement binds to other weights", moved, file, line)
    if rest := [score for score in loose if score not in moved]:
        yield _hit("benchmark results that no statement binds to these weights", rest, file, line)


def _signed(statements: Iterable[Benchmark]) -> Signed:
    """Return the values that statements give, by task or data set, and by metric or none."""
    found: Signed = {}
    for one in statements:
        if one.replayed is not None and not one.replayed.agrees:
            continue
        data = {task.id: task.dataset for task in one.tasks}
        for score in one.scores:
            names = {score.task.lower(), data.get(score.task, "").lower()} - {""}
            metrics = {"", score.metric.lower(), score.metric.split(",")[0].lower()}
            for key in ((name, metric) for name in names for metric in metrics):
                found.setdefault(key, set()).add(score.value)
    return found


def _is_bound(said: Claimed, signed: Signed) -> bool:
    """Say whether statements have this score: of that task or data set, that metric, to its digits."""
    values = (signed.get((name, said.metric), ()) for name in said.names)
    return any(_agrees(said.value, value) for found in values for value in found)


def _agrees(said: str, signed: str) -> bool:
    """Say whether a number is another one to its own digits, as itself or in percent."""
    try:
        number = Decimal(said.strip()) if len(said) <= _LONGEST else Decimal("NaN")
    except InvalidOperation:
        return False
    if not number.is_finite() or abs(number.adjusted()) > _LONGEST:
        return False
    half = Decimal(1).scaleb(min(0, int(number.as_tuple().exponent))) / 2
    exact = Decimal(signed)
    # By half a percent at most: 0.55 is never 1, however few digits a card has.
    return abs(number - exact) <= min(half, _ROUNDED * max(abs(exact), Decimal(1))) or (
        abs(exact) <= 1 and abs(number - 100 * exact) <= min(half, 100 * _ROUNDED)
    )


def _of_index(value: Any) -> Iterator[Claimed]:  # noqa: ANN401  (a YAML value)
    for model in _mappings(value):
        for result in _mappings(model.get("results")):
            found = [result.get(part) for part in ("dataset", "task")]
            names = [
                part.get(key)
                for part in found
                if isinstance(part, dict)
                for key in ("name", "type")
            ]
            for metric in _mappings(result.get("metrics")):
                yield _claimed(names, metric.get("type"), metric.get("value"))


def _of_results(value: Any) -> Iterator[Claimed]:  # noqa: ANN401  (a YAML value)
    for entry in _mappings(value):
        data = entry.get("dataset")
        names = [data.get("id"), data.get("task_id")] if isinstance(data, dict) else [data]
        yield _claimed(names, None, entry.get("value"))


def _claimed(names: list[Any], metric: Any, value: Any) -> Claimed:  # noqa: ANN401  (YAML values)
    return Claimed(
        tuple(name.lower() for name in names if isinstance(name, str)),
        metric.lower() if isinstance(metric, str) else "",
        str(value),
    )


def _mappings(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (a YAML value)
    listed = value if isinstance(value, list) else [value]
    for item in listed:
        if isinstance(item, dict):
            yield item


def _hit(message: str, found: list[Claimed], file: str, line: int) -> Hit:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return Hit(
        message=f"{len(found)} {message}",
        where=_INDEX if file == README else "",
        expected="a benchmark statement over these weights",
        found="; ".join(map(str, found[:_SHOWN])) + more,
        next=_NEXT,
        file=file,
        line=line,
    )
