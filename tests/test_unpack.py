from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.kernels.unpack import NO_BLANK, unpack_shorts


def oracle(stored, scale, zero, blank, largest):
    """One number after the other."""
    out = np.full(stored.shape, np.nan, np.float32)
    for at, number in np.ndenumerate(stored):
        value = np.float32(np.float32(np.float32(int(number)) * np.float32(scale)) + np.float32(zero))
        if int(number) != blank and abs(value) < largest:
            out[at] = value
    return out


@pytest.mark.parametrize("order", [">", "<"])
@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, 9),
    st.integers(0, 70),
    st.sampled_from([1.0, 0.1, 2.0**60]),
    st.sampled_from([0.0, 32768.0, -7.25]),
    st.sampled_from([NO_BLANK, -32768, 3]),
    st.sampled_from([np.inf, 1e18]),
    st.integers(0, 99),
)
def test_a_rectangle_is_that_of_the_oracle_and_nothing_else_is_touched(
    order, row, col, rows, cols, scale, zero, blank, largest, seed
):
    stored = np.random.default_rng(seed).integers(-32768, 32767, (13, 80), endpoint=True).astype(order + "i2")
    stored[np.random.default_rng(seed + 1).random(stored.shape) < 0.2] = 3
    out = np.full((15, 90), 5.0, np.float32)
    swapped = not stored.dtype.isnative
    numbers = np.float32(scale), np.float32(zero), blank, np.float32(largest)
    unpack_shorts(stored.view(np.uint16), swapped, row, col, *numbers, out, 2, 4, rows, cols)
    want = np.full_like(out, 5.0)
    want[2 : 2 + rows, 4 : 4 + cols] = oracle(stored[row : row + rows, col : col + cols], *numbers)
    np.testing.assert_array_equal(out, want)
