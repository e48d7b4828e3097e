"""One shard's share of a recompute, gathered for a part; and all parts joined to what a whole run finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parentage.manifest.digest import Profile
from parentage.manifest.errors import PartError, UsageError
from parentage.manifest.tensor import TensorSpec
from parentage.verify import planner
from parentage.verify.engine import Engine
from parentage.verify.parts import Part, StepPart
from parentage.verify.recompute import Tried, examine, identities, rules_of
from parentage.verify.way import Way
from parentage.verify.work import Runner, Scene


def gather(
    runner: Runner,
    scene: Scene,
    way: Way,
    inputs: Mapping[str, str],
    demanded: str,
    engine: Engine,
) -> Part:
    """Find out about one share of the tensors of every step what a decision may need.

    A step before the last is taken under its likeliest engine: which of several it was made with only
    all shards together could say. Where that is another, `join` says so.
    """
    if way.shard is None:
        raise UsageError("no shard was asked for")
    shard, of = way.shard
    part = Part(inputs=dict(inputs), shard=shard, of=of, device=engine.device.type)
    *earlier, last = scene.bound
    for step in earlier:
        source = scene.bound[step]
        names = planner.shares(source.specs, of)[shard - 1]
        known = StepPart(rules=rules_of(source, demanded), tensors=len(source.specs))
        output = source.step.output
        if output:
            variant = source.method.variants[0]
            profiles: list[Profile] = list(output)
            found = identities(runner, scene, step, names, variant, profiles)
            known.identities = {variant: found}
        part.steps[step] = known
    source = scene.bound[last]
    rules = rules_of(source, demanded)
    names = planner.shares(source.specs, of)[shard - 1]
    tried = examine(runner, scene, last, names, rules, expect=engine, every_engine=way.every_engine)
    part.steps[last] = StepPart(rules=rules, tensors=len(source.specs), tried=tried)
    return part


def missing(parts: Sequence[Part]) -> list[int]:
    """Check that parts belong together, and return the shards that are not there.

    Raises:
        PartError: none at all, one twice, or of different inputs, counts or steps.
    """
    if not parts:
        raise PartError("no partial results to join")
    first = parts[0]
    for part in parts[1:]:
        for name in sorted({*first.inputs, *part.inputs}):
            if part.inputs.get(name) != first.inputs.get(name):
                raise PartError(
                    f"partial results of different inputs: {name}",
                    where=f"shards {first.shard} and {part.shard}",
                    expected=first.inputs.get(name, "none"),
                    found=part.inputs.get(name, "none"),
                )
        if (part.of, part.notes, _common(part)) != (first.of, first.notes, _common(first)):
            raise PartError(
                "partial results do not belong together",
                where=f"shards {first.shard}/{first.of} and {part.shard}/{part.of}",
                hint="run all shards with the same parents and options",
            )
    numbers = [part.shard for part in parts]
    for number in numbers:
        if numbers.count(number) > 1:
            raise PartError("a shard stands twice", found=f"{number}/{first.of}")
    return sorted(set(range(1, first.of + 1)) - set(numbers))


def _common(part: Part) -> dict[str, object]:
    return {step: (known.rules, known.tensors) for step, known in part.steps.items()}


def joined(parts: Sequence[Part], step: str, specs: Mapping[str, TensorSpec]) -> dict[str, Tried]:
    """Return what was found out about all tensors of the last step.

    Raises:
        PartError: a part says something about other tensors than its share.
    """
    found: dict[str, Tried] = {}
    for part in parts:
        share = planner.shares(specs, part.of)[part.shard - 1]
        tried = part.steps[step].tried if step in part.steps else {}
        if set(tried) != set(share):
            raise PartError(
                "partial result is about other tensors than its share",
                where=f"shard {part.shard}/{part.of}",
                expected=f"{len(share)} tensors",
                found=f"{len(tried)} tensors",
            )
        for name, known in tried.items():
            for result in known.below.values():
                if (result.name, result.elements) != (name, specs[name].elements):
                    raise PartError("partial result is about another tensor", where=name)
            found[name] = known
    return {name: found[name] for name in specs if name in found}


def joined_identities(
    parts: Sequence[Part], step: str, variant: str
) -> dict[Profile, dict[str, str]]:
    """Return the identities of an earlier step's tensors under one engine.

    Raises:
        PartError: a tensor stands in two parts, or some are missing.
    """
    found: dict[Profile, dict[str, str]] = {}
    for part in parts:
        for profile, named in part.steps[step].identities.get(variant, {}).items():
            known = found.setdefault(profile, {})
            if known.keys() & named.keys():
                raise PartError("a tensor stands in two partial results", where=f"step {step}")
            known.update(named)
    if any(len(named) != parts[0].steps[step].tensors for named in found.values()):
        raise PartError("partial results do not cover a step", where=f"step {step}")
    return found
