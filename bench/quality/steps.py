"""Measure the steps that the edges of footprints leave in the background of simulated tiles.

    python bench/quality/steps.py --frames 60

The group has sky gradients in random directions, red the strongest, and 8° of rotation. The residual of a
tile is what remains of it without the true stars, the true nebula and the plane that fits the rest where
all frames are (with ``--bend`` a surface of degree 2: the reference keeps its own sky). Its mean is
taken, free of stars, on every level of coverage, neighbouring levels together until the mean is known to
0.04 sigma. The step is the range of these means in sigma of a pixel at full coverage. ``floor`` stacks
frames whose true skies were taken off and whose transparency was undone, ``filler`` the frames of
``both`` with their median where they have no data. docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

import zmtile.stacking.stack
from zmtile import Options, build_tile
from zmtile.frames.pixels import open_pixels
from zmtile.matching.skysurface import surface_terms
from zmtile.tiles.tile import Tile

# The choices of each row, and whether they bring stars and nebula to the reference's brightness.
ROWS: dict[str, tuple[dict[str, Any], bool]] = {
    "none": ({"normalize": "none"}, False),
    "offset": ({"normalize": "offset"}, False),
    "both": ({"normalize": "both"}, True),
    "surface 1": ({"normalize": "surface", "sky_degree": 1}, True),
    "surface 2": ({"normalize": "surface", "sky_degree": 2}, True),
    "floor": ({"normalize": "none"}, True),
    "filler": ({"normalize": "both"}, True),
}
ERROR = 0.04  # of a level's mean, sigma of a pixel
STARLIGHT = 0.3  # ADU of a star's wing that a pixel free of stars may hold
Image = NDArray[np.float32]


def levels(coverage: NDArray[np.int64], residual: Image, sigma: float) -> list[tuple[int, int, float]]:
    """Return lowest and highest coverage and the mean residual of each level, from the lowest up."""
    order = np.argsort(coverage, kind="stable")
    values = residual[order].astype(np.float64)
    found: list[tuple[int, int, float]] = []
    start, low = 0, int(coverage.min())
    for cover, end in enumerate(np.cumsum(np.bincount(coverage))):
        part = values[start:end]
        if part.size > 1 and 2 * part.std(ddof=1) / np.sqrt(part.size) < ERROR * sigma:
            found.append((low, cover, float(part.mean())))
            start, low = int(end), cover + 1
    return found


def step(
    residual: Image, coverage: NDArray[np.int64], free: NDArray[np.bool_], degree: int
) -> tuple[float, float]:
    """Return the step in sigma, and sigma at full coverage, of a residual (rows, cols)."""
    full = free & (coverage == coverage.max())
    rows, cols = residual.shape
    y, x = np.mgrid[:rows, :cols]
    terms = surface_terms(np.column_stack([x.ravel(), y.ravel()]).astype(np.float64), rows, cols, degree)
    sky = np.linalg.lstsq(terms[full.ravel()], residual[full].astype(np.float64), rcond=None)[0]
    flat = (residual - (terms @ sky).reshape(rows, cols)).astype(np.float32)
    sigma = float(flat[full].std())
    means = [mean for _, _, mean in levels(coverage[free], flat[free], sigma)]
    return (max(means) - min(means)) / sigma, sigma


def steps(
    image: Image,
    coverage: NDArray[np.int64],
    origin: tuple[int, int],
    spec: make_group.GroupSpec,
    truth: make_group.Truth,
    transparency: float,
    degree: int,
) -> dict[str, tuple[float, float]]:
    """Return step and sigma of luminance and of the colours of a tile (3, rows, cols) on frame 0's grid."""
    _, rows, cols = image.shape
    dark = replace(spec, nebula=False)
    free = (coverage > 0) & np.isfinite(image).all(axis=0)
    left = np.empty_like(image)
    for c in range(3):
        scene = make_group.scene(spec, truth, c, origin, (rows, cols))
        wide = make_group.scene(dark, truth, c, origin, (rows, cols), fwhm=1.15 * spec.fwhm[1])
        free &= wide < STARLIGHT
        left[c] = image[c] - np.float32(transparency) * scene
    planes = {"luminance": left.mean(axis=0), "R-G": left[0] - left[1], "B-G": left[2] - left[1]}
    return {name: step(plane, coverage, free, degree) for name, plane in planes.items()}


@contextmanager
def filler() -> Iterator[None]:
    """Let every frame have its median, over all channels, where it has no data."""
    warp, bounds_of = zmtile.stacking.stack.warp, zmtile.stacking.stack.bounds_of
    known: dict[str, float] = {}

    def everywhere(sources, block):  # type: ignore[no-untyped-def]
        parts = bounds_of(sources, block)
        return [part if part[2] > 0 and part[3] > 0 else (0, 0, 1, 1) for part in parts]

    def filled(pixels, source, block, out, *_):  # type: ignore[no-untyped-def]
        warp(pixels, source, block, out)
        if source.frame.name not in known:
            known[source.frame.name] = float(np.median(open_pixels(source.frame).whole()))
        for c, plane in enumerate(out):  # filled before it is matched, as aligners do
            plane[np.isnan(plane)] = known[source.frame.name] * source.scale[c] + source.surface[c, 0]

    with (
        patch("zmtile.stacking.stack.warp", filled),
        patch("zmtile.stacking.stack.bounds_of", everywhere),
        patch("zmtile.stacking.stack.together", lambda *_: False),
    ):
        yield


