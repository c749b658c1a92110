"""Turns: of several processes that would compile the same kernel, one does, and the others wait for it."""

from __future__ import annotations

import fcntl
import logging
import os
import time
import zlib
from functools import cache
from pathlib import Path

__all__ = ["Turn"]

log = logging.getLogger("zmtile")

# The largest kernel compiles for 2 to 3 s, of which a busy machine makes more. A holder that takes longer
# than this, s, may have been stopped: the others can do without it.
PATIENCE = 120.0
_GLANCE = 0.02
_FILE = "kernels.lock"


class Turn:
    """The right to compile one kernel, among the processes that share a cache.

    It is a lock on one byte of a file in the folder of the cache, which the system gives back
    whatever ends a process. Where locks do not work, everybody may.

    Parameters
    ----------
    folder : Path
        Of the cache; made when it is first needed.
    name : str
        The kernel; its byte is found from it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._place = zlib.crc32(name.encode()) & 0x7FFFFFFF
        self._held = False

    def take(self, patience: float = PATIENCE) -> bool:
        """Wait for the turn, up to `patience` seconds; return whether another process had it meanwhile."""
        if self._held:
            return False
        begun, waited = time.monotonic(), False
        try:
            while not self.try_now():
                if time.monotonic() - begun > patience:
                    log.debug("%s is not compiled by another process after %.0f s", self._name, patience)
                    return True
                waited = True
                time.sleep(_GLANCE)
        except OSError as error:
            log.debug("%s is compiled without a lock (%s)", self._name, error.strerror)
        return waited

    def try_now(self) -> bool:
        """Return whether the turn is ours, without waiting for it.

        Raises
        ------
        OSError
            When locks do not work.
        """
        file = _opened(self._folder)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._place)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        self._held = True
        return True

    def give_back(self) -> None:
        """Let the next process have it; nothing happens when it is not ours."""
        if self._held:
            self._held = False
            fcntl.lockf(_opened(self._folder), fcntl.LOCK_UN, 1, self._place)


@cache
def _opened(folder: Path) -> int:
    """Return the file of the locks: open as long as the process lives, for closing it would free them all."""
    folder.mkdir(parents=True, exist_ok=True)
    return os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
