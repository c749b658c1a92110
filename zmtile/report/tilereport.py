"""What a report tells of one tile: everything that its section of the page shows, pictures included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zmtile.errors import UsageError
from zmtile.looks.facts import facts_of
from zmtile.looks.factsheet import CELLS, fact_lines
from zmtile.looks.skyimage import SkyImage
from zmtile.report.charts import Chart, coverage_chart, frame_charts, not_matched, rejected_share
from zmtile.report.command import command_of, input_list, unlisted
from zmtile.report.maps import ColourMap, colour_maps
from zmtile.report.outlines import Outline, outlines
from zmtile.report.pictures import Picture, sky_pictures
from zmtile.report.texts import shown
from zmtile.tiles.recipe import read_recipe
from zmtile.tiles.records import FrameRecord
from zmtile.tiles.tile import Tile

__all__ = ["Row", "TileReport", "report_tile"]


MASTERS = ("bias", "dark", "flat")


@dataclass(frozen=True)
class Row:
    """A row of the table of frames.

    Attributes
    ----------
    index : int
        Row of the frame in FRAMES.
    name : str
    kind : {'used', 'reference', 'left-out'}
    cells : tuple of str
    reason : str
        Why it was left out.
    """

    index: int
    name: str
    kind: str
    cells: tuple[str, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class TileReport:
    """A tile as the page shows it; texts are as headers and file names have them.

    Attributes
    ----------
    name, subject, exposure : str
        Of the file, of what it shows, and seconds of all frames.
    rows, cols : int
    used, left_out : int
        Frames.
    facts : tuple of (str, str)
    pictures : tuple of Picture
    maps : tuple of ColourMap
    outlines : tuple of Outline
    beyond : dict of str to float
        How far the outlines reach beyond the tile's ``left``, ``right``, ``top`` and ``bottom``, in
        percent of the width of all that they cover.
    coverage : Chart
        How many pixels have how many frames.
    charts : tuple of Chart
    no_charts : str
        Which are left out since the frames were not matched in them; '' for none.
    columns : tuple of (str, str)
        Title, and 'number' or 'text', of the table's columns behind the name.
    table : tuple of Row
    command : str
        What makes the tile again; '' if its header does not tell all of it, or no page can show it.
    no_command : str
        What hinders it.
    masters : tuple of str
        Those of bias, dark and flat that the command names.
    inputs : str
        The list of frames that the command reads; '' if no page can show all of it.
    no_inputs : str
        What hinders it.
    """

    name: str
    subject: str
    exposure: str
    rows: int
    cols: int
    used: int
    left_out: int
    facts: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    maps: tuple[ColourMap, ...]
    outlines: tuple[Outline, ...]
    beyond: dict[str, float]
    coverage: Chart
    charts: tuple[Chart, ...]
    no_charts: str
    columns: tuple[tuple[str, str], ...]
    table: tuple[Row, ...]
    command: str
    no_command: str
    masters: tuple[str, ...]
    inputs: str
    no_inputs: str

    @property
    def colours(self) -> tuple[str, ...]:
        """The pictures there are of each curve."""
        return tuple(dict.fromkeys(picture.colours for picture in self.pictures))


def report_tile(sky: SkyImage) -> TileReport:
    """Return what there is to show of a tile.

    Raises
    ------
    UsageError
        For an image of another program, which tells nothing of its frames.
    """
    tile = sky.tile
    if tile is None:
        raise UsageError(
            f"{sky.path}: not a tile of zmtile",
            "Only these tell of their frames; zmtile preview shows others.",
        )
    facts = facts_of(sky)
    exposure = facts["tile"]["exposure"]
    left_out = len(facts["tile"]["left_out"])
    around = outlines(tile, sky.bottom_up)
    rows, cols = tile.shape[-2:]
    command, no_command, masters = _command(sky.path)
    inputs, no_inputs = _inputs(tile)
    return TileReport(
        name=sky.path.name,
        subject=", ".join(facts["subject"].values()),
        exposure="-" if exposure is None else f"{exposure:g}",
        rows=rows,
        cols=cols,
        used=len(tile.frames) - left_out,
        left_out=left_out,
        facts=tuple(fact_lines(facts)),
        pictures=sky_pictures(sky),
        maps=tuple(colour_maps(tile, sky.bottom_up)),
        outlines=around,
        beyond=_beyond(around, rows, cols),
        coverage=coverage_chart(facts["tile"]["coverage"]),
        charts=tuple(frame_charts(tile, facts["tile"]["reference"])),
        no_charts=not_matched(tile),
        columns=tuple((title, "text" if title == "date" else "number") for title in CELLS),
        table=tuple(_table(tile, facts)),
        command=command,
        no_command=no_command,
        masters=masters,
        inputs=inputs,
        no_inputs=no_inputs,
    )


def _command(path: Path) -> tuple[str, str, tuple[str, ...]]:
    """Return the command, or what hinders it (another version wrote the header, perhaps), and its masters."""
    try:
        options = read_recipe(path).options
    except UsageError as error:
        return "", error.what.removeprefix(f"{path}: "), ()
    command = command_of(options, path.name)
    if shown(command) != command:
        return "", "a file name in it holds characters that no page can show", ()
    return command, "", tuple(kind for kind in MASTERS if getattr(options, kind) is not None)


def _inputs(tile: Tile) -> tuple[str, str]:
    """Return the list of frames, or what hinders it: a part of it would be another list."""
    if not (rows := unlisted(tile.frames)):
        return input_list(tile.frames), ""
    numbers = ", ".join(str(row + 1) for row in rows[:5]) + f" and {len(rows) - 5} more" * (len(rows) > 5)
    many = len(rows) > 1
    return "", (
        f"{'the names' if many else 'the name'} of frame{'s' * many} {numbers} {'hold' if many else 'holds'} "
        f"characters that no page can show, or ends of lines, or a blank at the end"
    )


def _beyond(around: tuple[Outline, ...], rows: int, cols: int) -> dict[str, float]:
    corners = np.concatenate([outline.corners for outline in around])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    reach = {"left": -left, "right": right - cols, "top": -top, "bottom": bottom - rows}
    reach = {side: max(0.0, float(by)) for side, by in reach.items()}
    width = cols + reach["left"] + reach["right"]
    return {side: round(100 * by / width, 3) for side, by in reach.items()}


def _table(tile: Tile, facts: dict[str, Any]) -> Iterator[Row]:
    cells = CELLS | {"rejected": lambda frame: _rejected(frame, tile.image.size)}
    for index, frame in enumerate(tile.frames):
        kind = "used" if frame.used else "left-out"
        if frame.name == facts["tile"]["reference"]:
            kind = "reference"
        yield Row(index, frame.name, kind, tuple(cell(frame) for cell in cells.values()), frame.reason)


def _rejected(frame: FrameRecord, samples: int) -> str:
    return f"{rejected_share(frame, samples):.2%}" if frame.used else "-"
