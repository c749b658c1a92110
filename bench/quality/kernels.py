"""Measure the interpolation kernels: noise, sharpness, ringing, flux; and tiles beside those of Siril.

    python bench/quality/kernels.py
    python bench/quality/kernels.py --siril "$(command -v siril-cli)"

First each kernel alone, on one simulated frame. Then a group of 20 mosaic frames through the whole
build, once as it is and once demosaiced bilinearly beforehand, to tell what of the blur and noise is
the demosaic's. With `--siril`, which expects
version 1.0, the same group is stacked by it, and measured by the same code. docs/accuracy.md holds the
last tables.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import sep
from astropy.io import fits
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, convolve
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

from zmtile import Options, build_tile
from zmtile.kernels.tables import span_of
from zmtile.kernels.warp import warp_block
from zmtile.options import KERNELS

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

FWHM_OF_SIGMA = 2.3548
SIDE, SPACING = 480, 40  # of the frame of stars, px
TURNS = (3, 20, 45)  # degrees
# Other programs on a group of 20 frames of FWHM 3.0: FWHM and noise of G in the result.
PEERS = {"Siril 1.4.4, Lanczos-4": (3.19, 4.30), "Siril 1.0.6": (3.39, 3.31), "nightlight": (3.57, 3.09)}
ANCHOR = "Siril 1.0.6"


def warped(image: Image, matrix: Floats, shape: tuple[int, int], kernel: str, clamp: bool) -> Image:
    """Sample an image on a grid whose pixels the matrix maps into it; keeps the flux."""
    out = np.empty((1, *shape), np.float32)
    area = np.float32(abs(np.linalg.det(matrix[:, :2])))
    warp_block(
        np.ascontiguousarray(image[None]),
        *(0, 0, matrix, 0, 0, kernel, clamp),
        np.array([area], np.float32),
        np.zeros((1, 6)),
        (0.0, 0.0),
        1.0,
        out,
        span=span_of(1 / float(area) ** 0.5),
    )
    return out[0]


def stars(fwhm: float, seed: int = 1) -> tuple[Image, Floats]:
    """Draw lonely stars of flux 1e5, at random places between the pixels; return their places too, (n, 2)."""
    at = np.arange(SPACING, SIDE - SPACING // 2, SPACING, dtype=np.float64)
    xy = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    xy += np.random.default_rng(seed).uniform(-0.5, 0.5, xy.shape)
    image = make_group._starlight(*xy.T, np.full((1, len(xy)), 1e5), (SIDE, SIDE), fwhm, None)[0]
    return image, xy


def turned(degrees: float, scale: float = 1.0) -> Floats:
    """Tile pixel → frame pixel about the middle; `scale` frame pixels are one of the tile."""
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    linear = np.array([[c, -s], [s, c]])
    middle = np.full(2, (SIDE - 1) / 2)
    return np.column_stack([linear, middle - linear @ (middle / scale)])


def fitted_fwhm(image: Image, xy: Floats, half: int = 9) -> Floats:
    """FWHM of a round Gaussian fitted at each place that lies inside."""
    rows, cols = image.shape
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    found = []
    for place in xy:
        cx, cy = np.rint(place).astype(int)
        if not (half <= cx < cols - half and half <= cy < rows - half):
            continue
        box = image[cy - half : cy + half + 1, cx - half : cx + half + 1].astype(np.float64)
        if not np.isfinite(box).all():
            continue

        def misfit(p: Floats, box: Floats = box) -> Floats:
            gauss = p[0] * np.exp(-((x - p[1]) ** 2 + (y - p[2]) ** 2) / (2 * p[3] ** 2)) + p[4]
            return np.ravel(gauss - box)

        start = [box.max(), *(place - [cx, cy]), 1.3, 0.0]
        found.append(FWHM_OF_SIGMA * abs(least_squares(misfit, start).x[3]))
    return np.array(found)


def noise_gain(kernel: str, clamp: bool) -> tuple[float, float]:
    """Sigma of white noise after the warp over that before, and the shift of its mean in sigma."""
    noise = np.random.default_rng(2).standard_normal((SIDE, SIDE), np.float32)
    out = warped(noise, turned(3.0), (SIDE, SIDE), kernel, clamp)
    out = out[np.isfinite(out)]
    return float(out.std()), float(out.mean() - noise.mean())


def undershoot(kernel: str, clamp: bool, fwhm: float | None) -> float:
    """Deepest value below the sky, in % of the peak; of a star, or of one hot pixel."""
    image, _ = stars(fwhm) if fwhm else (np.zeros((SIDE, SIDE), np.float32), None)
    if not fwhm:
        image[SPACING :: 2 * SPACING, SPACING :: 2 * SPACING] = 1.0
    out = warped(image, turned(3.0), (SIDE, SIDE), kernel, clamp)
    return max(0.0, -100.0 * float(np.nanmin(out)) / float(image.max()))


def flux_error(kernel: str, clamp: bool, fwhm: float, scale: float, degrees: float = 3.0) -> Floats:
    """Flux of each star after a change of scale over its true flux, less 1; (n,)."""
    image, xy = stars(fwhm)
    size = round(SIDE / scale)
    matrix = turned(degrees, scale)
    out = warped(image, matrix, (size, size), kernel, clamp)
    there = (xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    radius = 0.45 * SPACING / scale
    inside = ((there > radius + 3) & (there < size - radius - 4)).all(axis=1)
    y, x = np.ogrid[:size, :size]
    fluxes = [
        out[np.hypot(x - u, y - v) < radius].sum(dtype=np.float64) for u, v in there[inside]
    ]  # of nothing else: the frame has no sky
    return np.array(fluxes) / 1e5 - 1.0


def print_kernels() -> None:
    """Print what each kernel does to one frame."""
    start = {fwhm: np.median(fitted_fwhm(*stars(fwhm))) for fwhm in (1.8, 3.0)}
    print("frame turned by 3 degrees, so that all places between the pixels occur")
    print("kernel               noise  sky bias  FWHM 1.8 FWHM 3.0   below the sky, % of the peak")
    print("                                      (fit, px)           star 1.8  star 3.0  hot pixel")
    print(f"none                  1.000  +0.000   {start[1.8]:7.3f} {start[3.0]:8.3f}")
    for kernel, clamp in choices():
        gain, bias = noise_gain(kernel, clamp)
        widths = []
        for fwhm in start:
            image, xy = stars(fwhm)
            matrix = turned(3.0)
            there = (xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
            widths.append(np.median(fitted_fwhm(warped(image, matrix, image.shape, kernel, clamp), there)))
        rings = [undershoot(kernel, clamp, fwhm) for fwhm in (1.8, 3.0, None)]
        print(
            f"{named(kernel, clamp):20s} {gain:6.3f}  {bias:+.3f}   {widths[0]:7.3f} {widths[1]:8.3f}"
            f"   {rings[0]:8.2f}  {rings[1]:8.2f}  {rings[2]:8.2f}"
        )
    print("\nflux after a change of scale, error in %: mean, and scatter from star to star")
    scales = (0.5, 0.8, 1.0, 1.25, 2.0)
    print("kernel               FWHM " + "".join(f"{f'x {scale}':>17s}" for scale in scales))
    for kernel, clamp in choices():
        for fwhm in start:
            # A tile with pixels half as large shows the frame twice as large.
            errors = [100 * flux_error(kernel, clamp, fwhm, 1 / scale) for scale in scales]
            told = "".join(f"   {e.mean():+7.3f} {e.std():6.3f}" for e in errors)
            print(f"{named(kernel, clamp):20s} {fwhm:4.1f} {told}")
    print("\nframes with finer pixels than the tile: noise of a tile pixel over that of independent pixels")
    print(
        "of the frame in its area; FWHM (fit) of a star of 3.0, px of the frame; worst error of the flux, %"
    )
    print("kernel                 tile    noise    FWHM" + "".join(
        f"   star {fwhm}:" + "".join(f"{f'{turn}°':>7s}" for turn in TURNS) for fwhm in (2.0, 3.0)
    ))  # fmt: skip
    for kernel, clamp in choices():
        for scale in (0.5, 0.8):
            gain, width = coarser(kernel, clamp, 1 / scale)
            told = ""
            for fwhm in (2.0, 3.0):
                worst = [
                    100 * np.abs(flux_error(kernel, clamp, fwhm, 1 / scale, turn)).max() for turn in TURNS
                ]
                told += "            " + "".join(f"{e:7.2f}" for e in worst)
            print(f"{named(kernel, clamp):20s} x {scale:4.1f}  {gain:7.3f} {width:7.2f}{told}")


def coarser(kernel: str, clamp: bool, scale: float) -> tuple[float, float]:
    """Noise and FWHM after a change to pixels that are `scale` pixels of the frame wide, as printed."""
    size, matrix = round(SIDE / scale), turned(3.0, scale)
    noise = np.random.default_rng(2).standard_normal((SIDE, SIDE), np.float32)
    out = warped(noise, matrix, (size, size), kernel, clamp)
    image, xy = stars(3.0)
    there = (xy - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    widths = fitted_fwhm(warped(image, matrix, (size, size), kernel, clamp), there, round(9 / scale))
    return float(np.nanstd(out)) / scale, scale * float(np.median(widths))


def choices() -> list[tuple[str, bool]]:
    """Kernels with and without clamping; bilinear has nothing to clamp."""
    return [(k, clamp) for k in KERNELS for clamp in (True, False) if clamp or k != "bilinear"]


def named(kernel: str, clamp: bool) -> str:
    """Name of a row."""
    return kernel if clamp else f"{kernel}, no clamp"


def sharpness_and_noise(plane: Image) -> tuple[float, float]:
    """Median FWHM of up to 60 lonely stars (Gaussian fit, px), and sigma of the sky free of stars."""
    image = np.ascontiguousarray(plane[24:-24, 24:-24], np.float32)
    image = np.where(np.isfinite(image), image, np.nanmedian(image)).astype(np.float32)
    background = sep.Background(image, bw=64, bh=64)
    image -= background.back()
    _, segments = sep.extract(image, 2.0, err=background.globalrms, minarea=4, segmentation_map=True)
    sky = image[~binary_dilation(segments > 0, iterations=6)].astype(np.float64)
    for _ in range(5):
        sky = sky[np.abs(sky - sky.mean()) < 4 * sky.std()]
    found = sep.extract(image, 10.0, err=background.globalrms, minarea=5)
    found = found[np.argsort(-found["flux"])]
    away = np.hypot(
        found["x"][:, None] - found["x"][None], found["y"][:, None] - found["y"][None]
    ) + 99 * np.eye(len(found))
    lonely = found[(away.min(axis=1) > 18) & (found["peak"] < 30000)][:60]
    return float(np.median(fitted_fwhm(image, np.column_stack([lonely["x"], lonely["y"]])))), float(sky.std())


def bilinear(mosaic: Image, cfa: str) -> Image:
    """Demosaic by the mean of the nearest samples of each colour; (3, rows, cols)."""
    square = np.outer([0.5, 1.0, 0.5], [0.5, 1.0, 0.5])
    cross = np.array([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]])
    colour = np.tile(
        np.array(["RGB".index(c) for c in cfa]).reshape(2, 2), (mosaic.shape[0] // 2, mosaic.shape[1] // 2)
    )
    return np.stack(
        [
            convolve(np.where(colour == c, mosaic, 0.0), weights, mode="mirror")
            for c, weights in enumerate((square, cross, square))
        ]
    ).astype(np.float32)


def remade(paths: list[Path], folder: Path, change: Callable[[Image], Image]) -> list[Path]:
    """Write frames with changed pixels, as colour or mono frames."""
    folder.mkdir()
    for path in paths:
        header, pixels = fits.getheader(path), fits.getdata(path).astype(np.float32)
        for key in ("BAYERPAT", "XBAYROFF", "YBAYROFF", "BZERO", "BSCALE"):
            header.remove(key, ignore_missing=True)
        fits.writeto(folder / path.name, change(pixels), header)
    return [folder / path.name for path in paths]


def siril_tile(program: str, paths: list[Path], folder: Path) -> Image:
    """G of the group stacked by Siril 1.0 with its own choices, in ADU."""
    folder.mkdir()
    for path in paths:
        shutil.copy(path, folder)
    script = folder / "stack.ssf"
    script.write_text(
        f"requires 1.0.0\ncd {folder}\nconvert light -debayer -out=./process\ncd process\n"
        "register light\nstack r_light rej 3 3 -norm=addscale -out=../result\n"
    )
    subprocess.run([program, "-s", str(script)], check=True, capture_output=True)
    (made,) = folder.glob("result.fit*")
    return np.asarray(fits.getdata(made)[1], np.float32) * 65535


def bound(fwhm: float, anchor: tuple[float, float]) -> float:
    """Noise on the line through the other programs at a FWHM, in this group's units; ends run on."""
    scale = [here / there for here, there in zip(anchor, PEERS[ANCHOR], strict=True)]
    points = sorted((f * scale[0], n * scale[1]) for f, n in PEERS.values())
    left, right = points[:2] if fwhm < points[1][0] else points[1:]
    return left[1] + (right[1] - left[1]) * (fwhm - left[0]) / (right[0] - left[0])


