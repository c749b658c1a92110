from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from zmtile import __version__
from zmtile.frames.calibrate import Calibration, Master
from zmtile.frames.frame import Frame
from zmtile.gpu.device import Facts
from zmtile.options import Options
from zmtile.tiles.header import KEYWORDS, default_name, tile_header, tile_id
from zmtile.tiles.headertext import HeaderText
from zmtile.tiles.keywords import ascii_text, file_text, iso, keyword_family, set_card

COMMON = {
    "IMAGETYP": "Light", "INSTRUME": "Seestar S50", "TELESCOP": "Seestar", "FILTER": "IRCUT",
    "OBSERVER": "N.N.", "SITENAME": "home", "SITELAT": 48.1, "SITELONG": 11.5, "SITEELEV": 500,
    "FOCALLEN": 250, "FOCRATIO": 5.0, "APERTURE": 50.0, "APTDIA": 50.0, "XPIXSZ": 2.9, "YPIXSZ": 2.9,
    "PIXSIZE1": 2.9, "PIXSIZE2": 2.9, "XBINNING": 1, "YBINNING": 1, "GAIN": 80, "EGAIN": 0.98, "OFFSET": 10,
    "ISOSPEED": 800, "READOUTM": "fast", "CCD-TEMP": -10.0, "SET-TEMP": -10.0, "FOCUSPOS": 1500,
    "FOCPOS": 1500, "OBJECT": "M 94", "RA": 192.72, "DEC": 41.12, "OBJCTRA": "12 50 53",
    "OBJCTDEC": "+41 07 14",
}  # fmt: skip
WCS_CARDS = {
    "WCSAXES": 2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
    "CRPIX1": 10.0, "CRPIX2": 10.0, "CRVAL1": 192.7, "CRVAL2": 41.1, "CD1_1": -1e-3, "CD1_2": 0.0,
    "CD2_1": 0.0, "CD2_2": 1e-3, "PV1_1": 1.0, "LONPOLE": 180.0, "LATPOLE": 41.1, "RADESYS": "FK5",
    "EQUINOX": 2000.0,
}  # fmt: skip
SIP_CARDS = {
    "A_ORDER": 2,
    "B_ORDER": 2,
    "A_2_0": 1e-6,
    "B_0_2": 1e-6,
    "AP_ORDER": 2,
    "BP_ORDER": 2,
    "AP_2_0": -1e-6,
}


def frame(name="light_001.fits", exposure=10.0, date=(2024, 3, 1, 21, 0, 0), **cards) -> Frame:
    header = fits.Header()
    for key, value in (COMMON | {k.replace("__", "-"): v for k, v in cards.items()}).items():
        if value is not None:
            header[key] = value
    when = datetime(*date, tzinfo=UTC) if date else None
    return Frame(Path(name), name, 20, 30, "mono", "", header, exposure=exposure, date=when)


def build(used, options=None, wcs=None, shape=(20, 30), **more) -> fits.Header:
    options = options or Options()
    made = tile_header(
        used[0], used, options=options, canvas_origin=(-3, 4), shape=shape,
        n_inputs=len(used) + 2, wcs_cards=fits.Header(wcs) if wcs else None,
        hashes=[f"{k:064x}" for k in range(len(used))], models=["similarity", "homography", "affine"],
        sky_degree=(options.sky_degree or 1) if options.normalize == "surface" else 0, **more,
    )  # fmt: skip
    return made.for_reading


def with_card(header: fits.Header, name: str, value: object) -> fits.Header:
    text = HeaderText.of(header)
    set_card(text, name, value)
    return text.for_reading


def written(header, tmp_path, shape=(20, 30)) -> fits.Header:
    """The header as read from a file; writing and reading give no warning."""
    fits.PrimaryHDU(np.zeros(shape, np.float32), header).writeto(tmp_path / "h.fits")
    with fits.open(tmp_path / "h.fits") as hdus:
        hdus.verify("exception")
        return hdus[0].header.copy()


GPU = Facts("NVIDIA H100", (9, 0), 132, 2**17, 2**36, 2**36, (12, 4), (12, 2), "14.2")


