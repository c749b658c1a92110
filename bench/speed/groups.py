"""Simulated groups to measure on: made once, kept under bench/data."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
import make_group

__all__ = ["DATA", "Size", "group_of", "make_group", "title_of"]

DATA = Path(__file__).parents[1] / "data"


class Size(click.ParamType):
    """FRAMESxROWSxCOLS, or FRAMESxROWSxCOLSxCFA."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> make_group.GroupSpec:
        """Return the group of that size; RGGB, BGGR, GBRG, GRBG, RGB or mono, and GRBG when not said."""
        if isinstance(value, make_group.GroupSpec):
            return value
        parts = str(value).split("x")
        try:
            frames, rows, cols = map(int, parts[:3])
            (cfa,) = parts[3:] or ["GRBG"]
        except ValueError:
            self.fail(f"{value!r} is not FRAMESxROWSxCOLS or FRAMESxROWSxCOLSxCFA", param, ctx)
        if cfa not in make_group.CFAS:
            self.fail(f"{cfa!r} is none of {', '.join(make_group.CFAS)}", param, ctx)
        return make_group.GroupSpec(frames, rows, cols, None if cfa == "mono" else cfa)


def title_of(spec: make_group.GroupSpec) -> str:
    """Return a group's size in words."""
    return f"{spec.frames} frames of {spec.rows} × {spec.cols}, {spec.cfa or 'mono'}"


def group_of(spec: make_group.GroupSpec) -> Path:
    """Return the folder of a group, made now if it is not there."""
    folder = DATA / f"{spec.frames}x{spec.rows}x{spec.cols}x{spec.cfa or 'mono'}"
    done = folder / "truth" / "truth.fits"  # written last
    if not done.exists():
        click.echo(f"simulating {title_of(spec)}", err=True)
        # In a process of its own: the peak of a child's memory begins with what its parent holds, and
        # programs that are measured afterwards are children.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(make_group.write_group, spec, folder).result()
    return folder
