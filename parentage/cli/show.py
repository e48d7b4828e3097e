"""`parentage show`."""

from __future__ import annotations

from typing import Any

import click

from parentage.cli.places import SOURCE, Given, at_hand
from parentage.cli.shared import emit, json_option

_SCORES = 20


@click.command(
    "show",
    epilog="\b\nExamples:\n  parentage show ./rio\n  parentage show ./rio --json\n  parentage show hf://acme/rio@v1",
)
@click.argument("path", type=SOURCE)
@json_option
def command(path: Given, as_json: bool) -> int:
    """Say what a release or bundle at PATH claims. Nothing is verified: these are claims."""
    from parentage.attest.peek import peek

    claims = peek(at_hand(path, "said", quiet=as_json))
    if as_json:
        emit({"schema": "https://parentage.dev/show/v0.1", "verified": False, "claims": claims})
        return 0
    click.echo(f"claims found in {path} (nothing here is verified)\n")
    for claim in claims:
        click.echo("\n".join(_lines(claim)))
    return 0


def _lines(claim: dict[str, Any]) -> list[str]:
    from parentage.manifest.errors import printable

    lines = [f"{claim['where']}: {claim['predicateType']}  (key {claim['keyHint'][:16]}…)"]
    for subject in claim["subjects"]:
        lines.append(f"  subject  {printable(subject['name'])} sha256 {subject['sha256']}")
    predicate = claim["predicate"]
    if "resources" in predicate:
        lines.append(f"  files    {len(predicate['resources'])} signed")
    for field in (
        "state",
        "sequence",
        "reason",
        "validUntil",
        "verdict",
        "verificationResult",
        "purl",
        "binding",
    ):
        if field in predicate:
            lines.append(f"  {field:<8} {printable(str(predicate[field]))}")
    for parent in predicate.get("parents", []):
        roots = ", ".join(f"{k} {v}" for k, v in parent["weights"].items())
        lines.append(
            f"  parent   {printable(parent['id'])} {printable(parent.get('uri', ''))} {roots}"
        )
    for step in predicate.get("recipe", {}).get("steps", []):
        lines.append(
            f"  step     {printable(step['id'])}: {printable(step['op'])}({', '.join(step['inputs'])})"
        )
        for field in ("params", "training", "arithmetic"):
            if field in step:
                lines.append(f"           {field}: {printable(str(step[field]), 300)}")
    scores = predicate.get("scores")
    for score in scores[:_SCORES] if isinstance(scores, list) else ():
        names = ("task", "metric", "filter", "value")
        said = [str(score[n]) for n in names if n in score] if isinstance(score, dict) else []
        lines.append(f"  score    {printable(' '.join(said))}")
    return [*lines, ""]
