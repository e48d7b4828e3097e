"""`parentage push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from parentage.cli.formatting import FormatChoice, format_options
from parentage.cli.gating import GateChoice, require_gate_alone
from parentage.cli.locking import LockChoice, lock_options
from parentage.cli.places import fetch_parents_option, loose_parents, parent_option
from parentage.cli.shared import (
    FILE,
    device_option,
    level_option,
    progress,
    rung_option,
    threads_option,
)
from parentage.cli.trusting import TrustChoice, trust_options
from parentage.manifest.errors import printable

if TYPE_CHECKING:
    from parentage.verify.publishing import Checked


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options that say how a release is checked before it is sent."""

    folder: Path
    trusted: TrustChoice
    locked: LockChoice
    parents: tuple[str, ...]
    fetch_parents: bool
    level: str
    rung: str
    device: str
    threads: int | None
    gate_file: Path | None

    def checked(self, *, quiet: bool) -> Checked:
        """Ask the gate, or verify the folder."""
        if self.gate_file is None:
            return self._verified(quiet=quiet)
        return self._gated(self.gate_file, quiet=quiet)

    def _gated(self, gate_file: Path, *, quiet: bool) -> Checked:
        from parentage.verify.publishing import Checked

        choice = GateChoice(
            gate_file=gate_file,
            keys=self.trusted.keys,
            trusted_root=self.trusted.trusted_root,
            parents=self.parents,
            ancestors=(),
            device=self.device,
            threads=self.threads,
        )
        gate = choice.load()
        found, _ = choice.asked(gate, self.folder, "upload", quiet=quiet)
        return Checked(found, found.report, gate.believed)

    def _verified(self, *, quiet: bool) -> Checked:
        """Verify the folder."""
        from parentage.verify.check import verify
        from parentage.verify.demands import Demands
        from parentage.verify.publishing import Checked

        trust, remembered = self.trusted.build(), self.locked.remembered(self.folder)
        wanted = self.parents if self.level == "recompute" else ()
        given = loose_parents(wanted, quiet=quiet)
        reads = [self.folder, *(path for _, path in given)]
        with progress("verify", quiet=quiet, reads=reads) as bar:
            report = verify(
                self.folder,
                trust=trust,
                parents=given,
                demands=Demands(
                    level=self.level,  # type: ignore[arg-type]  # click checked the choice
                    rung=self.rung,  # type: ignore[arg-type]
                    fetch_parents=self.fetch_parents,
                    device=self.device,
                    threads=self.threads,
                    progress=bar,
                    remembered=remembered,
                ),
            )
        self.locked.keep(report, remembered)
        return Checked(report, report, trust)


@click.command(
    "push",
    epilog="""\b
Examples:
  parentage push ./rio hf://acme/rio --gate gate.yaml --parent ./nex --parent ./qwen
  parentage push ./rio hf://acme/rio --key release.pub --parent ./nex --parent ./qwen
  parentage push ./rio hf://acme/rio --key release.pub --level integrity --create --private
  parentage push ./rio hf://acme/rio --policy trust.yaml --parent ./nex --parent ./qwen --dry-run

\b
The release is checked, sent as one pull request, compared there, merged, and compared on main.
Whatever fails before the merge leaves main as it is; the same command goes on from what is there.

\b
Exit codes: 0 published, 1 refuted, 2 usage, 3 unsigned, 4 unproven or the Hub failed, 5 denied.""",
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("place", metavar="hf://ORG/NAME")
@click.option(
    "--gate",
    "gate_file",
    type=FILE,
    help="The gate's rules (YAML), whose `upload` says what must hold, instead of --level and trust.",
)
@trust_options
@lock_options
@parent_option
@fetch_parents_option
@level_option
@rung_option
@device_option
@threads_option
@click.option("--create", is_flag=True, help="Make the repository where there is none.")
@click.option("--private", is_flag=True, help="With --create: for others not to see.")
@click.option(
    "--replace", is_flag=True, help="Delete files of main that the release does not have."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@format_options
def command(
    folder: Path,
    place: str,
    gate_file: Path | None,
    trusted: TrustChoice,
    locked: LockChoice,
    parents: tuple[str, ...],
    fetch_parents: bool,
    level: str,
    rung: str,
    device: str,
    threads: int | None,
    create: bool,
    private: bool,
    replace: bool,
    dry_run: bool,
    formatted: FormatChoice,
) -> int:
    """Publish FOLDER on a Hub: verified before it is sent, whole, and compared when it is there."""
    from parentage.manifest.errors import UsageError
    from parentage.verify.publishing import Push, push
    from parentage.verify.sources.place import parse_place

    if private and not create:
        raise UsageError("--private goes with --create")
    if gate_file is not None:
        require_gate_alone(trusted, locked, "level", "rung", "fetch_parents")
    asked = _Asked(
        folder=folder,
        trusted=trusted,
        locked=locked,
        parents=parents,
        fetch_parents=fetch_parents,
        level=level,
        rung=rung,
        device=device,
        threads=threads,
        gate_file=gate_file,
    )
    result = push(
        Push(
            folder=folder,
            place=parse_place(place),
            check=lambda: asked.checked(quiet=formatted.quiet),
            create=create,
            private=private,
            replace=replace,
            dry_run=dry_run,
            tell=lambda text: click.echo(printable(text, 400), err=True),
        )
    )
    return formatted.show(result.shown("push"))
