from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from strategies import stacks

from zmtile import UsageError, winsorized_sigma_clip
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.options import REJECTIONS, Options
from zmtile.stacking.rejection import critical_values, rejection, settled


def clip(stack, **options):
    """Clip (frames, pixels) and return image, coverage, rejlow, rejhigh as 1-D arrays."""
    result = winsorized_sigma_clip(np.asarray(stack)[:, None, :], **options)
    return result.image[0], result.coverage[0], result.rejlow[0], result.rejhigh[0]


def columns(count, seed, frames=(1, 64)):
    """Columns as sky and telescopes make them: Gaussian, with outliers either side and missing samples."""
    rng = np.random.default_rng(seed)
    n = rng.integers(*frames, endpoint=True)
    stack = rng.normal(rng.uniform(100, 3000), rng.uniform(2, 60), (n, count))
    spikes = rng.random(stack.shape) < 0.03
    stack[spikes] += rng.choice([-1, 1], spikes.sum()) * rng.uniform(50, 30000, spikes.sum())
    stack[rng.random(stack.shape) < rng.choice([0, 0.03, 0.4])] = np.nan
    return stack.astype(np.float32)


def survivors_by_count(column, rejlow, rejhigh):
    ordered = oracle.finite(column)
    return ordered[rejlow : len(ordered) - rejhigh]


@pytest.mark.parametrize("seed", range(100))
def test_winsor_keeps_the_survivors_of_the_oracle(seed):
    stack = columns(1000, seed)
    image, coverage, rejlow, rejhigh = clip(stack)
    differing = 0
    for i in range(stack.shape[1]):
        kept = oracle.winsor(stack[:, i])
        ours = survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i]))
        assert coverage[i] == np.isfinite(stack[:, i]).sum()
        if len(kept) == 0:
            assert np.isnan(image[i])
        elif len(ours) != len(kept) or not np.array_equal(ours, kept):
            differing += 1
        else:
            # Relative to the samples: two of 20000 and -20000 have a mean near 0.
            assert image[i] == pytest.approx(kept.mean(), abs=1e-6 * np.abs(kept).max())
    # A sample may lie within float32 rounding of a bound; of 100 runs of 1000 columns, none did.
    assert differing == 0


ORACLES = {
    "sigma": oracle.sigma,
    "winsor-quantile": oracle.winsor_quantile,
    "mad": oracle.mad,
    "linear-fit": oracle.linear_fit,
    "esd": oracle.esd,
    "minmax": oracle.minmax,
    "none": oracle.finite,
}


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("seed", range(5))
def test_other_methods_keep_the_survivors_of_their_oracle(method, seed):
    stack = columns(400, seed + 50)
    reference = ORACLES[method]
    image, _, rejlow, rejhigh = clip(stack, method=method)
    for i in range(stack.shape[1]):
        kept = reference(stack[:, i])
        np.testing.assert_array_equal(survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i])), kept)
        if len(kept):
            assert image[i] == pytest.approx(kept.mean(), abs=1e-6 * np.abs(kept).max())
        else:
            assert np.isnan(image[i])


def test_rewinsorize_puts_outliers_on_their_bound():
    stack = columns(500, 7, frames=(9, 9))
    image, _, rejlow, rejhigh = clip(
        stack, method="winsor-quantile", rewinsorize=True, winsor_limits=(0.1, 0.2)
    )
    assert rejhigh.sum() > 0
    assert rejlow.sum() > 0
    for i in range(stack.shape[1]):
        x = oracle.finite(stack[:, i])
        if len(x):
            low, high = oracle.quantile_bounds(stack[:, i], 0.1, 0.2)
            assert image[i] == pytest.approx(np.clip(x, low, high).mean(), abs=1e-6 * np.abs(x).max())


