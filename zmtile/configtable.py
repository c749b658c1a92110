"""The values of all options and where they come from, as plain values and as a table."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table
from rich.text import Text

from zmtile.config import ON_THE_LINE, Settings, check_variables, long_name, read_settings, toml, user_file
from zmtile.console import printable
from zmtile.errors import UsageError
from zmtile.jsonout import SCHEMA_VERSION, plain
from zmtile.richtext import RichText

__all__ = ["as_text", "values_of"]


def values_of(ctx: click.Context, commands: Sequence[str], path: Path | None) -> dict[str, Any]:
    """Return the value and the source of every option.

    Parameters
    ----------
    ctx : click.Context
        Of any command.
    commands : sequence of str
        Names of commands; none for all.
    path : Path or None
        The file of ``--config``.

    Returns
    -------
    dict
        ``files`` that were read, the strongest first; ``user_file``, where the user's own would be; and
        ``commands``: of each option the ``value``, the ``source`` ('environment', 'file', 'default') and
        ``where``, the variable or the file.

    Raises
    ------
    UsageError, click.BadParameter
        When a file or a variable holds what no option takes.
    """
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    known = {n: c for n, c in root.command.commands.items() if not isinstance(c, click.Group)}
    if unknown := [name for name in commands if name not in known]:
        raise UsageError(f"no command is called {unknown[0]}", f"Commands with options: {', '.join(known)}.")
    settings = read_settings(ctx, path)
    return {
        "schema_version": SCHEMA_VERSION,
        "files": [str(file) for file in settings.files],
        "user_file": str(user_file()),
        "commands": {name: _options(root, name, known[name], settings) for name in commands or known},
    }


def _options(root: click.Context, name: str, command: click.Command, settings: Settings) -> dict[str, Any]:
    """Return the options of a command as it would have them if the command line gave none."""
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in ON_THE_LINE]
    bare = click.Command(name, params=[copy.copy(option) for option in options])
    for option in bare.params:
        option.required = False
    check_variables(click.Context(command, root, name))
    with bare.make_context(name, [], root, default_map=settings.values.get(name, {})) as ctx:
        return {long_name(option): _told(ctx, option, settings.origins.get(name, {})) for option in options}


def _told(ctx: click.Context, option: click.Option, origins: Mapping[str, Path]) -> dict[str, Any]:
    key = str(option.name)
    value, source = ctx.params[key], ctx.get_parameter_source(key)
    if source is ParameterSource.ENVIRONMENT:
        return {"value": plain(value), "source": "environment", "where": str(option.envvar)}
    if source is ParameterSource.DEFAULT_MAP:
        return {"value": plain(value), "source": "file", "where": str(origins[key])}
    told: dict[str, Any] = {"value": plain(value), "source": "default", "where": None}
    if option.required:
        told |= {"meaning": "to be given"}
    elif isinstance(option.show_default, str) and value in (None, ()):  # it depends
        told |= {"value": None, "meaning": option.show_default}
    return told


def as_text(told: dict[str, Any]) -> str:
    """Return the same as tables, with colours if stdout is a terminal."""
    console = RichText(wide=True)
    mine = told["user_file"]
    files = told["files"] if mine in told["files"] else [*told["files"], f"{mine} (there is none)"]
    for title, file in zip(("files", *[""] * len(files)), files, strict=False):
        console.print(Text.assemble((f"{title:<8}", "bold"), file), soft_wrap=True)
    for name, options in told["commands"].items():
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_style="bold")
        for column in (name, "value", "from"):
            table.add_column(column, overflow="fold")
        for option, value in options.items():
            style = "dim" if value["source"] == "default" else ""
            table.add_row(option, _shown(value), value["where"] or "default", style=style)
        console.print()
        console.print(table)
    return console.taken()


def _shown(value: dict[str, Any]) -> Text:
    """Return a value as a file would have it; in brackets what it is when nobody says."""
    if value["value"] is None:
        return Text(f"({value['meaning']})" if "meaning" in value else "-")
    return Text(printable(toml(value["value"])))
