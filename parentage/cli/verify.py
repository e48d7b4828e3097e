"""`parentage verify`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.shared import (
    FILE,
    coloured,
    emit,
    json_option,
    loose_parents,
    parent_option,
    progress,
    threads_option,
)

_COLOURS = {"VERIFIED": "green", "REFUTED": "red", "UNPROVEN": "yellow", "UNSIGNED": "yellow"}


@click.command(
    "verify",
    epilog="""\b
Examples:
  parentage verify ./rio --key release.pub --parent ./nex --parent ./qwen
  parentage verify ./rio --key release.pub --level integrity
  parentage verify ./rio --key release.pub --parent base=./base --against ./nex --against ./qwen

\b
Exit codes: 0 verified, 1 refuted, 2 usage, 3 unsigned, 4 unproven.""",
)
@click.argument("release", type=click.Path(path_type=Path))
@click.option(
    "--key",
    "keys",
    type=FILE,
    multiple=True,
    required=True,
    help="Trusted public key (PEM); repeat for more.",
)
@parent_option
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Other weights to look for an undeclared merge with.",
)
@click.option(
    "--level",
    type=click.Choice(["recompute", "integrity"]),
    default="recompute",
    show_default=True,
    help="How much to demand: the recipe too, or signature and digests only.",
)
@click.option(
    "--rung",
    type=click.Choice(["A", "B", "C"]),
    default="A",
    show_default=True,
    help="Weakest rung that counts: A exact, B exact given scalars near float64's, C within cells.",
)
@click.option("--files", "whole_files", is_flag=True, help="Compare SHA-256 of weights files too.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
@threads_option
@json_option
def command(
    release: Path,
    keys: tuple[Path, ...],
    parents: tuple[str, ...],
    against: tuple[Path, ...],
    level: str,
    rung: str,
    whole_files: bool,
    device: str,
    threads: int | None,
    as_json: bool,
) -> int:
    """Check RELEASE: signature, every file and tensor, parents, and the recipe by recomputing it."""
    from parentage.attest.keys import PublicKey
    from parentage.attest.trust import TrustedKeys
    from parentage.verify.check import Demands, verify
    from parentage.verify.report import to_text

    given = loose_parents(parents)
    reads = [release, *(path for _, path in given), *against]
    if level == "recompute":
        reads.append(release)
    with progress("verify", quiet=as_json, reads=reads) as bar:
        report = verify(
            release,
            trust=TrustedKeys(tuple(PublicKey.load(path) for path in keys)),
            parents=given,
            against=against,
            demands=Demands(
                level=level,  # type: ignore[arg-type]  # click checked the choice
                rung=rung,  # type: ignore[arg-type]
                whole_files=whole_files,
                device=device,
                threads=threads,
                progress=bar,
            ),
        )
    if as_json:
        emit(report)
    else:
        text = to_text(report)
        word = report.verdict.value.upper()
        click.echo(coloured(word, _COLOURS[word]) + text.removeprefix(word))
    return report.exit_code