def test_asymmetric_kappa():
    stack = columns(500, 3, frames=(20, 20))
    _, _, rejlow, rejhigh = clip(stack, kappa=(2.0, 4.0))
    for i in range(stack.shape[1]):
        kept = oracle.winsor(stack[:, i], 2.0, 4.0)
        np.testing.assert_array_equal(survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i])), kept)


@pytest.mark.parametrize(
    ("method", "options", "reference"),
    [
        ("mad", {"kappa": (2.0, 4.0)}, lambda x: oracle.mad(x, 2.0, 4.0)),
        ("linear-fit", {"kappa": (1.5, 2.5)}, lambda x: oracle.linear_fit(x, 1.5, 2.5)),
        ("esd", {"esd_outliers": 0.5, "esd_alpha": 0.4}, lambda x: oracle.esd(x, 0.5, 0.4)),
        ("minmax", {"minmax": (0, 3)}, lambda x: oracle.minmax(x, 0, 3)),
        ("minmax", {"minmax": (8, 5)}, lambda x: oracle.minmax(x, 8, 5)),
    ],
)
def test_methods_take_their_own_options(method, options, reference):
    stack = columns(400, 17, frames=(21, 21))
    _, _, rejlow, rejhigh = clip(stack, method=method, **options)
    assert rejlow.any() or rejhigh.any()
    for i in range(stack.shape[1]):
        kept = survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i]))
        np.testing.assert_array_equal(kept, reference(stack[:, i]))


def test_esd_finds_the_outliers_of_rosner():
    # The data of Rosner's paper, as NIST's handbook prints them (1.3.5.17.3): three outliers at alpha 0.05.
    sample = (
        "-0.25 0.68 0.94 1.15 1.20 1.26 1.26 1.34 1.38 1.43 1.49 1.49 1.55 1.56 1.58 1.65 1.69 1.70 1.76 "
        "1.77 1.81 1.91 1.94 1.96 1.99 2.06 2.09 2.10 2.14 2.15 2.23 2.24 2.26 2.35 2.37 2.40 2.47 2.54 "
        "2.62 2.64 2.90 2.92 2.92 2.93 3.21 3.26 3.30 3.59 3.68 4.30 4.64 5.34 5.42 6.01"
    )
    stack = np.array(sample.split(), np.float32)[:, None]
    _, _, rejlow, rejhigh = clip(stack, method="esd", esd_outliers=0.2)
    assert (rejlow[0], rejhigh[0]) == (0, 3)
    critical = critical_values(54, 0.05)
    np.testing.assert_allclose(critical[[54, 53, 52, 45]], [3.158, 3.151, 3.143, 3.085], atol=0.001)


@pytest.mark.parametrize("method", ["winsor", "sigma", "mad", "linear-fit", "esd", "minmax"])
def test_equal_samples_share_their_fate(method):
    rng = np.random.default_rng(4)
    stack = rng.integers(0, 6, (15, 500)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.1] = 40
    weights = rng.uniform(0.5, 2, 15)
    image, _, rejlow, rejhigh = clip(stack, method=method, weights=weights)
    for i in range(stack.shape[1]):
        kept = survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i]))
        inside = (stack[:, i] >= kept[0]) & (stack[:, i] <= kept[-1])
        assert inside.sum() == len(kept)
        assert image[i] == pytest.approx(np.average(stack[inside, i], weights=weights[inside]), abs=1e-4)


def test_a_trail_is_rejected_and_leaves_no_trace():
    # A mean that clamps instead of rejecting leaves a trail of 50 sigma as +2 sigma at n = 8.
    rng = np.random.default_rng(0)
    stack = rng.normal(1000, 10, (8, 4000)).astype(np.float32)
    stack[3] += 500
    image, _, _, rejhigh = clip(stack)
    assert (rejhigh >= 1).all()
    clean = np.delete(stack, 3, axis=0)
    assert abs(image.mean() - 1000) < 4 * 10 / np.sqrt(clean.size)


