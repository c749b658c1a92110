"""Measure the rejections on Gaussian samples: noise, good samples lost, bias under outliers.

    python bench/quality/estimators.py

Ours stand beside the definitions that Siril and PixInsight publish, written out plainly below in float64.
docs/accuracy.md holds the tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import numba
import numpy as np
from numpy.typing import NDArray

from zmtile import winsorized_sigma_clip
from zmtile.kernels.bounds import METHODS

SAMPLES = (3, 4, 5, 6, 8, 12, 20, 50, 100)
OUTLIERS = (1, 2, 3)
FAR = 50.0  # sigma
PER_RUN = 100_000
# What winsor with kappa 3 3 has to reach: noise over sigma/√n within 2 %, and samples falsely rejected.
BOUND = {
    5: (1.048, "2.2 %"),
    8: (1.042, "1.3 %"),
    12: (1.046, "1.0 %"),
    20: (1.031, "0.7 %"),
    50: (1.021, "0.4 %"),
}


@numba.njit
def deviation(x: Any) -> float:
    return np.sqrt(((x - x.mean()) ** 2).sum() / (x.size - 1))


@numba.njit
def siril_keeps(distance: Any, bound: float, gone: int) -> Any:
    """Siril: in the order of the frames, samples beyond the bound go, until 4 are left."""
    keep = np.ones(distance.size, np.bool_)
    for i in range(distance.size):
        if distance.size - gone > 4 and abs(distance[i]) > bound:
            keep[i] = False
            gone += 1
    return keep, gone


@numba.njit
def siril_winsor(x: Any) -> Any:
    """Siril: the median follows the winsorised copy."""
    gone = 0
    while x.size > 3:
        copy, centre, sigma = x.copy(), np.median(x), deviation(x)
        while True:
            copy = np.minimum(np.maximum(copy, centre - 1.5 * sigma), centre + 1.5 * sigma)
            centre, old = np.median(copy), sigma
            sigma = 1.134 * deviation(copy)
            if abs(sigma - old) <= 5e-4 * old:
                break
        keep, gone = siril_keeps(x - centre, 3 * sigma, gone)
        if keep.all():
            break
        x = x[keep]
    return x


@numba.njit
def pixinsight_winsor(x: Any) -> Any:
    """PixInsight: as ours, but every round winsorises a fresh copy of the samples."""
    while x.size >= 3:
        centre, sigma = np.median(x), deviation(x)
        for _ in range(49):
            copy = np.minimum(np.maximum(x, centre - 1.5 * sigma), centre + 1.5 * sigma)
            old = sigma
            sigma = 1.134 * deviation(copy)
            if abs(sigma - old) <= 5e-4 * old:
                break
        keep = np.abs(x - centre) <= 3 * sigma
        if keep.all() or not keep.any():
            break
        x = x[keep]
    return x


@numba.njit
def siril_clip(x: Any, by_mad: bool) -> Any:
    gone = 0
    while x.size > 3:
        centre = np.median(x)
        sigma = np.median(np.abs(x - centre)) if by_mad else deviation(x)
        keep, gone = siril_keeps(x - centre, 3 * sigma, gone)
        if keep.all():
            break
        x = x[keep]
    return x


@numba.njit
def siril_sigma(x: Any) -> Any:
    return siril_clip(x, False)


@numba.njit
def siril_mad(x: Any) -> Any:
    """Siril: sigma clipping with the MAD itself as sigma; without the factor 1.4826."""
    return siril_clip(x, True)


@numba.njit
def siril_linear_fit(x: Any) -> Any:
    """Siril: least squares over rank; any sample may go, from the lowest upwards, as long as 4 stay."""
    gone = 0
    while x.size > 3:
        x = np.sort(x)
        rank = np.arange(x.size) - (x.size - 1) / 2
        left = x - x.mean() - rank * (rank * x).sum() / (rank * rank).sum()
        sigma = np.abs(left).mean()
        keep, gone = siril_keeps(left, 3 * sigma, gone)
        if keep.all():
            break
        x = x[keep]
    return x


@numba.njit
def pixinsight_linear_fit(x: Any) -> Any:
    """PixInsight: the line of least absolute deviations over rank, their mean as sigma."""
    while x.size >= 3:
        x = np.sort(x)
        rank = np.arange(x.size) - (x.size - 1) / 2
        # The sum of absolute deviations is convex in the slope; for a slope, the median is the best level.
        lower, upper = 0.0, (x[-1] - x[0])
        for _ in range(60):
            third = (upper - lower) / 3
            a, b = x - (lower + third) * rank, x - (upper - third) * rank
            if np.abs(a - np.median(a)).sum() < np.abs(b - np.median(b)).sum():
                upper -= third
            else:
                lower += third
        left = x - (lower + upper) / 2 * rank
        left = left - np.median(left)
        keep = np.abs(left) <= 3 * np.abs(left).mean()
        if keep.all() or not keep.any():
            break
        x = x[keep]
    return x


@numba.njit
def run_plain(method: Any, stack: Any, means: Any, lost: Any) -> None:
    for i in range(stack.shape[1]):
        kept = method(stack[:, i].copy())
        means[i], lost[i] = kept.mean(), stack.shape[0] - kept.size


PEERS: dict[str, Any] = {
    "Siril, winsorized": siril_winsor,
    "PixInsight, winsorized": pixinsight_winsor,
    "Siril, sigma": siril_sigma,
    "Siril, MAD": siril_mad,
    "Siril, linear fit": siril_linear_fit,
    "PixInsight, linear fit": pixinsight_linear_fit,
}

Estimate = Callable[[NDArray[np.float64]], tuple[NDArray[Any], NDArray[Any]]]


def ours(method: str, combine: str = "mean") -> Estimate:
    """Return the estimate of a stack's pixels, and how many samples each lost."""

    def estimate(stack: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        # About zero, float32 keeps the seven digits that the sky's level would take.
        made = winsorized_sigma_clip(stack[:, None], method=method, combine=combine, threads=1)
        return made.image[0], made.rejlow[0] + made.rejhigh[0]

    return estimate


def peer(method: Any) -> Estimate:
    def estimate(stack: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        means, lost = np.empty(stack.shape[1]), np.empty(stack.shape[1])
        run_plain(method, stack, means, lost)
        return means, lost

    return estimate


def measure(estimate: Estimate, n: int, outliers: int, pixels: int, seed: int) -> tuple[float, float, float]:
    """Noise over sigma/√n, fraction lost, and bias in sigma of a sample, for n samples with some outliers."""
    rng = np.random.default_rng([seed, n, outliers])
    total = np.zeros(3)
    for _ in range(0, pixels, PER_RUN):
        stack = rng.standard_normal((n, min(pixels, PER_RUN)))
        stack[:outliers] += FAR
        means, lost = estimate(stack)
        total += means.sum(dtype=np.float64), (means.astype(np.float64) ** 2).sum(), lost.sum()
    count = max(pixels // PER_RUN, 1) * min(pixels, PER_RUN)
    bias, square = total[0] / count, total[1] / count
    return float(np.sqrt((square - bias**2) * n)), float(total[2] / count / n), float(bias)


def table(title: str, rows: dict[str, Estimate], cell: Callable[[Estimate, int], str]) -> None:
    print(f"\n{title}\n")
    print("| | " + " | ".join(map(str, SAMPLES)) + " |")
    print("|---" * (len(SAMPLES) + 1) + "|")
    for name, estimate in rows.items():
        print(f"| {name} | " + " | ".join(cell(estimate, n) for n in SAMPLES) + " |", flush=True)


@click.command()
@click.option("--pixels", type=int, default=1_000_000, show_default=True, help="For each number of ours.")
@click.option("--peer-pixels", type=int, default=100_000, show_default=True, help="For each of the others.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(pixels: int, peer_pixels: int, seed: int) -> None:
    """Print noise, loss and bias of every rejection by the number of samples."""
    mine = {f"`{method}`": ours(method) for method in METHODS}
    theirs = {name: peer(method) for name, method in PEERS.items()}
    count = dict.fromkeys(mine.values(), pixels) | dict.fromkeys(theirs.values(), peer_pixels)
    rows = mine | {"median, no rejection": (median := ours("none", "median"))} | theirs
    count[median] = pixels
    clean = {
        (name, n): measure(estimate, n, 0, count[estimate], seed)
        for name, estimate in rows.items()
        for n in SAMPLES
    }
    names = {estimate: name for name, estimate in rows.items()}
    table("noise over sigma/√n", rows, lambda e, n: f"{clean[names[e], n][0]:.3f}")
    table("good samples rejected, %", rows, lambda e, n: f"{100 * clean[names[e], n][1]:.2f}")
    for outliers in OUTLIERS:
        table(
            f"bias in sigma of a sample, {outliers} outlier{'s' * (outliers > 1)} of {FAR:.0f} sigma",
            rows,
            lambda e, n, k=outliers: (
                f"{measure(e, n, k, min(count[e], 200_000), seed)[2]:+.3f}" if 2 * k < n else ""
            ),
        )
    print("\nwinsor and its bound")
    worst = 0.0
    for n, (noise, lost) in BOUND.items():
        got = clean["`winsor`", n]
        worst = max(worst, abs(got[0] / noise - 1))
        print(f"  n = {n:2}: noise {got[0]:.4f} (bound {noise}), rejected {100 * got[1]:.2f} % ({lost})")
    print(f"  largest deviation {100 * worst:.2f} % (bound 2 %)")
    sys.exit(worst > 0.02)


if __name__ == "__main__":
    main()
