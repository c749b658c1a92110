"""Read: the facts of a light frame's header, and its pixels on demand.

Pixels are never copied as a whole: an uncompressed file is mapped, and `read_patch` converts only
the rectangle that a stage asks for. Inputs are opened for reading only.
"""

from __future__ import annotations

import gzip
import io
import math
import mmap
import os
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from zmtile.errors import FrameError

__all__ = ["CFA_PATTERNS", "Frame", "Pixels", "open_pixels", "read_frame"]

# Values from here on are no data, and exposures (s) beyond this are not known.
LARGEST = 1e18
LONGEST = 1e7
CFA_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
# Stored numbers by BITPIX.
_STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
# A compressed image says its size in its header only: more pixels than any camera has, or a ratio that no
# method reaches, is a damaged header, and must not become an allocation.
MAX_PIXELS = 2**31
MAX_RATIO = 4000
# What astropy would unpack whole into memory at every access.
_FOREIGN_PACKERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"\x1f\x9d": "compress"}


@dataclass(frozen=True)
class Frame:
    """Facts of one light frame.

    Attributes
    ----------
    path : Path
        The file.
    name : str
        Name in logs and provenance: the path below the folder that all inputs share.
    rows, cols : int
        Size in pixels.
    layout : {'mono', 'cfa', 'planes', 'interleaved'}
        2-D grey, 2-D mosaic, (3, rows, cols), (rows, cols, 3).
    cfa : str
        Colours of the 2×2 block at stored pixel (0, 0), row by row; '' unless the layout is 'cfa'.
    header : fits.Header
        Header of the image.
    hdu : int
        Index of the image's HDU.
    offset : int
        Bytes from the start of the (unpacked) file to the pixels; -1 for tile-compressed images.
    bzero, bscale, blank : float, float, int or None
        Stored value → ADU.
    exposure : float
        Seconds; NaN when the header has none.
    date : datetime or None
        Start of the exposure, UTC.
    """

    path: Path
    name: str
    rows: int
    cols: int
    layout: str
    cfa: str
    header: fits.Header = field(repr=False, compare=False)
    hdu: int = 0
    offset: int = -1
    bitpix: int = 16
    bzero: float = 0.0
    bscale: float = 1.0
    blank: int | None = None
    exposure: float = math.nan
    date: datetime | None = None

    @property
    def channels(self) -> int:
        """1 for grey frames, 3 for colour and mosaic frames."""
        return 1 if self.layout == "mono" else 3

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of the array in the file."""
        return {
            "planes": (3, self.rows, self.cols),
            "interleaved": (self.rows, self.cols, 3),
        }.get(self.layout, (self.rows, self.cols))

    @property
    def has_wcs(self) -> bool:
        """Whether the header describes celestial coordinates."""
        kinds = [str(get(self.header, f"CTYPE{axis}", "")).upper() for axis in (1, 2)]
        return any(k.startswith("RA--") for k in kinds) and any(k.startswith("DEC-") for k in kinds)


def get(header: fits.Header, key: str, default: Any = None) -> Any:
    """Return a header value, or the default when it is absent, blank or unreadable."""
    try:
        value = header.get(key, default)
    except (fits.VerifyError, ValueError):  # a card that astropy cannot parse is as good as absent
        return default
    if isinstance(value, fits.card.Undefined) or (isinstance(value, str) and not value.strip()):
        return default
    return value


def _number(header: fits.Header, *keys: str, default: float = math.nan) -> float:
    """Return the first of the keys that holds a finite number (some cameras write it as text)."""
    for key in keys:
        try:
            value = float(get(header, key, math.nan))
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            return value
    return default


def read_frame(path: Path, name: str | None = None) -> Frame:
    """Read the facts of a frame: header, layout, size; and check that its pixels are all there.

    Raises
    ------
    FrameError
        When the file is no FITS image that zmtile can stack; the message says why.
    """
    try:
        with _unpacked(path) as source, warnings.catch_warnings():
            size = source.seek(0, io.SEEK_END)
            source.seek(0)
            if size == 0:
                raise FrameError(path, "the file is empty", "Copy it again from its source, or leave it out.")
            warnings.simplefilter("ignore")  # odd cards are understood or passed over below
            with fits.open(source, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=True) as hdus:
                index, hdu = _first_image(path, hdus)
                header = hdu.header.copy()
                compressed = isinstance(hdu, fits.CompImageHDU)
                offset = -1 if compressed else int(hdu.fileinfo()["datLoc"])
                axes = tuple(int(header[f"NAXIS{i}"]) for i in range(int(header["NAXIS"]), 0, -1))
    except FrameError:
        raise
    except EOFError:
        raise _truncated(path, "the packed stream ends early") from None
    except OSError as error:
        if error.errno is not None:  # the system speaks, not the parser
            raise FrameError(
                path, f"it cannot be read ({error.strerror})", "Check its mode and its disk."
            ) from None
        raise FrameError(
            path, f"not a FITS file ({_first_line(error)})", "Give FITS light frames only."
        ) from None
    except Exception as error:  # whatever a broken header does to the parser, the user hears the file's name
        raise FrameError(
            path, f"the FITS header cannot be read ({_first_line(error)})", "Copy it again, or leave it out."
        ) from None
    _check_size(path, axes, int(header["BITPIX"]), offset, size)
    return _facts(path, name or path.name, header, axes, index, offset)


def _unpacked(path: Path) -> BinaryIO:
    """Open a file, or the content of a gzip file: its first bytes say which it is, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(6)
    packer = next((name for magic, name in _FOREIGN_PACKERS.items() if start.startswith(magic)), None)
    if packer:
        raise FrameError(path, f"it is packed by {packer}", "Unpack it first; .gz and .fz need not be.")
    if start.startswith(b"\x1f\x8b"):
        return io.BytesIO(gzip.decompress(path.read_bytes()))
    return open(path, "rb")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _truncated(path: Path, detail: str) -> FrameError:
    return FrameError(
        path, f"the file is truncated: {detail}", "Copy it again from its source, or leave it out."
    )


