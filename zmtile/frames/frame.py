"""Read: the facts of a light frame's header. Inputs are opened for reading only."""

from __future__ import annotations

import gzip
import io
import math
import os
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from zmtile.errors import FrameError, parser_said
from zmtile.frames.cards import PlainHeader, read_plain

if TYPE_CHECKING:
    from astropy.io import fits  # slow to load: most frames are read without

__all__ = ["CFA_PATTERNS", "Frame", "get", "read_frame", "same_file"]

# Values from here on are no data, and exposures (s) beyond this are not known.
LARGEST = 1e18
LONGEST = 1e7
CFA_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
# Stored numbers by BITPIX.
STORED = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
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
    header : fits.Header or PlainHeader
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
    header: fits.Header | PlainHeader = field(repr=False, compare=False)
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
    def stored_colours(self) -> int:
        """Numbers of a pixel in the file: 1 for grey and mosaic frames, 3 for colour."""
        return 1 if self.layout in ("mono", "cfa") else 3

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


def get(header: fits.Header | PlainHeader, key: str, default: Any = None) -> Any:
    """Return a header value, or the default when it is absent, blank or unreadable."""
    if isinstance(header, PlainHeader):
        value = header.get(key, default)
        return default if isinstance(value, str) and not value.strip() else value
    from astropy.io import fits

    try:
        value = header.get(key, default)
    except (fits.VerifyError, ValueError):  # a card that astropy cannot parse is as good as absent
        return default
    if isinstance(value, fits.card.Undefined) or (isinstance(value, str) and not value.strip()):
        return default
    return value


def _number(header: fits.Header | PlainHeader, *keys: str, default: float = math.nan) -> float:
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
        with unpacked(path) as source, warnings.catch_warnings():
            size = source.seek(0, io.SEEK_END)
            source.seek(0)
            if size == 0:
                raise FrameError(path, "the file is empty", "Copy it again from its source, or leave it out.")
            warnings.simplefilter("ignore")  # odd cards are understood or passed over below
            plain = read_plain(source)
            header: fits.Header | PlainHeader
            if plain is not None:
                header, index, offset = plain, 0, source.tell()
            else:
                source.seek(0)
                header, index, offset = _read_any(path, source)
            axes = tuple(int(header[f"NAXIS{i}"]) for i in range(int(header["NAXIS"]), 0, -1))
    except FrameError:
        raise
    except EOFError:
        raise _truncated(path, "the packed stream ends early") from None
    except FileNotFoundError:
        raise FrameError(path, "no such file", "Check the folder and the spelling.") from None
    except OSError as error:
        if error.errno is not None:  # the system speaks, not the parser
            raise FrameError(
                path, f"it cannot be read ({error.strerror})", "Check its mode and its disk."
            ) from None
        raise FrameError(
            path, f"not a FITS file ({parser_said(error)})", "Give FITS light frames only."
        ) from None
    except Exception as error:  # whatever a broken header does to the parser, the user hears the file's name
        raise FrameError(
            path, f"the FITS header cannot be read ({parser_said(error)})", "Copy it again, or leave it out."
        ) from None
    _check_size(path, axes, int(header["BITPIX"]), offset, size)
    return _facts(path, name or path.name, header, axes, index, offset)


def _read_any(path: Path, source: BinaryIO) -> tuple[fits.Header, int, int]:
    """Let astropy find the image; return its header, the index of its HDU and the offset of its pixels."""
    from astropy.io import fits

    with fits.open(source, memmap=False, lazy_load_hdus=True, do_not_scale_image_data=True) as hdus:
        index, hdu = _first_image(path, hdus)
        compressed = isinstance(hdu, fits.CompImageHDU)
        return hdu.header.copy(), index, -1 if compressed else int(hdu.fileinfo()["datLoc"])


def unpacked(path: Path) -> BinaryIO:
    """Open a file, or the content of a gzip file: its first bytes say which it is, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(6)
    packer = next((name for magic, name in _FOREIGN_PACKERS.items() if start.startswith(magic)), None)
    if packer:
        raise FrameError(path, f"it is packed by {packer}", "Unpack it first; .gz and .fz need not be.")
    if start.startswith(b"\x1f\x8b"):
        return io.BytesIO(gzip.decompress(path.read_bytes()))
    return open(path, "rb")


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
    if bitpix not in STORED:
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
    path: Path, name: str, header: fits.Header | PlainHeader, axes: tuple[int, ...], index: int, offset: int
) -> Frame:
    if str(get(header, "ZMT_TYPE", "")) in ("Master Tile", "Tile Plane"):
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


def _cfa(path: Path, header: fits.Header | PlainHeader, rows: int) -> str:
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


def _date(header: fits.Header | PlainHeader) -> datetime | None:
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


def same_file(path: Path) -> tuple[int, int]:
    """Return the file's identity on disk: links to one file share it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino
