"""Integer planes are compressed to the bytes that astropy makes of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from astropy.io import fits

from zmtile.tiles import rice
from zmtile.tiles.fitsfile import packed, write_float_image, write_packed
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.rice import compressed

RNG = np.random.default_rng(7)
PLANES = {
    "counts": RNG.poisson(9, (130, 77)).astype(np.uint16),
    "colours": RNG.poisson(0.01, (3, 150, 64)).astype(np.uint16),
    "few rows": RNG.poisson(2, (30, 40)).astype(np.uint16),
    "one pixel": np.array([[65535]], np.uint16),
    "any number": RNG.integers(0, 2**16, (65, 33)).astype(np.uint16),
    "one number but for a corner": np.pad(np.full((2, 2), 3, np.uint16), (0, 99), constant_values=20),
    "bytes": RNG.integers(0, 256, (70, 20)).astype(np.uint8),
    "flags": np.full((3, 200, 10), 255, np.uint8),
    "a view of one number": np.broadcast_to(np.uint16(5), (3, 70, 9)),
}


def by_astropy(plane):
    tile = (1,) * (plane.ndim - 2) + (min(64, plane.shape[-2]), plane.shape[-1])
    header = fits.Header([("EXTNAME", "COVERAGE")])
    return packed(fits.CompImageHDU(plane, header, compression_type="RICE_1", tile_shape=tile))


@pytest.mark.parametrize("coder", ["astropy's own", "none that is known"])
@pytest.mark.parametrize("kind", PLANES)
def test_the_bytes_are_those_of_astropy(kind, coder, monkeypatch):
    if coder == "none that is known":
        monkeypatch.setattr(rice, "_coder", lambda: None)
    else:
        assert rice._coder() is not None
    ours, theirs = compressed(PLANES[kind], "COVERAGE"), by_astropy(PLANES[kind])
    assert ours.header.text == theirs.header.text
    assert bytes(ours.data).ljust(len(theirs.data), b"\0") == bytes(theirs.data)


@pytest.mark.parametrize("kind", PLANES)
def test_places_in_64_bits_lead_to_the_same_pixels(kind, monkeypatch):
    monkeypatch.setattr(rice, "_LARGE", 1)
    made = compressed(PLANES[kind], "COVERAGE")
    assert made.header["TFORM1"].startswith("1QB")
    file = io.BytesIO()
    write_float_image(file, np.zeros((2, 2), np.float32), HeaderText(), None)
    write_packed(file, made)
    with fits.open(io.BytesIO(file.getvalue()), checksum=True) as hdus:
        np.testing.assert_array_equal(hdus["COVERAGE"].data, PLANES[kind])
