"""Detect: the stars of a frame.

Detection runs on a luminance image: for a mosaic the mean of each 2×2 block at every position,
which holds all colours at full resolution and, unlike a demosaiced image, smears nothing further.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.islands import bright_pixels, take_apart
from zmtile.kernels.luminance import light_of
from zmtile.kernels.sky import sky_mesh
from zmtile.parallel import Kept

__all__ = ["FWHM_OF_SIGMA", "detect", "luminance"]

Floats = NDArray[np.float64]

DETECT_SIGMA = 5.0
MIN_AREA = 5
# Share of the light of a connected region that an object in it has, at least.
DEBLEND_SHARE = 0.005
# By how many sigma of a pixel an object rises above the saddle to its neighbour.
DEBLEND_DEPTH = 1.0
# Cells of the background, px, of which every fourth row has samples enough.
CELL, STEP = 64, 4
# A frame has this share of bright pixels at most, or what is found is no field of stars.
MOST_BRIGHT = 1 / 8
# Variance along one axis times that along the other, px⁴, of a line one pixel wide: (1/12)².
THINNEST = 0.00694
MAX_STARS = 2000
FWHM_OF_SIGMA = 2.3548
# Share of a Gaussian's light within a circle of radius FWHM.
WITHIN_FWHM = 0.9375


def luminance(
    planes: NDArray[np.float32],
    codes: NDArray[np.uint8],
    level: NDArray[np.float32],
    cell: int,
    noise: Floats,
    kept: Kept,
) -> tuple[NDArray[np.float32], int, int]:
    """Return the image that stars are found on, the hot pixels calmed, and the pixels without data.

    Parameters
    ----------
    planes : (1 or 3, rows, cols) float32
        Mosaic or grey frame, or its three colours, ADU.
    codes : (2, 2) uint8
        Channel of each phase of the mosaic; all zero for grey and colour frames.
    level : (channels, cell rows, cell cols) float32
        Sky in cells of side `cell`.
    noise : (channels,) float64
        Sigma of a sample.
    kept : Kept
        Holds the image.

    Returns
    -------
    (rows, cols) float32, int and int
        For a mosaic (rows - 1, cols - 1), half a pixel further on along both axes.
    """
    plane = planes[0]
    if planes.shape[0] > 1:
        plane = planes.mean(axis=0, dtype=np.float32)
        level = level.mean(axis=0, keepdims=True)
        noise = np.sqrt((noise**2).sum(keepdims=True)) / 3
    flat = level.reshape(level.shape[0], -1)
    base = np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in flat], np.float32)
    less = 1 if codes.any() else 0
    light = kept.floats("light", (plane.shape[0] - less, plane.shape[1] - less))
    hot, missing = light_of(plane, codes, level, cell, base, noise.astype(np.float32), light)
    return light, hot, missing


@dataclass(frozen=True)
class _Objects:
    """What is above the threshold, object by object, the brightest first, (n,) float64.

    Attributes
    ----------
    x, y : barycentre of the smoothed light, px.
    flux : light above the background in the pixels of the object.
    a, b : standard deviations of its light along its longer and its shorter axis, px.
    """

    x: Floats
    y: Floats
    flux: Floats
    a: Floats
    b: Floats


def detect(light: NDArray[np.float32]) -> tuple[tuple[Floats, ...], float, float]:
    """Find stars; return their x, y, flux, size and whole flux, and FWHM and roundness, as seen in `light`.

    The brightest come first. Their flux is that above the threshold of detection; of a faint star
    it misses a third, so a circle around the star gives the whole flux. Detection follows
    SExtractor ([Bertin1996]_); windowed centroids are its own, in the sep library. `light` is written to.
    """
    import sep

    nothing = (np.empty(0),) * 5, math.nan, math.nan
    found = _objects(light)
    if found is None:
        return nothing
    radius, _ = sep.flux_radius(light, found.x, found.y, 5.0 * np.maximum(found.a, 1.0), 0.5, subpix=2)
    radius = np.nan_to_num(radius)
    usable = radius[:100][radius[:100] > 0.5]
    # Half of a Gaussian's light lies within half its FWHM.
    broad = FWHM_OF_SIGMA * float(np.median(np.sqrt(found.a * found.b)))
    fwhm = 2.0 * float(np.median(usable)) if usable.size else broad
    # 5×5 subpixels instead of 11×11 move no centroid by more than 4e-5 px, in a third of the time.
    x, y, flag = sep.winpos(light, found.x, found.y, fwhm / FWHM_OF_SIGMA, subpix=5)
    # A window that wandered off found another star; the isophotal place is the better one then.
    astray = (flag != 0) | ~(np.hypot(x - found.x, y - found.y) < max(1.5, 0.5 * fwhm))
    x, y = np.where(astray, found.x, x), np.where(astray, found.y, y)
    circle, _, _ = sep.sum_circle(light, x, y, fwhm, subpix=5)
    whole = np.maximum(circle / WITHIN_FWHM, found.flux)
    return (x, y, found.flux, radius, whole), fwhm, float(np.median(found.b[:200] / found.a[:200]))


def _objects(light: NDArray[np.float32]) -> _Objects | None:
    """Return the objects of an image, less its background; None where it is no field of stars."""
    if min(light.shape) < 16:
        return None
    mesh, rms = _background(light)
    if not rms > 0:
        return None
    bright = _bright(light, mesh, rms)
    if bright is None:
        return None
    at, value, cut = bright
    owner = np.empty_like(at)
    # One key for value and place: pixels of one value have an order, too.
    keys = (~value.view(np.uint32)).astype(np.uint64) << np.uint64(32) | np.arange(at.size, dtype=np.uint64)
    order = (np.sort(keys) & np.uint64(0xFFFFFFFF)).astype(np.int64)
    take_apart(at, value, order, light.shape[1], MIN_AREA, DEBLEND_SHARE, DEBLEND_DEPTH * rms, owner)
    return _measured(light, at, value, cut, owner)


def _background(light: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return the background at the middle of cells, without the light of objects, and its noise.

    The median of each cell and its neighbours takes bright objects out. Noise is NaN where no cell is known.
    """
    # A part of a cell is one, too, if it is half of it at least.
    shape = (1, *(max((n + CELL // 2) // CELL, 1) for n in light.shape))
    level, sigma = np.empty(shape, np.float32), np.empty(shape, np.float32)
    sky_mesh(light[None], np.zeros((2, 2), np.uint8), CELL, STEP, level, sigma, np.empty(shape, np.int64))
    if not np.isfinite(level).any():
        return level[0], math.nan
    # Beyond the edge the slope goes on: medians of neighbours on one side alone would flatten it.
    wide = np.pad(level[0], 1, mode="reflect", reflect_type="odd")
    around = np.lib.stride_tricks.sliding_window_view(wide, (3, 3)).reshape(*shape[1:], 9)
    around = np.sort(around, axis=-1)  # NaN comes last
    known = np.isfinite(around).sum(axis=-1, keepdims=True)
    middle = [np.take_along_axis(around, np.maximum(k, 0), -1) for k in ((known - 1) // 2, known // 2)]
    mesh = np.where(known > 0, np.float32(0.5) * (middle[0] + middle[1]), np.nanmedian(level))[..., 0]
    # Two cells both ways, at least: the background is linear between them.
    mesh = np.pad(mesh, [(0, max(2 - n, 0)) for n in mesh.shape], mode="edge")
    return mesh.astype(np.float32), float(np.nanmedian(sigma))


def _bright(
    light: NDArray[np.float32], mesh: NDArray[np.float32], rms: float
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint8]] | None:
    """Subtract the background; return the bright pixels, in a crowded frame those of a higher one."""
    most = int(MOST_BRIGHT * light.size)
    at, value, cut = np.empty(most, np.int64), np.empty(most, np.float32), np.empty(most, np.uint8)
    for factor in (1.0, 8.0, 64.0):
        count = bright_pixels(light, mesh, CELL, np.float32(factor * DETECT_SIGMA * rms), at, value, cut)
        if count <= most:
            return at[:count], value[:count], cut[:count]
        mesh = np.zeros_like(mesh)  # it is subtracted already
    return None


def _measured(
    light: NDArray[np.float32],
    at: NDArray[np.int64],
    value: NDArray[np.float32],
    cut: NDArray[np.uint8],
    owner: NDArray[np.int64],
) -> _Objects | None:
    """Return what looks like stars among the objects, by their pixels; None where nothing does."""
    peaks, which = np.unique(owner, return_inverse=True)
    cols = light.shape[1]
    y0, x0 = np.divmod(at[peaks], cols)
    dy, dx = at // cols - y0[which], at % cols - x0[which]

    def total(weights: NDArray[np.generic]) -> Floats:
        return np.bincount(which, weights, peaks.size).astype(np.float64, copy=False)

    weight = value.astype(np.float64)
    light_sum = total(weight)
    x, y = total(weight * dx) / light_sum, total(weight * dy) / light_sum
    xx, yy = total(weight * dx * dx) / light_sum - x * x, total(weight * dy * dy) / light_sum - y * y
    xy = total(weight * dx * dy) / light_sum - x * y
    middle, spread = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    a, b = np.sqrt(middle + spread), np.sqrt(np.maximum(middle - spread, 0.0))
    flux = total(light.ravel()[at])
    # Cut by the edge of the image or of the data, trails, and spots thinner than a pixel.
    good = (np.bincount(which) >= MIN_AREA) & (total(cut) == 0) & (flux > 0)
    good &= (b > 0.33 * a) & (xx * yy - xy * xy > THINNEST)
    x, y, flux, a, b = (values[good] for values in (x + x0, y + y0, flux, a, b))
    if not x.size:
        return None
    order = np.lexsort((x, y, -flux))[:MAX_STARS]
    return _Objects(x[order], y[order], flux[order], a[order], b[order])
