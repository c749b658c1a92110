"""Parts of the uncertainty: the noise of a median, and how many standard errors hold 68.3 %.

docs/how-it-works.md derives them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.lanes import HALF, ONE, ZERO, root

__all__ = ["median_noise", "reached"]

# Variance of the median of many Gaussian samples over that of their mean.
MEDIAN_VARIANCE = np.float32(np.pi / 2)


@kernel
def reached(bound: Any, gap: Any, apart: Any) -> Any:
    """Between the factors of `student`: `apart` is the share of the error that the best mean has, too.

    Exact for two survivors. For more, both factors are alike. All three are lanes: `bound` is the second
    factor, and `gap` is first / second - second / first.
    """
    z = HALF * apart * gap
    return bound * (z + root(z * z + ONE))


@kernel
def median_noise(raw: Any, lane: int, noises: Any, lower: Any, upper: Any, clamp: bool) -> Any:
    """Noise of the median of the survivors, as if it scattered no more than a mean.

    A sample moves the median the more, the denser it may lie around it: by its density there, seen
    with the median's own scatter, 1 / √(noise² + variance of the median).
    """
    kept, squares = ZERO, ZERO
    for i in range(raw.shape[0]):
        if (clamp and raw[i, lane] == raw[i, lane]) or lower <= raw[i, lane] <= upper:
            kept += ONE
            squares += noises[i] * noises[i]
    error = np.sqrt(squares) / kept
    if kept == np.float32(2):
        return error  # the median is the mean
    for _ in range(8):  # to a thousandth, if noises differ by a factor of 10
        total, squares = ZERO, ZERO
        for i in range(raw.shape[0]):
            if (clamp and raw[i, lane] == raw[i, lane]) or lower <= raw[i, lane] <= upper:
                variance = noises[i] * noises[i]
                influence = ONE / (variance + MEDIAN_VARIANCE * error * error)
                total += np.sqrt(influence)
                squares += influence * variance
        error = np.sqrt(squares) / total
    return error
