"""Rejections that look at one sorted lane at a time: quantiles, MAD, linear fit, ESD, extremes.

Survivors are always a range of the sorted samples. docs/how-it-works.md defines each rejection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.lanes import HALF, INF, LANES, ZERO

__all__ = ["METHODS", "bounds_quantile", "median", "reject_esd", "survivors"]

METHODS = {
    "none": 0,
    "sigma": 1,
    "winsor": 2,
    "winsor-quantile": 3,
    "mad": 4,
    "linear-fit": 5,
    "esd": 6,
    "minmax": 7,
}

# MAD of a Gaussian · 1.4826 = its SD.
MAD_SCALE = np.float32(1.4826)


@kernel
def median(column: Any, lane: int, first: int, last: int) -> Any:
    """Median of rows first … last - 1 of a sorted lane, of which there is at least one."""
    count = last - first
    value = column[first + (count >> 1), lane]
    if count & 1 == 0:
        below = column[first + (count >> 1) - 1, lane]
        value = below + HALF * (value - below)
    return value


@kernel
def _deviation(total: float, square: float, count: int) -> Any:
    """SD (ddof 1) from sums about the median."""
    spread = (square - total * (total / np.float32(count))) / np.float32(count - 1)
    return np.sqrt(max(spread, ZERO))


@kernel
def _quantile(column: Any, lane: int, count: int, q: float) -> Any:
    """Quantile q of a sorted lane, linear between samples as numpy's default."""
    place = q * (count - 1)
    below = int(place)
    above = min(below + 1, count - 1)
    return column[below, lane] + np.float32(place - below) * (column[above, lane] - column[below, lane])


@kernel
def bounds_quantile(
    column: Any, lane: int, count: int, qlow: float, qhigh: float, klow: float, khigh: float
) -> Any:
    """Bounds from median and SD of a copy of a sorted lane that is clipped at its own quantiles."""
    bottom, top = _quantile(column, lane, count, qlow), _quantile(column, lane, count, 1.0 - qhigh)
    # Limits that meet past the middle move the median of the copy as well.
    centre = min(max(median(column, lane, 0, count), bottom), top)
    total = ZERO
    square = ZERO
    for i in range(count):
        d = min(max(column[i, lane], bottom), top) - centre
        total += d
        square += d * d
    sigma = _deviation(total, square, count)
    return centre - klow * sigma, centre + khigh * sigma


@kernel
def _deviation_median(column: Any, lane: int, first: int, last: int, centre: float) -> Any:
    """Median distance of rows first … last - 1 of a sorted lane from their median.

    From the middle outwards the distances grow on either side, so both sides are merged up to the
    middle of the merged list.
    """
    count = last - first
    up = first + (count >> 1)
    down = up - 1
    value = ZERO
    before = ZERO
    for _ in range((count >> 1) + 1):
        before = value
        below = centre - column[down, lane] if down >= first else INF
        above = column[up, lane] - centre if up < last else INF
        if below < above:
            value = below
            down -= 1
        else:
            value = above
            up += 1
    return value if count & 1 else before + HALF * (value - before)


@kernel
def _mad(column: Any, lane: int, count: int, klow: float, khigh: float) -> Any:
    """Rows within median ± kappa · 1.4826 MAD, again and again until none goes."""
    first, last = 0, count
    while last - first >= 3:
        centre = median(column, lane, first, last)
        sigma = MAD_SCALE * _deviation_median(column, lane, first, last, centre)
        lower, upper = centre - klow * sigma, centre + khigh * sigma
        a, b = first, last
        while a < b and column[a, lane] < lower:
            a += 1
        while b > a and column[b - 1, lane] > upper:
            b -= 1
        if a == b or b - a == last - first:  # a kappa below 1 can refuse them all; then none goes
            break
        first, last = a, b
    return first, last


@kernel
def _linear_fit(column: Any, lane: int, count: int, klow: float, khigh: float) -> Any:
    """Rows near the straight line through the sorted samples over their rank, from the ends inwards."""
    first, last = 0, count
    while last - first >= 3:
        number = float(last - first)
        centre = median(column, lane, first, last)
        middle = 0.5 * (first + last - 1)
        total = 0.0
        moment = 0.0
        for i in range(first, last):
            d = float(column[i, lane] - centre)
            total += d
            moment += (i - middle) * d
        level = total / number
        slope = 12.0 * moment / (number * (number * number - 1.0))
        sigma = 0.0
        for i in range(first, last):
            sigma += abs(float(column[i, lane] - centre) - level - slope * (i - middle))
        # Samples that lie on the line leave rounding errors only: those are no outliers.
        sigma = max(sigma / number, 1e-6 * float(column[last - 1, lane] - column[first, lane]))
        a, b = first, last
        while a < b and float(column[a, lane] - centre) - level - slope * (a - middle) < -klow * sigma:
            a += 1
        while (
            b > a and float(column[b - 1, lane] - centre) - level - slope * (b - 1 - middle) > khigh * sigma
        ):
            b -= 1
        if a == b or b - a == last - first:
            break
        first, last = a, b
    return first, last


