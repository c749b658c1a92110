"""SHA-256 of files, begun ahead: while the libraries are loaded, a second core has nothing else to do."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path

__all__ = ["hash_ahead", "sha256_of"]

_known: dict[tuple[int, ...], str] = {}
_wanted = threading.Event()


def hash_ahead(paths: Sequence[Path]) -> None:
    """Begin to hash files in a thread of its own, until the first hash is asked for.

    Later, whoever looks at a file hashes it: two that read different files read from everywhere.
    """
    _wanted.clear()
    threading.Thread(target=_hash_all, args=(list(paths),), name="zmtile-hash", daemon=True).start()


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the hash of a file as stored, as 64 hexadecimal digits.

    Raises
    ------
    OSError
        When it cannot be read.
    """
    _wanted.set()
    return _known.pop(_identity(path), None) or _hashed(path)


def _hash_all(paths: list[Path]) -> None:
    for path in paths:
        if _wanted.is_set():
            return
        if not path.is_file():  # a pipe would be waited for
            continue
        try:
            before = _identity(path)
            digest = _hashed(path)
        except OSError:  # told of by who reads it
            continue
        _known[before] = digest


def _identity(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return what changes with the content of a file."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _hashed(path: str | os.PathLike[str]) -> str:
    """Hash a file in one go: without a copy, and without asking for Python's lock in between."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # nothing to map
            return hashlib.sha256().hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
            return hashlib.sha256(mapping).hexdigest()
