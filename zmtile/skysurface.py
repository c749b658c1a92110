"""Sky surfaces: what is added to every frame and channel, from the differences of the sky meshes of pairs.

Only differences between frames are fitted, never the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.frame import Frame
from zmtile.measure import FrameStats, SkyMesh
from zmtile.pairs import Pair, solve_blocks
from zmtile.transform import Matrix, apply, invert

__all__ = ["sky_surfaces", "surface_terms"]

log = logging.getLogger("zmtile")

MIN_COMMON_CELLS = 6
# A cell's sky is not known better than this, in sigma of a pixel.
CELL_FLOOR = 0.03
# Expected slope of a frame's sky against the others over half a frame, in sigma of a pixel, beside what
# the differences of the group's skies show; and its bend, in slopes. They count only where a narrow
# overlap says next to nothing of them.
SLOPE_PRIOR = 0.5
BEND_PRIOR = 0.5


def surface_terms(xy: NDArray[np.float64], rows: int, cols: int, degree: int) -> NDArray[np.float64]:
    """Return the terms of a sky surface at reference pixels.

    Parameters
    ----------
    xy : (n, 2) float64
        Reference pixels.
    rows, cols : int
        Size of the reference frame: u, v run over ±1 along its longer side.
    degree : int
        0, 1 or 2.

    Returns
    -------
    (n, 1, 3 or 6) float64
        1; u, v; u², u·v, v².
    """
    half = max(rows, cols) / 2
    u, v = ((xy - [(cols - 1) / 2, (rows - 1) / 2]) / half).T
    terms = [np.ones_like(u), u, v, u * u, u * v, v * v]
    return np.column_stack(terms[: terms_of(degree)])


def terms_of(degree: int) -> int:
    """Return the number of terms of a surface."""
    return (degree + 1) * (degree + 2) // 2


def sky_surfaces(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    matrices: Sequence[Matrix],
    pairs: Sequence[Pair],
    reference: int,
    factor: NDArray[np.float64],
    degree: int,
) -> NDArray[np.float64]:
    """Solve the sky surface of every frame and channel from the meshes of overlapping pairs.

    At each cell of one of them that the other covers: surface_a - surface_b = sky_b - sky_a. Cells
    whose difference stands out (a star in one of them, a cloud's edge) lose their weight (Tukey's
    biweight, iterated).

    Returns
    -------
    (frames, channels, terms) float64
        Coefficients of `surface_terms`, reference ADU.
    """
    count, channels = len(frames), frames[0].channels
    rows, cols = frames[reference].rows, frames[reference].cols
    terms = terms_of(degree)
    surface = np.zeros((count, channels, terms))
    noise = np.nan_to_num(np.array([s.noise for s in stats]) * factor)
    expected = np.array(
        [_expected(f, m, frames[reference], degree) for f, m in zip(frames, matrices, strict=True)]
    )
    common = []
    for pair in pairs:
        xy, sky_a, sky_b, variance = _common_sky(stats, matrices, pair, factor)
        if len(xy) >= MIN_COMMON_CELLS:
            common.append((pair, surface_terms(xy, rows, cols, degree), sky_b - sky_a, variance))
    tied = np.zeros(count, bool)
    for c in range(channels):
        # Start from the robust middle of each pair.
        residuals = [d[:, c] - np.median(d[:, c]) for _, _, d, _ in common]
        spread = 1.4826 * np.median(np.abs(np.concatenate(residuals))) if common else 0.0
        slope = np.hypot(np.maximum(SLOPE_PRIOR * noise[:, c], 1e-6), spread)
        weights = [_biweight(residual) for residual in residuals]
        for _ in range(6):
            normal, right = np.zeros((count, terms, count, terms)), np.zeros((count, terms))
            for (pair, basis, d, variance), weight in zip(common, weights, strict=True):
                a, b, w = pair.a, pair.b, weight / variance[:, c]
                block = basis.T @ (basis * w[:, None])
                pull = basis.T @ (d[:, c] * w)
                normal[a, :, a] += block
                normal[b, :, b] += block
                normal[a, :, b] -= block
                normal[b, :, a] -= block
                right[a] += pull
                right[b] -= pull
            for k in range(count):
                normal[k, :, k] += expected[k] / slope[k] ** 2
            solution, tied = solve_blocks(normal.reshape(count * terms, -1), right.ravel(), terms, reference)
            surface[:, c] = solution
            weights = [
                _biweight(d[:, c] - basis @ (solution[pair.a] - solution[pair.b]))
                for pair, basis, d, _ in common
            ]
    for k in np.flatnonzero(~tied).tolist():
        log.warning("%s: too little common sky with other frames; its offset is left at 0", frames[k].name)
    return surface


def _expected(frame: Frame, matrix: Matrix, reference: Frame, degree: int) -> NDArray[np.float64]:
    """Inverse covariance, (terms, terms), of the coefficients before any look at the sky, for a slope of 1.

    Slope and bend are small about the middle of the frame, where its sky is known, not about the
    reference's, which may lie far away. The offset may be anything.
    """
    middle = apply(matrix, np.array([[(frame.cols - 1) / 2, (frame.rows - 1) / 2]]))
    _, u, v = surface_terms(middle, reference.rows, reference.cols, 1)[0]
    # The slope there, and the bends, as sums of the coefficients of 1, u, v, u², uv, v².
    local = np.array(
        [
            [0, 1, 0, 2 * u, v, 0],
            [0, 0, 1, 0, u, 2 * v],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    terms = terms_of(degree)
    local = local[: terms - 1, :terms]
    weight = np.array([1.0, 1.0, *[BEND_PRIOR**-2.0] * 3])[: terms - 1]
    precision: NDArray[np.float64] = local.T @ (local * weight[:, None])
    return precision


def _biweight(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tukey's biweight (c = 4.685) of residuals, scaled by their MAD; [Beaton1974]_."""
    sigma = 1.4826 * float(np.median(np.abs(residual)))
    if sigma == 0.0:
        return np.where(residual == 0.0, 1.0, 1e-6)
    u = np.minimum((residual / (4.685 * sigma)) ** 2, 1.0)
    weight: NDArray[np.float64] = np.maximum((1.0 - u) ** 2, 1e-6)
    return weight


