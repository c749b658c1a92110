from __future__ import annotations

import errno
import math
import os
import stat
import time
import weakref
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty

from zmtile.errors import Stopped, TargetError, UsageError
from zmtile.tiles.records import COLUMNS
from zmtile.tiles.tile import FrameRecord, Tile, check_target, read_tile

INTEGERS = ("coverage", "rejlow", "rejhigh")
FLOATS = ("image", "uncert", "weight")


def record(name="light_001.fits", channels=3, **more) -> FrameRecord:
    values = {
        "name": name, "sha256": "ab" * 32, "used": True, "reason": "", "rule": "",
        "date": datetime(2024, 3, 1, 21, 4, 5, 678000, tzinfo=UTC), "exposure": 10.0,
        "nstars": 312, "nmatch": 288,
        "rms": 0.0712345678901, "matrix": np.array([[1.0, -1e-5, 3.25], [1e-5, 1.0, -7.125]]), "fwhm": 2.7,
        "model": "poly3", "bend": np.linspace(-3.0, 5.0, 20),
        "noise": (11.1, 8.2, 12.3)[:channels], "scale": (1.0, 0.99, 1.01)[:channels],
        "offset": (0.1, -3.0, 4.4)[:channels],
        "slope_x": (1.5, 0.0, -2.0)[:channels], "slope_y": (0.25, 7.0, 1e-3)[:channels],
        "curve_xx": (0.5, 0.0, 3.0)[:channels], "curve_xy": (0.0, -1.0, 2.0)[:channels],
        "curve_yy": (4.0, 0.125, 0.0)[:channels],
        "weight": (0.3, 0.31, 0.29)[:channels],
        "nhot": 17, "nrejlow": 3, "nrejhigh": 5_000_000_000, "footprint": 0.875,
    }  # fmt: skip
    return FrameRecord(**(values | more))


def lost(name="cloud é%41.fits", channels=3) -> FrameRecord:
    none = (math.nan,) * channels
    return record(
        name, used=False, reason="no match: 3 of 12 stars", date=None, exposure=math.nan, rms=math.nan,
        matrix=np.full((2, 3), np.nan), noise=none, scale=none, offset=none,
        slope_x=none, slope_y=none, curve_xx=none, curve_xy=none, curve_yy=none, weight=none,
    )  # fmt: skip


