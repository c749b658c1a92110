"""The graph of overlapping frames: which pairs are compared, and the solution of all of them at once.

A frame that barely touches the reference is tied to it through others, and each profits from all of
its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.kernels.leastsquares import conjugate_gradients
from zmtile.registration.mapping import Map, apply, border

__all__ = ["Pair", "ends_of", "pair_frames", "solve_ties"]

PARTNERS = 8
# Of the residual of a solution, relative.
_TOLERANCE = 1e-13


@dataclass(frozen=True)
class Pair:
    """Two overlapping frames, by their places among the used ones."""

    a: int
    b: int


def pair_frames(frames: Sequence[Frame], maps: Sequence[Map], reference: int) -> list[Pair]:
    """Pair every frame with the reference and its nearest neighbours, where their boxes overlap."""
    middle = np.array(
        [
            apply(m, np.array([[(f.cols - 1) / 2, (f.rows - 1) / 2]]))[0]
            for f, m in zip(frames, maps, strict=True)
        ]
    )
    boxes = [border(m, f.rows, f.cols) for f, m in zip(frames, maps, strict=True)]
    low, high = np.array([b.min(axis=0) for b in boxes]), np.array([b.max(axis=0) for b in boxes])
    found: set[tuple[int, int]] = set()
    for k in range(len(frames)):
        away = np.hypot(*(middle - middle[k]).T)
        touching = ((low <= high[k]) & (high >= low[k])).all(axis=1)
        touching[k] = False
        order = np.argsort(away, kind="stable")
        near = order[touching[order]][:PARTNERS].tolist()
        chosen = near + ([reference] if touching[reference] else [])
        found |= {(min(k, j), max(k, j)) for j in chosen}
    # Panels whose frames are each other's nearest are joined by the closest frames that touch.
    family = np.arange(len(frames))
    for a, b in found:
        family[family == family[b]] = family[a]
    apart = family[:, None] != family[None]
    touching = ((low[:, None] <= high[None]) & (high[:, None] >= low[None])).all(axis=2)
    distance = np.hypot(*(middle[:, None] - middle[None]).transpose(2, 0, 1))
    bridges = np.argwhere(np.triu(touching & apart, 1)).tolist()
    for a, b in sorted(bridges, key=lambda p: (distance[p[0], p[1]], p)):
        if family[a] != family[b]:
            found.add((a, b))
            family[family == family[b]] = family[a]
    return [Pair(a, b) for a, b in sorted(found)]


def ends_of(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """Return the frames of all pairs, (pairs, 2)."""
    return np.array([(pair.a, pair.b) for pair in pairs], np.int64).reshape(-1, 2)


def solve_ties(
    ends: NDArray[np.int64],
    block: NDArray[np.float64],
    pull: NDArray[np.float64],
    reference: int,
    expected: NDArray[np.float64],
    start: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Solve what pairs of frames say of each other by least squares.

    Frames have unknowns x_k, (terms,). A pair (a, b) says block · (x_a - x_b) = pull, the normal
    equations of all that it was measured by.

    Parameters
    ----------
    ends : (pairs, 2) int64
        The frames a and b.
    block : (pairs, terms, terms) float64
    pull : (pairs, terms) float64
    reference : int
        Its unknowns are 0.
    expected : (frames, terms, terms) float64
        Inverse covariance of each frame's unknowns about 0; 0 where nothing is expected.
    start : (frames, terms) float64, optional
        A solution that is near, which saves time.

    Returns
    -------
    (frames, terms) float64, (frames,) bool
        The unknowns, and which frames are tied to the reference; those of the others are 0.
    """
    solution = np.zeros(expected.shape[:2]) if start is None else start.copy()
    tied = _tied(ends, reference, len(expected))
    free = tied.copy()
    free[reference] = False
    conjugate_gradients(ends, block, pull, expected.copy(), free, _TOLERANCE, solution)
    return solution, tied


def _tied(ends: NDArray[np.int64], reference: int, count: int) -> NDArray[np.bool_]:
    """Return which frames pairs lead to from the reference."""
    tied = np.zeros(count, bool)
    tied[reference] = True
    while (apart := tied[ends[:, 0]] != tied[ends[:, 1]]).any():  # pairs of which one is reached already
        tied[ends[apart]] = True
    return tied
