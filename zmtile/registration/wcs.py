"""Coordinates: what frames know of the sky, as transforms between them and as the tile's own cards."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

from zmtile.frames.cards import PlainHeader
from zmtile.frames.frame import Frame, get
from zmtile.registration.transform import Matrix, apply, fit, invert

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.wcs import WCS  # slow to load: only runs whose frames have coordinates pay for it

__all__ = ["add_sip", "frame_wcs", "tile_wcs", "wcs_matrix", "wcs_points"]

_GRID = 15
# Fewer points of the grid than this in the reference's plane say nothing about the whole frame.
_MIN_POINTS = _GRID * _GRID // 4


def frame_wcs(frame: Frame) -> WCS | None:
    """Return the celestial coordinates of a frame.

    Parameters
    ----------
    frame : Frame

    Returns
    -------
    WCS or None
        Two pixel axes (x, y), SIP kept; None when the header has no coordinates, or broken ones.
    """
    if not frame.has_wcs:
        return None
    from astropy.wcs import WCS

    header = _mended(frame.header.whole if isinstance(frame.header, PlainHeader) else frame.header)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # dates with a zone, units in capitals: wcslib mends them
            wcs = WCS(header, naxis=2, relax=True)
            wcs.wcs.set()
            if not wcs.has_celestial or abs(np.linalg.det(wcs.pixel_scale_matrix)) == 0:
                return None
            middle = wcs.all_pix2world([[frame.cols / 2, frame.rows / 2]], 0)
    except Exception:  # wcslib has a dozen ways to reject a header; none of them should end the run
        return None
    return wcs if bool(np.isfinite(middle).all()) else None


def _mended(header: fits.Header) -> fits.Header:
    """Return the header with what wcslib would stumble over put right."""
    mended = header.copy()
    for axis in (1, 2):
        unit, kind = (str(get(header, f"{key}{axis}", "")).strip() for key in ("CUNIT", "CTYPE"))
        if unit.lower() in ("degree", "degrees", "deg"):
            mended[f"CUNIT{axis}"] = "deg"
        if "A_ORDER" in header and not kind.endswith("-SIP"):
            # astropy applies such terms, and says so for each frame; with the suffix it is silent.
            mended[f"CTYPE{axis}"] = f"{kind}-SIP"
    return mended


def wcs_points(wcs: WCS, reference_wcs: WCS, shape: tuple[int, int]) -> tuple[Matrix, Matrix]:
    """Return a grid of points of a frame and their places in the reference, by their coordinates alone.

    Parameters
    ----------
    wcs, reference_wcs : WCS
        As `frame_wcs` gives them.
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    (n, 2), (n, 2) float64

    Raises
    ------
    ValueError
        When most of the frame has no place in the reference's plane (the far side of the sky).
    """
    rows, cols = shape
    x, y = np.meshgrid(np.linspace(0, cols - 1, _GRID), np.linspace(0, rows - 1, _GRID))
    source = np.column_stack([x.ravel(), y.ravel()])
    target = _to_pixels(reference_wcs, wcs, source)
    good = np.isfinite(target).all(axis=1)
    if good.sum() < _MIN_POINTS:
        raise ValueError("its coordinates are on another part of the sky than the reference's")
    return source[good], target[good]


def wcs_matrix(wcs: WCS, reference_wcs: WCS, shape: tuple[int, int], model: str) -> tuple[Matrix, float]:
    """Fit the transform from a frame to the reference on their coordinates alone.

    Parameters
    ----------
    wcs, reference_wcs : WCS
        As `frame_wcs` gives them.
    shape : (int, int)
        Rows and columns of the frame.
    model : {'similarity', 'affine'}
        A similarity is reflected where one of the two is the mirror image of the other.

    Returns
    -------
    matrix : (2, 3) float64
        Frame pixel → reference pixel.
    rms : float
        Root mean square distance between the fit and the coordinates, px of the reference.

    Raises
    ------
    ValueError
        When most of the frame has no place in the reference's plane (the far side of the sky).
    """
    source, target = wcs_points(wcs, reference_wcs, shape)
    matrix = fit("affine", source, target)
    if model == "similarity":
        flip = np.array([1.0, -1.0 if np.linalg.det(matrix[:, :2]) < 0 else 1.0])
        matrix = fit("similarity", source * flip, target)
        matrix[:, :2] *= flip
    rms = math.sqrt(float(np.mean(np.sum((apply(matrix, source) - target) ** 2, axis=1))))
    if not (np.isfinite(matrix).all() and math.isfinite(rms)):
        raise ValueError("its coordinates cannot be brought onto the reference's")
    return matrix, rms


def _to_pixels(reference_wcs: WCS, wcs: WCS, points: Matrix) -> Matrix:
    """Return the reference pixels of a frame's pixels, (n, 2); NaN where there are none."""
    from astropy.wcs import NoConvergence

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        world: Matrix = wcs.all_pix2world(points, 0)
        # The axes may be declination first in one of the two.
        ordered = np.empty_like(world)
        ordered[:, reference_wcs.wcs.lng] = world[:, wcs.wcs.lng]
        ordered[:, reference_wcs.wcs.lat] = world[:, wcs.wcs.lat]
        # A reference with SIP terms is inverted by iteration, which would stumble over a single NaN.
        pixels = np.full_like(world, np.nan)
        linear = reference_wcs.wcs_world2pix(ordered, 0)
        good = np.isfinite(linear).all(axis=1)
        if not good.any():
            return pixels
        try:
            pixels[good] = reference_wcs.all_world2pix(ordered[good], 0)
        except NoConvergence as error:  # far outside the reference its polynomial means nothing
            solution = np.array(error.best_solution, np.float64)
            for lost in (error.divergent, error.slow_conv):
                if lost is not None:
                    solution[lost] = np.nan
            pixels[good] = solution
    return pixels


