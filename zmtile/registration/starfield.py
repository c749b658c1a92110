"""The stars of a frame as the matching needs them, and which of two lists are the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.measure import Stars
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
    def tree(self) -> Any:
        """KD-tree of the positions."""
        from scipy.spatial import cKDTree

        return cKDTree(self.xy)

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
    moved = apply(moved_by, source.xy)
    distance, nearest = target.tree.query(moved, distance_upper_bound=radius)
    found = np.flatnonzero(np.isfinite(distance))
    found = found[np.lexsort((distance[found], nearest[found]))]
    _, first = np.unique(nearest[found], return_index=True)
    chosen = np.sort(found[first])
    return chosen, nearest[chosen]
