"""``--log-file``: everything that a run has to tell, in a file, whatever the terminal shows."""

from __future__ import annotations

import contextlib
import logging
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from zmtile import __version__
from zmtile.errors import TargetError, UsageError

__all__ = ["logged_to"]

log = logging.getLogger("zmtile")

# How a log begins, whatever it tells then.
_BEGIN = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z DEBUG   zmtile \S+: ")


class _Lines(logging.Formatter):
    """One line for each note, in UTC; what belongs to it follows, indented."""

    converter = staticmethod(time.gmtime)
    default_msec_format = "%s.%03dZ"
    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a note."""
        return super().format(record).replace("\n", "\n    ")


@contextlib.contextmanager
def logged_to(path: Path | None) -> Iterator[bool]:
    """Append the notes of the package to a file, for the time of a run.

    Which of them, the level of the logger decides. A file that exists is continued if it is empty or a
    log of this program; any other may be an input, a list or the user's options.

    Yields
    ------
    bool
        Whether there is a file.

    Raises
    ------
    UsageError
        When the file holds something else.
    TargetError
        When it cannot be written.
    """
    if path is None:
        yield False
        return
    try:
        if path.exists() and not path.is_file():
            raise TargetError(f"{path}: the log cannot be written there", "Name a file.")
        if path.exists():
            with open(path, "rb") as file:
                begin = file.read(100)
            if begin and not _BEGIN.match(begin):
                raise UsageError(f"{path}: this file is no log of zmtile", "Choose another --log-file.")
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise TargetError(
            f"{path}: the log cannot be written ({error.strerror})", "Choose another --log-file."
        ) from None
    handler.setFormatter(_Lines("%(asctime)s %(levelname)-7s %(message)s"))
    log.addHandler(handler)
    began = time.monotonic()
    try:
        handler.emit(_record("zmtile %s: %s", __version__, shlex.join(sys.argv[1:])))
        handler.emit(_record("python %s on %s", platform.python_version(), platform.platform()))
        yield True
        handler.emit(_record("ended after %.1f s", time.monotonic() - began))
    except BaseException as error:
        handler.emit(_record("failed after %.1f s", time.monotonic() - began, error=error))
        raise
    finally:
        log.removeHandler(handler)
        handler.close()


def _record(text: str, *values: object, error: BaseException | None = None) -> logging.LogRecord:
    level = logging.DEBUG if error is None else logging.ERROR
    trace = None if error is None else (type(error), error, error.__traceback__)
    return logging.LogRecord("zmtile", level, __file__, 0, text, values, trace)
