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
from zmtile.registration.mapping import Map, apply, border

__all__ = ["Pair", "Ties", "pair_frames"]

PARTNERS = 8


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
        near = [j for j in np.lexsort((np.arange(len(frames)), away)) if touching[j] and j != k]
        chosen = near[:PARTNERS] + ([reference] if touching[reference] and k != reference else [])
        found |= {(min(k, int(j)), max(k, int(j))) for j in chosen}
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


class Ties:
    """What pairs of frames say of each other, and its least squares.

    Frames have unknowns x_k, (terms,). A pair (a, b) says basis · (x_a - x_b) = difference; a frame
    may be told beside it how large its unknowns are expected to be. Only frames that are tied to each
    other share entries of the normal matrix, so it is kept sparse.

    Parameters
    ----------
    count, terms : int
        Frames, and unknowns of each.
    """

    def __init__(self, count: int, terms: int) -> None:
        self._own = np.zeros((count, terms, terms))
        self._right = np.zeros((count, terms))
        self._pairs: list[Pair] = []
        self._shared: list[NDArray[np.float64]] = []

    def tie(
        self,
        pair: Pair,
        basis: NDArray[np.float64],
        difference: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> None:
        """Add equations: (n, terms), (n,), and the inverse variances (n,)."""
        block = basis.T @ (basis * weight[:, None])
        pull = basis.T @ (difference * weight)
        self._own[[pair.a, pair.b]] += block
        self._right[pair.a] += pull
        self._right[pair.b] -= pull
        self._pairs.append(pair)
        self._shared.append(block)

    def expect(self, k: int, precision: NDArray[np.float64]) -> None:
        """Expect the unknowns of a frame near 0, with an inverse covariance (terms, terms)."""
        self._own[k] += precision

    def solve(self, reference: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Solve for all frames, with the reference's unknowns held at 0.

        Returns
        -------
        (count, terms) float64, (count,) bool
            The unknowns, and which frames are tied to the reference; those of the others are 0.
        """
        from scipy.sparse import coo_array, csc_array
        from scipy.sparse.csgraph import connected_components
        from scipy.sparse.linalg import spsolve

        count, terms = self._right.shape
        ends = np.array([(p.a, p.b) for p in self._pairs], np.int64).reshape(-1, 2)
        links = coo_array((np.ones(len(ends)), tuple(ends.T)), (count, count))
        family = connected_components(links, directed=False)[1]
        tied: NDArray[np.bool_] = family == family[reference]
        solution = np.zeros((count, terms))
        free = np.flatnonzero(tied & (np.arange(count) != reference))
        if not free.size:
            return solution, tied
        place = np.full(count, -1)
        place[free] = np.arange(free.size)
        between = (place[ends] >= 0).all(axis=1)
        i, j = place[ends[between]].T
        shared = -np.array(self._shared).reshape(-1, terms, terms)[between]
        diagonal = np.arange(free.size)
        # Every block with its row and column; those off the diagonal both ways, since it is symmetric.
        blocks = np.concatenate([self._own[free], shared, shared.transpose(0, 2, 1)])
        row, col = np.concatenate([diagonal, i, j]), np.concatenate([diagonal, j, i])
        unknown = np.arange(terms)
        rows = np.broadcast_to(row[:, None, None] * terms + unknown[:, None], blocks.shape)
        cols = np.broadcast_to(col[:, None, None] * terms + unknown, blocks.shape)
        size = free.size * terms
        matrix = csc_array(coo_array((blocks.ravel(), (rows.ravel(), cols.ravel())), (size, size)))
        # Ties to the reference and the expectations leave nothing undetermined.
        solution[free] = np.reshape(spsolve(matrix, self._right[free].ravel()), (-1, terms))
        return solution, tied
