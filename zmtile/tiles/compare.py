"""Whether a tile is the one in a file: plane by plane, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.tiles.tile import Tile, open_tile

__all__ = ["PlaneComparison", "compare_planes"]

# Planes of a tile by their attributes, under the names of their extensions.
_PLANES = ("image", "coverage", "uncert", "rejlow", "rejhigh", "alpha", "mask", "weight")


@dataclass(frozen=True)
class PlaneComparison:
    """How a plane differs from the one in the file.

    Attributes
    ----------
    name : str
        Of the extension; 'PRIMARY' is the image.
    pixels : int
        Of the plane.
    differing : int
        Pixels that are not the same, bit for bit. No data is no data, whatever its bits.
    largest : float
        Largest difference of two numbers; 0 when there is none.
    gained, lost : int
        Pixels with data where the file has none, and the other way round.
    shape : tuple of int, or None
        Of the plane in the file, if it has another one: then all of its pixels differ.
    """

    name: str
    pixels: int
    differing: int = 0
    largest: float = 0.0
    gained: int = 0
    lost: int = 0
    shape: tuple[int, ...] | None = None


def compare_planes(tile: Tile, path: str | os.PathLike[str]) -> tuple[PlaneComparison, ...]:
    """Compare a tile with all planes of a file, which are read one after the other.

    Parameters
    ----------
    tile : Tile
    path : path
        Of a tile. Where it has a fill in place of NaN, the image is compared as it would be written.

    Returns
    -------
    tuple of PlaneComparison
        One for each plane of the file.

    Raises
    ------
    UsageError
        When the file cannot be read.
    """
    return tuple(_compared(name, ours, theirs) for name, ours, theirs in _pairs(tile, path))


def _pairs(tile: Tile, path: str | os.PathLike[str]) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    with open_tile(path) as hdus:
        for attribute in _PLANES:
            name = "PRIMARY" if attribute == "image" else attribute.upper()
            if name not in hdus:
                continue
            ours = getattr(tile, attribute)
            if name == "PRIMARY" and "ZMT_FILL" in hdus[0].header:
                ours = np.where(np.isnan(ours), np.float32(hdus[0].header["ZMT_FILL"]), ours)
            yield name, ours, np.asarray(hdus[name].data).astype(ours.dtype, copy=False)


def _compared(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> PlaneComparison:
    if ours.shape != theirs.shape:
        return PlaneComparison(name, theirs.size, theirs.size, shape=theirs.shape)
    empty, was_empty = ours != ours, theirs != theirs  # NaN
    bits = f"u{ours.dtype.itemsize}"
    differing = (ours.view(bits) != theirs.view(bits)) & ~(empty & was_empty)
    both = differing & ~empty & ~was_empty
    distance = np.abs(ours[both].astype(np.float64) - theirs[both])
    return PlaneComparison(
        name,
        ours.size,
        int(differing.sum()),
        float(distance.max(initial=0.0)),
        int((was_empty & ~empty).sum()),
        int((empty & ~was_empty).sum()),
    )
