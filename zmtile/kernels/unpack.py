"""From the 16-bit integers of a file to ADU: the way that the pixels of nearly every camera take."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["NO_BLANK", "unpack_shorts"]

# No 16-bit integer is this.
NO_BLANK = 2**16


@kernel
def unpack_shorts(
    stored: Any,
    swapped: bool,
    row: int,
    col: int,
    scale: float,
    zero: float,
    blank: int,
    largest: float,
    out: Any,
    top: int,
    left: int,
    rows: int,
    cols: int,
) -> None:
    """Turn a rectangle of stored integers into float32 values, in one way through them.

    Parameters
    ----------
    stored : (rows, cols) uint16
        Their bits, as they lie in the file.
    swapped : bool
        The bytes are in the other order.
    row, col : int
        Where the rectangle begins.
    scale, zero : float32
        BSCALE and BZERO.
    blank : int
        The integer without a value; `NO_BLANK` if there is none.
    largest : float32
        What is not below it, in size, becomes NaN.
    out : (rows, cols) float32
        Written, from row `top` and column `left` on.
    rows, cols : int
        Size of the rectangle.
    """
    nothing, missing = np.float32(np.nan), np.int32(blank)
    for y in range(rows):
        line, values = stored[row + y, col : col + cols], out[top + y, left : left + cols]
        for x in range(cols):
            bits = line[x]
            if swapped:
                bits = np.uint16((bits << 8) | (bits >> 8))
            number = np.int32(np.int16(bits))
            value = np.float32(number) * scale + zero
            values[x] = value if (number != missing) & (abs(value) < largest) else nothing
