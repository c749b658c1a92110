"""Measure the winsorised rejection alone, against numpy's median and ccdproc's sigma clipping.

    python bench/speed/rejection.py --frames 20 --frames 60 --frames 100 --frames 500 --samples 124

Gaussian samples with 3 % NaN and 1 % outliers; the same number of samples in every stack, so that with more
frames there are fewer pixels. The kernel rejects, combines and counts, on blocks as in a build. The others
see the same stack, on one thread as they are. Every number is the best of some repeats: what else runs on a
machine only ever adds time. What is written was touched before: how fast the system hands out memory is
not measured.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable

import click
import numpy as np
from numpy.typing import NDArray
from running import machine, table

from zmtile.kernels.lanes import LANES
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.options import Options, Resources
from zmtile.parallel import run_parallel
from zmtile.progress import NullProgress
from zmtile.stacking.clip import BLOCK_BYTES
from zmtile.stacking.rejection import rejection

# Samples that are drawn.
PERIOD = 2**20
_MOST_FRAMES_OF_OTHERS = 100  # they take minutes with more


def samples_of(frames: int, pixels: int) -> NDArray[np.float32]:
    """Draw a stack (frames, pixels); `PERIOD` samples are repeated, which no pixel can know."""
    rng = np.random.default_rng(frames)
    some = rng.normal(1000.0, 30.0, PERIOD).astype(np.float32)
    some[rng.random(some.size) < 0.01] += 2000.0
    some[rng.random(some.size) < 0.03] = np.nan
    return np.resize(some, (frames, pixels))


def kernel_seconds(stack: NDArray[np.float32], method: str, threads: int) -> float:
    """Return how long the kernel takes for a stack."""
    frames, pixels = stack.shape
    arguments = comparators(frames), *rejection(Options(reject=method), frames)
    values, counts = np.full((3, pixels), np.nan, np.float32), np.full((3, pixels), 1, np.uint16)
    weight = np.ones(frames, np.float32)
    size = max(1024, BLOCK_BYTES // (4 * frames))
    blocks = [np.ascontiguousarray(stack[:, start : start + size]) for start in range(0, pixels, size)]

    def work(number: int) -> None:
        part = np.s_[number * size : (number + 1) * size]
        planes = (plane[part] for plane in (*values, *counts))
        tally = np.zeros((frames, 3), np.int64)
        stack_block(blocks[number], weight, None, None, *arguments, *planes, tally=tally)

    begin = time.perf_counter()
    run_parallel(work, range(len(blocks)), threads, NullProgress())
    return time.perf_counter() - begin


def median_seconds(stack: NDArray[np.float32]) -> float:
    """Return how long numpy takes for the median alone."""
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels without data
        np.nanmedian(stack, axis=0)
    return time.perf_counter() - begin


def ccdproc_seconds(stack: NDArray[np.float32]) -> float:
    """Return how long ccdproc takes to clip at 3 sigma and combine."""
    import ccdproc
    from astropy.nddata import CCDData

    images = stack.reshape(len(stack), 1, -1)
    combiner = ccdproc.Combiner(
        [CCDData(image, unit="adu", mask=np.isnan(image)) for image in images], dtype=np.float32
    )
    begin = time.perf_counter()
    combiner.sigma_clipping(low_thresh=3, high_thresh=3, func=np.ma.median)
    combiner.average_combine()
    return time.perf_counter() - begin


def rate(seconds: Callable[[], float], samples: int, repeats: int) -> float:
    """Return the best of some repeats in millions of samples a second."""
    return samples / min(seconds() for _ in range(repeats)) / 1e6


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(20, 60, 100, 500), show_default=True)
@click.option("--samples", default=124.0, show_default=True, help="Of every stack, millions.")
@click.option("--method", default="winsor", show_default=True)
@click.option("--repeats", default=15, show_default=True, help="Of the kernel; the others run twice.")
@click.option("--threads", default=Resources().workers, show_default=True)
def main(counts: tuple[int, ...], samples: float, method: str, repeats: int, threads: int) -> None:
    """Print millions of samples a second, and how many times as fast as the others that is."""
    click.echo(f"{machine()}\n\n{samples:g} million samples, {threads} threads\n")
    rows = []
    for frames in counts:
        stack = samples_of(frames, round(samples * 1e6 / frames))
        kernel_seconds(np.ascontiguousarray(stack[:, :LANES]), method, threads)  # compiles it
        own = rate(lambda s=stack: kernel_seconds(s, method, threads), stack.size, repeats)  # type: ignore[misc]
        others = [median_seconds]
        if importlib.util.find_spec("ccdproc") and frames <= _MOST_FRAMES_OF_OTHERS:
            others.append(ccdproc_seconds)
        rates = [rate(lambda f=other, s=stack: f(s), stack.size, 2) for other in others]  # type: ignore[misc]
        cells = [f"{r:.1f} ({own / r:.1f} ×)" for r in rates] + ["–"] * (2 - len(rates))
        rows.append((str(frames), f"{stack.shape[1] / 1e6:.2f}", f"{own:.0f}", *cells))
    heads = ("frames", "Mpx", f"{method}, Msamples/s", "np.nanmedian", "ccdproc sigma clip")
    click.echo(table(heads, rows))


if __name__ == "__main__":
    main()
