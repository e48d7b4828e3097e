"""`parentage card`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from parentage.cli.formatting import FormatChoice, format_options, placed
from parentage.cli.places import SOURCE, Given, at_hand
from parentage.cli.shared import FILE, emit, json_option
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.verify.sources.place import HubPlace

if TYPE_CHECKING:
    from parentage.attest.trust import Trust
    from parentage.verify.cards.sync import Synced

_FOLDER = click.Path(path_type=Path)


@click.group(
    "card",
    epilog="""\b
Examples:
  parentage card check ./rio
  parentage card check ./rio --json
  parentage card sync ./rio
  parentage card explain C03""",
)
def command() -> None:
    """Hold a model card against the manifest of its release, and write the manifest into it."""


@command.command(
    "check",
    epilog="""\b
Examples:
  parentage card check ./rio
  parentage card check ./rio --rule C05=error --rule C10=ignore
  parentage card check ./rio --key release.pub --signed-card signed.md
  parentage card check hf://acme/rio --policy trust.yaml

\b
Exit codes: 0 no error, 1 the card contradicts the manifest, 2 usage, 3 no manifest,
4 the card can't be read, 5 an error of a rule that contradicts nothing (C05, C10, C12).""",
)
@click.argument("source", type=SOURCE)
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
@click.option("--weights", is_flag=True, help="Read and digest the weights, too (C09).")
@trust_options
@format_options
def check(
    source: Given,
    weights: bool,
    rules: tuple[str, ...],
    signed_card: Path | None,
    trusted: TrustChoice,
    formatted: FormatChoice,
) -> int:
    """Compare the card of SOURCE, a folder or hf://org/name@revision, with its manifest by the rules C01 to C13."""
    from parentage.manifest.errors import UsageError
    from parentage.verify.cards.check import check as check_card
    from parentage.verify.cards.levels import parse_levels

    folder, tags = _fetched(source, quiet=formatted.quiet)
    here = isinstance(source, Path)
    if weights and not here:
        raise UsageError("weights are not fetched for a card", hint=f"parentage verify {source}")
    report = check_card(
        folder,
        trust=_trust(trusted),
        levels=parse_levels(rules),
        signed_card=signed_card,
        hub_tags=tags,
        renamed=None if here else _renamed,
        weights=weights if here else None,
        name=str(source),
    )
    return formatted.show(placed(report.shown("card check"), folder, "README.md"))


@command.command(
    "sync",
    epilog="""\b
Examples:
  parentage declare ./rio --recipe recipe.yaml --parent ./nex --parent ./qwen
  parentage card sync ./rio
  parentage sign ./rio --key release.key
  parentage card sync ./rio --check

\b
Exit codes: 0 the card is as the manifest has it, 1 with --check: it is not, 2 usage, 3 no manifest.""",
)
@click.argument("folder", type=_FOLDER)
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit with 1 and a diff.")
@trust_options
@json_option
def sync(folder: Path, only_check: bool, trusted: TrustChoice, as_json: bool) -> int:
    """Write parents, relation, licence, tag and a provenance section into the card of FOLDER."""
    from parentage.manifest.atomic import write_bytes
    from parentage.manifest.card import README
    from parentage.manifest.errors import printable
    from parentage.verify.cards.sync import plan

    planned = plan(folder, _trust(trusted))
    if planned.changed and not only_check:
        write_bytes(folder / README, planned.after)
    if as_json:
        emit(
            {
                "schema": "https://parentage.dev/card-sync/v0.1",
                "changed": planned.changed,
                "written": planned.changed and not only_check,
                "keys": list(planned.keys),
                "notes": list(planned.notes),
            }
        )
    else:
        click.echo(_done(planned, folder, only_check=only_check))
    for note in planned.notes:
        click.echo(f"note: {printable(note, 400)}", err=True)
    if planned.changed:
        _tell(planned, folder, only_check=only_check)
    return int(planned.changed and only_check)


def _done(planned: Synced, folder: Path, *, only_check: bool) -> str:
    if not planned.changed:
        return f"{folder}/README.md says what the manifest says"
    keys = ", ".join([*planned.keys, "the provenance section"])
    return f"{folder}/README.md {'would change' if only_check else 'was changed'}: {keys}"


def _tell(planned: Synced, folder: Path, *, only_check: bool) -> None:
    """Say what would change, or what has to be done now that it did."""
    import difflib

    from parentage.attest.bundle import MODEL_SIG
    from parentage.manifest.errors import printable
    from parentage.manifest.lineage import DRAFT

    if only_check:
        before, after = (data.decode().splitlines() for data in (planned.before, planned.after))
        names = ("README.md", "README.md as the manifest has it")
        for line in difflib.unified_diff(before, after, *names, lineterm=""):
            click.echo(printable(line, 2000), err=True)
        click.echo(f"next: parentage card sync {folder}", err=True)
    elif (folder / DRAFT).is_file():
        click.echo(f"next: parentage sign {folder}", err=True)
    elif (folder / MODEL_SIG).is_file():
        click.echo(
            "this release is signed, and README.md with it: the signature holds no more\n"
            f"next: parentage declare {folder} (with its recipe), then parentage sign {folder}",
            err=True,
        )


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


def _fetched(source: Given, *, quiet: bool) -> tuple[Path, tuple[str, ...] | None]:
    """Return a folder with the card and what it is held against, and the Hub's tags, where it is on one."""
    if isinstance(source, Path):
        return source, None
    from parentage.verify.sources.hub import resolve

    repo = resolve(source)
    return at_hand(repo.place, "card", quiet=quiet), repo.tags


def _renamed(repo: str) -> str | None:
    """Ask the Hub where a name leads; a repository that can't be read leads nowhere."""
    from parentage.manifest.errors import HubError
    from parentage.verify.sources.hub import resolve

    try:
        return resolve(HubPlace(repo)).place.repo.lower()
    except HubError:
        return None


def _trust(trusted: TrustChoice) -> Trust | None:
    return None if trusted == TrustChoice() else trusted.build()
