"""Reading: every form of FITS file that cameras and programs write, and what is wrong with broken ones."""

import contextlib
import errno
import gzip
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.errors import FrameError
from zmtile.frames.frame import CFA_PATTERNS, read_frame
from zmtile.frames.pixels import open_pixels

ROWS, COLS = 6, 10
GREY = np.arange(ROWS * COLS).reshape(ROWS, COLS) * 1000 + 7  # up to 59007: needs all of uint16
COLOUR = np.stack([GREY, GREY // 2, GREY // 3])


def write(path: Path, data, header=None, **keywords) -> Path:
    hdu = fits.PrimaryHDU(data, fits.Header(header or {}), **keywords)
    hdu.writeto(path)
    return path


def pixels(path: Path):
    return open_pixels(read_frame(path)).whole()


@pytest.mark.parametrize("dtype", ["u2", "u1", "i2", "i4", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("layout", ["mono", "planes", "interleaved", "one plane"])
def test_every_number_type_and_layout_gives_the_same_adu(tmp_path, dtype, layout):
    scene = COLOUR % 256 if dtype == "u1" else COLOUR - 30000 if dtype == "i2" else COLOUR
    data = {
        "mono": scene[0],
        "planes": scene,
        "interleaved": np.moveaxis(scene, 0, -1),
        "one plane": scene[:1],
    }
    frame = read_frame(write(tmp_path / "a.fits", data[layout].astype(dtype)))
    assert (frame.rows, frame.cols) == (ROWS, COLS)
    assert frame.layout == ("mono" if layout == "one plane" else layout)
    assert frame.channels == (1 if frame.layout == "mono" else 3)
    got = open_pixels(frame).whole()
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, scene if frame.channels == 3 else scene[:1])


def test_large_unsigned_numbers_keep_their_last_digits(tmp_path):
    data = np.full((ROWS, COLS), 16_777_215, np.uint32)  # the largest that float32 holds exactly
    assert np.all(pixels(write(tmp_path / "a.fits", data)) == 16_777_215)


@pytest.mark.parametrize("name", ["a.fits", "A.FIT", "a.Fts", "a.fits.gz", "A.FIT.GZ", "a.fits.fz", "a.fz"])
@pytest.mark.parametrize("hdu", [0, 1, 2])
def test_every_suffix_and_place_of_the_image(tmp_path, name, hdu):
    header = fits.Header({"EXPTIME": 20.0, "BAYERPAT": "GRBG"})
    image = GREY.astype(np.uint16)
    before = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1, 2])])]
    if name.lower().endswith(".fz"):
        hdus = [*before[: max(hdu, 1)], fits.CompImageHDU(image, header, compression_type="RICE_1")]
    elif hdu == 0:
        hdus = [fits.PrimaryHDU(image, header)]
    else:
        hdus = [*before[:hdu], fits.ImageHDU(image, header)]
    hdus.append(fits.ImageHDU(np.zeros((3, 3), np.uint8), name="THUMB"))
    plain = tmp_path / "plain.tmp"
    fits.HDUList(hdus).writeto(plain)
    path = tmp_path / name
    path.write_bytes(
        gzip.compress(plain.read_bytes()) if name.lower().endswith(".gz") else plain.read_bytes()
    )
    frame = read_frame(path)
    assert (frame.layout, frame.cfa, frame.exposure) == ("cfa", "GRBG", 20.0)
    np.testing.assert_array_equal(open_pixels(frame).whole()[0], image)


@pytest.mark.parametrize(("name", "packed"), [("a.fits", True), ("a.fits.gz", False), ("a.fits.fz", False)])
def test_the_content_decides_not_the_suffix(tmp_path, name, packed):
    path = write(tmp_path / "plain.fits", GREY.astype(np.uint16))
    content = path.read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(pixels(path)[0], GREY)


