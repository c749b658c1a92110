from __future__ import annotations

import dataclasses

import make_group
import numpy as np
import pytest
from astropy.io import fits

from zmtile.frames.frame import read_frame
from zmtile.frames.measure import measure
from zmtile.kernels.clipped import clipped_mean
from zmtile.kernels.demosaic import pattern_codes
from zmtile.kernels.luminance import light_of
from zmtile.kernels.photometry import aperture_fluxes
from zmtile.kernels.sky import sky_mesh, step_noise
from zmtile.registration.transform import apply, invert

SPEC = make_group.GroupSpec(frames=2, rows=512, cols=640, stars=150, seed=2, trails=0.0, nebula=False)
GREY = np.zeros((2, 2), np.uint8)


def measured(spec, folder, k=1):
    path = make_group.write_group(spec, folder)[k]
    return measure(read_frame(path)), make_group.truth_of(spec)


@pytest.mark.parametrize("cfa", ["GRBG", "RGGB", None, "RGB"])
def test_stars_are_where_truth_says(tmp_path, cfa):
    spec = dataclasses.replace(SPEC, cfa=cfa, cosmic_rays=0)
    stats, truth = measured(spec, tmp_path)
    sky = apply(invert(truth.matrices[1]), np.column_stack([truth.x, truth.y]))
    distance = np.hypot(*(stats.stars.xy[:, None] - sky[None]).transpose(2, 0, 1))
    nearest = distance.argmin(axis=1)
    matched = distance.min(axis=1) < 1.0
    assert matched.mean() > 0.9
    bright = np.flatnonzero(matched)[:30]
    offset = stats.stars.xy[bright] - sky[nearest[bright]]
    assert np.abs(np.median(offset, axis=0)).max() < 0.02  # no half pixel lost on the way
    assert np.hypot(*offset.T).mean() < 0.12


@pytest.mark.parametrize("cfa", ["GRBG", None])
def test_fwhm_noise_and_sky(tmp_path, cfa):
    spec = dataclasses.replace(SPEC, cfa=cfa, fwhm=(3.0, 3.0), hot_pixels=0.0, cosmic_rays=0)
    stats, truth = measured(spec, tmp_path)
    assert stats.fwhm == pytest.approx(3.05, abs=0.2)  # a pixel widens what it integrates
    np.testing.assert_allclose(stats.noise, 45.0, rtol=0.03)
    x, y = stats.sky.centres
    xx, yy = np.meshgrid(x - (spec.cols - 1) / 2, y - (spec.rows - 1) / 2)
    for c in range(spec.channels):
        c0, cx, cy = truth.sky[1, c]
        level = stats.sky.level[c] - (c0 + cx * xx + cy * yy)
        assert abs(np.nanmedian(level)) < 1.5  # faint stars lift it a little
        assert np.nanstd(level) < 8


def test_channel_fluxes_are_those_of_the_stars(tmp_path):
    spec = dataclasses.replace(SPEC, gain=None, noise=5.0, cosmic_rays=0, hot_pixels=0.0, stars=60)
    stats, truth = measured(spec, tmp_path)
    sky = apply(invert(truth.matrices[1]), np.column_stack([truth.x, truth.y]))
    ratios = []
    for i in range(15):
        away = np.hypot(*(sky - stats.stars.xy[i]).T)
        s = int(away.argmin())
        if away[s] < 0.5 and np.sort(away)[1] > 40:
            ratios.append(stats.stars.channel_flux[:, i] / (truth.flux[:, s] * truth.transparency[1]))
    assert len(ratios) >= 4
    np.testing.assert_allclose(np.median(ratios, axis=0), 1.0, atol=0.01)


def test_hot_pixels_are_no_stars(tmp_path):
    spec = dataclasses.replace(SPEC, hot_pixels=3e-3, cosmic_rays=0)
    stats, truth = measured(spec, tmp_path)
    sky = apply(invert(truth.matrices[1]), np.column_stack([truth.x, truth.y]))
    distance = np.hypot(*(stats.stars.xy[:, None] - sky[None]).transpose(2, 0, 1)).min(axis=1)
    assert stats.hot > 500
    assert (distance < 1.5).mean() > 0.75


