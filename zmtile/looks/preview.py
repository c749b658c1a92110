"""Preview: a tile as a picture file, transparent where there is no data."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.looks.skyimage import SkyImage
from zmtile.looks.stretch import CURVES, stretched
from zmtile.tiles.target import new_file

__all__ = ["FORMATS", "shrunk", "write_preview"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}


def write_preview(
    sky: SkyImage,
    path: str | os.PathLike[str],
    *,
    curve: str = "stf",
    linked: bool = True,
    size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a picture of an image.

    Parameters
    ----------
    sky : SkyImage
    path : path
        Its suffix chooses the format: PNG and TIFF are transparent where there is no data, JPEG,
        which cannot be, is black there. TIFF has 16 bits a channel, the others have 8.
    curve, linked
        As for `zmtile.looks.stretch.stretched`.
    size : int, optional
        Longest side, px: the image is shrunk by whole factors, as means of the pixels with data.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        The path as given.

    Raises
    ------
    UsageError
        For an unknown suffix or curve, or a size below 1.
    TargetError
        When the file cannot be written there; nothing is left behind.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise UsageError(f"{path}: no picture has this suffix", f"Use one of {', '.join(FORMATS)}.")
    if curve not in CURVES:
        raise UsageError(f"curve is {curve!r}", f"Choose one of {', '.join(CURVES)}.")
    if size is not None and size < 1:
        raise UsageError(f"size is {size}", "Give the longest side in pixels.")
    image = sky.image[:, ::-1] if sky.bottom_up else sky.image
    if size is not None:
        image = shrunk(image, math.ceil(max(image.shape[1:]) / size))
    shown = stretched(image, curve, linked)
    with new_file(path, overwrite) as file:
        _write(file, kind, shown)
    return Path(path)


def shrunk(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Return means of factor × factor pixels, of those that have data; NaN where none has.

    What is left over at the right and lower edge makes smaller blocks.

    Parameters
    ----------
    image : (channels, rows, cols) float32
    factor : int
    """
    if factor <= 1:
        return image
    rows, cols = (range(0, n, factor) for n in image.shape[1:])
    good = np.isfinite(image)

    def sums(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.add.reduceat(np.add.reduceat(values, rows, 1, np.float64), cols, 2, np.float64)

    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
        return (sums(np.where(good, image, 0)) / sums(good)).astype(np.float32)


def _write(file: BinaryIO, kind: str, shown: NDArray[np.float32]) -> None:
    """Write 0 … 1, (1 or 3, rows, cols), as a picture; NaN is transparent."""
    inside = np.isfinite(shown).all(axis=0)
    depth = 65535 if kind == "TIFF" else 255
    levels = np.rint(np.where(inside, shown, 0) * depth).astype(np.uint16 if kind == "TIFF" else np.uint8)
    if kind == "JPEG":
        _save(file, levels, "JPEG", quality=92)
        return
    alpha = np.where(inside, depth, 0).astype(levels.dtype)
    pixels = np.concatenate([levels, alpha[None]])
    if kind == "PNG":
        _save(file, pixels, "PNG")
        return
    import tifffile

    whole = io.BytesIO()  # it wants a file with a name, which a new file has not yet
    tifffile.imwrite(
        whole,
        np.ascontiguousarray(np.moveaxis(pixels, 0, -1)),
        photometric="minisblack" if len(shown) == 1 else "rgb",
        extrasamples=["unassalpha"],
        planarconfig="contig",
        compression="zlib",
        metadata=None,
        software="zmtile",
        datetime=False,
    )
    file.write(whole.getbuffer())


def _save(file: BinaryIO, planes: NDArray[np.uint8], kind: str, **how: Any) -> None:
    """Write 1 to 4 planes of 8 bits: grey, grey and alpha, colour, colour and alpha."""
    from PIL import Image

    pixels = planes[0] if len(planes) == 1 else np.ascontiguousarray(np.moveaxis(planes, 0, -1))
    Image.fromarray(pixels).save(file, kind, **how)
