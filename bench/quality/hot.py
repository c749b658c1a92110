"""Measure `--hot-pixels`: what is found, what stars keep, and what is left in the tile.

    python bench/quality/hot.py

Simulated groups with stars of FWHM 1.8 px and hot pixels of 6 sigma of the noise and more, dithered
and not. docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import sep
from astropy.io import fits
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.pipeline import plan_tile
from zmtile.registration.transform import apply
from zmtile.tiles.tile import Tile

APERTURE = 6.0  # px: holds all of a Gaussian star of FWHM 1.8
CLEAR = 18.0  # px around a star without hot pixel in any frame: what is measured there is the star alone


@dataclass(frozen=True)
class Group:
    """A simulated group: its files, and all that is true of them."""

    spec: make_group.GroupSpec
    truth: make_group.Truth
    paths: list[Path]


def simulate(spec: make_group.GroupSpec, faintest: float, folder: Path) -> Group:
    """Write the lights of a group whose hot pixels are `faintest` ADU and brighter."""
    truth = make_group.truth_of(spec)
    rng = np.random.default_rng(spec.seed)
    hot = truth.hot.copy()
    hot[hot > 0] = np.exp(rng.uniform(np.log(faintest), np.log(30000), np.count_nonzero(hot)))
    truth = replace(truth, hot=hot)
    paths = [folder / f"light_{k + 1:04d}.fits" for k in range(spec.frames)]
    for k, path in enumerate(paths):
        fits.PrimaryHDU(
            make_group.render_frame(spec, truth, k), make_group.frame_header(spec, truth, k)
        ).writeto(path)
    return Group(spec, truth, paths)


def found_pixels(group: Group, options: Options) -> NDArray[np.bool_]:
    """Return the map of the pixels that the reference frame loses."""
    found = np.zeros(group.truth.hot.shape, bool)
    plan = plan_tile(group.paths, options)
    found.flat[plan.corrections[plan.reference_index].bad] = True
    return found


def hot_places(group: Group) -> NDArray[np.float64]:
    """Return where the hot pixels of all frames lie in the reference, (n, 2)."""
    rows, cols = np.nonzero(group.truth.hot)
    xy = np.column_stack([cols, rows]).astype(np.float64)
    return np.concatenate([apply(matrix, xy) for matrix in group.truth.matrices])


def planes(tile: Tile) -> list[tuple[int, NDArray[np.float32]]]:
    """Return the channels of a tile with their numbers."""
    return list(enumerate(tile.image if tile.image.ndim == 3 else tile.image[None]))


def star_fluxes(tile: Tile, group: Group, places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return measured over true flux of lonely stars that no hot pixel comes near, all channels."""
    truth, spec = group.truth, group.spec
    xy = np.column_stack([truth.x, truth.y])
    inside = (np.abs(xy - spec.centre) < spec.centre - 40).all(axis=1)
    ratios = []
    for s in np.flatnonzero(inside & (truth.flux[-1] > 20000)):
        distance = np.hypot(*(xy - xy[s]).T)
        distance[s] = np.inf
        lonely = truth.flux[-1][distance < 15].sum() < 0.005 * truth.flux[-1][s]
        if lonely and np.hypot(*(places - xy[s]).T).min() > CLEAR:
            for c, plane in planes(tile):
                flux, _, _ = sep.sum_circle(
                    np.ascontiguousarray(plane), [xy[s, 0]], [xy[s, 1]], APERTURE, bkgann=(8, 14), subpix=0
                )
                ratios.append(float(flux[0]) / truth.flux[c][s])
    return np.array(ratios)


