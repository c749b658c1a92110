"""Kernels of frames whose pixels are finer than the tile's: weights, footprint, flux and noise."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import oracle
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from zmtile.frames.frame import Frame, read_frame
from zmtile.frames.measure import measure
from zmtile.kernels.tables import COPY, STEPS, kernel_table, lost_margin, span_of
from zmtile.kernels.warp import warp_block
from zmtile.matching.match import match
from zmtile.options import KERNELS, Options
from zmtile.progress import NullProgress
from zmtile.registration.transform import IDENTITY, compose, invert
from zmtile.stacking.canvas import frame_up

SCALES = (1 / 1.03, 0.8, 0.5, 1 / 2.2)  # frame → tile


def turned(degrees, scale, middle=(0.0, 0.0), to=(0.0, 0.0)):
    """Tile pixel → frame pixel, `middle` of the tile to `to`; `scale` as in SCALES."""
    c, s = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, np.array(to) - linear @ middle])


def warp(image, matrix, kernel, shape, span, clamp=False, block=(0, 0)):
    out = np.empty((1, *shape), np.float32)
    image = np.ascontiguousarray(image[None], np.float32)
    scale, surface = np.ones(1, np.float32), np.zeros((1, 6))
    warp_block(image, 0, 0, matrix, *block, kernel, clamp, scale, surface, (0.0, 0.0), 1.0, out, span=span)
    return out[0]


def picture(rows=40, cols=50, seed=0):
    return np.random.default_rng(seed).uniform(100, 1000, (rows, cols)).astype(np.float32)


def test_only_larger_pixels_of_the_tile_have_a_span():
    for scale in (2.2, 1.25, 1.0, 1 / 1.0199):
        assert span_of(scale) == 0.0
    for scale in SCALES:
        assert span_of(scale) == pytest.approx(1 / scale, abs=1 / 256)
    assert span_of(0.50001) == span_of(0.49999) == 2.0
    assert kernel_table(COPY, 2.0).shape == (1, 1)
    assert lost_margin(COPY, False, 2.0) == 0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_weights_are_those_of_the_oracle(kernel, scale):
    span = span_of(scale)
    table = kernel_table(kernel, span)
    plain = kernel_table(kernel).shape[1]
    assert table.shape == (STEPS + 1, plain + (2 if span <= 2 else 4))
    assert lost_margin(kernel, True, span) == table.shape[1] // 2
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(table, table[::-1, ::-1], atol=1e-7)
    for step in (0, 1, 300, 1024, 1777, STEPS - 1, STEPS):
        expected = oracle.wide_weights(kernel, step / STEPS, span, 2000)
        np.testing.assert_allclose(table[step], expected, atol=1e-5)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_samples_are_those_of_the_oracle(kernel, scale, clamp):
    image = picture(60, 70)
    image[24, 28] = np.nan
    image[34, 40] = 200000  # rings
    span = span_of(scale)
    matrix = turned(31, scale, (10, 10), (35, 30))
    ours = warp(image, matrix, kernel, (20, 20), span, clamp)
    taps, compared, raised = kernel_table(kernel, span).shape[1], 0, 0
    for i in range(0, 20, 2):
        for j in range(20):
            x, y = matrix[:, :2] @ [j, i] + matrix[:, 2]
            x, y = (math.floor(v) + round((v - math.floor(v)) * STEPS) / STEPS for v in (x, y))
            if math.isclose(x, round(x), abs_tol=1e-3) or math.isclose(y, round(y), abs_tol=1e-3):
                continue  # the place next to a pixel's centre may be counted from either side
            expected = oracle.interpolate(
                image, x, y, lambda t: oracle.wide_weights(kernel, t, span, 400), taps
            )
            if math.isnan(expected):
                assert np.isnan(ours[i, j])
                continue
            if clamp:  # to the lowest pixel under the kernel, and no further
                top, left = math.floor(y) - taps // 2 + 1, math.floor(x) - taps // 2 + 1
                lowest = image[top : top + taps, left : left + taps].min()
                raised += expected < lowest - 1
                expected = max(expected, lowest)
            assert ours[i, j] == pytest.approx(expected, rel=2e-4, abs=3.0)
            compared += 1
    assert compared > 80
    assert (raised > 0) == (clamp and kernel != "bilinear")


@given(
    st.sampled_from(KERNELS),
    st.floats(1.03, 2.2),
    st.floats(-180, 180),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_sample_is_finite_exactly_when_all_pixels_under_the_kernel_are(kernel, width, degrees, shift, seed):
    image = picture(40, 40, seed)
    image[np.random.default_rng(seed).random(image.shape) < 0.005] = np.nan
    span = span_of(1 / width)
    matrix = turned(degrees, 1 / width, (10, 10), (20 + shift[0], 20 + shift[1]))
    moved = warp(image, matrix, kernel, (20, 20), span)
    taps = kernel_table(kernel, span).shape[1]
    for i in range(20):
        for j in range(20):
            x = matrix[0, 0] * j + matrix[0, 1] * i + matrix[0, 2]
            y = matrix[1, 0] * j + matrix[1, 1] * i + matrix[1, 2]
            ix, iy = math.floor(x) - (taps // 2 - 1), math.floor(y) - (taps // 2 - 1)
            inside = ix >= 0 and iy >= 0 and ix + taps <= 40 and iy + taps <= 40
            whole = inside and np.isfinite(image[iy : iy + taps, ix : ix + taps]).all()
            assert np.isfinite(moved[i, j]) == whole


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", SCALES)
def test_blocks_fit_together_bit_for_bit(kernel, scale):
    image, matrix, span = picture(120, 120), turned(33, scale, (20, 20), (60, 60)), span_of(scale)
    whole = warp(image, matrix, kernel, (40, 40), span, clamp=True)
    part = warp(image, matrix, kernel, (13, 9), span, clamp=True, block=(21, 17))
    assert np.isfinite(whole).mean() > 0.9
    assert part.tobytes() == whole[21:34, 17:26].tobytes()


def star(x, y, fwhm, side):
    """A Gaussian star of flux 1, integrated over every pixel."""
    width = fwhm / (2 * math.sqrt(math.log(2)))
    wx, wy = (
        (erf((np.arange(side) - at + 0.5) / width) - erf((np.arange(side) - at - 0.5) / width)) / 2
        for at in (x, y)
    )
    return np.outer(wy, wx)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [0.5, 0.8])
@pytest.mark.parametrize("fwhm", [2.0, 3.0])
@pytest.mark.parametrize("degrees", [0, 10])
def test_the_flux_of_a_star_is_kept_wherever_it_falls(kernel, scale, fwhm, degrees, clamp):
    span, middle = span_of(scale), round(22 * scale)
    for there in np.arange(0.0, 1.0, 0.25):  # of the pixels of the tile among those of the frame
        for here in np.arange(-0.5, 0.5, 0.25):  # of the star among these
            image = star(22.1 + here, 21.9 - here / 2, fwhm, 45)
            wide = np.pad(image, 20)  # nothing of the star where the kernel ends
            matrix = turned(degrees, scale, (middle + 8, middle + 8), (42 + there, 42 + there / 3))
            made = warp(wide, matrix, kernel, (2 * middle + 17,) * 2, span, clamp)
            assert np.nansum(made) / scale**2 == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_clamping_leaves_no_dark_ring(kernel):
    image = np.full((40, 40), 500.0, np.float32)
    image[20, 20] = 30000
    made = warp(image, turned(0, 0.8, (10, 10), (20.4, 20.3)), kernel, (20, 20), 1.25, clamp=True)
    assert np.nanmin(made) == pytest.approx(500, rel=1e-5)


def frames_of(folder, scale, side=240):
    """A reference of noise, and a frame of `scale` frame → reference with the noise of its pixels."""
    rng, found = np.random.default_rng(4), []
    for name, size in (("a", side), ("b", round(side / scale))):
        path = folder / f"{name}.fits"
        fits.PrimaryHDU(rng.normal(1000, 20, (size, size)).astype(np.float32)).writeto(path)
        found.append(read_frame(path, path.name))
    return found


@pytest.mark.parametrize("scale", [0.5, 0.8])
def test_noise_of_the_weights_and_of_samples_is_that_of_finer_pixels(tmp_path, scale):
    frames = frames_of(tmp_path, scale)
    stats = [measure(frame) for frame in frames]
    to_reference = np.array([[scale, 0, 0.3], [0, scale, 0.4]])
    options = Options(normalize="none", weight="noise")
    found = match(frames, stats, [IDENTITY, to_reference], 0, options, NullProgress())[1]
    image = fits.getdata(frames[1].path)
    matrix = invert(compose(to_reference, IDENTITY))
    made = warp(image, matrix, "cubic", (240, 240), span_of(scale)) / scale**2
    made = made[8:232, 8:232].astype(np.float64)
    # A sample has a part of its noise, as interpolation has it everywhere; of sums all of it is left.
    assert 0.6 < made.std() / found.noise[0] < 0.95
    sums = made.reshape(14, 16, 14, 16).sum(axis=(1, 3)).std() / 16
    assert sums == pytest.approx(found.noise[0], rel=0.15)
    assert found.weight[0] == pytest.approx((20 / found.noise[0]) ** 2, rel=0.03)


def test_the_intersection_leaves_out_what_wide_kernels_lose():
    frames = [Frame(Path("/f.fits"), "f.fits", n, n, "mono", "", fits.Header()) for n in (100, 180)]
    maps = [IDENTITY, np.array([[0.5, 0, 5.2], [0, 0.5, 5.3]])]
    margins = [lost_margin("lanczos3", False, span_of(s)) for s in (1.0, 0.5)]
    assert margins == [2, 3]
    canvas = frame_up(frames, maps, 0, "intersection", margins)
    matrix = compose(invert(maps[1]), np.array([[1.0, 0, canvas.x0], [0, 1, canvas.y0]]))
    for span, whole in ((2.0, True), (2.25, False)):
        made = warp(picture(180, 180), matrix, "lanczos3", (canvas.rows, canvas.cols), span)
        assert np.isfinite(made).all() == whole
