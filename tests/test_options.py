"""Options and resources: the values that make sense, and what is said of the others."""

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmtile import options
from zmtile.errors import UsageError
from zmtile.options import Options, Resources, parse_size

CHOICES = {
    "align": options.ALIGNMENTS,
    "transform": options.TRANSFORMS,
    "framing": options.FRAMINGS,
    "normalize": options.NORMALIZATIONS,
    "weight": options.WEIGHTS,
    "reject": options.REJECTIONS,
    "combine": options.COMBINES,
    "kernel": options.KERNELS,
    "cfa": options.CFA_WAYS,
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in CHOICES.items() for v in values])
def test_every_choice_of_the_tables_is_accepted(name, value):
    assert Options(**{name: value}).as_dict()[name] == value


@pytest.mark.parametrize("name", CHOICES)
def test_any_other_value_is_refused_with_the_choices(name):
    with pytest.raises(UsageError, match=f"{name} is 'nonsense'") as caught:
        Options(**{name: "nonsense"})
    assert all(choice in caught.value.remedy for choice in CHOICES[name])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kappa": (0.0, 3.0)},
        {"kappa": (3.0, -1.0)},
        {"kappa": (float("nan"), 3.0)},
        {"kappa": (3.0, float("inf"))},
        {"winsor_limits": (-0.1, 0.1)},
        {"winsor_limits": (0.5, 0.5)},
        {"winsor_limits": (float("nan"), 0.1)},
        {"rewinsorize": True},
        {"rewinsorize": True, "reject": "sigma"},
        {"winsor_limits": (0.1, 0.1)},
        {"kappa": (2.0, 3.0), "reject": "esd"},
        {"kappa": (2.0, 3.0), "reject": "none"},
        {"esd_alpha": 0.01},
        {"esd_outliers": 0.2, "reject": "minmax"},
        {"minmax": (2, 2)},
        {"minmax": (0, 0), "reject": "minmax"},
        {"minmax": (-1, 2), "reject": "minmax"},
        {"esd_outliers": 0.6, "reject": "esd"},
        {"esd_outliers": 0.0, "reject": "esd"},
        {"esd_alpha": 1.0, "reject": "esd"},
        {"feather": -1.0},
        {"feather": float("nan")},
        {"feather": 10.0, "combine": "median"},
        {"sky_degree": 0},
        {"sky_degree": 3},
        {"sky_degree": 2, "normalize": "offset"},
        {"cfa": "direct", "kernel": "lanczos3"},
        {"cfa": "direct", "clamp": False},
        {"min_coverage": 0},
        {"min_frames": 0},
        {"planes": ("mask", "colour")},
        {"fill": float("inf")},
        {"fill": float("nan")},
        {"weight": "fwhm", "combine": "median"},
        {"reject_frames": ("fwhm<",)},
        {"reject_frames": ("scale<1.5",), "normalize": "offset"},
        {"reject_frames": ("matched>20",), "align": "wcs"},
    ],
)
def test_values_that_make_no_sense_are_refused_with_a_remedy(wrong):
    with pytest.raises(UsageError) as caught:
        Options(**wrong)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "right",
    [
        {"winsor_limits": (0.0, 0.0), "reject": "winsor-quantile"},
        {"esd_outliers": 0.5, "esd_alpha": 0.001, "reject": "esd"},
        {"minmax": (0, 3), "reject": "minmax"},
        {"rewinsorize": True, "reject": "winsor-quantile"},
        {"min_frames": 1},
        {"planes": ()},
        {"planes": ("weight", "mask")},
        {"fill": 0.0},
        {"reject_frames": ("scale<1.5",), "normalize": "both"},
        {"reject_frames": ("rms<0.5",), "align": "wcs"},
    ],
)
def test_values_at_the_edge_are_accepted(right):
    Options(**right)


def test_as_dict_lists_every_option_in_order():
    assert list(Options().as_dict()) == [f.name for f in fields(Options)]
    assert Options(**Options().as_dict()) == Options()


def test_options_cannot_be_changed():
    with pytest.raises(AttributeError):
        Options().kernel = "bilinear"  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"threads": -2}, {"memory_limit": 0}])
def test_resources_that_make_no_sense_are_refused(wrong):
    with pytest.raises(UsageError) as caught:
        Resources(**wrong)
    assert caught.value.remedy


def test_threads_default_to_the_cores_that_may_be_used():
    assert Resources().workers >= 1
    assert Resources(threads=7).workers == 7


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("2 gib", 2 * 2**30),
        ("512M", 512 * 2**20),
        ("512MiB", 512 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("64k", 65536),
        ("100", 100),
        ("100B", 100),
        (" 1TiB ", 2**40),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "much", "-1G", "0", "nan", "inf", "2XB", "2GiBB", "1e999", "2 G B"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="no size") as caught:
        parse_size(text)
    assert "2GiB" in caught.value.remedy


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_size(text) >= 1
