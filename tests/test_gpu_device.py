"""Which device is taken, and what is said when there is none."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from fakecupy import CompileException, CUDARuntimeError, FakeCupy

from zmtile import Options, Resources, UsageError, build_tile
from zmtile.cli import cli
from zmtile.errors import GpuError
from zmtile.gpu import binary, choose
from zmtile.gpu.choose import ENOUGH_SAMPLES, chosen_device
from zmtile.gpu.device import Device, open_device
from zmtile.jsonout import plain


@pytest.fixture
def cupy(monkeypatch):
    """A GPU that `import cupy` finds."""
    fake = FakeCupy()
    monkeypatch.setitem(sys.modules, "cupy", fake)
    return fake


@pytest.fixture
def no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def test_facts_are_what_the_runtime_says(cupy):
    facts = open_device().facts
    assert (facts.name, facts.capability, facts.driver) == ("Fake GPU", (8, 0), (12, 4))


def test_without_cupy_the_error_says_how_to_install_it(no_cupy):
    with pytest.raises(UsageError, match="CuPy cannot be imported") as caught:
        open_device()
    assert "zmtile[gpu-cuda12]" in caught.value.remedy
    assert "--backend cpu" in caught.value.remedy


def test_without_a_gpu_or_a_driver_the_error_says_why():
    with pytest.raises(UsageError, match="CUDA finds no GPU"):
        Device(FakeCupy(devices=0))
    cupy = FakeCupy()

    def too_old():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: the driver is too old")

    cupy.cuda.runtime.getDeviceCount = too_old
    with pytest.raises(UsageError, match="the driver is too old"):
        Device(cupy)


@pytest.mark.parametrize("failure", [RuntimeError("libnvrtc.so was not found"), CompileException("sm_50")])
def test_without_a_compiler_for_it_a_gpu_cannot_be_used(failure, monkeypatch, tmp_path):
    monkeypatch.setattr(binary, "cache_folder", lambda: tmp_path)
    cupy = FakeCupy()
    cupy.compiler_failure = failure
    with pytest.raises(UsageError, match=str(failure)):
        Device(cupy)


def test_programs_are_compiled_once(monkeypatch, tmp_path):
    monkeypatch.setattr(binary, "cache_folder", lambda: tmp_path)
    Device(FakeCupy())
    cupy = FakeCupy()
    cupy.compiler_failure = CompileException("again")
    Device(cupy)


def test_auto_goes_on_without_a_gpu_that_fails(cupy, group, monkeypatch, caplog):
    monkeypatch.setattr(choose, "ENOUGH_SAMPLES", 1)
    cupy.failure = CUDARuntimeError("cudaErrorECCUncorrectable: no memory can be trusted")
    with caplog.at_level(logging.INFO, "zmtile"):
        tile = build_tile(group, resources=Resources(backend="auto"))
    assert tile.header["ZMT_BACK"] == "cpu"
    assert "back end: cpu (Fake GPU failed" in caplog.text


def test_kernels_that_do_not_compile_are_an_error_of_the_gpu():
    device = Device(FakeCupy())
    with pytest.raises(GpuError, match="could not be compiled"), device.at_work():
        raise CompileException("line 1")


def test_an_allocation_that_fails_inside_cuda_is_a_want_of_memory():
    device = Device(FakeCupy())
    with pytest.raises(MemoryError), device.at_work():
        raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")


def test_the_cpu_needs_no_gpu(no_cupy):
    assert chosen_device(Resources(), 10**12) is None


def test_gpu_without_one_is_an_error_before_the_long_work(no_cupy, tmp_path):
    with pytest.raises(UsageError, match="no GPU can be used"):
        build_tile([tmp_path], resources=Resources(backend="gpu"))


def test_auto_falls_back_and_says_so(no_cupy, caplog):
    with caplog.at_level(logging.INFO, "zmtile"):
        assert chosen_device(Resources(backend="auto"), ENOUGH_SAMPLES) is None
    assert [r.message.split(":")[0] for r in caplog.records] == ["back end"]
    assert "cpu (no GPU can be used" in caplog.text


def test_auto_takes_a_gpu_for_a_large_group_only(cupy, caplog):
    with caplog.at_level(logging.INFO, "zmtile"):
        assert chosen_device(Resources(backend="auto"), ENOUGH_SAMPLES - 1) is None
        assert chosen_device(Resources(backend="auto"), ENOUGH_SAMPLES) is not None
    assert "too few to gain" in caplog.text
    assert "back end: gpu (Fake GPU)" in caplog.text


def test_the_tile_is_the_cpu_s_and_tells_which_gpu_made_it(cupy, group, monkeypatch):
    ours = build_tile(group, Options())
    theirs = build_tile(group, Options(), Resources(backend="gpu"))
    assert (ours.header["ZMT_BACK"], theirs.header["ZMT_BACK"]) == ("cpu", "gpu")
    assert "ZMT_GPU" not in ours.header
    assert theirs.header["ZMT_GPU"] == "Fake GPU"
    assert theirs.header["ZMT_LIBS"].endswith("cupy 0 (fake), CUDA 12.2")
    for plane in ("image", "uncert", "coverage", "rejlow", "rejhigh"):
        assert np.array_equal(getattr(ours, plane), getattr(theirs, plane), equal_nan=True)
    assert [plain(r) for r in ours.frames] == [plain(r) for r in theirs.frames]
    monkeypatch.setattr(choose, "ENOUGH_SAMPLES", 1)
    auto = build_tile(group, Options(), Resources(backend="auto", gpu_memory_limit=2**27))
    assert auto.header["ZMT_BACK"] == "gpu"


def test_a_gpu_that_fails_leaves_no_tile(cupy, group, tmp_path):
    cupy.failure = CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")
    target = tmp_path / "tile.fits"
    done = CliRunner().invoke(cli, ["build", *map(str, group), "-o", str(target), "--backend", "gpu"])
    assert done.exit_code == 5
    assert "unspecified launch failure" in done.output
    assert list(tmp_path.iterdir()) == []
