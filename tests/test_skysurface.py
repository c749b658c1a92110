"""Sky surfaces from meshes made by formula: what is fitted is the difference of frames, never the scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats, SkyMesh, Stars
from zmtile.matching.pairs import pair_frames
from zmtile.matching.skysurface import sky_surfaces, surface_terms, terms_of
from zmtile.registration.transform import apply

ROWS, COLS, CELL, NOISE = 512, 768, 64, 40.0
FRAME = Frame(Path("a.fits"), "a.fits", ROWS, COLS, "mono", "", fits.Header())
NOTHING = np.empty(0)


def seen(matrix, sky, scene=lambda xy: 0.0, transparency=1.0, noise=NOISE, seed=None):
    """Stats of a frame that sees scene(xy) through its transparency, and sky(xy), at reference pixels xy."""
    mesh = SkyMesh(CELL, np.empty((1, ROWS // CELL, COLS // CELL), np.float32), np.empty(0))
    inside = np.arange(2, CELL, 4) - (CELL - 1) / 2  # a cell's level is the mean over its area
    x, y = np.meshgrid(*mesh.centres)
    points = np.stack(np.meshgrid(inside, inside), axis=-1).reshape(-1, 1, 2) + np.column_stack(
        [x.ravel(), y.ravel()]
    )
    xy = apply(matrix, points.reshape(-1, 2))
    value = (transparency * scene(xy) + sky(xy)).reshape(len(points), *x.shape).mean(axis=0)
    error = np.float32(noise / CELL)
    if seed is not None:
        value = value + np.random.default_rng(seed).normal(0, error, value.shape)
    level = value.astype(np.float32)[None]
    stars = Stars(NOTHING, NOTHING, NOTHING, NOTHING, np.empty((1, 0), np.float32), NOTHING)
    mesh = SkyMesh(CELL, level, np.full_like(level, error))
    return FrameStats(stars, np.nan, np.nan, np.array([noise]), mesh, 0, 1.0, "")


def turned(k, degrees=8.0, shift=40.0):
    """Matrix of frame k: the first is the reference, the others are turned and shifted at random."""
    rng = np.random.default_rng(k)
    angle = np.radians(rng.uniform(-degrees, degrees)) if k else 0.0
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([(COLS - 1) / 2, (ROWS - 1) / 2])
    moved = middle + (rng.uniform(-shift, shift, 2) if k else 0.0)
    return np.column_stack([linear, moved - linear @ middle])


def polynomial(coefficients):
    degree = {1: 0, 3: 1, 6: 2}[len(coefficients)]
    return lambda xy: surface_terms(xy, ROWS, COLS, degree) @ coefficients


def solved(stats, matrices, degree, factor=None):
    frames = [FRAME] * len(stats)
    factor = np.ones((len(stats), 1)) if factor is None else np.asarray(factor, float)[:, None]
    pairs = pair_frames(frames, matrices, 0)
    return sky_surfaces(frames, stats, matrices, pairs, 0, factor, degree)[:, 0]


def nebula(peak, sigma, x=420.0, y=230.0):
    return lambda xy: peak * np.exp(-0.5 * ((xy[:, 0] - x) ** 2 + (xy[:, 1] - y) ** 2) / sigma**2)


GRID = np.stack(np.meshgrid(np.arange(20.0, COLS, 60), np.arange(20.0, ROWS, 60)), axis=-1).reshape(-1, 2)
skies = st.lists(st.floats(-200, 200), min_size=6, max_size=6)


@settings(max_examples=30, deadline=None)
@given(skies, skies, st.sampled_from([0, 1, 2]))
def test_any_polynomial_sky_is_taken_off(one, two, degree):
    terms = terms_of(degree)
    matrices = [turned(k) for k in range(3)]
    true = np.array([np.zeros(terms), one[:terms], two[:terms]])
    stats = [seen(m, polynomial(900.0 * np.eye(terms)[0] + t)) for m, t in zip(matrices, true, strict=True)]
    left = surface_terms(GRID, ROWS, COLS, degree) @ (solved(stats, matrices, degree) + true).T
    # A mesh of 96 cells, interpolated between them, does not tell a bend better than to some percent.
    assert np.abs(left).max() < (0.01 if degree < 2 else 0.05) * (10 + np.abs(true).max())


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("sigma", [60.0, 160.0, 400.0])
def test_a_nebula_is_never_flattened(degree, sigma):
    scene, clear = nebula(1500.0, sigma), [1.0, 0.6, 0.8, 0.7, 0.9]
    matrices = [turned(k) for k in range(5)]
    stats = [
        seen(m, polynomial([900.0 + 30 * k, 50.0 - 20 * k, 15.0 * k]), scene, t, seed=k)
        for k, (m, t) in enumerate(zip(matrices, clear, strict=True))
    ]
    surfaces = solved(stats, matrices, degree, 1 / np.array(clear))
    for k in range(1, 5):
        sky = polynomial([900.0 + 30 * k, 50.0 - 20 * k, 15.0 * k])(GRID) / clear[k]
        left = (
            sky + surface_terms(GRID, ROWS, COLS, degree) @ surfaces[k] - polynomial([900.0, 50.0, 0])(GRID)
        )
        assert np.abs(left).max() < 3.0  # of 1500 ADU of nebula; a cell is known to 0.6 ADU


def test_a_nebula_whose_scale_is_wrong_does_not_tilt_the_sky():
    # 2 % of 1500 ADU are 30 ADU in the middle of the nebula.
    matrices = [turned(k) for k in range(4)]
    stats = [seen(m, polynomial([900.0]), nebula(1500.0, 60.0), seed=k) for k, m in enumerate(matrices)]
    surfaces = solved(stats, matrices, 1, [1.0, 1.02, 0.98, 1.02])
    level = 900.0 * (np.array([1.0, 1.02, 0.98, 1.02]) - 1)
    left = level[:, None] + surfaces @ surface_terms(GRID, ROWS, COLS, 1).T
    assert np.abs(left).max() < 2.0


def test_neither_frame_of_a_pair_is_raised_where_the_mesh_is_too_coarse():
    # Half a cell apart, the mesh of each lies 30 ADU below the other's cell at the nebula's peak.
    matrices = [np.eye(2, 3), np.array([[1.0, 0, CELL / 2], [0, 1, CELL / 2]])]
    stats = [seen(m, polynomial([900.0]), nebula(400.0, 50.0)) for m in matrices]
    assert np.abs(solved(stats, matrices, 1)).max() < 0.2


def test_the_order_of_frames_has_no_say():
    matrices = [turned(k) for k in range(6)]
    stats = [seen(m, polynomial([900.0, 9.0 * k, -7.0 * k]), seed=k) for k, m in enumerate(matrices)]
    order = [0, 4, 2, 5, 1, 3]
    moved = solved([stats[k] for k in order], [matrices[k] for k in order], 2)
    np.testing.assert_allclose(moved, solved(stats, matrices, 2)[order], atol=1e-6)


@pytest.mark.parametrize("overlap", [0.3, 0.12])
def test_a_narrow_overlap_invents_no_bend(overlap):
    matrices = [np.array([[1.0, 0, k * COLS * (1 - overlap)], [0, 1, 0]]) for k in range(3)]
    stats = [seen(m, polynomial([900.0]), seed=k) for k, m in enumerate(matrices)]
    surfaces = solved(stats, matrices, 2)
    for k in (1, 2):
        across = surface_terms(apply(matrices[k], GRID), ROWS, COLS, 2) @ surfaces[k]
        assert np.ptp(across) < k * 1.5 * NOISE


def test_stars_in_cells_do_not_count():
    matrices = [turned(k) for k in range(3)]
    stats = [seen(m, polynomial([900.0, 30.0 * k, 0.0]), seed=k) for k, m in enumerate(matrices)]
    sky = stats[1].sky
    rng = np.random.default_rng(9)
    level = sky.level + np.where(rng.random(sky.level.shape) < 0.15, rng.uniform(5, 60), 0).astype(np.float32)
    stats[1] = dataclasses.replace(stats[1], sky=dataclasses.replace(sky, level=level))
    surfaces = solved(stats, matrices, 1)
    np.testing.assert_allclose(surfaces[1], [0.0, -30.0, 0.0], atol=0.8)
