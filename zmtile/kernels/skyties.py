"""What the sky meshes of two overlapping frames say of each other, and its weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel
from zmtile.kernels.order import median

__all__ = ["biweight_ties", "common_sky", "less_medians", "less_surfaces", "noise_and_excess"]


@brief
def common_sky(
    there: Any,
    change: Any,
    own: Any,
    first: int,
    level: Any,
    other_first: int,
    variance: Any,
    cell: float,
    factor: Any,
    floor: Any,
    sign: float,
    at: int,
    here: Any,
    near: Any,
    difference: Any,
) -> int:
    """Compare the sky of a frame, at its cells, with that of another.

    Between the cells of the other its sky is interpolated linearly; its error is that of the nearest.
    Cells are those of all frames, one frame after the other.

    Parameters
    ----------
    there : (n, 2) float64
        The centres of the frame's cells in pixels of the other frame.
    change : (n,) float64
        Factor on the other's level, for its area of a pixel.
    own : (channels, cells) float64
        Sky, reference ADU.
    first, other_first : int
        Where the cells of the frame begin, and those of the other.
    level : (channels, rows, cols) float32
        Mesh of the other frame, its own ADU.
    variance : (channels, cells) float64
        Of the sky, reference ADU².
    cell : float
        Side of the other's cells, px.
    factor : (channels,) float64
        From its ADU to the reference's.
    floor : (channels,) float64
        Added to the variances, ADU².
    sign : float
        1 for other less own, -1 for own less other.
    at : int
        Where what is written begins.
    here, near : (m,) int32
        Written: the cells where the skies of both are known in all channels, and the other's nearest.
    difference : (channels, m) float64
        Written, for these cells.

    Returns
    -------
    int
        Where it ends.
    """
    channels, rows, cols = level.shape
    if rows < 2 or cols < 2:
        return at
    for n in range(there.shape[0]):
        x, y = (there[n, 0] + 0.5) / cell - 0.5, (there[n, 1] + 0.5) / cell - 0.5
        if not (0.0 <= x <= cols - 1.0 and 0.0 <= y <= rows - 1.0):
            continue
        j, i = min(int(x), cols - 2), min(int(y), rows - 2)
        u, v = x - j, y - i
        nearest = other_first + int(np.rint(y)) * cols + int(np.rint(x))
        good = True
        for c in range(channels):
            other = (
                level[c, i, j] * ((1.0 - u) * (1.0 - v))
                + level[c, i, j + 1] * (u * (1.0 - v))
                + level[c, i + 1, j] * ((1.0 - u) * v)
                + level[c, i + 1, j + 1] * (u * v)
            )
            other *= factor[c] * change[n]
            known = own[c, first + n]
            spread = _spread(variance[c, first + n], variance[c, nearest], floor[c])
            good = good and math.isfinite(other) and math.isfinite(known) and math.isfinite(spread)
            difference[c, at] = sign * (other - known)
        if good:
            here[at], near[at] = np.int32(first + n), np.int32(nearest)
            at += 1
    return at


@kernel
def _spread(own: float, other: float, floor: float) -> float:
    """Return the variance of the difference of two cells."""
    spread = own + other + floor
    # A frame without noise has meshes without error; any equal weight will do.
    return spread if not spread <= 0.0 else 1e-12


@brief
def less_medians(difference: Any, starts: Any, left: Any) -> None:
    """Fill `left` (n,) with the differences less the median of their pair; pair p begins at starts[p]."""
    for p in range(starts.size - 1):
        first, last = starts[p], starts[p + 1]
        for n in range(first, last):
            left[n] = difference[n]
        middle = median(left[first:last], last - first)
        for n in range(first, last):
            left[n] = difference[n] - middle


@kernel
def less_surfaces(
    u: Any, v: Any, here: Any, difference: Any, starts: Any, ends: Any, surface: Any, left: Any
) -> None:
    """Fill `left` (n,) with the differences less those of the surfaces (frames, terms) of their pair."""
    share = np.zeros(6)
    for p in range(starts.size - 1):
        for i in range(surface.shape[1]):
            share[i] = surface[ends[p, 0], i] - surface[ends[p, 1], i]
        a, b, c, d, e, f = share[0], share[1], share[2], share[3], share[4], share[5]
        for n in range(starts[p], starts[p + 1]):
            x, y = u[here[n]], v[here[n]]
            left[n] = difference[n] - (a + b * x + c * y + d * (x * x) + e * (x * y) + f * (y * y))


@kernel
def noise_and_excess(
    here: Any, near: Any, variance: Any, floor: Any, starts: Any, left: Any, scratch: Any
) -> tuple[float, float]:
    """Return the median of |left| in sigma of the noise of the meshes, and that of the noise's variance.

    Parameters
    ----------
    here, near, variance, floor, starts : arrays
        As for `biweight_ties`.
    left : (n,) float64
        One at least.
    scratch : (n,) float64
    """
    for p in range(starts.size - 1):
        for n in range(starts[p], starts[p + 1]):
            own = _spread(variance[here[n]], variance[near[n]], floor[p])
            scratch[n] = abs(left[n] / math.sqrt(own))
    pull = median(scratch, left.size)
    for p in range(starts.size - 1):
        for n in range(starts[p], starts[p + 1]):
            scratch[n] = _spread(variance[here[n]], variance[near[n]], floor[p])
    return pull, median(scratch, left.size)


@kernel
def biweight_ties(
    u: Any,
    v: Any,
    here: Any,
    near: Any,
    difference: Any,
    variance: Any,
    floor: Any,
    starts: Any,
    tuning: float,
    least: float,
    left: Any,
    block: Any,
    pull: Any,
) -> None:
    """Fill the normal equations of every pair, weighted by Tukey's biweight of what is left of its cells.

    Parameters
    ----------
    u, v : (cells,) float64
        Places of the cells of all frames.
    here, near : (n,) int32
        Which of them are compared.
    difference, left : (n,) float64
        Of their skies; `left` by the surfaces as they are.
    variance : (cells,) float64
        Of the sky. Every sample of it is seen twice, so that of a difference is doubled.
    floor : (pairs,) float64
        Added to the variances of a pair.
    starts : (pairs + 1,) int64
        Where the cells of each pair begin.
    tuning : float
        Of the biweight, in robust sigma.
    least : float
        Weight that no cell falls below.
    block : (pairs, terms, terms) float64
        Written; terms are 1, u, v, u², u·v, v² or the first 1 or 3 of them.
    pull : (pairs, terms) float64
        Written.
    """
    terms = pull.shape[1]
    most = 0
    for p in range(starts.size - 1):
        most = max(most, starts[p + 1] - starts[p])
    scratch, x, y = np.empty(most), np.empty(most), np.empty(most)
    moment, first_moment = np.empty(15), np.empty(6)
    for p in range(starts.size - 1):
        first, last = starts[p], starts[p + 1]
        for n in range(first, last):
            scratch[n - first] = abs(left[n])
        sigma = 1.4826 * median(scratch, last - first)
        for n in range(first, last):
            share = 1.0 if left[n] == 0.0 else least
            if sigma > 0.0:
                away = left[n] / (tuning * sigma)
                share = 1.0 - min(away * away, 1.0)
                share = max(share * share, least)
            spread = _spread(variance[here[n]], variance[near[n]], floor[p])
            scratch[n - first] = share / (2.0 * spread)
            x[n - first], y[n - first] = u[here[n]], v[here[n]]
        size = last - first
        _moments(terms, x[:size], y[:size], scratch, difference[first:last], moment, first_moment)
        # The places of u^i v^j among the moments: their order is that of the terms.
        for i in range(terms):
            pull[p, i] = first_moment[i]
            for j in range(terms):
                block[p, i, j] = moment[_PRODUCT[i, j]]


# Of terms i and j: 1, u, v, u², uv, v², u³, u²v, uv², v³, u⁴, u³v, u²v², uv³, v⁴.
_PRODUCT = np.array(
    [
        [0, 1, 2, 3, 4, 5],
        [1, 3, 4, 6, 7, 8],
        [2, 4, 5, 7, 8, 9],
        [3, 6, 7, 10, 11, 12],
        [4, 7, 8, 11, 12, 13],
        [5, 8, 9, 12, 13, 14],
    ]
)


@kernel
def _moments(terms: int, u: Any, v: Any, weight: Any, value: Any, moment: Any, first_moment: Any) -> None:
    """Sum the weighted products of two terms, and of each with the values."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = s9 = s10 = s11 = s12 = s13 = s14 = 0.0
    d0 = d1 = d2 = d3 = d4 = d5 = 0.0
    if terms < 6:
        for n in range(u.size):
            w, x, y = weight[n], u[n], v[n]
            wx, wy, wd = w * x, w * y, w * value[n]
            s0 += w
            s1 += wx
            s2 += wy
            s3 += wx * x
            s4 += wx * y
            s5 += wy * y
            d0 += wd
            d1 += wd * x
            d2 += wd * y
    else:
        for n in range(u.size):
            w, x, y = weight[n], u[n], v[n]
            wx, wy, wd = w * x, w * y, w * value[n]
            xx, xy, yy = x * x, x * y, y * y
            wxx, wxy, wyy = w * xx, w * xy, w * yy
            s0 += w
            s1 += wx
            s2 += wy
            s3 += wxx
            s4 += wxy
            s5 += wyy
            s6 += wx * xx
            s7 += wxx * y
            s8 += wx * yy
            s9 += wy * yy
            s10 += wxx * xx
            s11 += wxx * xy
            s12 += wxx * yy
            s13 += wxy * yy
            s14 += wyy * yy
            d0 += wd
            d1 += wd * x
            d2 += wd * y
            d3 += wd * xx
            d4 += wd * xy
            d5 += wd * yy
    moment[0], moment[1], moment[2], moment[3], moment[4], moment[5] = s0, s1, s2, s3, s4, s5
    moment[6], moment[7], moment[8], moment[9], moment[10], moment[11] = s6, s7, s8, s9, s10, s11
    moment[12], moment[13], moment[14] = s12, s13, s14
    first_moment[0], first_moment[1], first_moment[2] = d0, d1, d2
    first_moment[3], first_moment[4], first_moment[5] = d3, d4, d5
