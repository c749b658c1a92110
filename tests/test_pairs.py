from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from zmtile.frames.frame import Frame
from zmtile.matching.pairs import pair_frames, solve_ties


def test_graph_solution_and_frames_without_ties():
    # 1 - 0 = 5, 2 - 1 = 3, nothing is known of 3.
    ends, ones = np.array([[1, 0], [2, 1]]), np.ones((2, 1, 1))
    value, tied = solve_ties(ends, ones, np.array([[5.0], [3.0]]), 0, np.zeros((4, 1, 1)))
    np.testing.assert_allclose(value.ravel(), [0, 5, 8, 0], atol=1e-12)
    np.testing.assert_array_equal(tied, [True, True, True, False])


def test_nothing_is_tied_without_pairs():
    nothing = np.empty((0, 2), np.int64), np.empty((0, 3, 3)), np.empty((0, 3))
    value, tied = solve_ties(*nothing, 1, np.zeros((3, 3, 3)))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(tied, [False, True, False])


def test_panels_are_joined():
    frame = Frame(Path("a.fits"), "a.fits", 512, 640, "mono", "", fits.Header())
    shift = [np.array([[1.0, 0, 480 * (k // 10) + k % 10], [0, 1, k % 10]]) for k in range(30)]
    pairs = pair_frames([frame] * 30, shift, 0)
    joined = {0}
    for _ in range(30):
        joined |= {q for p in pairs for q in (p.a, p.b) if {p.a, p.b} & joined}
    assert joined == set(range(30))


def equations(seed, count, terms, ends):
    """Random ties, frames expected within 2 of 0; the solution of plain least squares, frame 0 held at 0."""
    rng = np.random.default_rng(seed)
    rows, values, block, pull = [], [], [], []
    for a, b in ends:
        basis, difference, weight = rng.normal(size=(5, terms)), rng.normal(size=5), rng.uniform(0.5, 2, 5)
        block.append(basis.T @ (basis * weight[:, None]))
        pull.append(basis.T @ (difference * weight))
        row = np.zeros((5, count, terms))
        row[:, a], row[:, b] = basis, -basis
        rows.append(row.reshape(5, -1) * np.sqrt(weight)[:, None])
        values.append(difference * np.sqrt(weight))
    rows.append(np.eye(count * terms) / 2)
    values.append(np.zeros(count * terms))
    plain = np.linalg.lstsq(np.concatenate(rows)[:, terms:], np.concatenate(values), rcond=None)[0]
    return np.array(block), np.array(pull), np.tile(np.eye(terms) / 4, (count, 1, 1)), plain


def test_the_solution_is_that_of_plain_least_squares():
    rng = np.random.default_rng(3)
    ends = np.array([rng.choice(7, 2, replace=False) for _ in range(25)])
    block, pull, expected, plain = equations(1, 7, 3, ends)
    solution, tied = solve_ties(ends, block, pull, 0, expected)
    assert tied.all()
    np.testing.assert_array_equal(solution[0], 0)
    np.testing.assert_allclose(solution[1:].ravel(), plain, atol=1e-9)


def test_a_long_chain_is_solved_from_any_start():
    ends = np.array([[k, k + 1] for k in range(119)])
    block, pull, expected, plain = equations(2, 120, 6, ends)
    for start in (None, np.random.default_rng(0).normal(size=(120, 6)) * 1e3):
        solution, _ = solve_ties(ends, block, pull, 0, expected, start)
        np.testing.assert_allclose(solution[1:].ravel(), plain, atol=1e-8)
