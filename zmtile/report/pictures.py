"""Pictures of a report: the sky under every stretch, small enough to be sent around."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zmtile.looks.preview import shrunk
from zmtile.looks.skyimage import SkyImage
from zmtile.looks.stretch import stretched

__all__ = ["Picture", "encoded", "sky_pictures"]

Names: TypeAlias = tuple[str, str]  # curve and colours

CURVES = {"stf": "STF", "asinh": "asinh"}
CHANNELS = ("red", "green", "blue")
# Bytes for all pictures of the sky together, as they are before base64 makes them longer by a third.
BUDGET = 950_000
# Longest side (px), and qualities, tried in this order until all pictures fit. Noise compresses badly: of a
# colour tile of 1280 × 1280 px of nothing else, the ten take 5.6 MB at 1280 px and quality 85, 2.9 MB at 55.
# It is shrunk by whole factors, so the next size is 640 px: 0.84 MB at 60. The last of these take 0.27 MB.
TRIED = ((1280, (85, 75, 65, 55)), (960, (60, 45)), (720, (45, 30, 15)))


@dataclass(frozen=True)
class Picture:
    """One stretch of the sky.

    Attributes
    ----------
    curve : str
        'stf' or 'asinh'.
    colours : str
        'linked', 'unlinked', 'red', 'green', 'blue'; of a mono tile 'grey'.
    data : str
        The picture as a ``data:`` URL.
    """

    curve: str
    colours: str
    data: str


def sky_pictures(sky: SkyImage) -> tuple[Picture, ...]:
    """Return the sky under both curves, and of a colour tile in each of its channels.

    The largest size and the best quality of `TRIED` are taken with which they fit into `BUDGET`.
    """
    image = sky.image[:, ::-1] if sky.bottom_up else sky.image
    for size, qualities in TRIED:
        views = dict(_views(shrunk(image, math.ceil(max(image.shape[1:]) / size))))
        for quality in qualities:
            if (made := _within_budget(views, quality)) is not None:
                return tuple(Picture(*names, _url(data)) for names, data in made.items())
    raise AssertionError(f"{len(views)} pictures of {size} px at quality {quality} do not fit")


def _within_budget(views: Mapping[Names, NDArray[np.float32]], quality: int) -> dict[Names, bytes] | None:
    """Return the pictures, or None as soon as they are too large."""
    made: dict[Names, bytes] = {}
    left = BUDGET
    for names, shown in views.items():
        # Of the sky, the default method 4 takes twice as long, and saves half a percent.
        made[names] = _webp(shown, quality=quality, method=2)
        left -= len(made[names])
        if left < 0:
            return None
    return made


def _views(image: NDArray[np.float32]) -> Iterator[tuple[Names, NDArray[np.float32]]]:
    for curve in CURVES:
        if len(image) == 1:
            yield (curve, "grey"), stretched(image, curve)
            continue
        yield (curve, "linked"), stretched(image, curve, linked=True)
        apart = stretched(image, curve, linked=False)
        yield (curve, "unlinked"), apart
        for colour, plane in zip(CHANNELS, apart, strict=True):
            yield (curve, colour), plane[None]


def _webp(shown: NDArray[np.float32], **how: Any) -> bytes:
    """Encode 0 … 1, (1 or 3, rows, cols), as WebP, transparent where it is NaN."""
    from PIL import Image

    inside = np.isfinite(shown).all(axis=0)
    levels = np.rint(np.where(inside, shown, 0) * 255).astype(np.uint8)
    planes = [*np.broadcast_to(levels, (3, *inside.shape)), np.where(inside, 255, 0).astype(np.uint8)]
    file = io.BytesIO()
    Image.fromarray(np.stack(planes, axis=-1)).save(file, "WEBP", **how)
    return file.getvalue()


def encoded(shown: NDArray[np.float32], quality: int | None = None) -> str:
    """Return a picture of 0 … 1, (1 or 3, rows, cols), as a ``data:`` URL, transparent where it is NaN.

    Parameters
    ----------
    shown : (1 or 3, rows, cols) float32
    quality : int, optional
        0 … 100; without loss when not given.
    """
    how = {"lossless": True} if quality is None else {"quality": quality}
    return _url(_webp(shown, **how))


def _url(data: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
