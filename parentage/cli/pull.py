"""`parentage pull`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.formatting import FormatChoice, format_options
from parentage.cli.locking import LockChoice, lock_options
from parentage.cli.places import loose_parents, parent_option
from parentage.cli.shared import (
    device_option,
    progress,
    rung_option,
    threads_option,
)
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.manifest.errors import printable


@click.command(
    "pull",
    epilog="""\b
Examples:
  parentage pull hf://acme/rio -o ./rio --key release.pub
  parentage pull hf://acme/rio@v1.0 -o ./rio --policy trust.yaml --lock parentage.lock
  parentage pull hf://acme/rio -o ./rio --key release.pub --level recompute --parent ./nex --parent ./qwen

\b
All files come, or none: a part of a release can't be verified as the release.
Killed or cut off, the same command goes on from what came.

\b
Exit codes: 0 verified and placed, 1 refuted, 2 usage, 3 unsigned, 4 unproven, 5 denied by the policy.""",
)
@click.argument("place", metavar="hf://ORG/NAME[@REVISION]")
@click.option(
    "-o",
    "--output-folder",
    "target",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="What the release becomes; absent, empty, or this very release.",
)
@trust_options
@lock_options
@click.option(
    "--level",
    type=click.Choice(["integrity", "recompute"]),
    default="integrity",
    show_default=True,
    help="What must hold before it is placed: signature and digests, or the recipe too.",
)
@parent_option
@rung_option
@click.option("--files", "whole_files", is_flag=True, help="Compare SHA-256 of weights files too.")
@device_option
@threads_option
@format_options
def command(
    place: str,
    target: Path,
    trusted: TrustChoice,
    locked: LockChoice,
    level: str,
    parents: tuple[str, ...],
    rung: str,
    whole_files: bool,
    device: str,
    threads: int | None,
    formatted: FormatChoice,
) -> int:
    """Download a release: verified while it comes, and in its folder only when it is verified."""
    from parentage.verify.demands import Demands
    from parentage.verify.pulling import Pull, pull
    from parentage.verify.sources.place import parse_place

    at = parse_place(place)
    remembered = locked.remembered(at)
    recomputed = parents if level == "recompute" else ()
    given = loose_parents(recomputed, quiet=formatted.quiet)
    with progress("pull", quiet=formatted.quiet) as bar:
        asked = Pull(
            place=at,
            target=target,
            trust=trusted.build(),
            parents=given,
            demands=Demands(
                level=level,  # type: ignore[arg-type]  # click checked the choice
                rung=rung,  # type: ignore[arg-type]
                whole_files=whole_files,
                device=device,
                threads=threads,
                progress=bar,
                remembered=remembered,
            ),
            tell=lambda text: click.echo(printable(text, 400), err=True),
        )
        report = pull(asked)
    locked.keep(report, remembered)
    return formatted.show(report.shown("pull"))
