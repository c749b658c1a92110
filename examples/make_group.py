"""Simulate a group of light frames of one field, with the truth beside it.

The scene (stars and a nebula) lies on the pixel grid of frame 0, the reference. Every frame sees it through
its own rotation and shift, seeing, transparency and sky gradient, and with what nobody ordered: trails,
cosmic rays, hot pixels, noise. All follows from a `GroupSpec`: a frame depends on the spec and its number
only, so frames may be rendered in any order. Pixel (0, 0) is the centre of the first pixel stored, rows
first; a 2×3 matrix ``[a b tx; c d ty]`` maps frame pixel (x, y) to reference pixel. Values are ADU.

With a lens or a tilt, all of this holds for the pixels that an ideal camera would have had: `to_ideal` and
`from_ideal` lead there and back, and `to_reference` from a frame to the reference as it is.

Run ``python examples/make_group.py FOLDER`` for a group on disk, or import `truth_of` and `render_frame`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import erf

Floats = NDArray[np.float64]
Image = NDArray[np.float32]

SCALE = 2.4  # arcsec per pixel
CENTRE = (315.4, 68.1)  # degrees, RA and Dec of the centre of the reference frame
SKY_COLOUR = (1.25, 1.0, 0.7)  # light pollution is red
# One random stream per purpose, so that changing one ingredient leaves all others as they were.
FIELD, NEBULA, SENSOR, POINTING, CONDITIONS, ARTEFACTS, NOISE = range(7)
CFAS = ("RGGB", "BGGR", "GBRG", "GRBG", "RGB", "mono")


@dataclass(frozen=True)
class GroupSpec:
    """Everything that determines a simulated group; lengths in pixels, brightness in ADU."""

    frames: int = 12
    rows: int = 540
    cols: int = 960
    cfa: str | None = "GRBG"  #: RGGB, BGGR, GBRG, GRBG; "RGB" for colour cubes (3, rows, cols); None for mono
    seed: int = 1
    stars: int = 250  #: in an area as large as one frame; the field around has the same density
    flux: tuple[float, float] = (1000.0, 3.5e5)  #: faintest and brightest star (green, or mono), total ADU
    fwhm: tuple[float, float] = (2.8, 3.4)  #: bounds of the seeing, drawn per frame
    beta: float | None = None  #: Moffat exponent of the star images; None is a Gaussian
    rotation: float = 4.0  #: degrees, bound of the rotation about the frame's centre
    dither: float = 25.0  #: bound of the shift along each axis
    flip: bool = False  #: the second half of the frames is turned by 180 degrees: a meridian flip
    lens: float = 0.0  #: radial distortion at a corner, as a fraction of its distance; below 0 is a barrel
    tilt: float = 0.0  #: bound of the keystone: change of scale from the centre of a frame to its corners
    chain: float | None = None  #: neighbours overlap in x by this fraction only; the dither is then in y only
    sky: float = 900.0  #: mean level (green, or mono); every frame's own differs by up to 15 %
    gradient: float = 150.0  #: slope of the sky × length of the diagonal, in a random direction per frame
    transparency: tuple[float, float] = (0.85, 1.0)  #: bounds, drawn per frame; frame 0 has 1
    noise: float = 45.0  #: Gaussian sigma of every pixel
    gain: float | None = 1.0  #: electrons per ADU, for the shot noise of the starlight; None for none
    trails: float = 0.25  #: probability that a frame is crossed by a bright trail
    hot_pixels: float = 2e-4  #: fraction of the sensor, the same pixels in all frames
    cosmic_rays: int = 30  #: per frame, streaks of 1 to 5 pixels
    nebula: bool = True
    wcs: bool = False  #: write a TAN solution, consistent with the true transforms, into every header
    exposure: float = 10.0  #: seconds

    def __post_init__(self) -> None:
        """Refuse what cannot be rendered."""
        if (self.cfa or "mono") not in CFAS or self.cfa == "mono":
            raise ValueError(f"cfa is {self.cfa!r}; use RGGB, BGGR, GBRG, GRBG, RGB, or None for mono")
        if min(self.frames, self.rows, self.cols) < 1 or min(self.seed, self.stars, self.cosmic_rays) < 0:
            raise ValueError("frames, rows, cols must be at least 1; seed, stars, cosmic_rays at least 0")
        if not (0 < self.fwhm[0] <= self.fwhm[1] and 0 < self.flux[0] < self.flux[1]):
            raise ValueError("fwhm and flux are (low, high) with 0 < low < high")
        chain, beta, gain = self.chain, self.beta, self.gain
        if (chain is not None and not 0 < chain <= 1) or (beta is not None and beta <= 1):
            raise ValueError("chain must be above 0 and at most 1, beta above 1; or None")
        if gain is not None and gain <= 0:
            raise ValueError("gain must be above 0, or None")
        if abs(self.lens) > 0.1 or not 0 <= self.tilt <= 0.1:
            raise ValueError("lens must be within ±0.1 and tilt from 0 to 0.1")
        if self.wcs and not self.straight:
            raise ValueError("wcs is a plain TAN: it goes with neither lens nor tilt")

    @property
    def channels(self) -> int:
        """1 for mono, else 3."""
        return 1 if self.cfa is None else 3

    @property
    def centre(self) -> Floats:
        """(x, y) of the centre of a frame, in frame pixels."""
        return np.array([(self.cols - 1) / 2, (self.rows - 1) / 2])

    @property
    def straight(self) -> bool:
        """Whether frames differ by rotation and shift alone."""
        return self.lens == 0.0 and self.tilt == 0.0

    @property
    def corner(self) -> float:
        """Distance of a corner from the centre, pixels."""
        return float(np.hypot(*self.centre))

    @property
    def step(self) -> float:
        """Shift along x from each frame to the next, pixels."""
        return 0.0 if self.chain is None else self.cols * (1 - self.chain)


@dataclass(frozen=True, eq=False)
class Truth:
    """What a perfect stacker would find; n frames, c channels, s stars."""

    matrices: Floats  #: (n, 2, 3), frame pixel to reference pixel; frame 0 has the identity
    tilts: Floats  #: (n, 2), keystone along x and y, per corner distance; 0 in frame 0
    x: Floats  #: (s,), stars, in (ideal) reference pixels; some lie outside of every frame
    y: Floats  #: (s,)
    flux: Floats  #: (c, s), total ADU at transparency 1
    transparency: Floats  #: (n,), factor on stars and nebula
    fwhm: Floats  #: (n,), pixels
    sky: Floats  #: (n, c, 3): sky = s0 + s1·(x - xc) + s2·(y - yc), in frame pixels from the centre
    hot: Image  #: (rows, cols), ADU that the sensor adds to each pixel of every frame, 0 where it is good


def _rng(spec: GroupSpec, stream: int, k: int = 0) -> np.random.Generator:
    return np.random.default_rng([spec.seed, stream, k])


def _extent(spec: GroupSpec) -> tuple[Floats, Floats]:
    """Lower and upper (x, y) of the field that the frames can reach, in reference pixels."""
    half = np.array([spec.cols, spec.rows]) / 2
    turn = np.sin(np.radians(min(abs(spec.rotation), 90.0)))
    reach = half + half[::-1] * turn + spec.dither + 5 * spec.fwhm[1]
    return spec.centre - reach, spec.centre + reach + [(spec.frames - 1) * spec.step, 0]


def _to_frame(matrix: Floats, x: Floats, y: Floats) -> Floats:
    """Map reference pixels x, y (each (s,) or a scalar) to frame pixels (2, s) or (2,), against `matrix`."""
    frame: Floats = np.linalg.inv(matrix[:, :2]) @ (np.array([x, y]).T - matrix[:, 2]).T
    return frame


def _distorted(spec: GroupSpec, xy: Floats) -> Floats:
    """Return where the lens puts ideal pixels (n, 2): r (1 + lens r²), r in corner distances.

    A barrel would fold the far field back onto the sensor; what lies beyond the fold is at infinity.
    """
    offset = (xy - spec.centre) / spec.corner
    r2 = (offset**2).sum(axis=1, keepdims=True)
    bent = np.where(1 + 3 * spec.lens * r2 > 0, offset * (1 + spec.lens * r2), np.inf)
    seen: Floats = spec.centre + spec.corner * bent
    return seen


def _undistorted(spec: GroupSpec, xy: Floats) -> Floats:
    """Return the ideal pixels of sensor pixels (n, 2), by Newton's iteration on the radius."""
    offset = (xy - spec.centre) / spec.corner
    seen = np.hypot(*offset.T)
    r = seen.copy()
    for _ in range(8):
        r -= (r * (1 + spec.lens * r**2) - seen) / (1 + 3 * spec.lens * r**2)
    ideal: Floats = spec.centre + spec.corner * offset * (r / np.where(seen > 0, seen, 1))[:, None]
    return ideal


