"""Measure how the time of a build grows with the number of frames, and with their pixels.

    python bench/speed/scaling.py --frames 20 --frames 400 --pixels 2 --pixels 60 --repeats 3

Frames: groups of 1080 × 1920 mosaics under one `--memory-limit`, where the peak memory should not grow.
Pixels: groups of eight mono frames of 2:3, without a limit. The exponent p of time ∝ size^p is fitted on all
sizes, the start of the program included; beside it stands that between the two largest, where a start has the
least part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import click
from groups import group_of, make_group
from programs import zmtile
from running import Cost, exponent, in_turn, machine, median, run, table, working

from zmtile.options import Resources


def costs_of(
    specs: Sequence[make_group.GroupSpec], repeats: int, threads: int, *options: str
) -> list[list[Cost]]:
    """Build all groups in turn, smallest first, so often; return the costs of each."""
    program = zmtile(threads, options=options)
    costs: list[list[Cost]] = [[] for _ in specs]
    groups = [group_of(spec) for spec in specs]
    with working() as work:  # compiles the kernels
        run(program.command(groups[0], work), work, program.result)
    for _ in range(repeats):
        for own, group in zip(costs, groups, strict=True):
            own += in_turn([program], group, 1)[program.name]
    return costs


def show(what: str, sizes: Sequence[float], costs: Sequence[Sequence[Cost]]) -> None:
    """Print a table, and the exponents."""
    seconds = [median(own, "seconds") for own in costs]
    rows = [
        (f"{size:g}", f"{s:.2f}", f"{1000 * s / size:.1f}", f"{median(own, 'memory') / 1e6:.0f}")
        for size, s, own in zip(sizes, seconds, costs, strict=True)
    ]
    click.echo(table((what, "s", f"ms for each of the {what}", "memory MB"), rows))
    last = exponent(sizes[-2:], seconds[-2:])
    click.echo(f"\nexponent {exponent(sizes, seconds):.3f}; between the two largest {last:.3f}\n")


@click.command()
@click.option("--frames", "counts", type=int, multiple=True, default=(20, 60, 150, 400), show_default=True)
@click.option("--shape", nargs=2, default=(1080, 1920), show_default=True, help="Rows and columns of these.")
@click.option(
    "--pixels", "sizes", type=float, multiple=True, default=(2, 6, 24, 60), show_default=True, help="Mpx."
)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=Resources().workers, show_default=True)
@click.option("--memory-limit", "limit", default="1GiB", show_default=True)
def main(
    counts: tuple[int, ...],
    shape: tuple[int, int],
    sizes: tuple[float, ...],
    repeats: int,
    threads: int,
    limit: str,
) -> None:
    """Print both tables; two numbers or more of each are needed."""
    click.echo(f"{machine()}\n\n--memory-limit {limit}, {repeats} turns, {threads} threads\n")
    if len(counts) > 1:
        specs = [make_group.GroupSpec(count, *shape) for count in counts]
        show("frames", counts, costs_of(specs, repeats, threads, "--memory-limit", limit))
    if len(sizes) > 1:
        sides = [math.sqrt(1e6 * size / 6) for size in sizes]
        specs = [make_group.GroupSpec(8, 2 * round(2 * s / 2), 2 * round(3 * s / 2), None) for s in sides]
        true = [spec.rows * spec.cols / 1e6 for spec in specs]
        show("Mpx", [round(size, 3) for size in true], costs_of(specs, repeats, threads))


if __name__ == "__main__":
    main()
