"""`benchmark/v0.1`: these scores belong to these weights; how strongly the two are bound is part of it.

Numbers are decimal strings, as the results file has them. Three bindings:

    asserted   somebody signed scores and weights root together
    observed   the weights were digested before and after the command that made the scores
    replayed   another party scored logged samples again on verified weights
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from parentage.attest.clock import Time, parse_time
from parentage.attest.statement import Statement, Subject
from parentage.attest.statements.shared import Digest, Words, read, write
from parentage.manifest.errors import StatementError
from parentage.manifest.lineage import NAMESPACE
from parentage.manifest.wire import DigestSet, Hex, Wire

TYPE: Final = f"{NAMESPACE}/benchmark/v0.1"
Binding = Literal["asserted", "observed", "replayed"]
#: From the weakest to the strongest.
BINDINGS: Final[tuple[Binding, ...]] = ("asserted", "observed", "replayed")
MAX_SCORES: Final = 20_000
MAX_ARGUMENTS: Final = 512
Number = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,60})?$(?!\n)",
        description="an exact number in decimal digits ('0.4375'), in quotes",
    ),
]
_Int = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
_Word = Annotated[str, msgspec.Meta(max_length=512)]


class Harness(Wire, frozen=True, kw_only=True):
    """The program that made the scores.

    Attributes:
        name: of the format that its results are in.
        version, commit: as its results say.
        backend: what ran the model: "hf", "vllm".
        dtype: that it computed in: "bfloat16".
    """

    name: _Name
    version: _Word = ""
    commit: _Word = ""
    backend: _Word = ""
    dtype: _Word = ""


class Task(Wire, frozen=True, kw_only=True):
    """What was asked of the model.

    Attributes:
        id: the harness's own name of it.
        version, task_hash: of its definition, and of its documents and prompts.
        dataset, dataset_revision: where the documents come from.
        samples: how many documents were scored.
    """

    id: _Name
    version: _Word = ""
    task_hash: _Word = ""
    dataset: _Word = ""
    dataset_revision: _Word = ""
    samples: _Int | None = None


class Score(Wire, frozen=True, kw_only=True):
    """One number.

    Attributes:
        task: id of a task.
        metric, filter: of which it is.
        value, stderr: exactly as the results file has them.
        samples: how many documents it is over, where that is known.
    """

    task: _Name
    metric: _Name
    value: Number
    filter: _Word = ""
    stderr: Number | None = None
    samples: _Int | None = None


class Results(Wire, frozen=True, kw_only=True):
    """The results file, by the digest of its bytes."""

    media_type: _Name
    sha256: Hex


class SampleLog(Wire, frozen=True, kw_only=True):
    """A log of what was asked and answered, by digest; `count` is its lines."""

    sha256: Hex
    count: _Int


class Environment(Wire, frozen=True, kw_only=True):
    """Where the command ran.

    Attributes:
        platform: system and machine.
        executable: SHA-256 of the program's file.
        packages: SHA-256 over the distributions installed beside it: canonical JSON of a sorted list of
            "name-version"; absent where there are none.
        distributions: how many those are.
    """

    platform: _Word
    executable: Hex
    packages: Hex | None = None
    distributions: _Int = 0


class Observed(Wire, frozen=True, kw_only=True):
    """A command that ran between two digests of the same weights.

    Attributes:
        argv: its arguments; `{release}` stands for the release.
        isolation: what kept it from the network: namespaces, or only variables that ask it to.
        environment: where it ran.
    """

    argv: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=8192)], ...],
        msgspec.Meta(min_length=1, max_length=MAX_ARGUMENTS),
    ]
    isolation: Literal["bubblewrap", "unshare", "environment"]
    environment: Environment


class Spread(Wire, frozen=True, kw_only=True):
    """How far scores of the same weights lie apart when only batches differ: nats, absolute.

    Attributes:
        reruns: how often all samples were scored again.
        median, most: of the differences.
    """

    reruns: Annotated[int, msgspec.Meta(ge=1, le=64)]
    median: Number
    most: Number


class Replayed(Wire, frozen=True, kw_only=True):
    """Logged log-likelihoods, scored again.

    Attributes:
        claim: payload of the statement whose samples these are.
        nonce: drawn after that was signed; with its digest it decides the positions.
        requests, of_requests: scored again, and in the log.
        median, most: differences from the log, nats, absolute.
        tolerance, median_tolerance: above either of which they disagree: of the largest difference, and
            of the median.
        same_weights: what the tolerance comes from.
        agrees: the outcome.
        device, dtype: what they were scored on.
    """

    claim: Digest
    nonce: Hex
    requests: _Int
    of_requests: _Int
    median: Number
    most: Number
    tolerance: Number
    median_tolerance: Number
    same_weights: Spread
    agrees: bool
    device: _Word
    dtype: _Word


class Benchmark(Wire, frozen=True, kw_only=True):
    """The predicate. Subjects: `lineage`, the SHA-256 of the lineage's payload, then those of the lineage.

    Attributes:
        binding: how strongly scores and weights are bound.
        weights: root of the weights, by digest profile.
        created: when this was said.
        harness, tasks, scores: what the results file says.
        results: that file.
        model: names of the model in it; hints.
        samples: logs beside it.
        tokenizer: SHA-256 of the release's tokenizer.json.
        chat_template: SHA-256 of its chat_template.jinja, else of its tokenizer_config.json.
        started, finished: of the run.
        observed, replayed: what the binding stands on.
        statement: for people.
    """

    binding: Binding
    weights: DigestSet
    created: Time
    harness: Harness
    tasks: Annotated[tuple[Task, ...], msgspec.Meta(min_length=1, max_length=4096)]
    scores: Annotated[tuple[Score, ...], msgspec.Meta(min_length=1, max_length=MAX_SCORES)]
    results: Results
    model: Annotated[tuple[_Name, ...], msgspec.Meta(max_length=16)] = ()
    samples: Annotated[tuple[SampleLog, ...], msgspec.Meta(max_length=4096)] = ()
    tokenizer: Digest | None = None
    chat_template: Digest | None = None
    started: Time | None = None
    finished: Time | None = None
    observed: Observed | None = None
    replayed: Replayed | None = None
    statement: Words = ""


def build(lineage: Digest, subjects: tuple[Subject, ...], benchmark: Benchmark) -> bytes:
    """Return the payload; `subjects` are those of the release's lineage.

    Raises:
        StatementError: it contradicts itself.
    """
    _check(benchmark, "benchmark")
    return write((Subject("lineage", lineage.sha256), *subjects), TYPE, benchmark)


def parse(statement: Statement, where: str) -> tuple[tuple[Subject, ...], Benchmark]:
    """Read a benchmark statement, and its subjects: `lineage`, then those of the lineage.

    Raises:
        StatementError: other fields, or it contradicts itself.
    """
    benchmark = read(statement, TYPE, Benchmark, where)
    if statement.subjects[0].name != "lineage":
        raise StatementError("benchmark of no lineage", where=where, expected="subject lineage")
    _check(benchmark, where)
    return statement.subjects, benchmark


def _check(benchmark: Benchmark, where: str) -> None:
    parse_time(benchmark.created, where)
    start, end = (
        None if time is None else parse_time(time, where)
        for time in (benchmark.started, benchmark.finished)
    )
    named = [task.id for task in benchmark.tasks]
    scored = [(score.task, score.metric, score.filter) for score in benchmark.scores]
    for wrong, what, expected in (
        (not benchmark.weights, "weights", "a root"),
        ((start is None) != (end is None), "times", "both, or neither"),
        (start is not None and end is not None and end < start, "times", "an end after the start"),
        (len(set(named)) != len(named), "tasks", "each once"),
        (len(set(scored)) != len(scored), "scores", "each once"),
        (any(task not in named for task, _, _ in scored), "scores", "of the tasks"),
        (
            (benchmark.binding == "observed") != (benchmark.observed is not None),
            "binding",
            "observed with what was observed, and no other",
        ),
        (
            (benchmark.binding == "replayed") != (benchmark.replayed is not None),
            "binding",
            "replayed with what was replayed, and no other",
        ),
    ):
        if wrong:
            raise StatementError(
                f"benchmark and its {what} do not fit", where=where, expected=expected
            )
    if benchmark.replayed is not None:
        _check_replay(benchmark.replayed, where)


def _check_replay(replayed: Replayed, where: str) -> None:
    from decimal import Decimal

    if not 0 < replayed.requests <= replayed.of_requests:
        raise StatementError(
            "replay of no samples, or of more than there are",
            where=where,
            expected="1 or more of those in the log",
            found=f"{replayed.requests} of {replayed.of_requests}",
        )
    same = replayed.same_weights
    bounds = (
        (replayed.most, same.most, replayed.tolerance),
        (replayed.median, same.median, replayed.median_tolerance),
    )
    agrees = all(Decimal(found) <= Decimal(bound) for found, _, bound in bounds)
    calibrated = all(Decimal(own) <= Decimal(bound) for _, own, bound in bounds)
    if replayed.agrees != agrees or not calibrated:
        raise StatementError(
            "replay contradicts its own numbers",
            where=where,
            expected=f"at most {replayed.tolerance}, median {replayed.median_tolerance}",
            found=f"{replayed.most}, median {replayed.median}",
        )
