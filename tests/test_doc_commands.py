"""Every command line that a document, a help page or a message shows is one that the parser takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from parentage.cli import cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
CONTEXT = click.Context(cli, info_name="parentage")
#: Options that prose names and that are other programs'.
FOREIGN = {"--log_samples", "--to", "--random-seed", "--entrypoint", "--help", "--help-all"}
_BLOCK = re.compile(r"^```\w*\n(.*?)^```|((?:^ {4}.*\n)+)", re.MULTILINE | re.DOTALL)


def commands(command: click.Command = cli, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command below one, by its words."""
    yield path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(CONTEXT):
            found = command.get_command(CONTEXT, name)
            assert found is not None, name
            yield from commands(found, *path, name)


COMMANDS = dict(commands())
OPTIONS = {o for c in COMMANDS.values() for p in c.params for o in [*p.opts, *p.secondary_opts]}


def take(line: str) -> None:
    """Parse one command line as click does, without running it or looking at the disk."""
    words = shlex.split(line, comments=True)
    end = next((at for at, word in enumerate(words) if word in {"||", "&&", "|", ">", ";"}), None)
    given, path = words[1:end], list[str]()
    while (*path, given[0] if given else "") in COMMANDS:
        path.append(given.pop(0))
    command = COMMANDS[tuple(path)]
    assert path, f"no such command: {line}"
    assert not isinstance(command, click.Group), f"a group alone does nothing: {line}"
    context = click.Context(command, info_name=line)
    values, rest, _ = command.make_parser(context).parse_args(given)
    assert not rest, f"too much: {rest}"
    for param in command.params:
        value = values.get(param.name)
        missing = value is None or "UNSET" in repr(value)
        assert not (missing and param.required), f"{line}: {param.human_readable_name} is missing"
        if not missing and isinstance(param.type, (click.Choice, click.IntRange)):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                param.type.convert(one, param, context)


def refusal(line: str) -> str:
    """Return what is wrong with a command line, or nothing."""
    try:
        take(line)
    except (click.ClickException, AssertionError) as error:
        return f"{line}: {error}"
    return ""


def shown(text: str) -> list[str]:
    """Return the command lines in a document's blocks, each with what it goes on with."""
    blocks = [fenced or indented for fenced, indented in _BLOCK.findall(text)]
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    found = [re.sub(r"^\s*(?:\$ |- run: |run: )?", "", line) for line in lines]
    return [line for line in found if re.match(r"parentage [a-z]", line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_documents_parse(path: Path) -> None:
    assert [why for line in shown(path.read_text()) if (why := refusal(line))] == []


def test_there_are_commands_in_documents() -> None:
    assert sum(len(shown(path.read_text())) for path in DOCUMENTS) > 100


@pytest.mark.parametrize("line", [
    "parentage verify ./rio --no-such-option", "parentage verify", "parentage gate", "parentage nothing ./rio",
    "parentage verify ./rio ./other --key k", "parentage verify ./rio --level never", "parentage bench replay ./rio --samples-file f --samples 0",
])  # fmt: skip
def test_what_the_parser_does_not_take(line: str) -> None:
    with pytest.raises((click.ClickException, AssertionError)):
        take(line)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_in_prose_exist(path: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`\n]+)`", prose):
        named = re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
        assert {*named} <= OPTIONS | FOREIGN, span
        words = re.match(r"parentage ([a-z]+)(?: ([a-z]+))?", span)
        if words is not None:
            command = COMMANDS.get((words[1],))
            assert command is not None, span
            assert (
                not words[2] or not isinstance(command, click.Group) or words.groups() in COMMANDS
            )


@pytest.mark.parametrize("path", [*COMMANDS], ids=" ".join)
def test_examples_of_help_pages_parse(path: tuple[str, ...]) -> None:
    text = re.sub(r"\\\n\s*", " ", COMMANDS[path].epilog or "")
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s+parentage [a-z]", line)]
    assert lines or not text.lstrip("\b\n").startswith("Example")
    for line in lines:
        take(line)


def test_options_that_messages_name_are_the_command_s() -> None:
    """A hint is what somebody types next."""
    seen = 0
    for room in ("manifest", "attest", "verify", "parentage/cli"):
        for path in (ROOT / room).rglob("*.py"):
            for words, rest in re.findall(r"parentage ((?:[a-z]+ ?)+)([^\"\n]*)", path.read_text()):
                names = tuple(words.split()[:2])
                command = COMMANDS.get(names) or COMMANDS.get(names[:1])
                if command is None:
                    continue
                named = re.findall(r"(?<![\w-])--[a-z][\w-]*", re.split(", |parentage", rest)[0])
                own = {o for p in command.params for o in [*p.opts, *p.secondary_opts]}
                assert {*named} <= own | {"--help"}, f"{path}: {words}{rest}"
                seen += bool(named)
    assert seen > 80
