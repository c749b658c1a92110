"""Planes: what the second pass makes of the frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Planes"]


@dataclass(frozen=True)
class Planes:
    """What the stack makes, each (channels, rows, cols).

    Attributes
    ----------
    image, uncert, weight : float32
        Combined value and its standard error in reference ADU (NaN without data), sum of weights.
    coverage, rejlow, rejhigh : uint16
        Frames with a finite sample before rejection; samples rejected below and above.
    tally : (frames, channels, 3) int64
        For each frame: finite samples, rejected below, rejected above.
    """

    image: NDArray[np.float32]
    uncert: NDArray[np.float32]
    weight: NDArray[np.float32]
    coverage: NDArray[np.uint16]
    rejlow: NDArray[np.uint16]
    rejhigh: NDArray[np.uint16]
    tally: NDArray[np.int64]

    @classmethod
    def empty(cls, frames: int, channels: int, rows: int, cols: int) -> Planes:
        """Return planes without data."""
        shape = (channels, rows, cols)
        return cls(
            np.full(shape, np.nan, np.float32),
            np.full(shape, np.nan, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.uint16),
            np.zeros(shape, np.uint16),
            np.zeros(shape, np.uint16),
            np.zeros((frames, channels, 3), np.int64),
        )
