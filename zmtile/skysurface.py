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
CELL_FLOOR = 0.1
# Expected slope of a frame's sky against the others, in sigma of a pixel over half a frame. It
# counts only where a narrow overlap says next to nothing of the slope.
SLOPE_PRIOR = 0.5


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
    return np.column_stack(terms[: (degree + 1) * (degree + 2) // 2])


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

    At each cell of frame a that frame b covers: surface_a - surface_b = sky_b - sky_a. Cells whose
    difference stands out (a star in one of them, a cloud's edge) lose their weight (Tukey's
    biweight, iterated).
    """
    count, channels = len(frames), frames[0].channels
    rows, cols = frames[reference].rows, frames[reference].cols
    terms = (degree + 1) * (degree + 2) // 2
    surface = np.zeros((count, channels, terms))
    level = np.nan_to_num(np.array([s.noise for s in stats]) * factor)
    common = []
    for pair in pairs:
        xy, sky_a, sky_b, variance = _common_sky(stats, matrices, pair, factor)
        if len(xy) >= MIN_COMMON_CELLS:
            common.append((pair, surface_terms(xy, rows, cols, degree), sky_b - sky_a, variance))
    tied = np.zeros(count, bool)
    for c in range(channels):
        weights = [np.ones(len(basis)) for _, basis, _, _ in common]
        for turn in range(6):
            normal, right = np.zeros((count * terms,) * 2), np.zeros(count * terms)
            for (pair, basis, d, variance), weight in zip(common, weights, strict=True):
                if turn == 0:  # start from the robust middle of each pair
                    weight[:] = _biweight(d[:, c] - np.median(d[:, c]))
                w = weight / variance[:, c]
                block = basis.T @ (basis * w[:, None])
                pull = basis.T @ (d[:, c] * w)
                at_a = slice(pair.a * terms, (pair.a + 1) * terms)
                at_b = slice(pair.b * terms, (pair.b + 1) * terms)
                normal[at_a, at_a] += block
                normal[at_b, at_b] += block
                normal[at_a, at_b] -= block
                normal[at_b, at_a] -= block
                right[at_a] += pull
                right[at_b] -= pull
            for k in range(count):
                slopes = np.arange(k * terms + 1, (k + 1) * terms)
                normal[slopes, slopes] += (SLOPE_PRIOR * max(level[k, c], 1e-6)) ** -2.0
            solution, tied = solve_blocks(normal, right, terms, reference)
            surface[:, c] = solution
            for (pair, basis, d, _), weight in zip(common, weights, strict=True):
                weight[:] = _biweight(d[:, c] - basis @ (solution[pair.a] - solution[pair.b]))
    for k in np.flatnonzero(~tied).tolist():
        log.warning("%s: too little common sky with other frames; its offset is left at 0", frames[k].name)
    return surface


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
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sky of both frames of a pair at the cells of the first that the second covers.

    Returns
    -------
    (n, 2), (n, channels), (n, channels), (n, channels)
        Reference pixels, sky of a and of b in reference ADU, variance of their difference.
    """
    mesh = stats[pair.a].sky
    x, y = np.meshgrid(*mesh.centres)
    xy = apply(matrices[pair.a], np.column_stack([x.ravel(), y.ravel()]))
    there = apply(invert(matrices[pair.b]), xy)
    level_b, error_b = _interpolate(stats[pair.b].sky, there)
    level_a = mesh.level.reshape(mesh.level.shape[0], -1).T.astype(np.float64)
    error_a = mesh.error.reshape(mesh.error.shape[0], -1).T.astype(np.float64)
    sky_a, sky_b = level_a * factor[pair.a], level_b * factor[pair.b]
    variance = (error_a * factor[pair.a]) ** 2 + (error_b * factor[pair.b]) ** 2
    # Faint stars, not noise, limit a cell.
    variance += (CELL_FLOOR * stats[pair.a].noise * factor[pair.a]) ** 2
    variance += (CELL_FLOOR * stats[pair.b].noise * factor[pair.b]) ** 2
    # A frame without noise has meshes without error; any equal weight will do.
    variance = np.where(variance > 0, variance, np.where(variance == 0, 1e-12, np.nan))
    good = np.isfinite(sky_a).all(axis=1) & np.isfinite(sky_b).all(axis=1) & np.isfinite(variance).all(axis=1)
    return xy[good], sky_a[good], sky_b[good], variance[good]


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
