"""What holds for a tensor that no engine gives exactly: rungs B, C and D, or a refutation.

B   the scalars that the engine computed once for the whole tensor are found by search, each within its
    bound of float64, and every element then has its bits (witness.py).
C   every element is one of those that equal magnitudes at a threshold leave open, in the right number
    (choosing.py); or lies in the interval that any engine within a proven error bound can reach.
D   every element is one of those that an unknown random mask leaves open; never proof of the mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import torch

from parentage.verify import witness
from parentage.verify.differences import Difference, differences, first_difference
from parentage.verify.engine import Chunk, Engine, StepSource, chunks_of, torch_threads
from parentage.verify.methods.base import Choice, Chooser, Scalared, Scalars
from parentage.verify.methods.merging import WITNESS
from parentage.verify.rounding import bits
from parentage.verify.values import FileSource, Scratch
from parentage.verify.verdict import Rung, TensorResult

_ROUNDS: Final = 12
#: How often scalars are read off a release, each time with one more element that the last missed.
_READINGS: Final = 8
#: Scalars tried for a tensor whose mask is open, each time on a sample of its elements.
_ASKS: Final = 200
#: Elements from which scalars are read off a release before whole tensors are reduced, and how often.
_LARGE: Final = 1 << 16
_OFFERS: Final = 3


def below_exact(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> TensorResult:
    """Return the best rung below A that a tensor reaches."""
    # A search looks at small samples, often: torch's threads would cost more than they save.
    with torch_threads(1):
        return _below_exact(engine, release, step, result)


def _below_exact(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> TensorResult:
    method = step.method
    if isinstance(method, Chooser) and (method.unseeded or not result.differing):
        return _chosen(engine, release, step, result)
    if (found := _offered(engine, release, step, result)) is not None:
        return found
    if isinstance(method, Scalared) and method.scalars(result.name, result.engine):
        found = _witnessed(engine, release, step, result)
        if found.rung == Rung.WITNESSED or found.outside:
            return found
    if isinstance(method, Chooser) and method.exact_is_costly:
        return _chosen(engine, release, step, result)
    bounded = _in_cell(engine, release, step, result)
    if not bounded and isinstance(method, Scalared):
        # No search is complete: what it finds no scalars for is undecided, not disproved.
        result.rung = Rung.UNPROVEN
    return result


def _witnessed(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> TensorResult:
    """Rung B by the scalars of another engine, by torch's own, or by those that a search finds."""
    method, name, variant = step.method, result.name, result.engine
    if not isinstance(method, Scalared):
        return result
    searches: list[_Search] = []
    for each in dict.fromkeys((variant, *method.variants)):
        search = _Search(engine, release, step, result, each, _bounds(method, name, each))
        searches.append(search)
        with torch.inference_mode():
            for scalars in _guesses(release, step, name, each, search.looked_at):
                if search.fits(scalars):
                    result.engine = each
                    return _on_rung_b(result, search.best, search.bounds)
    if _refuted(engine, release, step, result):
        return result
    search, least = searches[0], math.inf
    # One scalar that is read off by bisection is not found by a walk either.
    for _ in range(0 if method.replay_streams and len(search.bounds.exact) == 1 else _ROUNDS):
        with torch.inference_mode():
            left = search.descend()
        if not left.differing:
            return _on_rung_b(result, search.best, search.bounds)
        least = left.differing
        if not search.learn(left):
            break
    result.differing = int(min(_counted(engine, release, step, result), least))
    return result