def test_every_keyword_is_in_the_table_and_the_other_way_round(tmp_path):
    masters = {kind: Master(f"{kind}.fits", "ab" * 32) for kind in ("bias", "dark", "flat")}
    header = build([frame()], wcs=WCS_CARDS | SIP_CARDS, calibration=Calibration(masters=masters), gpu=GPU)
    header = with_card(header, "ZMT_FILL", 0.0)
    for key in ("CHECKSUM", "DATASUM"):
        header = with_card(header, key, "0")
    assert {keyword_family(key) for key in header} == {k.name for k in KEYWORDS}
    assert len({k.name for k in KEYWORDS}) == len(KEYWORDS)
    assert all(header.comments[key] for key in build([frame()]))
    written(header, tmp_path)


def test_every_comment_fits_beside_a_number():
    for keyword in KEYWORDS:
        if "i" not in keyword.name and "s_" not in keyword.name:
            header = with_card(fits.Header(), keyword.name, -1.234567890123456e-100)
            assert header.comments[keyword.name] == keyword.meaning


def test_every_option_is_told():
    told = {
        "reference": "by the user", "align": "wcs", "transform": "affine", "framing": "union",
        "normalize": "scale", "weight": "none", "min_coverage": 4,
        "kernel": "lanczos3", "clamp": False, "min_frames": 7, "skip_unreadable": True,
        "reject_frames": ("rms<0.5",),
        "bias": "b.fits", "dark": "d.fits", "flat": "f.fits", "hot_pixels": True,
    }  # fmt: skip
    # Options that belong to one rejection, or to surfaces, are refused with the others.
    apart = [
        {"normalize": "surface", "sky_degree": 2},
        {"feather": 25.0},
        {"combine": "median"},
        {"reject": "winsor-quantile", "kappa": (2.5, 3.5), "winsor_limits": (0.1, 0.2), "rewinsorize": True},
        {"reject": "mad", "grow": 5},
        {"reject": "esd", "esd_outliers": 0.25, "esd_alpha": 0.01},
        {"reject": "minmax", "minmax": (2, 3)},
    ]
    elsewhere = {"fill", "planes", "cfa"}  # Tile.write's, and the next test's
    assert {f.name for f in fields(Options)} == set(told).union(elsewhere, *apart)
    plain = build([frame()])
    for these in apart:
        header = build([frame()], Options(**(told | these | {"reference": "a.fits"})))
        follows = {"ZMT_ID"} if "sky_degree" in these else {"ZMT_ID", "ZMT_SDEG"}
        differing = {k: header[k] for k in header if k not in follows and header[k] != plain[k]}
        values = [
            v
            for name, value in (told | these).items()
            if value != getattr(Options(), name)
            for v in (value if isinstance(value, tuple) else (value,))
        ]
        assert sorted(map(str, differing.values())) == sorted(map(str, values))


def test_without_demosaicing_there_is_no_kernel_to_tell_of():
    header = build([frame()], Options(cfa="direct"))
    assert (header["ZMT_CFA"], header["ZMT_KERN"], header["ZMT_CLMP"]) == ("direct", "nearest", False)
    header = build([frame()])
    assert (header["ZMT_CFA"], header["ZMT_KERN"], header["ZMT_CLMP"]) == ("demosaic", "cubic", True)


def test_keys_that_zemosaic_reads():
    used = [frame(), frame("light_002.fits")]
    header = build(used, wcs=WCS_CARDS)
    assert header["ZMT_TYPE"] == "Master Tile"
    assert (header["ZMT_NRAW"], header["ZMT_NALGN"], header["MT_NFRAMES"], header["NEXP_SUM"]) == (4, 2, 2, 2)
    assert "HIERARCH ZMT_NALGN" in str(header.cards["ZMT_NALGN"])
    assert "HIERARCH MT_NFRAMES" in str(header.cards["MT_NFRAMES"])
    assert (header["ALPHAEXT"], header["ZMT_PMSK"], header["ZMT_NANS"]) == ("ALPHA", True, True)
    assert (header["ZMT_X0"], header["ZMT_Y0"], header["ZMT_BACK"]) == (-3, 4, "cpu")
    assert (header["ZMT_REJ"], header["ZMT_NORM"], header["ZMT_WGHT"]) == ("winsor", "surface", "noise")
    assert (header["ZMT_COMB"], header["ZMT_REF"]) == ("mean", "light_001.fits")
    assert re.fullmatch("[0-9a-f]{16}", header["ZMT_ID"])
    assert (header["PROGRAM"], header["CREATOR"]) == ("zmtile", f"zmtile {__version__}")
    header = build(used, gpu=GPU)
    assert (header["ZMT_BACK"], header["ZMT_GPU"]) == ("gpu", "NVIDIA H100")


