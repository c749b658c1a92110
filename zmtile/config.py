"""Defaults of options from TOML files: the user's own, and one named by ``--config``.

Of the ways to give an option the first that does wins: the command line, the environment, the file
of ``--config``, the user's file, the program's default. Click knows all of them but the files; what
these hold becomes its default map, after every key and value was checked.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from zmtile.errors import UsageError, ZmtileError

__all__ = [
    "FILE_NAME",
    "ON_THE_LINE",
    "Settings",
    "check_variables",
    "given_elsewhere",
    "long_name",
    "read_settings",
    "toml",
    "user_file",
    "variable_of",
]

FILE_NAME = "zmtile.toml"
# Given on the command line alone: they name a file, end the run, are for the one who calls, or let files be
# replaced, which is meant for one run and not for all to come.
ON_THE_LINE = ("config", "help", "as_json", "overwrite")


@dataclass(frozen=True)
class Settings:
    """What the files say.

    Attributes
    ----------
    files : tuple of Path
        Those that were read, the strongest first.
    values : dict
        From the name of a command to its parameters' values, by their names in the program.
    origins : dict
        The same, to the file that says it.
    """

    files: tuple[Path, ...] = ()
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    origins: dict[str, dict[str, Path]] = field(default_factory=dict)


def user_file() -> Path:
    """Return where the user's own defaults are kept, whether there are any or not."""
    return Path(click.get_app_dir("zmtile")) / FILE_NAME


def long_name(option: click.Parameter) -> str:
    """Return the name of an option as in a file: the long one, without the dashes before it."""
    return max(option.opts, key=len).lstrip("-")


def variable_of(command: str, option: click.Parameter) -> str:
    """Return the name of the environment variable of an option."""
    return f"ZMTILE_{command}_{long_name(option)}".replace("-", "_").upper()


def _commands(root: click.Context) -> dict[str, click.Command]:
    """Return the commands that have options of their own."""
    assert isinstance(root.command, click.Group)
    return {name: c for name, c in root.command.commands.items() if not isinstance(c, click.Group)}


def _settings_of(ctx: click.Context) -> Settings:
    """Return what the files said in this run."""
    found = ctx.meta.get("zmtile.settings")
    return found if isinstance(found, Settings) else Settings()


def read_settings(ctx: click.Context, given: Path | None) -> Settings:
    """Read the user's file, if there is one, and the one that ``--config`` names.

    Parameters
    ----------
    ctx : click.Context
        Of any command of the program.
    given : Path, optional
        Of ``--config``.

    Raises
    ------
    UsageError
        When a file cannot be read, or has a key or a value that no option takes.
    """
    files = [path for path in (user_file(),) if os.path.exists(path)]
    if given is not None:
        files.append(given)
    settings = Settings(tuple(reversed(files)))
    for path in files:
        for command, values in _checked(ctx.find_root(), path).items():
            settings.values.setdefault(command, {}).update(values)
            settings.origins.setdefault(command, {}).update(dict.fromkeys(values, path))
    ctx.meta["zmtile.settings"] = settings
    return settings


def check_variables(ctx: click.Context) -> None:
    """Refuse variables that look as if they held an option of any command, and do not.

    Raises
    ------
    UsageError
    """
    options = [(name, p) for name, c in _commands(ctx.find_root()).items() for p in c.params]
    known = {str(option.envvar) for _, option in options if option.envvar}
    on_the_line = {variable_of(name, p): p for name, p in options if p.name in ON_THE_LINE and not p.envvar}
    for name in sorted(os.environ):
        if name in on_the_line:
            raise _only_on_the_line(name, long_name(on_the_line[name]))
        if name.startswith("ZMTILE_") and name not in known:
            nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
            raise UsageError(
                f"{name}: no option takes this variable",
                f"The nearest name is {nearest}; rename it, or unset it.",
            )


def _only_on_the_line(where: str, name: str) -> UsageError:
    return UsageError(
        f"{where}: --{name} is taken from the command line alone",
        f"Take it out there, and give --{name} to the runs that it is meant for.",
    )


def _parsed(path: Path) -> dict[str, Any]:
    """Return the tables of a file: all of them, or those below ``tool.zmtile`` as in pyproject.toml."""
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: the options cannot be read ({error.strerror})", "Check the name, or leave it out."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: this is no TOML ({error})",
            'Write for instance: [build], and below it reject = "sigma".',
        ) from None
    if isinstance(tool := tables.get("tool"), dict):
        ours = tool.get("zmtile", {})
        return ours if isinstance(ours, dict) else {"tool.zmtile": ours}
    return tables


