"""Build the same groups with zmtile and with the other programs that are installed, in turn.

    python bench/speed/peers.py --group 60x1080x1920 --group 20x1080x1920 --group 12x4000x6000xmono

Every program runs as a user would start it, its start included, on frames that lie in the system's cache. The
programs take turns, so that a slow hour of the machine hits all alike; a ratio is the median of the ratios
within a turn. zmtile runs once before, so that its kernels are compiled: `startup.py` measures that.

A second, cold turn measures bytes: the frames are dropped from the cache before, and what the program reads
from the disk, writes to it and leaves beside its result is counted.
"""

from __future__ import annotations

import statistics

import click
from groups import Size, group_of, make_group, title_of
from programs import ALL_PLANES, installed, zmtile
from running import in_turn, machine, median, run, table, working

from zmtile.options import Resources

HEADS = (
    "program",
    "s",
    "from – to",
    "times zmtile",
    "cores busy",
    "memory MB",
    "read",
    "written MB",
    "scratch MB",
)
_MB = 1e6


@click.command()
@click.option(
    "--group",
    "specs",
    type=Size(),
    multiple=True,
    default=("60x1080x1920", "20x1080x1920", "12x4000x6000xmono"),
    show_default=True,
    help="Frames × rows × columns, and mono or a pattern.",
)
@click.option("--repeats", default=3, show_default=True, help="Turns of all programs.")
@click.option("--threads", default=Resources().workers, show_default=True, help="Of every program.")
@click.option("--slow", is_flag=True, help="Measure astroalign and ccdproc, too.")
def main(specs: tuple[make_group.GroupSpec, ...], repeats: int, threads: int, slow: bool) -> None:
    """Print a table for each group: medians, ratios, memory and bytes."""
    click.echo(machine())
    for spec in specs:
        group = group_of(spec)
        programs = installed(threads, spec.cfa in make_group.CFAS[:4], slow)
        programs.insert(1, zmtile(threads, "zmtile, union, every plane", ALL_PLANES))
        with working() as work:
            run(programs[0].command(group, work), work, programs[0].result)
        costs = in_turn(programs, group, repeats)
        cold = in_turn(programs, group, 1, cold=True)
        size = sum(path.stat().st_size for path in group.glob("*.fits"))
        home = [cost.seconds for cost in costs[programs[0].name]]
        rows = []
        for program in [p for p in programs if p.name in costs.keys() & cold.keys()]:
            own, (bytes_of,) = costs[program.name], cold[program.name]
            seconds = [cost.seconds for cost in own]
            ratio = statistics.median(s / h for s, h in zip(seconds, home, strict=True))
            rows.append(
                (
                    program.name,
                    f"{statistics.median(seconds):.2f}",
                    f"{min(seconds):.2f} – {max(seconds):.2f}",
                    f"{ratio:.2f}",
                    f"{median(own, 'cpu') / statistics.median(seconds):.2f}",
                    f"{median(own, 'memory') / _MB:.0f}",
                    f"{bytes_of.read / size:.2f} × the frames",
                    f"{bytes_of.written / _MB:.0f}",
                    f"{bytes_of.scratch / _MB:.0f}",
                )
            )
        click.echo(f"\n{title_of(spec)}, {size / _MB:.0f} MB, {repeats} turns, {threads} threads\n")
        click.echo(table(HEADS, rows))


if __name__ == "__main__":
    main()
