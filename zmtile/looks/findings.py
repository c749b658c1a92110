"""What `zmtile check` prints: findings as a table, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from zmtile.console import printable
from zmtile.errors import UsageError
from zmtile.jsonout import SCHEMA_VERSION, plain
from zmtile.looks.check import Finding, check_image, check_limit
from zmtile.richtext import RichText

__all__ = ["Findings", "as_plain", "exit_code", "judged", "table"]

MARKS = {True: ("ok", "green"), False: ("FAILED", "bold red"), None: ("-", "dim")}


# Of one file: what was found, or why it cannot be read.
Findings = tuple[Finding, ...] | UsageError


def judged(paths: Sequence[Path], max_step: float) -> Iterator[tuple[Path, Findings]]:
    """Yield each file with its findings; one that cannot be read keeps none from being judged.

    Raises
    ------
    UsageError
        When the limit makes no sense.
    """
    check_limit(max_step)
    for path in paths:
        try:
            yield path, check_image(path, max_step)
        except UsageError as error:
            yield path, error


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


def as_plain(found: Mapping[Path, Findings]) -> dict[str, Any]:
    """Return the findings of all files as JSON can hold them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "passed": exit_code(found) == 0,
        "tiles": [{"path": str(path), **_plain_of(findings)} for path, findings in found.items()],
    }


def _plain_of(findings: Findings) -> dict[str, Any]:
    if isinstance(findings, UsageError):
        return {"findings": [], "error": findings.what, "remedy": findings.remedy}
    return {"findings": [plain(finding) for finding in findings], "error": None, "remedy": ""}


def exit_code(found: Mapping[Path, Findings]) -> int:
    """Return that of the worst file: one that cannot be read, one that fails, one that passes."""
    if any(isinstance(findings, UsageError) for findings in found.values()):
        return UsageError.exit_code
    return int(
        any(
            finding.passed is False
            for findings in found.values()
            if not isinstance(findings, UsageError)
            for finding in findings
        )
    )
