"""Proof that a transform between two star lists is no accident, and not the sensor's own pattern."""

from __future__ import annotations

import math

import numpy as np

from zmtile.kernels.chance import log_accidents
from zmtile.registration.mapping import Map, apply, invert
from zmtile.registration.sensor import largest_motion, sky_at_rest
from zmtile.registration.starfield import MIN_STARS, Field, final_radius, pair_up
from zmtile.registration.transform import Transform, scale_of

__all__ = ["SCALE_RANGE", "false_alarms", "stars_prove", "verify"]

SCALE_RANGE = 2.2
MAX_SHEAR = 1.05
VERIFY_STARS = 300
# Fewer than one in a million unrelated pairs may have a transform that passes.
LOG_FALSE_ALARMS = -6.0
MIN_FRACTION = 0.15
# The fit lies between the places that any two of its stars would give. Measured against these, the
# residuals of the others are about twice as large.
SLACK = 2.0
# Residuals below this say no more: centroids have systematic errors, px.
FLOOR = 0.1
# Stars gather in clusters, false detections along columns: density is also taken this near, px.
AROUND = 64.0
# Two frames of a sky at rest differ by more, px: no mount is that steady.
GUIDED = 0.3


def verify(source: Field, target: Field, transform: Transform) -> bool:
    """Tell whether a transform is true beyond doubt.

    The stars that agree must be too many for chance, a fair fraction of those that could, close
    together, and the scale and shear within reason. A transform that leaves the sensor where it is
    must be that of a sky at rest.
    """
    matrix = transform.matrix
    singular = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if not (1 / SCALE_RANGE < scale_of(matrix) < SCALE_RANGE and singular[0] < MAX_SHEAR * singular[1]):
        return False
    return stars_prove(source, target, matrix, transform.nmatch, transform.rms) and not _sensor_at_rest(
        source, target, transform
    )


def stars_prove(source: Field, target: Field, between: Map, nmatch: int, rms: float) -> bool:
    """Tell whether the stars that agree under a map are close together, a fair part, and no accident.

    Parameters
    ----------
    source, target : Field
    between : Map
        Source → target.
    nmatch : int
        Stars that agree.
    rms : float
        Root mean square of their distances, px.
    """
    if rms > 0.45 * final_radius(source, target):
        return False
    moved = apply(between, source.xy[:VERIFY_STARS])
    possible = min(
        int(target.contains(moved).sum()),
        int(source.contains(apply(invert(between), target.xy[:VERIFY_STARS])).sum()),
    )
    return (
        nmatch >= max(MIN_STARS, MIN_FRACTION * possible)
        and false_alarms(source, target, between) < LOG_FALSE_ALARMS
    )


def false_alarms(source: Field, target: Field, between: Map) -> float:
    """Return log10 of how many transforms as good are expected between unrelated lists.

    A-contrario reasoning ([Desolneux2008]_): there is one hypothesis for each way to lay two stars of
    one list on two of the other, in either parity. Under each, every other star finds a partner
    within d px with the chance density · π d². So k stars that agree within d, of n that could, are
    expected tests · P(Binomial(n - 2, chance) ≥ k - 2) times. The best k counts, and having tried
    all of them is one more factor of n.
    """
    # The brightest are enough to prove it, and keep crowded fields from matching anything.
    moved = apply(between, source.xy[:VERIFY_STARS])
    moved = moved[target.contains(moved)]
    if not len(moved):
        return math.inf
    ours, theirs = (min(len(f.stars), VERIFY_STARS) for f in (source, target))
    return float(
        log_accidents(
            moved,
            target.places,
            target.rows * target.cols,
            final_radius(source, target),
            AROUND,
            SLACK,
            FLOOR,
            float(ours * (ours - 1) * theirs * (theirs - 1) * len(moved)),  # half of them, twice
        )
    )


def _sensor_at_rest(source: Field, target: Field, transform: Transform) -> bool:
    """Tell whether a transform may come from what the sensor shows in every frame.

    Hot pixels stay exactly where they are; guiding never is that good.
    """
    if (source.rows, source.cols) != (target.rows, target.cols):
        return False
    moved = largest_motion(transform.matrix, source.rows, source.cols)
    if moved > max(GUIDED, 6.0 * transform.rms / math.sqrt(transform.nmatch)):
        return False
    i, j = pair_up(source, target, transform.matrix, final_radius(source, target))
    for field, found in ((source, i), (target, j)):
        repeats = np.zeros(len(field.stars), bool)
        repeats[found] = True
        if not sky_at_rest(field.stars, repeats):
            return True
    return False
