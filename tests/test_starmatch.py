from __future__ import annotations

import math

import numpy as np
import pytest
from starlists import common, corner_error, field, pair, turn

from zmtile.starmatch import (
    NEAR_SCALE,
    QUICK,
    match_fields,
    match_triangles,
    refine,
    search_pairs,
    verify,
    vote_shift,
)
from zmtile.transform import IDENTITY, Transform, compose, invert


@pytest.mark.parametrize("stars", [15, 100, 600])
def test_simulated_pairs_are_all_found_and_none_is_wrong(stars):
    # bench/quality/registration.py runs thousands; these are a sample for every commit.
    for seed in range(25):
        source, target, matrix = pair(seed, stars)
        found = match_fields(source, target)
        if found is None and common(source, target, matrix) < 6:
            continue  # five stars prove nothing among fifteen
        assert found is not None
        # Six centroids of 0.05 px, levered over the frame, are the worst case of 15 stars.
        assert corner_error(found.matrix, matrix) < (0.5 if stars == 15 else 0.1)


def test_fields_of_different_skies_never_match():
    for seed in range(20):
        source, _, _ = pair(seed, 150)
        _, target, _ = pair(seed + 1000, 150)
        assert match_fields(source, target, search="full" if seed < 2 else "near") is None


@pytest.mark.parametrize("spurious", [0.5, 1.0])
def test_half_of_the_detections_and_more_may_be_spurious(spurious):
    for seed in range(5):
        source, target, matrix = pair(seed, 100, spurious=spurious)
        found = match_fields(source, target)
        assert found is not None
        assert corner_error(found.matrix, matrix) < 0.2


@pytest.mark.parametrize("scale", [0.55, 1.8])
def test_other_pixel_scales(scale):
    source, target, matrix = pair(2, 150, turn(40, 10, 20, scale))
    found = match_fields(source, target)
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.3


def test_a_third_of_overlap_is_enough():
    source, target, matrix = pair(3, 150, turn(2, 0.68 * 1920, 10))
    found = match_fields(source, target)
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.5


def test_a_wrong_guess_is_overcome():
    source, target, matrix = pair(4)
    found = match_fields(source, target, [turn(77, 300, 300)])
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


def test_a_guess_alone_finds_the_shift():
    source, target, matrix = pair(5, 100, turn(0.2, 83.3, -41.7))
    voted = vote_shift(source, target, IDENTITY)
    assert voted is not None
    assert corner_error(voted, matrix) < 12
    found = match_fields(source, target, [IDENTITY], search="none")
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


def test_verify_refuses_a_chance_transform():
    source, target, matrix = pair(6, 300)
    wrong = compose(turn(0, 25.0, 13.0), matrix)
    transform = refine(source, target, wrong, "similarity")
    assert transform is None or not verify(source, target, transform)


def test_verify_refuses_shear_and_absurd_scales():
    source, target, matrix = pair(7)
    for spoil in (np.diag([1.2, 1.0]), np.diag([3.0, 3.0])):
        bad = np.column_stack([spoil @ matrix[:, :2], matrix[:, 2]])
        assert not verify(source, target, Transform(bad, 80, 0.1))


def test_affine_is_fitted_on_demand():
    sheared = np.array([[1.004, 0.006, 12.0], [-0.002, 0.997, -9.0]])
    source, target, matrix = pair(8, 300, sheared)
    found = match_fields(source, target, model="affine")
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


def test_the_pair_search_needs_no_triangles():
    source, target, matrix = pair(9, 20, spurious=0.5, lost=0.3)
    errors = []
    for guess in search_pairs(source, target, NEAR_SCALE, QUICK):
        transform = refine(source, target, guess, "similarity")
        errors.append(corner_error(transform.matrix, matrix) if transform else math.inf)
    assert min(errors) < 0.5


def test_triangles_are_repeatable():
    source, target, _ = pair(10)
    first, second = match_triangles(source, target), match_triangles(source, target)
    assert first is not None
    np.testing.assert_array_equal(first, second)


def test_the_way_back_is_the_inverse():
    source, target, _ = pair(11, 300)
    there, back = match_fields(source, target), match_fields(target, source)
    assert there is not None
    assert back is not None
    assert corner_error(invert(back.matrix), there.matrix) < 0.05


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_stars_match_nothing(count):
    source, target, _ = pair(12)
    few = field(source.xy[:count], np.ones(count))
    assert match_fields(few, target) is None
    assert match_fields(target, few) is None
