"""What a method is: a step bound to its inputs, computing any element range of any output tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec
from torch import Tensor

from parentage.manifest.errors import RecipeError, ShapeMismatchError
from parentage.manifest.tensor import FLOAT_DTYPES, TensorSpec
from parentage.verify.values import Scratch, Source

Interval = tuple[Tensor, Tensor]
"""The smallest and the largest stored value that a claim allows, element by element."""

Scalars = dict[str, float]
"""What an engine computes once for a whole tensor, by name."""


class Method(Protocol):
    """A computable step."""

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the engines that the step's profile stands for, the likeliest first."""

    @property
    def deterministic(self) -> bool:
        """Whether the profile leaves no freedom at all: one other bit refutes it."""

    @property
    def proven_bound(self) -> bool:
        """Whether `interval` is proven; if not it can refute, never confirm."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, dtypes and shapes of the output."""

    def chunk(self, name: str, start: int, stop: int, variant: str, scratch: Scratch) -> Tensor:
        """Return elements [start, stop) of an output tensor in its stored dtype."""

    def interval(
        self, name: str, start: int, stop: int, variant: str, scratch: Scratch
    ) -> Interval | None:
        """Return what `variant`, with its sums in any order, can store; None: no bound."""

    def alias(self, name: str) -> tuple[Source, str] | None:
        """Return where a tensor is copied from unchanged; None where it is computed."""


@runtime_checkable
class Reading(Protocol):
    """A method whose output is not made of the same elements of its inputs."""

    def reads(self, name: str, start: int, stop: int) -> Iterable[tuple[Source, str, int, int]]:
        """Return what elements [start, stop) are computed from: source, tensor, first, last + 1."""


@runtime_checkable
class Comparing(Protocol):
    """A method that can compare what it computes without storing it."""

    def known(
        self, name: str, start: int, stop: int, variant: str, found: Tensor, scratch: Scratch
    ) -> int:
        """Return how many elements of `found`, from the first, are known to be those of `chunk`.

        0 says nothing, and of the elements behind those nothing is said.
        """


class Choice(msgspec.Struct):
    """How a range of elements stands to a claim that leaves some of them a choice.

    Attributes:
        outside: how many elements none of the choices gives.
        open: how many have more than one choice.
        least, most: for each input, how many elements stay at least and at most, if the release is right.
        distance: sum over the elements of the distance to the nearest choice.
    """

    outside: int
    open: int
    least: list[int]
    most: list[int]
    distance: float


@runtime_checkable
class Chooser(Protocol):
    """A method that leaves elements a choice: ties at a threshold, or an unknown random mask."""

    @property
    def exact_is_costly(self) -> bool:
        """Say whether rung A needs whole tensors in memory, and choices do not."""

    @property
    def unseeded(self) -> bool:
        """Say whether the choice is random and its seed unknown: rung D at best."""

    def choices(
        self, name: str, start: int, stop: int, found: Tensor, scratch: Scratch, scalars: Scalars
    ) -> Choice | None:
        """Return how elements of a release stand to the claim; None: too many choices."""

    def allowed(self, name: str, index: int) -> tuple[float, float]:
        """Return how many elements of an input's mask may stay."""


@runtime_checkable
class Scalared(Protocol):
    """A method whose engine computes scalars of whole tensors."""

    witness: dict[str, Scalars]

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the engines, as of every method."""

    @property
    def deterministic(self) -> bool:
        """Whether there is nothing to search for, as of every method."""

    @property
    def replay_streams(self) -> bool:
        """Say whether `replay` reads piece by piece, so that no tensor is too large for it."""

    @property
    def noise(self) -> Mapping[str, float]:
        """Return absolute bounds for scalars that cancel to nothing, by name (without its number)."""

    def scalars(self, name: str, variant: str) -> Scalars:
        """Return the scalars of a tensor from float64, rounded as the engine holds them."""

    def scalars_of(self, name: str, variant: str) -> Scalars:
        """Return the scalars that `chunk` computes with under an engine."""

    def replay(self, name: str, variant: str) -> Scalars:
        """Return the scalars as torch reduces them on its threads here; empty where it does not help."""

    def suggest(
        self, name: str, variant: str, release: Source, places: Sequence[int] = ()
    ) -> Scalars:
        """Return scalars read off a release itself; empty where there is no way.

        Args:
            name: tensor.
            variant: engine.
            release: read at a sample of elements.
            places: elements that earlier suggestions missed, to be looked at too.
        """

    def scalar_dtype(self, name: str) -> str:
        """Return the dtype that scalars are held in."""


def check_profile(step: str, profile: str, known: Iterable[str]) -> None:
    """Check that a method has the arithmetic that its step names.

    Raises:
        RecipeError: it has not.
    """
    names = list(known)
    if profile not in names:
        raise RecipeError(
            "profile does not know this op",
            where=f"step {step}",
            expected=", ".join(names),
            found=profile,
        )


def same_tensors(where: str, inputs: Mapping[str, Source]) -> Mapping[str, TensorSpec]:
    """Return the specs of the first input after checking that all inputs have the same.

    Raises:
        ShapeMismatchError: another architecture, a missing or extra tensor, another shape, or
            floats in one and something else in another.
    """
    (first_id, first), *others = inputs.items()
    for other_id, other in others:
        missing = sorted(first.specs.keys() - other.specs.keys())
        extra = sorted(other.specs.keys() - first.specs.keys())
        if missing or extra:
            raise ShapeMismatchError(
                "inputs of a step have different tensors",
                where=f"{where}: {(missing or extra)[0]}",
                expected=f"the {len(first.specs)} tensors of {first_id}",
                found=f"{other_id}: {len(missing)} missing, {len(extra)} extra",
            )
        for name, spec in first.specs.items():
            if other.specs[name].shape != spec.shape:
                raise ShapeMismatchError(
                    "inputs of a step have different shapes",
                    where=f"{where}: {name}",
                    expected=f"{first_id}: {list(spec.shape)}",
                    found=f"{other_id}: {list(other.specs[name].shape)}",
                )
            if _kind(other.specs[name]) != _kind(spec):
                raise ShapeMismatchError(
                    "inputs of a step have dtypes that do not mix",
                    where=f"{where}: {name}",
                    expected=f"{first_id}: {spec.dtype}",
                    found=f"{other_id}: {other.specs[name].dtype}",
                )
    return first.specs


def _kind(spec: TensorSpec) -> str:
    """Floats of any width mix; everything else only with its own dtype."""
    return "float" if spec.dtype in FLOAT_DTYPES else spec.dtype


def same_values(where: str, name: str, parts: list[Tensor]) -> Tensor:
    """Return an integer or boolean tensor after checking that all inputs hold the same.

    Raises:
        ShapeMismatchError: they differ, so no merge of them is defined.
    """
    for part in parts[1:]:
        if part.dtype != parts[0].dtype or not bool((part == parts[0]).all()):
            raise ShapeMismatchError(
                "inputs differ in a tensor that is not floating-point",
                where=f"{where}: {name}",
                expected="equal values, to be copied",
            )
    return parts[0]
