"""The keywords of a tile's primary header: one table, from which their comments and the docs are made."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from zmtile.tiles.headertext import HeaderText

__all__ = [
    "KEYWORDS",
    "POINTING",
    "SHARED",
    "Keyword",
    "ascii_text",
    "file_text",
    "iso",
    "keyword_family",
    "set_card",
]


@dataclass(frozen=True)
class Keyword:
    """A keyword of the primary header.

    Attributes
    ----------
    name : str
        Keyword, or the pattern of a family such as ``CDi_j``.
    meaning : str
        Comment of its card.
    """

    name: str
    meaning: str


_TILE = (
    Keyword("BUNIT", "unit of the pixels: ADU of the reference"),
    Keyword("ROWORDER", "order of the rows, as in the reference"),
    Keyword("EXPTIME", "[s] mean exposure of the frames used"),
    Keyword("LIVETIME", "[s] sum of the exposures of the frames used"),
    Keyword("EXPTOTAL", "[s] sum of the exposures of the frames used"),
    Keyword("STACKCNT", "frames used"),
    Keyword("NCOMBINE", "frames used"),
    Keyword("TIMESYS", "time system of the dates"),
    Keyword("DATE-OBS", "start of the first exposure"),
    Keyword("DATE-BEG", "start of the first exposure"),
    Keyword("DATE-AVG", "mean mid-exposure, weighted by exposure"),
    Keyword("DATE-END", "end of the last exposure"),
    Keyword("MJD-OBS", "[d] DATE-OBS as modified Julian date"),
    Keyword("MJD-BEG", "[d] DATE-BEG as modified Julian date"),
    Keyword("MJD-AVG", "[d] DATE-AVG as modified Julian date"),
    Keyword("MJD-END", "[d] DATE-END as modified Julian date"),
)
POINTING = (
    Keyword("OBJECT", "target, as in the reference"),
    Keyword("RA", "pointing of the reference"),
    Keyword("DEC", "pointing of the reference"),
    Keyword("OBJCTRA", "pointing of the reference"),
    Keyword("OBJCTDEC", "pointing of the reference"),
)
SHARED = tuple(
    Keyword(name, f"{meaning} (same in all frames used)")
    for name, meaning in (
        ("INSTRUME", "camera"),
        ("TELESCOP", "telescope"),
        ("FILTER", "filter"),
        ("OBSERVER", "observer"),
        ("SITENAME", "site"),
        ("SITELAT", "latitude"),
        ("SITELONG", "longitude"),
        ("SITEELEV", "altitude"),
        ("FOCALLEN", "[mm] focal length"),
        ("FOCRATIO", "focal ratio"),
        ("APERTURE", "aperture"),
        ("APTDIA", "[mm] diameter"),
        ("XPIXSZ", "[um] pixel"),
        ("YPIXSZ", "[um] pixel"),
        ("PIXSIZE1", "[um] pixel"),
        ("PIXSIZE2", "[um] pixel"),
        ("XBINNING", "binning"),
        ("YBINNING", "binning"),
        ("GAIN", "gain setting"),
        ("EGAIN", "[e/ADU]"),
        ("OFFSET", "offset setting"),
        ("ISOSPEED", "ISO speed"),
        ("READOUTM", "readout mode"),
        ("CCD-TEMP", "[C] sensor"),
        ("SET-TEMP", "[C] set point"),
        ("FOCUSPOS", "focuser"),
        ("FOCPOS", "focuser"),
    )
)
_PROVENANCE = (
    Keyword("PROGRAM", "program that made the tile"),
    Keyword("CREATOR", "program and version"),
    Keyword("ZMT_TYPE", "kind of image"),
    Keyword("ZMT_ID", "hash of frames and options"),
    Keyword("ZMT_NRAW", "frames given"),
    Keyword("ZMT_NALGN", "frames used"),
    Keyword("MT_NFRAMES", "frames used"),
    Keyword("NEXP_SUM", "exposures used"),
    Keyword("ZMT_REF", "reference frame"),
    Keyword("ZMT_X0", "reference column of tile pixel (0, 0)"),
    Keyword("ZMT_Y0", "reference row of tile pixel (0, 0)"),
    Keyword("ZMT_BACK", "where the pixels were computed"),
    Keyword("ZMT_GPU", "the GPU"),
    Keyword("ZMT_CPU", "processor that the kernels were compiled for"),
    Keyword("ZMT_LIBS", "libraries that computed"),
    Keyword("ZMT_PMSK", "footprints propagated"),
    Keyword("ZMT_NANS", "rejection ignores NaN"),
    Keyword("ALPHAEXT", "extension with the footprint, 255 inside"),
    Keyword("ZMT_BSHA", "SHA-256 of the master bias, its first digits"),
    Keyword("ZMT_DSHA", "SHA-256 of the master dark, its first digits"),
    Keyword("ZMT_FSHA", "SHA-256 of the master flat, its first digits"),
    Keyword("ZMT_DSCL", "dark scaled to the exposure of each frame"),
    Keyword("ZMT_FILL", "value in place of NaN; see MASK and COVERAGE"),
)
_CHOICES = (
    Keyword("ZMT_ARUL", "how the reference was chosen"),
    Keyword("ZMT_BIAS", "master bias"),
    Keyword("ZMT_DARK", "master dark"),
    Keyword("ZMT_FLAT", "master flat"),
    Keyword("ZMT_HOT", "hot pixels are no data"),
    Keyword("ZMT_ALGN", "alignment"),
    Keyword("ZMT_XFRM", "transform"),
    Keyword("ZMT_MODL", "richest model of any frame"),
    Keyword("ZMT_FRAM", "extent of the tile"),
    Keyword("ZMT_CFA", "how a mosaic became colour"),
    Keyword("ZMT_KERN", "interpolation"),
    Keyword("ZMT_CLMP", "interpolation clamped"),
    Keyword("ZMT_NORM", "matched to the reference"),
    Keyword("ZMT_SDEG", "degree of the sky surfaces"),
    Keyword("ZMT_WGHT", "weights"),
    Keyword("ZMT_FEAT", "[pixel] weights fall to a frame's edge"),
    Keyword("ZMT_REJ", "rejection"),
    Keyword("ZMT_KLOW", "[sigma] bound below"),
    Keyword("ZMT_KHI", "[sigma] bound above"),
    Keyword("ZMT_WLOW", "fraction winsorized below"),
    Keyword("ZMT_WHI", "fraction winsorized above"),
    Keyword("ZMT_RWIN", "outliers replaced by their bound"),
    Keyword("ZMT_ESDF", "largest fraction that esd rejects"),
    Keyword("ZMT_ESDA", "significance of esd"),
    Keyword("ZMT_MMLO", "samples that minmax drops below"),
    Keyword("ZMT_MMHI", "samples that minmax drops above"),
    Keyword("ZMT_GROW", "[pix] growth of rejected regions"),
    Keyword("ZMT_COMB", "combination of the survivors"),
    Keyword("ZMT_MINC", "fewer frames than this: no data"),
    Keyword("ZMT_MINF", "frames needed (0: the default)"),
    Keyword("ZMT_SKIP", "unreadable files were left out"),
    Keyword("ZMT_RFRM", "rules that every frame used holds"),
)
_WCS = (
    Keyword("WCSAXES", "celestial axes, and one of colours"),
    Keyword("CTYPEi", "coordinate and projection"),
    Keyword("CUNITi", "unit of CRVAL and CD"),
    Keyword("CRPIXi", "reference pixel, first pixel = 1"),
    Keyword("CRVALi", "sky at the reference pixel"),
    Keyword("CDi_j", "deg per pixel"),
    Keyword("PVi_m", "projection parameter"),
    Keyword("LONPOLE", "native longitude of the celestial pole, deg"),
    Keyword("LATPOLE", "native latitude of the celestial pole, deg"),
    Keyword("RADESYS", "celestial frame"),
    Keyword("EQUINOX", "of the celestial frame"),
    Keyword("s_ORDER", "order of a SIP polynomial; s is A, B, AP or BP"),
    Keyword("s_i_j", "SIP coefficient"),
)
_FILE = (
    Keyword("LONGSTRN", "long texts go on in CONTINUE cards"),
    Keyword("CHECKSUM", "checksum of the HDU"),
    Keyword("DATASUM", "checksum of the data"),
)
KEYWORDS = (*_TILE, *POINTING, *SHARED, *_PROVENANCE, *_CHOICES, *_WCS, *_FILE)
_MEANINGS = {keyword.name: keyword.meaning for keyword in KEYWORDS}

_FAMILIES = (
    (re.compile(r"(CTYPE|CUNIT|CRPIX|CRVAL)\d$"), r"\1i"),
    (re.compile(r"CD\d_\d$"), "CDi_j"),
    (re.compile(r"PV\d_\d+$"), "PVi_m"),
    (re.compile(r"[AB]P?_ORDER$"), "s_ORDER"),
    (re.compile(r"[AB]P?_\d_\d$"), "s_i_j"),
)


def keyword_family(name: str) -> str:
    """Return the name under which `KEYWORDS` lists a keyword: ``CD1_2`` is one of ``CDi_j``."""
    for pattern, family in _FAMILIES:
        if pattern.match(name):
            return pattern.sub(family, name)
    return name


def ascii_text(text: str) -> str:
    """Return the text in the characters that FITS allows: Greek letters by name, ``?`` for unknown ones."""
    out = []
    for char in unicodedata.normalize("NFKD", text):
        if " " <= char <= "~":
            out.append(char)
        elif not unicodedata.combining(char):
            greek = re.match(r"GREEK (?:SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(char, ""))
            out.append(" " if char.isspace() else greek[1].lower() if greek else "?")
    return "".join(out).strip()


_KEPT = "".join(chr(code) for code in range(32, 127) if chr(code) != "%")


def file_text(name: str) -> str:
    """Return a file name in the characters that FITS allows, the others (and %) as in a URL.

    No two names become one, and `urllib.parse.unquote` gives the name back. Blanks at the ends, which
    FITS drops, are among the others.
    """
    written = quote(name, safe=_KEPT, errors="surrogateescape")
    return re.sub("^ +| +$", lambda blanks: "%20" * len(blanks[0]), written)


def iso(date: datetime) -> str:
    """Return a date in UTC as FITS writes it, to the millisecond."""
    rounded = date.astimezone(UTC) + timedelta(microseconds=500)
    return rounded.replace(tzinfo=None).isoformat(timespec="milliseconds")


def set_card(header: HeaderText, name: str, value: Any) -> None:
    """Set a keyword with its meaning from `KEYWORDS`, cut where the value leaves no room for it."""
    if isinstance(value, str):
        value = ascii_text(value)
    comment = _MEANINGS[keyword_family(name)]
    written = len(value) + value.count("'") + 2 if isinstance(value, str) else len(str(value))
    if written <= 70:  # longer ones go on in CONTINUE cards, which have room for a comment
        comment = comment[: max(0, 80 - 10 - max(written, 20) - 3)]
    header.put(name, value, comment)
