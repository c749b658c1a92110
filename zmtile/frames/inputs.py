"""From what the user typed to the list of files: globs, folders, ``@list.txt``, in natural order."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from zmtile.errors import UsageError

__all__ = ["SUFFIXES", "TILE_PREFIX", "Named", "expand", "is_fits_name", "name_files", "natural_key"]

log = logging.getLogger("zmtile")

SUFFIXES = tuple(f"{stem}{packed}" for stem in (".fits", ".fit", ".fts") for packed in ("", ".gz", ".fz"))
TILE_PREFIX = "master_tile_"


@dataclass(frozen=True)
class Named(Sequence[Path]):
    """Files in the order in which they are stacked, and the names under which they are known.

    Attributes
    ----------
    files : tuple of Path
    names : tuple of str
        Relative to a folder that all files share.
    """

    files: tuple[Path, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        return self.files[index]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", text)
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts if p)


def is_fits_name(path: Path) -> bool:
    """Tell whether the name ends as a FITS file's does, in any case."""
    return path.name.lower().endswith(SUFFIXES)


def expand(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files that the arguments name, resolved and in natural order of their paths.

    An argument is a file, a folder (its FITS files, not those of folders below it), a glob
    pattern, or ``@list.txt``: a text file with one of these per line, relative to its own folder;
    blank lines and lines that begin with # are passed over. The order of the arguments has no
    influence. A file named twice is listed once, and a tile that zmtile made beside its frames
    is passed over, unless nothing else is named.

    Raises
    ------
    UsageError
        When an argument names nothing that exists.
    """
    found: list[Path] = []
    for argument in arguments:
        text = os.fspath(argument)
        try:
            found.extend(_expand_one(text, Path(), lists=()))
        except OSError as error:
            what = f"{text[:200]}: it cannot be looked at ({error.strerror})"
            raise UsageError(what, "Check the name and the mode of its folder.") from None
    named = Counter(found)
    tiles = [path for path in named if path.name.startswith(TILE_PREFIX)]
    if tiles and len(tiles) < len(named):
        log.warning("%s is passed over: a tile is no light frame%s", tiles[0], _and_more(tiles))
        named = Counter({path: count for path, count in named.items() if path not in tiles})
    if twice := [path for path, count in named.items() if count > 1]:
        log.warning("%s is named more than once: used once%s", twice[0], _and_more(twice))
    return sorted(named, key=lambda p: natural_key(str(p)))


def _and_more(paths: Sequence[Path]) -> str:
    return f"; and {len(paths) - 1} more" if len(paths) > 1 else ""


def _expand_one(text: str, base: Path, lists: tuple[Path, ...]) -> Iterable[Path]:
    if not text:
        raise UsageError("an argument is empty", "Name FITS files, folders, patterns, or @list.txt.")
    if text.startswith("@") and not (base / text).exists():
        yield from _expand_list(base / text[1:], lists)
        return
    path = base / text
    if path.is_dir():
        inside = [p for p in path.iterdir() if is_fits_name(p) and p.is_file()]
        inside = [p for p in inside if not p.name.startswith(TILE_PREFIX)]
        if not inside:
            raise UsageError(f"{path}: no FITS file in this folder", f"Files end in {', '.join(SUFFIXES)}.")
        yield from (p.resolve() for p in inside)
    elif path.exists():
        yield path.resolve()
    elif glob.has_magic(text):
        matches = [base / m for m in glob.glob(text, root_dir=base, recursive=True)]
        matches = [p for p in matches if p.is_file() and not p.name.startswith(TILE_PREFIX)]
        if not matches:
            raise UsageError(f"{text}: no file matches this pattern", "Check the folder and the spelling.")
        yield from (p.resolve() for p in matches)
    else:
        raise UsageError(f"{path}: no such file", "Check the folder and the spelling.")


def _expand_list(path: Path, lists: tuple[Path, ...]) -> Iterable[Path]:
    if path.resolve() in lists:
        raise UsageError(f"{path}: this list names itself", "Take that line out.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: the list cannot be read ({error})", "Give a text file with one path per line."
        ) from None
    for line in (raw.strip() for raw in lines):
        if line and not line.startswith("#"):
            yield from _expand_one(line, path.parent, (*lists, path.resolve()))


def name_files(arguments: Sequence[str | os.PathLike[str]]) -> Named:
    """Return the files that the arguments name (see `expand`), and their names.

    These are the paths below the deepest folder that all share: unique, and free of home folders.
    Files that have names and an order already, as those that a tile was made of, keep them.
    """
    if isinstance(arguments, Named):
        return arguments
    files = expand(arguments)
    common = Path(os.path.commonpath([p.parent for p in files])) if files else Path()
    return Named(tuple(files), tuple(p.relative_to(common).as_posix() for p in files))
