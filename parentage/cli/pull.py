"""`parentage pull`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from parentage.cli.formatting import FormatChoice, format_options
from parentage.cli.gating import require_gate_alone
from parentage.cli.locking import LockChoice, lock_options
from parentage.cli.places import fetch_parents_option, loose_parents, parent_option
from parentage.cli.shared import (
    FILE,
    device_option,
    progress,
    rung_option,
    threads_option,
)
from parentage.cli.trusting import TrustChoice, load_root, trust_options
from parentage.manifest.errors import UsageError, printable

if TYPE_CHECKING:
    from parentage.verify.demands import Demands
    from parentage.verify.gates.policy import Gate
    from parentage.verify.gates.report import GateReport
    from parentage.verify.report import Report


@click.command(
    "pull",
    epilog="""\b
Examples:
  parentage pull hf://acme/rio -o ./rio --key release.pub
  parentage pull hf://acme/rio -o ./rio --gate gate.yaml --parent ./nex --parent ./qwen
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
@click.option(
    "--gate",
    "gate_file",
    type=FILE,
    help="The gate's rules (YAML), whose `download` says what must hold, instead of --level and trust.",
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
@fetch_parents_option
@rung_option
@click.option("--files", "whole_files", is_flag=True, help="Compare SHA-256 of weights files too.")
@device_option
@threads_option
@format_options
def command(
    place: str,
    target: Path,
    gate_file: Path | None,
    trusted: TrustChoice,
    locked: LockChoice,
    level: str,
    parents: tuple[str, ...],
    fetch_parents: bool,
    rung: str,
    whole_files: bool,
    device: str,
    threads: int | None,
    formatted: FormatChoice,
) -> int:
    """Download a release: verified while it comes, and in its folder only when it is verified."""
    from parentage.verify.demands import Demands
    from parentage.verify.gates.report import GateReport
    from parentage.verify.pulling import Pull, pull
    from parentage.verify.sources.place import parse_place

    at = parse_place(place)
    gate = None if gate_file is None else _gate(gate_file, trusted, locked)
    if gate is not None:
        locked, level = LockChoice(lock=gate.lock), gate.rules("download").level
    remembered = locked.remembered(at)
    given = loose_parents(parents if level == "recompute" else (), quiet=formatted.quiet)
    with progress("pull", quiet=formatted.quiet) as bar:
        result = pull(
            Pull(
                place=at,
                target=target,
                trust=trusted.build() if gate is None else gate.believed,
                parents=given,
                examine=None if gate is None else partial(_ask, gate, given),
                demands=Demands(
                    level=level,  # type: ignore[arg-type]  # click checked the choice
                    rung=rung,  # type: ignore[arg-type]
                    fetch_parents=fetch_parents,
                    whole_files=whole_files if gate is None else gate.rules("download").whole_files,
                    device=device,
                    threads=threads,
                    progress=bar,
                    remembered=remembered,
                ),
                tell=lambda text: click.echo(printable(text, 400), err=True),
            )
        )
    report = result.report if isinstance(result, GateReport) else cast("Report", result)
    if gate is None or not result.exit_code or report.verdict == "denied":
        locked.keep(report, remembered)
    return formatted.show(result.shown("pull"))


def _gate(gate_file: Path, trusted: TrustChoice, locked: LockChoice) -> Gate:
    """Read the rules of downloads.

    Raises:
        UsageError: other options say what the file says, or it asks for no download.
        PolicyError: it is none.
    """
    from parentage.attest.keys import PublicKey
    from parentage.verify.gates.policy import load

    require_gate_alone(trusted, locked, "level", "rung", "whole_files", "fetch_parents")
    keys = tuple(map(PublicKey.load, trusted.keys))
    gate = load(gate_file, keys, load_root(trusted.trusted_root))
    if gate.rules("download").level == "remote":
        raise UsageError(
            "pull reads everything, and this gate asks for a check without a download",
            where=f"{gate_file}: download: level",
            expected="integrity or recompute",
            hint="parentage gate download",
        )
    return gate


def _ask(
    gate: Gate, parents: Sequence[tuple[str | None, Path]], folder: Path, demands: Demands
) -> GateReport:
    from parentage.verify.gates.run import run

    return run(folder, gate, "download", parents=parents, demands=demands)
