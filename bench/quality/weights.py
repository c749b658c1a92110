"""Measure how much deeper the weights make tiles of groups of mixed quality, beside what theory says.

    python bench/quality/weights.py

Each group holds frames of unequal noise, transparency and FWHM, with bright stars to register by and
faint ones of known flux between them. A tile is seen through the filter that is best for its star
images: the response to the faint stars over the scatter where there are none is the S/N of a star of
flux 1, and its logarithm the depth. Theory takes noise, transparency and FWHM from the truth.
docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from astropy.io import fits
from kernels import FWHM_OF_SIGMA, fitted_fwhm
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.ndimage import map_coordinates
from scipy.signal import fftconvolve

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.options import WEIGHTS
from zmtile.tiles.tile import Tile

Floats = NDArray[np.float64]

SIDE, SPACING, NOISE = 640, 40, 20.0
FAINT = 500.0
# What differs within a group: noise (times NOISE), transparency, FWHM.
GROUPS = {
    "noise 1-3, transparency 0.4-1": ((1.0, 3.0), (0.4, 1.0), (3.0, 3.0)),
    "FWHM 2.5-5": ((1.0, 1.0), (1.0, 1.0), (2.5, 5.0)),
    "all three": ((1.0, 3.0), (0.4, 1.0), (2.5, 5.0)),
}


def field(seed: int) -> tuple[Floats, Floats]:
    """Draw stars: places (n, 2) and flux; four of five are faint, none is near another."""
    rng = np.random.default_rng([seed, 1])
    at = np.arange(SPACING, SIDE - SPACING // 2, SPACING, dtype=np.float64)
    xy = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2) + rng.uniform(-4, 4, (at.size**2, 2))
    flux = np.full(len(xy), FAINT)
    bright = rng.choice(len(xy), len(xy) // 5, replace=False)
    flux[bright] = np.exp(rng.uniform(np.log(3e4), np.log(3e5), bright.size))
    return xy, flux


def write_group(
    folder: Path, frames: int, seed: int, ranges: tuple[tuple[float, float], ...]
) -> tuple[list[Path], Floats, Floats]:
    """Render a group; return its paths, the noise on the scale of transparency 1, and the FWHM."""
    rng = np.random.default_rng([seed, 2])
    noise, clear, fwhm = (rng.uniform(low, high, frames) for low, high in ranges)
    noise *= NOISE
    spec = make_group.GroupSpec(
        frames=frames, rows=SIDE, cols=SIDE, cfa=None, seed=seed, rotation=3.0, dither=6.0, gain=None,
        gradient=30.0, trails=0.0, hot_pixels=0.0, cosmic_rays=0, nebula=False,
    )  # fmt: skip
    xy, flux = field(seed)
    truth = replace(
        make_group.truth_of(spec), x=xy[:, 0], y=xy[:, 1], flux=flux[None], transparency=clear, fwhm=fwhm
    )
    paths = []
    for k in range(frames):
        one = replace(spec, noise=float(noise[k]))
        paths.append(folder / f"light_{k:04d}.fits")
        header = make_group.frame_header(one, truth, k)
        fits.writeto(paths[-1], make_group.render_frame(one, truth, k), header)
    return paths, noise / clear, np.hypot(fwhm, FWHM_OF_SIGMA / 12**0.5)


def power(weight: Floats, noise: Floats, fwhm: Floats) -> float:
    """(S/N)² of a faint star in the weighted mean, but for a constant."""
    overlap = 1 / (fwhm[:, None] ** 2 + fwhm[None] ** 2)
    return float(weight @ overlap @ weight / (weight**2 @ noise**2))


def ideal(kind: str, noise: Floats, fwhm: Floats) -> Floats:
    """Weights as their definition says, from the truth."""
    if kind == "fwhm":
        return np.abs(eigh(1 / (fwhm[:, None] ** 2 + fwhm[None] ** 2), np.diag(noise**2))[1][:, -1])
    return {"none": noise**0, "noise": noise**-2.0, "stars": (noise * fwhm) ** -2.0}[kind]


def depth(tile: Tile, xy: Floats, flux: Floats, fwhm: Floats) -> float:
    """S/N of a star of flux 1 in a tile, seen through the mean of its frames' star images."""
    image = np.ascontiguousarray(tile.image)
    reach = np.arange(-15, 16)
    r2 = reach[:, None] ** 2 + reach[None] ** 2
    weight = np.array([r.weight[0] for r in tile.frames])
    sigma = fwhm / FWHM_OF_SIGMA
    filter_ = sum(w * np.exp(-r2 / (2 * s**2)) / s**2 for w, s in zip(weight, sigma, strict=True))
    bad = ~np.isfinite(image)
    y, x = np.mgrid[:SIDE, :SIDE]
    near = np.zeros(image.shape, bool)
    for (u, v), f in zip(xy, flux, strict=True):
        radius = 14 if f == FAINT else 26  # beyond, the filter sees nothing of it
        box = np.s_[max(int(v) - 26, 0) : int(v) + 27, max(int(u) - 26, 0) : int(u) + 27]
        near[box] |= np.hypot(x[box] - u, y[box] - v) < radius
    # The sky of the simulation is a plane. A mesh between so many stars would add a noise of its own.
    plane = np.stack([np.ones_like(x), x, y], axis=-1) / SIDE
    sky = plane @ np.linalg.lstsq(plane[~(bad | near)], image[~(bad | near)], rcond=None)[0]
    left = np.where(bad, 0, image - sky)
    seen = fftconvolve(left, filter_ / filter_.sum(), mode="same")
    # Within 40 px of the border not every frame has data under all of the filter.
    empty = seen[40:-40, 40:-40][~near[40:-40, 40:-40]]
    inside = ((xy > 40) & (xy < SIDE - 41)).all(axis=1) & (flux == FAINT)
    response = map_coordinates(seen, xy[inside, ::-1].T, order=3).mean() - empty.mean()
    return float(response / FAINT / empty.std())


