from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from starlists import COLS, ROWS, field, light, sizes, turn

from zmtile.registration.sensor import largest_motion, set_aside, sky_at_rest


def group(frames, stars, hot, step, seed=1, seen=1.0, spurious=5):
    """Star lists of one sensor under a sky that moves by `step` px from frame to frame."""
    rng = np.random.default_rng(seed)
    sky, pattern = rng.uniform(0, [COLS, ROWS], (stars, 2)), rng.uniform(0, [COLS, ROWS], (hot, 2))
    flux = light(rng, stars + hot)
    fields = []
    for k in range(frames):
        xy = np.concatenate([sky + k * step * np.array([1.0, 0.3]), pattern])
        shown = rng.random(len(xy)) < seen
        xy, brightness = xy[shown] + rng.normal(0, 0.1, (shown.sum(), 2)), flux[shown]
        ghosts = rng.uniform(0, [COLS, ROWS], (spurious, 2))
        fields.append(
            field(
                np.concatenate([xy, ghosts]),
                np.concatenate([brightness, light(rng, spurious)]),
                size=sizes(rng, shown[:stars].sum(), shown[stars:].sum(), spurious),
            )
        )
    return fields


def test_hot_pixels_are_set_aside_where_the_sky_moves():
    fields = group(6, 40, 120, 5.0, seen=0.9)
    for before, after in zip(fields, set_aside(fields), strict=True):
        assert len(before.stars) > 100
        assert 30 <= len(after.stars) <= 55
        assert np.all(np.diff(after.stars.flux) <= 0)


def test_two_frames_are_enough():
    assert all(len(f.stars) == 45 for f in set_aside(group(2, 40, 120, 5.0)))


def test_a_slow_drift_shows_the_pattern_in_a_long_group():
    # Neighbours differ by less than two detections of one star may.
    fields = group(40, 60, 100, 0.2)
    assert all(55 <= len(f.stars) <= 80 for f in set_aside(fields))


def test_the_stars_of_a_sky_at_rest_stay():
    fields = group(5, 100, 20, 0.0, seen=0.95)
    assert all(a is b for a, b in zip(set_aside(fields), fields, strict=True))


def test_a_frame_that_was_moved_alone_loses_only_the_pattern():
    rest, moved = group(5, 60, 30, 0.0), group(2, 60, 30, 7.0)[1]
    *still, odd = set_aside([*rest, moved])
    assert all(a is b for a, b in zip(still, rest, strict=True))
    assert 60 <= len(odd.stars) <= 65


def test_frames_of_another_size_are_no_witnesses():
    first, second = group(2, 10, 50, 5.0)
    other = dataclasses.replace(second, rows=ROWS + 1)
    assert set_aside([first, other]) == [first, other]


def test_a_frame_without_stars_is_no_obstacle():
    empty = field(np.empty((0, 2)), np.empty(0))
    assert set_aside([empty, *group(2, 40, 120, 5.0)])[0] is empty


def test_photometry_stays_with_its_stars():
    fields = group(3, 40, 120, 5.0)
    bright = [f.stars.flux[None, :100].astype(np.float32) for f in fields]
    measured = [
        dataclasses.replace(f, stars=dataclasses.replace(f.stars, channel_flux=flux))
        for f, flux in zip(fields, bright, strict=True)
    ]
    for f in set_aside(measured):
        count = f.stars.channel_flux.shape[1]
        np.testing.assert_array_equal(f.stars.channel_flux[0], f.stars.flux[:count].astype(np.float32))


def test_cosmic_rays_and_hot_pixels_do_not_hide_a_sky_at_rest():
    fields = group(4, 30, 60, 0.0, spurious=80)
    assert all(a is b for a, b in zip(set_aside(fields), fields, strict=True))


def test_hot_pixels_are_told_from_stars_by_their_shape():
    stars = group(1, 30, 60, 0.0, spurious=0)[0].stars
    star = stars.size > 1.3
    assert star.sum() == 30
    assert sky_at_rest(stars, np.ones(90, bool))
    assert sky_at_rest(stars, star)
    assert not sky_at_rest(stars, ~star)


def test_the_largest_motion_is_that_of_a_corner():
    assert largest_motion(turn(0, 3.0, 4.0), ROWS, COLS) == 5.0
    assert np.isclose(
        largest_motion(turn(1.0), ROWS, COLS), np.radians(1) * np.hypot(ROWS, COLS) / 2, rtol=2e-3
    )


@pytest.mark.parametrize("step", [0.1, 0.15, 0.2])
@pytest.mark.parametrize("hot", [20, 150])
def test_a_slow_drift_costs_no_bright_stars(step, hot):
    """The faint ones, of which there are more, are less certain than the drift is long."""
    rng = np.random.default_rng(1)
    sky, pattern = rng.uniform(0, [COLS, ROWS], (200, 2)), rng.uniform(0, [COLS, ROWS], (hot, 2))
    flux = light(rng, 200 + hot)
    error = np.minimum(0.02 + 2.0 / flux, 0.8)
    fields = []
    for k in range(12):
        xy = np.concatenate([sky + k * step * np.array([1.0, 0.3]), pattern])
        xy += rng.normal(0, 1, xy.shape) * error[:, None]
        shown = field(xy, flux, size=sizes(rng, 200, hot, 0))
        fields.append(
            dataclasses.replace(shown, stars=dataclasses.replace(shown.stars, error=np.sort(error)))
        )
    for before, after in zip(fields, set_aside(fields), strict=True):
        stars = before.stars.size > 1.3
        kept = np.isin(before.stars.flux, after.stars.flux)
        assert kept[stars].mean() > 0.85


def test_without_a_certain_detection_all_have_a_vote():
    fields = [
        dataclasses.replace(f, stars=dataclasses.replace(f.stars, error=np.full(len(f.stars), 0.4)))
        for f in group(6, 40, 120, 5.0)
    ]
    assert all(len(f.stars) <= 55 for f in set_aside(fields))
