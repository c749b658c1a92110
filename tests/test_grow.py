"""Growth of rejected regions."""

from __future__ import annotations

from dataclasses import replace

import make_group
import numpy as np
import oracle
import pytest

from zmtile import Options, Resources, UsageError, build_tile, memory
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.memory import memory_needed
from zmtile.pipeline import plan_tile
from zmtile.stacking import strips
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.grow import grow, halo
from zmtile.stacking.rejection import rejection, settled

FRAMES, ROWS, COLS = 9, 40, 50
SPEC = make_group.GroupSpec(
    frames=6, rows=320, cols=420, stars=120, seed=5, trails=1.0, cosmic_rays=5, hot_pixels=0.0
)


def stacked(samples, options, weight, shares=None):
    """Planes and tally of (frames, rows, cols) without growth."""
    frames, rows, cols = samples.shape
    made = [np.empty(rows * cols, kind) for kind in [np.float32] * 3 + [np.uint16] * 3]
    tally = np.zeros((frames, 3), np.int64)
    stack_block(
        samples.reshape(frames, -1),
        weight,
        None if shares is None else shares.reshape(frames, -1),
        np.full(frames, 10, np.float32),
        comparators(frames),
        *rejection(options, frames),
        *made,
        tally=tally,
    )
    return made, tally


def grown(samples, options, weight, shares=None):
    made, _ = stacked(samples, options, weight, shares)
    shares = None if shares is None else shares.reshape(len(samples), -1)
    noise, inside = np.full(len(samples), 10, np.float32), np.s_[:, :]
    tally = grow(samples, weight, shares, noise, options, made, inside)
    return [plane.reshape(samples.shape[1:]) for plane in made], tally


