"""`parentage card`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.shared import COLOURS, FILE, coloured, emit, json_option

if TYPE_CHECKING:
    from parentage.attest.trust import Trust
    from parentage.verify.cards.report import CardReport

_FOLDER = click.Path(path_type=Path)


@click.group("card")
def command() -> None:
    """Hold a model card against the manifest of its release."""


@command.command(
    "check",
    epilog="""\b
Examples:
  parentage card check ./rio
  parentage card check ./rio --rule C05=error --rule C10=ignore
  parentage card check ./rio --key release.pub --signed-card signed.md

\b
Exit codes: 0 no error, 1 the card contradicts the manifest, 2 usage, 3 no manifest,
4 the card can't be read, 5 an error of a rule that contradicts nothing (C05, C10, C12).""",
)
@click.argument("folder", type=_FOLDER)
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="ID=LEVEL",
    help="Another level of a rule: ignore, note, warning or error; repeat for more.",
)
@click.option(
    "--signed-card",
    type=FILE,
    help="The card that was signed, to say which keys were changed since.",
)
@click.option("--key", "keys", type=FILE, multiple=True, help="Only a manifest by this key counts.")
@json_option
def check(
    folder: Path,
    rules: tuple[str, ...],
    signed_card: Path | None,
    keys: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Compare the card of FOLDER with its manifest by the rules C01 to C13; no weights are read."""
    from parentage.verify.cards.check import check as check_card
    from parentage.verify.cards.levels import parse_levels

    report = check_card(
        folder, trust=_trust(keys), levels=parse_levels(rules), signed_card=signed_card
    )
    _show(report, as_json=as_json)
    return report.exit_code


@command.command(
    "explain", epilog="\b\nExamples:\n  parentage card explain\n  parentage card explain C03"
)
@click.argument("rule", required=False)
@json_option
def explain(rule: str | None, as_json: bool) -> int:
    """Say what RULE (an id or a name) looks at; all rules without one."""
    from parentage.verify.cards.levels import rule_id
    from parentage.verify.cards.rules import RULES

    chosen = [RULES[rule_id(rule)]] if rule else list(RULES.values())
    if as_json:
        fields = ("id", "slug", "level", "contradicts", "help", "compares", "remedy")
        emit(
            {
                "schema": "https://parentage.dev/card-rules/v0.1",
                "rules": [{name: getattr(one, name) for name in fields} for one in chosen],
            }
        )
        return 0
    for one in chosen:
        click.echo(f"{one.id} {one.slug} ({one.level.value})\n  {one.help}")
        if rule:
            click.echo(f"  compares: {one.compares}\n  remedy:   {one.remedy}")
            exit_code = 1 if one.contradicts else 5
            click.echo(f"  as an error: exit code {exit_code}")
    return 0


def _trust(keys: tuple[Path, ...]) -> Trust | None:
    if not keys:
        return None
    from parentage.attest.keys import PublicKey
    from parentage.attest.trust import TrustedKeys

    return TrustedKeys(tuple(map(PublicKey.load, keys)))


def _show(report: CardReport, *, as_json: bool) -> None:
    from parentage.verify.cards.report import to_text

    if as_json:
        emit(report)
        return
    word = report.verdict.value.upper()
    click.echo(coloured(word, COLOURS[word]) + to_text(report).removeprefix(word))
