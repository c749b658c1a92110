from __future__ import annotations

import dataclasses

import make_group
import numpy as np
import pytest
from astropy.io import fits

from zmtile import Options
from zmtile.frames.frame import read_frame
from zmtile.frames.measure import measure
from zmtile.matching.match import match
from zmtile.matching.skysurface import surface_terms
from zmtile.progress import NullProgress
from zmtile.registration.transform import IDENTITY

SPEC = make_group.GroupSpec(
    frames=5, rows=512, cols=640, stars=200, seed=4, transparency=(0.6, 1.0), trails=0.0
)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    paths = make_group.write_group(SPEC, tmp_path_factory.mktemp("match"))
    frames = [read_frame(p) for p in paths]
    return frames, [measure(f) for f in frames], make_group.truth_of(SPEC)


def matched(group, **options):
    frames, stats, truth = group
    return match(frames, stats, list(truth.matrices), 0, Options(**options), NullProgress())


def test_scales_undo_the_transparency(group):
    truth = group[2]
    for k, light in enumerate(matched(group)):
        np.testing.assert_allclose(light.scale * truth.transparency[k], 1.0, atol=0.02)


def test_the_reference_is_left_alone(group):
    first = matched(group)[0]
    np.testing.assert_array_equal(first.scale, 1.0)
    np.testing.assert_array_equal(first.surface, 0.0)


def sky_left(group, light, k, points):
    """Difference of frame k's sky from the reference's after matching, at reference pixels, by the truth."""
    truth = group[2]
    middle = np.array([(SPEC.cols - 1) / 2, (SPEC.rows - 1) / 2])
    linear = np.linalg.inv(truth.matrices[k][:, :2])
    there = (points - truth.matrices[k][:, 2]) @ linear.T - middle
    terms = surface_terms(points, SPEC.rows, SPEC.cols, light.sky_degree)
    left = []
    for c in range(3):
        c0, cx, cy = truth.sky[k, c]
        r0, rx, ry = truth.sky[0, c]
        reference = r0 + (points - middle) @ [rx, ry]
        ours = light.scale[c] * (c0 + there @ [cx, cy]) + terms @ light.surface[c]
        left.append(ours - reference)
    return np.array(left)


def test_surfaces_bring_every_sky_onto_the_reference(group):
    points = np.array([[x, y] for x in (60.0, 320.0, 580.0) for y in (60.0, 250.0, 450.0)])
    lights = matched(group)
    for k in range(1, 5):
        # The scene itself is scaled rightly to 1 %: of the 100 ADU of nebula, 1 ADU is left.
        assert np.abs(sky_left(group, lights[k], k, points)).max() < 4.0


def test_offsets_bring_the_level_and_leave_the_gradient(group):
    points = np.array([[320.0, 250.0]])
    for k, light in enumerate(matched(group, normalize="both")):
        assert light.surface.shape == (3, 1)
        assert np.abs(sky_left(group, light, k, points)).max() < 12.0


@pytest.mark.parametrize(
    ("normalize", "scaled", "moved"), [("none", 0, 0), ("offset", 0, 1), ("scale", 1, 0), ("both", 1, 1)]
)
def test_normalize_does_what_it_says(group, normalize, scaled, moved):
    light = matched(group, normalize=normalize)[2]
    assert (light.scale != 1).all() == bool(scaled)
    assert (light.surface != 0).any() == bool(moved)


def test_noise_weights_are_inverse_variances_after_scaling(group):
    lights = matched(group)
    for light in lights:
        np.testing.assert_allclose(light.noise, 45 * light.scale, rtol=0.05)
    variance = np.array([light.noise for light in lights]) ** 2
    weight = np.array([light.weight for light in lights])
    np.testing.assert_allclose(
        weight * variance, np.broadcast_to(variance.min(axis=0), weight.shape), rtol=1e-9
    )
    np.testing.assert_array_equal([light.weight for light in matched(group, weight="none")], 1.0)


def test_a_frame_that_misses_the_reference_is_matched_through_its_neighbours(tmp_path):
    spec = dataclasses.replace(SPEC, chain=0.45, rotation=1.0, nebula=False)
    paths = make_group.write_group(spec, tmp_path)
    frames = [read_frame(p) for p in paths]
    truth = make_group.truth_of(spec)
    lights = match(frames, [measure(f) for f in frames], list(truth.matrices), 0, Options(), NullProgress())
    for k, light in enumerate(lights):
        np.testing.assert_allclose(light.scale * truth.transparency[k], 1.0, atol=0.05)


