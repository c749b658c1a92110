"""Options of commands: under headings, with the library's own defaults and choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from zmtile.config import ON_THE_LINE, check_variables, given_elsewhere, read_settings, variable_of
from zmtile.dependence import idle
from zmtile.errors import UsageError
from zmtile.options import BACKENDS, Options, Resources, parse_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "FitsPath",
    "SectionCommand",
    "SectionOption",
    "TextList",
    "backend",
    "calibration",
    "configurable",
    "gpu_memory_limit",
    "listed",
    "log_file",
    "matching",
    "memory_limit",
    "notes",
    "quiet",
    "registration",
    "running",
    "running_resources",
    "selection",
    "stacking",
    "stacking_options",
    "threads",
    "verbose",
    "writing",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Configurable = TypeVar("Configurable", bound=click.Command)

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


class FitsPath(click.Path):
    """A path for which shells offer FITS files and folders.

    Parameters
    ----------
    text : bool
        It may be a name or a pattern as well, so a file of options does not make it a path of its own.
    **how
        As for `click.Path`.
    """

    def __init__(self, text: bool = False, **how: Any) -> None:
        super().__init__(**how, readable=False)  # whether it can be read, its reader says
        self.text = text

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what a FITS file could be."""
        from zmtile.completion import fits_files

        return fits_files(incomplete)


class TextList(click.types.StringParamType):
    """One of several texts; in an environment variable they stand between commas."""

    envvar_list_splitter = ","


def configurable(command: Configurable) -> Configurable:
    """Let a command take its options from the environment and from files, too."""
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ON_THE_LINE:
            option.envvar = variable_of(str(command.name), option)
    config = SectionOption(
        ["--config"],
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_configure,
        envvar="ZMTILE_CONFIG",
        help="Take options from this TOML file.",
    )
    command.params.append(config)
    return command


def _configure(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Read the files before the other options take their values."""
    if not ctx.resilient_parsing:
        check_variables(ctx)
        ctx.default_map = read_settings(ctx, path).values.get(str(ctx.info_name))


def stacking_options(ctx: click.Context, values: dict[str, Any]) -> Options:
    """Return the options of a build.

    What the environment or a file says for a method that is not chosen is passed over: it is meant for
    another time. On the command line it is an error.

    Raises
    ------
    UsageError
        When values make no sense, or contradict each other.
    """
    for name, chooser in idle(values, DEFAULTS.as_dict()).items():
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            _note(ctx, f"--{name.replace('_', '-')} is passed over: it does nothing with {chooser}")
            values[name] = getattr(Options, name)
    elsewhere = [f"{', '.join(names)} from {where}" for where, names in given_elsewhere(ctx).items()]
    for told in elsewhere:
        _note(ctx, f"options: {told}")
    try:
        return Options(**values)
    except UsageError as error:
        told = f" Given elsewhere: {'; '.join(elsewhere)}." if elsewhere else ""
        raise UsageError(error.what, error.remedy + told) from None


def running_resources(ctx: click.Context, *given: Any) -> Resources:
    """Return the resources of a build, from their values in the order of `Resources`.

    Raises
    ------
    UsageError
        When values make no sense, or one on the command line has no effect.
    """
    resources = Resources(*given)
    idle_limit = resources.gpu_memory_limit is not None and resources.backend == "cpu"
    if idle_limit and ctx.get_parameter_source("gpu_memory_limit") is ParameterSource.COMMANDLINE:
        raise UsageError(
            "--gpu-memory-limit does nothing with --backend cpu", "Choose --backend gpu or auto, too."
        )
    return resources


def _note(ctx: click.Context, text: str) -> None:
    """Keep a note for the time when there is somebody to print it."""
    ctx.meta.setdefault("zmtile.notes", []).append(text)


def notes(ctx: click.Context) -> list[str]:
    """Return what there is to tell of the options."""
    return list(ctx.meta.get("zmtile.notes", []))


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
backend = running(
    "--backend",
    type=BACKENDS,
    default="cpu",
    help="Where frames are warped and stacked.",
)
gpu_memory_limit = running(
    "--gpu-memory-limit",
    callback=_size,
    metavar="SIZE",
    show_default="0.9 of what is free",
    help="Memory for pixels on the GPU.",
)
verbose = running("--verbose", "-v", count=True, show_default=False, help="Tell more; twice: tracebacks too.")
quiet = running("--quiet", "-q", is_flag=True, help="Tell of warnings and errors only.")
log_file = running(
    "--log-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Append all that there is to tell to this file.",
)
