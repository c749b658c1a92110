"""Integer planes compressed without loss: images in tiles, as the FITS standard defines them (10.4.1: Rice).

The bytes are astropy's, but not the way to them: it goes over the pixels of a tile four times before it codes
them, for one HDU it writes and reads a file in memory, and it needs the plane as an array of its own. Its
coder, which releases the GIL, is loaded without the package around it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.extensions import extension
from zmtile.tiles.fitsfile import Packed, packed
from zmtile.tiles.headertext import HeaderText

__all__ = ["compressed"]

log = logging.getLogger("zmtile")

# Rows of a tile. One at a time, the coder begins anew too often.
_ROWS = 64
_BLOCK = 32  # pixels that are coded alike
_SIGN = np.uint16(0x8000)
_LARGE = 2**31  # bytes that 32 bits do not tell the place of
_CODER = "astropy.io.fits.hdu.compressed._compression"


def compressed(plane: NDArray[Any], name: str) -> Packed:
    """Return a plane of 8 or 16 bits without sign as an HDU.

    Parameters
    ----------
    plane : (rows, cols) or (channels, rows, cols) uint8 or uint16
    name : str
        Of the extension.
    """
    parts = list(_coded(plane))
    sizes = np.array([len(part) for part in parts])
    heap = int(sizes.sum())
    wide = max(heap, plane.nbytes // 2) >= _LARGE
    table = np.column_stack([sizes, np.cumsum(sizes) - sizes]).astype(">i8" if wide else ">i4")
    header = HeaderText(_cards(plane, name, table, heap, f"1{'Q' if wide else 'P'}B({sizes.max()})"))
    return Packed(header, memoryview(b"".join([table.tobytes(), *parts])))


def _coded(plane: NDArray[Any]) -> Iterator[bytes]:
    """Yield the tiles, coded; those of one value are so once for all."""
    alike: dict[tuple[int, int], bytes] = {}
    for channel in plane.reshape(-1, *plane.shape[-2:]):
        for top in range(0, len(channel), _ROWS):
            tile = channel[top : top + _ROWS]
            lowest = int(tile.min())
            if lowest < tile.max():
                yield _code(tile)
            else:
                key = lowest, tile.size
                alike[key] = alike.get(key) or _code(tile)
                yield alike[key]


def _code(tile: NDArray[Any]) -> bytes:
    """Return a tile as Rice's code."""
    size = tile.dtype.itemsize
    signed = (tile ^ _SIGN).view(np.int16) if size == 2 else tile.view(np.int8)
    coder = _coder()
    if coder is None:
        return _astropys_code(tile)
    code: bytes = coder(signed.tobytes(), _BLOCK, size)
    return code


@cache
def _coder() -> Callable[[bytes, int, int], bytes] | None:
    """Return what codes bytes, if astropy has it where it used to; that is no public part."""
    try:
        coder: Callable[[bytes, int, int], bytes] = extension(_CODER).compress_rice_1_c
        if not coder(bytes(2 * _BLOCK), _BLOCK, 2):
            raise ValueError("no code")
    except Exception as error:  # whatever it is, astropy knows its own coder
        log.debug("planes are coded by astropy: %r", error)
        return None
    return coder


def _astropys_code(tile: NDArray[Any]) -> bytes:
    from astropy.io import fits

    alone = packed(fits.CompImageHDU(tile, compression_type="RICE_1", tile_shape=tile.shape))
    return bytes(alone.data[8 : 8 + alone.header["PCOUNT"]])


def _cards(
    plane: NDArray[Any], name: str, table: NDArray[Any], heap: int, form: str
) -> Iterator[tuple[Any, ...]]:
    """Yield the cards of a compressed image, as astropy words them."""
    sizes = plane.shape[::-1]
    yield "XTENSION", "BINTABLE", "binary table extension"
    yield "BITPIX", 8, "array data type"
    yield "NAXIS", 2, "number of array dimensions"
    yield "NAXIS1", 2 * table.itemsize, "width of table in bytes"
    yield "NAXIS2", len(table), "number of rows in table"
    yield "PCOUNT", heap, "number of group parameters"
    yield "GCOUNT", 1, "number of groups"
    yield "TFIELDS", 1, "number of fields in each row"
    yield "TTYPE1", "COMPRESSED_DATA"
    yield "TFORM1", form
    yield "ZIMAGE", True, "extension contains compressed image"
    yield "ZTENSION", "IMAGE", "Image extension"
    yield "ZBITPIX", 8 * plane.dtype.itemsize, "array data type"
    yield "ZNAXIS", plane.ndim, "number of array dimensions"
    for axis, size in enumerate(sizes, 1):
        yield f"ZNAXIS{axis}", size
    yield "ZPCOUNT", 0, "number of parameters"
    yield "ZGCOUNT", 1, "number of groups"
    for axis, size in enumerate((sizes[0], min(_ROWS, sizes[1]), 1)[: plane.ndim], 1):
        yield f"ZTILE{axis}", size, "size of tiles to be compressed"
    yield "ZCMPTYPE", "RICE_1", "compression algorithm"
    yield "ZNAME1", "BLOCKSIZE", "compression block size"
    yield "ZVAL1", _BLOCK, "pixels per block"
    yield "ZNAME2", "BYTEPIX", "bytes per pixel (1, 2, 4, or 8)"
    yield "ZVAL2", plane.dtype.itemsize, "bytes per pixel (1, 2, 4, or 8)"
    yield "EXTNAME", name, "name of this binary table extension"
    if plane.dtype.itemsize == 2:
        yield "BZERO", 32768
        yield "BSCALE", 1
