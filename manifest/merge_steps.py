"""Merge methods as steps: every parameter of every method, exact and typed.

The names are mergekit's, in camelCase on the wire; docs/engines.md gives the arithmetic of each.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from parentage.manifest.wire import Arithmetic, Glob, Id, Ratio, StepBase, Wire

Ratios = Annotated[tuple[Ratio, ...], msgspec.Meta(min_length=1, max_length=64)]
Witness = dict[str, dict[str, Ratio]]


class MergeStep(StepBase, frozen=True, kw_only=True):
    """Fields of every merge.

    Attributes:
        arithmetic: which engine ran it.
        witness: scalars that it computed once per tensor, by tensor and name; found by
            `parentage declare --witness` and checked against float64 by every verifier.
    """

    arithmetic: Arithmetic
    witness: Witness = msgspec.field(default_factory=dict)


class WeightsOverride(Wire, frozen=True, kw_only=True):
    """Other weights for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    weights: tuple[Ratio, ...]


class WeightedSumParams(Wire, frozen=True, kw_only=True):
    """Linear merge, soup, add-difference (no base) or task arithmetic (with base).

    Without base: sum(w_i x_i), divided by sum(w_i) if `normalize`.
    With base b:  b + scale * sum(w_i (x_i - b)), the sum divided by sum(w_i) if `normalize`.

    Attributes:
        weights: one for each input that is not the base, in order.
        normalize: whether to divide by the sum of the weights.
        base: the input that task vectors are taken from.
        scale: mergekit's `lambda`; only with a base.
        overrides: other weights for some tensors.
    """

    weights: Annotated[tuple[Ratio, ...], msgspec.Meta(min_length=1, max_length=64)]
    normalize: bool
    base: Id | None = None
    scale: Ratio = "1"
    overrides: tuple[WeightsOverride, ...] = ()


class WeightedSum(MergeStep, frozen=True, kw_only=True, tag="weighted_sum/v1"):
    """A linear combination of inputs of one architecture."""

    params: WeightedSumParams


class SlerpOverride(Wire, frozen=True, kw_only=True):
    """Another t for some tensors; the first matching entry wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    t: Ratio


class SlerpParams(Wire, frozen=True, kw_only=True):
    """Spherical interpolation from the first input (t = 0) to the second (t = 1), per tensor."""

    t: Ratio
    overrides: tuple[SlerpOverride, ...] = ()


class Slerp(MergeStep, frozen=True, kw_only=True, tag="slerp/v1"):
    """Shoemake's slerp over whole tensors, lerp where |cos| > 0.9995 (as mergekit does)."""

    params: SlerpParams


class TaskVectorOverride(Wire, frozen=True, kw_only=True):
    """Other parameters for some tensors; the first entry that matches and has one wins."""

    tensors: Annotated[tuple[Glob, ...], msgspec.Meta(min_length=1)]
    weights: Ratios | None = None
    densities: Ratios | None = None
    gammas: Ratios | None = None
    epsilons: Ratios | None = None
    scale: Ratio | None = None


class TaskArithmeticParams(Wire, frozen=True, kw_only=True):
    """b + scale * merge(sparsify(x_i - b)): TIES, DARE, breadcrumbs and DELLA.

    Attributes:
        base: the input that task vectors are taken from.
        weights: one for each other input, in order.
        sparsify: which elements of a task vector stay. "magnitude": the largest (TIES). "outliers":
            the largest but for the top `gammas` (breadcrumbs). "random": each with probability
            `densities` (DARE). "della": with a probability that grows with the rank in its row.
        elect: whether only elements with the elected sign are summed (the TIES consensus).
        densities: share that stays, one for each weight; empty: all 1.
        gammas: share of outliers dropped, one for each weight; "outliers" only.
        epsilons: half the spread of probabilities, one for each weight; "della" only.
        normalize: whether to divide by the sum of the weights that took part.
        rescale: whether a sparse task vector gets its former L1 norm back.
        scale: mergekit's `lambda`.
        seed: of the random masks; without it they can't be recomputed (rung D at best).
    """

    base: Id
    weights: Ratios
    sparsify: Literal["magnitude", "outliers", "random", "della"]
    elect: bool
    normalize: bool
    rescale: bool = False
    densities: tuple[Ratio, ...] = ()
    gammas: tuple[Ratio, ...] = ()
    epsilons: tuple[Ratio, ...] = ()
    scale: Ratio = "1"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    overrides: tuple[TaskVectorOverride, ...] = ()


