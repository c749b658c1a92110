"""What a rebuild found, as plain values and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from zmtile import __version__
from zmtile.console import printable
from zmtile.jsonout import SCHEMA_VERSION, plain
from zmtile.rebuild import Ingredients, told_apart
from zmtile.richtext import RichText
from zmtile.tiles.compare import PlaneComparison
from zmtile.tiles.tile import Tile

__all__ = ["as_text", "report_of"]


def report_of(
    ingredients: Ingredients,
    tile: Tile,
    planes: Sequence[PlaneComparison] | None,
    output: Path | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Return what there is to tell of a rebuild.

    Parameters
    ----------
    ingredients : Ingredients
    tile : Tile
        The one made again.
    planes : sequence of PlaneComparison, or None
        How its planes compare; None if this was not asked.
    output : Path or None
        The file written.
    seconds : dict of str to float
        Time spent in each stage.

    Returns
    -------
    dict
        Strings, numbers, lists and dicts only; None for what is not known or was not asked.
    """
    same = None if planes is None else not any(plane.differing for plane in planes)
    return {
        "schema_version": SCHEMA_VERSION,
        "zmtile": __version__,
        "tile": str(ingredients.recipe.path),
        "output": str(output) if output else None,
        "exit_code": 1 if same is False else 0,
        "same": same,
        "planes": None if planes is None else [plain(plane) for plane in planes],
        "changes": list(told_apart(ingredients.recipe, tile)),
        "software": ingredients.recipe.software,
        "options": plain(ingredients.options.as_dict()),
        "inputs": [source.as_plain() for source in ingredients.sources],
        "seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }


def as_text(report: dict[str, Any]) -> str:
    """Return a report as text, with colours if stdout is a terminal."""
    console = RichText()
    for title, text, style in _lines(report):
        console.print(Text.assemble((f"{title:<10}", "bold"), (printable(text), style)), soft_wrap=True)
    return console.taken()


def _lines(report: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield title, text and style of every line."""
    frames = sum(source["kind"] == "frame" for source in report["inputs"])
    masters = ", ".join(source["kind"] for source in report["inputs"] if source["kind"] != "frame")
    yield "tile", f"{report['tile']}, made by {report['software']['CREATOR']}", ""
    yield "inputs", f"{frames} frames{masters and f', {masters}'}: all as they were", ""
    if report["same"] is True:
        names = ", ".join(plane["name"] for plane in report["planes"])
        yield "pixels", f"the same, bit for bit: {names}", "green"
    for plane in report["planes"] or ():
        if plane["differing"]:
            yield "differs", _difference(plane), "bold red"
    style = "yellow" if report["same"] is False else ""
    for change in report["changes"]:
        yield "changed", change, style
    yield "time", f"{sum(report['seconds'].values()):.1f} s", ""
    yield "written", report["output"] or "nothing", ""


def _difference(plane: dict[str, Any]) -> str:
    """Return how a plane differs, in words."""
    if plane["shape"]:
        return f"{plane['name']}: the plane of the tile has {' × '.join(map(str, plane['shape']))} pixels"
    parts = [f"{plane['name']}: {plane['differing']:,} of {plane['pixels']:,} pixels"]
    if plane["largest"]:
        parts.append(f"by {plane['largest']:.6g} at most")
    for key, what in (("gained", "have data now and had none"), ("lost", "had data and have none now")):
        if plane[key]:
            parts.append(f"{plane[key]:,} {what}")
    return ", ".join(parts)
