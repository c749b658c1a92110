"""Export: planes of a tile as plain FITS images, for programs that cannot read the tile itself.

Some read one image per file and no compressed ones, others no colour cubes, others no NaN. What they
get here is float32 throughout: one image, its coordinates, nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import TargetError, UsageError
from zmtile.tiles.fitsfile import write_float_image
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.keywords import set_card
from zmtile.tiles.target import check_target, new_file
from zmtile.tiles.tile import Tile, read_tile

__all__ = ["PLANES", "export_tile"]

PLANES = ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh", "mask")
CHANNELS = "RGB"
# Programs and people that look for tiles look for this.
PREFIX = "master_tile_"
_COLOUR_AXIS = ("CTYPE3", "CUNIT3", "CRPIX3", "CRVAL3", "CD3_3")


def export_tile(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    planes: Sequence[str] = ("image",),
    cube: bool = False,
    fill: float | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write planes of a tile as plain float32 images.

    Parameters
    ----------
    path : path
        A tile.
    folder : path
        Where the images go; it must exist.
    planes : sequence of str
        Of `PLANES`. 'weight' and 'coverage' are 0 where the image has no data, so that either can be
        the weight map of it.
    cube : bool
        Write the three channels of a colour tile into one file; without it, each goes into its own.
    fill : float, optional
        In place of NaN, in 'image' and 'uncert'; ZMT_FILL tells of it.
    overwrite : bool
        Replace existing files, but never the tile itself.

    Returns
    -------
    list of Path
        ``m94_R.fits``, ``m94_R.weight.fits`` and so on, from ``master_tile_m94.fits``. Each is there
        complete or not at all; if one cannot be written, none is begun.

    Raises
    ------
    UsageError
        When the tile cannot be read, or has no such plane.
    TargetError
        When a file cannot be written.
    """
    if unknown := set(planes) - set(PLANES):
        raise UsageError(f"no plane is called {', '.join(sorted(unknown))}", f"Planes: {', '.join(PLANES)}.")
    if not planes:
        raise UsageError("no plane is asked for", f"Name some of {', '.join(PLANES)}.")
    if fill is not None and not math.isfinite(fill):
        raise UsageError(f"fill is {fill}", "Give a number such as 0, or leave it out to keep NaN.")
    tile = read_tile(path)
    if "weight" in planes and np.isnan(tile.weight).all():
        raise UsageError(
            f"{path}: the tile has no WEIGHT plane",
            "Build it with --planes mask,weight; or export coverage, which is a weight map, too.",
        )
    stem = Path(path).stem.removeprefix(PREFIX) or Path(path).stem
    parts = list(_parts(tile.channels, cube))
    targets = {
        (part, plane): Path(folder) / f"{stem}{part}{'' if plane == 'image' else f'.{plane}'}.fits"
        for part in dict(parts)
        for plane in dict.fromkeys(planes)
    }
    for target in targets.values():
        if target.exists() and target.samefile(path):
            raise TargetError(f"{target}: this is the tile itself", "Choose another folder.")
        check_target(target, overwrite)
    for (part, plane), target in targets.items():
        data = _values(tile, plane)
        channel = dict(parts)[part]
        with new_file(target, overwrite) as file:
            header = _header(tile, plane, part, fill)
            write_float_image(file, data if channel is None else data[channel], header, fill)
    return list(targets.values())


def _parts(channels: int, cube: bool) -> Iterator[tuple[str, int | None]]:
    """Yield what a file's name tells of its channels, and which one it holds; None for all."""
    if channels == 1 or cube:
        yield "", None
        return
    for number, letter in enumerate(CHANNELS):
        yield f"_{letter}", number


def _values(tile: Tile, plane: str) -> NDArray[np.float32]:
    """Return a plane as float32; counts stay exact."""
    values = np.asarray(getattr(tile, plane), np.float32)
    if plane in ("weight", "coverage"):
        values = np.where(np.isfinite(tile.image), values, np.float32(0))
    return values


def _header(tile: Tile, plane: str, part: str, fill: float | None) -> HeaderText:
    """Return the tile's header, as far as it holds of one image of it."""
    header = HeaderText.of(tile.header)
    header.drop("PROGRAM", "ALPHAEXT", "ZMT_FILL")  # no file with a tile's extensions
    set_card(header, "ZMT_TYPE", "Tile Plane")
    header.put("EXTNAME", f"{plane}{part}".upper(), "plane of the tile")
    if plane not in ("image", "uncert"):
        header.drop("BUNIT")
    elif fill is not None:
        set_card(header, "ZMT_FILL", float(fill))
    if part and "CTYPE3" in header:
        header.put("WCSAXES", 2, "celestial axes")
        header.drop(*_COLOUR_AXIS)
    return header
