from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from starlists import field

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.options import Options
from zmtile.registration.wcs import frame_wcs, tile_wcs, wcs_matrix
from zmtile.registration.wcsalign import _wcs_transform, register_by_wcs

ROWS, COLS = 400, 600
IDENTITY = np.array([[1.0, 0, 0], [0, 1.0, 0]])
SCALE = 0.0006875  # deg


def cards(**more) -> fits.Header:
    header = fits.Header()
    header.update(
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=192.7, CRVAL2=41.1, CRPIX1=300.5, CRPIX2=210.25,
        CUNIT1="deg", CUNIT2="deg", CD1_1=-SCALE, CD1_2=0.0, CD2_1=0.0, CD2_2=SCALE,
        RADESYS="ICRS", EQUINOX=2000.0,
    )  # fmt: skip
    for key, value in more.items():
        if value is None:
            del header[key]
        else:
            header[key.replace("__", "-")] = value
    return header


def sip(**more) -> fits.Header:
    terms = dict(
        CTYPE1="RA---TAN-SIP", CTYPE2="DEC--TAN-SIP", A_ORDER=3, B_ORDER=2,
        A_2_0=2e-6, A_1_1=-1e-6, A_0_3=3e-9, B_0_2=-2.5e-6, B_1_1=1.5e-6,
        AP_ORDER=2, BP_ORDER=2, AP_2_0=-2e-6, AP_1_1=1e-6, BP_0_2=2.5e-6,
    )  # fmt: skip
    return cards(**(terms | more))


def frame(header: fits.Header) -> Frame:
    return Frame(Path("a.fits"), "a.fits", ROWS, COLS, "mono", "", header)


def turned(angle: float, scale: float = 1.0, shift=(0.0, 0.0)) -> np.ndarray:
    c, s = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def points() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-20, COLS + 20, 9), np.linspace(-20, ROWS + 20, 7))
    return np.column_stack([x.ravel(), y.ravel()])


def arcsec_between(tile: fits.Header, wcs: WCS, matrix: np.ndarray, origin) -> float:
    """Largest distance on the sky between frame pixels and the tile pixels that they become."""
    p = points()
    q = p @ matrix[:, :2].T + matrix[:, 2] - origin
    read = WCS(tile)  # warnings are errors: the cards need no mending
    ra1, dec1 = wcs.all_pix2world(p, 0).T
    ra2, dec2 = read.all_pix2world(q, 0).T
    return float(3600 * np.hypot((ra1 - ra2) * np.cos(np.radians(dec1)), dec1 - dec2).max())


PC = cards(CD1_1=None, CD1_2=None, CD2_1=None, CD2_2=None, CDELT1=1.0, CDELT2=1.0, PC1_1=-SCALE, PC2_2=SCALE)
CROTA = cards(CD1_1=None, CD1_2=None, CD2_1=None, CD2_2=None, CDELT1=-SCALE, CDELT2=SCALE, CROTA2=31.0)
TPV = cards(CTYPE1="RA---TPV", CTYPE2="DEC--TPV", PV1_0=0.0, PV1_1=1.0, PV1_4=1e-3, PV2_1=1.0, PV2_4=-2e-3)
NEAR_POLE = cards(CRVAL2=89.9, LONPOLE=150.0)


@pytest.mark.parametrize("matrix", [IDENTITY, turned(31.0, 0.98, (40.5, -7.25)), turned(180.0)])
@pytest.mark.parametrize("header", [cards(), PC, CROTA, sip(), TPV, NEAR_POLE])
def test_tile_pixels_show_the_sky_of_the_frame_pixels_they_come_from(header, matrix):
    wcs = frame_wcs(frame(header))
    assert arcsec_between(tile_wcs(wcs, matrix, (-37, 12)), wcs, matrix, (-37, 12)) < 1e-6


@pytest.mark.parametrize("header", [cards(), PC])
def test_all_four_cd_are_written_even_when_zero(header):
    tile = tile_wcs(frame_wcs(frame(header)), IDENTITY, (3, 4))
    assert [tile[f"CD{i}_{j}"] for i in (1, 2) for j in (1, 2)] == [-SCALE, 0.0, 0.0, SCALE]
    assert "-0" not in str(tile.cards["CD1_2"]).split("=")[1].split("/")[0]
    assert not any(key.startswith(("PC", "CDELT", "CROTA")) for key in tile)
    assert (tile["RADESYS"], tile["LONPOLE"], tile["LATPOLE"]) == ("ICRS", 180.0, 41.1)
    assert all(tile.comments[key] for key in tile)