def _first_image(path: Path, hdus: fits.HDUList) -> tuple[int, Any]:
    """Return the primary image, or else the first image extension."""
    index = 0
    while True:
        try:
            hdu = hdus[index]
        except IndexError:
            break
        if hdu.is_image and int(hdu.header.get("NAXIS", 0)) > 0:
            return index, hdu
        index += 1
    raise FrameError(
        path, "it holds no image", "Give FITS light frames; tables and empty files cannot be stacked."
    )


def _check_size(path: Path, axes: tuple[int, ...], bitpix: int, offset: int, size: int) -> None:
    """Refuse an image that cannot be there."""
    if bitpix not in _STORED:
        raise FrameError(
            path, f"BITPIX is {bitpix}, which FITS does not know", "Copy it again, or leave it out."
        )
    if min(axes) < 1:
        raise FrameError(path, f"the image has no pixels (axes {axes})", "Leave it out.")
    count = math.prod(axes)
    need = count * abs(bitpix) // 8
    if size < (offset + need if offset >= 0 else need // MAX_RATIO):
        there = max(size - max(offset, 0), 0)
        raise _truncated(
            path, f"its header promises {count:,} pixels ({need:,} bytes), {there:,} bytes are there"
        )
    if count > MAX_PIXELS:
        raise FrameError(
            path, f"an image of {count:,} pixels is more than zmtile takes", "Cut it, or leave it out."
        )


def _facts(
    path: Path, name: str, header: fits.Header, axes: tuple[int, ...], index: int, offset: int
) -> Frame:
    if str(get(header, "ZMT_TYPE", "")) == "Master Tile":
        raise FrameError(path, "this is a finished master tile, not a light frame", "Leave it out.")
    while len(axes) > 2 and axes[0] == 1:
        axes = axes[1:]
    if len(axes) == 2:
        layout, (rows, cols) = "mono", axes
    elif len(axes) == 3 and axes[0] == 3:
        layout, (rows, cols) = "planes", axes[1:]
    elif len(axes) == 3 and axes[2] == 3:
        layout, (rows, cols) = "interleaved", axes[:2]
    else:
        raise FrameError(
            path,
            f"an image of shape {axes} is neither mono, mosaic nor three colours",
            "Give frames of shape (rows, cols), (3, rows, cols) or (rows, cols, 3).",
        )
    cfa = _cfa(path, header, rows) if layout == "mono" else ""
    bitpix = int(header["BITPIX"])
    blank = get(header, "BLANK") if bitpix > 0 else None
    exposure = _number(header, "EXPTIME", "EXPOSURE", "TOTALEXP")
    return Frame(
        path=path,
        name=name,
        rows=rows,
        cols=cols,
        layout="cfa" if cfa else layout,
        cfa=cfa,
        header=header,
        hdu=index,
        offset=offset,
        bitpix=bitpix,
        bzero=_number(header, "BZERO", default=0.0),
        bscale=_number(header, "BSCALE", default=1.0),
        blank=int(blank) if isinstance(blank, (int, float)) else None,
        exposure=exposure if 0.0 <= exposure <= LONGEST else math.nan,
        date=_date(header),
    )


def _cfa(path: Path, header: fits.Header, rows: int) -> str:
    """Return the mosaic's colours at stored pixel (0, 0).

    BAYERPAT (or COLORTYP) is counted from the sensor's top row, which is the first one stored
    unless ROWORDER says BOTTOM-UP; XBAYROFF and YBAYROFF shift it, as in the SBFITSEXT
    convention and in Siril's notes on the orientation of FITS images.
    """
    pattern = str(get(header, "BAYERPAT", get(header, "COLORTYP", ""))).strip().upper()
    if pattern in ("", "NONE", "MONO", "MONOCHROME", "FALSE", "0"):
        return ""
    if pattern not in CFA_PATTERNS:
        raise FrameError(
            path,
            f"the colour filter pattern {pattern!r} is not known",
            f"Known ones: {', '.join(CFA_PATTERNS)}. Convert the frame to colour first, or mend BAYERPAT.",
        )
    dx, dy = (int(_number(header, key, default=0)) for key in ("XBAYROFF", "YBAYROFF"))
    bottom_up = str(get(header, "ROWORDER", "TOP-DOWN")).strip().upper() == "BOTTOM-UP"
    top = [(rows - 1 - r if bottom_up else r) + dy for r in (0, 1)]
    return "".join(pattern[2 * (r % 2) + (c + dx) % 2] for r in top for c in (0, 1))


def _date(header: fits.Header) -> datetime | None:
    """Return the start of the exposure in UTC from the forms of DATE-OBS that cameras write."""
    text = str(get(header, "DATE-OBS", get(header, "DATE-BEG", ""))).strip().strip("'")
    if not text:
        return None
    if "T" not in text and " " not in text:
        clock = str(get(header, "TIME-OBS", get(header, "UT", ""))).strip()
        text = f"{text}T{clock}" if ":" in clock else text
    day, _, clock = text.replace(" ", "T", 1).partition("T")
    if "/" in day:  # DD/MM/YY, the FITS form before 1999
        try:
            d, m, y = (int(part) for part in day.split("/"))
        except ValueError:
            return None
        day = f"{y + 1900 if y < 100 else y:04d}-{m:02d}-{d:02d}"
    clock = clock.replace("UTC", "").strip()
    leap = ":60" in clock  # a leap second: datetime has none
    try:
        when = datetime.fromisoformat(f"{day}T{clock.replace(':60', ':59')}" if clock else day)
    except ValueError:
        return None
    if not 1850 <= when.year <= 2200:  # a clock that was never set
        return None
    when += timedelta(seconds=int(leap))
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


class Pixels:
    """The stored array of a frame and the way from it to float32 ADU.

    Parameters
    ----------
    frame : Frame
    stored : ndarray
        Shape ``frame.stored_shape``, in the file's type and byte order; a mapping where possible.
    """

    def __init__(self, frame: Frame, stored: NDArray[Any], mapping: mmap.mmap | None = None) -> None:
        self.frame = frame
        self.stored = stored
        self._mapping = mapping

    def patch(self, row: int, col: int, rows: int, cols: int) -> NDArray[np.float32]:
        """Return a rectangle in ADU; NaN outside the frame and where the file has no data.

        Parameters
        ----------
        row, col : int
            Frame pixel of the rectangle's first pixel; may lie outside the frame.
        rows, cols : int
            Its size.

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
        return out

    @property
    def mapped(self) -> bool:
        """Whether the pixels stay in the file until they are used."""
        return self._mapping is not None

    def whole(self) -> NDArray[np.float32]:
        """Return the frame in ADU, (1 or 3, rows, cols)."""
        return self.patch(0, 0, self.frame.rows, self.frame.cols)

    def release(self) -> None:
        """Let go of the mapped pages; the system keeps them cached for the next use."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)


def open_pixels(frame: Frame) -> Pixels:
    """Open the pixels of a frame: mapped when the file is plain, unpacked into memory otherwise.

    Raises
    ------
    FrameError
        When the file has changed since its header was read, or cannot be unpacked.
    """
    dtype = np.dtype(_STORED[frame.bitpix])
    count = math.prod(frame.stored_shape)
    mapping: mmap.mmap | None = None
    try:
        with _unpacked(frame.path) as source:
            if frame.offset < 0:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with fits.open(source, memmap=False, do_not_scale_image_data=True) as hdus:
                        stored = np.asarray(hdus[frame.hdu].data).reshape(frame.stored_shape)
                return Pixels(frame, stored)
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
            frame.path, f"its pixels cannot be read ({_first_line(error)})", "Copy it again, or leave it out."
        ) from None
    return Pixels(frame, stored, mapping)


def same_file(path: Path) -> tuple[int, int]:
    """Return the file's identity on disk: links to one file share it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino
