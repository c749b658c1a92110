"""Write the manual page from the commands themselves, so that it says what their help says.

python docs/make_man.py [PATH]
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import click

from zmtile import __version__
from zmtile.cli import SECTIONS, cli
from zmtile.clioptions import SectionCommand

PAGE = Path(__file__).parent / "man" / "zmtile.1"

ENVIRONMENT = (
    (
        "ZMTILE_<COMMAND>_<OPTION>",
        "Value of an option, for instance ZMTILE_BUILD_KAPPA='3 2.5'. "
        "Switches take 1 or 0; several texts stand between commas, several paths between colons.",
    ),
    ("ZMTILE_CONFIG", "The file of --config."),
    ("NO_COLOR", "No colours, if it is set to anything."),
    ("TERM", "dumb, or not set: plain lines instead of bars."),
    ("NUMBA_CACHE_DIR", "Where compiled kernels are kept."),
)
FILES = (
    (
        "~/.config/zmtile/zmtile.toml",
        "The user's own options, below [build], [check] and so on. In $XDG_CONFIG_HOME, if that is set.",
    ),
)


def page() -> str:
    """Return the page, in the macros of man(7); it has no date, so that it changes only with the commands."""
    lines = list(_lines())
    # No macro for a paragraph where one begins anyway.
    kept = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if not (line == ".PP" and before.startswith((".SH", ".SS")))
    ]
    return "\n".join(kept) + "\n"


def _lines() -> Iterator[str]:
    yield f'.\\" Made by docs/make_man.py from the help of zmtile {__version__}.'
    yield f'.TH ZMTILE 1 "" "zmtile {__version__}" "User Commands"'
    yield ".SH NAME"
    yield r"zmtile \- stack light frames of one field into a master tile"
    yield ".SH SYNOPSIS"
    with click.Context(cli, info_name="zmtile", **cli.context_settings) as root:
        for number, ctx in enumerate(_leaves(root)):
            if number:
                yield ".br"
            yield rf".B {_escaped(ctx.command_path)}"
            yield _escaped(" ".join(ctx.command.collect_usage_pieces(ctx)))
        yield ".SH DESCRIPTION"
        yield from _text(cli.help or "")
        for heading, members in SECTIONS.items():
            yield f'.SH "{heading.upper()}"'
            for member in members:
                with click.Context(member, root, member.name, **member.context_settings) as ctx:
                    if isinstance(member, click.Group):
                        yield from _text(f"{member.help}\n\n{member.epilog}")
                    for leaf in _leaves(ctx):
                        yield from _command(leaf)
    for title, entries in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {title}"
        for name, meaning in entries:
            yield from (".TP", rf".B {_escaped(name)}", *_filled(meaning))


def _leaves(ctx: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command that does something."""
    if not isinstance(ctx.command, click.Group):
        yield ctx
        return
    for name, command in ctx.command.commands.items():
        with click.Context(command, ctx, name, **command.context_settings) as inner:
            yield from _leaves(inner)


def _command(ctx: click.Context) -> Iterator[str]:
    yield f'.SS "{_escaped(ctx.command_path)}"'
    yield from _text(ctx.command.help or "")
    options = [p for p in ctx.command.get_params(ctx) if isinstance(p, click.Option)]
    sectioned = isinstance(ctx.command, SectionCommand)
    for section, members in groupby(
        options, key=lambda p: getattr(p, "section", "Running") if sectioned else "Options"
    ):
        yield from (".PP", rf".I {section}")
        for option in members:
            names, meaning = option.get_help_record(ctx) or ("", "")
            yield from (".TP", rf".B {_escaped(names)}", *_filled(meaning))
    yield from _text(ctx.command.epilog or "")


def _text(text: str) -> Iterator[str]:
    r"""Yield the paragraphs of a help text; those below a \b are left as they are."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = paragraph.splitlines()
        yield ".PP"
        if lines[0].strip() == "\b":
            yield from (".nf", *map(_escaped, lines[1:]), ".fi")
        else:
            yield from _filled(" ".join(line.strip() for line in lines))


def _filled(text: str) -> list[str]:
    """Return a paragraph in lines of at most 80 characters, markup included."""
    return [_escaped(line) for line in textwrap.wrap(text, 70, break_on_hyphens=False)]


def _escaped(text: str) -> str:
    """Return a text in which nothing means something to the typesetter."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return rf"\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")
