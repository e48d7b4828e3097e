"""Join: the report of a whole run, decided from the signed partial results of all its shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from parentage.attest.policy import Role
from parentage.attest.roles import Believed, InRole
from parentage.attest.trust import Trust, TrustedKeys, keys_of
from parentage.manifest import digest
from parentage.manifest.errors import (
    CannotRunError,
    MalformedError,
    PartError,
    SignatureError,
    UsageError,
)
from parentage.manifest.steps import DECLARED, Step
from parentage.verify.claimed import State
from parentage.verify.demands import Demands
from parentage.verify.examination import Seen, examination, take
from parentage.verify.report import Report, StepReport
from parentage.verify.verdict import Rung

if TYPE_CHECKING:
    from parentage.verify.outcome import Outcome
    from parentage.verify.parts import Part

MAX_PART: Final = 64 << 20


def join(
    release: Path,
    parts: Sequence[Path],
    *,
    trust: Trust,
    verifiers: TrustedKeys | None = None,
    demands: Demands | None = None,
) -> Report:
    """Verify a release as `verify` does, taking what was recomputed from partial results.

    Signature, bytes and weights root are checked here, once more. Parents are not needed.

    Args:
        release: its folder.
        parts: files that `--shard` wrote, in any order.
        trust: the publisher.
        verifiers: whose parts are believed; never the publisher's. None: the policy's verifiers.
        demands: as the shards had; `rung`, `whole_files`, `threads` and `progress` count.

    Raises:
        PartError: a part is not by a verifier, is broken, of other inputs, or stands twice.
        UsageError: a publisher's key is named as a verifier's, or a file does not exist.
    """
    believed = _verifiers(trust, verifiers)

    def history(state: State, seen: Seen) -> None:
        from parentage.verify.outcome import Outcome

        opened = [_open(path, seen, believed) for path in parts]
        outcome = Outcome(device=_device(opened))
        _decide(outcome, opened, state, seen)
        take(state, outcome)

    return examination(release, trust, demands or Demands(), history)


def _verifiers(trust: Trust, named: TrustedKeys | None) -> Trust:
    """Return whose parts are believed."""
    policy = trust if isinstance(trust, Believed) else None
    if named is None:
        if policy is None or Role.VERIFIER not in {seat.role for seat in policy.seats}:
            raise UsageError(
                "whose parts are to be believed?", hint="--verifier KEY, or a policy with verifiers"
            )
        return InRole(policy, Role.VERIFIER)
    publishers = {key.fingerprint for key in keys_of(trust)}
    if policy is not None:
        publishers = {s.fingerprint for s in policy.seats if s.role is Role.PUBLISHER}
    for key in named.keys:
        if key.fingerprint in publishers:
            raise UsageError(
                "a publisher can't be a verifier of its own release", found=key.fingerprint
            )
    return named


def _open(path: Path, seen: Seen, verifiers: Trust) -> Part:
    from parentage.verify.parts import open_part

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_PART + 1)
    except OSError as error:
        raise UsageError(f"can't read: {error.strerror}", where=str(path)) from error
    if len(data) > MAX_PART:
        raise PartError("partial result too large", where=str(path))
    try:
        return open_part(data, str(path), verifiers, seen.subjects(), seen.signature.signer)
    except (MalformedError, SignatureError) as error:
        # About the part, not about the release: this refutes nothing.
        raise PartError(
            error.what,
            where=error.where,
            expected=error.expected,
            found=error.found,
            hint="name the verifier's key with --verifier, or run that shard again",
        ) from error


def _device(parts: Sequence[Part]) -> str:
    return ", ".join(sorted({part.device for part in parts}))


def _decide(outcome: Outcome, parts: Sequence[Part], state: State, seen: Seen) -> None:
    from parentage.verify import sharding
    from parentage.verify.outcome import preface, reached
    from parentage.verify.running import inputs_of

    gaps = sharding.missing(parts)
    lineage, first = seen.lineage, parts[0]
    parents = sorted(parent.id for parent in lineage.parents)
    expected = inputs_of(state.report.root, lineage, parents, state.demands.rung)
    for name, value in expected.items():
        if first.inputs.get(name) != value:
            raise PartError(
                f"partial results of other inputs: {name}",
                expected=value,
                found=first.inputs.get(name, "none"),
            )
    outcome.found = parents
    outcome.findings += first.notes
    preface(outcome)
    steps = lineage.recipe.steps
    if not steps or any(isinstance(step, DECLARED) for step in steps):
        raise PartError("partial results of a recipe that can't be recomputed")
    if set(first.steps) != {step.id for step in steps}:
        raise PartError("partial results of other steps", found=", ".join(first.steps))
    for step in steps[:-1]:
        outcome.steps.append(_intermediate(outcome, parts, step, gaps))
    outcome.steps.append(_final(outcome, parts, seen, steps[-1], gaps, state.demands.rung))
    outcome.reached = reached(outcome.steps)


def _intermediate(
    outcome: Outcome, parts: Sequence[Part], step: Step, gaps: list[int]
) -> StepReport:
    from parentage.verify import sharding
    from parentage.verify.outcome import equal_root, line_of, other_root, unstated

    rules = parts[0].steps[step.id].rules
    variant = rules.variants[0]
    if not step.output:
        return unstated(step, variant)
    if gaps:
        return line_of(step, Rung.UNPROVEN, "not all shards are there")
    named = sharding.joined_identities(parts, step.id, variant)
    found = {profile: digest.weights_root(profile, n.items()) for profile, n in named.items()}
    if found == dict(step.output):
        return equal_root(step, variant, parts[0].steps[step.id].tensors)
    if not rules.deterministic:
        raise CannotRunError(
            "another engine than the likeliest made an earlier step; shards can't tell which",
            where=f"step {step.id}",
            hint="verify without --shard (--resume FILE keeps what a long run has found)",
        )
    return other_root(outcome, step, found, deterministic=True)


def _final(
    outcome: Outcome,
    parts: Sequence[Part],
    seen: Seen,
    step: Step,
    gaps: list[int],
    demanded: str,
) -> StepReport:
    from parentage.verify import sharding
    from parentage.verify.outcome import conclude, line_of
    from parentage.verify.recompute import results

    specs = {name: tensor.spec for name, tensor in seen.model.tensors.items()}
    known = parts[0].steps[step.id]
    tried = sharding.joined(parts, step.id, specs)
    line = conclude(outcome, step, results(known.rules, specs, tried), demanded)
    if gaps:
        names = ", ".join(f"{number}/{parts[0].of}" for number in gaps[:20])
        outcome.not_checked.append(
            f"{known.tensors - len(tried)} of {known.tensors} tensors: shards not given: {names}"
        )
        if line.rung != Rung.REFUTED:
            line = line_of(step, Rung.UNPROVEN, f"not all shards are there: {names}")
    return line
