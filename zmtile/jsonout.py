"""What a build did, as plain values: the source of the JSON output and of the printed summary."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmtile import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zmtile.pipeline import Plan
    from zmtile.tiles.tile import Tile

__all__ = ["SCHEMA_VERSION", "dumps", "dumps_error", "report_of", "rounded"]

SCHEMA_VERSION = 1  # goes up when a key changes its meaning or goes away


def report_of(
    plan: Plan, tile: Tile | None, output: Path, seconds: dict[str, float], page: Path | None = None
) -> dict[str, Any]:
    """Return what there is to tell of a build.

    Parameters
    ----------
    plan : Plan
    tile : Tile or None
        None after a dry run.
    output : Path
        The file written, or the one that would be.
    seconds : dict of str to float
        Time spent in each stage.
    page : Path, optional
        The report that was asked for.

    Returns
    -------
    dict
        Strings, numbers, lists and dicts only; None for what is not known.
    """
    records = plan.records if tile is None else tile.frames
    left_out = sum(not r.used for r in records)
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "zmtile": __version__,
        "output": str(output),
        "report": None if page is None else str(page),
        "dry_run": tile is None,
        "exit_code": 1 if any(not r.used and not r.rule for r in records) else 0,
        "options": plain(plan.options.as_dict()),
        "reference": plan.reference,
        "canvas": plain(plan.canvas),
        "planned_memory": plan.planned_memory,
        "used": len(records) - left_out,
        "left_out": left_out,
        "frames": [plain(r) for r in records],
        "coverage": None,
        "rejected": None,
        "seconds": rounded(seconds),
    }
    if tile is not None:
        import numpy as np

        counts = _histogram(tile.coverage)
        report["coverage"] = _coverage(counts, plan.options.min_coverage)
        samples = max(int((np.arange(counts.size) * counts).sum()), 1)
        report["rejected"] = {
            "low": sum(r.nrejlow for r in records if r.used) / samples,
            "high": sum(r.nrejhigh for r in records if r.used) / samples,
        }
    return report


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    """Return the time of the stages, in milliseconds what is behind the point."""
    return {stage: round(spent, 3) for stage, spent in seconds.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: NaN and infinity become None."""
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array, or one number of numpy's
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _histogram(plane: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return how many pixels have 0, 1, 2 … frames; most parts of a tile have one number of them."""
    import numpy as np

    rows, cols = plane.reshape(-1, plane.shape[-1]), plane.shape[-1]
    counts = np.zeros(int(plane.max(initial=0)) + 1, np.int64)
    for top in range(0, len(rows), 64):
        for left in range(0, cols, 512):
            part = rows[top : top + 64, left : left + 512]
            if (lowest := part.min()) == part.max():
                counts[lowest] += part.size
            else:
                counts += np.bincount(part.reshape(-1), minlength=counts.size)
    return counts


def _coverage(counts: NDArray[np.int64], least: int) -> dict[str, float]:
    """Return how many frames the pixels have; a histogram tells, a median would copy the plane."""
    import numpy as np

    total = np.cumsum(counts)
    return {
        "min": int(np.searchsorted(total, 1)),
        "median": int(np.searchsorted(total, (total[-1] + 1) // 2)),
        "max": counts.size - 1,
        "covered": float(counts[least:].sum() / max(total[-1], 1)),
    }


def dumps(report: dict[str, Any]) -> str:
    """Return a report as JSON."""
    return json.dumps(report, indent=2, allow_nan=False)


def dumps_error(what: str, remedy: str, exit_code: int, **details: Any) -> str:
    """Return what went wrong as JSON."""
    error = {"schema_version": SCHEMA_VERSION, "error": what, "remedy": remedy, "exit_code": exit_code}
    return dumps(error | details)
