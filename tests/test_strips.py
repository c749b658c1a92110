from __future__ import annotations

import copy
import dataclasses
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secondpass import differing, empty_planes, in_files, on_cpu, second_pass

from zmtile import Options
from zmtile.frames.pixels import Pixels, PixelsInFile
from zmtile.parallel import Kept
from zmtile.progress import NullProgress
from zmtile.stacking import strips
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.stack import stack_on_cpu

KINDS = {
    "mosaic": {},
    "colour planes": {"layout": "planes"},
    "interleaved floats": {"layout": "interleaved", "dtype": ">f4"},
    "bent": {"bent": True},
    "turned": {"turn": 0.9, "layout": "mono"},
    "grown": {"options": Options(grow=2)},
    # Frames end within the canvas, and the bend's reach beyond them.
    "bent, small": {"bent": True, "turn": 0.0, "canvas": Canvas(120, 140)},
    # Nodes beyond a block reach further than the bend.
    "bent a little, floats": {"bent": True, "bend_size": 0.05, "turn": 0.0, "layout": "mono", "dtype": ">f4"},
    "bent a little, shorts": {"bent": True, "bend_size": 0.05, "turn": 0.0, "layout": "mono"},
    "bytes and words": {"dtype": "u1", "layout": "mono"},
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(strips, "BLOCK_COLS", 16)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", 16 * 8)
    monkeypatch.setattr(strips, "MIN_BLOCK_PIXELS", 16 * 8)
    monkeypatch.setattr(strips, "WIDE_BLOCK_PIXELS", 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 5_000, 2**24])
def test_what_is_read_at_once_changes_no_bit(tmp_path, monkeypatch, small_blocks, kind, size):
    second = second_pass(**KINDS[kind])
    expected = on_cpu(second)
    monkeypatch.setattr("zmtile.stacking.stack.STRIP_BYTES", size)
    planes = empty_planes(second)
    stack_on_cpu(in_files(second, tmp_path), planes, 2, 2**28, NullProgress())
    assert differing(planes, expected) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "bent" in kind])
@pytest.mark.parametrize("rows", [5, 13])
def test_rows_hold_what_is_warped(tmp_path, monkeypatch, kind, rows):
    monkeypatch.setattr(strips, "BLOCK_COLS", 2 * 17)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", 17 * rows)
    monkeypatch.setattr(strips, "MIN_BLOCK_PIXELS", 17)
    monkeypatch.setattr("zmtile.stacking.stack.STRIP_BYTES", 0)
    second = second_pass(**KINDS[kind])
    expected = on_cpu(second)
    check = Pixels.patch

    def patch(pixels, row, col, rows, cols, out):
        end = np.add(pixels.first, pixels.stored.shape)
        assert np.less_equal(pixels.first, (row, col)).all()
        assert np.less_equal((row + rows, col + cols), end).all()
        return check(pixels, row, col, rows, cols, out)

    monkeypatch.setattr(Pixels, "patch", patch)
    planes = empty_planes(second)
    stack_on_cpu(in_files(second, tmp_path), planes, 2, 2**28, NullProgress())
    assert differing(planes, expected) == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 9),
    st.integers(0, 60_000),
    st.sampled_from(sorted(KINDS)),
)
def test_strips_are_the_blocks_in_their_order_and_fit_the_budget(rows, cols, workers, budget, kind):
    second = second_pass(**KINDS[kind] | {"canvas": Canvas(rows, cols)})
    blocks = [
        strips.Block(top, left, min(9, rows - top), min(7, cols - left))
        for top in range(0, rows, 9)
        for left in range(0, cols, 7)
    ]
    made = list(strips.strips_of(blocks, second, budget, workers))
    assert [block for strip in made for block in strip] == blocks
    reader = strips.Reader(second, Kept())
    for strip in made:
        assert len({block.top for block in strip}) == 1
        assert len(strip) == 1 or strips._bytes_under(strip, second) <= budget
        # What a thread has begun when the others are done is a small part of all.
        left = len(blocks) - blocks.index(strip[0])
        assert len(strip) <= max(left / (4 * workers), 1)
        reached = {k for k, s in enumerate(second.sources) for b in strip if s.need(b)[1]}
        assert reached <= set(reader.strip(strip))


def test_unpacked_frames_that_do_not_fit_the_shelf_are_let_go(monkeypatch, small_blocks):
    second = second_pass(frames=12)
    alive = weakref.WeakSet()

    def unpack(number):
        pixels = copy.copy(second.opened(number))
        alive.add(pixels)
        most.append(len(alive))
        return pixels

    most = []
    planes = empty_planes(second)
    stack_on_cpu(dataclasses.replace(second, opened=unpack), planes, 1, 2**28, NullProgress())
    assert max(most) <= 2
    assert differing(planes, on_cpu(second)) == []


def test_a_strip_that_fits_is_as_long_as_may_be():
    second = second_pass(canvas=Canvas(64, 64))
    blocks = [strips.Block(top, left, 8, 8) for top in range(0, 64, 8) for left in range(0, 64, 8)]
    assert [len(strip) for strip in strips.strips_of(blocks, second, 2**24, 1)][:2] == [8, 8]


def test_what_a_strip_holds_is_what_lies_under_it(tmp_path):
    second = in_files(second_pass(turn=0.0), tmp_path)
    blocks = [strips.Block(20, left, 10, 16) for left in (16, 32)]
    held = strips.Reader(second, Kept()).strip(blocks)
    assert sorted(held) == list(range(len(second.sources)))
    for number, pixels in held.items():
        assert 10 <= pixels.stored.shape[0] <= 10 + 2 * second.sources[number].reach + 2
        row, col, rows, cols = second.sources[number].bounds(blocks[1])
        whole = np.fromfile(tmp_path / str(number), ">i2", offset=6).reshape(70, 90)
        np.testing.assert_array_equal(
            pixels.raw(row, col, rows, cols), whole[row : row + rows, col : col + cols]
        )


def test_whole_rows_are_held_if_there_is_room(tmp_path):
    second = in_files(second_pass(), tmp_path)
    part, size = (20, 30, 10, 16), 10 * 90 * 2
    all_cols = strips.Reader(second, Kept(), size).rows(0, part)
    few_cols = strips.Reader(second, Kept(), size - 1).rows(0, part)
    assert (all_cols.stored.shape, few_cols.stored.shape) == ((10, 90), (10, 16))
    np.testing.assert_array_equal(all_cols.patch(*part), few_cols.patch(*part))


@pytest.mark.parametrize("together", [False, True])
def test_a_small_budget_is_for_what_is_read_too(tmp_path, monkeypatch, small_blocks, together):
    if together:
        monkeypatch.setattr(strips, "BLOCK_BYTES", 0)
    second = second_pass(turn=0.0)
    expected, read, sizes = on_cpu(second), PixelsInFile.part, []

    def part(pixels, row, col, rows, cols, room=None):
        if cols == 90:
            sizes.append(rows * cols * 2)
        return read(pixels, row, col, rows, cols, room)

    monkeypatch.setattr(PixelsInFile, "part", part)
    monkeypatch.setattr("zmtile.stacking.stack.STRIP_BYTES", 3000)
    for budget, most in ((2000, 1000), (2**20, 3000)):
        sizes.clear()
        planes = empty_planes(second)
        stack_on_cpu(in_files(second, tmp_path), planes, 2, budget, NullProgress())
        assert differing(planes, expected) == []
        assert max(sizes, default=0) <= most
