"""`zmtile check`: judge tiles."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import FitsPath

__all__ = ["check"]

EPILOG = """\
Examples:

\b
  zmtile check tiles/*.fits
  zmtile check master_tile_m94.fits --max-step 0.3 --json

Exit codes:

\b
  0    every tile passed
  1    a limit is passed; the table says which
  2    usage, or a file that cannot be read
"""


@click.command(epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tiles", nargs=-1, required=True, type=FitsPath(path_type=Path))
@click.option("--max-step", type=float, default=0.5, metavar="SIGMA", help="Largest step of the sky.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON, and nothing else.")
@click.option("--quiet", "-q", is_flag=True, help="Print what failed only.")
def check(tiles: tuple[Path, ...], max_step: float, as_json: bool, quiet: bool) -> int:
    """Judge TILES: steps of the sky, filler, no data, checksums, coordinates, exposures.

    They may come from other programs; without a coverage plane, bands along the edges are looked for.
    """
    from zmtile.console import printable, say
    from zmtile.errors import UsageError
    from zmtile.looks.findings import as_plain, exit_code, judged, table

    found = {}
    for path, findings in judged(tiles, max_step):
        found[path] = findings
        if isinstance(findings, UsageError):
            say(printable(f"zmtile: error: {findings}"), err=True)
        elif not as_json and (text := table(path, findings, only_failed=quiet)):
            say(text)
    if as_json:
        from zmtile.jsonout import dumps

        say(dumps(as_plain(found)))
    return exit_code(found)
