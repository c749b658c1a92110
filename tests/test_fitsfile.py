"""HDUs as bytes are what astropy makes of the same values."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from astropy.io import fits

from zmtile.tiles.fitsfile import TableColumn, packed, write_packed, write_table

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


def test_a_table_is_written_without_loading_those_of_astropy():
    script = """
import io, sys
from zmtile.tiles.fitsfile import write_table
from zmtile.tiles.records import to_columns
import zmtile.pipeline
write_table(io.BytesIO(), to_columns((), 3), "FRAMES", "none")
assert "astropy.table" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)
