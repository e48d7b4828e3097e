"""`parentage merge`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.places import named_parents, parent_option
from parentage.cli.shared import (
    FILE,
    device_option,
    digest_option,
    emit,
    json_option,
    lineage_document,
    progress,
    threads_option,
)
from parentage.cli.signing import SigningChoice, signing_options


@click.command(
    "merge",
    epilog="""\b
Example:
  parentage merge recipe.yaml -o ./rio --parent nex=./nex --parent qwen=./qwen --key release.key""",
)
@click.argument("recipe_path", metavar="RECIPE", type=FILE)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to make."
)
@parent_option
@signing_options
@click.option("--shard-bytes", type=click.IntRange(1), default=5_000_000_000, show_default=True)
@click.option("--companions", metavar="ID", help="Parent whose config and tokenizer are copied.")
@device_option
@digest_option
@threads_option
@json_option
def command(
    recipe_path: Path,
    output: Path,
    parents: tuple[str, ...],
    signing: SigningChoice,
    shard_bytes: int,
    companions: str | None,
    device: str,
    digests: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> int:
    """Run RECIPE, write the weights to OUTPUT with tensor table and lineage, and sign them.

    Without a signer, the lineage is only drafted.
    """
    from parentage.manifest.recipe import load

    chosen = signing.build() if signing.given else None
    recipe = load(recipe_path)
    given = named_parents(parents, quiet=as_json)
    from parentage.verify.produce import merge

    with progress("merge", quiet=as_json, reads=[*given.values()] * 2) as bar:
        declared = merge(
            recipe,
            output,
            parents=given,
            shard_bytes=shard_bytes,
            companions=companions,
            profiles=digests or ("ptd1-b3",),  # type: ignore[arg-type]
            device=device,
            threads=threads,
            progress=bar,
        )
    if chosen is not None:
        from parentage.attest.release import sign_release

        sign_release(output, chosen.signer, chosen.trust, threads=threads)
    if as_json:
        emit(lineage_document(declared.lineage))
        return 0
    click.echo(f"merged {declared.lineage.weights.tensors} tensors into {output}")
    for name, root in declared.lineage.weights.root.items():
        click.echo(f"weights   {name} {root}")
    if chosen is None:
        click.echo(f"next      parentage sign {output} --key release.key")
    return 0