def to_ideal(spec: GroupSpec, truth: Truth, k: int, xy: Floats) -> Floats:
    """Map pixels (n, 2) of frame `k` to ideal pixels of the reference: lens, tilt, rotation, shift."""
    matrix = truth.matrices[k]
    if not spec.straight:
        offset = _undistorted(spec, xy) - spec.centre
        xy = spec.centre + offset / (1 + offset @ truth.tilts[k] / spec.corner)[:, None]
    ideal: Floats = xy @ matrix[:, :2].T + matrix[:, 2]
    return ideal


def from_ideal(spec: GroupSpec, truth: Truth, k: int, xy: Floats) -> Floats:
    """Map ideal pixels (n, 2) of the reference to pixels of frame `k`; inf for what it cannot see."""
    flat = _to_frame(truth.matrices[k], *xy.T).T
    if spec.straight:
        return flat
    offset = flat - spec.centre
    along = 1 - offset @ truth.tilts[k] / spec.corner
    frame = np.full_like(xy, np.inf)
    ahead = along > 0
    frame[ahead] = _distorted(spec, spec.centre + offset[ahead] / along[ahead, None])
    return frame


def to_reference(spec: GroupSpec, truth: Truth, k: int, xy: Floats) -> Floats:
    """Map pixels (n, 2) of frame `k` to pixels of the reference, whose lens is the same."""
    return from_ideal(spec, truth, 0, to_ideal(spec, truth, k, xy))


