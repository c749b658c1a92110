"""Growth of the regions that were rejected in a frame, and the second combination without them.

A pixel's result then depends on the samples of its neighbours within `halo`, but on nothing else: a
block is combined with a margin that wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.bounds import METHODS
from zmtile.kernels.grow import REACH, grow_region, mark_extremes
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.options import Options
from zmtile.stacking.rejection import recombination

__all__ = ["grow", "halo"]


def halo(options: Options) -> int:
    """Return how many pixels around a block its results depend on."""
    return options.grow + REACH if options.grow else 0


def grow(
    samples: NDArray[np.float32],
    weight: NDArray[np.float32],
    shares: NDArray[np.float32] | None,
    noise: NDArray[np.float32],
    options: Options,
    made: Sequence[NDArray[Any]],
    inside: tuple[slice, slice],
) -> NDArray[np.int64]:
    """Take the samples beside the regions that a frame lost above away, too, and combine again.

    A pixel that would be left without a sample keeps what it has.

    Parameters
    ----------
    samples : (frames, rows, cols) float32
        Samples of one channel, the margin around the block included.
    weight, noise : (frames,) float32
    shares : (frames, rows · cols) float32 or None
        Factors of the weight, sample by sample.
    options : Options
    made : six arrays (rows · cols,)
        Read, and written where a sample is taken away: image, uncertainty, sum of weights,
        coverage, samples rejected below and above; as `stack_block` left them.
    inside : (slice, slice)
        Rows and cols of the block itself; only these are combined again and counted.

    Returns
    -------
    (frames, 3) int64
        Of the block itself, by frame: finite samples, rejected below, rejected above.
    """
    frames, rows, cols = samples.shape
    image, uncert, total, _, rejlow, rejhigh = made
    flat = samples.reshape(frames, -1)
    low, high = np.zeros(flat.shape, np.bool_), np.zeros(flat.shape, np.bool_)
    mark_extremes(flat, rejlow, np.float32(-1), low)
    mark_extremes(flat, rejhigh, np.float32(1), high)
    near = np.zeros(samples.shape, np.bool_)
    for frame, region in zip(high.reshape(samples.shape), near, strict=True):
        grow_region(frame, options.grow, region)
    present = np.isfinite(flat)
    left = present & ~low & ~high
    taken = left & near.reshape(frames, -1)
    taken[:, ~(left & ~taken).any(axis=0)] = False
    own = np.zeros((rows, cols), np.bool_)
    own[inside] = True
    touched = np.flatnonzero(taken.any(axis=0) & own.ravel())
    if touched.size:
        again = [np.empty(touched.size, plane.dtype) for plane in made]
        stack_block(
            np.where(left & ~taken, flat, np.float32(np.nan)).take(touched, axis=1),
            weight,
            None if shares is None else shares.take(touched, axis=1),
            noise,
            comparators(frames),
            *recombination(options, frames),
            *again,
            tally=np.zeros((frames, 3), np.int64),
            alike=METHODS[options.reject],
        )
        for plane, value in zip((image, uncert, total), again, strict=False):
            plane[touched] = value
        rejhigh[touched] += taken[:, touched].sum(axis=0, dtype=np.uint16)
    counted = [mask[:, own.ravel()].sum(axis=1) for mask in (present, low, high | taken)]
    return np.stack(counted, axis=1)
