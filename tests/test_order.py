from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.kernels.order import kth_smallest, median, select, sort_both


@settings(deadline=None)  # the first call may compile
@given(st.lists(st.integers(-5, 5) | st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_the_median_and_every_place_are_those_of_the_sorted_values(values):
    assert median(np.array(values, np.float64), len(values)) == np.median(values)
    for k in range(len(values)):
        assert select(np.array(values, np.float64), len(values), k) == sorted(values)[k]


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60))
def test_bisection_finds_every_place_and_leaves_the_values(values):
    array = np.array(values, np.float32)
    keys = np.empty(array.size, np.int32)
    for k in range(array.size):
        assert kth_smallest(array, array.size, k, keys) == np.sort(array)[k]
    np.testing.assert_array_equal(array, np.array(values, np.float32))


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), max_size=80))
def test_what_belongs_to_a_value_moves_with_it(values):
    first, second = np.array(values, np.float64), np.array(values, np.float64) ** 2
    sort_both(first, second, len(values))
    np.testing.assert_array_equal(first, np.sort(values))
    np.testing.assert_array_equal(second, first**2)
