from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.kernels.demosaic import demosaic, pattern_codes
from zmtile.kernels.tables import COPY, STEPS, kernel_table
from zmtile.kernels.warp import WIDTH, warp_block
from zmtile.options import KERNELS
from zmtile.registration.transform import invert

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])


def turn(degrees, shift=(0.0, 0.0), scale=1.0):
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def warp(image, matrix, kernel, shape=None, clamp=False, scale=1.0, surface=(0,) * 6, block=(0, 0)):
    """Warp (rows, cols) by the matrix tile pixel → frame pixel."""
    out = np.empty((1, *(shape or image.shape)), np.float32)
    warp_block(
        image[None].astype(np.float32),
        0,
        0,
        np.asarray(matrix, np.float64),
        *block,
        kernel,
        clamp,
        np.array([scale], np.float32),
        np.array([surface], np.float64),
        (10.0, 20.0),
        50.0,
        out,
    )
    return out[0]


def picture(rows=40, cols=50, seed=0):
    return np.random.default_rng(seed).uniform(100, 1000, (rows, cols)).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("degrees", [0.0, 3.0, 69.4, 180.0])
def test_samples_are_those_of_the_oracle(kernel, degrees):
    image = picture()
    image[11, 17] = np.nan
    matrix = turn(degrees, (31.7, 12.2) if degrees else (0.3, 0.6))
    ours = warp(image, matrix, kernel)
    taps = kernel_table(kernel).shape[1]
    for i in range(ours.shape[0]):
        for j in range(ours.shape[1]):
            x, y = matrix[:, :2] @ [j, i] + matrix[:, 2]
            # The table knows places to 1/2048 px.
            x, y = (math.floor(v) + round((v - math.floor(v)) * STEPS) / STEPS for v in (x, y))
            if math.isclose(x, round(x), abs_tol=1e-3) or math.isclose(y, round(y), abs_tol=1e-3):
                continue  # the place next to a pixel's centre may be counted from either side
            expected = oracle.interpolate(image, x, y, lambda t: oracle.kernel_weights(kernel, t), taps)
            if math.isnan(expected):
                assert np.isnan(ours[i, j])
            else:
                assert ours[i, j] == pytest.approx(expected, rel=2e-5, abs=0.05)


@pytest.mark.parametrize("beside", KERNELS)
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-30, 1), (7, 500)])
def test_the_code_of_any_kernel_copies(beside, shift):
    image = np.random.default_rng(5).normal(size=(3, 21, 33)).astype(np.float32)
    image[0, 3, 4], image[1, 5:9, 6] = np.nan, np.inf
    how = turn(0, shift), 0, 0, COPY, True, np.float32([1.5, 1.0, 0.5]), np.ones((3, 6)), (0.0, 0.0), 9.0
    made = np.full((2, 3, 24, 30), 7.0, np.float32)
    warp_block(image, 2, 1, *how, made[0])
    warp_block(image, 2, 1, *how, made[1], beside=beside)
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("kernel", [*KERNELS, COPY])
def test_colours_are_warped_like_grey(kernel):
    colours = np.stack([picture(seed=s) for s in range(3)])
    colours[1, 20, 20] = np.nan
    matrix = turn(0, (4, -3)) if kernel == COPY else turn(27, (9.3, -4.1))
    out = np.empty((3, 40, 50), np.float32)
    scale, surface = np.ones(3, np.float32), np.zeros((3, 6))
    warp_block(colours, 0, 0, matrix, 0, 0, kernel, True, scale, surface, (0.0, 0.0), 1.0, out)
    for c in range(3):
        np.testing.assert_array_equal(out[c], warp(colours[c], matrix, kernel, clamp=True))


# In a process of its own: how many samples are made at once is settled when the kernels are defined.
OTHER_WIDTH = """
import sys
import numpy as np
from llvmlite import binding
class Other(binding.FeatureMap):
    def get(self, name):  # what numba compiles for, it takes from the items: the processor at hand
        return not super().get(name)
binding.get_host_cpu_features = lambda ask=binding.get_host_cpu_features: Other(ask())
sys.path.insert(0, sys.argv[1])
import test_warp
np.savez(sys.argv[2], width=test_warp.WIDTH, **test_warp.samples_at_many_angles())
"""


