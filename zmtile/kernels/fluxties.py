"""Flux ratios of the stars that two frames have in common."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import brief
from zmtile.kernels.order import median, sort_both

__all__ = ["log_ratios"]

_TURNS = 5


@brief
def log_ratios(
    flux_a: Any,
    flux_b: Any,
    i: Any,
    j: Any,
    error_a: Any,
    error_b: Any,
    floor: float,
    fewest: int,
    ratio: Any,
) -> None:
    """Fill `ratio` (channels, 2) with the robust mean of log(a / b) over stars and its standard error.

    Starts from the weighted median, so that saturated and variable stars do not count, and ends
    as the inverse-variance mean of the stars within 3 sigma.

    Parameters
    ----------
    flux_a, flux_b : (channels, stars) float32
        Of the brightest stars of both lists, ADU; NaN where not measurable.
    i, j : (n,) int64
        Places of the common stars in both lists.
    error_a, error_b : (channels,) float64
        Sigma of a flux by the noise of the sky, ADU. Stars below five of these do not count.
    floor : float
        No star's flux is trusted better than this, relative.
    fewest : int
        With fewer stars both numbers are NaN.
    """
    value, variance, scratch = np.empty(i.size), np.empty(i.size), np.empty(i.size)
    for c in range(flux_a.shape[0]):
        count = 0
        for n in range(i.size):
            if i[n] < flux_a.shape[1] and j[n] < flux_b.shape[1]:
                a, b = np.float64(flux_a[c, i[n]]), np.float64(flux_b[c, j[n]])
                if a > 5.0 * error_a[c] and b > 5.0 * error_b[c]:  # NaN compares false
                    value[count] = np.log(a / b)
                    variance[count] = (error_a[c] / a) ** 2 + (error_b[c] / b) ** 2 + 2.0 * floor**2
                    count += 1
        ratio[c, 0] = ratio[c, 1] = np.nan
        if count < fewest:
            continue
        sort_both(value, variance, count)
        total = share = 0.0
        for n in range(count):
            total += 1.0 / variance[n]
        middle = -1
        while share < 0.5 * total and middle < count - 1:
            middle += 1
            share += 1.0 / variance[middle]
        centre = value[middle]
        stretch, precision = 1.0, 0.0
        for _ in range(_TURNS):
            for n in range(count):
                scratch[n] = abs(value[n] - centre) / np.sqrt(variance[n])
            stretch = max(1.0, 1.4826 * median(scratch, count))
            precision = weighted = 0.0
            for n in range(count):
                if abs(value[n] - centre) / np.sqrt(variance[n]) <= 3.0 * stretch:
                    precision += 1.0 / variance[n]
                    weighted += value[n] / variance[n]
            centre = weighted / precision
        ratio[c, 0], ratio[c, 1] = centre, stretch / np.sqrt(precision)
