"""Fixtures that several test modules share."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fakecupy import FakeCupy
from make_group import GroupSpec, write_group

import zmtile
from zmtile.gpu.device import Device, open_device

# So that programs that tests start find the package, installed or not, wherever they start.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(zmtile.__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Examples are drawn anew in every run, but not in CI: no change should fail there by chance.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

# Small, and still with enough stars in every overlap to register safely.
SPEC = GroupSpec(frames=4, rows=360, cols=480, stars=120, dither=12.0, cosmic_rays=10)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the kernels of the GPU be tested on one."""
    parser.addoption("--gpu", action="store_true", help="run the GPU's tests on the real GPU")


@pytest.fixture
def open_gpu(request: pytest.FixtureRequest) -> Callable[..., Device]:
    """Open the real GPU if that is asked for, else its kernels compiled for the host.

    What is asked for beside it, such as little shared memory, the real one is made to believe.
    """

    def open_one(shared: int | None = None, **how: Any) -> Device:
        if not request.config.getoption("--gpu"):
            return Device(FakeCupy(**how) if shared is None else FakeCupy(shared=shared, **how))
        made = open_device()
        if shared is not None:
            made.facts = replace(made.facts, shared_bytes=shared)
        return made

    return open_one


@pytest.fixture
def device(open_gpu: Callable[..., Device]) -> Device:
    """A GPU, or its kernels compiled for the host."""
    return open_gpu()


@pytest.fixture(scope="session", autouse=True)
def no_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No options but those of the tests: none from the user's own file, none from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        for name in [name for name in os.environ if name.startswith("ZMTILE_")]:
            patch.delenv(name)
        yield folder


@pytest.fixture(scope="session")
def group(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four simulated Bayer frames of one field; tests read them only."""
    return write_group(SPEC, tmp_path_factory.mktemp("group"))
