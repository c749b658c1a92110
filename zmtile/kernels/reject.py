"""Rejection and combination of the samples of every pixel, over lanes of neighbouring pixels.

A sorted copy of the samples decides which *values* survive; a last pass over the originals counts,
weighs and adds. A lane is done when its own pixel has converged, so a pixel's result depends on its
samples only. The rejections are defined in docs/how-it-works.md; tests/oracle.py holds each as
plain float64 code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.bounds import bounds_quantile, reject_esd, survivors
from zmtile.kernels.lanes import (
    CENTRE,
    COUNT,
    DRIFT,
    HALF,
    INF,
    LANES,
    LOWER,
    NHIGH,
    NLOW,
    NOISE,
    ONE,
    PLACES,
    SHIFT,
    SPREAD,
    SUM_P,
    SUM_W,
    UPPER,
    ZERO,
    median,
)
from zmtile.kernels.network import sort_lanes
from zmtile.kernels.uncertainty import median_noise, reached
from zmtile.kernels.winsor import reject_sigma

__all__ = ["stack_block"]

# Sorted samples that wait their turn stay in the second-level cache.
_QUEUE_BYTES = 192 * 1024
# Uncertainty at least, relative to what the frames' noise makes of the mean. Resampling alone does not go so
# low: it leaves half of the noise or more, least in the red of a mosaic, amid four red pixels.
LEAST_UNCERT = np.float32(0.125)


@kernel
def _load(samples: Any, start: int, raw: Any, tile: Any, w: Any) -> None:
    """Copy the lanes' samples to `raw` (absent: NaN) and `tile` (absent: +inf), and count them."""
    frames, pixels = samples.shape
    width = min(LANES, pixels - start)
    for lane in range(LANES):
        w[COUNT + lane] = ZERO
    for i in range(frames):
        for lane in range(width):
            raw[i, lane] = samples[i, start + lane]
        for lane in range(width, LANES):
            raw[i, lane] = np.float32(np.nan)
        for lane in range(LANES):
            x = raw[i, lane]
            tile[i, lane] = x if x == x else INF
            w[COUNT + lane] += ONE if x == x else ZERO


@kernel
def _combine(raw: Any, weights: Any, shares: Any, noises: Any, clamp: bool, w: Any, seen: Any) -> None:
    """Sum the survivors about CENTRE, and count for each frame what it gave and lost.

    `shares` is (frames, LANES), a factor on the weight of each sample, or None: then the compiler
    leaves out what belongs to it.

    Precisions are 1 / noise². Without noises they are the weights.

    `seen` is (frames, 3 · LANES): present, rejected below, rejected above, kept apart by lane so
    that counting is a vector addition too.
    """
    for place in range(NLOW, (PLACES * LANES)):
        w[place] = ZERO
    drop = ZERO if clamp else ONE
    for i in range(raw.shape[0]):
        weight = weights[i]
        noise = ONE if noises is None else noises[i]
        precision = weight if noises is None else ONE / (noise * noise)
        variance = weight if noises is None else (weight * noise) * (weight * noise)
        for lane in range(LANES):
            if shares is not None:
                weight = weights[i] * shares[i, lane]
                precision = weight if noises is None else precision
                variance = weight if noises is None else (weight * noise) * (weight * noise)
            x = raw[i, lane]
            low = ONE if x < w[LOWER + lane] else ZERO
            high = ONE if x > w[UPPER + lane] else ZERO
            here = ONE if x == x else ZERO
            x = w[LOWER + lane] if x < w[LOWER + lane] else x
            x = w[UPPER + lane] if x > w[UPPER + lane] else x
            keep = here - drop * (low + high)
            d = x - w[CENTRE + lane]
            d = d if keep > ZERO else ZERO
            w[NLOW + lane] += low
            w[NHIGH + lane] += high
            w[SUM_W + lane] += weight * keep
            w[SUM_P + lane] += precision * keep
            w[NOISE + lane] += variance * keep
            w[SHIFT + lane] += weight * d
            w[DRIFT + lane] += precision * d
            w[SPREAD + lane] += precision * d * d
            seen[i, lane] += here
            seen[i, LANES + lane] += low
            seen[i, 2 * LANES + lane] += high


