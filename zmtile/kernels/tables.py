"""Weights of the interpolation kernels, tabulated for every position between two pixels.

Where the pixels of the tile are larger than those of a frame, a sample is the mean over the tile's pixel
of what the kernel makes of the frame: the kernel is convolved with a box, its `span`. A camera with those
pixels would have done the same. Without it, some pixels of the frame would count more than others, or
not at all, and the flux of a star would depend on where it falls.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["COPY", "STEPS", "kernel_table", "lost_margin", "span_of"]

# Positions between two pixels that a table holds; the nearest one is off by 1/4096 px at most.
STEPS = 2048
COPY = "copy"
_TAPS = {COPY: 1, "bilinear": 2, "cubic": 4, "lanczos3": 6, "lanczos4": 8}
# Frames of one camera differ by their focus. Up to here their pixels count as being of the tile's size.
_SAME_SCALE = 1.02
# Spans are multiples of 1/128 px, so that frames of much the same scale share a table. A span that is off by
# 1/256 px changes the flux of a star by less than 1e-3.
_SPANS = 128


def span_of(scale: float) -> float:
    """Return the width of a tile pixel in a frame of this scale, px; 0 if the frame's own is no smaller.

    Parameters
    ----------
    scale : float
        Of the map frame → reference, at the frame's centre.
    """
    width = 1.0 / scale
    return round(width * _SPANS) / _SPANS if width > _SAME_SCALE else 0.0


@lru_cache(maxsize=128)
def kernel_table(name: str, span: float = 0.0) -> NDArray[np.float32]:
    """Return the weights of a kernel for every position between two pixels.

    'cubic' is the convolution of [Keys1981]_ with a = -1/2 (Catmull-Rom), 'lanczos3' and
    'lanczos4' are the windowed sinc of [Duchon1979]_. Weights are normalised to sum to 1.

    Parameters
    ----------
    name : str
        One of the above, 'bilinear' or 'copy'.
    span : float
        Weights are means over the positions within span / 2; from `span_of`. 'copy' has no use for it.

    Returns
    -------
    (STEPS + 1, taps) float32
        Row s: position s / STEPS right of the pixel that tap taps/2 - 1 belongs to. 'copy' has one
        row and one tap: a frame that is moved by whole pixels is not interpolated at all.
    """
    if name == COPY:
        return np.ones((1, 1), np.float32)
    table = _weights(name)
    return (_averaged(table, span) if span else table).astype(np.float32)


def _weights(name: str) -> NDArray[np.float64]:
    taps = _TAPS[name]
    place = np.arange(STEPS + 1)[:, None] / STEPS
    t = np.abs(np.arange(1 - taps // 2, taps // 2 + 1)[None] - place)
    if name == "bilinear":
        weight = np.maximum(1.0 - t, 0.0)
    elif name == "cubic":
        near = (1.5 * t - 2.5) * t * t + 1.0
        far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
        weight = np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))
    else:
        weight = np.where(t < taps / 2, np.sinc(t) * np.sinc(t / (taps / 2)), 0.0)
    normal: NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True)
    return normal


def _averaged(table: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    """Return the mean of a table's weights over the positions within span / 2."""
    # The kernel as one curve over the distance pixel - position, and its integral from the left, to the end
    # of the wider kernel on either side.
    curve = np.append(table[:0:-1].T.ravel(), 0.0)
    integral = np.append(0.0, np.cumsum(curve[1:] + curve[:-1]) / (2 * STEPS))
    taps, half = table.shape[1] + _more(span), round(span * STEPS / 2)
    reach = np.arange(1 - taps // 2, taps // 2 + 1)[None] * STEPS - np.arange(STEPS + 1)[:, None]
    left, right = (np.clip(reach + side + len(curve) // 2, 0, len(curve) - 1) for side in (-half, half))
    weight = integral[right] - integral[left]
    mean: NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True)
    return mean


def _more(span: float) -> int:
    return 2 * math.ceil(span / 2)


def lost_margin(name: str, mosaic: bool, span: float = 0.0) -> int:
    """Return how many pixels at the edge of a frame interpolation cannot reach."""
    lost = 0 if name == COPY else (_TAPS[name] + _more(span)) // 2 - 1
    return lost + int(mosaic)
