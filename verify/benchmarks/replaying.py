"""Replay a benchmark: score logged samples again on verified weights, at places nobody could foresee.

The places come from the digest of the signed statement, which names the log by digest, and a nonce that the
verifier draws afterwards. What counts as equal comes from the same weights: scored again in other batches
and in a wider dtype, they show how far apart rounding alone puts two runs.
"""

from __future__ import annotations

import hashlib
import heapq
import secrets
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from parentage.attest.statements.benchmark import Replayed, SampleLog, Spread
from parentage.attest.statements.shared import Digest
from parentage.attest.trust import Trust
from parentage.manifest.errors import CannotRunError, UsageError
from parentage.verify.benchmarks.samples import Log, Request, pick, read_log
from parentage.verify.benchmarks.scoring import Scorer, Tokens, scorer
from parentage.verify.demands import Demands

_SEED: Final = b"parentage benchmark replay v0.1"
MAX_SAMPLES: Final = 4096
#: How much farther from the log a score may be than same weights are from each other.
MARGIN: Final = 4
#: Nats. Other libraries and devices sum in other orders, which reruns here can't show.
LEAST: Final = Decimal("0.00001")
_PLACES: Final = Decimal("0.000000001")
#: Batches of the reruns, beside the first, which is of one.
_BATCHES: Final = (2, 7)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One request, scored again.

    Attributes:
        where: in the log.
        logged, found: log-likelihoods, nats.
    """

    where: str
    logged: str
    found: str


class Replay(msgspec.Struct, frozen=True):
    """What a replay showed.

    Attributes:
        replayed: for the statement.
        worst: the largest differences, the largest first.
        others: answers in the log that can't be scored again.
    """

    replayed: Replayed
    worst: tuple[Difference, ...]
    others: int


def positions(claim: str, nonce: str, of: int, samples: int) -> list[int]:
    """Return which of `of` requests are scored again, ascending; the same for the same nonce.

    Args:
        claim: SHA-256 of the statement's payload, hex.
        nonce: 32 bytes, hex.
        of: requests in the log.
        samples: how many; all where there are fewer.
    """
    seed = hashlib.sha256(_SEED + bytes.fromhex(claim) + bytes.fromhex(nonce)).digest()

    def rank(at: int) -> bytes:
        return hashlib.sha256(seed + at.to_bytes(8, "little")).digest()

    return sorted(heapq.nsmallest(samples, range(of), key=rank))


def replay(
    release: Path,
    log: Path,
    *,
    claim: str,
    committed: Sequence[SampleLog],
    samples: int,
    trust: Trust,
    demands: Demands | None = None,
    dtype: str = "",
    nonce: str = "",
) -> Replay:
    """Score some requests of a log again.

    Args:
        release: whose weights.
        log: JSON lines.
        claim: SHA-256 of the payload of the statement that names the log.
        committed: logs that this statement names.
        samples: how many requests.
        trust: who may have signed the release.
        demands: device, threads, progress.
        dtype: to compute in; empty: the model's own.
        nonce: to repeat a replay; empty: drawn now.

    Raises:
        UsageError: the statement names another log.
        RefusedError: the weights are not what was signed.
        CannotRunError: nothing in the log can be scored again, or an extra is missing.
        ResultsError, JsonError: the log is none.
    """
    counted = read_log(log)
    if counted.log not in committed:
        raise UsageError(
            "the statement names another log",
            where=str(log),
            expected=", ".join(one.sha256 for one in committed) or "none",
            found=counted.log.sha256,
        )
    if not counted.requests:
        raise CannotRunError(
            "nothing in this log can be scored again",
            where=str(log),
            expected="log-likelihood requests",
            found=f"{counted.others} other answers",
        )
    drawn = nonce or secrets.token_hex(32)
    chosen = positions(claim, drawn, counted.requests, min(samples, MAX_SAMPLES))
    requests = pick(log, chosen, counted.log)
    with scorer(release, trust, demands or Demands(), dtype=dtype) as model:
        return _compared(model, requests, counted, claim, drawn)


def _compared(
    model: Scorer, requests: Sequence[Request], counted: Log, claim: str, nonce: str
) -> Replay:
    tokens = [model.tokens(request) for request in requests]
    first = model.scores(tokens, 1)
    spread, reruns = _spread(model, tokens, first)
    pairs = [
        (abs(Decimal(score) - request.logged), request, score)
        for request, score in zip(requests, first, strict=True)
    ]
    deltas = [delta for delta, _, _ in pairs]
    said = Spread(reruns=reruns, median=_text(median(spread)), most=_text(max(spread)))
    # Two bounds: one request may be unlucky, and half of them are not.
    bounds = [max(MARGIN * Decimal(own), LEAST) for own in (said.most, said.median)]
    found = [Decimal(_text(one)) for one in (max(deltas), median(deltas))]
    worst = sorted(pairs, key=lambda pair: -pair[0])[:5]
    return Replay(
        Replayed(
            claim=Digest(sha256=claim),
            nonce=nonce,
            requests=len(requests),
            of_requests=counted.requests,
            most=_text(found[0]),
            median=_text(found[1]),
            tolerance=_text(bounds[0]),
            median_tolerance=_text(bounds[1]),
            same_weights=said,
            agrees=all(one <= bound for one, bound in zip(found, bounds, strict=True)),
            device=model.device,
            dtype=model.dtype,
        ),
        tuple(
            Difference(
                where=request.where, logged=_text(request.logged), found=_text(Decimal(score))
            )
            for _, request, score in worst
        ),
        counted.others,
    )


def _spread(
    model: Scorer, tokens: Sequence[Tokens], first: Sequence[float]
) -> tuple[list[Decimal], int]:
    """Score the same weights again, otherwise; return how far apart each sample comes, and the reruns."""
    runs = [first, *(model.scores(tokens, batch) for batch in _BATCHES)]
    wider = model.wider()
    if wider:
        with model.computing_in(wider):
            runs.append(model.scores(tokens, 1))
    return [Decimal(max(scores)) - Decimal(min(scores)) for scores in zip(*runs, strict=True)], len(
        runs
    ) - 1


def _text(value: Decimal) -> str:
    """Return nats to nine places."""
    return format(value.quantize(_PLACES), "f")