def _common_sky(
    stats: Sequence[FrameStats], matrices: Sequence[Matrix], pair: Pair, factor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Sky of both frames of a pair at the cells of either that the other covers.

    Between its cells a mesh is interpolated, which rounds the peaks of a nebula off. Taken both
    ways, that cancels: it raises neither frame against the other.

    Returns
    -------
    (n, 2), (n, channels), (n, channels), (n, channels)
        Reference pixels, sky of a and of b in reference ADU, variance of their difference.
    """
    xy, own, other, variance = _sky_at_cells(stats, matrices, pair.a, pair.b, factor)
    xy_b, own_b, other_b, variance_b = _sky_at_cells(stats, matrices, pair.b, pair.a, factor)
    return (
        np.concatenate([xy, xy_b]),
        np.concatenate([own, other_b]),
        np.concatenate([other, own_b]),
        2 * np.concatenate([variance, variance_b]),  # every sample of the sky is seen twice
    )


def _sky_at_cells(
    stats: Sequence[FrameStats], matrices: Sequence[Matrix], k: int, other: int, factor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Sky of frame k, of another frame, and the variance of their difference, at the cells of k."""
    mesh = stats[k].sky
    x, y = np.meshgrid(*mesh.centres)
    xy = apply(matrices[k], np.column_stack([x.ravel(), y.ravel()]))
    level, error = _interpolate(stats[other].sky, apply(invert(matrices[other]), xy))
    own = mesh.level.reshape(mesh.level.shape[0], -1).T * factor[k]
    own_error = mesh.error.reshape(mesh.error.shape[0], -1).T * factor[k]
    variance = own_error**2 + (error * factor[other]) ** 2
    # Faint stars, not noise, limit a cell.
    for j in (k, other):
        variance += (CELL_FLOOR * stats[j].noise * factor[j]) ** 2
    # A frame without noise has meshes without error; any equal weight will do.
    variance = np.where(variance > 0, variance, np.where(variance == 0, 1e-12, np.nan))
    good = np.isfinite(own).all(axis=1) & np.isfinite(level).all(axis=1) & np.isfinite(variance).all(axis=1)
    return xy[good], own[good], level[good] * factor[other], variance[good]


def _interpolate(mesh: SkyMesh, xy: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bilinear level and nearest error of a mesh at frame pixels, (n, channels); NaN outside the cells."""
    channels, rows, cols = mesh.level.shape
    if rows < 2 or cols < 2:
        return np.full((len(xy), channels), np.nan), np.full((len(xy), channels), np.nan)
    place = (xy + 0.5) / mesh.cell - 0.5
    inside = np.all((place >= 0) & (place <= np.array([cols - 1, rows - 1])), axis=1)
    place = np.where(inside[:, None], place, 0.0)
    j, i = np.minimum(place.astype(np.intp), [cols - 2, rows - 2]).T
    u, v = (place - np.column_stack([j, i])).T
    level = (
        mesh.level[:, i, j] * ((1 - u) * (1 - v))
        + mesh.level[:, i, j + 1] * (u * (1 - v))
        + mesh.level[:, i + 1, j] * ((1 - u) * v)
        + mesh.level[:, i + 1, j + 1] * (u * v)
    )
    error = mesh.error[:, np.rint(place[:, 1]).astype(np.intp), np.rint(place[:, 0]).astype(np.intp)]
    return np.where(inside[:, None], level.T, np.nan), np.where(inside[:, None], error.T, np.nan).astype(
        np.float64
    )