def residuals(tile: Tile, group: Group) -> tuple[list[NDArray[np.float64]], float, int]:
    """Return tile less truth where hot pixels may have left something, its noise elsewhere, and holes."""
    truth, spec = group.truth, group.spec
    near = np.zeros((spec.rows, spec.cols), bool)
    x, y = np.rint(hot_places(group)).astype(int).T
    seen = (x >= 3) & (y >= 3) & (x < spec.cols - 3) & (y < spec.rows - 3)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            near[y[seen] + dy, x[seen] + dx] = True
    rows, cols = np.ogrid[: spec.rows, : spec.cols]
    there, spread, holes = [], [], 0
    for c, plane in planes(tile):
        level, slope_x, slope_y = truth.sky[0, c]
        sky = level + slope_x * (cols - spec.centre[0]) + slope_y * (rows - spec.centre[1])
        stars = make_group.scene(spec, truth, c)
        cover = tile.coverage[c] if tile.coverage.ndim == 3 else tile.coverage
        left = (plane - sky - stars) * np.sqrt(cover / spec.frames)  # fewer samples: noisier, but no fault
        free = stars < 3.0
        free[:8] = free[-8:] = free[:, :8] = free[:, -8:] = False
        holes += int(np.isnan(plane[8:-8, 8:-8]).sum())
        there.append(left[free & near & np.isfinite(plane)])
        away = left[free & ~near & np.isfinite(plane)]
        spread.append(1.4826 * float(np.median(np.abs(away - np.median(away)))))
    return there, float(np.mean(spread)), holes


def report(name: str, spec: make_group.GroupSpec) -> None:
    """Print the figures of one group, without the option and with it."""
    with tempfile.TemporaryDirectory() as folder:
        group = simulate(spec, 6 * spec.noise, Path(folder))
        plain = Options(reference=group.paths[0].name)
        found = found_pixels(group, replace(plain, hot_pixels=True))
        hot = group.truth.hot
        strong, faint = hot > 10 * spec.noise, (hot > 0) & (hot <= 10 * spec.noise)
        print(
            f"{name}, {spec.frames} frames: found {found[strong].mean():.1%} of {strong.sum()} > 10 sigma, "
            f"{found[faint].mean():.1%} of {faint.sum()} from 6 to 10; {(found & (hot == 0)).sum()} others"
        )
        fluxes: list[NDArray[np.float64]] = []
        for options in (plain, replace(plain, hot_pixels=True)):
            tile = build_tile(group.paths, options)
            fluxes.append(star_fluxes(tile, group, hot_places(group)))
            kept = fluxes[-1] / fluxes[0]
            there, noise, holes = residuals(tile, group)
            left = np.concatenate(there)
            full = tile.coverage[..., 60:-60, 60:-60].mean() / spec.frames
            print(
                f"  {'--hot-pixels' if options.hot_pixels else 'without':12} "
                f"stars: {np.median(fluxes[-1]):.2%} of truth, least kept {kept.min():.2%} of {kept.size}; "
                f"coverage {full:.2%}; noise {noise:.2f}; hot places: rms {np.sqrt(np.mean(left**2)):.2f}, "
                f"beyond 6 sigma {(np.abs(left) > 6 * noise).mean():.2e} of {left.size}; NaN {holes}"
            )


@click.command()
@click.option("--rows", type=int, default=540, show_default=True)
@click.option("--cols", type=int, default=720, show_default=True)
@click.option("--hot", type=float, default=4e-4, show_default=True, help="Fraction of hot pixels.")
@click.option("--frames", "counts", type=int, multiple=True, default=(3, 5, 8, 20), show_default=True)
def main(rows: int, cols: int, hot: float, counts: tuple[int, ...]) -> None:
    """Print what is found, kept and left."""
    base = make_group.GroupSpec(
        rows=rows, cols=cols, stars=300, fwhm=(1.8, 1.8), transparency=(1.0, 1.0), hot_pixels=hot,
        nebula=False, trails=0.0, cosmic_rays=0, flux=(5000.0, 1.5e5), seed=5,
    )  # fmt: skip
    for cfa in ("GRBG", None):
        for count in counts:
            report(f"{cfa or 'mono'}, dithered", replace(base, cfa=cfa, frames=count))
        still = replace(base, cfa=cfa, frames=10, dither=0.0, rotation=0.0)
        report(f"{cfa or 'mono'}, not dithered", still)


if __name__ == "__main__":
    main()
