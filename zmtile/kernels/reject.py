"""Rejection and combination of the samples of every pixel, over lanes of neighbouring pixels.

The samples of `LANES` pixels lie side by side, so each step below is one loop over lanes that the
compiler turns into vector instructions. A sorted copy of the samples decides which *values*
survive; a last pass over the originals counts, weighs and adds. Every lane stops when its own
pixel has converged, so a pixel's result depends on its samples only. The rejections are defined in
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
_MAX_ROUNDS = 50

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_INF = np.float32(np.inf)

# Places of the lane variables in `w`. Survivors are rows FIRST … LAST - 1 of the sorted lane.
FIRST, LAST, LIVE, LOWER, UPPER, CENTRE, SIGMA = (i * LANES for i in range(7))
LOW, HIGH, MOVING, TOTAL, SQUARE = (i * LANES for i in range(7, 12))
COUNT, NLOW, NHIGH, SUM_W, SHIFT, NOISE, SPREAD = (i * LANES for i in range(12, 19))
_PLACES = 19


@kernel
def _median(tile: Any, w: Any) -> None:
    """Median of the survivors of each lane → CENTRE; 0 where there are none."""
    for lane in range(LANES):
        first = int(w[FIRST + lane])
        count = int(w[LAST + lane]) - first
        value = _ZERO
        if count > 0:
            value = tile[first + (count >> 1), lane]
            if count & 1 == 0:
                below = tile[first + (count >> 1) - 1, lane]
                value = below + np.float32(0.5) * (value - below)
        w[CENTRE + lane] = value


@kernel
def _spread(tile: Any, n: int, w: Any) -> None:
    """SD (ddof 1) of the survivors clipped to CENTRE + [LOW, HIGH] → SQUARE.

    Sums are taken about the centre: differences from a median within a factor of two are exact in
    float32, and a sample further out dominates the sum anyway.
    """
    for lane in range(LANES):
        w[TOTAL + lane] = _ZERO
        w[SQUARE + lane] = _ZERO
    for i in range(n):
        row = np.float32(i)
        for lane in range(LANES):
            d = tile[i, lane] - w[CENTRE + lane]
            d = w[LOW + lane] if d < w[LOW + lane] else d
            d = w[HIGH + lane] if d > w[HIGH + lane] else d
            d = d if w[FIRST + lane] <= row else _ZERO
            d = d if row < w[LAST + lane] else _ZERO
            w[TOTAL + lane] += d
            w[SQUARE + lane] += d * d
    for lane in range(LANES):
        count = w[LAST + lane] - w[FIRST + lane]
        mean = w[TOTAL + lane] / (count if count > _ONE else _ONE)
        rest = count - _ONE
        spread = (w[SQUARE + lane] - w[TOTAL + lane] * mean) / (rest if rest > _ONE else _ONE)
        w[SQUARE + lane] = np.sqrt(spread if spread > _ZERO else _ZERO)


@kernel
def _trim(tile: Any, n: int, w: Any) -> bool:
    """Drop survivors outside [LOWER, UPPER] in the live lanes; tell whether any lane may lose more."""
    for lane in range(LANES):
        w[NLOW + lane] = _ZERO
        w[NHIGH + lane] = _ZERO
    for i in range(n):
        row = np.float32(i)
        for lane in range(LANES):
            x = tile[i, lane]
            low = _ONE if x < w[LOWER + lane] else _ZERO
            high = _ONE if x > w[UPPER + lane] else _ZERO
            inside = w[LIVE + lane] if w[FIRST + lane] <= row else _ZERO
            inside = inside if row < w[LAST + lane] else _ZERO
            w[NLOW + lane] += low * inside
            w[NHIGH + lane] += high * inside
    busy = _ZERO
    for lane in range(LANES):
        gone = w[NLOW + lane] + w[NHIGH + lane]
        w[FIRST + lane] += w[NLOW + lane]
        w[LAST + lane] -= w[NHIGH + lane]
        more = gone > _ZERO and w[LAST + lane] - w[FIRST + lane] >= np.float32(3.0)
        w[LIVE + lane] = _ONE if more else _ZERO
        busy += w[LIVE + lane]
    return bool(busy > _ZERO)


@kernel
def _reject_sigma(tile: Any, n: int, klow: float, khigh: float, winsor: bool, w: Any) -> None:
    """Reject beyond median ± kappa·sigma until none goes, with the plain or Huber's winsorised SD."""
    again = True
    while again:
        _median(tile, w)
        for lane in range(LANES):
            w[LOW + lane] = -_INF
            w[HIGH + lane] = _INF
            w[MOVING + lane] = w[LIVE + lane]
            w[SIGMA + lane] = _INF  # clips nothing: the first round below is the plain SD
        for turn in range(_MAX_ROUNDS):
            for lane in range(LANES):  # the copy is clipped again and again: its bounds only close
                bound = _CLIP * w[SIGMA + lane]
                w[LOW + lane] = -bound if -bound > w[LOW + lane] else w[LOW + lane]
                w[HIGH + lane] = bound if bound < w[HIGH + lane] else w[HIGH + lane]
            _spread(tile, n, w)
            grow = _GROW if turn > 0 else _ONE
            tolerance = _SETTLED if turn > 0 else -_ONE
            busy = _ZERO
            for lane in range(LANES):
                new = grow * w[SQUARE + lane]
                old = w[SIGMA + lane]
                moving = w[MOVING + lane]
                w[SIGMA + lane] = new if moving > _ZERO else old
                w[MOVING + lane] = _ZERO if abs(new - old) <= tolerance * old else moving
                busy += w[MOVING + lane]
            if busy == _ZERO or not winsor:
                break
        for lane in range(LANES):
            w[LOWER + lane] = w[CENTRE + lane] - klow * w[SIGMA + lane]
            w[UPPER + lane] = w[CENTRE + lane] + khigh * w[SIGMA + lane]
        again = _trim(tile, n, w)


