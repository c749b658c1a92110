"""Transforms from the headers alone (--align wcs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zmtile.errors import TooFewFrames, UsageError
from zmtile.frame import Frame
from zmtile.measure import FrameStats
from zmtile.options import Options
from zmtile.reference import largest_family, merits_of
from zmtile.registration import OUTSIDE, Registration, few_stars, overlaps
from zmtile.transform import IDENTITY, Transform, scale_of
from zmtile.wcs import frame_wcs, wcs_matrix

__all__ = ["register_by_wcs"]

# A transform that leaves more than this is no transform of the chosen model, px.
MAX_RMS = 1.0


def register_by_wcs(
    frames: Sequence[Frame], stats: Sequence[FrameStats], options: Options, named: int | None
) -> Registration:
    """Take the transforms from the headers.

    Parameters
    ----------
    frames, stats : sequences of the same length
    options : Options
    named : int or None
        The reference, where the user chose it.

    Raises
    ------
    UsageError
        When a frame has no WCS.
    TooFewFrames
        When the reference named is empty.
    """
    systems = [frame_wcs(frame) for frame in frames]
    for frame, system in zip(frames, systems, strict=True):
        if system is None:
            raise UsageError(
                f"{frame.path}: no celestial WCS", "--align wcs needs one in every frame; leave it out."
            )
    empty = ["" if _has_content(s) else few_stars(s) for s in stats]
    if named is not None and empty[named]:
        raise TooFewFrames(
            f"{frames[named].path}: {empty[named]}, so it cannot be the reference",
            "Choose another --reference.",
        )
    reasons: dict[int, list[str]] = {}

    def place(reference: int) -> list[Transform | None]:
        found = [_wcs_transform(frames, systems, k, reference, options) for k in range(len(frames))]
        reasons[reference] = [a or b for a, (_, b) in zip(empty, found, strict=True)]
        return [None if why else t for why, (t, _) in zip(reasons[reference], found, strict=True)]

    if named is not None:
        reference, transforms = named, place(named)
    else:
        full = np.array([not reason for reason in empty])
        reference, transforms = largest_family(np.where(full, merits_of(frames, stats) + 1e-9, 0.0), place)
    return Registration(reference, tuple(transforms), tuple(reasons[reference]))


def _has_content(stats: FrameStats) -> bool:
    """Tell whether a frame holds anything but blanks or one value."""
    return stats.finite > 0.0 and bool(np.nanmax(stats.noise, initial=0.0) > 0.0)


def _wcs_transform(
    frames: Sequence[Frame], systems: Sequence[Any], k: int, reference: int, options: Options
) -> tuple[Transform | None, str]:
    """Return the transform of frame k from the two WCS, or why there is none."""
    if k == reference:
        return Transform(IDENTITY, 0, 0.0), ""
    shape = (frames[k].rows, frames[k].cols)
    try:
        matrix, rms = wcs_matrix(systems[k], systems[reference], shape, options.transform)
    except ValueError:
        return None, "its WCS lies on another part of the sky"
    if rms > MAX_RMS or not math.isfinite(scale_of(matrix)):
        return None, f"a {options.transform} leaves {rms:.1f} px between its WCS and the reference's"
    if not overlaps(frames[k], frames[reference], matrix) and options.framing != "union":
        return None, OUTSIDE
    return Transform(matrix, 0, rms), ""