def _offered(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> TensorResult | None:
    """Return rung B where scalars that cost nothing give every element and are within their bounds.

    Those are the published ones, and of large tensors those that are read off the release. What they are
    held to may be found while elements are compared with what they give.
    """
    method, name = step.method, result.name
    if not isinstance(method, Scalared) or method.deterministic:
        return None
    published = method.witness.get(name)
    with torch.inference_mode():
        if published:
            found = _tried(engine, release, step, result, published)
            if not isinstance(found, int | None):
                return found
        places: list[int] = []
        while method.replay_streams and result.elements >= _LARGE and len(places) < _OFFERS:
            offered = method.suggest(name, result.engine, release, places)
            found = _tried(engine, release, step, result, offered)
            if not isinstance(found, int | None):
                return found
            if found is None or found < max(places, default=0):
                break  # it is out of bounds, or explains less than the one before
            places.append(found)
    method.witness.pop(name, None)
    if published is not None:
        method.witness[name] = published
    return None


def _tried(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult, scalars: Scalars
) -> TensorResult | int | None:
    """Return rung B under some scalars, or the first element that they do not give; None: out of bounds."""
    method, name = step.method, result.name
    if not isinstance(method, Scalared):
        return None
    method.witness[name] = scalars
    place = first_difference(engine, release, step, result.engine + WITNESS, name)
    if place is not None:
        return place
    bounds = _bounds(method, name, result.engine)
    if not witness.within(scalars, bounds):
        return None
    return _on_rung_b(result, bounds.exact | scalars, bounds)


def _counted(engine: Engine, release: FileSource, step: StepSource, result: TensorResult) -> int:
    """Count all elements that differ: the comparison may have ended at the first of them (work.py)."""
    return differences(engine, release, step, result.engine, [result.name])[result.name].differing


def _refuted(engine: Engine, release: FileSource, step: StepSource, result: TensorResult) -> bool:
    """Say whether no scalars within any bound explain a tensor: far cheaper than a search for them."""
    found = msgspec.structs.replace(result)
    if not _in_cell(engine, release, step, found) or found.rung != Rung.REFUTED:
        return False
    result.rung, result.outside = found.rung, found.outside
    result.ambiguous, result.unexplained = found.ambiguous, found.unexplained
    result.differing = _counted(engine, release, step, result)
    return True


def _bounds(method: Scalared, name: str, variant: str, box: float = witness.BOX) -> witness.Bounds:
    exact = method.scalars(name, variant)
    return witness.Bounds(exact, method.scalar_dtype(name), method.noise, box)


def published_within(source: StepSource) -> bool:
    """Say whether a step has published scalars, and all of them are within their bounds."""
    method, variant = source.method, source.method.variants[0]
    if not isinstance(method, Scalared) or not method.witness:
        return False
    return all(
        name in source.specs and witness.within(scalars, _bounds(method, name, variant))
        for name, scalars in method.witness.items()
    )


class _Search:
    """A search for the scalars of one tensor: first by guesses, then from the best of them."""

    def __init__(
        self,
        engine: Engine,
        release: FileSource,
        step: StepSource,
        result: TensorResult,
        variant: str,
        bounds: witness.Bounds,
    ) -> None:
        self._engine, self._release, self._step = engine, release, step
        self._name, self.variant = result.name, variant
        self.bounds = bounds
        self.best, self._least = dict(bounds.exact), math.inf
        self._tried: list[Scalars] = []
        self._sample = witness.Sample(result.elements)
        if result.first is not None:
            self._sample.add([result.first.index])
        self._asked = witness.Budget(self._loss)
        self._scratch = Scratch(engine.device)

    def looked_at(self) -> list[int]:
        """Return the beginnings of the ranges in the sample."""
        return sorted(start for start, _ in self._sample.ranges)

    def _use(self, scalars: Scalars) -> None:
        if isinstance(self._step.method, Scalared):
            self._step.method.witness[self._name] = scalars

    def _loss(self, scalars: Scalars) -> float:
        self._use(scalars)
        total = 0.0
        for start, stop in self._sample.ranges:
            self._scratch.reset()
            got = self._step.method.chunk(
                self._name, start, stop, self.variant + WITNESS, self._scratch
            )
            found = self._release.read(self._name, start, stop, self._scratch)
            total += witness.distance(got, found)
        return total

    def missed(self, scalars: Scalars) -> Difference:
        """Return how a whole tensor differs, given scalars."""
        self._use(scalars)
        variant = self.variant + WITNESS
        return differences(self._engine, self._release, self._step, variant, [self._name])[
            self._name
        ]

    def fits(self, scalars: Scalars) -> bool:
        """Say whether scalars are within their bounds and give every element."""
        if scalars in self._tried or not witness.within(scalars, self.bounds):
            return False
        self._tried.append(scalars)
        candidate = self.bounds.exact | scalars
        loss = self._loss(candidate)
        if loss < self._least:
            self.best, self._least = candidate, loss
        if loss:
            return False
        self._use(candidate)
        variant = self.variant + WITNESS
        place = first_difference(self._engine, self._release, self._step, variant, self._name)
        if place is not None:
            self._sample.add([place])
            self._least = math.inf
            return False
        self.best = candidate
        return True

    def descend(self) -> Difference:
        """Search on the sample, and return what is left of the whole."""
        self.best = witness.descend(self.best, self.bounds, self._asked)
        return self.missed(self.best)

    def learn(self, left: Difference) -> bool:
        """Take elements that still differ into the sample; say whether to go on."""
        if self._asked.left <= 0 or self._sample.covers(left.places):
            return False
        self._sample.add(left.places)
        return True


def _guesses(
    release: FileSource,
    step: StepSource,
    name: str,
    variant: str,
    looked_at: Callable[[], Sequence[int]],
) -> Iterator[Scalars]:
    """Return scalars to try before a search: published, read off the release, and torch's own.

    The sample grows with what fits it and not the rest: then scalars are read off again.
    """
    method = step.method
    if not isinstance(method, Scalared):
        return
    published = method.witness.get(name)
    if published is not None:
        yield dict(published)
    yield method.scalars(name, variant)
    seen: Sequence[int] = ()
    for _ in range(_READINGS):
        if len(looked_at()) == len(seen):
            break
        seen = looked_at()
        yield method.suggest(name, variant, release, seen)
    if step.specs[name].elements > witness.REPLAYED and not method.replay_streams:
        return
    for count in witness.THREADS:
        # What streams is the engine's own reading on one thread: that has missed already.
        if count > 1 or not method.replay_streams:
            with torch_threads(count):
                guess = method.replay(name, variant)
            yield guess


def _on_rung_b(result: TensorResult, scalars: Scalars, bounds: witness.Bounds) -> TensorResult:
    return TensorResult(
        name=result.name,
        rung=Rung.WITNESSED,
        elements=result.elements,
        engine=result.engine,
        witness=bounds.deviations(scalars),
    )


class _Totals(msgspec.Struct):
    outside: int = 0
    open: int = 0
    least: list[int] = msgspec.field(default_factory=list)
    most: list[int] = msgspec.field(default_factory=list)


def _chosen(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> TensorResult:
    """Rungs C and D: every element is one of its choices, and the choices add up."""
    method, name = step.method, result.name
    if not isinstance(method, Chooser):
        return result
    scalars = _scalars_of_choices(engine, release, step, result)

    def task(chunk: Chunk, scratch: Scratch) -> Choice | None:
        found = release.read(name, chunk.start, chunk.stop, scratch)
        engine.report(found.numel() * found.element_size())
        return method.choices(name, chunk.start, chunk.stop, found, scratch, scalars)

    totals = _Totals()
    for part in engine.map(task, list(chunks_of(step.specs[name]))):
        if part is None:
            result.rung = Rung.UNPROVEN
            return result
        totals.outside += part.outside
        totals.open += part.open
        totals.least = _plus(totals.least, part.least)
        totals.most = _plus(totals.most, part.most)
    result.ambiguous, result.unexplained = totals.open, totals.outside
    result.outside = totals.outside
    if totals.outside:
        result.differing = totals.outside
        result.rung = Rung.UNPROVEN if scalars else Rung.REFUTED
        return result
    for index, (least, most) in enumerate(zip(totals.least, totals.most, strict=True)):
        low, high = method.allowed(name, index)
        if most < low or least > high:
            result.rung = Rung.REFUTED
            result.differing = result.unexplained = totals.open
            return result
    result.differing = 0
    result.rung = Rung.CONSISTENT if method.unseeded else Rung.IN_CELL
    if scalars and isinstance(method, Scalared):
        bounds = _bounds(method, name, result.engine.partition("/")[0])
        result.witness = bounds.deviations(scalars)
    return result


def _plus(left: list[int], right: list[int]) -> list[int]:
    return [a + b for a, b in zip(left or [0] * len(right), right, strict=True)]


def _scalars_of_choices(
    engine: Engine, release: FileSource, step: StepSource, result: TensorResult
) -> Scalars:
    """Return scalars under which a sample of elements are among their choices."""
    method, name = step.method, result.name
    if not isinstance(method, Scalared) or not isinstance(method, Chooser):
        return {}
    # The mean of a random sample is as far from its expectation as the sample is small.
    spread = 8 / max(step.specs[name].elements, 1) ** 0.5 if method.unseeded else 0.0
    bounds = _bounds(method, name, result.engine.partition("/")[0], max(witness.BOX, spread))
    if not bounds.exact:
        return {}
    scratch = Scratch(engine.device)
    sample = witness.Sample(step.specs[name].elements, length=1024, count=3)

    def loss(scalars: Scalars) -> float:
        total = 0.0
        for start, stop in sample.ranges:
            scratch.reset()
            found = release.read(name, start, stop, scratch)
            part = method.choices(name, start, stop, found, scratch, scalars)
            total += part.distance if part else 0.0
        return total

    with torch.inference_mode():
        start = bounds.exact | method.suggest(name, result.engine.partition("/")[0], release)
        return witness.descend(start, bounds, witness.Budget(loss, _ASKS))


def _in_cell(engine: Engine, release: FileSource, step: StepSource, result: TensorResult) -> bool:
    """Try intervals: the cells of one engine, for all of a tensor; say whether there are any."""
    counts = {v: _outside(engine, release, step, result.name, v) for v in step.method.variants}
    bounded = {variant: count for variant, count in counts.items() if count is not None}
    if not bounded:
        return False
    best = min(bounded, key=lambda variant: (bounded[variant].outside, bounded[variant].ambiguous))
    found = bounded[best]
    result.ambiguous, result.unexplained = found.ambiguous, found.unexplained
    result.outside = found.outside
    if found.outside:
        result.rung = Rung.REFUTED
    elif not step.method.proven_bound:
        result.rung = Rung.UNPROVEN
    else:
        result.rung = Rung.IN_CELL
    return True


class _Cells(msgspec.Struct):
    outside: int
    ambiguous: int
    unexplained: int


def _outside(
    engine: Engine, release: FileSource, step: StepSource, name: str, variant: str
) -> _Cells | None:
    """Count a tensor's elements against the interval of one engine; None where it has no bound."""

    def task(chunk: Chunk, scratch: Scratch) -> tuple[int, int, int] | None:
        allowed = step.method.interval(chunk.name, chunk.start, chunk.stop, variant, scratch)
        if allowed is None:
            return None
        low, high = allowed
        found = release.read(chunk.name, chunk.start, chunk.stop, scratch)
        inside = (found >= low) & (found <= high)
        known = torch.zeros_like(inside)
        for engine_name in step.method.variants:
            value = step.method.chunk(chunk.name, chunk.start, chunk.stop, engine_name, scratch)
            same = bits(value) == bits(found)
            known |= same
            if engine_name == variant:
                inside |= same
        return int((~inside).sum()), int((low != high).sum()), int((~known).sum())

    parts = engine.map(task, list(chunks_of(step.specs[name])))
    counted = [part for part in parts if part is not None]
    if len(counted) != len(parts):
        return None
    outside, ambiguous, unexplained = (sum(column) for column in zip(*counted, strict=True))
    return _Cells(outside, ambiguous, unexplained)
