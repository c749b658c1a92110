from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from test_wcs import COLS, ROWS, SCALE, cards, frame, sip, turned

from zmtile.pipeline import _wcs_cards
from zmtile.registration.bentwcs import bent_wcs, carried_over
from zmtile.registration.mapping import Bent, apply, flat_bend, map_of
from zmtile.registration.transform import IDENTITY, Transform
from zmtile.registration.wcs import frame_wcs

ORIGIN = (-20, 7)


def bent(kind: str) -> Bent:
    bend = flat_bend(ROWS, COLS)
    if kind == "tilt":
        bend[4:6] = 0.004, -0.003
    else:
        bend[6:9], bend[13:16] = [4, 1, 2], [1, 3, 2]
    if kind == "cubic":
        bend[9:13], bend[16:20] = [3, 0, 2, 1], [1, 2, 0, -2]
    return Bent(turned(70.0, 1.1, (150.0, 80.0)), bend)


def off(header, wcs: WCS, moved_by: Bent) -> float:
    """Largest distance on the sky between a frame's pixels and the tile's that show them, px."""
    x, y = np.meshgrid(np.linspace(0, COLS - 1, 20), np.linspace(0, ROWS - 1, 20))
    points = np.column_stack([x.ravel(), y.ravel()])
    here = wcs.all_pix2world(points, 0)
    there = WCS(header).all_pix2world(apply(moved_by, points) - ORIGIN, 0)
    east, north = ((there - here) / SCALE).T
    return np.hypot(east * np.cos(np.radians(here[:, 1])), north).max()


@pytest.mark.parametrize("kind", ["square", "cubic", "tilt"])
@pytest.mark.parametrize(
    "header", [cards(), sip(), cards(CRPIX1=-500.0), sip(CRPIX1=900.0)], ids=["tan", "sip", "aside", "both"]
)
def test_the_tile_of_a_bent_frame_shows_its_sky(kind, header):
    wcs = frame_wcs(frame(header))
    found, error = bent_wcs(wcs, bent(kind), ORIGIN, (ROWS, COLS))
    assert off(found, wcs, bent(kind)) < 0.01
    assert error < 0.01
    assert found["CTYPE1"] == "RA---TAN-SIP"
    assert not any(key.startswith("AP_") for key in found)  # it would be that of the frame


def test_without_room_for_sip_terms_the_log_tells(caplog):
    zenithal = frame(cards(CTYPE1="RA---ZPN", CTYPE2="DEC--ZPN", PV2_1=1.0, PV2_3=2.0))
    with caplog.at_level(logging.WARNING):
        found = carried_over(zenithal, frame_wcs(zenithal), bent("square"), ORIGIN)
    assert "A_ORDER" not in found
    assert "a.fits: the tile has its coordinates, which are up to 7" in caplog.text


def test_terms_that_are_fitted_are_no_reason_to_warn(caplog):
    plain = frame(cards())
    with caplog.at_level(logging.WARNING):
        found = carried_over(plain, frame_wcs(plain), bent("square"), ORIGIN)
    assert off(found, frame_wcs(plain), bent("square")) < 0.01
    assert not caplog.text


def test_a_frame_without_a_bend_goes_first():
    """The reference has no coordinates, a bent frame the smallest residual."""
    curved = bent("square")
    transforms = [
        Transform(IDENTITY, 100, 0.0),
        Transform(curved.matrix, 100, 0.1, curved.bend, "poly2"),
        Transform(turned(0.0, 1.0, (30.0, -8.0)), 100, 0.4),
    ]

    def cards_of(count):
        return _wcs_cards(
            SimpleNamespace(
                frames=[frame(fits.Header()), frame(cards()), frame(cards())][:count],
                transforms=transforms,
                maps=[map_of(t) for t in transforms],
                canvas=SimpleNamespace(x0=ORIGIN[0], y0=ORIGIN[1]),
                reference_index=0,
            )
        )

    assert "A_ORDER" not in cards_of(3)
    assert cards_of(3)["CRPIX1"] == pytest.approx(300.5 + 30.0 - ORIGIN[0])
    assert off(cards_of(2), frame_wcs(frame(cards())), curved) < 0.01
