"""From a mosaic to three planes of colour; what is missing makes missing, never a number.

The demosaic has the linear filters of [Malvar2004]_, and gains of its own: a colour is the mean of
its nearest samples, plus a share of what the measured colour has at this pixel beyond its
surroundings. The mean alone blurs: stars of FWHM 3.15 px come out at 3.36 px. With the gain to
green, interpolated samples have the second moment of measured ones if a star is 2/3 as bright in
red and blue as in green, as cameras see most: it is neither blurred nor sharpened. Red and blue
keep a part of the blur unless a star is half as bright in them. The gains of the paper, 1/2, 3/4
and 1, sharpen: undersampled stars took on coloured rings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import kernel

__all__ = ["demosaic", "pattern_codes", "separate"]

# Of the correction to green where it was not measured; to red at blue and blue at red; to both at green.
TO_GREEN = np.float32(3 / 8)
TO_OPPOSITE = np.float32(1 / 4)
AT_GREEN = np.float32(1 / 3)


def pattern_codes(cfa: str) -> NDArray[np.uint8]:
    """Return the channel (0 R, 1 G, 2 B) of the four pixels of the 2×2 block, shape (2, 2) uint8."""
    return np.array(["RGB".index(c) for c in cfa], np.uint8).reshape(2, 2)


@kernel
def demosaic(mosaic: Any, codes: Any, row: int, col: int, out: Any) -> None:
    """Interpolate the three colours of a mosaic patch.

    A colour at a pixel that did not measure it is the mean of its 2 or 4 nearest samples; those
    are required to be there, so a NaN (a bad pixel, the edge of the sensor) is passed on. The
    outermost pixels of the patch become NaN in the colours that need a pixel outside it. The
    correction looks two pixels far; where one of these is missing, the mean stays as it is. So
    the correction costs no footprint, and a patch needs two pixels more than it is asked for.

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
    eighth = np.float32(0.125)
    zero = np.float32(0.0)
    for y in range(rows):
        inner_row, deep_row = 0 < y < rows - 1, 1 < y < rows - 2
        for x0 in range(min(2, cols)):  # one pass for each phase keeps the branch out of the loop
            code = codes[(y + row) & 1, (x0 + col) & 1]
            across = codes[(y + row) & 1, (x0 + col + 1) & 1]
            down = codes[(y + row + 1) & 1, (x0 + col) & 1]
            for x in range(x0, cols, 2):
                here = mosaic[y, x]
                inner_col = 0 < x < cols - 1
                beside = half * (mosaic[y, x - 1] + mosaic[y, x + 1]) if inner_col else nan
                above = half * (mosaic[y - 1, x] + mosaic[y + 1, x]) if inner_row else nan
                corner = far_x = far_y = nan
                if inner_row and inner_col:
                    corner = quarter * (
                        (mosaic[y - 1, x - 1] + mosaic[y - 1, x + 1])
                        + (mosaic[y + 1, x - 1] + mosaic[y + 1, x + 1])
                    )
                if deep_row and 1 < x < cols - 2:
                    far_x = half * (mosaic[y, x - 2] + mosaic[y, x + 2])
                    far_y = half * (mosaic[y - 2, x] + mosaic[y + 2, x])
                out[code, y, x] = here
                if code == 1:
                    level = half * (here - corner) + eighth * here
                    step = level + eighth * far_y - quarter * far_x
                    out[across, y, x] = beside + (AT_GREEN * step if step == step else zero)
                    step = level + eighth * far_x - quarter * far_y
                    out[down, y, x] = above + (AT_GREEN * step if step == step else zero)
                else:
                    step = here - half * (far_x + far_y)
                    step = step if step == step else zero
                    out[1, y, x] = half * (beside + above) + TO_GREEN * step
                    out[2 - code, y, x] = corner + TO_OPPOSITE * step


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
