"""The way of the data: paths → frames → stats → transforms → photometry → canvas → planes → tile."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from zmtile.canvas import Canvas, frame_up
from zmtile.errors import FrameError, TooFewFrames, UsageError
from zmtile.frame import Frame, read_frame, same_file
from zmtile.header import default_name, tile_header, tile_id
from zmtile.inputs import expand, short_names
from zmtile.kernels.warp import lost_margin
from zmtile.match import Photometry, match
from zmtile.measure import FrameStats, measure
from zmtile.memory import memory_limit, memory_needed
from zmtile.options import Options, Resources
from zmtile.parallel import run_parallel
from zmtile.progress import NullProgress, Progress
from zmtile.register import Registration, register
from zmtile.stack import Planes, stack_frames
from zmtile.tile import FrameRecord, Tile
from zmtile.transform import Matrix, Transform
from zmtile.wcs import frame_wcs, tile_wcs

__all__ = ["Plan", "build_tile", "plan_tile", "stack_plan"]

log = logging.getLogger("zmtile")

Sample = TypeVar("Sample", bound=np.generic)

# Bytes that measuring holds for each pixel of a frame: converted, levelled, detection's copies.
MEASURE_BYTES = 40


@dataclass(frozen=True)
class Plan:
    """All that is known before the second pass.

    Attributes
    ----------
    frames, stats, transforms, photometry : tuples of the same length
        The frames that will be stacked.
    reference_index : int
        Index of the reference among them.
    canvas : Canvas
    options : Options
    records : tuple of FrameRecord
        One for every input, those left out with their reason.
    planned_memory : int
        Bytes that the second pass needs at least.
    """

    frames: tuple[Frame, ...]
    stats: tuple[FrameStats, ...]
    transforms: tuple[Transform, ...]
    photometry: tuple[Photometry, ...]
    reference_index: int
    canvas: Canvas
    options: Options
    records: tuple[FrameRecord, ...]
    planned_memory: int

    @property
    def reference(self) -> str:
        """Name of the reference frame."""
        return self.frames[self.reference_index].name

    @property
    def default_name(self) -> str:
        """File name of the tile when the user gives none."""
        return default_name(self.frames[self.reference_index], self.frames)

    @property
    def matrices(self) -> list[Matrix]:
        """Transforms of the frames as bare matrices."""
        return [t.matrix for t in self.transforms]


def build_tile(
    paths: Sequence[str | os.PathLike[str]],
    options: Options | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Tile:
    """Build a master tile from a group of light frames.

    Parameters
    ----------
    paths : sequence of str or path
        Files, folders, glob patterns, ``@list.txt``; their order has no influence.
    options : Options, optional
        Choices that shape the pixels.
    resources : Resources, optional
        Threads and memory.
    progress : Progress, optional
        Told of every stage and step.

    Returns
    -------
    Tile
        In memory; `Tile.write` saves it.

    Raises
    ------
    UsageError, FrameError
        For options that contradict each other and input that cannot be read.
    TooFewFrames
        When too few frames could be registered.

    Examples
    --------
    >>> from zmtile import Options, build_tile
    >>> tile = build_tile(["group/"], Options(framing="union"))  # doctest: +SKIP
    >>> tile.write("master_tile_M94.fits")  # doctest: +SKIP
    """
    resources = resources or Resources()
    return stack_plan(plan_tile(paths, options, resources, progress), resources, progress)


def plan_tile(
    paths: Sequence[str | os.PathLike[str]],
    options: Options | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Do all of `build_tile` that comes before the second pass over the pixels."""
    options, resources, progress = options or Options(), resources or Resources(), progress or NullProgress()
    frames, unreadable = _read(paths, options, progress)
    _check_mixture(frames)
    stats = _measure(frames, options, resources, progress, unreadable)
    frames, stats = _drop_copies(frames, stats)
    if len(stats) == 1 and stats[0].finite == 0.0:  # of several, each is left out with its reason
        raise FrameError(frames[0].path, "it has no data: every pixel is NaN or blank", "Leave it out.")
    registration = register(frames, stats, options, progress)
    _report_left_out(frames, registration)
    used = registration.used
    needed = options.min_frames or min(2, len(frames) + len(unreadable))
    if len(used) < needed:
        raise _too_few(frames, registration, unreadable, needed)
    home = used.index(registration.reference)
    chosen = [frames[k] for k in used]
    transforms = [t for t in registration.transforms if t is not None]
    matrices = [t.matrix for t in transforms]
    photometry = match(chosen, [stats[k] for k in used], matrices, home, options, progress)
    margin = lost_margin(options.kernel, any(frame.cfa for frame in chosen))
    canvas = frame_up(chosen, matrices, home, options.framing, margin)
    memory_limit(chosen, canvas, resources)  # better said now than after the long work
    records = _records(frames, stats, registration, dict(zip(used, photometry, strict=True)), unreadable)
    return Plan(
        tuple(chosen),
        tuple(stats[k] for k in used),
        tuple(transforms),
        photometry,
        home,
        canvas,
        options,
        records,
        memory_needed(chosen, canvas, resources),
    )


