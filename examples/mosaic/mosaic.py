"""Join overlapping tiles into a mosaic in which no edge of a tile can be seen.

python examples/mosaic/mosaic.py FOLDER              simulates two groups, builds their tiles, joins them
python examples/mosaic/mosaic.py FOLDER TILE TILE …  joins tiles of yours; each overlaps one before it

Every tile has the transparency and the sky of its own reference frame. So a factor (from stars) and a plane
(from the sky) bring each tile to those before it, in the overlap; then reproject adds them up, with weights
that fall to the edges of a tile. FOLDER gets ``mosaic.fits`` and ``mosaic.png``. With ``--plain`` tiles are
added up as they are, to see what that is good for. A mosaic that is there already is kept, unless
``--overwrite`` is given.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import sep
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from reproject import reproject_interp
from reproject.mosaicking import find_optimal_celestial_wcs, reproject_and_coadd
from scipy.ndimage import distance_transform_edt

sys.path.insert(0, str(Path(__file__).parents[1]))
from make_group import GroupSpec, Truth, frame_header, render_frame, truth_of

from zmtile import UsageError, read_tile
from zmtile.looks.preview import write_preview
from zmtile.looks.skyimage import SkyImage

Image = NDArray[np.float32]
Floats = NDArray[np.float64]

SPEC = GroupSpec(frames=16, rows=480, cols=640)  # both groups together
FEATHER = 60.0  # px over which the weight of a tile rises from its edge
RADIUS = 8.0  # px, aperture in which stars of two tiles are compared
MIN_STARS = 5
# Shares of the spec's width: the second group looks at a field so far to the right.
OFFSET = 0.72


@dataclass(frozen=True, eq=False)
class Piece:
    """A tile as the mosaic needs it: image and weight (channels, rows, cols), coordinates of two axes."""

    image: Image
    weight: Image
    wcs: WCS


def simulate(spec: GroupSpec, folder: Path) -> list[Path]:
    """Write two groups of one sky, half of the frames each; return their folders.

    The generator knows chains: each frame a step further in x. Here the first half of the frames stays at
    the first field and the second half at the second.
    """
    half = spec.frames // 2
    spec = replace(spec, chain=1 - OFFSET / (spec.frames - 1), wcs=True)
    truth = truth_of(spec)
    dither = np.random.default_rng(spec.seed).uniform(-spec.dither, spec.dither, spec.frames)
    places = np.repeat([0.0, OFFSET * spec.cols], [half, spec.frames - half]) + dither
    moved = truth.matrices.copy()
    moved[:, 0, 2] += places - places[0] - np.arange(spec.frames) * spec.step
    truth = replace(truth, matrices=moved)
    folders = [folder / "left", folder / "right"]
    for where, numbers in zip(folders, (range(half), range(half, spec.frames)), strict=True):
        where.mkdir(parents=True, exist_ok=True)
        for k in numbers:
            _write_light(spec, truth, k, where / f"light_{k + 1:04d}.fits")
    return folders


def _write_light(spec: GroupSpec, truth: Truth, k: int, path: Path) -> None:
    hdu = fits.PrimaryHDU(render_frame(spec, truth, k), frame_header(spec, truth, k))
    hdu.writeto(path, overwrite=True)


def build(group: Path, tile: Path) -> Path:
    """Build a tile of all that at least four frames cover: with fewer, trails are not safely rejected."""
    words = ["build", group, "-o", tile, "--framing", "union", "--min-coverage", "4", "--planes", "weight"]
    subprocess.run([sys.executable, "-m", "zmtile", *map(str, words), "--overwrite", "--quiet"], check=True)
    return tile


def piece_of(path: Path, feather: float = FEATHER) -> Piece:
    """Read a tile; its weight falls to 0 at the edge of its data, over `feather` px."""
    tile = read_tile(path)
    wcs = WCS(tile.header).celestial
    if not wcs.has_celestial:
        raise UsageError(f"{path}: the tile has no coordinates", "Solve it first, for instance with ASTAP.")
    image = tile.image.reshape(-1, *tile.shape[-2:])
    weight = tile.weight.reshape(image.shape)
    if np.isnan(weight).all():
        raise UsageError(f"{path}: the tile has no WEIGHT plane", "Build it with --planes weight.")
    inside = np.pad(np.isfinite(image).all(axis=0), 1)  # the edge of the tile is an edge of its data
    depth = distance_transform_edt(inside)[1:-1, 1:-1]
    ramp = np.sin(np.pi / 2 * np.clip(depth / max(feather, 1.0), 0, 1)) ** 2
    return Piece(image, np.where(np.isfinite(image), weight * ramp, 0).astype(np.float32), wcs)


def coadd(pieces: Sequence[Piece], wcs: WCS, shape: tuple[int, int]) -> Image:
    """Add pieces up on one grid, (channels, rows, cols); NaN where none has data."""
    channels = []
    for c in range(len(pieces[0].image)):
        mean, footprint = reproject_and_coadd(
            [(p.image[c], p.wcs) for p in pieces],
            wcs,
            shape_out=shape,
            input_weights=[p.weight[c] for p in pieces],
            reproject_function=reproject_interp,
            blank_pixel_value=np.nan,
        )
        channels.append(np.where(footprint > 0, mean, np.nan).astype(np.float32))
    return np.stack(channels)


def matched(piece: Piece, goal: Image) -> Piece:
    """Bring a piece to the light of the goal, which is on the piece's own grid.

    Raises
    ------
    UsageError
        When they share too few stars to know a factor.
    """
    planes = [_matched(ours, theirs) for ours, theirs in zip(piece.image, goal, strict=True)]
    # Weights are inverse variances: they fall by the square of the factor.
    weights = [w / np.float32(factor**2) for w, (_, factor) in zip(piece.weight, planes, strict=True)]
    return replace(piece, image=np.stack([plane for plane, _ in planes]), weight=np.stack(weights))


def _matched(ours: Image, theirs: Image) -> tuple[Image, float]:
    """Return one channel after the match, and its factor."""
    both = np.isfinite(ours) & np.isfinite(theirs)
    factor = _flux_ratio(ours, theirs, both)
    return (factor * ours + _sky_plane(theirs - factor * ours)).astype(np.float32), factor


def _sky_plane(light: Floats | Image) -> Floats:
    """Return the plane (rows, cols) that lies in an image's sky; NaN is no data, stars are clipped."""
    y, x = np.indices(light.shape, np.float64)
    columns = np.stack([np.ones_like(x), x / x.max() - 0.5, y / y.max() - 0.5])
    kept = data = np.isfinite(light)
    plane = np.zeros_like(x)
    for _ in range(5):
        plane = np.tensordot(np.linalg.lstsq(columns[:, kept].T, light[kept], rcond=None)[0], columns, 1)
        away = np.abs(light - plane)
        kept = data & (away < 3 * 1.4826 * np.median(away[kept]))
    return plane


