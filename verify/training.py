"""What a declared training step can be contradicted by, without its log.

Never by a distance between weights alone: honest distillation at a tiny learning rate leaves most
bf16 weights untouched. What counts: no trace at all; a frozen parameter that moved; a displacement
that no data could have caused (Adam's speed limit).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import torch
from torch import Tensor

from parentage.manifest.steps import Training
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.manifest.wire import matches, ratio
from parentage.verify.engine import Chunk, Engine, chunks_of
from parentage.verify.recompute import equal_share
from parentage.verify.rounding import UNIT, round_once
from parentage.verify.values import FileSource, Scratch, Source
from parentage.verify.verdict import Finding, finding

_OUTPUT_EMBEDDINGS: Final = ("lm_head.weight", "embed_out.weight")


class Trace(msgspec.Struct):
    """What the step left behind.

    Attributes:
        findings: contradictions and notes.
        tensors, tensors_changed, elements, elements_changed: how much of the weights moved.
        comparable: whether release and base have the same tensors at all.
    """

    findings: list[Finding]
    tensors: int = 0
    tensors_changed: int = 0
    elements: int = 0
    elements_changed: int = 0
    comparable: bool = True

    @property
    def nothing(self) -> bool:
        """Whether every tensor is bit-identical to the base."""
        return self.comparable and self.tensors_changed == 0


def examine(engine: Engine, release: FileSource, base: Source, step: Training) -> Trace:
    """Compare the release with the base of a training step, stored in the release's dtypes."""
    base = _AsStored(base, release)
    odd = _not_in_both(release, base, step)
    if odd:
        return Trace([_other_structure(release, base, step, odd)], comparable=False)
    changed = equal_share(engine, release, base)
    trace = Trace(
        [],
        tensors=len(changed),
        tensors_changed=sum(1 for count in changed.values() if count),
        elements=sum(spec.elements for spec in release.specs.values()),
        elements_changed=sum(changed.values()),
    )
    if trace.nothing:
        return trace
    for name, count in changed.items():
        if count and not matches(name, step.training.trainable):
            trace.findings.append(
                finding(
                    "frozen-tensor-changed",
                    f"step {step.id} declares this tensor frozen, yet {count} elements differ",
                    where=name,
                    expected="bits of the base",
                )
            )
    limit = speed_limit(step)
    if limit is not None:
        trace.findings.extend(_too_far(engine, release, base, step, limit))
    return trace


def speed_limit(step: Training) -> float | None:
    """Return C with |update| <= C x learning rate for every Adam(W) step and any data; else None.

    By Cauchy-Schwarz, |m_t| / sqrt(v_t) <= (1-b1)/sqrt(1-b2) sqrt((1-r^t)/(1-r)), r = b1^2/b2, and
    bias correction multiplies by sqrt(1-b2^t)/(1-b1^t). C is the largest over t.
    """
    optimizer = step.training.optimizer
    if optimizer.name.lower() not in {"adam", "adamw"} or optimizer.betas is None:
        return None
    b1, b2 = (float(ratio(text)) for text in optimizer.betas)
    if not 0 <= b1 < 1 or not 0 < b2 < 1 or b1 * b1 >= b2:
        return None
    r = b1 * b1 / b2
    worst = 0.0
    for t in range(1, min(step.training.steps, 20_000) + 1):
        raw = (1 - b1) / math.sqrt(1 - b2) * math.sqrt((1 - r**t) / (1 - r))
        worst = max(worst, raw * math.sqrt(1 - b2**t) / (1 - b1**t))
    return worst * (1 + 1e-9)


