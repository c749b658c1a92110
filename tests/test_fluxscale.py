from __future__ import annotations

import numpy as np
import pytest

from zmtile.matching.fluxscale import _log_ratio


def test_saturated_and_variable_stars_do_not_count():
    rng = np.random.default_rng(0)
    flux = 10 ** rng.uniform(3, 5, 60)
    other = 0.8 * flux * rng.normal(1, 0.01, 60)
    other[np.argsort(flux)[-8:]] *= 0.5
    other[3] *= 3
    found = _log_ratio(flux.astype(np.float32), other.astype(np.float32), 20.0, 20.0)
    assert found is not None
    assert np.exp(-found[0]) == pytest.approx(0.8, rel=0.006)
    assert _log_ratio(flux[:2].astype(np.float32), other[:2].astype(np.float32), 20.0, 20.0) is None
