from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile.kernels.bend import NODE_STEP, lay_nodes
from zmtile.registration.mapping import (
    Bent,
    apply,
    area_at,
    border,
    compose,
    flat_bend,
    invert,
    map_of,
    scale_of,
)
from zmtile.registration.transform import IDENTITY, Transform

ROWS, COLS = 1080, 1920
TURNED = np.array([[0.7, -0.72, 300.0], [0.72, 0.7, -100.0]])


def bent(matrix=TURNED, tilt=(0.01, -0.02), size=5.0, seed=0):
    bend = flat_bend(ROWS, COLS)
    bend[4:6] = tilt
    bend[6:] = np.random.default_rng(seed).uniform(-size, size, 14)
    return Bent(matrix, bend)


def scattered(count=200, beyond=0.0, seed=1):
    span = np.array([COLS, ROWS])
    return np.random.default_rng(seed).uniform(-beyond * span, (1 + beyond) * span, (count, 2))


@pytest.mark.parametrize("beyond", [0.0, 1.0])
def test_points_go_where_the_oracle_says(beyond):
    curved, points = bent(), scattered(beyond=beyond)
    expected = [oracle.bent_point(curved.matrix, curved.bend, x, y) for x, y in points]
    np.testing.assert_allclose(apply(curved, points), expected, atol=1e-9)


@given(
    st.floats(-180, 180),
    st.floats(0.5, 2.0),
    st.tuples(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03)),
    st.floats(0, 8),
    st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_there_and_back_is_where_one_was(degrees, scale, tilt, size, seed):
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    curved = bent(np.array([[c, -s, 40.0], [s, c, 7.0]]), tilt, size, seed)
    assert curved.sound
    points = scattered(50, beyond=2.0, seed=seed)  # far outside of the frame, too
    np.testing.assert_allclose(apply(invert(curved), apply(curved, points)), points, atol=1e-7)
    np.testing.assert_allclose(apply(curved, apply(invert(curved), points)), points, atol=1e-7)


def test_the_matrix_is_the_tangent_at_the_centre():
    curved, centre = bent(), flat_bend(ROWS, COLS)[:2]
    step = np.array([[1e-3, 0.0], [0.0, 1e-3], [0.0, 0.0]])
    np.testing.assert_allclose(apply(curved, centre + step), apply(TURNED, centre + step), atol=1e-7)
    assert area_at(curved, centre[None])[0] == pytest.approx(scale_of(curved) ** 2)


def test_area_is_that_of_a_small_square():
    curved, points, step = bent(), scattered(), 1e-3
    across = (apply(curved, points + np.array([step, 0])) - apply(curved, points - np.array([step, 0]))) / (
        2 * step
    )
    down = (apply(curved, points + np.array([0, step])) - apply(curved, points - np.array([0, step]))) / (
        2 * step
    )
    expected = np.abs(across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0])
    np.testing.assert_allclose(area_at(curved, points), expected, rtol=1e-6)
    np.testing.assert_allclose(area_at(invert(curved), apply(curved, points)), 1 / expected, rtol=1e-6)


def test_beyond_the_frame_only_the_matrix_is_left():
    curved = bent()
    away = np.array([[5000.0, 700.0], [5100.0, 700.0]])
    moved = apply(curved, away)
    np.testing.assert_allclose(moved[1] - moved[0], TURNED[:, :2] @ [100.0, 0.0])


def test_composed_maps_are_one_after_the_other():
    first, second, points = bent(seed=1), bent(seed=2, tilt=(0.0, 0.01)), scattered()
    both = compose(second, first)
    np.testing.assert_array_equal(apply(both, points), apply(second, apply(first, points)))
    np.testing.assert_allclose(apply(invert(both), apply(both, points)), points, atol=1e-7)
    area = area_at(first, points) * area_at(second, apply(first, points))
    np.testing.assert_array_equal(area_at(both, points), area)
    assert isinstance(compose(TURNED, IDENTITY), np.ndarray)


def test_a_map_that_folds_the_frame_is_not_sound():
    assert not bent(size=400.0).sound
    assert not bent(tilt=(0.4, 0.4), size=0.0).sound
    assert bent().sound


def test_reach_bounds_how_far_a_bend_leads_from_its_matrix():
    for seed in range(5):
        curved, points = bent(seed=seed), scattered(2000, beyond=0.5, seed=seed)
        straight = apply(invert(curved.matrix), points)
        away = np.abs(apply(invert(curved), points) - straight).max(axis=0)
        assert (away <= curved.reach).all()
        assert (away > 0.05 * curved.reach).all()


def test_a_transform_without_a_bend_is_its_matrix():
    assert map_of(Transform(TURNED, 9, 0.1)) is TURNED
    assert isinstance(map_of(Transform(TURNED, 9, 0.1, flat_bend(ROWS, COLS))), Bent)


def test_the_border_of_a_bent_frame_has_points_between_its_corners():
    assert len(border(TURNED, ROWS, COLS)) == 4
    edge = border(bent(), ROWS, COLS)
    assert len(edge) > 100
    back = apply(invert(bent()), edge)
    on = np.isclose(back, 0, atol=1e-6) | np.isclose(back, [COLS - 1, ROWS - 1], atol=1e-6)
    assert on.any(axis=1).all()


def test_nodes_are_the_way_back_and_belong_to_the_tile():
    curved = bent()
    nodes, part = np.empty((3, 6, 8)), np.empty((3, 2, 3))
    lay_nodes(curved.matrix, curved.back, curved.bend, -7.0, 11.0, 20, 30, nodes)
    lay_nodes(curved.matrix, curved.back, curved.bend, -7.0, 11.0, 23, 34, part)
    np.testing.assert_array_equal(part, nodes[:, 3:5, 4:7])
    rows, cols = np.mgrid[20:26, 30:38] * NODE_STEP
    points = np.column_stack([cols.ravel() - 7.0, rows.ravel() + 11.0])
    np.testing.assert_allclose(nodes[:2].reshape(2, -1).T, apply(invert(curved), points), atol=1e-8)
    np.testing.assert_allclose(nodes[2].ravel(), area_at(invert(curved), points))


def test_between_nodes_a_lens_is_straight_to_half_a_step_of_the_tables():
    """1 % of barrel distortion at the corners, and 1/2048 px of the kernels' tables."""
    bend = flat_bend(ROWS, COLS)
    half, corner = bend[2:4], np.hypot(COLS, ROWS) / 2
    for axis, terms in ((0, (3, 5)), (1, (6, 4))):  # x³, x y² and y³, x² y
        other = 1 - axis
        bend[6 + 7 * axis + terms[0]] = -0.01 * half[axis] ** 3 / corner**2
        bend[6 + 7 * axis + terms[1]] = -0.01 * half[axis] * half[other] ** 2 / corner**2
    lens = Bent(IDENTITY.copy(), bend)
    ends = np.array([[0.0, 0.0]])
    assert np.hypot(*(apply(lens, ends) - ends)[0]) == pytest.approx(0.01 * corner, rel=0.01)
    y, x = np.mgrid[0 : ROWS : 10 * NODE_STEP, 0 : COLS : 10 * NODE_STEP]
    at = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    cell = [apply(invert(lens), at + NODE_STEP * np.array(c)) for c in ((0, 0), (1, 0), (0, 1), (1, 1))]
    middle = apply(invert(lens), at + NODE_STEP / 2)
    error = np.abs(np.mean(cell, axis=0) - middle).max()
    assert error < 2.5e-4  # half a step of the table; measured 1.4e-4 px
