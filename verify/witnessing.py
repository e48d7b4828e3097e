"""A publisher's side of rung B: recompute before declaring, and publish the scalars that it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from parentage.manifest.errors import ParentMissingError, RecipeError
from parentage.manifest.hashing import Progress, default_threads
from parentage.manifest.merge_steps import MergeStep
from parentage.manifest.model import open_model
from parentage.manifest.recipe import Recipe
from parentage.manifest.steps import DECLARED
from parentage.verify import engine
from parentage.verify.engine import Engine, StepSource
from parentage.verify.methods.base import Scalared
from parentage.verify.recompute import compare
from parentage.verify.values import FileSource
from parentage.verify.verdict import Rung, TensorResult


def with_witness(
    recipe: Recipe,
    model: Path,
    *,
    parents: Mapping[str, Path],
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Recipe, list[TensorResult]]:
    """Recompute a recipe's last step and return the recipe with the scalars that rung B needs.

    Args:
        recipe: its last step computable.
        model: the release's folder.
        parents: folder or file of each parent, by id.
        device: "auto", "cpu" or "cuda".
        threads: worker threads; None: all cores.
        progress: told of the bytes done.

    Raises:
        RecipeError: the last step can't be computed, or does not give these weights.
        ParentMissingError: a parent was not given.
    """
    last = recipe.steps[-1] if recipe.steps else None
    if last is None or isinstance(last, DECLARED):
        raise RecipeError("nothing to witness: the last step is not computable")
    for hint in recipe.parents:
        if hint.id not in parents:
            raise ParentMissingError(
                "parent not given", where=hint.id, hint=f"add --parent {hint.id}=FOLDER"
            )
    runner = Engine(engine.pick_device(device), threads or default_threads(), progress)
    with ExitStack() as stack:
        sources = {
            hint.id: FileSource(stack.enter_context(open_model(parents[hint.id])))
            for hint in recipe.parents
        }
        bound = engine.bind(recipe.steps, sources)
        if last.id not in bound:
            raise RecipeError("a step before the last one can't be computed", where=last.id)
        release = FileSource(stack.enter_context(open_model(model)))
        results = compare(runner, release, bound[last.id])
        found = _scalars(bound[last.id], results)
    for result in results:
        if result.rung == Rung.REFUTED:
            raise RecipeError(
                f"the recipe does not give these weights: {result.differing:,} of "
                f"{result.elements:,} elements differ",
                where=f"{result.name}[{result.first.index if result.first else 0}]",
                expected=result.first.expected if result.first else "",
                found=result.first.found if result.first else "",
                hint="check profile, weights and parents before you sign",
            )
    if not found or not isinstance(last, MergeStep):
        return recipe, results
    witnessed = msgspec.structs.replace(last, witness=found)
    return msgspec.structs.replace(recipe, steps=(*recipe.steps[:-1], witnessed)), results


def _scalars(step: StepSource, results: Sequence[TensorResult]) -> dict[str, dict[str, str]]:
    """Return the scalars that a lineage publishes.

    Where only whole tensors tell them, those of rung A are published too: whoever is content with rung B
    then need not reduce tensors as torch does.
    """
    method, found = step.method, {}
    for result in results:
        if result.rung == Rung.WITNESSED:
            found[result.name] = {key: scalar.value for key, scalar in result.witness.items()}
        elif result.rung == Rung.EXACT and isinstance(method, Scalared) and method.replay_streams:
            scalars = method.scalars_of(result.name, result.engine)
            found[result.name] = {key: value.hex() for key, value in scalars.items()}
    return {name: scalars for name, scalars in found.items() if scalars}
