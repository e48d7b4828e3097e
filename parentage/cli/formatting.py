"""How a result is shown: the options that `verify`, `gate` and whatever else decides share.

A command takes `@format_options` and gets `formatted: FormatChoice`; it ends with
`return formatted.show(report.shown("verify"))`, which prints, writes the files, and gives the exit code.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from parentage.cli.shared import COLOURS, coloured, error_document
from parentage.manifest.errors import ParentageError, UsageError, printable
from parentage.verify.verdict import Verdict

if TYPE_CHECKING:
    from parentage.verify.showing import Shown

#: The names of parentage.verify.formats, which are not imported for `--help`.
NAMES: Final = ("human", "json", "sarif", "junit", "markdown", "github", "gitlab", "quiet")


class FormatChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say.

    Attributes:
        format_name: of standard output; None: human, or JSON where `--json` asks for it.
        outputs: "NAME=PATH", each a file to write as well.
        exit_zero: leave with 0 whatever the verdict; what is printed keeps the code.
        as_json: the same as `--format json`.
    """

    format_name: str | None = None
    outputs: tuple[str, ...] = ()
    exit_zero: bool = False
    as_json: bool = False

    @property
    def printed(self) -> str:
        """The format of standard output."""
        return self.format_name or ("json" if self.as_json else "human")

    @property
    def quiet(self) -> bool:
        """Whether no progress is drawn: standard output is read by a program."""
        return self.printed != "human"

    def files(self) -> list[tuple[str, Path]]:
        """Return the files to write, checked before any work is done for them.

        Raises:
            UsageError: no known format, no path, a folder, or a file twice.
        """
        if self.as_json and self.format_name not in {None, "json"}:
            raise UsageError("--json and --format are two answers", found=str(self.format_name))
        found: list[tuple[str, Path]] = []
        for value in self.outputs:
            name, _, path = value.partition("=")
            if name not in NAMES or not path:
                raise UsageError(
                    "not a format and a file",
                    expected=f"NAME=PATH, NAME one of {', '.join(NAMES)}",
                    found=value,
                    hint="--output sarif=parentage.sarif",
                )
            if Path(path).is_dir() or not Path(path).parent.is_dir():
                raise UsageError("no file can be written there", where=path)
            if Path(path) in [other for _, other in found]:
                raise UsageError("one file for two formats", where=path)
            found.append((name, Path(path)))
        return found

    def show(self, shown: Shown) -> int:
        """Print the result, write the files, and return the exit code."""
        code = shown.exit_code
        if self.exit_zero and code:
            told = f"0 by --exit-zero; the verdict is {shown.verdict.value} ({code})"
            shown = msgspec.structs.replace(shown, facts=(*shown.facts, ("exit code", told)))
            click.echo(f"exit code {told}", err=True)
        self._write(shown)
        return 0 if self.exit_zero else code

    def show_error(self, error: ParentageError, command: str) -> int:
        """Show an error as each format shows it; its exit code is never hidden.

        Raises:
            ParentageError: it itself, where text for people is all that was asked for.
        """
        if self.printed in {"human", "quiet"} and not self.outputs:
            raise error
        if self.printed in {"human", "quiet"}:
            click.echo(f"error [{error.code}]: {error.describe()}", err=True)
        self._write(_of_error(error, command), told=True)
        return error.exit_code

    def _write(self, shown: Shown, *, told: bool = False) -> None:
        from parentage.manifest.atomic import write_bytes
        from parentage.verify.formats import FORMATS

        for name, path in self.files():
            write_bytes(path, FORMATS[name](shown).encode())
        if told and self.printed == "human":
            return
        text = FORMATS[self.printed](shown)
        if self.printed == "human":
            word = shown.verdict.value.upper()
            text = coloured(word, COLOURS[word]) + text.removeprefix(word)
        click.echo(text, nl=False)


def _of_error(error: ParentageError, command: str) -> Shown:
    from parentage.verify.showing import Shown, problem_of
    from parentage.verify.verdict import EXIT_CODES

    verdicts = {code: verdict for verdict, code in EXIT_CODES.items()}
    return Shown(
        command=command,
        subject="nothing",
        verdict=verdicts.get(error.exit_code, Verdict.UNPROVEN),
        exit_code=error.exit_code,
        problems=(problem_of(error),),
        not_checked=("everything: it could not be run",),
        document=error_document(error),
    )


def placed(shown: Shown, folder: Path, *others: Path | str) -> Shown:
    """Return a result whose files are named as the repository around us names them.

    Args:
        shown: whose problems name files below `folder`.
        folder: of the release.
        others: text files that problems without one are shown beside, the first that is there; below
            `folder` where they are text, as they stand where they are paths.
    """
    problems = tuple(
        msgspec.structs.replace(one, file=_named(folder / one.file) or one.file)
        if one.file
        else one
        for one in shown.problems
    )
    paths = [other if isinstance(other, Path) else folder / other for other in others]
    near = next((name for path in paths if path.is_file() and (name := _named(path))), "")
    return msgspec.structs.replace(shown, problems=problems, beside=near)


def _named(path: Path) -> str:
    """Return a path below the working folder relative to it; empty: it lies elsewhere."""
    here = Path.cwd()
    found = Path(os.path.normpath(here / path))
    return printable(found.relative_to(here).as_posix()) if found.is_relative_to(here) else ""


_OPTIONS: Final = (
    click.option(
        "--format",
        "format_name",
        type=click.Choice(NAMES),
        help="What standard output is (default: human).",
    ),
    click.option(
        "--output",
        "outputs",
        multiple=True,
        metavar="NAME=PATH",
        help="Write a format to a file as well; repeat for more.",
    ),
    click.option("--exit-zero", is_flag=True, help="Exit with 0 whatever the verdict, and say so."),
    click.option("--json", "as_json", is_flag=True, help="The same as --format json."),
)


def format_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of formats, as one argument `formatted`."""

    @functools.wraps(command)
    def gathering(*arguments: Any, **options: Any) -> int:  # noqa: ANN401
        own = {name: options.pop(name) for name in FormatChoice.__struct_fields__}
        formatted = FormatChoice(**own)
        formatted.files()
        try:
            return command(*arguments, formatted=formatted, **options)
        except ParentageError as error:
            context = click.get_current_context()
            return formatted.show_error(error, context.command_path.partition(" ")[2])

    for option in reversed(_OPTIONS):
        gathering = option(gathering)
    return gathering
