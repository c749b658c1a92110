"""Charts of a report: what was measured of each frame, as drawings that follow the page's colours."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from zmtile.options import LEVELLED, SCALED
from zmtile.report.maps import round_steps
from zmtile.tiles.records import FrameRecord
from zmtile.tiles.tile import Tile

__all__ = [
    "Chart",
    "Quantity",
    "coverage_chart",
    "frame_charts",
    "not_matched",
    "rejected_share",
    "sky_above",
]

WIDTH, HEIGHT = 330, 150
LETTER = 7.0  # width of a digit in a label, with room to the next label
CHANNEL_COLOURS = ("#dc4b46", "#2f9e57", "#3b82d6")
MONO_COLOUR = "#8a6fd4"
LEFT_OUT_COLOUR = "#d9822b"
SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", SVG)


@dataclass(frozen=True)
class Quantity:
    """What a chart shows.

    Attributes
    ----------
    title, unit : str
    form : str
        How a value is written.
    values : callable
        From a frame to its values, one or one for each channel; NaN where it is not known.
    zero : bool
        The axis begins at 0.
    matched_by : tuple of str, optional
        Normalizations that measure it. With others FRAMES holds what changes nothing, 0 or 1, whatever
        the frame is like.
    """

    title: str
    unit: str
    form: str
    values: Callable[[FrameRecord], Sequence[float]]
    zero: bool = False
    matched_by: tuple[str, ...] | None = None

    def measured(self, normalize: str) -> bool:
        """Tell whether a normalization measures it."""
        return self.matched_by is None or normalize in self.matched_by

    def told(self, frame: FrameRecord) -> str:
        """Return the title, the values and the unit."""
        known = " / ".join(format(v, self.form) if math.isfinite(v) else "–" for v in self.values(frame))
        return f"{self.title} {known} {self.unit}".rstrip()


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes
    ----------
    title, unit : str
    svg : str
        In it, the marks are of class ``mark`` and say what they show in ``aria-label``. One that stands
        for a frame has its row in FRAMES as ``data-frame``.
    """

    title: str
    unit: str
    svg: str


def sky_above(frame: FrameRecord) -> tuple[float, ...]:
    """Return by how much the scaled sky of a frame is above that of the reference, ADU, for each channel."""
    return tuple(0.0 - offset for offset in frame.offset)


def rejected_share(frame: FrameRecord, samples: int) -> float:
    """Return which fraction of the samples that a frame has in a tile of so many was rejected."""
    own = frame.footprint * samples
    return (frame.nrejlow + frame.nrejhigh) / own if own > 0 else math.nan


def _quantities(samples: int, reference: str) -> tuple[Quantity, ...]:
    def matched(frame: FrameRecord, value: float) -> tuple[float]:
        """Return NaN for the reference, which is matched with nothing."""
        return (value if frame.name != reference else math.nan,)

    return (
        Quantity("FWHM", "px", ".2f", lambda f: (f.fwhm,)),
        Quantity("Residual", "px", ".3f", lambda f: matched(f, f.rms), True),
        Quantity("Stars matched", "", ".0f", lambda f: matched(f, f.nmatch or math.nan), True),
        Quantity("Sky above the reference", "ADU", "+.1f", sky_above, matched_by=LEVELLED),
        Quantity("Noise before scaling", "ADU", ".2f", lambda f: f.noise),
        Quantity("Scale", "", ".4f", lambda f: f.scale, matched_by=SCALED),
        Quantity("Weight", "", ".3f", lambda f: f.weight, True),
        Quantity("Rejected", "%", ".3f", lambda f: (100 * rejected_share(f, samples),), True),
    )


def frame_charts(tile: Tile, reference: str) -> Iterator[Chart]:
    """Yield a chart of each quantity against the number of the frame; none of what was not measured.

    Parameters
    ----------
    tile : Tile
    reference : str
        Name of the reference frame.
    """
    for quantity in _quantities(tile.image.size, reference):
        if not quantity.measured(_normalize(tile)):
            continue
        points = list(_points(quantity, tile.frames, reference))
        if points:
            yield Chart(quantity.title, quantity.unit, _by_frame(quantity, points, tile.frames))


def not_matched(tile: Tile) -> str:
    """Return which charts the tile's normalization leaves out, and why; '' for none."""
    titles = [q.title for q in _quantities(tile.image.size, "") if not q.measured(_normalize(tile))]
    if not titles:
        return ""
    many, normalize = len(titles) > 1, _normalize(tile)
    why = "the header does not tell whether the frames were matched (no ZMT_NORM)"
    if normalize:
        why = f"the frames were not matched in {'them' if many else 'it'} (ZMT_NORM is {normalize})"
    return f"No chart{'s' * many} of {' and '.join(titles).lower()}: {why}."


def _normalize(tile: Tile) -> str:
    return str(tile.header.get("ZMT_NORM", ""))


def _points(quantity: Quantity, frames: Sequence[FrameRecord], reference: str) -> Iterator[dict[str, Any]]:
    for index, frame in enumerate(frames):
        kind = "left out" if not frame.used else "reference" if frame.name == reference else "used"
        values = quantity.values(frame)
        colours = CHANNEL_COLOURS if len(values) == 3 else (MONO_COLOUR,)
        for value, colour in zip(values, colours, strict=True):
            if math.isfinite(value):
                shown = colour if frame.used else LEFT_OUT_COLOUR
                yield {"row": str(index), "number": index + 1, "value": value, "kind": kind, "colour": shown}


