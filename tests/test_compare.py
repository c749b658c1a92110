"""Planes are compared bit for bit."""

import numpy as np
import pytest

from zmtile.tiles.compare import PlaneComparison, compare_planes
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.keywords import set_card
from zmtile.tiles.tile import Tile

NAMES = ["PRIMARY", "COVERAGE", "UNCERT", "REJLOW", "REJHIGH", "ALPHA", "MASK"]


def tile(shape=(8, 9)) -> Tile:
    header = HeaderText()
    set_card(header, "PROGRAM", "zmtile")
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image[..., 0] = np.nan
    counts = np.full(shape, 3, np.uint16)
    return Tile(image, image / 9, image / 7, counts, counts - 2, counts - 3, (), header.for_reading)


@pytest.mark.parametrize("shape", [(8, 9), (3, 8, 9)])
@pytest.mark.parametrize("fill", [None, 0.0])
def test_a_tile_is_the_one_that_was_written(tmp_path, shape, fill):
    tile(shape).write(tmp_path / "t.fits", fill=fill, planes=("mask", "weight"))
    compared = compare_planes(tile(shape), tmp_path / "t.fits")
    assert [c.name for c in compared] == [*NAMES, "WEIGHT"]
    assert all(c == PlaneComparison(c.name, c.pixels) for c in compared)


def test_no_data_is_no_data_whatever_its_bits(tmp_path):
    other = tile()
    other.image.view(np.uint32)[:, 0] = 0x7FC12345
    assert np.isnan(other.image[:, 0]).all()
    other.write(tmp_path / "t.fits")
    assert not any(c.differing for c in compare_planes(tile(), tmp_path / "t.fits"))


def test_every_kind_of_difference_is_counted(tmp_path):
    other = tile()
    other.image[1, 1] = np.nan
    other.image[2, 0] = 5.0
    other.image[3, 3] = np.nextafter(other.image[3, 3], np.float32(0))
    other.uncert[4, 4] += 0.25
    other.rejhigh[:] = 0
    other.rejhigh[0, 0] = 7
    other.weight[0, 1] = -0.0  # is not 0.0
    other.write(tmp_path / "t.fits", planes=("mask", "weight"))
    ours = tile()
    ours.weight[0, 1] = 0.0
    compared = {c.name: c for c in compare_planes(ours, tmp_path / "t.fits")}
    image = compared["PRIMARY"]
    assert (image.differing, image.gained, image.lost) == (3, 1, 1)
    assert image.largest == pytest.approx(float(np.spacing(np.float32(30))), rel=1)
    assert (compared["UNCERT"].differing, compared["UNCERT"].largest) == (1, pytest.approx(0.25))
    assert (compared["REJHIGH"].differing, compared["REJHIGH"].largest) == (1, 7.0)
    assert (compared["WEIGHT"].differing, compared["WEIGHT"].largest) == (1, 0.0)
    assert compared["ALPHA"].differing == compared["MASK"].differing == 2
    assert compared["COVERAGE"].differing == 0


def test_planes_of_another_shape_differ_everywhere(tmp_path):
    tile((8, 10)).write(tmp_path / "t.fits")
    compared = compare_planes(tile(), tmp_path / "t.fits")
    assert all((c.differing, c.pixels, c.shape) == (80, 80, (8, 10)) for c in compared)
