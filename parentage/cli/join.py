"""`parentage join`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.formatting import FormatChoice, format_options, placed
from parentage.cli.shared import FILE, progress, rung_option, threads_option
from parentage.cli.trusting import TrustChoice, trust_options


@click.command(
    "join",
    epilog="""\b
Example:
  parentage join ./rio part-1.json part-2.json --key release.pub --verifier verifier.pub

\b
Exit codes: 0 verified, 1 refuted, 2 usage, 3 unsigned, 4 unproven, 5 denied by the policy.""",
)
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("parts", type=click.Path(path_type=Path), nargs=-1, required=True)
@trust_options
@click.option(
    "--verifier",
    "verifiers",
    type=FILE,
    multiple=True,
    help="Public key of a verifier whose parts are believed; repeat for more. Or the policy's.",
)
@rung_option
@click.option("--files", "whole_files", is_flag=True, help="Compare SHA-256 of weights files too.")
@threads_option
@format_options
def command(
    release: Path,
    parts: tuple[Path, ...],
    trusted: TrustChoice,
    verifiers: tuple[Path, ...],
    rung: str,
    whole_files: bool,
    threads: int | None,
    formatted: FormatChoice,
) -> int:
    """Decide on RELEASE from the signed PARTS of all shards: the report of a single run."""
    from parentage.attest.bundle import MODEL_SIG
    from parentage.attest.keys import PublicKey
    from parentage.attest.trust import TrustedKeys
    from parentage.verify.demands import Demands
    from parentage.verify.join import join

    with progress("join", quiet=formatted.quiet, reads=[release]) as bar:
        report = join(
            release,
            parts,
            trust=trusted.build(),
            verifiers=TrustedKeys(tuple(map(PublicKey.load, verifiers))) if verifiers else None,
            demands=Demands(
                rung=rung,  # type: ignore[arg-type]  # click checked the choice
                whole_files=whole_files,
                threads=threads,
                progress=bar,
            ),
        )
    return formatted.show(placed(report.shown("join"), release, "README.md", MODEL_SIG))