@pytest.mark.parametrize(
    ("radesys", "equinox", "written"),
    [
        ("ICRS", None, 2000.0),
        (None, None, 2000.0),
        ("FK5", 2000.0, 2000.0),
        ("FK5", 1975.0, 1975.0),
        ("GAPPT", None, None),
    ],
)
def test_an_equinox_stands_beside_every_equatorial_system(radesys, equinox, written):
    wcs = frame_wcs(frame(cards(RADESYS=radesys, EQUINOX=equinox)))
    tile = tile_wcs(wcs, IDENTITY, (0, 0))
    assert tile.get("EQUINOX") == written
    assert WCS(tile).wcs.radesys == (radesys or "ICRS")  # of which the equinox makes no other one


def test_a_shift_keeps_the_sip_terms_to_the_last_digit():
    header = sip()
    tile = tile_wcs(frame_wcs(frame(header)), IDENTITY, (-17, 5))
    for key in header:
        if key.startswith(("A_", "B_", "AP_", "BP_", "CD", "CRVAL", "CTYPE")):
            assert tile[key] == header[key], key
    assert (tile["CRPIX1"], tile["CRPIX2"]) == (317.5, 205.25)


def test_the_inverse_sip_polynomial_is_turned_too():
    wcs, matrix = frame_wcs(frame(sip())), turned(31.0, 1.1, (100.0, 20.0))
    linear, read = matrix[:, :2], WCS(tile_wcs(wcs, matrix, (0, 0)))

    def inverse(terms, u):
        return u + np.column_stack(
            [np.polynomial.polynomial.polyval2d(*u.T, c) for c in (terms.ap, terms.bp)]
        )

    u = points() - 200.0
    np.testing.assert_allclose(inverse(read.sip, u @ linear.T), inverse(wcs.sip, u) @ linear.T, atol=1e-9)


def test_sip_terms_without_the_suffix_are_applied_and_get_it():
    header = sip(CTYPE1="RA---TAN", CTYPE2="DEC--TAN")
    tile = tile_wcs(frame_wcs(frame(header)), IDENTITY, (0, 0))
    assert tile["CTYPE1"] == "RA---TAN-SIP"
    assert header["CTYPE1"] == "RA---TAN"
    assert arcsec_between(tile, frame_wcs(frame(sip())), IDENTITY, (0, 0)) < 1e-9


@pytest.mark.parametrize(
    "header",
    [
        cards(DATE__OBS="2024-03-01T22:10:05.123+01:00"),
        cards(CUNIT1="DEG", CUNIT2="degree"),
        cards(NAXIS=3, NAXIS1=COLS, NAXIS2=ROWS, NAXIS3=3),
        PC,
    ],
)
def test_odd_headers_are_understood_without_a_warning(header):
    wcs = frame_wcs(frame(header))
    assert wcs is not None
    assert wcs.naxis == 2


@pytest.mark.parametrize(
    "header",
    [
        fits.Header(),
        cards(CD1_1=0.0),
        cards(CTYPE1="RA---XYZ", CTYPE2="DEC--XYZ"),
        cards(CTYPE2="RA---TAN"),
        cards(CRVAL2=500.0),
        cards(CUNIT1="furlong", CUNIT2="furlong"),
    ],
)
def test_absent_and_broken_coordinates_are_none(header):
    assert frame_wcs(frame(header)) is None


@pytest.mark.parametrize("model", ["similarity", "affine"])
@pytest.mark.parametrize(
    "matrix", [IDENTITY, turned(12.0, 1.0, (30.0, -18.0)), turned(-170.0, 0.9, (5.0, 700.0))]
)
def test_matrix_between_two_frames_is_found_from_their_coordinates(model, matrix):
    wcs = frame_wcs(frame(cards()))
    reference = frame_wcs(frame(tile_wcs(wcs, matrix, (0, 0))))
    found, rms = wcs_matrix(wcs, reference, (ROWS, COLS), model)
    np.testing.assert_allclose(found, matrix, atol=1e-6)
    assert rms < 1e-6


