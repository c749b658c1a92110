"""Kernel of the first pass that finds lone bright and dark pixels in the raw mosaic."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel

__all__ = ["lone_pixels"]


@kernel
def _excess(plane: Any, y: int, x: int, ring: Any) -> Any:
    """Return a pixel less the median of its colour around it, and the spread of these; NaN if unknown.

    The pixels of its colour around it are those two rows or columns away: in a mosaic the eight
    nearest, in a grey frame near enough, and beyond a star that fits between them.
    """
    rows, cols = plane.shape
    count = 0
    for dy in (-2, 0, 2):
        for dx in (-2, 0, 2):
            if (dy == 0 and dx == 0) or not (0 <= y + dy < rows and 0 <= x + dx < cols):
                continue
            value = plane[y + dy, x + dx]
            if value == value:
                ring[count] = value
                count += 1
    if count < 3:
        return np.float32(np.nan), np.float32(np.nan)
    part = np.sort(ring[:count])
    middle = np.float32(0.5) * (part[(count - 1) // 2] + part[count // 2])
    part = np.sort(np.abs(part - middle))
    return plane[y, x] - middle, np.float32(1.4826) * part[count // 2]


@kernel
def lone_pixels(plane: Any, codes: Any, noise: Any, kappa: float, share: float, out: Any) -> int:
    """Find pixels that stand out from their own colour while nothing around them does.

    A pixel stands out when it differs by more than `kappa` sigma from the median of its colour
    around it; sigma is the noise of the frame's sky or the spread around the pixel, whichever is
    larger. It is lone when its eight neighbours, whatever their colours, stand out by less than
    `share` of that in their mean: a star shares its light with them. The neighbour that stands out
    most is not counted, so that two hot pixels side by side are both found.

    Parameters
    ----------
    plane : (rows, cols) float32
        Raw mosaic or grey pixels; NaN is passed over.
    codes : (2, 2) uint8
        Channel of each phase of the mosaic; all zero for grey.
    noise : (channels,) float32
        Sigma of a pixel about the sky.
    kappa, share : float
    out : (m,) int64
        Written: the pixels found, as row · cols + col, ascending; no more than fit.

    Returns
    -------
    int
        How many were found.
    """
    rows, cols = plane.shape
    ring = np.empty(8, np.float32)
    found = 0
    for y in range(rows):
        for x in range(cols):
            value = plane[y, x]
            if np.isnan(value) or found == out.size:
                continue
            # What stands out from a median does so from half of the values; most pixels end here.
            step = np.float32(kappa) * noise[codes[y & 1, x & 1]]
            left = (1 + int(y >= 2) + int(y + 2 < rows)) * (1 + int(x >= 2) + int(x + 2 < cols)) - 1
            half = (left + 1) // 2
            above = below = 0
            for dy in range(-2, 3, 2):
                for dx in range(-2, 3, 2):
                    if (dy == 0 and dx == 0) or not (0 <= y + dy < rows and 0 <= x + dx < cols):
                        continue
                    other = plane[y + dy, x + dx]
                    above += 0 if value <= other + step else 1
                    below += 0 if value >= other - step else 1
                    left -= 1
                if max(above, below) + left < half:
                    break
            if max(above, below) < half:
                continue
            excess, spread = _excess(plane, y, x, ring)
            sign = np.float32(1.0) if excess > 0 else np.float32(-1.0)
            peak = sign * excess
            if not peak > np.float32(kappa) * max(noise[codes[y & 1, x & 1]], np.float32(0.7) * spread):
                continue
            total = highest = np.float32(0.0)
            count = 0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if (dy == 0 and dx == 0) or not (0 <= y + dy < rows and 0 <= x + dx < cols):
                        continue
                    near, _ = _excess(plane, y + dy, x + dx, ring)
                    if near == near:
                        near *= sign
                        highest = near if count == 0 else max(near, highest)
                        total += near
                        count += 1
            if count > 1 and total - highest < np.float32(share) * peak * np.float32(count - 1):
                out[found] = y * cols + x
                found += 1
    return found
