"""Measure: one look at every frame, for its stars, FWHM, noise and sky."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.calibrate import Correction
from zmtile.frames.detect import FWHM_OF_SIGMA, detect, luminance
from zmtile.frames.frame import Frame
from zmtile.frames.hashes import sha256_of
from zmtile.frames.hotpixels import lone_in_frame
from zmtile.frames.pixels import Pixels, open_pixels
from zmtile.kernels.demosaic import pattern_codes
from zmtile.kernels.photometry import aperture_fluxes
from zmtile.kernels.sky import sky_mesh, step_noise
from zmtile.parallel import Kept

__all__ = ["FrameStats", "SkyMesh", "Stars", "measure"]

MAX_PHOTOMETRY = 300
CELL = 64
# Cells of a frame, about, where those of that side would be more than twice as many.
CELLS = 1500
# Differences that the noise is measured on, about, and at least a quarter of all: they tell it to 0.2 %.
NOISE_STEPS = 2**18
# Second moment that averaging 2×2 pixels adds to an image, px² per axis.
BOX_VARIANCE = 0.25
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


def measure(
    frame: Frame, correction: Correction | None = None, lone: bool = False, kept: Kept | None = None
) -> FrameStats:
    """Measure a frame.

    Parameters
    ----------
    frame : Frame
    correction : Correction, optional
        What is done to its pixels first.
    lone : bool
        Find the pixels that stand alone, too.
    kept : Kept, optional
        Where its pixels are held, for the next frame to take their place.

    Raises
    ------
    FrameError
        When its pixels cannot be read.
    """
    return _measure(frame, open_pixels(frame, correction), lone, kept or Kept())


def _measure(frame: Frame, pixels: Pixels, lone: bool, kept: Kept) -> FrameStats:
    planes = pixels.whole(kept)
    codes = pattern_codes(frame.cfa) if frame.cfa else np.zeros((2, 2), np.uint8)
    noise = np.array([_noise(planes, codes, c, frame) for c in range(frame.channels)])
    sky = _sky(planes, codes, frame)
    light, hot, missing = luminance(planes, codes, sky.level, sky.cell, noise, kept)
    offset = 0.5 if frame.cfa else 0.0
    (x, y, flux, size, whole), fwhm, roundness = detect(light)
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
        finite=1.0 - missing / planes[0].size,
        sha256=sha256_of(frame.path),
    )


def _noise(planes: NDArray[np.float32], codes: NDArray[np.uint8], channel: int, frame: Frame) -> float:
    """Sigma of one colour from differences of its neighbouring samples along rows.

    Every fourth row of the colour is enough, and of a large frame fewer.
    """
    side = 2 if frame.cfa else 1  # of the block that holds one sample of a colour, two of green
    rows, cols = frame.rows // side, frame.cols // side
    step = max(4, rows * cols // NOISE_STEPS)
    values = np.empty((rows // step + 1) * (cols + 1), np.float32)
    keys = np.empty(values.size, np.int32)
    row, col = np.argwhere(codes == channel)[0] if frame.cfa else (0, 0)
    plane = planes[min(channel, len(planes) - 1)]
    return float(step_noise(plane, row, col, side * step, side, values, keys))


def _sky(planes: NDArray[np.float32], codes: NDArray[np.uint8], frame: Frame) -> SkyMesh:
    # Small frames take smaller cells: a surface needs more than a handful. Large ones take larger cells:
    # it needs no more than some 1500.
    cell = CELL * max(1, round(math.sqrt(frame.rows * frame.cols / CELLS) / CELL))
    if min(frame.rows, frame.cols) < 8 * CELL:
        cell = max(16, min(frame.rows, frame.cols) // 16 * 2)
    # Only whole cells: the middle of a part of one is not where the mesh says.
    shape = (frame.channels, max(frame.rows // cell, 1), max(frame.cols // cell, 1))
    level, sigma, kept = np.empty(shape, np.float32), np.empty(shape, np.float32), np.empty(shape, np.int64)
    sky_mesh(planes, codes, cell, 1, level, sigma, kept)
    with np.errstate(invalid="ignore", divide="ignore"):
        return SkyMesh(cell, level, (sigma / np.sqrt(kept)).astype(np.float32))
