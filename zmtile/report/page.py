"""The page of a report: tiles → one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmtile import __version__
from zmtile.errors import TargetError
from zmtile.report.maps import gradient
from zmtile.report.pictures import CURVES
from zmtile.report.texts import shown
from zmtile.report.tilereport import TileReport
from zmtile.tiles.target import check_target, new_file

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["check_page_target", "page_of", "write_report"]

FOLDER = Path(__file__).parent / "page"
SUFFIXES = (".html", ".htm")


def check_page_target(path: Path, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse a target that cannot be written, is an input, or is not named as a page, before any work.

    Raises
    ------
    TargetError
    """
    if path.suffix.lower() not in SUFFIXES:
        raise TargetError(
            f"{path}: a report is an HTML page, its name says otherwise", "Let it end in .html."
        )
    check_target(path, overwrite, inputs)


def write_report(
    reports: Sequence[TileReport], path: str | os.PathLike[str], overwrite: bool = False
) -> Path:
    """Write the page of one or more tiles; it appears complete or not at all.

    Parameters
    ----------
    reports : sequence of TileReport
    path : path
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        The path as given.

    Raises
    ------
    TargetError
        When it cannot be written there; nothing is left behind.
    """
    text = page_of(reports)
    with new_file(path, overwrite) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


def page_of(reports: Sequence[TileReport]) -> str:
    """Return the page: a section for each tile, and an index if there are several."""
    script = _text("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    title = f"{len(reports)} master tiles" if len(reports) > 1 else reports[0].name
    return _template().render(
        tiles=reports,
        title=title,
        version=__version__,
        curves=CURVES,
        style=_text("report.css") + f".bar {{ background: {gradient()}; }}\n",
        script=script,
        script_hash=digest,  # the browser runs this script and no other, whatever a header holds
    )


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _shown(value: Any) -> Any:
    """Take the control characters out of a text: a header may hold any. Markup is the package's own."""
    return shown(value) if type(value) is str else value
