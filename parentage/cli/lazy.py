"""A group that imports a subcommand's file only when that subcommand is called."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class Lazy(click.Group):
    """Subcommands by a table of names and what each is for; each is `command` of its own file.

    Attributes:
        table: what each subcommand is for, by name.
        prefix: of the files' names in this folder.
    """

    def __init__(self, *, table: Mapping[str, str], prefix: str = "", **options: Any) -> None:  # noqa: ANN401  (click's)
        super().__init__(**options)
        self.table, self.prefix = table, prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module = importlib.import_module(f"parentage.cli.{self.prefix}{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))
