"""What registration finds: where every frame lies, and why one lies nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.registration.starfield import MIN_STARS
from zmtile.registration.transform import Matrix, Transform, apply, corners

__all__ = ["APART", "OUTSIDE", "Registration", "few_stars", "overlaps"]

APART = "its stars match only frames that do not reach the reference"
OUTSIDE = "it lies outside the reference frame; --framing union shows it"


@dataclass(frozen=True)
class Registration:
    """Where every frame lies.

    Attributes
    ----------
    reference : int
        Index of the reference frame.
    transforms : tuple of (Transform or None)
        Frame → reference, in the frames' order.
    reasons : tuple of str
        Why a frame has none; '' for those that have one.
    """

    reference: int
    transforms: tuple[Transform | None, ...]
    reasons: tuple[str, ...]

    @property
    def used(self) -> list[int]:
        """Indices of the registered frames."""
        return [k for k, transform in enumerate(self.transforms) if transform is not None]


def few_stars(stats: FrameStats) -> str:
    """Say why a frame cannot be registered by its stars."""
    if stats.finite == 0.0:
        return "it has no data: every pixel is NaN or blank"
    if not np.nanmax(stats.noise, initial=0.0) > 0.0:
        return "it is constant: no noise, no stars"
    return (
        f"only {len(stats.stars)} stars found, {MIN_STARS} are needed"
        if len(stats.stars)
        else "no stars found"
    )


def overlaps(frame: Frame, reference: Frame, matrix: Matrix) -> bool:
    """Tell whether a frame's bounding box touches the reference frame."""
    x, y = apply(matrix, corners(frame.rows, frame.cols)).T
    return bool(
        x.max() >= 0 and y.max() >= 0 and x.min() <= reference.cols - 1 and y.min() <= reference.rows - 1
    )