@pytest.mark.parametrize("fill", [np.nan, 100.0])
def test_frames_without_stars(tmp_path, fill):
    path = tmp_path / "empty.fits"
    fits.writeto(path, np.full((128, 128), fill, np.float32))
    stats = measure(read_frame(path))
    assert len(stats.stars) == 0
    assert np.isnan(stats.fwhm)
    assert stats.finite == (0.0 if np.isnan(fill) else 1.0)


def test_data_that_ends_inside_the_frame_is_no_edge_of_stars(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 10, (256, 256)).astype(np.float32)
    image[:, :100] = np.nan
    path = tmp_path / "half.fits"
    fits.writeto(path, image)
    stats = measure(read_frame(path))
    assert len(stats.stars) <= 1
    assert stats.finite == pytest.approx(156 / 256)
    assert np.isnan(stats.sky.level[0, 0, 0])


def test_clipped_mean_sees_through_stars_and_steps():
    rng = np.random.default_rng(1)
    values = np.round(rng.normal(1003.7, 40, 4000) / 16).astype(np.float32) * 16
    values[:200] += 2000
    mean, sigma, kept = clipped_mean(values, values.size, np.empty(256, np.float32), np.empty(256, np.int32))
    assert mean == pytest.approx(1003.7, abs=2.0)
    assert sigma == pytest.approx(40, rel=0.05)
    assert kept < 3850


