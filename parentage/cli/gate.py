"""`parentage gate`: one file a subcommand."""

from __future__ import annotations

from typing import Final

import click

from parentage.cli.lazy import Lazy

_GATES: Final = {
    "init": "write a gate's file, with comments",
    "explain": "say what a gate's file demands, and what every check is about",
    "upload": "may this release be published?",
    "download": "may what was downloaded be used?",
    "benchmark": "may these scores be shown as this release's?",
    "leaderboard": "which rows of a leaderboard are proven?",
}


@click.group(
    "gate",
    cls=Lazy,
    table=_GATES,
    prefix="gate_",
    epilog="""\b
Examples:
  parentage gate init -o gate.yaml --trust trust.yaml
  parentage gate explain gate.yaml --json
  parentage gate upload ./rio --gate gate.yaml --parent ./nex --parent ./qwen
  parentage gate download ./rio --gate gate.yaml --output sarif=parentage.sarif

\b
Exit codes, the strongest reason's: 1 refuted, 3 unsigned, 5 denied by the rules, 4 unproven; 0: let through.""",
)
def command() -> None:
    """Let a release through, or say every reason why not."""
