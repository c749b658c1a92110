"""The rejection kernels of the GPU, held to the CPU's bit for bit, and so to the oracle."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import stacks

from zmtile import Options
from zmtile.gpu.reject import RejectionOnDevice
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.stacking.planes import Planes
from zmtile.stacking.rejection import rejection
from zmtile.stacking.warp import Block

PLANES = ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh")
METHODS = {
    "none": Options(reject="none"),
    "sigma": Options(reject="sigma", kappa=(2.0, 2.5)),
    "winsor": Options(),
    "winsor with a kappa that refuses all": Options(kappa=(0.2, 0.2)),
    "winsor of a median": Options(combine="median", weight="none"),
    "winsor-quantile": Options(reject="winsor-quantile", winsor_limits=(0.1, 0.2)),
    "winsor-quantile with bounds in place of outliers": Options(reject="winsor-quantile", rewinsorize=True),
    "mad": Options(reject="mad"),
    "linear-fit": Options(reject="linear-fit", kappa=(2.0, 2.0)),
    "esd": Options(reject="esd"),
    "minmax": Options(reject="minmax", minmax=(1, 2)),
}


def on_device(device, stack, weights, noises, options, shares=None):
    """Return the planes of a stack (frames, pixels)."""
    frames, pixels = stack.shape
    planes = Planes.empty(frames, 1, 1, pixels)
    reject = RejectionOnDevice(device, weights[:, None], noises[:, None], options)
    block = Block(0, 0, 1, pixels)
    given_shares = None if shares is None else device.put(shares)
    with device.at_work():
        reject(device.put(stack[None]), given_shares, range(frames), block, block, planes)
    return planes


def on_cpu(stack, weights, noises, options, shares=None):
    frames, pixels = stack.shape
    planes = Planes.empty(frames, 1, 1, pixels)
    stack_block(
        stack,
        weights,
        shares,
        noises,
        comparators(frames),
        *rejection(options, frames),
        *(getattr(planes, name).reshape(-1) for name in PLANES),
        tally=planes.tally[:, 0],
    )
    return planes


def differing(one, other):
    return [
        name
        for name in (*PLANES, "tally")
        if not np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
    ]


def columns(frames, pixels=300, seed=0):
    """Columns as sky and telescopes make them: outliers, ties, missing samples."""
    rng = np.random.default_rng(seed + frames)
    stack = rng.normal(1000, 20, (frames, pixels))
    stack[rng.random(stack.shape) < 0.03] += 500
    stack[:, ::7] = np.rint(stack[:, ::7] / 20) * 20
    stack[rng.random(stack.shape) < 0.1] = np.nan
    stack[:, 5] = np.nan
    stack[:, 6] = 7.0
    return stack.astype(np.float32), *(rng.uniform(0.5, 2, frames).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames", [12, 70])
def test_every_rejection_makes_the_planes_of_the_cpu(device, method, frames):
    stack, weights, noises = columns(frames)
    options = METHODS[method]
    weights = np.ones_like(weights) if options.combine == "median" else weights
    made = on_device(device, stack, weights, noises, options)
    assert differing(made, on_cpu(stack, weights, noises, options)) == []


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 20, 33, 64, 65, 131, 400])
def test_any_number_of_frames_makes_the_planes_of_the_cpu(device, frames):
    stack, weights, noises = columns(frames)
    options = Options()
    assert (
        differing(on_device(device, stack, weights, noises, options), on_cpu(stack, weights, noises, options))
        == []
    )


@pytest.mark.parametrize("frames", [12, 70])
@pytest.mark.parametrize("unit", [1e-20, 1e-12, 1e12])
def test_values_in_any_unit_are_rejected_as_on_the_cpu(device, frames, unit):
    # Squares of the smallest are below all normal float32.
    stack, weights, noises = columns(frames)
    stack, noises = stack * np.float32(unit), noises * np.float32(unit)
    made = on_device(device, stack, weights, noises, Options())
    assert differing(made, on_cpu(stack, weights, noises, Options())) == []


def test_shares_of_the_weights_are_looked_at(device):
    stack, weights, noises = columns(20)
    shares = np.random.default_rng(3).uniform(1e-3, 1, stack.shape).astype(np.float32)
    made = on_device(device, stack, weights, noises, Options(), shares)
    assert differing(made, on_cpu(stack, weights, noises, Options(), shares)) == []


@pytest.mark.parametrize("options", [Options(), Options(reject="esd")])
def test_columns_that_do_not_fit_shared_memory_go_to_global_memory(open_gpu, options):
    stack, weights, noises = columns(100, pixels=3000)
    device = open_gpu(shared=10_000, at_once=4)
    assert (
        differing(on_device(device, stack, weights, noises, options), on_cpu(stack, weights, noises, options))
        == []
    )


@pytest.mark.parametrize("frames", [12, 70])
def test_threads_of_a_block_that_work_together_meet_at_the_barriers(open_gpu, frames):
    stack, weights, noises = columns(frames)
    options = Options()
    for threads in (2, 5):
        made = on_device(open_gpu(threads=threads), stack, weights, noises, options)
        assert differing(made, on_cpu(stack, weights, noises, options)) == []


@pytest.mark.parametrize("frames", [3, 20, 64, 70, 300])
@pytest.mark.parametrize(
    "options", [Options(), Options(reject="sigma", kappa=(2.0, 2.5))], ids=["winsor", "sigma"]
)
def test_the_lanes_of_a_warp_make_the_planes_of_the_cpu(open_gpu, frames, options):
    stack, weights, noises = columns(frames, pixels=150)
    made = on_device(open_gpu(threads=32), stack, weights, noises, options)
    assert differing(made, on_cpu(stack, weights, noises, options)) == []


@given(stacks(max_frames=12, max_pixels=8), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_order_of_the_frames_changes_the_counts_and_none_counts_nan(device, stack, data):
    order = data.draw(st.permutations(range(len(stack))))
    even = np.ones(len(stack), np.float32)
    made = on_device(device, stack, even, even, Options())
    other = on_device(device, stack[order], even, even, Options())
    assert np.array_equal(made.coverage[0, 0], np.isfinite(stack).sum(axis=0))
    assert np.array_equal(np.isnan(made.image[0, 0]), made.coverage[0, 0] == 0)
    for name in ("coverage", "rejlow", "rejhigh"):
        assert np.array_equal(getattr(made, name), getattr(other, name))
    assert np.array_equal(made.tally[order], other.tally)


def test_the_survivors_are_those_of_the_oracle(device):
    stack, _, _ = columns(20, pixels=2000)
    even = np.ones(20, np.float32)
    made = on_device(device, stack, even, even, Options())
    for pixel in range(stack.shape[1]):
        kept = oracle.winsor(stack[:, pixel])
        lost = int(made.rejlow[0, 0, pixel]) + int(made.rejhigh[0, 0, pixel])
        assert int(made.coverage[0, 0, pixel]) - lost == len(kept)
        if len(kept):
            assert made.image[0, 0, pixel] == pytest.approx(kept.mean(), rel=2e-6)


def test_scratch_memory_is_counted_for_the_combination_after_growth_too(open_gpu):
    device, ones = open_gpu(shared=30_000), np.ones((300, 1), np.float32)
    search, growth, none = (
        RejectionOnDevice(device, ones, ones, options).scratch_bytes(300, 10**5)
        for options in (Options(), Options(grow=2), Options(reject="none"))
    )
    assert search == 0
    assert growth == none > 0