def star_field(spec: GroupSpec) -> tuple[Floats, Floats, Floats]:
    """Draw the stars: x, y (s,) in reference pixels and flux (c, s) in ADU.

    Fluxes follow N(>F) ∝ F^-0.8 between the bounds of the spec; red to blue ratios run from 0.6 to 1.6.
    """
    rng = _rng(spec, FIELD)
    low, high = _extent(spec)
    count = round(spec.stars * float(np.prod(high - low)) / (spec.rows * spec.cols))
    x, y = rng.uniform(low, high, (count, 2)).T
    faint, bright = np.power(spec.flux, -0.8)
    green = (bright + (faint - bright) * rng.random(count)) ** (-1 / 0.8)
    red_to_blue = np.exp(rng.uniform(np.log(0.6), np.log(1.6), count))
    colours = np.sqrt([red_to_blue, np.ones(count), 1 / red_to_blue])
    return x, y, green * (colours if spec.channels == 3 else 1.0) * np.ones((spec.channels, 1))


def truth_of(spec: GroupSpec) -> Truth:
    """Draw all that is random about a group except its noise and outliers; renders nothing."""
    matrices, tilts, transparency, fwhm, sky = [], [], [], [], []
    for k in range(spec.frames):
        rng = _rng(spec, POINTING, k)
        angle = np.radians(rng.uniform(-1, 1) * spec.rotation)
        shift = rng.uniform(-1, 1, 2) * spec.dither
        if spec.chain is not None:
            shift[0] = k * spec.step
        if k == 0:
            angle, shift = 0.0, np.zeros(2)
        elif spec.flip and 2 * k >= spec.frames:
            angle += np.pi
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrices.append(np.column_stack([turn, spec.centre + shift - turn @ spec.centre]))
        lean, towards = spec.tilt * rng.uniform(0.5, 1), rng.uniform(0, 2 * np.pi)
        tilts.append([0.0, 0.0] if k == 0 else [lean * np.cos(towards), lean * np.sin(towards)])

        rng = _rng(spec, CONDITIONS, k)
        clear, seeing = rng.uniform(*spec.transparency), rng.uniform(*spec.fwhm)
        transparency.append(1.0 if k == 0 else clear)
        fwhm.append(seeing)
        level, direction = spec.sky * rng.uniform(0.85, 1.15), rng.uniform(0, 2 * np.pi)
        slope = spec.gradient / np.hypot(spec.rows, spec.cols)
        colour = SKY_COLOUR if spec.channels == 3 else (1.0,)
        sky.append(np.outer(colour, [level, slope * np.cos(direction), slope * np.sin(direction)]))

    rng = _rng(spec, SENSOR)
    hot = np.zeros((spec.rows, spec.cols), np.float32)
    bad = rng.choice(hot.size, round(hot.size * spec.hot_pixels), replace=False)
    hot.flat[bad] = np.exp(rng.uniform(np.log(2000), np.log(30000), bad.size))
    x, y, flux = star_field(spec)
    conditions = np.array(transparency), np.array(fwhm), np.array(sky)
    return Truth(np.array(matrices), np.array(tilts), x, y, flux, *conditions, hot)


