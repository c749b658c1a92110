from __future__ import annotations

import numpy as np
import pytest
from test_mapping import COLS, ROWS, TURNED, bent, scattered

from zmtile.registration.mapping import Bent, apply, compose, invert
from zmtile.registration.models import (
    MODELS,
    SIMPLER,
    WIDTH,
    Pairs,
    changed,
    columns,
    fit_each,
    fit_points,
    improve,
    plain,
)
from zmtile.registration.transform import IDENTITY


def true_map(model):
    if model == "similarity":
        return plain(np.array([[0.7, -0.72, 300.0], [0.72, 0.7, -100.0]]), ROWS, COLS)
    if model == "affine":
        return plain(np.array([[1.01, 0.02, 5.0], [-0.03, 0.98, 7.0]]), ROWS, COLS)
    if model == "homography":
        return bent(size=0.0)
    curved = bent(tilt=(0.0, 0.0))
    if model == "poly2":
        curved.bend[9:13] = curved.bend[16:20] = 0.0
    return curved


@pytest.mark.parametrize("model", MODELS)
def test_a_fit_finds_the_map(model):
    points, true = scattered(300), true_map(model)
    found = fit_points(model, (ROWS, COLS), points, apply(true, points), np.full(300, 1e10))
    np.testing.assert_allclose(apply(found, points), apply(true, points), atol=1e-5)
    np.testing.assert_allclose(found.matrix, true.matrix, atol=1e-6)


def test_models_that_are_fitted_together_are_those_fitted_alone():
    points, weight = scattered(80), np.linspace(1, 100, 80)
    target = apply(true_map("poly3"), points)
    together = fit_each(MODELS, (ROWS, COLS), points, target, weight)
    for model, found in zip(MODELS, together, strict=True):
        alone = fit_points(model, (ROWS, COLS), points, target, weight)
        np.testing.assert_array_equal(found.matrix, alone.matrix)
        np.testing.assert_array_equal(found.bend, alone.bend)


@pytest.mark.parametrize("model", MODELS)
def test_columns_are_the_derivatives(model):
    now, points = true_map(model), scattered(20)
    slopes = columns(model, now, points)
    assert slopes.shape == (40, WIDTH[model])
    for p in range(WIDTH[model]):
        step = np.zeros(WIDTH[model])
        step[p] = 1e-4
        ahead, behind = (apply(changed(model, now, s), points) for s in (step, -step))
        np.testing.assert_allclose(slopes[:, p], ((ahead - behind) / 2e-4).T.ravel(), rtol=1e-5, atol=1e-3)


def test_weights_decide():
    points, true = scattered(300), true_map("poly3")
    target, weight = apply(true, points), np.full(300, 1e8)
    target[0] += 100
    weight[0] = 1e-6
    found = fit_points("poly3", (ROWS, COLS), points, target, weight)
    np.testing.assert_allclose(apply(found, points[1:]), target[1:], atol=1e-3)


def test_where_no_stars_are_a_bend_stays_small():
    """Noise on a third of the frame, extrapolated by a cubic without any expectation, goes wild."""
    points = scattered(60) * [0.3, 1.0]
    target = apply(TURNED, points) + np.random.default_rng(3).normal(0, 0.1, (60, 2))
    found = fit_points("poly3", (ROWS, COLS), points, target, np.full(60, 100.0))
    far = np.array([[COLS - 1.0, ROWS / 2]])
    assert np.hypot(*(apply(found, far) - apply(TURNED, far))[0]) < 30
    assert np.abs(found.bend[6:]).max() < 20


@pytest.mark.parametrize("model", ["affine", "homography", "poly3"])
def test_a_chain_is_solved_together(model):
    """Frame 1 lies on frame 0, frame 2 on frame 1 only; noiseless, both are found exactly."""
    maps = {0: IDENTITY, 1: true_map(model)}
    second = Bent(TURNED + np.array([[0, 0, 400], [0, 0, 90]]), maps[1].bend)
    here = scattered(200, seed=5)
    # The points of frame 1 that frame 2's points are, found by the oracle's way back.
    there = apply(compose(invert(maps[1]), second), here)
    inside = ((there >= 0) & (there <= [COLS - 1, ROWS - 1])).all(axis=1)
    weight = np.full(inside.sum(), 1e8)
    first = scattered(200, seed=6)
    pairs = [
        Pairs(0, 1, apply(maps[1], first), first, np.full(200, 1e8)),
        Pairs(1, 2, there[inside], here[inside], weight),
    ]
    start = {k: plain(m.matrix, ROWS, COLS) for k, m in ((1, maps[1]), (2, second))}
    found = improve({0: IDENTITY, **start}, {1: model, 2: model}, pairs)
    np.testing.assert_allclose(apply(found[1], first), apply(maps[1], first), atol=1e-3)
    if model != "affine":  # the second map is no affine one
        np.testing.assert_allclose(apply(found[2], here[inside]), apply(second, here[inside]), atol=1e-3)


def test_every_model_comes_down_to_a_similarity():
    for model in MODELS[1:]:
        assert WIDTH[SIMPLER[model]] < WIDTH[model]
        while model != "similarity":
            model = SIMPLER[model]
