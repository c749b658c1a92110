"""Measure whether UNCERT is right: pulls, (value − truth) / UNCERT, of simulated stacks and groups.

    python bench/quality/pulls.py

Stacks are independent Gaussian samples, also of frames whose noises or weights differ. Groups are
rendered, registered and stacked like any other, with trails, hot pixels and cosmic rays (without,
where weights differ); the truth of their star-free sky is smooth, so it is fitted by a polynomial of
second order. The width of the pulls is half of their central 68.3 %; their SD stands beside it. Noise
of neighbours is correlated by the interpolation: that of sums over boxes is compared with what UNCERT
gives for independent pixels. docs/accuracy.md holds the tables.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile, winsorized_sigma_clip
from zmtile.options import KERNELS
from zmtile.tiles.tile import Tile

STACKS = (3, 4, 5, 6, 8, 12, 20, 50, 100)
METHODS = ("winsor", "winsor-quantile", "sigma", "mad", "linear-fit", "esd", "minmax", "none")
# Noises of frames, and shares of equal frames as a feather makes them.
NOISES = (
    (1, 2),
    (1, 3),
    (1, 1, 3),
    (1, 3, 3, 3, 3),
    (1, 1, 3, 3),
    (1, 1.5, 2, 1.2, 1.1),
    (1,) * 4 + (2,) * 4,
    (1,) * 4 + (3,) * 4,
    (1,) * 10 + (3,) * 10,
)
SHARES = ((1, 0.001), (1, 0.1), (1, 0.5), (1, 1, 0.01), (1, 0.1, 0.1, 0.1, 0.1), (1, 1) + (0.1,) * 18)
FEATHER = 100.0
EDGES = (0, 5, 15, 30, 60)
BOXES = (2, 4, 8, 16)
BOUND = (0.95, 1.05)


def width(pulls: NDArray[np.floating]) -> float:
    """Half of the central 68.3 %."""
    low, high = np.percentile(pulls, [15.866, 84.134])
    return float(high - low) / 2


def stack_pulls(method: str, n: int, pixels: int) -> NDArray[np.float32]:
    stack = np.random.default_rng([n, 7]).standard_normal((n, 1, pixels)).astype(np.float32)
    made = winsorized_sigma_clip(stack, method=method, threads=1)
    pulls = (made.image / made.uncert)[0]
    return pulls[np.isfinite(pulls)]  # minmax leaves one sample of three, which has no scatter


def uneven_pulls(noises: NDArray[np.float64], pixels: int, **choice: Any) -> float:
    """Width of the pulls of frames with these noises; the kernel is told half of them."""
    shape = (len(noises), 1, pixels)
    stack = np.random.default_rng([len(noises), 8]).standard_normal(shape) * noises[:, None, None]
    made = winsorized_sigma_clip(stack.astype(np.float32), noises=noises / 2, threads=1, **choice)
    pulls = (made.image / made.uncert)[0]
    return width(pulls[np.isfinite(pulls)])


def name_of(values: tuple[float, ...]) -> str:
    """Values with the number of each: 1 ×4, 3 ×4."""
    return ", ".join(
        f"{v:g} ×{values.count(v)}" if values.count(v) > 1 else f"{v:g}" for v in dict.fromkeys(values)
    )


def uneven_stacks(pixels: int) -> list[float]:
    """Print the tables of unequal noises and shares; return the widths without a rejection."""
    print("\nstacks of unequal noises: width of the pulls\n")
    print("| noises | mean | `winsor` | `mad` | `esd` | equal weights | median | median, `winsor` |")
    print("|---" * 8 + "|")
    plain = []
    for sigmas in NOISES:
        noises = np.array(sigmas, float)
        best = {"weights": noises**-2}
        cells = [
            uneven_pulls(noises, pixels, method="none", **best),
            *(uneven_pulls(noises, pixels, method=m, **best) for m in ("winsor", "mad", "esd")),
            uneven_pulls(noises, pixels, method="none"),
            *(uneven_pulls(noises, pixels, method=m, combine="median") for m in ("none", "winsor")),
        ]
        plain += [cells[0], cells[4]]
        print(f"| {name_of(sigmas)} | " + " | ".join(f"{w:.3f}" for w in cells) + " |")
    print("\nstacks of equal noises and unequal shares: width of the pulls\n")
    print("| shares | mean | `winsor` |\n|---|---|---|")
    for shares in SHARES:
        weights = np.array(shares, float)
        cells = [
            uneven_pulls(np.ones(len(shares)), pixels, method=m, weights=weights) for m in ("none", "winsor")
        ]
        plain.append(cells[0])
        print(f"| {name_of(shares)} | " + " | ".join(f"{w:.3f}" for w in cells) + " |", flush=True)
    return plain


def to_edge(spec: make_group.GroupSpec, truth: make_group.Truth) -> NDArray[np.float64]:
    """Distance of each pixel of the reference from the nearest outline of a frame around it, frame px."""
    y, x = np.mgrid[: spec.rows, : spec.cols].astype(np.float64)
    nearest = np.full(y.shape, np.inf)
    for matrix in truth.matrices:
        linear, shift = matrix[:, :2], matrix[:, 2]
        u, v = np.einsum("ij,jyx->iyx", np.linalg.inv(linear), np.stack([x, y]) - shift[:, None, None])
        inside = np.minimum.reduce([u + 0.5, spec.cols - 0.5 - u, v + 0.5, spec.rows - 0.5 - v])
        nearest = np.minimum(nearest, np.where(inside < 0, np.inf, inside))
    return nearest


def feathered_groups(spec: make_group.GroupSpec) -> list[float]:
    """Print the widths by the distance from the edge of a frame, and return them."""
    spans = list(pairwise(EDGES))
    print(
        f"\nmono groups with `--feather {FEATHER:g}`: width of the pulls by the distance from an edge, px\n"
    )
    print(
        "| frames | "
        + " | ".join(f"{a}–{b}" for a, b in spans)
        + " | all |\n"
        + "|---" * (len(spans) + 2)
        + "|"
    )
    widths = []
    for count in (2, 3, 5, 20):
        clean = replace(spec, frames=count, cfa=None, trails=0.0, hot_pixels=0.0, cosmic_rays=0)
        tile, truth = build(clean, Options(feather=FEATHER))
        left, uncert, free = sky_residual(tile, truth, clean, 0)
        away = to_edge(clean, truth)
        parts = [free & (away >= a) & (away < b) for a, b in spans] + [free]
        cells = [width(left[part] / uncert[part]) for part in parts]
        widths += cells
        print(f"| {count} | " + " | ".join(f"{w:.3f}" for w in cells) + " |", flush=True)
    return widths


def uneven_groups(spec: make_group.GroupSpec) -> None:
    """Print the widths of groups seen through clouds, so that the noises differ after scaling."""
    print("\nmono groups with a transparency of 0.3 to 1: width of the pulls\n")
    print(
        "| frames | default | `--combine median` | `--weight none` | `--reject none` |\n|---|---|---|---|---|"
    )
    choices = (Options(), Options(combine="median"), Options(weight="none"), Options(reject="none"))
    for count in (5, 8, 20):
        hazy = replace(spec, frames=count, cfa=None, transparency=(0.3, 1.0))
        hazy = replace(hazy, trails=0.0, hot_pixels=0.0, cosmic_rays=0)
        cells = []
        for options in choices:
            tile, truth = build(hazy, options)
            left, uncert, free = sky_residual(tile, truth, hazy, 0)
            cells.append(width(left[free] / uncert[free]))
        print(f"| {count} | " + " | ".join(f"{w:.3f}" for w in cells) + " |", flush=True)


def sky_residual(
    tile: Tile, truth: make_group.Truth, spec: make_group.GroupSpec, channel: int
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.bool_]]:
    """Tile less its sky, UNCERT, and the star-free pixels that all frames cover."""
    image, uncert, coverage = (
        plane if plane.ndim == 2 else plane[channel] for plane in (tile.image, tile.uncert, tile.coverage)
    )
    scene = make_group.scene(spec, truth, channel)
    used = sum(record.used for record in tile.frames)
    free = (scene - np.median(scene) < 0.2) & (coverage == used)
    y, x = np.mgrid[-1 : 1 : spec.rows * 1j, -1 : 1 : spec.cols * 1j]
    terms = np.stack([x**i * y**j for i in range(3) for j in range(3 - i)], axis=-1)
    kept = free.copy()
    for _ in range(3):
        fit = np.linalg.lstsq(terms[kept], image[kept].astype(np.float64), rcond=None)[0]
        left = image - terms @ fit
        kept = free & (np.abs(left) < 4 * uncert)
    return left, uncert, free


def box_ratio(
    left: NDArray[np.float64], uncert: NDArray[np.float32], free: NDArray[np.bool_], box: int
) -> float:
    """Scatter of the sums over boxes over the root of the summed squares of UNCERT."""
    shape = (box, box)
    whole = sliding_window_view(free, shape)[::box, ::box].all(axis=(-1, -2))
    # The polynomial leaves nothing of the sky, so the sums scatter about zero.
    sums = sliding_window_view(left, shape)[::box, ::box].sum(axis=(-1, -2))[whole]
    squares = sliding_window_view(uncert.astype(np.float64) ** 2, shape)[::box, ::box].sum(axis=(-1, -2))[
        whole
    ]
    return width(sums / np.sqrt(squares))


def build(spec: make_group.GroupSpec, options: Options) -> tuple[Tile, make_group.Truth]:
    with tempfile.TemporaryDirectory() as folder:
        paths = make_group.write_group(spec, Path(folder))
        return build_tile(paths, replace(options, reference=paths[0].name)), make_group.truth_of(spec)


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(5, 8, 20, 60), show_default=True)
@click.option("--pixels", type=int, default=200_000, show_default=True, help="For each number of the stacks.")
@click.option("--rows", type=int, default=540, show_default=True)
@click.option("--cols", type=int, default=960, show_default=True)
def main(counts: tuple[int, ...], pixels: int, rows: int, cols: int) -> None:
    """Print widths of pulls, and the noise of sums over boxes."""
    worst = []
    print("stacks: width of the pulls\n")
    print("| | " + " | ".join(map(str, STACKS)) + " |\n" + "|---" * (len(STACKS) + 1) + "|")
    for method in METHODS:
        widths = [width(p) if len(p := stack_pulls(method, n, pixels)) else np.nan for n in STACKS]
        worst += [w for w in widths if np.isfinite(w)]
        print(f"| `{method}` | " + " | ".join(f"{w:.3f}" if np.isfinite(w) else "" for w in widths) + " |")
    worst += uneven_stacks(pixels)
    spec = make_group.GroupSpec(rows=rows, cols=cols, stars=150, nebula=False)
    worst += feathered_groups(spec)
    uneven_groups(spec)
    print("\ngroups: width (SD within 5) of the pulls\n")
    print("| frames | mosaic R | G | B | mono |\n|---|---|---|---|---|")
    for count in counts:
        cells = []
        for cfa in ("GRBG", None):
            tile, truth = build(replace(spec, frames=count, cfa=cfa), Options())
            for channel in range(tile.channels):
                left, uncert, free = sky_residual(tile, truth, replace(spec, cfa=cfa), channel)
                pulls = left[free] / uncert[free]
                worst.append(width(pulls))
                cells.append(f"{worst[-1]:.3f} ({pulls[np.abs(pulls) < 5].std():.3f})")
        print(f"| {count} | " + " | ".join(cells) + " |", flush=True)
    print("\nboxes, 20 frames: noise of the sum over what UNCERT gives for independent pixels\n")
    print("| | channel | " + " | ".join(f"{b}×{b}" for b in BOXES) + " |\n" + "|---" * (len(BOXES) + 2) + "|")
    for cfa in (None, "GRBG"):
        for kernel in KERNELS:
            tile, truth = build(replace(spec, frames=20, cfa=cfa), Options(kernel=kernel))
            for channel in range(tile.channels):
                found = sky_residual(tile, truth, replace(spec, cfa=cfa), channel)
                name = f"`{kernel}`, {'mosaic' if cfa else 'mono'} | {'RGB'[channel] if cfa else ''}"
                print(
                    f"| {name} | " + " | ".join(f"{box_ratio(*found, b):.2f}" for b in BOXES) + " |",
                    flush=True,
                )
    low, high = BOUND
    outside = sum(not low <= w <= high for w in worst)
    print(f"\nwidths from {min(worst):.3f} to {max(worst):.3f}; {outside} outside of {low} to {high}")


if __name__ == "__main__":
    main()
