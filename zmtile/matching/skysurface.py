"""Sky surfaces: what is added to every frame and channel, from the differences of the sky meshes of pairs.

Only differences between frames are fitted, never the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats, SkyMesh
from zmtile.matching.pairs import Pair, Ties
from zmtile.registration.mapping import Bent, apply, area_at, invert, scale_of
from zmtile.registration.transform import Matrix

__all__ = ["sky_surfaces", "surface_terms"]

log = logging.getLogger("zmtile")

MIN_COMMON_CELLS = 6
# A cell's sky is not known better than this, in sigma of a pixel.
CELL_FLOOR = 0.03
# Expected slope and bend of a frame's sky against the others over half a frame, in sigma of a pixel,
# beside what the differences of the group's skies show. They count only where a narrow overlap says
# next to nothing of them.
SLOPE_PRIOR = 0.5
BEND_PRIOR = 0.03
# A bend leaves about a third of itself, root mean square, beside the plane that fits it best.
BEND_OF_RESIDUAL = 3.0


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
    maps: Sequence[Matrix | Bent],
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
    noise = np.maximum(np.nan_to_num(np.array([s.noise for s in stats]) * factor), 1e-5)
    local = [_local_terms(f, m, frames[reference], degree) for f, m in zip(frames, maps, strict=True)]
    common = []
    for pair in pairs:
        xy, sky_a, sky_b, variance = _common_sky(stats, maps, pair, factor)
        if len(xy) >= MIN_COMMON_CELLS:
            common.append(_Common(pair, surface_terms(xy, rows, cols, degree), sky_b - sky_a, variance))
    tied = np.zeros(count, bool)
    for c in range(channels):
        left = [both.difference[:, c] - np.median(both.difference[:, c]) for both in common]
        slope = np.hypot(SLOPE_PRIOR * noise[:, c], _mad(left))
        # Planes first: what they leave beyond the noise tells how much the skies of the group bend.
        for part in range(min(degree, 1), degree + 1):
            flat = terms_of(part)
            bend = np.hypot(BEND_PRIOR * noise[:, c], BEND_OF_RESIDUAL * _excess(common, left, c))
            size = np.column_stack([slope, slope, bend, bend, bend])[:, : flat - 1]
            for _ in range(6):
                weights = [_biweight(residual) for residual in left]
                ties = Ties(count, flat)
                for both, weight in zip(common, weights, strict=True):
                    w = weight / both.variance[:, c]
                    ties.tie(both.pair, both.basis[:, :flat], both.difference[:, c], w)
                for k in range(count):
                    rows_k = local[k][: flat - 1, :flat]
                    ties.expect(k, rows_k.T @ (rows_k / size[k, :, None] ** 2))
                solution, tied = ties.solve(reference)
                left = [both.left(solution, c) for both in common]
        surface[:, c] = solution
    for k in np.flatnonzero(~tied).tolist():
        log.warning("%s: too little common sky with other frames; its offset is left at 0", frames[k].name)
    return surface


@dataclass(frozen=True)
class _Common:
    """At n cells of a pair: terms (n, terms), sky_b - sky_a and its variance, both (n, channels)."""

    pair: Pair
    basis: NDArray[np.float64]
    difference: NDArray[np.float64]
    variance: NDArray[np.float64]

    def left(self, solution: NDArray[np.float64], channel: int) -> NDArray[np.float64]:
        """Return the differences that a solution, (frames, terms), leaves in a channel."""
        surface = solution[self.pair.a] - solution[self.pair.b]
        left: NDArray[np.float64] = self.difference[:, channel] - self.basis[:, : surface.size] @ surface
        return left


def _local_terms(frame: Frame, moved_by: Matrix | Bent, reference: Frame, degree: int) -> NDArray[np.float64]:
    """Slope and bend about the middle of a frame, (terms - 1, terms), from the coefficients of its surface.

    They are expected to be small there, where the frame's sky is known, not about the reference's
    middle, which may lie far away. The offset may be anything.
    """
    middle = apply(moved_by, np.array([[(frame.cols - 1) / 2, (frame.rows - 1) / 2]]))
    _, u, v = surface_terms(middle, reference.rows, reference.cols, 1)[0]
    slopes = [[0, 1, 0, 2 * u, v, 0], [0, 0, 1, 0, u, 2 * v]]
    terms = terms_of(degree)
    return np.vstack([slopes, np.eye(6)[3:]])[: terms - 1, :terms]


def _mad(residuals: Sequence[NDArray[np.float64]]) -> float:
    """Sigma of all residuals together from their median absolute deviation; 0 without any."""
    return 1.4826 * float(np.median(np.abs(np.concatenate(residuals)))) if residuals else 0.0


def _excess(common: Sequence[_Common], residuals: Sequence[NDArray[np.float64]], channel: int) -> float:
    """Sigma of the residuals beyond what the noise of the meshes explains, ADU."""
    if not common:
        return 0.0
    # Each sample of the sky is seen twice, so the variances are doubled.
    variances = [both.variance[:, channel] / 2 for both in common]
    pull = _mad([r / np.sqrt(v) for r, v in zip(residuals, variances, strict=True)])
    return float(np.sqrt(max(pull**2 - 1, 0.0) * np.median(np.concatenate(variances))))


def _biweight(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tukey's biweight (c = 4.685) of residuals, scaled by their MAD; [Beaton1974]_."""
    sigma = 1.4826 * float(np.median(np.abs(residual)))
    if sigma == 0.0:
        return np.where(residual == 0.0, 1.0, 1e-6)
    u = np.minimum((residual / (4.685 * sigma)) ** 2, 1.0)
    weight: NDArray[np.float64] = np.maximum((1.0 - u) ** 2, 1e-6)
    return weight


