"""Pixels: the stored array of a frame, in calibrated ADU on demand.

Pixels are never held as a whole: of an uncompressed file the part that a stage asks for is read, and
`Pixels.patch` converts only a rectangle of it. Files are not mapped. Mapped pages would count as the
process's memory, rows that lie on a page each miss the processor's table of pages (patches of 60 frames
in turn took twice as long), and a file that shrinks meanwhile would be a crash instead of an error.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import FrameError, parser_said
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import LARGEST, STORED, Frame, unpacked
from zmtile.kernels.unpack import NO_BLANK, unpack_shorts
from zmtile.parallel import Kept

__all__ = ["Pixels", "PixelsInFile", "open_pixels", "part_bytes"]

# Rows that are read and converted together.
STRIP = 64


class Pixels:
    """A part of a frame as it is stored, held in memory, and the way from there to float32 ADU.

    Parameters
    ----------
    frame : Frame
    stored : ndarray
        Shape ``frame.stored_shape``, or a rectangle of it; in the file's type and byte order.
    correction : Correction
        What is done to the pixels before anything looks at them.
    first : (int, int)
        Row and column of the frame that are the first here.
    """

    def __init__(
        self, frame: Frame, stored: NDArray[Any], correction: Correction, first: tuple[int, int] = (0, 0)
    ) -> None:
        self.frame = frame
        self.stored = stored
        self.correction = correction
        self.first = first

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the pixels hold."""
        return self.stored.nbytes

    def part(self, row: int, col: int, rows: int, cols: int, room: NDArray[np.uint8] | None = None) -> Pixels:
        """Return pixels that hold a rectangle, which lies inside the frame.

        Parameters
        ----------
        row, col, rows, cols : int
            First pixel and size.
        room : ndarray of uint8, optional
            At least `part_bytes`; where the pixels are put. Without it, they may be those of this object.
        """
        if room is None:
            return self
        raw = self.raw(row, col, rows, cols)
        stored = room[: raw.nbytes].view(raw.dtype).reshape(raw.shape)
        stored[:] = raw
        return Pixels(self.frame, stored, self.correction, (row, col))

    def raw(self, row: int, col: int, rows: int, cols: int) -> NDArray[Any]:
        """Return a rectangle that is held as it is stored, in the file's order of axes."""
        row, col = row - self.first[0], col - self.first[1]
        at = np.s_[row : row + rows, col : col + cols]
        return self.stored[:, *at] if self.frame.layout == "planes" else self.stored[at]

    def patch(
        self, row: int, col: int, rows: int, cols: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a rectangle in ADU, corrected; NaN outside the frame and where there is no data.

        What lies inside the frame must be held.

        Parameters
        ----------
        row, col : int
            Frame pixel of the rectangle's first pixel; may lie outside the frame.
        rows, cols : int
            Its size.
        out : ndarray of float32, optional
            Of the shape that is returned; written to.

        Returns
        -------
        ndarray of float32
            (1, rows, cols) for mono and mosaic frames, (3, rows, cols) for colour.
        """
        frame = self.frame
        planes = frame.stored_colours
        r0, r1 = max(row, 0), min(row + rows, frame.rows)
        c0, c1 = max(col, 0), min(col + cols, frame.cols)
        whole = (r0, r1, c0, c1) == (row, row + rows, col, col + cols)
        if out is None:
            out = np.empty((planes, rows, cols), np.float32)
        if not whole:
            out.fill(np.nan)
        if r0 >= r1 or c0 >= c1:
            return out
        at = r0, c0, r1 - r0, c1 - c0
        held = self.part(*at)
        inside = out[:, r0 - row : r1 - row, c0 - col : c1 - col]
        if frame.bitpix == 16 and frame.layout != "interleaved":
            stored = held.stored.reshape(planes, *held.stored.shape[-2:])
            first = r0 - held.first[0], c0 - held.first[1]
            _unpack(frame, stored, first, out, (r0 - row, c0 - col), at[2:])
        else:
            _convert(frame, held.raw(*at), inside)
        self.correction.apply(inside, r0, c0, frame.cols)
        return out

    def whole(self, kept: Kept | None = None) -> NDArray[np.float32]:
        """Return the frame in ADU, corrected, (1 or 3, rows, cols); `kept` holds it."""
        frame, kept = self.frame, kept or Kept()
        shape = (frame.stored_colours, frame.rows, frame.cols)
        planes = kept.floats("planes", shape)
        room = kept.bytes("strip", part_bytes(frame, STRIP, frame.cols))
        for first in range(0, frame.rows, STRIP):  # as the cache holds
            strip = planes[:, first : first + STRIP]
            at = first, 0, strip.shape[1], frame.cols
            self.part(*at, room).patch(*at, strip)
        return planes


class PixelsInFile(Pixels):
    """Pixels that stay in their file until a part is asked for; it is closed when nobody holds them.

    Parameters
    ----------
    frame : Frame
        Its `offset` says where in the file its pixels begin.
    file : int
        Descriptor of the open file.
    correction : Correction
    """

    def __init__(self, frame: Frame, file: int, correction: Correction) -> None:
        none = np.empty((0,) * len(frame.stored_shape), STORED[frame.bitpix])
        super().__init__(frame, none, correction)
        self._file = file

    def __del__(self) -> None:
        os.close(self._file)

    def part(self, row: int, col: int, rows: int, cols: int, room: NDArray[np.uint8] | None = None) -> Pixels:
        """Read a rectangle.

        Raises
        ------
        FrameError
            When the file has lost it since its header was read.
        """
        frame, size = self.frame, part_bytes(self.frame, rows, cols)
        room = np.empty(size, np.uint8) if room is None else room[:size]
        planes = 3 if frame.layout == "planes" else 1
        pixel = part_bytes(frame, 1, 1) // planes
        for plane, part in enumerate(room.reshape(planes, rows, cols * pixel)):
            begin = ((plane * frame.rows + row) * frame.cols + col) * pixel
            self._read(part, frame.offset + begin, frame.cols * pixel)
        shape = {"planes": (3, rows, cols), "interleaved": (rows, cols, 3)}.get(frame.layout, (rows, cols))
        return Pixels(frame, room.view(STORED[frame.bitpix]).reshape(shape), self.correction, (row, col))

    def _read(self, rows: NDArray[np.uint8], offset: int, apart: int) -> None:
        """Read rows of bytes, `apart` from each other in the file.

        What lies between them is read, too: a call of the system for each row takes longer.
        """
        count, size = rows.shape
        if size == apart:
            self._fill(rows.reshape(-1), offset)
            return
        whole = np.empty((min(count, STRIP), apart), np.uint8)
        for first in range(0, count, STRIP):
            part = rows[first : first + STRIP]
            span = whole.reshape(-1)[: (len(part) - 1) * apart + size]
            self._fill(span, offset + first * apart)
            part[:] = whole[: len(part), :size]

    def _fill(self, room: NDArray[np.uint8], offset: int) -> None:
        done = 0
        while done < room.size:
            try:
                read = os.preadv(self._file, [room[done:].data], offset + done)
            except OSError as error:
                raise _unreadable(self.frame, str(error.strerror)) from None
            if not read:
                raise _unreadable(self.frame, "the file has become shorter")
            done += read


def part_bytes(frame: Frame, rows: int, cols: int) -> int:
    """Return the bytes of a rectangle of a frame as it is stored."""
    return frame.stored_colours * rows * cols * abs(frame.bitpix) // 8


def _unpack(
    frame: Frame,
    stored: NDArray[Any],
    first: tuple[int, int],
    out: NDArray[np.float32],
    begin: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Turn a rectangle of 16-bit integers into ADU: from `first` of the stored ones, to `begin` of others."""
    numbers = _scaling(frame.bscale, frame.bzero, frame.blank)
    swapped = not stored.dtype.isnative
    for plane, values in zip(stored.view(np.uint16), out, strict=True):
        unpack_shorts(plane, swapped, *first, *numbers, values, *begin, *size)


@lru_cache(maxsize=64)
def _scaling(
    bscale: float, bzero: float, blank: int | None
) -> tuple[np.float32, np.float32, int, np.float32]:
    """Return scale, zero, blank and largest as `unpack_shorts` takes them."""
    with np.errstate(over="ignore"):  # a scale out of all bounds makes no data
        scale, zero = np.float32(bscale), np.float32(bzero)
    blank = blank if blank is not None and -NO_BLANK < blank < NO_BLANK else NO_BLANK
    return scale, zero, blank, np.float32(LARGEST if bscale != 1.0 else np.inf)


def _convert(frame: Frame, raw: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Turn stored numbers of any kind into ADU."""
    if frame.layout == "interleaved":
        raw = np.moveaxis(raw, -1, 0)
    elif frame.layout != "planes":
        raw = raw[None]
    with np.errstate(invalid="ignore", over="ignore"):
        if frame.bitpix in (8, 16, -32) or (frame.bscale, frame.bzero) == (1.0, 0.0):
            np.copyto(out, raw, casting="unsafe")
            if frame.bscale != 1.0:
                out *= np.float32(frame.bscale)
            if frame.bzero != 0.0:
                out += np.float32(frame.bzero)
        else:  # uint32 is stored as int32 - 2^31: float32 would round before BZERO is added
            np.copyto(out, raw.astype(np.float64) * frame.bscale + frame.bzero, casting="unsafe")
        if frame.bitpix < 0 or frame.bscale != 1.0:
            # No camera counts so far; squares of such values would overflow in the rejection.
            out[~(np.abs(out) < LARGEST)] = np.nan
    if frame.bitpix > 0 and frame.blank is not None:
        out[raw == frame.blank] = np.nan


def open_pixels(frame: Frame, correction: Correction | None = None) -> Pixels:
    """Open the pixels of a frame: they stay in a plain file, and are unpacked into memory otherwise.

    Without a `correction` they are what the file says.

    Raises
    ------
    FrameError
        When the file has changed since its header was read, or cannot be unpacked.
    """
    dtype = np.dtype(STORED[frame.bitpix])
    count = math.prod(frame.stored_shape)
    correction = correction or Correction()
    try:
        with unpacked(frame.path) as source:
            if frame.offset < 0:
                from astropy.io import fits

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with fits.open(source, memmap=False, do_not_scale_image_data=True) as hdus:
                        stored = np.asarray(hdus[frame.hdu].data).reshape(frame.stored_shape)
            elif isinstance(source, io.BytesIO):
                stored = np.empty(frame.stored_shape, dtype)
                source.seek(frame.offset)
                if source.readinto(stored.reshape(-1).view(np.uint8).data) < stored.nbytes:
                    raise _unreadable(frame, "the file has become shorter")
            elif os.fstat(source.fileno()).st_size < frame.offset + count * dtype.itemsize:
                raise _unreadable(frame, "the file has become shorter")
            else:
                return PixelsInFile(frame, os.dup(source.fileno()), correction)
    except FrameError:
        raise
    except Exception as error:  # a damaged stream breaks its decoder in more ways than can be listed
        raise _unreadable(frame, parser_said(error)) from None
    return Pixels(frame, stored, correction)


def _unreadable(frame: Frame, detail: str) -> FrameError:
    return FrameError(frame.path, f"its pixels cannot be read ({detail})", "Copy it again, or leave it out.")
