from __future__ import annotations

import numpy as np
import pytest

from zmtile.registration.transform import IDENTITY, apply, compose, corners, fit, invert, scale_of

TURNED = np.array([[0.8, -0.7, 12.0], [0.7, 0.8, -30.0]])
SHEARED = np.array([[1.01, 0.02, 5.0], [-0.03, 0.98, 7.0]])


@pytest.mark.parametrize(
    ("model", "matrix"), [("similarity", TURNED), ("affine", TURNED), ("affine", SHEARED)]
)
def test_fit_finds_the_matrix(model, matrix):
    points = np.random.default_rng(0).uniform(0, 2000, (30, 2))
    np.testing.assert_allclose(fit(model, points, apply(matrix, points)), matrix, atol=1e-8)


def test_weights_decide():
    points = np.random.default_rng(0).uniform(0, 2000, (30, 2))
    target = apply(TURNED, points)
    target[0] += 100
    weight = np.ones(30)
    weight[0] = 1e-12
    np.testing.assert_allclose(fit("similarity", points, target, weight), TURNED, atol=1e-6)


def test_invert_and_compose_undo_each_other():
    np.testing.assert_allclose(compose(invert(SHEARED), SHEARED), IDENTITY, atol=1e-12)
    points = corners(100, 200)
    np.testing.assert_allclose(apply(compose(TURNED, SHEARED), points), apply(TURNED, apply(SHEARED, points)))


def test_scale():
    assert scale_of(2 * IDENTITY) == pytest.approx(2)
    assert scale_of(np.array([[-1.0, 0, 0], [0, 1, 0]])) == pytest.approx(1)
