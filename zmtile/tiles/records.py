"""What the tile tells of each input: one record a frame, and the FRAMES table made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.bend import BEND
from zmtile.tiles.fitsfile import TableColumn
from zmtile.tiles.keywords import ascii_text, file_text, iso

__all__ = ["COLUMNS", "Column", "FrameRecord", "from_table", "to_columns"]


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """What became of one input.

    Attributes
    ----------
    name : str
        Path below the folder that all inputs share.
    sha256 : str
        Of the file's bytes; '' when it could not be read.
    used : bool
    reason : str
        Why it was left out; '' when it was used.
    rule : str
        The rule of `--reject-frames` that it fails; '' for any other reason.
    date : datetime or None
        Start of the exposure, UTC; the file keeps milliseconds.
    exposure : float
        Seconds; NaN when unknown.
    nstars, nmatch : int
        Stars detected, and matched with the reference.
    rms : float
        Residual of the matched stars, px; NaN when there is none.
    matrix : (2, 3) float64
        Frame pixel → reference pixel; NaN when not registered.
    model : str
        Model of the transform; '' when not registered.
    bend : (20,) float64
        What it adds to the matrix, see `zmtile.kernels.bend`; NaN when not registered.
    fwhm : float
        Of its stars, px.
    noise, scale, offset, slope_x, slope_y, curve_xx, curve_xy, curve_yy, weight : tuple of float
        For each channel: noise (ADU); factor to the reference; sky added, as the coefficients of 1,
        u, v, u², uv, v² (ADU), where u and v are 0 at the middle of the reference frame and change by
        1 over half the longer side of that frame; weight.
    nhot : int
        Pixels without a value because they are hot or dead on the sensor.
    nrejlow, nrejhigh : int
        Samples rejected below and above, all channels together.
    footprint : float
        Fraction of the tile that it covers.
    """

    name: str
    sha256: str
    used: bool
    reason: str
    rule: str
    date: datetime | None
    exposure: float
    nstars: int
    nmatch: int
    rms: float
    matrix: NDArray[np.float64]
    model: str
    bend: NDArray[np.float64]
    fwhm: float
    noise: tuple[float, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    slope_x: tuple[float, ...]
    slope_y: tuple[float, ...]
    curve_xx: tuple[float, ...]
    curve_xy: tuple[float, ...]
    curve_yy: tuple[float, ...]
    weight: tuple[float, ...]
    nhot: int
    nrejlow: int
    nrejhigh: int
    footprint: float


@dataclass(frozen=True)
class Column:
    """A column of the FRAMES table.

    Attributes
    ----------
    name, unit, meaning : str
    field : str
        Attribute of `FrameRecord`.
    kind : str
        'text', a FITS type letter, or 'channels': a float64 for each channel.
    """

    name: str
    field: str
    kind: str
    unit: str
    meaning: str


COLUMNS = (
    Column("NAME", "name", "text", "", "input, % as in a URL"),
    Column("SHA256", "sha256", "text", "", "of the file"),
    Column("USED", "used", "L", "", "is part of the tile"),
    Column("REASON", "reason", "text", "", "why it was left out"),
    Column("RULE", "rule", "text", "", "rule of the user that it fails"),
    Column("DATE_OBS", "date", "text", "", "start of the exposure, UTC"),
    Column("EXPTIME", "exposure", "D", "s", "exposure"),
    Column("NSTARS", "nstars", "J", "", "stars detected"),
    Column("NMATCH", "nmatch", "J", "", "stars matched"),
    Column("RMS", "rms", "D", "pixel", "residual of the matched stars"),
    Column("MATRIX", "matrix", "6D", "", "frame to reference: a b tx c d ty"),
    Column("MODEL", "model", "text", "", "of the transform"),
    Column("BEND", "bend", "20D", "", "what it adds to MATRIX"),
    Column("FWHM", "fwhm", "D", "pixel", "of the stars"),
    Column("NOISE", "noise", "channels", "adu", "of the sky, before resampling"),
    Column("SCALE", "scale", "channels", "", "factor to the reference"),
    Column("OFFSET", "offset", "channels", "adu", "sky added after scaling"),
    Column("SLOPEX", "slope_x", "channels", "adu", "its change over half a frame in x"),
    Column("SLOPEY", "slope_y", "channels", "adu", "its change over half a frame in y"),
    Column("CURVEXX", "curve_xx", "channels", "adu", "its bend over half a frame in x"),
    Column("CURVEXY", "curve_xy", "channels", "adu", "its twist over half a frame"),
    Column("CURVEYY", "curve_yy", "channels", "adu", "its bend over half a frame in y"),
    Column("WEIGHT", "weight", "channels", "", "weight in the mean"),
    Column("NHOT", "nhot", "J", "", "hot or dead pixels of the sensor"),
    Column("NREJLOW", "nrejlow", "K", "", "samples rejected below"),
    Column("NREJHIGH", "nrejhigh", "K", "", "samples rejected above"),
    Column("FOOTPRINT", "footprint", "D", "", "fraction of the tile covered"),
)


# Shapes of the fields that are arrays.
_TYPES = {"L": np.bool_, "D": np.float64, "J": np.int32, "K": np.int64}
ARRAYS = {"matrix": (2, 3), "bend": (BEND,)}


def to_columns(records: Sequence[FrameRecord], channels: int) -> list[TableColumn]:
    """Return the FRAMES table's columns."""
    columns = []
    for column in COLUMNS:
        values: list[Any] = [getattr(record, column.field) for record in records]
        if column.kind == "text":
            texts = [_text(column.field, value).encode("ascii") for value in values] or [b""]
            array = np.array(texts)[: len(values)]
        elif column.kind == "channels":
            array = np.array(values, np.float64).reshape((-1, channels) if channels > 1 else -1)
        elif column.field in ARRAYS:
            array = np.array(values, np.float64).reshape(-1, math.prod(ARRAYS[column.field]))
        else:
            array = np.array(values, _TYPES[column.kind])
        columns.append(TableColumn(column.name, column.unit, array))
    return columns


def _text(field: str, value: Any) -> str:
    if field == "date":
        return iso(value) if value is not None else ""
    return file_text(value) if field == "name" else ascii_text(value)


def from_table(table: Any) -> tuple[FrameRecord, ...]:
    """Return the records of a FRAMES table.

    Raises
    ------
    KeyError, ValueError
        When it has other columns or contents.
    """
    kinds = {"L": bool, "D": float, "J": int, "K": int}
    records = []
    for row in table:
        values: dict[str, Any] = {}
        for column in COLUMNS:
            value = row[column.name]
            if column.kind in kinds:
                value = kinds[column.kind](value)
            elif column.kind == "channels":
                value = tuple(float(v) for v in np.atleast_1d(value))
            elif column.field in ARRAYS:
                value = np.array(value, np.float64).reshape(ARRAYS[column.field])
            else:
                value = str(value).rstrip()
            values[column.field] = value
        values["name"] = unquote(values["name"], errors="surrogateescape")
        date = values["date"]
        values["date"] = datetime.fromisoformat(date).replace(tzinfo=UTC) if date else None
        records.append(FrameRecord(**values))
    return tuple(records)
