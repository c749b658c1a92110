"""`zmtile build`: from light frames to a master tile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from zmtile import options
from zmtile.clioptions import (
    FitsPath,
    SectionCommand,
    TextList,
    backend,
    calibration,
    gpu_memory_limit,
    listed,
    log_file,
    matching,
    memory_limit,
    notes,
    quiet,
    registration,
    running,
    running_resources,
    selection,
    stacking,
    stacking_options,
    threads,
    verbose,
    writing,
)

__all__ = ["build"]

DEFAULT_NAME = "master_tile_<object>_<filter>.fits"
FRAMES = FitsPath(text=True)
PLANES = ", ".join((*options.EXTRA_PLANES, "all", "none"))


def _planes(context: click.Context, option: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    """Return the planes asked for, in the order of the table."""
    asked = {word.lower() for word in listed(context, option, given)}
    known = {"all", "none", *options.EXTRA_PLANES}
    if not asked <= known or {"all", "none"} <= asked or ("none" in asked and len(asked) > 1):
        raise click.BadParameter(f"{','.join(given)!r} is not a list of planes; they are {PLANES}.")
    return tuple(p for p in options.EXTRA_PLANES if "all" in asked or p in asked)


EPILOG = """\
Examples:

\b
  zmtile build group/*.fits
  zmtile build night1/ night2/ -o m94.fits --framing union
  zmtile build @frames.txt --reject sigma --kappa 3 2.5 --json > m94.json

Exit codes:

\b
  0    built
  1    built, but frames were left out, those of --reject-frames not counted
  2    usage or bad input; nothing was written
  3    too few frames can be used; nothing was written
  5    the GPU failed; nothing was written
  70   a bug in zmtile
  129  stopped by SIGHUP (the terminal was closed); nothing was written
  130  stopped by Ctrl-C; nothing was written
  143  stopped by SIGTERM; nothing was written
"""


@click.command(cls=SectionCommand, epilog=EPILOG, context_settings={"show_default": True})
@click.argument("frames", nargs=-1, required=True, type=FRAMES)
@selection(
    "--reference", type=FRAMES, metavar="FILE", show_default="chosen by its stars", help="Reference frame."
)
@selection("--min-frames", type=int, show_default="2", help="Fewer that can be registered is an error.")
@selection("--skip-unreadable", is_flag=True, help="Leave unreadable files out instead of stopping.")
@selection(
    "--reject-frames",
    type=TextList(),
    multiple=True,
    callback=listed,
    metavar="RULES",
    show_default="none",
    help="Leave frames out that fail a rule such as 'fwhm<1.5*median'.",
)
@calibration("--bias", type=FitsPath(), metavar="FILE", show_default="none", help="Master bias.")
@calibration(
    "--dark",
    type=FitsPath(),
    metavar="FILE",
    show_default="none",
    help="Master dark; scaled only with a bias.",
)
@calibration("--flat", type=FitsPath(), metavar="FILE", show_default="none", help="Master flat.")
@calibration("--hot-pixels", is_flag=True, help="No data where a pixel stands alone in most frames.")
@registration("--align", type=options.ALIGNMENTS, help="Match stars, or use the frames' WCS alone.")
@registration("--transform", type=options.TRANSFORMS, help="Model fitted on the matched stars.")
@registration("--framing", type=options.FRAMINGS, help="What the tile shows.")
@matching("--normalize", type=options.NORMALIZATIONS, help="What is matched to the reference.")
@matching(
    "--sky-degree",
    type=int,
    metavar="N",
    show_default="by the overlaps",
    help="Degree of the sky surfaces: 1 or 2.",
)
@matching("--weight", type=options.WEIGHTS, help="Weights of the mean.")
@matching(
    "--feather",
    type=float,
    metavar="PX",
    help="Let the weight of a frame fall to its edge over this width; 0: no.",
)
@stacking("--cfa", type=options.CFA_WAYS, help="How a mosaic becomes colour.")
@stacking("--kernel", type=options.KERNELS, help="Interpolation.")
@stacking("--clamp/--no-clamp", help="Keep interpolation from making dark rings.")
@stacking("--reject", type=options.REJECTIONS, help="How outliers are found.")
@stacking(
    "--kappa",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    show_default="3 3",
    help="Bounds of rejection, in sigma.",
)
@stacking(
    "--winsor-limits",
    nargs=2,
    type=float,
    metavar="LOW HIGH",
    show_default="0.05 0.05",
    help="What winsor-quantile clips.",
)
@stacking("--rewinsorize", is_flag=True, help="winsor-quantile replaces outliers by their bound.")
@stacking("--esd-outliers", type=float, help="Largest fraction that esd rejects.")
@stacking("--esd-alpha", type=float, help="Significance of esd.")
@stacking("--minmax", nargs=2, type=int, metavar="LOW HIGH", show_default="1 1", help="Samples minmax drops.")
@stacking("--grow", type=int, metavar="PX", help="Pixels rejected around trails, too.")
@stacking("--combine", type=options.COMBINES, help="How the survivors are combined.")
@stacking("--min-coverage", type=int, help="No data where fewer frames have some.")
@writing("--output", "-o", type=click.Path(path_type=Path), show_default=DEFAULT_NAME, help="File to write.")
@writing("--overwrite", is_flag=True, help="Replace the file if it exists.")
@writing("--fill", type=float, show_default="NaN", help="Value of image pixels without data.")
@writing(
    "--planes",
    type=TextList(),
    multiple=True,
    callback=_planes,
    metavar="NAMES",
    help=f"Beside the others: {PLANES}.",
)
@writing(
    "--report",
    "page",
    type=click.Path(path_type=Path),
    metavar="PATH",
    show_default="none",
    help="Write a page about the tile, too: .html.",
)
@threads
@memory_limit
@backend
@gpu_memory_limit
@running("--dry-run", is_flag=True, help="Register the frames and show the plan; write nothing.")
@running("--json", "as_json", is_flag=True, help="Print the summary as JSON, and nothing else.")
@verbose
@quiet
@log_file
@click.pass_context
def build(
    ctx: click.Context,
    /,
    frames: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    page: Path | None,
    threads: int | None,
    memory_limit: int | None,
    backend: str,
    gpu_memory_limit: int | None,
    dry_run: bool,
    as_json: bool,
    verbose: int,
    quiet: bool,
    log_file: Path | None,
    **choices: Any,
) -> int:
    """Build a master tile from light frames.

    FRAMES are FITS files, folders, patterns, or @list.txt: a text file with one of these per line.
    Their order has no influence.
    """
    chosen, resources = (
        stacking_options(ctx, choices),
        running_resources(ctx, threads, memory_limit, backend, gpu_memory_limit),
    )

    from zmtile.console import reporting, say
    from zmtile.frames.hashes import hash_ahead
    from zmtile.frames.inputs import expand
    from zmtile.jsonout import dumps, report_of, rounded

    with reporting(verbose, quiet, as_json, log_file, notes(ctx)) as progress:
        inputs = expand(frames)
        if resources.workers > 1:
            hash_ahead(inputs)
        kept = [*inputs, *(Path(path) for path in (chosen.bias, chosen.dark, chosen.flat) if path)]
        _check_targets(output, page, kept, overwrite)

        from zmtile.ahead import compiling_ahead
        from zmtile.pipeline import plan_tile, stack_plan

        tile = None
        with compiling_ahead(inputs, chosen, resources):
            plan = plan_tile(inputs, chosen, resources, progress)
            target = output or Path(plan.default_name)
            _check_targets(target, page, kept, overwrite)
            if not dry_run:
                tile = stack_plan(plan, resources, progress)
        report = report_of(plan, tile, target, {}, page)  # before the planes are let go
        if tile is not None:
            progress.stage("write", 1)
            tile.write(
                target,
                overwrite=overwrite,
                fill=chosen.fill,
                planes=chosen.planes,
                workers=resources.workers,
                last=page is None,
            )
            progress.step()
            if page is not None:
                from zmtile.looks.skyimage import image_of
                from zmtile.report.page import write_report
                from zmtile.report.tilereport import report_tile

                progress.stage("report", 1)
                write_report([report_tile(image_of(tile, target))], page, overwrite)
                progress.step()
        progress.done()
    report["seconds"] = rounded(progress.seconds)
    if as_json:
        say(dumps(report))
    elif not quiet:
        from zmtile.summary import summary

        say(summary(report))
    return int(report["exit_code"])


def _check_targets(tile: Path | None, page: Path | None, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse what cannot be written, and what is one of the inputs; nor is the page ever the tile."""
    from zmtile.tiles.target import check_tile_target

    if tile is not None:
        check_tile_target(tile, inputs, overwrite)
    if page is not None:
        from zmtile.report.page import check_page_target

        check_page_target(page, inputs if tile is None else [*inputs, tile], overwrite)
