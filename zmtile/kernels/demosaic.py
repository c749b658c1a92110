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
from zmtile.kernels.lanes import LANES, choose, put_lanes, take_lanes

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
        Written; contiguous.
    """
    rows, cols = mosaic.shape
    wide = (cols + LANES - 1) // LANES * LANES
    # Lines y - 2 … y + 2 of the patch, in turn, amid missing pixels.
    width = wide + 4
    lines = np.empty(5 * width, np.float32)
    lines[:] = np.nan
    made = np.empty(3 * LANES, np.float32)  # beyond the last whole vector of a line
    turns = np.empty(LANES + 1, np.float32)
    for k in range(LANES + 1):
        turns[k] = np.float32(k & 1)
    half, quarter, eighth = np.float32(0.5), np.float32(0.25), np.float32(0.125)
    zero = np.float32(0.0)
    for y in range(-2, rows):
        start = (y + 2) % 5 * width + 2
        if y + 2 < rows:
            for x in range(cols):
                lines[start + x] = mosaic[y + 2, x]
        else:
            lines[start : start + cols] = np.float32(np.nan)
        if y < 0:
            continue
        first = int(codes[(y + row) & 1, col & 1] != 1)  # green pixel
        own = int(codes[(y + row) & 1, (col + 1 - first) & 1])
        green = take_lanes(turns, first) == zero
        up2, up, at = (y + 3) % 5 * width, (y + 4) % 5 * width, y % 5 * width
        down, down2 = (y + 1) % 5 * width, (y + 2) % 5 * width
        for x in range(0, cols, LANES):
            here = take_lanes(lines, at + x + 2)
            beside = half * (take_lanes(lines, at + x + 1) + take_lanes(lines, at + x + 3))
            above = half * (take_lanes(lines, up + x + 2) + take_lanes(lines, down + x + 2))
            corner = quarter * (
                (take_lanes(lines, up + x + 1) + take_lanes(lines, up + x + 3))
                + (take_lanes(lines, down + x + 1) + take_lanes(lines, down + x + 3))
            )
            far_x = half * (take_lanes(lines, at + x) + take_lanes(lines, at + x + 4))
            far_y = half * (take_lanes(lines, up2 + x + 2) + take_lanes(lines, down2 + x + 2))
            # At green pixels: the line's colour, and the other one.
            level = half * (here - corner) + eighth * here
            step = level + eighth * far_y - quarter * far_x
            across = beside + choose(step == step, AT_GREEN * step, zero)
            step = level + eighth * far_x - quarter * far_y
            along = above + choose(step == step, AT_GREEN * step, zero)
            # At the others: green, and the other colour.
            step = here - half * (far_x + far_y)
            step = choose(step == step, step, zero)
            measured = choose(green, across, here)
            middle = choose(green, here, half * (beside + above) + TO_GREEN * step)
            other = choose(green, along, corner + TO_OPPOSITE * step)
            if x + LANES <= cols:
                put_lanes(out, (own * rows + y) * cols + x, measured)
                put_lanes(out, (rows + y) * cols + x, middle)
                put_lanes(out, ((2 - own) * rows + y) * cols + x, other)
            else:
                put_lanes(made, 0, measured)
                put_lanes(made, LANES, middle)
                put_lanes(made, 2 * LANES, other)
                for k in range(cols - x):
                    out[own, y, x + k], out[1, y, x + k] = made[k], made[LANES + k]
                    out[2 - own, y, x + k] = made[2 * LANES + k]


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
