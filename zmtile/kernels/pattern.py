"""Exhaustive search for the similarity that lays one list of bright stars on another."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["best_hypotheses"]


@kernel
def best_hypotheses(
    ax: Any,
    ay: Any,
    bx: Any,
    by: Any,
    first: Any,
    second: Any,
    length: Any,
    shortest: float,
    spread: float,
    star_map: Any,
    origin_x: float,
    origin_y: float,
    step: float,
    found: Any,
    score: Any,
) -> None:
    """Lay every pair of source stars on every pair of target stars and keep the best hypotheses.

    A hypothesis is scored by the number of source stars that land on a star of the target's map.
    Those that bring fewer than two of the first 30 home are given up early.

    Parameters
    ----------
    ax, ay, bx, by : (stars,) float64
        Source and target, brightest first.
    first, second : (pairs,) int64
        Target pairs, ordered by length.
    length : (pairs,) float64
        Logarithm of their length.
    shortest : float
        Source pairs below this length, px, say too little of the angle.
    spread : float
        Largest difference of the logarithms of two pairs' lengths.
    star_map : (columns, rows) bool
        Cells of `step` px from (origin_x, origin_y) that have a star within reach.
    found : (kept, 4) float64
        Written: a, b, tx, ty of [a -b tx; b a ty], best first.
    score : (kept,) int64
        Written: source stars that land on a star; 0 for places left empty.
    """
    count = ax.size
    kept = score.size
    columns, rows = star_map.shape
    score[:] = 0
    for i in range(count):
        for j in range(i + 1, count):
            dx, dy = ax[j] - ax[i], ay[j] - ay[i]
            square = dx * dx + dy * dy
            if square < shortest * shortest:
                continue
            middle = 0.5 * np.log(square)
            low = np.searchsorted(length, middle - spread)
            high = np.searchsorted(length, middle + spread)
            for pair in range(low, high):
                k, m = first[pair], second[pair]
                ex, ey = bx[m] - bx[k], by[m] - by[k]
                a = (ex * dx + ey * dy) / square
                b = (ey * dx - ex * dy) / square
                tx = bx[k] - a * ax[i] + b * ay[i]
                ty = by[k] - b * ax[i] - a * ay[i]
                hits = 0
                for s in range(count):
                    if s == 30 and hits < 2:
                        break
                    u = (a * ax[s] - b * ay[s] + tx - origin_x) / step
                    v = (b * ax[s] + a * ay[s] + ty - origin_y) / step
                    if 0.0 <= u < columns and 0.0 <= v < rows:
                        hits += star_map[int(u), int(v)]
                if hits > score[kept - 1] and hits >= 4:
                    place = kept - 1
                    while place > 0 and score[place - 1] < hits:
                        score[place] = score[place - 1]
                        found[place] = found[place - 1]
                        place -= 1
                    score[place] = hits
                    found[place, 0] = a
                    found[place, 1] = b
                    found[place, 2] = tx
                    found[place, 3] = ty
