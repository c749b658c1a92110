"""What the second pass takes, and the planes that it makes, on whichever processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.calibrate import Correction
from zmtile.frames.pixels import Pixels
from zmtile.matching.match import Photometry
from zmtile.options import Options
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.warp import Source

__all__ = ["PLANE_TYPES", "Planes", "SecondPass"]

# Of image, uncert, weight, coverage, rejlow, rejhigh: what the kernels write.
PLANE_TYPES = (np.float32, np.float32, np.float32, np.uint16, np.uint16, np.uint16)


@dataclass(frozen=True)
class SecondPass:
    """What the second pass takes.

    Attributes
    ----------
    sources, corrections, photometry : sequences of the same length
        The frames, what is done to their raw pixels, and how their values match.
    canvas : Canvas
    options : Options
    opened : callable
        Returns the pixels of a frame by its number; may be called from any thread.
    """

    sources: Sequence[Source]
    corrections: Sequence[Correction]
    photometry: Sequence[Photometry]
    canvas: Canvas
    options: Options
    opened: Callable[[int], Pixels]

    @property
    def weight_and_noise(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weights and noises, (frames, channels) each."""
        weight = np.array([p.weight for p in self.photometry], np.float32)
        return weight, np.array([p.noise for p in self.photometry], np.float32)


@dataclass(frozen=True)
class Planes:
    """What the stack makes, each (channels, rows, cols).

    Attributes
    ----------
    image, uncert : float32
        Combined value and its standard error in reference ADU (NaN without data).
    weight : float32 or None
        Sum of weights, if somebody wants it.
    coverage, rejlow, rejhigh : uint16
        Frames with a finite sample before rejection; samples rejected below and above.
    tally : (frames, channels, 3) int64
        For each frame: finite samples, rejected below, rejected above.
    """

    image: NDArray[np.float32]
    uncert: NDArray[np.float32]
    weight: NDArray[np.float32] | None
    coverage: NDArray[np.uint16]
    rejlow: NDArray[np.uint16]
    rejhigh: NDArray[np.uint16]
    tally: NDArray[np.int64]

    def clear(self, rows: slice, cols: slice = slice(None)) -> None:
        """Say that no frame has data there."""
        self.image[:, rows, cols] = np.nan
        self.uncert[:, rows, cols] = np.nan

    def thin_out(self, least: int, rows: slice, cols: slice = slice(None)) -> None:
        """Take the values away where fewer frames than `least` have data."""
        thin = self.coverage[:, rows, cols] < least
        self.image[:, rows, cols][thin] = np.nan
        self.uncert[:, rows, cols][thin] = np.nan

    def put(self, channel: int, at: tuple[slice, slice], made: Sequence[NDArray[Any]]) -> None:
        """Take what the kernels made of a rectangle of one channel: values for each of `PLANE_TYPES`."""
        planes = self.image, self.uncert, self.weight, self.coverage, self.rejlow, self.rejhigh
        for plane, values in zip(planes, made, strict=True):
            if plane is not None:
                plane[channel][at] = values

    @classmethod
    def empty(cls, frames: int, channels: int, rows: int, cols: int, weight: bool = True) -> Planes:
        """Return planes without data; `weight` tells whether there shall be one of the weights.

        Image and uncertainty are not set yet: those who fill the planes also say where nothing is, so
        that all threads take part in the first touch of this memory, which costs more than any sum.
        """
        shape = (channels, rows, cols)
        return cls(
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.zeros(shape, np.float32) if weight else None,
            np.zeros(shape, np.uint16),
            np.zeros(shape, np.uint16),
            np.zeros(shape, np.uint16),
            np.zeros((frames, channels, 3), np.int64),
        )
