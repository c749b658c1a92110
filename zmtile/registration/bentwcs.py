"""The tile's coordinate cards where the frame that has them is bent: SIP terms fitted on a grid."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.registration.mapping import Bent, apply
from zmtile.registration.transform import Matrix, corners
from zmtile.registration.wcs import add_sip, tile_wcs

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.wcs import WCS

__all__ = ["bent_wcs", "carried_over"]

log = logging.getLogger("zmtile")

_GRID = 31
# CRPIX is where the polynomial is zero; each turn brings it there to the square of the last error.
_TURNS = 5
# The tile's coordinates may be off by this much, px, without a warning.
_CLOSE = 0.1


def carried_over(frame: Frame, wcs: WCS, moved_by: Matrix | Bent, origin: tuple[int, int]) -> fits.Header:
    """Return the coordinate cards of the tile, by those of a frame and its map to the reference.

    Parameters
    ----------
    frame : Frame
    wcs : WCS
        Its coordinates.
    moved_by : Matrix or Bent
    origin : (int, int)
        Reference pixel (x0, y0) that is tile pixel (0, 0).
    """
    if not isinstance(moved_by, Bent):
        return tile_wcs(wcs, moved_by, origin)
    header = tile_wcs(wcs, moved_by.matrix, origin)
    if any(key.startswith("PV") for key in header):  # SIP terms and such parameters exclude each other
        ends = corners(frame.rows, frame.cols)
        off = float(np.hypot(*(apply(moved_by, ends) - apply(moved_by.matrix, ends)).T).max())
    else:
        header, off = bent_wcs(wcs, moved_by, origin, (frame.rows, frame.cols))
    if off > _CLOSE:
        log.warning("%s: the tile has its coordinates, which are up to %.1f px off", frame.name, off)
    return header


def bent_wcs(
    wcs: WCS, bent: Bent, origin: tuple[int, int], shape: tuple[int, int]
) -> tuple[fits.Header, float]:
    """Return the coordinate cards of the tile, by those of a frame whose map is bent.

    The sky is a function of ``CD (u + f(u))``, u counted from CRPIX and f the SIP polynomial. The
    way from the tile back to the frame is followed by one polynomial more, and the two together by
    new ones, fitted on a grid over the frame.

    Parameters
    ----------
    wcs : WCS
        Coordinates of a frame, without projection parameters of their own (PVi_m).
    bent : Bent
        That frame's map to the reference.
    origin : (int, int)
        Reference pixel (x0, y0) that is tile pixel (0, 0).
    shape : (int, int)
        Rows and columns of the frame.

    Returns
    -------
    header : fits.Header
    error : float
        Largest distance of the grid's points from where the map puts them, px of the tile.
    """
    header = tile_wcs(wcs, bent.matrix, origin)
    rows, cols = shape
    x, y = np.meshgrid(np.linspace(0, cols - 1, _GRID), np.linspace(0, rows - 1, _GRID))
    frame = np.column_stack([x.ravel(), y.ravel()])
    tile = apply(bent, frame) - origin
    # u + f(u): where a frame without SIP terms would have the same sky.
    plane = wcs.wcs_world2pix(wcs.all_pix2world(frame, 0), 0) + 1 - wcs.wcs.crpix
    # The way back has small terms of every degree: two more than the bend's own follow it to 0.01 px.
    order = max(_degree(bent) + 2, 0 if wcs.sip is None else wcs.sip.a_order, 2)
    crpix = np.array([header["CRPIX1"], header["CRPIX2"]])
    for _ in range(_TURNS):
        terms, powers, unit = _terms(tile + 1 - crpix, order)
        found = np.linalg.lstsq(terms, plane, rcond=None)[0]
        linear = found[1:3].T / unit
        crpix = crpix - np.linalg.solve(linear, found[0])
    scales = np.asarray(wcs.pixel_scale_matrix, np.float64) @ linear
    shares = np.linalg.solve(linear, found[3:].T)
    pair = np.zeros((2, order + 1, order + 1))
    for n, (i, j) in enumerate(powers[3:]):
        pair[:, i, j] = shares[:, n] / unit ** (i + j)
    for key in [key for key in header if key.startswith(("A_", "B_", "AP_", "BP_"))]:
        del header[key]
    for i in (0, 1):
        kind = header[f"CTYPE{i + 1}"]
        header[f"CTYPE{i + 1}"] = kind if kind.endswith("-SIP") else f"{kind}-SIP"
        header[f"CRPIX{i + 1}"] = float(crpix[i])
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = float(scales[i, j]) + 0.0
    add_sip(header, ("A", "B"), (pair[0], pair[1]))
    off = np.linalg.solve(linear, (terms @ found - plane).T)
    return header, float(np.hypot(*off).max())


def _degree(bent: Bent) -> int:
    """Return the degree of a bend; a homography's terms above the third are nothing for a telescope."""
    cubic = bent.bend[[9, 10, 11, 12, 16, 17, 18, 19]].any() or bent.bend[4:6].any()
    return 3 if cubic else 2


def _terms(
    offset: NDArray[np.float64], order: int
) -> tuple[NDArray[np.float64], list[tuple[int, int]], float]:
    """Return all powers x^i y^j up to an order, lowest first, of offsets in a unit of their size."""
    unit = float(np.abs(offset).max())
    u, v = (offset / unit).T
    powers = [(degree - j, j) for degree in range(order + 1) for j in range(degree + 1)]
    return np.column_stack([u**i * v**j for i, j in powers]), powers, unit
