"""Stars of two lists that lie on each other, against a KD-tree."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree
from starlists import COLS, ROWS, field

from zmtile.kernels.stars import count_repeats, nearest_stars
from zmtile.registration.starfield import pair_up
from zmtile.registration.transform import IDENTITY


def scattered(seed, count):
    xy = np.random.default_rng(seed).uniform(0, [COLS, ROWS], (count, 2))
    return field(xy, np.arange(count, 0.0, -1.0))


@pytest.mark.parametrize("radius", [3.0, 40.0])
@pytest.mark.parametrize("count", [1, 30, 1500])
def test_each_star_has_its_nearest_and_each_of_these_one_star(count, radius):
    source, target = scattered(1, count), scattered(2, count)
    found = dict(zip(*(v.tolist() for v in pair_up(source, target, IDENTITY, radius)), strict=True))
    distance, nearest = cKDTree(target.xy).query(source.xy, distance_upper_bound=radius)
    closest: dict[int, int] = {}
    for s in np.argsort(distance, kind="stable").tolist():
        if np.isfinite(distance[s]):
            closest.setdefault(int(nearest[s]), s)
    assert found == {s: t for t, s in closest.items()}
    assert list(found) == sorted(found)


def test_pairs_of_an_empty_list_are_none():
    nothing = field(np.empty((0, 2)), np.empty(0))
    assert pair_up(nothing, scattered(1, 5), IDENTITY, 5.0)[0].size == 0
    assert pair_up(scattered(1, 5), nothing, IDENTITY, 5.0)[0].size == 0


def test_what_repeats_at_one_place_is_counted():
    one = scattered(3, 400)
    xy = scattered(4, 400).xy
    xy[:50] = one.xy[:50] + 0.3
    other = field(xy, np.arange(400, 0.0, -1.0))
    seen = np.zeros(400, np.int64)
    for _ in range(2):
        count_repeats(one.places, other.places, 0.7, seen)
    distance, _ = cKDTree(other.xy).query(one.xy)
    expected = np.where(distance < 0.7, 2, 0)
    np.testing.assert_array_equal(seen, expected[one.order])
    assert (expected[:50] == 2).all()


@pytest.mark.parametrize("count", [1, 7, 300])
def test_neighbours_come_nearest_first(count):
    xy = scattered(5, count).xy
    near = np.empty((count, min(10, count)), np.int64)
    nearest_stars(xy, near)
    expected = cKDTree(xy).query(xy, near.shape[1])[1].reshape(near.shape)
    np.testing.assert_array_equal(near, expected)


def test_a_star_is_its_own_neighbour_where_others_share_its_place():
    near = np.empty((4, 3), np.int64)
    nearest_stars(np.zeros((4, 2)), near)
    np.testing.assert_array_equal(near[:, 0], range(4))
