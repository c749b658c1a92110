from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from zmtile.frames.frame import Frame
from zmtile.matching.pairs import Pair, Ties, pair_frames


def test_graph_solution_and_frames_without_ties():
    # 1 - 0 = 5, 2 - 1 = 3, nothing is known of 3.
    ties = Ties(4, 1)
    for a, b, d in ((1, 0, 5.0), (2, 1, 3.0)):
        ties.tie(Pair(a, b), np.ones((1, 1)), np.array([d]), np.ones(1))
    value, tied = ties.solve(0)
    np.testing.assert_allclose(value.ravel(), [0, 5, 8, 0], atol=1e-12)
    np.testing.assert_array_equal(tied, [True, True, True, False])


def test_panels_are_joined():
    frame = Frame(Path("a.fits"), "a.fits", 512, 640, "mono", "", fits.Header())
    shift = [np.array([[1.0, 0, 480 * (k // 10) + k % 10], [0, 1, k % 10]]) for k in range(30)]
    pairs = pair_frames([frame] * 30, shift, 0)
    joined = {0}
    for _ in range(30):
        joined |= {q for p in pairs for q in (p.a, p.b) if {p.a, p.b} & joined}
    assert joined == set(range(30))


def test_the_solution_is_that_of_plain_least_squares():
    rng = np.random.default_rng(3)
    count, terms = 7, 3
    ties, rows, values = Ties(count, terms), [], []
    for _ in range(25):
        a, b = rng.choice(count, 2, replace=False)
        basis, difference, weight = rng.normal(size=(5, terms)), rng.normal(size=5), rng.uniform(0.5, 2, 5)
        ties.tie(Pair(int(a), int(b)), basis, difference, weight)
        row = np.zeros((5, count, terms))
        row[:, a], row[:, b] = basis, -basis
        rows.append(row * np.sqrt(weight)[:, None, None])
        values.append(difference * np.sqrt(weight))
    for k in range(count):  # each expected near 0, within 2
        ties.expect(k, np.eye(terms) / 4)
        rows.append(np.eye(count * terms)[k * terms : (k + 1) * terms].reshape(-1, count, terms) / 2)
        values.append(np.zeros(terms))
    design = np.concatenate(rows)[:, 1:].reshape(-1, (count - 1) * terms)  # frame 0 is held
    plain = np.linalg.lstsq(design, np.concatenate(values), rcond=None)[0]
    solution, tied = ties.solve(0)
    assert tied.all()
    np.testing.assert_array_equal(solution[0], 0)
    np.testing.assert_allclose(solution[1:].ravel(), plain, atol=1e-9)
