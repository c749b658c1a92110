from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import eigh

from zmtile.matching.weights import frame_weights
from zmtile.options import WEIGHTS

positive = st.floats(0.2, 20.0)
groups = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=positive) for _ in range(3)])
)


def weights(kind, noise, fwhm, signal=None):
    """Weights of one channel."""
    signal = np.ones_like(noise) if signal is None else signal
    return frame_weights(kind, noise[:, None], fwhm, signal[:, None])[:, 0]


def power(weight, noise, fwhm, signal=1.0):
    """(S/N)² of a faint star in the weighted mean, summed frame by frame."""
    w = weight * signal
    met = sum(w[j] * w[k] / (fwhm[j] ** 2 + fwhm[k] ** 2) for j in range(len(fwhm)) for k in range(len(fwhm)))
    return met / (weight**2 * noise**2).sum()


@given(groups)
def test_noise_weights_are_inverse_variances(group):
    noise, fwhm, _ = group
    np.testing.assert_allclose(weights("noise", noise, fwhm), (noise.min() / noise) ** 2, rtol=1e-9)


@given(groups)
def test_fwhm_weights_are_the_principal_eigenvector(group):
    noise, fwhm, _ = group
    overlap = 1 / (fwhm[:, None] ** 2 + fwhm[None] ** 2)
    best = np.abs(eigh(overlap, np.diag(noise**2))[1][:, -1])
    # Weights are used as float32; where two eigenvalues are nearly equal, 200 turns leave 1e-8 or so.
    np.testing.assert_allclose(weights("fwhm", noise, fwhm), best / best.max(), atol=1e-6)


@given(groups)
def test_no_weights_show_fainter_stars_than_those_by_fwhm(group):
    noise, fwhm, other = group
    best = power(weights("fwhm", noise, fwhm), noise, fwhm)
    for weight in (other, *(weights(kind, noise, fwhm) for kind in WEIGHTS)):
        assert best >= power(weight, noise, fwhm) * (1 - 1e-9)


@given(groups)
def test_frames_of_one_fwhm_weigh_by_their_noise(group):
    noise, _, _ = group
    same = np.full_like(noise, 3.1)
    np.testing.assert_allclose(weights("fwhm", noise, same), weights("noise", noise, same), atol=1e-9)
    np.testing.assert_allclose(weights("stars", noise, same), weights("noise", noise, same), atol=1e-9)


@given(groups)
def test_star_weights_are_best_for_frames_that_are_not_scaled(group):
    """Of one FWHM, that is: the signal counts once for itself, once in what it adds to the mean."""
    noise, signal, other = group
    same = np.full_like(noise, 3.1)
    best = power(weights("stars", noise, same, signal), noise, same, signal)
    assert best >= power(other, noise, same, signal) * (1 - 1e-9)


@given(groups)
def test_star_weights_are_the_inverse_variance_of_a_stars_flux(group):
    noise, fwhm, _ = group
    expected = 1 / (noise * fwhm) ** 2
    np.testing.assert_allclose(weights("stars", noise, fwhm), expected / expected.max(), rtol=1e-9)


def test_the_sharper_of_two_frames_weighs_more_the_more_the_rule_looks_at_stars():
    noise, fwhm = np.array([1.0, 1.0]), np.array([2.5, 5.0])
    blurred = [weights(kind, noise, fwhm)[1] for kind in ("noise", "fwhm", "stars")]
    assert blurred[0] == 1.0
    assert blurred[0] > blurred[1] > blurred[2] == pytest.approx(0.25)


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("missing", [np.nan, 0.0, np.inf])
def test_a_frame_of_which_something_is_not_known_weighs_as_the_typical_one(kind, missing):
    noise, fwhm = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])
    lost_noise, lost_fwhm = np.append(noise, missing), np.append(fwhm, missing)
    typical = weights(kind, np.append(noise, 2.0), np.append(fwhm, 3.0))
    np.testing.assert_array_equal(weights(kind, lost_noise, lost_fwhm), typical)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_frames_without_noise_or_stars_weigh_alike(kind):
    nothing = np.full(3, np.nan)
    np.testing.assert_array_equal(weights(kind, nothing, nothing), 1.0)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_channels_are_weighed_alone(kind):
    rng = np.random.default_rng(0)
    noise, fwhm = rng.uniform(1, 3, (6, 3)), rng.uniform(2, 5, 6)
    together = frame_weights(kind, noise, fwhm, np.ones((6, 3)))
    assert together.max(axis=0) == pytest.approx([1, 1, 1])
    for c in range(3):
        np.testing.assert_array_equal(together[:, c], weights(kind, noise[:, c], fwhm))
