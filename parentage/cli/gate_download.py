"""`parentage gate download`."""

from __future__ import annotations

import click

from parentage.cli.formatting import FormatChoice
from parentage.cli.gating import GateChoice, gate_options
from parentage.cli.places import SOURCE, Given


@click.command(
    "download",
    epilog="""\b
Examples:
  parentage gate download hf://acme/rio@v1 --gate gate.yaml
  parentage gate download ./rio --gate gate.yaml --format github --output sarif=parentage.sarif

\b
Exit codes, the strongest reason's: 1 refuted, 3 unsigned, 5 denied by the rules, 4 unproven; 0: let through.""",
)
@click.argument("release", type=SOURCE)
@gate_options
def command(release: Given, gate: GateChoice, formatted: FormatChoice) -> int:
    """Say whether RELEASE, as it was downloaded, may be used: all reasons at once."""
    return gate.ask(release, "download", formatted)
