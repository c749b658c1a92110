"""Tell the masters that do not belong to the lights: of another sensor, kind, state or unit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import FrameError, UsageError
from zmtile.frames.frame import Frame, get, same_file
from zmtile.frames.pixels import open_pixels

__all__ = ["bias_is_out", "check_fit", "check_state", "check_unit", "image_kinds", "in_fractions"]

log = logging.getLogger("zmtile")

_KINDS = {
    "bias": ("bias", "offset", "zero"),
    "dark": ("dark",),
    "flat": ("flat",),
    "light": ("light", "object", "science"),
}
# Rows of a frame that are looked at in one go.
BAND = 64


def image_kinds(frame: Frame) -> list[str]:
    """Return what IMAGETYP says that the image is: 'bias', 'dark', 'flat', 'light', some of them or none."""
    told = str(get(frame.header, "IMAGETYP", "")).lower()
    return [kind for kind, words in _KINDS.items() if any(word in told for word in words)]


def bias_is_out(kind: str, frame: Frame) -> bool:
    """Tell whether CALSTAT says that a light or master holds no bias any more.

    A dark takes the bias out with it, also out of a flat. The D of a dark says nothing.
    """
    done = _calstat(frame)
    return "B" in done or (kind != "dark" and "D" in done)


def _calstat(frame: Frame) -> str:
    """Return the steps of calibration that a frame has behind it, as MaxIm DL writes them: B, D, F."""
    return str(get(frame.header, "CALSTAT", "")).upper()


def check_fit(kind: str, master: Frame, frames: Sequence[Frame]) -> None:
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
        if frame.stored_colours != master.stored_colours or (master.cfa and master.cfa != frame.cfa):
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
    patterns = {frame.cfa for frame in frames}
    if kind == "flat" and len(patterns) > 1 and not master.cfa:
        raise UsageError(
            f"{path}: the master flat does not say its pattern, and the frames have several: "
            f"{', '.join(sorted(patterns))}",
            "Give frames of one pattern; a flat belongs to one sensor.",
        )
    gains = {get(frame.header, "GAIN") for frame in (master, *frames)} - {None}
    if len(gains) > 1:
        log.warning("%s: GAIN differs between the master %s and the frames", path, kind)


def check_state(kind: str, frames: Sequence[Frame]) -> None:
    """Refuse a master for lights that have its step of calibration, or a later one, behind them."""
    for frame in frames:
        done = _calstat(frame)
        if "F" in done or (kind == "dark" and "D" in done):
            step = "flat-fielded" if "F" in done else "dark-subtracted"
            raise UsageError(
                f"{frame.path}: it is {step} already, its CALSTAT says",
                f"Leave --{kind} out, or give the frames as the camera stored them.",
            )
        if bias_is_out("light", frame) != bias_is_out("light", frames[0]):
            without, with_it = sorted((frame, frames[0]), key=lambda f: not bias_is_out("light", f))
            raise UsageError(
                f"{without.path}: its bias is out already, its CALSTAT says; {with_it.path} holds it",
                f"Give frames in one state, or leave --{kind} out.",
            )


def in_fractions(values: NDArray[np.float32]) -> bool | None:
    """Tell whether values lie between 0 and 1, as some programs write them; None if all are 0 or NaN."""
    largest = float(np.nanmax(np.abs(values), initial=0))
    return largest <= 1 if largest > 0 else None


def check_unit(masters: Mapping[str, tuple[Frame, NDArray[np.float32]]], frames: Sequence[Frame]) -> None:
    """Refuse a master between 0 and 1 for lights in ADU, and the other way round."""
    units = {kind: in_fractions(plane) for kind, (_, plane) in masters.items()}
    for frame in frames if units else ():
        unit = _light_in_fractions(frame)
        for kind, own in units.items():
            if None in (unit, own) or unit == own:
                continue
            path = masters[kind][0].path
            if own:
                raise UsageError(
                    f"{path}: the values of the master {kind} lie between 0 and 1, {frame.path} is in ADU",
                    "Multiply it by 65535, or let the program that made it write 16 bits.",
                )
            raise UsageError(
                f"{path}: the master {kind} is in ADU, the values of {frame.path} lie between 0 and 1",
                "Divide it by 65535, or give the frames as the camera stored them.",
            )


def _light_in_fractions(frame: Frame) -> bool | None:
    """Tell the unit of a light: the first rows with a larger value than 1 say that it is ADU."""
    if frame.bitpix > 0 and frame.bscale == 1.0:
        return False
    told = None
    try:
        pixels = open_pixels(frame)
        for row in range(0, frame.rows, BAND):
            unit = in_fractions(pixels.patch(row, 0, min(BAND, frame.rows - row), frame.cols))
            told = told if unit is None else unit
            if unit is False:
                break
    except FrameError:  # the first pass tells of it
        return None
    return told
