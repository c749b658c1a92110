"""What `zmtile inspect` prints: the facts of a tile, its frames, and a small picture."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.style import Style
from rich.table import Table
from rich.text import Text

from zmtile.console import on_terminal, printable
from zmtile.looks.check import Finding
from zmtile.looks.preview import shrunk
from zmtile.looks.skyimage import SkyImage
from zmtile.looks.stretch import stretched
from zmtile.richtext import RichText
from zmtile.tiles.records import FrameRecord

__all__ = ["CELLS", "fact_lines", "frame_table", "picture", "sheet"]

PICTURE_COLUMNS = 64
_BAR = 40


def _printed(*parts: Any, wide: bool = False) -> str:
    console = RichText(wide)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
    return console.taken()


def sheet(facts: dict[str, Any], checksums: Finding) -> str:
    """Return the facts of an image (see `zmtile.looks.facts.facts_of`) as text."""
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, told in _lines(facts, checksums):
        rows.add_row(name, told if isinstance(told, Text) else Text(printable(told)))
    return _printed(Text(printable(facts["path"]), "bold"), rows)


def _lines(facts: dict[str, Any], checksums: Finding) -> Iterator[tuple[str, str | Text]]:
    if checksums.passed is False:
        yield "DAMAGED", Text(printable(checksums.detail), "bold red")
    yield from fact_lines(facts)
    tile = facts["tile"]
    if tile is None:
        return
    for k, part in enumerate(tile["coverage"]):
        span = f"{part['from']}" if part["from"] == part["to"] else f"{part['from']}-{part['to']}"
        bar = "█" * math.ceil(_BAR * part["fraction"])
        yield ("coverage" if k == 0 else ""), f"{span:>9} frames {part['fraction']:7.2%} {bar}"
    for k, frame in enumerate(tile["left_out"]):
        yield ("left out" if k == 0 else ""), f"{frame['name']}: {frame['reason']}"


def fact_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield titles and texts of what is told of an image in one line each; the texts as headers have them."""
    colours = "colour" if facts["channels"] == 3 else "mono"
    share = math.floor(facts["data"] * 1000) / 10  # rounded down: 100 % is all of it
    yield "image", f"{facts['rows']} rows × {facts['cols']} columns, {colours}, {share:.1f}% with data"
    if facts["program"]:
        yield "made by", facts["program"]
    if facts["subject"]:
        yield "subject", ", ".join(facts["subject"].values())
    yield "sky", " / ".join(_number(s["level"], ".1f") for s in facts["sky"]) + " ADU"
    yield "noise", " / ".join(_number(s["noise"], ".2f") for s in facts["sky"]) + " ADU"
    tile = facts["tile"]
    if tile is None:
        return
    left_out = f", {len(tile['left_out'])} left out" if tile["left_out"] else ""
    yield "frames", f"{tile['used']} used{left_out}; reference {tile['reference']}"
    yield (
        "exposure",
        f"{_number(tile['exposure'], 'g')} s in all, {_number(tile['exposure_mean'], '.4g')} s a frame",
    )
    if tile["begun"]:
        yield "dates", f"{tile['begun']} to {tile['ended']}"
    yield "method", ", ".join(f"{name} {value}" for name, value in tile["method"].items())
    rms, largest = (_number(tile[key], ".2f") for key in ("rms_median", "rms_largest"))
    yield "residual", f"{rms} px (median of the frames), {largest} px (largest)"
    yield "FWHM", f"{_number(tile['fwhm_median'], '.2f')} px (median of the frames)"
    yield "rejected", f"{tile['rejected_low']:.3%} low, {tile['rejected_high']:.3%} high"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def frame_table(frames: Sequence[FrameRecord], reference: str) -> str:
    """Return the FRAMES table as text; green speaks for the channels.

    On a terminal that is too narrow, the columns that tell least are left out.
    """
    names = [printable(frame.name) + ("*" if frame.name == reference else "") for frame in frames]
    reasons = [printable(frame.reason) for frame in frames]
    columns = {title: [cell(frame) for frame in frames] for title, cell in CELLS.items()}
    terminal = on_terminal(sys.stdout)
    if terminal:
        room = shutil.get_terminal_size().columns - max(map(len, ["frame", *names])) - 2
        room -= 2 + max(map(len, reasons), default=0) if any(reasons) else 0
        for title in _LEAST_FIRST:
            if sum(2 + max(map(len, [t, *cells])) for t, cells in columns.items()) > room:
                del columns[title]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("frame", no_wrap=terminal)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    if any(reasons):
        table.add_column("left out because", overflow="fold")
    for k, frame in enumerate(frames):
        style = "" if frame.used else "yellow"
        last = [Text(reasons[k], style)] if any(reasons) else []
        table.add_row(Text(names[k], style), *(cells[k] for cells in columns.values()), *last)
    return _printed(table, wide=True)


def _middle(values: Sequence[float]) -> float:
    return values[len(values) // 2]


# Columns of the table of frames: title, and text of a frame's cell.
CELLS: dict[str, Callable[[FrameRecord], str]] = {
    "date": lambda f: f.date.strftime("%Y-%m-%d %H:%M") if f.date else "-",
    "s": lambda f: _known(f.exposure, "g"),
    "stars": lambda f: str(f.nstars),
    "matched": lambda f: str(f.nmatch),
    "rms px": lambda f: _known(f.rms, ".2f"),
    "FWHM px": lambda f: _known(f.fwhm, ".2f"),
    "noise": lambda f: _known(_middle(f.noise), ".1f"),
    "scale": lambda f: _known(_middle(f.scale), ".3f"),
    "offset": lambda f: _known(_middle(f.offset), "+.0f"),
    "weight": lambda f: _known(_middle(f.weight), ".2f"),
    "rejected": lambda f: f"{f.nrejlow + f.nrejhigh:,}" if f.used else "-",
    "covers": lambda f: f"{f.footprint:.1%}" if f.used else "-",
}
_LEAST_FIRST = ("date", "rejected", "s", "offset", "covers", "weight", "noise", "scale", "stars")


def _known(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"


def picture(sky: SkyImage, columns: int = PICTURE_COLUMNS) -> str:
    """Return the stretched image in half blocks, two pixels a character; blank where there is no data.

    Worth printing on a terminal with colours only.
    """
    image = sky.image[:, ::-1] if sky.bottom_up else sky.image
    small = shrunk(image, max(1, math.ceil(max(image.shape[2] / columns, image.shape[1] / columns))))
    shown = np.broadcast_to(stretched(small), (3, *small.shape[1:]))
    if shown.shape[1] % 2:
        shown = np.concatenate([shown, np.full_like(shown[:, :1], np.nan)], axis=1)
    text = Text()
    for row in range(0, shown.shape[1], 2):
        for col in range(shown.shape[2]):
            upper, lower = (_colour(shown[:, r, col]) for r in (row, row + 1))
            if upper is None and lower is None:
                text.append(" ")
            elif upper is None:
                text.append("▄", Style(color=lower))
            else:
                text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return _printed(text)


def _colour(pixel: Any) -> str | None:
    if not np.isfinite(pixel).all():
        return None
    red, green, blue = (round(255 * float(v)) for v in pixel)
    return f"#{red:02x}{green:02x}{blue:02x}"
