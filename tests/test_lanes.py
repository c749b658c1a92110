"""Rows of lanes as values: the same float32 as numpy makes, bit for bit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numba
import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features

from zmtile import winsorized_sigma_clip
from zmtile.kernels import kernel
from zmtile.kernels.lanes import (
    INF,
    LANES,
    ONE,
    ZERO,
    aligned,
    bits_of,
    choose,
    count_lanes,
    every,
    first_bit,
    highest,
    lowest,
    plus_product,
    put_lanes,
    root,
    take_lanes,
)
from zmtile.kernels.network import comparators, sort_lanes
from zmtile.kernels.ranks import ends, middle

FUSED = get_host_cpu_features().get("fma") or platform.machine() in ("aarch64", "arm64")
ODD = np.float32([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 3.4e38, 0.1])


def operands(seed):
    """Two rows of numbers of every size, among them those that are special."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, LANES)) * 10.0 ** rng.integers(-30, 30, (2, LANES))
    rows = rows.astype(np.float32)
    rows[0, :8], rows[1, :8] = rng.permutation(ODD), rng.permutation(ODD)
    rows[1, 8:12] = rows[0, 8:12]
    return rows


@numba.njit(error_model="numpy")
def arithmetic(rows, factor, out):
    a, b = take_lanes(rows, 0), take_lanes(rows, LANES)
    total = a
    total += b
    for k, value in enumerate((total, a - b, a * b, a / b, factor * a, a - factor, factor / a, root(a))):
        put_lanes(out, k * LANES, value)
    put_lanes(out, 8 * LANES, every(factor))


@numba.njit(error_model="numpy")
def sums_with_products(rows, thirds, out):
    put_lanes(out, 0, plus_product(take_lanes(thirds, 0), take_lanes(rows, 0), take_lanes(rows, LANES)))


@pytest.mark.parametrize("seed", range(20))
def test_a_product_is_added_with_one_rounding_where_the_processor_has_it(seed):
    rows, out = operands(seed), np.empty(LANES, np.float32)
    with np.errstate(all="ignore"):
        thirds = -np.roll(rows[0] * rows[1], seed % 3)  # some leave what is rounded off
        sums_with_products(rows, thirds, out)
        wide = np.longdouble(rows[0]) * rows[1] + thirds if FUSED else rows[0] * rows[1] + thirds
        np.testing.assert_array_equal(out, wide.astype(np.float32))


@numba.njit(error_model="numpy")
def extremes(rows, out):
    a, b = take_lanes(rows, 0), take_lanes(rows, LANES)
    put_lanes(out, 0, lowest(a, b))
    put_lanes(out, LANES, highest(b, a))


def test_extremes_are_the_two_numbers_themselves():
    rows = np.nan_to_num(operands(2), nan=7.0, posinf=np.inf, neginf=-np.inf)
    out = np.empty_like(rows)
    extremes(rows, out)
    assert np.array_equal(out, np.sort(rows, axis=0))
    # Of two zeros none is lost: the bits are those that were there.
    assert np.array_equal(np.sort(out.view(np.uint32), axis=0), np.sort(rows.view(np.uint32), axis=0))


@numba.njit(error_model="numpy")
def decisions(rows, out, counts):
    a, b = take_lanes(rows, 0), take_lanes(rows, LANES)
    either, both = (a < b) | (a > b), (a <= b) & (a >= b)
    for k, truth in enumerate((a < b, a <= b, a > b, a >= b, a == b, ~(a == a), either, both)):
        put_lanes(out, k * LANES, choose(truth, ONE, ZERO))
        counts[k] = count_lanes(truth)
        bits = bits_of(truth)
        while bits != 0:
            out[k, first_bit(bits)] += ONE
            bits &= bits - 1


@pytest.mark.parametrize("seed", range(20))
def test_every_operation_rounds_as_numpy_does(seed):
    rows = operands(seed)
    a, b = rows
    factor = np.float32(1.5)
    out = np.empty((9, LANES), np.float32)
    arithmetic(rows, factor, out)
    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b, a / b, factor * a, a - factor, factor / a, np.sqrt(a), a * 0 + 1]
    expected[8] = np.full(LANES, factor)
    for ours, theirs in zip(out, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        there = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(ours[there]), np.signbit(theirs[there]))


