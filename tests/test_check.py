"""`zmtile check`: every question can be answered with no."""

import json

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from zmtile import Options, UsageError, build_tile
from zmtile.cli import cli
from zmtile.looks.check import check_image
from zmtile.looks.skyimage import read_image


@pytest.fixture(scope="module")
def tile(group, tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "master_tile.fits"
    build_tile(group, Options(framing="union")).write(path)
    return path


@pytest.fixture
def copy(tile, tmp_path):
    """A copy of the tile to spoil: open for update, checksums renewed."""

    def spoil(change):
        path = tmp_path / "spoilt.fits"
        with fits.open(tile) as hdus:
            change(hdus)
            hdus.writeto(path, checksum=True, overwrite=True)
        return path

    return spoil


def failed(path, **options):
    return {f.name for f in check_image(path, **options) if f.passed is False}


def zm(*words):
    return CliRunner().invoke(cli, ["check", *map(str, words)])


def test_a_tile_passes(tile):
    assert failed(tile) == set()
    assert {f.name for f in check_image(tile) if f.passed} >= {"checksums", "no data is NaN", "exposures"}


def flipped(tile, path, plane, at):
    """Write a copy of the tile with one bit changed."""
    data = bytearray(tile.read_bytes())
    with fits.open(tile) as hdus:
        data[hdus[plane].fileinfo()["datLoc"] + at] ^= 0x80
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("plane", ["PRIMARY", "COVERAGE", "UNCERT", "FRAMES"])
@pytest.mark.parametrize("at", [5, 1001])
def test_one_changed_bit_is_found_and_named(tile, tmp_path, plane, at):
    path = flipped(tile, tmp_path / "changed.fits", plane, at)
    result = zm(path, tile, "--json")
    assert result.exit_code == 1
    bad, good = json.loads(result.stdout)["tiles"]
    sums = bad["findings"][0]
    assert (sums["name"], sums["passed"]) == ("checksums", False)
    assert plane in sums["detail"]
    assert ("zmtile rebuild" in sums["detail"]) == (plane != "FRAMES")  # it reads the table
    assert [f["name"] for f in bad["findings"]] == [f["name"] for f in good["findings"]]
    assert all(f["passed"] is not False for f in good["findings"])


def test_a_file_that_cannot_be_read_keeps_none_from_being_judged(tile, tmp_path):
    (tmp_path / "cut.fits").write_bytes(tile.read_bytes()[:40000])
    result = zm(tmp_path / "cut.fits", tile)
    assert result.exit_code == 2
    assert "cut.fits" in result.stderr
    assert "Build it again from its frames" in result.stderr
    assert str(tile) in result.stdout
    found = json.loads(zm(tile, tmp_path / "cut.fits", "--json").stdout)
    assert found["passed"] is False
    assert [bool(t["error"]) for t in found["tiles"]] == [False, True]
    assert [bool(t["findings"]) for t in found["tiles"]] == [True, False]


def test_data_where_coverage_has_none_is_found(copy):
    def fill(hdus):
        hdus[0].data[np.isnan(hdus[0].data)] = 935.5

    assert failed(copy(fill)) >= {"no data is NaN", "no filler"}


def test_a_band_is_found_unless_it_is_allowed(copy):
    def band(hdus):
        low = hdus["COVERAGE"].data.min(axis=0) < 4
        hdus[0].data[0, low] += 150

    path = copy(band)
    assert failed(path) >= {"colour steps"}
    assert "colour steps" not in failed(path, max_step=1e6)


def test_sums_that_contradict_the_frames_are_found(copy):
    assert "exposures" in failed(copy(lambda hdus: hdus[0].header.set("LIVETIME", 1.0)))
    assert "exposures" in failed(copy(lambda hdus: hdus[0].header.set("NCOMBINE", 99)))


@pytest.mark.parametrize(
    ("cards", "passes"),
    [
        ({"CD1_1": -6e-4, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 6e-4}, True),
        ({"CD1_1": -6e-4, "CD1_2": 0.0, "CD2_1": 0.0}, False),
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, False),
    ],
)
def test_coordinates_must_be_whole(copy, cards, passes):
    plane = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 20.0, "CRPIX1": 1.0}

    def solve(hdus):
        hdus[0].header.update({**plane, "CRPIX2": 1.0, **cards})

    assert ("coordinates" not in failed(copy(solve))) == passes


