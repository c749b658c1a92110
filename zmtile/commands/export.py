"""`zmtile export`: planes of a tile as plain FITS images."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import FitsPath, TextList, listed

__all__ = ["export"]

EPILOG = """\
Examples:

\b
  zmtile export master_tile_m94.fits --planes image,weight   # for SWarp, Source Extractor
  zmtile export master_tile_m94.fits --cube --fill 0         # for Siril
"""


@click.command(epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tile", type=FitsPath(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), default=".", help="Folder to write to.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option(
    "--planes",
    type=TextList(),
    multiple=True,
    callback=listed,
    default=("image",),
    metavar="NAMES",
    help="Of image, uncert, weight, coverage, rejlow, rejhigh, mask.",
)
@click.option("--cube", is_flag=True, help="All channels in one file; else, each in its own.")
@click.option("--fill", type=float, show_default="NaN", help="Value of pixels without data.")
def export(
    tile: Path, output: Path, overwrite: bool, planes: tuple[str, ...], cube: bool, fill: float | None
) -> int:
    """Write planes of TILE as plain FITS images, for programs that cannot read the tile itself.

    One file for each channel: m94_R.fits, and beside it m94_R.weight.fits.
    """
    from zmtile.console import say
    from zmtile.tiles.export import export_tile

    for path in export_tile(tile, output, planes=planes, cube=cube, fill=fill, overwrite=overwrite):
        say(str(path))
    return 0
