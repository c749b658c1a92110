"""Plane transforms: fitting, applying, inverting; a matrix is [a b tx; c d ty] on (x, y)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["IDENTITY", "Transform", "apply", "compose", "corners", "design_rows", "fit", "invert", "scale_of"]

Matrix = NDArray[np.float64]

IDENTITY: Matrix = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class Transform:
    """A verified way from one frame's pixels to another's.

    Attributes
    ----------
    matrix : (2, 3) float64
        With a bend, the tangent at the frame's centre.
    nmatch : int
        Stars that it was fitted on.
    rms : float
        Root mean square distance of those stars after the transform, px of the target.
    bend : (20,) float64, optional
        What a homography or a polynomial adds to the matrix, as in `zmtile.kernels.bend`.
    model : str
        One of `zmtile.registration.models.MODELS`.
    """

    matrix: Matrix
    nmatch: int
    rms: float
    bend: NDArray[np.float64] | None = None
    model: str = "similarity"


def apply(matrix: Matrix, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points (n, 2) moved by the matrix."""
    return xy @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: Matrix) -> Matrix:
    """Return the matrix of the way back."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """Return the matrix that applies `inner` first, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """Return the linear scale: the square root of the change in area."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def corners(rows: float, cols: float) -> NDArray[np.float64]:
    """Return the centres of the four corner pixels as (4, 2) x, y, in order around the frame."""
    return np.array([[0, 0], [cols - 1, 0], [cols - 1, rows - 1], [0, rows - 1]], np.float64)


def design_rows(model: str, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the linear map from a model's parameters to the moved points.

    Returns
    -------
    (2 n, parameters) float64
        Rows for the x of all points, then for their y. The parameters are (a, b, tx, ty) of a
        similarity [a -b tx; b a ty], or (a, b, tx, c, d, ty) of an affine matrix.
    """
    count = len(xy)
    if model == "similarity":
        rows = np.zeros((2 * count, 4))
        rows[:count, :2], rows[:count, 2] = xy * [1.0, -1.0], 1.0
        rows[count:, :2], rows[count:, 3] = xy[:, ::-1], 1.0
    else:
        rows = np.zeros((2 * count, 6))
        rows[:count, :2], rows[:count, 2] = xy, 1.0
        rows[count:, 3:5], rows[count:, 5] = xy, 1.0
    return rows


def matrix_of(model: str, parameters: NDArray[np.float64]) -> Matrix:
    """Return the matrix of a model's parameters."""
    if model == "similarity":
        a, b, tx, ty = parameters
        return np.array([[a, -b, tx], [b, a, ty]])
    return parameters.reshape(2, 3).copy()


def fit(
    model: str,
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64] | None = None,
) -> Matrix:
    """Fit a model on matched points by weighted least squares.

    Parameters
    ----------
    model : {'similarity', 'affine'}
    source, target : (n, 2) float64
    weight : (n,) float64, optional
        Inverse variances.

    Returns
    -------
    (2, 3) float64
    """
    w = np.full(len(source), 1.0 / len(source)) if weight is None else weight / weight.sum()
    # About the centres, so that the normal equations are well conditioned.
    middle_source, middle_target = w @ source, w @ target
    rows = design_rows(model, source - middle_source)
    root = np.sqrt(np.concatenate([w, w]))
    values = (target - middle_target).T.ravel()
    solution = np.linalg.lstsq(rows * root[:, None], values * root, rcond=None)[0]
    matrix = matrix_of(model, solution)
    matrix[:, 2] += middle_target - matrix[:, :2] @ middle_source
    return matrix
