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
from zmtile.frames.measure import FrameStats
from zmtile.kernels.order import median
from zmtile.kernels.skyties import biweight_ties, common_sky, less_medians, less_surfaces, noise_and_excess
from zmtile.matching.pairs import Pair, ends_of, solve_ties
from zmtile.parallel import run_parallel
from zmtile.progress import NullProgress
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
# Tukey's biweight ([Beaton1974]_): where it ends, in robust sigma, the least weight, and the iterations.
_TUNING, _LEAST, _TURNS = 4.685, 1e-6, 6


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
    workers: int = 1,
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
    noise = np.maximum(np.nan_to_num(np.array([s.noise for s in stats]) * factor), 1e-5)
    local = np.array(
        [_local_terms(f, m, frames[reference], degree) for f, m in zip(frames, maps, strict=True)]
    )
    common = _common_sky(stats, maps, pairs, factor, frames[reference])

    def solved(c: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        difference, starts = common.difference[c], common.starts
        spread = common.variance[c], np.ascontiguousarray(common.floor[:, c])
        left, scratch = np.empty_like(difference), np.empty_like(difference)
        less_medians(difference, starts, left)
        slope = np.hypot(SLOPE_PRIOR * noise[:, c], _mad(left, scratch))
        solution, tied = np.zeros((count, 1)), np.zeros(count, bool)
        # Planes first: what they leave beyond the noise tells how much the skies of the group bend.
        for part in range(min(degree, 1), degree + 1):
            flat = terms_of(part)
            excess = _excess(*common.cells, *spread, starts, left, scratch)
            bend = np.hypot(BEND_PRIOR * noise[:, c], BEND_OF_RESIDUAL * excess)
            size = np.column_stack([slope, slope, bend, bend, bend])[:, : flat - 1]
            rows = local[:, : flat - 1, :flat]
            expected = np.matmul(rows.transpose(0, 2, 1), rows / size[:, :, None] ** 2)
            solution = np.pad(solution, ((0, 0), (0, flat - solution.shape[1])))
            block, pull = np.empty((len(common.ends), flat, flat)), np.empty((len(common.ends), flat))
            for _ in range(_TURNS):
                biweight_ties(
                    *common.places,
                    *common.cells,
                    difference,
                    *spread,
                    starts,
                    _TUNING,
                    _LEAST,
                    left,
                    block,
                    pull,
                )
                solution, tied = solve_ties(common.ends, block, pull, reference, expected, solution)
                less_surfaces(
                    *common.places, common.cells[0], difference, starts, common.ends, solution, left
                )
        return solution, tied

    found = run_parallel(solved, range(channels), workers, NullProgress())
    for k in np.flatnonzero(~found[0][1]).tolist():
        log.warning("%s: too little common sky with other frames; its offset is left at 0", frames[k].name)
    return np.stack([solution for solution, _ in found], axis=1)


@dataclass(frozen=True)
class _Common:
    """What the skies of pairs of frames differ by, at the n cells that the frames of each have in common.

    There are many of them, seven pairs a frame, so all that a cell of a frame knows by itself stands here
    once.

    Attributes
    ----------
    ends : (pairs, 2) int64
        The frames a and b of each pair.
    starts : (pairs + 1,) int64
        Where the common cells of each pair begin.
    cells : two of (n,) int32
        The cell of one frame, and the nearest of the other, among those of all frames.
    difference : (channels, n) float64
        sky_b - sky_a, reference ADU.
    places : two of (cells,) float64
        u, v of the cells of all frames, in the units of `surface_terms`.
    variance : (channels, cells) float64
        Of their sky.
    floor : (pairs, channels) float64
        Added to the variances of a pair.
    """

    ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    cells: tuple[NDArray[np.int32], NDArray[np.int32]]
    difference: NDArray[np.float64]
    places: tuple[NDArray[np.float64], NDArray[np.float64]]
    variance: NDArray[np.float64]
    floor: NDArray[np.float64]


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


def _mad(residual: NDArray[np.float64], scratch: NDArray[np.float64]) -> float:
    """Sigma of residuals from their median absolute deviation; 0 without any."""
    return 1.4826 * median(np.abs(residual, out=scratch), residual.size) if residual.size else 0.0


def _excess(
    here: NDArray[np.int32],
    near: NDArray[np.int32],
    variance: NDArray[np.float64],
    floor: NDArray[np.float64],
    starts: NDArray[np.int64],
    residual: NDArray[np.float64],
    scratch: NDArray[np.float64],
) -> float:
    """Sigma of the residuals beyond what the noise of the meshes explains, ADU."""
    if not residual.size:
        return 0.0
    pull, own = noise_and_excess(here, near, variance, floor, starts, residual, scratch)
    return float(np.sqrt(max((1.4826 * pull) ** 2 - 1, 0.0) * own))


def _common_sky(
    stats: Sequence[FrameStats],
    maps: Sequence[Matrix | Bent],
    pairs: Sequence[Pair],
    factor: NDArray[np.float64],
    reference: Frame,
) -> _Common:
    """Sky of both frames of all pairs at the cells of either that the other covers.

    Between its cells a mesh is interpolated, which rounds the peaks of a nebula off. Taken both
    ways, that cancels: it raises neither frame against the other.
    """
    own = [_own_sky(s, m, f) for s, m, f in zip(stats, maps, factor, strict=True)]
    xy = [places for places, _, _ in own]
    level, variance = (np.concatenate([o[part] for o in own], axis=1) for part in (1, 2))
    first = np.cumsum([0, *map(len, xy)]).tolist()
    back = [invert(m) for m in maps]
    # Faint stars, not noise, limit a cell.
    floor = [(CELL_FLOOR * s.noise * f) ** 2 for s, f in zip(stats, factor, strict=True)]
    most = sum(len(xy[pair.a]) + len(xy[pair.b]) for pair in pairs)
    here, near = np.empty(most, np.int32), np.empty(most, np.int32)
    difference = np.empty((factor.shape[1], most))  # what stays empty takes no memory
    starts, ends, floors = [0], [], []
    for pair in pairs:
        at = starts[-1]
        both = floor[pair.a] + floor[pair.b]
        for k, other, sign in ((pair.a, pair.b, 1.0), (pair.b, pair.a, -1.0)):
            there = np.ascontiguousarray(apply(back[other], xy[k]))
            mesh = stats[other].sky
            at = common_sky(
                there,
                _area_change(maps[other], there),
                level,
                first[k],
                mesh.level,
                first[other],
                variance,
                float(mesh.cell),
                factor[other],
                both,
                sign,
                at,
                here,
                near,
                difference,
            )
        if at - starts[-1] >= MIN_COMMON_CELLS:
            ends.append(pair)
            starts.append(at)
            floors.append(both)
    u, v = surface_terms(np.concatenate(xy), reference.rows, reference.cols, 1)[:, 1:].T
    return _Common(
        ends_of(ends),
        np.array(starts),
        (here[: starts[-1]], near[: starts[-1]]),
        difference[:, : starts[-1]],
        (np.ascontiguousarray(u), np.ascontiguousarray(v)),
        variance,
        np.array(floors).reshape(-1, factor.shape[1]),
    )


def _own_sky(
    stats: FrameStats, moved_by: Matrix | Bent, factor: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Return reference pixels of a frame's cells, (n, 2), their sky and its variance, (channels, n)."""
    mesh = stats.sky
    x, y = np.meshgrid(*mesh.centres)
    cells = np.column_stack([x.ravel(), y.ravel()])
    level = mesh.level.reshape(len(factor), -1) * factor[:, None] * _area_change(moved_by, cells)
    error = mesh.error.reshape(len(factor), -1) * factor[:, None]
    return np.ascontiguousarray(apply(moved_by, cells)), level, error**2


def _area_change(moved_by: Matrix | Bent, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pixel area at the frame's centre over that at its points, (n,); 1 without a bend."""
    return (
        np.ones(len(xy))
        if isinstance(moved_by, np.ndarray)
        else scale_of(moved_by) ** 2 / area_at(moved_by, xy)
    )