@pytest.mark.parametrize("method", ["winsor", "sigma", "mad", "linear-fit", "winsor-quantile"])
def test_a_tiny_kappa_never_rejects_all(method):
    stack = columns(400, 13, frames=(4, 4))
    image, coverage, rejlow, rejhigh = clip(stack, kappa=(0.3, 0.3), method=method)
    reference = {"winsor": oracle.winsor, **ORACLES}
    np.testing.assert_array_equal(np.isnan(image), coverage == 0)
    for i in range(stack.shape[1]):
        if method == "winsor-quantile":
            kept = oracle.winsor_quantile(stack[:, i], klow=0.3, khigh=0.3)
        else:
            kept = reference[method](stack[:, i], 0.3, 0.3)
        assert coverage[i] - rejlow[i] - rejhigh[i] == len(kept)


@pytest.mark.parametrize("method", ["sigma", "winsor"])
def test_survivors_do_not_depend_on_the_pixels_beside(method):
    # Bounds so tight that one pixel keeps samples above those that another keeps.
    rng = np.random.default_rng(5)
    stack = rng.normal(1000, 30, (17, 20000)).astype(np.float32)
    stack[rng.random(stack.shape) < 0.3] = np.nan
    order = rng.permutation(stack.shape[1])
    here = clip(stack, method=method, kappa=(0.2, 0.2))
    there = clip(np.ascontiguousarray(stack[:, order]), method=method, kappa=(0.2, 0.2))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_median_combine_is_the_median_of_the_survivors():
    stack = columns(300, 11, frames=(12, 12))
    image, *_ = clip(stack, combine="median")
    for i in range(stack.shape[1]):
        kept = oracle.winsor(stack[:, i])
        if len(kept):
            assert image[i] == pytest.approx(np.median(kept), abs=1e-6 * np.abs(kept).max())


def test_weights_weigh_the_survivors():
    stack = columns(300, 5, frames=(10, 10))
    weights = np.linspace(0.5, 2.0, 10)
    image, _, rejlow, rejhigh = clip(stack, weights=weights)
    for i in range(stack.shape[1]):
        kept = survivors_by_count(stack[:, i], int(rejlow[i]), int(rejhigh[i]))
        if len(kept):
            inside = (stack[:, i] >= kept[0]) & (stack[:, i] <= kept[-1])
            expected = np.average(stack[inside, i].astype(np.float64), weights=weights[inside])
            assert image[i] == pytest.approx(expected, abs=1e-6 * np.abs(kept).max())


@pytest.mark.parametrize("known", [True, False], ids=["noises", "inverse variances"])
def test_weights_of_samples_enter_the_mean_and_not_the_rejection(known):
    rng = np.random.default_rng(0)
    stack = columns(300, 5, frames=(10, 10))
    weights = rng.uniform(1e-3, 2.0, stack.shape)
    noises = rng.uniform(1, 3, 10) if known else None
    plain = winsorized_sigma_clip(stack)
    *_, few, widening = rejection(Options(), 10)
    result = winsorized_sigma_clip(stack, weights=weights, noises=noises)
    for plane in ("coverage", "rejlow", "rejhigh"):
        np.testing.assert_array_equal(getattr(result, plane), getattr(plain, plane))
    for i in range(stack.shape[1]):
        kept = survivors_by_count(stack[:, i], int(plain.rejlow[i]), int(plain.rejhigh[i]))
        if len(kept) > 1:
            inside = (stack[:, i] >= kept[0]) & (stack[:, i] <= kept[-1])
            x, w = stack[inside, i].astype(np.float64), weights[inside, i]
            variances = noises[inside] ** 2 if known else 1 / w
            error = oracle.mean_uncertainty(x, w, variances, few[:, len(kept)])
            if known:
                error = max(
                    error, np.sqrt((w**2 * variances).sum()) / w.sum() / 8 / widening[plain.coverage[i]]
                )
            error *= widening[plain.coverage[i]]
            assert result.image[i] == pytest.approx(np.average(x, weights=w), abs=1e-6 * np.abs(x).max())
            assert result.uncert[i] == pytest.approx(error, rel=1e-3, abs=1e-5 * np.abs(x).max())


