"""Measure a GPU: the rejection against its roofline, the second pass and whole builds against its CPU.

    python bench/speed/gpu.py

The rejection sees Gaussian samples with 3 % NaN and 1 % outliers that lie on the device. Its roofline is the
lower of two rates: the measured copy bandwidth, each sample read once, and the rate at which it issues
fp32 instructions over those that a sample needs. These are counted: two for each comparator of the sort, five
for each sample in each turn of the search, as often as the slowest of 32 neighbours takes, and 25 to combine;
not those for addresses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from groups import Size, group_of, make_group, title_of
from numpy.typing import NDArray
from rejection import PERIOD, samples_of
from running import machine, table

from zmtile import Options, build_tile
from zmtile.gpu.device import Device, open_device
from zmtile.gpu.program import LANES
from zmtile.gpu.reject import RejectionOnDevice
from zmtile.kernels.network import comparators
from zmtile.options import Resources
from zmtile.pipeline import plan_tile
from zmtile.stacking.stack import stack_frames
from zmtile.stacking.warp import Block

# fp32 instructions that a multiprocessor issues in a cycle, by compute capability; later ones as the last.
_FP32_LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64, (8, 6): 128}
_COMBINE = 25
HEADS = (
    "frames",
    "winsor, Msamples/s",
    "bound by reading",
    "bound by arithmetic",
    "instructions a sample (sort + search + combine)",
    "of the roofline",
)
_PER_TURN = 5


def best(work: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest run; the first one, which compiles, does not count."""
    work()
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def copy_bandwidth(device: Device, repeats: int) -> float:
    """Return bytes a second, read and written together."""
    import cupy

    one, other = device.zeros(2**28, np.float32), device.zeros(2**28, np.float32)

    def work() -> None:
        other[...] = one
        cupy.cuda.Stream.null.synchronize()

    return 2 * one.nbytes / best(work, repeats)


def clock() -> float:
    """Return the highest clock of the multiprocessors, Hz."""
    import cupy

    return float(cupy.cuda.Device().attributes["ClockRate"]) * 1e3


def turns(stack: NDArray[np.float32]) -> float:
    """Return how often the slowest of `LANES` neighbours sums its samples until sigma is settled."""
    groups = stack.shape[1] // LANES
    taken = np.array([_turns(column[np.isfinite(column)]) for column in stack.T[: groups * LANES]])
    return float(taken.reshape(-1, LANES).max(axis=1).mean())


def _turns(column: NDArray[np.float32]) -> int:
    """Count the sums of one column, as docs/how-it-works.md defines the search."""
    count = 0
    while len(column) >= 3:
        middle, copy, sigma = np.median(column), column, np.inf
        for turn in range(50):
            count += 1
            old, sigma = sigma, copy.std(ddof=1) * (1.134 if turn else 1.0)
            if turn and abs(sigma - old) <= 5e-4 * old:
                break
            copy = np.clip(copy, middle - 1.5 * sigma, middle + 1.5 * sigma)
        kept = column[np.abs(column - middle) <= 3 * sigma]
        if len(kept) == len(column):
            break
        column = kept
    return count


def stack_on_device(device: Device, frames: int, pixels: int) -> Any:
    """Return what `samples_of` draws, (1, frames, pixels); what is repeated is repeated on the device."""
    made = device.empty(frames * pixels, np.float32)
    some = device.put(samples_of(frames, -(-PERIOD // frames)).ravel()[:PERIOD])
    for start in range(0, len(made), PERIOD):
        part = made[start : start + PERIOD]
        part[...] = some[: len(part)]
    return made.reshape(1, frames, pixels)


def rejection_row(device: Device, frames: int, samples: float, copied: float, repeats: int) -> list[str]:
    """Return how fast the kernel is, and what bounds it."""
    pixels = round(samples * 1e6 / frames)
    even = np.ones((frames, 1), np.float32)
    reject = RejectionOnDevice(device, even, even, Options())
    block, given = Block(0, 0, 1, pixels), stack_on_device(device, frames, pixels)

    def work() -> None:
        with device.at_work():
            reject.compute(given, None, range(frames), block, block)

    rate = frames * pixels / best(work, repeats) / 1e6
    sort = 2 * len(comparators(frames)) / frames
    search = _PER_TURN * turns(samples_of(frames, 4096))
    needed = sort + search + _COMBINE
    lanes = _FP32_LANES[max(known for known in _FP32_LANES if known <= device.facts.capability)]
    issued = device.facts.multiprocessors * lanes * clock() / needed / 1e6
    read = copied / 4 / 1e6
    return [
        str(frames),
        f"{rate:.0f}",
        f"{read:.0f}",
        f"{issued:.0f}",
        f"{sort:.0f} + {search:.0f} + {_COMBINE}",
        f"{rate / min(issued, read):.0%}",
    ]


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(20, 64, 200, 1000), show_default=True)
@click.option("--samples", default=1000.0, show_default=True, help="Of every stack, millions.")
@click.option("--pass", "second", type=Size(), default="60x1080x1920", show_default=True)
@click.option("--group", "whole", type=Size(), default="200x1080x1920", show_default=True)
@click.option("--repeats", default=5, show_default=True)
def main(
    counts: tuple[int, ...],
    samples: float,
    second: make_group.GroupSpec,
    whole: make_group.GroupSpec,
    repeats: int,
) -> None:
    """Print what the GPU makes of the rejection, of the second pass and of a whole build."""
    device = open_device()
    copied = copy_bandwidth(device, repeats)
    facts = device.facts
    click.echo(f"{machine()}\n{facts}\ncopy bandwidth {copied / 1e9:.0f} GB/s\n")
    rows = []
    for n in counts:
        rows.append(rejection_row(device, n, samples, copied, repeats))
        click.echo(
            ", ".join(f"{name} {value}" for name, value in zip(HEADS, rows[-1], strict=True)), err=True
        )
    click.echo(table(HEADS, rows))
    plan = plan_tile([group_of(second)])
    home = plan.frames[plan.reference_index]

    def stack(on: Device | None) -> float:
        parts = (plan.frames, plan.corrections, plan.maps, plan.photometry, plan.canvas, home, plan.options)
        return best(lambda: stack_frames(*parts, Resources(), None, on), repeats)

    def build(backend: str) -> float:
        return best(lambda: build_tile([group_of(whole)], resources=Resources(backend=backend)), 2)

    passes = []
    for name, spec, run in (
        ("second pass", second, lambda gpu: stack(device if gpu else None)),
        ("whole build", whole, lambda gpu: build("gpu" if gpu else "cpu")),
    ):
        gpu = run(True)
        click.echo(f"{name}: GPU {gpu:.2f} s", err=True)
        cpu = run(False)
        click.echo(f"{name}: CPU {cpu:.2f} s", err=True)
        passes.append([f"{name}, {title_of(spec)}", f"{cpu:.2f}", f"{gpu:.2f}", f"{cpu / gpu:.1f}"])
    click.echo("\n" + table(("", f"CPU, {Resources().workers} threads, s", "GPU, s", "times"), passes))


if __name__ == "__main__":
    main()
