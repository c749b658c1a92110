from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile import UsageError
from zmtile.frames.frame import Frame
from zmtile.registration.transform import IDENTITY, apply, corners
from zmtile.stacking.canvas import Canvas, frame_up


def frame(rows=60, cols=100):
    return Frame(Path("f.fits"), "f.fits", rows, cols, "mono", "", fits.Header())


def turn(degrees, x=0.0, y=0.0):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, x], [s, c, y]])


def shift(x, y):
    return np.array([[1.0, 0, x], [0, 1, y]])


def test_reference():
    assert frame_up([frame(), frame(10, 10)], [IDENTITY, shift(500, 0)], 0, "reference") == Canvas(60, 100)


def test_union_and_intersection_of_shifted_frames():
    frames, matrices = [frame(), frame()], [IDENTITY, shift(10.5, -20)]
    assert frame_up(frames, matrices, 0, "union") == Canvas(80, 111, 0, -20)
    assert frame_up(frames, matrices, 0, "intersection") == Canvas(40, 89, 11, 0)


def test_no_intersection():
    with pytest.raises(UsageError, match="no rectangle in common"):
        frame_up([frame(), frame()], [IDENTITY, shift(200, 0)], 0, "intersection")


matrices = st.lists(
    st.tuples(st.floats(-180, 180), st.floats(-30, 130), st.floats(-30, 90)), min_size=1, max_size=4
)


@given(matrices)
@settings(max_examples=60, deadline=None)
def test_union_holds_every_corner(placed):
    placed = [IDENTITY] + [turn(*p) for p in placed]
    frames = [frame() for _ in placed]
    canvas = frame_up(frames, placed, 0, "union")
    for matrix in placed:
        x, y = apply(matrix, corners(60, 100)).T
        assert x.min() >= canvas.x0 - 1e-5
        assert y.min() >= canvas.y0 - 1e-5
        assert x.max() <= canvas.x0 + canvas.cols - 1 + 1e-5
        assert y.max() <= canvas.y0 + canvas.rows - 1 + 1e-5


@given(matrices)
@settings(max_examples=60, deadline=None)
def test_intersection_is_covered_by_all_and_nearly_the_largest(placed):
    placed = [IDENTITY] + [turn(*p) for p in placed]
    frames = [frame() for _ in placed]
    inside = np.ones((60, 100), bool)
    y, x = np.mgrid[:60, :100]
    xy = np.column_stack([x.ravel(), y.ravel()]).astype(float)
    for matrix in placed:
        linear = np.linalg.inv(matrix[:, :2])
        fx, fy = ((xy - matrix[:, 2]) @ linear.T).T
        inside &= ((fx >= -1e-5) & (fy >= -1e-5) & (fx <= 99 + 1e-5) & (fy <= 59 + 1e-5)).reshape(60, 100)
    try:
        canvas = frame_up(frames, placed, 0, "intersection")
    except UsageError:
        assert largest_rectangle(inside) <= 1
        return
    assert inside[canvas.y0 : canvas.y0 + canvas.rows, canvas.x0 : canvas.x0 + canvas.cols].all()
    assert canvas.rows * canvas.cols >= 0.97 * largest_rectangle(inside)


def largest_rectangle(mask):
    """Area of the largest rectangle of True, by trying every pair of rows."""
    best = 0
    for top in range(mask.shape[0]):
        run = np.ones(mask.shape[1], bool)
        for bottom in range(top, mask.shape[0]):
            run &= mask[bottom]
            edges = np.flatnonzero(np.diff(np.concatenate([[0], run, [0]])))
            if not edges.size:
                break
            best = max(best, int((edges[1::2] - edges[::2]).max()) * (bottom - top + 1))
    return best
