"""Facts: what a tile is made of, as plain values."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.jsonout import SCHEMA_VERSION, plain
from zmtile.looks.skyimage import SkyImage
from zmtile.rules import Rule, parse_rule
from zmtile.tiles.records import FrameRecord
from zmtile.tiles.tile import Tile

__all__ = ["SORT_KEYS", "facts_of", "frame_value", "sorted_frames"]

# Header keywords that say how the pixels were made, in the order in which they are shown.
METHOD = (
    ("rejection", "ZMT_REJ"),
    ("combination", "ZMT_COMB"),
    ("weights", "ZMT_WGHT"),
    ("matched", "ZMT_NORM"),
    ("interpolation", "ZMT_KERN"),
    ("transform", "ZMT_MODL"),
    ("framing", "ZMT_FRAM"),
    ("computed on", "ZMT_BACK"),
)
SUBJECT = ("OBJECT", "FILTER", "INSTRUME", "TELESCOP")
SORT_KEYS = ("name", "date", "exposure", "stars", "matched", "rms", "fwhm", "noise", "scale", "weight")
_BARS = 12


def facts_of(sky: SkyImage) -> dict[str, Any]:
    """Return what there is to tell of an image.

    Parameters
    ----------
    sky : SkyImage
        A tile, or an image of another program, of which less is known.

    Returns
    -------
    dict
        Strings, numbers, lists and dicts only; None for what is not known.
    """
    header, tile = sky.header, sky.tile
    channels, rows, cols = sky.image.shape
    facts: dict[str, Any] = {
        "path": str(sky.path),
        "program": _text(header, "CREATOR") or _text(header, "PROGRAM") or _text(header, "SWCREATE"),
        "rows": rows,
        "cols": cols,
        "channels": channels,
        "subject": {key: value for key in SUBJECT if (value := _text(header, key))},
        "data": float(np.isfinite(sky.image).mean()),
        "sky": [_sky(plane) for plane in sky.image],
        "tile": None,
    }
    if tile is not None:
        facts["tile"] = _tile_facts(tile)
    made: dict[str, Any] = plain(facts)
    return made | {"schema_version": SCHEMA_VERSION}


def _text(header: Any, key: str) -> str:
    value = header.get(key, "")
    return value.strip() if isinstance(value, str) else ""


def _sky(plane: NDArray[np.float32]) -> dict[str, float]:
    """Median of a channel, and sigma of a pixel from differences of pixels four apart."""
    values = plane[np.isfinite(plane)]
    steps = (plane[:, 4:] - plane[:, :-4]).ravel()
    steps = steps[np.isfinite(steps)]
    return {
        "level": float(np.median(values)) if values.size else math.nan,
        "noise": 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2) if steps.size else math.nan,
    }


def _tile_facts(tile: Tile) -> dict[str, Any]:
    header = tile.header
    used = [frame for frame in tile.frames if frame.used]
    others = [frame for frame in used if frame.rms > 0]
    samples = max(int(tile.coverage.sum(dtype="int64")), 1)
    return {
        "id": _text(header, "ZMT_ID"),
        "frames": len(tile.frames),
        "used": len(used),
        "reference": unquote(_text(header, "ZMT_REF"), errors="surrogateescape"),
        "exposure": header.get("LIVETIME"),
        "exposure_mean": header.get("EXPTIME"),
        "begun": _text(header, "DATE-BEG"),
        "ended": _text(header, "DATE-END"),
        "method": {name: header[key] for name, key in METHOD if key in header},
        "coverage": _histogram(tile.coverage),
        "rejected_low": int(tile.rejlow.sum(dtype="int64")) / samples,
        "rejected_high": int(tile.rejhigh.sum(dtype="int64")) / samples,
        "rms_median": _median([f.rms for f in others]),
        "rms_largest": max((f.rms for f in others), default=math.nan),
        "fwhm_median": _median([f.fwhm for f in used]),
        "left_out": [{"name": f.name, "reason": f.reason} for f in tile.frames if not f.used],
    }


def _median(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return float(np.median(known)) if known else math.nan


def _histogram(coverage: NDArray[np.uint16]) -> list[dict[str, float]]:
    """Fraction of the pixels for each number of frames, in at most a dozen ranges; 0 stands alone."""
    counts = np.bincount(coverage.ravel())
    top = counts.size - 1
    edges = sorted({0, 1, *np.ceil(np.linspace(1, top + 1, min(top, _BARS) + 1)).astype(int).tolist()})
    return [
        {"from": first, "to": last - 1, "fraction": float(counts[first:last].sum() / coverage.size)}
        for first, last in zip(edges, [*edges[1:], top + 1], strict=True)
        if first < last
    ]


def frame_value(frame: FrameRecord, key: str) -> Any:
    """Return what a frame is sorted by, or what a rule asks of it; NaN where it is not known."""
    if key == "name":  # light_2 before light_10
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", frame.name)]
    if key == "date":
        return frame.date.timestamp() if frame.date else math.nan
    value: Any = getattr(frame, {"stars": "nstars", "matched": "nmatch"}.get(key, key))
    return float(np.mean(value))


def sorted_frames(
    frames: Sequence[FrameRecord], sort: str | None = None, where: Sequence[str] = ()
) -> list[FrameRecord]:
    """Return the frames for which all rules hold, in the order asked for.

    Parameters
    ----------
    frames : sequence of FrameRecord
    sort : str, optional
        One of `SORT_KEYS`, with ``-`` before it for the largest first; frames of which it is not
        known come last. Without it, the order of the table.
    where : sequence of str
        Rules such as ``fwhm>1.2*median``; the median is that of the frames used.

    Raises
    ------
    UsageError
        For a key or a rule that does not exist, or a quantity that the table does not hold.
    """
    chosen = list(frames)
    for rule in map(parse_rule, where):
        if rule.quantity not in SORT_KEYS:
            known = ", ".join(key for key in SORT_KEYS[2:])
            raise UsageError(f"FRAMES does not hold {rule.quantity}", f"Choose one of {known}.")
        chosen = _that_hold(rule, chosen, frames)
    if sort is None:
        return chosen
    key, downwards = sort.lstrip("-"), sort.startswith("-")
    if key not in SORT_KEYS:
        raise UsageError(f"frames cannot be sorted by {key!r}", f"Choose one of {', '.join(SORT_KEYS)}.")
    values = [(frame_value(frame, key), frame) for frame in chosen]
    unknown = [frame for value, frame in values if isinstance(value, float) and math.isnan(value)]
    known_ones = [pair for pair in values if not (isinstance(pair[0], float) and math.isnan(pair[0]))]
    known_ones.sort(key=lambda pair: pair[0], reverse=downwards)
    return [frame for _, frame in known_ones] + unknown


def _that_hold(rule: Rule, chosen: Sequence[FrameRecord], frames: Sequence[FrameRecord]) -> list[FrameRecord]:
    median = _median([frame_value(frame, rule.quantity) for frame in frames if frame.used])
    return [frame for frame in chosen if rule.holds(frame_value(frame, rule.quantity), median)]
