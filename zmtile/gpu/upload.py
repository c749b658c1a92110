"""Upload: the raw pixels of a frame under a band, to the device and on to corrected ADU or colour."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.calibrate import Calibration, Correction
from zmtile.frames.frame import LARGEST, Frame
from zmtile.frames.pixels import Pixels
from zmtile.gpu.device import NULL, Device, Slot

__all__ = ["COLOUR", "SLOTS", "Developer", "Raw", "Rectangle", "patch_bytes", "raw_bytes", "raw_of", "sent"]

# Frames on their way at a time: one is read, one is copied, one is worked on.
SLOTS = 3
# Floats of a colour pixel on the device: three and padding.
COLOUR = 4
# Stored types that the device decodes, as `enum Stored` in cuda/develop.cuh; the others are rare.
_KINDS = {("u", 1): 0, ("i", 2): 1, ("f", 4): 2}


@dataclass(frozen=True)
class Rectangle:
    """A part of a frame: number, first row and col, size; all inside the frame."""

    number: int
    row: int
    col: int
    rows: int
    cols: int


@dataclass(frozen=True)
class Raw:
    """The pixels of a rectangle: as they are stored, or decoded to float32 ADU by the host."""

    values: NDArray[Any]
    decoded: bool


def raw_of(pixels: Pixels, part: Rectangle) -> Raw:
    """Return the pixels of a rectangle, not yet corrected."""
    at = part.row, part.col, part.rows, part.cols
    held = pixels.part(*at)
    if (held.stored.dtype.kind, held.stored.dtype.itemsize) not in _KINDS:
        return Raw(Pixels(pixels.frame, held.stored, Correction(), held.first).patch(*at), True)
    return Raw(held.raw(*at), False)


def raw_bytes(frame: Frame, part: Rectangle) -> int:
    """Return the bytes of a rectangle on its way, at most."""
    return frame.stored_colours * part.rows * part.cols * min(abs(frame.bitpix) // 8, 4)


def sent(
    slots: Sequence[Slot], parts: Iterable[Rectangle], read: Callable[[Rectangle], Raw]
) -> Iterator[tuple[Rectangle, Slot, Raw]]:
    """Send rectangles to the device in their order, the next ones being read meanwhile.

    Parameters
    ----------
    slots : sequence of Slot
        As many rectangles are on their way at a time; each holds the largest.
    parts : iterable of Rectangle
    read : callable
        Returns the `Raw` of a rectangle; called from several threads.

    Yields
    ------
    (Rectangle, Slot, Raw)
        The slot's array holds the rectangle. The caller tells the slot when it has been `used`.
    """
    ahead: deque[tuple[Rectangle, Slot, Future[Raw]]] = deque()

    def fill(part: Rectangle, slot: Slot) -> Raw:
        raw = read(part)
        slot.wait()
        room = slot.host[: raw.values.nbytes].view(raw.values.dtype).reshape(raw.values.shape)
        np.copyto(room, raw.values)
        return Raw(room, raw.decoded)

    def oldest() -> tuple[Rectangle, Slot, Raw]:
        part, slot, future = ahead.popleft()
        raw = future.result()
        slot.send(raw.values.nbytes)
        return part, slot, raw

    with ThreadPoolExecutor(len(slots), thread_name_prefix="zmtile-read") as pool:
        try:
            for number, part in enumerate(parts):
                if len(ahead) == len(slots):
                    yield oldest()
                slot = slots[number % len(slots)]
                ahead.append((part, slot, pool.submit(fill, part, slot)))
            while ahead:
                yield oldest()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Developer:
    """Turns what was sent into the patch that the warp reads: corrected ADU, in colour for colour frames.

    Parameters
    ----------
    device : Device
    calibration : Calibration
        Its masters are held on the device.
    frames : device array
        The geometry of all frames.
    """

    def __init__(self, device: Device, calibration: Calibration, frames: Any) -> None:
        self._device, self._frames = device, frames
        masters = (calibration.bias, calibration.dark, calibration.flat)
        self._masters = [NULL if plane is None else device.put(plane) for plane in masters]
        self._shape = next((plane.shape[1:] for plane in masters if plane is not None), (0, 0))

    def patch(self, frame: Frame, correction: Correction, part: Rectangle, raw: Raw, stored: Any) -> Any:
        """Return (rows · cols · 1 or `COLOUR`) float32 on the device."""
        device = self._device
        planes = frame.stored_colours
        pixels, apart = part.rows * part.cols, COLOUR if planes == 3 else 1
        out = device.empty(pixels * apart, np.float32)
        dtype = raw.values.dtype
        scaled = not raw.decoded
        blank = frame.blank if scaled and frame.bitpix > 0 else None
        if blank is not None and not np.iinfo(dtype).min <= blank <= np.iinfo(dtype).max:
            blank = None  # no pixel can have it
        device.launch(
            "develop",
            pixels * planes,
            stored,
            np.int32(_KINDS[dtype.kind, dtype.itemsize]),
            np.int32(not dtype.isnative),
            np.int32(scaled and frame.layout == "interleaved"),
            np.int32(planes),
            np.int32(part.rows),
            np.int32(part.cols),
            np.float32(frame.bscale if scaled else 1.0),
            np.float32(frame.bzero if scaled else 0.0),
            np.float32(LARGEST if frame.bitpix < 0 or frame.bscale != 1.0 else 0.0),
            np.int32(blank is not None),
            np.int32(0 if blank is None else blank),
            *self._masters,
            np.float32(correction.dark_factor),
            np.int32(part.row),
            np.int32(part.col),
            *(np.int32(side) for side in self._shape),
            np.int32(apart),
            out,
        )
        if correction.bad.size:
            bad = device.put(correction.bad)
            where = (frame.cols, part.row, part.col, part.rows, part.cols, planes, apart)
            numbers = (np.int32(v) for v in where)
            device.launch(
                "mask_pixels", correction.bad.size, bad, np.int64(correction.bad.size), *numbers, out
            )
        if frame.layout != "cfa":
            return out
        colour = device.empty(pixels * COLOUR, np.float32)
        numbers = (np.int32(v) for v in (part.number, part.rows, part.cols, part.row, part.col))
        device.launch("demosaic", pixels, out, self._frames, *numbers, colour)
        return colour


def patch_bytes(frame: Frame, part: Rectangle) -> int:
    """Return the bytes that `Developer.patch` needs for a rectangle."""
    floats = {"mono": 1, "cfa": 1 + COLOUR}.get(frame.layout, COLOUR)
    return 4 * floats * math.prod((part.rows, part.cols))
