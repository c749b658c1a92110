"""Texts of a page: what of a header or a file name it shows as it is."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]

# Unicode's Bidi_Control: what stands behind one of these is drawn in another place.
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def shown(text: str) -> str:
    """Return a text as a page holds it: � for control and bidi-control characters, and undecoded bytes.

    All else stays, blanks of any width and joiners among it: they are parts of ordinary names.
    """
    return "".join(c if c == "\n" or not _hidden(c) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _hidden(char: str) -> bool:
    return char in _BIDI or unicodedata.category(char) in ("Cc", "Cs")
