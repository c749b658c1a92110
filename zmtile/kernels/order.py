"""The k-th smallest of some values, and their median."""

from __future__ import annotations

from typing import Any

from zmtile.kernels import kernel

__all__ = ["median", "select"]


@kernel
def select(values: Any, count: int, k: int) -> float:
    """Return the k-th smallest of the first `count` values (Hoare's quickselect); reorders them.

    Afterwards those before place k are not larger, and those behind it not smaller. None may be NaN.
    """
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@kernel
def median(values: Any, count: int) -> float:
    """Return the median of the first `count` values, one at least; reorders them."""
    middle = count >> 1
    upper = select(values, count, middle)
    if count & 1:
        return upper
    lower = values[0]
    for i in range(1, middle):
        lower = max(lower, values[i])
    return 0.5 * (lower + upper)
