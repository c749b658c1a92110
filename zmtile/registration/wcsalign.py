"""Transforms from the headers alone (--align wcs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zmtile.errors import TooFewFrames, UsageError
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.options import Options
from zmtile.registration.mapping import apply
from zmtile.registration.models import MODELS, fit_points
from zmtile.registration.reference import best_reference, merits_of
from zmtile.registration.registration import OUTSIDE, Registration, few_stars, overlaps
from zmtile.registration.transform import IDENTITY, Transform, scale_of
from zmtile.registration.wcs import frame_wcs, wcs_matrix, wcs_points

__all__ = ["register_by_wcs"]

# A transform that leaves more than this is no transform of the chosen model, px.
MAX_RMS = 1.0
# 'auto' goes on to a richer model above this; and the weight of points that have no error, 1/px².
CLOSE_RMS = 0.02
EXACT = 1e8


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
        merits = np.where(full, merits_of(frames, stats) + 1e-9, 0.0)
        reference, transforms = best_reference(frames, stats, merits, lambda first, _: place(first))
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
    try:
        # 'auto' ends at the first model that is close enough, or at the richest.
        for model in MODELS if options.transform == "auto" else [options.transform]:
            found = _fitted(frames[k], systems[k], systems[reference], model)
            if found.rms < CLOSE_RMS:
                break
    except ValueError:
        return None, "its WCS lies on another part of the sky"
    if found.rms > MAX_RMS or not math.isfinite(scale_of(found.matrix)):
        return None, f"a {model} leaves {found.rms:.1f} px between its WCS and the reference's"
    if not overlaps(frames[k], frames[reference], found.matrix) and options.framing != "union":
        return None, OUTSIDE
    return found, ""


def _fitted(frame: Frame, system: Any, target_system: Any, model: str) -> Transform:
    """Fit a model on two WCS; one that would fold the frame has an infinite residual."""
    shape = (frame.rows, frame.cols)
    if model in ("similarity", "affine"):
        matrix, rms = wcs_matrix(system, target_system, shape, model)
        return Transform(matrix, 0, rms, None, model)
    source, target = wcs_points(system, target_system, shape)
    bent = fit_points(model, shape, source, target, np.full(len(source), EXACT))
    rms = math.sqrt(float(np.mean(np.sum((apply(bent, source) - target) ** 2, axis=1))))
    return Transform(bent.matrix, 0, rms if bent.sound else math.inf, bent.bend, model)
