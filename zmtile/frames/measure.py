"""Measure: one look at every frame, for its stars, FWHM, noise and sky.

Detection runs on a luminance image: for a mosaic the mean of each 2×2 block at every position,
which holds all colours at full resolution and, unlike a demosaiced image, smears nothing further.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame
from zmtile.frames.hotpixels import lone_in_frame
from zmtile.frames.pixels import Pixels, open_pixels
from zmtile.kernels.demosaic import pattern_codes
from zmtile.kernels.photometry import aperture_fluxes
from zmtile.kernels.sky import calm_hot_pixels, sky_mesh

__all__ = ["FrameStats", "SkyMesh", "Stars", "measure"]

DETECT_SIGMA = 5.0
MIN_AREA = 5
MAX_STARS = 2000
MAX_PHOTOMETRY = 300
CELL = 64
FWHM_OF_SIGMA = 2.3548
# Second moment that averaging 2×2 pixels adds to an image, px² per axis.
BOX_VARIANCE = 0.25
# Share of a Gaussian's light within a circle of radius FWHM.
WITHIN_FWHM = 0.9375
# Centroids are no better than this, however bright the star (pixel response, atmosphere), px.
CENTROID_FLOOR = 0.02


@dataclass(frozen=True)
class Stars:
    """Stars of a frame, brightest first.

    Attributes
    ----------
    x, y : (n,) float64
        Frame pixels.
    flux : (n,) float64
        Luminance, ADU.
    error : (n,) float64
        Standard error of each coordinate, px.
    channel_flux : (channels, m) float32
        Aperture flux of the first m stars in every colour, ADU; NaN where not measurable.
    size : (n,) float64
        Radius that holds half of the light, px.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    flux: NDArray[np.float64]
    error: NDArray[np.float64]
    channel_flux: NDArray[np.float32]
    size: NDArray[np.float64]

    def __len__(self) -> int:
        return self.x.size

    @property
    def xy(self) -> NDArray[np.float64]:
        """Positions, (n, 2)."""
        return np.column_stack([self.x, self.y])


