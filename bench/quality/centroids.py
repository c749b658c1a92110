"""Measure the centroids of detected stars against the truth, beside the Cramér-Rao bound.

    python bench/quality/centroids.py

Frames of lonely stars of one flux each, at random places between the pixels, on noise of the sky and of
the starlight. The bound is that of place and flux together, for the star image integrated over each
pixel; since a grey star gives the same flux to every colour, it holds for the raw samples of a mosaic as
well. S/N is the flux over its own bound. docs/accuracy.md holds the last table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from astropy.io import fits
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.spatial import cKDTree

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile.frames.frame import read_frame
from zmtile.frames.measure import measure

Floats = NDArray[np.float64]

SPACING, SIDE = 32, 1024
NOISE, GAIN, SKY = 45.0, 1.0, 900.0
STAMP = 31


def image_of(x: float, y: float, fwhm: float, beta: float | None) -> Floats:
    """Return a star of flux 1, (STAMP, STAMP), at a place relative to the middle pixel."""
    middle = STAMP // 2
    place = np.array([middle + x]), np.array([middle + y])
    one = make_group._starlight(*place, np.ones((1, 1)), (STAMP, STAMP), fwhm, beta)[0]
    return one.astype(np.float64)


def bounds(flux: float, fwhm: float, beta: float | None) -> tuple[float, float]:
    """Cramér-Rao bounds of x (px) and of the flux (ADU), mean over places between the pixels."""
    places = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 2))
    step, found = 0.02, []
    for x, y in places:
        image = image_of(x, y, fwhm, beta)
        slopes = [
            flux * (image_of(x + step, y, fwhm, beta) - image_of(x - step, y, fwhm, beta)) / (2 * step),
            flux * (image_of(x, y + step, fwhm, beta) - image_of(x, y - step, fwhm, beta)) / (2 * step),
            image,
        ]
        variance = NOISE**2 + flux * image / GAIN
        information = [[float((a * b / variance).sum()) for a in slopes] for b in slopes]
        found.append(np.diag(np.linalg.inv(information)))
    x, y, of_flux = np.mean(found, axis=0)
    return float(np.sqrt((x + y) / 2)), float(np.sqrt(of_flux))


def flux_for(snr: float, fwhm: float, beta: float | None) -> float:
    """Flux of a star of this S/N."""

    def excess(log_flux: float) -> float:
        flux = float(np.exp(log_flux))
        return flux / bounds(flux, fwhm, beta)[1] - snr

    return float(np.exp(brentq(excess, np.log(100.0), np.log(1e8), rtol=1e-4)))


def frame_of(flux: float, fwhm: float, beta: float | None, seed: int) -> tuple[NDArray[np.float32], Floats]:
    """Render a frame of stars of one flux; return it and their places, (n, 2)."""
    rng = np.random.default_rng(seed)
    at = np.arange(SPACING, SIDE - SPACING // 2, SPACING, dtype=np.float64)
    xy = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    xy += rng.uniform(-0.5, 0.5, xy.shape)
    light = make_group._starlight(*xy.T, np.full((1, len(xy)), flux), (SIDE, SIDE), fwhm, beta)[0]
    noise = np.sqrt(NOISE**2 + light / GAIN) * rng.standard_normal(light.shape, np.float32)
    return (SKY + light + noise).astype(np.float32), xy


@click.command(context_settings={"show_default": True})
@click.option("--frames", default=2, help="Of each kind, about 900 stars each.")
@click.option("--fwhm", "widths", type=float, multiple=True, default=(2.2, 3.0, 4.5))
def main(frames: int, widths: tuple[float, ...]) -> None:
    """Print the table of centroid errors."""
    print("                        S/N     flux   found     bound     rms   ratio   pull")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stars.fits"
        for cfa in (None, "GRBG"):
            header = fits.Header({"BAYERPAT": cfa} if cfa else {})
            for beta in (None, 3.5):
                for fwhm in widths:
                    for snr in (10, 30, 100, 1000):
                        flux = flux_for(snr, fwhm, beta)
                        errors, told, count = [], [], 0
                        for seed in range(frames):
                            pixels, xy = frame_of(flux, fwhm, beta, seed)
                            fits.writeto(path, pixels, header, overwrite=True)
                            stars = measure(read_frame(path)).stars
                            distance, nearest = cKDTree(xy).query(stars.xy)
                            real = distance < 1.5
                            errors.append((stars.xy - xy[nearest])[real])
                            told.append(stars.error[real])
                            count += len(xy)
                        error, sigma = np.concatenate(errors), np.concatenate(told)
                        if len(error) < 50:
                            continue
                        rms, bound = float(np.sqrt((error**2).mean())), bounds(flux, fwhm, beta)[0]
                        pull = float(np.sqrt((error**2 / sigma[:, None] ** 2).mean()))
                        kind = f"{cfa or 'mono':5s}{'Moffat' if beta else 'Gauss':7s}FWHM {fwhm}"
                        print(
                            f"{kind:20s} {snr:6d} {flux:8.0f}  {len(error) / count:6.1%}  {bound:8.4f}"
                            f"{rms:8.4f}  {rms / bound:6.3f} {pull:6.2f}",
                            flush=True,
                        )


if __name__ == "__main__":
    main()
