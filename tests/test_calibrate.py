"""Calibration: the arithmetic, what a master may be, and what is written down of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import oracle
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from make_group import GroupSpec, frame_header, render_frame, truth_of

from zmtile import Options, Resources, UsageError, build_tile
from zmtile.frames.frame import read_frame
from zmtile.frames.masters import read_masters
from zmtile.frames.pixels import open_pixels

ROWS, COLS = 14, 18
SPEC = GroupSpec(
    frames=4, rows=360, cols=480, stars=120, dither=12.0, trails=0.0, cosmic_rays=0, hot_pixels=0
)


def write(path, data, **cards):
    header = fits.Header({"EXPTIME": 10.0} | {k.replace("__", "-"): v for k, v in cards.items()})
    fits.PrimaryHDU(data, header).writeto(path)
    return path


def sensor(rows=ROWS, cols=COLS, seed=0):
    """Bias, dark and flat of a sensor; both hold their bias, the flat a coloured lamp and dead pixels."""
    rng = np.random.default_rng(seed)
    bias = 500 + rng.normal(0, 3, (rows, cols))
    dark = bias + rng.gamma(1.0, 20.0, (rows, cols))
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : cols * 1j]
    lamp = np.tile([[0.6, 1.0], [1.0, 0.3]], (rows // 2, cols // 2))
    response = (1 - 0.2 * (x**2 + y**2)) * rng.normal(1, 0.01, (rows, cols))
    response.flat[rng.choice(rows * cols, 5, replace=False)] = [0.0, 0.02, -0.1, 0.05, np.nan]
    return (plane.astype(np.float32) for plane in (bias, dark, bias + 20000 * lamp * response))


def calibration(folder, frame, **planes):
    """The masters as files, read for one frame."""
    options = Options(**{k: str(write(folder / f"{k}.fits", v)) for k, v in planes.items() if v is not None})
    return read_masters(options, [frame])


@pytest.mark.parametrize("cfa", ["RGGB", "GRBG", None])
@pytest.mark.parametrize("given_masters", ["bdf", "bd", "bf", "df", "d", "f", "b"])
def test_pixels_are_those_of_the_formula(tmp_path, cfa, given_masters):
    bias, dark, flat = (
        plane if letter in given_masters else None for plane, letter in zip(sensor(), "bdf", strict=True)
    )
    raw = np.random.default_rng(1).integers(800, 60000, (ROWS, COLS), np.uint16)
    scaled = bias is not None
    cards = {"BAYERPAT": cfa} if cfa else {}
    light = write(tmp_path / "light.fits", raw, **cards | {"EXPTIME": 25.0 if scaled else 10.0})
    frame = read_frame(light)
    used = calibration(tmp_path, frame, bias=bias, dark=dark, flat=flat)
    got = open_pixels(frame, used.correction(frame.exposure)).whole()[0]
    want = oracle.calibrated(raw, bias, dark, flat, 2.5 if scaled else 1.0, cfa or "GGGG")
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=0.02)
    if flat is not None and scaled:
        assert np.isnan(got).sum() == 5


@given(st.integers(-3, ROWS), st.integers(-3, COLS), st.integers(1, ROWS), st.integers(1, COLS))
@settings(max_examples=40, deadline=None)
def test_a_patch_is_a_part_of_the_whole(tmp_path_factory, row, col, rows, cols):
    folder = tmp_path_factory.mktemp("patch")
    bias, dark, flat = sensor()
    raw = np.random.default_rng(1).integers(800, 60000, (ROWS, COLS), np.uint16)
    frame = read_frame(write(folder / "light.fits", raw, BAYERPAT="RGGB"))
    used = calibration(folder, frame, bias=bias, dark=dark, flat=flat)
    bad = np.array([0, 3 * COLS + 5, 3 * COLS + 6, ROWS * COLS - 1])
    pixels = open_pixels(frame, used.correction(frame.exposure, bad))
    whole = np.full((ROWS + 2 * 20, COLS + 2 * 20), np.nan, np.float32)
    whole[20:-20, 20:-20] = pixels.whole()[0]
    assert np.isnan(pixels.whole()[0].flat[bad]).all()
    part = whole[20 + row : 20 + row + rows, 20 + col : 20 + col + cols]
    np.testing.assert_array_equal(pixels.patch(row, col, rows, cols)[0], part)


def test_the_colour_of_the_lamp_does_not_tint_the_lights(tmp_path):
    *_, flat = sensor(40, 60)
    frame = read_frame(write(tmp_path / "light.fits", np.full((40, 60), 1000, np.uint16), BAYERPAT="RGGB"))
    got = open_pixels(frame, calibration(tmp_path, frame, flat=flat).correction(10.0)).whole()[0]
    medians = [np.nanmedian(got[y::2, x::2]) for y in (0, 1) for x in (0, 1)]
    np.testing.assert_allclose(medians, 1000, rtol=0.01)


def test_colour_frames_take_colour_masters(tmp_path):
    rng = np.random.default_rng(2)
    raw, dark = rng.uniform(500, 900, (3, ROWS, COLS)), rng.uniform(0, 9, (3, ROWS, COLS))
    flat = rng.uniform(0.8, 1.2, (3, ROWS, COLS)) * np.array([5.0, 9.0, 2.0]).reshape(3, 1, 1)
    frame = read_frame(write(tmp_path / "light.fits", raw.astype(np.float32)))
    turned = np.moveaxis(dark, 0, -1).astype(np.float32)  # masters may be interleaved where frames are not
    used = calibration(tmp_path, frame, dark=turned, flat=flat.astype(np.float32))
    want = (raw - dark) / (flat / np.median(flat, axis=(1, 2), keepdims=True))
    got = open_pixels(frame, used.correction(10.0)).whole()
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("kind", ["float", "fz", "gz", "extension"])
def test_masters_are_read_as_frames_are(tmp_path, kind):
    plane = np.random.default_rng(3).integers(400, 700, (ROWS, COLS), np.uint16)
    frame = read_frame(write(tmp_path / "light.fits", plane + 1000))
    path = tmp_path / f"bias.fits{'.gz' if kind == 'gz' else '.fz' if kind == 'fz' else ''}"
    if kind == "fz":
        fits.CompImageHDU(plane).writeto(path)
    elif kind == "extension":
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(plane)]).writeto(path)
    else:
        write(path, plane.astype(np.float32) if kind == "float" else plane)
    used = read_masters(Options(bias=str(path)), [frame])
    np.testing.assert_array_equal(used.bias[0], plane)
    np.testing.assert_array_equal(open_pixels(frame, used.correction(10.0)).whole()[0], 1000)


def test_what_calstat_says_to_be_out_is_not_taken_out_again(tmp_path):
    bias, dark, flat = sensor()
    frame = read_frame(write(tmp_path / "light.fits", np.full((ROWS, COLS), 1000, np.uint16)))
    with_bias = calibration(tmp_path, frame, bias=bias, dark=dark, flat=flat)
    paths = {
        "bias": tmp_path / "bias.fits",
        "dark": write(tmp_path / "d.fits", dark - bias, CALSTAT="B"),
        "flat": write(tmp_path / "f.fits", flat - bias, CALSTAT="BD"),
    }
    without = read_masters(Options(**{k: str(v) for k, v in paths.items()}), [frame])
    np.testing.assert_array_equal(with_bias.dark, without.dark)
    np.testing.assert_array_equal(with_bias.flat, without.flat)


def sky_and_sensor(folder):
    """The same lights twice: as an ideal sensor would see them, and as a real one does, with its masters."""
    bias, dark, flat = sensor(SPEC.rows, SPEC.cols)
    lamp = (flat - bias) / 20000  # response and lamp; the lights see the response alone
    response = lamp / np.tile([[0.6, 1.0], [1.0, 0.3]], (SPEC.rows // 2, SPEC.cols // 2))
    truth = truth_of(SPEC)
    for name in ("ideal", "real"):
        (folder / name).mkdir()
    # A flat says nothing of its level: what it calls 1 is the median response of each colour.
    norm = np.empty_like(response)
    for y, x in np.ndindex(2, 2):
        own = "GRBG"[2 * y + x]
        sites = [np.s_[i::2, j::2] for i, j in np.ndindex(2, 2) if "GRBG"[2 * i + j] == own]
        norm[y::2, x::2] = np.nanmedian(np.concatenate([lamp[s].ravel() for s in sites]))
    usable = np.where(lamp >= 0.1 * norm, lamp / norm, np.nan)
    for k in range(SPEC.frames):
        light = render_frame(SPEC, truth, k).astype(np.float32)
        header = frame_header(SPEC, truth, k)
        ideal = np.where(np.isnan(usable), np.nan, light).astype(np.float32)
        seen = light * np.nan_to_num(usable) + bias + (dark - bias) * (SPEC.exposure / 30)
        for name, data in (("ideal", ideal), ("real", seen)):
            fits.PrimaryHDU(data.astype(np.float32), header).writeto(folder / name / f"{k}.fits")
    masters = {
        "bias": write(folder / "bias.fits", bias),
        "dark": write(folder / "dark.fits", dark, EXPTIME=30.0),
        "flat": write(folder / "flat.fits", flat),
    }
    return {kind: str(path) for kind, path in masters.items()}


def test_a_calibrated_group_makes_the_tile_of_an_ideal_sensor(tmp_path):
    masters = sky_and_sensor(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.fits")}
    ideal = build_tile([tmp_path / "ideal"], Options(reference="0.fits"))
    real = build_tile([tmp_path / "real"], Options(reference="0.fits", **masters))
    np.testing.assert_array_equal(real.coverage, ideal.coverage)
    assert (real.coverage[:, 60:-60, 60:-60] < SPEC.frames).any()  # the dead pixels
    difference = (real.image - ideal.image) / np.maximum(ideal.uncert, 1.0)
    assert np.nanpercentile(np.abs(difference), 99.9) < 0.05  # float32 of the calibration, no more
    again = build_tile([tmp_path / "real"], Options(reference="0.fits", **masters), Resources(3, 48 * 2**20))
    assert again.image.tobytes() == real.image.tobytes()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.fits")} == before


def test_the_tile_tells_its_masters_and_its_identity_follows_their_content(tmp_path, group):
    shape = read_frame(group[0]).stored_shape
    paths = []
    for name, level in (("a", 100), ("b", 100), ("c", 101)):
        (tmp_path / name).mkdir()
        paths.append(write(tmp_path / name / "dark.fits", np.full(shape, level, np.uint16)))
    headers = [build_tile(group, Options(dark=str(path))).header for path in paths]
    assert [h["ZMT_DARK"] for h in headers] == ["dark.fits"] * 3
    assert (headers[0]["ZMT_BIAS"], headers[0]["ZMT_DSCL"], "ZMT_BSHA" in headers[0]) == (
        "none",
        False,
        False,
    )
    assert headers[0]["ZMT_DSHA"] == headers[1]["ZMT_DSHA"] != headers[2]["ZMT_DSHA"]
    assert headers[0]["ZMT_ID"] == headers[1]["ZMT_ID"] != headers[2]["ZMT_ID"]


def test_masters_count_for_the_memory_limit(tmp_path, group):
    shape = read_frame(group[0]).stored_shape
    path = write(tmp_path / "bias.fits", np.full(shape, 100, np.uint16))
    build_tile(group, resources=Resources(1, 12 * 2**20))
    with pytest.raises(UsageError, match="--memory-limit"):
        build_tile(group, Options(bias=str(path)), Resources(1, 4 * 2**20))


def test_a_frame_of_another_exposure_takes_another_share_of_the_dark(tmp_path):
    bias, dark, _ = sensor()
    frame = read_frame(write(tmp_path / "light.fits", np.full((ROWS, COLS), 1000, np.uint16)))
    used = calibration(tmp_path, frame, bias=bias, dark=dark)
    assert [used.correction(t).dark_factor for t in (10.0, 20.0, 5.0)] == [1.0, 2.0, 0.5]
    assert replace(used, dark_exposure=None).correction(20.0).dark_factor == 1.0
