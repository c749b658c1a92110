"""What `zmtile check` prints: findings as a table, and as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from zmtile.console import printable
from zmtile.jsonout import SCHEMA_VERSION, plain
from zmtile.looks.check import Finding
from zmtile.richtext import RichText

__all__ = ["as_plain", "table"]

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}


def table(path: Path, findings: Sequence[Finding], only_failed: bool = False) -> str:
    """Return the findings of one image as text, with colours if stdout is a terminal; '' if none is shown."""
    shown = [f for f in findings if f.passed is False or not only_failed]
    if not shown:
        return ""
    console = RichText()
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for finding in shown:
        word, style = MARKS[finding.passed]
        rows.add_row(Text(f"  {word}", style), finding.name, Text(printable(finding.detail)))
    console.print(Text(printable(str(path)), "bold"), soft_wrap=True)
    console.print(rows)
    return console.taken()


def as_plain(found: Mapping[Path, Sequence[Finding]]) -> dict[str, Any]:
    """Return the findings of all images as JSON can hold them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": all(f.passed is not False for findings in found.values() for f in findings),
        "tiles": [
            {"path": str(path), "findings": [plain(finding) for finding in findings]}
            for path, findings in found.items()
        ],
    }
