from __future__ import annotations

from dataclasses import replace

import make_group
import numpy as np
import pytest
from starlists import field, inside
from test_transform import SHEARED

from zmtile.registration.mapping import apply, map_of
from zmtile.registration.refit import _anchored, refit
from zmtile.registration.starmatch import match_fields
from zmtile.registration.transform import IDENTITY, Transform, corners

# How far off a match may be before it is refined.
OFF = np.array([[0, 0, 0.3], [0, 0, -0.4]])
SPEC = make_group.GroupSpec(frames=3, rows=1080, cols=1920, cfa=None, stars=400, rotation=60.0, dither=100.0)


def star_lists(spec, noise=0.05):
    truth, fields = make_group.truth_of(spec), []
    for k in range(spec.frames):
        xy = make_group.from_ideal(spec, truth, k, np.column_stack([truth.x, truth.y]))
        inside = ((xy > 2) & (xy < np.array([spec.cols, spec.rows]) - 3)).all(axis=1)
        moved = xy[inside] + np.random.default_rng(k).normal(0, noise, (inside.sum(), 2))
        fields.append(field(moved, truth.flux[0, inside], noise))
    return truth, fields


def group(spec):
    """Star lists of a simulated group, with the similarities that matching finds."""
    truth, fields = star_lists(spec)
    first = Transform(IDENTITY, len(fields[0].stars), 0.0)
    return truth, fields, [first, *(match_fields(f, fields[0]) for f in fields[1:])]


def errors(spec, truth, transforms):
    """Largest error of each frame's map on what it shares with the reference, px."""
    x, y = np.meshgrid(np.linspace(0, spec.cols - 1, 20), np.linspace(0, spec.rows - 1, 20))
    points = np.column_stack([x.ravel(), y.ravel()])
    found = []
    for k, transform in enumerate(transforms):
        true = make_group.to_reference(spec, truth, k, points)
        seen = ((true >= 0) & (true <= [spec.cols - 1, spec.rows - 1])).all(axis=1)
        found.append(np.hypot(*(apply(map_of(transform), points) - true)[seen].T).max())
    return np.array(found)


def test_a_lens_is_followed_into_the_corners():
    spec = replace(SPEC, lens=-0.01)
    truth, fields, flat = group(spec)
    assert errors(spec, truth, flat).max() > 1.5
    bent = refit(fields, flat, 0, "auto")
    assert {t.model for t in bent[1:]} <= {"poly2", "poly3"}
    assert errors(spec, truth, bent).max() < 0.15
    for before, after in zip(flat[1:], bent[1:], strict=True):
        assert after.nmatch > before.nmatch + 10  # the corners' stars were not matched before
        assert after.rms < before.rms


def test_a_tilt_is_a_homography():
    spec = replace(SPEC, tilt=0.003)
    truth, fields, flat = group(spec)
    tilted = refit(fields, flat, 0, "auto")
    assert [t.model for t in tilted] == ["similarity", "homography", "homography"]
    assert errors(spec, truth, tilted).max() < 0.1


def test_an_undistorted_group_stays_exactly_as_it_is():
    truth, fields, flat = group(SPEC)
    assert errors(SPEC, truth, flat).max() < 0.1
    assert all(a is b for a, b in zip(refit(fields, flat, 0, "auto"), flat, strict=True))


@pytest.mark.parametrize("model", ["affine", "homography", "poly2", "poly3"])
def test_every_model_can_be_asked_for(model):
    truth, fields, flat = group(SPEC)
    found = refit(fields, flat, 0, model)
    assert [t.model for t in found[1:]] == [model, model]
    assert (found[1].bend is None) == (model == "affine")
    assert errors(SPEC, truth, found).max() < 0.3


def test_too_few_stars_bear_a_simpler_model_only():
    rng = np.random.default_rng(0)
    for stars, model in ((60, "poly3"), (30, "poly2"), (15, "affine"), (9, "similarity")):
        xy, flux = rng.uniform([50, 50], [1870, 1030], (stars, 2)), rng.uniform(1, 100, stars)
        pair = [field(xy, flux), field(apply(SHEARED, xy), flux)]
        start = Transform(SHEARED + OFF, stars, 0.7)
        found = refit(pair[::-1], [Transform(IDENTITY, stars, 0.0), start], 0, "poly3")
        assert found[1].model == model, stars


def test_a_frame_whose_stars_are_elsewhere_stays_where_it_is():
    rng = np.random.default_rng(0)
    lists = [field(rng.uniform([50, 50], [1870, 1030], (5, 2)), rng.uniform(1, 100, 5)) for _ in range(2)]
    start = [Transform(IDENTITY, 5, 0.0), Transform(SHEARED, 5, 0.1)]
    assert refit(lists, start, 0, "poly3") == start


def test_frames_that_are_not_registered_stay_so():
    _, fields, flat = group(SPEC)
    found = refit(fields, [flat[0], None, flat[2]], 0, "poly2")
    assert found[1] is None
    assert found[2].model == "poly2"


