"""The image that stars are found on."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["calm_hot_pixels", "mean_of_blocks", "subtract_twice"]


@kernel
def calm_hot_pixels(plane: Any, codes: Any, level: Any, cell: int, base: Any, noise: Any, out: Any) -> int:
    """Level the colours of the mosaic and replace lone bright pixels by the sky, for star detection only.

    A star of FWHM 1.8 px still puts 0.3 of its peak on the mean of the eight pixels around it, a
    hot pixel nothing; the limit is 0.06 of the peak, for peaks above 8 sigma.

    Parameters
    ----------
    plane : (rows, cols) float32
    codes : (2, 2) uint8
        Channel of each phase; all zero for grey.
    level : (channels, cell rows, cell cols) float32
        Sky mesh; a NaN cell counts as `base`.
    cell : int
        Side of its cells in pixels.
    base, noise : (channels,) float32
        Sky over the whole frame, and sigma of a pixel.
    out : (rows, cols) float32
        Written: the pixels less `base` of their colour.

    Returns
    -------
    int
        Pixels replaced.
    """
    rows, cols = plane.shape
    found = 0
    local = np.empty(base.size, np.float32)
    for y in range(rows):
        for x in range(cols):
            code = codes[y & 1, x & 1]
            value = plane[y, x] - base[code]
            out[y, x] = value
            if (
                not value > np.float32(4.0) * noise[code]
                or y == 0
                or x == 0
                or y == rows - 1
                or x == cols - 1
            ):
                continue
            for c in range(base.size):
                local[c] = level[c, min(y // cell, level.shape[1] - 1), min(x // cell, level.shape[2] - 1)]
                if np.isnan(local[c]):
                    local[c] = base[c]
            peak = plane[y, x] - local[code]
            if not peak > np.float32(8.0) * noise[code]:
                continue
            around = np.float32(0.0)
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if dy != 0 or dx != 0:
                        around += plane[y + dy, x + dx] - local[codes[(y + dy) & 1, (x + dx) & 1]]
            if around < np.float32(8 * 0.06) * peak:
                out[y, x] = local[code] - base[code]
                found += 1
    return found


@kernel
def mean_of_blocks(plane: Any) -> Any:
    """Return the mean of the 2×2 block at every position, (rows - 1, cols - 1) float32."""
    rows, cols = plane.shape
    out = np.empty((rows - 1, cols - 1), np.float32)
    for y in range(rows - 1):
        for x in range(cols - 1):
            out[y, x] = np.float32(0.25) * (
                (plane[y, x] + plane[y + 1, x]) + (plane[y, x + 1] + plane[y + 1, x + 1])
            )
    return out


@kernel
def subtract_twice(plane: Any, half: Any) -> None:
    """Subtract from a plane another that has its every second row and column."""
    rows, cols = plane.shape
    for y in range(rows):
        for x in range(cols >> 1):
            plane[y, 2 * x] -= half[y >> 1, x]
            plane[y, 2 * x + 1] -= half[y >> 1, x]
        if cols & 1:
            plane[y, cols - 1] -= half[y >> 1, cols >> 1]
