"""Tell where the time of measuring a frame goes: milliseconds of each step, on one thread.

    python bench/speed/measuring.py --group 60x1080x1920 --group 12x4000x6000xmono

Processor time, the median of all frames in all turns. Steps stand below the step that they are part of.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
import sep
from groups import Size, group_of, make_group, title_of
from running import machine, table

from zmtile.frames import detect, measure, pixels
from zmtile.frames.frame import read_frame
from zmtile.parallel import Kept

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("pixels to ADU", pixels.Pixels, "whole"),
    ("noise", measure, "_noise"),
    ("sky mesh", measure, "_sky"),
    ("luminance, hot pixels", measure, "luminance"),
    ("stars", measure, "detect"),
    ("– background", detect, "_background"),
    ("– bright pixels", detect, "_bright"),
    ("– objects apart", detect, "take_apart"),
    ("– their moments", detect, "_measured"),
    ("– half-light radii (sep)", sep, "flux_radius"),
    ("– windowed centroids (sep)", sep, "winpos"),
    ("fluxes", measure, "aperture_fluxes"),
    ("SHA-256 of the file", measure, "sha256_of"),
)


def timed(work: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return a function that adds the seconds it takes to those spent on a step."""

    def wrapped(*args: Any, **named: Any) -> Any:
        begin = time.thread_time()
        try:
            return work(*args, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.thread_time() - begin

    return wrapped


@click.command()
@click.option("--group", "specs", type=Size(), multiple=True, default=("60x1080x1920", "12x4000x6000xmono"))
@click.option("--repeats", default=3, show_default=True)
@click.option("--frames", default=6, show_default=True, help="Of each group.")
def main(specs: tuple[make_group.GroupSpec, ...], repeats: int, frames: int) -> None:
    """Print the milliseconds of each step."""
    click.echo(machine())
    spent: dict[str, float] = {}
    for name, owner, function in STEPS:
        setattr(owner, function, timed(getattr(owner, function), name, spent))
    for spec in specs:
        chosen = [read_frame(path) for path in sorted(group_of(spec).glob("*.fits"))[:frames]]
        kept, rows = Kept(), []
        for turn in range(repeats + 1):
            for frame in chosen:
                spent.clear()
                begin = time.thread_time()
                measure.measure(frame, kept=kept)
                if turn:  # the first one compiles
                    rows.append([time.thread_time() - begin, *(spent.get(name, 0.0) for name, _, _ in STEPS)])
        ms = 1e3 * np.median(rows, axis=0)
        click.echo(f"\n{title_of(spec)}\n")
        names = ["a frame", *(name for name, _, _ in STEPS)]
        click.echo(table(["step", "ms"], [[n, f"{t:.1f}"] for n, t in zip(names, ms, strict=True)]))


if __name__ == "__main__":
    main()