def _starlight(
    x: Floats, y: Floats, flux: Floats, shape: tuple[int, int], fwhm: float, beta: float | None
) -> Image:
    """Draw stars at pixels x, y (s,) with total fluxes (c, s) into an image (c, rows, cols).

    Each star is a square stamp, integrated over every pixel, and scaled to sum to one. Before that it holds
    all but 1e-6 of a Gaussian and all but 1e-3 of a Moffat profile with beta 3.5.
    """
    rows, cols = shape
    half = int(np.ceil((2.2 if beta is None else 4.5) * fwhm)) + 1
    seen = (x > -half) & (x < cols - 1 + half) & (y > -half) & (y < rows - 1 + half)
    x, y, flux = x[seen], y[seen], flux[:, seen]
    px, py = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    reach = np.arange(-half, half + 1)
    dx, dy = px[:, None] + reach - x[:, None], py[:, None] + reach - y[:, None]  # (s, size)
    if beta is None:
        root2_sigma = fwhm / (2 * np.sqrt(np.log(2)))
        wx, wy = (erf((d + 0.5) / root2_sigma) - erf((d - 0.5) / root2_sigma) for d in (dx, dy))
        stamps = wy[:, :, None] * wx[:, None, :]
    else:  # Gauss-Legendre over the pixel: at FWHM 2 four nodes a side leave an error below 1e-6 of the flux
        width2 = fwhm**2 / (4 * (2 ** (1 / beta) - 1))
        nodes, weights = np.polynomial.legendre.leggauss(4)
        stamps = np.zeros((x.size, reach.size, reach.size))
        for v, wv in zip(nodes / 2, weights, strict=True):
            for u, wu in zip(nodes / 2, weights, strict=True):
                r2 = (dy + v)[:, :, None] ** 2 + (dx + u)[:, None, :] ** 2
                stamps += wv * wu * (1 + r2 / width2) ** -beta
    stamps /= stamps.sum(axis=(1, 2), keepdims=True)
    pad = 2 * half  # a star at most `half` outside reaches at most that far
    width = cols + 2 * pad
    index = ((py + pad)[:, None] + reach)[:, :, None] * width + ((px + pad)[:, None] + reach)[:, None, :]
    image = np.empty((len(flux), rows, cols), np.float32)
    for channel, total in zip(image, flux, strict=True):
        light = np.bincount(index.ravel(), (stamps * total[:, None, None]).ravel(), width * (rows + 2 * pad))
        channel[:] = light.reshape(-1, width)[pad : pad + rows, pad : pad + cols]
    return image