@pytest.mark.parametrize("seed", range(20))
def test_conditions_choose_count_and_go_into_bits(seed):
    rows = operands(seed)
    a, b = rows
    out = np.empty((8, LANES), np.float32)
    counts = np.empty(8, np.int64)
    decisions(rows, out, counts)
    expected = [a < b, a <= b, a > b, a >= b, a == b, np.isnan(a), (a < b) | (a > b), a == b]
    np.testing.assert_array_equal(out, 2.0 * np.array(expected))
    np.testing.assert_array_equal(counts, np.sum(expected, axis=1))


def test_memory_of_lanes_begins_at_a_line_of_the_cache():
    for size in (1, 33, 1000, 100000):
        made = aligned(size)
        assert (made.size, made.dtype, made.ctypes.data % 64) == (size, np.float32, 0)


@kernel
def ranks(queue, top, n, first, last, out):
    a, b = take_lanes(first, 0), take_lanes(last, 0)
    put_lanes(out, 0, middle(queue, top, n, a + b))
    low, high = ends(queue, top, n, a, b)
    put_lanes(out, LANES, low)
    put_lanes(out, 2 * LANES, high)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 21, 60])
def test_sorted_lanes_have_their_ends_and_median_at_their_own_ranks(n):
    rng = np.random.default_rng(n)
    queue = rng.normal(size=(2, n, LANES)).astype(np.float32)
    counts = rng.integers(0, n, LANES, endpoint=True)
    queue[1][np.arange(n)[:, None] >= counts] = INF
    queue[1] = rng.permuted(queue[1], axis=0)
    expected = np.sort(queue[1], axis=0)
    sort_lanes(queue, 2, comparators(n))
    np.testing.assert_array_equal(queue[1], expected)
    first = rng.integers(0, np.maximum(counts, 1))
    last = np.where(counts > 0, rng.integers(first + 1, np.maximum(counts, 1), endpoint=True), first)
    out = np.empty((3, LANES), np.float32)
    ranks(queue, n, n, first.astype(np.float32), last.astype(np.float32), out)
    for lane in np.flatnonzero(last > first):
        column = expected[first[lane] : last[lane], lane]
        assert out[1, lane] == column[0]
        assert out[2, lane] == column[-1]
        np.testing.assert_allclose(out[0, lane], np.median(column), rtol=1e-6, atol=1e-7)


# In a process of its own: how many lanes there are is settled when the kernels are defined.
OTHER_WIDTH = """
import sys
import numpy as np
from llvmlite import binding
class Other(binding.FeatureMap):
    def get(self, name):  # what numba compiles for, it takes from the items: the processor at hand
        return not super().get(name)
binding.get_host_cpu_features = lambda ask=binding.get_host_cpu_features: Other(ask())
from zmtile import winsorized_sigma_clip
from zmtile.kernels import kernel
from zmtile.kernels.lanes import LANES
with np.load(sys.argv[1]) as given:
    made = winsorized_sigma_clip(given["stack"], noises=given["noises"])
np.savez(sys.argv[2], lanes=LANES, **vars(made))
"""


def test_the_number_of_lanes_changes_no_pixel(tmp_path):
    rng = np.random.default_rng(0)
    stack = rng.normal(1000, 30, (21, 7, 101)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.02] += 900
    stack[rng.random(stack.shape) < 0.05] = np.nan
    noises = rng.uniform(20, 40, 21)
    np.savez(tmp_path / "given.npz", stack=stack, noises=noises)
    command = [sys.executable, "-c", OTHER_WIDTH, tmp_path / "given.npz", tmp_path / "made.npz"]
    subprocess.run(command, check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    ours = vars(winsorized_sigma_clip(stack, noises=noises))
    with np.load(tmp_path / "made.npz") as made:
        assert {LANES, int(made["lanes"])} == {16, 32}
        for name, plane in ours.items():
            assert np.array_equal(plane, made[name], equal_nan=True), name
