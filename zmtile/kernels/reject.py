"""Rejection and combination of the samples of every pixel, over lanes of neighbouring pixels.

A sorted copy of the samples decides which *values* survive; a last pass over the originals counts,
weighs and adds. A lane is done when its own pixel has converged, so a pixel's result depends on its
samples only. The rejections are defined in docs/how-it-works.md; tests/oracle.py holds each as
plain float64 code. Every step goes over a queue of groups before the next one does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import kernel
from zmtile.kernels.bounds import METHODS, bounds_quantile, reject_esd, survivors
from zmtile.kernels.combine import LEAST_UNCERT, combine
from zmtile.kernels.lanes import INF, LANES, ONE, ZERO, aligned, choose, every, put_lanes, take_lanes
from zmtile.kernels.network import sort_lanes
from zmtile.kernels.ranks import ends
from zmtile.kernels.winsor import reject_sigma

__all__ = ["LEAST_UNCERT", "drop_beyond", "stack_block"]

# Sorted samples that wait their turn stay in the second-level cache.
_QUEUE_BYTES = 192 * 1024
_NAN = np.float32(np.nan)


@kernel
def drop_beyond(samples: Any, limit: float) -> None:
    """Set samples, (samples,) float32, that are not within ±`limit` to NaN; infinities are none."""
    for k in range(samples.size):
        samples[k] = samples[k] if abs(samples[k]) < limit else _NAN


@kernel
def _load(samples: Any, begin: int, groups: int, raw: Any, queue: Any, counts: Any) -> None:
    """Copy the lanes' samples to `raw` (absent: NaN) and `queue` (absent: +inf), and count them."""
    frames, pixels = samples.shape
    for group in range(groups):
        start = begin + group * LANES
        whole = start + LANES <= pixels
        if not whole:
            for i in range(frames):
                for lane in range(LANES):
                    inside = start + lane < pixels
                    raw[group, i, lane] = samples[i, start + lane] if inside else _NAN
        count = every(ZERO)
        for i in range(frames):
            row = (group * frames + i) * LANES
            x = take_lanes(samples, i * pixels + start) if whole else take_lanes(raw, row)
            here = x == x
            put_lanes(raw, row, x)
            put_lanes(queue, row, choose(here, x, INF))
            count += choose(here, ONE, ZERO)
        put_lanes(counts, group * LANES, count)


@kernel
def _survive(
    method: int,
    queue: Any,
    groups: int,
    counts: Any,
    klow: float,
    khigh: float,
    low: float,
    high: float,
    clamp: bool,
    first: Any,
    last: Any,
    lower: Any,
    upper: Any,
) -> None:
    """Find the survivors of each pixel by the rejections that look at one lane at a time.

    Rows first … last - 1 of the sorted samples survive, and what lies within [lower, upper].
    """
    for at in range(groups * LANES):
        count = int(counts[at])
        if count < 3:
            continue
        group, lane = at // LANES, at % LANES
        a, b = 0, count
        if method == 3:
            bottom, top = bounds_quantile(queue[group], lane, count, low, high, klow, khigh)
            while a < b and queue[group, a, lane] < bottom:
                a += 1
            while b > a and queue[group, b - 1, lane] > top:
                b -= 1
            if a == b and not clamp:  # all refused: then none goes
                a, b = 0, count
                bottom, top = -INF, INF
            lower[at], upper[at] = bottom, top
        else:
            a, b = survivors(method, queue[group], lane, count, klow, khigh, low, high)
        first[at], last[at] = np.float32(a), np.float32(b)


@kernel
def _bound(queue: Any, groups: int, first: Any, last: Any, lower: Any, upper: Any) -> None:
    """Set the bounds of each pixel to its extreme survivors: a sample survives by its value."""
    frames = queue.shape[1]
    for group in range(groups):
        at = group * LANES
        low, high = ends(queue, group * frames, frames, take_lanes(first, at), take_lanes(last, at))
        put_lanes(lower, at, low)
        put_lanes(upper, at, high)