def _by_frame(quantity: Quantity, points: list[dict[str, Any]], frames: Sequence[FrameRecord]) -> str:
    size = 30 if len(frames) > 60 else 45
    mark = {"type": "point", "filled": True, "opacity": 0.9}
    steps = round_steps(0.5, len(frames) + 0.5)
    numbers = [round(value) for value, _ in steps if value == round(value)]
    encoding = {
        "x": {
            "field": "number",
            "type": "quantitative",
            "axis": {"title": None, "values": numbers, "grid": False, "format": "d"},
            "scale": {"domain": [0.5, len(frames) + 0.5], "nice": False},
        },
        "y": {
            "field": "value",
            "type": "quantitative",
            "axis": {"title": None, "tickCount": 5},
            "scale": _scale(quantity, points),
        },
        "size": {"condition": {"test": "datum.kind != 'used'", "value": 2 * size}, "value": size},
        "color": {"field": "colour", "type": "nominal", "scale": None},
        "shape": {
            "field": "kind",
            "type": "nominal",
            "legend": None,
            "scale": {"domain": ["used", "reference", "left out"], "range": ["circle", "diamond", "cross"]},
        },
        "description": {"field": "row", "type": "nominal"},
    }
    drawn = _svg({"data": {"values": points}, "mark": mark, "encoding": encoding})
    for element in drawn.iter():
        row = element.get("aria-label", "")
        if element.get("aria-roledescription") == "point":
            _stripped(element)
            element.set("data-frame", row)
            element.set("aria-label", quantity.told(frames[int(row)]))
    return _written(drawn, f"{quantity.title} of each frame")


def _scale(quantity: Quantity, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    values = [point["value"] for point in points]
    low, high = min(values), max(values)
    if low == high:  # Vega would draw an axis of one label, rounded
        room = abs(low) * 0.1 or 1.0
        return {"domain": [0.0 if quantity.zero else low - room, high + room]}
    return {"zero": quantity.zero, "nice": True, **({} if quantity.zero else {"padding": 6})}


def coverage_chart(histogram: Sequence[dict[str, float]]) -> Chart:
    """Return how many of the pixels have how many frames.

    Parameters
    ----------
    histogram : sequence of dict
        With ``from``, ``to`` and ``fraction``, as `zmtile.looks.facts.facts_of` has it.
    """
    bars = []
    for part in histogram:
        first, last = int(part["from"]), int(part["to"])
        span = f"{first}" if first == last else f"{first}–{last}"
        told = f"{span} frames: {part['fraction']:.2%} of the pixels"
        bars.append({"span": span, "share": part["fraction"], "told": told})
    # Every bar has its label: aslant where they would touch.
    room = WIDTH / max(len(bars), 1)
    aslant = max((len(str(bar["span"])) for bar in bars), default=0) * LETTER > room
    bottom = {"title": None, "labelAngle": -45 if aslant else 0, "labelOverlap": False}
    encoding = {
        "x": {"field": "span", "type": "ordinal", "sort": None, "axis": bottom},
        "y": {
            "field": "share",
            "type": "quantitative",
            "axis": {"title": None, "format": "%", "tickCount": 5},
        },
        "description": {"field": "told", "type": "nominal"},
    }
    mark = {"type": "bar", "color": MONO_COLOUR}
    drawn = _svg({"data": {"values": bars}, "mark": mark, "encoding": encoding})
    for element in drawn.iter():
        if element.get("aria-roledescription") == "bar":
            told = element.get("aria-label", "")
            _stripped(element)
            element.set("aria-label", told)
    return Chart("Pixels by their number of frames", "", _written(drawn, "Pixels by their number of frames"))


def _stripped(element: ElementTree.Element) -> None:
    """Take away what a mark has by default, and digits that nobody sees: thousands of them are heavy."""
    for name in ("aria-label", "aria-roledescription", "role", "stroke-width", "opacity"):
        element.attrib.pop(name, None)
    element.set("class", "mark")
    for name in ("transform", "d"):
        if name in element.attrib:
            element.set(name, re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.1f}", element.attrib[name]))


def _svg(spec: dict[str, Any]) -> ElementTree.Element:
    """Draw a chart of Vega-Lite."""
    import vl_convert

    ink = "currentColor"
    axis = {
        "aria": False,
        **{f"{part}Color": ink for part in ("label", "tick", "domain", "grid")},
        "gridOpacity": 0.12,
        "domainOpacity": 0.35,
        "tickOpacity": 0.35,
        "labelOverlap": "greedy",
        "labelSeparation": 4,
        "labelFontSize": 11,
        "labelOpacity": 0.75,
    }
    config = {
        "font": "system-ui, sans-serif",
        "axis": axis,
        "view": {"stroke": None},
        "background": None,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"left": 2, "right": 8, "top": 7, "bottom": 2},
    }
    whole = {"width": WIDTH, "height": HEIGHT, "config": config, **spec}
    drawn = ElementTree.fromstring(vl_convert.vegalite_to_svg(whole))
    for element in drawn.iter():
        if not element.get("aria-label"):  # no mark
            for name in ("aria-hidden", "aria-roledescription", "role", "class", "pointer-events"):
                element.attrib.pop(name, None)
    return drawn


def _written(drawn: ElementTree.Element, title: str) -> str:
    """Return a drawing as text that fits the width of where it stands."""
    for name in ("width", "height", "class", "version"):
        drawn.attrib.pop(name, None)
    drawn.set("role", "img")
    drawn.set("aria-label", title)
    return ElementTree.tostring(drawn, encoding="unicode")