def test_weights_of_samples_that_are_those_of_frames_change_no_bit():
    stack = columns(200, 7, frames=(8, 8))
    weights = np.linspace(0.5, 2.0, 8)
    by_frame = winsorized_sigma_clip(stack, weights=weights)
    by_sample = winsorized_sigma_clip(stack, weights=np.repeat(weights[:, None], stack.shape[1], axis=1))
    for plane in ("image", "uncert", "coverage"):
        np.testing.assert_array_equal(getattr(by_frame, plane), getattr(by_sample, plane))


def test_uncert_is_the_standard_error_of_the_survivors_times_what_few_samples_and_rejection_hide():
    stack = columns(300, 21, frames=(9, 9))
    result = winsorized_sigma_clip(stack[:, None])
    *_, widening = rejection(Options(), 9)
    for i in range(stack.shape[1]):
        kept = oracle.winsor(stack[:, i])
        if len(kept) > 1:
            error = kept.std(ddof=1) / np.sqrt(len(kept))
            few = stats.t.ppf(stats.norm.cdf(1), len(kept) - 1)
            expected = error * few * widening[result.coverage[0, i]]
            assert result.uncert[0, i] == pytest.approx(expected, rel=1e-4, abs=1e-4)
        else:
            assert np.isnan(result.uncert[0, i])


@pytest.mark.parametrize("n", [3, 5, 8, 21, 70])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "mad"},
        {"method": "esd", "combine": "median"},
        {"kappa": (2.0, 2.5)},
        {"method": "linear-fit"},
        {"method": "winsor-quantile", "rewinsorize": True, "winsor_limits": (0.2, 0.2)},
        {"method": "none", "combine": "median"},
    ],
    ids=str,
)
def test_pulls_have_unit_width(options, n):
    stack = np.random.default_rng(n).normal(500, 7, (n, 1, 20_000))
    result = winsorized_sigma_clip(stack, **options)
    centre = result.image.mean(dtype=float)  # an asymmetric kappa has a bias, which is no scatter
    assert abs(centre - 500) < (0.8 if "kappa" in options else 0.1)
    low, high = np.percentile((result.image - centre) / result.uncert, [15.87, 84.13])
    assert (high - low) / 2 == pytest.approx(1, abs=0.04)


UNEQUAL = [(1, 2), (1, 3), (1, 3, 3, 3, 3), (1, 1, 3, 3), (1,) * 4 + (3,) * 4]


@pytest.mark.parametrize("sigmas", UNEQUAL, ids=str)
@pytest.mark.parametrize("method", ["none", "winsor"])
@pytest.mark.parametrize("given", ["weights", "noises", "both"])
def test_pulls_of_unequal_noises_have_unit_width(sigmas, method, given):
    noises = np.array(sigmas, float)
    stack = np.random.default_rng(3).standard_normal((len(noises), 1, 20_000)) * noises[:, None, None]
    options = {"weights": {"weights": noises**-2}, "noises": {"noises": noises / 2}}
    options["both"] = options["weights"] | options["noises"]
    result = winsorized_sigma_clip(stack, method=method, **options[given])
    assert pull_width(result) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("method", ["none", "winsor"])
@pytest.mark.parametrize(
    "shares", [(1, 0.001), (1, 0.1), (1, 1, 0.01), (1, 0.1, 0.1, 0.1, 0.1), (1, 1) + (0.1,) * 18], ids=str
)
def test_pulls_of_feathered_frames_have_unit_width(shares, method):
    stack = np.random.default_rng(4).standard_normal((len(shares), 1, 20_000))
    weights = np.repeat(np.array(shares)[:, None], 20_000, axis=1)[:, None]
    result = winsorized_sigma_clip(stack, method=method, weights=weights, noises=np.ones(len(shares)))
    assert pull_width(result) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("sigmas", [*UNEQUAL, (1, 1, 3), (1, 1.5, 2, 1.2, 1.1)], ids=str)