def stack_plan(plan: Plan, resources: Resources | None = None, progress: Progress | None = None) -> Tile:
    """Do the second pass of a plan: warp, stack, and put the tile together."""
    reference = plan.frames[plan.reference_index]
    planes = stack_frames(
        plan.frames,
        plan.matrices,
        plan.photometry,
        plan.canvas,
        reference,
        plan.options,
        resources or Resources(),
        progress,
    )
    records = _tallied(plan, planes)
    header = tile_header(
        reference,
        plan.frames,
        options=plan.options,
        canvas_origin=(plan.canvas.x0, plan.canvas.y0),
        shape=_squeezed(planes.image).shape,
        n_inputs=len(records),
        wcs_cards=_wcs_cards(plan),
        tile_id=tile_id([r.sha256 for r in records if r.used], plan.options),
    )
    log.debug("MT_COVERAGE: propagate_mask=True")
    return Tile(
        _squeezed(planes.image),
        _squeezed(planes.uncert),
        _squeezed(planes.weight),
        _squeezed(planes.coverage),
        _squeezed(planes.rejlow),
        _squeezed(planes.rejhigh),
        records,
        header,
    )


def _squeezed(plane: NDArray[Sample]) -> NDArray[Sample]:
    """Return (rows, cols) for one channel, (3, rows, cols) for three."""
    return plane[0] if len(plane) == 1 else plane


def _read(
    paths: Sequence[str | os.PathLike[str]], options: Options, progress: Progress
) -> tuple[list[Frame], list[tuple[str, str]]]:
    """Read all headers; return the frames and, with --skip-unreadable, the names and reasons of the rest."""
    files = expand(paths)
    if not files:
        raise UsageError("no frames given", "Name FITS files, folders, patterns, or @list.txt.")
    progress.stage("read", len(files))
    names = short_names(files)
    frames: list[Frame] = []
    unreadable: list[tuple[str, str]] = []
    seen: dict[tuple[int, int], str] = {}
    for path, name in zip(files, names, strict=True):
        identity = same_file(path)
        if identity in seen:
            log.warning("%s is the same file as %s: used once", name, seen[identity])
        else:
            try:
                frames.append(read_frame(path, name))
                seen[identity] = name
            except FrameError as error:
                if not options.skip_unreadable:
                    raise FrameError(
                        path, error.reason, f"{error.remedy} Or add --skip-unreadable to stack the others."
                    ) from None
                log.warning("%s is left out: %s", name, error.reason)
                unreadable.append((name, error.reason))
        progress.step()
    if not frames:
        raise TooFewFrames("none of the files can be read", "Give FITS light frames.")
    return frames, unreadable


def _check_mixture(frames: Sequence[Frame]) -> None:
    """Refuse grey and colour in one tile; point out other differences, which are no obstacle."""
    first = frames[0]
    for frame in frames:
        if frame.channels != first.channels:
            grey, colour = (frame, first) if frame.channels == 1 else (first, frame)
            raise UsageError(
                f"{grey.path} is mono, but {colour.path} is colour",
                "Build a tile of each kind; a mosaic frame needs its BAYERPAT key to be known as colour.",
            )
    for what, value in (
        ("size", lambda f: f"{f.rows}×{f.cols} pixels"),
        ("Bayer pattern", lambda f: f.cfa or f.layout),
    ):
        odd = [f for f in frames if value(f) != value(first)]
        if odd:
            log.warning(
                "%s has another %s (%s) than %s (%s)%s; each frame is read by its own",
                odd[0].name,
                what,
                value(odd[0]),
                first.name,
                value(first),
                f", as have {len(odd) - 1} more" if len(odd) > 1 else "",
            )


