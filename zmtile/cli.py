"""The command line: options, one call into the library, and exit codes.

Only click and light modules are imported here, so that ``--help`` is instant.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from zmtile import __version__, options
from zmtile.errors import Stopped, UsageError, ZmtileError
from zmtile.options import Options, Resources, parse_size

__all__ = ["cli", "main"]

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS = Options()
EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


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


class Program(click.Group):
    """The group of commands; the one place where exceptions become messages and exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its code."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            with _stoppable():
                code = super().main(words, "zmtile", complete_var, standalone_mode=False, **extra)
        except SystemExit:
            raise
        except BaseException as error:
            # The words are looked at, not the options, since these may be what is wrong.
            code = _fail(error, as_json="--json" in words, trace=_verbosity(words) > 1)
        sys.exit(code)


def main() -> None:
    """Run ``zmtile``."""
    cli.main()


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that what was begun is cleaned up on the way out."""

    def stop(signum: int, _: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_IGN)  # a second one must not break the cleaning up
        raise Stopped(signum)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is signal.SIG_DFL:  # nohup has SIGHUP ignored, and it stays so
                before[signum] = signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _verbosity(words: Sequence[str]) -> int:
    return sum(
        1 if word == "--verbose" else word.count("v")
        for word in words
        if word == "--verbose" or (len(word) > 1 and word[0] == "-" and set(word[1:]) <= set("vq"))
    )


def _fail(error: BaseException, as_json: bool, trace: bool) -> int:
    """Say what went wrong, and return the exit code."""
    from zmtile.console import printable, say
    from zmtile.jsonout import dumps_error

    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click wraps Ctrl-C
    remedy, bug = "", False
    if isinstance(error, (ZmtileError, Stopped)):
        what, remedy, code = str(error), "", error.exit_code
        if isinstance(error, ZmtileError):
            what, remedy = error.what, error.remedy
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        what, code = "stopped by Ctrl-C", EXIT_INTERRUPTED
    elif isinstance(error, click.ClickException):
        what, code = error.format_message(), error.exit_code
        command = getattr(getattr(error, "ctx", None), "command_path", "zmtile")
        remedy = f"See {command} --help."
    elif isinstance(error, MemoryError):
        what, code = "there is not enough memory", UsageError.exit_code
        remedy = "Use fewer --threads, a smaller --memory-limit or --framing, or close other programs."
    else:
        what, code, bug = f"{type(error).__name__}: {error}", EXIT_BUG, True
        remedy = f"This is a bug in zmtile {__version__}: please report it with the lines above."
    if bug or trace:
        import traceback

        say("".join(traceback.format_exception(error)).rstrip(), err=True)
    say(printable(f"zmtile: error: {what}" + (f"\n  {remedy}" if remedy else "")), err=True)
    if as_json:
        say(dumps_error(what, remedy, code))
    return code


def _planes(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Return the planes asked for, in the order of the table."""
    asked = {word.strip().lower() for text in given for word in text.split(",") if word.strip()}
    known = {"all", "none", *options.EXTRA_PLANES}
    if not asked <= known or {"all", "none"} <= asked or ("none" in asked and len(asked) > 1):
        raise click.BadParameter(f"{','.join(given)!r} is not a list of planes.")
    return tuple(p for p in options.EXTRA_PLANES if "all" in asked or p in asked)


def _size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def _option(section: str, *names: str, **kwargs: Any) -> Callable[[Command], Command]:
    """Return an option of a section, with the library's default where it has one."""
    field = names[0].split("/")[0].lstrip("-").replace("-", "_")
    if "default" not in kwargs and getattr(DEFAULTS, field, None) is not None:
        kwargs["default"] = getattr(DEFAULTS, field)
    if isinstance(choices := kwargs.get("type"), tuple):
        kwargs |= {"type": click.Choice(choices), "metavar": "NAME"}
        kwargs["help"] = f"{kwargs['help'].rstrip('.')}: {', '.join(choices)}."
    return click.option(*names, cls=SectionOption, section=section, **kwargs)


selection, registration, matching, stacking, writing, running = (
    partial(_option, section)
    for section in ("Selection", "Registration", "Matching", "Stacking", "Output", "Running")
)
DEFAULT_NAME = "master_tile_<object>_<filter>.fits"
PLANES = ", ".join((*options.EXTRA_PLANES, "all", "none"))


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> int:
    """Stack light frames of one field into a master tile; where no frame has data, neither has the tile."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
    return UsageError.exit_code


EPILOG = """\
Examples:

