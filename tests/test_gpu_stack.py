"""The second pass on a GPU makes the planes of the CPU, from all kinds of frames, in bands of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fakecupy import CUDARuntimeError, FakeCupy
from secondpass import COLS, ROWS, differing, empty_planes, masters, on_cpu, second_pass

from zmtile import Options, UsageError
from zmtile.errors import FrameError, GpuError
from zmtile.gpu.device import Device
from zmtile.gpu.stack import stack_on_device
from zmtile.progress import NullProgress
from zmtile.stacking.canvas import Canvas


def on_device(device, second, limit=None, host=2**28, progress=None):
    planes = empty_planes(second)
    stack_on_device(device, second, planes, limit, host, progress or NullProgress())
    return planes


KINDS = {
    "mosaic": {},
    "grey": {"layout": "mono"},
    "planes of colour": {"layout": "planes"},
    "colours side by side": {"layout": "interleaved"},
    "bytes": {"dtype": "u1"},
    "unpacked": {"dtype": "<i2"},
    "long integers": {"dtype": ">i4"},
    "floats": {"dtype": ">f4", "layout": "mono"},
    "unpacked floats": {"dtype": "<f4", "layout": "planes"},
    "doubles": {"dtype": ">f8", "layout": "mono"},
    "blank pixels": {"blank": 1000 - 32768},
    "a blank that no pixel can have": {"blank": 2**31},
    "masters": {"calibration": masters()},
    "masters of colour frames": {"calibration": masters(3), "layout": "planes"},
    "bad pixels": {"bad": (0, 95, 96, 1234, ROWS * COLS - 1)},
    "bad pixels of colour frames": {"bad": (0, 95, 1234), "layout": "interleaved"},
    "bent maps": {"bent": True},
    "bent maps of grey frames": {"bent": True, "layout": "mono"},
    "finer frames": {"scale": 0.6},
    "coarser frames": {"scale": 1.7},
    "upside down": {"turn": 3.0},
    "by whole pixels": {"turn": 0.0, "options": Options(cfa="direct")},
    "direct": {"options": Options(cfa="direct"), "bent": True},
    "bilinear": {"options": Options(kernel="bilinear")},
    "lanczos3": {"options": Options(kernel="lanczos3")},
    "lanczos4 without a clamp": {"options": Options(kernel="lanczos4", clamp=False)},
    "a larger canvas": {"canvas": Canvas(ROWS + 40, COLS + 31, -17, -20)},
    "a canvas that no frame reaches": {"canvas": Canvas(ROWS, COLS, 5000, 5000)},
    "growth": {"options": Options(grow=3), "frames": 8},
    "growth of a median": {"options": Options(grow=2, combine="median", weight="none"), "frames": 8},
    "growth and feathers": {"options": Options(grow=2, feather=20.0), "frames": 8},
    "many frames": {"frames": 70},
    "no values of few frames": {"options": Options(min_coverage=5)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_planes_are_those_of_the_cpu(device, kind):
    second = second_pass(**KINDS[kind])
    made = on_device(device, second)
    assert np.isfinite(made.image).any() == (kind != "a canvas that no frame reaches")
    assert differing(made, on_cpu(second)) == []


def test_planes_without_weights_are_the_same_otherwise(device):
    second = second_pass()
    made, expected = empty_planes(second, weight=False), on_cpu(second)
    stack_on_device(device, second, made, None, 2**28, NullProgress())
    for planes in (made, on_cpu(second, weight=False)):
        assert planes.weight is None
        assert differing(replace(planes, weight=expected.weight), expected) == []


@pytest.mark.parametrize("bent", [False, True])
def test_feathers_are_those_of_the_cpu(device, bent):
    # Their shares come from numpy on the CPU, which may round the last bit otherwise.
    second = second_pass(options=Options(feather=25.0), bent=bent)
    made, expected = on_device(device, second), on_cpu(second)
    for name in ("coverage", "rejlow", "rejhigh", "tally"):
        assert np.array_equal(getattr(made, name), getattr(expected, name))
    for name in ("image", "uncert", "weight"):
        np.testing.assert_allclose(getattr(made, name), getattr(expected, name), rtol=2e-6)


@pytest.mark.parametrize("options", [Options(), Options(grow=3), Options(grow=2, feather=20.0)])
def test_bands_of_any_size_make_the_same_planes(open_gpu, options):
    second = second_pass(frames=8, options=options, bent=True)
    whole = on_device(open_gpu(), second)
    for limit in (1_600_000, 900_000):
        assert differing(on_device(open_gpu(), second, limit), whole) == []
    assert differing(on_device(open_gpu(), second, host=40_000), whole) == []


def test_bands_of_many_frames_find_room_for_their_columns(open_gpu):
    second = second_pass(frames=80)
    expected = on_cpu(second)
    for limit in (6_000_000, 1_500_000):
        assert differing(on_device(open_gpu(shared=9_000), second, limit), expected) == []


def test_the_limit_holds():
    cupy = FakeCupy()
    on_device(Device(cupy), second_pass(frames=8), 900_000)
    assert 0 < cupy.most_held <= 900_000
    assert cupy.refused == 0


def test_memory_that_runs_out_halves_the_band_and_the_run_goes_on():
    # More seems to be free than there is: others use the device, too.
    second = second_pass(frames=8)
    cupy = FakeCupy(memory=600_000)
    cupy.cuda.runtime.memGetInfo = lambda: (2**30, 2**30)
    device = Device(cupy)
    device.limit = lambda size: None
    told = []
    made = on_device(device, second, progress=Told(told))
    assert differing(made, on_cpu(second)) == []
    assert cupy.refused > 0
    assert sum(told) == 8 * ROWS


class Told(NullProgress):
    """Notes the steps that it is told of."""

    def __init__(self, steps):
        self.steps = steps

    def step(self, count=1):
        self.steps.append(count)


@pytest.mark.parametrize(
    ("kind", "limit", "what"),
    [({}, 10_000, "a row of the tile"), ({"calibration": masters()}, 60_000, "what all bands need")],
)
def test_a_device_too_small_is_an_error_with_a_remedy(open_gpu, kind, limit, what):
    with pytest.raises(UsageError, match=f"{what} needs some .* MiB") as caught:
        on_device(open_gpu(), second_pass(**kind), limit=limit)
    assert "--gpu-memory-limit" in caught.value.remedy


def test_a_device_that_is_lost_is_an_error_with_a_remedy():
    cupy = FakeCupy()
    device = Device(cupy)
    cupy.failure = CUDARuntimeError("cudaErrorDevicesUnavailable: the device fell off the bus")
    with pytest.raises(GpuError, match="fell off the bus") as caught:
        on_device(device, second_pass())
    assert "--backend cpu" in caught.value.remedy
    assert caught.value.exit_code == 5


def test_a_frame_that_cannot_be_read_any_more_ends_the_run(device):
    second = second_pass()

    def gone(number):
        raise FrameError(second.sources[number].frame.path, "it is gone", "Find it.")

    object.__setattr__(second, "opened", gone)
    with pytest.raises(FrameError, match="it is gone"):
        on_device(device, second)


def test_nothing_is_held_after_a_run():
    cupy = FakeCupy()
    device = Device(cupy)
    second = second_pass(frames=4)
    on_device(device, second)
    assert cupy.most_held > 0
    assert device.free_bytes == device.facts.memory
