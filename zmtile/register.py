"""Register: choose the reference, then find every frame's transform to it, over neighbours if need be."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import TooFewFrames, UsageError
from zmtile.frame import Frame
from zmtile.measure import FrameStats
from zmtile.options import Options
from zmtile.progress import Progress
from zmtile.starmatch import (
    MIN_STARS,
    SCALE_RANGE,
    Field,
    final_radius,
    match_fields,
    pair_up,
    refine,
    verify,
)
from zmtile.transform import (
    IDENTITY,
    Matrix,
    Transform,
    apply,
    compose,
    corners,
    design_rows,
    invert,
    matrix_of,
    scale_of,
)
from zmtile.wcs import frame_wcs, wcs_matrix

__all__ = ["Registration", "register"]

log = logging.getLogger("zmtile")

# A frame is offered to this many solved neighbours (nearest in the natural order) in each round.
NEIGHBOURS = 6
# Stars that prove a scale by themselves; how far a frame with fewer may be from a proven one (log).
MANY_STARS = 12
SCALE_TOLERANCE = 0.05
OUTSIDE = "it lies outside the reference frame; --framing union shows it"
# A WCS-only transform that leaves more than this is no transform of the chosen model.
MAX_WCS_RMS = 1.0


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
        return _by_wcs(frames, stats, options, named, progress)
    if len(frames) == 1:
        progress.step()
        return Registration(0, (Transform(IDENTITY, len(stats[0].stars), 0.0),), ("",))
    fields = [Field(s.stars, f.rows, f.cols, s.fwhm) for f, s in zip(frames, stats, strict=True)]
    if named is None:
        reference, transforms = _largest_family(frames, stats, fields, options, progress)
        central = _most_central(frames, stats, transforms, reference)
        if central != reference:  # the way to the new reference is known: only to be refined
            again = _solve(frames, fields, central, options, progress, known=transforms)
            if sum(t is not None for t in again) >= sum(t is not None for t in transforms):
                reference, transforms = central, again
    elif len(stats[named].stars) < MIN_STARS:
        raise TooFewFrames(
            f"{frames[named].path}: {_few_stars(stats[named])}, so it cannot be the reference",
            "Choose another --reference.",
        )
    else:
        reference, transforms = named, _solve(frames, fields, named, options, progress)
    reasons = []
    for k, (transform, stat) in enumerate(zip(transforms, stats, strict=True)):
        reason = ""
        if transform is None:
            reason = _few_stars(stat) if len(stat.stars) < MIN_STARS else "its stars match no other frame"
        elif options.framing == "reference" and not _overlap(frames[k], frames[reference], transform.matrix):
            reason = OUTSIDE  # registered over neighbours, but no pixel of it would be seen
        reasons.append(reason)
    kept = tuple(None if reason else t for reason, t in zip(reasons, transforms, strict=True))
    return Registration(reference, kept, tuple(reasons))


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


def _few_stars(stats: FrameStats) -> str:
    if stats.finite == 0.0:
        return "it has no data: every pixel is NaN or blank"
    if not np.nanmax(stats.noise, initial=0.0) > 0.0:
        return "it is constant: no noise, no stars"
    return (
        f"only {len(stats.stars)} stars found, {MIN_STARS} are needed"
        if len(stats.stars)
        else "no stars found"
    )


def _merits(frames: Sequence[Frame], stats: Sequence[FrameStats]) -> NDArray[np.float64]:
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


def _largest_family(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    fields: Sequence[Field],
    options: Options,
    progress: Progress,
) -> tuple[int, list[Transform | None]]:
    """Return the best reference and the transforms to it.

    The best frame of all may show another field. When half of the frames or fewer can be tied to
    it, the best of those left over is tried in its place, and the largest family wins.
    """
    merits = _merits(frames, stats)
    if not merits.any():
        raise TooFewFrames(
            f"no frame has {MIN_STARS} stars to be registered by",
            "Check that these are light frames in focus; if all have a WCS, try --align wcs.",
        )
    best: tuple[int, list[Transform | None]] = (0, [])
    largest = 0
    while merits.any():
        first = int(np.argmax(merits))
        transforms = _solve(frames, fields, first, options, progress)
        family = [k for k, transform in enumerate(transforms) if transform is not None]
        if len(family) > largest:
            largest, best = len(family), (first, transforms)
        merits[family] = 0.0
        if np.count_nonzero(merits) <= largest:
            break
    return best


def _most_central(
    frames: Sequence[Frame], stats: Sequence[FrameStats], transforms: Sequence[Transform | None], first: int
) -> int:
    """Rate the frames again, now that it is known how far each lies from the group's middle."""
    merit = _merits(frames, stats)
    middle = np.full((len(frames), 2), np.nan)
    for k, (frame, transform) in enumerate(zip(frames, transforms, strict=True)):
        if transform is not None:
            centre = np.array([[(frame.cols - 1) / 2, (frame.rows - 1) / 2]])
            middle[k] = apply(transform.matrix, centre)[0]
    away = np.hypot(*(middle - np.nanmedian(middle, axis=0)).T)
    size = math.hypot(frames[first].rows, frames[first].cols)
    rated = np.where(np.isfinite(away), merit / (1.0 + 4.0 * away / size), 0.0)
    # A new reference costs a second round; a tie is not worth it.
    return int(np.argmax(rated)) if rated.max() > 1.02 * rated[first] else first


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
                options.transform,
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
    hops = _hop(fields, reference, order, solved, options.transform)
    transforms = [transforms[k] if k not in hops else None for k in range(count)]
    for k, transform in _together(fields, solved, hops, reference, options.transform).items():
        transforms[k] = transform
    return transforms


