from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from zmtile.frames.frame import Frame
from zmtile.matching.pairs import pair_frames, solve_blocks


def test_graph_solution_and_frames_without_ties():
    # 1 - 0 = 5, 2 - 1 = 3, nothing is known of 3.
    normal, right = np.zeros((4, 4)), np.zeros(4)
    for a, b, d in ((1, 0, 5.0), (2, 1, 3.0)):
        normal[[a, b], [a, b]] += 1
        normal[[a, b], [b, a]] -= 1
        right[a] += d
        right[b] -= d
    value, tied = solve_blocks(normal, right, 1, 0)
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