class TaskArithmetic(MergeStep, frozen=True, kw_only=True, tag="task_arithmetic/v1"):
    """Sparse task vectors merged into a base (TIES, DARE, breadcrumbs, DELLA)."""

    params: TaskArithmeticParams


class NuSlerpParams(Wire, frozen=True, kw_only=True):
    """Slerp of two inputs, or of their task vectors.

    Attributes:
        weights: t = w_2 / (w_1 + w_2).
        base: the input that task vectors are taken from; it is not one of the two.
        flatten: over whole tensors; else row by row.
        row_wise: with `flatten` false: along the first dimension instead of the last.
        overrides: other weights for some tensors.
    """

    weights: Annotated[tuple[Ratio, ...], msgspec.Meta(min_length=2, max_length=2)]
    base: Id | None = None
    flatten: bool = True
    row_wise: bool = False
    overrides: tuple[WeightsOverride, ...] = ()


class NuSlerp(MergeStep, frozen=True, kw_only=True, tag="nuslerp/v1"):
    """Spherical interpolation that keeps the lengths of what it mixes."""

    params: NuSlerpParams


class MultiSlerpParams(Wire, frozen=True, kw_only=True):
    """Barycentric interpolation on the sphere, by the tangent space at the weighted mean."""

    weights: Ratios
    base: Id | None = None
    normalize: bool = True
    eps: Ratio = "0.00000001"
    overrides: tuple[WeightsOverride, ...] = ()


class MultiSlerp(MergeStep, frozen=True, kw_only=True, tag="multislerp/v1"):
    """Spherical interpolation of any number of inputs."""

    params: MultiSlerpParams


class KarcherParams(Wire, frozen=True, kw_only=True):
    """Riemannian mean with equal weights, iterated until the step is shorter than `tol`."""

    max_iter: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 10
    tol: Ratio = "0.00001"


class Karcher(MergeStep, frozen=True, kw_only=True, tag="karcher/v1"):
    """The Karcher mean of the inputs' directions, at the mean of their lengths."""

    params: KarcherParams = KarcherParams()


class ModelStockParams(Wire, frozen=True, kw_only=True):
    """Interpolation between base and average, by the angle between task vectors."""

    base: Id
    filter_wise: bool = False


class ModelStock(MergeStep, frozen=True, kw_only=True, tag="model_stock/v1"):
    """Model Stock (arXiv 2403.19522)."""

    params: ModelStockParams


class SceParams(Wire, frozen=True, kw_only=True):
    """Select, calculate, erase: the share of elements of highest variance, weighted by energy."""

    base: Id
    select_topk: Ratio = "1"


class Sce(MergeStep, frozen=True, kw_only=True, tag="sce/v1"):
    """SCE (arXiv 2408.07990)."""

    params: SceParams


class NearSwapParams(Wire, frozen=True, kw_only=True):
    """w = min(1, t / |a - b|); w b + (1 - w) a, with a the first input."""

    t: Ratio
    overrides: tuple[SlerpOverride, ...] = ()


class NearSwap(MergeStep, frozen=True, kw_only=True, tag="nearswap/v1"):
    """The second input where it is near the first, a little of it elsewhere."""

    params: NearSwapParams


class ArceeFusion(MergeStep, frozen=True, kw_only=True, tag="arcee_fusion/v1"):
    """The second input's elements where their importance passes a threshold, else the first's."""


class RamParams(Wire, frozen=True, kw_only=True):
    """Reinforced agent merging: shared elements averaged, unique ones kept.

    Attributes:
        base: the input that task vectors are taken from.
        epsilon: an element takes part where |x - b| passes it.
        r, alpha: of the "plus" variant (tensor-local), which amplifies unique elements; both or none.
    """

    base: Id
    epsilon: Ratio = "0.00001"
    r: Ratio | None = None
    alpha: Ratio | None = None


class Ram(MergeStep, frozen=True, kw_only=True, tag="ram/v1"):
    """RAM and RAM+ TL (arXiv 2601.13572)."""

    params: RamParams
