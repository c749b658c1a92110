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

__all__ = ["Pair", "pair_frames", "solve_blocks"]

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


def solve_blocks(
    normal: NDArray[np.float64], right: NDArray[np.float64], terms: int, reference: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Solve the normal equations with the reference's surface held at zero."""
    count = len(right) // terms
    linked = np.abs(normal.reshape(count, terms, count, terms)).sum(axis=(1, 3)) > 0
    tied = np.zeros(count, bool)
    tied[reference] = True
    for _ in range(count):
        grown = tied | (linked & tied[None, :]).any(axis=1)
        if (grown == tied).all():
            break
        tied = grown
    free = tied.copy()
    free[reference] = False
    solution = np.zeros((count, terms))
    if free.any():
        index = np.repeat(free, terms)
        # Ties to the reference and the expectation of slopes leave nothing undetermined.
        solved = np.linalg.solve(normal[np.ix_(index, index)], right[index])
        solution[free] = solved.reshape(-1, terms)
    return solution, tied