def sky_with_trail(seed, frames=FRAMES):
    """Samples with gaps, single outliers, and a trail with wings through every third frame."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(1000, 10, (frames, ROWS, COLS))
    y, x = np.mgrid[:ROWS, :COLS]
    for k in range(0, frames, 3):
        angle, across = rng.uniform(0, np.pi), rng.uniform(-8, 8)
        distance = (x - COLS / 2) * np.sin(angle) - (y - ROWS / 2) * np.cos(angle) + across
        samples[k] += 300 * np.exp(-0.5 * (distance / 1.5) ** 2)
    samples[rng.random(samples.shape) < 0.01] += 400
    samples[rng.random(samples.shape) < 0.05] = np.nan
    return samples.astype(np.float32)


@pytest.mark.parametrize("method", ["winsor", "mad", "esd"])
@pytest.mark.parametrize("radius", [1, 4])
def test_growth_is_that_of_the_oracle(method, radius):
    samples = sky_with_trail(radius)
    options, weight = Options(reject=method, grow=radius), np.linspace(0.5, 2, FRAMES).astype(np.float32)
    (_, _, _, _, low_before, high_before), _ = stacked(samples, options, weight)
    shares = np.random.default_rng(0).uniform(0.1, 1, samples.shape).astype(np.float32)
    (image, _, total, coverage, rejlow, rejhigh), tally = grown(samples, options, weight, shares)
    lost = np.zeros((2, *samples.shape), bool)
    for row in range(ROWS):
        for col in range(COLS):
            order = np.argsort(samples[:, row, col])  # NaN last
            n = np.isfinite(samples[:, row, col]).sum()
            lost[0, order[: low_before.reshape(ROWS, COLS)[row, col]], row, col] = True
            lost[1, order[n - high_before.reshape(ROWS, COLS)[row, col] : n], row, col] = True
    left = np.isfinite(samples) & ~lost.any(axis=0)
    taken = oracle.grow(lost[1], left, radius)
    assert taken.sum() > 100
    kept = left & ~taken
    each = kept * weight[:, None, None] * shares
    expected = (np.where(kept, samples, 0).astype(float) * each).sum(axis=0) / each.sum(axis=0)
    np.testing.assert_allclose(total, each.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    np.testing.assert_array_equal(coverage, np.isfinite(samples).sum(axis=0))
    np.testing.assert_array_equal(rejlow, lost[0].sum(axis=0))
    np.testing.assert_array_equal(rejhigh, (lost[1] | taken).sum(axis=0))
    counts = [np.isfinite(samples), lost[0], lost[1] | taken]
    np.testing.assert_array_equal(tally, np.stack([m.sum(axis=(1, 2)) for m in counts], axis=1))


def test_what_growth_leaves_alone_keeps_every_bit():
    samples, weight = sky_with_trail(3), np.ones(FRAMES, np.float32)
    options = Options(grow=3)
    before, _ = stacked(samples, options, weight)
    after, _ = grown(samples, options, weight)
    same = after[5] == before[5].reshape(ROWS, COLS)
    assert 0.2 < same.mean() < 0.95
    for a, b in zip(after, before, strict=True):
        assert a[same].tobytes() == b.reshape(ROWS, COLS)[same].tobytes()


def test_noise_does_not_grow():
    samples = np.random.default_rng(1).normal(1000, 10, (5, 300, 300)).astype(np.float32)
    weight, options = np.ones(5, np.float32), Options(grow=8)
    before, _ = stacked(samples, options, weight)
    after, _ = grown(samples, options, weight)
    assert before[5].sum() > 1000
    np.testing.assert_array_equal(after[5].ravel(), before[5])


def test_a_pixel_never_loses_its_last_sample_to_growth():
    # Each frame has a region of its own beside the middle, and all of them reach it.
    samples = np.random.default_rng(2).normal(1000, 10, (6, 30, 30)).astype(np.float32)
    for k in range(6):
        row, col = (np.array([15, 15]) + 8 * np.array([np.sin(k), np.cos(k)])).astype(int)
        samples[k, row - 2 : row + 3, col - 2 : col + 3] += 500
    (image, uncert, _, coverage, rejlow, rejhigh), _ = grown(
        samples, Options(grow=20), np.ones(6, np.float32)
    )
    assert np.isfinite(image).all()
    assert np.isfinite(uncert).all()
    assert (coverage.astype(int) - rejlow - rejhigh >= 1).all()
    assert coverage[15, 15] - rejlow[15, 15] - rejhigh[15, 15] >= 4  # spared as a whole


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    return make_group.write_group(SPEC, tmp_path_factory.mktemp("trails"))


@pytest.fixture(scope="module")
def tile(lights):
    return build_tile(lights, Options(reference=lights[0].name, grow=3))


PLANES = ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh")


@pytest.mark.parametrize(("cols", "pixels"), [(37, 1024), (420, 2000), (64, 5000)])
def test_blocks_threads_and_memory_change_no_bit(lights, tile, monkeypatch, cols, pixels):
    monkeypatch.setattr(strips, "BLOCK_COLS", cols)
    monkeypatch.setattr(strips, "WIDE_BLOCK_PIXELS", 0)
    monkeypatch.setattr(strips, "MAX_BLOCK_PIXELS", pixels)
    again = build_tile(lights, Options(reference=lights[0].name, grow=3), Resources(2, 100 * 2**20))
    for plane in PLANES:
        assert getattr(again, plane).tobytes() == getattr(tile, plane).tobytes()
    assert [r.nrejhigh for r in again.frames] == [r.nrejhigh for r in tile.frames]


def test_the_tallies_are_those_of_the_planes(tile):
    assert sum(r.nrejhigh for r in tile.frames) == tile.rejhigh.sum()
    assert sum(r.nrejlow for r in tile.frames) == tile.rejlow.sum()


def test_beside_trails_the_sky_is_that_of_frames_without(tile, lights, tmp_path):
    clean_spec = replace(SPEC, trails=0.0)
    clean = build_tile(make_group.write_group(clean_spec, tmp_path), Options(reference=lights[0].name))
    plain = build_tile(lights, Options(reference=lights[0].name))
    beside = (tile.rejhigh > plain.rejhigh) & np.isfinite(clean.image)
    bias = [float((t.image - clean.image)[beside].mean()) for t in (plain, tile)]
    assert bias[0] > 3  # ADU; a tile pixel has a noise of about 10
    assert abs(bias[1]) < 0.15 * bias[0]


def test_the_margin_counts_as_memory(lights):
    frames = plan_tile(lights, Options(grow=10)).frames
    canvas, resources = Canvas(SPEC.rows, SPEC.cols), Resources(2)
    assert memory_needed(frames, canvas, resources, 3, halo(Options(grow=10))) > memory_needed(
        frames, canvas, resources, 3
    )
    assert halo(Options()) == 0
    blocks = list(strips.blocks_of(canvas, 200, 3, 60 * 2**20, 12))
    held = [(b.rows + 24) * (b.cols + 24) * memory.sample_bytes(200, 3, 12) for b in blocks]
    assert 30 * 2**20 < max(held) <= 60 * 2**20


@pytest.mark.parametrize(
    "wrong", [{"reject": "none"}, {"reject": "minmax"}, {"rewinsorize": True}, {"cfa": "direct"}]
)
def test_growth_without_rejected_outliers_is_refused(wrong):
    method = {"reject": "winsor-quantile"} if "rewinsorize" in wrong else {}
    with pytest.raises(UsageError, match="grow"):
        Options(grow=2, **method, **wrong)
    assert settled(Options(reject="auto", grow=2), 20) == Options(reject="esd", grow=2)
