"""`parentage staged`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.formatting import FormatChoice, format_options


@click.command(
    "staged",
    epilog="""\b
Examples:
  parentage staged rio/README.md rio/model.safetensors
  parentage staged --card rio/README.md --json

\b
For pre-commit (.pre-commit-config.yaml) there are the hooks parentage-card and parentage-check.
Exit codes: 0 no error, 1 refuted, 2 usage, 3 no release, 4 unproven, 5 denied by the levels.""",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--card", "card_only", is_flag=True, help="The card alone: rules C01 to C13.")
@click.option(
    "--if-any", is_flag=True, help="Exit with 0 where no file belongs to a release, and say so."
)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="ID=LEVEL",
    help="Another level of a rule: ignore, note, warning or error; repeat for more.",
)
@format_options
def command(
    files: tuple[Path, ...],
    card_only: bool,
    if_any: bool,
    rules: tuple[str, ...],
    formatted: FormatChoice,
) -> int:
    """Check forms, card and age of the manifests around FILES; no weights are read."""
    from parentage.verify.cards.levels import parse_levels
    from parentage.verify.cards.staged import staged

    report = staged(files, levels=parse_levels(rules), card_only=card_only)
    if if_any and not report.releases:
        click.echo(f"parentage: none of {len(files):,} files belongs to a release", err=True)
        return 0
    return formatted.show(report.shown())