@click.command(context_settings={"show_default": True})
@click.option("--groups", default=8, help="Of each kind.")
@click.option("--frames", default=12, help="Of each group.")
def main(groups: int, frames: int) -> None:
    """Print the table of gains in depth."""
    print(f"{groups} groups of {frames} frames; magnitudes deeper than equal weights, ± standard error")
    print("group                           weight  reject    measured        theory    FWHM")
    for name, ranges in GROUPS.items():
        measured: dict[tuple[str, str], list[float]] = {}
        theory: dict[str, list[float]] = {}
        widths: dict[tuple[str, str], list[float]] = {}
        for seed in range(groups):
            xy, flux = field(seed)
            with tempfile.TemporaryDirectory() as folder:
                paths, noise, fwhm = write_group(Path(folder), frames, seed, ranges)
                for reject in ("none", "winsor"):
                    depths = {}
                    for kind in WEIGHTS:
                        options = Options(weight=kind, reject=reject, reference=paths[0].name)
                        tile = build_tile(paths, options)
                        if not all(record.used for record in tile.frames):
                            raise SystemExit(f"group {seed}: a frame was left out")
                        depths[kind] = depth(tile, xy, flux, fwhm)
                        wide = fitted_fwhm(tile.image, xy[flux > FAINT])
                        widths.setdefault((kind, reject), []).append(float(np.median(wide)))
                        gain = 2.5 * np.log10(depths[kind] / depths["none"])
                        measured.setdefault((kind, reject), []).append(float(gain))
            for kind in WEIGHTS:
                ratio = power(ideal(kind, noise, fwhm), noise, fwhm) / power(noise**0, noise, fwhm)
                theory.setdefault(kind, []).append(1.25 * float(np.log10(ratio)))
        for (kind, reject), gains in measured.items():
            off = np.subtract(gains, theory[kind])
            error = off.std(ddof=1) / np.sqrt(groups)
            told = f"{name:31s} {kind:7s} {reject:7s} {np.mean(gains):+.3f} ± {error:.3f}"
            print(f"{told}   {np.mean(theory[kind]):+.3f}   {np.mean(widths[kind, reject]):.3f}", flush=True)


if __name__ == "__main__":
    main()
