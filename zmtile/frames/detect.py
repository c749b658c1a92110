"""Detect: the stars of a frame.

Detection runs on a luminance image: for a mosaic the mean of each 2×2 block at every position,
which holds all colours at full resolution and, unlike a demosaiced image, smears nothing further.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.luminance import calm_hot_pixels, mean_of_blocks, subtract_twice

__all__ = ["FWHM_OF_SIGMA", "detect", "luminance"]

DETECT_SIGMA = 5.0
MIN_AREA = 5
# Thresholds between which objects are taken apart; with 32 the same stars take a third more time.
DEBLEND_LEVELS = 16
# Memory for the pixels of objects that are not yet complete: much costs time, too little is an error.
OBJECT_PIXELS = 100_000
MAX_STARS = 2000
FWHM_OF_SIGMA = 2.3548
# Share of a Gaussian's light within a circle of radius FWHM.
WITHIN_FWHM = 0.9375

_sep = threading.Lock()


def luminance(
    planes: NDArray[np.float32],
    codes: NDArray[np.uint8],
    level: NDArray[np.float32],
    cell: int,
    noise: NDArray[np.float64],
) -> tuple[NDArray[np.float32], int]:
    """Return the image that stars are found on, and the hot pixels calmed.

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

    Returns
    -------
    (rows, cols) float32 and int
        For a mosaic (rows - 1, cols - 1), half a pixel further on along both axes.
    """
    plane = planes[0]
    if planes.shape[0] > 1:
        plane = planes.mean(axis=0, dtype=np.float32)
        level = level.mean(axis=0, keepdims=True)
        noise = np.sqrt((noise**2).sum(keepdims=True)) / 3
    flat = level.reshape(level.shape[0], -1)
    base = np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in flat], np.float32)
    light = np.empty_like(plane)
    hot = calm_hot_pixels(plane, codes, level, cell, base, noise.astype(np.float32), light)
    if codes.any():
        light = mean_of_blocks(light)
    return light, hot


def detect(
    light: NDArray[np.float32],
) -> tuple[tuple[NDArray[np.float64], ...], float, float]:
    """Find stars; return their x, y, flux, size and whole flux, and FWHM and roundness, as seen in `light`.

    The brightest come first. Their flux is that above the threshold of detection; of a faint star
    it misses a third, so a circle around the star gives the whole flux. Detection and windowed
    centroids are those of SExtractor ([Bertin1996]_) in the sep library. `light` is written to.
    """
    import sep

    nothing = (np.empty(0),) * 5, math.nan, math.nan
    bad = ~np.isfinite(light)
    if min(light.shape) < 16 or bad.mean() > 0.95:
        return nothing
    holes = bad if bad.any() else None
    if holes is not None:
        light[holes] = 0.0
    # Every second pixel both ways has all that the background needs: neighbours share their samples.
    few = np.ascontiguousarray(light[::2, ::2])
    background = sep.Background(
        few, mask=None if holes is None else np.ascontiguousarray(holes[::2, ::2]), bw=32, bh=32
    )
    if not (math.isfinite(background.globalrms) and background.globalrms > 0):
        return nothing
    subtract_twice(light, background.back())
    found = _extracted(light, holes, background.globalrms)
    if found is None:  # left out for want of stars
        return nothing
    # Cut by the edge of the image or of the data, trails, and what is no number.
    found = found[(found["flag"] & (sep.OBJ_TRUNC | sep.OBJ_SINGU)) == 0]
    found = found[(found["b"] > 0.33 * found["a"]) & (found["flux"] > 0)]
    if not found.size:
        return nothing
    found = found[np.lexsort((found["x"], found["y"], -found["flux"]))][:MAX_STARS]
    a, b = found["a"], found["b"]
    radius, _ = sep.flux_radius(light, found["x"], found["y"], 5.0 * np.maximum(a, 1.0), 0.5, subpix=2)
    radius = np.nan_to_num(radius)
    usable = radius[:100][radius[:100] > 0.5]
    # Half of a Gaussian's light lies within half its FWHM.
    fwhm = 2.0 * float(np.median(usable)) if usable.size else FWHM_OF_SIGMA * float(np.median(np.sqrt(a * b)))
    # 5×5 subpixels instead of 11×11 move no centroid by more than 4e-5 px, in a third of the time.
    x, y, flag = sep.winpos(light, found["x"], found["y"], fwhm / FWHM_OF_SIGMA, subpix=5)
    # A window that wandered off found another star; the isophotal place is the better one then.
    astray = (flag != 0) | ~(np.hypot(x - found["x"], y - found["y"]) < max(1.5, 0.5 * fwhm))
    x, y = np.where(astray, found["x"], x), np.where(astray, found["y"], y)
    flux = found["flux"].astype(np.float64)
    circle, _, _ = sep.sum_circle(light, x, y, fwhm, subpix=5)
    whole = np.maximum(circle / WITHIN_FWHM, flux)
    return (x, y, flux, radius, whole), fwhm, float(np.median(b[:200] / a[:200]))


def _extracted(
    light: NDArray[np.float32], holes: NDArray[np.bool_] | None, rms: float
) -> NDArray[Any] | None:
    """Return the objects of a frame without background; None where it is no field of stars.

    sep's buffers are finite: when they overflow there is a second try with larger ones, and a third
    on the bright part of a very crowded frame.
    """
    import sep

    for factor, pixels in ((1.0, OBJECT_PIXELS), (1.0, 100 * OBJECT_PIXELS), (8.0, 100 * OBJECT_PIXELS)):
        try:
            with _sep:  # one buffer size for all threads; sep holds the GIL in any case
                sep.set_extract_pixstack(pixels)
                found: NDArray[Any] = sep.extract(
                    light,
                    factor * DETECT_SIGMA,
                    err=rms,
                    mask=holes,
                    minarea=MIN_AREA,
                    deblend_nthresh=DEBLEND_LEVELS,
                )
            return found
        except Exception as error:
            if type(error) is not Exception:  # sep has no class of its own for an overflow
                raise
    return None
