"""Tell how near the kernels of the second pass come to what one core can do.

    python bench/speed/limits.py

Two limits are measured: how fast memory is copied that no cache holds, and how many float32 are added or
multiplied while all are in registers. Beside them stand the kernels, on frames and blocks as in a build: the
bytes that they must read and write, and the additions, multiplications and comparisons that their formulas
ask for. What the sorting, the search of sigma and the kernel's weights make of addresses and branches is not
counted, so no kernel can reach 100 %. Every number is the best of some repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import click
import numpy as np
from rejection import samples_of
from running import machine, table

from zmtile.kernels import kernel
from zmtile.kernels.demosaic import demosaic, pattern_codes
from zmtile.kernels.lanes import LANES, aligned, put_lanes, take_lanes
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.kernels.warp import warp_block
from zmtile.options import Options
from zmtile.stacking.clip import BLOCK_BYTES
from zmtile.stacking.rejection import rejection

SIDE = 128  # of a block
MARGIN = 8  # of the patch under it
COPIED = 2**28  # bytes
CHAINS = 8
# Runs before the next work has its turn; in a build, too, a kernel finds what it needs in the cache.
_IN_A_ROW = 5
# Operations of a sample: to sort, each comparator has a lowest and a highest of two; to combine, 15.
COMBINED = 15
# Of a search of sigma, a turn has 6 for each sample; so many turns were counted for a group of 32 pixels.
TURN, TURNS = 6, {20: 8.6, 60: 11.0}
# Of a pixel: three colours by demosaic, and three channels by a cubic kernel: products and
# sums of 4 x 4 taps, the lowest of them, the place (16) and the matching (8 for each channel).
DEMOSAIC = 37
CUBIC = (16 + 12 + 4 + 3 + 15) * 3 + 16 + 3 * 8


@kernel
def arithmetic(turns: int) -> Any:
    """Multiply and add in 8 chains of lanes that do not wait for each other."""
    rows = aligned((CHAINS + 1) * LANES)
    rows[:] = np.float32(1.0)
    factor = np.float32(0.75)
    a, b, c, d = (
        take_lanes(rows, 0),
        take_lanes(rows, LANES),
        take_lanes(rows, 2 * LANES),
        take_lanes(rows, 3 * LANES),
    )
    e, f, g, h = (
        take_lanes(rows, 4 * LANES),
        take_lanes(rows, 5 * LANES),
        take_lanes(rows, 6 * LANES),
        take_lanes(rows, 7 * LANES),
    )
    more = take_lanes(rows, 8 * LANES)
    for _ in range(turns):
        a, b, c, d = a * factor + more, b * factor + more, c * factor + more, d * factor + more
        e, f, g, h = e * factor + more, f * factor + more, g * factor + more, h * factor + more
    put_lanes(rows, 0, a + b + c + d + (e + f + g + h))
    return rows[0]


def seconds_of(works: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Return the seconds of each run, at best, while all take turns: what else goes on meets them all."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, seconds in zip(works, spent, strict=True):
            for _ in range(_IN_A_ROW):
                begin = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - begin)
    return [min(seconds) for seconds in spent]


def rejecting(frames: int, method: str) -> tuple[Callable[[], Any], int]:
    """Return a run of the rejection on one block, and its samples."""
    pixels = BLOCK_BYTES // (4 * frames) // SIDE * SIDE
    stack = samples_of(frames, pixels)
    ones, noises = np.ones(frames, np.float32), np.full(frames, 30, np.float32)
    values, counts = np.empty((3, pixels), np.float32), np.empty((3, pixels), np.uint16)
    tally = np.zeros((frames, 3), np.int64)
    how = comparators(frames), *rejection(Options(reject=method), frames)
    return lambda: stack_block(stack, ones, None, noises, *how, *values, *counts, tally=tally), stack.size


def warping() -> Callable[[], Any]:
    """Return a run of the warp on one block of a turned frame."""
    patch = np.random.default_rng(1).normal(1000, 30, (3, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    turn = np.deg2rad(1.3)
    matrix = np.array([[np.cos(turn), -np.sin(turn), 40.3], [np.sin(turn), np.cos(turn), 30.7]])
    out = np.empty((3, SIDE, SIDE), np.float32)
    match = np.ones(3, np.float32), np.ones((3, 6)), (SIDE / 2, SIDE / 2), float(SIDE)
    return lambda: warp_block(patch, 0, 0, matrix, 0, 0, "cubic", True, *match, out)


def interpolating() -> tuple[Callable[[], Any], int]:
    """Return a run of the demosaic on one patch, and its pixels."""
    side = SIDE + 2 * MARGIN
    mosaic = np.random.default_rng(2).normal(1000, 30, (side, side)).astype(np.float32)
    planes = np.empty((3, side, side), np.float32)
    return lambda: demosaic(mosaic, pattern_codes("GRBG"), 0, 0, planes), mosaic.size


@click.command()
@click.option("--repeats", default=20, show_default=True)
def main(repeats: int) -> None:
    """Print the limits of one core, and what part of them each kernel reaches."""
    source = np.ones(COPIED // 4, np.float32)
    target = np.empty_like(source)
    turns = 10**5
    mosaic, pixels = interpolating()
    # Name, what is run, how many units, what a unit is, bytes and operations of a unit.
    runs: list[tuple[str, Callable[[], Any], int, str, float, float]] = [
        ("demosaic", mosaic, pixels, "pixel", 4 + 12, DEMOSAIC),
        ("warp, cubic, 3 channels", warping(), SIDE * SIDE, "pixel", 12 + 12, CUBIC),
    ]
    for frames in TURNS:
        combined = 2 * len(comparators(frames)) / frames + COMBINED
        for method, more in (("none", 0.0), ("winsor", TURN * TURNS[frames])):
            run, size = rejecting(frames, method)
            name, size_of = f"stack, {method}, {frames} frames", 4 + 18 / frames
            runs.append((name, run, size, "sample", size_of, combined + more))
    limits: list[Callable[[], Any]] = [lambda: np.copyto(target, source), lambda: arithmetic(turns)]
    copying, computing, *spent = seconds_of([*limits, *(run for _, run, *_ in runs)], repeats)
    bandwidth, flops = 2 * COPIED / copying, 2 * CHAINS * LANES * turns / computing
    click.echo(f"{machine()}\n\nOne core reads and writes {bandwidth / 1e9:.1f} GB/s while it copies,")
    click.echo(f"and does {flops / 1e9:.0f} thousand million float32 operations a second.\n")
    rows = []
    for (name, _, units, unit, size, operations), seconds in zip(runs, spent, strict=True):
        each = seconds / units
        cells = f"{1e9 * each:.2f} / {unit}", f"{size:.1f}", f"{size / each / bandwidth:.0%}"
        rows.append((name, *cells, f"{operations:.0f}", f"{operations / each / flops:.0%}"))
    click.echo(table(("kernel", "ns", "bytes", "of the bandwidth", "operations", "of the arithmetic"), rows))


if __name__ == "__main__":
    main()
