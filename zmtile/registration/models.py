"""Models of a transform, from a similarity to a cubic polynomial, and their least squares.

All models are one map (`Bent`) with more or fewer free parameters. A fit improves a map by the
Gauss-Newton step of many equations "frame a's star and frame b's are one point": alone, for a
frame against another, or for many frames at once. Polynomials are linear in their parameters and
need one step, homographies a few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.mapping import Bent, Map, apply, flat_bend
from zmtile.registration.transform import Matrix, design_rows, fit, scale_of

__all__ = ["MODELS", "SIMPLER", "WIDTH", "Pairs", "fit_points", "improve", "plain", "uncertainty"]

# From the simplest on, with their numbers of parameters.
WIDTH = {"similarity": 4, "affine": 6, "homography": 8, "poly2": 12, "poly3": 20}
MODELS = tuple(WIDTH)
# What a frame takes that has too few stars for a model.
SIMPLER = {"poly3": "poly2", "poly2": "affine", "homography": "affine", "affine": "similarity"}
# Expected size of a bend at the border of a frame, px. It decides only where there are no stars.
BEND_PRIOR = 10.0
# What holds a frame in its place where no star does, 1/px²; one star has some hundred times as much.
HOLD = 0.01
_TURNS = 4


@dataclass(frozen=True)
class Pairs:
    """Stars that two frames have in common: F_a(here) and F_b(there) are one point.

    Attributes
    ----------
    a, b : int
        The frames.
    here, there : (n, 2) float64
        The stars, in pixels of a and of b.
    weight : (n,) float64
        Inverse variances of the difference, 1/px².
    """

    a: int
    b: int
    here: NDArray[np.float64]
    there: NDArray[np.float64]
    weight: NDArray[np.float64]


def plain(matrix: Matrix, rows: int, cols: int) -> Bent:
    """Return a matrix as a map that can be bent."""
    return Bent(np.ascontiguousarray(matrix), flat_bend(rows, cols))


def columns(model: str, bent: Bent, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how the moved points depend on a model's parameters.

    Parameters
    ----------
    model : {'similarity', 'affine', 'homography', 'poly2', 'poly3'}
    bent : Bent
        The map as it is now.
    xy : (n, 2) float64
        Frame pixels.

    Returns
    -------
    (2 n, parameters) float64
        Rows for the x of all points, then for their y. Parameters: those of
        `design_rows` about the frame's centre in units of half its width; then g
        and h, or the terms of x and those of y.
    """
    centre, half = bent.bend[:2], bent.bend[2:4]
    offset = xy - centre
    u, v = np.clip(offset / half, -1.0, 1.0).T
    g, h = bent.bend[4:6]
    q = 1.0 / (1.0 + g * u + h * v)
    if model in ("similarity", "affine"):
        return design_rows(model, offset / half[0])
    if model == "homography":
        line = offset @ bent.matrix[:, :2].T
        tilt = -(line * (q * q)[:, None]).T.ravel()[:, None]
        affine = design_rows("affine", offset * (q / half[0])[:, None])
        return np.hstack([affine, tilt * np.tile(np.column_stack([u, v]), (2, 1))])
    terms = np.column_stack([u * u, u * v, v * v, u**3, u * u * v, u * v * v, v**3])
    terms = terms[:, : 3 if model == "poly2" else 7]
    return np.hstack([design_rows("affine", offset / half[0]), np.kron(np.eye(2), terms)])


def changed(model: str, bent: Bent, step: NDArray[np.float64]) -> Bent:
    """Return the map with a step added to its parameters."""
    matrix, bend = bent.matrix.copy(), bent.bend.copy()
    centre, unit = bend[:2], bend[2]
    image = matrix[:, :2] @ centre + matrix[:, 2]
    if model == "similarity":
        a, b = step[:2] / unit
        matrix[:, :2] += [[a, -b], [b, a]]
        image += step[2:4]
    else:
        both = step[:6].reshape(2, 3)
        matrix[:, :2] += both[:, :2] / unit
        image += both[:, 2]
    matrix[:, 2] = image - matrix[:, :2] @ centre
    if model == "homography":
        bend[4:6] += step[6:8]
    elif model in ("poly2", "poly3"):
        count = 3 if model == "poly2" else 7
        bend[6 : 6 + count] += step[6 : 6 + count]
        bend[13 : 13 + count] += step[6 + count :]
    return Bent(matrix, bend, bent.backward)


