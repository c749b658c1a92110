"""Pairing of two lists of stars and the fit of a bent map, in turn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import brief
from zmtile.kernels.bend import bend_point
from zmtile.kernels.bendfit import fit_bend
from zmtile.kernels.order import median
from zmtile.kernels.stars import pair_stars, stand_still

__all__ = ["settle_bend"]

# Fits on one set of pairs, and sets of pairs, until nothing changes.
_FITS, _ROUNDS = 4, 10


@brief
def settle_bend(
    models: Any,
    matrix: Any,
    bend: Any,
    source: Any,
    source_error: Any,
    target: Any,
    target_error: Any,
    radius: float,
    fewest: int,
    widest: float,
    floor: float,
    hold: float,
    bend_prior: float,
    turns: int,
    pairs: Any,
) -> int:
    """Pair the stars of two lists and fit a map, in turn, until the set of stars stands still.

    Parameters
    ----------
    models : (stages,) int64
        One after the other.
    matrix, bend, hold, bend_prior, turns
        As in `fit_bend`.
    source, target : (n, 2), (m, 2) float64
        Places; those of the target are ordered by y.
    source_error, target_error : (n,), (m,) float64
        Standard errors of their coordinates, px.
    radius, fewest, widest, floor
        As in `zmtile.kernels.similarity.refine_similarity`.
    pairs : (n, 2) int64
        Written: the stars of both lists that agree; all that lie near, where they are too few for a fit.

    Returns
    -------
    int
        Pairs.
    """
    size = source.shape[0]
    moved, near_by = np.empty((size, 2)), np.empty((size, 2), np.int64)
    before = np.empty((size, 2), np.int64)
    owner, near = np.empty(target.shape[0], np.int64), np.empty(target.shape[0])
    here, there = np.empty((size, 2)), np.empty((size, 2))
    weight, residual, scratch = np.empty(size), np.empty(size), np.empty(size)
    within = 3.0 * radius
    kept: Any = np.int64(0)
    for model in models:
        kept_before: Any = np.int64(0)  # see refine_similarity
        for _ in range(_ROUNDS):
            for s in range(size):
                moved[s, 0], moved[s, 1], _ = bend_point(matrix, bend, source[s, 0], source[s, 1])
            count = pair_stars(moved, target, within, near_by, owner, near)
            for p in range(count):
                pairs[p, 0], pairs[p, 1] = near_by[p, 0], near_by[p, 1]
            if count < fewest:
                return count
            kept = count
            rms = 0.0
            for _ in range(_FITS):
                for p in range(kept):
                    s, t = pairs[p, 0], pairs[p, 1]
                    here[p, 0], here[p, 1] = source[s, 0], source[s, 1]
                    there[p, 0], there[p, 1] = target[t, 0], target[t, 1]
                    weight[p] = 1.0 / (source_error[s] ** 2 + target_error[t] ** 2)
                fit_bend(
                    model,
                    matrix,
                    bend,
                    here[:kept],
                    there[:kept],
                    weight[:kept],
                    hold,
                    bend_prior,
                    turns,
                )
                for p in range(count):
                    s, t = near_by[p, 0], near_by[p, 1]
                    x, y, _ = bend_point(matrix, bend, source[s, 0], source[s, 1])
                    residual[p] = math.sqrt((x - target[t, 0]) ** 2 + (y - target[t, 1]) ** 2)
                    scratch[p] = residual[p]
                limit = max(widest * median(scratch, count) / 1.177, floor)
                kept = np.int64(0)
                square = 0.0
                for p in range(count):
                    if residual[p] <= limit:
                        pairs[kept, 0], pairs[kept, 1] = near_by[p, 0], near_by[p, 1]
                        square += residual[p] ** 2
                        kept += 1
                rms = math.sqrt(square / kept)
            if stand_still(pairs, kept, before, kept_before):
                break
            kept_before = kept
            within = max(radius, min(within, 4.0 * rms))
    return kept
