from __future__ import annotations

import numpy as np
import pytest
from starlists import field, pair

from zmtile.registration import hops
from zmtile.registration.transform import IDENTITY, Transform


def moved(shift):
    return np.array([[1.0, 0.0, shift], [0.0, 1.0, 0.0]])


@pytest.fixture
def sky(monkeypatch):
    """Frames at places along a line, which match where they are less than a frame apart."""
    asked = []

    def setup(places):
        stars = np.random.default_rng(0).uniform(0, 1000, (20, 2))
        fields = [field(stars, np.ones(20)) for _ in places]
        index = {id(f): k for k, f in enumerate(fields)}

        def match(source, target, search):
            k, s = index[id(source)], index[id(target)]
            asked.append((k, s))
            shift = places[k] - places[s]
            return Transform(moved(shift), 20, 0.1) if abs(shift) < 1900 else None

        monkeypatch.setattr(hops, "match_fields", match)
        monkeypatch.setattr(hops, "refine", lambda *_: None)
        solved = {k: moved(x) for k, x in enumerate(places) if abs(x) < 1900}
        order = [k for k in range(len(places)) if k]
        return fields, order, solved, asked

    return setup


def test_a_chain_in_any_order_is_reached(sky):
    places = np.concatenate([[0.0, 1000.0], np.random.default_rng(1).permutation(np.arange(2, 40)) * 1000.0])
    fields, order, solved, _ = sky(places)
    found = hops.hop(fields, 0, order, solved)
    assert len(found) == 38
    for k, x in enumerate(places):
        assert solved[k][0, 2] == pytest.approx(x)


def test_clouded_frames_are_not_offered_to_all_others(sky):
    places = np.concatenate([np.random.default_rng(1).uniform(-50, 50, 200), np.arange(1, 21) * 1e6])
    places[0] = 0.0
    fields, order, solved, asked = sky(places)
    assert hops.hop(fields, 0, order, solved) == {}
    assert len(asked) == 20 * (hops.NEIGHBOURS + hops.APART)
    assert len(set(asked)) == len(asked)


def test_what_lies_apart_from_the_others_is_asked(sky):
    """Frame 200 meets none but frame 77, which is not near it in order."""
    places = np.random.default_rng(1).uniform(-50, 50, 201)
    places[[0, 77, 200]] = 0.0, 1500.0, 3000.0
    fields, order, solved, _ = sky(places)
    assert list(hops.hop(fields, 0, order, solved)) == [200]


def test_frames_of_another_field_are_told_from_those_that_match_nothing(sky):
    fields, order, solved, _ = sky([0.0, 100.0, 1e6, 2e6, 1e6 + 50, 1e6 + 70])
    assert hops.hop(fields, 0, order, solved) == {}
    assert hops.islands(fields, [k for k in order if k not in solved]) == {2, 4, 5}


def test_a_star_of_several_links_counts_once():
    """Three frames of one field, the last tied to both others."""
    source, target, matrix = pair(5, 100)
    fields = [target, target, source]
    direct = Transform(matrix, 80, 0.07)
    found = hops.solve_together(fields, {0: IDENTITY, 1: IDENTITY, 2: matrix}, {2: {0: direct, 1: direct}})
    assert 25 < found[2].nmatch <= len(source.stars)
    np.testing.assert_allclose(found[2].matrix, matrix, atol=0.1)
