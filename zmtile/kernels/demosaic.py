"""From a mosaic to three planes of colour; what is missing makes missing, never a number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import kernel

__all__ = ["demosaic", "pattern_codes", "separate"]


def pattern_codes(cfa: str) -> NDArray[np.uint8]:
    """Return the channel (0 R, 1 G, 2 B) of the four pixels of the 2×2 block, shape (2, 2) uint8."""
    return np.array(["RGB".index(c) for c in cfa], np.uint8).reshape(2, 2)


@kernel
def demosaic(mosaic: Any, codes: Any, row: int, col: int, out: Any) -> None:
    """Interpolate the three colours of a mosaic patch.

    A colour at a pixel that did not measure it is the mean of its 2 or 4 nearest samples; those
    are required to be there, so a NaN (a bad pixel, the edge of the sensor) is passed on. The
    outermost pixels of the patch become NaN in the colours that need a pixel outside it.

    Parameters
    ----------
    mosaic : (rows, cols) float32
        Patch in ADU.
    codes : (2, 2) uint8
        Channel of the pixels of the frame's 2×2 block.
    row, col : int
        Frame pixel of ``mosaic[0, 0]`` (only its parity matters).
    out : (3, rows, cols) float32
        Written.
    """
    rows, cols = mosaic.shape
    nan = np.float32(np.nan)
    half = np.float32(0.5)
    quarter = np.float32(0.25)
    for y in range(rows):
        inner_row = 0 < y < rows - 1
        for x0 in range(min(2, cols)):  # one pass for each phase keeps the branch out of the loop
            code = codes[(y + row) & 1, (x0 + col) & 1]
            across = codes[(y + row) & 1, (x0 + col + 1) & 1]
            down = codes[(y + row + 1) & 1, (x0 + col) & 1]
            if code == 1:
                for x in range(x0, cols, 2):
                    out[1, y, x] = mosaic[y, x]
                    out[across, y, x] = (
                        half * (mosaic[y, x - 1] + mosaic[y, x + 1]) if 0 < x < cols - 1 else nan
                    )
                    out[down, y, x] = half * (mosaic[y - 1, x] + mosaic[y + 1, x]) if inner_row else nan
            else:
                other = 2 - code
                for x in range(x0, cols, 2):
                    out[code, y, x] = mosaic[y, x]
                    if inner_row and 0 < x < cols - 1:
                        out[1, y, x] = quarter * (
                            (mosaic[y, x - 1] + mosaic[y, x + 1]) + (mosaic[y - 1, x] + mosaic[y + 1, x])
                        )
                        out[other, y, x] = quarter * (
                            (mosaic[y - 1, x - 1] + mosaic[y - 1, x + 1])
                            + (mosaic[y + 1, x - 1] + mosaic[y + 1, x + 1])
                        )
                    else:
                        out[1, y, x] = nan
                        out[other, y, x] = nan


@kernel
def separate(mosaic: Any, codes: Any, row: int, col: int, out: Any) -> None:
    """Lay the pixels of a mosaic patch into the planes of their colours; nothing in between.

    Parameters
    ----------
    mosaic : (rows, cols) float32
        Patch in ADU.
    codes : (2, 2) uint8
        Channel of the pixels of the frame's 2×2 block.
    row, col : int
        Frame pixel of ``mosaic[0, 0]`` (only its parity matters).
    out : (3, rows, cols) float32
        Written: a pixel in the plane of its colour, NaN in the others.
    """
    rows, cols = mosaic.shape
    for y in range(rows):
        for x in range(cols):
            for c in range(3):
                out[c, y, x] = np.float32(np.nan)
            out[codes[(y + row) & 1, (x + col) & 1], y, x] = mosaic[y, x]
