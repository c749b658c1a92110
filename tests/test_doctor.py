"""`zmtile doctor`: what there is to compute with."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from fakecupy import FakeCupy
from secondpass import empty_planes, second_pass

from zmtile.cli import cli
from zmtile.gpu import doctor


def test_without_a_gpu_it_says_why_and_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0
    assert "CuPy cannot be imported" in done.output
    assert "pip install" in done.output


def test_a_gpu_is_told_of_and_tried(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0
    assert "Fake GPU" in done.output
    assert "the GPU agrees with the CPU" in done.output
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    told = json.loads(done.stdout)
    assert told["gpu"]["capability"] == [8, 0]
    assert told["parity"]["counts"] == 0.0
    assert told["parity"]["relative"] < 2e-6


def test_a_gpu_that_computes_something_else_is_found_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", FakeCupy())
    right = doctor.stack_on_device

    def wrong(device, second, planes, *rest):
        right(device, second, planes, *rest)
        planes.image[0] *= 1.00001

    monkeypatch.setattr(doctor, "stack_on_device", wrong)
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 1
    assert "DISAGREES" in done.output


@pytest.mark.parametrize(
    ("plane", "value"), [("coverage", 9), ("image", np.nan), ("image", np.inf), ("uncert", 1.0)]
)
def test_planes_that_differ_are_not_good(plane, value):
    second = second_pass(frames=2)
    one, other = empty_planes(second), empty_planes(second)
    one.image[:] = other.image[:] = 5.0
    one.uncert[:] = other.uncert[:] = 0.0
    assert doctor.compared(one, other).good
    getattr(other, plane)[0, 3, 4] = value
    assert not doctor.compared(one, other).good