def _nebula(spec: GroupSpec, matrix: Floats, shape: tuple[int, int], ideal: Floats | None = None) -> Image:
    """Draw the nebula, (c, rows, cols), as pixels see it that `matrix`, a rotation, maps to the reference.

    Where a rotation does not tell it, `ideal` (rows, cols, 2) holds the ideal pixel of every pixel.
    """
    image = np.zeros((spec.channels, *shape), np.float32)
    rng = _rng(spec, NEBULA)
    low, high = _extent(spec)
    for _ in range(7 if spec.nebula else 0):
        middle = low + (high - low) * rng.uniform(0.3, 0.7, 2)
        x, y = _to_frame(matrix, *middle)
        sigma, peak = max(8.0, min(spec.rows, spec.cols) * rng.uniform(0.06, 0.22)), rng.uniform(20, 60)
        colour = (1.0, rng.uniform(0.4, 0.8), rng.uniform(0.3, 1.0)) if spec.channels == 3 else (1.0,)
        if ideal is not None:
            glow = peak * np.exp(-0.5 * ((ideal - middle) ** 2).sum(axis=2) / sigma**2)
            image += np.multiply.outer(colour, glow).astype(np.float32)
            continue
        row = peak * np.exp(-0.5 * ((np.arange(shape[0]) - y) / sigma) ** 2)
        col = np.exp(-0.5 * ((np.arange(shape[1]) - x) / sigma) ** 2)
        image += np.multiply.outer(np.outer(colour, row).astype(np.float32), col.astype(np.float32))
    if ideal is not None:  # a pixel that sees more of the sky has more light
        (xx, xy), (yx, yy) = (np.gradient(ideal[..., i], axis=(1, 0)) for i in (0, 1))
        image *= np.abs(xx * yy - xy * yx).astype(np.float32)
    return image


def _ideal_grid(
    spec: GroupSpec, truth: Truth, k: int, origin: tuple[float, float], shape: tuple[int, int]
) -> Floats | None:
    """Return the ideal pixel of every pixel from `origin` on, (rows, cols, 2); None without lens and tilt."""
    if spec.straight:
        return None
    y, x = np.mgrid[: shape[0], : shape[1]]
    points = np.column_stack([x.ravel() + origin[0], y.ravel() + origin[1]])
    return to_ideal(spec, truth, k, points).reshape(*shape, 2)


def scene(
    spec: GroupSpec,
    truth: Truth,
    channel: int,
    origin: tuple[float, float] = (0.0, 0.0),
    shape: tuple[int, int] | None = None,
    fwhm: float | None = None,
) -> Image:
    """Return the stars and nebula of one channel, (rows, cols), without sky or noise, on the reference grid.

    `origin` is the (x, y) of the first pixel in reference pixels (a tile's ZMT_X0, ZMT_Y0); `shape` defaults
    to that of a frame, `fwhm` to the mean of the group.
    """
    shape = shape or (spec.rows, spec.cols)
    matrix = np.array([[1, 0, origin[0]], [0, 1, origin[1]]], np.float64)
    fwhm = float(truth.fwhm.mean()) if fwhm is None else fwhm
    flux = truth.flux[channel : channel + 1]
    x, y = from_ideal(spec, truth, 0, np.column_stack([truth.x, truth.y])).T
    light = _starlight(x - origin[0], y - origin[1], flux, shape, fwhm, spec.beta)
    ideal = _ideal_grid(spec, truth, 0, origin, shape)
    image: Image = light[0] + _nebula(spec, matrix, shape, ideal)[channel]
    return image


