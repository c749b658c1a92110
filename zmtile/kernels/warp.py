"""Interpolation of a frame at the pixels of the tile, with the footprint carried by NaN itself."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import kernel

__all__ = ["COPY", "STEPS", "kernel_table", "lost_margin", "warp_block"]

# Positions between two pixels that a table holds; the nearest one is off by 1/4096 px at most.
STEPS = 2048
COPY = "copy"
_TAPS = {COPY: 1, "bilinear": 2, "cubic": 4, "lanczos3": 6, "lanczos4": 8}


@lru_cache(maxsize=8)
def kernel_table(name: str) -> NDArray[np.float32]:
    """Return the weights of a kernel for every position between two pixels.

    'cubic' is the convolution of [Keys1981]_ with a = -1/2 (Catmull-Rom), 'lanczos3' and
    'lanczos4' are the windowed sinc of [Duchon1979]_. Weights are normalised to sum to 1.

    Returns
    -------
    (STEPS + 1, taps) float32
        Row s: position s / STEPS right of the pixel that tap taps/2 - 1 belongs to. 'copy' has one
        row and one tap: a frame that is moved by whole pixels is not interpolated at all.
    """
    taps = _TAPS[name]
    if taps == 1:
        return np.ones((1, 1), np.float32)
    place = np.arange(STEPS + 1)[:, None] / STEPS
    t = np.abs(np.arange(1 - taps // 2, taps // 2 + 1)[None] - place)
    if name == "bilinear":
        weight = np.maximum(1.0 - t, 0.0)
    elif name == "cubic":
        near = (1.5 * t - 2.5) * t * t + 1.0
        far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
        weight = np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))
    else:
        weight = np.where(t < taps / 2, np.sinc(t) * np.sinc(t / (taps / 2)), 0.0)
    table: NDArray[np.float32] = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return table


def lost_margin(name: str, mosaic: bool) -> int:
    """Return how many pixels at the edge of a frame interpolation cannot reach."""
    return max(_TAPS[name] // 2 - 1, 0) + int(mosaic)


@kernel
def warp_block(
    planes: Any,
    row: int,
    col: int,
    matrix: Any,
    top: int,
    left: int,
    table: Any,
    clamp: bool,
    scale: Any,
    surface: Any,
    middle_x: float,
    middle_y: float,
    half: float,
    out: Any,
) -> None:
    """Sample a patch of a frame at a block of tile pixels and match it photometrically.

    A sample is a number only if every pixel under the kernel is: NaN outlasts any sum, also with a
    weight of zero, and outside the patch there is nothing.

    Parameters
    ----------
    planes : (channels, patch rows, patch cols) float32
        ADU; all that the block needs of the frame.
    row, col : int
        Frame pixel of ``planes[:, 0, 0]``.
    matrix : (2, 3) float64
        Tile pixel → frame pixel.
    top, left : int
        Tile pixel of the block's first pixel.
    table : (steps + 1, taps) float32
        Of `kernel_table`.
    clamp : bool
        Raise a value that undershoots all pixels under the kernel to the lowest of them: the dark
        ring that negative lobes leave around a star or a hot pixel. Peaks may overshoot.
    scale : (channels,) float32
    surface : (channels, 6) float64
        Added after scaling: coefficients of 1, u, v, u², uv, v², where (u, v) is the tile pixel
        less (middle_x, middle_y), divided by `half`.
    out : (channels, rows, cols) float32
        Written: matched samples, NaN where there is no data.
    """
    channels, patch_rows, patch_cols = planes.shape
    _, rows, cols = out.shape
    taps = table.shape[1]
    steps = table.shape[0] - 1
    before = 0 if taps == 1 else taps // 2 - 1
    nan = np.float32(np.nan)
    for i in range(rows):
        y = float(top + i)
        v = (y - middle_y) / half
        for j in range(cols):
            x = float(left + j)
            u = (x - middle_x) / half
            at_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
            at_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
            base_x = math.floor(at_x)
            base_y = math.floor(at_y)
            step_x = int((at_x - base_x) * steps + 0.5)
            step_y = int((at_y - base_y) * steps + 0.5)
            first_x = int(base_x) - before - col
            first_y = int(base_y) - before - row
            if first_x < 0 or first_y < 0 or first_x + taps > patch_cols or first_y + taps > patch_rows:
                for c in range(channels):
                    out[c, i, j] = nan
                continue
            for c in range(channels):
                total = np.float32(0.0)
                lowest = np.float32(np.inf)
                for b in range(taps):
                    line = np.float32(0.0)
                    for a in range(taps):
                        value = planes[c, first_y + b, first_x + a]
                        line += table[step_x, a] * value
                        lowest = min(lowest, value)
                    total += table[step_y, b] * line
                if clamp and total < lowest:
                    total = lowest
                sky = surface[c, 0] + u * (surface[c, 1] + u * surface[c, 3] + v * surface[c, 4])
                sky += v * (surface[c, 2] + v * surface[c, 5])
                out[c, i, j] = scale[c] * total + np.float32(sky)
