"""Make the pictures of the docs from a simulated group: ``python docs/make_pictures.py`` or ``make docs``.

``before_after.png`` shows the same frames under the same transforms, stacked in two ways: with a fill
value outside of each frame, as is common, and with zmtile, where there is no data outside of a frame.
``planes.png`` shows the planes of zmtile's tile, ``report.png`` the upper part of the page that
`zmtile report` makes of it, as Chromium shows it. ``mosaic_plain.jpg`` and ``mosaic.jpg`` show two tiles
that are added up as they are, and joined by ``examples/mosaic``. All random numbers have a fixed seed.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "mosaic"))
import make_group
import mosaic

from zmtile import Options, Tile, build_tile, winsorized_sigma_clip
from zmtile.frames.frame import read_frame
from zmtile.frames.pixels import open_pixels
from zmtile.kernels.demosaic import demosaic, pattern_codes
from zmtile.looks.skyimage import read_image
from zmtile.registration.transform import Matrix, invert
from zmtile.report.page import write_report
from zmtile.report.tilereport import report_tile

Image = NDArray[np.float32]

SPEC = make_group.GroupSpec(
    frames=16,
    rows=540,
    cols=720,
    cfa="GRBG",
    seed=5,
    stars=260,
    rotation=10.0,
    dither=40.0,
    gradient=150.0,
    trails=0.4,
)
NO_DATA = "#1b2033"  # no sky and no filler has this colour
INK, PAPER = "#202020", "white"
DPI = 95


def ordinary_stack(paths: Sequence[Path], tile: Tile) -> Image:
    """Stack frames the common way: whatever lies outside of a frame is filled with one number.

    Each frame is demosaiced and moved by the transform that zmtile found for it, so that the two stacks
    differ in nothing else. The fill is the median of the frame over all colours: astroalign's default. Then
    each colour is brought to the reference's median, and all is stacked by winsorized sigma clipping.

    Parameters
    ----------
    paths : sequence of Path
        Mosaic frames.
    tile : Tile
        Built from these frames with the framing 'reference'.

    Returns
    -------
    (3, rows, cols) float32
    """
    records = {record.name: record for record in tile.frames}
    aligned = np.stack([_moved(path, records[path.name].matrix) for path in paths])
    medians = np.median(aligned, axis=(2, 3), keepdims=True)
    home = next(k for k, path in enumerate(paths) if path.name == tile.header["ZMT_REF"])
    aligned += medians[home] - medians
    colours_last = np.moveaxis(aligned, 1, -1)
    return np.moveaxis(winsorized_sigma_clip(colours_last).image, -1, 0)


def _moved(path: Path, matrix: Matrix) -> Image:
    """Return a frame in three colours on the reference's pixels, filled by its median, (3, rows, cols)."""
    frame = read_frame(path)
    # One mirrored pixel all around keeps the Bayer pattern, and gives the outermost pixels all colours.
    mosaic = np.pad(open_pixels(frame).whole()[0], 1, mode="reflect")
    colours = np.empty((3, *mosaic.shape), np.float32)
    demosaic(mosaic, pattern_codes(frame.cfa), -1, -1, colours)
    colours = colours[:, 1:-1, 1:-1]
    fill = float(np.median(colours))
    back = invert(matrix)
    linear, shift = back[::-1, 1::-1], back[::-1, 2]  # scipy counts (row, col), a matrix (x, y)
    return np.stack([affine_transform(c, linear, shift, order=3, cval=fill, prefilter=True) for c in colours])


def stretch(image: Image, like: Image, low: float = -2.5, high: float = 24.0) -> NDArray[np.float64]:
    """Return (rows, cols, 3) in 0 … 1: asinh from `low` to `high` sigma of the sky of another image.

    Parameters
    ----------
    image, like : (3, rows, cols) float32
        What is shown; what gives each channel's median and sigma.
    low, high : float
        Black and white, in sigma.
    """
    sky = np.nanmedian(like, axis=(1, 2), keepdims=True)
    sigma = 1.4826 * np.nanmedian(np.abs(like - sky), axis=(1, 2), keepdims=True)
    pull = (image - sky) / sigma
    shown = np.arcsinh((pull - low) / 4) / np.arcsinh((high - low) / 4)
    return np.moveaxis(np.clip(shown, 0, 1).astype(np.float64), 0, -1)


