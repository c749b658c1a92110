"""Measure tiles of simulated groups against the truth: transforms, coverage, outliers, fluxes.

    python bench/quality/truth.py --frames 20 --frames 60

The group is 1080×1920 GRBG with 4° of rotation, 25 px of dither, gradients that differ by frame and
colour, trails, hot pixels and cosmic rays. docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import sep
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.options import NORMALIZATIONS
from zmtile.registration.transform import apply, compose, corners, invert
from zmtile.tiles.tile import Tile

SUPPORT = 4  # px: cubic kernel (2), demosaic (1), and half a pixel of rounding either way


def corner_errors(
    tile: Tile, truth: make_group.Truth, spec: make_group.GroupSpec, home: int
) -> NDArray[np.float64]:
    """Largest error of each used frame's transform at its corners, px; relative to the tile's reference."""
    ends = corners(spec.rows, spec.cols)
    errors = []
    for k, record in enumerate(tile.frames):
        if record.used:
            true = compose(invert(truth.matrices[home]), truth.matrices[k])
            errors.append(np.hypot(*(apply(record.matrix, ends) - apply(true, ends)).T).max())
    return np.array(errors)


def coverage_bounds(
    truth: make_group.Truth, spec: make_group.GroupSpec, home: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frames that cover each reference pixel for certain, and at most, by the true transforms."""
    y, x = np.mgrid[: spec.rows, : spec.cols]
    xy = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    surely, at_most = np.zeros(len(xy), int), np.zeros(len(xy), int)
    for matrix in truth.matrices:
        fx, fy = apply(invert(compose(invert(truth.matrices[home]), matrix)), xy).T
        edge = np.minimum.reduce([fx, fy, spec.cols - 1 - fx, spec.rows - 1 - fy])
        surely += edge >= SUPPORT
        at_most += edge >= -0.2
    return surely.reshape(spec.rows, spec.cols), at_most.reshape(spec.rows, spec.cols)


def residual(
    tile: Tile, truth: make_group.Truth, spec: make_group.GroupSpec, channel: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Tile less a smooth background, in local sigma, and the pixels free of stars."""
    image = np.ascontiguousarray(tile.image[channel] if tile.image.ndim == 3 else tile.image)
    stars = make_group.scene(spec, truth, channel)
    # Far wings of bright stars and nebula stay in the background mesh; star light above 1 ADU does not.
    flat = stars - np.float32(np.median(stars))
    free = np.isfinite(image) & (flat < 400)
    near = make_group.scene(make_group_without_nebula(spec), truth, channel) > 1.0
    free &= ~near
    background = sep.Background(np.nan_to_num(image), mask=~free, bw=32, bh=32)
    left = image - background.back()
    return left / background.rms(), free


def make_group_without_nebula(spec: make_group.GroupSpec) -> make_group.GroupSpec:
    from dataclasses import replace

    return replace(spec, nebula=False)


def fluxes(tile: Tile, truth: make_group.Truth, spec: make_group.GroupSpec, home: int) -> NDArray[np.float64]:
    """Measured over true flux of bright, lonely, fully covered stars, all channels together."""
    ratios = []
    full = tile.coverage.max()
    x, y = apply(invert(truth.matrices[home]), np.column_stack([truth.x, truth.y])).T
    for c in range(tile.channels):
        image = np.ascontiguousarray(tile.image[c] if tile.image.ndim == 3 else tile.image)
        cover = tile.coverage[c] if tile.coverage.ndim == 3 else tile.coverage
        order = np.argsort(-truth.flux[c])
        for s in order[:80]:
            others = np.hypot(x - x[s], y - y[s]) < 40
            others[s] = False
            inside = 30 < x[s] < spec.cols - 30 and 30 < y[s] < spec.rows - 30
            if not inside or truth.flux[c][others].sum() > 0.002 * truth.flux[c][s]:
                continue
            box = cover[int(y[s]) - 20 : int(y[s]) + 21, int(x[s]) - 20 : int(x[s]) + 21]
            if box.min() < full:
                continue
            # The annulus subtracts sky and nebula alike; 9 px hold all of a Gaussian of 3.4 px FWHM.
            flux, _, _ = sep.sum_circle(image, [x[s]], [y[s]], 9.0, bkgann=(12.0, 20.0), subpix=0)
            ratios.append(float(flux[0]) / truth.flux[c][s])
    return np.array(ratios)


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(20,), show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--rows", type=int, default=1080, show_default=True)
@click.option("--cols", type=int, default=1920, show_default=True)
@click.option("--stars", type=int, default=800, show_default=True)
@click.option("--normalize", type=click.Choice(NORMALIZATIONS), default="surface", show_default=True)
@click.option("--save", type=click.Path(path_type=Path), help="Keep the tile as this file.")
def main(
    counts: tuple[int, ...], seed: int, rows: int, cols: int, stars: int, normalize: str, save: Path | None
) -> None:
    """Print the accuracy table of simulated groups."""
    for count in counts:
        spec = make_group.GroupSpec(frames=count, rows=rows, cols=cols, stars=stars, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            paths = make_group.write_group(spec, Path(folder))
            truth = make_group.truth_of(spec)
            tile = build_tile(paths, Options(reference=paths[0].name, normalize=normalize))
        if save:
            tile.write(save, overwrite=True)
        errors = corner_errors(tile, truth, spec, 0)
        print(f"n = {count}: {sum(r.used for r in tile.frames)} used")
        print(f"  corner error           max {errors.max():.3f} px, median {np.median(errors):.3f} px")
        surely, at_most = coverage_bounds(truth, spec, 0)
        green = tile.coverage[1] if tile.coverage.ndim == 3 else tile.coverage
        wrong = (green < surely) | (green > at_most)
        nan = np.isnan(tile.image) != (tile.coverage == 0)
        print(f"  coverage outside truth {wrong.mean():.2e} of pixels; NaN where it is not 0: {nan.sum()}")
        beyond, total = 0, 0
        for c in range(tile.channels):
            pull, free = residual(tile, truth, spec, c)
            beyond += int((np.abs(pull[free]) > 6).sum())
            total += int(free.sum())
        print(f"  star-free beyond 6 sigma {beyond / total:.2e} ({beyond} of {total})")
        ratio = fluxes(tile, truth, spec, 0)
        print(
            f"  flux / truth           bias {100 * (np.median(ratio) - 1):+.2f} %, "
            f"scatter {100 * 1.4826 * np.median(np.abs(ratio - np.median(ratio))):.2f} % ({ratio.size} stars)"
        )


if __name__ == "__main__":
    main()
