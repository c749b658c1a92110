"""Rejection and combination of the samples of every pixel, over lanes of neighbouring pixels.

The samples of `LANES` pixels lie side by side, so the steps below are loops over lanes that the
compiler turns into vector instructions. A sorted copy of the samples decides which *values*
survive; a last pass over the originals counts, weighs and adds. A lane is done when its own pixel
has converged, so a pixel's result depends on its samples only. The rejections are defined in
docs/how-it-works.md; tests/oracle.py holds each as plain float64 code.

Three habits keep the loops vectors. All lane variables live in one flat array `w` at fixed places
(with an array each, the compiler cannot rule out that they overlap, and gives up: 15 times slower).
Counters are float32 (exact up to 2^24), so that all lanes are of one width. Conditions select.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.network import LANES, sort_lanes

__all__ = ["LANES", "METHODS", "stack_block"]

METHODS = {"none": 0, "sigma": 1, "winsor": 2, "winsor-quantile": 3}

# Huber's winsorisation: clip at 1.5 sigma; the SD of a Gaussian so clipped is 1/1.134 of its own.
_CLIP = np.float32(1.5)
_GROW = np.float32(1.134)
_SETTLED = np.float32(5e-4)
_MAX_ROUNDS = np.float32(49.0)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_TWO = np.float32(2.0)
_INF = np.float32(np.inf)

# Places of the lane variables in `w`.
COUNT, LOWER, UPPER, CENTRE, LOW, HIGH, SIGMA, TURN = (i * LANES for i in range(8))
TOTAL, SQUARE, NLOW, NHIGH, SUM_W, SUM_W2 = (i * LANES for i in range(8, 14))
SHIFT, CROSS, SPREAD, NOISE = (i * LANES for i in range(14, 18))
NUMBER, DONE = (i * LANES for i in range(18, 20))
_PLACES = 20

# Sorted samples that wait their turn stay in the second-level cache.
_QUEUE_BYTES = 192 * 1024


@kernel
def _median(column: Any, lane: int, first: int, last: int) -> Any:
    """Median of rows first … last - 1 of a sorted lane, of which there is at least one."""
    count = last - first
    value = column[first + (count >> 1), lane]
    if count & 1 == 0:
        below = column[first + (count >> 1) - 1, lane]
        value = below + np.float32(0.5) * (value - below)
    return value


@kernel
def _spread(tile: Any, n: int, w: Any) -> None:
    """Sum the lanes' samples about CENTRE, clipped to [LOW, HIGH] → TOTAL, SQUARE.

    Rows that do not count hold the centre, so they add nothing. Differences from a median within a
    factor of two are exact in float32, and a sample further out dominates the sum anyway.
    """
    for lane in range(LANES):
        w[TOTAL + lane] = _ZERO
        w[SQUARE + lane] = _ZERO
    for i in range(n):
        for lane in range(LANES):
            d = tile[i, lane] - w[CENTRE + lane]
            d = w[LOW + lane] if d < w[LOW + lane] else d
            d = w[HIGH + lane] if d > w[HIGH + lane] else d
            w[TOTAL + lane] += d
            w[SQUARE + lane] += d * d


@kernel
def _deviation(total: float, square: float, count: int) -> Any:
    """SD (ddof 1) from sums about the median."""
    spread = (square - total * (total / np.float32(count))) / np.float32(count - 1)
    return np.sqrt(max(spread, _ZERO))


@kernel
def _open_lane(tile: Any, n: int, w: Any, lane: int, first: int, last: int) -> None:
    """Start the search for sigma of rows first … last - 1 of a lane; the others get the centre."""
    centre = _median(tile, lane, first, last)
    for i in range(first):
        tile[i, lane] = centre
    for i in range(last, n):
        tile[i, lane] = centre
    w[CENTRE + lane] = centre
    w[LOW + lane] = -_INF
    w[HIGH + lane] = _INF
    w[SIGMA + lane] = _INF
    w[TURN + lane] = _ZERO
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
        spread = (w[SQUARE + lane] - total * (total / number)) / (number - _ONE)
        sigma = np.sqrt(spread if spread > _ZERO else _ZERO)
        old = w[SIGMA + lane]
        turn = w[TURN + lane]
        sigma = _GROW * sigma if turn > _ZERO else sigma
        done = _ONE if abs(sigma - old) <= _SETTLED * old else _ZERO
        done = done if turn > _ZERO else _ZERO
        done = _ONE if turn >= _MAX_ROUNDS else done
        bound = _CLIP * sigma
        w[LOW + lane] = -bound if -bound > w[LOW + lane] else w[LOW + lane]
        w[HIGH + lane] = bound if bound < w[HIGH + lane] else w[HIGH + lane]
        w[SIGMA + lane] = sigma
        w[TURN + lane] = turn + _ONE
        w[DONE + lane] = done if winsor else _ONE


@kernel
def _reject_sigma(
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
            tile[i, lane] = _ZERO
        w[CENTRE + lane] = _ZERO
        w[LOW + lane] = -_INF
        w[HIGH + lane] = _INF
        w[SIGMA + lane] = _INF
        w[TURN + lane] = _ZERO
        w[NUMBER + lane] = _TWO
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
            if at < 0 or w[DONE + lane] == _ZERO:
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


@kernel
def _quantile(column: Any, lane: int, count: int, q: float) -> Any:
    """Quantile q of a sorted lane, linear between samples as numpy's default."""
    place = q * (count - 1)
    below = int(place)
    above = min(below + 1, count - 1)
    return column[below, lane] + np.float32(place - below) * (column[above, lane] - column[below, lane])


