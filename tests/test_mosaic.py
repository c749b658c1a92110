"""The example that joins tiles: no edge of a tile can be seen, and without its match they could."""

from pathlib import Path

import mosaic
import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner
from make_group import GroupSpec, truth_of
from PIL import Image

from zmtile.errors import UsageError
from zmtile.looks.check import MAX_STEP
from zmtile.looks.skyimage import SkyImage
from zmtile.looks.steps import find_steps
from zmtile.tiles.tile import read_tile

SPEC = GroupSpec(frames=10, rows=240, cols=360, dither=12.0, seed=4)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    return mosaic.tiles_of_two_fields(tmp_path_factory.mktemp("mosaic"), SPEC)


@pytest.fixture(scope="module")
def joined(tiles):
    return mosaic.join(tiles)


def steps_at_edges(image, number):
    """Jumps, in sigma of a pixel, where one of the two tiles ends."""
    found = find_steps(SkyImage(Path("mosaic.fits"), image, number, fits.Header()))
    return {(s.side, s.plane): abs(s.jump) for s in found}


def test_no_edge_of_a_tile_can_be_seen(joined):
    image, _, number = joined
    steps = steps_at_edges(image, number)
    assert set(steps) == {(side, plane) for side in ("left", "right") for plane in ("L", "R-G", "B-G")}
    assert max(steps.values()) < MAX_STEP


def test_the_edges_of_tiles_that_are_added_up_as_they_are_can_be_seen(tiles):
    image, _, number = mosaic.join(tiles, plain=True)
    assert max(steps_at_edges(image, number).values()) > 2.0


def test_there_is_light_where_a_tile_has_some_and_nowhere_else(joined):
    image, _, number = joined
    np.testing.assert_array_equal(np.isnan(image), number == 0)
    assert set(np.unique(number)) == {0, 1, 2}
    assert 0.05 < (number == 2).mean() < 0.5


def test_the_factor_is_that_of_the_references_transparencies(tiles):
    first, second = (mosaic.piece_of(path) for path in tiles)
    goal = mosaic.coadd([first], second.wcs, second.image.shape[1:])
    names = [fits.getheader(path)["ZMT_REF"] for path in tiles]
    clear = [truth_of(SPEC).transparency[int(name[6:10]) - 1] for name in names]
    assert abs(clear[0] / clear[1] - 1) > 0.02  # else there is nothing to find
    before = second.weight.max(axis=(1, 2))
    after = mosaic.matched(second, goal).weight.max(axis=(1, 2))
    np.testing.assert_allclose(np.sqrt(before / after), clear[0] / clear[1], rtol=0.015)


def test_tiles_that_cannot_be_joined_are_refused(tiles, tmp_path):
    tile = read_tile(tiles[0])
    bare = tile.write(tmp_path / "bare.fits")
    with pytest.raises(UsageError, match="no WEIGHT plane"):
        mosaic.piece_of(bare)
    for key in [k for k in tile.header if k.startswith(("CTYPE", "CD", "CRPIX", "CRVAL"))]:
        del tile.header[key]
    lost = tile.write(tmp_path / "lost.fits", planes=("weight",))
    with pytest.raises(UsageError, match="no coordinates"):
        mosaic.piece_of(lost)
    result = CliRunner().invoke(mosaic.main, [str(tmp_path / "out"), str(tiles[0]), str(lost)])
    assert result.exit_code == 1
    assert "no coordinates" in result.output
    assert not (tmp_path / "out").exists()


def test_a_mosaic_that_is_there_is_kept(tmp_path):
    (tmp_path / "mosaic.png").write_text("mine")
    result = CliRunner().invoke(mosaic.main, [str(tmp_path)])
    assert result.exit_code == 1
    assert "mosaic.png exists; --overwrite replaces it" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["mosaic.png"]


def test_the_script_leaves_a_mosaic_with_coordinates_and_a_picture(tiles, joined, tmp_path):
    result = CliRunner().invoke(
        mosaic.main, [str(tmp_path / "out"), *map(str, tiles)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    image, header = fits.getdata(tmp_path / "out" / "mosaic.fits", header=True)
    np.testing.assert_array_equal(image, joined[0])
    assert header["CTYPE1"] == "RA---TAN"
    shown = np.asarray(Image.open(tmp_path / "out" / "mosaic.png"))
    np.testing.assert_array_equal(shown[::-1, :, 3] > 0, np.isfinite(image).all(axis=0))
