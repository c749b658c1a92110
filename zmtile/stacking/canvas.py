"""Frame up: how much of the sky the tile shows, as a rectangle of reference pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.frames.frame import Frame
from zmtile.registration.mapping import Map, apply, border, invert
from zmtile.registration.transform import corners

__all__ = ["Canvas", "frame_up"]


@dataclass(frozen=True)
class Canvas:
    """Extent of the tile.

    Attributes
    ----------
    rows, cols : int
        Size, px.
    x0, y0 : int
        Reference pixel that is tile pixel (0, 0).
    """

    rows: int
    cols: int
    x0: int = 0
    y0: int = 0


def frame_up(
    frames: Sequence[Frame], maps: Sequence[Map], reference: int, framing: str, margins: Sequence[int] = ()
) -> Canvas:
    """Return the canvas for the registered frames.

    Parameters
    ----------
    frames, maps : sequences of the same length
        Registered frames and their maps to the reference.
    reference : int
        Index of the reference among them.
    margins : sequence of int, optional
        Pixels at the edge of each frame that the intersection keeps clear of: what interpolation
        cannot reach.
    framing : {'reference', 'union', 'intersection'}
        The reference frame; the smallest rectangle around all frames; the largest rectangle that
        every frame covers.

    Raises
    ------
    UsageError
        When the intersection is empty.
    """
    if framing == "reference":
        return Canvas(frames[reference].rows, frames[reference].cols)
    if framing == "union":
        every = np.concatenate([border(m, f.rows, f.cols) for f, m in zip(frames, maps, strict=True)])
        # A frame that ends a hair beyond a pixel's centre (rounding) does not buy a row.
        x0, y0 = (int(v) for v in np.floor(every.min(axis=0) + 1e-6))
        x1, y1 = (int(v) for v in np.ceil(every.max(axis=0) - 1e-6))
        return Canvas(y1 - y0 + 1, x1 - x0 + 1, x0, y0)
    inner = [
        _inner(m, f, margin) for f, m, margin in zip(frames, maps, margins or [0] * len(frames), strict=True)
    ]
    box = _largest_rectangle(inner)
    if box is None:
        raise UsageError(
            "the registered frames have no rectangle in common",
            "Choose --framing reference or --framing union.",
        )
    x0, y0, x1, y1 = box
    return Canvas(y1 - y0 + 1, x1 - x0 + 1, x0, y0)


def _inner(moved_by: Map, frame: Frame, margin: int) -> NDArray[np.float64]:
    """Return four corners whose straight sides stay inside a frame, `margin` px from its border.

    The border of a bent frame is curved; where it curves inwards, the corners move in until it does
    not cross their straight sides any more.
    """
    inset = float(margin)
    while True:
        ends = apply(moved_by, corners(frame.rows - 2 * inset, frame.cols - 2 * inset) + inset)
        if isinstance(moved_by, np.ndarray) or min(frame.rows, frame.cols) <= 2 * inset:
            return ends
        share = np.arange(1, 64)[:, None] / 64
        sides = [a + share * (b - a) for a, b in zip(ends, np.roll(ends, -1, axis=0), strict=True)]
        x, y = apply(invert(moved_by), np.concatenate(sides)).T
        room = min(x.min(), y.min(), (frame.cols - 1 - x).min(), (frame.rows - 1 - y).min()) - margin
        if room >= 0:
            return ends
        inset += max(-room, 0.01)


def _largest_rectangle(outlines: Sequence[NDArray[np.float64]]) -> tuple[int, int, int, int] | None:
    """Return x0, y0, x1, y1 of the largest upright pixel rectangle inside all convex outlines.

    The intersection is convex: between its left and right end, the lowest row allowed is a convex
    function of the column and the highest a concave one. So a rectangle fits between two columns
    exactly when it fits at both, and the best two columns are searched on ever finer grids.
    """
    low = max(math.ceil(o[:, 0].min() - 1e-6) for o in outlines)
    high = min(math.floor(o[:, 0].max() + 1e-6) for o in outlines)
    if high < low:
        return None
    columns = np.arange(low, high + 1)
    top, bottom = np.full(columns.size, -np.inf), np.full(columns.size, np.inf)
    for outline in outlines:
        first, last = _span(outline, columns.astype(np.float64))
        top, bottom = np.maximum(top, first), np.minimum(bottom, last)
    top, bottom = np.ceil(top - 1e-6), np.floor(bottom + 1e-6)
    best, answer = 0.0, None
    lefts = rights = np.arange(columns.size)
    step = max(1, columns.size // 128)
    while True:
        left, right = np.meshgrid(lefts[::step], rights[::step], indexing="ij")
        height = np.minimum(bottom[left], bottom[right]) - np.maximum(top[left], top[right]) + 1
        area = np.where((height > 0) & (right >= left), height * (right - left + 1), 0)
        if area.max() > best:
            at = np.unravel_index(int(area.argmax()), area.shape)
            best, answer = float(area[at]), (int(left[at]), int(right[at]))
        if step == 1 or answer is None:
            break
        around = 2 * step
        lefts = np.arange(max(0, answer[0] - around), min(columns.size, answer[0] + around + 1))
        rights = np.arange(max(0, answer[1] - around), min(columns.size, answer[1] + around + 1))
        step = max(1, step // 8)
    if answer is None:
        return None
    left_at, right_at = answer
    y0 = int(max(top[left_at], top[right_at]))
    y1 = int(min(bottom[left_at], bottom[right_at]))
    return int(columns[left_at]), y0, int(columns[right_at]), y1


def _span(
    outline: NDArray[np.float64], columns: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest y of a convex outline at each column; an empty span outside."""
    low, high = np.full(columns.size, np.inf), np.full(columns.size, -np.inf)
    for (xa, ya), (xb, yb) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        on = (columns >= min(xa, xb) - 1e-6) & (columns <= max(xa, xb) + 1e-6)
        for y in (ya, yb) if abs(xb - xa) < 1e-9 else (ya + (columns - xa) / (xb - xa) * (yb - ya),):
            low = np.where(on, np.minimum(low, y), low)
            high = np.where(on, np.maximum(high, y), high)
    return low, high