def _flux_ratio(ours: Image, theirs: Image, both: NDArray[np.bool_]) -> float:
    """Return the median ratio, theirs to ours, of the fluxes of stars in the overlap."""
    flat = np.where(both, theirs, 0).astype(np.float32)
    background = sep.Background(flat, mask=~both)
    stars = sep.extract(flat - background.back(), 10.0, err=background.globalrms, mask=~both)
    room = distance_transform_edt(both)[stars["y"].astype(int), stars["x"].astype(int)]
    stars = stars[room > 2 * RADIUS]
    place = {"x": stars["x"], "y": stars["y"], "r": RADIUS, "bkgann": (RADIUS, 2 * RADIUS)}
    fluxes = [
        sep.sum_circle(np.where(both, plane, 0).astype(np.float32), **place)[0] for plane in (theirs, ours)
    ]
    good = (fluxes[0] > 0) & (fluxes[1] > 0)
    if good.sum() < MIN_STARS:
        raise UsageError(
            f"a tile shares {good.sum()} stars with those before it, too few to match them",
            "Name tiles in an order in which each overlaps one before it.",
        )
    return float(np.median(fluxes[0][good] / fluxes[1][good]))


def join(tiles: Sequence[Path], plain: bool = False) -> tuple[Image, WCS, NDArray[np.uint16]]:
    """Make a mosaic of tiles.

    Parameters
    ----------
    tiles : sequence of Path
    plain : bool
        Add the tiles up as they are: neither matched nor feathered.

    Returns
    -------
    image : (channels, rows, cols) float32
        In the ADU of the first tile; NaN where no tile has data.
    wcs : WCS
    number : (channels, rows, cols) uint16
        How many tiles have data at a pixel.
    """
    pieces: list[Piece] = []
    for path in tiles:
        piece = piece_of(path, 0.0 if plain else FEATHER)
        if pieces and not plain:
            rows, cols = piece.image.shape[1:]
            piece = matched(piece, coadd(pieces, piece.wcs, (rows, cols)))
        pieces.append(piece)
    wcs, shape = find_optimal_celestial_wcs([(p.image[0], p.wcs) for p in pieces])
    number = sum(np.isfinite(coadd([p], wcs, shape)).astype(np.uint16) for p in pieces)
    return coadd(pieces, wcs, shape), wcs, np.asarray(number, np.uint16)


def write(image: Image, wcs: WCS, path: Path) -> None:
    """Write a mosaic as FITS."""
    header: Any = wcs.to_header()
    header["BUNIT"] = ("adu", "of the first tile's reference")
    header["ROWORDER"] = ("BOTTOM-UP", "north is up")
    fits.writeto(path, image if len(image) > 1 else image[0], header, overwrite=True)


def draw(image: Image, path: Path) -> None:
    """Draw a mosaic in a hard stretch.

    The sky of the first tile goes on over all of the mosaic, as a plane. The picture is without it, so that
    a fainter edge of a tile could be seen.
    """
    flat = np.stack([plane - _sky_plane(plane) for plane in image]).astype(np.float32)
    sky = SkyImage(path, flat, None, fits.Header({"ROWORDER": "BOTTOM-UP"}))
    write_preview(sky, path, overwrite=True)


def tiles_of_two_fields(folder: Path, spec: GroupSpec = SPEC) -> list[Path]:
    """Simulate two groups and build the tile of each."""
    return [build(group, folder / f"master_tile_{group.name}.fits") for group in simulate(spec, folder)]


@click.command(help=(__doc__ or "").splitlines()[0])
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("tiles", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--plain", is_flag=True, help="Add the tiles up as they are.")
@click.option("--overwrite", is_flag=True, help="Replace a mosaic that is there.")
def main(folder: Path, tiles: tuple[Path, ...], plain: bool, overwrite: bool) -> None:
    """Simulate two groups and build their tiles, unless TILES are given; join them."""
    there = [path for path in (folder / "mosaic.fits", folder / "mosaic.png") if path.exists()]
    if there and not overwrite:
        raise click.ClickException(f"{there[0]} exists; --overwrite replaces it")
    try:
        image, wcs, number = join(tiles or tiles_of_two_fields(folder), plain)
    except UsageError as error:
        raise click.ClickException(str(error)) from error
    folder.mkdir(parents=True, exist_ok=True)
    write(image, wcs, folder / "mosaic.fits")
    draw(image, folder / "mosaic.png")
    rows, cols = image.shape[1:]
    click.echo(f"{folder / 'mosaic.png'}: {cols} × {rows} px of sky, {(number > 1).mean():.0%} in two tiles")


if __name__ == "__main__":
    main()
