from __future__ import annotations

import numpy as np
import pytest

from zmtile.kernels.fluxties import log_ratios
from zmtile.matching.fluxscale import FLUX_FLOOR, MIN_COMMON_STARS


def log_ratio(flux, other):
    """Mean log ratio of one channel and its error; both frames have the same stars in the same order."""
    ratio = np.empty((1, 2))
    places = np.arange(flux.size)
    lists = flux[None].astype(np.float32), other[None].astype(np.float32)
    error = np.array([20.0])
    log_ratios(*lists, places, places, error, error, FLUX_FLOOR, MIN_COMMON_STARS, ratio)
    return ratio[0]


def test_saturated_and_variable_stars_do_not_count():
    rng = np.random.default_rng(0)
    flux = 10 ** rng.uniform(3, 5, 60)
    other = 0.8 * flux * rng.normal(1, 0.01, 60)
    other[np.argsort(flux)[-8:]] *= 0.5
    other[3] *= 3
    assert np.exp(-log_ratio(flux, other)[0]) == pytest.approx(0.8, rel=0.006)


def test_too_few_stars_have_no_ratio():
    flux = np.array([2000.0, 3000.0, np.nan, 50.0])  # one is not measurable, one too faint
    assert np.isnan(log_ratio(flux, 0.8 * flux)).all()


def test_the_ratio_of_good_stars_is_their_mean_by_inverse_variances():
    flux = np.array([1e4, 2e4, 3e4, 4e4, 5e4])
    other = flux * np.exp([0.004, -0.002, 0.001, 0.003, -0.001])
    # As the kernel sees them.
    flux, other = flux.astype(np.float32).astype(float), other.astype(np.float32).astype(float)
    variance = (20.0 / flux) ** 2 + (20.0 / other) ** 2 + 2 * FLUX_FLOOR**2
    mean = np.average(np.log(flux / other), weights=1 / variance)
    assert log_ratio(flux, other) == pytest.approx([mean, (1 / variance).sum() ** -0.5], rel=1e-12)
