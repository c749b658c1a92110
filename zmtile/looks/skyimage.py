"""An image of the sky to look at and to judge: a tile of zmtile, or what another program wrote."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from zmtile.errors import UsageError, parser_said
from zmtile.frames.frame import LARGEST
from zmtile.tiles.tile import Tile, read_tile

__all__ = ["SkyImage", "image_of", "read_image"]


@dataclass(frozen=True, eq=False)
class SkyImage:
    """Pixels, and what is known of them.

    Attributes
    ----------
    path : Path
    image : (channels, rows, cols) float32
        NaN where there is no data; 1 or 3 channels.
    coverage : (channels, rows, cols) uint16, or None
        Frames with data at each pixel; None for images of other programs.
    header : fits.Header
    tile : Tile or None
        The whole tile, when zmtile wrote it.
    """

    path: Path
    image: NDArray[np.float32]
    coverage: NDArray[np.uint16] | None
    header: fits.Header = field(repr=False)
    tile: Tile | None = field(repr=False, default=None)

    @property
    def bottom_up(self) -> bool:
        """Whether the first row stored is the lowest one of the picture."""
        return str(self.header.get("ROWORDER", "")).strip().upper() == "BOTTOM-UP"


def read_image(path: str | os.PathLike[str], damaged: bool = False) -> SkyImage:
    """Read a tile, or the first image of any FITS file.

    Parameters
    ----------
    path : path
    damaged : bool
        Read a tile whose checksums are wrong, too.

    Returns
    -------
    SkyImage

    Raises
    ------
    UsageError
        When the file holds no image of one or three channels, when it cannot be read, or when a tile
        is damaged and that is not let pass.
    """
    if _written_by_zmtile(path):
        return image_of(read_tile(path, damaged), path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd cards of other programs
            with fits.open(path, memmap=False) as hdus:
                hdu = next((h for h in hdus if h.is_image and h.header.get("NAXIS", 0) >= 2), None)
                if hdu is None:
                    raise UsageError(f"{path}: it holds no image", "Give a tile, or another FITS image.")
                header, planes = hdu.header.copy(), _planes(path, hdu.data)
    except UsageError:
        raise
    except Exception as error:  # a damaged file fails anywhere in the parser
        raise UsageError(
            f"{path}: it cannot be read ({parser_said(error)})", "Give a tile, or another FITS image."
        ) from None
    return SkyImage(Path(path), planes, None, header)


def image_of(tile: Tile, path: str | os.PathLike[str]) -> SkyImage:
    """Return a tile in memory as an image to look at; the path is where it was written."""
    planes = tile.image.reshape(-1, *tile.shape[-2:])
    return SkyImage(Path(path), planes, tile.coverage.reshape(planes.shape), tile.header, tile)


def _written_by_zmtile(path: str | os.PathLike[str]) -> bool:
    if not os.path.lexists(path) or os.path.isdir(path) or not os.access(path, os.R_OK):
        return True  # `read_tile` says what is wrong
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return str(fits.getheader(path).get("PROGRAM", "")).strip() == "zmtile"
    except Exception:  # no FITS file: said where it is read
        return False


def _planes(path: str | os.PathLike[str], data: Any) -> NDArray[np.float32]:
    """Return (1 or 3, rows, cols) of an image, whatever the place of its colour axis."""
    array = np.asarray(data)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 3 and array.shape[0] != 3:
        array = np.moveaxis(array, 2, 0)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise UsageError(
            f"{path}: an image of shape {np.shape(data)} is neither mono nor of three colours",
            "Give an image of shape (rows, cols), (3, rows, cols) or (rows, cols, 3).",
        )
    planes = np.array(array, np.float32, order="C")
    planes[~(np.abs(planes) < LARGEST)] = np.nan
    return planes
