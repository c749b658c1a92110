"""Read the master frames of a calibration, and refuse those that do not belong to the lights."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import FrameError, UsageError
from zmtile.frames.calibrate import Calibration, Master
from zmtile.frames.frame import Frame, get, read_frame, same_file
from zmtile.frames.pixels import open_pixels
from zmtile.options import Options

__all__ = ["image_kinds", "read_masters"]

log = logging.getLogger("zmtile")

Plane = NDArray[np.float32]

# A pixel of the flat below this fraction of its colour's median gives no light worth dividing by.
DEAD = 0.1
# Exposures that differ by less are one exposure.
SAME_EXPOSURE = 0.01
_KINDS = {
    "bias": ("bias", "offset", "zero"),
    "dark": ("dark",),
    "flat": ("flat",),
    "light": ("light", "object", "science"),
}
_CALIBRATED = {"bias": "B", "dark": "D", "flat": "F"}


def read_masters(options: Options, frames: Sequence[Frame]) -> Calibration:
    """Read the masters that the options name and prepare them for the frames.

    Masters of darks and flats still hold their bias, unless their CALSTAT says that it is out.
    With a bias, it is taken out of them, and the dark is scaled to the exposure of each frame.
    Without one, the dark is subtracted as it is, which is right only for frames of its exposure.
    The flat is divided by the median of each colour of the mosaic, so that neither the colour of
    the lamp nor its level changes the lights.

    Raises
    ------
    FrameError
        When a master cannot be read.
    UsageError
        When it does not fit the frames, or holds nothing that could calibrate them.
    """
    given = {kind: Path(path) for kind in ("bias", "dark", "flat") if (path := getattr(options, kind))}
    masters = {kind: read_frame(path) for kind, path in given.items()}
    for kind, master in masters.items():
        _check_fit(kind, master, frames)
    planes = {kind: _plane(kind, master, frames) for kind, master in masters.items()}
    bias, dark, flat = (planes.get(kind) for kind in ("bias", "dark", "flat"))
    for kind, plane in (("dark", dark), ("flat", flat)):
        if plane is not None and bias is not None and not _has_been(masters[kind], "bias"):
            _check_above_bias(kind, masters[kind], plane, bias)
            plane -= bias
    if flat is not None:
        if bias is None and not _has_been(masters["flat"], "bias"):
            log.warning(
                "%s is used as it is: what bias it still holds flattens its vignetting; --bias takes it out",
                given["flat"],
            )
        _normalise(masters["flat"], flat, frames[0])
    return Calibration(
        bias,
        dark,
        flat,
        _dark_exposure(masters["dark"], bias is not None, frames) if dark is not None else None,
        {kind: Master(path.name, _sha256(path)) for kind, path in given.items()},
    )


def image_kinds(frame: Frame) -> list[str]:
    """Return what IMAGETYP says that the image is: 'bias', 'dark', 'flat', 'light', some of them or none."""
    told = str(get(frame.header, "IMAGETYP", "")).lower()
    return [kind for kind, words in _KINDS.items() if any(word in told for word in words)]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _has_been(frame: Frame, kind: str) -> bool:
    """Tell whether CALSTAT, which MaxIm DL introduced, says that a frame has been calibrated so."""
    return _CALIBRATED[kind] in str(get(frame.header, "CALSTAT", "")).upper()


def _check_fit(kind: str, master: Frame, frames: Sequence[Frame]) -> None:
    """Refuse a master that is not of these frames' sensor, or not of its kind."""
    path = master.path
    if (kinds := image_kinds(master)) and kind not in kinds:
        raise UsageError(
            f"{path}: given as --{kind}, but its IMAGETYP says {' and '.join(kinds)}",
            f"Give a master {kind}, or mend its IMAGETYP.",
        )
    for frame in frames:
        if same_file(path) == same_file(frame.path):
            raise UsageError(
                f"{path}: the master {kind} is one of the frames",
                "Take it out of the frames; masters lie in a folder of their own.",
            )
        if (master.rows, master.cols) != (frame.rows, frame.cols):
            raise UsageError(
                f"{path}: the master {kind} has {master.rows}×{master.cols} pixels, "
                f"{frame.path} {frame.rows}×{frame.cols}",
                "Give a master of the same sensor and binning.",
            )
        colour = frame.layout not in ("mono", "cfa")
        if colour != (master.layout not in ("mono", "cfa")) or (master.cfa and master.cfa != frame.cfa):
            raise UsageError(
                f"{path}: the master {kind} is {master.cfa or master.layout}, "
                f"{frame.path} is {frame.cfa or frame.layout}",
                "Give a master as the camera stores it: of the same pattern, not demosaiced.",
            )
        orders = [str(get(f.header, "ROWORDER", "")).strip().upper() for f in (master, frame)]
        if all(orders) and orders[0] != orders[1]:
            raise UsageError(
                f"{path}: its rows are {orders[0]}, those of {frame.path} {orders[1]}",
                f"Make the master {kind} with the program that wrote the frames.",
            )
        if _has_been(frame, kind):
            raise UsageError(
                f"{frame.path}: its {kind} is out already, its CALSTAT says", f"Leave --{kind} out."
            )
    gains = {get(frame.header, "GAIN") for frame in (master, *frames)} - {None}
    if len(gains) > 1:
        log.warning("%s: GAIN differs between the master %s and the frames", path, kind)


