"""Whole builds on a GPU, or on its kernels compiled for the host: the tiles are the CPU's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fakecupy import FakeCupy
from make_group import GroupSpec, write_group
from secondpass import differing, empty_planes, on_cpu, second_pass

from zmtile import Options, Resources, build_tile
from zmtile.gpu import doctor
from zmtile.gpu.stack import stack_on_device
from zmtile.progress import NullProgress


@pytest.fixture
def some_cupy(request, monkeypatch):
    """What `import cupy` finds: the real one if that is asked for."""
    if not request.config.getoption("--gpu"):
        monkeypatch.setitem(sys.modules, "cupy", FakeCupy())


@pytest.mark.parametrize("options", [Options(), Options(framing="union", reject="esd", kernel="lanczos3")])
def test_a_tile_is_the_same(some_cupy, group, options):
    ours = build_tile(group, options)
    theirs = build_tile(group, options, Resources(backend="gpu"))
    assert theirs.header["ZMT_BACK"] == "gpu"
    for plane in ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh"):
        assert np.array_equal(getattr(ours, plane), getattr(theirs, plane), equal_nan=True), plane


def test_real_sizes_in_several_bands(request, some_cupy, tmp_path):
    # Small on the host, where it takes minutes otherwise.
    rows, cols, limit = (4000, 6000, 2**31) if request.config.getoption("--gpu") else (200, 300, 2**22)
    spec = GroupSpec(frames=10, rows=rows, cols=cols, stars=400, cfa="RGGB")
    paths = write_group(spec, tmp_path)
    ours = build_tile(paths)
    theirs = build_tile(paths, resources=Resources(backend="gpu", gpu_memory_limit=limit))
    for plane in ("image", "uncert", "coverage", "rejlow", "rejhigh"):
        assert np.array_equal(getattr(ours, plane), getattr(theirs, plane), equal_nan=True), plane


def test_more_frames_than_shared_memory_holds(request, open_gpu):
    frames = 2500 if request.config.getoption("--gpu") else 250
    second = second_pass(frames=frames, layout="mono")
    planes = empty_planes(second)
    stack_on_device(open_gpu(shared=30_000), second, planes, None, 2**28, NullProgress())
    assert differing(planes, on_cpu(second)) == []


def test_the_doctor_finds_that_they_agree(some_cupy):
    found = doctor.examine()
    assert found.parity is not None
    assert found.parity.good
