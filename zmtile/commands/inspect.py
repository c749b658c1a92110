"""`zmtile inspect`: what a tile is made of."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import FitsPath, TextList

__all__ = ["inspect"]

EPILOG = """\
Examples:

\b
  zmtile inspect master_tile_m94.fits
  zmtile inspect master_tile_m94.fits --frames --sort -fwhm --where 'fwhm>1.2*median'
  zmtile inspect tiles/*.fits --json

Exit codes:

\b
  0    told
  1    a checksum fails
  2    usage, a file that cannot be read, or a tile that lacks a plane
"""


@click.command(epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tiles", nargs=-1, required=True, type=FitsPath(path_type=Path))
@click.option("--frames", is_flag=True, help="Show the table of frames instead.")
@click.option("--sort", metavar="NAME", help="Sort them by this; -NAME: the largest first.")
@click.option(
    "--where",
    type=TextList(),
    multiple=True,
    metavar="RULE",
    help="Only those that hold, as 'fwhm>1.2*median'.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON, and nothing else.")
@click.option("--picture/--no-picture", default=True, help="A small picture, on terminals with colours.")
def inspect(
    tiles: tuple[Path, ...],
    frames: bool,
    sort: str | None,
    where: tuple[str, ...],
    as_json: bool,
    picture: bool,
) -> int:
    """Tell what TILES are made of; of images of other programs, what can be told."""
    import sys

    from zmtile.console import colourful, printable, say
    from zmtile.errors import UsageError
    from zmtile.jsonout import dumps, plain
    from zmtile.looks import factsheet
    from zmtile.looks.check import checksums
    from zmtile.looks.facts import facts_of, sorted_frames
    from zmtile.looks.skyimage import read_image

    if (sort or where) and not frames:
        raise UsageError("--sort and --where belong to --frames", "Add --frames, or leave them out.")
    told, damaged = [], False
    for path in tiles:
        finding, sky = checksums(path), read_image(path, damaged=True)
        damaged |= finding.passed is False
        facts = facts_of(sky) | {"checksums": finding.passed}
        if frames:
            if sky.tile is None:
                raise UsageError(f"{path}: not a tile of zmtile", "Only these have a table of frames.")
            chosen = sorted_frames(sky.tile.frames, sort, where)
            facts["frames"] = [plain(frame) for frame in chosen]
            if not as_json and where and not chosen:
                say(printable(f"{path}: no frame holds {', '.join(where)}"))
            elif not as_json:
                say(factsheet.frame_table(chosen, facts["tile"]["reference"]))
        elif not as_json:
            say(factsheet.sheet(facts, finding))
            if picture and colourful(sys.stdout):
                say(factsheet.picture(sky))
        told.append(facts)
    if as_json:
        say(dumps({"tiles": told}))
    return int(damaged)
