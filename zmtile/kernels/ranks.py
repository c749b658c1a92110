"""Samples of sorted lanes by their rank, which is another one in every lane."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.lanes import HALF, LANES, TWO, ZERO, choose, count_lanes, every, take_lanes

__all__ = ["ends", "middle"]


@kernel
def middle(queue: Any, top: int, n: int, both: Any) -> Any:
    """Return the median of rows first … last - 1 of each lane, by first + last; 0 where that is 0.

    Ranks are much the same in neighbouring lanes: few rows are looked at.

    Parameters
    ----------
    queue : (..., LANES) float32
        Row `top` is the first of the group's `n`.
    """
    row = n >> 1
    while count_lanes(both >= np.float32(2 * row + 2)) > 0:
        row += 1
    below, above = every(ZERO), every(ZERO)
    missing = True
    while missing:
        x = take_lanes(queue, (top + row) * LANES)
        twice = np.float32(2 * row)
        above = choose((both >= twice) & (both < twice + TWO), x, above)
        below = choose((both > twice) & (both <= twice + TWO), x, below)
        missing = count_lanes((both > ZERO) & (both <= twice)) > 0
        row -= 1
    return choose(both > ZERO, below + HALF * (above - below), ZERO)


@kernel
def ends(queue: Any, top: int, n: int, first: Any, last: Any) -> Any:
    """Return the samples of rows first and last - 1 of each lane; 0 where there is none."""
    low, high = every(ZERO), every(ZERO)
    row, missing = 0, True
    while missing:
        x = take_lanes(queue, (top + row) * LANES)
        here = first == np.float32(row)
        low = choose(here, x, low)
        row += 1
        missing = row < n and count_lanes((first >= np.float32(row)) & (first < last)) > 0
    row, missing = n, True
    while missing:
        x = take_lanes(queue, (top + row - 1) * LANES)
        high = choose(last == np.float32(row), x, high)
        row -= 1
        missing = row > 0 and count_lanes((last <= np.float32(row)) & (first < last)) > 0
    return low, high