def test_noise_below_the_cameras_step_is_not_zero(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "coarse.fits"
    fits.writeto(path, np.round(rng.normal(100.29, 0.4, (256, 256))).astype(np.int16))
    stats = measure(read_frame(path))
    assert stats.noise[0] == pytest.approx(np.hypot(0.4, 12**-0.5), rel=0.25)
    assert np.nanmedian(stats.sky.level) == pytest.approx(100.29, abs=0.05)
    assert np.nanmin(stats.sky.error) > 0


def test_sky_mesh_measures_each_colour_alone():
    codes = pattern_codes("RGGB")
    y, x = np.mgrid[:64, :64]
    mosaic = np.array([500, 800, 300], np.float32)[codes[y % 2, x % 2]]
    mosaic += np.random.default_rng(0).normal(0, 1, mosaic.shape).astype(np.float32)
    found, sigma = np.empty((3, 2, 2), np.float32), np.empty((3, 2, 2), np.float32)
    kept = np.empty((3, 2, 2), np.int64)
    sky_mesh(mosaic[None], codes, 32, 1, found, sigma, kept)
    for channel, level in enumerate((500, 800, 300)):
        samples = 512 if channel == 1 else 256
        np.testing.assert_allclose(found[channel], level, atol=0.3)
        np.testing.assert_allclose(sigma[channel], 1, rtol=0.2)
        assert ((kept[channel] > 0.95 * samples) & (kept[channel] <= samples)).all()


@pytest.mark.parametrize("step", [1, 4])
def test_sky_mesh_of_a_plane_is_that_of_its_cells(step):
    plane = np.random.default_rng(0).normal(100, 5, (150, 1300)).astype(np.float32)
    plane[:, 640:] += 50
    plane[:64, :64] = np.nan
    level, sigma, kept = (np.empty((1, 2, 20), t) for t in (np.float32, np.float32, np.int64))
    sky_mesh(plane[None], GREY, 64, step, level, sigma, kept)
    assert np.isnan(level[0, 0, 0])
    for i, j in ((0, 1), (1, 0), (1, 9), (1, 10), (1, 19)):
        cell = plane[64 * i : 64 * i + 64 : step, 64 * j : 64 * j + 64]
        near = cell[np.abs(cell - np.median(cell)) < 2.5 * cell.std()]
        assert level[0, i, j] == pytest.approx(near.mean(), abs=0.05)
        assert sigma[0, i, j] == pytest.approx(near.std() / 0.9546, rel=0.02)
        assert kept[0, i, j] == pytest.approx(near.size, rel=0.01)


@pytest.mark.parametrize("stride", [1, 2])
def test_step_noise_is_that_of_the_plain_definition(stride):
    rng = np.random.default_rng(3)
    plane = rng.normal(900, 45, (64, 200)).astype(np.float32)
    plane[rng.random(plane.shape) < 0.02] = np.nan
    plane[8, 10:20] += 4000
    steps = np.abs(np.diff(plane[0::8, 1::stride].astype(float), axis=1)).ravel()
    steps = np.sort(steps[np.isfinite(steps)])
    sigma = 1.4826 * steps[(steps.size - 1) // 2]
    for _ in range(2):
        sigma = np.sqrt(np.mean(steps[steps <= 3 * sigma] ** 2)) / 0.98658
    values, keys = np.empty(plane.size, np.float32), np.empty(plane.size, np.int32)
    assert step_noise(plane, 0, 1, 8, stride, values, keys) == pytest.approx(sigma / np.sqrt(2), rel=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (7, 300)])
def test_light_of_a_mosaic_is_the_mean_of_levelled_blocks(shape):
    codes = pattern_codes("RGGB")
    plane = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    plane[2, 3] = np.nan
    y, x = np.mgrid[: shape[0], : shape[1]]
    base = np.array([500, 800, 300], np.float32)
    out = np.empty((shape[0] - 1, shape[1] - 1), np.float32)
    level = np.full((3, 1, 1), np.nan, np.float32)
    counts = light_of(plane + base[codes[y % 2, x % 2]], codes, level, 16, base, np.ones(3, np.float32), out)
    blocks = [plane[i : shape[0] - 1 + i, j : shape[1] - 1 + j] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_allclose(out, np.mean(blocks, axis=0), atol=1e-4)
    assert counts == (0, 1)


def test_light_keeps_stars_and_takes_spikes():
    y, x = np.mgrid[:64, :64]
    rng = np.random.default_rng(0)
    image = rng.normal(1000, 5, (64, 64)).astype(np.float32)
    image += (3000 * np.exp(-4 * np.log(2) * ((x - 20.3) ** 2 + (y - 30.4) ** 2) / 1.8**2)).astype(np.float32)
    image[40, 50] += 5000
    image[0, 5] += 5000  # at the edge nobody can tell
    out = np.empty_like(image)
    level = np.full((1, 4, 4), 1010, np.float32)
    counts = light_of(image, GREY, level, 16, np.array([1000], np.float32), np.array([5], np.float32), out)
    assert counts == (1, 0)
    assert out[40, 50] == 10
    out[40, 50] = image[40, 50] - 1000
    np.testing.assert_array_equal(out, image - 1000)


def test_an_aperture_with_a_hole_has_no_flux():
    image = np.full((1, 60, 60), 10, np.float32)
    image[0, 30, 32] = np.nan
    flux = np.empty((1, 2), np.float32)
    aperture_fluxes(image, GREY, np.array([30.0, 12.0]), np.array([30.0, 12.0]), 4.0, flux)
    assert np.isnan(flux[0, 0])
    assert flux[0, 1] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("cfa", [None, "GRBG"])
def test_errors_of_faint_stars_are_those_of_their_centroids(tmp_path, cfa):
    """Detection sees two thirds of a faint star's light; its error must be that of the whole star."""
    rng = np.random.default_rng(0)
    at = np.arange(32.0, 500.0, 24.0)
    xy = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) + rng.uniform(-0.5, 0.5, (at.size**2, 2))
    light = make_group._starlight(*xy.T, np.full((1, len(xy)), 6900.0), (512, 512), 3.0, None)[0]
    path = tmp_path / "faint.fits"
    pixels = (900 + light + rng.normal(0, 45, light.shape)).astype(np.float32)
    fits.writeto(path, pixels, fits.Header({"BAYERPAT": cfa} if cfa else {}))
    stars = measure(read_frame(path)).stars
    away = stars.xy[:, None] - xy[None]
    nearest = np.hypot(*away.transpose(2, 0, 1)).argmin(axis=1)
    error = stars.xy - xy[nearest]
    pull = error[np.hypot(*error.T) < 1] / stars.error[np.hypot(*error.T) < 1, None]
    assert len(pull) > 350
    # Of the 60 mpx that the Cramér-Rao bound allows, and the floor of 20 mpx that a simulation lacks.
    assert np.sqrt((pull**2).mean()) == pytest.approx(0.93, abs=0.08)
    assert np.sqrt((error[np.hypot(*error.T) < 1] ** 2).mean()) < 1.1 * 0.060