def samples_at_many_angles():
    """Return samples whose pixels lie side by side, in both directions, and scattered; by a name."""
    image = picture(70, 70)
    image[33, 17:20] = np.nan
    made = {}
    for kernel in (COPY, "bilinear", "cubic", "lanczos3"):
        for degrees in (0.0, 0.4, 27.0, 179.5, 180.0):
            matrix = turn(degrees, (31.3, 29.6))
            matrix[:, 2] -= matrix[:, :2] @ [30, 30]
            made[f"{kernel}_{degrees}"] = warp(image, matrix, kernel, (60, 67), clamp=True)
    made["demosaic"] = np.empty((3, 70, 70), np.float32)
    demosaic(image, pattern_codes("GRBG"), 0, 0, made["demosaic"])
    return made


def test_the_number_of_samples_at_once_changes_none(tmp_path):
    command = [sys.executable, "-c", OTHER_WIDTH, str(Path(__file__).parent), tmp_path / "made.npz"]
    subprocess.run(command, check=True, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)})
    with np.load(tmp_path / "made.npz") as made:
        assert {WIDTH, int(made["width"])} == {8, 16}
        for name, samples in samples_at_many_angles().items():
            assert np.isfinite(samples).any()
            np.testing.assert_array_equal(samples, made[name], name)


def test_a_frame_smaller_than_the_kernel_gives_no_sample():
    assert np.isnan(warp(picture(3, 50), IDENTITY, "cubic", (20, 20))).all()
    assert np.isnan(warp(picture(50, 3), IDENTITY, "cubic", (20, 20))).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_sum_to_one(kernel):
    np.testing.assert_allclose(kernel_table(kernel).sum(axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_plane_is_kept(kernel):
    # Interpolation must not bend a sky gradient. (Lanczos does, by a ripple of 3 % of the step per px.)
    y, x = np.mgrid[:40, :50]
    plane = (500 + 3 * x - 2 * y).astype(np.float32)
    matrix = turn(10, (5.3, -2.7))
    moved = warp(plane, matrix, kernel)
    fx, fy = (
        matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2],
        matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2],
    )
    inside = np.isfinite(moved)
    assert inside.sum() > 900
    limit = 0.12 if "lanczos" in kernel else 5e-3
    np.testing.assert_allclose(moved[inside], (500 + 3 * fx - 2 * fy)[inside], atol=limit)


def test_whole_pixels_are_copied():
    image = picture()
    moved = warp(image, [[1, 0, 3], [0, 1, -2]], COPY)
    np.testing.assert_array_equal(moved[2:, :-3], image[:-2, 3:])
    assert np.isnan(moved[:2]).all()
    assert np.isnan(moved[:, -3:]).all()


