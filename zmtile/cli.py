"""The command line: options, one call into the library, and exit codes.

Only click and light modules are imported here, so that ``--help`` is instant.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

import click

from zmtile import __version__
from zmtile.clioptions import configurable
from zmtile.commands.build import build
from zmtile.commands.check import check
from zmtile.commands.config import config
from zmtile.commands.doctor import doctor
from zmtile.commands.export import export
from zmtile.commands.inspect import inspect
from zmtile.commands.preview import preview
from zmtile.commands.rebuild import rebuild
from zmtile.commands.report import report
from zmtile.errors import Stopped, UsageError, ZmtileError

__all__ = ["cli", "main"]

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


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
        if "_ZMTILE_COMPLETE" in os.environ:
            from zmtile.completion import teach_shells

            teach_shells()
        try:
            with _stoppable():
                code = super().main(words, "zmtile", complete_var, standalone_mode=False, **extra)
        except SystemExit:
            raise
        except BaseException as error:
            # The words are looked at, not the options, since these may be what is wrong.
            code = _fail(error, words)
        sys.exit(code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of commands for each heading."""
        for heading, members in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(str(c.name), c.get_short_help_str(200)) for c in members])


def main() -> None:
    """Run ``zmtile``."""
    # Planning holds it to one thread anyhow; to begin and end others takes 0.1 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # To touch 336 MB takes 0.03 s in huge pages and 0.2 in plain ones where memory is at hand; where the
    # host of a virtual machine has taken it back, 1.0 and 0.2: a seventh of the run of twelve large frames.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    codes: list[Any] = []
    atexit.register(_leave, codes)  # the first to be registered is the last to be called
    try:
        cli.main()
    except SystemExit as stop:
        codes.append(stop.code)
        raise


def _leave(codes: Sequence[Any]) -> None:
    """End the process at once: to take compiled kernels and libraries apart takes another 0.1 s."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # nobody reads any more; the interpreter has its own way to say so
        return
    for code in codes:
        if isinstance(code, int):
            os._exit(code)


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


def _fail(error: BaseException, words: Sequence[str]) -> int:
    """Say what went wrong, and return the exit code."""
    from zmtile.console import printable, say
    from zmtile.jsonout import dumps_error

    if isinstance(error, click.Abort) and error.__cause__ is not None:
        error = error.__cause__  # click wraps Ctrl-C
    remedy, bug = "", False
    details: dict[str, Any] = {}
    if isinstance(error, (ZmtileError, Stopped)):
        what, remedy, code = str(error), "", error.exit_code
        if isinstance(error, ZmtileError):
            what, remedy, details = error.what, error.remedy, error.details
    elif isinstance(error, (KeyboardInterrupt, click.Abort)):
        what, code = "stopped by Ctrl-C", EXIT_INTERRUPTED
    elif isinstance(error, click.ClickException):
        what, code = error.format_message() + _variable(error), error.exit_code
        # click's parser does not tell of which command the option is that lacks its value.
        asked = ["zmtile", *[word for word in words[:1] if word in cli.commands]]
        command = getattr(getattr(error, "ctx", None), "command_path", " ".join(asked))
        remedy = f"See {command} --help."
    elif isinstance(error, MemoryError):
        what, code = "there is not enough memory", UsageError.exit_code
        remedy = "Use fewer --threads, a smaller --memory-limit or --framing, or close other programs."
    else:
        what, code, bug = f"{type(error).__name__}: {error}", EXIT_BUG, True
        remedy = f"This is a bug in zmtile {__version__}: please report it with the lines above."
    if bug or _verbosity(words) > 1:
        import traceback

        say("".join(traceback.format_exception(error)).rstrip(), err=True)
    say(printable(f"zmtile: error: {what}" + (f"\n  {remedy}" if remedy else "")), err=True)
    if "--json" in words:
        say(dumps_error(what, remedy, code, **details))
    return code


def _variable(error: click.ClickException) -> str:
    """Return which environment variable holds a value that is wrong, in brackets."""
    param, ctx = getattr(error, "param", None), getattr(error, "ctx", None)
    if param is None or ctx is None:
        return ""
    wrong = ctx.get_parameter_source(param.name) is click.core.ParameterSource.ENVIRONMENT
    return f" ({param.envvar})" if wrong else ""


SECTIONS = {
    "Make tiles": (build, rebuild),
    "Look at tiles, pass them on": (inspect, check, preview, report, export),
    "The machine, settings": (doctor, config),
}

EPILOG = """\
Examples:

\b
  zmtile build group/*.fits
  zmtile inspect master_tile_m94.fits
  zmtile check tiles/*.fits

Each command has its own help: zmtile build --help. Options may come from the environment and from files,
too: zmtile config --help.
"""


@click.group(
    cls=Program,
    epilog=EPILOG,
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


for members in SECTIONS.values():
    for command in members:
        cli.add_command(command if isinstance(command, click.Group) else configurable(command))