@kernel
def reject_esd(queue: Any, counts: Any, fraction: float, critical: Any, first: Any, last: Any) -> None:
    """Find the survivors of each pixel of a queue: what the generalised ESD test ([Rosner1983]_) leaves.

    The sums run from the middle outwards, so that an outlier taken away never was part of what
    stays: nothing cancels. Deviations are compared by their squares: no root, and no division.

    Parameters
    ----------
    queue : (groups, frames, LANES) float32
        Sorted samples.
    counts : (groups · LANES,) float32
        Samples of each pixel; below 3, none is taken.
    fraction : float64
        Of the samples that may be outliers.
    critical : (frames + 1,) float64
        Critical values by the number of samples left.
    first, last : (groups · LANES,) float32
        Written: survivors are rows first … last - 1.
    """
    sums, squares = np.empty(critical.size), np.empty(critical.size)
    inverse, limit = np.empty(critical.size), np.empty(critical.size)
    for left in range(2, critical.size):
        inverse[left] = 1.0 / left
        limit[left] = critical[left] * critical[left] / (left - 1)
    for at in range(counts.size):
        count = int(counts[at])
        if count < 3:
            continue
        group, lane = at // LANES, at % LANES
        middle = count >> 1
        below, value = queue[group, (count - 1) >> 1, lane], queue[group, middle, lane]
        centre = below + HALF * (value - below)
        total = 0.0
        square = 0.0
        for i in range(middle, count):
            d = float(queue[group, i, lane] - centre)
            total += d
            square += d * d
            sums[i], squares[i] = total, square
        total = 0.0
        square = 0.0
        for i in range(middle - 1, -1, -1):
            d = float(queue[group, i, lane] - centre)
            total += d
            square += d * d
            sums[i], squares[i] = total, square
        a, b = 0, count
        kept_a, kept_b = 0, count
        for _ in range(min(int(fraction * count), count - 2)):
            left = b - a
            total = sums[a] if a < middle else 0.0
            square = squares[a] if a < middle else 0.0
            if b > middle:
                total += sums[b - 1]
                square += squares[b - 1]
            mean = total * inverse[left]
            lowest = mean - float(queue[group, a, lane] - centre)
            highest = float(queue[group, b - 1, lane] - centre) - mean
            if highest >= lowest:
                b -= 1
            else:
                a += 1
            far = max(highest, lowest)
            if far * far > limit[left] * max(square - total * mean, 0.0):
                kept_a, kept_b = a, b
        while (
            kept_a > 0 and queue[group, kept_a - 1, lane] == queue[group, kept_a, lane]
        ):  # equals share their fate
            kept_a -= 1
        while kept_b < count and queue[group, kept_b, lane] == queue[group, kept_b - 1, lane]:
            kept_b += 1
        first[at], last[at] = np.float32(kept_a), np.float32(kept_b)


@kernel
def survivors(
    method: int,
    column: Any,
    lane: int,
    count: int,
    klow: float,
    khigh: float,
    low: float,
    high: float,
) -> Any:
    """Return the range of rows of a sorted lane of `count` ≥ 3 samples that survive.

    Parameters
    ----------
    method : int
        'mad', 'linear-fit' or 'minmax' of `METHODS`.
    klow, khigh : float32
        Bounds of 'mad' and 'linear-fit', in sigma.
    low, high : float64
        Samples dropped by 'minmax'.
    """
    if method == 4:
        first, last = _mad(column, lane, count, klow, khigh)
    elif method == 5:
        first, last = _linear_fit(column, lane, count, klow, khigh)
    elif low + high < count:
        first, last = int(low), count - int(high)
    else:
        first, last = 0, count
    while first > 0 and column[first - 1, lane] == column[first, lane]:  # equals share their fate
        first -= 1
    while last < count and column[last, lane] == column[last - 1, lane]:
        last += 1
    return first, last