def _odd_scales(transforms: Sequence[Transform | None]) -> list[int]:
    """Return the frames that match with few stars, and at a scale that no well matched frame has.

    Many stars prove any scale; for a few, a scale of its own is one coincidence too many.
    """
    proven = [1.0] + [scale_of(t.matrix) for t in transforms if t is not None and t.nmatch >= MANY_STARS]
    return [
        k
        for k, t in enumerate(transforms)
        if t is not None and min(abs(math.log(scale_of(t.matrix) / s)) for s in proven) > SCALE_TOLERANCE
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
                    guess = wcs_matrix(source, target, (frame.rows, frame.cols), "similarity")[0]
                    if 1 / SCALE_RANGE < scale_of(guess) < SCALE_RANGE:
                        guesses[k] = guess
                    else:
                        log.debug("%s: its WCS has another pixel scale than the reference's", frame.name)
                except ValueError:
                    log.debug("%s: its WCS lies on another part of the sky than the reference's", frame.name)
    return guesses


def _hop(
    fields: Sequence[Field], reference: int, order: Sequence[int], solved: dict[int, Matrix], model: str
) -> dict[int, dict[int, Transform]]:
    """Reach frames that miss the reference through solved ones; extends `solved`.

    Returns
    -------
    dict
        For each frame reached: its verified transforms to other frames, by their index.
    """
    hops: dict[int, dict[int, Transform]] = {}
    asked: set[tuple[int, int]] = {(k, reference) for k in order}
    progressing = True
    while progressing:
        progressing = False
        for k in order:
            if k in solved or len(fields[k].stars) < MIN_STARS:
                continue
            near = sorted((s for s in solved if (k, s) not in asked), key=lambda s: (abs(s - k), s))
            for s in near[:NEIGHBOURS]:
                asked.add((k, s))
                progressing = True  # the frames not asked yet come in the next round
                transform = match_fields(fields[k], fields[s], (), model, search="near")
                if transform is not None:
                    solved[k] = compose(solved[s], transform.matrix)
                    hops[k] = {s: transform}
                    break
    for k, edges in hops.items():  # every further overlap steadies the chain
        centre = {s: apply(solved[s], _middle(fields[s]))[0] for s in solved}
        near = sorted(solved, key=lambda s: (float(np.hypot(*(centre[s] - centre[k]))), s))
        for s in near[1 : NEIGHBOURS + 1]:
            if s not in edges and s != k:
                guess = compose(invert(solved[s]), solved[k])
                transform = refine(fields[k], fields[s], guess, model)
                if transform is not None and verify(fields[k], fields[s], transform):
                    edges[s] = transform
    return hops


def _middle(field: Field) -> NDArray[np.float64]:
    return np.array([[(field.cols - 1) / 2, (field.rows - 1) / 2]])


def _together(
    fields: Sequence[Field],
    solved: dict[int, Matrix],
    hops: dict[int, dict[int, Transform]],
    reference: int,
    model: str,
) -> dict[int, Transform]:
    """Solve all frames that hopped in one least squares over the stars of all their overlaps.

    A pair of matched stars says M_k x = M_s y. Frames with a direct match are held fixed.
    """
    names = {k: i for i, k in enumerate(sorted(hops))}
    width = 4 if model == "similarity" else 6
    normal = np.zeros((width * len(names),) * 2)
    right = np.zeros(width * len(names))
    pairs: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]] = []
    for k, edges in hops.items():
        for s, transform in edges.items():
            i, j = pair_up(fields[k], fields[s], transform.matrix, final_radius(fields[k], fields[s]))
            here, there = fields[k].xy[i], fields[s].xy[j]
            agreed = np.hypot(*(apply(transform.matrix, here) - there).T) <= max(3.0 * transform.rms, 0.1)
            pairs.append((k, s, here[agreed], there[agreed]))
    if not pairs:
        return {}
    for k, s, here, there in pairs:
        rows = np.zeros((2 * len(here), len(right)))
        rows[:, names[k] * width : (names[k] + 1) * width] = design_rows(model, here)
        value = np.zeros(2 * len(here))
        if s in names:
            rows[:, names[s] * width : (names[s] + 1) * width] -= design_rows(model, there)
        else:
            value = apply(solved[s], there).T.ravel()
        normal += rows.T @ rows
        right += rows.T @ value
    solution = np.linalg.lstsq(normal, right, rcond=None)[0].reshape(len(names), width)
    placed = dict(solved) | {k: matrix_of(model, solution[i]) for k, i in names.items()}
    result = {}
    for k in names:
        proven = any(
            verify(fields[k], fields[s], Transform(compose(invert(placed[s]), placed[k]), t.nmatch, t.rms))
            for s, t in hops[k].items()
        )
        if not proven or sum(t.nmatch for t in hops[k].values()) < MANY_STARS:
            placed[k] = solved[k]  # too few stars to gain by it
        squares = [
            ((apply(placed[a], here) - apply(placed[b], there)) ** 2).sum(axis=1)
            for a, b, here, there in pairs
            if k in (a, b)
        ]
        every = np.concatenate(squares)
        result[k] = Transform(placed[k], every.size, float(np.sqrt(every.mean())))
    return result


