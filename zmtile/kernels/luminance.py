"""The image that stars are found on."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["light_of"]

# Pixels that are looked at together: most hold none that is bright.
_RUN = 256


@kernel
def _calm(plane: Any, y: int, x: int, codes: Any, local: Any, noise: Any) -> bool:
    """Tell whether a bright pixel stands alone: the pixels around it do not share its light."""
    rows, cols = plane.shape
    if y == 0 or x == 0 or y == rows - 1 or x == cols - 1:
        return False
    peak = plane[y, x] - local[codes[y & 1, x & 1]]
    around = np.float32(0.0)
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            if dy != 0 or dx != 0:
                around += plane[y + dy, x + dx] - local[codes[(y + dy) & 1, (x + dx) & 1]]
    return around < np.float32(8 * 0.06) * peak


@kernel
def _subtract(source: Any, offset: Any, bound: Any, out: Any) -> Any:
    """Subtract `offset`; return how many pixels are above `bound`, and how many are NaN."""
    bright = holes = np.int32(0)
    for x in range(source.size):
        value = source[x]
        out[x] = value - offset[x]
        bright += np.int32(1) if value > bound[x] else np.int32(0)
        holes += np.int32(1) if value != value else np.int32(0)
    return bright, holes


@kernel
def light_of(plane: Any, codes: Any, level: Any, cell: int, base: Any, noise: Any, out: Any) -> Any:
    """Level the colours of the mosaic, replace lone bright pixels by the sky, and average 2×2 blocks.

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
    out : (rows, cols) or (rows - 1, cols - 1) float32
        Written: the pixels less `base` of their colour; of one row and column less, the mean of the
        2×2 block at every position.

    Returns
    -------
    int, int
        Pixels replaced, and pixels of `plane` that are NaN.
    """
    rows, cols = plane.shape
    blocks = out.shape[0] < rows
    found = missing = 0
    local = np.empty(base.size, np.float32)
    lines = np.empty((2, cols), np.float32)  # the last two rows, calmed
    sky, limit = np.empty((2, cols), np.float32), np.empty((2, cols), np.float32)
    for y in range(rows):
        i = min(y // cell, level.shape[1] - 1)
        phase = y & 1
        if y < 2 or y % cell < 2:
            for x in range(cols):
                code = codes[phase, x & 1]
                here = level[code, i, min(x // cell, level.shape[2] - 1)]
                sky[phase, x] = base[code]
                limit[phase, x] = (here if here == here else base[code]) + np.float32(8.0) * noise[code]
        line, source = (lines[phase] if blocks else out[y]), plane[y]
        offset, bound = sky[phase], limit[phase]
        for first in range(0, cols, _RUN):
            last = min(first + _RUN, cols)
            bright, holes = _subtract(
                source[first:last], offset[first:last], bound[first:last], line[first:last]
            )
            missing += holes
            if bright == 0:
                continue
            for x in range(first, last):
                if source[x] > bound[x]:
                    for c in range(base.size):
                        here = level[c, i, min(x // cell, level.shape[2] - 1)]
                        local[c] = here if here == here else base[c]
                    if _calm(plane, y, x, codes, local, noise):
                        line[x] = local[codes[phase, x & 1]] - offset[x]
                        found += 1
        if blocks and y > 0:
            upper, lower, target = lines[phase ^ 1], lines[phase], out[y - 1]
            for x in range(cols - 1):
                target[x] = np.float32(0.25) * ((upper[x] + lower[x]) + (upper[x + 1] + lower[x + 1]))
    return found, missing
