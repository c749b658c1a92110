"""The reference frame: named by the user, or the best of the largest family of frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.registration.starfield import MIN_STARS
from zmtile.registration.transform import Transform, apply

__all__ = ["best_reference", "find_reference", "largest_family", "merits_of", "most_central"]


def find_reference(frames: Sequence[Frame], wanted: str) -> int:
    """Return the index of the frame that the user named by its path, name or file name.

    Raises
    ------
    UsageError
        When no frame, or more than one, answers to it.
    """
    path = Path(wanted)
    home = path.resolve() if path.exists() else None
    for keys in (
        [f.path == home for f in frames],
        [f.name == wanted for f in frames],
        [f.path.name == path.name for f in frames],
        [f.path.stem == wanted for f in frames],
    ):
        found = [k for k, answers in enumerate(keys) if answers]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"--reference {wanted} fits {len(found)} frames", "Give its path.")
    raise UsageError(
        f"--reference {wanted} is none of the frames", "Name one of the frames that are stacked."
    )


def merits_of(frames: Sequence[Frame], stats: Sequence[FrameStats]) -> NDArray[np.float64]:
    """Rate frames as reference: many stars, small and round, a WCS preferred."""
    counts = np.array([len(s.stars) for s in stats], np.float64)
    fwhm = np.array([s.fwhm for s in stats])
    roundness = np.array([s.roundness for s in stats])
    usable = counts >= MIN_STARS
    if not usable.any():
        return np.zeros(len(frames))
    typical, sharp = np.median(counts[usable]), np.median(fwhm[usable])
    with np.errstate(invalid="ignore"):
        merit = np.minimum(np.sqrt(counts / typical), 1.5) * (sharp / fwhm) * roundness
    merit *= [1.25 if f.has_wcs else 1.0 for f in frames]
    return np.where(usable, np.nan_to_num(merit), 0.0)


def largest_family(
    merits: NDArray[np.float64], place: Callable[[int], list[Transform | None]]
) -> tuple[int, list[Transform | None]]:
    """Return the best reference and the transforms to it.

    The best frame of all may show another field. When half of the frames or fewer can be tied to
    it, the best of those left over is tried in its place, and the largest family wins.

    Parameters
    ----------
    merits : (frames,) float64
        0 for frames that cannot be the reference.
    place : callable
        From a reference to the transforms of all frames to it.
    """
    left = merits.copy()
    best: tuple[int, list[Transform | None]] | None = None
    largest = 0
    while best is None or np.count_nonzero(left) > largest:
        first = int(np.argmax(left))
        transforms = place(first)
        family = [k for k, transform in enumerate(transforms) if transform is not None]
        if best is None or len(family) > largest:
            largest, best = len(family), (first, transforms)
        left[[first, *family]] = 0.0
    return best


def best_reference(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    merits: NDArray[np.float64],
    place: Callable[[int, list[Transform | None] | None], list[Transform | None]],
) -> tuple[int, list[Transform | None]]:
    """Return the reference and the transforms to it: the best of the largest family, near its middle.

    Parameters
    ----------
    frames, stats : sequences of the same length
    merits : (frames,) float64
        0 for frames that cannot be the reference.
    place : callable
        From a reference, and the transforms to another where they are known, to the transforms of
        all frames.
    """
    reference, transforms = largest_family(merits, lambda first: place(first, None))
    central = most_central(frames, stats, transforms, reference)
    if central != reference:
        again = place(central, transforms)
        if sum(t is not None for t in again) >= sum(t is not None for t in transforms):
            return central, again
    return reference, transforms


def most_central(
    frames: Sequence[Frame], stats: Sequence[FrameStats], transforms: Sequence[Transform | None], first: int
) -> int:
    """Rate the frames again, now that it is known how far each lies from the group's middle."""
    merit = merits_of(frames, stats)
    middle = np.full((len(frames), 2), np.nan)
    for k, (frame, transform) in enumerate(zip(frames, transforms, strict=True)):
        if transform is not None:
            centre = np.array([[(frame.cols - 1) / 2, (frame.rows - 1) / 2]])
            middle[k] = apply(transform.matrix, centre)[0]
    away = np.hypot(*(middle - np.nanmedian(middle, axis=0)).T)
    size = math.hypot(frames[first].rows, frames[first].cols)
    rated = np.where(np.isfinite(away), merit / (1.0 + 4.0 * away / size), 0.0)
    # The tile is not to be the mirror image of most of its frames.
    parity = np.array([0.0 if t is None else np.sign(np.linalg.det(t.matrix[:, :2])) for t in transforms])
    rated[parity * parity.sum() < 0] = 0.0
    # A new reference costs a second round; a tie is not worth it.
    return int(np.argmax(rated)) if rated.max() > 1.02 * rated[first] else first
