"""`parentage gate init`."""

from __future__ import annotations

from pathlib import Path

import click

from parentage.cli.shared import FILE, emit, json_option
from parentage.cli.trust import as_found
from parentage.manifest.errors import UsageError


@click.command(
    "init",
    epilog="""\b
Example:
  parentage gate init -o gate.yaml --trust trust.yaml --lock parentage.lock""",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="File to write; never over an existing one.",
)
@click.option("--trust", type=FILE, required=True, help="Trust policy: who may sign.")
@click.option(
    "--lock",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Lock file: what was seen before; it need not exist.",
)
@json_option
def command(output: Path, trust: Path, lock: Path | None, as_json: bool) -> int:
    """Write a gate's file with comments, strict but for what it says."""
    from parentage.attest.policy_file import load as load_trust
    from parentage.manifest.atomic import write_bytes
    from parentage.verify.gates.policy import load
    from parentage.verify.gates.text import text_of

    if output.exists():
        raise UsageError("file exists already", where=str(output), hint="choose another --output")
    load_trust(trust, usable=False)
    folder = output.parent
    text = text_of(as_found(trust, folder), None if lock is None else as_found(lock, folder))
    write_bytes(output, text.encode())
    gate = load(output, usable=False)
    if as_json:
        emit({"schema": "https://parentage.dev/gate-init/v0.1", "gate": str(output),
              "gateSha256": gate.sha256, "trustSha256": gate.believed.sha256})  # fmt: skip
        return 0
    click.echo(f"{output}\nsha256 {gate.sha256}\nnext   parentage gate explain {output}")
    return 0
