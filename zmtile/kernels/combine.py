"""Combination of the survivors: the weighted mean or the median, its uncertainty, and the tallies."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.bounds import median
from zmtile.kernels.lanes import (
    LANES,
    ONE,
    ZERO,
    aligned,
    choose,
    count_lanes,
    every,
    put_lanes,
    root,
    take_lanes,
)
from zmtile.kernels.ranks import middle
from zmtile.kernels.uncertainty import median_noise, reached

__all__ = ["LEAST_UNCERT", "combine"]

# Uncertainty at least, relative to what the frames' noise makes of the mean. Resampling alone does not go so
# low: it leaves half of the noise or more, least in the red of a mosaic, amid four red pixels.
LEAST_UNCERT = np.float32(0.125)
_NAN = np.float32(np.nan)


@kernel
def combine(
    raw: Any,
    queue: Any,
    begin: int,
    groups: int,
    counts: Any,
    first: Any,
    last: Any,
    lower: Any,
    upper: Any,
    weights: Any,
    shares: Any,
    noises: Any,
    clamp: bool,
    use_median: bool,
    factors: Any,
    gaps: Any,
    widening: Any,
    made: Any,
    tally: Any,
) -> None:
    """Combine the survivors of each pixel of a queue, and count for each frame what it gave and lost.

    Sums are taken about the median. Precisions are 1 / noise²; without noises they are the weights.

    Parameters
    ----------
    raw, queue : (..., frames, LANES) float32
        Samples of the groups as they came (absent: NaN), and sorted (absent: +inf).
    begin, groups : int
        First pixel of the queue, and how many groups are filled.
    counts, first, last : (groups · LANES,) float32
        Samples of each pixel; of those that are sorted, first … last - 1 survive.
    lower, upper : (groups · LANES,) float32
        The values of survivors lie within.
    weights, shares, noises, clamp, use_median, widening, tally
        As for `zmtile.kernels.reject.stack_block`.
    factors, gaps : (frames + 1,) float32
        By the number of survivors, as for `reached`.
    made : (3, groups · LANES) float32
        Written: value, its standard error, sum of the surviving weights.
    """
    frames = raw.shape[1]
    some = aligned(4 * LANES)
    share = aligned(0 if shares is None else frames * LANES)
    for group in range(groups):
        at, top = group * LANES, group * frames
        count, a, b = take_lanes(counts, at), take_lanes(first, at), take_lanes(last, at)
        low, high = take_lanes(lower, at), take_lanes(upper, at)
        if clamp:  # all samples count, the outliers at their bounds
            for lane in range(LANES):
                size = int(counts[at + lane])
                some[lane] = median(queue[group], lane, 0, size) if size > 0 else ZERO
            centre = take_lanes(some, 0)
            centre = choose(low > centre, low, centre)
            centre = choose(high < centre, high, centre)
            number = count
        else:
            centre = middle(queue, top, frames, a + b)
            number = b - a
        if shares is not None:
            for i in range(frames):
                for lane in range(LANES):
                    to = begin + at + lane
                    share[i * LANES + lane] = shares[i, to] if to < shares.shape[1] else ONE
        sum_w, sum_p, sum_v = every(ZERO), every(ZERO), every(ZERO)
        shift, drift, scatter = every(ZERO), every(ZERO), every(ZERO)
        for i in range(frames):
            weight = every(weights[i])
            if shares is not None:
                weight = weight * take_lanes(share, i * LANES)
            x = take_lanes(raw, (top + i) * LANES)
            here, under, over = x == x, x < low, x > high
            tally[i, 0] += count_lanes(here)
            tally[i, 1] += count_lanes(under)
            tally[i, 2] += count_lanes(over)
            # Not by joined conditions, as in `zmtile.kernels.winsor`.
            x = choose(under, low if clamp else every(_NAN), x)
            x = choose(over, high if clamp else every(_NAN), x)
            here = x == x
            d = choose(here, x - centre, ZERO)
            sum_w += choose(here, weight, ZERO)
            shift += weight * d
            if noises is None:
                scatter += weight * d * d
            else:
                precision = ONE / (noises[i] * noises[i])
                sum_p += choose(here, precision, ZERO)
                sum_v += choose(here, (weight * noises[i]) * (weight * noises[i]), ZERO)
                drift += precision * d
                scatter += precision * d * d
        if noises is None:
            sum_p, sum_v, drift = sum_w, sum_w, shift
        shift = shift / sum_w
        value = centre if use_median else centre + shift
        # What the noises make of the value. A single survivor does not scatter: that is all.
        noise = root(sum_v) / sum_w
        alone = noise * _NAN if noises is None else noise
        put_lanes(some, 0, number)
        if use_median and noises is not None:
            put_lanes(some, LANES, noise)
            for lane in range(LANES):
                if some[lane] > ONE:
                    some[LANES + lane] = median_noise(
                        raw[group], lane, noises, lower[at + lane], upper[at + lane], clamp
                    )
            noise = take_lanes(some, LANES)
        # How much larger the variances are than the noises say: from the survivors about
        # their best mean, which is not the value where weights are not precisions.
        scatter = scatter - drift * (drift / sum_p)
        scatter = choose(scatter < ZERO, ZERO, scatter)
        error = noise * root(scatter / (number - ONE))
        apart = ONE / (noise * root(sum_p))
        apart = choose(apart > ONE, ONE, apart)
        for lane in range(LANES):
            kept = int(some[lane])
            some[LANES + lane] = factors[kept]
            some[2 * LANES + lane] = gaps[kept]
            some[3 * LANES + lane] = widening[int(counts[at + lane])]
        factor = reached(take_lanes(some, LANES), take_lanes(some, 2 * LANES), apart)
        error = error * (factor * take_lanes(some, 3 * LANES))
        if (
            noises is not None
        ):  # two or three that are equal by chance, or all saturated, are not that certain
            least = LEAST_UNCERT * noise
            error = choose(least > error, least, error)
        put_lanes(made[0], at, choose(number > ZERO, value, _NAN))
        error = choose(number > ONE, error, alone)
        put_lanes(made[1], at, choose(number > ZERO, error, _NAN))
        put_lanes(made[2], at, sum_w)