def _plane(kind: str, master: Frame, frames: Sequence[Frame]) -> Plane:
    """Return a master in ADU, all finite or NaN."""
    plane = open_pixels(master).whole()
    if not np.isfinite(plane).any():
        raise UsageError(f"{master.path}: the master {kind} has no data", "Make it again.")
    whole_numbers = all(frame.bitpix > 0 for frame in frames)
    if kind != "flat" and master.bitpix < 0 and whole_numbers and 0 < np.nanmax(np.abs(plane)) <= 1:
        raise UsageError(
            f"{master.path}: the values of the master {kind} lie between 0 and 1, the frames are in ADU",
            "Multiply it by 65535, or let the program that made it write 16 bits.",
        )
    return plane


def _check_above_bias(kind: str, master: Frame, plane: Plane, bias: Plane) -> None:
    """Refuse a master whose bias must be out already: light and heat only add to it."""
    level, floor = float(np.nanmedian(plane)), float(np.nanmedian(bias))
    if floor > 0 and level < 0.5 * floor:
        raise UsageError(
            f"{master.path}: the master {kind} ({level:.6g} ADU) is below the bias ({floor:.6g} ADU)",
            "Its bias is out already, it seems: write CALSTAT = 'B' into its header.",
        )


def _dark_exposure(master: Frame, scaled: bool, frames: Sequence[Frame]) -> float | None:
    """Return the exposure that a dark is scaled from; None where it is subtracted as it is."""
    exposure = master.exposure
    for frame in frames if math.isfinite(exposure) else ():
        if not scaled and abs(frame.exposure - exposure) > SAME_EXPOSURE * exposure:
            raise UsageError(
                f"{master.path} was exposed for {exposure:g} s, {frame.path} for {frame.exposure:g} s",
                "Give --bias so that the dark can be scaled, or a dark of that exposure.",
            )
    if not scaled:
        return None
    if not exposure > 0:
        raise UsageError(
            f"{master.path}: it does not say how long it was exposed, so it cannot be scaled",
            "Write EXPTIME into it, or leave --bias out: then it is subtracted as it is.",
        )
    for frame in frames:
        if not math.isfinite(frame.exposure):
            raise FrameError(
                frame.path,
                "it does not say how long it was exposed, so the dark cannot be scaled",
                "Write EXPTIME into it, or leave --bias out: then the dark is subtracted as it is.",
            )
    return exposure


def _normalise(master: Frame, flat: Plane, frame: Frame) -> None:
    """Divide a flat by the median of each of its colours, in place; dead pixels become NaN."""
    colours = [flat[c] for c in range(len(flat))]
    if frame.cfa:
        letters = np.array(list(frame.cfa)).reshape(2, 2)
        mosaic = np.tile(letters, (frame.rows // 2 + 1, frame.cols // 2 + 1))[: frame.rows, : frame.cols]
        colours = [flat[0][mosaic == letter] for letter in "RGB"]
    for c, samples in enumerate(colours):
        level = np.float32(np.nanmedian(samples)) if np.isfinite(samples).any() else np.float32(0)
        if not level > 0:
            raise UsageError(
                f"{master.path}: the master flat is dark: its median is {level:g} ADU"
                + (f" in {'RGB'[c]}" if len(colours) > 1 else ""),
                "Give a flat of an evenly lit field, well above its bias.",
            )
        where = np.s_[c] if not frame.cfa else (0, mosaic == "RGB"[c])
        flat[where] /= level
    flat[~(flat >= DEAD)] = np.nan
