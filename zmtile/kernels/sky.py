"""The sky of a frame: its noise, and its level in square cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.clipped import clipped_mean, finite_first
from zmtile.kernels.order import kth_smallest

__all__ = ["sky_mesh", "step_noise"]

# Samples that are collected together, of some cells of a row: those of all of them do not fit the cache.
_TOGETHER = 2**15


@kernel
def step_noise(plane: Any, row: int, col: int, down: int, across: int, values: Any, keys: Any) -> float:
    """Return the sigma of a sample from the differences of neighbours along rows, NaN without any.

    Differences cancel sky, gradient and nebula; clipping at 3 sigma drops stars.

    Parameters
    ----------
    plane : (rows, cols) float32
        NaN is passed over.
    row, col, down, across : int
        Samples are at rows ``row, row + down, ...`` and columns ``col, col + across, ...``.
    values, keys : (n,) float32 and int32
        Scratch for all differences.
    """
    rows, cols = plane.shape
    count = 0
    for y in range(row, rows, down):
        line = plane[y]
        steps = (cols - col - 1) // across
        for k in range(steps):
            x = col + k * across
            values[count + k] = abs(line[x + across] - line[x])
        count += max(steps, 0)
    count = finite_first(values, count)
    if count == 0:
        return np.nan
    sigma = 1.4826 * kth_smallest(values, count, (count - 1) >> 1, keys)
    if sigma == 0.0:  # most neighbours are equal: the noise is below the camera's step
        square = 0.0
        for i in range(count):
            square += float(values[i]) * float(values[i])
        sigma = np.sqrt(square / count)
    for _ in range(2):  # beyond the median: camera values come in steps too coarse for it
        kept, square = 0, 0.0
        for i in range(count):
            inside = values[i] <= 3.0 * sigma
            kept += 1 if inside else 0
            square += float(values[i]) * float(values[i]) if inside else 0.0
        sigma = np.sqrt(square / kept) / 0.98658 if kept else 0.0
    return sigma / np.sqrt(2.0)


@kernel
def _share_out(line: Any, cell: int, second: Any, values: Any, counts: Any) -> None:
    """Append all pixels of a row, or every second one, to the values of their cells.

    `second` is True or None, so that there is code for each: one for both took half as long again.
    """
    for j in range(counts.size):
        part, target = line[j * cell : (j + 1) * cell], values[j, counts[j] :]
        if second is None:
            width = part.size
            for k in range(width):
                target[k] = part[k]
        else:
            width = (part.size + 1) // 2
            for k in range(width):
                target[k] = part[2 * k]
        counts[j] += width


@kernel
def sky_mesh(planes: Any, codes: Any, cell: int, step: int, level: Any, sigma: Any, kept: Any) -> None:
    """Measure the sky of every colour in square cells: the clipped mean of its own samples.

    Rows are read in the order in which they are stored: cell by cell took three times as long.

    Parameters
    ----------
    planes : (1 or channels, rows, cols) float32
        Mosaic, or a plane for each channel; NaN is passed over.
    codes : (2, 2) uint8
        Channel of each phase of the mosaic; all zero for grey and colour frames.
    cell : int
        Side of a cell in pixels, even.
    step : int
        Every so many rows are looked at; 1 for a mosaic.
    level, sigma : (channels, cell rows, cell cols) float32
        Written: sky and the scatter of a sample about it; NaN where under a quarter of the samples remain.
    kept : (channels, cell rows, cell cols) int64
        Written: samples that remain.
    """
    channels, cell_rows, cell_cols = level.shape
    depth, rows, cols = planes.shape
    together = min(max(_TOGETHER // (cell * cell), 1), cell_cols)
    values = np.empty((together, cell * cell), np.float32)
    expected = np.empty(len(values), np.int64)
    scratch, keys = np.empty(256, np.float32), np.empty(256, np.int32)
    for i in range(cell_rows):
        for first in range(0, cell_cols, together):
            cells = min(together, cell_cols - first)
            left, right = first * cell, min((first + cells) * cell, cols)
            for c in range(channels):
                expected[:] = 0
                for y in range(i * cell, min((i + 1) * cell, rows), step):
                    line = planes[min(c, depth - 1), y, left:right]
                    if depth == channels:
                        _share_out(line, cell, None, values, expected[:cells])
                        continue
                    for phase in range(2):
                        if codes[y & 1, phase] == c:
                            _share_out(line[phase:], cell, True, values, expected[:cells])
                for k in range(cells):
                    j = first + k
                    count = finite_first(values[k], expected[k])
                    level[c, i, j], sigma[c, i, j], kept[c, i, j] = clipped_mean(
                        values[k], count, scratch, keys
                    )
                    if kept[c, i, j] * 4 < expected[k] or kept[c, i, j] < 16:
                        level[c, i, j] = sigma[c, i, j] = np.nan
