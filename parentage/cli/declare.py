"""`parentage declare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.shared import (
    FILE,
    FOLDER,
    digest_option,
    emit,
    json_option,
    lineage_document,
    named_parents,
    parent_option,
    progress,
    threads_option,
)

if TYPE_CHECKING:
    from parentage.manifest.recipe import Recipe


@click.command(
    "declare",
    epilog="""\b
Examples:
  parentage declare ./rio --recipe recipe.yaml --parent nex=./nex --parent qwen=./qwen
  parentage declare ./rio --mergekit mergekit_config.yml --profile mk-0.1.5 \\
      --parent nex=./nex --parent qwen=./qwen
  parentage declare ./base --observed""",
)
@click.argument("model", type=FOLDER)
@click.option("--recipe", "recipe_path", type=FILE, help="Recipe v0.1, YAML or JSON.")
@click.option("--mergekit", "mergekit_path", type=FILE, help="mergekit_config.yml to import.")
@click.option(
    "--profile",
    type=click.Choice(["mk-0.1.5", "mk-0.1.4"]),
    default="mk-0.1.5",
    show_default=True,
    help="Version of mergekit that ran the config.",
)
@click.option("--observed", is_flag=True, help="Declare weights only: no parents, no recipe.")
@parent_option
@click.option(
    "--step-output",
    "step_outputs",
    multiple=True,
    metavar="ID=PATH",
    help="Weights that an intermediate step produced.",
)
@click.option(
    "--witness",
    is_flag=True,
    help="Recompute first, and publish the scalars that a merge by another engine takes (rung B).",
)
@digest_option
@threads_option
@json_option
def command(
    model: Path,
    recipe_path: Path | None,
    mergekit_path: Path | None,
    profile: str,
    observed: bool,
    parents: tuple[str, ...],
    step_outputs: tuple[str, ...],
    witness: bool,
    digests: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> int:
    """Digest MODEL and its parents, and draft the lineage that `sign` will sign."""
    from parentage.manifest.build import declare
    from parentage.manifest.errors import UsageError
    from parentage.manifest.recipe import Recipe, load

    if sum((recipe_path is not None, mergekit_path is not None, observed)) != 1:
        raise UsageError("give one of --recipe, --mergekit, --observed")
    given = named_parents(parents)
    if recipe_path is not None:
        recipe = load(recipe_path)
    elif mergekit_path is not None:
        from parentage.manifest.mergekit import load_config

        recipe = load_config(mergekit_path, profile=profile, parents=given)
    else:
        recipe = Recipe(version="0.1", parents=(), steps=())
    if witness:
        recipe = _witnessed(recipe, model, given, threads, quiet=as_json)
    with progress("declare", quiet=as_json, reads=[model, *given.values()]) as bar:
        declared = declare(
            model,
            recipe,
            parents=given,
            step_outputs=named_parents(step_outputs),
            profiles=digests or ("ptd1-b3",),  # type: ignore[arg-type]
            threads=threads,
            progress=bar,
        )
    lineage = declared.lineage
    if as_json:
        emit(lineage_document(lineage))
        return 0
    for warning in recipe.source.warnings if recipe.source else ():
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"declared {lineage.weights.tensors} tensors, {int(lineage.weights.bytes):,} bytes")
    for name, root in lineage.weights.root.items():
        click.echo(f"weights   {name} {root}")
    click.echo(f"next      parentage sign {model} --key release.key")
    return 0


def _witnessed(
    recipe: Recipe, model: Path, parents: dict[str, Path], threads: int | None, *, quiet: bool
) -> Recipe:
    from parentage.verify.report import summarise
    from parentage.verify.witnessing import with_witness

    with progress("recompute", quiet=quiet, reads=[model, *parents.values()]) as bar:
        recipe, results = with_witness(
            recipe, model, parents=parents, threads=threads, progress=bar
        )
    click.echo(f"recomputed: {summarise(results)[1]}", err=True)
    return recipe
