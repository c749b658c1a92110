"""Kernels of the first pass: hot pixels, the noise of the sky, its mesh."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["calm_hot_pixels", "clipped_mean", "sky_mesh"]


@kernel
def _select(values: Any, count: int, k: int) -> float:
    """Return the k-th smallest of the first `count` values (Hoare's quickselect); reorders them."""
    low, high = 0, count - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            break
    return values[k]


@kernel
def clipped_mean(values: Any, count: int, scratch: Any) -> Any:
    """Return mean, sigma and number of the values within 2.5 sigma of their mean.

    The clip starts at the median and MAD of up to 256 of the values and is iterated three times
    from there. The level is a mean in the end because cameras write coarse steps (10 ADU are
    usual), and a median cannot do better than a step.

    Parameters
    ----------
    values : (n,) float32
        The first `count` of them are used.
    scratch : (256,) float32
    """
    stride = max(1, count // 256)
    few = min(256, (count + stride - 1) // stride)
    if count == 0:
        return np.float32(np.nan), np.float32(np.nan), 0
    for i in range(few):
        scratch[i] = values[i * stride]
    centre = _select(scratch, few, (few - 1) >> 1)
    for i in range(few):
        scratch[i] = abs(values[i * stride] - centre)
    sigma = np.float32(1.4826) * _select(scratch, few, (few - 1) >> 1)
    if sigma == 0.0:  # most values are equal: the noise is below the camera's step
        square = 0.0
        for i in range(few):
            square += scratch[i] * scratch[i]
        sigma = np.float32(np.sqrt(square / few))
    kept = 0
    for _ in range(3):
        kept = 0
        total = 0.0
        square = 0.0
        limit = np.float32(2.5) * sigma
        for i in range(count):
            d = values[i] - centre
            if abs(d) <= limit:
                kept += 1
                total += d
                square += d * d
        if kept < 2:
            break
        mean = total / kept
        spread = max(square / kept - mean * mean, 0.0)
        # A Gaussian cut at 2.5 sigma has 0.9546 of its SD left.
        centre, sigma = np.float32(centre + mean), np.float32(np.sqrt(spread) / 0.9546)
    return centre, sigma, kept


@kernel
def sky_mesh(plane: Any, codes: Any, channel: int, cell: int, level: Any, error: Any) -> None:
    """Measure the sky of one colour in square cells: the clipped mean of its own samples.

    Parameters
    ----------
    plane : (rows, cols) float32
        Mosaic or grey pixels; NaN is passed over.
    codes : (2, 2) uint8
        Channel of each phase of the mosaic; all zero for grey.
    channel : int
        The colour that is measured.
    cell : int
        Side of a cell in pixels, even.
    level, error : (cell rows, cell cols) float32
        Written: sky and its standard error; NaN where under a quarter of the samples remain.
    """
    rows, cols = plane.shape
    values = np.empty(cell * cell, np.float32)
    scratch = np.empty(256, np.float32)
    for i in range(level.shape[0]):
        for j in range(level.shape[1]):
            count = 0
            expected = 0
            for phase in range(4):
                if codes[phase >> 1, phase & 1] != channel:
                    continue
                for y in range(i * cell + (phase >> 1), min((i + 1) * cell, rows), 2):
                    for x in range(j * cell + (phase & 1), min((j + 1) * cell, cols), 2):
                        expected += 1
                        value = plane[y, x]
                        values[count] = value
                        count += 1 if value == value else 0
            centre, sigma, kept = clipped_mean(values, count, scratch)
            if kept * 4 < expected or kept < 16:
                level[i, j] = np.nan
                error[i, j] = np.nan
            else:
                level[i, j] = centre
                error[i, j] = sigma / np.sqrt(np.float32(kept))


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
