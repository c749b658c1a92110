"""Where the inputs of a tile are now: found by their hashes, whatever they are called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zmtile.errors import InputsChanged, UsageError
from zmtile.frames.inputs import TILE_PREFIX, expand, is_fits_name, natural_key
from zmtile.progress import Progress
from zmtile.tiles.recipe import Recipe

__all__ = ["Source", "check_sources", "find_sources"]

LISTED = 10  # of many inputs that are not there, so many are named


@dataclass(frozen=True)
class Source:
    """An input of a tile, and what was found of it.

    Attributes
    ----------
    kind : {'frame', 'bias', 'dark', 'flat'}
    name : str
        As the tile tells it.
    sha256 : str
        Hash of its bytes; of a master, the first digits.
    path : Path or None
        The file with these bytes.
    other : Path or None
        Where there is none: a file of this name that holds something else, or cannot be read.
    """

    kind: str
    name: str
    sha256: str
    path: Path | None = None
    other: Path | None = None

    @property
    def state(self) -> str:
        """'found', 'changed' or 'missing'."""
        return "found" if self.path else "changed" if self.other else "missing"

    def as_plain(self) -> dict[str, str | None]:
        """Return what JSON tells of it."""
        where = self.path or self.other
        return {
            "kind": self.kind,
            "name": self.name,
            "sha256": self.sha256,
            "state": self.state,
            "path": str(where) if where else None,
        }


def find_sources(
    recipe: Recipe, inputs: Sequence[str | os.PathLike[str]], progress: Progress
) -> tuple[Source, ...]:
    """Find the frames and masters of a tile.

    Parameters
    ----------
    recipe : Recipe
    inputs : sequence of str or path
        Files, patterns and lists as for a build; folders with all that lie below them. When there
        are none, files are looked for by their names: below the folder of the tile and the current
        folder, and below those directly in these.
    progress : Progress
        Told of the stage 'find'.

    Returns
    -------
    tuple of Source
        The frames in the order of FRAMES, which is that of their stacking; then the masters. Frames
        that could not be read when the tile was made have no part in it, and are not among them.

    Raises
    ------
    UsageError
        When an argument names nothing that exists.
    """
    wanted = [Source("frame", frame.name, frame.sha256) for frame in recipe.frames if frame.sha256]
    wanted += [
        Source(kind, name, str(recipe.header[f"ZMT_{kind[0].upper()}SHA"]))
        for kind in ("bias", "dark", "flat")
        if (name := getattr(recipe.options, kind)) is not None
    ]
    progress.stage("find", len(wanted))
    candidates = _named(inputs) if inputs else _beside(recipe.path, [source.name for source in wanted])
    found = _matched(wanted, candidates, progress)
    others = [path for path in candidates if path not in found.values()]
    return tuple(
        replace(source, path=found.get(k), other=None if k in found else _namesake(source.name, others))
        for k, source in enumerate(wanted)
    )


def check_sources(recipe: Recipe, sources: Sequence[Source]) -> None:
    """Raise, with the names of them, when not all inputs were found as they were.

    Raises
    ------
    InputsChanged
    """
    absent = [source for source in sources if source.path is None]
    if not absent:
        return
    listed = "".join(f"\n  {source.kind} {source.name}: {_told(source.other)}" for source in absent[:LISTED])
    listed += f"\n  and {len(absent) - LISTED} more" if len(absent) > LISTED else ""
    raise InputsChanged(
        f"{recipe.path}: inputs that cannot be found as they were: {len(absent)} of {len(sources)}{listed}",
        "Say with --inputs where they are now; files are known by their content, names do not matter.",
        inputs=[source.as_plain() for source in sources],
    )


def _told(other: Path | None) -> str:
    if other is None:
        return "missing"
    return f"changed, {other} {'holds something else' if os.access(other, os.R_OK) else 'cannot be read'}"


def _named(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the files that the user named, and those in the folders, each once."""
    found: list[Path] = []
    for argument in [os.fspath(path) for path in inputs]:
        if not os.path.isdir(argument):
            found += expand([argument])
            continue
        inside = sorted(_walked(argument), key=lambda path: natural_key(str(path)))
        if not inside:
            raise UsageError(f"{argument}: no FITS file in this folder", "Check where the inputs are.")
        found += inside
    return list(dict.fromkeys(found))


def _walked(folder: str) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names if not name.startswith(TILE_PREFIX)):
            if is_fits_name(path) and path.is_file():
                yield path.resolve()


def _beside(tile: Path, names: Sequence[str]) -> list[Path]:
    """Return the files that have these names, near the tile and near where the user is."""
    roots = dict.fromkeys((tile.resolve().parent, Path.cwd()))
    folders = dict.fromkeys(
        folder for root in roots for folder in (root, *sorted(p for p in root.iterdir() if p.is_dir()))
    )
    paths = (folder / name for name in names for folder in folders)
    return list(dict.fromkeys(path.resolve() for path in paths if _is_file(path)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # below a folder that may not be searched
        return False


def _matched(wanted: Sequence[Source], candidates: Sequence[Path], progress: Progress) -> dict[int, Path]:
    """Return the paths by the index of what they are; files are read only until all is found."""
    names = {Path(source.name).name for source in wanted}
    left, found = dict(enumerate(wanted)), {}
    for path in sorted(candidates, key=lambda path: path.name not in names):  # likely ones first
        if not left:
            break
        digits = _sha256(path)
        for k in [k for k, source in left.items() if digits.startswith(source.sha256)]:
            found[k] = path
            del left[k]
            progress.step()
    return found


def _sha256(path: Path) -> str:
    """Return the hash of a file; of one that cannot be read, ''."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _namesake(name: str, candidates: Sequence[Path]) -> Path | None:
    """Return the file that bears a name, the longer part of it the better."""
    parts = Path(name).parts
    for length in range(len(parts), 0, -1):
        for path in candidates:
            if path.parts[-length:] == parts[-length:]:
                return path
    return None
