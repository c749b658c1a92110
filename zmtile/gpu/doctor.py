"""The doctor: what there is to compute with, and whether the GPU computes what the CPU does."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import llvmlite.binding
import numpy as np
from astropy.io import fits

from zmtile import __version__
from zmtile.errors import UsageError
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame
from zmtile.frames.pixels import Pixels
from zmtile.gpu.device import Device, Facts, open_device
from zmtile.gpu.stack import stack_on_device
from zmtile.matching.match import Photometry
from zmtile.options import GIB, Options, Resources
from zmtile.progress import NullProgress
from zmtile.registration.mapping import Bent, flat_bend
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.planes import Planes, SecondPass
from zmtile.stacking.stack import stack_on_cpu
from zmtile.stacking.warp import source_of

__all__ = ["Diagnosis", "Parity", "as_text", "compared", "examine", "parity"]

PLANES = ("image", "uncert", "weight", "coverage", "rejlow", "rejhigh")
# Bounds of the agreement: integer planes by the share of pixels, others by the relative difference.
_MOST_COUNTS, _MOST_RELATIVE = 1e-6, 2e-6
_SIDE = 128
# Of memory on the device, so that there are several bands.
_SMALL_LIMIT = 2_500_000
_CHECKED = ("numpy", "numba", "astropy")


@dataclass(frozen=True)
class Parity:
    """How far the planes of the GPU are from those of the CPU.

    Attributes
    ----------
    counts : float
        Share of pixels whose coverage or rejected samples differ.
    relative : float
        Largest relative difference of value and uncertainty where the counts agree.
    seconds : float
        On the GPU; the first time, its kernels are compiled.
    """

    counts: float
    relative: float
    seconds: float

    @property
    def good(self) -> bool:
        """Whether both agree as far as zmtile promises."""
        return self.counts <= _MOST_COUNTS and self.relative <= _MOST_RELATIVE


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes
    ----------
    zmtile, python, cpu : str
        Versions, and the processor as LLVM calls it.
    cores : int
        Usable ones.
    libraries : dict of str to str
        Their versions.
    gpu : Facts or None
    problem, remedy : str
        Why no GPU can be used, and what to do; '' if one can.
    parity : Parity or None
        None without a GPU.
    """

    zmtile: str
    python: str
    cpu: str
    cores: int
    libraries: dict[str, str]
    gpu: Facts | None
    problem: str
    remedy: str
    parity: Parity | None

    @property
    def exit_code(self) -> int:
        """0, or 1 if there is a GPU that computes something else."""
        return 0 if self.parity is None or self.parity.good else 1


def examine() -> Diagnosis:
    """Look at the machine, and try its GPU if it has one.

    Raises
    ------
    GpuError
        When the GPU fails at its work.
    """
    gpu, found, problem, remedy = None, None, "", ""
    try:
        device = open_device()
    except UsageError as error:
        problem, remedy = error.what, error.remedy
    else:
        gpu, found = device.facts, parity(device)
    return Diagnosis(
        __version__,
        platform.python_version(),
        llvmlite.binding.get_host_cpu_name(),
        Resources().workers,
        {name: version(name) for name in _CHECKED} | _cupy_versions(),
        gpu,
        problem,
        remedy,
        found,
    )


