"""`parentage gate benchmark`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.formatting import FormatChoice, placed
from parentage.cli.gating import GateChoice, gate_options
from parentage.cli.locking import LockChoice
from parentage.cli.places import SOURCE, Given, all_at_hand, at_hand, loose_parents
from parentage.cli.shared import FILE, progress


@click.command(
    "benchmark",
    epilog="""\b
Examples:
  parentage gate benchmark results.json --release ./rio --gate gate.yaml
  parentage gate benchmark results.json --release ./rio --gate gate.yaml --parent ./nex --parent ./qwen
  parentage gate benchmark results.json --release ./rio --gate gate.yaml --samples-file samples.jsonl

\b
Exit codes: 0 the scores may be shown, 1 refuted, 3 nobody signed them, 5 denied by the rules.""",
)
@click.argument("results", type=FILE)
@click.option(
    "--release",
    type=SOURCE,
    required=True,
    help="Whose scores they are said to be: folder or hf://…",
)
@click.option(
    "--statement", "lines", type=FILE, multiple=True,
    help="File with signed statements that the release does not carry; repeat for more.",
)  # fmt: skip
@click.option(
    "--samples-file", "log", type=FILE, help="Log to replay now, as the rules' `replay` says."
)
@gate_options
def command(
    results: Path,
    release: Given,
    lines: tuple[Path, ...],
    log: Path | None,
    gate: GateChoice,
    formatted: FormatChoice,
) -> int:
    """Say whether the scores in RESULTS may be shown as those of a release: all reasons at once."""
    from parentage.verify.benchmarks.gate import Asked, ask
    from parentage.verify.demands import Demands

    loaded = gate.load()
    rules = loaded.board()
    quiet = formatted.quiet
    parents = loose_parents(gate.parents, quiet=quiet)
    remembered = LockChoice(lock=loaded.lock).remembered(release)
    folder = at_hand(release, quiet=quiet)
    asked = Asked(results=results, release=folder, parents=parents, lines=lines, log=log)
    with progress("gate benchmark", quiet=quiet, reads=[folder, *(p for _, p in parents)]) as bar:
        report = ask(
            asked,
            loaded.believed,
            rules,
            demands=Demands(
                device=gate.device,
                threads=gate.threads,
                progress=bar,
                remembered=remembered,
                ancestors=all_at_hand(gate.ancestors, "claims", quiet=quiet),
            ),
        )
    report.policy_sha256, report.gate_sha256 = loaded.believed.sha256, loaded.sha256
    shown = placed(report.shown("gate benchmark"), folder, results, gate.gate_file)
    return formatted.show(shown)
