from __future__ import annotations

import numpy as np
import pytest
from test_mapping import COLS, ROWS, scattered
from test_models import true_map

from zmtile.registration.choice import Sample, choose_model
from zmtile.registration.mapping import apply
from zmtile.registration.models import MODELS


def sample(model, stars=300, noise=0.1, seed=0, outliers=0):
    points = scattered(stars, seed=seed)
    rng = np.random.default_rng(seed)
    there = apply(true_map(model), points) + rng.normal(0, noise, points.shape)
    there[:outliers] += rng.uniform(-3, 3, (outliers, 2))
    return Sample((ROWS, COLS), points, there, np.full(stars, noise**-2.0), 0, np.arange(stars))


@pytest.mark.parametrize("model", MODELS)
def test_the_true_model_is_chosen(model):
    assert choose_model([sample(model, seed=seed) for seed in range(4)]) == model


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_no_reason_for_a_richer_model(seed):
    assert choose_model([sample("similarity", seed=seed, outliers=5)]) == "similarity"


def test_few_stars_are_taken_for_a_similarity():
    assert choose_model([sample("poly3", stars=12, seed=seed) for seed in range(9)]) == "similarity"
    assert choose_model([]) == "similarity"


def test_no_model_is_considered_for_which_the_stars_are_too_few():
    assert choose_model([sample("poly3", stars=35, seed=seed) for seed in range(9)]) != "poly3"