def test_mirrored_frames_are_fitted_by_a_reflection():
    wcs, mirror = frame_wcs(frame(cards())), np.array([[1.0, 0, 4.0], [0, -1.0, ROWS - 1.0]])
    reference = frame_wcs(frame(tile_wcs(wcs, mirror, (0, 0))))
    found, rms = wcs_matrix(wcs, reference, (ROWS, COLS), "similarity")
    np.testing.assert_allclose(found, mirror, atol=1e-6)
    assert rms < 1e-6


def test_declination_first_is_no_obstacle():
    swapped = cards(
        CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=41.1, CRVAL2=192.7,
        CD1_1=0.0, CD1_2=SCALE, CD2_1=-SCALE, CD2_2=0.0,
    )  # fmt: skip
    found, rms = wcs_matrix(frame_wcs(frame(swapped)), frame_wcs(frame(cards())), (ROWS, COLS), "similarity")
    np.testing.assert_allclose(found, IDENTITY, atol=1e-6)
    assert rms < 1e-6
    tile = tile_wcs(frame_wcs(frame(swapped)), IDENTITY, (0, 0))
    assert tile["CTYPE1"] == "DEC--TAN"


def test_rms_tells_what_the_model_cannot_follow():
    _, rms = wcs_matrix(frame_wcs(frame(sip())), frame_wcs(frame(cards())), (ROWS, COLS), "similarity")
    assert 0.01 < rms < 0.2


def test_a_reference_with_sip_is_inverted():
    found, rms = wcs_matrix(frame_wcs(frame(sip())), frame_wcs(frame(sip())), (ROWS, COLS), "affine")
    np.testing.assert_allclose(found, IDENTITY, atol=1e-5)
    assert rms < 1e-4


def test_a_distortion_in_the_headers_is_followed():
    """Two frames with SIP terms, turned against each other: no matrix leads from one to the other."""
    moved = tile_wcs(frame_wcs(frame(cards())), turned(60.0, 1.0, (200.0, -100.0)), (0, 0))
    bent = sip()
    bent.update({key: moved[key] for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2", "CRPIX1", "CRPIX2")})
    frames = [frame(sip()), frame(bent)]
    systems = [frame_wcs(f) for f in frames]
    rms = {}
    for model in ("similarity", "poly2", "poly3", "auto"):
        transform, reason = _wcs_transform(frames, systems, 0, 1, Options(align="wcs", transform=model))
        assert not reason
        rms[model] = transform.rms
    assert rms["poly3"] < rms["poly2"] < rms["similarity"]
    assert rms["auto"] < 0.02 < rms["similarity"]
    assert transform.model in ("poly2", "poly3")


@pytest.mark.parametrize("header", [cards(), sip()])
def test_the_far_side_of_the_sky_is_refused(header):
    far = frame_wcs(frame(cards(CRVAL1=12.7, CRVAL2=-41.1)))
    with pytest.raises(ValueError, match="another part of the sky"):
        wcs_matrix(far, frame_wcs(frame(header)), (ROWS, COLS), "similarity")


def test_frames_are_not_changed():
    header = sip(CTYPE1="RA---TAN", CTYPE2="DEC--TAN")
    before = header.tostring()
    one = frame(header)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tile_wcs(frame_wcs(one), turned(3.0), (0, 0))
        frame_wcs(replace(one, rows=10))
    assert header.tostring() == before


def test_the_reference_lies_near_the_middle_of_the_group():
    """Of five frames in a row, each half a frame from the next, the first has a few more stars."""
    frames = [replace(frame(cards(CRPIX1=300.5 - 300.0 * k)), name=f"{k}.fits") for k in range(5)]
    stats = []
    for k in range(5):
        stars = field(np.zeros((20 + 2 * (k == 0), 2)), np.ones(20 + 2 * (k == 0))).stars
        stats.append(FrameStats(stars, 3.0, 1.0, np.array([5.0]), None, 0, 1.0, ""))
    options = Options(align="wcs", framing="union")
    found = register_by_wcs(frames, stats, options, None)
    assert found.reference == 2
    assert [t.matrix[0, 2] for t in found.transforms] == pytest.approx([-600, -300, 0, 300, 600], abs=0.5)
    assert register_by_wcs(frames, stats, options, 0).reference == 0
