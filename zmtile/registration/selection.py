"""Selection: frames that fail the user's rules (`--reject-frames`) are left out, with the reason.

A rule is applied as soon as its quantity is known. Those that need only the frame itself come before
the registration, so the reference is chosen among the frames that stay.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import TooFewFrames
from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.matching.match import Photometry
from zmtile.options import Options
from zmtile.progress import Progress
from zmtile.registration.reference import find_reference
from zmtile.registration.register import register
from zmtile.registration.registration import Registration
from zmtile.registration.starfield import MIN_STARS
from zmtile.rules import Rule, parse_rule

__all__ = ["Failure", "register_chosen", "select_matched", "select_measured", "select_registered", "without"]

log = logging.getLogger("zmtile")

NAMES = {
    "fwhm": "FWHM",
    "stars": "number of stars",
    "roundness": "roundness",
    "noise": "noise",
    "sky": "sky",
    "matched": "number of matched stars",
    "rms": "rms",
    "scale": "scale",
}


@dataclass(frozen=True)
class Failure:
    """A frame that is left out by a rule.

    Attributes
    ----------
    rule : str
        As the user wrote it.
    reason : str
        The frame's value, and the bound.
    """

    rule: str
    reason: str


def select_measured(
    frames: Sequence[Frame], stats: Sequence[FrameStats], options: Options
) -> dict[int, Failure]:
    """Return the frames that fail a rule on what was measured of themselves.

    The median is that of the frames with stars enough to be registered; of all, if none has.

    Raises
    ------
    TooFewFrames
        When the reference that the user named is among them.
    """
    values = {
        "fwhm": np.array([s.fwhm for s in stats]),
        "stars": np.array([len(s.stars) for s in stats], np.float64),
        "roundness": np.array([s.roundness for s in stats]),
        "noise": np.array([s.noise.mean() for s in stats]),
        "sky": np.array([_sky(s) for s in stats]),
    }
    typical = values["stars"] >= MIN_STARS
    failures = _judge(values, typical if typical.any() else ~typical, options)
    if options.reference is not None and failures:
        named = find_reference(frames, options.reference)
        if named in failures:
            raise TooFewFrames(
                f"{frames[named].path}: {failures[named].reason}, so it cannot be the reference",
                "Choose another --reference, or a looser rule.",
            )
    return failures


def select_registered(registration: Registration, options: Options) -> dict[int, Failure]:
    """Return the registered frames that fail a rule on their match with the reference.

    The reference, which is not matched with anything, is neither judged nor part of the median.
    """
    others = [k for k in registration.used if k != registration.reference]
    found = [t for k in others if (t := registration.transforms[k]) is not None]
    values = {
        "matched": np.array([t.nmatch for t in found], np.float64),
        "rms": np.array([t.rms for t in found]),
    }
    failures = _judge(values, np.ones(len(found), bool), options)
    return {others[k]: failure for k, failure in failures.items()}


def select_matched(
    photometry: Mapping[int, Photometry], reference: int, options: Options
) -> dict[int, Failure]:
    """Return the frames that fail a rule on their flux scale.

    The reference has the scale 1 by definition. It counts for the median, and stays in any case.
    """
    used = list(photometry)
    values = {"scale": np.array([photometry[k].scale.mean() for k in used])}
    failures = _judge(values, np.ones(len(used), bool), options)
    named = {used[k]: failure for k, failure in failures.items()}
    if reference in named:
        log.warning("the reference fails %s and stays: the others are scaled to it", named[reference].rule)
        del named[reference]
    return named


def register_chosen(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    failures: Mapping[int, Failure],
    options: Options,
    progress: Progress,
) -> Registration:
    """Register the frames that fail no rule; the others appear in the result with their reason.

    Raises
    ------
    TooFewFrames
        When no frame is left.
    """
    kept = [k for k in range(len(frames)) if k not in failures]
    if not kept:
        listed = "".join(f"\n  {frames[k].name}: {f.reason}" for k, f in list(failures.items())[:10])
        raise TooFewFrames(f"every frame fails a rule of --reject-frames{listed}", "Choose a looser rule.")
    found = register([frames[k] for k in kept], [stats[k] for k in kept], options, progress)
    transforms = dict(zip(kept, found.transforms, strict=True))
    reasons = dict(zip(kept, found.reasons, strict=True)) | {k: f.reason for k, f in failures.items()}
    return Registration(
        kept[found.reference],
        tuple(transforms.get(k) for k in range(len(frames))),
        tuple(reasons[k] for k in range(len(frames))),
    )


def without(registration: Registration, failures: Mapping[int, Failure]) -> Registration:
    """Return a registration in which the frames that fail a rule are left out."""
    return replace(
        registration,
        transforms=tuple(None if k in failures else t for k, t in enumerate(registration.transforms)),
        reasons=tuple(failures[k].reason if k in failures else r for k, r in enumerate(registration.reasons)),
    )


def _sky(stats: FrameStats) -> float:
    """Median of the sky mesh, mean of the channels, ADU; NaN where a channel has no sky."""
    flat = stats.sky.level.reshape(stats.sky.level.shape[0], -1)
    return float(np.mean([np.nanmedian(row) if np.isfinite(row).any() else math.nan for row in flat]))


def _judge(
    values: Mapping[str, NDArray[np.float64]], typical: NDArray[np.bool_], options: Options
) -> dict[int, Failure]:
    """Apply the rules on these quantities, in the user's order; the first that fails is the reason."""
    failures: dict[int, Failure] = {}
    for rule in map(parse_rule, options.reject_frames):
        if rule.quantity not in values:
            continue
        known = values[rule.quantity][typical & np.isfinite(values[rule.quantity])]
        median = float(np.median(known)) if known.size else math.nan
        for k, value in enumerate(values[rule.quantity].tolist()):
            if k not in failures and not rule.holds(value, median):
                failures[k] = Failure(rule.text, _reason(rule, value, median))
    return failures


def _reason(rule: Rule, value: float, median: float) -> str:
    name = NAMES[rule.quantity]
    if not math.isfinite(value):
        return f"its {name} is not known, which fails {rule.text}"
    if not math.isfinite(rule.bound(median)):
        return f"its {name} is {value:.4g}, and the median of {rule.text} is not known"
    bound = f" = {rule.bound(median):.4g}" if rule.relative else ""
    return f"its {name} is {value:.4g}, which fails {rule.text}{bound}"
