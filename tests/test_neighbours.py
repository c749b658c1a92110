"""Tiles in the hands of other programs: the real ones, on one small tile.

`make neighbours` installs the programs; a test whose program is not there is skipped. What each of them
can and cannot do with a tile is written down in docs/interop.md.
"""

import os
import re
import shutil
import subprocess
import warnings

import ccdproc
import numpy as np
import pytest
from astropy.io import ascii as catalogs
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS
from make_group import SCALE, GroupSpec, frame_header, truth_of, write_group
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from zmtile import Options, build_tile, read_tile
from zmtile.tiles.export import export_tile

# Names of the same programs outside of Debian.
ALSO = {"SWarp": "swarp", "source-extractor": "sex"}
SPEC = GroupSpec(frames=4, rows=240, cols=320, stars=100, dither=10.0, cosmic_rays=10, wcs=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A colour tile with all planes and corners without data; its reference, frame 0, has no rotation."""
    folder = tmp_path_factory.mktemp("neighbours")
    group = write_group(SPEC, folder / "group")
    tile = build_tile(group, Options(framing="union", reference=str(group[0])))
    assert 0.5 < np.isfinite(tile.image).mean() < 0.99
    return tile.write(folder / "master_tile_field.fits", planes=("mask", "weight"))


@pytest.fixture(scope="module")
def tile(path):
    return read_tile(path)


@pytest.fixture
def run(tmp_path):
    """Run a program in the test's folder, and return what it printed."""

    def running(program, *words):
        found = shutil.which(program) or shutil.which(ALSO.get(program, program))
        if found is None:
            pytest.skip(f"{program} is not installed; `make neighbours` installs it")
        # Siril keeps its settings in the user's home.
        env = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "LC_ALL": "C"}
        command = [found, *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return running


def reference_sky():
    """Coordinates of frame 0, from the truth."""
    header = frame_header(SPEC, truth_of(SPEC), 0)
    del header["DATE-OBS"]  # a date without its MJD twin is worth a warning to astropy
    return WCS(header)


def brightest(number):
    """Sky coordinates (number, 2) of the brightest stars well inside of the reference, from the truth."""
    truth = truth_of(SPEC)
    inside = np.hypot((truth.x - SPEC.cols / 2) / SPEC.cols, (truth.y - SPEC.rows / 2) / SPEC.rows) < 0.4
    best = np.argsort(-np.where(inside, truth.flux[0], 0))[:number]
    return reference_sky().all_pix2world(np.column_stack([truth.x[best], truth.y[best]]), 0)


def arcsec_to_nearest(found, stars):
    """Distance of each star to the nearest of those found, both RA and Dec in degrees."""
    flat = np.array([np.cos(np.radians(stars[:, 1].mean())), 1.0])
    return cKDTree(np.asarray(found) * flat).query(stars * flat)[0] * 3600


# The file itself


def test_fitsverify_finds_nothing_to_say(run, path, tmp_path):
    files = [path, *export_tile(path, tmp_path, planes=["image", "weight"])]
    for file in files:
        report = run("fitsverify", file)
        assert "**** Verification found 0 warning(s) and 0 error(s). ****" in report


def test_astropy_verifies_every_hdu_without_a_warning(path):
    with fits.open(path, checksum=True) as hdus:  # warnings are errors
        hdus.verify("exception")
        assert len(hdus) == 9
        assert WCS(hdus[0].header).has_celestial


def test_zemosaic_takes_the_file_as_one_of_its_master_tiles(path, tile):
    assert path.match("master_tile_*.fits")
    with fits.open(path) as hdus:
        header, image, alpha = hdus[0].header, hdus[0].data, hdus["ALPHA"].data
    # Planes first, float, ADU; it transposes them to (rows, cols, 3) itself.
    assert (image.shape[0], image.dtype) == (3, ">f4")
    assert (header["BITPIX"], header["NAXIS"], header["NAXIS3"]) == (-32, 3, 3)
    # A footprint of two axes, 255 inside, by the name that the header gives.
    assert header["ALPHAEXT"] == "ALPHA"
    assert (alpha.shape, alpha.dtype) == (image.shape[1:], np.uint8)
    np.testing.assert_array_equal(alpha == 255, np.isfinite(image).all(axis=0))
    assert set(np.unique(alpha)) == {0, 255}
    # Coordinates: it drops tiles of which one CDi_j is missing, and rotation 0 makes two of them 0.
    cards = [card.keyword for card in header.cards]
    matrix = [header[f"CD{i}_{j}"] for i in (1, 2) for j in (1, 2)]
    assert all(cards.count(f"CD{i}_{j}") == 1 for i in (1, 2) for j in (1, 2))
    assert matrix[1:3] == [0.0, 0.0]
    assert matrix == pytest.approx([-SCALE / 3600, 0.0, 0.0, SCALE / 3600])
    assert WCS(header).celestial.is_celestial
    assert WCS(header, naxis=2).is_celestial
    # What it reads of the stack: how much a tile weighs, and what was done.
    counts = ("ZMT_NRAW", "ZMT_NALGN", "MT_NFRAMES", "NEXP_SUM", "STACKCNT", "NCOMBINE")
    assert [header[key] for key in counts] == [SPEC.frames] * len(counts)
    assert {key for key in cards if str(header.cards[key]).startswith("HIERARCH")} == {
        "ZMT_NALGN",
        "MT_NFRAMES",
    }
    assert header["ZMT_TYPE"] == "Master Tile"
    assert re.fullmatch("[0-9a-f]{16}", header["ZMT_ID"])
    assert header["EXPTOTAL"] == SPEC.frames * header["EXPTIME"] == SPEC.frames * SPEC.exposure
    assert header["ZMT_REF"] == tile.frames[0].name
    assert (header["ZMT_REJ"], header["ZMT_NORM"], header["ZMT_WGHT"]) == ("winsor", "surface", "noise")
    assert header["ZMT_COMB"] == "mean"
    assert header["ZMT_PMSK"] is header["ZMT_NANS"] is True


# Python


def test_ccddata_finds_image_mask_uncertainty_unit_and_coordinates(path, tile):
    ccd = CCDData.read(path)
    np.testing.assert_array_equal(ccd.data, tile.image)
    np.testing.assert_array_equal(ccd.mask, np.isnan(tile.image))
    assert isinstance(ccd.uncertainty, StdDevUncertainty)
    np.testing.assert_array_equal(ccd.uncertainty.array, tile.uncert)
    assert ccd.unit == ccd.uncertainty.unit == "adu"
    ra, dec = ccd.wcs.celestial.all_pix2world([[9 - tile.header["ZMT_X0"], 7 - tile.header["ZMT_Y0"]]], 0)[0]
    there = reference_sky().all_pix2world([[9, 7]], 0)[0]
    assert (ra, dec) == pytest.approx(tuple(there), abs=1e-9)


def test_ccdproc_combines_tiles_by_their_weights_and_passes_over_no_data(path, tile):
    first, second = CCDData.read(path), CCDData.read(path)
    second.data += 100.0
    second.data[:, :40], second.mask[:, :40] = np.nan, True
    combiner = ccdproc.Combiner([first, second], dtype=np.float64)
    combiner.weights = np.stack([tile.weight, 3 * tile.weight * ~second.mask])
    with warnings.catch_warnings():  # numpy's, of pixels that no tile has
        warnings.filterwarnings("ignore", "Degrees of freedom", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value encountered in divide", RuntimeWarning)
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        both = combiner.average_combine()
    assert both.unit == "adu"
    np.testing.assert_array_equal(both.mask, np.isnan(tile.image))
    inside = ~both.mask
    shift = np.where(np.arange(tile.shape[1])[:, None] < 40, 0.0, 75.0) * np.ones(tile.shape)
    np.testing.assert_allclose((both.data - tile.image)[inside], shift[inside], atol=1e-3)


# Programs


def test_gnuastro_reads_every_plane_and_the_table(run, path, tile):
    listing = run("astfits", path)
    size = "x".join(map(str, tile.shape[::-1]))
    for name, kind in (
        ("COVERAGE", "uint16"),
        ("UNCERT", "float32"),
        ("REJHIGH", "uint16"),
        ("WEIGHT", "float32"),
    ):
        assert re.search(rf"^\d+ +{name} +{kind} +{size} ", listing, re.M), listing
    assert re.search(r"^0 +n/a +float32 .* adu", listing, re.M)
    for hdu, plane in (
        ("0", tile.image),
        ("COVERAGE", tile.coverage),
        ("MASK", tile.mask),
        ("UNCERT", tile.uncert),
    ):
        told = run("aststatistics", path, f"-h{hdu}", "--number", "--mean", "--maximum").split()
        expected = [np.isfinite(plane).sum(), np.nanmean(plane, dtype=np.float64), np.nanmax(plane)]
        assert [float(word) for word in told] == pytest.approx(expected, rel=1e-5)
    names = run("asttable", path, "-hFRAMES", "-cNAME,NMATCH").split()
    assert names == [word for frame in tile.frames for word in (frame.name, str(frame.nmatch))]


def test_swarp_adds_images_up_by_our_weights(run, path, tile, tmp_path):
    image, weight = export_tile(path, tmp_path, planes=["image", "weight"])[:2]
    assert (image.name, weight.name) == ("field_R.fits", "field_R.weight.fits")
    for file, change in ((image, lambda a: a + 100), (weight, lambda a: 3 * a)):
        with fits.open(file) as hdus:
            hdus[0].data = change(hdus[0].data)
            hdus.writeto(tmp_path / file.name.replace("field", "other"), checksum=True)
    # The weight maps are found by their names.
    words = "-WEIGHT_TYPE MAP_WEIGHT -SUBTRACT_BACK N -RESAMPLE N -COMBINE_TYPE WEIGHTED -WRITE_XML N"
    run("SWarp", image.name, "other_R.fits", *words.split())
    found, summed = fits.getdata(tmp_path / "coadd.fits"), fits.getdata(tmp_path / "coadd.weight.fits")
    data = np.isfinite(tile.image[0])
    np.testing.assert_array_equal(summed > 0, data)
    np.testing.assert_allclose(found[data], tile.image[0][data] + 75, rtol=1e-5)
    np.testing.assert_allclose(summed[data] / tile.weight[0][data], 4, rtol=1e-4)


def test_swarp_resamples_onto_the_sky_and_keeps_nan_out(run, path, tile, tmp_path):
    export_tile(path, tmp_path, planes=["image", "weight"])
    words = "-WEIGHT_TYPE MAP_WEIGHT -SUBTRACT_BACK N -WRITE_XML N -FSCALASTRO_TYPE NONE"
    run("SWarp", "field_G.fits", *words.split())
    found, weight = fits.getdata(tmp_path / "coadd.fits"), fits.getdata(tmp_path / "coadd.weight.fits")
    assert np.isfinite(found).all()
    inside = weight > 0
    assert inside.sum() == pytest.approx(
        np.isfinite(tile.image[1]).sum(), rel=0.06
    )  # its kernel takes a border
    assert np.median(found[inside]) == pytest.approx(np.nanmedian(tile.image[1]), rel=1e-3)
    star = brightest(1)
    with warnings.catch_warnings():  # SWarp writes MJD-OBS without DATE-OBS
        warnings.simplefilter("ignore")
        x, y = WCS(fits.getheader(tmp_path / "coadd.fits")).all_world2pix(star, 0)[0]
    near = found[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
    assert near.max() == near[2:5, 2:5].max() > np.median(found[inside]) + 1000


def test_source_extractor_finds_the_stars_and_nothing_where_the_weight_is_zero(run, path, tile, tmp_path):
    export_tile(path, tmp_path, planes=["image", "weight"])
    (tmp_path / "stars.param").write_text("ALPHA_J2000\nDELTA_J2000\nX_IMAGE\nY_IMAGE\nFLUX_AUTO\n")
    words = (
        "-PARAMETERS_NAME stars.param -FILTER N -DETECT_THRESH 5 -ANALYSIS_THRESH 5 -CATALOG_NAME stars.cat"
    )
    # By default it interpolates over as many as 16 pixels without data, and finds stars there.
    words += " -WEIGHT_TYPE MAP_WEIGHT -WEIGHT_IMAGE field_G.weight.fits -INTERP_TYPE NONE"
    run("source-extractor", "field_G.fits", *words.split())
    table = catalogs.read(tmp_path / "stars.cat", format="sextractor")
    sky = np.column_stack([table["ALPHA_J2000"], table["DELTA_J2000"]])
    away = arcsec_to_nearest(sky, brightest(20)) / SCALE
    assert np.median(away) < 0.15  # px
    assert away.max() < 0.5
    x, y = (np.rint(table[f"{axis}_IMAGE"]).astype(int) - 1 for axis in "XY")
    data = binary_dilation(np.isfinite(tile.image[1]), iterations=2)  # a star that the border cuts in half
    assert data[y, x].all()


def siril(run, folder, *lines):
    (folder / "script.ssf").write_text("\n".join(("requires 1.0.0", *lines, "")))
    return run("siril-cli", "-d", folder, "-s", folder / "script.ssf")


def test_siril_loads_and_saves_a_tile(run, path, tile, tmp_path):
    siril(run, tmp_path, f"load {path}", "save saved")
    with fits.open(next(tmp_path.glob("saved.fit*"))) as hdus:
        header, image = hdus[0].header, hdus[0].data
    # It works with 0 … 1, and keeps NaN.
    np.testing.assert_allclose(image * 65535, tile.image, rtol=1e-6)
    assert (header["STACKCNT"], header["LIVETIME"], header["EXPTIME"]) == (4, 40.0, 10.0)
    assert header["ROWORDER"] == tile.header["ROWORDER"]
    corners = [[0, 0], [300, 200]]
    there = WCS(tile.header).celestial.all_pix2world(corners, 0)
    with warnings.catch_warnings():  # it writes RADESYS nowhere
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(WCS(header, naxis=2).all_pix2world(corners, 0), there, atol=1e-7)


def test_siril_takes_zeros_of_an_export_for_no_data(run, path, tile, tmp_path):
    export_tile(path, tmp_path, cube=True, fill=0)
    told = siril(run, tmp_path, "load field", "stat")
    means = [float(m) for m in re.findall(r"(?:Red|Green|Blue) layer: Mean: ([\d.]+)", told)]
    assert means == pytest.approx(np.nanmean(tile.image, axis=(1, 2)), abs=0.1)