@pytest.mark.parametrize("method", ["RICE_1", "GZIP_1", "GZIP_2", "PLIO_1", "HCOMPRESS_1"])
def test_tile_compressed_integers_are_exact(tmp_path, method):
    image = (GREY % 30000).astype(np.int16)
    fits.CompImageHDU(image, compression_type=method).writeto(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(pixels(tmp_path / "a.fits.fz")[0], image)


def test_tile_compressed_floats_keep_nan(tmp_path):
    image = np.random.default_rng(0).normal(1000, 30, (64, 64)).astype(np.float32)
    image[3, 4] = np.nan
    fits.CompImageHDU(image, compression_type="RICE_1", quantize_level=64).writeto(tmp_path / "a.fits.fz")
    got = pixels(tmp_path / "a.fits.fz")[0]
    assert np.isnan(got[3, 4])
    assert np.isnan(got).sum() == 1
    np.testing.assert_allclose(got, image, atol=2)


def test_tile_compressed_colour(tmp_path):
    fits.CompImageHDU(COLOUR.astype(np.uint16)).writeto(tmp_path / "a.fits.fz")
    np.testing.assert_array_equal(pixels(tmp_path / "a.fits.fz"), COLOUR)


def test_blank_nan_and_infinity_are_no_data(tmp_path):
    floats = GREY.astype(np.float32)
    floats[0, :3] = np.nan, np.inf, -np.inf
    assert np.isnan(pixels(write(tmp_path / "f.fits", floats))[0]).sum() == 3
    stored = (GREY - 32768).astype(np.int16)
    stored[2, 3] = -5
    header = {"BLANK": -5, "BZERO": 32768, "BSCALE": 1}
    raw = fits.PrimaryHDU(stored, do_not_scale_image_data=True)
    raw.header.update(header)
    raw.writeto(tmp_path / "i.fits", output_verify="ignore")
    got = pixels(tmp_path / "i.fits")[0]
    assert np.isnan(got[2, 3])
    assert np.isnan(got).sum() == 1
    assert got[5, 9] == GREY[5, 9]


def test_blank_is_no_data_in_compressed_images_too(tmp_path):
    stored = (GREY - 32768).astype(np.int16)
    stored[2, 3] = -5
    hdu = fits.CompImageHDU(stored, fits.Header({"BLANK": -5}), compression_type="RICE_1")
    hdu.writeto(tmp_path / "a.fits.fz")
    got = pixels(tmp_path / "a.fits.fz")[0]
    assert np.isnan(got[2, 3])
    assert np.isnan(got).sum() == 1


def test_bscale_and_bzero_are_applied(tmp_path):
    for bitpix, dtype in ((16, ">i2"), (32, ">i4"), (-32, ">f4"), (-64, ">f8")):
        hdu = fits.PrimaryHDU((GREY % 1000).astype(dtype))
        hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 100.0
        path = tmp_path / f"{bitpix}.fits"
        hdu.writeto(path, output_verify="ignore")
        # astropy rescales what it writes; what counts is the file
        with fits.open(path) as hdus:
            np.testing.assert_allclose(pixels(path)[0], hdus[0].data, rtol=1e-6)


@pytest.mark.parametrize("pattern", CFA_PATTERNS)
@pytest.mark.parametrize("key", ["BAYERPAT", "COLORTYP"])
def test_the_pattern_is_that_of_the_first_stored_pixel(tmp_path, pattern, key):
    frame = read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), {key: f"{pattern.lower()} "}))
    assert (frame.layout, frame.cfa, frame.channels) == ("cfa", pattern, 3)


@pytest.mark.parametrize(
    ("cards", "cfa"),
    [
        ({"XBAYROFF": 1}, "GRBG"),
        ({"YBAYROFF": 1}, "GBRG"),
        ({"XBAYROFF": 1, "YBAYROFF": 1}, "BGGR"),
        ({"XBAYROFF": 2.0, "YBAYROFF": "0"}, "RGGB"),
        ({"ROWORDER": "TOP-DOWN"}, "RGGB"),
        ({"ROWORDER": "BOTTOM-UP"}, "GBRG"),  # the last row stored is the sensor's first; six rows
        ({"ROWORDER": "bottom-up", "YBAYROFF": 1}, "RGGB"),
        ({"ROWORDER": "BOTTOM-UP", "XBAYROFF": -1}, "BGGR"),
    ],
)
def test_offsets_and_row_order_move_the_pattern(tmp_path, cards, cfa):
    assert read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), {"BAYERPAT": "RGGB"} | cards)).cfa == cfa


