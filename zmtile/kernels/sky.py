"""The sky of a frame: its noise, and its level in square cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.clipped import clipped_mean, finite_first
from zmtile.kernels.order import kth_smallest

__all__ = ["sky_mesh", "step_noise"]


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
def sky_mesh(planes: Any, codes: Any, cell: int, level: Any, error: Any) -> None:
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
    level, error : (channels, cell rows, cell cols) float32
        Written: sky and its standard error; NaN where under a quarter of the samples remain.
    """
    channels, cell_rows, cell_cols = level.shape
    depth, rows, cols = planes.shape
    values = np.empty((cell_cols, cell * cell), np.float32)
    expected = np.empty(cell_cols, np.int64)
    scratch, keys = np.empty(256, np.float32), np.empty(256, np.int32)
    for i in range(cell_rows):
        for c in range(channels):
            expected[:] = 0
            for y in range(i * cell, min((i + 1) * cell, rows)):
                for phase in range(2):
                    if depth < channels and codes[y & 1, phase] != c:
                        continue
                    line = planes[min(c, depth - 1), y]
                    for j in range(cell_cols):
                        left, right = j * cell + phase, min((j + 1) * cell, cols)
                        start = expected[j]
                        width = (right - left + 1) >> 1
                        for k in range(width):
                            values[j, start + k] = line[left + 2 * k]
                        expected[j] = start + width
            for j in range(cell_cols):
                count = finite_first(values[j], expected[j])
                centre, sigma, kept = clipped_mean(values[j], count, scratch, keys)
                if kept * 4 < expected[j] or kept < 16:
                    level[c, i, j] = np.nan
                    error[c, i, j] = np.nan
                else:
                    level[c, i, j] = centre
                    error[c, i, j] = sigma / np.sqrt(np.float32(kept))
