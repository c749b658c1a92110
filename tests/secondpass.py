"""Small groups without files, as the second pass takes them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from astropy.io import fits

from zmtile import Options
from zmtile.frames.calibrate import Calibration, Correction
from zmtile.frames.frame import Frame
from zmtile.frames.pixels import Pixels, PixelsInFile
from zmtile.matching.match import Photometry
from zmtile.progress import NullProgress
from zmtile.registration.mapping import Bent, flat_bend
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.planes import Planes, SecondPass
from zmtile.stacking.stack import stack_on_cpu
from zmtile.stacking.warp import source_of

ROWS, COLS = 70, 90
NAMES = ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh", "tally")
BITPIX = {"u1": 8, ">i2": 16, "<i2": 16, ">i4": 32, ">f4": -32, "<f4": -32, ">f8": -64}


def second_pass(
    frames=6,
    layout="cfa",
    dtype=">i2",
    options=None,
    bent=False,
    canvas=None,
    scale=1.0,
    turn=0.02,
    calibration=None,
    bad=(),
    blank=None,
    seed=0,
    bend_size=1.0,
):
    """Frames of noise, a gradient and outliers, shifted and turned; the last ones bent if asked for."""
    rng = np.random.default_rng(seed)
    options, canvas = options or Options(), canvas or Canvas(ROWS, COLS)
    bitpix, channels = BITPIX[dtype], 1 if layout == "mono" else 3
    bzero = {16: 32768.0, 32: 2.0**31}.get(bitpix, 0.0)
    made, sources, corrections, photometry = [], [], [], []
    for number in range(frames):
        frame = Frame(
            Path(f"{number}.fits"),
            f"{number}.fits",
            ROWS,
            COLS,
            layout,
            "GBRG" if layout == "cfa" else "",
            fits.Header(),
            bitpix=bitpix,
            bzero=bzero,
            blank=blank,
        )
        level = 100 if bitpix == 8 else 1000
        values = rng.normal(level + np.arange(COLS), 5, (3, ROWS, COLS))
        values[rng.random(values.shape) < 0.02] += level
        values = values[0] if layout in ("mono", "cfa") else values
        values = np.moveaxis(values, 0, -1) if layout == "interleaved" else values
        if bitpix < 0:
            values[rng.random(values.shape) < 0.001] = np.nan
            values[rng.random(values.shape) < 0.001] = 1e30
        stored = np.clip(values, 0, 255) if bitpix == 8 else values - bzero
        stored = (stored if bitpix < 0 else np.rint(stored)).astype(dtype)
        cos, sin = np.cos(turn * number) * scale, np.sin(turn * number) * scale
        matrix = np.array([[cos, -sin, rng.uniform(-9, 9)], [sin, cos, rng.uniform(-9, 9)]])
        bend = flat_bend(ROWS, COLS)
        bend[4:] = rng.uniform(-1, 1, 16) * np.r_[1e-4, 1e-4, np.full(14, 0.3)] * bend_size
        correction = (calibration or Calibration()).correction(1.0 + number, np.array(bad, np.int64))
        matched = Photometry(
            1 + 0.02 * rng.random(channels),
            rng.uniform(-5, 5, (channels, 6)),
            rng.uniform(0.5, 1, channels),
            rng.uniform(4, 6, channels),
        )
        made.append(Pixels(frame, stored, correction))
        to_reference = Bent(matrix, bend) if bent and number >= frames // 2 else matrix
        sources.append(source_of(frame, to_reference, matched, canvas, frame, options))
        corrections.append(correction)
        photometry.append(matched)
    return SecondPass(sources, corrections, photometry, canvas, options, made.__getitem__)


def in_files(second, folder):
    """The same group, its pixels in files."""
    made = []
    for number, source in enumerate(second.sources):
        pixels = second.opened(number)
        path = folder / str(number)
        path.write_bytes(b"header" + pixels.stored.tobytes())
        frame = dataclasses.replace(source.frame, offset=len(b"header"))
        made.append(PixelsInFile(frame, os.open(path, os.O_RDONLY), pixels.correction))
    return dataclasses.replace(second, opened=made.__getitem__)


def empty_planes(second, weight=True):
    channels = second.sources[0].frame.channels
    return Planes.empty(len(second.sources), channels, second.canvas.rows, second.canvas.cols, weight)


def on_cpu(second, weight=True):
    planes = empty_planes(second, weight)
    stack_on_cpu(second, planes, 1, 2**28, NullProgress())
    return planes


def differing(one, other):
    """Names of the planes that are not the same, bit for bit but for the sign of zero."""
    return [n for n in NAMES if not np.array_equal(getattr(one, n), getattr(other, n), equal_nan=True)]


def masters(channels_stored=1, seed=5):
    rng = np.random.default_rng(seed)
    shape = (channels_stored, ROWS, COLS)
    flat = rng.uniform(0.8, 1.2, shape).astype(np.float32)
    flat[:, 10, 10] = np.nan
    return Calibration(
        rng.normal(300, 2, shape).astype(np.float32), rng.normal(10, 1, shape).astype(np.float32), flat, 2.0
    )


__all__ = ["Correction", "differing", "empty_planes", "masters", "on_cpu", "second_pass"]
