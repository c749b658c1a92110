"""Plain headers: astropy's values, to the type; whatever is not plain is left to astropy."""

import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from zmtile.frames.cards import read_plain
from zmtile.frames.frame import get, read_frame

KEYS = st.from_regex(r"[A-Z][A-Z0-9_-]{0,7}", fullmatch=True).filter(
    lambda key: (
        key not in ("END", "COMMENT", "HISTORY", "SIMPLE", "BITPIX", "EXTEND", "CONTINUE", "HIERARCH")
        and not key.startswith("NAXIS")
    )
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=68)
CARDS = st.dictionaries(
    KEYS,
    st.one_of(
        TEXTS,
        st.booleans(),
        st.integers(-(10**17), 10**17),
        st.floats(allow_nan=False, allow_infinity=False),
        st.none(),
    ),
    max_size=50,
)
START = ("SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2")
START += ("NAXIS1  =                   30", "NAXIS2  =                   20")


def file_of(*cards, start=START, end="END"):
    """Return a file of 20 rows and 30 columns with these cards, as they are."""
    text = "".join(card.ljust(80) for card in (*start, *cards, end))
    return text.ljust(-(-len(text) // 2880) * 2880).encode("latin-1") + bytes(2 * 600).ljust(2880, b"\0")


def by_astropy(data):
    """Return astropy's header."""
    with warnings.catch_warnings(), fits.open(io.BytesIO(data)) as hdus:
        warnings.simplefilter("ignore")
        return hdus[0].header.copy()


def check_against_astropy(data):
    """Compare every value, if it is read."""
    plain = read_plain(io.BytesIO(data))
    if plain is None:
        return False
    header = by_astropy(data)
    for key in set(header) - {"", "COMMENT", "HISTORY"}:
        value, expected = get(plain, key, "absent"), get(header, key, "absent")
        assert (type(value), repr(value)) == (type(expected), repr(expected)), key
    assert plain.get("ABSENT") is None
    assert plain.get("ABSENT", 3) == 3
    assert plain["NAXIS1"] == 30
    assert plain.whole == header
    return True


@given(CARDS)
def test_headers_that_astropy_writes_are_read_alike(cards):
    hdu = fits.PrimaryHDU(np.zeros((20, 30), np.int16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hdu.header.update(cards)
        hdu.header["COMMENT"] = "any = thing / here"
        buffer = io.BytesIO()
        hdu.writeto(buffer, output_verify="silentfix")
    check_against_astropy(buffer.getvalue())


@given(st.lists(st.text(st.sampled_from("'/=&:. +-0123456789TFEDe(),xA"), max_size=30), max_size=3))
def test_values_as_anybody_may_write_them_are_read_alike_or_left_to_astropy(values):
    data = file_of(*(f"KEY{k}    = {value}" for k, value in enumerate(values)))
    check_against_astropy(data)


@pytest.mark.parametrize(
    "card",
    [
        "OBJECT  = 'M 94    '           / what is seen",
        "OBJECT  = '        '",
        "OBJECT  = ''",
        "OBJECT  = 'a / b'   / it''s a comment",
        "EXPTIME =                180.0 / s",
        "GAIN    = 100",
        "XPIXSZ  = 3.76 / um",
        "BZERO   =               32768.",
        "TINY    =             -1.5E-07 / exponent",
        "FLAG    =                    F",
        "NOTHING =                      / no value",
        "NOTHING =",
        "COMMENT = 'no value at all",
        "HISTORY anything",
        "        anything",
    ],
)
def test_what_cameras_write_is_plain(card):
    assert check_against_astropy(file_of(card))


@pytest.mark.parametrize(
    "card",
    [
        "HIERARCH ESO DET = 3",
        "OBJECT  = 'it''s'",
        "OBJECT  = 'goes on&'",
        "CONTINUE  'and on'",
        "DP1     = 'AXIS.1: 2.0'",
        "OBJECT  = 'not closed",
        "OBJECT  = M 94",
        "EXPTIME = 1.5D3",
        "EXPTIME = 1,5",
        "GAIN    = 007",
        "GAIN    = 1 2",
        "GAIN    = (1, 2)",
        "GAIN    =5",
        "object  = 'small'",
        "OBJ ECT = 3",
        "BITPIX  = 8",
        "GROUPS  = T",
        "OBJECT  = 'a\tb'",
        "OBJECT  = 'Plöbel'",
    ],
)
def test_what_is_not_plain_is_left_to_astropy(card):
    assert read_plain(io.BytesIO(file_of(card))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SIMPLE  = T",
        file_of()[:2000],
        file_of(end="FINAL   = 3"),
        file_of(start=START[1:]),
        file_of(start=(START[0], START[2], START[1], *START[3:])),
        file_of(start=START[:4]),
        file_of(start=("SIMPLE  = F", *START[1:])),
        file_of(start=(*START[:1], "BITPIX  = 17", *START[2:])),
        file_of(start=(*START[:2], "NAXIS   = 0")),
        file_of(start=(*START[:3], "NAXIS1  = 0", START[4])),
        file_of(start=("XTENSION= 'IMAGE   '", *START[1:])),
        file_of("END", "AFTER   = 3"),
        file_of(*(f"KEY{k} = {k}" for k in range(64 * 36))),
    ],
)
def test_what_is_no_plain_primary_image_is_left_to_astropy(data):
    assert read_plain(io.BytesIO(data)) is None


def test_frames_are_the_same_either_way(tmp_path, monkeypatch):
    path = tmp_path / "light.fits"
    cards = ["BZERO   = 32768", "BSCALE  = 1", "EXPTIME = 60.0", "BAYERPAT= 'GRBG'", "OBJECT  = 'M 94'"]
    path.write_bytes(file_of(*cards, "DATE-OBS= '2026-01-02T03:04:05'", *["COMMENT long"] * 40))
    frame = read_frame(path)
    monkeypatch.setattr("zmtile.frames.frame.read_plain", lambda file: None)
    assert read_frame(path) == frame
    assert frame.offset == 2 * 2880
    assert (frame.cfa, frame.bzero, frame.exposure) == ("GRBG", 32768.0, 60.0)
