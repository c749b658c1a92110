"""What a run shows while it lasts: progress and notes, on stderr.

On a terminal that is bars; in a batch log, plain lines without control characters.
rich is imported only where it is needed: messages about a wrong option must not wait for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from zmtile.logfile import logged_to

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["Stages", "colourful", "on_terminal", "printable", "reporting", "say"]

# For the log file alone: on stderr the stages tell of their ends themselves.
stage_log = logging.getLogger("zmtile.stages")

UNITS = {"find": "inputs", "read": "files", "measure": "frames", "register": "frames", "stack": "strips"}


def say(text: str, err: bool = False) -> None:
    """Print lines; a reader that has gone away (``| head``) is no reason to stop or complain."""
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed before the start (>&-)
        return
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        # What is left in the buffer would fail again when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not err and not isinstance(error, BrokenPipeError):
            say(f"zmtile: error: standard output fails ({error.strerror})", err=True)


def printable(text: str) -> str:
    """Return a text without the control characters that a file name or a header may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def on_terminal(stream: TextIO | None) -> bool:
    """Tell whether somebody looks at a stream through a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def colourful(stream: TextIO | None) -> bool:
    """Tell whether a stream is a terminal on which colours are wanted."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


class Stages:
    """Takes the time of the stages; tells nobody."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._total, self._begun = "", 0, 0.0

    def __enter__(self) -> Stages:
        """Begin to show the stages."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing the stages, whether all of them are done or not."""

    def stage(self, name: str, total: int) -> None:
        """End the stage before, and begin one of `total` steps."""
        self.done()
        self._name, self._total, self._begun = name, total, time.monotonic()

    def step(self, count: int = 1) -> None:
        """Count steps that are done."""

    def done(self) -> None:
        """End the stage."""
        if self._name:
            spent = time.monotonic() - self._begun
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + spent
            stage_log.debug("%s: %.3f s", self._name, spent)
            self.ended(self._name, self._total, spent)
            self._name = ""

    def ended(self, name: str, total: int, spent: float) -> None:
        """Tell of the end of a stage."""

    def note(self, text: str, level: int) -> None:
        """Tell of an event."""
        say(text, err=True)


class PlainStages(Stages):
    """Prints a line for every stage when it ends."""

    def ended(self, name: str, total: int, spent: float) -> None:
        """Print it."""
        count = f"{total:,} {UNITS[name]}, " if name in UNITS else ""
        say(f"{name}: {count}{spent:.1f} s", err=True)


class BarStages(Stages):
    """Draws a bar for every stage."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(file=sys.stderr, force_terminal=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=None if self._console.width < 60 else 40),
            TaskProgressColumn(),
            TextColumn("{task.fields[count]:<13}"),
            TextColumn("{task.elapsed:6.1f} s"),
            console=self._console,
        )
        self._task = self._bars.add_task("", visible=False)

    def __enter__(self) -> Stages:
        """Begin to draw."""
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are, and give the cursor back."""
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """Add a bar below the others."""
        super().stage(name, total)
        count = f"{total:,} {UNITS[name]}" if name in UNITS else ""
        self._task = self._bars.add_task(name, total=total, count=count)

    def step(self, count: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, count)

    def ended(self, name: str, total: int, spent: float) -> None:
        """Fill the bar and stop its clock."""
        self._bars.update(self._task, completed=total)
        self._bars.stop_task(self._task)

    def note(self, text: str, level: int) -> None:
        """Print above the bars."""
        from rich.text import Text

        style = "yellow" if level >= logging.WARNING else "dim"
        self._console.print(Text(text, style))


class _Notes(logging.Handler):
    """Hands the records of the log to the stages, which know where to print them."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self._stages = stages

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == stage_log.name:
            return
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._stages.note(printable(prefix + record.getMessage()), record.levelno)


@contextlib.contextmanager
def reporting(
    verbose: int,
    quiet: bool,
    as_json: bool,
    log_file: Path | None = None,
    notes: Sequence[str] = (),
) -> Iterator[Stages]:
    """Show progress, and the notes that the package logs, for the time of a run.

    Parameters
    ----------
    verbose : int
        1 and more: debugging notes too.
    quiet : bool
        Warnings only.
    as_json : bool
        The reader is a program, unless stderr is a terminal.
    log_file : Path, optional
        Every note goes there as well, whatever is shown.
    notes : sequence of str
        What there was to tell before.

    Raises
    ------
    TargetError
        When the log file cannot be written.
    """
    stages: Stages
    if quiet or (as_json and not on_terminal(sys.stderr)):
        stages = Stages()
    elif on_terminal(sys.stderr):
        stages = BarStages()
    else:
        stages = PlainStages()
    log, handler = logging.getLogger("zmtile"), _Notes(stages)
    level = log.level
    handler.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet or as_json else logging.INFO)
    log.addHandler(handler)
    try:
        with logged_to(log_file) as written, stages:
            log.setLevel(logging.DEBUG if written else handler.level)
            for text in notes:
                log.info("%s", text)
            yield stages
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
