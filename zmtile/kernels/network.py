"""Sort the samples of many pixels at once with a comparator network."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import kernel
from zmtile.kernels.lanes import LANES, highest, lowest, put_lanes, take_lanes

__all__ = ["comparators", "sort_lanes"]


@lru_cache(maxsize=4096)
def comparators(n: int) -> NDArray[np.int32]:
    """Return the comparators of Batcher's odd-even merge sort for n rows ([Batcher1968]_).

    Returns
    -------
    (comparators, 2) int32
        Rows to compare, in order; the smaller value goes to the first of them.
    """
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                rows = range(j, min(j + k, n - k))
                pairs += [(i, i + k) for i in rows if i // (2 * p) == (i + k) // (2 * p)]
            k //= 2
        p *= 2
    return np.array(pairs, np.int32).reshape(-1, 2)


@kernel
def sort_lanes(queue: Any, groups: int, pairs: Any) -> None:
    """Sort the lanes of the first groups of (…, rows, LANES) float32 upwards; absent samples are +inf.

    No value may be NaN.
    """
    rows = queue.shape[1]
    for group in range(groups):
        for q in range(pairs.shape[0]):
            upper = (group * rows + pairs[q, 0]) * LANES
            lower = (group * rows + pairs[q, 1]) * LANES
            a, b = take_lanes(queue, upper), take_lanes(queue, lower)
            put_lanes(queue, upper, lowest(a, b))
            put_lanes(queue, lower, highest(b, a))
