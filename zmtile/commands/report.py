"""`zmtile report`: a page that shows tiles and how they came about."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import FitsPath

__all__ = ["report"]

EPILOG = """\
Examples:

\b
  zmtile report master_tile_m94.fits -o m94.html
  zmtile report tiles/*.fits -o night.html --overwrite
  zmtile build group/ -o m94.fits --report m94.html
"""


@click.command(epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tiles", nargs=-1, required=True, type=FitsPath(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Page to write: .html.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def report(tiles: tuple[Path, ...], output: Path, overwrite: bool) -> int:
    """Write one HTML page about TILES: pictures, maps, charts and tables of their frames.

    It needs no other file and no network, so it can be sent to others as it is.
    """
    from zmtile.looks.skyimage import read_image
    from zmtile.report.page import check_page_target, write_report
    from zmtile.report.tilereport import report_tile

    check_page_target(output, tiles, overwrite)
    write_report([report_tile(read_image(path)) for path in tiles], output, overwrite)
    return 0