\b
  zmtile build group/*.fits
  zmtile build night1/ night2/ -o m94.fits --framing union
  zmtile build @frames.txt --reject sigma --kappa 3 2.5 --json > m94.json

Exit codes:

\b
  0    built
  1    built, but frames were left out
  2    usage or bad input; nothing was written
  3    too few frames could be registered; nothing was written
  70   a bug in zmtile
  129  stopped by SIGHUP (the terminal was closed); nothing was written
  130  stopped by Ctrl-C; nothing was written
  143  stopped by SIGTERM; nothing was written
"""


@cli.command(cls=SectionCommand, epilog=EPILOG, context_settings={"show_default": True})
@click.argument("frames", nargs=-1, required=True)
@selection("--reference", metavar="FILE", show_default="chosen by its stars", help="Reference frame.")
@selection("--min-frames", type=int, show_default="2", help="Fewer that can be registered is an error.")
@selection("--skip-unreadable", is_flag=True, help="Leave unreadable files out instead of stopping.")
@registration("--align", type=options.ALIGNMENTS, help="Match stars, or use the frames' WCS alone.")
@registration("--transform", type=options.TRANSFORMS, help="Model fitted on the matched stars.")
@registration("--framing", type=options.FRAMINGS, help="What the tile shows.")
@matching("--normalize", type=options.NORMALIZATIONS, help="What is matched to the reference.")
@matching("--weight", type=options.WEIGHTS, help="Weights of the mean.")
@stacking("--kernel", type=options.KERNELS, help="Interpolation.")
@stacking("--clamp/--no-clamp", help="Keep interpolation from making dark rings.")
@stacking("--reject", type=options.REJECTIONS, help="How outliers are found.")
@stacking(
    "--kappa",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    show_default="3 3",
    help="Bounds of rejection, in sigma.",
)
@stacking(
    "--winsor-limits",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    show_default="0.05 0.05",
    help="What winsor-quantile clips.",
)
@stacking("--rewinsorize", is_flag=True, help="winsor-quantile replaces outliers by their bound.")
@stacking("--combine", type=options.COMBINES, help="How the survivors are combined.")
@stacking("--min-coverage", type=int, help="No data where fewer frames have some.")
@writing("--output", "-o", type=click.Path(path_type=Path), show_default=DEFAULT_NAME, help="File to write.")
@writing("--overwrite", is_flag=True, help="Replace the file if it exists.")
@writing("--fill", type=float, show_default="NaN", help="Value of image pixels without data.")
@writing("--planes", multiple=True, callback=_planes, metavar="NAMES", help=f"Beside the others: {PLANES}.")
@running("--threads", type=int, show_default="every core", help="Worker threads.")
@running(
    "--memory-limit",
    callback=_size,
    metavar="SIZE",
    show_default="2GiB or as needed",
    help="Memory for pixels.",
)
@running("--dry-run", is_flag=True, help="Register the frames and show the plan; write nothing.")
@running("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
@running("--verbose", "-v", count=True, show_default=False, help="Tell more; twice: tracebacks too.")
@running("--quiet", "-q", is_flag=True, help="Tell of warnings and errors only.")
def build(
    frames: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    threads: int | None,
    memory_limit: int | None,
    dry_run: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    **choices: Any,
) -> int:
    """Build a master tile from light frames.

    FRAMES are FITS files, folders, patterns, or @list.txt: a text file with one of these per line.
    Their order has no influence.
    """
    chosen, resources = Options(**choices), Resources(threads, memory_limit)

    from zmtile.console import reporting, say
    from zmtile.inputs import expand
    from zmtile.jsonout import dumps, report_of

    with reporting(verbose, quiet, as_json) as progress:
        inputs = expand(frames)
        if output is not None:
            _check_target(output, inputs, overwrite)

        from zmtile.pipeline import plan_tile, stack_plan

        plan = plan_tile(inputs, chosen, resources, progress)
        target = output or Path(plan.default_name)
        _check_target(target, inputs, overwrite)
        tile = None
        if not dry_run:
            tile = stack_plan(plan, resources, progress)
            progress.stage("write", 1)
            target = tile.write(target, overwrite=overwrite, fill=chosen.fill, planes=chosen.planes)
            progress.step()
        progress.done()
    report = report_of(plan, tile, target, progress.seconds)
    if as_json:
        say(dumps(report))
    elif not quiet:
        from zmtile.summary import summary

        say(summary(report))
    return int(report["exit_code"])


def _check_target(target: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse a target that cannot be written or that is one of the inputs, before the long work."""
    from zmtile.errors import TargetError
    from zmtile.tile import check_target

    with contextlib.suppress(OSError):  # what is wrong with the target, check_target says
        if target.exists() and any(target.samefile(path) for path in inputs):
            raise TargetError(
                f"{target}: the output is one of the frames",
                "Choose another -o, or take it out of the frames.",
            )
    check_target(target, overwrite)
