"""Pixels: the stored array of a frame, in calibrated ADU on demand.

Pixels are never copied as a whole: an uncompressed file is mapped, and `Pixels.patch` converts only
the rectangle that a stage asks for.
"""

from __future__ import annotations

import io
import math
import mmap
import warnings
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from zmtile.errors import FrameError, parser_said
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import LARGEST, STORED, Frame, unpacked
from zmtile.parallel import Kept

__all__ = ["Pixels", "open_pixels"]

# Rows that are converted together.
STRIP = 64


class Pixels:
    """The stored array of a frame and the way from it to float32 ADU.

    Parameters
    ----------
    frame : Frame
    stored : ndarray
        Shape ``frame.stored_shape``, in the file's type and byte order; a mapping where possible.
    correction : Correction
        What is done to the pixels before anything looks at them.
    """

    def __init__(
        self, frame: Frame, stored: NDArray[Any], correction: Correction, mapping: mmap.mmap | None = None
    ) -> None:
        self.frame = frame
        self.stored = stored
        self.correction = correction
        self._mapping = mapping

    def patch(
        self, row: int, col: int, rows: int, cols: int, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a rectangle in ADU, corrected; NaN outside the frame and where there is no data.

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
        planes = 1 if frame.layout in ("mono", "cfa") else 3
        r0, r1 = max(row, 0), min(row + rows, frame.rows)
        c0, c1 = max(col, 0), min(col + cols, frame.cols)
        whole = (r0, r1, c0, c1) == (row, row + rows, col, col + cols)
        if out is None:
            out = np.empty((planes, rows, cols), np.float32)
        if not whole:
            out.fill(np.nan)
        if r0 >= r1 or c0 >= c1:
            return out
        inside = out[:, r0 - row : r1 - row, c0 - col : c1 - col]
        if frame.layout == "planes":
            raw = self.stored[:, r0:r1, c0:c1]
        elif frame.layout == "interleaved":
            raw = np.moveaxis(self.stored[r0:r1, c0:c1], -1, 0)
        else:
            raw = self.stored[None, r0:r1, c0:c1]
        with np.errstate(invalid="ignore", over="ignore"):
            if frame.bitpix in (8, 16, -32) or (frame.bscale, frame.bzero) == (1.0, 0.0):
                np.copyto(inside, raw, casting="unsafe")
                if frame.bscale != 1.0:
                    inside *= np.float32(frame.bscale)
                if frame.bzero != 0.0:
                    inside += np.float32(frame.bzero)
            else:  # uint32 is stored as int32 - 2^31: float32 would round before BZERO is added
                np.copyto(inside, raw.astype(np.float64) * frame.bscale + frame.bzero, casting="unsafe")
            if frame.bitpix < 0 or frame.bscale != 1.0:
                # No camera counts so far; squares of such values would overflow in the rejection.
                inside[~(np.abs(inside) < LARGEST)] = np.nan
        if frame.bitpix > 0 and frame.blank is not None:
            inside[raw == frame.blank] = np.nan
        self.correction.apply(inside, r0, c0, frame.cols)
        return out

    @property
    def mapped(self) -> bool:
        """Whether the pixels stay in the file until they are used."""
        return self._mapping is not None

    def whole(self, kept: Kept | None = None) -> NDArray[np.float32]:
        """Return the frame in ADU, corrected, (1 or 3, rows, cols); `kept` holds it."""
        frame = self.frame
        shape = (1 if frame.layout in ("mono", "cfa") else 3, frame.rows, frame.cols)
        planes = (kept or Kept()).floats("planes", shape)
        for first in range(0, frame.rows, STRIP):  # as the cache holds
            part = planes[:, first : first + STRIP]
            self.patch(first, 0, part.shape[1], frame.cols, part)
        return planes

    def release(self) -> None:
        """Let go of the mapped pages; the system keeps them cached for the next use."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)


def open_pixels(frame: Frame, correction: Correction | None = None) -> Pixels:
    """Open the pixels of a frame: mapped when the file is plain, unpacked into memory otherwise.

    Without a `correction` they are what the file says.

    Raises
    ------
    FrameError
        When the file has changed since its header was read, or cannot be unpacked.
    """
    dtype = np.dtype(STORED[frame.bitpix])
    count = math.prod(frame.stored_shape)
    correction = correction or Correction()
    mapping: mmap.mmap | None = None
    try:
        with unpacked(frame.path) as source:
            if frame.offset < 0:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with fits.open(source, memmap=False, do_not_scale_image_data=True) as hdus:
                        stored = np.asarray(hdus[frame.hdu].data).reshape(frame.stored_shape)
                return Pixels(frame, stored, correction)
            buffer: Any
            if isinstance(source, io.BytesIO):
                buffer = source.getvalue()
            else:
                buffer = mapping = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        stored = np.frombuffer(buffer, dtype, count, frame.offset).reshape(frame.stored_shape)
    except FrameError:
        raise
    except Exception as error:  # a damaged stream breaks its decoder in more ways than can be listed
        raise FrameError(
            frame.path, f"its pixels cannot be read ({parser_said(error)})", "Copy it again, or leave it out."
        ) from None
    return Pixels(frame, stored, correction, mapping)
