"""Outlines of a report: where the frames lie on the tile."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.mapping import Bent, Map, border
from zmtile.tiles.records import FrameRecord
from zmtile.tiles.tile import Tile

__all__ = ["Outline", "outlines"]


@dataclass(frozen=True, eq=False)
class Outline:
    """The footprint of a frame.

    Attributes
    ----------
    index : int
        Row of the frame in the FRAMES table.
    corners : (n, 2) float64
        Its border in order, x and y in pixels of the tile's picture: the upper left corner of the
        tile is (0, 0), whichever row is stored first.
    told : str
        How much of the tile it covers, and by how much it is turned against the reference.
    """

    index: int
    corners: NDArray[np.float64]
    told: str

    @property
    def points(self) -> str:
        """The border as SVG has it, to a tenth of a pixel."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.corners)


def outlines(tile: Tile, bottom_up: bool) -> tuple[Outline, ...]:
    """Return the footprints of all frames used, from the transforms in FRAMES.

    Parameters
    ----------
    tile : Tile
    bottom_up : bool
        The first row stored is the lowest one of the picture.
    """
    origin = np.array([tile.header["ZMT_X0"], tile.header["ZMT_Y0"]], np.float64)
    height = tile.shape[-2]
    found = []
    for index, frame in enumerate(tile.frames):
        if not frame.used:
            continue
        # Half a pixel beyond the outermost centres, and counted from the corner of the first pixel.
        corners = border(_map_of(frame), *_size(frame), inset=-0.5) - origin + 0.5
        if len(corners) > 4:  # a bend needs no more than eight points a side, the corners among them
            corners = corners[::8]
        if bottom_up:
            corners[:, 1] = height - corners[:, 1]
        found.append(Outline(index, corners, _told(frame)))
    return tuple(found)


def _told(frame: FrameRecord) -> str:
    (a, b, _), (c, d, _) = frame.matrix
    mirrored = ", mirrored" if a * d < b * c else ""
    return f"covers {frame.footprint:.1%}, turned by {math.degrees(math.atan2(c, a)):.1f}°{mirrored}"


def _map_of(frame: FrameRecord) -> Map:
    """Return the map frame pixel → reference pixel of a frame that was registered."""
    return Bent(frame.matrix, frame.bend) if np.any(frame.bend[4:]) else frame.matrix


def _size(frame: FrameRecord) -> tuple[int, int]:
    """Rows and columns of a frame: its bend is counted from its centre (see `flat_bend`)."""
    xc, yc = frame.bend[:2]
    return round(2 * yc) + 1, round(2 * xc) + 1
