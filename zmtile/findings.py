"""What `zmtile check` prints: findings as a table, and as plain values."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from zmtile.check import Finding
from zmtile.console import on_terminal, printable
from zmtile.jsonout import SCHEMA_VERSION, plain

__all__ = ["as_plain", "table"]

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}
LOG_WIDTH = 132  # of what is written to a file or a pipe


def table(path: Path, findings: Sequence[Finding], only_failed: bool = False) -> str:
    """Return the findings of one image as text, with colours if stdout is a terminal; '' if none is shown."""
    shown = [f for f in findings if f.passed is False or not only_failed]
    if not shown:
        return ""
    terminal = on_terminal(sys.stdout)
    text = io.StringIO()
    console = Console(
        file=text,
        force_terminal=terminal,
        width=shutil.get_terminal_size().columns if terminal else LOG_WIDTH,
        color_system="auto" if terminal else None,
        highlight=False,
        emoji=False,
        markup=False,
    )
    rows = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for finding in shown:
        word, style = MARKS[finding.passed]
        rows.add_row(Text(f"  {word}", style), finding.name, Text(printable(finding.detail)))
    console.print(Text(printable(str(path)), "bold"), soft_wrap=True)
    console.print(rows)
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n")).rstrip()


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
