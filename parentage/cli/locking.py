"""The lock file: what `verify` remembers of a release from one time to the next."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.manifest.errors import UsageError
from parentage.verify.sources.place import HubPlace

if TYPE_CHECKING:
    from parentage.verify.demands import Remembered
    from parentage.verify.report import Report

#: A snapshot in a Hub cache: models--org--name/snapshots/<revision>.
_SNAPSHOT: Final = re.compile(r"models--([^/]+)--([^/]+)")


class LockChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say.

    Attributes:
        lock: the file; it need not exist.
        lock_name: what it calls the release; None: the folder's name, or org/name of a Hub snapshot.
    """

    lock: Path | None = None
    lock_name: str | None = None

    def remembered(self, release: Path | HubPlace) -> Remembered | None:
        """Read what is remembered of a release.

        Raises:
            LockError: the file is no lock file.
            UsageError: a name without a file.
        """
        from parentage.attest.lock import load
        from parentage.verify.demands import Remembered

        if self.lock is None:
            if self.lock_name is not None:
                raise UsageError("--lock-name goes with --lock")
            return None
        held = load(self.lock).releases
        name = self.lock_name or _known(_name_of(release), held)
        return Remembered(name, held.get(name))

    def keep(self, report: Report, remembered: Remembered | None) -> None:
        """Remember a release that is neither refuted nor refused; a withdrawn one, too.

        Raises:
            LockError: somebody else changed what is remembered meanwhile.
        """
        from parentage.attest.lock import remember

        if self.lock is None or remembered is None or report.lock is None:
            return
        said = {problem.code for problem in report.standing.problems} if report.standing else set()
        others = [f for f in report.findings if f.refutes or (f.denies and f.code not in said)]
        # What was said of it is remembered so that it can't be left out the next time.
        if report.lock.entry is None or others:
            return
        remember(self.lock, remembered.name, remembered.entry, report.lock.entry)


def _known(name: str, held: Iterable[str]) -> str:
    """Return the name as the file has it: a Hub takes Acme/Rio and acme/rio for one repository."""
    if "/" not in name:
        return name
    return next((one for one in held if one.casefold() == name.casefold()), name)


def _name_of(release: Path | HubPlace) -> str:
    if isinstance(release, HubPlace):
        return release.repo
    path = release.resolve()
    if path.parent.name == "snapshots" and (held := _SNAPSHOT.fullmatch(path.parent.parent.name)):
        return f"{held[1]}/{held[2]}"
    return path.name or "release"


_OPTIONS: Final = (
    click.option(
        "--lock",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Remember signers, files and status here, and refuse what changed unannounced.",
    ),
    click.option(
        "--lock-name",
        metavar="NAME",
        help="What the lock file calls the release (default: its folder).",
    ),
)


def lock_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of the lock file, as one argument `locked`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in LockChoice.__struct_fields__}
        return command(*arguments, locked=LockChoice(**own), **options)

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
