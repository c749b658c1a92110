"""Rejection beyond median ± kappa·sigma until none goes, with Huber's winsorised sigma or the plain SD."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.lanes import (
    CENTRE,
    DONE,
    HALF,
    HIGH,
    INF,
    LANES,
    LOW,
    NUMBER,
    ONE,
    OPEN,
    SETTLED,
    SIGMA,
    SQUARE,
    TOTAL,
    TURN,
    TWO,
    ZERO,
)

__all__ = ["reject_sigma"]

# Huber's winsorisation: clip at 1.5 sigma; the SD of a Gaussian so clipped is 1/1.134 of its own.
CLIP = np.float32(1.5)
GROW = np.float32(1.134)
TOLERANCE = np.float32(5e-4)
MAX_ROUNDS = np.float32(49.0)
# Lanes of a group that may be left over when it is given up.
_FEW = 16


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
        sigma = GROW * sigma if turn > ZERO else sigma
        done = ONE if abs(sigma - old) <= TOLERANCE * old else ZERO
        done = done if turn > ZERO else ZERO
        done = ONE if turn >= MAX_ROUNDS else done
        bound = CLIP * sigma
        w[LOW + lane] = -bound if -bound > w[LOW + lane] else w[LOW + lane]
        w[HIGH + lane] = bound if bound < w[HIGH + lane] else w[HIGH + lane]
        w[SIGMA + lane] = sigma
        w[TURN + lane] = turn + ONE
        w[DONE + lane] = done if winsor else ONE


@kernel
def _search_together(group: Any, counts: Any, winsor: bool, tile: Any, w: Any) -> None:
    """Search sigma in all lanes of a sorted group at once, until it is settled in most of them.

    SETTLED has the sigma of the lanes that are done, OPEN is 1 for the others.
    """
    n = tile.shape[0]
    for lane in range(LANES):
        count = counts[lane]
        enough = count >= 3
        below = group[(count - 1) >> 1 if enough else 0, lane]
        value = group[count >> 1 if enough else 0, lane]
        w[CENTRE + lane] = below + HALF * (value - below) if enough else ZERO
        w[NUMBER + lane] = np.float32(count) if enough else TWO
        w[OPEN + lane] = ONE if enough else ZERO
    for lane in range(LANES):
        w[LOW + lane] = -INF
        w[HIGH + lane] = INF
        w[SIGMA + lane] = INF
        w[TURN + lane] = ZERO
        w[SETTLED + lane] = ZERO
    for i in range(n):
        for lane in range(LANES):
            x = group[i, lane]
            tile[i, lane] = x if x < INF else w[CENTRE + lane]
    left = LANES
    while left > _FEW:
        _spread(tile, n, w)
        _settle(winsor, w)
        left = 0
        for lane in range(LANES):
            settled = w[OPEN + lane] * w[DONE + lane]
            w[SETTLED + lane] = w[SIGMA + lane] if settled > ZERO else w[SETTLED + lane]
            w[OPEN + lane] -= settled
        for lane in range(LANES):
            left += int(w[OPEN + lane])


@kernel
def _search_in_turn(
    queue: Any,
    klow: float,
    khigh: float,
    winsor: bool,
    tile: Any,
    w: Any,
    waiting: Any,
    begun: Any,
    first: Any,
    last: Any,
) -> None:
    """Finish the pixels that wait, each in the lane that is free next.

    `begun` has LOW, HIGH, SIGMA and TURN of a search that goes on; one whose TURN is 0 begins.
    """
    n = tile.shape[0]
    pixel = np.full(LANES, -1, np.int64)
    for lane in range(LANES):
        for i in range(n):
            tile[i, lane] = ZERO
        w[CENTRE + lane] = ZERO
        w[NUMBER + lane] = TWO
        w[DONE + lane] = ONE
    taken = busy = 0
    while True:
        for lane in range(LANES):
            if w[DONE + lane] == ZERO:
                continue
            at = pixel[lane]
            low, high, sigma, turn = -INF, INF, INF, ZERO
            again = False
            if at >= 0:
                group, column = at // LANES, at % LANES
                a, b = first[at], last[at]
                lower = w[CENTRE + lane] - klow * w[SIGMA + lane]
                upper = w[CENTRE + lane] + khigh * w[SIGMA + lane]
                while a < b and queue[group, a, column] < lower:
                    a += 1
                while b > a and queue[group, b - 1, column] > upper:
                    b -= 1
                if a == b:  # a kappa below 1 can refuse them all; then none goes
                    a, b = first[at], last[at]
                again = b - a < last[at] - first[at] and b - a >= 3
                first[at], last[at] = a, b
                if not again:
                    pixel[lane] = at = -1
                    busy -= 1
            if at < 0:
                if taken == waiting.size:
                    continue
                pixel[lane] = at = waiting[taken]
                if begun[taken, 3] > ZERO:
                    low, high, sigma, turn = (
                        begun[taken, 0],
                        begun[taken, 1],
                        begun[taken, 2],
                        begun[taken, 3],
                    )
                taken += 1
                busy += 1
            group, column = at // LANES, at % LANES
            a, b = first[at], last[at]
            below, value = queue[group, (a + b - 1) >> 1, column], queue[group, (a + b) >> 1, column]
            centre = below + HALF * (value - below)
            if not again:
                for i in range(a, b):
                    tile[i, lane] = queue[group, i, column]
            for i in range(a):
                tile[i, lane] = centre
            for i in range(b, n):
                tile[i, lane] = centre
            w[CENTRE + lane] = centre
            w[NUMBER + lane] = np.float32(b - a)
            w[LOW + lane] = low
            w[HIGH + lane] = high
            w[SIGMA + lane] = sigma
            w[TURN + lane] = turn
        if busy == 0:
            break
        _spread(tile, n, w)
        _settle(winsor, w)


@kernel
def reject_sigma(
    queue: Any, counts: Any, klow: float, khigh: float, winsor: bool, tile: Any, w: Any, first: Any, last: Any
) -> None:
    """Find the survivors of each pixel of a queue: rejection beyond median ± kappa·sigma until none goes.

    At first the lanes of a group go on together. Half of the pixels need 4 rounds, but the slowest of
    32 needs 20. So those left over, and those that lost a sample, go to a conveyor: as soon as one of
    its lanes is done, it takes the next pixel.

    Parameters
    ----------
    queue : (groups, n, LANES) float32
        Sorted samples, +inf where there is none.
    counts : (groups · LANES,) int64
        Samples of each pixel.
    winsor : bool
        Huber's winsorised sigma instead of the plain SD.
    tile : (n, LANES) float32
        Scratch.
    first, last : (groups · LANES,) int64
        Read and written: survivors are rows first … last - 1.
    """
    waiting = np.empty(counts.size, np.int64)
    begun = np.empty((counts.size, 4), np.float32)
    total = 0
    for group in range(counts.size // LANES):
        start = group * LANES
        _search_together(queue[group], counts[start : start + LANES], winsor, tile, w)
        for lane in range(LANES):
            at = start + lane
            a, b = 0, counts[at]
            if b < 3:
                continue
            if w[OPEN + lane] > ZERO:
                begun[total, 0] = w[LOW + lane]
                begun[total, 1] = w[HIGH + lane]
                begun[total, 2] = w[SIGMA + lane]
                begun[total, 3] = w[TURN + lane]
                waiting[total] = at
                total += 1
                continue
            lower = w[CENTRE + lane] - klow * w[SETTLED + lane]
            upper = w[CENTRE + lane] + khigh * w[SETTLED + lane]
            while a < b and queue[group, a, lane] < lower:
                a += 1
            while b > a and queue[group, b - 1, lane] > upper:
                b -= 1
            if a == b:
                a, b = 0, counts[at]
            first[at], last[at] = a, b
            if 3 <= b - a < counts[at]:
                begun[total, 3] = ZERO
                waiting[total] = at
                total += 1
    _search_in_turn(queue, klow, khigh, winsor, tile, w, waiting[:total], begun, first, last)