def _checked(root: click.Context, path: Path) -> dict[str, dict[str, Any]]:
    """Return the values in a file, by command and parameter, as the program takes them."""
    commands = _commands(root)
    found: dict[str, dict[str, Any]] = {}
    for title, table in _parsed(path).items():
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: {title} stands outside of a table",
                f"Write it below the command that it is for, such as [{next(iter(commands))}].",
            )
        if title not in commands:
            raise UsageError(f"{path}: no command is called {title}", _nearest(title, commands, "[{}]"))
        with click.Context(commands[title], root, title) as ctx:
            every = {long_name(p): p for p in ctx.command.get_params(ctx) if isinstance(p, click.Option)}
            options = {key: p for key, p in every.items() if p.name not in ON_THE_LINE}
            for key, value in table.items():
                if key in every and key not in options and not every[key].envvar:
                    raise _only_on_the_line(f"{path}, [{title}]", key)
                if key not in options:
                    raise UsageError(
                        f"{path}: no option of {title} is called {key}", _nearest(key, options, "{}")
                    )
                name = str(options[key].name)
                found.setdefault(title, {})[name] = _taken(ctx, path, options[key], value)
    return found


def _nearest(word: str, names: Iterable[str], form: str) -> str:
    names = list(names)
    best = difflib.get_close_matches(word.lower().replace("_", "-"), names, 1, 0.0)[0]
    return f"The nearest name is {form.format(best)}; zmtile config show lists all."


def _taken(ctx: click.Context, path: Path, option: click.Option, value: Any) -> Any:
    """Return a value as click takes it, after checks; relative paths are those below the file's folder."""
    key = f"{long_name(option)} of [{ctx.info_name}]"
    expected, fits = _expected(option, value)
    if not fits:
        raise UsageError(f"{path}: {key} is {toml(value)}, it takes {expected}", _hint(option, value))
    if option.multiple and isinstance(value, str):
        value = [value]
    if isinstance(option.type, click.Path):
        folder = None if getattr(option.type, "text", False) else path.resolve().parent
        value = [_below(folder, one) for one in value] if option.multiple else _below(folder, value)
    try:
        option.process_value(ctx, value)
    except click.BadParameter as error:
        raise UsageError(f"{path}: {key}: {error.message}", "See zmtile config show.") from None
    except ZmtileError as error:
        raise UsageError(f"{path}: {key}: {error.what}", error.remedy) from None
    return value


def _below(folder: Path | None, path: str) -> str:
    """Return a path as it is seen from home (~) or from a folder; also that of an ``@list.txt``."""
    at = "@" if path.startswith("@") else ""
    expanded = os.path.expanduser(path.removeprefix("@"))
    return f"{at}{folder / expanded if folder else expanded}"


def _expected(option: click.Option, value: Any) -> tuple[str, bool]:
    """Return what an option takes, in words, and whether a value is that."""
    if option.is_flag:
        return "true or false", isinstance(value, bool)
    if option.multiple:
        return "a text, or a list of texts", isinstance(value, str) or _is_list(value, str)
    if option.nargs > 1:
        whole = isinstance(option.type, click.types.IntParamType)
        kind = int if whole else (int, float)
        what = "whole numbers" if whole else "numbers"
        return f"a list of {option.nargs} {what}", _is_list(value, kind) and len(value) == option.nargs
    if isinstance(option.type, click.types.IntParamType):
        return "a whole number", isinstance(value, int) and not isinstance(value, bool)
    if isinstance(option.type, click.types.FloatParamType):
        return "a number", isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(option.type, click.Choice):
        choices = [str(choice) for choice in option.type.choices]
        return f"one of {', '.join(choices)}", value in choices
    return "a text", isinstance(value, str)


def _is_list(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


def _hint(option: click.Option, value: Any) -> str:
    """Return a line that would be right, as near as can be to the one that is not."""
    key = long_name(option)
    if isinstance(option.type, click.Choice):
        choices = [str(choice) for choice in option.type.choices]
        return f'The nearest is {key} = "{difflib.get_close_matches(str(value), choices, 1, 0.0)[0]}".'
    example: Any = option.default
    if option.is_flag:
        example = True
    elif option.nargs > 1:
        example = list(example or ())
    elif isinstance(option.type, click.types.IntParamType):
        example = option.default if isinstance(option.default, int) else 2
    elif not isinstance(example, float):
        example = str(value) if not isinstance(value, (list, dict)) else "…"
    return f"Write for instance {key} = {toml(example)}."


def toml(value: Any) -> str:
    """Return a value about as TOML writes it."""
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


def given_elsewhere(ctx: click.Context) -> Mapping[str, list[str]]:
    """Return which options of a command come from the environment and from files, by where from."""
    found: dict[str, list[str]] = {}
    origins = _settings_of(ctx).origins.get(str(ctx.info_name), {})
    for option in ctx.command.get_params(ctx):
        source = ctx.get_parameter_source(str(option.name))
        if source is click.core.ParameterSource.ENVIRONMENT:
            found.setdefault("the environment", []).append(long_name(option))
        elif source is click.core.ParameterSource.DEFAULT_MAP:
            found.setdefault(str(origins[str(option.name)]), []).append(long_name(option))
    return found