def test_a_bottom_up_frame_with_an_odd_number_of_rows_starts_with_the_pattern_itself(tmp_path):
    header = {"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP"}
    assert read_frame(write(tmp_path / "a.fits", GREY[:5].astype("u2"), header)).cfa == "RGGB"


@pytest.mark.parametrize("pattern", ["", "NONE", "mono"])
def test_without_a_pattern_two_axes_are_mono(tmp_path, pattern):
    assert read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), {"BAYERPAT": pattern})).layout == "mono"


def test_a_pattern_in_a_colour_image_is_history(tmp_path):
    frame = read_frame(write(tmp_path / "a.fits", COLOUR.astype("f4"), {"BAYERPAT": "RGGB"}))
    assert (frame.layout, frame.cfa) == ("planes", "")


def test_an_unknown_pattern_is_refused(tmp_path):
    with pytest.raises(FrameError, match="XTRANS") as caught:
        read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), {"BAYERPAT": "XTRANS"}))
    assert "BAYERPAT" in caught.value.remedy


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        ({"DATE-OBS": "2024-07-30T22:44:36.5"}, datetime(2024, 7, 30, 22, 44, 36, 500000)),
        ({"DATE-OBS": "2024-07-30T22:44:36Z"}, datetime(2024, 7, 30, 22, 44, 36)),
        ({"DATE-OBS": "2024-07-31T00:44:36+02:00"}, datetime(2024, 7, 30, 22, 44, 36)),
        ({"DATE-OBS": "2024-07-30 22:44:36 UTC"}, datetime(2024, 7, 30, 22, 44, 36)),
        ({"DATE-OBS": "2024-07-30", "TIME-OBS": "22:44:36"}, datetime(2024, 7, 30, 22, 44, 36)),
        ({"DATE-OBS": "2024-07-30"}, datetime(2024, 7, 30)),
        ({"DATE-OBS": "30/07/99"}, datetime(1999, 7, 30)),
        ({"DATE-OBS": "2016-12-31T23:59:60"}, datetime(2017, 1, 1)),  # a leap second
        ({"DATE-BEG": "2024-07-30T22:44:36.1234567"}, datetime(2024, 7, 30, 22, 44, 36, 123456)),
        ({"DATE-OBS": "last night"}, None),
        ({"DATE-OBS": ""}, None),
        ({}, None),
    ],
)
def test_dates_in_the_forms_that_cameras_write(tmp_path, cards, expected):
    date = read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), cards)).date
    assert date == (None if expected is None else expected.replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("cards", "seconds"),
    [
        ({"EXPTIME": 10}, 10.0),
        ({"EXPOSURE": "2.5"}, 2.5),
        ({"EXPTIME": "", "EXPOSURE": 3}, 3.0),
        ({}, math.nan),
    ],
)
def test_exposure_times(tmp_path, cards, seconds):
    got = read_frame(write(tmp_path / "a.fits", GREY.astype("u2"), cards)).exposure
    assert got == seconds or (math.isnan(got) and math.isnan(seconds))