def test_the_same_stars_give_the_same_maps():
    spec = replace(SPEC, lens=-0.01)
    _, fields, flat = group(spec)
    one, two = (refit(fields, flat, 0, "poly3") for _ in range(2))
    for a, b in zip(one[1:], two[1:], strict=True):
        assert a.bend.tobytes() == b.bend.tobytes()


@pytest.mark.parametrize(("model", "limit"), [("affine", 0.5), ("homography", 1.0)])
def test_a_chain_lies_on_one_grid(model, limit):
    """Neighbours overlap by 30 %; five frames, the last almost three frame widths away."""
    spec = replace(SPEC, frames=5, chain=0.3, rotation=3.0, dither=10.0)
    truth, fields = star_lists(spec)
    # As matching and hopping may leave them: half a pixel off.
    flat = [Transform(matrix + OFF, 80, 0.3) for matrix in truth.matrices]
    flat[0] = Transform(IDENTITY, 400, 0.0)
    found = refit(fields, flat, 0, model)
    assert [t.model for t in found[1:4]] == [model] * 3
    # Of the last one only a third is seen by another frame: too little to tell how it leans.
    assert found[4].model == "affine"
    ends = corners(spec.rows, spec.cols)
    for k in (1, 2, 3, 4):
        true = make_group.to_reference(spec, truth, k, ends)
        assert np.hypot(*(apply(map_of(found[k]), ends) - true).T).max() < limit


def test_panels_that_touch_are_tied():
    """Two panels of two frames; the best partners of each frame are in its own panel."""
    spec = replace(SPEC, frames=4, rotation=1.0, dither=5.0)
    truth = make_group.truth_of(spec)
    matrices = truth.matrices.copy()
    matrices[2:, 0, 2] += 0.97 * spec.cols
    maps = dict(enumerate(matrices))
    _, fields = star_lists(spec)
    ties = _anchored(fields, maps, [2, 3], {(2, 3)})
    assert len(ties) == 2
    assert any(min(tie) < 2 for tie in ties)


def test_a_star_that_many_frames_show_counts_once():
    """Two panels of five frames, the second 700 px aside: its frames are tied to six others each."""
    rng = np.random.default_rng(3)
    sky, flux = rng.uniform([-100, -100], [2800, 1300], (700, 2)), rng.uniform(1, 100, 700)
    shifts = rng.uniform(-20, 20, (10, 2)) + np.repeat([[0.0, 0.0], [700.0, 0.0]], 5, axis=0)
    shifts[0] = 0.0
    fields = []
    for shift in shifts:
        seen = inside(sky - shift)
        fields.append(field(sky[seen] - shift + rng.normal(0, 0.05, (seen.sum(), 2)), flux[seen]))
    flat = [Transform(np.column_stack([np.eye(2), shift]), 100, 0.1) for shift in shifts]
    found = refit(fields, flat, 0, "affine")
    assert {t.model for t in found[1:]} == {"affine"}
    for transform, own in zip(found[1:], fields[1:], strict=True):
        assert 0.5 * len(own.stars) < transform.nmatch <= len(own.stars)


def clouded(seed, part, stars=400):
    """A frame seen through a lens, whose stars are in the left `part` only, and the reference."""
    spec = replace(SPEC, frames=2, lens=-0.01, rotation=0.0, dither=60.0, stars=stars, seed=seed)
    truth, (first, second) = star_lists(spec, 0.1)
    seen = second.xy[:, 0] < part * spec.cols
    left = field(second.xy[seen], second.stars.flux[seen], 0.1)
    start = match_fields(left, first, [truth.matrices[1]])
    return spec, truth, [first, left], [Transform(IDENTITY, len(first.stars), 0.0), start]


def whole_error(spec, truth, transform):
    """Largest error of the second frame's map, also where it has no stars, px."""
    x, y = np.meshgrid(np.linspace(0, spec.cols - 1, 20), np.linspace(0, spec.rows - 1, 20))
    points = np.column_stack([x.ravel(), y.ravel()])
    true = make_group.to_reference(spec, truth, 1, points)
    return np.hypot(*(apply(map_of(transform), points) - true).T).max()


@pytest.mark.parametrize("asked", ["auto", "poly2", "poly3"])
@pytest.mark.parametrize("part", [0.35, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_no_map_runs_away_behind_a_cloud(asked, part, seed):
    spec, truth, fields, flat = clouded(seed, part)
    found = refit(fields, flat, 0, asked)[1]
    assert whole_error(spec, truth, found) <= whole_error(spec, truth, flat[1])


def test_stars_that_reach_far_enough_bear_the_model():
    spec, truth, fields, flat = clouded(0, 1.0)
    found = refit(fields, flat, 0, "poly3")[1]
    assert found.model == "poly3"
    assert whole_error(spec, truth, found) < 0.3 < whole_error(spec, truth, flat[1])
