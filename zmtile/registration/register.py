"""Register: find every frame's transform to the reference, over neighbours if need be."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from zmtile.errors import TooFewFrames
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.options import Options
from zmtile.progress import Progress
from zmtile.registration.hops import MANY_STARS, hop, islands, solve_together
from zmtile.registration.proof import SCALE_RANGE
from zmtile.registration.reference import best_reference, find_reference, merits_of
from zmtile.registration.refit import refit
from zmtile.registration.registration import APART, OUTSIDE, Registration, few_stars, overlaps
from zmtile.registration.sensor import largest_motion, set_aside
from zmtile.registration.starfield import MIN_STARS, Field
from zmtile.registration.starmatch import match_fields
from zmtile.registration.transform import IDENTITY, Matrix, Transform, compose, invert, scale_of
from zmtile.registration.wcs import frame_wcs, wcs_matrix
from zmtile.registration.wcsalign import register_by_wcs

__all__ = ["Registration", "register"]

log = logging.getLogger("zmtile")

# How far the scale (log) of a frame that matches with fewer than MANY_STARS may be from a proven one.
SCALE_TOLERANCE = 0.05
# A sky that was found to move by more than this, px, is not at rest.
MOTION = 2.0


def register(
    frames: Sequence[Frame], stats: Sequence[FrameStats], options: Options, progress: Progress
) -> Registration:
    """Register the frames of a group.

    Parameters
    ----------
    frames, stats : sequences of the same length
    options : Options
        `reference`, `align` and `transform` are used.
    progress : Progress

    Returns
    -------
    Registration

    Raises
    ------
    UsageError
        When the reference named does not exist, or a WCS is asked for and missing.
    TooFewFrames
        When no frame can serve as the reference.
    """
    progress.stage("register", len(frames))
    named = find_reference(frames, options.reference) if options.reference else None
    if options.align == "wcs":
        registration = register_by_wcs(frames, stats, options, named)
        progress.step(len(frames))
        return registration
    if len(frames) == 1:
        progress.step()
        return Registration(0, (Transform(IDENTITY, len(stats[0].stars), 0.0),), ("",))
    fields = [Field(s.stars, f.rows, f.cols, s.fwhm) for f, s in zip(frames, stats, strict=True)]
    if named is not None and len(stats[named].stars) < MIN_STARS:
        raise TooFewFrames(
            f"{frames[named].path}: {few_stars(stats[named])}, so it cannot be the reference",
            "Choose another --reference.",
        )
    moving = set_aside(fields)
    reference, transforms = _place(frames, stats, moving, named, options, progress)
    if not _sky_moves(frames, transforms) and any(
        t is None and m is not f for t, m, f in zip(transforms, moving, fields, strict=True)
    ):  # what was set aside may have been the stars of a sky at rest
        at_rest = _place(frames, stats, fields, named, options, progress)
        if sum(t is not None for t in at_rest[1]) > sum(t is not None for t in transforms):
            moving, (reference, transforms) = fields, at_rest
    _tell_mirrors(frames, transforms)
    transforms = refit(moving, transforms, reference, options.transform)
    apart = islands(moving, [k for k, t in enumerate(transforms) if t is None])
    reasons = []
    for k, (transform, stat) in enumerate(zip(transforms, stats, strict=True)):
        reason = ""
        if transform is None:
            if len(stat.stars) < MIN_STARS:
                reason = few_stars(stat)
            else:
                reason = APART if k in apart else "its stars match no other frame"
        elif options.framing == "reference" and not overlaps(frames[k], frames[reference], transform.matrix):
            reason = OUTSIDE  # registered over neighbours, but no pixel of it would be seen
        reasons.append(reason)
    kept = tuple(None if reason else t for reason, t in zip(reasons, transforms, strict=True))
    return Registration(reference, kept, tuple(reasons))


def _place(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    fields: Sequence[Field],
    named: int | None,
    options: Options,
    progress: Progress,
) -> tuple[int, list[Transform | None]]:
    """Return the reference, the one named or the best, and the transforms of all frames to it."""
    if named is not None:
        return named, _solve(frames, fields, named, options, progress)
    merits = merits_of(frames, stats)
    if not merits.any():
        raise TooFewFrames(
            f"no frame has {MIN_STARS} stars to be registered by",
            "Check that these are light frames in focus; if all have a WCS, try --align wcs.",
        )
    # The way to a second reference is known: only to be refined.
    return best_reference(
        frames,
        stats,
        merits,
        lambda first, known: _solve(frames, fields, first, options, progress, known),
    )


def _sky_moves(frames: Sequence[Frame], transforms: Sequence[Transform | None]) -> bool:
    """Tell whether any frame has seen the sky at another place of the sensor."""
    return any(
        t is not None and largest_motion(t.matrix, f.rows, f.cols) > MOTION
        for f, t in zip(frames, transforms, strict=True)
    )


def _tell_mirrors(frames: Sequence[Frame], transforms: Sequence[Transform | None]) -> None:
    turned = [
        f.name
        for f, t in zip(frames, transforms, strict=True)
        if t is not None and np.linalg.det(t.matrix[:, :2]) < 0
    ]
    if turned:
        more = f" and {len(turned) - 1} more" if len(turned) > 1 else ""
        log.warning("%s%s: mirror images of the reference; they are turned over", turned[0], more)


def _solve(
    frames: Sequence[Frame],
    fields: Sequence[Field],
    reference: int,
    options: Options,
    progress: Progress,
    known: Sequence[Transform | None] | None = None,
) -> list[Transform | None]:
    """Match every frame to the reference, and those that miss it to solved neighbours."""
    count = len(frames)
    guesses = _known_guesses(known, reference) if known else _wcs_guesses(frames, reference, options)
    solved: dict[int, Matrix] = {reference: IDENTITY}
    transforms: list[Transform | None] = [None] * count
    transforms[reference] = Transform(IDENTITY, len(fields[reference].stars), 0.0)
    # Nearest to the reference first: what is known of one frame is the best guess for the next.
    order = sorted((k for k in range(count) if k != reference), key=lambda k: (abs(k - reference), k))
    for k in order:
        if len(fields[k].stars) >= MIN_STARS:
            near = sorted(solved, key=lambda s: (abs(s - k), s))[:3]
            tries = ([guesses[k]] if k in guesses else []) + [solved[s] for s in near]
            transform = match_fields(
                fields[k],
                fields[reference],
                tries,
                search="full" if known is None else "near",
            )
            if transform is not None:
                transforms[k], solved[k] = transform, transform.matrix
        if known is None:
            progress.step()
    for k in _odd_scales(transforms):
        log.debug("%s: its few matched stars give a scale unlike the group's", frames[k].name)
        transforms[k] = None
        del solved[k]
    hops = hop(fields, reference, order, solved)
    transforms = [transforms[k] if k not in hops else None for k in range(count)]
    for k, transform in solve_together(fields, solved, hops).items():
        transforms[k] = transform
    return transforms


def _odd_scales(transforms: Sequence[Transform | None]) -> list[int]:
    """Return the frames that match with few stars, and at a scale that no well matched frame has.

    Many stars prove any scale; for a few, a scale of its own is one coincidence too many.
    """
    found = [(k, t.nmatch, math.log(scale_of(t.matrix))) for k, t in enumerate(transforms) if t is not None]
    proven = np.array([0.0] + [scale for _, count, scale in found if count >= MANY_STARS])
    return [
        k
        for k, count, scale in found
        if count < MANY_STARS and np.abs(proven - scale).min() > SCALE_TOLERANCE
    ]


def _known_guesses(known: Sequence[Transform | None], reference: int) -> dict[int, Matrix]:
    home = known[reference]
    if home is None:
        return {}
    back = invert(home.matrix)
    return {k: compose(back, t.matrix) for k, t in enumerate(known) if t is not None}


def _wcs_guesses(frames: Sequence[Frame], reference: int, options: Options) -> dict[int, Matrix]:
    """Return frame → reference from the headers, for frames that have a WCS as the reference has."""
    target = frame_wcs(frames[reference])
    guesses: dict[int, Matrix] = {}
    if target is not None:
        for k, frame in enumerate(frames):
            source = frame_wcs(frame)
            if source is not None and k != reference:
                try:
                    # Affine: a similarity knows no mirror image.
                    guess = wcs_matrix(source, target, (frame.rows, frame.cols), "affine")[0]
                    if 1 / SCALE_RANGE < scale_of(guess) < SCALE_RANGE:
                        guesses[k] = guess
                    else:
                        log.debug("%s: its WCS has another pixel scale than the reference's", frame.name)
                except ValueError:
                    log.debug("%s: its WCS lies on another part of the sky than the reference's", frame.name)
    return guesses