def test_times_are_those_of_the_frames_used():
    used = [
        frame(exposure=10.0, date=(2024, 3, 1, 23, 59, 50)),
        frame("b", exposure=30.0, date=(2024, 3, 2, 0, 0, 10)),
    ]
    header = build(used[::-1])
    assert (header["EXPTIME"], header["LIVETIME"], header["EXPTOTAL"]) == (20.0, 40.0, 40.0)
    assert (header["STACKCNT"], header["NCOMBINE"], header["TIMESYS"]) == (2, 2, "UTC")
    assert header["DATE-OBS"] == header["DATE-BEG"] == "2024-03-01T23:59:50.000"
    assert header["DATE-END"] == "2024-03-02T00:00:40.000"
    assert header["DATE-AVG"] == "2024-03-02T00:00:17.500"  # (10 * 5 + 30 * 35) / 40 after the start
    for which in ("OBS", "BEG", "AVG", "END"):
        assert header[f"MJD-{which}"] == pytest.approx(Time(header[f"DATE-{which}"]).mjd, abs=1e-8)


def test_what_is_not_known_of_the_times_is_left_out():
    header = build([frame(exposure=math.nan, date=None)])
    assert not any(key.startswith(("DATE", "MJD", "EXP", "LIVE")) for key in header)
    header = build([frame(exposure=math.nan), frame("b", exposure=20.0, date=None)])
    assert header["EXPTIME"] == 20.0
    assert "LIVETIME" not in header
    assert header["DATE-AVG"] == header["DATE-END"] == "2024-03-01T21:00:00.000"


def test_only_what_all_frames_share_is_kept():
    used = [frame(), frame("b", GAIN=100, OBJECT="M 51", CCD__TEMP=None), frame("c", FILTER=" IRCUT ")]
    header = build(used)
    assert header["INSTRUME"] == "Seestar S50"
    assert header["FILTER"] == "IRCUT"
    assert "GAIN" not in header
    assert "CCD-TEMP" not in header
    assert header["OBJECT"] == "M 94"  # the reference's
    assert "BAYERPAT" not in build([frame(BAYERPAT="RGGB")])


@pytest.mark.parametrize(
    ("given", "kept"), [(None, "TOP-DOWN"), ("bottom-up ", "BOTTOM-UP"), ("sideways", "TOP-DOWN")]
)
def test_row_order_is_that_of_the_reference(given, kept):
    assert build([frame(ROWORDER=given)])["ROWORDER"] == kept


@pytest.mark.parametrize("length", [8, 9, 18, 40, 60, 65, 66, 67, 68, 69, 70, 71, 80, 200])
@pytest.mark.parametrize("char", ["x", "'"])
def test_names_of_any_length_are_kept(tmp_path, length, char):
    name = "a" * (length - 3) + char + "bc"
    header = written(build([frame(name)]), tmp_path)
    assert header["ZMT_REF"] == name


def test_other_alphabets_do_no_harm(tmp_path):
    one = replace(
        frame("été/γ%.fits"), header={"OBJECT": "γ Cassiopeiæ\n", "FILTER": "Hα", "OBSERVER": "Zoë"}
    )
    header = written(build([one]), tmp_path)
    assert header["OBJECT"] == "gamma Cassiopei?"
    assert header["FILTER"] == "Halpha"
    assert header["OBSERVER"] == "Zoe"
    assert unquote(header["ZMT_REF"]) == "été/γ%.fits"
    assert default_name(one, [one]) == "master_tile_gamma_Cassiopei_Halpha.fits"


def test_values_that_fits_cannot_hold_are_left_out():
    one = replace(frame(), header={"GAIN": math.nan, "EGAIN": 1j, "INSTRUME": " ", "FOCUSPOS": math.inf})
    assert not {"GAIN", "EGAIN", "INSTRUME", "FOCUSPOS"} & set(build([one]))


