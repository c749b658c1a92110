from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
from scipy.stats import binom

from zmtile.kernels.chance import log_accidents, log_tail


@pytest.mark.parametrize("n", [1, 2, 13, 298])
@pytest.mark.parametrize("chance", [1e-9, 1e-4, 0.03, 0.5])
def test_the_tail_is_that_of_the_binomial_distribution(n, chance):
    getcontext().prec = 60  # scipy loses digits where the tail nearly underflows
    p = Decimal(chance)
    terms = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n + 1)]
    for k in range(n + 1):
        assert log_tail(n, k, chance) == pytest.approx(float(sum(terms[k:]).ln()), rel=1e-12, abs=1e-12)
    assert log_tail(n, n + 1, chance) == -math.inf


def test_the_best_number_of_stars_counts():
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 1000, (60, 2))
    places = places[np.argsort(places[:, 1])]
    moved = places[:20] + rng.normal(0, 0.3, (20, 2))
    found = log_accidents(moved, places, 1e6, 3.0, 64.0, 2.0, 0.1, 1e7)
    distance = np.sort(np.hypot(*(moved - places[:20]).T))
    density = 60 / 1e6  # no cluster: a few neighbours do not raise it
    chance = np.minimum(0.5, density * np.pi * (2.0 * np.maximum(distance, 0.1)) ** 2)
    tails = [binom.logsf(k - 2, 18, chance[k]) for k in range(2, 20)]
    assert found == pytest.approx(7 + min(tails) / math.log(10), rel=1e-9)


def test_two_stars_that_agree_are_no_proof():
    places = np.array([[10.0, 10.0], [200.0, 30.0], [90.0, 400.0]])
    assert log_accidents(places[:2] + 0.1, places, 1e6, 3.0, 64.0, 2.0, 0.1, 1e4) == math.inf
