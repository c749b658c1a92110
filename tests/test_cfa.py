"""Colour without demosaicing: every sample is a pixel of the frame, in its own colour alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from make_group import GroupSpec, write_group
from strategies import maybe_adu

from zmtile import Options, Resources, UsageError, build_tile
from zmtile.frames.frame import CFA_PATTERNS, read_frame
from zmtile.frames.pixels import open_pixels
from zmtile.kernels.demosaic import pattern_codes, separate
from zmtile.matching.match import Photometry
from zmtile.registration.transform import invert
from zmtile.stacking import strips
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.warp import Block, source_of, warp

SPEC = GroupSpec(frames=6, rows=360, cols=480, stars=120, seed=3, rotation=8.0, dither=20.0, trails=0.0)
DIRECT = Options(cfa="direct")


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    return write_group(SPEC, tmp_path_factory.mktemp("lights"))


@pytest.fixture(scope="module")
def tile(lights):
    return build_tile(lights, replace(DIRECT, reference=lights[0].name))


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=maybe_adu),
    st.sampled_from(CFA_PATTERNS),
    st.integers(0, 3),
    st.integers(0, 3),
)
@settings(deadline=None)
def test_a_pixel_stands_in_the_plane_of_its_colour_and_nowhere_else(mosaic, cfa, row, col):
    planes = np.zeros((3, *mosaic.shape), np.float32)
    separate(mosaic, pattern_codes(cfa), row, col, planes)
    for y, x in np.ndindex(mosaic.shape):
        own = "RGB".index(cfa[2 * ((y + row) % 2) + (x + col) % 2])
        np.testing.assert_equal(planes[own, y, x], mosaic[y, x])
        assert np.isnan(np.delete(planes[:, y, x], own)).all()


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0, 1.0, (3, -2)), (0, 1.0, (0.4, 0.7)), (33, 1.0, (4, 1)), (121, 1.6, (7, 2))],
)
def test_samples_are_the_nearest_pixels(tmp_path, degrees, scale, shift):
    rows, cols = 30, 44
    mosaic = np.random.default_rng(0).integers(100, 60000, (rows, cols), np.uint16)
    path = tmp_path / "light.fits"
    fits.PrimaryHDU(mosaic, fits.Header({"BAYERPAT": "RGGB"})).writeto(path)
    frame = read_frame(path)
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    middle = np.array([(cols - 1) / 2, (rows - 1) / 2])
    linear = np.array([[c, -s], [s, c]])
    matrix = np.column_stack([linear, middle + shift - linear @ middle])
    factor, level = np.array([1.1, 0.9, 1.2]), np.array([10.0, -20.0, 30.0])
    light = Photometry(factor, level[:, None], np.ones(3), np.ones(3))
    canvas = Canvas(rows, cols, 0, 0)
    source = source_of(frame, matrix, light, canvas, frame, DIRECT)
    pixels = open_pixels(frame)
    ours = np.full((3, rows, cols), np.nan, np.float32)
    for block in (Block(0, 0, 17, cols), Block(17, 0, rows - 17, 23), Block(17, 23, rows - 17, cols - 23)):
        part = np.empty((3, block.rows, block.cols), np.float32)
        if source.need(block)[1]:
            warp(pixels, source, block, part)
            ours[:, block.top : block.top + block.rows, block.left : block.left + block.cols] = part
    back = invert(matrix)
    for i, j in np.ndindex(rows, cols):
        x, y = back[:, :2] @ [j, i] + back[:, 2]
        near_x, near_y = math.floor(x + 0.5), math.floor(y + 0.5)
        want = np.full(3, np.nan)
        if 0 <= near_x < cols and 0 <= near_y < rows:
            own = "RGB".index("RGGB"[2 * (near_y % 2) + near_x % 2])
            want[own] = mosaic[near_y, near_x] * factor[own] / scale**2 + level[own]
        if min(abs(x + 0.5 - round(x + 0.5)), abs(y + 0.5 - round(y + 0.5))) > 1e-9:  # else it is a tie
            np.testing.assert_allclose(ours[:, i, j], want, rtol=1e-5, atol=1e-2)


def test_every_frame_gives_every_pixel_one_sample(tile):
    inside = np.s_[:, 60:-60, 60:-60]
    assert (tile.coverage[inside].sum(axis=0) == SPEC.frames).all()
    shares = tile.coverage[inside].mean(axis=(1, 2)) / SPEC.frames
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.01)
    np.testing.assert_array_equal(np.isnan(tile.image), tile.coverage == 0)
    assert (tile.header["ZMT_CFA"], tile.header["ZMT_KERN"]) == ("direct", "nearest")


def test_a_single_frame_is_its_mosaic(lights):
    tile = build_tile(lights[:1], DIRECT)
    mosaic = fits.getdata(lights[0])
    np.testing.assert_array_equal(np.nansum(tile.image, axis=0), mosaic)
    assert (tile.coverage.sum(axis=0) == 1).all()
    for c, letter in enumerate("RGB"):
        for y, x in np.ndindex(2, 2):
            own = SPEC.cfa[2 * y + x] == letter
            assert (tile.coverage[c, y::2, x::2] == own).all()


@pytest.mark.parametrize(("cols", "pixels"), [(37, 1024), (64, 5000)])
def test_the_shape_of_blocks_and_threads_change_no_bit(lights, tile, monkeypatch, cols, pixels):
    monkeypatch.setattr(strips, "BLOCK_COLS", cols)
    monkeypatch.setattr(strips, "WIDE_BLOCK_PIXELS", 0)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", pixels)
    again = build_tile(lights, replace(DIRECT, reference=lights[0].name), Resources(3, 48 * 2**20))
    for plane in ("image", "uncert", "coverage", "rejlow", "rejhigh"):
        assert getattr(tile, plane).tobytes() == getattr(again, plane).tobytes()


def test_the_colours_of_the_sky_are_those_of_the_demosaiced_tile(lights, tile):
    other = build_tile(lights, Options(reference=lights[0].name))
    for direct, demosaiced in zip(tile.image, other.image, strict=True):
        assert abs(np.nanmedian(direct) - np.nanmedian(demosaiced)) < 2.0


def test_through_a_bent_map_every_frame_gives_every_pixel_one_sample_too(lights, tile):
    bent = build_tile(lights, replace(DIRECT, reference=lights[0].name, transform="poly2"))
    assert {record.model for record in bent.frames} >= {"poly2"}
    assert (bent.coverage[:, 60:-60, 60:-60].sum(axis=0) == SPEC.frames).all()
    # The maps differ by hundredths of a pixel, so that a few samples are other pixels.
    same = (bent.coverage == tile.coverage)[:, 60:-60, 60:-60]
    assert same.mean() > 0.8


def test_a_hot_pixel_takes_one_sample_with_it(lights):
    options = replace(DIRECT, reference=lights[0].name, framing="union")
    with_all, without = (build_tile(lights, replace(options, hot_pixels=on)) for on in (False, True))
    lost = with_all.coverage.sum(dtype=int) - without.coverage.sum(dtype=int)
    found = sum(record.nhot for record in without.frames)
    assert found > 150
    assert abs(lost / found - 1) < 0.1  # a turned pixel is the nearest of one tile pixel on average


@pytest.mark.parametrize("cfa", [None, "RGB"])
def test_frames_that_are_no_mosaic_are_refused(tmp_path, cfa):
    paths = write_group(replace(SPEC, cfa=cfa, frames=2), tmp_path)
    with pytest.raises(UsageError, match="is no mosaic") as caught:
        build_tile(paths, DIRECT)
    assert "BAYERPAT" in caught.value.remedy