@pytest.mark.parametrize("overlap", [0.25, 0.12])
def test_a_narrow_overlap_invents_no_gradient(tmp_path, overlap):
    spec = dataclasses.replace(
        SPEC,
        frames=3,
        cols=960,
        chain=overlap,
        rotation=0.5,
        gradient=0.0,
        nebula=False,
        transparency=(1.0, 1.0),
    )
    frames = [read_frame(p) for p in make_group.write_group(spec, tmp_path)]
    truth = make_group.truth_of(spec)
    lights = match(frames, [measure(f) for f in frames], list(truth.matrices), 0, Options(), NullProgress())
    for light in lights:
        assert np.abs(light.surface[:, 1:]).max(initial=0) < 0.6 * 45


def test_a_channel_without_noise_weighs_alike(group):
    frames, stats, truth = group
    silent = [dataclasses.replace(s, noise=s.noise * [1, 1, 0]) for s in stats]
    lights = match(frames, silent, list(truth.matrices), 0, Options(), NullProgress())
    np.testing.assert_array_equal([light.weight[2] for light in lights], 1.0)
    assert all(np.isfinite(light.weight).all() for light in lights)


def test_stars_are_weighed_by_their_fluxes_also_where_nothing_is_scaled(group):
    truth = group[2]
    signal, noise, width = truth.transparency, 45.0, truth.fwhm
    scaled = np.array([light.weight[1] for light in matched(group, weight="stars")])
    expected = (signal / (noise * width)) ** 2
    np.testing.assert_allclose(scaled, expected / expected.max(), rtol=0.12)
    left = np.array([light.weight[1] for light in matched(group, weight="stars", normalize="offset")])
    expected = signal / (noise * width) ** 2
    np.testing.assert_allclose(left, expected / expected.max(), rtol=0.12)


@pytest.mark.parametrize("weight", ["noise", "fwhm", "stars"])
def test_a_binned_frame_weighs_as_what_it_was_binned_from(tmp_path, weight):
    """It has the same light and noise in a quarter of the pixels."""
    spec = dataclasses.replace(SPEC, frames=2, cfa=None, transparency=(1.0, 1.0), fwhm=(6.0, 6.0), gain=None)
    paths = make_group.write_group(dataclasses.replace(spec, rotation=0.0, dither=0.0), tmp_path)
    with fits.open(paths[1]) as hdus:
        binned = hdus[0].data.reshape(256, 2, 320, 2).sum(axis=(1, 3), dtype=np.float32)
        fits.writeto(paths[1], binned, hdus[0].header, overwrite=True)
    frames = [read_frame(p) for p in paths]
    double = np.array([[2.0, 0.0, 0.5], [0.0, 2.0, 0.5]])
    stats = [measure(f) for f in frames]
    lights = match(frames, stats, [IDENTITY, double], 0, Options(weight=weight), NullProgress())
    # Coarser pixels blur its stars a little. Counted by pixels, it would weigh four times as much.
    assert lights[1].weight[0] / lights[0].weight[0] == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(
    ("shift", "options", "degree"),
    [
        (0.3, {}, 2),
        (0.6, {}, 1),
        (0.6, {"sky_degree": 2}, 2),
        (0.3, {"sky_degree": 1}, 1),
        (0.3, {"normalize": "both"}, 0),
    ],
)
def test_surfaces_bend_where_half_of_every_frame_lies_on_the_reference(group, shift, options, degree):
    frames, stats, _ = group
    moved = IDENTITY + np.array([[0, 0, shift * SPEC.cols], [0, 0, 0]])
    maps = [IDENTITY, IDENTITY, moved]
    found = match(frames[:3], stats[:3], maps, 0, Options(**options), NullProgress())
    assert {light.sky_degree for light in found} == {degree}


def test_of_finer_frames_direct_samples_are_single_pixels(group):
    """Two pixels on one side of the tile's: a mean of four has half of the noise, a pixel has all of it."""
    frames, stats, _ = group
    maps = [IDENTITY, IDENTITY * 0.5]
    ways = [Options(normalize="none", cfa=cfa) for cfa in ("demosaic", "direct")]
    mean, direct = (match(frames[:2], stats[:2], maps, 0, o, NullProgress())[1] for o in ways)
    np.testing.assert_allclose(direct.noise, 4 * stats[1].noise)
    np.testing.assert_allclose(mean.noise, 2 * stats[1].noise)
    np.testing.assert_allclose(direct.weight, mean.weight / 4)
    np.testing.assert_allclose(direct.weight * direct.noise**2, stats[0].noise ** 2)
