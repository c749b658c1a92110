from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from starlists import COLS, ROWS, field, pair, sparse_pair, turn

from zmtile.registration.proof import false_alarms, verify
from zmtile.registration.starmatch import refine
from zmtile.registration.transform import IDENTITY, Transform, apply, compose


def test_a_chance_transform_is_refused():
    source, target, matrix = pair(6, 300)
    wrong = compose(turn(0, 25.0, 13.0), matrix)
    transform = refine(source, target, wrong)
    assert transform is None or not verify(source, target, transform)


def test_shear_and_absurd_scales_are_refused():
    source, target, matrix = pair(7)
    for spoil in (np.diag([1.2, 1.0]), np.diag([3.0, 3.0])):
        bad = np.column_stack([spoil @ matrix[:, :2], matrix[:, 2]])
        assert not verify(source, target, Transform(bad, 80, 0.1))


def test_the_nearer_the_stars_lie_the_stronger_the_proof():
    matrix = turn(30, 100, 50)
    near, far = (sparse_pair(2, 5, 5, matrix, noise) for noise in (0.05, 0.7))
    assert false_alarms(*near) < -6
    assert false_alarms(*far) > -6


def test_few_stars_prove_less_among_many():
    alone, crowd = (sparse_pair(2, 6, extra, turn(30, 100, 50)) for extra in (5, 300))
    assert false_alarms(*alone) < -9
    assert false_alarms(*crowd) > -6


def test_the_expected_number_of_accidents_is_an_upper_bound():
    # Of 1560 × 1560 / 2 ways to lay two stars on two others, at most a thousand (half of them in either
    # parity) may look as if they were one of a thousand: 3 of 4000.
    rng = np.random.default_rng(4)
    low = 0
    for _ in range(40):
        source, target = (field(rng.uniform(0, [COLS, ROWS], (40, 2)), np.ones(40)) for _ in range(2))
        z, w = source.xy @ [1, 1j], target.xy @ [1, 1j]
        for _ in range(100):
            i, j = rng.choice(40, 2, replace=False)
            k, m = rng.choice(40, 2, replace=False)
            a = (w[m] - w[k]) / (z[j] - z[i])
            b = w[k] - a * z[i]
            low += (
                false_alarms(source, target, np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]))
                < 3
            )
    assert low <= 3


def test_a_cluster_raises_the_bar():
    rng = np.random.default_rng(5)
    shift = turn(0, 8.3, 3.7)
    # The clusters are unrelated; there is a star nearly everywhere in them.
    source, target = (
        field(
            np.concatenate([rng.normal([900, 500], 20, (100, 2)), rng.uniform(0, [COLS, ROWS], (100, 2))]),
            np.ones(200),
        )
        for _ in range(2)
    )
    assert false_alarms(source, target, shift) > 0


def sensor(seed, stars, hot, moved=0.0):
    return pair(seed, stars, turn(0, moved, 0), hot=hot, other=seed + 50, spurious=0, lost=0)[:2]


def test_what_stays_on_the_sensor_while_bright_stars_change_is_not_the_sky():
    source, target = sensor(1, 40, 120)
    still = refine(source, target, IDENTITY)
    assert still.nmatch >= 100
    assert false_alarms(source, target, still.matrix) < -100
    assert not verify(source, target, still)


@pytest.mark.parametrize("spurious", [0.0, 0.5, 1.0])
def test_a_sky_at_rest_is(spurious):
    source, target, _ = pair(1, 100, IDENTITY, spurious=spurious)
    assert verify(source, target, refine(source, target, IDENTITY))


def test_clouds_hide_the_faint_stars_of_a_sky_at_rest():
    source, target, _ = pair(1, 100, IDENTITY, spurious=0.0, lost=0.0)
    clouded = field(target.xy[:60], target.stars.flux[:60])
    assert verify(source, clouded, refine(source, clouded, IDENTITY))


def test_another_sensor_has_no_pattern_in_common():
    source, target = sensor(1, 40, 120)
    other = dataclasses.replace(target, cols=target.cols + 2)
    assert verify(source, other, refine(source, other, IDENTITY))


def test_guiding_errors_are_no_pattern():
    source, target, matrix = pair(1, 100, turn(0, 0.5, 0.2), spurious=0.5, lost=0.2)
    assert verify(source, target, refine(source, target, matrix))
    assert np.allclose(apply(matrix, source.xy) - source.xy, [0.5, 0.2])