@click.command(context_settings={"show_default": True})
@click.option("--rows", default=540)
@click.option("--cols", default=960)
@click.option("--frames", default=20)
@click.option("--seed", default=3)
@click.option("--siril", help="siril-cli, version 1.0, to stack the same group with.")
def main(rows: int, cols: int, frames: int, seed: int, siril: str | None) -> None:
    """Print the tables of the kernels."""
    print_kernels()
    spec = make_group.GroupSpec(
        frames=frames, rows=rows, cols=cols, stars=300, seed=seed, fwhm=(2.72, 3.38), transparency=(1.0, 1.0),
        gradient=0.0, trails=0.0, cosmic_rays=0, hot_pixels=0.0, nebula=False,
    )  # fmt: skip
    widths = np.hypot(make_group.truth_of(spec).fwhm, FWHM_OF_SIGMA / 12**0.5)
    print(f"\n{frames} frames, FWHM {widths.min():.2f} to {widths.max():.2f}, median {np.median(widths):.2f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_group.write_group(spec, folder / "group")
        anchor = None
        if siril:
            anchor = sharpness_and_noise(siril_tile(siril, paths, folder / "siril"))
            print(f"{'Siril':36s} FWHM {anchor[0]:.3f} noise {anchor[1]:.3f}")
        cubes = remade(paths, folder / "cubes", lambda pixels: bilinear(pixels, str(spec.cfa)))
        for label, group in (("", paths), (", bilinear demosaic", cubes)):
            for kernel, clamp in choices():
                tile = build_tile(group, Options(kernel=kernel, clamp=clamp))
                fwhm, noise = sharpness_and_noise(tile.image[1])
                told = f"{named(kernel, clamp) + label:36s} FWHM {fwhm:.3f} noise {noise:.3f}"
                if anchor:
                    limit = bound(fwhm, anchor)
                    told += f"  line {limit:.3f}, {100 * (noise / limit - 1):+.1f} %"
                print(told, flush=True)


if __name__ == "__main__":
    main()