def _cupy_versions() -> dict[str, str]:
    """Return the CuPy that is installed, under whichever name."""
    found = {}
    for name in ("cupy-cuda12x", "cupy-cuda13x", "cupy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def parity(device: Device) -> Parity:
    """Stack small groups of made-up mosaic frames on both, some with bent maps; compare.

    Few frames, more than a thread holds, and growth with feathers in several bands: all kernels run.
    """
    found = []
    for frames, options, limit in (
        (12, Options(), None),
        (70, Options(), None),
        (12, Options(grow=2, feather=30.0), _SMALL_LIMIT),
    ):
        second = _small_group(frames, options)
        shape = (frames, 3, second.canvas.rows, second.canvas.cols)
        on_cpu, on_gpu = Planes.empty(*shape), Planes.empty(*shape)
        stack_on_cpu(second, on_cpu, 1, 2**26, NullProgress())
        begin = time.monotonic()
        stack_on_device(device, second, on_gpu, limit, 2**26, NullProgress())
        found.append(compared(on_cpu, on_gpu, time.monotonic() - begin))
    return Parity(
        max(one.counts for one in found),
        max(one.relative for one in found),
        sum(one.seconds for one in found),
    )


def compared(one: Planes, other: Planes, seconds: float = 0.0) -> Parity:
    """Return how far two sets of planes differ."""
    unequal = np.zeros(one.image.shape, np.bool_)
    for name in PLANES[3:]:
        unequal |= getattr(one, name) != getattr(other, name)
    relative = 0.0
    for name in PLANES[:3]:
        a, b = (getattr(planes, name)[~unequal].astype(np.float64) for planes in (one, other))
        apart = (a != b) & ~(np.isnan(a) & np.isnan(b))
        if not (np.isfinite(a[apart]) & np.isfinite(b[apart])).all():
            return Parity(float(unequal.mean()), np.inf, seconds)
        if apart.any():
            with np.errstate(divide="ignore"):  # from 0, any difference is too much
                relative = max(relative, float(np.abs(b[apart] / a[apart] - 1).max()))
    return Parity(float(unequal.mean()), relative, seconds)


def _small_group(count: int, options: Options) -> SecondPass:
    """Return a group without files: noise, a gradient, outliers, shifts and turns."""
    random = np.random.RandomState(1)
    canvas = Canvas(_SIDE, _SIDE)
    frames, pixels, maps, photometry = [], [], [], []
    for number in range(count):
        frame = Frame(
            Path(f"made-up-{number}"), str(number), _SIDE, _SIDE, "cfa", "RGGB", fits.Header(), bzero=32768.0
        )
        values = random.normal(1000 + np.arange(_SIDE), 20, (_SIDE, _SIDE))
        values[random.random_sample(values.shape) < 0.01] += 2000
        stored = (np.rint(values) - 32768).astype(">i2")
        frames.append(frame)
        pixels.append(Pixels(frame, stored, Correction()))
        turn, (x, y) = 0.01 * (number % 20), random.uniform(-9, 9, 2)
        cos, sin = np.cos(turn), np.sin(turn)
        matrix = np.array([[cos, -sin, x], [sin, cos, y]])
        bend = flat_bend(_SIDE, _SIDE)
        bend[6:] = 0.2
        maps.append(Bent(matrix, bend) if number % 5 == 4 else matrix)
        photometry.append(
            Photometry(
                np.full(3, 1 + 0.01 * (number % 9)),
                np.tile([5.0, 3.0, -2.0, 0.5, 0.1, -0.3], (3, 1)),
                np.full(3, 1 - 0.05 * (number % 7)),
                np.full(3, 20.0),
            )
        )
    sources = [
        source_of(frame, to_reference, matched, canvas, frames[0], options)
        for frame, to_reference, matched in zip(frames, maps, photometry, strict=True)
    ]
    return SecondPass(sources, [Correction()] * count, photometry, canvas, options, pixels.__getitem__)


def as_text(found: Diagnosis) -> str:
    """Return what the doctor found as lines for a terminal."""
    rows = [
        ("zmtile", found.zmtile),
        ("Python", found.python),
        *found.libraries.items(),
        ("processor", f"{found.cpu}, {found.cores} cores"),
    ]
    gpu = found.gpu
    if gpu is None:
        rows += [("GPU", found.problem), ("", found.remedy)]
    else:
        rows += [
            ("GPU", gpu.name),
            ("capability", ".".join(map(str, gpu.capability))),
            ("memory", f"{gpu.memory / GIB:.1f} GiB, {gpu.free / GIB:.1f} free"),
            ("CUDA", f"driver {_dotted(gpu.driver)}, runtime {_dotted(gpu.runtime)}"),
        ]
    if found.parity is not None:
        told = f"{found.parity.counts:.1e} of the counts and {found.parity.relative:.1e} of the values differ"
        verdict = "the GPU agrees with the CPU" if found.parity.good else "THE GPU DISAGREES WITH THE CPU"
        rows.append(("check", f"{verdict}: {told}; {found.parity.seconds:.1f} s"))
    return "\n".join(f"{name:<10} {value}".rstrip() for name, value in rows)


def _dotted(number: tuple[int, int]) -> str:
    return f"{number[0]}.{number[1]}"
