"""Match: put every frame on the reference's photometric scale and sky.

A pixel v of frame k becomes scale·v/|det M| + surface(x, y) at reference pixel (x, y): the
determinant keeps the flux of a star when pixel scales differ. Scales come from the fluxes of common
stars, surfaces from the differences of the sky meshes. Both are solved over a graph of overlapping
frames at once, so a frame that barely touches the reference is matched through others, and each
profits from all of its neighbours. Only differences between frames are fitted, never the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.frame import Frame
from zmtile.measure import FrameStats, SkyMesh
from zmtile.options import Options
from zmtile.progress import Progress
from zmtile.starmatch import Field, final_radius, pair_up
from zmtile.transform import Matrix, apply, compose, corners, invert, scale_of

__all__ = ["Photometry", "match", "surface_terms"]

log = logging.getLogger("zmtile")

PARTNERS = 8
MIN_COMMON_STARS = 3
MIN_COMMON_CELLS = 6
# A cell's sky is not known better than this, in sigma of a pixel.
CELL_FLOOR = 0.1
# Expected slope of a frame's sky against the others, in sigma of a pixel over half a frame. It
# counts only where a narrow overlap says next to nothing of the slope.
SLOPE_PRIOR = 0.5
# No star's flux is trusted better than this from frame to frame (pixel response, PSF).
FLUX_FLOOR = 0.01


@dataclass(frozen=True)
class Photometry:
    """How one frame's values become the reference's.

    Attributes
    ----------
    scale : (channels,) float64
        Factor on the pixel values, reference ADU per ADU.
    surface : (channels, terms) float64
        Added after scaling, ADU: coefficients of `surface_terms` in reference pixels; the first
        is the offset at the middle of the reference frame.
    weight : (channels,) float64
        Of the frame in the mean; the group's largest is 1.
    noise : (channels,) float64
        Sigma of a pixel after scaling, reference ADU.
    """

    scale: NDArray[np.float64]
    surface: NDArray[np.float64]
    weight: NDArray[np.float64]
    noise: NDArray[np.float64]


@dataclass(frozen=True)
class _Pair:
    """Two overlapping frames, by their places among the used ones."""

    a: int
    b: int


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


def match(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    matrices: Sequence[Matrix],
    reference: int,
    options: Options,
    progress: Progress,
) -> tuple[Photometry, ...]:
    """Match the frames of a group to their reference.

    Parameters
    ----------
    frames, stats, matrices : sequences of the same length
        The registered frames and their transforms to the reference.
    reference : int
        Index of the reference among them.
    options : Options
        `normalize` and `weight` are used.
    progress : Progress

    Returns
    -------
    tuple of Photometry
        One for each frame; the reference's is the identity.
    """
    count, channels = len(frames), frames[0].channels
    progress.stage("match", 2)
    fields = [Field(s.stars, f.rows, f.cols, s.fwhm) for f, s in zip(frames, stats, strict=True)]
    pairs = _pairs(frames, matrices, reference)
    scale = np.ones((count, channels))
    if options.normalize in ("scale", "both", "surface"):
        scale = _scales(frames, stats, fields, matrices, pairs, reference)
    progress.step()
    area = np.array([scale_of(m) ** 2 for m in matrices])
    surface = np.zeros((count, channels, 1))
    if options.normalize in ("offset", "both", "surface"):
        degree = 1 if options.normalize == "surface" else 0
        surface = _surfaces(frames, stats, matrices, pairs, reference, scale / area[:, None], degree)
    noise = np.array([s.noise for s in stats]) * scale / area[:, None]
    weight = np.ones((count, channels))
    if options.weight == "noise":
        usable = np.isfinite(noise) & (noise > 0)
        # A frame without noise (a constant, a simulation) weighs as the typical one.
        floor = [np.median(noise[ok, c]) if ok.any() else 1.0 for c, ok in enumerate(usable.T)]
        weight = np.where(usable, noise, floor) ** -2.0
        weight /= weight.max(axis=0)
    progress.step()
    return tuple(Photometry(scale[k], surface[k], weight[k], np.nan_to_num(noise[k])) for k in range(count))


def _pairs(frames: Sequence[Frame], matrices: Sequence[Matrix], reference: int) -> list[_Pair]:
    """Pair every frame with the reference and its nearest neighbours, where their boxes overlap."""
    middle = np.array(
        [
            apply(m, np.array([[(f.cols - 1) / 2, (f.rows - 1) / 2]]))[0]
            for f, m in zip(frames, matrices, strict=True)
        ]
    )
    boxes = [apply(m, corners(f.rows, f.cols)) for f, m in zip(frames, matrices, strict=True)]
    low, high = np.array([b.min(axis=0) for b in boxes]), np.array([b.max(axis=0) for b in boxes])
    found: set[tuple[int, int]] = set()
    for k in range(len(frames)):
        away = np.hypot(*(middle - middle[k]).T)
        touching = ((low <= high[k]) & (high >= low[k])).all(axis=1)
        near = [j for j in np.lexsort((np.arange(len(frames)), away)) if touching[j] and j != k]
        chosen = near[:PARTNERS] + ([reference] if touching[reference] and k != reference else [])
        found |= {(min(k, int(j)), max(k, int(j))) for j in chosen}
    # Panels whose frames are each other's nearest are joined by the closest frames that touch.
    family = np.arange(len(frames))
    for a, b in found:
        family[family == family[b]] = family[a]
    apart = family[:, None] != family[None]
    touching = ((low[:, None] <= high[None]) & (high[:, None] >= low[None])).all(axis=2)
    distance = np.hypot(*(middle[:, None] - middle[None]).transpose(2, 0, 1))
    bridges = np.argwhere(np.triu(touching & apart, 1)).tolist()
    for a, b in sorted(bridges, key=lambda p: (distance[p[0], p[1]], p)):
        if family[a] != family[b]:
            found.add((a, b))
            family[family == family[b]] = family[a]
    return [_Pair(a, b) for a, b in sorted(found)]


def _scales(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    fields: Sequence[Field],
    matrices: Sequence[Matrix],
    pairs: Sequence[_Pair],
    reference: int,
) -> NDArray[np.float64]:
    """Factor of each frame and channel from the fluxes of the stars that pairs have in common."""
    count, channels = len(frames), frames[0].channels
    normal, right = np.zeros((channels, count, count)), np.zeros((channels, count))
    for pair in pairs:
        a, b = pair.a, pair.b
        matrix = compose(invert(matrices[b]), matrices[a])
        i, j = pair_up(fields[a], fields[b], matrix, final_radius(fields[a], fields[b]))
        measured = (i < stats[a].stars.channel_flux.shape[1]) & (j < stats[b].stars.channel_flux.shape[1])
        i, j = i[measured], j[measured]
        for c in range(channels):
            ratio = _log_ratio(
                stats[a].stars.channel_flux[c, i],
                stats[b].stars.channel_flux[c, j],
                _flux_error(stats[a], c),
                _flux_error(stats[b], c),
            )
            if ratio is not None:
                weight = ratio[1] ** -2.0
                normal[c][[a, b], [a, b]] += weight
                normal[c][[a, b], [b, a]] -= weight
                right[c, a] -= weight * ratio[0]
                right[c, b] += weight * ratio[0]
    logs, known = np.zeros((count, channels)), np.zeros((count, channels), bool)
    for c in range(channels):
        solution, known[:, c] = _solve_blocks(normal[c], right[c], 1, reference)
        logs[:, c] = solution[:, 0]
    for k, tied in enumerate(known):
        if not tied.all():
            # A factor of 1 beside two others would colour the stars.
            logs[k, ~tied] = logs[k, tied].mean() if tied.any() else 0.0
            log.warning(
                "%s: too few common stars to measure its flux scale in %d of %d channels; %s",
                frames[k].name,
                (~tied).sum(),
                channels,
                "the others' is used" if tied.any() else "1 is used",
            )
    return np.exp(logs)


def _flux_error(stats: FrameStats, channel: int) -> float:
    """Sigma of an aperture flux from the noise of the sky, ADU (apertures reach 2 FWHM)."""
    return float(stats.noise[channel] * np.sqrt(np.pi) * 2.0 * stats.fwhm)


def _log_ratio(
    flux_a: NDArray[np.float32], flux_b: NDArray[np.float32], error_a: float, error_b: float
) -> tuple[float, float] | None:
    """Robust mean of log(flux_a / flux_b) over stars, and its standard error; None with too few.

    Starts from the weighted median, so that saturated and variable stars do not count, and ends
    as the inverse-variance mean of the stars within 3 sigma.
    """
    good = (flux_a > 5 * error_a) & (flux_b > 5 * error_b)  # NaN compares false
    if good.sum() < MIN_COMMON_STARS:
        return None
    a, b = flux_a[good].astype(np.float64), flux_b[good].astype(np.float64)
    ratio = np.log(a / b)
    variance = (error_a / a) ** 2 + (error_b / b) ** 2 + 2 * FLUX_FLOOR**2
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum(1 / variance[order])
    centre = ratio[order][np.searchsorted(share, share[-1] / 2)]
    stretch = 1.0
    for _ in range(5):
        away = np.abs(ratio - centre) / np.sqrt(variance)
        stretch = max(1.0, 1.4826 * float(np.median(away)))
        near = away <= 3.0 * stretch
        centre = float(np.average(ratio[near], weights=1 / variance[near]))
    return centre, stretch / float(np.sqrt((1 / variance[near]).sum()))


def _surfaces(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    matrices: Sequence[Matrix],
    pairs: Sequence[_Pair],
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
            solution, tied = _solve_blocks(normal, right, terms, reference)
            surface[:, c] = solution
            for (pair, basis, d, _), weight in zip(common, weights, strict=True):
                weight[:] = _biweight(d[:, c] - basis @ (solution[pair.a] - solution[pair.b]))
    for k in np.flatnonzero(~tied).tolist():
        log.warning("%s: too little common sky with other frames; its offset is left at 0", frames[k].name)
    return surface


def _solve_blocks(
    normal: NDArray[np.float64], right: NDArray[np.float64], terms: int, reference: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Solve the normal equations with the reference's surface held at zero."""
    count = len(right) // terms
    linked = np.abs(normal.reshape(count, terms, count, terms)).sum(axis=(1, 3)) > 0
    tied = np.zeros(count, bool)
    tied[reference] = True
    for _ in range(count):
        grown = tied | (linked & tied[None, :]).any(axis=1)
        if (grown == tied).all():
            break
        tied = grown
    free = tied.copy()
    free[reference] = False
    solution = np.zeros((count, terms))
    if free.any():
        index = np.repeat(free, terms)
        # Ties to the reference and the expectation of slopes leave nothing undetermined.
        solved = np.linalg.solve(normal[np.ix_(index, index)], right[index])
        solution[free] = solved.reshape(-1, terms)
    return solution, tied


def _biweight(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tukey's biweight (c = 4.685) of residuals, scaled by their MAD; [Beaton1974]_."""
    sigma = 1.4826 * float(np.median(np.abs(residual)))
    if sigma == 0.0:
        return np.where(residual == 0.0, 1.0, 1e-6)
    u = np.minimum((residual / (4.685 * sigma)) ** 2, 1.0)
    weight: NDArray[np.float64] = np.maximum((1.0 - u) ** 2, 1e-6)
    return weight


def _common_sky(
    stats: Sequence[FrameStats], matrices: Sequence[Matrix], pair: _Pair, factor: NDArray[np.float64]
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
