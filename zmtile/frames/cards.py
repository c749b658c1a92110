"""Headers of the plainest form, read without astropy: it takes as long to import as twenty frames to measure.

Whatever is not as the FITS standard has it, letter for letter, is left to astropy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["PlainHeader", "read_plain"]

_BLOCK = 2880
_CARD = 80
_MOST_BLOCKS = 64
_COMMENTS = {"COMMENT ", "HISTORY ", "        "}
# Random groups, scaled tables and the like: not only an image.
_OTHERS = {"GROUPS", "PCOUNT", "GCOUNT", "XTENSION", "ZIMAGE", "BLOCKED"}
_KEYWORD = re.compile(r"[A-Z][A-Z0-9_-]{0,7} *\Z")
# A doubled quote, a text that goes on in the next card and one that stands for several values are left out.
_VALUE = re.compile(
    r" *(?:'(?P<text>(?:(?!: |&')[ -&(-~])*)'|(?P<truth>[TF])|(?P<whole>[+-]?(?:0|[1-9]\d{0,17}))"
    r"|(?P<real>[+-]?(?:0|[1-9]\d*)\.\d*(?:E[+-]?\d+)?)|) *(?: /.*)?\Z"
)


class PlainHeader:
    """Header of a primary image.

    Parameters
    ----------
    text : str
        All of it, END and what fills the last block included.
    values : mapping
        Of its keywords.
    """

    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        self._text = text
        self._values = values

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value; None for a card without one."""
        return self._values.get(key, default)

    def __getitem__(self, key: str) -> Any:
        """Return a value."""
        return self._values[key]

    @property
    def whole(self) -> fits.Header:
        """The same as a header of astropy, comments included."""
        from astropy.io import fits

        return fits.Header.fromstring(self._text)


def read_plain(file: BinaryIO) -> PlainHeader | None:
    """Read the header of a primary image; None if there is none, or one that astropy should look at.

    Parameters
    ----------
    file : binary file
        At its beginning. It stands behind the header afterwards if there is one.
    """
    blocks = []
    values: dict[str, Any] = {}
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        if len(block) < _BLOCK or not block.isascii():
            return None
        text = block.decode("ascii")
        blocks.append(text)
        for start in range(0, _BLOCK, _CARD):
            card = text[start : start + _CARD]
            if card.startswith("END") and not card[3:].strip(" "):
                ended = not text[start + 3 :].strip(" ") and _is_image(values)
                return PlainHeader("".join(blocks), values) if ended else None
            if not _take(card, values):
                return None
    return None


def _take(card: str, values: dict[str, Any]) -> bool:
    """Add the value of a card; False if it is not a plain one."""
    if not card.isprintable():
        return False
    if card[:8] in _COMMENTS:
        return True
    match = _VALUE.match(card, 10)
    if card[8:10] != "= " or match is None or not _KEYWORD.match(card[:8]):
        return False
    keyword = card[:8].rstrip(" ")
    if keyword in values or keyword in _OTHERS:
        return False
    text, truth, whole, real = match.group("text", "truth", "whole", "real")
    values[keyword] = (
        text.rstrip(" ")
        if text is not None
        else truth == "T"
        if truth
        else int(whole)
        if whole
        else float(real)
        if real
        else None
    )
    return True


def _is_image(values: Mapping[str, Any]) -> bool:
    """Tell whether a header begins as that of an image with pixels does."""
    axes = values.get("NAXIS")
    if type(axes) is not int or not 0 < axes < 10:
        return False
    sizes = [f"NAXIS{axis}" for axis in range(1, axes + 1)]
    return (
        list(values)[: 3 + axes] == ["SIMPLE", "BITPIX", "NAXIS", *sizes]
        and values["SIMPLE"] is True
        and values["BITPIX"] in (8, 16, 32, 64, -32, -64)
        and all(type(values[key]) is int and values[key] > 0 for key in sizes)
    )