def artefacts(spec: GroupSpec, k: int) -> Image:
    """Return what only frame `k` has, (rows, cols) in ADU: trail and cosmic rays; above 0 is an outlier."""
    rng = _rng(spec, ARTEFACTS, k)
    plane = np.zeros((spec.rows, spec.cols), np.float32)
    crossed, angle, peak = rng.random() < spec.trails, rng.uniform(0, np.pi), rng.uniform(1500, 12000)
    x0, y0 = spec.centre * rng.uniform(0.5, 1.5, 2)
    width = rng.uniform(0.9, 1.8)
    if crossed:
        row, col = np.ogrid[: spec.rows, : spec.cols]
        distance = ((col - x0) * np.sin(angle) - (row - y0) * np.cos(angle)) / width
        plane += np.where(np.abs(distance) < 4, peak * np.exp(-0.5 * distance**2), 0)
    n = spec.cosmic_rays
    x, y, angles = rng.uniform(0, spec.cols, n), rng.uniform(0, spec.rows, n), rng.uniform(0, 2 * np.pi, n)
    lengths, energy = rng.integers(1, 6, n), np.exp(rng.uniform(np.log(800), np.log(20000), n))
    for i in range(5):
        at_x, at_y = x + i * np.cos(angles), y + i * np.sin(angles)
        hit = (i < lengths) & (at_x >= 0) & (at_x < spec.cols) & (at_y >= 0) & (at_y < spec.rows)
        plane[at_y[hit].astype(int), at_x[hit].astype(int)] += energy[hit]
    return plane


def _expose(spec: GroupSpec, cube: Image) -> Image:
    """Return what the sensor sees of (c, rows, cols): the plane, the Bayer mosaic of it, or all of it."""
    if spec.cfa is None or spec.cfa == "RGB":
        return cube[0] if spec.cfa is None else cube
    plane = np.empty(cube.shape[1:], np.float32)
    for i, colour in enumerate(spec.cfa):
        site = np.s_[i // 2 :: 2, i % 2 :: 2]
        plane[site] = cube["RGB".index(colour)][site]
    return plane


def render_frame(spec: GroupSpec, truth: Truth, k: int) -> NDArray[np.uint16]:
    """Render frame `k`, uint16: (rows, cols), or (3, rows, cols) where ``cfa`` is RGB."""
    shape, matrix = (spec.rows, spec.cols), truth.matrices[k]
    x, y = from_ideal(spec, truth, k, np.column_stack([truth.x, truth.y])).T
    stars = _starlight(x, y, truth.flux * truth.transparency[k], shape, truth.fwhm[k], spec.beta)
    ideal = _ideal_grid(spec, truth, k, (0, 0), shape)
    glow = _nebula(spec, matrix, shape, ideal) * np.float32(truth.transparency[k])
    (xc, yc), (row, col) = spec.centre, np.ogrid[: spec.rows, : spec.cols]
    for channel, (level, slope_x, slope_y) in zip(glow, truth.sky[k], strict=True):
        channel += level + slope_x * (col - xc) + slope_y * (row - yc)
    light = _expose(spec, stars)
    pixels = light + _expose(spec, glow) + (truth.hot + artefacts(spec, k))
    sigma = np.sqrt(spec.noise**2 + (0.0 if spec.gain is None else light / spec.gain))
    pixels += sigma * _rng(spec, NOISE, k).standard_normal(pixels.shape, np.float32)
    return np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)