def test_an_image_of_another_program_is_judged_by_what_it_has(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 10, (3, 300, 300)).astype(np.float32)
    fits.writeto(tmp_path / "clean.fits", image)
    assert failed(tmp_path / "clean.fits") == set()
    image[0, :, :20] = 1050.0
    fits.writeto(tmp_path / "filled.fits", image)
    assert failed(tmp_path / "filled.fits") == {"no filler", "luminance steps", "colour steps"}


def test_whole_numbers_are_no_filler(tmp_path):
    image = np.random.default_rng(0).normal(1000, 3, (300, 300)).round().astype(np.int16)
    fits.writeto(tmp_path / "steps.fits", image)
    assert "no filler" not in failed(tmp_path / "steps.fits")
    image[:, :60] = 1000
    fits.writeto(tmp_path / "filled.fits", image)
    assert "no filler" in failed(tmp_path / "filled.fits")


def test_exit_codes_and_json(tile, copy, tmp_path):
    bad = copy(lambda hdus: hdus[0].header.set("LIVETIME", 1.0))
    assert zm(tile).exit_code == 0
    result = zm(tile, bad, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert not report["passed"]
    assert [t["path"] for t in report["tiles"]] == [str(tile), str(bad)]
    findings = {f["name"]: f for f in report["tiles"][1]["findings"]}
    assert findings["exposures"]["passed"] is False
    quiet = zm(tile, bad, "--quiet").stdout
    assert "FAILED" in quiet
    assert str(tile) not in quiet.split()
    assert zm(tmp_path / "missing.fits").exit_code == 2
    assert zm(tile, "--max-step", "0").exit_code == 2


def test_a_limit_must_be_a_number_of_sigma(tile):
    with pytest.raises(UsageError, match="largest step"):
        check_image(tile, max_step=float("nan"))


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.6, 1.0])
def test_coarse_whole_numbers_are_no_filler_and_their_steps_are_found(tmp_path, sigma):
    image = np.random.default_rng(0).normal(100.3, sigma, (3, 300, 300))
    fits.writeto(tmp_path / "quiet.fits", image.round().astype(np.uint8))
    assert failed(tmp_path / "quiet.fits") == set()
    image[:, :, :20] += 4 * sigma
    fits.writeto(tmp_path / "band.fits", image.round().astype(np.uint8))
    assert "luminance steps" in failed(tmp_path / "band.fits")


def test_a_demosaiced_image_of_coarse_steps_has_no_filler(tmp_path):
    steps = np.random.default_rng(0).normal(60, 1.5, (301, 301)).round() * 16
    between = (steps[:-1, :-1] + steps[1:, :-1] + steps[:-1, 1:] + steps[1:, 1:]) / 4
    between[::2, ::2] = steps[:-1:2, :-1:2]  # a quarter is measured, the others are means
    fits.writeto(tmp_path / "image.fits", between.astype(np.uint16))
    assert "no filler" not in failed(tmp_path / "image.fits")


@pytest.mark.parametrize("shape", [(1, 300), (3, 1, 300), (3, 10, 10), (1, 1, 40, 50), (40, 50, 3)])
def test_small_and_odd_shapes_are_read_as_they_are(tmp_path, shape):
    image = np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)
    fits.writeto(tmp_path / "image.fits", image)
    assert failed(tmp_path / "image.fits") == set()
    channels, rows, cols = read_image(tmp_path / "image.fits").image.shape
    expected = {2: (1, *shape), 3: shape, 4: shape[1:]}[len(shape)]
    assert (channels, rows, cols) == ((3, 40, 50) if shape == (40, 50, 3) else expected)


def test_infinities_and_absurd_values_are_no_data(tmp_path):
    image = np.random.default_rng(0).normal(100, 5, (60, 60)).astype(np.float32)
    image[0, :3] = np.inf, -np.inf, 1e38
    fits.writeto(tmp_path / "image.fits", image)
    assert np.isnan(read_image(tmp_path / "image.fits").image).sum() == 3
    assert failed(tmp_path / "image.fits") == set()
