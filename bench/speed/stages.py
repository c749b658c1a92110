"""Tell where the time of a build goes: seconds of each stage, on one thread and on several.

    python bench/speed/stages.py --group 60x1080x1920

Within one process, without imports; a build before the measured ones compiles and loads the kernels.
Beside the seconds stands how many cores a stage kept busy.
"""

from __future__ import annotations

import time

import click
from groups import Size, group_of, make_group, title_of
from running import machine, table, working

from zmtile import build_tile
from zmtile.options import Resources

STAGES = ("read", "measure", "register", "match", "stack", "write")


class StopWatch:
    """A `zmtile.progress.Progress` that keeps the wall and processor time of each stage."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}
        self._name, self._since = "", (0.0, 0.0)

    def stage(self, name: str, total: int) -> None:
        """End the stage before, and begin one."""
        self.done()
        self._name, self._since = name, (time.perf_counter(), time.process_time())

    def step(self, count: int = 1) -> None:
        """Do nothing."""

    def done(self) -> None:
        """End the last stage."""
        if self._name:
            wall, cpu = self.spent.get(self._name, (0.0, 0.0))
            begin_wall, begin_cpu = self._since
            self.spent[self._name] = (
                wall + time.perf_counter() - begin_wall,
                cpu + time.process_time() - begin_cpu,
            )
        self._name = ""


@click.command()
@click.option("--group", "spec", type=Size(), default="60x1080x1920", show_default=True)
@click.option("--repeats", default=3, show_default=True, help="The fastest counts, stage by stage.")
@click.option("--threads", default=Resources().workers, show_default=True)
def main(spec: make_group.GroupSpec, repeats: int, threads: int) -> None:
    """Print the seconds of each stage."""
    click.echo(f"{machine()}\n\n{title_of(spec)}\n")
    group = group_of(spec)
    counts = sorted({1, threads})
    best: dict[int, dict[str, tuple[float, float]]] = {n: {} for n in counts}
    for turn in range(repeats + 1):
        for n in counts:
            watch = StopWatch()
            tile = build_tile([group], resources=Resources(threads=n), progress=watch)
            watch.stage("write", 1)
            with working() as work:
                tile.write(work / "tile.fits", workers=n)
                watch.done()
            if turn:  # the first one compiles
                for name, spent in watch.spent.items():
                    best[n][name] = min(spent, best[n].get(name, spent))
    heads = ["stage", *(f"{n} thread{'s' * (n > 1)}, s (cores busy)" for n in counts)]
    rows = [
        [name, *(f"{best[n][name][0]:.2f} ({best[n][name][1] / best[n][name][0]:.2f})" for n in counts)]
        for name in STAGES
    ]
    rows.append(["all", *(f"{sum(wall for wall, _ in best[n].values()):.2f}" for n in counts)])
    click.echo(table(heads, rows))


if __name__ == "__main__":
    main()
