"""What the rejection kernels share: the lanes' variables, and the median of a sorted lane.

The samples of `LANES` pixels lie side by side, so the steps of the kernels are loops over lanes
that the compiler turns into vector instructions. Three habits keep them vectors. All lane variables
live in one flat array `w` at fixed places (with an array each, the compiler cannot rule out that
they overlap, and gives up: 15 times slower). Counters are float32 (exact up to 2^24), so that all
lanes are of one width. Conditions select. And what is done lane by lane stays in one function with its loop:
a call counts the references to its arrays by atomic instructions, 30 ns each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.network import LANES

__all__ = ["HALF", "INF", "LANES", "ONE", "TWO", "ZERO", "median"]

ZERO = np.float32(0.0)
ONE = np.float32(1.0)
TWO = np.float32(2.0)
HALF = np.float32(0.5)
INF = np.float32(np.inf)

# Places of the lane variables in `w`.
COUNT, LOWER, UPPER, CENTRE, LOW, HIGH, SIGMA, TURN = (i * LANES for i in range(8))
TOTAL, SQUARE, NLOW, NHIGH, SUM_W, SUM_P = (i * LANES for i in range(8, 14))
SHIFT, DRIFT, SPREAD, NOISE = (i * LANES for i in range(14, 18))
NUMBER, DONE, OPEN, SETTLED = (i * LANES for i in range(18, 22))
PLACES = 22


@kernel
def median(column: Any, lane: int, first: int, last: int) -> Any:
    """Median of rows first … last - 1 of a sorted lane, of which there is at least one."""
    count = last - first
    value = column[first + (count >> 1), lane]
    if count & 1 == 0:
        below = column[first + (count >> 1) - 1, lane]
        value = below + np.float32(0.5) * (value - below)
    return value
