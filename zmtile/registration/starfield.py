"""The stars of a frame as the matching needs them, and which of two lists are the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.measure import Stars
from zmtile.kernels.stars import pair_stars
from zmtile.registration.mapping import Map, apply

__all__ = ["MIN_STARS", "Field", "final_radius", "pair_up"]

# Two define a similarity; fewer than two more prove nothing.
MIN_STARS = 4


@dataclass(frozen=True)
class Field:
    """Stars of a frame as the matching needs them.

    Attributes
    ----------
    stars : Stars
    rows, cols : int
        Size of the frame, px.
    fwhm : float
        px.
    """

    stars: Stars
    rows: int
    cols: int
    fwhm: float

    @cached_property
    def xy(self) -> NDArray[np.float64]:
        """Positions, (n, 2), brightest first."""
        return self.stars.xy

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The stars from the lowest y to the highest."""
        return np.argsort(self.stars.y, kind="stable")

    @cached_property
    def places(self) -> NDArray[np.float64]:
        """Positions in this order, (n, 2), as the kernels search them."""
        return self.xy[self.order]

    @cached_property
    def errors(self) -> NDArray[np.float64]:
        """Standard errors of their coordinates in this order, (n,), px."""
        return self.stars.error[self.order]

    def contains(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points lie on the frame."""
        x, y = xy.T
        inside: NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x <= self.cols - 1) & (y <= self.rows - 1)
        return inside


def final_radius(source: Field, target: Field) -> float:
    """Distance within which two detections are one star, px."""
    return max(2.0, 0.6 * max(source.fwhm, target.fwhm))


def pair_up(
    source: Field, target: Field, moved_by: Map, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return indices of stars that are each other's nearest within `radius` px of the target."""
    moved = np.ascontiguousarray(apply(moved_by, source.xy))
    pairs = np.empty((len(moved), 2), np.int64)
    owner, distance = np.empty(len(target.stars), np.int64), np.empty(len(target.stars))
    count = pair_stars(moved, target.places, radius, pairs, owner, distance)
    i, place = np.ascontiguousarray(pairs[:count].T)
    return i, target.order[place]
