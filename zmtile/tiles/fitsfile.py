"""HDUs as bytes: in small pieces, and the same ones each time.

astropy would hold copies of a whole plane, and write the time of day beside each checksum.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from zmtile.tiles.headertext import HeaderText

__all__ = [
    "STRUCTURAL",
    "Packed",
    "TableColumn",
    "packed",
    "write_float_image",
    "write_packed",
    "write_table",
]

_BLOCK = 2880
_LETTERS = {"b1": "L", "i4": "J", "i8": "K", "f8": "D"}
_PIECE = 2**20  # pixels
# What describes an array, and goes with it: a BSCALE that stays behind would change the pixels.
STRUCTURAL = re.compile(
    r"(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|GROUPS|[PG]COUNT|TFIELDS|BSCALE|BZERO|BLANK|CHECKSUM|DATASUM)\Z"
)


def write_float_image(
    file: BinaryIO, data: NDArray[np.float32], header: HeaderText, fill: float | None
) -> None:
    """Write an uncompressed float32 image; the primary one when the file is empty.

    Parameters
    ----------
    file : binary file
    data : ndarray of float32
    header : HeaderText
        What it says of the array as it was stored elsewhere is left out.
    fill : float or None
        Written in place of NaN.
    """
    flat = data.reshape(-1)

    def pieces() -> Iterator[memoryview]:
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE].astype(">f4")
            if fill is not None:
                piece[np.isnan(piece)] = fill
            yield piece.view(np.uint8).data

    complete = HeaderText(_structure(data.shape, primary=not file.tell()))
    others = HeaderText.of(header)
    others.drop(*[name for name in others if STRUCTURAL.match(name)])
    complete.extend(others)
    _write(file, complete, pieces())


def _structure(shape: tuple[int, ...], primary: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the structural cards of a float32 image, as astropy words them."""
    yield (
        ("SIMPLE", True, "conforms to FITS standard") if primary else ("XTENSION", "IMAGE", "Image extension")
    )
    yield "BITPIX", -32, "array data type"
    yield "NAXIS", len(shape), "number of array dimensions"
    for axis, size in enumerate(reversed(shape), 1):
        yield f"NAXIS{axis}", size
    if primary:
        yield "EXTEND", True, "extensions follow"
    else:
        yield "PCOUNT", 0, "number of parameters"
        yield "GCOUNT", 1, "number of groups"


@dataclass(frozen=True)
class Packed:
    """An HDU as bytes, but for its checksums.

    Attributes
    ----------
    header : HeaderText
    data : memoryview
    """

    header: HeaderText
    data: memoryview


def write_packed(file: BinaryIO, packed: Packed) -> None:
    """Write an HDU with checksums of ours."""
    _write(file, packed.header, [packed.data])


@dataclass(frozen=True)
class TableColumn:
    """A column of a binary table.

    Attributes
    ----------
    name, unit : str
    values : (rows,) or (rows, count) array
        Bytes of text, bool, int32, int64 or float64.
    """

    name: str
    unit: str
    values: NDArray[Any]


def write_table(file: BinaryIO, columns: Sequence[TableColumn], name: str, meaning: str) -> None:
    """Write a binary table as astropy does, which would first load its tables: 0.14 s.

    Parameters
    ----------
    file : binary file
    columns : sequence of TableColumn
        Of the same length.
    name, meaning : str
        Of the extension.
    """
    stored = [np.where(c.values, b"T", b"F") if c.values.dtype == np.bool_ else c.values for c in columns]
    table = np.empty(
        len(stored[0]),
        [(c.name, v.dtype.newbyteorder(">"), v.shape[1:]) for c, v in zip(columns, stored, strict=True)],
    )
    header = HeaderText(
        [
            ("XTENSION", "BINTABLE", "binary table extension"),
            ("BITPIX", 8, "array data type"),
            ("NAXIS", 2, "number of array dimensions"),
            ("NAXIS1", table.itemsize, "length of dimension 1"),
            ("NAXIS2", len(table), "length of dimension 2"),
            ("PCOUNT", 0, "number of group parameters"),
            ("GCOUNT", 1, "number of groups"),
            ("TFIELDS", len(columns), "number of table fields"),
        ]
    )
    for number, (column, values) in enumerate(zip(columns, stored, strict=True), start=1):
        table[column.name] = values
        header.put(f"TTYPE{number}", column.name)
        header.put(f"TFORM{number}", _form(column.values))
        if column.unit:
            header.put(f"TUNIT{number}", column.unit)
    header.put("EXTNAME", name, meaning)
    write_packed(file, Packed(header, memoryview(table.tobytes())))


def _form(values: NDArray[Any]) -> str:
    """Return the format of a column: how many of what kind."""
    if values.dtype.kind == "S":
        return f"{values.dtype.itemsize}A"
    count = values.shape[1] if values.ndim > 1 else ""
    return f"{count}{_LETTERS[values.dtype.str[1:]]}"


def packed(hdu: Any) -> Packed:
    """Let astropy turn an HDU into bytes."""
    from astropy.io import fits

    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    stored = buffer.getvalue()
    with fits.open(io.BytesIO(stored), disable_image_compression=True) as hdus:
        header, info = hdus[1].header.copy(), hdus[1].fileinfo()
    return Packed(
        HeaderText.of(header), memoryview(stored)[info["datLoc"] : info["datLoc"] + info["datSpan"]]
    )


def _write(file: BinaryIO, header: HeaderText, pieces: Iterable[memoryview]) -> None:
    """Write a header and its data; the checksums, which come first, are known last."""
    header.put("CHECKSUM", "0" * 16, "checksum of the HDU")
    header.put("DATASUM", "0" * 10, "checksum of the data")
    begin = file.tell()
    file.write(header.whole_blocks)
    total = size = 0
    for piece in pieces:
        total, size = _add(total, piece), size + len(piece)
        file.write(piece)
    file.write(b"\0" * (-size % _BLOCK))
    end = file.tell()
    header.put("DATASUM", str(total), "checksum of the data")
    checksum = _encoded(0xFFFFFFFF - _add(total, header.whole_blocks))
    header.put("CHECKSUM", checksum, "checksum of the HDU")
    file.seek(begin)
    file.write(header.whole_blocks)
    file.seek(end)


def _add(total: int, piece: Any) -> int:
    """Return the ones' complement sum of 32-bit words, as the FITS standard (4.4.2.7) defines it."""
    short = -len(piece) % 4
    words = np.frombuffer(bytes(piece) + b"\0" * short if short else piece, ">u4")
    total += int(words.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _encoded(value: int) -> str:
    """Return 32 bits as 16 letters and digits whose sum they are (FITS standard, appendix J)."""
    columns = []
    for byte in value.to_bytes(4, "big"):
        chars = [byte // 4 + 48 + (byte % 4 if k == 0 else 0) for k in range(4)]
        for k in (0, 2):
            while any(58 <= char <= 64 or 91 <= char <= 96 for char in chars[k : k + 2]):  # punctuation
                chars[k] += 1
                chars[k + 1] -= 1
        columns.append(chars)
    text = "".join(chr(columns[byte][k]) for k in range(4) for byte in range(4))
    return text[-1] + text[:-1]
