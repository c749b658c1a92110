from __future__ import annotations

import numpy as np
import pytest
from starlists import common, corner_error, field, pair, sparse_pair, turn

from zmtile.registration.guesses import vote_shift
from zmtile.registration.sensor import set_aside
from zmtile.registration.starmatch import match_fields
from zmtile.registration.transform import IDENTITY, invert


@pytest.mark.parametrize("stars", [15, 100, 600])
def test_simulated_pairs_are_all_found_and_none_is_wrong(stars):
    # bench/quality/registration.py runs thousands; these are a sample for every commit.
    for seed in range(25):
        source, target, matrix = pair(seed, stars)
        found = match_fields(source, target)
        if found is None and common(source, target, matrix) < 5:
            continue
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


@pytest.mark.parametrize("shared", [5, 8, 14])
def test_five_common_stars_are_enough_where_there_is_little_else(shared):
    for seed in range(6):
        source, target, matrix = sparse_pair(seed, shared, 5, turn(40 * seed, 150, -80))
        found = match_fields(source, target)
        assert found is not None
        assert found.nmatch == shared
        assert corner_error(found.matrix, matrix) < 1.0


def test_five_common_stars_prove_nothing_among_hundreds():
    for seed in range(3):
        source, target, _ = sparse_pair(seed, 5, 300, turn(40 * seed, 150, -80))
        assert match_fields(source, target) is None


def test_thousands_of_stars_whose_order_of_brightness_differs():
    for seed in range(3):
        source, target, matrix = pair(seed, 4000, turn(100, 600, 200), spurious=0.5, scatter=0.3)
        assert len(source.stars) == 2000
        found = match_fields(source, target)
        assert found is not None
        assert corner_error(found.matrix, matrix) < 0.1


def test_hot_pixels_that_outnumber_the_stars_are_not_the_sky():
    for seed in range(5):
        source, target, matrix = pair(seed, 50, turn(0.1, 9.0, -4.0), hot=150)
        assert match_fields(source, target) is None  # no motion at all is the best match, and is refused
        found = match_fields(*set_aside([source, target]))
        assert found is not None
        assert corner_error(found.matrix, matrix) < 0.5


def test_different_skies_on_one_sensor_never_match():
    for seed in range(5):
        source, target, _ = pair(seed, 60, IDENTITY, hot=100, other=seed + 1000)
        assert match_fields(source, target) is None
        assert match_fields(*set_aside([source, target])) is None


@pytest.mark.parametrize("stars", [15, 100])
def test_mirror_images_are_turned_over(stars):
    for seed in range(5):
        source, target, matrix = pair(seed, stars, turn(77 * seed, 80, -60, mirrored=True), lost=0.1)
        found = match_fields(source, target)
        assert found is not None
        assert np.linalg.det(found.matrix[:, :2]) < 0
        assert corner_error(found.matrix, matrix) < 0.5


def test_a_mirrored_guess_needs_no_search():
    source, target, matrix = pair(3, 100, turn(20, 80, -60, mirrored=True))
    found = match_fields(source, target, [turn(20, mirrored=True)], search="none")
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


@pytest.mark.parametrize("scale", [0.5, 0.55, 1.8, 2.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_other_pixel_scales(scale, mirrored):
    source, target, matrix = pair(2, 150, turn(40, 10, 20, scale, mirrored))
    found = match_fields(source, target)
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.3


@pytest.mark.parametrize("overlap", [0.1, 0.32])
def test_a_tenth_of_overlap_is_enough(overlap):
    for seed in range(5):
        source, target, matrix = pair(seed, 300, turn(2, (1 - overlap) * 1920, 10))
        found = match_fields(source, target)
        assert found is not None
        assert corner_error(found.matrix, matrix) < 1.0


def test_a_wrong_guess_is_overcome():
    source, target, matrix = pair(4)
    found = match_fields(source, target, [turn(77, 300, 300)])
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


def test_a_guess_alone_finds_the_shift():
    source, target, matrix = pair(5, 100, turn(0.2, 83.3, -41.7))
    voted = vote_shift(source.xy, target.xy, 1920, IDENTITY)
    assert voted is not None
    assert corner_error(voted, matrix) < 12
    found = match_fields(source, target, [IDENTITY], search="none")
    assert found is not None
    assert corner_error(found.matrix, matrix) < 0.1


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
