"""Least squares of a bent map on pairs of stars.

The models are those of `zmtile.registration.models`, by their number: 0 similarity, 1 affine,
2 homography, 3 quadratic and 4 cubic polynomial. Affine maps and polynomials are linear in their
parameters, and both coordinates depend on their own alike: they share one small normal matrix.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import kernel
from zmtile.kernels.bend import forward

__all__ = ["fit_bend", "slopes", "take_step"]

_SIMILARITY, _AFFINE, _HOMOGRAPHY, _QUADRATIC = 0, 1, 2, 3
_MOST = 20


@kernel
def _terms(model: int) -> int:
    """Return the number of terms of a polynomial above the first degree, of one coordinate."""
    return 0 if model < _QUADRATIC else 3 if model == _QUADRATIC else 7


@kernel
def _shared_row(model: int, bend: Any, x: float, y: float, row: Any) -> None:
    """Fill how a coordinate of a moved point depends on its own parameters, affine maps and polynomials."""
    row[0], row[1], row[2] = (x - bend[0]) / bend[2], (y - bend[1]) / bend[2], 1.0
    if model >= _QUADRATIC:
        u = min(max(row[0], -1.0), 1.0)
        v = min(max((y - bend[1]) / bend[3], -1.0), 1.0)
        row[3], row[4], row[5] = u * u, u * v, v * v
        if model > _QUADRATIC:
            row[6], row[7], row[8], row[9] = u * u * u, u * u * v, u * v * v, v * v * v


@kernel
def _rows(model: int, matrix: Any, bend: Any, x: float, y: float, row_x: Any, row_y: Any) -> None:
    """Fill how both coordinates of a moved point depend on all parameters."""
    dx, dy = x - bend[0], y - bend[1]
    row_x[:] = 0.0
    row_y[:] = 0.0
    if model == _SIMILARITY:
        row_x[0], row_x[1], row_x[2] = dx / bend[2], -dy / bend[2], 1.0
        row_y[0], row_y[1], row_y[3] = dy / bend[2], dx / bend[2], 1.0
    elif model == _HOMOGRAPHY:
        u, v = min(max(dx / bend[2], -1.0), 1.0), min(max(dy / bend[3], -1.0), 1.0)
        q = 1.0 / (1.0 + bend[4] * u + bend[5] * v)
        tilt_x = -(matrix[0, 0] * dx + matrix[0, 1] * dy) * q * q
        tilt_y = -(matrix[1, 0] * dx + matrix[1, 1] * dy) * q * q
        row_x[0], row_x[1], row_x[2] = dx * q / bend[2], dy * q / bend[2], 1.0
        row_y[3], row_y[4], row_y[5] = row_x[0], row_x[1], 1.0
        row_x[6], row_x[7] = tilt_x * u, tilt_x * v
        row_y[6], row_y[7] = tilt_y * u, tilt_y * v
    else:
        terms = _terms(model)
        shared = np.empty(_MOST // 2)
        _shared_row(model, bend, x, y, shared)
        row_x[:3], row_y[3:6] = shared[:3], shared[:3]
        row_x[6 : 6 + terms], row_y[6 + terms :] = shared[3 : 3 + terms], shared[3 : 3 + terms]


@kernel
def slopes(model: int, matrix: Any, bend: Any, points: Any, out: Any) -> None:
    """Fill `out` (2 n, parameters): the rows of the x of all points (n, 2), then those of their y."""
    count = points.shape[0]
    for k in range(count):
        _rows(model, matrix, bend, points[k, 0], points[k, 1], out[k], out[count + k])


@kernel
def take_step(model: int, step: Any, matrix: Any, bend: Any) -> None:
    """Add a step (parameters,) to a map, in place."""
    unit = bend[2]
    image_x = matrix[0, 0] * bend[0] + matrix[0, 1] * bend[1] + matrix[0, 2]
    image_y = matrix[1, 0] * bend[0] + matrix[1, 1] * bend[1] + matrix[1, 2]
    if model == _SIMILARITY:
        matrix[0, 0] += step[0] / unit
        matrix[0, 1] -= step[1] / unit
        matrix[1, 0] += step[1] / unit
        matrix[1, 1] += step[0] / unit
        image_x += step[2]
        image_y += step[3]
    else:
        matrix[0, 0] += step[0] / unit
        matrix[0, 1] += step[1] / unit
        matrix[1, 0] += step[3] / unit
        matrix[1, 1] += step[4] / unit
        image_x += step[2]
        image_y += step[5]
    matrix[0, 2] = image_x - matrix[0, 0] * bend[0] - matrix[0, 1] * bend[1]
    matrix[1, 2] = image_y - matrix[1, 0] * bend[0] - matrix[1, 1] * bend[1]
    if model == _HOMOGRAPHY:
        bend[4] += step[6]
        bend[5] += step[7]
    terms = _terms(model)
    for k in range(terms):
        bend[6 + k] += step[6 + k]
        bend[13 + k] += step[6 + terms + k]


@kernel
def _solve(normal: Any, right: Any, size: int) -> None:
    """Solve for every `right` (sides, size) in place, by Cholesky, of which only the lower half is read."""
    for j in range(size):
        for i in range(j, size):
            total = normal[i, j]
            for k in range(j):
                total -= normal[i, k] * normal[j, k]
            normal[i, j] = math.sqrt(total) if i == j else total / normal[j, j]
    for c in range(right.shape[0]):
        for i in range(size):
            total = right[c, i]
            for k in range(i):
                total -= normal[i, k] * right[c, k]
            right[c, i] = total / normal[i, i]
        for i in range(size - 1, -1, -1):
            total = right[c, i]
            for k in range(i + 1, size):
                total -= normal[k, i] * right[c, k]
            right[c, i] = total / normal[i, i]


@kernel
def _add(normal: Any, right: Any, row: Any, size: int, weight: float, gap: float) -> None:
    for i in range(size):
        slope = weight * row[i]
        right[i] += slope * gap
        for j in range(i + 1):
            normal[i, j] += slope * row[j]


@kernel
def fit_bend(
    model: int,
    matrix: Any,
    bend: Any,
    here: Any,
    there: Any,
    weight: Any,
    hold: float,
    bend_prior: float,
    turns: int,
) -> None:
    """Improve a map so that the points `here` go to those `there`; Gauss-Newton, in place.

    Parameters
    ----------
    model : int
    matrix : (2, 3) float64
    bend : (20,) float64
    here, there : (n, 2) float64
    weight : (n,) float64
        Inverse variances, 1/px².
    hold : float
        Weight of no change, 1/px².
    bend_prior : float
        Expected size of a bend at the border of the frame, px.
    turns : int
        Of a homography; the others are linear.
    """
    normal = np.empty((_MOST, _MOST))
    right, step = np.empty((2, _MOST)), np.empty(_MOST)
    row_x, row_y = np.empty(8), np.empty(8)
    coupled = model in (_SIMILARITY, _HOMOGRAPHY)
    terms = _terms(model)
    size = 3 + terms if not coupled else 4 if model == _SIMILARITY else 8
    for _ in range(turns if model == _HOMOGRAPHY else 1):
        normal[:size, :size] = 0.0
        right[:, :size] = 0.0
        for i in range(size):
            normal[i, i] = hold
        if model == _HOMOGRAPHY:
            area = abs(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0])
            stiff = bend[2] * bend[2] * area / bend_prior**2
            for i in (6, 7):
                normal[i, i] = stiff
                right[0, i] = -stiff * bend[i - 2]
        for k in range(terms):
            normal[3 + k, 3 + k] = bend_prior**-2.0
            right[0, 3 + k] = -(bend_prior**-2.0) * bend[6 + k]
            right[1, 3 + k] = -(bend_prior**-2.0) * bend[13 + k]
        for s in range(here.shape[0]):
            x, y = here[s, 0], here[s, 1]
            at_x, at_y, _ = forward(matrix, bend, x, y)
            gap_x, gap_y = there[s, 0] - at_x, there[s, 1] - at_y
            if coupled:
                _rows(model, matrix, bend, x, y, row_x[:size], row_y[:size])
                _add(normal, right[0], row_x, size, weight[s], gap_x)
                _add(normal, right[0], row_y, size, weight[s], gap_y)
            else:
                _shared_row(model, bend, x, y, step)
                _add(normal, right[0], step, size, weight[s], gap_x)
                for i in range(size):
                    right[1, i] += weight[s] * step[i] * gap_y
        _solve(normal, right[:1] if coupled else right, size)
        if coupled:
            step[:size] = right[0, :size]
        else:
            step[:3], step[3:6] = right[0, :3], right[1, :3]
            step[6 : 6 + terms], step[6 + terms : 6 + 2 * terms] = right[0, 3:size], right[1, 3:size]
        take_step(model, step, matrix, bend)
