"""Rules that frames must hold to be stacked: ``fwhm<1.5*median`` and the like."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from zmtile.errors import UsageError

__all__ = ["MATCHED", "MEASURED", "QUANTITIES", "REGISTERED", "Rule", "parse_rule"]

# What a rule may ask for, by the stage after which it is known; frames that fail early cost the
# later stages nothing, and cannot become the reference.
MEASURED = ("fwhm", "stars", "roundness", "noise", "sky")
REGISTERED = ("matched", "rms")
MATCHED = ("scale",)
QUANTITIES = (*MEASURED, *REGISTERED, *MATCHED)

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_GRAMMAR = re.compile(  # in ASCII: the header of the tile tells of the rules
    r"(\w+) *(<=|>=|<|>) *([+-]?[\d.]+(?:e[+-]?\d+)?) *(\* *median)?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class Rule:
    """What a frame must hold to be stacked.

    Attributes
    ----------
    quantity : str
        One of `QUANTITIES`.
    comparison : {'<', '<=', '>', '>='}
    number : float
        The bound or, if `relative`, the factor on the median.
    relative : bool
        The bound is a multiple of the group's median.
    text : str
        As the user wrote it, without blanks.
    """

    quantity: str
    comparison: str
    number: float
    relative: bool
    text: str

    def bound(self, median: float) -> float:
        """Return what a frame is compared with; NaN when the median is needed and not known."""
        return self.number * median if self.relative else self.number

    def holds(self, value: float, median: float) -> bool:
        """Tell whether a frame with this value stays; an unknown value (NaN) never does."""
        return _COMPARE[self.comparison](value, self.bound(median))


def parse_rule(text: str) -> Rule:
    """Return the rule that a text means.

    Raises
    ------
    UsageError
        When it means none.

    Examples
    --------
    >>> parse_rule("fwhm < 1.5 * median").text
    'fwhm<1.5*median'
    """
    told = _GRAMMAR.fullmatch(text.strip())
    try:
        number = float(told[3]) if told else math.nan
    except ValueError:  # two points in a number
        number = math.nan
    if told is None or not math.isfinite(number):
        raise UsageError(
            f"{text!r} is no rule for frames",
            "Write what a frame must hold, in quotes: 'fwhm<1.5*median' or 'rms<0.5'; "
            f"quantities: {', '.join(QUANTITIES)}; comparisons: {' '.join(_COMPARE)}.",
        )
    if told[1].lower() not in QUANTITIES:
        raise UsageError(
            f"{text!r}: no quantity is called {told[1]}", f"Choose one of {', '.join(QUANTITIES)}."
        )
    written = re.sub(r"\s+", "", text).lower()
    return Rule(told[1].lower(), told[2], number, told[4] is not None, written)
