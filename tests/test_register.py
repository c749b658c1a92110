from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zmtile import UsageError
from zmtile.frame import Frame
from zmtile.reference import find_reference
from zmtile.register import _odd_scales
from zmtile.transform import IDENTITY, Transform


def frames(*names):
    return [Frame(Path("/lights") / n, n, 10, 10, "mono", "", fits.Header()) for n in names]


@pytest.mark.parametrize("wanted", ["b.fits", "b", "/elsewhere/b.fits"])
def test_a_reference_is_found_by_name_stem_or_file_name(wanted):
    assert find_reference(frames("a.fits", "b.fits"), wanted) == 1


@pytest.mark.parametrize("wanted", ["c.fits", "fits"])
def test_an_unknown_reference_is_refused(wanted):
    with pytest.raises(UsageError, match="none of the frames"):
        find_reference(frames("a.fits", "b.fits"), wanted)


def test_an_ambiguous_reference_is_refused():
    with pytest.raises(UsageError, match="fits 2 frames"):
        find_reference(frames("one/a.fits", "two/a.fits"), "a.fits")


def scaled(scale, nmatch):
    return Transform(IDENTITY * [scale, scale, 1.0], nmatch, 0.1)


def test_few_stars_do_not_prove_a_scale_of_their_own():
    group = [scaled(1.0, 200), scaled(1.001, 80), None, scaled(0.6, 5), scaled(1.02, 5)]
    assert _odd_scales(group) == [3]
    # Another telescope whose scale many stars have proven vouches for its frame with few.
    assert _odd_scales([*group, scaled(0.61, 40)]) == []
    assert np.isclose(scaled(0.6, 5).matrix[0, 0], 0.6)
