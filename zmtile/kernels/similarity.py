"""The similarity that lays the stars of one list on those of another, fitted on all that agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel
from zmtile.kernels.order import median
from zmtile.kernels.stars import pair_stars, stand_still

__all__ = ["refine_similarity"]

_ROUNDS, _FITS = 15, 4


@kernel
def _move(matrix: Any, points: Any, moved: Any) -> None:
    for k in range(points.shape[0]):
        x, y = points[k, 0], points[k, 1]
        moved[k, 0] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
        moved[k, 1] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]


@kernel
def _fit(
    source: Any, target: Any, pairs: Any, weight: Any, keep: Any, count: int, side: float, matrix: Any
) -> None:
    """Fit a similarity by weighted least squares, about the centres; `side` -1 mirrors the source first."""
    total = x0 = y0 = u0 = v0 = 0.0
    for p in range(count):
        if keep[p]:
            w, s, t = weight[p], pairs[p, 0], pairs[p, 1]
            total += w
            x0 += w * source[s, 0]
            y0 += w * source[s, 1]
            u0 += w * target[t, 0]
            v0 += w * target[t, 1]
    x0, y0, u0, v0 = x0 / total, y0 / total, u0 / total, v0 / total
    spread = along = across = 0.0
    for p in range(count):
        if keep[p]:
            w, s, t = weight[p], pairs[p, 0], pairs[p, 1]
            x, y = side * (source[s, 0] - x0), source[s, 1] - y0
            u, v = target[t, 0] - u0, target[t, 1] - v0
            spread += w * (x * x + y * y)
            along += w * (x * u + y * v)
            across += w * (x * v - y * u)
    a, b = (along / spread, across / spread) if spread > 0.0 else (0.0, 0.0)
    matrix[0, 0], matrix[0, 1] = side * a, -b
    matrix[1, 0], matrix[1, 1] = side * b, a
    matrix[0, 2] = u0 - matrix[0, 0] * x0 - matrix[0, 1] * y0
    matrix[1, 2] = v0 - matrix[1, 0] * x0 - matrix[1, 1] * y0


@brief
def refine_similarity(
    source: Any,
    source_error: Any,
    target: Any,
    target_error: Any,
    matrix: Any,
    radius: float,
    fewest: int,
    widest: float,
    floor: float,
) -> Any:
    """Fit a similarity on all stars that agree with a guess, until the set of stars stands still.

    Parameters
    ----------
    source, target : (n, 2), (m, 2) float64
        Places; those of the target are ordered by y.
    source_error, target_error : (n,), (m,) float64
        Standard errors of their coordinates, px.
    matrix : (2, 3) float64
        The guess, and what becomes of it. Its parity is kept.
    radius : float
        Within which two detections are one star, px.
    fewest : int
        Stars without which there is no fit.
    widest : float
        Stars beyond this many robust sigma are dropped,
    floor : float
        but none that is nearer than this, px.

    Returns
    -------
    int, float
        Stars that it is fitted on, 0 without a fit; root mean square of their distances, px.
    """
    side = -1.0 if matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] < 0.0 else 1.0
    size = source.shape[0]
    moved = np.empty((size, 2))
    pairs = np.empty((size, 2), np.int64)
    before = np.empty((size, 2), np.int64)
    owner, near = np.empty(target.shape[0], np.int64), np.empty(target.shape[0])
    weight, residual, scratch = np.empty(size), np.empty(size), np.empty(size)
    keep, agreed = np.empty(size, np.bool_), np.empty(size, np.bool_)
    within = 3.0 * radius
    # With a type: what is called with a plain 0 first would be compiled for it as well.
    kept: Any = np.int64(0)
    kept_before: Any = np.int64(0)
    rms = 0.0
    for _ in range(_ROUNDS):
        _move(matrix, source, moved)
        count = pair_stars(moved, target, within, pairs, owner, near)
        if count < fewest:
            return 0, 0.0
        for p in range(count):
            weight[p] = 1.0 / (source_error[pairs[p, 0]] ** 2 + target_error[pairs[p, 1]] ** 2)
        for p in range(count):
            keep[p] = True
        for _ in range(_FITS):  # robust fit on these pairs
            _fit(source, target, pairs, weight, keep, count, side, matrix)
            kept = np.int64(0)
            for p in range(count):
                s, t = pairs[p, 0], pairs[p, 1]
                x, y = source[s, 0], source[s, 1]
                dx = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - target[t, 0]
                dy = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - target[t, 1]
                residual[p] = math.sqrt(dx * dx + dy * dy)
                if keep[p]:
                    scratch[kept] = residual[p]
                    kept += 1
            # Rayleigh: the median distance is 1.177 sigma of a coordinate.
            limit = max(widest * median(scratch, kept) / 1.177, floor)
            found = 0
            same = True
            for p in range(count):
                agreed[p] = residual[p] <= limit
                found += agreed[p]
                same = same and agreed[p] == keep[p]
            if found < fewest or same:
                break
            for p in range(count):
                keep[p] = agreed[p]
        kept = 0
        square = 0.0
        for p in range(count):  # those that agree move to the front
            if keep[p]:
                square += residual[p] ** 2
                pairs[kept, 0], pairs[kept, 1] = pairs[p, 0], pairs[p, 1]
                kept += 1
        rms = math.sqrt(square / kept)
        if stand_still(pairs, kept, before, kept_before):
            break
        kept_before = kept
        within = max(radius, min(within, 4.0 * rms))
    return kept, rms