def _prior(model: str, bent: Bent) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of the expectation of every parameter, and its pull: no bend, and no change else."""
    weight, now = np.full(WIDTH[model], HOLD), np.zeros(WIDTH[model])
    if model == "homography":
        now[6:] = bent.bend[4:6]
        weight[6:] = (bent.bend[2] * scale_of(bent.matrix) / BEND_PRIOR) ** 2
    elif model in ("poly2", "poly3"):
        count = 3 if model == "poly2" else 7
        now[6:] = np.concatenate([bent.bend[6 : 6 + count], bent.bend[13 : 13 + count]])
        weight[6:] = BEND_PRIOR**-2.0
    return weight, -weight * now


def improve(maps: Mapping[int, Map], free: Mapping[int, str], pairs: Sequence[Pairs]) -> dict[int, Bent]:
    """Fit the maps of some frames to all pairs at once, the others held fixed.

    Parameters
    ----------
    maps : dict
        Map of each frame that a pair names; `Bent` for the free ones.
    free : dict
        Model of each frame that is fitted.
    pairs : sequence of Pairs

    Returns
    -------
    dict
        The new maps of the free frames.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    fitted: dict[int, Bent] = {}
    for k in free:
        now = maps[k]
        assert isinstance(now, Bent)
        fitted[k] = now
    starts, size = {}, 0
    for k, model in free.items():
        starts[k], size = size, size + WIDTH[model]
    turns = _TURNS if "homography" in free.values() else 1
    for _ in range(turns):
        right = np.zeros(size)
        blocks: list[tuple[int, int, NDArray[np.float64]]] = []
        for k, model in free.items():
            weight, pull = _prior(model, fitted[k])
            blocks.append((starts[k], starts[k], np.diag(weight)))
            right[starts[k] : starts[k] + WIDTH[model]] += pull
        for p in pairs:
            sides = [(p.a, p.here, 1.0), (p.b, p.there, -1.0)]
            moved = [apply(fitted.get(k, maps[k]), xy) for k, xy, _ in sides]
            gap = (moved[1] - moved[0]).T.ravel()
            weight = np.tile(p.weight, 2)
            slopes = [(k, s * columns(free[k], fitted[k], xy)) for k, xy, s in sides if k in free]
            for k, slope in slopes:
                right[starts[k] : starts[k] + slope.shape[1]] += slope.T @ (weight * gap)
                for other, across in slopes:
                    blocks.append((starts[k], starts[other], slope.T @ (across * weight[:, None])))
        if len(free) == 1:
            step = np.linalg.solve(np.sum([block for _, _, block in blocks], axis=0), right)
        else:
            row, col = (
                np.concatenate([(at[n] + np.indices(at[2].shape)[n]).ravel() for at in blocks])
                for n in (0, 1)
            )
            value = np.concatenate([block.ravel() for _, _, block in blocks])
            step = spsolve(coo_array((value, (row, col)), shape=(size, size)).tocsc(), right)
        fitted = {k: changed(m, fitted[k], step[starts[k] : starts[k] + WIDTH[m]]) for k, m in free.items()}
    return fitted


def uncertainty(
    model: str,
    bent: Bent,
    stars: NDArray[np.float64],
    variance: NDArray[np.float64],
    at: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the standard error of a fitted map at some points of the frame, px of the target.

    Parameters
    ----------
    model : {'similarity', 'affine', 'homography', 'poly2', 'poly3'}
    bent : Bent
        As it was fitted.
    stars : (n, 2) float64
        Frame pixels of the stars that it was fitted on.
    variance : (n,) float64
        Of a coordinate of each, px².
    at : (m, 2) float64
        Frame pixels.
    """
    slope, here = columns(model, bent, stars), columns(model, bent, at)
    normal = np.diag(_prior(model, bent)[0]) + slope.T @ (slope / np.tile(variance, 2)[:, None])
    squares: NDArray[np.float64] = np.einsum("ij,ji->i", here, np.linalg.solve(normal, here.T))
    error: NDArray[np.float64] = np.sqrt(squares.reshape(2, -1).sum(axis=0))
    return error


def fit_points(
    model: str,
    shape: tuple[int, int],
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> Bent:
    """Fit a model on matched points alone.

    Parameters
    ----------
    model : {'similarity', 'affine', 'homography', 'poly2', 'poly3'}
    shape : (int, int)
        Rows and columns of the frame.
    source, target : (n, 2) float64
    weight : (n,) float64
        Inverse variances, 1/px².
    """
    start = plain(fit("similarity" if model == "similarity" else "affine", source, target, weight), *shape)
    if model in ("similarity", "affine"):
        return start
    pairs = [Pairs(0, 1, source, target, weight)]
    return improve({0: start, 1: np.eye(2, 3)}, {0: model}, pairs)[0]
