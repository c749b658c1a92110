"""The header of the tile: what it is, what it was made of, and every choice that shaped it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

from astropy.io import fits

from zmtile import __version__
from zmtile.frames.calibrate import Calibration
from zmtile.frames.frame import Frame, get
from zmtile.options import Options
from zmtile.registration.models import MODELS
from zmtile.tiles.keywords import KEYWORDS, POINTING, SHARED, Keyword, ascii_text, file_text, iso, set_card

__all__ = ["KEYWORDS", "Keyword", "default_name", "tile_header", "tile_id"]


def tile_header(
    reference: Frame,
    used: Sequence[Frame],
    *,
    options: Options,
    canvas_origin: tuple[int, int],
    shape: tuple[int, ...],
    n_inputs: int,
    wcs_cards: fits.Header | None,
    tile_id: str,
    models: Sequence[str],
    sky_degree: int,
    calibration: Calibration | None = None,
    backend: str = "cpu",
) -> fits.Header:
    """Return the header of the tile, without the keywords that describe the array itself.

    Parameters
    ----------
    reference : Frame
    used : sequence of Frame
        The frames that were stacked, the reference among them.
    options : Options
    canvas_origin : (int, int)
        Reference pixel (x0, y0) that is tile pixel (0, 0).
    shape : tuple of int
        Shape of the image: (rows, cols) or (3, rows, cols).
    n_inputs : int
        Frames given, those left out included.
    wcs_cards : fits.Header or None
        From `zmtile.registration.wcs.tile_wcs`.
    tile_id : str
        From `tile_id`.
    models : sequence of str
        Models of the frames' transforms.
    sky_degree : int
        Of the sky surfaces, 0 to 2.
    calibration : Calibration, optional
        The masters that were used.
    backend : {'cpu', 'gpu'}
        Where the pixels were computed.

    Returns
    -------
    fits.Header
        Of each camera's keywords, those that all frames used share, value for value.
    """
    order = str(get(reference.header, "ROWORDER", "")).strip().upper()
    values: dict[str, Any] = {
        "BUNIT": "adu",
        "ROWORDER": order if order in ("TOP-DOWN", "BOTTOM-UP") else "TOP-DOWN",
        **_times(used),
        **{k.name: value for k in POINTING if (value := _plain(reference, k.name)) is not None},
        **_shared(used),
        "PROGRAM": "zmtile",
        "CREATOR": f"zmtile {__version__}",
        "ZMT_TYPE": "Master Tile",
        "ZMT_ID": tile_id,
        "ZMT_NRAW": n_inputs,
        "ZMT_NALGN": len(used),
        "MT_NFRAMES": len(used),
        "NEXP_SUM": len(used),
        "ZMT_REF": file_text(reference.name),
        "ZMT_X0": int(canvas_origin[0]),
        "ZMT_Y0": int(canvas_origin[1]),
        "ZMT_BACK": backend,
        "ZMT_PMSK": True,
        "ZMT_NANS": True,
        "ALPHAEXT": "ALPHA",
        **_choices(options),
        "ZMT_SDEG": sky_degree,
        "ZMT_MODL": max(models, key=MODELS.index),
        **(_masters(calibration) if calibration else {}),
    }
    header = fits.Header()
    for name, value in values.items():
        set_card(header, name, value)
    if wcs_cards is not None:
        header.extend(wcs_cards.cards, update=True)
        if len(shape) == 3 and "A_ORDER" not in wcs_cards:
            _add_colour_axis(header)
    return header


def _add_colour_axis(header: fits.Header) -> None:
    """Declare the third axis of a colour tile.

    Without it, readers complete the matrix with a zero for the third axis, and warn that they had
    to mend it. With SIP, which is defined for two axes, they must be told to read two in any case.
    """
    header["WCSAXES"] = (3, "celestial axes, and one of colours")
    header.set("CTYPE3", "RGB", "colour plane", after="CRVAL2")
    header.set("CRPIX3", 1.0, "first plane", after="CTYPE3")
    header.set("CRVAL3", 1.0, "red, green, blue = 1, 2, 3", after="CRPIX3")
    header.set("CD3_3", 1.0, "planes", after="CD2_2")


def _mjd(date: datetime) -> float:
    return round((date - datetime(1858, 11, 17, tzinfo=UTC)) / timedelta(days=1), 8)


def _times(used: Sequence[Frame]) -> dict[str, Any]:
    """Return exposures and dates of the frames used; what cannot be known is left out."""
    values: dict[str, Any] = {}
    exposures = [frame.exposure for frame in used if math.isfinite(frame.exposure)]
    if exposures:
        values["EXPTIME"] = round(math.fsum(exposures) / len(exposures), 6)
    if exposures and len(exposures) == len(used):  # a sum over some of them would be taken for the whole
        values["LIVETIME"] = values["EXPTOTAL"] = round(math.fsum(exposures), 6)
    values["STACKCNT"] = values["NCOMBINE"] = len(used)
    values["TIMESYS"] = "UTC"
    spans = [(f.date, f.exposure if math.isfinite(f.exposure) else 0.0) for f in used if f.date is not None]
    if not spans:
        return values
    first = min(date for date, _ in spans)
    middles = [(date - first).total_seconds() + exposure / 2 for date, exposure in spans]
    weights = [exposure for _, exposure in spans]
    if not sum(weights):
        weights = [1.0] * len(spans)
    mean = math.fsum(m * w for m, w in zip(middles, weights, strict=True)) / math.fsum(weights)
    dates = {
        "OBS": first,
        "BEG": first,
        "AVG": first + timedelta(seconds=mean),
        "END": max(date + timedelta(seconds=exposure) for date, exposure in spans),
    }
    values |= {f"DATE-{which}": iso(date) for which, date in dates.items()}
    return values | {f"MJD-{which}": _mjd(date) for which, date in dates.items()}


def _plain(frame: Frame, name: str) -> bool | int | float | str | None:
    """Return a header value of a type that can be written again, or None."""
    value = get(frame.header, name)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) else None


def _shared(used: Sequence[Frame]) -> dict[str, Any]:
    """Return the keywords that all frames have with one value."""
    values: dict[str, Any] = {}
    for keyword in SHARED:
        first = _plain(used[0], keyword.name)
        if first is not None and all(_plain(frame, keyword.name) == first for frame in used[1:]):
            values[keyword.name] = first
    return values


def _masters(calibration: Calibration) -> dict[str, Any]:
    """Return what the masters were, and what became of the dark."""
    values: dict[str, Any] = {
        f"ZMT_{kind[0].upper()}SHA": master.sha256[:16] for kind, master in calibration.masters.items()
    }
    if "dark" in calibration.masters:
        values["ZMT_DSCL"] = calibration.dark_exposure is not None
    return values


def _choices(options: Options) -> dict[str, Any]:
    """Return every option as keywords; `fill` is written with the file, and `planes` are its extensions."""
    return {
        "ZMT_ARUL": "automatic" if options.reference is None else "by the user",
        **{
            f"ZMT_{kind.upper()}": file_text(PurePath(path).name) if path else "none"
            for kind, path in (("bias", options.bias), ("dark", options.dark), ("flat", options.flat))
        },
        "ZMT_HOT": options.hot_pixels,
        "ZMT_ALGN": options.align,
        "ZMT_XFRM": options.transform,
        "ZMT_FRAM": options.framing,
        "ZMT_CFA": options.cfa,
        "ZMT_KERN": "nearest" if options.cfa == "direct" else options.kernel,
        "ZMT_CLMP": options.clamp and options.cfa != "direct",
        "ZMT_NORM": options.normalize,
        "ZMT_WGHT": options.weight,
        "ZMT_FEAT": float(options.feather),
        "ZMT_REJ": options.reject,
        "ZMT_KLOW": float(options.kappa[0]),
        "ZMT_KHI": float(options.kappa[1]),
        "ZMT_WLOW": float(options.winsor_limits[0]),
        "ZMT_WHI": float(options.winsor_limits[1]),
        "ZMT_RWIN": options.rewinsorize,
        "ZMT_ESDF": float(options.esd_outliers),
        "ZMT_ESDA": float(options.esd_alpha),
        "ZMT_MMLO": int(options.minmax[0]),
        "ZMT_MMHI": int(options.minmax[1]),
        "ZMT_GROW": options.grow,
        "ZMT_COMB": options.combine,
        "ZMT_MINC": options.min_coverage,
        "ZMT_MINF": options.min_frames or 0,
        "ZMT_SKIP": options.skip_unreadable,
        "ZMT_RFRM": ", ".join(options.reject_frames) or "none",
    }


def tile_id(hashes: Sequence[str], options: Options, masters: Sequence[str] = ()) -> str:
    """Return a short name for what the tile is: the same frames, masters and options give the same one.

    Parameters
    ----------
    hashes : sequence of str
        SHA-256 of the frames used, in any order.
    options : Options
    masters : sequence of str
        SHA-256 of the bias, the dark and the flat, in this order; '' for one that was not given.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    choices = options.as_dict()
    apart = ("fill", "planes", "min_frames", "skip_unreadable", "reject_frames", "bias", "dark", "flat")
    for how_it_is_written in apart:
        del choices[how_it_is_written]
    if choices["reference"]:
        choices["reference"] = PurePath(choices["reference"]).name
    told = json.dumps([sorted(hashes), list(masters), choices], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def default_name(reference: Frame, used: Sequence[Frame]) -> str:
    """Return the tile's file name when the user gives none.

    ``master_tile_<object>_<filter>.fits``, without the parts that are not known. When neither is,
    the reference's name takes their place: the files that ZeMosaic finds, and those that zmtile
    passes over when it reads a folder, begin with ``master_tile_``.
    """
    filters = {str(_plain(frame, "FILTER") or "") for frame in used}
    parts = [str(_plain(reference, "OBJECT") or ""), filters.pop() if len(filters) == 1 else ""]
    safe = [part for part in map(_safe, parts) if part]
    if not safe:
        safe = [_safe(PurePath(reference.name).name.partition(".")[0]) or "unnamed"]
    return f"master_tile_{'_'.join(safe)}.fits"


def _safe(text: str) -> str:
    """Return the text with nothing in it that a file system or a shell could take amiss."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", ascii_text(text)).strip("._-")[:60]