@kernel
def _bounds_quantile(
    column: Any, lane: int, count: int, qlow: float, qhigh: float, klow: float, khigh: float
) -> Any:
    """Bounds from median and SD of a copy of a sorted lane that is clipped at its own quantiles."""
    bottom, top = _quantile(column, lane, count, qlow), _quantile(column, lane, count, 1.0 - qhigh)
    # Limits that meet past the middle move the median of the copy as well.
    centre = min(max(_median(column, lane, 0, count), bottom), top)
    total = _ZERO
    square = _ZERO
    for i in range(count):
        d = min(max(column[i, lane], bottom), top) - centre
        total += d
        square += d * d
    sigma = _deviation(total, square, count)
    return centre - klow * sigma, centre + khigh * sigma


@kernel
def _load(samples: Any, start: int, raw: Any, tile: Any, w: Any) -> None:
    """Copy the lanes' samples to `raw` (absent: NaN) and `tile` (absent: +inf), and count them."""
    frames, pixels = samples.shape
    width = min(LANES, pixels - start)
    for lane in range(LANES):
        w[COUNT + lane] = _ZERO
    for i in range(frames):
        for lane in range(width):
            raw[i, lane] = samples[i, start + lane]
        for lane in range(width, LANES):
            raw[i, lane] = np.float32(np.nan)
        for lane in range(LANES):
            x = raw[i, lane]
            tile[i, lane] = x if x == x else _INF
            w[COUNT + lane] += _ONE if x == x else _ZERO


@kernel
def _combine(raw: Any, weights: Any, noises: Any, clamp: bool, w: Any, seen: Any) -> None:
    """Sum the survivors about CENTRE, and count for each frame what it gave and lost.

    `seen` is (frames, 3 · LANES): present, rejected below, rejected above, kept apart by lane so
    that counting is a vector addition too.
    """
    for place in range(NLOW, (_PLACES * LANES)):
        w[place] = _ZERO
    drop = _ZERO if clamp else _ONE
    for i in range(raw.shape[0]):
        weight = weights[i]
        variance = (weight * noises[i]) * (weight * noises[i])
        for lane in range(LANES):
            x = raw[i, lane]
            low = _ONE if x < w[LOWER + lane] else _ZERO
            high = _ONE if x > w[UPPER + lane] else _ZERO
            here = _ONE if x == x else _ZERO
            x = w[LOWER + lane] if x < w[LOWER + lane] else x
            x = w[UPPER + lane] if x > w[UPPER + lane] else x
            keep = here - drop * (low + high)
            d = x - w[CENTRE + lane]
            d = weight * d if keep > _ZERO else _ZERO
            w[NLOW + lane] += low
            w[NHIGH + lane] += high
            w[SUM_W + lane] += weight * keep
            w[SUM_W2 + lane] += weight * weight * keep
            w[NOISE + lane] += variance * keep
            w[SHIFT + lane] += d
            w[CROSS + lane] += weight * d
            w[SPREAD + lane] += d * d
            seen[i, lane] += here
            seen[i, LANES + lane] += low
            seen[i, 2 * LANES + lane] += high


