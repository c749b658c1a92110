"""The command that makes a tile again and the list that it reads, from the header and FRAMES."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from zmtile.options import Options
from zmtile.report.texts import shown
from zmtile.tiles.records import FrameRecord

__all__ = ["LIST", "command_of", "input_list", "unlisted"]

LIST = "frames.txt"


def command_of(options: Options, output: str) -> str:
    """Return `zmtile build` with every option that is not at its default, for the frames of a list.

    Parameters
    ----------
    options : Options
        Masters and reference as names of files.
    output : str
        File to write.
    """
    lines = [f"zmtile build @{LIST}", *_words(options), f"--output {shlex.quote(output)}"]
    return " \\\n  ".join(lines)


def _words(options: Options) -> Iterator[str]:
    defaults = Options()
    for field, value in options.as_dict().items():
        if value == getattr(defaults, field):
            continue
        name = field.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        else:
            yield f"--{name} {_argument(field, value)}"


def _argument(field: str, value: Any) -> str:
    if field == "planes":
        return ",".join(value) or "none"
    if field == "reject_frames":
        return shlex.quote(", ".join(value))
    if isinstance(value, tuple):
        return " ".join(map(_number, value))
    return shlex.quote(value) if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    """Return the shortest text from which the same number is read again: another one is another tile."""
    return repr(value).removesuffix(".0")


def input_list(frames: Sequence[FrameRecord]) -> str:
    """Return the list of inputs as `zmtile build` reads it, those included that were left out.

    It holds only the names that it can, see `unlisted`.
    """
    return "".join(f"{_line(frame.name)}\n" for frame in frames if _fits(frame.name))


def unlisted(frames: Sequence[FrameRecord]) -> tuple[int, ...]:
    """Return which frames, by their rows, have names that the list on a page cannot hold as they are."""
    return tuple(index for index, frame in enumerate(frames) if not _fits(frame.name))


def _fits(name: str) -> bool:
    """Tell whether a page shows the name, and a line holds it: blanks at its end would be dropped."""
    return shown(name) == name and [name] == name.splitlines() == [name.rstrip()]


def _line(name: str) -> str:
    """Return the name as a list takes it for one: behind ./, nothing is a comment, a list or dropped."""
    return f"./{name}" if name[:1] in ("#", "@", "\ufeff") or name != name.lstrip() else name