def test_pulls_of_a_median_of_unequal_noises_have_nearly_unit_width(sigmas):
    noises = np.array(sigmas, float)
    stack = np.random.default_rng(5).standard_normal((len(noises), 1, 20_000)) * noises[:, None, None]
    result = winsorized_sigma_clip(stack, noises=noises, combine="median")
    assert 0.92 < pull_width(result) < 1.1


def pull_width(result):
    low, high = np.nanpercentile(result.image / result.uncert, [15.87, 84.13])
    return (high - low) / 2


@pytest.mark.parametrize("method", ["none", "winsor"])
def test_the_unit_of_the_noises_does_not_count(method):
    stack = columns(300, 8, frames=(7, 7))[:, None]
    noises = np.linspace(1, 3, 7)
    ours, theirs = (winsorized_sigma_clip(stack, noises=f * noises, method=method).uncert for f in (1, 1 / 4))
    several = np.isfinite(stack).sum(axis=0) > 3  # one survivor has its noise
    np.testing.assert_allclose(ours[several], theirs[several], rtol=1e-5)


def test_noises_and_weights_that_do_not_fit_are_refused():
    stack = np.ones((3, 1, 2))
    for wrong in (np.ones(2), [1, 0, 1], [1, np.nan, 1], np.ones((3, 1, 2))):
        with pytest.raises(UsageError, match="noises"):
            winsorized_sigma_clip(stack, noises=wrong)
    with pytest.raises(UsageError, match="median"):
        winsorized_sigma_clip(stack, weights=np.ones(3), combine="median")


def test_a_single_sample_has_the_noise_of_its_frame():
    stack = np.array([[np.nan, 4.0], [7.0, np.nan]])[:, None]
    result = winsorized_sigma_clip(stack, noises=[2, 3], weights=[1, 0.5])
    np.testing.assert_array_equal(result.uncert[0], np.array([3, 2], np.float32))
    assert np.isnan(winsorized_sigma_clip(stack).uncert).all()


def test_survivors_that_are_equal_by_chance_are_not_certain():
    made = [np.empty(1, kind) for kind in [np.float32] * 3 + [np.uint16] * 3]
    samples = np.array([500, 500, 500, 900], np.float32)[:, None]
    weight, noise = np.array([1, 0.5, 1, 1], np.float32), np.full(4, 8, np.float32)
    stack_block(
        samples,
        weight,
        None,
        noise,
        comparators(4),
        *rejection(Options(), 4),
        *made,
        tally=np.zeros((4, 3), np.int64),
    )
    floor = 0.125 * np.hypot(np.hypot(8, 8), 4) / 2.5
    assert made[1][0] == pytest.approx(floor, rel=1e-5)


def test_auto_is_the_method_for_the_number_of_frames():
    for n, method in {1: "mad", 5: "mad", 6: "winsor", 9: "winsor", 10: "esd", 40: "esd"}.items():
        stack = columns(300, n, frames=(n, n))
        for ours, theirs in zip(clip(stack, method="auto"), clip(stack, method=method), strict=True):
            assert ours.tobytes() == theirs.tobytes()
        assert settled(Options(reject="auto", kappa=(2, 3)), n).reject == method


