"""What a command can be given to read: a folder or file, or `hf://org/name@revision`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from parentage.cli.shared import progress
from parentage.manifest.errors import UsageError
from parentage.verify.sources.place import HubPlace, is_place, parse_place

if TYPE_CHECKING:
    from parentage.verify.sources.spool import Choice

Given = Path | HubPlace
Part = Literal["release", "weights", "claims", "card", "said"]


class _Source(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.3 only
    name = "folder"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Given:
        return value if isinstance(value, Path | HubPlace) else given(str(value))


#: A folder, a file, or a repository of a Hub.
SOURCE: Final = _Source()

parent_option = click.option(
    "--parent",
    "parents",
    multiple=True,
    metavar="[ID=]SOURCE",
    help="Weights of a parent: folder, file or hf://org/name@revision; repeat for each.",
)
ancestor_option = click.option(
    "--ancestor",
    "ancestors",
    multiple=True,
    type=SOURCE,
    metavar="SOURCE",
    help="A release further up than the parents, whose claims may be followed; repeat for more.",
)

fetch_parents_option = click.option(
    "--fetch-parents",
    is_flag=True,
    help="Fetch parents that were not given by id from where the lineage says that they are.",
)


def given(text: str) -> Given:
    """Read what a person typed.

    Raises:
        UsageError: the name of a place that is none.
    """
    return parse_place(text) if is_place(text) else Path(text)


def at_hand(source: Given, part: Part = "release", *, quiet: bool) -> Path:
    """Return a path to read from: what is on a Hub is fetched first, unless it was before.

    Raises:
        HubError: a subclass names what is in the way.
    """
    if isinstance(source, Path):
        return source
    from parentage.verify.sources import spool
    from parentage.verify.sources.cached import place_of

    choice: Choice = getattr(spool, part)
    with progress(f"fetch {source}", quiet=quiet) as bar:
        folder = spool.bring(source, choice, progress=bar)
    place = place_of(folder)
    if place is not None and place.repo != source.repo:
        click.echo(
            f"note: {source.repo} is {place.repo} by now; its old name may be taken by somebody else",
            err=True,
        )
    return folder


def all_at_hand(
    sources: Iterable[Given], part: Part = "release", *, quiet: bool
) -> tuple[Path, ...]:
    """Return paths to read from, likewise."""
    return tuple(at_hand(source, part, quiet=quiet) for source in sources)


def named_parents(values: tuple[str, ...], *, quiet: bool) -> dict[str, Path]:
    """Parse ID=SOURCE pairs, and fetch what is on a Hub.

    Raises:
        UsageError: not a pair, or an id twice.
        HubError: a subclass names what is in the way.
    """
    found: dict[str, Given] = {}
    for value in values:
        name, _, source = value.partition("=")
        if not source or name in found:
            raise UsageError("not ID=PATH, or an id twice", found=value, hint="--parent nex=./nex")
        found[name] = given(source)
    return {name: at_hand(source, "weights", quiet=quiet) for name, source in found.items()}


def loose_parents(values: tuple[str, ...], *, quiet: bool) -> list[tuple[str | None, Path]]:
    """Parse [ID=]SOURCE, and fetch what is on a Hub; a path that exists as it stands is never split.

    Raises:
        UsageError: the name of a place that is none.
        HubError: a subclass names what is in the way.
    """
    found: list[tuple[str | None, Given]] = []
    for value in values:
        name, split, source = value.partition("=")
        if split and not is_place(value) and not Path(value).exists():
            found.append((name, given(source)))
        else:
            found.append((None, given(value)))
    return [(name, at_hand(source, "weights", quiet=quiet)) for name, source in found]
