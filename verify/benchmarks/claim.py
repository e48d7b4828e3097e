"""From a results file and a release to the statement that binds them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from parentage.attest import clock, oms
from parentage.attest.claims import Found
from parentage.attest.opening import Opened
from parentage.attest.statement import Subject
from parentage.attest.statements.benchmark import (
    Benchmark,
    Observed,
    Replayed,
    Results,
    SampleLog,
    build,
)
from parentage.attest.statements.shared import Digest, sha256
from parentage.manifest.wire import DigestSet
from parentage.verify.benchmarks.result import Result

_TOKENIZER = "tokenizer.json"
#: Where a chat template stands, the newer place first.
_TEMPLATES = ("chat_template.jinja", "tokenizer_config.json")


class Bound(msgspec.Struct, frozen=True):
    """A release as benchmark statements name it.

    Attributes:
        lineage: SHA-256 of its lineage's payload.
        subjects: of that lineage.
        weights: root of its weights.
        tokenizer, chat_template: SHA-256 of the signed files; None where it has none.
    """

    lineage: Digest
    subjects: tuple[Subject, ...]
    weights: DigestSet
    tokenizer: Digest | None = None
    chat_template: Digest | None = None

    def named(self) -> tuple[Subject, ...]:
        """Return the subjects of a statement about it."""
        return (Subject("lineage", self.lineage.sha256), *self.subjects)


def bound(signature: Opened, found: Found) -> Bound:
    """Return how statements name a release whose signature and lineage verified."""
    files = oms.parse(signature.statement).resources
    template = next((name for name in _TEMPLATES if name in files), None)
    return Bound(
        lineage=Digest(sha256=sha256(found.opened.payload)),
        subjects=found.opened.statement.subjects,
        weights=found.lineage.weights.root,
        tokenizer=Digest(sha256=files[_TOKENIZER]) if _TOKENIZER in files else None,
        chat_template=Digest(sha256=files[template]) if template else None,
    )


def claim(
    release: Bound,
    result: Result,
    data: bytes,
    *,
    samples: Sequence[SampleLog] = (),
    times: tuple[datetime, datetime] | None = None,
    observed: Observed | None = None,
    replayed: Replayed | None = None,
    words: str = "",
) -> bytes:
    """Return the payload of a benchmark statement.

    Args:
        release: that the scores belong to.
        result: of reading `data`.
        data: bytes of the results file.
        samples: logs beside it.
        times: of the run; None: those that the results file has.
        observed: what was seen of the run; with it the binding is stronger than asserted.
        replayed: what scoring samples again showed; stronger still.
        words: for people.

    Raises:
        StatementError: the parts contradict each other.
    """
    started, finished = times or _times(result)
    strongest = "replayed" if replayed else "observed" if observed else "asserted"
    return build(
        release.lineage,
        release.subjects,
        Benchmark(
            binding=strongest,  # type: ignore[arg-type]  # one of the three
            weights=release.weights,
            created=clock.to_text(clock.now()),
            harness=result.harness,
            tasks=result.tasks,
            scores=result.scores,
            results=Results(media_type=result.media_type, sha256=hashlib.sha256(data).hexdigest()),
            model=result.model,
            samples=tuple(samples),
            tokenizer=release.tokenizer,
            chat_template=release.chat_template,
            started=None if started is None else clock.to_text(started),
            finished=None if finished is None else clock.to_text(finished),
            observed=observed,
            replayed=replayed,
            statement=words,
        ),
    )


def _times(result: Result) -> tuple[datetime | None, datetime | None]:
    if result.started is None or result.finished is None or result.finished < result.started:
        return None, None
    return datetime.fromtimestamp(result.started, UTC), datetime.fromtimestamp(result.finished, UTC)