def frame_header(spec: GroupSpec, truth: Truth, k: int) -> fits.Header:
    """Return the header of frame `k`, as a camera program writes it."""
    start = datetime(2024, 9, 10, 21, 30) + timedelta(seconds=k * (spec.exposure + 2))
    header = fits.Header()
    header.update({"OBJECT": "NGC 7023", "IMAGETYP": "Light", "INSTRUME": "Simulated camera"})
    header["FILTER"] = "L" if spec.cfa is None else "IRCUT"
    header["EXPTIME"] = (spec.exposure, "[s]")
    header["DATE-OBS"] = (start.isoformat(timespec="milliseconds"), "start, UTC")
    header.update({"XPIXSZ": 2.9, "FOCALLEN": 249.2, "SWCREATE": "make_group.py"})
    if spec.cfa not in (None, "RGB"):
        header.update({"BAYERPAT": spec.cfa, "XBAYROFF": 0, "YBAYROFF": 0, "ROWORDER": "TOP-DOWN"})
    if spec.wcs:
        # The same tangent point in all frames, found at another pixel and under another angle in each.
        matrix = truth.matrices[k]
        cd = np.diag([-SCALE / 3600, SCALE / 3600]) @ matrix[:, :2]
        crpix = _to_frame(matrix, *spec.centre) + 1
        header.update({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg"})
        header.update({"CRVAL1": CENTRE[0], "CRVAL2": CENTRE[1], "CRPIX1": crpix[0], "CRPIX2": crpix[1]})
        header.update({"CD1_1": cd[0, 0], "CD1_2": cd[0, 1], "CD2_1": cd[1, 0], "CD2_2": cd[1, 1]})
        header["RADESYS"] = "ICRS"
    return header


def write_group(spec: GroupSpec, folder: Path) -> list[Path]:
    """Write ``light_0001.fits`` … and ``truth/truth.fits`` into `folder`; return the paths of the lights.

    The truth lies one folder deeper so that ``folder/*.fits`` is the group. Its primary HDU is the `scene` at
    the mean FWHM (c, rows, cols), HOT the map of hot pixels; STARS and FRAMES are tables.

    Raises
    ------
    FileExistsError
        The folder holds lights that would not be replaced: they would mix with this group.
    """
    paths = [folder / f"light_{k + 1:04d}.fits" for k in range(spec.frames)]
    if stale := sorted(set(folder.glob("light_*.fits")) - set(paths)):
        raise FileExistsError(f"{stale[0]} belongs to another group; remove it or choose another folder")
    (folder / "truth").mkdir(parents=True, exist_ok=True)
    truth = truth_of(spec)
    for k, path in enumerate(paths):
        hdu = fits.PrimaryHDU(render_frame(spec, truth, k), frame_header(spec, truth, k))
        hdu.writeto(path, overwrite=True)
    _write_truth(spec, truth, [path.name for path in paths], folder / "truth" / "truth.fits")
    return paths


def _write_truth(spec: GroupSpec, truth: Truth, names: Sequence[str], path: Path) -> None:
    primary = fits.PrimaryHDU(np.stack([scene(spec, truth, channel) for channel in range(spec.channels)]))
    primary.header["SPEC"] = json.dumps(asdict(spec))
    stars = Table({"X": truth.x, "Y": truth.y, "FLUX": truth.flux.T})
    columns = {"MATRIX": truth.matrices, "TILT": truth.tilts, "TRANSP": truth.transparency}
    columns |= {"FWHM": truth.fwhm, "SKY": truth.sky}
    hdus = [primary, fits.ImageHDU(truth.hot, name="HOT"), fits.BinTableHDU(stars, name="STARS")]
    hdus.append(fits.BinTableHDU(Table({"NAME": names} | columns), name="FRAMES"))
    fits.HDUList(hdus).writeto(path, overwrite=True)


def read_truth(path: Path) -> tuple[GroupSpec, Truth]:
    """Read the spec and the truth of a group back from its ``truth.fits``."""
    with fits.open(path, memmap=False) as hdus:
        fields = json.loads(hdus[0].header["SPEC"])
        spec = GroupSpec(**fields | {name: tuple(fields[name]) for name in ("flux", "fwhm", "transparency")})
        stars, frames = hdus["STARS"].data, hdus["FRAMES"].data
        # FITS is big-endian, and a table drops axes of length 1
        x, y, flux = (np.array(stars[name], np.float64) for name in ("X", "Y", "FLUX"))
        matrices, tilts, sky = (np.array(frames[name], np.float64) for name in ("MATRIX", "TILT", "SKY"))
        transparency, fwhm = (np.array(frames[name], np.float64) for name in ("TRANSP", "FWHM"))
        hot = np.array(hdus["HOT"].data, np.float32)
    flux, sky = flux.reshape(-1, spec.channels).T, sky.reshape(-1, spec.channels, 3)
    truth = Truth(matrices.reshape(-1, 2, 3), tilts.reshape(-1, 2), x, y, flux, transparency, fwhm, sky, hot)
    return spec, truth


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--frames", default=GroupSpec.frames, help="Number of light frames.")
@click.option("--rows", default=GroupSpec.rows, help="Height of a frame, pixels.")
@click.option("--cols", default=GroupSpec.cols, help="Width of a frame, pixels.")
@click.option(
    "--cfa", type=click.Choice(CFAS), default=GroupSpec.cfa, help="Bayer pattern; RGB: colour cubes."
)
@click.option("--seed", default=GroupSpec.seed, help="Another seed is another group.")
@click.option("--stars", default=GroupSpec.stars, help="Stars in an area as large as a frame.")
@click.option("--flux", nargs=2, default=GroupSpec.flux, help="Faintest and brightest star, total ADU.")
@click.option("--fwhm", nargs=2, default=GroupSpec.fwhm, help="Bounds of the seeing, pixels.")
@click.option("--beta", type=float, default=None, help="Moffat exponent; without it stars are Gaussians.")
@click.option("--rotation", default=GroupSpec.rotation, help="Largest rotation either way, degrees.")
@click.option("--dither", default=GroupSpec.dither, help="Largest shift either way, pixels.")
@click.option("--flip", is_flag=True, help="Turn the second half of the frames by 180 degrees.")
@click.option("--lens", default=GroupSpec.lens, help="Radial distortion at a corner; below 0 is a barrel.")
@click.option("--tilt", default=GroupSpec.tilt, help="Largest keystone of a frame, at its corners.")
@click.option("--chain", type=float, default=None, help="Neighbours overlap by this fraction only.")
@click.option("--sky", default=GroupSpec.sky, help="Level of the sky, ADU.")
@click.option("--gradient", default=GroupSpec.gradient, help="Sky gradient over the diagonal, ADU.")
@click.option("--transparency", nargs=2, default=GroupSpec.transparency, help="Bounds of the transparency.")
@click.option("--noise", default=GroupSpec.noise, help="Noise of every pixel, ADU.")
@click.option("--gain", default=GroupSpec.gain, help="e-/ADU for the stars' shot noise; 0 for none.")
@click.option("--trails", default=GroupSpec.trails, help="Probability of a trail in a frame.")
@click.option("--hot-pixels", default=GroupSpec.hot_pixels, help="Fraction of the sensor that is hot.")
@click.option("--cosmic-rays", default=GroupSpec.cosmic_rays, help="Cosmic rays per frame.")
@click.option("--nebula/--no-nebula", default=GroupSpec.nebula, help="Add a faint nebula.")
@click.option("--wcs", is_flag=True, help="Write a WCS into every header.")
@click.option("--exposure", default=GroupSpec.exposure, help="Exposure time of a frame, seconds.")
def main(folder: Path, cfa: str, gain: float, **options: Any) -> None:
    """Write a simulated group of light frames into FOLDER, and its truth into FOLDER/truth."""
    try:
        spec = GroupSpec(cfa=None if cfa == "mono" else cfa, gain=gain or None, **options)
        paths = write_group(spec, folder)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(paths)} frames, {paths[0]} to {paths[-1].name}")
    click.echo(f"truth: {folder / 'truth' / 'truth.fits'}")


if __name__ == "__main__":
    main()
