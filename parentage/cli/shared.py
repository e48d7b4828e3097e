"""What the subcommands share: options, keys and passphrases, progress, output."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from parentage.manifest.errors import ParentageError, UsageError

if TYPE_CHECKING:
    from parentage.attest.keys import PrivateKey
    from parentage.manifest.hashing import Progress
    from parentage.verify.benchmarks.report import BenchReport
    from parentage.verify.report import Report

FOLDER = click.Path(path_type=Path, exists=True)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
passphrase_option = click.option(
    "--passphrase-file",
    type=FILE,
    help="File whose first line is the passphrase (else PARENTAGE_PASSPHRASE, else a prompt).",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1, 256), help="Worker threads (default: all cores)."
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto, cpu, cuda, all, or a list such as cuda:0,cuda:1; the bits are the same.",
)
level_option = click.option(
    "--level",
    type=click.Choice(["recompute", "integrity"]),
    default="recompute",
    show_default=True,
    help="How much to demand: the recipe too, or signature and digests only.",
)
rung_option = click.option(
    "--rung",
    type=click.Choice(["A", "B", "C"]),
    default="A",
    show_default=True,
    help="Weakest rung that counts: A exact, B exact given scalars near float64's, C within cells.",
)
digest_option = click.option(
    "--digest",
    "digests",
    multiple=True,
    type=click.Choice(["ptd1-b3", "ptd1-sha256"]),
    help="Digest profile; repeat for both. Default ptd1-b3.",
)


def emit(value: object) -> None:
    """Print one JSON document to standard output."""
    import msgspec

    click.echo(msgspec.json.encode(value))


COLOURS = {
    "VERIFIED": "green",
    "REFUTED": "red",
    "UNPROVEN": "yellow",
    "UNSIGNED": "yellow",
    "DENIED": "red",
}


def show_report(report: Report | BenchReport, *, as_json: bool, command: str = "") -> None:
    """Print a report: JSON, or text whose first word is the verdict."""
    if as_json:
        emit(report)
        return
    from parentage.verify.formats import human

    word = report.verdict.value.upper()
    shown = report.shown(command) if command else report.shown()
    text = human.render(shown).removeprefix(word)
    click.echo(coloured(word, COLOURS[word]) + text, nl=False)


def coloured(text: str, colour: str) -> str:
    """Colour text for a terminal; click drops it elsewhere, and NO_COLOR everywhere (no-color.org)."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour, bold=True)


def report_error(error: ParentageError, *, as_json: bool) -> int:
    """Print an error where its reader looks for it, and return its exit code."""
    if as_json:
        emit(error_document(error))
    else:
        click.echo(f"error [{error.code}]: {error.describe()}", err=True)
    return error.exit_code


def error_document(error: ParentageError) -> dict[str, Any]:
    """Return an error as JSON shows it."""
    return {
        "schema": "https://parentage.dev/error/v0.1",
        "exitCode": error.exit_code,
        "error": error.as_dict(),
    }


def load_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """Load a private key, asking for its passphrase only if it has one and none was given."""
    from parentage.attest.keys import PrivateKey, passphrase_from

    passphrase = passphrase_from(passphrase_file, os.environ)
    if passphrase is None and b"ENCRYPTED" in path.read_bytes()[:200]:
        passphrase = ask_passphrase(confirm=False)
    return PrivateKey.load(path, passphrase)


def ask_passphrase(*, confirm: bool) -> bytes:
    """Ask on the terminal, unseen; where there is none, say how else to give it."""
    if not sys.stdin.isatty():
        raise UsageError(
            "no terminal to ask for the passphrase",
            hint="set PARENTAGE_PASSPHRASE, or --passphrase-file FILE",
        )
    text: str = click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True)
    return text.encode()


@contextmanager
def progress(label: str, *, quiet: bool, reads: Iterable[Path] = ()) -> Iterator[Progress | None]:
    """Yield a callback that draws progress on a terminal, and nothing elsewhere.

    `reads` are the files and folders that the work will read, one entry for each time.
    """
    if quiet or not sys.stderr.isatty():
        yield None
        return
    try:
        yield Meter(label, sum(map(_size, reads)))
    finally:
        click.echo("\r\033[K", nl=False, err=True)


class Meter:
    """Bytes done, speed, and the time left: drawn over itself, ten times a second at most."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._lock, self._start = threading.Lock(), time.monotonic()
        self._done, self._shown = 0, 0.0

    def __call__(self, nbytes: int) -> None:
        """Count bytes that are done."""
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if now - self._shown < 0.1:
                return
            self._shown = now
            line = _line(self._done, self._total, max(now - self._start, 1e-3))
            click.echo(f"\r{self._label}: {line}\033[K", nl=False, err=True)

    def expect(self, nbytes: int) -> None:
        """Count bytes that are still to come, or that need not be done."""
        with self._lock:
            self._total += nbytes


def _line(done: float, total: int, seconds: float) -> str:
    """Return bytes, speed and, while the estimate holds, the time left."""
    speed = done / seconds
    if done > total or not speed:
        return f"{done / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s"
    left = (total - done) / speed
    return (
        f"{done / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s, "
        f"{left // 60:.0f}:{left % 60:02.0f} left"
    )


def _size(path: Path) -> int:
    """Return the bytes below a path; what can't be read is named by the work itself."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def lineage_document(lineage: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a predicate as JSON."""
    from parentage.manifest.lineage import to_document

    return to_document(lineage)
