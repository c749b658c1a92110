"""Stretch: from linear ADU to what a screen shows, with the sky at a fixed dark grey."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["CURVES", "stretched"]

CURVES = ("stf", "asinh", "linear")
# Where the curves place black and the sky: sigma below the sky, and share of white.
BLACK_SIGMA = 2.8
SKY_LEVEL = 0.2
# White is this quantile of the pixels: the cores of the brightest stars are lost anyway.
WHITE_QUANTILE = 0.9995
# A sky that is fainter than this share of white is left where it is: no curve of float32 can lift it.
FAINTEST = 1e-7
# Median and quantile need no more pixels than this.
SAMPLE = 1_000_000


def stretched(image: NDArray[np.float32], curve: str = "stf", linked: bool = True) -> NDArray[np.float32]:
    """Map every channel from its sky to white.

    Parameters
    ----------
    image : (channels, rows, cols) float32
        ADU; NaN is no data.
    curve : {'stf', 'asinh', 'linear'}
        'stf' is the midtones transfer function of PixInsight's screen transfer, 'asinh' the curve
        of [Lupton2004]_; both lift the sky to a fifth of white. 'linear' leaves it where it is.
    linked : bool
        All channels share the distance from black to white, so that stars keep their colours; the
        sky is grey either way, since each channel has its own black.

    Returns
    -------
    (channels, rows, cols) float32
        0 … 1; NaN stays.
    """
    scales = [_scale(plane) for plane in image]
    if linked:
        sigma = float(np.mean([s for _, s, _ in scales]))
        span = max(white - sky for sky, _, white in scales)
        scales = [(sky, sigma, sky + span) for sky, _, _ in scales]
    out = np.empty_like(image)
    for plane, shown, (sky, sigma, white) in zip(image, out, scales, strict=True):
        black = sky - BLACK_SIGMA * sigma
        width = max(white - black, 1e-30)
        np.clip((plane - np.float32(black)) / np.float32(width), 0.0, 1.0, out=shown)
        np.clip(_curve(shown, curve, (sky - black) / width), 0.0, 1.0, out=shown)  # rounding
    return out


def _scale(plane: NDArray[np.float32]) -> tuple[float, float, float]:
    """Sky, its sigma, and white of a channel, ADU."""
    values = plane[np.isfinite(plane)]
    values = values[:: max(1, values.size // SAMPLE)]
    if not values.size:
        return 0.0, 1.0, 1.0
    sky = float(np.median(values))
    sigma = 1.4826 * float(np.median(np.abs(values - sky)))
    white = float(np.quantile(values, WHITE_QUANTILE))
    return sky, sigma, max(white, sky + 10 * sigma, sky + 1e-6 * abs(sky) + 1e-12)


def _curve(x: NDArray[np.float32], curve: str, sky: float) -> NDArray[np.float32]:
    """Apply a curve that keeps 0 and 1 and takes `sky` to `SKY_LEVEL`."""
    if curve == "linear" or not FAINTEST < sky < SKY_LEVEL:
        return x
    if curve == "stf":
        # Solved for the midtone m of (m - 1) x / ((2 m - 1) x - m).
        m = np.float32(sky * (SKY_LEVEL - 1.0) / (2.0 * sky * SKY_LEVEL - SKY_LEVEL - sky))
        return (m - 1) * x / ((2 * m - 1) * x - m)
    low, high = 1e-12, 1.0  # softening: the smaller, the brighter the sky
    for _ in range(80):
        soft = math.sqrt(low * high)
        if math.asinh(sky / soft) / math.asinh(1.0 / soft) > SKY_LEVEL:
            low = soft
        else:
            high = soft
    shown: NDArray[np.float32] = np.arcsinh(x / np.float32(soft)) / np.float32(math.asinh(1.0 / soft))
    return shown