def bend(spec: make_group.GroupSpec, k: int, size: float) -> NDArray[np.float64]:
    """Return a parabola along a direction of frame k's own, `size` ADU at the ends of its longer side."""
    rng = np.random.default_rng([spec.seed, 99, k])
    angle, strength = rng.uniform(0, np.pi), size * rng.uniform(-1, 1)
    (xc, yc), (row, col) = spec.centre, np.ogrid[: spec.rows, : spec.cols]
    along = ((col - xc) * np.cos(angle) + (row - yc) * np.sin(angle)) / (max(spec.rows, spec.cols) / 2)
    parabola: NDArray[np.float64] = strength * along**2
    return parabola


def write_group(spec: make_group.GroupSpec, folder: Path, size: float) -> list[Path]:
    """Write a group whose skies bend by up to `size` ADU, red the strongest as the gradients are."""
    paths = make_group.write_group(spec, folder)
    for k, path in enumerate(paths):
        with fits.open(path, mode="update") as hdus:
            sky = in_colours(spec, [c * bend(spec, k, size) for c in make_group.SKY_COLOUR])
            hdus[0].data = np.clip(np.rint(hdus[0].data + sky), 0, 65535).astype(np.uint16)
    return paths


def in_colours(spec: make_group.GroupSpec, planes: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mosaic of three planes."""
    mosaic = np.empty((spec.rows, spec.cols))
    for i, colour in enumerate(spec.cfa or ""):
        site = np.s_[i // 2 :: 2, i % 2 :: 2]
        mosaic[site] = planes["RGB".index(colour)][site]
    return mosaic


def without_sky(
    paths: list[Path], spec: make_group.GroupSpec, truth: make_group.Truth, size: float, folder: Path
) -> list[Path]:
    """Write the frames less their true skies, over their transparency, into a folder."""
    (xc, yc), (row, col) = spec.centre, np.ogrid[: spec.rows, : spec.cols]
    for k, path in enumerate(paths):
        skies = [
            level + slope_x * (col - xc) + slope_y * (row - yc) + colour * bend(spec, k, size)
            for colour, (level, slope_x, slope_y) in zip(make_group.SKY_COLOUR, truth.sky[k], strict=True)
        ]
        with fits.open(path) as hdus:
            data = (hdus[0].data - in_colours(spec, skies)) / truth.transparency[k]
            header = hdus[0].header.copy()
        for key in ("BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        fits.writeto(folder / path.name, data.astype(np.float32), header)
    return [folder / path.name for path in paths]


def tile_of(row: str, paths: list[Path], framing: str) -> Tile:
    """Return the tile of a row of the table."""
    options = Options(reference=paths[0].name, framing=framing, **ROWS[row][0])
    with filler() if row == "filler" else nullcontext():
        return build_tile(paths, options)


@click.command(context_settings={"show_default": True})
@click.option("--frames", "count", type=int, default=60)
@click.option("--rows", type=int, default=1080)
@click.option("--cols", type=int, default=1920)
@click.option("--stars", type=int, default=800)
@click.option("--fwhm", nargs=2, type=float, default=make_group.GroupSpec.fwhm, help="Bounds of the seeing.")
@click.option("--bend", "size", type=float, default=0.0, help="ADU by which skies bend, beside gradients.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(1,))
@click.option("--framing", type=click.Choice(("reference", "union")), default="reference")
@click.option("--min-coverage", type=int, default=1, help="Levels below are left out of account.")
@click.option("--row", "chosen", type=click.Choice(tuple(ROWS)), multiple=True, default=tuple(ROWS))
def main(
    count: int,
    rows: int,
    cols: int,
    stars: int,
    fwhm: tuple[float, float],
    size: float,
    seeds: tuple[int, ...],
    framing: str,
    min_coverage: int,
    chosen: tuple[str, ...],
) -> None:
    """Print steps in luminance and colour, in sigma."""
    for seed in seeds:
        spec = make_group.GroupSpec(
            frames=count, rows=rows, cols=cols, stars=stars, seed=seed, fwhm=fwhm, rotation=8.0
        )
        truth = make_group.truth_of(spec)
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_group(spec, Path(scratch), size)
            (bare := Path(scratch) / "bare").mkdir()
            for row in sorted(chosen, key=list(ROWS).index):
                files = without_sky(paths, spec, truth, size, bare) if row == "floor" else paths
                tile = tile_of(row, files, framing)
                if row != "filler" or row == chosen[0]:  # it covers all; its levels are those of the others
                    coverage = tile.coverage[1].astype(np.int64)
                transparency = 1.0 if ROWS[row][1] else float(truth.transparency.mean())
                seen = np.where(coverage >= min_coverage, coverage, 0)
                origin = tile.header["ZMT_X0"], tile.header["ZMT_Y0"]
                found = steps(tile.image, seen, origin, spec, truth, transparency, 2 if size else 1)
                told = "   ".join(f"{name} {step:5.2f}" for name, (step, _) in found.items())
                print(f"seed {seed}  {row:10s} {told}   (sigma {found['luminance'][1]:.2f} ADU)", flush=True)


if __name__ == "__main__":
    main()
