"""Headers as they are written: cards, in the words of astropy and without it, whose import takes 0.4 s.

Who reads a header of ours gets one of astropy's.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["HeaderText", "card"]

log = logging.getLogger("zmtile")

_CARD = 80
_BLOCK = 2880
_KEYWORD = 8
# Of a text that is too long for one card, and of its comment, in each card.
_TEXT, _COMMENT = 67, 64


class _Card(NamedTuple):
    name: str
    value: Any
    image: str


class HeaderText:
    """Cards in their order.

    Parameters
    ----------
    cards : iterable of tuple
        Keyword, value, and comment if there is one, as for `put`.
    """

    def __init__(self, cards: Iterable[tuple[Any, ...]] = ()) -> None:
        self._cards: list[_Card] = []
        for one in cards:
            self.put(*one)

    @classmethod
    def of(cls, header: fits.Header | HeaderText) -> HeaderText:
        """Return the cards of a header, as they are."""
        made = cls()
        made._cards = (
            list(header._cards)
            if isinstance(header, HeaderText)
            else [_Card(one.keyword, _value_of(one), one.image) for one in header.cards]
        )
        return made

    def put(self, name: str, value: Any, comment: str = "", after: str = "") -> None:
        """Set a keyword, in its place where the header has it.

        Parameters
        ----------
        name : str
            More than 8 characters make a HIERARCH card.
        value : str, bool, int or float
            Printable ASCII; a finite number, of which all digits are kept.
        comment : str
            Printable ASCII.
        after : str
            Keyword that a new card follows; at the end without it.
        """
        made = _Card(name, value, card(name, value, comment))
        place = self._place(name)
        if place is not None:
            self._cards[place] = made
        else:
            before = self._place(after) if after else None
            self._cards.insert(len(self._cards) if before is None else before + 1, made)

    def take(self, header: fits.Header) -> None:
        """Set the keywords of a header, as they are there."""
        for one in self.of(header)._cards:
            place = self._place(one.name)
            if place is None:
                self._cards.append(one)
            else:
                self._cards[place] = one

    def extend(self, header: HeaderText) -> None:
        """Add the cards of a header whose keywords are others."""
        self._cards += header._cards

    def drop(self, *names: str) -> None:
        """Remove keywords, where they are."""
        self._cards = [one for one in self._cards if one.name not in names]

    def __getitem__(self, name: str) -> Any:
        """Return a value.

        Raises
        ------
        KeyError
            When there is no such keyword.
        """
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        return self._cards[place].value

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a keyword."""
        return any(one.name == name for one in self._cards)

    def __iter__(self) -> Iterator[str]:
        """Yield the keywords."""
        return (one.name for one in self._cards)

    def __len__(self) -> int:
        """Return the number of keywords."""
        return len(self._cards)

    @property
    def has_long_texts(self) -> bool:
        """Whether a text goes on in CONTINUE cards."""
        return any(len(one.image) > _CARD for one in self._cards)

    @property
    def text(self) -> str:
        """The cards, without END."""
        return "".join(one.image for one in self._cards)

    @property
    def whole_blocks(self) -> bytes:
        """All of the header, as files have it."""
        text = f"{self.text}{'END':{_CARD}}"
        return text.ljust(-(-len(text) // _BLOCK) * _BLOCK).encode("ascii")

    @property
    def for_reading(self) -> fits.Header:
        """The same as a header of astropy's."""
        from astropy.io import fits

        return fits.Header.fromstring(self.text)

    def _place(self, name: str) -> int | None:
        return next((k for k, one in enumerate(self._cards) if one.name == name), None)


def _value_of(card: fits.Card) -> Any:
    """Return the value of a card, None where it cannot be read."""
    image = card.image  # mended, where astropy can
    try:
        return card.value
    except Exception as error:
        log.debug("no value is read from %r: %r", image, error)
        return None


def card(name: str, value: Any, comment: str = "") -> str:
    """Return a card, and those that continue it: 80 characters each.

    Parameters
    ----------
    name, value, comment
        As for `HeaderText.put`.

    Raises
    ------
    ValueError
        For a value that FITS has no card for, NaN among them.
    """
    head = f"{name:{_KEYWORD}}= " if len(name) <= _KEYWORD else f"HIERARCH {name} = "
    told, comment = _told(value), comment.rstrip(" ")
    if len(name) > _KEYWORD:
        told = told.strip(" ")
    if len(head) + len(told) <= _CARD:
        return f"{head}{told}{' / ' if comment else ''}{comment}"[:_CARD].ljust(_CARD)
    if len(name) <= _KEYWORD and isinstance(value, str) and "'" not in value:
        return _continued(head, value, comment)
    from astropy.io import fits

    # A doubled quote may not be taken apart, and a long keyword leaves less room.
    return fits.Card(head.rstrip("= "), value, comment).image  # type: ignore[no-any-return]


def _told(value: Any) -> str:
    if isinstance(value, str):
        doubled = value.replace("'", "''")
        return f"'{doubled:8}'".ljust(20) if value else "''"
    if isinstance(value, bool | np.bool_):
        return f"{'T' if value else 'F':>20}"
    if not isinstance(value, int | float | np.integer | np.floating) or not math.isfinite(value):
        raise ValueError(f"no card can hold {value!r}")
    return f"{str(value).replace('e', 'E'):>20}"


def _continued(head: str, value: str, comment: str) -> str:
    """Return a text in several cards: its words first, then those of the comment."""
    texts, said = list(_pieces(value, _TEXT)), list(_pieces(comment, _COMMENT))
    last = len(texts) + len(said) - 1
    told = [f"'{piece}{'&' if k < last else ''}'" for k, piece in enumerate(texts)]
    told += [f"'{'&' if k < last else ''}' / {piece}" for k, piece in enumerate(said, len(texts))]
    return "".join(f"{'CONTINUE  ' if k else head}{one}".ljust(_CARD) for k, one in enumerate(told))


def _pieces(text: str, width: int) -> Iterator[str]:
    """Yield a text in pieces that end with a word, where one does not fill a piece."""
    while len(text) >= width:
        at = text.rfind(" ", 0, width) + 1 or width
        yield text[:at]
        text = text[at:]
    if text:
        yield text