def _common_sky(
    stats: Sequence[FrameStats], maps: Sequence[Matrix | Bent], pair: Pair, factor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Sky of both frames of a pair at the cells of either that the other covers.

    Between its cells a mesh is interpolated, which rounds the peaks of a nebula off. Taken both
    ways, that cancels: it raises neither frame against the other.

    Returns
    -------
    (n, 2), (n, channels), (n, channels), (n, channels)
        Reference pixels, sky of a and of b in reference ADU, variance of their difference.
    """
    xy, own, other, variance = _sky_at_cells(stats, maps, pair.a, pair.b, factor)
    xy_b, own_b, other_b, variance_b = _sky_at_cells(stats, maps, pair.b, pair.a, factor)
    return (
        np.concatenate([xy, xy_b]),
        np.concatenate([own, other_b]),
        np.concatenate([other, own_b]),
        2 * np.concatenate([variance, variance_b]),  # every sample of the sky is seen twice
    )


def _sky_at_cells(
    stats: Sequence[FrameStats],
    maps: Sequence[Matrix | Bent],
    k: int,
    other: int,
    factor: NDArray[np.float64],
) -> tuple[NDArray[np.float64], ...]:
    """Sky of frame k, of another frame, and the variance of their difference, at the cells of k."""
    mesh = stats[k].sky
    x, y = np.meshgrid(*mesh.centres)
    cells = np.column_stack([x.ravel(), y.ravel()])
    xy = apply(maps[k], cells)
    there = apply(invert(maps[other]), xy)
    level, error = _interpolate(stats[other].sky, there)
    level = level * factor[other] * _area_change(maps[other], there)
    own = mesh.level.reshape(mesh.level.shape[0], -1).T * factor[k] * _area_change(maps[k], cells)
    own_error = mesh.error.reshape(mesh.error.shape[0], -1).T * factor[k]
    variance = own_error**2 + (error * factor[other]) ** 2
    # Faint stars, not noise, limit a cell.
    for j in (k, other):
        variance += (CELL_FLOOR * stats[j].noise * factor[j]) ** 2
    # A frame without noise has meshes without error; any equal weight will do.
    variance = np.where(variance > 0, variance, np.where(variance == 0, 1e-12, np.nan))
    good = np.isfinite(own).all(axis=1) & np.isfinite(level).all(axis=1) & np.isfinite(variance).all(axis=1)
    return xy[good], own[good], level[good], variance[good]


def _area_change(moved_by: Matrix | Bent, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pixel area at the frame's centre over that at its points, (n, 1); 1 without a bend."""
    return (scale_of(moved_by) ** 2 / area_at(moved_by, xy))[:, None]


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
