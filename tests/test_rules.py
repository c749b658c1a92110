"""The grammar of --reject-frames."""

from __future__ import annotations

import contextlib
import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmtile.errors import UsageError
from zmtile.rules import QUANTITIES, parse_rule

COMPARISONS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


@pytest.mark.parametrize(
    ("text", "quantity", "comparison", "number", "relative", "written"),
    [
        ("fwhm<1.5*median", "fwhm", "<", 1.5, True, "fwhm<1.5*median"),
        (" STARS >= .5 * Median ", "stars", ">=", 0.5, True, "stars>=.5*median"),
        ("rms<0.5", "rms", "<", 0.5, False, "rms<0.5"),
        ("sky<=1e4", "sky", "<=", 1e4, False, "sky<=1e4"),
        ("sky>-20", "sky", ">", -20.0, False, "sky>-20"),
    ],
)
def test_what_a_rule_means(text, quantity, comparison, number, relative, written):
    rule = parse_rule(text)
    assert (rule.quantity, rule.comparison, rule.number) == (quantity, comparison, number)
    assert (rule.relative, rule.text) == (relative, written)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fwhm",
        "stars>",
        "<3",
        "fwhm<median",
        "fwhm<1.5*mean",
        "fwhm<1.5median",
        "fwhm=3",
        "fwhm==3",
        "fwhm<<3",
        "fwhm<1.2.3",
        "fwhm<.",
        "fwhm<nan",
        "fwhm<1e999",
        "fwhm<3 rms<1",
        "3>fwhm",
    ],
)
def test_what_is_no_rule_is_refused_with_the_grammar(text):
    with pytest.raises(UsageError, match="no rule") as caught:
        parse_rule(text)
    assert all(name in caught.value.remedy for name in (*QUANTITIES, "quotes"))


def test_an_unknown_quantity_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match="no quantity is called size") as caught:
        parse_rule("size<3")
    assert all(name in caught.value.remedy for name in QUANTITIES)


@given(st.text(max_size=16))
def test_any_text_is_a_rule_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_rule(text).quantity in QUANTITIES


@given(
    st.sampled_from(QUANTITIES),
    st.sampled_from(list(COMPARISONS)),
    st.floats(-1e6, 1e6),
    st.booleans(),
    st.floats(allow_infinity=False),
    st.floats(allow_infinity=False),
)
def test_a_rule_compares_and_what_is_not_known_never_holds(
    quantity, comparison, number, relative, value, median
):
    rule = parse_rule(f"{quantity}{comparison}{number!r}{'*median' if relative else ''}")
    bound = number * median if relative else number
    assert rule.holds(value, median) == COMPARISONS[comparison](value, bound)
    if math.isnan(value) or math.isnan(bound):
        assert not rule.holds(value, median)
