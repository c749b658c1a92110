"""Intake: the first pass, from arguments to the frames of a group and their measurements."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from zmtile.errors import FrameError, TooFewFrames, UsageError
from zmtile.frames.calibrate import Calibration
from zmtile.frames.frame import Frame, read_frame, same_file
from zmtile.frames.inputs import name_files
from zmtile.frames.mastercheck import image_kinds
from zmtile.frames.measure import FrameStats, measure
from zmtile.options import Options, Resources
from zmtile.parallel import Kept, run_parallel
from zmtile.progress import Progress

__all__ = ["check_mixture", "drop_copies", "measure_frames", "read_frames"]

log = logging.getLogger("zmtile")

# Bytes that measuring holds for each pixel of a frame: converted, levelled, mapped, and what is known of
# bright pixels where these are as many as may be.
MEASURE_BYTES = 28


def read_frames(
    paths: Sequence[str | os.PathLike[str]], options: Options, progress: Progress
) -> tuple[list[Frame], list[tuple[str, str]]]:
    """Read all headers; return the frames and, with --skip-unreadable, the names and reasons of the rest."""
    files = name_files(paths)
    if not files:
        raise UsageError("no frames given", "Name FITS files, folders, patterns, or @list.txt.")
    progress.stage("read", len(files))
    frames: list[Frame] = []
    unreadable: list[tuple[str, str]] = []
    seen: dict[tuple[int, int], str] = {}
    for path, name in zip(files, files.names, strict=True):
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


def check_mixture(frames: Sequence[Frame], options: Options) -> None:
    """Refuse frames that cannot become one tile; point out what is odd, but no obstacle."""
    first = frames[0]
    for frame in frames:
        if frame.channels != first.channels:
            grey, colour = (frame, first) if frame.channels == 1 else (first, frame)
            raise UsageError(
                f"{grey.path} is mono, but {colour.path} is colour",
                "Build a tile of each kind; a mosaic frame needs its BAYERPAT key to be known as colour.",
            )
    for frame in frames:
        if options.cfa == "direct" and not frame.cfa:
            raise UsageError(
                f"{frame.path} is no mosaic ({frame.layout}), so --cfa direct cannot take its colours apart",
                "Leave --cfa direct out; a mosaic frame needs its BAYERPAT key to be known as one.",
            )
        if (kinds := image_kinds(frame)) and "light" not in kinds:
            log.warning("%s is taken for a light; its IMAGETYP says %s", frame.name, " and ".join(kinds))
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


def measure_frames(
    frames: list[Frame],
    calibration: Calibration,
    options: Options,
    resources: Resources,
    progress: Progress,
    unreadable: list[tuple[str, str]],
) -> list[FrameStats]:
    """Measure all frames in parallel; those whose pixels fail are unreadable after all."""
    progress.stage("measure", len(frames))
    largest = max(f.rows * f.cols * f.channels for f in frames) * MEASURE_BYTES // (3 if frames[0].cfa else 1)
    limit = (resources.memory_limit or 2**31) - calibration.nbytes
    workers = max(1, min(resources.workers, limit // max(largest, 1)))

    kept = Kept()

    def attempt(frame: Frame) -> FrameStats | FrameError:
        try:
            return measure(frame, calibration.correction(frame.exposure), options.hot_pixels, kept)
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


def drop_copies(frames: Sequence[Frame], stats: Sequence[FrameStats]) -> tuple[list[Frame], list[FrameStats]]:
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
