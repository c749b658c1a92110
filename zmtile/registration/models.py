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

from zmtile.kernels.bendfit import fit_bend, slopes, take_step
from zmtile.registration.mapping import Bent, Map, apply, flat_bend
from zmtile.registration.transform import Matrix, fit, scale_of

__all__ = [
    "FIT",
    "MODELS",
    "NUMBER",
    "SIMPLER",
    "WIDTH",
    "Pairs",
    "fit_each",
    "fit_points",
    "improve",
    "plain",
    "uncertainty",
]

# From the simplest on, with their numbers of parameters.
WIDTH = {"similarity": 4, "affine": 6, "homography": 8, "poly2": 12, "poly3": 20}
MODELS = tuple(WIDTH)
NUMBER = {model: number for number, model in enumerate(MODELS)}
# What a frame takes that has too few stars for a model.
SIMPLER = {"poly3": "poly2", "poly2": "affine", "homography": "affine", "affine": "similarity"}
# Expected size of a bend at the border of a frame, px. It decides only where there are no stars.
BEND_PRIOR = 10.0
# What holds a frame in its place where no star does, 1/px²; one star has some hundred times as much.
HOLD = 0.01
_TURNS = 4
# The same for the kernels.
FIT = (HOLD, BEND_PRIOR, _TURNS)


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
    out = np.empty((2 * len(xy), WIDTH[model]))
    slopes(NUMBER[model], bent.matrix, bent.bend, np.ascontiguousarray(xy), out)
    return out


def changed(model: str, bent: Bent, step: NDArray[np.float64]) -> Bent:
    """Return the map with a step added to its parameters."""
    matrix, bend = bent.matrix.copy(), bent.bend.copy()
    take_step(NUMBER[model], step, matrix, bend)
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
            steep = [(k, s * columns(free[k], fitted[k], xy)) for k, xy, s in sides if k in free]
            for k, slope in steep:
                right[starts[k] : starts[k] + slope.shape[1]] += slope.T @ (weight * gap)
                for other, across in steep:
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
        Frame pixels.
    weight : (n,) float64
        Inverse variances, 1/px².
    """
    return fit_each([model], shape, source, target, weight)[0]


def fit_each(
    models: Sequence[str],
    shape: tuple[int, int],
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> list[Bent]:
    """Fit several models on the same points, as `fit_points` does; most begin as one matrix."""
    matrices: dict[str, Matrix] = {}
    fitted = []
    for model in models:
        start = "similarity" if model == "similarity" else "affine"
        if start not in matrices:
            matrices[start] = fit(start, source, target, weight)
        bent = plain(matrices[start].copy(), *shape)
        if model not in ("similarity", "affine"):
            fit_bend(NUMBER[model], bent.matrix, bent.bend, source, target, weight, *FIT)
        fitted.append(bent)
    return fitted