def _measure(
    frames: list[Frame],
    options: Options,
    resources: Resources,
    progress: Progress,
    unreadable: list[tuple[str, str]],
) -> list[FrameStats]:
    """Measure all frames in parallel; those whose pixels fail are unreadable after all."""
    progress.stage("measure", len(frames))
    largest = max(f.rows * f.cols * f.channels for f in frames) * MEASURE_BYTES // (3 if frames[0].cfa else 1)
    limit = resources.memory_limit or 2**31
    workers = max(1, min(resources.workers, limit // max(largest, 1)))

    def attempt(frame: Frame) -> FrameStats | FrameError:
        try:
            return measure(frame)
        except FrameError as error:
            if not options.skip_unreadable:
                raise
            return error

    results = run_parallel(attempt, frames, workers, progress)
    for frame, result in zip(list(frames), results, strict=True):
        if isinstance(result, FrameError):
            log.warning("%s is left out: %s", frame.name, result.reason)
            unreadable.append((frame.name, result.reason))
            frames.remove(frame)
    if not frames:
        raise TooFewFrames("none of the files can be read", "Give FITS light frames.")
    return [r for r in results if isinstance(r, FrameStats)]


def _drop_copies(
    frames: Sequence[Frame], stats: Sequence[FrameStats]
) -> tuple[list[Frame], list[FrameStats]]:
    """Keep one of files with the same content: a frame counted twice would outvote the others."""
    first: dict[str, Frame] = {}
    kept = []
    for frame, stat in zip(frames, stats, strict=True):
        if stat.sha256 in first:
            log.warning("%s has the same content as %s: used once", frame.name, first[stat.sha256].name)
        else:
            first[stat.sha256] = frame
            kept.append((frame, stat))
    return [f for f, _ in kept], [s for _, s in kept]


def _report_left_out(frames: Sequence[Frame], registration: Registration) -> None:
    log.info("reference: %s", frames[registration.reference].name)
    for frame, reason in zip(frames, registration.reasons, strict=True):
        if reason:
            log.warning("%s is left out: %s", frame.name, reason)


def _too_few(
    frames: Sequence[Frame], registration: Registration, unreadable: Sequence[tuple[str, str]], needed: int
) -> TooFewFrames:
    reasons = [(f.name, r) for f, r in zip(frames, registration.reasons, strict=True) if r] + list(unreadable)
    listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons[:10])
    more = f"\n  and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    return TooFewFrames(
        f"{len(registration.used)} of {len(frames) + len(unreadable)} frames could be registered, "
        f"{needed} are needed{listed}{more}",
        "Check that the frames show one field, or choose another --reference or a smaller --min-frames.",
    )


def _records(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    registration: Registration,
    photometry: dict[int, Photometry],
    unreadable: Sequence[tuple[str, str]],
) -> tuple[FrameRecord, ...]:
    """Write down what is known of every input: in the order of their names, unreadable ones last."""
    channels = frames[0].channels
    unknown = (math.nan,) * channels
    records = []
    for k, (frame, stat) in enumerate(zip(frames, stats, strict=True)):
        transform, light = registration.transforms[k], photometry.get(k)
        records.append(
            FrameRecord(
                name=frame.name,
                sha256=stat.sha256,
                used=transform is not None,
                reason=registration.reasons[k],
                date=frame.date,
                exposure=frame.exposure,
                nstars=len(stat.stars),
                nmatch=transform.nmatch if transform else 0,
                rms=transform.rms if transform else math.nan,
                matrix=transform.matrix if transform else np.full((2, 3), math.nan),
                fwhm=stat.fwhm,
                noise=tuple(float(v) for v in stat.noise),
                scale=tuple(float(v) for v in light.scale) if light else unknown,
                offset=_term(light, 0) if light else unknown,
                slope_x=_term(light, 1) if light else unknown,
                slope_y=_term(light, 2) if light else unknown,
                weight=tuple(float(v) for v in light.weight) if light else unknown,
                nrejlow=0,
                nrejhigh=0,
                footprint=0.0,
            )
        )
    records += [
        FrameRecord(
            name=name,
            sha256="",
            used=False,
            reason=reason,
            date=None,
            exposure=math.nan,
            nstars=0,
            nmatch=0,
            rms=math.nan,
            matrix=np.full((2, 3), math.nan),
            fwhm=math.nan,
            noise=unknown,
            scale=unknown,
            offset=unknown,
            slope_x=unknown,
            slope_y=unknown,
            weight=unknown,
            nrejlow=0,
            nrejhigh=0,
            footprint=0.0,
        )
        for name, reason in unreadable
    ]
    return tuple(records)


def _term(light: Photometry, index: int) -> tuple[float, ...]:
    """Return one coefficient of the sky surface for each channel; a constant has no slope."""
    channels, terms = light.surface.shape
    return tuple(float(v) for v in light.surface[:, index]) if index < terms else (0.0,) * channels


def _tallied(plan: Plan, planes: Planes) -> tuple[FrameRecord, ...]:
    """Return the records with what the stack counted for each frame."""
    size = plan.canvas.rows * plan.canvas.cols
    counts = iter(planes.tally)
    records = []
    for record in plan.records:
        if record.used:
            tally = next(counts)
            record = replace(
                record,
                nrejlow=int(tally[:, 1].sum()),
                nrejhigh=int(tally[:, 2].sum()),
                footprint=float(tally[:, 0].mean() / size),
            )
        records.append(record)
    return tuple(records)


def _wcs_cards(plan: Plan) -> fits.Header | None:
    """Return the tile's WCS cards: of the reference, or else of the best registered frame that has one."""
    order = sorted(
        (k for k, frame in enumerate(plan.frames) if frame.has_wcs),
        key=lambda k: (k != plan.reference_index, plan.transforms[k].rms, k),
    )
    for k in order:
        wcs = frame_wcs(plan.frames[k])
        if wcs is not None:
            return tile_wcs(wcs, plan.transforms[k].matrix, (plan.canvas.x0, plan.canvas.y0))
    return None