@kernel
def _quantile(tile: Any, lane: int, count: int, q: float) -> float:
    """Quantile q of a sorted lane, linear between samples as numpy's default."""
    place = q * (count - 1)
    below = int(place)
    above = min(below + 1, count - 1)
    return tile[below, lane] + np.float32(place - below) * (tile[above, lane] - tile[below, lane])


@kernel
def _bounds_quantile(tile: Any, n: int, qlow: float, qhigh: float, klow: float, khigh: float, w: Any) -> None:
    """LOWER and UPPER from median and SD of a copy that is clipped at its own quantiles."""
    _median(tile, w)
    for lane in range(LANES):
        count = int(w[LAST + lane])
        w[LOW + lane] = _ZERO
        w[HIGH + lane] = _ZERO
        if count > 0:
            bottom, top = _quantile(tile, lane, count, qlow), _quantile(tile, lane, count, 1.0 - qhigh)
            # Limits that meet past the middle move the median of the copy as well.
            w[CENTRE + lane] = min(max(w[CENTRE + lane], bottom), top)
            w[LOW + lane] = bottom - w[CENTRE + lane]
            w[HIGH + lane] = top - w[CENTRE + lane]
    _spread(tile, n, w)
    for lane in range(LANES):
        enough = w[LAST + lane] >= np.float32(3.0)
        w[LOWER + lane] = w[CENTRE + lane] - klow * w[SQUARE + lane] if enough else -_INF
        w[UPPER + lane] = w[CENTRE + lane] + khigh * w[SQUARE + lane] if enough else _INF


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
def _combine(raw: Any, weights: Any, noises: Any, clamp: bool, gone: Any, w: Any, tally: Any) -> None:
    """Sum the survivors, and count for each frame what it gave and lost.

    `gone` is (3, LANES) scratch: a sum over lanes must keep its order, so it is a loop of its own.
    """
    frames = raw.shape[0]
    for lane in range(LANES):
        w[NLOW + lane] = _ZERO
        w[NHIGH + lane] = _ZERO
        w[SUM_W + lane] = _ZERO
        w[SHIFT + lane] = _ZERO
        w[NOISE + lane] = _ZERO
        w[SPREAD + lane] = _ZERO
    drop = _ZERO if clamp else _ONE
    for i in range(frames):
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
            w[NLOW + lane] += low
            w[NHIGH + lane] += high
            w[SUM_W + lane] += weight * keep
            w[NOISE + lane] += variance * keep
            w[SHIFT + lane] += weight * (x - w[CENTRE + lane]) if keep > _ZERO else _ZERO
            raw[i, lane] = x if keep > _ZERO else np.float32(np.nan)
            gone[lane] = here
            gone[LANES + lane] = low
            gone[2 * LANES + lane] = high
        for k in range(3):
            total = _ZERO
            for lane in range(LANES):
                total += gone[k * LANES + lane]
            tally[i, k] += int(total)
    for lane in range(LANES):
        w[SHIFT + lane] = w[SHIFT + lane] / w[SUM_W + lane] if w[SUM_W + lane] > _ZERO else _ZERO
    for i in range(frames):  # scatter of the survivors about the value
        weight = weights[i]
        for lane in range(LANES):
            x = raw[i, lane]
            d = weight * ((x - w[CENTRE + lane]) - w[SHIFT + lane])
            w[SPREAD + lane] += d * d if x == x else _ZERO


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
    tile = np.empty((frames, LANES), np.float32)
    raw = np.empty((frames, LANES), np.float32)
    w = np.empty(_PLACES * LANES, np.float32)
    gone = np.empty(3 * LANES, np.float32)
    for start in range(0, pixels, LANES):
        _load(samples, start, raw, tile, w)
        sort_lanes(tile, pairs)
        for lane in range(LANES):
            w[FIRST + lane] = _ZERO
            w[LAST + lane] = w[COUNT + lane]
            w[LIVE + lane] = _ONE if w[COUNT + lane] >= np.float32(3.0) else _ZERO
            w[LOWER + lane] = -_INF
            w[UPPER + lane] = _INF
        if method == 3:
            _bounds_quantile(tile, frames, qlow, qhigh, klow, khigh, w)
            _trim(tile, frames, w)
        elif method > 0:
            _reject_sigma(tile, frames, klow, khigh, method == 2, w)
        if not clamp:
            for lane in range(LANES):  # from here on a sample survives by its value
                if w[LAST + lane] > w[FIRST + lane]:
                    w[LOWER + lane] = tile[int(w[FIRST + lane]), lane]
                    w[UPPER + lane] = tile[int(w[LAST + lane]) - 1, lane]
        _median(tile, w)
        _combine(raw, weights, noises, clamp, gone, w, tally)
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
            # One survivor has no scatter, and takes the noise of its frame.
            variance = w[NOISE + lane] if kept == _ONE else w[SPREAD + lane] * (kept / (kept - _ONE))
            error = np.sqrt(variance) / w[SUM_W + lane]
            image[to] = w[CENTRE + lane] if use_median else w[CENTRE + lane] + w[SHIFT + lane]
            # A median of many Gaussian samples scatters sqrt(pi/2) as much as their mean.
            uncert[to] = np.float32(1.2533) * error if use_median and kept > np.float32(2.0) else error