def tile_wcs(wcs: WCS, matrix: Matrix, origin: tuple[int, int]) -> fits.Header:
    """Return the coordinate cards of the tile.

    Nothing is fitted: the sky is a function of ``CD (u + f(u))``, u counted from CRPIX and f the SIP
    polynomial. With u' = M u, the tile has CD M⁻¹ for CD and the polynomial M f(M⁻¹ u'), which
    is of the same order. For a pure shift only CRPIX changes.

    Parameters
    ----------
    wcs : WCS
        Coordinates of a frame.
    matrix : (2, 3) float64
        That frame's transform to the reference; the identity for the reference itself.
    origin : (int, int)
        Reference pixel (x0, y0) that is tile pixel (0, 0).

    Returns
    -------
    fits.Header
        All four CDi_j are there, even those that are zero.
    """
    core = wcs.wcs
    core.set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # wcslib hides the terms of a TPV projection; only its own cards show them.
        own = wcs.to_header(relax=True)
    moved = np.array(matrix, np.float64)
    moved[:, 2] -= origin
    back = invert(moved)
    still = bool((moved[:, :2] == np.eye(2)).all())
    scales = np.asarray(wcs.pixel_scale_matrix, np.float64)
    scales = scales if still else scales @ back[:, :2]
    crpix = apply(moved, np.asarray(core.crpix)[None] - 1)[0] + 1
    if still:  # without a detour over zero-based pixels, which may cost the last digit
        crpix = np.asarray(core.crpix) + moved[:, 2]
    from astropy.io import fits

    header = fits.Header()
    header["WCSAXES"] = (2, "celestial axes")
    for i in (0, 1):
        header[f"CTYPE{i + 1}"] = (
            _kind(own[f"CTYPE{i + 1}"], wcs.sip is not None),
            "coordinate and projection",
        )
        header[f"CUNIT{i + 1}"] = (str(core.cunit[i]) or "deg", "unit of CRVAL and CD")
        header[f"CRPIX{i + 1}"] = (float(crpix[i]), "reference pixel, first pixel = 1")
        header[f"CRVAL{i + 1}"] = (float(core.crval[i]), "sky at the reference pixel")
    for i in (0, 1):
        for j in (0, 1):
            # + 0.0 turns a negative zero into a plain one.
            header[f"CD{i + 1}_{j + 1}"] = (float(scales[i, j]) + 0.0, "deg per pixel")
    for key in own:
        if key.startswith("PV"):
            header[key] = (own[key], "projection parameter")
    # ICRS has no equinox. Siril drops the coordinates' types where none is written, so it gets the one that
    # ICRS comes nearest to; readers that know ICRS ignore it.
    equinox = 2000.0 if core.radesys.strip() == "ICRS" else core.equinox
    for key, value, comment in (
        ("LONPOLE", core.lonpole, "native longitude of the celestial pole, deg"),
        ("LATPOLE", core.latpole, "native latitude of the celestial pole, deg"),
        ("RADESYS", core.radesys, "celestial frame"),
        ("EQUINOX", equinox, "of the celestial frame"),
    ):
        if isinstance(value, str):
            value = value.strip()
        if value and not (isinstance(value, float) and not math.isfinite(value)):
            header[key] = (value, comment)
    if wcs.sip is not None:
        for names, pair in ((("A", "B"), (wcs.sip.a, wcs.sip.b)), (("AP", "BP"), (wcs.sip.ap, wcs.sip.bp))):
            if pair[0] is not None and pair[1] is not None:
                add_sip(header, names, pair if still else _turned(pair, moved[:, :2], back[:, :2]))
    return header


def _kind(ctype: str, sip: bool) -> str:
    kind = ctype.strip()
    return f"{kind}-SIP" if sip and not kind.endswith("-SIP") else kind


def add_sip(header: fits.Header, names: tuple[str, str], pair: tuple[Matrix, Matrix]) -> None:
    """Add the cards of two polynomials; coefficient [i, j] is that of x^i y^j."""
    for name, coefficients in zip(names, pair, strict=True):
        header[f"{name}_ORDER"] = (len(coefficients) - 1, "order of the SIP polynomial")
        for i, j in zip(*np.nonzero(coefficients), strict=True):
            header[f"{name}_{i}_{j}"] = (float(coefficients[i, j]), "SIP coefficient")


def _turned(pair: tuple[Matrix, Matrix], linear: Matrix, back: Matrix) -> tuple[Matrix, Matrix]:
    """Return the coefficients of M f(M⁻¹ u) from those of f(u); M is `linear` and M⁻¹ is `back`."""
    order = max(len(coefficients) for coefficients in pair) - 1
    first, second = (_substituted(coefficients, back, order) for coefficients in pair)
    return linear[0, 0] * first + linear[0, 1] * second, linear[1, 0] * first + linear[1, 1] * second


def _substituted(coefficients: Matrix, linear: Matrix, order: int) -> Matrix:
    """Return the coefficients of f(L u) from those of f(u), by the binomial theorem."""
    (a, b), (c, d) = linear
    out = np.zeros((order + 1, order + 1))
    for i, j in zip(*np.nonzero(coefficients), strict=True):
        if i + j > len(coefficients) - 1:  # beyond the order: no reader applies these terms
            continue
        for k in range(i + 1):
            for m in range(j + 1):
                share = math.comb(i, k) * a**k * b ** (i - k) * math.comb(j, m) * c**m * d ** (j - m)
                out[k + m, i + j - k - m] += coefficients[i, j] * share
    return out