@kernel
def stack_block(
    samples: Any,
    weights: Any,
    shares: Any,
    noises: Any,
    pairs: Any,
    method: int,
    klow: float,
    khigh: float,
    low: float,
    high: float,
    critical: Any,
    clamp: bool,
    use_median: bool,
    student: Any,
    widening: Any,
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
    weights : (frames,) float32
        Weight of each frame in the mean; all 1 for a median.
    shares : (frames, pixels) float32 or None
        Factor above 0 on the weight of each sample; None is 1 everywhere.
    noises : (frames,) float32 or None
        Sigma of each frame's samples, above 0, up to a factor that their scatter tells; and the
        uncertainty where nothing scatters. None: the variance of a sample goes with 1 / weight.
    pairs : (comparators, 2) int32
        `comparators(frames)`.
    method : int
        One of `METHODS`.
    klow, khigh : float32
        Bounds in sigma.
    low, high : float64
        What the method takes below and above: fractions clipped by 'winsor-quantile', or as for
        `survivors`.
    critical : (frames + 1,) float64
        Critical values of 'esd'.
    clamp : bool
        'winsor-quantile' sets an outlier to its bound instead of dropping it; it is still counted.
    use_median : bool
        Combine by the median of the survivors instead of their weighted mean.
    student : (2, frames + 1) float32
        Factors of the uncertainty by the number of survivors, from `student`.
    widening : (frames + 1,) float32
        Factor of the uncertainty by the number of samples.
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
    share: Any = None if shares is None else np.ones((frames, LANES), np.float32)
    w = np.empty(PLACES * LANES, np.float32)
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
        inside = groups * LANES
        if method in (1, 2):
            reject_sigma(
                queue, counts[:inside], klow, khigh, method == 2, tile, w, first[:inside], last[:inside]
            )
        elif method == 6:
            reject_esd(queue, counts[:inside], low, critical, first[:inside], last[:inside])
        for g in range(groups):
            for lane in range(LANES):
                at = g * LANES + lane
                w[COUNT + lane] = np.float32(counts[at])
                w[LOWER + lane] = -INF
                w[UPPER + lane] = INF
                w[CENTRE + lane] = ZERO
                if counts[at] >= 3 and method == 3:
                    lower, upper = bounds_quantile(queue[g], lane, counts[at], low, high, klow, khigh)
                    while first[at] < last[at] and queue[g, first[at], lane] < lower:
                        first[at] += 1
                    while last[at] > first[at] and queue[g, last[at] - 1, lane] > upper:
                        last[at] -= 1
                    if first[at] == last[at] and not clamp:  # all refused: then none goes
                        first[at], last[at] = 0, counts[at]
                        lower, upper = -INF, INF
                    w[LOWER + lane] = lower
                    w[UPPER + lane] = upper
                elif counts[at] >= 3 and method > 3 and method != 6:
                    first[at], last[at] = survivors(
                        method, queue[g], lane, counts[at], klow, khigh, low, high
                    )
                if counts[at] > 0 and method != 3:  # a sample survives by its value
                    w[LOWER + lane] = queue[g, first[at], lane]
                    w[UPPER + lane] = queue[g, last[at] - 1, lane]
                if clamp and counts[at] > 0:  # all samples count, the outliers at their bounds
                    middle = median(queue[g], lane, 0, counts[at])
                    w[CENTRE + lane] = min(max(middle, w[LOWER + lane]), w[UPPER + lane])
                elif last[at] > first[at]:
                    below = queue[g, (first[at] + last[at] - 1) >> 1, lane]
                    value = queue[g, (first[at] + last[at]) >> 1, lane]
                    w[CENTRE + lane] = below + HALF * (value - below)
            start = begin + g * LANES
            if shares is not None:
                for i in range(frames):
                    for lane in range(min(LANES, pixels - start)):
                        share[i, lane] = shares[i, start + lane]
            _combine(raw[g], weights, share, noises, clamp, w, seen)
            for lane in range(min(LANES, pixels - start)):
                count = w[COUNT + lane]
                kept = count if clamp else count - w[NLOW + lane] - w[NHIGH + lane]
                to = start + lane
                coverage[to] = int(count)
                rejlow[to] = int(w[NLOW + lane])
                rejhigh[to] = int(w[NHIGH + lane])
                weight[to] = w[SUM_W + lane]
                if kept == ZERO:
                    image[to] = np.float32(np.nan)
                    uncert[to] = np.float32(np.nan)
                    continue
                shift = w[SHIFT + lane] / w[SUM_W + lane]
                image[to] = w[CENTRE + lane] if use_median else w[CENTRE + lane] + shift
                # What the noises make of the value. A single survivor does not scatter: that is all.
                noise = np.sqrt(w[NOISE + lane]) / w[SUM_W + lane]
                if kept == ONE:
                    uncert[to] = np.float32(np.nan) if noises is None else noise
                    continue
                if use_median and noises is not None:
                    noise = median_noise(raw[g], lane, noises, w[LOWER + lane], w[UPPER + lane], clamp)
                # How much larger the variances are than the noises say: from the survivors about
                # their best mean, which is not the value where weights are not precisions.
                scatter = w[SPREAD + lane] - w[DRIFT + lane] * (w[DRIFT + lane] / w[SUM_P + lane])
                error = noise * np.sqrt(max(scatter, ZERO) / (kept - ONE))
                apart = min(ONE / (noise * np.sqrt(w[SUM_P + lane])), ONE)
                error *= reached(student[0, int(kept)], student[1, int(kept)], apart) * widening[int(count)]
                # Two or three that are equal by chance, or all saturated, are not that certain.
                uncert[to] = error if noises is None else max(error, LEAST_UNCERT * noise)
    for i in range(frames):
        for k in range(3):
            total = ZERO
            for lane in range(LANES):
                total += seen[i, k * LANES + lane]
            tally[i, k] += int(total)
