"""What the header tells of the options is what they were."""

from dataclasses import fields, replace
from pathlib import Path, PurePath

import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from zmtile import options as known
from zmtile.dependence import USED_BY
from zmtile.errors import UsageError
from zmtile.frames.calibrate import Calibration, Master
from zmtile.frames.frame import Frame
from zmtile.options import Options
from zmtile.rules import MATCHED, QUANTITIES
from zmtile.tiles.choices import CHOICES, choices_told, options_of
from zmtile.tiles.header import tile_header
from zmtile.tiles.keywords import set_card

positive = st.floats(min_value=1e-300, allow_infinity=False)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=40)
files = names.filter(lambda name: name.strip(".") != "")


@st.composite
def choices(draw):
    """Options that contradict each other nowhere; the method is chosen, 'auto' is none."""
    values = {
        "reject": draw(st.sampled_from([r for r in known.REJECTIONS if r != "auto"])),
        "cfa": draw(st.sampled_from(known.CFA_WAYS)),
        "combine": draw(st.sampled_from(known.COMBINES)),
        "normalize": draw(st.sampled_from(known.NORMALIZATIONS)),
        "align": draw(st.sampled_from(known.ALIGNMENTS)),
        "transform": draw(st.sampled_from(known.TRANSFORMS)),
        "framing": draw(st.sampled_from(known.FRAMINGS)),
        "hot_pixels": draw(st.booleans()),
        "min_coverage": draw(st.integers(1, 10**6)),
        "min_frames": draw(st.none() | st.integers(1, 10**6)),
        "skip_unreadable": draw(st.booleans()),
        "fill": draw(st.none() | st.floats(-3e38, 3e38)),
        "planes": draw(st.sampled_from([(), ("mask",), ("weight",), known.EXTRA_PLANES])),
        "reference": draw(st.none() | files),
        **{kind: draw(st.none() | files) for kind in ("bias", "dark", "flat")},
    }
    if values["normalize"] == "surface":
        values["sky_degree"] = draw(st.sampled_from(known.SKY_DEGREES))
    if values["combine"] == "mean":
        values["weight"] = draw(st.sampled_from(known.WEIGHTS))
        values["feather"] = draw(st.floats(0, 1e6, exclude_max=True))
    if values["cfa"] == "demosaic":
        values |= {"kernel": draw(st.sampled_from(known.KERNELS)), "clamp": draw(st.booleans())}
    methods = {
        "kappa": st.tuples(positive, positive),
        "winsor_limits": st.tuples(st.floats(0, 0.5, exclude_max=True), st.floats(0, 0.5, exclude_max=True)),
        "rewinsorize": st.booleans(),
        "esd_outliers": st.floats(0, 0.5, exclude_min=True),
        "esd_alpha": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "minmax": st.tuples(st.integers(0, 100), st.integers(1, 100)),
        "grow": st.integers(0, known.MAX_GROW),
    }
    values |= {name: draw(methods[name]) for name, users in USED_BY.items() if values["reject"] in users}
    if values.get("rewinsorize") or values["cfa"] == "direct":
        values.pop("grow", None)
    quantities = [
        q
        for q in QUANTITIES
        if (q not in MATCHED or values["normalize"] in known.SCALED)
        and (q != "matched" or values["align"] == "stars")
    ]
    rule = st.builds("{}{}{}{}".format, st.sampled_from(quantities), st.sampled_from(["<", " >= "]),
                     positive, st.sampled_from(["", "*median"]))  # fmt: skip
    return Options(**values, reject_frames=tuple(draw(st.lists(rule, max_size=4))))


def header_of(chosen: Options) -> fits.Header:
    """The header of a tile with these options, read from the bytes of a file."""
    light = Frame(Path("x"), chosen.reference or "light.fits", 20, 30, "mono", "", fits.Header())
    masters = {
        kind: Master("", "ab" * 32) for kind in ("bias", "dark", "flat") if getattr(chosen, kind) is not None
    }
    header = tile_header(
        light, [light], options=chosen, canvas_origin=(0, 0), shape=(20, 30), n_inputs=1, wcs_cards=None,
        hashes=["cd" * 32], models=["similarity"], sky_degree=chosen.sky_degree or 0,
        calibration=Calibration(masters=masters),
    )  # fmt: skip
    if chosen.fill is not None:
        set_card(header, "ZMT_FILL", chosen.fill)
    return fits.Header.fromstring(header.text)


@settings(deadline=None)
@given(choices())
def test_every_option_is_read_from_the_header_as_it_was(chosen):
    told = options_of(header_of(chosen), chosen.planes)
    for field in fields(Options):
        assert getattr(told, field.name) == getattr(chosen, field.name), field.name


def test_every_option_is_in_the_table_or_in_the_file():
    assert sorted([*(c.field for c in CHOICES), "fill", "planes"]) == sorted(f.name for f in fields(Options))
    assert list(choices_told(Options())) == [keyword for c in CHOICES for keyword in c.keywords]


def test_of_a_master_its_file_name_is_told(tmp_path):
    path = tmp_path / "none"
    told = options_of(header_of(Options(bias=str(path))), ())
    assert (told.bias, told.dark) == (PurePath(path).name, None)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.field)
def test_an_option_that_the_header_does_not_tell_is_an_error(choice):
    header = header_of(Options())
    del header[choice.keywords[0]]
    with pytest.raises(UsageError, match=rf"{choice.field.replace('_', '-')}.*no {choice.keywords[0]}"):
        options_of(header, ())


@pytest.mark.parametrize(
    ("keyword", "value"), [("ZMT_KLOW", "x"), ("ZMT_CLMP", 1), ("ZMT_GROW", 1.5), ("ZMT_REJ", True)]
)
def test_a_value_of_another_kind_is_an_error(keyword, value):
    header = header_of(Options())
    header[keyword] = value
    with pytest.raises(UsageError, match=f"{keyword} = "):
        options_of(header, ())


def test_a_whole_number_is_a_number():
    header = header_of(replace(Options(), kappa=(2.0, 3.0)))
    header["ZMT_KLOW"] = 2
    assert options_of(header, ()).kappa == (2.0, 3.0)
