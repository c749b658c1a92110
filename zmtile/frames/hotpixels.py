"""Hot pixels: found across a group, before demosaicing could smear them over their neighbours.

A star moves over the sensor with the dither, a cosmic ray comes once; a hot pixel stands alone, at
one place, in most frames.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.frames.frame import Frame
from zmtile.kernels.hot import lone_pixels

__all__ = ["check_hot_pixels", "find_hot_pixels", "lone_in_frame"]

log = logging.getLogger("zmtile")

Pixels = NDArray[np.int64]

# A pixel must stand out by so many sigma in a frame to be counted there.
KAPPA = 5.0
# Mean of the pixels around it, relative to its own height, from which on it may be a star: one of FWHM
# 1.8 px puts 0.25 there, and still 0.1 where the other colours get under half of its own.
SHARE = 0.04
# A frame is of a sensor if it shares so many times more lone pixels with a frame of it than chance would.
BEYOND_CHANCE = 10.0


def check_hot_pixels(frames: Sequence[Frame]) -> None:
    """Refuse frames in which hot pixels cannot be found any more."""
    for frame in frames:
        if frame.stored_colours > 1:
            raise UsageError(
                f"{frame.path} is demosaiced already, so that its hot pixels are smeared",
                "Leave --hot-pixels out, or give the frames as the camera stored them.",
            )


def lone_in_frame(plane: NDArray[np.float32], codes: NDArray[np.uint8], noise: NDArray[np.float64]) -> Pixels:
    """Return the pixels that stand alone in one frame, bright or dark, as row · cols + col, ascending."""
    if not np.isfinite(noise).all():
        return np.empty(0, np.int64)
    out = np.empty(plane.size // 4, np.int64)
    count = lone_pixels(plane, codes, noise.astype(np.float32), KAPPA, SHARE, out)
    return out[:count].copy()


def find_hot_pixels(frames: Sequence[Frame], lone: Sequence[Pixels]) -> list[Pixels]:
    """Return, for each frame, the pixels that stand alone in more than half of its sensor's frames.

    Parameters
    ----------
    frames : sequence of Frame
    lone : sequence of (n,) int64
        From `lone_in_frame`, one for each frame.

    Returns
    -------
    list of (n,) int64
        Sorted; the same array for all frames of a sensor. A sensor with a single frame has none.
    """
    if len(frames) == 1:
        log.warning("--hot-pixels does nothing with a single frame: it takes two of one sensor")
    hot: list[Pixels] = [np.empty(0, np.int64)] * len(frames)
    for members in _sensors(frames, lone):
        pixels, counts = np.unique(np.concatenate([lone[k] for k in members]), return_counts=True)
        found = pixels[2 * counts > len(members)] if len(members) > 1 else pixels[:0]
        if found.size:
            log.info("%d hot or dead pixels in %d frames of one sensor", found.size, len(members))
        for k in members:
            hot[k] = found
    return hot


def _sensors(frames: Sequence[Frame], lone: Sequence[Pixels]) -> list[list[int]]:
    """Return the frames of each sensor, told apart by their lone pixels.

    Names of cameras do not tell: telescopes of one model write the same. Frames of different
    sensors share no more lone pixels than chance puts on each other.
    """
    sensors: list[list[int]] = []
    seen: list[tuple[Pixels, Pixels]] = []  # the lone pixels of each sensor, and in how many frames they are
    for k, (frame, pixels) in enumerate(zip(frames, lone, strict=True)):
        for s, members in enumerate(sensors) if pixels.size else ():
            first = frames[members[0]]
            alike = (first.rows, first.cols, first.cfa) == (frame.rows, frame.cols, frame.cfa)
            if alike and _belongs(pixels, *seen[s], len(members), frame.rows * frame.cols):
                members.append(k)
                seen[s] = _counted(*seen[s], pixels)
                break
        else:
            sensors.append([k])
            seen.append((pixels, np.ones(pixels.size, np.int64)))
    return sensors


def _belongs(pixels: Pixels, seen: Pixels, counts: Pixels, frames: int, size: int) -> bool:
    """Tell whether a frame shares more with the mean frame of a sensor than chance would.

    With all of them together it would not do: what is lone in any of many frames is mostly chance.
    """
    at = np.isin(seen, pixels, assume_unique=True)
    shared = counts[at].sum() / frames
    typical = counts.sum() / frames
    chance = BEYOND_CHANCE * typical * pixels.size / size
    return bool(at.sum() >= 2 and shared >= min(chance, 0.5 * min(typical, pixels.size)))


def _counted(pixels: Pixels, counts: Pixels, more: Pixels) -> tuple[Pixels, Pixels]:
    """Return the pixels and their counts with those of one more frame."""
    union, place = np.unique(np.concatenate([pixels, more]), return_inverse=True)
    total = np.zeros(union.size, np.int64)
    total[place[: pixels.size]] = counts
    total[place[pixels.size :]] += 1
    return union, total