def _by_wcs(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    options: Options,
    named: int | None,
    progress: Progress,
) -> Registration:
    """Take the transforms from the headers alone."""
    systems = [frame_wcs(frame) for frame in frames]
    for frame, system in zip(frames, systems, strict=True):
        if system is None:
            raise UsageError(
                f"{frame.path}: no celestial WCS", "--align wcs needs one in every frame; leave it out."
            )
    empty = ["" if _has_content(s) else _few_stars(s) for s in stats]
    if named is not None and empty[named]:
        raise TooFewFrames(
            f"{frames[named].path}: {empty[named]}, so it cannot be the reference",
            "Choose another --reference.",
        )
    # The best frame of all may show another field; the largest family wins.
    merits = np.where([not reason for reason in empty], _merits(frames, stats) + 1e-9, 0.0)
    best: tuple[int, list[Transform | None], list[str]] | None = None
    largest = 0
    while best is None or (named is None and np.count_nonzero(merits) > largest):
        reference = named if named is not None else int(np.argmax(merits))
        found = [_wcs_transform(frames, systems, k, reference, options) for k in range(len(frames))]
        reasons = [a or b for a, (_, b) in zip(empty, found, strict=True)]
        transforms = [None if reason else t for reason, (t, _) in zip(reasons, found, strict=True)]
        family = [k for k, t in enumerate(transforms) if t is not None]
        if best is None or len(family) > largest:
            best, largest = (reference, transforms, reasons), len(family)
        merits[[reference, *family]] = 0.0
    progress.step(len(frames))
    return Registration(best[0], tuple(best[1]), tuple(best[2]))


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
    if rms > MAX_WCS_RMS or not math.isfinite(scale_of(matrix)):
        return None, f"a {options.transform} leaves {rms:.1f} px between its WCS and the reference's"
    if not _overlap(frames[k], frames[reference], matrix) and options.framing != "union":
        return None, OUTSIDE
    return Transform(matrix, 0, rms), ""


def _overlap(frame: Frame, reference: Frame, matrix: Matrix) -> bool:
    """Tell whether a frame's bounding box touches the reference frame."""
    x, y = apply(matrix, corners(frame.rows, frame.cols)).T
    return bool(
        x.max() >= 0 and y.max() >= 0 and x.min() <= reference.cols - 1 and y.min() <= reference.rows - 1
    )
