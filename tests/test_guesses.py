from __future__ import annotations

import itertools

import astroalign
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlists import corner_error, pair, turn

from zmtile.registration.guesses import match_asterisms, search_pairs, search_triangles, triangles
from zmtile.registration.starmatch import ANY_SCALE, NEAR_SCALE, refine
from zmtile.registration.transform import apply


def best_error(guesses, source, target, matrix):
    refined = [refine(source, target, guess) for guess in guesses]
    return min((corner_error(t.matrix, matrix) for t in refined if t is not None), default=np.inf)


@pytest.mark.parametrize("spread", [NEAR_SCALE, ANY_SCALE])
def test_pairs_find_few_stars(spread):
    source, target, matrix = pair(9, 20, spurious=0.5, lost=0.3)
    assert best_error(search_pairs(source.xy, target.xy, spread), source, target, matrix) < 0.5


@pytest.mark.parametrize(("spread", "scale"), [(NEAR_SCALE, 1.01), (ANY_SCALE, 1.3)])
def test_triangles_find_a_narrow_overlap_among_spurious_detections(spread, scale):
    source, target, matrix = pair(1, 300, turn(33, 1200, 0, scale), spurious=0.7)
    assert best_error(search_triangles(source.xy, target.xy, spread), source, target, matrix) < 0.5


def test_astroalign_finds_common_stars_and_the_same_every_time():
    source, target, matrix = pair(3, 60, spurious=0.1, lost=0.1)
    first, again = (list(match_asterisms(source.xy, target.xy)) for _ in range(2))
    assert best_error(first, source, target, matrix) < 0.5
    np.testing.assert_array_equal(first, again)


def test_astroalign_stays_as_it_was_for_others():
    source, target, _ = pair(3, 60)
    list(match_asterisms(source.xy, target.xy))
    list(match_asterisms(source.xy[:2], target.xy))
    assert astroalign._np is np


def test_astroalign_that_finds_nothing_is_no_error():
    source, target, _ = pair(3, 60)
    assert list(match_asterisms(source.xy[:2], target.xy)) == []


def test_the_best_of_all_pairs_brings_as_many_stars_home_as_a_plain_search_finds():
    rng = np.random.default_rng(5)
    here, there = rng.uniform(0, 400, (2, 12, 2))
    there[:6] = apply(turn(20, 30, 40), here[:6]) + rng.normal(0, 0.3, (6, 2))
    best = 0
    z, w = here @ [1, 1j], there @ [1, 1j]
    for i, j in itertools.combinations(range(12), 2):
        for k, m in itertools.permutations(range(12), 2):
            a = (w[m] - w[k]) / (z[j] - z[i])
            if abs(np.log(abs(a))) <= NEAR_SCALE and abs(z[j] - z[i]) > 40:
                best = max(best, (np.abs(a * z + w[k] - a * z[i] - w[:, None]).min(axis=0) < 3.0).sum())
    first = next(search_pairs(here, there, NEAR_SCALE))
    home = np.hypot(*(apply(first, here)[None] - there[:, None]).transpose(2, 0, 1)).min(axis=0)
    assert (home < 4.0).sum() >= best >= 6


@given(
    st.floats(-180, 180),
    st.floats(0.5, 2.0),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_a_triangle_keeps_its_shape_whatever_moves_it(degrees, scale, mirrored, seed):
    xy = np.random.default_rng(seed).uniform(0, 1000, (3, 2))
    _, shape = triangles(xy)
    _, moved = triangles(apply(turn(degrees, 10, 20, scale, mirrored), xy))
    if len(shape) and len(moved):  # not below the smallest size
        np.testing.assert_allclose(np.abs(moved[0, :2]), np.abs(shape[0, :2]), atol=1e-9)
        assert np.sign(moved[0, 1]) == np.sign(shape[0, 1]) * (-1 if mirrored else 1)
        np.testing.assert_allclose(moved[0, 2] - shape[0, 2], np.log(scale), atol=1e-9)
        assert shape[0, 0] <= 0.5 + 1e-12


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_stars_is_no_obstacle(count):
    xy = np.random.default_rng(3).uniform(0, 500, (count, 2))
    assert list(search_triangles(xy, xy, NEAR_SCALE)) == []
    assert list(search_pairs(xy, xy, NEAR_SCALE)) == []


def test_stars_at_one_place_are_no_obstacle():
    xy = np.repeat(np.random.default_rng(3).uniform(0, 500, (5, 2)), 4, axis=0)
    for search in (search_pairs, search_triangles):
        assert all(np.isfinite(guess).all() for guess in search(xy, xy, ANY_SCALE))