@given(
    st.sampled_from(KERNELS),
    st.floats(-180, 180),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_a_sample_is_finite_exactly_when_all_pixels_under_the_kernel_are(kernel, degrees, shift, seed):
    image = picture(30, 30, seed % 1000)
    image[np.random.default_rng(seed).random(image.shape) < 0.01] = np.nan
    matrix = invert(turn(degrees, (15 + shift[0], 15 + shift[1])))
    moved = warp(image, matrix, kernel, (20, 20))
    taps = kernel_table(kernel).shape[1]
    for i in range(20):
        for j in range(20):
            x = matrix[0, 0] * j + matrix[0, 1] * i + matrix[0, 2]
            y = matrix[1, 0] * j + matrix[1, 1] * i + matrix[1, 2]
            ix, iy = math.floor(x) - (taps // 2 - 1), math.floor(y) - (taps // 2 - 1)
            inside = ix >= 0 and iy >= 0 and ix + taps <= 30 and iy + taps <= 30
            whole = inside and np.isfinite(image[iy : iy + taps, ix : ix + taps]).all()
            assert np.isfinite(moved[i, j]) == whole


@pytest.mark.parametrize("kernel", KERNELS)
def test_blocks_fit_together_bit_for_bit(kernel):
    image, matrix = picture(60, 60), turn(33, (12.1, -7.9))
    surface = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    whole = warp(image, matrix, kernel, (40, 40), surface=surface)
    part = warp(image, matrix, kernel, (13, 9), surface=surface, block=(21, 17))
    assert part.tobytes() == whole[21:34, 17:26].tobytes()


def test_scale_and_surface():
    image = np.full((10, 10), 100.0, np.float32)
    y, x = np.mgrid[:10, :10]
    u, v = (x - 10) / 50, (y - 20) / 50
    moved = warp(image, IDENTITY, COPY, scale=2.0, surface=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    np.testing.assert_allclose(moved, 200 + 1 + 2 * u + 3 * v + 4 * u * u + 5 * u * v + 6 * v * v, rtol=1e-6)


@pytest.mark.parametrize("kernel", ["cubic", "lanczos3", "lanczos4"])
def test_clamping_leaves_no_dark_ring(kernel):
    image = np.full((30, 30), 500.0, np.float32)
    image[15, 15] = 30000
    matrix = [[1, 0, 0.5], [0, 1, 0.5]]
    assert np.nanmin(warp(image, matrix, kernel)) < 0
    clamped = warp(image, matrix, kernel, clamp=True)
    assert np.nanmin(clamped) == pytest.approx(500, rel=1e-5)
    # The peak between four pixels may lie above them all.
    assert np.nanmax(clamped) == np.nanmax(warp(image, matrix, kernel))


@pytest.mark.parametrize("cfa", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_demosaic_is_that_of_the_oracle(cfa):
    mosaic = picture(14, 18)
    mosaic[5, 6] = np.nan
    out = np.empty((3, 14, 18), np.float32)
    demosaic(mosaic, pattern_codes(cfa), 0, 0, out)
    np.testing.assert_allclose(out, oracle.demosaic(mosaic, cfa), rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("cfa", ["RGGB", "GRBG"])
@pytest.mark.parametrize("tint", [2 / 3, 0.5])
def test_demosaic_keeps_the_light_of_stars_and_sharpens_none(cfa, tint):
    """Green keeps the second moment of a star 2/3 as bright in red and blue; none falls below it."""
    y, x = np.mgrid[:40, :40]
    codes = pattern_codes(cfa)
    colour = np.array([tint, 1.0, tint])[codes[y % 2, x % 2]]
    for at_x, at_y in ((20, 20), (20.5, 20.5), (19.8, 20.3), (21, 20)):
        r2 = (x - at_x) ** 2 + (y - at_y) ** 2
        star = np.exp(-r2 / (2 * 1.7**2))
        out = np.empty((3, 40, 40), np.float32)
        demosaic((star * colour).astype(np.float32), codes, 0, 0, out)
        planes, inner = out[:, 2:-2, 2:-2], r2[2:-2, 2:-2]
        np.testing.assert_allclose(planes.sum(axis=(1, 2)), star.sum() * np.array([tint, 1, tint]), rtol=3e-3)
        moments = (planes * inner).sum(axis=(1, 2)) / planes.sum(axis=(1, 2))
        if tint == 2 / 3:
            assert moments[1] == pytest.approx(2 * 1.7**2, rel=3e-3)
        # The means of the nearest samples widen green by 0.5, red and blue by 1.0.
        assert (moments > 2 * 1.7**2 - 0.02).all()
        assert (moments < 2 * 1.7**2 + np.array([0.8, 0.4, 0.8])).all()


@given(st.integers(0, 6), st.integers(0, 6), st.integers(2, 10), st.integers(2, 10))
@settings(max_examples=30, deadline=None)
def test_a_patch_is_demosaiced_as_in_the_frame(row, col, rows, cols):
    mosaic = picture(20, 20)
    whole = np.empty((3, 20, 20), np.float32)
    demosaic(mosaic, pattern_codes("GRBG"), 0, 0, whole)
    patch = np.empty((3, rows, cols), np.float32)
    demosaic(mosaic[row : row + rows, col : col + cols], pattern_codes("GRBG"), row, col, patch)
    np.testing.assert_array_equal(
        patch[:, 2:-2, 2:-2], whole[:, row + 2 : row + rows - 2, col + 2 : col + cols - 2]
    )


@pytest.mark.parametrize("cfa", ["RGGB", "GBRG"])
def test_a_mosaic_is_demosaiced_on_the_way(cfa):
    mosaic, codes, matrix = picture(14, 18), pattern_codes(cfa), turn(3.0, (0.3, 0.6))
    colours = np.empty((3, 14, 18), np.float32)
    demosaic(mosaic, codes, 5, 6, colours)
    made = np.empty((2, 3, 20, 20), np.float32)
    how = matrix, 0, 0, "cubic", True, np.ones(3, np.float32), np.zeros((3, 6)), (0.0, 0.0), 1.0
    warp_block(colours, 5, 6, *how, made[0])
    warp_block(np.empty_like(colours), 5, 6, *how, made[1], mosaic=mosaic, codes=codes)
    assert np.isfinite(made).any()
    np.testing.assert_array_equal(*made)
