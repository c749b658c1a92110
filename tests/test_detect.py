"""Detection: `zmtile/frames/detect.py` and its kernels in `zmtile/kernels/islands.py`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from zmtile.frames.detect import _background, detect
from zmtile.kernels.islands import bright_pixels, take_apart

SMOOTHING = np.outer([1, 2, 1], [1, 2, 1]) / 16


def star(shape, x, y, peak, fwhm=3.0):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    return peak * np.exp(-4 * np.log(2) * ((xx - x) ** 2 + (yy - y) ** 2) / fwhm**2)


def listed(light, mesh, limit, cell=32):
    at, value, cut = (
        np.empty(light.size, np.int64),
        np.empty(light.size, np.float32),
        np.empty(light.size, np.uint8),
    )
    count = bright_pixels(light, mesh.astype(np.float32), cell, np.float32(limit), at, value, cut)
    return at[:count], value[:count], cut[:count].astype(bool)


def owners(smooth, limit, least=5, share=0.005, depth=0.0):
    """Return the peak, row · cols + col, that each bright pixel belongs to; -1 elsewhere."""
    at = np.flatnonzero(smooth > limit)
    value = smooth.ravel()[at].astype(np.float32)
    order, owner = np.argsort(-value, kind="stable"), np.empty_like(at)
    take_apart(at, value, order, smooth.shape[1], least, share, depth, owner)
    out = np.full(smooth.size, -1)
    out[at] = at[owner]
    return out.reshape(smooth.shape)


def test_bright_pixels_are_those_of_the_smoothed_image():
    rng = np.random.default_rng(0)
    light = rng.normal(0, 1, (97, 600)).astype(np.float32)
    light[40, 300] = np.nan
    data = np.isfinite(light)
    light[~data] = 0
    smooth = ndimage.convolve(light.astype(float), SMOOTHING, mode="constant")
    given = np.where(data, light, np.float32(np.nan))
    at, value, cut = listed(given, np.zeros((2, 2)), 0.7)
    np.testing.assert_array_equal(at, np.flatnonzero((smooth > 0.7) & data))
    np.testing.assert_allclose(value, smooth.ravel()[at], atol=1e-6)
    edge = ~ndimage.binary_erosion(data, np.ones((3, 3)))
    np.testing.assert_array_equal(cut, edge.ravel()[at])
    np.testing.assert_array_equal(given, light)


def test_a_background_that_is_a_plane_goes_off_as_far_as_its_cells():
    y, x = np.mgrid[:96, :128]
    light = (7 + 0.5 * x - 0.25 * y).astype(np.float32)
    listed(light, 7 + 0.5 * (np.arange(4) * 32 + 15.5) - 0.25 * (np.arange(3) * 32 + 15.5)[:, None], 1e9)
    np.testing.assert_allclose(light, 0, atol=1e-4)


def test_the_background_of_a_slope_is_that_slope_up_to_the_edge():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:415, :511]
    slope = 0.3 * x - 0.2 * y
    light = (slope + rng.normal(0, 10, x.shape)).astype(np.float32)
    mesh, rms = _background(light)
    assert mesh.shape == (6, 8)
    np.testing.assert_allclose(mesh[:, :7], slope[31:415:64, 31:450:64], atol=1.5)
    assert rms == pytest.approx(np.hypot(10, 0.36 * 64 / 12**0.5), rel=0.05)
    light[:64, :64] = light[200:330, 200:330] = np.nan
    light[100:164, 300:364] += 500
    holed, _ = _background(light)
    np.testing.assert_allclose(holed, mesh, atol=25)


def test_more_bright_pixels_than_fit_are_counted():
    at, value, cut = np.empty(10, np.int64), np.empty(10, np.float32), np.empty(10, np.uint8)
    light = np.ones((20, 20), np.float32)
    assert bright_pixels(light, np.zeros((2, 2), np.float32), 16, np.float32(0.1), at, value, cut) == 400


def test_what_does_not_touch_is_apart():
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.normal(0, 1, (80, 300)), 1.0)
    found = owners(smooth, 0.2, share=1.0)  # no part has more than all of the light
    regions, count = ndimage.label(smooth > 0.2, np.ones((3, 3)))
    assert count > 50
    for region in range(1, count + 1):
        inside = regions == region
        assert set(found[inside]) == {np.flatnonzero(inside)[smooth[inside].argmax()]}


def test_two_stars_that_meet_are_two_and_noise_on_one_is_one():
    shape = (40, 60)
    pair = star(shape, 20, 20, 1000, 5) + star(shape, 30, 20, 300, 5)
    found = owners(pair, 5)
    assert set(found[found >= 0]) == {20 * 60 + 20, 20 * 60 + 30}
    assert found[20, 18] == 20 * 60 + 20
    assert found[22, 32] == 20 * 60 + 30
    assert len(set(owners(pair, 5, share=0.3)[found >= 0])) == 1  # the fainter has less than that
    assert len(set(owners(pair, 5, depth=290.0)[found >= 0])) == 1  # and does not rise by so much
    assert len(set(owners(pair, 5, least=100)[found >= 0])) == 1  # nor is it so large
    bumpy = star(shape, 20, 20, 1000, 9) + np.random.default_rng(0).normal(0, 3, shape)
    assert len(set(owners(bumpy, 50)[bumpy > 50])) == 1


def test_three_stars_in_a_row_are_three():
    shape = (40, 80)
    row = sum(star(shape, x, 20, peak, 5) for x, peak in ((20, 500), (27, 1000), (34, 400)))
    found = owners(row, 5)
    assert set(found[found >= 0]) == {20 * 80 + x for x in (20, 27, 34)}


def test_stars_beside_a_trail_are_found_and_the_trail_is_not():
    rng = np.random.default_rng(0)
    light = rng.normal(0, 10, (400, 500)).astype(np.float32)
    y, x = np.mgrid[:400, :500]
    light += (600 * np.exp(-(((y - 0.7 * x) / 3.0) ** 2))).astype(np.float32)
    places = [(100.3, 300.2), (400.6, 100.1), (60.2, 200.7), (300.4, 50.5)]
    for px, py in places:
        light += star(light.shape, px, py, 900).astype(np.float32)
    (x, y, *_), fwhm, roundness = detect(light)
    assert len(x) == len(places)
    away = np.hypot(x[:, None] - [p[0] for p in places], y[:, None] - [p[1] for p in places])
    assert away.min(axis=0).max() < 0.05
    assert fwhm == pytest.approx(3.0, abs=0.15)
    assert roundness > 0.9


def test_a_crowded_frame_has_its_bright_stars():
    light = np.random.default_rng(0).normal(0, 10, (256, 256)).astype(np.float32)
    at = np.arange(16.0, 250.0, 14.0)
    for px in at:
        for py in at:
            light += star(light.shape, px + 0.3, py - 0.2, 5e4, 4).astype(np.float32)
    (x, y, *_), fwhm, _ = detect(light)
    assert len(x) == at.size**2
    away = np.hypot(x[:, None] - at - 0.3, 0).min(axis=1) + np.hypot(y[:, None] - at + 0.2, 0).min(axis=1)
    assert away.max() < 0.05
    assert fwhm == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_frame_that_is_mostly_bright_is_no_field_of_stars(share):
    light = np.random.default_rng(0).normal(0, 10, (256, 256)).astype(np.float32)
    light[:, : int(256 * share) : 2] += 1e5
    (x, *_), fwhm, _ = detect(light)
    assert not x.size
    assert np.isnan(fwhm)


def test_stars_at_the_edge_of_the_data_are_left_out():
    light = np.random.default_rng(0).normal(0, 10, (200, 200)).astype(np.float32)
    for x, y in ((1.0, 100.0), (60.0, 60.0), (120.0, 120.0)):
        light += star(light.shape, x, y, 2000).astype(np.float32)
    light[:, 122:] = np.nan
    (x, y, *_), _, _ = detect(light)
    assert len(x) == 1
    assert (x[0], y[0]) == (pytest.approx(60, abs=0.05), pytest.approx(60, abs=0.05))
