"""Measure what comes before the work: the first run ever, many of these at once, and the start itself.

    python bench/speed/startup.py --group 20x1080x1920 --at-once 16

A run without compiled kernels (`NUMBA_CACHE_DIR` is an empty folder) is compared with the next one, that
finds them. Then as many as `--at-once` start together on another empty folder: all must end well, with one
tile. `--help` and `--version` are compared with a Python that loads click and rich.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
from groups import Size, group_of, make_group, title_of
from programs import zmtile
from running import Cost, machine, median, run, table, working

from zmtile.options import Resources

_STARTS = {
    "python -c 'import click, rich'": ["-c", "import click, rich"],
    "zmtile --version": ["-m", "zmtile", "--version"],
    "zmtile --help": ["-m", "zmtile", "--help"],
    "import zmtile.pipeline": ["-c", "import zmtile.pipeline"],
}


def build(group: Path, kernels: Path, threads: int) -> tuple[Cost, bytes]:
    """Build a group with a folder of compiled kernels; return the cost, and the tile's bytes."""
    program = zmtile(threads)
    with working() as work:
        cost = run(program.command(group, work), work, program.result, {"NUMBA_CACHE_DIR": str(kernels)})
        return cost, (work / program.result).read_bytes()


def first_runs(group: Path, repeats: int, threads: int) -> list[tuple[str, str, str]]:
    """Compare runs without compiled kernels with the next ones."""
    cold, warm = [], []
    for _ in range(repeats):
        with working() as kernels:
            cold.append(build(group, kernels, threads)[0])
            warm.append(build(group, kernels, threads)[0])
    first, second = median(cold, "seconds"), median(warm, "seconds")
    return [
        ("first run ever", f"{first:.2f}", f"{first - second:+.2f} s"),
        ("the next", f"{second:.2f}", ""),
    ]


def together(group: Path, count: int) -> tuple[str, str, str]:
    """Start many at once without compiled kernels."""
    with working() as kernels, ThreadPoolExecutor(count) as pool:
        runs = list(pool.map(lambda _: build(group, kernels, 1), range(count)))
    slowest = max(cost.seconds for cost, _ in runs)
    tiles = {tile for _, tile in runs}
    return f"{count} first runs at once", f"{slowest:.2f}", f"{len(tiles)} different tiles"


def starts(repeats: int) -> list[tuple[str, str, str]]:
    """Time the start of the program, in turn."""
    costs: dict[str, list[Cost]] = {name: [] for name in _STARTS}
    with working() as work:
        for command in _STARTS.values():  # modules are compiled to byte code
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
        for _ in range(repeats):
            for name, command in _STARTS.items():
                costs[name].append(run([sys.executable, *command], work))
    home = median(next(iter(costs.values())), "seconds")
    return [
        (name, f"{median(own, 'seconds'):.3f}", f"{median(own, 'seconds') / home:.2f} ×")
        for name, own in costs.items()
    ]


@click.command()
@click.option("--group", "spec", type=Size(), default="20x1080x1920", show_default=True)
@click.option("--repeats", default=3, show_default=True, help="First runs.")
@click.option("--starts", "count", default=15, show_default=True, help="Starts of every kind.")
@click.option("--at-once", default=16, show_default=True, help="First runs together; 0: none.")
@click.option("--threads", default=Resources().workers, show_default=True)
def main(spec: make_group.GroupSpec, repeats: int, count: int, at_once: int, threads: int) -> None:
    """Print the medians."""
    click.echo(f"{machine()}\n\n{title_of(spec)}; {repeats} first runs, {count} starts\n")
    group = group_of(spec)
    rows = first_runs(group, repeats, threads)
    if at_once:
        rows.append(together(group, at_once))
    click.echo(table(("what", "s", ""), [*rows, *starts(count)]))


if __name__ == "__main__":
    main()
