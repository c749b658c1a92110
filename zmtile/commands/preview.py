"""`zmtile preview`: a picture of a tile."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import FitsPath

__all__ = ["preview"]

EPILOG = """\
Examples:

\b
  zmtile preview master_tile_m94.fits -o m94.png
  zmtile preview master_tile_m94.fits -o m94.jpg --size 1600 --curve asinh
  zmtile preview master_tile_m94.fits -o m94.tif --unlinked
"""


@click.command(epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tile", type=FitsPath(path_type=Path))
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(path_type=Path),
    help="Picture to write: .png, .jpg, or .tif (16 bit).",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--curve",
    type=click.Choice(("stf", "asinh", "linear")),
    default="stf",
    metavar="NAME",
    help="Stretch: stf, asinh, linear.",
)
@click.option(
    "--linked/--unlinked", default=True, help="One stretch for all channels, or one for each of them."
)
@click.option("--size", type=int, show_default="full size", help="Longest side, px.")
def preview(tile: Path, output: Path, overwrite: bool, curve: str, linked: bool, size: int | None) -> int:
    """Write a picture of TILE, with the sky lifted to a dark grey.

    Pixels without data are transparent (black in a JPEG). TILE may be any FITS image.
    """
    from zmtile.looks.preview import write_preview
    from zmtile.looks.skyimage import read_image
    from zmtile.tiles.target import check_target

    check_target(output, overwrite, [tile])
    write_preview(read_image(tile), output, curve=curve, linked=linked, size=size, overwrite=overwrite)
    return 0
