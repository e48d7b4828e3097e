"""The words of a result: verdicts, rungs, findings (DESIGN sections 2, 6 and 7)."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from parentage.manifest import errors
from parentage.manifest.errors import printable


class Verdict(StrEnum):
    """What verification decided."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNSIGNED = "unsigned"
    UNPROVEN = "unproven"
    DENIED = "denied"


EXIT_CODES: Final = {
    Verdict.VERIFIED: errors.EXIT_VERIFIED,
    Verdict.REFUTED: errors.EXIT_REFUTED,
    Verdict.UNSIGNED: errors.EXIT_UNSIGNED,
    Verdict.UNPROVEN: errors.EXIT_UNPROVEN,
    Verdict.DENIED: errors.EXIT_DENIED,
}


class Rung(StrEnum):
    """How strongly a tensor was recomputed."""

    EXACT = "A"
    WITNESSED = "B"
    IN_CELL = "C"
    CONSISTENT = "D"
    DECLARED = "-"
    UNPROVEN = "?"
    REFUTED = "refuted"


#: From the strongest to the weakest.
ORDER: Final = (
    Rung.EXACT,
    Rung.WITNESSED,
    Rung.IN_CELL,
    Rung.CONSISTENT,
    Rung.DECLARED,
    Rung.UNPROVEN,
    Rung.REFUTED,
)
NAMES: Final = {
    Rung.EXACT: "A (exact)",
    Rung.WITNESSED: "B (witnessed)",
    Rung.IN_CELL: "C (in-cell)",
    Rung.CONSISTENT: "D (consistent)",
    Rung.DECLARED: "declared only",
    Rung.UNPROVEN: "undecided",
    Rung.REFUTED: "refuted",
}
#: What satisfies a demand; D, declared and undecided never do.
ENOUGH: Final = {
    "A": frozenset({Rung.EXACT}),
    "B": frozenset({Rung.EXACT, Rung.WITNESSED}),
    "C": frozenset({Rung.EXACT, Rung.WITNESSED, Rung.IN_CELL}),
}


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """The first element that differs, as evidence anyone can look at.

    Attributes:
        index: flat element index.
        expected, found: values as exact text (hex bits and decimal).
    """

    index: int
    expected: str
    found: str


class Scalar(msgspec.Struct, frozen=True, kw_only=True):
    """A scalar that makes a tensor recompute exactly.

    Attributes:
        value: as a hex float.
        deviation: relative, from the value that float64 gives.
    """

    value: str
    deviation: float


class TensorResult(msgspec.Struct, kw_only=True):
    """What recomputing one tensor showed.

    Attributes:
        name: tensor.
        rung: the best that holds.
        elements: how many it has.
        differing: elements that differ from the best engine.
        ambiguous: elements with more than one allowed value (rung C).
        unexplained: elements that no known engine produces.
        outside: elements that no choice or interval of the claim allows.
        engine: the engine that reached the rung.
        witness: scalars that the rung needed (hex floats), and how far each is from float64.
        first: the first difference.
    """

    name: str
    rung: Rung
    elements: int
    differing: int = 0
    ambiguous: int = 0
    unexplained: int = 0
    outside: int = 0
    engine: str = ""
    witness: dict[str, Scalar] = msgspec.field(default_factory=dict)
    first: Mismatch | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A disagreement between claim and evidence, or a fact that a reader must know.

    Attributes:
        code: stable kebab-case name.
        refutes: whether it contradicts the claim.
        denies: whether the policy says no because of it. Neither: it is a note.
        message: what was found.
        where: file, tensor or step.
        expected, found: the two values.
        next: what to do.
    """

    code: str
    refutes: bool
    message: str
    where: str = ""
    expected: str = ""
    found: str = ""
    next: str = ""
    denies: bool = False


def finding(
    code: str,
    message: str,
    *,
    refutes: bool = True,
    where: str = "",
    expected: str = "",
    found: str = "",
    hint: str = "",
) -> Finding:
    """Return a finding whose texts from outside are escaped."""
    return Finding(
        code=code,
        refutes=refutes,
        message=printable(message, 600),
        where=printable(where, 300),
        expected=printable(expected, 300),
        found=printable(found, 300),
        next=printable(hint, 300),
    )


def denial(
    code: str,
    message: str,
    *,
    denies: bool = True,
    where: str = "",
    expected: str = "",
    found: str = "",
    hint: str = "",
) -> Finding:
    """Return a finding that the policy says no to, or that it is only told of."""
    said = finding(
        code, message, refutes=False, where=where, expected=expected, found=found, hint=hint
    )
    return msgspec.structs.replace(said, denies=denies)


def of_error(error: errors.ParentageError) -> Finding:
    """Turn an error met while checking into a finding that refutes."""
    return finding(
        error.code,
        error.what,
        where=error.where,
        expected=error.expected,
        found=error.found,
        hint=error.hint,
    )