def _too_far(
    engine: Engine, release: FileSource, base: Source, step: Training, limit: float
) -> list[Finding]:
    names = [name for name, spec in release.specs.items() if spec.dtype in FLOAT_DTYPES]
    moved, size, odd = _extent(engine, release, base, names)
    record = step.training
    reach = limit * float(ratio(record.sum_learning_rate))
    decay = float(ratio(record.sum_learning_rate_weight_decay))
    worst: tuple[float, str, float, float] | None = None
    beyond = 0
    for name in names:
        unit = UNIT[release.specs[name].dtype]
        # Every step may round the weight once more; half an ulp is at most u |w|.
        slack = (record.steps + 2) * unit * (size[name] + reach)
        allowed = reach + decay * (size[name] + reach) + slack
        if moved[name] > allowed:
            beyond += 1
            factor = moved[name] / allowed if allowed else math.inf
            if worst is None or factor > worst[0]:
                worst = (factor, name, moved[name], allowed)
    found: list[Finding] = []
    if any(odd.values()):
        found.append(
            finding(
                "not-finite",
                f"{sum(odd.values()):,} weights are NaN or infinite on one side only: no bound on "
                "movement says anything about them",
                refutes=False,
                where=next(name for name in names if odd[name]),
            )
        )
    if worst is None:
        return found
    return [
        *found,
        finding(
            "training-too-far",
            f"{beyond} of {len(names)} tensors moved further than {record.optimizer.name} can in "
            f"step {step.id} with any data (sum of learning rates {record.sum_learning_rate})",
            where=worst[1],
            expected=f"at most {worst[3]:.3g} per weight",
            found=f"{worst[2]:.3g}",
        ),
    ]


def _extent(
    engine: Engine, release: FileSource, base: Source, names: list[str]
) -> tuple[Mapping[str, float], Mapping[str, float], Mapping[str, int]]:
    """Return max |release - base| and max(|base|, |release|) over the finite weights of each tensor.

    Third, how many weights have no distance: NaN or infinite, and not the same on both sides.
    """

    def task(chunk: Chunk, scratch: Scratch) -> tuple[float, float, int]:
        new = release.read(chunk.name, chunk.start, chunk.stop, scratch).to(torch.float64)
        old = base.read(chunk.name, chunk.start, chunk.stop, scratch).to(torch.float64)
        finite = new.isfinite() & old.isfinite()
        same = (new == old) | (new.isnan() & old.isnan())
        odd = int((~finite & ~same).sum())
        new.masked_fill_(~finite, 0.0)
        old.masked_fill_(~finite, 0.0)
        largest = torch.maximum(new.abs().max(), old.abs().max())
        return float(new.sub_(old).abs_().max()), float(largest), odd

    moved, size, odd = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    chunks = [chunk for name in names for chunk in chunks_of(release.specs[name])]
    for chunk, (far, largest, count) in zip(chunks, engine.map(task, chunks), strict=True):
        moved[chunk.name] = max(far, moved[chunk.name])
        size[chunk.name] = max(largest, size[chunk.name])
        odd[chunk.name] += count
    return moved, size, odd


def _not_in_both(release: FileSource, base: Source, step: Training) -> list[str]:
    """Return the tensors that training can't have made or lost.

    With tied embeddings a file may hold the shared tensor under one of its names or both.
    """
    odd = {
        name
        for name in set(release.specs) | set(base.specs)
        if release.specs.get(name) != base.specs.get(name)
    }
    one_sided = set(release.specs) ^ set(base.specs)
    if step.training.tied_embeddings:
        odd -= {name for name in one_sided if name.endswith(_OUTPUT_EMBEDDINGS)}
    return sorted(odd)


def _other_structure(
    release: FileSource, base: Source, step: Training, names: list[str]
) -> Finding:
    return finding(
        "training-base-differs",
        f"release and base of step {step.id} do not have the same tensors ({len(names)} differ)",
        where=names[0],
        expected=str(base.specs.get(names[0], "absent")),
        found=str(release.specs.get(names[0], "absent")),
    )


class _AsStored:
    """A base whose floats are rounded to the dtypes in which the release stores them."""

    def __init__(self, base: Source, release: FileSource) -> None:
        self._base = base
        self.specs: Mapping[str, TensorSpec] = {
            name: self._spec(spec, release.specs.get(name)) for name, spec in base.specs.items()
        }

    def _spec(self, spec: TensorSpec, stored: TensorSpec | None) -> TensorSpec:
        if stored is None or not {spec.dtype, stored.dtype} <= FLOAT_DTYPES:
            return spec
        return TensorSpec(spec.name, stored.dtype, spec.shape)

    def read(self, name: str, start: int, stop: int, scratch: Scratch) -> Tensor:
        """Return elements [start, stop), rounded once where the dtype is another."""
        values = self._base.read(name, start, stop, scratch)
        dtype = self.specs[name].dtype
        if dtype == self._base.specs[name].dtype:
            return values
        return round_once(values.to(torch.float64), dtype)

    def alias(self, name: str) -> tuple[Source, str]:
        """Return itself: what is rounded begins here."""
        return self, name