@kernel
def stack_kernel(
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
    start: int,
    stop: int,
    image: Any,
    uncert: Any,
    weight: Any,
    coverage: Any,
    rejlow: Any,
    rejhigh: Any,
    tally: Any,
    by_sigma: Any,
    by_esd: Any,
    by_lane: Any,
) -> None:
    """Reject and combine, as `stack_block`.

    There is a kernel for every kind of rejection: one of `by_sigma`, `by_esd` and `by_lane` is True, or none
    is, and what belongs to the others is not compiled. One kernel for all took twice as long.
    """
    frames = samples.shape[0]
    width = max(1, min(_QUEUE_BYTES // (4 * frames * LANES), (stop - start + LANES - 1) // LANES))
    span = width * LANES
    queue = aligned(frames * span).reshape(width, frames, LANES)
    raw = aligned(frames * span).reshape(width, frames, LANES)
    counts, first, last = aligned(span), aligned(span), aligned(span)
    lower, upper = aligned(span), aligned(span)
    made = aligned(3 * span).reshape(3, span)
    gaps = student[0] / student[1] - student[1] / student[0]
    for begin in range(start, stop, span):
        size = min(span, stop - begin)
        groups = (size + LANES - 1) // LANES
        _load(samples, begin, groups, raw, queue, counts)
        sort_lanes(queue, groups, pairs)
        for k in range(groups * LANES):
            first[k], last[k], lower[k], upper[k] = ZERO, counts[k], -INF, INF
        if by_sigma is not None and method > 0:
            reject_sigma(queue, groups, counts, klow, khigh, method == 2, first, last)
        if by_esd is not None and method > 0:
            reject_esd(queue, counts[: groups * LANES], low, critical, first, last)
        if by_lane is not None and method > 0:
            _survive(method, queue, groups, counts, klow, khigh, low, high, clamp, first, last, lower, upper)
        if method != 3:
            _bound(queue, groups, first, last, lower, upper)
        combine(
            raw,
            queue,
            begin,
            groups,
            counts,
            first,
            last,
            lower,
            upper,
            weights,
            shares,
            noises,
            clamp,
            use_median,
            student[1],
            gaps,
            widening,
            made,
            tally,
        )
        for k in range(size):
            image[begin + k], uncert[begin + k], weight[begin + k] = made[0, k], made[1, k], made[2, k]
            coverage[begin + k] = np.uint16(counts[k])
            rejlow[begin + k] = np.uint16(first[k])
            rejhigh[begin + k] = np.uint16(counts[k] - last[k])


def stack_block(
    samples: NDArray[np.float32],
    weights: NDArray[np.float32],
    shares: NDArray[np.float32] | None,
    noises: NDArray[np.float32] | None,
    pairs: NDArray[np.int32],
    method: int,
    klow: float,
    khigh: float,
    low: float,
    high: float,
    critical: NDArray[np.float64],
    clamp: bool,
    use_median: bool,
    student: NDArray[np.float32],
    widening: NDArray[np.float32],
    image: NDArray[np.float32],
    uncert: NDArray[np.float32],
    weight: NDArray[np.float32],
    coverage: NDArray[np.uint16],
    rejlow: NDArray[np.uint16],
    rejhigh: NDArray[np.uint16],
    *,
    tally: NDArray[np.int64],
    alike: int = 0,
    span: tuple[int, int] | None = None,
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
    alike : int
        One of `METHODS`: where nothing is rejected, its kernel does that, too.
    span : (int, int), optional
        The first of the pixels that are worked on, and the one behind the last of them, if not all. They are
        a multiple of `LANES`, or end where all do.
    """
    kind = method or alike
    by_sigma = kind in (METHODS["sigma"], METHODS["winsor"])
    by_esd = kind == METHODS["esd"]
    by_lane = kind > 0 and not (by_sigma or by_esd)
    stack_kernel(
        samples,
        weights,
        shares,
        noises,
        pairs,
        method,
        klow,
        khigh,
        low,
        high,
        critical,
        clamp,
        use_median,
        student,
        widening,
        *(span or (0, samples.shape[1])),
        image,
        uncert,
        weight,
        coverage,
        rejlow,
        rejhigh,
        tally,
        by_sigma or None,
        by_esd or None,
        by_lane or None,
    )
