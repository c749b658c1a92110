"""Maps between frames: a matrix, or a matrix with a bend; applied, turned round and put in a row.

Most frames need no more than a matrix, and for those nothing here costs anything: a `Map` is either a
bare (2, 3) array or one of the classes below, and the functions take both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.bend import BEND, bend_points, steepness, unbend_points
from zmtile.registration import transform
from zmtile.registration.transform import Matrix, Transform, corners

__all__ = [
    "Bent",
    "Composed",
    "Map",
    "apply",
    "area_at",
    "border",
    "compose",
    "flat_bend",
    "invert",
    "map_of",
    "scale_of",
]

# How far outside a frame its bend still holds, px. Kernels and lattices reach less far.
MARGIN = 32.0
# A bend steeper than this is no lens; a map is one to one below 1.
MAX_STEEPNESS = 0.5
_SIDE = 25


@dataclass(frozen=True, eq=False)
class Bent:
    """A matrix and a bend, see `zmtile.kernels.bend`.

    Attributes
    ----------
    matrix : (2, 3) float64
        Tangent of the map at the frame's centre.
    bend : (20,) float64
        xc, yc, hx, hy, g, h, then the terms u², uv, v², u³, u²v, uv², v³ of x and those of y.
    backward : bool
        The way back, from the target to the frame.
    """

    matrix: Matrix
    bend: NDArray[np.float64]
    backward: bool = False

    @cached_property
    def back(self) -> Matrix:
        """Inverse of the matrix."""
        return np.ascontiguousarray(transform.invert(self.matrix))

    @property
    def sound(self) -> bool:
        """Whether the map is one to one by a wide margin."""
        g, h = np.abs(self.bend[4:6])
        steep = steepness(self.matrix, self.back, self.bend, _SIDE)
        return bool(g + h < MAX_STEEPNESS and steep < MAX_STEEPNESS)

    @property
    def reach(self) -> NDArray[np.float64]:
        """How far from its matrix alone the way back can end, (x, y) px of the frame."""
        half, (g, h) = self.bend[2:4], np.abs(self.bend[4:6])
        # |1 / (1 + g u + h v) - 1| is largest where the denominator is smallest; |u|, |v| <= 1.
        tilt = half * (g + h) / (1.0 - g - h)
        terms = np.abs(self.back[:, :2] @ self.bend[6:].reshape(2, 7)).sum(axis=1)
        return np.asarray(tilt + terms)

    def inverse(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the points (n, 2) moved the other way."""
        return Bent(self.matrix, self.bend, not self.backward).points(xy)[:, :2]

    def points(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x, y and the local change of area, (n, 3), for points (n, 2)."""
        out = np.empty((len(xy), 3))
        given = np.ascontiguousarray(xy, np.float64)
        if self.backward:
            unbend_points(self.matrix, self.back, self.bend, given, out)
        else:
            bend_points(self.matrix, self.bend, given, out)
        return out


@dataclass(frozen=True, eq=False)
class Composed:
    """One map after another."""

    outer: Map
    inner: Map


Map: TypeAlias = "Matrix | Bent | Composed"


def map_of(found: Transform) -> Matrix | Bent:
    """Return the map of a transform: frame pixel → reference pixel."""
    return found.matrix if found.bend is None else Bent(found.matrix, found.bend)


def flat_bend(rows: int, cols: int) -> NDArray[np.float64]:
    """Return the bend of a frame that is not bent: its units and zeros."""
    bend = np.zeros(BEND)
    bend[:4] = (cols - 1) / 2, (rows - 1) / 2, cols / 2 + MARGIN, rows / 2 + MARGIN
    return bend


def apply(moved_by: Map, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points (n, 2) moved by a map."""
    if isinstance(moved_by, Bent):
        return moved_by.points(xy)[:, :2]
    if isinstance(moved_by, Composed):
        return apply(moved_by.outer, apply(moved_by.inner, xy))
    return transform.apply(moved_by, xy)


def area_at(moved_by: Map, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much a map enlarges area at each of the points (n, 2)."""
    if isinstance(moved_by, Bent):
        return moved_by.points(xy)[:, 2]
    if isinstance(moved_by, Composed):
        return area_at(moved_by.inner, xy) * area_at(moved_by.outer, apply(moved_by.inner, xy))
    return np.full(len(xy), transform.scale_of(moved_by) ** 2)


def invert(moved_by: Map) -> Map:
    """Return the way back."""
    if isinstance(moved_by, Bent):
        return Bent(moved_by.matrix, moved_by.bend, not moved_by.backward)
    if isinstance(moved_by, Composed):
        return Composed(invert(moved_by.inner), invert(moved_by.outer))
    return transform.invert(moved_by)


def compose(outer: Map, inner: Map) -> Map:
    """Return the map that applies `inner` first, then `outer`."""
    if isinstance(outer, np.ndarray) and isinstance(inner, np.ndarray):
        return transform.compose(outer, inner)
    return Composed(outer, inner)


def scale_of(moved_by: Matrix | Bent) -> float:
    """Return the linear scale at the frame's centre."""
    return transform.scale_of(moved_by.matrix if isinstance(moved_by, Bent) else moved_by)


def border(moved_by: Map, rows: int, cols: int, inset: float = 0.0) -> NDArray[np.float64]:
    """Return the border of a frame, `inset` px from its outermost pixels' centres, after the map.

    Returns
    -------
    (n, 2) float64
        In order around the frame: the corners, and points between them where the map is bent.
    """
    ends = corners(rows - 2 * inset, cols - 2 * inset) + inset
    if isinstance(moved_by, np.ndarray):
        return apply(moved_by, ends)
    share = np.arange(64)[:, None] / 64
    sides = [a + share * (b - a) for a, b in zip(ends, np.roll(ends, -1, axis=0), strict=True)]
    return apply(moved_by, np.concatenate(sides))
