"""What all wire structures share: exact numbers, names, digests, and the shape of a step.

Every parameter is exact: a ratio is a decimal string or a hex float, never a JSON number.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from parentage.manifest.errors import RecipeError

if TYPE_CHECKING:
    from fractions import Fraction

# Python's "$" also matches before a final newline; "$(?!\n)" does not, and ECMA 262 reads it alike.
Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$(?!\n)")]
Hex = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Ratio = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^-?(?:(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,60})?|0x[01]\.[0-9a-f]{1,13}p[+-]?[0-9]{1,3})$(?!\n)",
        description="an exact number: decimal ('0.6') or hex float ('0x1.8p-1'), in quotes",
    ),
]
Glob = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
FloatDtype = Literal["F64", "F32", "F16", "BF16"]
ProfileName = Literal[
    "parentage-1",
    "mk-0.1.5",
    "mk-0.1.4",
    "peft",
    "torch",
    "torch-swa",
    "torch-fp32",
    "bnb-0.50",
    "ggml",
    "webui",
    "supermerger",
    "sd-mecha",
]
DigestSet = dict[Literal["ptd1-b3", "ptd1-sha256"], Hex]


class Wire(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    rename="camel",
):
    """What all wire structures share: closed, immutable, camelCase."""


class Arithmetic(Wire, frozen=True, kw_only=True):
    """The engine profile of a step.

    Attributes:
        profile: named arithmetic; docs/engines.md gives each, operation by operation.
        compute: mergekit's `dtype`, or that of a running mean; only for the mk profiles and torch-swa.
            None: the inputs' own dtype.
        store: dtype of the output. None: `compute`, else the first input's dtype.
    """

    profile: ProfileName
    compute: FloatDtype | None = None
    store: FloatDtype | None = None


class StepBase(Wire, frozen=True, kw_only=True, tag_field="op"):
    """Fields of every step.

    Attributes:
        id: unique among parents and steps.
        inputs: ids of parents or earlier steps, in the order that the op reads them.
        output: weights root of the step's output, by digest profile.
    """

    id: Id
    inputs: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=64)]
    output: DigestSet | None = None


class SelectParams(Wire, frozen=True, kw_only=True):
    """Which tensors: `*` in a glob matches any run of characters."""

    include: tuple[Glob, ...] = ("*",)
    exclude: tuple[Glob, ...] = ()

    def chooses(self, name: str) -> bool:
        """Say whether a tensor is meant."""
        return matches(name, self.include) and not matches(name, self.exclude)


def check_inputs(inputs: tuple[str, ...], read: set[str], where: str, *, own: int = 0) -> None:
    """Check that what a step reads are its inputs, and that it reads all but its first `own`.

    Raises:
        RecipeError: naming the input.
    """
    for name in sorted(read - {*inputs}):
        raise RecipeError("reads what is not an input", where=where, found=name)
    for name in inputs[own:]:
        if name not in read:
            raise RecipeError("nothing uses an input", where=where, found=name)


def ratio(text: str) -> Fraction:
    """Return the exact value of a `Ratio`."""
    from fractions import Fraction

    negative = text.startswith("-")
    body = text.removeprefix("-")
    value = Fraction(float.fromhex(body)) if body.startswith("0x") else Fraction(body)
    return -value if negative else value


def matches(name: str, globs: tuple[str, ...]) -> bool:
    """Say whether a tensor name matches one of `globs`; only `*` is special."""
    return any(
        glob == "*" or fnmatchcase(name, glob.replace("[", "[[]").replace("?", "[?]"))
        for glob in globs
    )
