"""`parentage declare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from parentage.cli.places import named_parents, parent_option
from parentage.cli.shared import (
    FILE,
    FOLDER,
    digest_option,
    emit,
    json_option,
    lineage_document,
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
  parentage declare ./tuned --lora ./adapter --parent base=./base
  parentage declare ./mix --sd-recipe --parent a=a.safetensors --parent b=b.safetensors
  parentage declare ./rio --recipe recipe.yaml --parent nex=hf://org/nex@v1 --parent qwen=./qwen
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
@click.option(
    "--seed", type=click.IntRange(0, 2**53 - 1), help="mergekit's --random-seed of the run."
)
@click.option(
    "--lora-merge-dtype",
    type=click.Choice(["bfloat16", "float16", "float32", "float64"]),
    help="mergekit's --lora-merge-dtype of the run.",
)
@click.option(
    "--lora", "lora_path", type=FOLDER, help="PEFT adapter that was merged into --parent."
)
@click.option(
    "--sd-recipe",
    is_flag=True,
    help="Import the merge recipe in MODEL's own header (webui, supermerger, sd-mecha).",
)
@click.option("--mecha", "mecha_path", type=FILE, help=".mecha recipe to import.")
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
    seed: int | None,
    lora_merge_dtype: str | None,
    lora_path: Path | None,
    sd_recipe: bool,
    mecha_path: Path | None,
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
    from parentage.verify.weights import with_roots

    sources = (recipe_path, mergekit_path, lora_path, mecha_path)
    if sum((*(path is not None for path in sources), sd_recipe, observed)) != 1:
        raise UsageError(
            "give one of --recipe, --mergekit, --lora, --sd-recipe, --mecha, --observed"
        )
    if mergekit_path is None and (seed is not None or lora_merge_dtype is not None):
        raise UsageError("--seed and --lora-merge-dtype belong to --mergekit")
    given = named_parents(parents, quiet=as_json)
    profiles: Any = digests or ("ptd1-b3",)
    if mergekit_path is not None:
        from parentage.manifest.mergekit import load_config

        recipe = load_config(
            mergekit_path,
            profile=profile,
            parents=given,
            seed=seed,
            lora_dtype=lora_merge_dtype,
            release=model,
        )
    else:
        recipe = _recipe(model, recipe_path, lora_path, mecha_path, given, sd_recipe=sd_recipe)
    recipe = _located(recipe, given)
    if witness:
        recipe = _witnessed(recipe, model, given, threads, quiet=as_json)
    with progress("declare", quiet=as_json, reads=[model, *given.values()]) as bar:
        declared = declare(
            model,
            recipe,
            parents=with_roots(given, profiles),
            step_outputs=named_parents(step_outputs, quiet=as_json),
            profiles=profiles,
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
    if (model / "README.md").is_file():
        click.echo(
            f"next      parentage card sync {model}, then parentage sign {model} --key release.key"
        )
    else:
        click.echo(f"next      parentage sign {model} --key release.key")
    return 0


def _located(recipe: Recipe, given: dict[str, Path]) -> Recipe:
    """Record where parents were fetched from, at the commit that they were fetched at."""
    from parentage.verify.sources.cached import place_of

    places = {name: place_of(path) for name, path in given.items()}
    parents = tuple(
        msgspec.structs.replace(hint, uri=place.purl) if (place := places.get(hint.id)) else hint
        for hint in recipe.parents
    )
    return msgspec.structs.replace(recipe, parents=parents)


def _recipe(
    model: Path,
    recipe_path: Path | None,
    lora_path: Path | None,
    mecha_path: Path | None,
    given: dict[str, Path],
    *,
    sd_recipe: bool,
) -> Recipe:
    """Read or import what was given; an adapter joins `given`."""
    from parentage.manifest.recipe import Recipe, load

    if recipe_path is not None:
        return load(recipe_path)
    if lora_path is not None:
        from parentage.manifest.adapter import load_adapter

        recipe = load_adapter(lora_path, parents=given)
        given |= {hint.id: lora_path for hint in recipe.parents if hint.id not in given}
        return recipe
    if sd_recipe or mecha_path is not None:
        return _of_checkpoint(model, mecha_path, given)
    return Recipe(version="0.1", parents=(), steps=())


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


def _of_checkpoint(model: Path, mecha_path: Path | None, given: dict[str, Path]) -> Recipe:
    """Import the recipe of an image model: a .mecha file, or what its own header holds."""
    from parentage.manifest.mecha import has_recipe, load_mecha
    from parentage.manifest.sd_recipe import load_sd_recipe

    if mecha_path is not None or has_recipe(model):
        return load_mecha(mecha_path, release=model, parents=given)
    return load_sd_recipe(model, parents=given)
