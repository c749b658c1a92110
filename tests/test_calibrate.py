"""Calibration: the arithmetic, what a master may be, and what is written down of it."""

from __future__ import annotations

import math
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
from zmtile.pipeline import plan_tile

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
    plain, with_bias = (plan_tile(group, o) for o in (Options(), Options(bias=str(path))))
    assert with_bias.planned_memory - plain.planned_memory == 4 * math.prod(shape)
    limit = Resources(memory_limit=(plain.planned_memory + with_bias.planned_memory) // 2)
    plan_tile(group, Options(), limit)
    with pytest.raises(UsageError, match="--memory-limit"):
        plan_tile(group, Options(bias=str(path)), limit)


def test_a_frame_of_another_exposure_takes_another_share_of_the_dark(tmp_path):
    bias, dark, _ = sensor()
    frame = read_frame(write(tmp_path / "light.fits", np.full((ROWS, COLS), 1000, np.uint16)))
    used = calibration(tmp_path, frame, bias=bias, dark=dark)
    assert [used.correction(t).dark_factor for t in (10.0, 20.0, 5.0)] == [1.0, 2.0, 0.5]
    assert replace(used, dark_exposure=None).correction(20.0).dark_factor == 1.0


# What frames and masters have behind them. Levels: bias 500, dark 30 in 10 s, light 200.


def flat_level(folder, name, level, dtype=np.uint16, **cards):
    """A file whose pixels are all one level."""
    return write(folder / f"{name}.fits", np.full((ROWS, COLS), level, dtype), **cards)


def calibrated(folder, light, **masters):
    """The level of a light under masters, each of them a level and its cards."""
    level, cards = light
    frame = read_frame(flat_level(folder, "light", level, **cards))
    paths = {kind: str(flat_level(folder, kind, value, **own)) for kind, (value, own) in masters.items()}
    used = read_masters(Options(**paths), [frame])
    pixels = open_pixels(frame, used.correction(frame.exposure)).whole()
    assert np.ptp(pixels) == 0
    return pixels[0, 0, 0]


@pytest.mark.parametrize(
    ("light", "masters", "level"),
    [
        ((700, {}), {"bias": (500, {}), "dark": (530, {})}, 170),
        ((200, {"CALSTAT": "B"}), {"bias": (500, {}), "dark": (530, {})}, 170),
        ((200, {"CALSTAT": "B"}), {"dark": (30, {"CALSTAT": "B"})}, 170),
        ((230, {"CALSTAT": "B", "EXPTIME": 20.0}), {"dark": (30, {"CALSTAT": "B"})}, 170),
        ((230, {"CALSTAT": "B", "EXPTIME": 20.0}), {"bias": (500, {}), "dark": (530, {})}, 170),
        ((730, {"EXPTIME": 20.0}), {"dark": (30, {"CALSTAT": "B"})}, 670),
        ((170, {"CALSTAT": "BD"}), {"bias": (500, {}), "flat": (20500, {})}, 170),
        ((170, {"CALSTAT": "D"}), {"flat": (20000, {"CALSTAT": "D"})}, 170),
    ],
)
def test_the_bias_is_taken_out_once(tmp_path, light, masters, level):
    assert calibrated(tmp_path, light, **masters) == level


@pytest.mark.parametrize(
    ("state", "masters", "reason", "remedy"),
    [
        ("B", {"dark": (530, {})}, "holds its bias", "Give --bias"),
        ("B", {"dark": (530, {"EXPTIME": 20.0})}, "holds its bias", "Give --bias"),
        ("B", {"bias": (500, {})}, "bias is out already", "Leave --bias out"),
        ("BD", {"dark": (530, {}), "bias": (500, {})}, "dark-subtracted", "Leave --dark out"),
        ("BF", {"dark": (30, {"CALSTAT": "B"})}, "flat-fielded", "Leave --dark out"),
        ("F", {"flat": (20000, {})}, "flat-fielded", "Leave --flat out"),
        ("", {"bias": (500, {}), "dark": (300, {})}, "below the bias", "CALSTAT = 'B'"),
        ("", {"bias": (500, {}), "dark": (470, {})}, "below the bias", "CALSTAT = 'B'"),
    ],
)
def test_masters_that_do_not_fit_the_state_of_the_frames_are_refused(
    tmp_path, state, masters, reason, remedy
):
    with pytest.raises(UsageError, match=reason) as caught:
        calibrated(tmp_path, (800, {"CALSTAT": state}), **masters)
    assert remedy in caught.value.remedy


def test_a_dark_may_lie_a_little_below_the_bias(tmp_path):
    assert calibrated(tmp_path, (800, {}), bias=(500, {}), dark=(495, {})) == 305


def test_frames_in_two_states_take_no_master(tmp_path):
    frames = [
        read_frame(flat_level(tmp_path, str(k), 800, CALSTAT=state)) for k, state in enumerate(["", "B"])
    ]
    bias = flat_level(tmp_path, "bias", 500)
    for order in (frames, frames[::-1]):
        with pytest.raises(UsageError, match=r"1\.fits: its bias is out already.*0\.fits holds it"):
            read_masters(Options(bias=str(bias)), order)


@pytest.mark.parametrize(
    ("light", "master", "message"),
    [
        (np.float32(0.02), np.uint16(500), "the master {} is in ADU"),
        (np.float32(1800), np.float32(0.01), "the values of the master {} lie between 0 and 1"),
        (np.uint16(1800), np.float32(0.01), "the values of the master {} lie between 0 and 1"),
    ],
)
@pytest.mark.parametrize("kind", ["bias", "dark"])
def test_units_do_not_mix(tmp_path, kind, light, master, message):
    frame = read_frame(flat_level(tmp_path, "light", light, light.dtype))
    path = flat_level(tmp_path, "master", master, master.dtype)
    with pytest.raises(UsageError, match=message.format(kind)):
        read_masters(Options(**{kind: str(path)}), [frame])


@pytest.mark.parametrize(("light", "master", "level"), [(0.5, 0.25, 0.25), (1800.0, 500.0, 1300.0)])
def test_one_unit_is_as_good_as_another(tmp_path, light, master, level):
    frame = read_frame(flat_level(tmp_path, "light", light, np.float32))
    path = flat_level(tmp_path, "bias", master, np.float32)
    used = read_masters(Options(bias=str(path)), [frame])
    np.testing.assert_array_equal(open_pixels(frame, used.correction(10.0)).whole(), level)


def test_the_first_rows_of_a_light_may_be_empty(tmp_path):
    plane = np.full((200, COLS), 1800, np.float32)
    plane[:70], plane[70:140] = np.nan, 0.5
    frame = read_frame(write(tmp_path / "light.fits", plane))
    bias = write(tmp_path / "bias.fits", np.full(plane.shape, 500, np.uint16))
    assert read_masters(Options(bias=str(bias)), [frame]).bias is not None


def test_a_flat_in_adu_takes_no_bias_between_0_and_1(tmp_path):
    frame = read_frame(flat_level(tmp_path, "light", 0.5, np.float32))
    paths = {
        "bias": flat_level(tmp_path, "bias", 0.01, np.float32),
        "flat": flat_level(tmp_path, "flat", 20000),
    }
    with pytest.raises(UsageError, match="master flat is in ADU"):
        read_masters(Options(**{k: str(v) for k, v in paths.items()}), [frame])


@pytest.mark.parametrize("silent", ["light", "dark"])
def test_a_dark_of_unknown_fit_is_pointed_out(tmp_path, caplog, silent):
    cards = {"EXPTIME": "unknown"}
    light, dark = (
        (level, cards if silent == name else {}) for name, level in (("light", 800), ("dark", 530))
    )
    assert calibrated(tmp_path, light, dark=dark) == 270
    assert f"{silent}.fits: no EXPTIME" in caplog.text


def test_a_dark_of_the_same_exposure_needs_no_warning(tmp_path, caplog):
    calibrated(tmp_path, (800, {}), dark=(530, {}))
    assert not caplog.text


def test_a_bias_that_stays_is_pointed_out(tmp_path, caplog):
    calibrated(tmp_path, (800, {}), dark=(30, {"CALSTAT": "B"}))
    assert "the bias stays in the frames" in caplog.text


def test_a_flat_without_a_pattern_belongs_to_one(tmp_path):
    frames = [read_frame(flat_level(tmp_path, cfa, 800, BAYERPAT=cfa)) for cfa in ("RGGB", "GRBG")]
    flat = flat_level(tmp_path, "flat", 20000, CALSTAT="B")
    with pytest.raises(UsageError, match="does not say its pattern") as caught:
        read_masters(Options(flat=str(flat)), frames)
    assert "GRBG, RGGB" in str(caught.value)
    assert read_masters(Options(flat=str(flat)), frames[:1]).flat is not None