def make_tile(channels=3, rows=90, cols=130, wcs=True) -> Tile:
    rng = np.random.default_rng(5)
    shape = (rows, cols) if channels == 1 else (channels, rows, cols)
    coverage = np.broadcast_to(np.minimum(np.arange(cols) // 4, 19), shape).astype(np.uint16)
    nothing = coverage == 0
    header = fits.Header()
    header["PROGRAM"] = "zmtile"
    header["ZMT_TYPE"] = "Master Tile"
    header["BUNIT"] = "adu"
    header["HIERARCH MT_NFRAMES"] = (1, "frames used")
    if wcs:
        for i, kind, value in ((1, "RA---TAN", 192.7), (2, "DEC--TAN", 41.1)):
            header[f"CTYPE{i}"], header[f"CUNIT{i}"] = kind, "deg"
            header[f"CRVAL{i}"], header[f"CRPIX{i}"] = value, 50.0
        header["CD1_1"], header["CD1_2"], header["CD2_1"], header["CD2_2"] = -0.0007, 0.0, 0.0, 0.0007
        if channels == 3:
            header["WCSAXES"], header["CTYPE3"], header["CRPIX3"] = 3, "RGB", 1.0
            header["CRVAL3"], header["CD3_3"] = 1.0, 1.0

    def floats():
        return np.where(nothing, np.nan, rng.normal(1000, 30, shape)).astype(np.float32)

    return Tile(
        image=floats(), uncert=floats(), weight=floats(), coverage=coverage,
        rejlow=rng.integers(0, 3, shape).astype(np.uint16),
        rejhigh=rng.integers(0, 60000, shape).astype(np.uint16),
        frames=(record(channels=channels), lost(channels=channels)), header=header,
    )  # fmt: skip


def assert_same(one: Tile, other: Tile) -> None:
    for name in FLOATS + INTEGERS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
        assert getattr(other, name).dtype == getattr(one, name).dtype
        assert getattr(other, name).dtype.isnative
    for a, b in zip(one.frames, other.frames, strict=True):
        for f in fields(FrameRecord):
            np.testing.assert_equal(getattr(b, f.name), getattr(a, f.name), f.name)
    assert set(one.header) == set(other.header)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", [None, 0.0, -1.5])
@pytest.mark.parametrize("planes", [("mask", "weight"), ("weight",)])
def test_what_is_written_is_read_again(tmp_path, channels, fill, planes):
    tile = make_tile(channels)
    assert_same(tile, read_tile(tile.write(tmp_path / "t.fits", fill=fill, planes=planes)))


def test_a_tile_read_and_written_again_has_the_same_bytes(tmp_path):
    tile = make_tile()
    first = tile.write(tmp_path / "a.fits", fill=0.0)
    second = read_tile(first).write(tmp_path / "b.fits", fill=0.0)
    assert first.read_bytes() == second.read_bytes()


def test_the_same_tile_gives_the_same_bytes_at_any_time(tmp_path):
    tile = make_tile()
    one = tile.write(tmp_path / "a.fits", planes=("mask", "weight")).read_bytes()
    time.sleep(1.1)  # astropy's own checksum comments are precise to a second
    assert tile.write(tmp_path / "b.fits", planes=("mask", "weight")).read_bytes() == one


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("workers", [1, 2])
def test_planes_that_nobody_needs_any_more_are_let_go(tmp_path, channels, workers):
    tile = make_tile(channels)
    kept = tile.write(tmp_path / "a.fits", planes=("mask", "weight"), workers=workers).read_bytes()
    assert tile.image.any()
    names = ("image", "uncert", "coverage", "rejlow", "rejhigh")
    planes = [weakref.ref(getattr(tile, name)) for name in names]
    last = tile.write(tmp_path / "b.fits", planes=("mask", "weight"), workers=workers, last=True)
    assert last.read_bytes() == kept
    assert [plane() for plane in planes] == [None] * len(names)
    assert not any(getattr(tile, name).any() for name in names)
    assert len(tile.frames) == len(read_tile(last).frames)
    assert tile.shape == read_tile(last).shape


@pytest.mark.parametrize("channels", [1, 3])
def test_file_is_valid_fits_with_checksums_in_every_hdu(tmp_path, channels):
    path = make_tile(channels).write(tmp_path / "t.fits", planes=("mask", "weight"), fill=0.0)
    assert path.stat().st_size % 2880 == 0
    for packed in (False, True):
        with fits.open(path, checksum=True, disable_image_compression=packed, lazy_load_hdus=False) as hdus:
            hdus.verify("exception")
            for hdu in hdus:
                assert hdu.data is not None
                if packed:
                    assert "CHECKSUM" in hdu.header
                    assert "DATASUM" in hdu.header
                    assert not any(str(y) in hdu.header.comments["CHECKSUM"] for y in range(2024, 2100))


def test_checksums_are_those_of_astropy(tmp_path):
    path = make_tile().write(tmp_path / "t.fits")
    with fits.open(path, disable_image_compression=True) as hdus:
        for hdu in hdus:
            ours = hdu.header["CHECKSUM"], hdu.header["DATASUM"]
            hdu.add_checksum(when="checksum of the HDU", override_datasum=True)
            assert (hdu.header["CHECKSUM"], hdu.header["DATASUM"]) == ours
            assert int(ours[1]) == hdu._calculate_datasum()


@pytest.mark.parametrize("channels", [1, 3])
def test_hdus_are_those_of_the_documentation(tmp_path, channels):
    tile = make_tile(channels)
    with fits.open(tile.write(tmp_path / "t.fits", planes=("mask", "weight"))) as hdus:
        assert [h.name for h in hdus] == [
            "PRIMARY", "COVERAGE", "UNCERT", "REJLOW", "REJHIGH", "ALPHA", "MASK", "WEIGHT", "FRAMES",
        ]  # fmt: skip
        for name in ("COVERAGE", "REJLOW", "REJHIGH", "ALPHA", "MASK"):
            assert isinstance(hdus[name], fits.CompImageHDU)
            assert hdus[name].compression_type == "RICE_1"
            assert hdus[name].data.dtype == (np.uint8 if name in ("ALPHA", "MASK") else np.uint16)
        assert hdus["UNCERT"].header["BUNIT"] == hdus[0].header["BUNIT"] == "adu"
        assert hdus["UNCERT"].header["UTYPE"] == "StdDevUncertainty"
        assert hdus["ALPHA"].data.shape == tile.shape[-2:]
        assert set(np.unique(hdus["ALPHA"].data)) == {0, 255}
        np.testing.assert_array_equal(hdus["MASK"].data, np.isnan(tile.image))
        table = hdus["FRAMES"]
        assert table.columns.names == [c.name for c in COLUMNS]
        assert table.columns["MATRIX"].format == "6D"
        assert table.columns["NOISE"].format == ("D" if channels == 1 else "3D")
        assert table.columns["FWHM"].unit == "pixel"
        for h in hdus[1:]:
            assert h.header.comments["EXTNAME"]


def test_extra_planes_are_there_on_demand_only(tmp_path):
    tile = make_tile(1)
    with fits.open(tile.write(tmp_path / "t.fits", planes=())) as hdus:
        assert "MASK" not in hdus
        assert "WEIGHT" not in hdus
    again = read_tile(tmp_path / "t.fits")
    assert np.isnan(again.weight).all()
    with pytest.raises(UsageError, match="no plane is called depth"):
        tile.write(tmp_path / "u.fits", planes=("depth",))
    assert [p.name for p in tmp_path.iterdir()] == ["t.fits"]


@pytest.mark.parametrize("channels", [1, 3])
def test_ccddata_finds_mask_uncertainty_unit_and_coordinates(tmp_path, channels):
    tile = make_tile(channels)
    ccd = CCDData.read(tile.write(tmp_path / "t.fits"))
    np.testing.assert_array_equal(ccd.data, tile.image)
    np.testing.assert_array_equal(ccd.mask, np.isnan(tile.image))
    assert isinstance(ccd.uncertainty, StdDevUncertainty)
    np.testing.assert_array_equal(ccd.uncertainty.array, tile.uncert)
    assert ccd.unit == "adu"
    ra, dec = ccd.wcs.celestial.wcs_pix2world(49, 49, 0)
    assert (float(ra), float(dec)) == pytest.approx((192.7, 41.1))


def test_fill_replaces_nan_in_the_file_only(tmp_path):
    tile = make_tile()
    tile.write(tmp_path / "t.fits", fill=7.5)
    with fits.open(tmp_path / "t.fits") as hdus:
        assert hdus[0].header["ZMT_FILL"] == 7.5
        assert np.isnan(hdus["UNCERT"].data[tile.mask > 0]).all()
        np.testing.assert_array_equal(hdus[0].data[tile.mask > 0], 7.5)
        np.testing.assert_array_equal(hdus[0].data[tile.mask == 0], tile.image[tile.mask == 0])
    assert np.isnan(tile.image[tile.mask > 0]).all()
    assert "ZMT_FILL" not in tile.header
    assert "ZMT_FILL" not in read_tile(tmp_path / "t.fits").header


def test_fill_is_undone_by_coverage_when_there_is_no_mask(tmp_path):
    tile = make_tile()
    tile.header["ZMT_MINC"] = 3
    tile.image[tile.coverage < 3] = np.nan
    again = read_tile(tile.write(tmp_path / "t.fits", fill=0.0, planes=()))
    np.testing.assert_array_equal(again.image, tile.image)


@pytest.mark.parametrize("fill", [math.nan, math.inf])
def test_a_fill_that_is_no_number_is_refused(tmp_path, fill):
    with pytest.raises(UsageError, match="fill is"):
        make_tile().write(tmp_path / "t.fits", fill=fill)


def test_alpha_is_inside_only_where_all_channels_have_data():
    tile = make_tile()
    tile.image[1, 50, 60] = np.nan
    assert tile.alpha[50, 60] == 0
    assert tile.alpha[50, 61] == 255
    assert tile.mask[:, 50, 60].tolist() == [0, 1, 0]
    assert (tile.channels, tile.shape) == (3, (3, 90, 130))


def test_a_tile_without_a_header_is_refused():
    plane, counts = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.uint16)
    with pytest.raises(TypeError, match="header"):
        Tile(plane, plane, plane, counts, counts, counts, ())


def test_planes_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        replace(make_tile(1), uncert=make_tile(1).uncert[:-1])


def test_strange_names_keep_their_identity(tmp_path):
    names = ["γ Cas/été 1.fits", "a%20b.fits", "a b.fits", "bad\udcff.fits", "'quoted' it's.fits"]
    tile = make_tile(1)
    tile = Tile(
        *(getattr(tile, n) for n in (*FLOATS, *INTEGERS)), tuple(record(n, 1) for n in names), tile.header
    )
    again = read_tile(tile.write(tmp_path / "t.fits"))
    assert [f.name for f in again.frames] == names


def test_a_tile_without_frames_is_written_too(tmp_path):
    tile = replace(make_tile(3), frames=())
    assert read_tile(tile.write(tmp_path / "t.fits")).frames == ()


# Where it goes


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_existing_file_is_kept_unless_overwrite_is_given(tmp_path):
    path = tmp_path / "t.fits"
    path.write_bytes(b"precious")
    for attempt in (make_tile().write, lambda p: check_target(p, overwrite=False)):
        with pytest.raises(TargetError, match="--overwrite"):
            attempt(path)
    assert path.read_bytes() == b"precious"
    make_tile().write(path, overwrite=True)
    assert read_tile(path).channels == 3
    assert listing(tmp_path) == ["t.fits"]


def test_a_file_that_appears_meanwhile_is_not_harmed(tmp_path, monkeypatch):
    path, fsync = tmp_path / "t.fits", os.fsync

    def appear(descriptor):
        fsync(descriptor)
        path.write_bytes(b"other")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(TargetError, match="--overwrite"):
        make_tile().write(path)
    assert path.read_bytes() == b"other"
    assert listing(tmp_path) == ["t.fits"]


def refuse(code):
    def raising(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return raising


@pytest.mark.parametrize("there", [False, True])
def test_file_systems_without_links_will_do(tmp_path, monkeypatch, there):
    monkeypatch.setattr(os, "link", refuse(errno.EOPNOTSUPP))
    path = tmp_path / "t.fits"
    if there:
        monkeypatch.setattr(
            "zmtile.tiles.target._resolved", lambda p, _: Path(p)
        )  # it appears after the first look
        path.write_bytes(b"other")
        with pytest.raises(TargetError, match="--overwrite"):
            make_tile().write(path)
        assert path.read_bytes() == b"other"
    else:
        assert read_tile(make_tile().write(path)).channels == 3
    assert listing(tmp_path) == ["t.fits"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(15), MemoryError(), RuntimeError("?")])
@pytest.mark.parametrize("moment", ["compressed", "write_packed", "write_table"])
def test_nothing_is_left_behind_however_the_run_ends(tmp_path, monkeypatch, stop, moment):
    def fail(*_):
        assert listing(tmp_path)[0].startswith(f".t.fits.{os.getpid()}.")
        raise stop

    path = tmp_path / "t.fits"
    path.write_bytes(b"precious")
    monkeypatch.setattr(f"zmtile.tiles.tile.{moment}", fail)
    with pytest.raises(type(stop)):
        make_tile().write(path, overwrite=True)
    assert listing(tmp_path) == ["t.fits"]
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EFBIG, "larger than allowed"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_troubles_of_the_disk_name_the_file_and_a_remedy(tmp_path, monkeypatch, code, words):
    monkeypatch.setattr(os, "fsync", refuse(code))
    with pytest.raises(TargetError, match=words) as caught:
        make_tile().write(tmp_path / "t.fits")
    assert str(tmp_path / "t.fits") in caught.value.what
    assert caught.value.remedy
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/t.fits", "no folder"),
        ("file/t.fits", "no folder"),
        ("", "is a folder"),
        ("n" * 300 + ".fits", "too long"),
        ("pipe", "no regular file"),
    ],
)
def test_impossible_targets_are_refused_before_any_work(tmp_path, name, words):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = listing(tmp_path)
    with pytest.raises(TargetError, match=words):
        check_target(tmp_path / name, overwrite=True)
    with pytest.raises(TargetError, match=words):
        make_tile().write(tmp_path / name, overwrite=True)
    assert listing(tmp_path) == before


