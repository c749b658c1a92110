"""Read the master frames of a calibration, and make of them what is done to the lights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import FrameError, UsageError
from zmtile.frames.calibrate import Calibration, Master
from zmtile.frames.frame import Frame, read_frame
from zmtile.frames.hashes import sha256_of
from zmtile.frames.mastercheck import bias_is_out, check_fit, check_state, check_unit, in_fractions
from zmtile.frames.pixels import open_pixels
from zmtile.options import Options

__all__ = ["read_masters"]

log = logging.getLogger("zmtile")

Plane = NDArray[np.float32]

# A pixel of the flat below this fraction of its colour's median gives no light worth dividing by.
DEAD = 0.1
# Exposures that differ by less are one exposure.
SAME_EXPOSURE = 0.01
# Light and heat only add to the bias. From one master to the next it drifts, but not by this much.
BELOW_BIAS = 0.95


def read_masters(options: Options, frames: Sequence[Frame]) -> Calibration:
    """Read the masters that the options name and prepare them for the frames.

    Darks and flats still hold their bias, unless their CALSTAT says that it is out. With a bias, it
    is taken out of them, and of the lights where these hold theirs. A dark whose bias is out is
    scaled to the exposure of each frame; one that holds it is subtracted as it is, which is right
    only for frames of its exposure. The flat is divided by the median of each colour of the mosaic,
    so that neither the colour of the lamp nor its level changes the lights.

    Raises
    ------
    FrameError
        When a master cannot be read.
    UsageError
        When it does not fit the frames, or holds nothing that could calibrate them.
    """
    given = {kind: Path(path) for kind in ("bias", "dark", "flat") if (path := getattr(options, kind))}
    masters = {kind: read_frame(path) for kind, path in given.items()}
    if not masters:
        return Calibration()
    for kind, master in masters.items():
        check_fit(kind, master, frames)
        check_state(kind, frames)
    planes = {kind: _plane(kind, master) for kind, master in masters.items()}
    check_unit({kind: (masters[kind], planes[kind]) for kind in planes if kind != "flat"}, frames)
    holding = [kind for kind in ("dark", "flat") if kind in masters and not bias_is_out(kind, masters[kind])]
    lights_hold = not bias_is_out("light", frames[0])
    if "bias" in masters:
        _take_out_bias(masters, planes, holding, frames[0])
    else:
        _check_without_bias(masters, holding, frames[0])
    if "flat" in masters:
        _normalise(masters["flat"], planes["flat"], frames[0])
    exposure = None
    if "dark" in masters:
        if "bias" in masters or "dark" not in holding:
            exposure = _scaled_exposure(masters["dark"], frames, "dark" in holding and lights_hold)
        else:
            _check_same_exposure(masters["dark"], frames)
    return Calibration(
        planes.get("bias") if lights_hold else None,
        planes.get("dark"),
        planes.get("flat"),
        exposure,
        {kind: Master(path.name, sha256_of(path)) for kind, path in given.items()},
    )


def _plane(kind: str, master: Frame) -> Plane:
    """Return a master in ADU, all finite or NaN."""
    plane = open_pixels(master).whole()
    if not np.isfinite(plane).any():
        raise UsageError(f"{master.path}: the master {kind} has no data", "Make it again.")
    return plane


def _take_out_bias(
    masters: Mapping[str, Frame], planes: Mapping[str, Plane], holding: Sequence[str], light: Frame
) -> None:
    """Take the bias out of the masters that hold it, in place."""
    if not holding and bias_is_out("light", light):
        raise UsageError(
            f"{light.path}: its bias is out already, its CALSTAT says, and no master holds any",
            "Leave --bias out.",
        )
    for kind in holding:
        _check_above_bias(kind, masters[kind], planes[kind], planes["bias"])
        np.subtract(planes[kind], planes["bias"], out=planes[kind])


def _check_without_bias(masters: Mapping[str, Frame], holding: Sequence[str], light: Frame) -> None:
    """Refuse what takes a bias out twice; point out where it stays."""
    if bias_is_out("light", light) and "dark" in holding:
        raise UsageError(
            f"{masters['dark'].path}: the master dark holds its bias, which is out of {light.path} already",
            "Give --bias: it is taken out of the masters alone. Or write CALSTAT = 'B' into the dark if its "
            "bias is out.",
        )
    if not bias_is_out("light", light) and not holding:
        log.warning("the bias stays in the frames; --bias takes it out")
    if "flat" in holding:
        log.warning(
            "%s is used as it is: what bias it still holds flattens its vignetting; --bias takes it out",
            masters["flat"].path,
        )


def _check_above_bias(kind: str, master: Frame, plane: Plane, bias: Plane) -> None:
    """Refuse a master whose bias must be out already, or that counts in another unit."""
    if in_fractions(bias) and in_fractions(plane) is False:
        raise UsageError(
            f"{master.path}: the values of the master bias lie between 0 and 1, the master {kind} is in ADU",
            "Give both in the unit of the frames.",
        )
    level, floor = float(np.nanmedian(plane)), float(np.nanmedian(bias))
    if floor > 0 and level < BELOW_BIAS * floor:
        raise UsageError(
            f"{master.path}: the master {kind} ({level:.6g} ADU) is below the bias ({floor:.6g} ADU)",
            "Its bias is out already, it seems: write CALSTAT = 'B' into its header.",
        )


def _scaled_exposure(master: Frame, frames: Sequence[Frame], as_it_is: bool) -> float:
    """Return the exposure that a dark is scaled from; `as_it_is` tells whether it could do without."""
    remedy = "Write EXPTIME into it"
    remedy += ", or leave --bias out: then the dark is subtracted as it is." if as_it_is else "."
    if not master.exposure > 0:
        raise UsageError(
            f"{master.path}: it does not say how long it was exposed, so it cannot be scaled", remedy
        )
    for frame in frames:
        if not math.isfinite(frame.exposure):
            raise FrameError(
                frame.path, "it does not say how long it was exposed, so the dark cannot be scaled", remedy
            )
    return master.exposure


def _check_same_exposure(master: Frame, frames: Sequence[Frame]) -> None:
    """Refuse a dark that holds its bias for frames of another exposure."""
    exposure = master.exposure
    for frame in frames:
        if abs(frame.exposure - exposure) > SAME_EXPOSURE * exposure:
            raise UsageError(
                f"{master.path} was exposed for {exposure:g} s, {frame.path} for {frame.exposure:g} s",
                "Give --bias so that the dark can be scaled, or a dark of that exposure.",
            )
    silent = [frame.path for frame in (master, *frames) if not math.isfinite(frame.exposure)]
    if silent:
        log.warning(
            "%s%s: no EXPTIME; the dark is subtracted as it is, whether it was exposed as long or not",
            silent[0],
            f" and {len(silent) - 1} more" if len(silent) > 1 else "",
        )


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