def test_what_auto_does_not_look_at_is_said(caplog):
    for n, options, ignored in [
        (12, {"kappa": (2, 2)}, "--kappa does nothing: --reject auto chose esd for 12 frames"),
        (9, {"esd_alpha": 0.1}, "--esd-alpha does nothing: --reject auto chose winsor for 9 frames"),
        (5, {"esd_outliers": 0.2}, "--esd-outliers does nothing: --reject auto chose mad for 5 frames"),
    ]:
        with caplog.at_level("WARNING", "zmtile"):
            settled(Options(reject="auto", **options), n)
        assert caplog.messages == [ignored]
        caplog.clear()
    with caplog.at_level("WARNING", "zmtile"):
        settled(Options(reject="auto", kappa=(2, 2)), 9)
        settled(Options(reject="auto", esd_alpha=0.1, grow=2), 10)
    assert not caplog.messages


@given(stacks(), st.sampled_from(REJECTIONS), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_frames_moves_no_survivor(stack, method, random):
    order = list(range(len(stack)))
    random.shuffle(order)
    image, *counts = clip(stack, method=method)
    again, *counts_again = clip(stack[order], method=method)
    np.testing.assert_array_equal(counts, counts_again)
    np.testing.assert_allclose(image, again, rtol=3e-7)


@given(stacks(), st.integers(1, 39), st.sampled_from(REJECTIONS))
@settings(max_examples=60, deadline=None)
def test_a_pixel_depends_on_its_own_samples_only(stack, cut, method):
    whole = clip(stack, method=method)
    cut = min(cut, stack.shape[1] - 1)
    if cut:
        parts = [clip(stack[:, :cut], method=method), clip(stack[:, cut:], method=method)]
        for plane, left, right in zip(whole, *parts, strict=True):
            assert plane.tobytes() == np.concatenate([left, right]).tobytes()


@given(stacks(), st.sampled_from([0.5, 2.0, 4.0]), st.integers(-1000, 1000))
@settings(max_examples=60, deadline=None)
def test_scale_and_offset_go_through(stack, scale, offset):
    # Powers of two and integers: the arithmetic of the transformed samples is as exact as before.
    image, *counts = clip(stack)
    moved, *moved_counts = clip(stack * np.float32(scale) + np.float32(offset))
    np.testing.assert_array_equal(counts, moved_counts)
    np.testing.assert_allclose(moved, image * scale + offset, rtol=1e-6, atol=0.02)


# 'auto' is one of the others, chosen by the number of frames, gaps or not.
@given(stacks(), st.sampled_from([m for m in REJECTIONS if m != "auto"]))
@settings(max_examples=60, deadline=None)
def test_no_nan_is_ever_counted(stack, method):
    gaps = np.full((3, stack.shape[1]), np.nan, np.float32)
    plain = clip(stack, method=method)
    padded = clip(np.concatenate([gaps[:1], stack, gaps[1:]]), method=method)
    for a, b in zip(plain, padded, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(plain[1], np.isfinite(stack).sum(axis=0))
    np.testing.assert_array_equal(np.isnan(plain[0]), plain[1] == 0)


@pytest.mark.parametrize("method", REJECTIONS)
def test_few_and_equal_samples(method):
    nan = np.nan
    stack = np.array([[5, 1, nan, 7], [5, 900, nan, nan], [5, nan, nan, nan], [5, nan, nan, nan]], np.float32)
    image, coverage, rejlow, rejhigh = clip(stack, method=method)
    np.testing.assert_array_equal(image, np.array([5, 450.5, nan, 7], np.float32))
    np.testing.assert_array_equal(coverage, [4, 2, 0, 1])
    assert not rejlow.any()
    assert not rejhigh.any()


def test_rewinsorized_median_is_that_of_the_clamped_samples():
    stack = np.array([1000, 1001, 1003, 1004], np.float32)[:, None]
    image, *_ = clip(stack, method="winsor-quantile", rewinsorize=True, combine="median", kappa=(0.1, 0.1))
    low, high = oracle.quantile_bounds(stack[:, 0], 0.05, 0.05, 0.1, 0.1)
    assert image[0] == pytest.approx(np.median(np.clip(stack[:, 0], low, high)), rel=1e-6)


def test_masked_and_absurd_values_are_no_data():
    stack = np.ma.masked_array([[1.0, 3e19], [5.0, 2.0], [900.0, 2.0]], mask=[[0, 0], [0, 0], [1, 0]])
    image, coverage, *_ = clip_masked(stack)
    np.testing.assert_array_equal(image, [3, 2])
    np.testing.assert_array_equal(coverage, [2, 2])


def clip_masked(stack):
    result = winsorized_sigma_clip(stack[:, None, :])
    return result.image[0], result.coverage[0]


OVERFLOW = """
import json, sys
import numpy as np
from zmtile import winsorized_sigma_clip
rng = np.random.default_rng(0)
stack = rng.normal(1000, 5, (240, 1, 64)).astype(np.float32)
stack[0, 0, 40] = 9000
huge = np.s_[int(sys.argv[2]) : int(sys.argv[3])]
stack[:121, 0, huge], stack[121:, 0, huge] = -9e17, 9e17
result = winsorized_sigma_clip(stack, method=sys.argv[1])
print(json.dumps([result.rejlow[0].tolist(), result.rejhigh[0].tolist()]))
"""


@pytest.mark.parametrize("method", ["sigma", "winsor"])
@pytest.mark.parametrize(("first", "stop"), [(3, 4), (0, 32)])  # in the belt, and in whole groups
def test_the_search_for_sigma_ends_where_squares_overflow(method, first, stop):
    # In a process of its own: a kernel that does not end sees no signal.
    command = [sys.executable, "-c", OVERFLOW, method, str(first), str(stop)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    low, high = np.array(json.loads(done.stdout))
    assert not low[first:stop].any()  # within any multiple of an infinite sigma
    assert not high[first:stop].any()
    assert high[40] > 0


def test_infinities_are_no_data():
    image, coverage, *_ = clip([[np.inf, 1.0], [3.0, -np.inf], [3.0, 1.0]])
    np.testing.assert_array_equal(image, [3, 1])
    np.testing.assert_array_equal(coverage, [2, 2])


def test_colour_axis_and_integers():
    stack = np.random.default_rng(1).integers(0, 65535, (6, 7, 5, 3), np.uint16)
    result = winsorized_sigma_clip(stack)
    assert result.image.shape == (7, 5, 3)
    flat = winsorized_sigma_clip(stack.reshape(6, 7, 15).astype(np.float64))
    np.testing.assert_array_equal(result.image.reshape(7, 15), flat.image)


def test_threads_change_nothing():
    stack = columns(70000, 9, frames=(15, 15))[:, None]
    one, two = (winsorized_sigma_clip(stack, threads=t) for t in (1, 2))
    assert one.image.tobytes() == two.image.tobytes()


@pytest.mark.parametrize(
    ("stack", "options"),
    [
        (np.zeros(3), {}),
        (np.zeros((0, 2, 2)), {}),
        (np.zeros((2, 2, 2)), {"weights": [1.0]}),
        (np.zeros((2, 2, 2)), {"weights": [1.0, -1.0]}),
        (np.zeros((2, 2, 2)), {"method": "magic"}),
        (np.zeros((2, 2, 2)), {"kappa": (0.0, 3.0)}),
        (np.zeros((4, 2, 2)), {"method": "minmax", "minmax": (2, 2)}),
    ],
)
def test_nonsense_is_refused(stack, options):
    with pytest.raises(UsageError):
        winsorized_sigma_clip(stack, **options)


@pytest.mark.parametrize("n", range(1, 13))
def test_the_network_sorts_every_pattern(n):
    # The 0-1 principle [Knuth1998]_: a network that sorts all patterns of 0 and 1 sorts everything.
    patterns = (np.arange(2**n)[None] >> np.arange(n)[:, None]) & 1
    for a, b in comparators(n):
        patterns[[a, b]] = np.sort(patterns[[a, b]], axis=0)
    assert (np.diff(patterns, axis=0) >= 0).all()