def raw_file(path: Path, cards: list[str | bytes], size: int = 2880) -> Path:
    """Write a header card by card, as no library would."""
    header = b"".join((c.encode("latin-1") if isinstance(c, str) else c).ljust(80) for c in [*cards, "END"])
    path.write_bytes(header.ljust(-(-len(header) // 2880) * 2880) + bytes(size))
    return path


BASIC = [
    "SIMPLE  =                    T",
    "BITPIX  =                   16",
    "NAXIS   =                    2",
    f"NAXIS1  = {COLS:20d}",
    f"NAXIS2  = {ROWS:20d}",
]


def test_odd_headers_are_understood(tmp_path):
    path = raw_file(
        tmp_path / "odd.fits",
        [
            *BASIC,
            "EXPTIME =                 10.0 / [s]",
            "EXPTIME =                 10.0 / again",
            "",
            "HIERARCH ESO DET CHIP1 GAIN = 1.2",
            "HIERARCH a long lower case key = 'yes'",
            "NOVALUE =",
            "CTYPE1  = 'RA---TAN'",
            "CTYPE2  = 'DEC--TAN'",
            "PC1_1   =             -0.00067",
            "CDELT1  =                  1.0",
            "BROKEN  = 'no closing quote",
            "lower   =                    3",
            "OBJECT  = 'Caf\xe9'",
            "COMMENT tab\there",
            "GAIN    = 1,5",
            "DATE-OBS= '2024-07-30T22:44:36+00:00'",
        ],
    )
    frame = read_frame(path)
    assert (frame.exposure, frame.has_wcs, frame.layout) == (10.0, True, "mono")
    assert frame.date == datetime(2024, 7, 30, 22, 44, 36, tzinfo=UTC)
    assert open_pixels(frame).whole().shape == (1, ROWS, COLS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not a FITS file\n" * 500, "not a FITS file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(5000), "not a FITS file"),
        (bytes(5760), "not a FITS file"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"BZh91AY&SY" + bytes(3000), "bzip2"),
        (gzip.compress(b"hello", mtime=0), "FITS"),
        (gzip.compress(bytes(range(256)) * 40, mtime=0)[:100], "truncated"),
    ],
)
def test_what_is_not_fits_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.fits"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=message) as caught:
        read_frame(path)
    assert str(path) in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({3: "NAXIS1  =              1000000", 4: "NAXIS2  =              1000000"}, "1,000,000,000,000"),
        ({3: "NAXIS1  =                    0"}, "no pixels"),
        ({3: "NAXIS1  =                   -5"}, "FITS|pixels"),
        ({2: "NAXIS   =                    0"}, "no image"),
        ({2: "NAXIS   =                    1"}, "neither mono"),
        ({1: "BITPIX  =                   12"}, "FITS|BITPIX"),
        ({3: "NAXIS1  =                  400"}, "truncated"),
        ({4: ""}, "FITS"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, changes, message):
    path = raw_file(tmp_path / "bad.fits", [changes.get(k, card) for k, card in enumerate(BASIC)])
    with pytest.raises(FrameError, match=message) as caught:
        open_pixels(read_frame(path))
    assert str(path) in caught.value.what
    assert caught.value.remedy


@pytest.mark.parametrize("suffix", ["", ".gz", ".fz"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path, suffix, part):
    image = np.random.default_rng(1).integers(0, 60000, (120, 160)).astype(np.uint16)
    whole = tmp_path / f"whole.fits{suffix}"
    if suffix == ".fz":
        fits.CompImageHDU(image).writeto(whole)
    else:
        fits.PrimaryHDU(image).writeto(whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut.fits{suffix}"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(FrameError) as caught:
        open_pixels(read_frame(path)).whole()
    assert str(path) in caught.value.what
    assert caught.value.remedy


def test_a_compressed_header_that_claims_too_much_is_refused(tmp_path):
    path = tmp_path / "a.fits.fz"
    fits.CompImageHDU(GREY.astype(np.uint16)).writeto(path)
    content = path.read_bytes()
    for key, value in ((b"ZNAXIS1 ", COLS), (b"ZNAXIS2 ", ROWS)):
        old = key + b"= %20d" % value
        assert old in content
        content = content.replace(old, key + b"= %20d" % 1_000_000)
    path.write_bytes(content)
    with pytest.raises(FrameError, match="1,000,000,000,000"):
        read_frame(path)


def test_bytes_after_the_image_are_ignored(tmp_path):
    path = write(tmp_path / "a.fits", GREY.astype("u2"))
    with open(path, "ab") as file:
        file.write(b"junk" * 1000)
    np.testing.assert_array_equal(pixels(path)[0], GREY)


def test_finished_tiles_and_tables_are_no_light_frames(tmp_path):
    with pytest.raises(FrameError, match="finished master tile"):
        read_frame(write(tmp_path / "tile.fits", GREY.astype("f4"), {"ZMT_TYPE": "Master Tile"}))
    table = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=[1])])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    with pytest.raises(FrameError, match="no image"):
        read_frame(tmp_path / "table.fits")


