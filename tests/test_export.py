"""Planes of a tile as plain images: what is in them, what they are called, what is refused."""

import math

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner

from zmtile import Options, UsageError, build_tile, read_tile
from zmtile.cli import cli
from zmtile.errors import FrameError, TargetError
from zmtile.frames.frame import read_frame
from zmtile.tiles.export import PLANES, export_tile


@pytest.fixture(scope="module")
def path(group, tmp_path_factory):
    """A colour tile with all planes, of which pixels with fewer than 3 frames are no data."""
    file = tmp_path_factory.mktemp("export") / "master_tile_m94.fits"
    return build_tile(group, Options(framing="union", min_coverage=3)).write(file, planes=("mask", "weight"))


def test_each_channel_and_plane_is_one_plain_image(path, tmp_path):
    written = export_tile(path, tmp_path, planes=PLANES)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)
    assert {p.name for p in written} == {
        f"m94_{channel}{plane}.fits"
        for channel in "RGB"
        for plane in ("", *(f".{name}" for name in PLANES[1:]))
    }
    tile = read_tile(path)
    for file in written:
        with fits.open(file, checksum=True) as hdus:
            assert len(hdus) == 1
            part, _, plane = file.stem.partition(".")
            expected = getattr(tile, plane or "image")["RGB".index(part[-1])].astype(np.float32)
            if plane in ("weight", "coverage"):
                expected[np.isnan(tile.image["RGB".index(part[-1])])] = 0
            np.testing.assert_array_equal(hdus[0].data, expected)
            assert hdus[0].data.dtype == ">f4"
            assert hdus[0].header["EXTNAME"] == f"{plane or 'image'}_{part[-1]}".upper()


def test_a_weight_is_never_above_zero_where_the_image_has_no_data(path, tmp_path):
    image, weight, coverage = (
        fits.getdata(p)
        for p in export_tile(path, tmp_path, planes=["image", "weight", "coverage"], cube=True)
    )
    tile = read_tile(path)
    assert (tile.weight[np.isnan(tile.image)] > 0).any()  # pixels of one or two frames
    for plane in (weight, coverage):
        np.testing.assert_array_equal(plane > 0, np.isfinite(image))


def test_a_cube_keeps_the_three_channels_and_their_axis(path, tmp_path):
    (file,) = export_tile(path, tmp_path, cube=True)
    assert file.name == "m94.fits"
    np.testing.assert_array_equal(fits.getdata(file), read_tile(path).image)


def test_coordinates_are_those_of_the_tile_on_two_axes(group, tmp_path):
    tile = build_tile(group)
    tile.header.update(WCSAXES=3, CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CTYPE3="RGB", CRPIX1=9.0, CRPIX2=7.0)
    tile.header.update(CRPIX3=1.0, CRVAL1=190.0, CRVAL2=41.0, CRVAL3=1.0, CD3_3=1.0)
    tile.header.update(CD1_1=-1e-3, CD1_2=0.0, CD2_1=0.0, CD2_2=1e-3)
    path = tile.write(tmp_path / "master_tile_wcs.fits")
    header = fits.getheader(export_tile(path, tmp_path)[0])
    assert WCS(header).naxis == 2
    assert WCS(header).wcs.compare(WCS(fits.getheader(path)).celestial.wcs, tolerance=1e-12)
    assert [header[f"CD{i}_{j}"] for i in (1, 2) for j in (1, 2)] == [-1e-3, 0.0, 0.0, 1e-3]
    assert not any(key.endswith("3") and key.startswith(("C", "NAXIS")) for key in header)


def test_a_fill_stands_in_place_of_nan_and_is_told_of(path, tmp_path):
    image, uncert, weight = export_tile(
        path, tmp_path, planes=["image", "uncert", "weight"], fill=0, cube=True
    )
    for file in (image, uncert):
        assert np.isfinite(fits.getdata(file)).all()
        assert fits.getheader(file)["ZMT_FILL"] == 0.0
    nothing = np.isnan(read_tile(path).image)
    assert (fits.getdata(image)[nothing] == 0).all()
    assert "ZMT_FILL" not in fits.getheader(weight)


def test_a_mono_tile_needs_no_letters(path, tmp_path):
    tile = read_tile(path)
    grey = type(tile)(*(getattr(tile, n)[1] for n in ("image", "uncert", "weight")),
        *(getattr(tile, n)[1] for n in ("coverage", "rejlow", "rejhigh")), (), tile.header)  # fmt: skip
    mono = grey.write(tmp_path / "mono.fits", planes=("weight",))
    (tmp_path / "plain").mkdir()
    names = [p.name for p in export_tile(mono, tmp_path / "plain", planes=["image", "weight"])]
    assert names == ["mono.fits", "mono.weight.fits"]
    with pytest.raises(TargetError, match="the tile itself"):
        export_tile(mono, tmp_path, overwrite=True)


def test_an_exported_plane_is_neither_a_tile_nor_a_light_frame(path, tmp_path):
    file = export_tile(path, tmp_path, cube=True)[0]
    with pytest.raises(UsageError, match="not a tile"):
        read_tile(file)
    with pytest.raises(FrameError, match="not a light frame"):
        read_frame(file)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"planes": ["depth"]}, "no plane is called depth"),
        ({"planes": []}, "no plane is asked for"),
        ({"fill": math.nan}, "fill is nan"),
    ],
)
def test_what_cannot_be_exported_is_refused(path, tmp_path, choices, words):
    with pytest.raises(UsageError, match=words):
        export_tile(path, tmp_path, **choices)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_the_tile_has_not_is_not_invented(path, tmp_path):
    tile = read_tile(path).write(tmp_path / "master_tile_bare.fits")
    with pytest.raises(UsageError, match="no WEIGHT plane") as caught:
        export_tile(tile, tmp_path, planes=["weight"])
    assert "coverage" in caught.value.remedy


def test_if_one_file_exists_none_is_begun(path, tmp_path):
    (tmp_path / "m94_B.fits").write_bytes(b"precious")
    with pytest.raises(TargetError, match="--overwrite"):
        export_tile(path, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["m94_B.fits"]
    assert len(export_tile(path, tmp_path, overwrite=True)) == 3


def test_the_command_prints_what_it_wrote(path, tmp_path):
    words = ["export", str(path), "-o", str(tmp_path), "--planes", "image,weight", "--planes", "mask"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0
    assert sorted(result.stdout.split()) == sorted(str(p) for p in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 9
    again = CliRunner().invoke(cli, words)
    assert (again.exit_code, again.stdout) == (2, "")
