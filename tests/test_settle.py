from __future__ import annotations

import numpy as np
import pytest
from starlists import field
from test_mapping import COLS, ROWS, scattered
from test_models import true_map

from zmtile.registration.mapping import Bent, apply
from zmtile.registration.models import MODELS, plain
from zmtile.registration.settle import FEWEST, settle
from zmtile.registration.transform import IDENTITY, fit


def seen(model, count=200):
    """A frame and the reference of one sky, some of whose stars are lost or moved; a map to start from."""
    rng = np.random.default_rng(3)
    here = scattered(count)
    there = apply(true_map(model), here) + rng.normal(0, 0.05, here.shape)
    start = fit("similarity", here, there)
    there[::9] += rng.uniform(-2, 2, there[::9].shape)
    kept = rng.random((2, count)) > 0.1
    fields = [field(xy[k], np.arange(k.sum(), 0.0, -1.0)) for xy, k in zip((here, there), kept, strict=True)]
    return fields, {0: plain(start, ROWS, COLS), 1: IDENTITY}


@pytest.mark.parametrize("model", MODELS)
def test_one_frame_alone_ends_where_the_common_solution_does(model):
    fields, maps = seen(model)
    alone, (link,) = settle(fields, maps, {0: model}, [(0, 1)])
    # A reference that could be bent, but is not, takes the way of many frames.
    together, (other,) = settle(fields, maps | {1: plain(IDENTITY, ROWS, COLS)}, {0: model}, [(0, 1)])
    np.testing.assert_array_equal(link.i, other.i)
    np.testing.assert_array_equal(link.j, other.j)
    np.testing.assert_allclose(link.residual, other.residual, atol=1e-8)
    points = scattered(100)
    np.testing.assert_allclose(apply(alone[0], points), apply(together[0], points), atol=1e-7)
    assert np.abs(apply(alone[0], points) - apply(true_map(model), points)).max() < 0.5


def test_too_few_stars_leave_a_frame_where_it_is():
    fields, maps = seen("affine", FEWEST)
    assert len(fields[0].stars) < FEWEST + 1
    now, _ = settle(fields, maps, {0: "affine"}, [(0, 1)])
    start, found = maps[0], now[0]
    assert isinstance(start, Bent)
    assert isinstance(found, Bent)
    np.testing.assert_array_equal(found.matrix, start.matrix)