@dataclass(frozen=True)
class SkyMesh:
    """Sky of a frame in square cells.

    Attributes
    ----------
    cell : int
        Side of a cell, px; cell (i, j) covers rows i·cell … and cols j·cell ….
    level, error : (channels, cell rows, cell cols) float32
        ADU; NaN where too few samples were usable.
    """

    cell: int
    level: NDArray[np.float32]
    error: NDArray[np.float32]

    @property
    def centres(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frame pixels x (cell cols,) and y (cell rows,) of the cells' centres."""
        _, rows, cols = self.level.shape
        x = (np.arange(cols, dtype=np.float64) + 0.5) * self.cell - 0.5
        y = (np.arange(rows, dtype=np.float64) + 0.5) * self.cell - 0.5
        return x, y


@dataclass(frozen=True)
class FrameStats:
    """What the first pass learns of a frame.

    Attributes
    ----------
    stars : Stars
    fwhm : float
        Median of the stars, px; NaN without stars.
    roundness : float
        Median ratio of minor to major axis.
    noise : (channels,) float64
        Sigma of a stored sample about the sky, ADU.
    sky : SkyMesh
    hot : int
        Lone bright pixels that detection passed over.
    finite : float
        Fraction of the pixels that hold data.
    sha256 : str
        Of the file as stored.
    lone : (n,) int64
        Pixels that stand alone, as `zmtile.frames.hotpixels.find_hot_pixels` takes them; empty unless
        they were asked for.
    """

    stars: Stars
    fwhm: float
    roundness: float
    noise: NDArray[np.float64]
    sky: SkyMesh
    hot: int
    finite: float
    sha256: str
    lone: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def measure(frame: Frame, correction: Correction | None = None, lone: bool = False) -> FrameStats:
    """Measure a frame.

    Parameters
    ----------
    frame : Frame
    correction : Correction, optional
        What is done to its pixels first.
    lone : bool
        Find the pixels that stand alone, too.

    Raises
    ------
    FrameError
        When its pixels cannot be read.
    """
    pixels = open_pixels(frame, correction)
    stats = _measure(frame, pixels, lone)
    pixels.release()
    return stats


def _measure(frame: Frame, pixels: Pixels, lone: bool) -> FrameStats:
    planes = pixels.whole()
    codes = pattern_codes(frame.cfa) if frame.cfa else np.zeros((2, 2), np.uint8)
    noise = np.array([_noise(planes, codes, c, frame) for c in range(frame.channels)])
    sky = _sky(planes, codes, frame)
    light, hot = _luminance(planes, codes, sky, noise)
    offset = 0.5 if frame.cfa else 0.0
    (x, y, flux, size, whole), fwhm, roundness = _detect(light)
    box = BOX_VARIANCE if frame.cfa else 0.0
    sigma = math.sqrt(max((fwhm / FWHM_OF_SIGMA) ** 2 - box, 0.25)) if x.size else math.nan
    # Cramér-Rao bound of a Gaussian star on a background: sqrt(8 pi) sigma² noise / flux.
    mean_noise = float(np.sqrt(np.mean(noise[[0, 1, 1, 2]] ** 2))) if frame.cfa else float(np.mean(noise))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.hypot(math.sqrt(8 * math.pi) * sigma**2 * mean_noise / whole, CENTROID_FLOOR)
    fwhm = FWHM_OF_SIGMA * sigma
    bright = min(x.size, MAX_PHOTOMETRY)
    channel_flux = np.empty((frame.channels, bright), np.float32)
    if bright:
        aperture_fluxes(planes, codes, x[:bright] + offset, y[:bright] + offset, 2.0 * fwhm, channel_flux)
    return FrameStats(
        stars=Stars(x + offset, y + offset, flux, error, channel_flux, size),
        fwhm=fwhm,
        roundness=roundness,
        noise=noise,
        sky=sky,
        hot=hot,
        lone=lone_in_frame(planes[0], codes, noise) if lone else np.empty(0, np.int64),
        finite=float(np.isfinite(planes).mean()),
        sha256=_sha256(frame),
    )


def _sha256(frame: Frame) -> str:
    with open(frame.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _noise(planes: NDArray[np.float32], codes: NDArray[np.uint8], channel: int, frame: Frame) -> float:
    """Sigma of one colour from differences of its neighbouring samples along rows.

    Differences cancel sky, gradient and nebula; clipping at 3 sigma drops stars. Every fourth row
    of the colour is enough.
    """
    if frame.cfa:
        phase_row, phase_col = np.argwhere(codes == channel)[0]
        samples = planes[0, phase_row::8, phase_col::2]
    else:
        samples = planes[channel, ::4]
    steps = np.diff(samples, axis=1).ravel()
    steps = steps[np.isfinite(steps)]
    if not steps.size:
        return math.nan
    sigma = 1.4826 * float(np.median(np.abs(steps)))
    if sigma == 0.0:  # most neighbours are equal: the noise is below the camera's step
        sigma = float(np.std(steps.astype(np.float64)))
    for _ in range(2):  # beyond the median: camera values come in steps too coarse for it
        inside = steps[np.abs(steps) <= 3.0 * sigma]
        sigma = float(np.sqrt(np.mean(inside.astype(np.float64) ** 2))) / 0.98658 if inside.size else 0.0
    return sigma / math.sqrt(2)


def _sky(planes: NDArray[np.float32], codes: NDArray[np.uint8], frame: Frame) -> SkyMesh:
    # Small frames take smaller cells: a surface needs more than a handful.
    cell = CELL if min(frame.rows, frame.cols) >= 8 * CELL else max(16, min(frame.rows, frame.cols) // 16 * 2)
    # Only whole cells: the middle of a part of one is not where the mesh says.
    shape = (frame.channels, max(frame.rows // cell, 1), max(frame.cols // cell, 1))
    level, error = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for c in range(frame.channels):
        plane, colour = (planes[0], c) if frame.cfa else (planes[c], 0)
        sky_mesh(plane, codes, colour, cell, level[c], error[c])
    return SkyMesh(cell, level, error)


def _luminance(
    planes: NDArray[np.float32], codes: NDArray[np.uint8], sky: SkyMesh, noise: NDArray[np.float64]
) -> tuple[NDArray[np.float32], int]:
    """Return the image that stars are found on, (rows, cols) float32, and the hot pixels calmed."""
    level, plane = sky.level, planes[0]
    if planes.shape[0] > 1:
        plane = planes.mean(axis=0, dtype=np.float32)
        level = level.mean(axis=0, keepdims=True)
        noise = np.sqrt((noise**2).sum(keepdims=True)) / 3
    flat = level.reshape(level.shape[0], -1)
    base = np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in flat], np.float32)
    light = np.empty_like(plane)
    hot = calm_hot_pixels(plane, codes, level, sky.cell, base, noise.astype(np.float32), light)
    if codes.any():
        light = 0.25 * ((light[:-1, :-1] + light[1:, :-1]) + (light[:-1, 1:] + light[1:, 1:]))
    return np.ascontiguousarray(light), hot


def _detect(
    light: NDArray[np.float32],
) -> tuple[tuple[NDArray[np.float64], ...], float, float]:
    """Find stars; return their x, y, flux, size and whole flux, and FWHM and roundness, as seen in `light`.

    The brightest come first. Their flux is that above the threshold of detection; of a faint star
    it misses a third, so a circle around the star gives the whole flux. Detection and windowed
    centroids are those of SExtractor ([Bertin1996]_) in the sep library.
    """
    import sep

    nothing = (np.empty(0),) * 5, math.nan, math.nan
    bad = ~np.isfinite(light)
    if min(light.shape) < 16 or bad.mean() > 0.95:
        return nothing
    light = np.where(bad, np.float32(0), light)
    background = sep.Background(light, mask=bad, bw=64, bh=64)
    if not (math.isfinite(background.globalrms) and background.globalrms > 0):
        return nothing
    background.subfrom(light)
    try:
        found = sep.extract(light, DETECT_SIGMA, err=background.globalrms, mask=bad, minarea=MIN_AREA)
    except Exception:  # sep's buffers are finite: retry on the bright part of a very crowded frame
        try:
            found = sep.extract(light, 8 * DETECT_SIGMA, err=background.globalrms, mask=bad, minarea=MIN_AREA)
        except Exception:  # no field of stars: left out for want of them
            return nothing
    # Cut by the edge of the image or of the data, trails, and what is no number.
    found = found[(found["flag"] & (sep.OBJ_TRUNC | sep.OBJ_SINGU)) == 0]
    found = found[(found["b"] > 0.33 * found["a"]) & (found["flux"] > 0)]
    if not found.size:
        return nothing
    found = found[np.lexsort((found["x"], found["y"], -found["flux"]))][:MAX_STARS]
    a, b = found["a"], found["b"]
    radius, _ = sep.flux_radius(light, found["x"], found["y"], 5.0 * np.maximum(a, 1.0), 0.5)
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
