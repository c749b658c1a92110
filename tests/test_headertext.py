"""Cards are those that astropy would write."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given
from hypothesis import strategies as st

from zmtile.tiles.headertext import HeaderText, card

NAMES = st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True).filter(
    lambda name: name not in ("COMMENT", "HISTORY", "CONTINUE", "END", "HIERARCH", "SIMPLE")
)
LONG_NAMES = st.from_regex(r"MT_[A-Z]{6,12}", fullmatch=True)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
NUMBERS = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)


def of_astropy(name, value, comment):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a comment that is cut, a HIERARCH card
        return fits.Card(name if len(name) <= 8 else f"HIERARCH {name}", value, comment or None).image


@given(NAMES | LONG_NAMES, TEXTS, TEXTS)
@example("A", "word " * 40, "and a comment")
@example("A", "x" * 66, "comment")
@example("A", "x" * 67, "")
@example("A", "x" * 68, "")
@example("A", "x" * 69, "y" * 64)
@example("A", ("x" * 66 + " ") * 2, "y" * 63 + " z")
@example("A", "o'" * 40, "quotes")
@example("MT_COVERAGE", "x" * 57, "")
@example("MT_COVERAGE", "x" * 90, "HIERARCH")
def test_a_text_is_written_as_astropy_writes_it(name, value, comment):
    assert card(name, value, comment) == of_astropy(name, value, comment)


@given(NAMES | LONG_NAMES, NUMBERS, TEXTS)
def test_a_number_is_written_as_astropy_writes_it_and_never_cut(name, value, comment):
    made = card(name, value, comment)
    read = fits.Card.fromstring(made)
    assert (read.keyword, read.value) == (name, value)
    assert isinstance(read.value, type(value))
    if len(str(value)) <= 20:
        assert made == of_astropy(name, value, comment)


@given(st.lists(st.tuples(NAMES, NUMBERS | TEXTS), max_size=30, unique_by=lambda one: one[0]))
def test_a_header_is_that_of_astropy(cards):
    cards = [(k, round(v, 3) if isinstance(v, float) and abs(v) < 1e6 else v) for k, v in cards]
    cards = [(k, v) for k, v in cards if not isinstance(v, float) or len(str(v)) <= 20]
    ours, theirs = HeaderText(), fits.Header()
    for name, value in cards:
        ours.put(name, value)
        theirs[name] = value
    assert ours.text == theirs.tostring(endcard=False, padding=False)
    assert ours.whole_blocks == theirs.tostring().encode()
    assert list(ours) == list(theirs)
    assert ours.for_reading == theirs
    assert HeaderText.of(theirs).text == ours.text
    assert HeaderText.of(ours).text == ours.text
    assert len(ours) == len(theirs)
    for name in theirs:
        assert name in ours
        assert ours[name] == dict(cards)[name]


def test_a_card_keeps_its_place():
    header = HeaderText([("A", 1), ("B", 2, "two"), ("C", 3)])
    header.put("B", 5)
    header.put("D", 4, after="A")
    header.take(fits.Header([("C", 7, "seven"), ("E", 8, "eight")]))
    assert [(name, header[name]) for name in header] == [("A", 1), ("D", 4), ("B", 5), ("C", 7), ("E", 8)]
    assert header.for_reading.comments["C"] == "seven"
    assert not header.has_long_texts
    header.put("C", "CONTINUE  " * 8)
    assert header.has_long_texts
    header.put("C", "CONTINUE  x")
    assert not header.has_long_texts
    header.drop("A", "E", "F")
    assert list(header) == ["D", "B", "C"]
    assert "A" not in header
    with pytest.raises(KeyError):
        header["A"]


def test_changes_of_a_copy_change_nothing_else():
    header = HeaderText([("A", 1)])
    HeaderText.of(header).put("A", 2)
    assert header["A"] == 1


def test_numbers_of_numpy_are_numbers():
    assert card("A", np.int64(3)) == card("A", 3)
    assert card("A", np.float64(0.1)) == card("A", 0.1)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 1j, [1]])
def test_what_no_card_can_hold_is_refused(value):
    with pytest.raises(ValueError, match="no card can hold"):
        card("A", value)


def test_truth_of_numpy_is_truth():
    assert card("A", np.True_) == card("A", True)


def test_blank_cards_repeated_ones_and_such_as_nobody_can_read_stay_where_they_are():
    header = fits.Header([("A", 1)])
    for text in ("", "COMMENT one", "COMMENT two", "HISTORY 'old'", "BAD     = 'unfinished"):
        header.append(fits.Card.fromstring(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last one is mended
        ours = HeaderText.of(header)
        assert ours.text == header.tostring(endcard=False, padding=False)
    ours.put("B", 2)
    assert list(ours) == [*header, "B"]
