"""`parentage gate leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from parentage.cli.formatting import FormatChoice, format_options
from parentage.cli.gating import gate_option, key_option
from parentage.cli.places import Given, given
from parentage.cli.shared import FILE, progress, threads_option
from parentage.cli.trusting import load_root, trusted_root_option
from parentage.manifest.errors import UsageError

if TYPE_CHECKING:
    from parentage.verify.benchmarks.rows import Row
    from parentage.verify.sources.place import HubPlace


@click.command(
    "leaderboard",
    epilog="""\b
Examples:
  parentage gate leaderboard board.csv --gate gate.yaml --release acme/rio=./rio
  parentage gate leaderboard board.json --gate gate.yaml --hub --task arc_easy --metric acc
  parentage gate leaderboard --dataset cais/hle --gate gate.yaml --format markdown

\b
Exit codes: 0 every row is proven, 1 one is contradicted, 5 one is only claimed, or nobody says it.""",
)
@click.argument("board", type=FILE, required=False)
@click.option(
    "--dataset", default="", metavar="ORG/NAME", help="The leaderboard of a data set on the Hub."
)
@click.option(
    "--release", "releases", multiple=True, metavar="MODEL=SOURCE",
    help="Where a model of the board is: folder or hf://org/name@revision; repeat for each.",
)  # fmt: skip
@click.option("--hub", is_flag=True, help="Look for the others on the Hub, by the board's names.")
@click.option(
    "--task", default="", help="Of which task the values are, where the board does not say."
)
@click.option("--metric", default="", help="Likewise, of which metric.")
@gate_option
@key_option
@trusted_root_option
@threads_option
@format_options
def command(
    board: Path | None,
    dataset: str,
    releases: tuple[str, ...],
    hub: bool,
    task: str,
    metric: str,
    gate_file: Path,
    keys: tuple[Path, ...],
    trusted_root: Path | None,
    threads: int | None,
    formatted: FormatChoice,
) -> int:
    """Say of each row of a leaderboard whether it is proven, claimed, contradicted, or said by nobody.

    BOARD is CSV or JSON: a model, a value, and perhaps a task, a metric and a revision in each row; or a
    table with a column for each task.
    """
    from parentage.attest.keys import PublicKey
    from parentage.verify.benchmarks.leaderboard import annotate
    from parentage.verify.demands import Demands
    from parentage.verify.gates.policy import load

    gate = load(gate_file, tuple(map(PublicKey.load, keys)), load_root(trusted_root))
    rules = gate.board()
    rows = [
        msgspec.structs.replace(row, task=row.task or task, metric=row.metric or metric)
        for row in _rows(board, dataset)
    ]
    with progress("gate leaderboard", quiet=formatted.quiet) as bar:
        report = annotate(
            str(board or dataset),
            rows,
            _places(releases),
            gate.believed,
            rules,
            elsewhere=_on_hub if hub or dataset else None,
            demands=Demands(threads=threads, progress=bar),
        )
    return formatted.show(report.shown("gate leaderboard"))


def _rows(board: Path | None, dataset: str) -> list[Row]:
    from parentage.verify.benchmarks.rows import read_rows, rows_of

    if (board is None) == (not dataset):
        raise UsageError("one board, please", expected="a file, or --dataset ORG/NAME")
    if board is not None:
        return read_rows(board)
    from parentage.verify.sources.hub import leaderboard

    return rows_of(leaderboard(dataset), dataset)


def _places(releases: tuple[str, ...]) -> dict[str, Given]:
    found: dict[str, Given] = {}
    for value in releases:
        model, _, source = value.partition("=")
        if not source or model in found:
            raise UsageError("not MODEL=SOURCE, or a model twice", found=value, hint="--release acme/rio=./rio")  # fmt: skip
        found[model] = given(source)
    return found


def _on_hub(row: Row) -> HubPlace | None:
    from parentage.verify.sources.place import parse_place

    try:
        return parse_place(f"hf://{row.model}" + (f"@{row.revision}" if row.revision else ""))
    except UsageError:
        return None
