"""Measure `--cfa direct` against demosaicing: sharpness, colour at the edges of stars, noise, rejection.

    python bench/quality/cfa.py

Small simulated GRBG groups of 15 to 200 dithered frames, without anything to reject. docs/accuracy.md
holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.tiles.tile import Tile

MARGIN = 40  # px: every frame covers what lies further inside
HALF = 7  # px: half of the box around a star
EDGE = (0.6, 1.4)  # of the FWHM: the ring about a star where colour fringes show


@dataclass(frozen=True)
class Figures:
    """What one tile shows; each number is a mean of the channels unless it says otherwise."""

    fwhm: float  # px
    colour: float  # rms of R/B against G in the ring of bright stars, % of their peak
    noise: float  # ADU of a pixel
    smooth: float  # ADU of a pixel, from means of 8×8: what averaging leaves, so without correlation
    flux: float  # % of the truth, median
    star_rejected: float  # % of samples, in bright stars
    sky_rejected: float  # %, elsewhere
    empty: float  # % of the samples of the tile that are NaN
    coverage: float  # mean number of samples, % of the frames


def lonely_stars(spec: make_group.GroupSpec, truth: make_group.Truth) -> NDArray[np.intp]:
    """Return the bright stars that no other comes near."""
    xy = np.column_stack([truth.x, truth.y])
    inside = (np.abs(xy - spec.centre) < spec.centre - MARGIN).all(axis=1)
    chosen = []
    for s in np.flatnonzero(inside & (truth.flux[1] > 4e4)):
        distance = np.hypot(*(xy - xy[s]).T)
        distance[s] = np.inf
        if truth.flux[1][distance < 15].sum() < 0.003 * truth.flux[1][s]:
            chosen.append(s)
    return np.array(chosen, np.intp)


def above_sky(tile: Tile, spec: make_group.GroupSpec, truth: make_group.Truth) -> NDArray[np.float64]:
    """Return the tile less the sky of the reference, (3, rows, cols)."""
    rows, cols = np.ogrid[: spec.rows, : spec.cols]
    left = np.empty(tile.image.shape)
    for c, (level, slope_x, slope_y) in enumerate(truth.sky[0]):
        sky = level + slope_x * (cols - spec.centre[0]) + slope_y * (rows - spec.centre[1])
        left[c] = tile.image[c] - sky
    return left


def fitted(
    box: NDArray[np.float64], dx: NDArray[np.float64], dy: NDArray[np.float64], fwhm: float
) -> tuple[float, float]:
    """Return FWHM and flux of a round Gaussian fitted to the finite pixels of a box."""
    good = np.isfinite(box)

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        flux, x, y, sigma, floor = p
        model = flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((dx - x) ** 2 + (dy - y) ** 2) / sigma**2)
        return (model + floor - box)[good]

    start = [float(np.nansum(box)), 0.0, 0.0, fwhm / 2.3548, 0.0]
    flux, _, _, sigma, _ = least_squares(residual, start, x_scale=[start[0], 1, 1, 1, 100]).x
    return 2.3548 * abs(sigma), flux


def measure(tile: Tile, spec: make_group.GroupSpec, truth: make_group.Truth) -> Figures:
    """Return the figures of a tile."""
    left = above_sky(tile, spec, truth)
    seeing = float(truth.fwhm.mean())
    widths, ratios, colours = [], [], []
    near = np.zeros(left.shape[1:], bool)
    for s in lonely_stars(spec, truth):
        x, y = int(np.rint(truth.x[s])), int(np.rint(truth.y[s]))
        at = np.s_[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1]
        dy, dx = np.mgrid[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1].astype(float)
        dx -= truth.x[s]
        dy -= truth.y[s]
        distance = np.hypot(dx, dy)
        near[at] |= distance < seeing
        ring = (distance > EDGE[0] * seeing) & (distance < EDGE[1] * seeing)
        unit = [left[c][at] / truth.flux[c][s] for c in range(3)]  # equal in all channels, if all is well
        peak = np.nanmax(unit[1])
        for c in range(3):
            width, flux = fitted(left[c][at], dx, dy, seeing)
            widths.append(width)
            ratios.append(flux / truth.flux[c][s])
            if c != 1:
                colours.append((unit[c] - unit[1])[ring] / peak)
    inner = np.zeros_like(near)
    inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
    stars = sum(make_group.scene(spec, truth, c) for c in range(3))
    free = inner & (stars < 1.0)
    noise, smooth = [], []
    for plane in left:
        values = np.where(free, plane, np.nan)
        noise.append(1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values))))
        rows, cols = (n // 8 * 8 for n in values.shape)
        cells = values[:rows, :cols].reshape(rows // 8, 8, cols // 8, 8)
        whole = np.isfinite(cells).mean(axis=(1, 3)) > 0.98
        means = np.nanmean(cells.transpose(0, 2, 1, 3)[whole], axis=(1, 2))
        smooth.append(8 * 1.4826 * np.median(np.abs(means - np.median(means))))
    rejected = (tile.rejlow.astype(float) + tile.rejhigh).sum(axis=0)
    cover = tile.coverage.sum(axis=0, dtype=float)
    rings = np.concatenate([c.ravel() for c in colours])
    return Figures(
        fwhm=float(np.median(widths)),
        colour=100 * float(np.sqrt(np.nanmean(rings**2))),
        noise=float(np.mean(noise)),
        smooth=float(np.mean(smooth)),
        flux=100 * float(np.median(ratios)),
        star_rejected=100 * float(rejected[near].sum() / cover[near].sum()),
        sky_rejected=100 * float(rejected[free].sum() / cover[free].sum()),
        empty=100 * float(np.isnan(tile.image[:, inner]).mean()),
        coverage=100 * float(tile.coverage[:, inner].mean() / spec.frames),
    )


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(15, 30, 60, 200), show_default=True)
@click.option(
    "--fwhm", nargs=2, type=float, default=(2.2, 2.6), show_default=True, help="Bounds of the seeing."
)
@click.option("--rows", type=int, default=270, show_default=True)
@click.option("--cols", type=int, default=480, show_default=True)
@click.option("--reject", default="winsor", show_default=True)
@click.option("--kappa", nargs=2, type=float, default=(3.0, 3.0), show_default=True)
@click.option("--seed", type=int, default=3, show_default=True)
def main(
    counts: tuple[int, ...],
    fwhm: tuple[float, float],
    rows: int,
    cols: int,
    reject: str,
    kappa: tuple[float, float],
    seed: int,
) -> None:
    """Print both ways side by side."""
    for count in counts:
        spec = make_group.GroupSpec(
            frames=count, rows=rows, cols=cols, stars=150, flux=(3000.0, 2e5), fwhm=fwhm, seed=seed,
            trails=0.0, hot_pixels=0.0, cosmic_rays=0, nebula=False,
        )  # fmt: skip
        truth = make_group.truth_of(spec)
        with tempfile.TemporaryDirectory() as folder:
            paths = make_group.write_group(spec, Path(folder))
            for cfa in ("demosaic", "direct"):
                tile = build_tile(
                    paths, Options(reference=paths[0].name, cfa=cfa, reject=reject, kappa=kappa)
                )
                f = measure(tile, spec, truth)
                print(
                    f"{count:4} frames, {cfa:8}  FWHM {f.fwhm:.3f} (seeing {truth.fwhm.mean():.3f})  "
                    f"colour {f.colour:.2f} %  noise {f.noise:.2f}, of 8×8 {f.smooth:.2f}  "
                    f"flux {f.flux:.2f} %  rejected in stars {f.star_rejected:.2f} %, "
                    f"sky {f.sky_rejected:.2f} %  empty {f.empty:.3f} %  coverage {f.coverage:.1f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
