"""Aperture photometry of stars in every colour, on small demosaiced stamps."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.clipped import clipped_mean
from zmtile.kernels.demosaic import demosaic

__all__ = ["aperture_fluxes"]


@kernel
def aperture_fluxes(planes: Any, codes: Any, x: Any, y: Any, radius: float, flux: Any) -> None:
    """Sum each star in a circle, less the clipped mean of the ring around it.

    The circle's edge is soft (a pixel counts by how far it reaches inside along the radius), so
    the sum moves smoothly with the star's place; the ring lies between 1.5 and 2.5 radii.

    Parameters
    ----------
    planes : (1 or 3, rows, cols) float32
        Mosaic or grey frame, or its three colours.
    codes : (2, 2) uint8
        Channel of each phase of the mosaic; all zero for grey and colour frames.
    x, y : (stars,) float64
        Frame pixels.
    radius : float
        Pixels.
    flux : (channels, stars) float32
        Written: ADU; NaN where the aperture holds a pixel without data.
    """
    depth, rows, cols = planes.shape
    channels = flux.shape[0]
    reach = int(2.5 * radius) + 2
    side = 2 * reach + 1
    mosaic = np.empty((side, side), np.float32)
    stamp = np.empty((channels, side, side), np.float32)
    ring, distance = np.empty(side * side, np.float32), np.empty((side, side))
    scratch, keys = np.empty(256, np.float32), np.empty(256, np.int32)
    for star in range(x.size):
        row, col = int(round(y[star])) - reach, int(round(x[star])) - reach
        for c in range(depth):
            target = mosaic if depth < channels else stamp[c]
            for i in range(side):
                for j in range(side):
                    inside = 0 <= row + i < rows and 0 <= col + j < cols
                    target[i, j] = planes[c, row + i, col + j] if inside else np.float32(np.nan)
        if depth < channels:
            demosaic(mosaic, codes, row, col, stamp)
        for i in range(side):
            for j in range(side):
                distance[i, j] = np.sqrt((row + i - y[star]) ** 2 + (col + j - x[star]) ** 2)
        for c in range(channels):
            count = 0
            total = 0.0
            area = 0.0
            for i in range(side):
                for j in range(side):
                    away = distance[i, j]
                    value = stamp[c, i, j]
                    share = min(max(radius + 0.5 - away, 0.0), 1.0)
                    if share > 0.0:
                        total += share * value
                        area += share
                    elif 1.5 * radius <= away <= 2.5 * radius and not np.isnan(value):
                        ring[count] = value
                        count += 1
            sky, _, _ = clipped_mean(ring, count, scratch, keys)
            flux[c, star] = np.float32(total - area * sky)
