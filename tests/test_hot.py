"""Hot pixels: what is one, what is not, and that none is smeared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from make_group import GroupSpec, _expose, _starlight, truth_of, write_group
from scipy.ndimage import maximum_filter

from zmtile import Options, UsageError, build_tile
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame, read_frame
from zmtile.frames.hotpixels import KAPPA, SHARE, _sensors, find_hot_pixels, lone_in_frame
from zmtile.kernels.demosaic import pattern_codes
from zmtile.kernels.hot import lone_pixels
from zmtile.pipeline import plan_tile, stack_plan

SPEC = GroupSpec(
    frames=4, rows=360, cols=480, stars=120, dither=12.0, fwhm=(1.8, 1.8), flux=(3000.0, 1.5e5), trails=0.0,
    cosmic_rays=10, hot_pixels=3e-4, seed=4,
)  # fmt: skip
NOISE = 20.0


def sensor(rows=40, cols=60, cfa="GRBG"):
    return Frame(Path("x.fits"), "x.fits", rows, cols, "cfa" if cfa else "mono", cfa, fits.Header())


def lone(plane, cfa="GRBG"):
    codes = pattern_codes(cfa) if cfa else np.zeros((2, 2), np.uint8)
    return lone_in_frame(plane.astype(np.float32), codes, np.full(3 if cfa else 1, NOISE))


def sky(rows=40, cols=60, seed=0):
    """A mosaic of sky: each colour has its level."""
    level = np.tile([[500.0, 900.0], [300.0, 500.0]], (rows // 2, cols // 2))
    return level + np.random.default_rng(seed).normal(0, NOISE, (rows, cols))


@given(st.integers(0, 10**6), st.sampled_from(["GRBG", ""]), st.floats(0, 0.3), st.floats(0, 0.1))
@settings(max_examples=30, deadline=None)
def test_lone_pixels_are_those_of_the_oracle(seed, cfa, crowd, missing):
    rng = np.random.default_rng(seed)
    plane = sky(14, 18, seed)
    plane[rng.random(plane.shape) < crowd] += rng.uniform(-400, 4000)
    plane[rng.random(plane.shape) < missing] = np.nan
    plane = plane.astype(np.float32)
    codes = pattern_codes(cfa) if cfa else np.zeros((2, 2), np.uint8)
    noise = np.float32([20.0, 25.0, 30.0])
    out = np.empty(plane.size, np.int64)
    found = out[: lone_pixels(plane, codes, noise, 5.0, 0.04, out)]
    sigma = noise[np.tile(codes, (7, 9))]
    assert found.tolist() == oracle.lone_pixels(plane, sigma, 5.0, 0.04)


@pytest.mark.parametrize("cfa", ["GRBG", ""])
@pytest.mark.parametrize("height", [-250.0, 250.0, 60000.0])
@pytest.mark.parametrize("place", [(20, 30), (20, 31), (21, 30), (21, 31), (0, 0), (39, 7), (1, 59)])
def test_a_pixel_alone_is_found_whatever_its_colour(cfa, height, place):
    plane = np.full((40, 60), 500.0) if not cfa else sky() * 0 + np.tile([[500, 900], [300, 500]], (20, 30))
    plane[place] += height
    assert lone(plane, cfa).tolist() == [place[0] * 60 + place[1]]


def test_two_side_by_side_are_both_found():
    plane = sky()
    plane[20, 30] += 3000
    plane[21, 31] += 9000
    assert lone(plane).tolist() == [20 * 60 + 30, 21 * 60 + 31]


@pytest.mark.parametrize("cfa", ["GRBG", None])
@pytest.mark.parametrize("colour", [(1.0, 1.0, 1.0), (1.26, 1.0, 0.79), (0.5, 0.8, 1.0)])
def test_the_core_of_a_sharp_star_is_no_lone_pixel(cfa, colour):
    rng = np.random.default_rng(1)
    y, x = (np.mgrid[10:350:20, 10:470:20].reshape(2, -1)) + rng.uniform(-0.5, 0.5, (2, 17 * 23))
    flux = np.exp(rng.uniform(np.log(800), np.log(3e5), x.size))
    light = _starlight(x, y, np.outer(colour if cfa else [1.0], flux), (360, 480), 1.8, None)
    image = _expose(replace(SPEC, cfa=cfa), light)
    counts = np.zeros(image.size, int)
    for _ in range(3):  # not dithered: the star stands on the same pixels in all frames
        frame = 800 + image + rng.normal(0, 1, image.shape) * np.sqrt(NOISE**2 + image)
        counts[lone(frame, cfa or "")] += 1
    assert not (2 * counts > 3).any()


def test_only_what_most_frames_show_is_hot():
    frames = [sensor()] * 5
    steady = [100, 700, 1500]
    seen = [np.array(sorted({*steady, 200 + k, *([900] if k < 2 else [])})) for k in range(5)]
    hot = find_hot_pixels(frames, seen)
    assert [h.tolist() for h in hot] == [steady] * 5


def test_one_frame_alone_says_nothing():
    assert find_hot_pixels([sensor()], [np.array([5, 17])])[0].size == 0


def test_sensors_are_told_apart_by_their_pixels():
    rng = np.random.default_rng(0)
    first, second = np.split(rng.permutation(2400)[:40], 2)
    frames, seen = [], []
    for own in (first, first, second, first, second):
        frames.append(sensor())
        seen.append(np.unique(np.concatenate([own, rng.integers(0, 2400, 3)])))
    other = sensor(60, 40)
    hot = find_hot_pixels([*frames, other, other], [*seen, np.arange(8), np.arange(8)])
    for k, own in enumerate((first, first, second, first, second)):
        assert set(own) <= set(hot[k].tolist())
        assert hot[k].size < 25
    assert hot[5].tolist() == list(range(8))


def still(folder):
    """A group without dither, whose stars stand on the same pixels in all frames."""
    return write_group(replace(SPEC, dither=0.0, rotation=0.0, frames=5), folder)


@pytest.mark.parametrize("dithered", [True, False])
def test_hot_pixels_are_found_and_nothing_else_is(tmp_path, dithered):
    paths = write_group(SPEC, tmp_path) if dithered else still(tmp_path)
    hot = truth_of(SPEC).hot > 0
    plan = plan_tile(paths, Options(hot_pixels=True))
    for correction, record in zip(plan.corrections, plan.records, strict=True):
        found = np.zeros(hot.size, bool)
        found[correction.bad] = True
        assert found[hot.ravel()].mean() > 0.95  # one may lie under a star that does not move
        assert not (found & ~hot.ravel()).any()
        assert record.nhot == correction.bad.size


def test_a_hot_pixel_is_no_data_from_the_first_step_on(tmp_path):
    plan = plan_tile(write_group(SPEC, tmp_path / "hot"), Options(hot_pixels=True))
    (tmp_path / "nan").mkdir()
    frames = []
    for frame, correction in zip(plan.frames, plan.corrections, strict=True):
        data = fits.getdata(frame.path).astype(np.float32)
        data.flat[correction.bad] = np.nan
        fits.PrimaryHDU(data, fits.getheader(frame.path)).writeto(tmp_path / "nan" / frame.name)
        frames.append(read_frame(tmp_path / "nan" / frame.name))
    masked = stack_plan(plan)
    nan = stack_plan(replace(plan, frames=tuple(frames), corrections=(Correction(),) * len(frames)))
    assert masked.image.tobytes() == nan.image.tobytes()
    assert masked.coverage.tobytes() == nan.coverage.tobytes()
    assert masked.coverage.sum() < stack_plan(replace(plan, corrections=nan_free(plan))).coverage.sum()


def nan_free(plan):
    return tuple(replace(correction, bad=correction.bad[:0]) for correction in plan.corrections)


def test_nothing_is_left_of_a_hot_pixel(tmp_path):
    paths = write_group(SPEC, tmp_path / "hot")
    clean = write_group(replace(SPEC, hot_pixels=0.0), tmp_path / "clean")
    options = Options(reference=paths[0].name, reject="none", normalize="none")
    masked, truth, plain = (
        build_tile(files, replace(options, hot_pixels=on))
        for files, on in ((paths, True), (clean, False), (paths, False))
    )
    # The cosmic rays are in all of them; a hot pixel would be thousands of ADU. Bright stars are left out:
    # two pixels from a missing one, demosaicing does without its correction, which their cores feel.
    quiet = maximum_filter(np.nan_to_num(truth.image), (1, 9, 9)) < np.nanmedian(truth.image) + 600
    assert quiet.mean() > 0.5
    assert np.nanmax(np.abs(masked.image - truth.image)[quiet & (masked.coverage == 4)]) < 100
    assert np.nanmax(np.abs(plain.image - truth.image)) > 1000


def test_the_order_of_the_arguments_changes_no_bit(tmp_path):
    paths = write_group(SPEC, tmp_path)
    one, other = (build_tile(order, Options(hot_pixels=True)) for order in (paths, paths[::-1]))
    assert one.image.tobytes() == other.image.tobytes()
    assert one.header["ZMT_HOT"] is True


def test_colour_frames_are_refused(tmp_path):
    paths = write_group(replace(SPEC, cfa="RGB", frames=2), tmp_path)
    with pytest.raises(UsageError, match="demosaiced already"):
        build_tile(paths, Options(hot_pixels=True))


def test_a_limit_of_the_buffer_is_kept():
    plane = np.full((40, 60), 500.0, np.float32)
    plane[5::8, 5::8] = 9000
    out = np.empty(3, np.int64)
    codes = np.zeros((2, 2), np.uint8)
    assert lone_pixels(plane, codes, np.float32([20.0]), KAPPA, SHARE, out) == 3


def test_frames_stay_with_their_sensor_however_many_there_are():
    """Cosmic rays of all frames together are many, and no sign of the sensor."""
    rng = np.random.default_rng(0)
    steady = rng.choice(1080 * 1920, 10, replace=False)
    seen = [np.unique(np.append(rng.integers(0, 1080 * 1920, 200), steady)) for _ in range(80)]
    frames = [sensor(1080, 1920)] * 80
    assert _sensors(frames, seen) == [list(range(80))]
    for found in find_hot_pixels(frames, seen):
        np.testing.assert_array_equal(found, np.sort(steady))


def test_frames_that_are_left_out_decide_no_hot_pixel(tmp_path):
    paths = write_group(replace(SPEC, frames=5), tmp_path)
    for path in paths[3:]:
        with fits.open(path, mode="update") as hdus:
            noise = np.random.default_rng(0).normal(0, 200, hdus[0].data.shape)
            hdus[0].data = np.clip(hdus[0].data + noise, 0, 65535).astype(np.uint16)
    options = Options(hot_pixels=True, reference=paths[0].name, reject_frames=("noise<100",))
    alone, more = build_tile(paths[:3], options), build_tile(paths, options)
    assert [record.used for record in more.frames] == [True] * 3 + [False] * 2
    assert [record.nhot for record in more.frames] == [record.nhot for record in alone.frames] + [0, 0]
    assert more.frames[0].nhot > 0
    assert more.header["ZMT_ID"] == alone.header["ZMT_ID"]
    for plane in ("image", "uncert", "coverage"):
        assert getattr(more, plane).tobytes() == getattr(alone, plane).tobytes()


def test_that_one_frame_alone_says_nothing_is_said(tmp_path, caplog):
    paths = write_group(replace(SPEC, frames=1), tmp_path)
    build_tile(paths, Options())
    assert "--hot-pixels" not in caplog.text
    build_tile(paths, Options(hot_pixels=True))
    assert "--hot-pixels does nothing with a single frame" in caplog.text
