"""Mean and sigma of values, clipped about their median."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.order import kth_smallest

__all__ = ["clipped_mean", "finite_first"]

# Sums are kept apart in this many lanes, so that the compiler adds vectors.
_LANES = 16
# Values that each lane adds up before its sum goes to memory: one at a time took four times as long.
_DEEP = 8


@kernel
def _inside(values: Any, count: int, centre: float, limit: float) -> Any:
    """Return number, sum and sum of squares about `centre` of the first values within `limit` of it."""
    w = np.zeros(3 * _LANES, np.float32)
    whole = count - count % (_LANES * _DEEP)
    for i in range(0, whole, _LANES * _DEEP):
        for lane in range(_LANES):
            kept = total = square = np.float32(0.0)
            for k in range(_DEEP):
                d = values[i + _LANES * k + lane] - centre
                keep = np.float32(1.0) if abs(d) <= limit else np.float32(0.0)
                d = d * keep
                kept += keep
                total += d
                square += d * d
            w[lane] += kept
            w[_LANES + lane] += total
            w[2 * _LANES + lane] += square
    for i in range(whole, count):
        d = values[i] - centre
        if abs(d) <= limit:
            w[0] += np.float32(1.0)
            w[_LANES] += d
            w[2 * _LANES] += d * d
    inside, first, second = 0.0, 0.0, 0.0
    for lane in range(_LANES):
        inside += w[lane]
        first += w[_LANES + lane]
        second += w[2 * _LANES + lane]
    return int(inside), first, second


@kernel
def clipped_mean(values: Any, count: int, scratch: Any, keys: Any) -> Any:
    """Return mean, sigma and number of the values within 2.5 sigma of their mean.

    The clip starts at the median and MAD of up to 256 of the values and is iterated three times
    from there. The level is a mean in the end because cameras write coarse steps (10 ADU are
    usual), and a median cannot do better than a step.

    Parameters
    ----------
    values : (n,) float32
        The first `count` of them are used.
    scratch : (256,) float32
    keys : (256,) int32
    """
    stride = max(1, count // 256)
    few = min(256, (count + stride - 1) // stride)
    if count == 0:
        return np.float32(np.nan), np.float32(np.nan), 0
    for i in range(few):
        scratch[i] = values[i * stride]
    centre = kth_smallest(scratch, few, (few - 1) >> 1, keys)
    for i in range(few):
        scratch[i] = abs(values[i * stride] - centre)
    sigma = np.float32(1.4826) * kth_smallest(scratch, few, (few - 1) >> 1, keys)
    if sigma == 0.0:  # most values are equal: the noise is below the camera's step
        square = 0.0
        for i in range(few):
            square += scratch[i] * scratch[i]
        sigma = np.float32(np.sqrt(square / few))
    kept = 0
    for _ in range(3):
        kept, total, square = _inside(values, count, centre, np.float32(2.5) * sigma)
        if kept < 2:
            break
        mean = total / kept
        spread = max(square / kept - mean * mean, 0.0)
        # A Gaussian cut at 2.5 sigma has 0.9546 of its SD left.
        centre, sigma = np.float32(centre + mean), np.float32(np.sqrt(spread) / 0.9546)
    return centre, sigma, kept


@kernel
def finite_first(values: Any, count: int) -> int:
    """Move the values that are numbers before those that are not, in their order; return how many."""
    missing = 0
    for i in range(count):
        missing += 1 if values[i] != values[i] else 0
    if missing:
        kept = 0
        for i in range(count):
            value = values[i]
            values[kept] = value
            kept += 1 if value == value else 0
    return count - missing