def test_a_file_that_shrinks_after_its_header_was_read_is_an_error_not_a_crash(tmp_path):
    path = write(tmp_path / "a.fits", GREY.astype("u2"))
    frame = read_frame(path)
    path.write_bytes(path.read_bytes()[:2900])
    with pytest.raises(FrameError, match="cannot be read"):
        open_pixels(frame)
    path.unlink()
    with pytest.raises(FrameError, match="cannot be read"):
        open_pixels(frame)


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_not_a_crash(tmp_path):
    path = write(tmp_path / "a.fits", GREY.astype("u2"))
    opened = open_pixels(read_frame(path))
    path.write_bytes(path.read_bytes()[:2900])
    with pytest.raises(FrameError, match=r"a\.fits: its pixels cannot be read .*shorter") as caught:
        opened.whole()
    assert caught.value.remedy


def test_a_file_is_closed_when_nobody_holds_its_pixels(tmp_path):
    frame = read_frame(write(tmp_path / "a.fits", GREY.astype("u2")))
    before = os.listdir("/proc/self/fd")
    opened = open_pixels(frame)
    part = opened.part(1, 2, 3, 4)
    assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    del opened
    assert os.listdir("/proc/self/fd") == before
    np.testing.assert_array_equal(part.patch(1, 2, 3, 4)[0], GREY[1:4, 2:6])


@pytest.mark.parametrize("cut", [1, 7, 10**6])
def test_a_system_that_reads_little_at_a_time_loses_nothing(tmp_path, monkeypatch, cut):
    path = write(tmp_path / "a.fits", COLOUR.astype("u2"))
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, rooms, at: read(file, [rooms[0][:cut]], at))
    np.testing.assert_array_equal(open_pixels(read_frame(path)).whole(), COLOUR)


def test_a_disk_that_fails_is_an_error_with_the_name_of_the_file(tmp_path, monkeypatch):
    opened = open_pixels(read_frame(write(tmp_path / "a.fits", GREY.astype("u2"))))

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(FrameError, match=r"a\.fits.*Input/output error"):
        opened.whole()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-4, ROWS + 2), st.integers(-4, COLS + 2), st.integers(1, 9), st.integers(1, 14), st.booleans()
)
def test_a_patch_is_the_rectangle_of_the_frame_and_nan_around_it(
    tmp_path_factory, row, col, rows, cols, interleaved
):
    path = tmp_path_factory.getbasetemp() / f"patch{interleaved}.fits"
    if not path.exists():
        write(path, (np.moveaxis(COLOUR, 0, -1) if interleaved else COLOUR).astype("u2"))
    opened = open_pixels(read_frame(path))
    assert opened.nbytes == 0  # they stay in the file
    around = np.pad(COLOUR.astype("f4"), ((0, 0), (4, 20), (4, 20)), constant_values=np.nan)
    want = around[:, row + 4 : row + 4 + rows, col + 4 : col + 4 + cols]
    np.testing.assert_array_equal(opened.patch(row, col, rows, cols), want)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_headers_give_a_frame_or_a_frame_error(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "undamaged.fits"
    if not whole.exists():
        header = {"BAYERPAT": "RGGB", "EXPTIME": 10.0, "DATE-OBS": "2024-07-30T22:44:36", "BLANK": -1}
        write(whole, GREY.astype("i2"), header)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 12 * 80))
        content[place] = data.draw(st.integers(0, 255))
    path = folder / "damaged.fits"
    path.write_bytes(content)
    with contextlib.suppress(FrameError):
        frame = read_frame(path)
        planes = frame.channels if frame.layout != "cfa" else 1
        assert open_pixels(frame).whole().shape == (planes, frame.rows, frame.cols)


def test_a_file_that_is_not_there_is_no_matter_of_its_mode(tmp_path):
    with pytest.raises(FrameError, match=r"nothere\.fits: no such file") as caught:
        read_frame(tmp_path / "nothere.fits")
    assert "spelling" in caught.value.remedy
