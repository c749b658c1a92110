"""`zmtile rebuild`: a tile once more, from its own provenance."""

from __future__ import annotations

from pathlib import Path

import click

from zmtile.clioptions import (
    FitsPath,
    SectionCommand,
    backend,
    gpu_memory_limit,
    log_file,
    memory_limit,
    notes,
    quiet,
    running,
    running_resources,
    selection,
    threads,
    verbose,
    writing,
)

__all__ = ["rebuild"]

EPILOG = """\
Examples:

\b
  zmtile rebuild master_tile_m94.fits --inputs night1/ --inputs masters/
  zmtile rebuild master_tile_m94.fits --verify
  zmtile rebuild old.fits --inputs 'archive/**/*.fits' --verify -o new.fits

Exit codes:

\b
  0    made again; with --verify: its pixels are the same, bit for bit
  1    --verify: pixels differ
  2    usage or bad input; nothing was written
  3    too few frames can be used; nothing was written
  4    an input is missing or changed; nothing was written
  5, 70, 129, 130, 143 as those of build
"""


@click.command(cls=SectionCommand, epilog=EPILOG, context_settings={"show_default": True})
@click.argument("tile", type=FitsPath(path_type=Path))
@selection(
    "--inputs",
    type=FitsPath(),
    multiple=True,
    metavar="PATH",
    show_default="beside TILE, or here",
    help="Where its frames and masters are now: a file, a pattern, a folder with those below it.",
)
@writing("--verify", is_flag=True, help="Compare all planes with those of TILE; write only with -o.")
@writing(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    show_default="<TILE>_rebuilt.fits",
    help="File to write.",
)
@writing("--overwrite", is_flag=True, help="Replace the file if it exists.")
@threads
@memory_limit
@backend
@gpu_memory_limit
@running("--json", "as_json", is_flag=True, help="Print the outcome as JSON, and nothing else.")
@verbose
@quiet
@log_file
@click.pass_context
def rebuild(
    ctx: click.Context,
    /,
    tile: Path,
    inputs: tuple[str, ...],
    verify: bool,
    output: Path | None,
    overwrite: bool,
    threads: int | None,
    memory_limit: int | None,
    backend: str,
    gpu_memory_limit: int | None,
    as_json: bool,
    verbose: int,
    quiet: bool,
    log_file: Path | None,
) -> int:
    """Make TILE again from its own provenance: the options and frames that it tells of.

    Frames and masters are known by their content (SHA-256), whatever they are called now. If one is
    missing or has changed, it is named, and nothing is made.
    """
    resources = running_resources(ctx, threads, memory_limit, backend, gpu_memory_limit)

    from zmtile.ahead import compiling_ahead
    from zmtile.console import reporting, say
    from zmtile.jsonout import dumps
    from zmtile.rebuild import default_target, gather, rebuild_tile
    from zmtile.rebuildreport import as_text, report_of
    from zmtile.tiles.compare import compare_planes
    from zmtile.tiles.target import check_tile_target

    target = output if output is not None or verify else default_target(tile)
    with reporting(verbose, quiet, as_json, log_file, notes(ctx)) as progress:
        if target is not None:
            check_tile_target(target, [tile], overwrite)
        ingredients = gather(tile, inputs, progress)
        if target is not None:
            check_tile_target(target, [tile, *ingredients.files], overwrite)
        with compiling_ahead(ingredients.frames, ingredients.options, resources):
            made = rebuild_tile(ingredients, resources, progress)
        planes = compare_planes(made, tile) if verify else None
        if target is not None:
            options = ingredients.options
            progress.stage("write", 1)
            made.write(
                target,
                overwrite=overwrite,
                fill=options.fill,
                planes=options.planes,
                workers=resources.workers,
                last=True,
            )
            progress.step()
        progress.done()
    report = report_of(ingredients, made, planes, target, progress.seconds)
    if as_json:
        say(dumps(report))
    elif not quiet:
        say(as_text(report))
    return int(report["exit_code"])
