"""The header of the tile: what it is, what it was made of, and every choice that shaped it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import llvmlite.binding

from zmtile import __version__
from zmtile.frames.calibrate import Calibration
from zmtile.frames.frame import Frame, get
from zmtile.options import Options
from zmtile.registration.models import MODELS
from zmtile.tiles.choices import choices_told
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.keywords import KEYWORDS, POINTING, SHARED, Keyword, ascii_text, file_text, iso, set_card

if TYPE_CHECKING:
    from astropy.io import fits

    from zmtile.gpu.device import Facts

__all__ = ["KEYWORDS", "Keyword", "default_name", "tile_header", "tile_id"]


# Other versions of these may sum in another order, and so give other last digits.
LIBRARIES = ("numpy", "scipy", "astropy", "astroalign", "sep", "numba", "llvmlite")


def tile_header(
    reference: Frame,
    used: Sequence[Frame],
    *,
    options: Options,
    canvas_origin: tuple[int, int],
    shape: tuple[int, ...],
    n_inputs: int,
    wcs_cards: fits.Header | None,
    hashes: Sequence[str],
    models: Sequence[str],
    sky_degree: int,
    calibration: Calibration | None = None,
    gpu: Facts | None = None,
) -> HeaderText:
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
    hashes : sequence of str
        SHA-256 of the frames used.
    models : sequence of str
        Models of the frames' transforms.
    sky_degree : int
        Of the sky surfaces, 0 to 2.
    calibration : Calibration, optional
        The masters that were used.
    gpu : Facts, optional
        The GPU that computed the pixels; the CPU did when not given.

    Returns
    -------
    HeaderText
        Of each camera's keywords, those that all frames used share, value for value.
    """
    ran = replace(options, sky_degree=sky_degree or None)
    home = next(sha for frame, sha in zip(used, hashes, strict=True) if frame is reference)
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
        "ZMT_ID": tile_id(hashes, ran, home, calibration.hashes if calibration else ()),
        "ZMT_NRAW": n_inputs,
        "ZMT_NALGN": len(used),
        "MT_NFRAMES": len(used),
        "NEXP_SUM": len(used),
        "ZMT_REF": file_text(reference.name),
        "ZMT_X0": int(canvas_origin[0]),
        "ZMT_Y0": int(canvas_origin[1]),
        "ZMT_BACK": "gpu" if gpu else "cpu",
        **({"ZMT_GPU": file_text(gpu.name)} if gpu else {}),
        "ZMT_CPU": llvmlite.binding.get_host_cpu_name(),
        "ZMT_LIBS": ", ".join([*(f"{name} {version(name)}" for name in LIBRARIES), *_cuda(gpu)]),
        "ZMT_PMSK": True,
        "ZMT_NANS": True,
        "ALPHAEXT": "ALPHA",
        **choices_told(ran),
        "ZMT_MODL": max(models, key=MODELS.index),
        **(_masters(calibration) if calibration else {}),
    }
    header = HeaderText()
    for name, value in values.items():
        set_card(header, name, value)
    if wcs_cards is not None:
        header.take(wcs_cards)
        if len(shape) == 3 and "A_ORDER" not in wcs_cards:
            _add_colour_axis(header)
    if header.has_long_texts:
        set_card(header, "LONGSTRN", "OGIP 1.0")  # fitsverify warns of long texts without it
    return header


def _cuda(gpu: Facts | None) -> list[str]:
    """Return what compiled the kernels of a GPU."""
    if gpu is None:
        return []
    return [f"cupy {gpu.cupy}", f"CUDA {gpu.runtime[0]}.{gpu.runtime[1]}"]


def _add_colour_axis(header: HeaderText) -> None:
    """Declare the third axis of a colour tile.

    Without it, readers complete the matrix with a zero for the third axis, and warn that they had
    to mend it. With SIP, which is defined for two axes, they must be told to read two in any case.
    """
    header.put("WCSAXES", 3, "celestial axes, and one of colours")
    header.put("CTYPE3", "RGB", "colour plane", after="CRVAL2")
    header.put("CRPIX3", 1.0, "first plane", after="CTYPE3")
    header.put("CRVAL3", 1.0, "red, green, blue = 1, 2, 3", after="CRPIX3")
    header.put("CD3_3", 1.0, "planes", after="CD2_2")


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


def tile_id(hashes: Sequence[str], options: Options, reference: str, masters: Sequence[str] = ()) -> str:
    """Return a short name for what the tile is: the same frames, masters and options give the same one.

    Parameters
    ----------
    hashes : sequence of str
        SHA-256 of the frames used, in any order.
    options : Options
        As they ran: with the degree that the sky surfaces have.
    reference : str
        SHA-256 of the reference; how the user named it makes no difference.
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
    choices["reference"] = ["by the user" if options.reference else "automatic", reference]
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
