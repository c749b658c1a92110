"""Maps of a report: coverage, uncertainty and rejection of a tile, in colours with a scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.looks.preview import shrunk
from zmtile.report.pictures import encoded
from zmtile.tiles.tile import Tile

__all__ = ["ColourMap", "colour_maps", "gradient", "round_steps"]

SIZE = 560
QUALITY = 60
TICKS = 6
# matplotlib's viridis at every tenth of the way: dark to bright, also in print and to eyes without red.
VIRIDIS = (
    "#440154",
    "#482576",
    "#414487",
    "#35608d",
    "#2a788e",
    "#21918d",
    "#22a884",
    "#43bf71",
    "#7ad151",
    "#bcdf27",
    "#fde725",
)
# Scales span these quantiles: single pixels, the cores of stars for instance, would else darken all of a map.
LOW_QUANTILE, HIGH_QUANTILE = 0.005, 0.995


@dataclass(frozen=True)
class ColourMap:
    """A plane of the tile in colours.

    Attributes
    ----------
    name, unit, meaning : str
    data : str
        The picture as a ``data:`` URL, transparent where there is no data.
    ticks : tuple of (float, str)
        Places on the colour bar, 0 … 1, and their labels.
    below, above : str
        What an end of the bar stands for, '≤ 1.50' for instance, where values lie beyond it; else ''.
    """

    name: str
    unit: str
    meaning: str
    data: str
    ticks: tuple[tuple[float, str], ...]
    below: str
    above: str


def colour_maps(tile: Tile, bottom_up: bool) -> Iterator[ColourMap]:
    """Yield the maps of a tile; those of a colour tile are means of its channels.

    Parameters
    ----------
    tile : Tile
    bottom_up : bool
        The first row stored is the lowest one of the picture.
    """
    mean = "" if tile.channels == 1 else ", mean of the channels"
    coverage = _small(tile.coverage, bottom_up)
    coverage[coverage == 0] = np.nan
    frames = float(np.nanmax(coverage, initial=1))
    most = min(TICKS, int(frames) + 1)  # there are no halves of frames
    yield _drawn(
        "Coverage", "frames", f"frames with data, before rejection{mean}", coverage, (0, frames), None, most
    )
    uncert = _small(tile.uncert, bottom_up)
    yield _drawn("Uncertainty", "ADU", f"standard error of the image{mean}", uncert, _span(uncert))
    for where, plane in (("above", tile.rejhigh), ("below", tile.rejlow)):
        share = 100 * _small(plane, bottom_up) / coverage
        meaning = f"samples rejected {where} the bounds{mean}"
        yield _drawn(f"Rejected {where}", "% of the samples", meaning, share, (0.0, _span(share)[1]))


def _small(plane: NDArray[np.generic], bottom_up: bool) -> NDArray[np.float32]:
    """Return the mean over channels and blocks of pixels with data, (rows, cols)."""
    factor = math.ceil(max(plane.shape[-2:]) / SIZE)
    channels = plane.reshape(-1, *plane.shape[-2:])
    # One by one: a copy of a whole plane takes as much memory as the image.
    small = np.concatenate([shrunk(np.asarray(one[None], np.float32), factor) for one in channels])
    known = np.isfinite(small)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is wanted
        mean = np.where(known, small, 0).sum(axis=0, dtype=np.float64) / known.sum(axis=0)
    return np.asarray(mean[::-1] if bottom_up else mean, np.float32)


def _span(values: NDArray[np.float32]) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 0.0
    low, high = np.quantile(known, (LOW_QUANTILE, HIGH_QUANTILE))
    return float(low), float(high)


def _drawn(
    name: str,
    unit: str,
    meaning: str,
    values: NDArray[np.float32],
    span: tuple[float, float],
    quality: int | None = QUALITY,
    most: int = TICKS,
) -> ColourMap:
    """Colour a plane between two values."""
    low, high = span
    if not high > low:  # all of it is one value, which is then the dark end
        high = low + max(abs(low) * 0.01, 1.0)
    share = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    ticks = tuple(((value - low) / (high - low), label) for value, label in round_steps(low, high, most))
    known = values[np.isfinite(values)]
    below = f"≤ {_end(low, high - low)}" if (known < low).any() else ""
    above = f"≥ {_end(high, high - low)}" if (known > high).any() else ""
    return ColourMap(name, unit, meaning, encoded(_coloured(share), quality), ticks, below, above)


def _end(value: float, width: float) -> str:
    """Write an end of a scale to a hundredth of its width."""
    return f"{value:,.{max(0, 2 - math.floor(math.log10(width)))}f}"


def _coloured(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn 0 … 1 into colours (3, rows, cols); NaN stays."""
    stops = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in VIRIDIS])
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(share, places, stop) for stop in stops.T]).astype(np.float32)


def gradient() -> str:
    """Return the colours of the bar as a CSS gradient, from left to right."""
    return f"linear-gradient(to right, {', '.join(VIRIDIS)})"


def round_steps(low: float, high: float, most: int = TICKS) -> list[tuple[float, str]]:
    """Return up to `most` round numbers, a step of 1, 2 or 5 apart, and how they are written.

    Parameters
    ----------
    low, high : float
        With low < high.
    most : int
    """
    decade = math.floor(math.log10((high - low) / most))
    for exponent in (decade, decade + 1):
        for leading in (1, 2, 5):
            step = leading * 10.0**exponent
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first < most:
                digits = max(0, -exponent)
                return [(k * step, f"{k * step:,.{digits}f}") for k in range(first, last + 1)]
    raise AssertionError("ten steps of a decade are always enough")
