"""Plan: all that is known before the second pass, from paths to photometry and canvas."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from threadpoolctl import threadpool_limits

from zmtile.errors import FrameError, TooFewFrames, UsageError
from zmtile.frames.calibrate import Calibration, Correction
from zmtile.frames.frame import Frame
from zmtile.frames.hotpixels import check_hot_pixels, find_hot_pixels
from zmtile.frames.intake import check_mixture, drop_copies, measure_frames, read_frames
from zmtile.frames.masters import read_masters
from zmtile.frames.measure import FrameStats
from zmtile.kernels.tables import COPY, lost_margin, span_of
from zmtile.matching.match import Photometry, match
from zmtile.memory import memory_limit, memory_needed
from zmtile.options import Options, Resources
from zmtile.progress import NullProgress, Progress
from zmtile.registration.mapping import Bent, map_of, scale_of
from zmtile.registration.register import Registration
from zmtile.registration.selection import (
    register_chosen,
    select_matched,
    select_measured,
    select_registered,
    without,
)
from zmtile.registration.transform import Matrix, Transform
from zmtile.stacking.canvas import Canvas, frame_up
from zmtile.stacking.grow import halo
from zmtile.stacking.rejection import settled, thinking_ahead
from zmtile.stacking.stack import depth_of
from zmtile.tiles.header import default_name
from zmtile.tiles.provenance import records_of
from zmtile.tiles.tile import FrameRecord

__all__ = ["Plan", "plan_tile"]

log = logging.getLogger("zmtile")


@dataclass(frozen=True)
class Plan:
    """All that is known before the second pass.

    Attributes
    ----------
    frames, corrections, stats, transforms, photometry : tuples of the same length
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
    corrections: tuple[Correction, ...]
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
    def maps(self) -> list[Matrix | Bent]:
        """Maps of the frames: frame pixel → reference pixel."""
        return [map_of(t) for t in self.transforms]


def plan_tile(
    paths: Sequence[str | os.PathLike[str]],
    options: Options | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Do all of `build_tile` that comes before the second pass over the pixels."""
    resources = resources or Resources()
    if resources.backend == "gpu":  # better said now than after the long work
        from zmtile.gpu.device import open_device

        open_device()
    # More threads would sum in another order: other bits.
    with threadpool_limits(1, "blas"):
        return _planned(paths, options or Options(), resources, progress or NullProgress())


def _planned(
    paths: Sequence[str | os.PathLike[str]], options: Options, resources: Resources, progress: Progress
) -> Plan:
    if options.combine == "median":  # it has no weights
        options = replace(options, weight="none")
    frames, unreadable = read_frames(paths, options, progress)
    check_mixture(frames, options)
    if options.hot_pixels:
        check_hot_pixels(frames)
    calibration = read_masters(options, frames)
    stats = measure_frames(frames, calibration, options, resources, progress, unreadable)
    frames, stats = drop_copies(frames, stats)
    if len(stats) == 1 and stats[0].finite == 0.0:  # of several, each is left out with its reason
        raise FrameError(frames[0].path, "it has no data: every pixel is NaN or blank", "Leave it out.")
    with thinking_ahead(options, len(frames), resources):
        return _plan_of(frames, stats, calibration, unreadable, options, resources, progress)


def _plan_of(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    calibration: Calibration,
    unreadable: Sequence[tuple[str, str]],
    options: Options,
    resources: Resources,
    progress: Progress,
) -> Plan:
    """Register and match the frames that were measured, and frame up."""
    failures = select_measured(frames, stats, options)
    registration = register_chosen(frames, stats, failures, options, progress)
    failures |= select_registered(registration, options)
    registration = without(registration, failures)
    log.info("reference: %s", frames[registration.reference].name)
    _report_left_out(frames, dict(enumerate(registration.reasons)))
    needed = options.min_frames or min(2, len(frames) + len(unreadable))
    _check_enough(frames, registration, unreadable, needed)
    photometry = _matched(frames, stats, registration, options, progress, resources.workers)
    if dim := select_matched(photometry, registration.reference, options):
        failures |= dim
        registration = without(registration, dim)
        _report_left_out(frames, {k: failure.reason for k, failure in dim.items()})
        _check_enough(frames, registration, unreadable, needed)
        photometry = _matched(frames, stats, registration, options, progress, resources.workers)
    used = registration.used
    home = used.index(registration.reference)
    options = settled(options, len(used))
    chosen = [frames[k] for k in used]
    _check_coverage(len(chosen), options)
    bad = {}
    if options.hot_pixels:  # what is left out has no say in what is hot
        bad = dict(zip(used, find_hot_pixels(chosen, [stats[k].lone for k in used]), strict=True))
    corrections = [calibration.correction(f.exposure, bad.get(k)) for k, f in enumerate(frames)]
    transforms = [t for t in registration.transforms if t is not None]
    maps = [map_of(t) for t in transforms]
    kernel = COPY if options.cfa == "direct" else options.kernel
    mosaic = kernel != COPY and any(frame.cfa for frame in chosen)
    margins = [lost_margin(kernel, mosaic, span_of(scale_of(m))) for m in maps]
    canvas = frame_up(chosen, maps, home, options.framing, margins)
    depth = depth_of(options, chosen[0].channels)
    held = (depth, halo(options), calibration.nbytes, "weight" in options.planes)
    memory_limit(chosen, canvas, resources, *held)  # better said now than after the long work
    records = records_of(frames, corrections, stats, registration, photometry, unreadable, failures)
    return Plan(
        tuple(chosen),
        tuple(corrections[k] for k in used),
        tuple(stats[k] for k in used),
        tuple(transforms),
        tuple(photometry.values()),
        home,
        canvas,
        options,
        records,
        memory_needed(chosen, canvas, resources, *held),
    )


def _report_left_out(frames: Sequence[Frame], reasons: Mapping[int, str]) -> None:
    for k, reason in reasons.items():
        if reason:
            log.warning("%s is left out: %s", frames[k].name, reason)


def _matched(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    registration: Registration,
    options: Options,
    progress: Progress,
    workers: int,
) -> dict[int, Photometry]:
    """Match the registered frames; return their photometry by their index, in its order."""
    used = registration.used
    maps = [map_of(t) for t in registration.transforms if t is not None]
    home = used.index(registration.reference)
    chosen = [frames[k] for k in used], [stats[k] for k in used]
    found = match(*chosen, maps, home, options, progress, workers)
    return dict(zip(used, found, strict=True))


def _check_enough(
    frames: Sequence[Frame], registration: Registration, unreadable: Sequence[tuple[str, str]], needed: int
) -> None:
    """Raise TooFewFrames, with the reasons, when too few are left."""
    if len(registration.used) >= needed:
        return
    reasons = [(f.name, r) for f, r in zip(frames, registration.reasons, strict=True) if r] + list(unreadable)
    listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons[:10])
    more = f"\n  and {len(reasons) - 10} more" if len(reasons) > 10 else ""
    raise TooFewFrames(
        f"{len(registration.used)} of {len(frames) + len(unreadable)} frames can be used, "
        f"{needed} are needed{listed}{more}",
        "Check that the frames show one field, or choose another --reference, a smaller --min-frames, "
        "or looser --reject-frames.",
    )


def _check_coverage(count: int, options: Options) -> None:
    if options.min_coverage > count:
        raise UsageError(
            f"min coverage is {options.min_coverage}, more than the frames used ({count})",
            f"Choose --min-coverage {count} or less.",
        )
