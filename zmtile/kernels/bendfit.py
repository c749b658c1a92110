"""Least squares of a bent map on pairs of stars.

The models are those of `zmtile.registration.models`, by their number: 0 similarity, 1 affine,
2 homography, 3 quadratic and 4 cubic polynomial. Affine maps and polynomials are linear in their
parameters, and both coordinates depend on their own alike: they share one small normal matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel
from zmtile.kernels.bend import bend_point
from zmtile.kernels.leastsquares import solve_positive

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
def _homography_rows(matrix: Any, bend: Any, x: float, y: float, row_x: Any, row_y: Any) -> None:
    """Fill how both coordinates of a moved point depend on all parameters of a homography."""
    dx, dy = x - bend[0], y - bend[1]
    u, v = min(max(dx / bend[2], -1.0), 1.0), min(max(dy / bend[3], -1.0), 1.0)
    q = 1.0 / (1.0 + bend[4] * u + bend[5] * v)
    for i in range(3):
        slope = dx * q / bend[2] if i == 0 else dy * q / bend[2] if i == 1 else 1.0
        row_x[i] = row_y[i + 3] = slope
        row_x[i + 3] = row_y[i] = 0.0
    tilt_x = -(matrix[0, 0] * dx + matrix[0, 1] * dy) * q * q
    tilt_y = -(matrix[1, 0] * dx + matrix[1, 1] * dy) * q * q
    for i in range(2):
        row_x[6 + i] = tilt_x * (u if i == 0 else v)
        row_y[6 + i] = tilt_y * (u if i == 0 else v)


@brief
def slopes(model: int, matrix: Any, bend: Any, points: Any, out: Any) -> None:
    """Fill `out` (2 n, parameters): the rows of the x of all points (n, 2), then those of their y."""
    count = points.shape[0]
    terms = _terms(model)
    shared = np.empty(_MOST // 2)
    out[:] = 0.0
    for k in range(count):
        x, y = points[k, 0], points[k, 1]
        row_x, row_y = out[k], out[count + k]
        if model == _HOMOGRAPHY:
            _homography_rows(matrix, bend, x, y, row_x, row_y)
            continue
        _shared_row(model, bend, x, y, shared)
        if model == _SIMILARITY:
            row_x[0], row_x[1], row_x[2] = shared[0], -shared[1], 1.0
            row_y[0], row_y[1], row_y[3] = shared[1], shared[0], 1.0
            continue
        for i in range(3 + terms):
            row_x[i if i < 3 else i + 3] = shared[i]
            row_y[i + 3 if i < 3 else i + 3 + terms] = shared[i]


@kernel
def take_step(model: int, step: Any, matrix: Any, bend: Any) -> None:
    """Add a step (parameters,) to a map, in place."""
    for i in range(2):
        if model == _SIMILARITY:
            along, across, shift = step[i], step[1 - i], step[2 + i]
            across = -across if i == 0 else across
        else:
            along, across, shift = step[3 * i], step[3 * i + 1], step[3 * i + 2]
        along, across = along / bend[2], across / bend[2]
        matrix[i, 0] += along
        matrix[i, 1] += across
        matrix[i, 2] += shift - along * bend[0] - across * bend[1]
        if model == _HOMOGRAPHY:
            bend[4 + i] += step[6 + i]
    terms = _terms(model)
    for k in range(terms):
        bend[6 + k] += step[6 + k]
        bend[13 + k] += step[6 + terms + k]


@kernel
def _add(normal: Any, right: Any, row: Any, size: int, weight: float, gap: float) -> None:
    for i in range(size):
        slope = weight * row[i]
        right[i] += slope * gap
        for j in range(i + 1):
            normal[i, j] += slope * row[j]


@brief
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
        Not a similarity.
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
    row_x, row_y = np.empty(_MOST // 2), np.empty(_MOST // 2)
    coupled = model == _HOMOGRAPHY
    terms = _terms(model)
    size = 8 if coupled else 3 + terms
    for _ in range(turns if coupled else 1):
        normal[:] = 0.0
        right[:] = 0.0
        for i in range(size):
            normal[i, i] = hold
        if coupled:
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
            at_x, at_y, _ = bend_point(matrix, bend, x, y)
            gap_x, gap_y = there[s, 0] - at_x, there[s, 1] - at_y
            if coupled:
                _homography_rows(matrix, bend, x, y, row_x, row_y)
                _add(normal, right[0], row_x, size, weight[s], gap_x)
                _add(normal, right[0], row_y, size, weight[s], gap_y)
            else:
                _shared_row(model, bend, x, y, row_x)
                _add(normal, right[0], row_x, size, weight[s], gap_x)
                for i in range(size):
                    right[1, i] += weight[s] * row_x[i] * gap_y
        solve_positive(normal, right, size)  # the second side is 0 where one holds both coordinates
        for i in range(size):
            if coupled:
                step[i] = right[0, i]
            else:
                step[i if i < 3 else i + 3] = right[0, i]
                step[i + 3 if i < 3 else i + 3 + terms] = right[1, i]
        take_step(model, step, matrix, bend)
