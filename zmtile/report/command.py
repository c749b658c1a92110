"""The command that makes a tile again, from the options in its header."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from zmtile.options import Options
from zmtile.tiles.records import FrameRecord

__all__ = ["LIST", "command_of", "input_list"]

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
    """Return the list of inputs as `zmtile build` reads it, those included that were left out."""
    return "".join(f"{_line(frame.name)}\n" for frame in frames)


def _line(name: str) -> str:
    return f"./{name}" if name[:1] in ("#", "@", " ") else name
