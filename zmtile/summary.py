"""The summary of a build as text: a table of the frames, then the totals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from zmtile.console import printable
from zmtile.richtext import RichText

__all__ = ["summary"]

LONG_TABLE = 40  # more used frames than this are digested on a terminal
WIDE = 110  # columns from which on all three channels are shown

Column = tuple[str, Callable[[dict[str, Any]], str]]


def summary(report: dict[str, Any]) -> str:
    """Return a report (see `zmtile.jsonout.report_of`) as text, with colours if stdout is a terminal."""
    console = RichText()
    used = [f for f in report["frames"] if f["used"]]
    digested = console.on_terminal and len(used) > LONG_TABLE
    columns = _columns(report, wide=console.width >= WIDE)
    taken = sum(2 + max([len(title), *(len(cell(f)) for f in used)]) for title, cell in columns)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(f"{len(used)} frames used" if digested else "frame", no_wrap=True)
    for title, _ in columns:
        table.add_column(title, justify="right", no_wrap=True)
    room = max(12, console.width - taken - 3)
    for name, members in _digest(used) if digested else [(f["name"], f) for f in used]:
        mark = "*" if name == report["reference"] else ""
        table.add_row(Text(_shortened(_line(name), room) + mark), *(cell(members) for _, cell in columns))
    left_out = [f for f in report["frames"] if not f["used"]]
    console.print()
    console.print(table)
    if left_out:
        console.print(Text(f"\nleft out: {len(left_out)}", "bold yellow"))
    for frame in left_out:
        console.print(Text(f"  {_line(frame['name'])}"), soft_wrap=True)
        console.print(Padding(Text(printable(frame["reason"]), "yellow"), (0, 0, 0, 4)))
    console.print()
    for title, total in _totals(report):
        console.print(Text.assemble((f"{title:<10}", "bold"), total), soft_wrap=True)
    return console.taken()


def _columns(report: dict[str, Any], wide: bool) -> list[Column]:
    """Return the columns of the table beside the name: title, and text of a frame's cell."""
    channels = len(report["frames"][0]["noise"])
    shown = slice(0, 3) if wide or channels == 1 else slice(1, 2)  # green speaks for the others
    suffix = "" if channels == 1 else " RGB" if wide else " G"

    def number(key: str, form: str) -> Callable[[dict[str, Any]], str]:
        return lambda f: "-" if f[key] is None else format(f[key], form)

    def numbers(key: str, form: str) -> Callable[[dict[str, Any]], str]:
        return lambda f: " ".join("-" if v is None else format(v, form) for v in f[key][shown])

    columns = [
        ("matched", number("nmatch", "d")),
        ("rms px", number("rms", ".2f")),
        ("FWHM px", number("fwhm", ".2f")),
        (f"scale{suffix}", numbers("scale", ".3f")),
        (f"offset{suffix}", numbers("offset", "+.0f")),
    ]
    if not report["dry_run"]:
        columns.append(("footprint", number("footprint", ".1%")))
    return columns


def _digest(used: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Return minimum, median and maximum of every number of the frames, as if they were frames."""

    def over(pick: Callable[[list[Any]], Any], values: list[Any]) -> Any:
        if isinstance(values[0], list):
            return [over(pick, list(items)) for items in zip(*values, strict=True)]
        known = [v for v in values if v is not None]
        return pick(known) if known else None

    keys = ("nmatch", "rms", "fwhm", "scale", "offset", "footprint")
    picks: dict[str, Callable[[list[Any]], Any]] = {
        "minimum": min,
        "median": statistics.median_low,
        "maximum": max,
    }
    return [(name, {key: over(pick, [f[key] for f in used]) for key in keys}) for name, pick in picks.items()]


def _totals(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield title and text of the lines below the table."""
    canvas, coverage, rejected = report["canvas"], report["coverage"], report["rejected"]
    left_out = f", {report['left_out']} left out" if report["left_out"] else ""
    yield "frames", f"{report['used']} used{left_out}; * is the reference"
    yield "tile", f"{canvas['rows']} rows × {canvas['cols']} columns, {report['options']['framing']} framing"
    if coverage is None:
        yield "memory", f"{report['planned_memory'] / 2**20:,.0f} MiB at least"
    else:
        yield (
            "coverage",
            f"{coverage['min']} / {coverage['median']} / {coverage['max']} frames (min / median / max), "
            # Rounded down: all of the tile is 100 %, and nothing less.
            f"{math.floor(coverage['covered'] * 1000) / 10:.1f}% of the tile has data",
        )
        yield (
            "rejected",
            f"{rejected['low']:.3%} low, {rejected['high']:.3%} high ({report['options']['reject']})",
        )
    yield "time", f"{sum(report['seconds'].values()):.1f} s"
    yield ("planned" if coverage is None else "written"), _line(report["output"])
    if report["report"] is not None:
        yield "report", _line(report["report"])


def _line(name: str) -> str:
    return printable(name).replace("\n", "\N{REPLACEMENT CHARACTER}")


def _shortened(name: str, width: int) -> str:
    """Return the end of a name that is too long; frames of a night differ at the end."""
    return name if len(name) <= width else "…" + name[1 - width :]