def before_after(before: Image, tile: Tile, path: Path) -> None:
    """Draw both stacks side by side, with a corner of each enlarged below."""
    plt = _pyplot()
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    rows, cols = tile.image.shape[1:]
    high, wide = 150, 300  # of the enlarged corner
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(12.4, 8.35),
        dpi=DPI,
        height_ratios=(rows / cols, high / wide),
        layout="constrained",
        facecolor=PAPER,
    )
    titles = ("before: filled outside of each frame", "zmtile: no data outside of each frame")
    for column, (image, title) in enumerate(zip((before, tile.image), titles, strict=True)):
        shown = stretch(image, tile.image)
        shown[~np.isfinite(image).all(axis=0)] = to_rgb(NO_DATA)
        top, left = axes[:, column]
        top.imshow(shown, interpolation="antialiased")
        top.set_title(title, fontsize=14, color=INK)
        top.add_patch(Rectangle((0, rows - high), wide, high, fill=False, color="white", lw=1.2))
        left.imshow(shown[rows - high :, :wide], interpolation="nearest")
        left.set_title("the corner, enlarged", fontsize=11, color=INK)
        for ax in (top, left):
            ax.set_axis_off()
    _save(figure, path)


def planes(tile: Tile, path: Path) -> None:
    """Draw the image of a tile and, of its green channel, three other planes."""
    plt = _pyplot()
    from matplotlib.colors import to_rgb

    figure, axes = plt.subplots(2, 2, figsize=(12.4, 8.9), dpi=DPI, layout="constrained", facecolor=PAPER)
    shown = stretch(tile.image, tile.image, high=40.0)
    shown[~np.isfinite(tile.image).all(axis=0)] = to_rgb(NO_DATA)
    rejected = tile.rejlow[1].astype(int) + tile.rejhigh[1]
    top = int(tile.coverage.max())
    error = tile.uncert[1]
    steps = plt.get_cmap("inferno", 5)  # 0, 1, 2, 3, 4 and more
    pictures: tuple[tuple[Any, str, str, dict[str, Any]], ...] = (
        (shown, "image", "", {}),
        (tile.coverage[1], "COVERAGE: frames with data", "frames", {"vmin": 0, "vmax": top}),
        (
            rejected,
            "REJLOW + REJHIGH: samples rejected",
            "samples, at most 4 shown",
            {"cmap": steps, "vmin": -0.5, "vmax": 4.5},
        ),
        (
            error,
            "UNCERT: standard error",
            "ADU",
            {"vmin": float(np.nanpercentile(error, 0.5)), "vmax": float(np.nanpercentile(error, 99))},
        ),
    )
    for ax, (plane, title, label, how) in zip(axes.flat, pictures, strict=True):
        drawn = ax.imshow(plane, interpolation="antialiased" if plane is shown else "nearest", **how)
        ax.set_title(title, fontsize=13, color=INK)
        ax.set_axis_off()
        if label:
            figure.colorbar(drawn, ax=ax, label=label, shrink=0.85)
    _save(figure, path)


def report(tile: Tile, path: Path) -> None:
    """Draw the upper part of the page about the tile; without Chromium, leave the picture as it is."""
    from PIL import Image as Pillow
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium")
    if browser is None:
        click.echo(f"{path}: left as it is: there is no chromium", err=True)
        return
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder, "master_tile_simulated.fits")
        tile.write(file)
        html = write_report([report_tile(read_image(file))], file.with_suffix(".html"))
        page = playwright.chromium.launch(executable_path=browser).new_page(
            viewport={"width": 1200, "height": 1290}
        )
        page.goto(html.as_uri())
        page.get_by_role("checkbox", name="footprints").check()
        shown = Pillow.open(io.BytesIO(page.screenshot()))
    _write(np.asarray(shown), path)


def mosaics(folder: Path) -> None:
    """Draw two tiles of overlapping fields, added up as they are and joined."""
    with tempfile.TemporaryDirectory() as scratch:
        tiles = mosaic.tiles_of_two_fields(Path(scratch))
        for name, plain in (("mosaic_plain.jpg", True), ("mosaic.jpg", False)):
            mosaic.draw(mosaic.join(tiles, plain)[0], folder / name)
            click.echo(f"{folder / name}: {(folder / name).stat().st_size / 1000:.0f} kB")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.canvas.draw()
    _write(np.asarray(figure.canvas.buffer_rgba()), path)


def _write(shown: NDArray[np.uint8], path: Path) -> None:
    pixels = shown[..., :3].astype(np.uint16)
    # Noise does not compress: with 52 steps a colour instead of 256 the file has half the size, and the
    # noise itself hides the steps.
    pixels = np.minimum((pixels + 2) // 5 * 5, 255).astype(np.uint8)
    # Without the version of matplotlib, the same picture is the same file.
    _pyplot().imsave(path, pixels, metadata={"Software": None}, pil_kwargs={"optimize": True})
    click.echo(f"{path}: {path.stat().st_size / 1000:.0f} kB")


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(__file__).parent / "img",
    help="Where the pictures go.",
)
def main(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as group:
        paths = make_group.write_group(SPEC, Path(group))
        tile = build_tile(paths, Options(reference=paths[0].name))
        before_after(ordinary_stack(paths, tile), tile, folder / "before_after.png")
        planes(tile, folder / "planes.png")
        report(tile, folder / "report.png")
    mosaics(folder)


if __name__ == "__main__":
    main()
