"""HDUs as bytes are what astropy makes of the same values."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits

from zmtile.tiles.fitsfile import TableColumn, packed, write_float_image, write_packed, write_table
from zmtile.tiles.headertext import HeaderText

RNG = np.random.default_rng(3)
FORMS = {"text": "7A", "flag": "L", "count": "J", "sum": "K", "number": "D", "numbers": "3D"}


def columns(rows):
    values = {
        "text": np.array([b"a", b"", b"letters"] * rows)[:rows].astype("S7"),
        "flag": RNG.random(rows) < 0.5,
        "count": RNG.integers(-9, 9, rows).astype(np.int32),
        "sum": RNG.integers(-(2**60), 2**60, rows),
        "number": np.where(RNG.random(rows) < 0.5, np.nan, 1e-3),
        "numbers": RNG.normal(size=(rows, 3)),
    }
    return [TableColumn(name, "adu" if name == "number" else "", v) for name, v in values.items()]


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_a_table_is_that_of_astropy(rows):
    given = columns(rows)
    ours, theirs = io.BytesIO(), io.BytesIO()
    write_table(ours, given, "FRAMES", "one row for each input")
    header = fits.Header([("EXTNAME", "FRAMES", "one row for each input")])
    made = [fits.Column(c.name, FORMS[c.name], unit=c.unit or None, array=c.values) for c in given]
    write_packed(theirs, packed(fits.BinTableHDU.from_columns(made, header=header)))
    assert ours.getvalue() == theirs.getvalue()


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 2)])
@pytest.mark.parametrize("primary", [True, False])
def test_an_image_is_that_of_astropy(shape, primary):
    data = RNG.normal(size=shape).astype(np.float32)
    data[..., 0] = np.nan
    cards = [("BUNIT", "adu", "unit of the pixels"), ("PROGRAM", "zmtile")]
    ours = io.BytesIO()
    if not primary:
        write_float_image(ours, data, HeaderText(), None)
    begin = ours.tell()
    write_float_image(ours, data, HeaderText(cards), None)
    theirs = (fits.PrimaryHDU if primary else fits.ImageHDU)(data, fits.Header(cards))
    if primary:
        theirs.header.set("EXTEND", True, "extensions follow", after=f"NAXIS{data.ndim}")
    with fits.open(io.BytesIO(ours.getvalue()), checksum=True) as hdus:
        header = hdus[-1].header.copy()
        np.testing.assert_array_equal(hdus[-1].data, data)
    del header["CHECKSUM"], header["DATASUM"]
    assert header.tostring() == theirs.header.tostring()
    assert begin % 2880 == len(ours.getvalue()) % 2880 == 0


@pytest.mark.parametrize("primary", [True, False])
def test_what_a_header_says_of_another_array_is_left_out(primary):
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = {"BSCALE": 2, "BZERO": 5, "BLANK": 3, "GROUPS": True, "NAXIS3": 7, "PCOUNT": 9, "TFIELDS": 1}
    file = io.BytesIO()
    if not primary:
        write_float_image(file, data, HeaderText(), None)
    write_float_image(file, data, HeaderText([*others.items(), ("OBJECT", "M 94")]), None)
    with fits.open(io.BytesIO(file.getvalue()), checksum=True) as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(hdus[-1].data, data)
        assert hdus[-1].header["OBJECT"] == "M 94"
        assert not {"BSCALE", "BZERO", "BLANK", "GROUPS", "NAXIS3", "TFIELDS"} & set(hdus[-1].header)
