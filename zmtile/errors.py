"""What can go wrong, each with the exit code that the command line returns for it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

__all__ = [
    "FrameError",
    "GpuError",
    "InputsChanged",
    "Stopped",
    "TargetError",
    "TooFewFrames",
    "UsageError",
    "ZmtileError",
    "parser_said",
]


class ZmtileError(Exception):
    """A problem that the user can mend.

    Parameters
    ----------
    what : str
        What is wrong, naming the file or option.
    remedy : str
        What to do about it.
    **details
        More for readers of the JSON, as plain values.
    """

    exit_code = 2

    def __init__(self, what: str, remedy: str = "", **details: Any) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.what}\n  {self.remedy}" if self.remedy else self.what


class UsageError(ZmtileError):
    """Options or arguments that contradict each other or make no sense."""


class FrameError(ZmtileError):
    """A file that cannot be read as a light frame."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}", remedy)
        self.path = path
        self.reason = what


class TargetError(ZmtileError):
    """The tile cannot be written where it should go."""


class TooFewFrames(ZmtileError):
    """Fewer frames than needed can be used; nothing was written."""

    exit_code = 3


class InputsChanged(ZmtileError):
    """What a tile was made of is not there any more as it was; nothing was written."""

    exit_code = 4


class GpuError(ZmtileError):
    """The GPU failed at its work; nothing was written."""

    exit_code = 5


class Stopped(BaseException):
    """A signal asked the run to end; like KeyboardInterrupt, no handler of errors may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


def parser_said(error: BaseException) -> str:
    """Return what a parser complains of, in one short line; its advice to programmers is left out."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if line.startswith("No SIMPLE card found"):
        return "it does not begin as FITS files do"
    return line if len(line) <= 120 else line[:119] + "…"
