"""The rehearsal: what comes after the first pass, done once on next to nothing, to have its kernels compiled.

A process of its own does it, while another one measures the frames: see `zmtile.ahead`. It begins with
what is needed last, so the two meet in the middle.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zmtile.errors import FrameError
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame, read_frame
from zmtile.frames.measure import FrameStats, SkyMesh, Stars
from zmtile.matching.match import Photometry, match
from zmtile.options import Options, Resources
from zmtile.progress import NullProgress
from zmtile.registration.mapping import apply
from zmtile.registration.models import columns, fit_points
from zmtile.registration.refit import refit
from zmtile.registration.starfield import Field
from zmtile.registration.transform import Matrix, Transform
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.rejection import rejection, settled
from zmtile.stacking.stack import stack_frames

__all__ = ["main", "rehearse"]

# Pixels of the tile that is stacked, each way, and stars of the frames that are matched.
_SIDE = 8
_STARS = 40
# The frames are one and the same, moved by fractions of a pixel: nothing is copied but the first.
_SHIFTS = (0.0, 0.3, 0.6)


def rehearse(frame: Frame, count: int, options: Options) -> None:
    """Stack, match and fit a few made-up frames, to have the kernels compiled that a build will need.

    Parameters
    ----------
    frame : Frame
        One of the group's: the others are taken to be stored as it is. Its pixels are read where the
        little tile lies.
    count : int
        Frames of the group.
    options : Options
    """
    frames = [replace(frame, name=str(k)) for k in range(len(_SHIFTS))]
    maps = [np.array([[1.0, 0.0, shift], [0.0, 1.0, shift]]) for shift in _SHIFTS]
    options = settled(options, count)
    rejection(options, count)  # the largest kernel before the smallest, which the other process begins with
    _stack(frames, maps, options)
    stats = [_made_up(frame, shift) for shift in _SHIFTS]
    match(frames, stats, maps, 0, options, NullProgress())
    if options.align == "stars":
        if options.transform != "similarity":
            _bend(frame, stats[0].stars, maps[1])
        fields = [Field(s.stars, frame.rows, frame.cols, s.fwhm) for s in stats]
        refit(fields, [Transform(m, _STARS, 0.1) for m in maps], 0, options.transform)


def _stack(frames: Sequence[Frame], maps: Sequence[Matrix], options: Options) -> None:
    """Do the second pass for a few pixels in the middle."""
    frame = frames[0]
    flat = np.zeros((frame.channels, 1))
    ones = np.ones(frame.channels)
    stack_frames(
        frames,
        [Correction()] * len(frames),
        maps,
        [Photometry(ones, flat, ones, ones)] * len(frames),
        Canvas(_SIDE, _SIDE, frame.cols // 2, frame.rows // 2),
        frame,
        options,
        Resources(threads=1),
    )


def _bend(frame: Frame, stars: Stars, moved: Matrix) -> None:
    """Fit a bent map, and go there and back: what a refit takes beside its largest kernel.

    The other process may have begun with that one, and to wait for it would be to do nothing.
    """
    here = np.column_stack([stars.x, stars.y])
    bent = fit_points("poly3", (frame.rows, frame.cols), here, apply(moved, here), np.ones(len(here)))
    columns("poly3", bent, here)
    if bent.sound:
        bent.inverse(bent.points(here)[:, :2])


def _made_up(frame: Frame, shift: float) -> FrameStats:
    """Return measurements of a frame that was never looked at; the stars lie where its map says."""
    random = np.random.RandomState(1)
    x, y = random.uniform(0.05, 0.95, (2, _STARS)) * [[frame.cols], [frame.rows]] - shift
    flux = np.geomspace(1e5, 1e3, _STARS)
    colours = np.repeat(flux[None].astype(np.float32), frame.channels, axis=0)
    cell = max(min(frame.rows, frame.cols) // 6, 1)
    level = random.normal(100.0, 1.0, (frame.channels, frame.rows // cell, frame.cols // cell)).astype(
        np.float32
    )
    ones = np.ones(_STARS)
    return FrameStats(
        Stars(x, y, flux, 0.1 * ones, colours, 1.5 * ones),
        fwhm=3.0,
        roundness=1.0,
        noise=np.ones(frame.channels),
        sky=SkyMesh(cell, level, np.ones_like(level)),
        hot=0,
        finite=1.0,
        sha256="",
    )


def main(paths: Sequence[str], options: Options) -> None:
    """Rehearse the build of a group, as a process that ends when standard input is closed."""
    gc.disable()  # it took 0.4 s, and there is nothing to free before the end
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both: the other one decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("zmtile").setLevel(logging.CRITICAL)  # what is odd about the frames is said elsewhere
    for path in paths:
        try:
            frame = read_frame(Path(path))
        except FrameError:  # likewise
            continue
        rehearse(frame, len(paths), options)
        break


def _end_with_parent() -> None:
    # Not by sys.stdin, which this thread would keep busy while the interpreter ends.
    while os.read(0, 4096):
        pass
    os._exit(0)
