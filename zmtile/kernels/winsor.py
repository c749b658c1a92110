"""Rejection beyond median ± kappa·sigma until none goes, with Huber's winsorised sigma or the plain SD."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.lanes import (
    CENTRE,
    DONE,
    HIGH,
    INF,
    LANES,
    LOW,
    NUMBER,
    ONE,
    SIGMA,
    SQUARE,
    TOTAL,
    TURN,
    TWO,
    ZERO,
    median,
)

__all__ = ["reject_sigma"]

# Huber's winsorisation: clip at 1.5 sigma; the SD of a Gaussian so clipped is 1/1.134 of its own.
_CLIP = np.float32(1.5)
_GROW = np.float32(1.134)
_SETTLED = np.float32(5e-4)
_MAX_ROUNDS = np.float32(49.0)


@kernel
def _spread(tile: Any, n: int, w: Any) -> None:
    """Sum the lanes' samples about CENTRE, clipped to [LOW, HIGH] → TOTAL, SQUARE.

    Rows that do not count hold the centre, so they add nothing. Differences from a median within a
    factor of two are exact in float32, and a sample further out dominates the sum anyway.
    """
    for lane in range(LANES):
        w[TOTAL + lane] = ZERO
        w[SQUARE + lane] = ZERO
    for i in range(n):
        for lane in range(LANES):
            d = tile[i, lane] - w[CENTRE + lane]
            d = w[LOW + lane] if d < w[LOW + lane] else d
            d = w[HIGH + lane] if d > w[HIGH + lane] else d
            w[TOTAL + lane] += d
            w[SQUARE + lane] += d * d


@kernel
def _open_lane(tile: Any, n: int, w: Any, lane: int, first: int, last: int) -> None:
    """Start the search for sigma of rows first … last - 1 of a lane; the others get the centre."""
    centre = median(tile, lane, first, last)
    for i in range(first):
        tile[i, lane] = centre
    for i in range(last, n):
        tile[i, lane] = centre
    w[CENTRE + lane] = centre
    w[LOW + lane] = -INF
    w[HIGH + lane] = INF
    w[SIGMA + lane] = INF
    w[TURN + lane] = ZERO
    w[NUMBER + lane] = np.float32(last - first)


@kernel
def _settle(winsor: bool, w: Any) -> None:
    """Take the next sigma of every lane from its sums, and tell in DONE which have converged.

    The first turn gives the plain SD, which settles nothing unless that is all that is wanted.
    The copy is clipped again and again: its bounds only close.
    """
    for lane in range(LANES):
        number = w[NUMBER + lane]
        total = w[TOTAL + lane]
        spread = (w[SQUARE + lane] - total * (total / number)) / (number - ONE)
        sigma = np.sqrt(spread if spread > ZERO else ZERO)
        old = w[SIGMA + lane]
        turn = w[TURN + lane]
        sigma = _GROW * sigma if turn > ZERO else sigma
        done = ONE if abs(sigma - old) <= _SETTLED * old else ZERO
        done = done if turn > ZERO else ZERO
        done = ONE if turn >= _MAX_ROUNDS else done
        bound = _CLIP * sigma
        w[LOW + lane] = -bound if -bound > w[LOW + lane] else w[LOW + lane]
        w[HIGH + lane] = bound if bound < w[HIGH + lane] else w[HIGH + lane]
        w[SIGMA + lane] = sigma
        w[TURN + lane] = turn + ONE
        w[DONE + lane] = done if winsor else ONE


@kernel
def reject_sigma(
    queue: Any, counts: Any, klow: float, khigh: float, winsor: bool, tile: Any, w: Any, first: Any, last: Any
) -> None:
    """Find the survivors of each pixel of a queue: rejection beyond median ± kappa·sigma until none goes.

    The lanes are a conveyor: as soon as a pixel has converged, its lane takes the next one. Pixels
    need 5 rounds on average and the slowest of 32 needs 20, so waiting for it would cost four
    times as much.

    Parameters
    ----------
    queue : (groups, n, LANES) float32
        Sorted samples.
    counts : (groups · LANES,) int64
        Samples of each pixel.
    winsor : bool
        Huber's winsorised sigma instead of the plain SD.
    tile : (n, LANES) float32
        Scratch.
    first, last : (groups · LANES,) int64
        Read and written: survivors are rows first … last - 1.
    """
    n = tile.shape[0]
    pixel = np.full(LANES, -1, np.int64)
    waiting = 0
    pixels = counts.size
    busy = 0
    for lane in range(LANES):
        for i in range(n):
            tile[i, lane] = ZERO
        w[CENTRE + lane] = ZERO
        w[LOW + lane] = -INF
        w[HIGH + lane] = INF
        w[SIGMA + lane] = INF
        w[TURN + lane] = ZERO
        w[NUMBER + lane] = TWO
    while True:
        if waiting < pixels and busy < LANES:
            for lane in range(LANES):
                if pixel[lane] < 0:
                    while waiting < pixels and counts[waiting] < 3:
                        waiting += 1
                    if waiting == pixels:
                        break
                    group, column = waiting // LANES, waiting % LANES
                    for i in range(n):
                        tile[i, lane] = queue[group, i, column]
                    _open_lane(tile, n, w, lane, 0, counts[waiting])
                    pixel[lane] = waiting
                    waiting += 1
                    busy += 1
        if busy == 0:
            break
        _spread(tile, n, w)
        _settle(winsor, w)
        for lane in range(LANES):
            at = pixel[lane]
            if at < 0 or w[DONE + lane] == ZERO:
                continue
            count = last[at] - first[at]
            lower = w[CENTRE + lane] - klow * w[SIGMA + lane]
            upper = w[CENTRE + lane] + khigh * w[SIGMA + lane]
            a, b = first[at], last[at]
            while a < b and tile[a, lane] < lower:
                a += 1
            while b > a and tile[b - 1, lane] > upper:
                b -= 1
            if a == b:  # a kappa below 1 can refuse them all; then none goes
                a, b = first[at], last[at]
            again = b - a < count and b - a >= 3
            first[at] = a
            last[at] = b
            if again:
                _open_lane(tile, n, w, lane, a, b)
            else:
                pixel[lane] = -1
                busy -= 1