def test_check_really_tries_to_write(tmp_path, monkeypatch):
    check_target(tmp_path / "t.fits", overwrite=False)
    assert listing(tmp_path) == []
    monkeypatch.setattr(os, "open", refuse(errno.EACCES))
    with pytest.raises(TargetError, match="no permission"):
        check_target(tmp_path / "t.fits", overwrite=False)


def test_long_names_that_the_file_system_allows_are_written(tmp_path):
    path = tmp_path / ("é" * 120 + ".fits")
    assert read_tile(make_tile(1).write(path)).channels == 1


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_mode_follows_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = make_tile(1).write(tmp_path / "t.fits")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "t.fits").write_bytes(b"old")
    link = tmp_path / "link.fits"
    link.symlink_to("real/t.fits")
    make_tile(1).write(link, overwrite=True)
    assert link.is_symlink()
    assert read_tile(tmp_path / "real" / "t.fits").channels == 1


# What cannot be read


def test_damage_is_told(tmp_path):
    content = make_tile().write(tmp_path / "t.fits").read_bytes()
    bad = tmp_path / "bad.fits"
    flipped = bytearray(content)
    flipped[9000] ^= 1
    for damaged in (bytes(flipped), content[: len(content) // 2], content[:-2880], content[:100], b""):
        bad.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"bad\.fits") as caught:
            read_tile(bad)
        assert caught.value.remedy


def test_header_cards_that_other_programs_add_are_no_damage(tmp_path):
    path = make_tile(1).write(tmp_path / "t.fits")
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["PLTSOLVD"] = True
    assert read_tile(path).header["PLTSOLVD"]


def test_other_files_are_no_tiles(tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4), np.float32)).writeto(tmp_path / "light.fits")
    (tmp_path / "notes.txt").write_text("hello")
    for name, words in (
        ("light.fits", "not a tile"),
        ("notes.txt", "not a tile"),
        ("absent.fits", "no such file"),
        ("", "is a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            read_tile(tmp_path / name)
