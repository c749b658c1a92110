"""Options of commands: under headings, with the library's own defaults and choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import click

from zmtile.options import Options, parse_size

__all__ = [
    "SectionCommand",
    "SectionOption",
    "calibration",
    "listed",
    "matching",
    "memory_limit",
    "quiet",
    "registration",
    "running",
    "selection",
    "stacking",
    "threads",
    "verbose",
    "writing",
]

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS = Options()


class SectionOption(click.Option):
    """An option that knows under which heading of the help it stands."""

    def __init__(self, *args: Any, section: str = "Running", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class SectionCommand(click.Command):
    """A command whose help groups the options under headings, in the order of their definition."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of options for each section."""
        found = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        records = {p: record for p in found if (record := p.get_help_record(ctx))}
        width = max(len(names) for names, _ in records.values())
        for section, members in groupby(records, key=lambda p: getattr(p, "section", "Running")):
            with formatter.section(section):  # padded, so that all sections have the same columns
                formatter.write_dl([(records[p][0].ljust(width), records[p][1]) for p in members])


def _size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Turn a size such as 2GiB into bytes."""
    return None if text is None else parse_size(text)


def listed(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Return the words, which stand each in an option of its own or between commas."""
    return tuple(word.strip() for text in given for word in text.split(",") if word.strip())


def _option(section: str, *names: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Return an option of a section, with the library's default where it has one."""
    field = names[0].split("/")[0].lstrip("-").replace("-", "_")
    if "default" not in kwargs and getattr(DEFAULTS, field, None) is not None:
        kwargs["default"] = getattr(DEFAULTS, field)
    if isinstance(choices := kwargs.get("type"), tuple):
        kwargs |= {"type": click.Choice(choices), "metavar": "NAME"}
        kwargs["help"] = f"{kwargs['help'].rstrip('.')}: {', '.join(choices)}."
    return click.option(*names, cls=SectionOption, section=section, **kwargs)


selection, calibration, registration, matching, stacking, writing, running = (
    partial(_option, section)
    for section in (
        "Selection",
        "Calibration",
        "Registration",
        "Matching",
        "Stacking",
        "Output",
        "Running",
    )
)

# What commands have in common that stack.
threads = running("--threads", type=int, show_default="every core", help="Worker threads.")
memory_limit = running(
    "--memory-limit",
    callback=_size,
    metavar="SIZE",
    show_default="2GiB or as needed",
    help="Memory for pixels.",
)
verbose = running("--verbose", "-v", count=True, show_default=False, help="Tell more; twice: tracebacks too.")
quiet = running("--quiet", "-q", is_flag=True, help="Tell of warnings and errors only.")