@kernel
def stack_block(
    samples: Any,
    weights: Any,
    noises: Any,
    pairs: Any,
    method: int,
    klow: float,
    khigh: float,
    qlow: float,
    qhigh: float,
    clamp: bool,
    use_median: bool,
    image: Any,
    uncert: Any,
    weight: Any,
    coverage: Any,
    rejlow: Any,
    rejhigh: Any,
    tally: Any,
) -> None:
    """Reject and combine a run of pixels of one channel.

    Parameters
    ----------
    samples : (frames, pixels) float32
        Aligned samples, NaN where a frame has no data.
    weights, noises : (frames,) float32
        Weight of each frame, and the sigma of its sky (the uncertainty where nothing else tells).
    pairs : (comparators, 2) int32
        `comparators(frames)`.
    method : int
        One of `METHODS`.
    klow, khigh : float32
        Bounds in sigma.
    qlow, qhigh : float64
        Fractions clipped by 'winsor-quantile'.
    clamp : bool
        'winsor-quantile' sets an outlier to its bound instead of dropping it; it is still counted.
    use_median : bool
        Combine by the median of the survivors instead of their weighted mean.
    image, uncert, weight : (pixels,) float32
        Written: combined value, its standard error, sum of the surviving weights.
    coverage, rejlow, rejhigh : (pixels,) uint16
        Written: finite samples, rejected below, rejected above.
    tally : (frames, 3) int64
        Added to, frame by frame: finite samples, rejected below, rejected above.
    """
    frames, pixels = samples.shape
    width = max(1, min(_QUEUE_BYTES // (4 * frames * LANES), (pixels + LANES - 1) // LANES))
    queue = np.empty((width, frames, LANES), np.float32)
    raw = np.empty((width, frames, LANES), np.float32)
    tile = np.empty((frames, LANES), np.float32)
    w = np.empty(_PLACES * LANES, np.float32)
    seen = np.zeros((frames, 3 * LANES), np.float32)
    counts = np.empty(width * LANES, np.int64)
    first = np.empty(width * LANES, np.int64)
    last = np.empty(width * LANES, np.int64)
    for begin in range(0, pixels, width * LANES):
        groups = min(width, (pixels - begin + LANES - 1) // LANES)
        for g in range(groups):
            _load(samples, begin + g * LANES, raw[g], queue[g], w)
            sort_lanes(queue[g], pairs)
            for lane in range(LANES):
                counts[g * LANES + lane] = int(w[COUNT + lane])
                first[g * LANES + lane] = 0
                last[g * LANES + lane] = counts[g * LANES + lane]
        if method in (1, 2):
            inside = groups * LANES
            _reject_sigma(
                queue, counts[:inside], klow, khigh, method == 2, tile, w, first[:inside], last[:inside]
            )
        for g in range(groups):
            for lane in range(LANES):
                at = g * LANES + lane
                w[COUNT + lane] = np.float32(counts[at])
                w[LOWER + lane] = -_INF
                w[UPPER + lane] = _INF
                w[CENTRE + lane] = _ZERO
                if counts[at] >= 3 and method == 3:
                    lower, upper = _bounds_quantile(queue[g], lane, counts[at], qlow, qhigh, klow, khigh)
                    while first[at] < last[at] and queue[g, first[at], lane] < lower:
                        first[at] += 1
                    while last[at] > first[at] and queue[g, last[at] - 1, lane] > upper:
                        last[at] -= 1
                    if first[at] == last[at] and not clamp:  # all refused: then none goes
                        first[at], last[at] = 0, counts[at]
                        lower, upper = -_INF, _INF
                    w[LOWER + lane] = lower
                    w[UPPER + lane] = upper
                elif counts[at] > 0:  # a sample survives by its value
                    w[LOWER + lane] = queue[g, first[at], lane]
                    w[UPPER + lane] = queue[g, last[at] - 1, lane]
                if clamp and counts[at] > 0:  # all samples count, the outliers at their bounds
                    middle = _median(queue[g], lane, 0, counts[at])
                    w[CENTRE + lane] = min(max(middle, w[LOWER + lane]), w[UPPER + lane])
                elif last[at] > first[at]:
                    w[CENTRE + lane] = _median(queue[g], lane, first[at], last[at])
            _combine(raw[g], weights, noises, clamp, w, seen)
            start = begin + g * LANES
            for lane in range(min(LANES, pixels - start)):
                count = w[COUNT + lane]
                kept = count if clamp else count - w[NLOW + lane] - w[NHIGH + lane]
                to = start + lane
                coverage[to] = int(count)
                rejlow[to] = int(w[NLOW + lane])
                rejhigh[to] = int(w[NHIGH + lane])
                weight[to] = w[SUM_W + lane]
                if kept == _ZERO:
                    image[to] = np.float32(np.nan)
                    uncert[to] = np.float32(np.nan)
                    continue
                shift = w[SHIFT + lane] / w[SUM_W + lane]
                # Scatter of the survivors about the value; one has none, and takes its frame's noise.
                variance = w[NOISE + lane]
                if kept > _ONE:
                    scatter = w[SPREAD + lane] + shift * (shift * w[SUM_W2 + lane] - _TWO * w[CROSS + lane])
                    variance = max(scatter, _ZERO) * (kept / (kept - _ONE))
                error = np.sqrt(variance) / w[SUM_W + lane]
                image[to] = w[CENTRE + lane] if use_median else w[CENTRE + lane] + shift
                # A median of many Gaussian samples scatters sqrt(pi/2) as much as their mean.
                uncert[to] = np.float32(1.2533) * error if use_median and kept > _TWO else error
    for i in range(frames):
        for k in range(3):
            total = _ZERO
            for lane in range(LANES):
                total += seen[i, k * LANES + lane]
            tally[i, k] += int(total)