@pytest.mark.parametrize("sip", [{}, SIP_CARDS])
@pytest.mark.parametrize("shape", [(20, 30), (3, 20, 30)])
def test_coordinates_of_grey_and_colour_tiles_are_read_without_a_warning(tmp_path, shape, sip):
    cards = {k: v for k, v in WCS_CARDS.items() if not k.startswith("PV")} | sip
    if sip:
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
    header = written(build([frame()], wcs=cards, shape=shape), tmp_path, shape)
    assert all(f"CD{i}_{j}" in header for i in (1, 2) for j in (1, 2))
    readings = [WCS(header, naxis=2)]
    if not (sip and len(shape) == 3):  # SIP has two axes: with three, astropy wants to be told naxis=2
        readings += [WCS(header), WCS(header).celestial]
    for wcs in readings:
        point = wcs.wcs_pix2world([[9.0, 9.0, 0.0][: wcs.naxis]], 0)[0]
        assert point[:2] == pytest.approx((192.7, 41.1))


def test_identity_depends_on_frames_and_options_alone():
    def named(hashes=("a", "b"), options=None, reference="a", masters=()):
        return tile_id(hashes, options or Options(), reference, masters)

    base = named()
    assert re.fullmatch("[0-9a-f]{16}", base)
    assert base == named(["b", "a"])
    assert base != named(["a", "c"])
    assert base != named(["a"])
    assert base != named(reference="b")
    assert base != named(options=Options(hot_pixels=True))
    assert base != named(options=Options(dark="d.fits"), masters=["", "c", ""])
    assert base == named(options=Options(dark="d.fits"))  # the content counts, not the name
    assert base != named(options=Options(kappa=(3.0, 4.0)))
    assert base == named(options=Options(fill=0.0, planes=("weight",), skip_unreadable=True))
    assert base == named(options=Options(reject_frames=("fwhm<9",)))
    chosen = named(options=Options(reference="x/l.fits"))
    assert chosen == named(options=Options(reference="l"))  # as is the reference's
    assert chosen != base  # its transforms may differ in their last digits


def test_the_degree_that_the_program_chose_is_the_one_that_was_asked_for():
    one = [frame()]
    assert build(one)["ZMT_ID"] == build(one, Options(sky_degree=1))["ZMT_ID"]
    assert build(one)["ZMT_ID"] != build(one, Options(sky_degree=2))["ZMT_ID"]


def test_numbers_of_any_length_are_kept(tmp_path):
    header = build([frame()], Options(reject="esd", esd_alpha=1.2345678901234568e-05))
    header = with_card(header, "ZMT_FILL", -1.2345678901234567e-300)
    header = with_card(header, "ZMT_FILL", -1.2345678901234567e-30)
    header = written(header, tmp_path)
    assert (header["ZMT_ESDA"], header["ZMT_FILL"]) == (1.2345678901234568e-05, -1.2345678901234567e-30)


@pytest.mark.parametrize(
    ("cards", "name"),
    [
        ({}, "master_tile_M_94_IRCUT.fits"),
        ({"FILTER": None}, "master_tile_M_94.fits"),
        ({"OBJECT": None}, "master_tile_IRCUT.fits"),
        ({"OBJECT": "../../etc; rm *", "FILTER": "L/P"}, "master_tile_etc_rm_L_P.fits"),
        ({"OBJECT": "x" * 300, "FILTER": None}, f"master_tile_{'x' * 60}.fits"),
        ({"OBJECT": None, "FILTER": None}, "master_tile_light_001.fits"),
        ({"OBJECT": "???", "FILTER": None}, "master_tile_light_001.fits"),
    ],
)
def test_default_name_is_safe(cards, name):
    one = frame("night 1/light_001.fits.gz", **cards)
    assert default_name(one, [one]) == name


def test_a_filter_that_is_not_shared_is_no_part_of_the_name():
    assert default_name(frame(), [frame(), frame("b", FILTER="LP")]) == "master_tile_M_94.fits"


def test_texts():
    assert ascii_text("M 31\tβ Ωm–é") == "M 31 beta omegam?e"
    assert file_text("a b'~.fits") == "a b'~.fits"
    assert file_text("é%") == "%C3%A9%25"
    assert file_text(" a  b ") == "%20a  b%20"
    assert iso(datetime(2024, 12, 31, 23, 59, 59, 999_600, tzinfo=UTC)) == "2025-01-01T00:00:00.000"
