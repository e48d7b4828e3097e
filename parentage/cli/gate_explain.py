"""`parentage gate explain`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from parentage.cli.shared import FILE, emit, json_option


@click.command(
    "explain",
    epilog="""\b
Examples:
  parentage gate explain
  parentage gate explain gate.yaml --json""",
)
@click.argument("gate", type=FILE, required=False)
@json_option
def command(gate: Path | None, as_json: bool) -> int:
    """Say what GATE demands, check by check; without it, what the checks are."""
    from parentage.verify.gates.explain import demanded, explained
    from parentage.verify.gates.policy import load

    loaded = None if gate is None else load(gate, usable=False)
    gates = {} if loaded is None else loaded.policy.gates()
    board = loaded.policy.benchmark if loaded else None
    scores = board.explained() if board else {}
    if as_json:
        emit(
            {
                "schema": "https://parentage.dev/gate-explain/v0.1",
                "gateSha256": loaded.sha256 if loaded else "",
                "trustSha256": loaded.believed.sha256 if loaded else "",
                "checks": explained(),
                "gates": {
                    name: {"demands": demanded(rules), "checks": explained(rules)}
                    for name, rules in gates.items()
                },
                "benchmark": scores,
            }
        )
        return 0
    if loaded is not None:
        click.echo(f"{gate}\nsha256 {loaded.sha256}\ntrust  {loaded.believed.sha256}")
    for name, rules in gates.items():
        click.echo(f"\n{name}: {demanded(rules)}")
        for one in explained(rules):
            said = f"{one.rule}: {json.dumps(one.value)}" if one.rule else "always"
            click.echo(f"  {one.code:<20}{said}")
        if rules.card:
            click.echo(f"  {'card':<20}{json.dumps(rules.card)}")
    if scores:
        click.echo("\nbenchmark: statements by evaluators of the trust policy")
    for demand, value in scores.items():
        click.echo(f"  {demand:<20}{json.dumps(value)}")
    for one in explained() if loaded is None else ():
        click.echo(f"  {one.code:<20}{one.what}  [{one.rule or 'always'}]")
    return 0
