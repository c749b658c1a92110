"""How many transforms as good as one are expected by accident."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel
from zmtile.kernels.stars import first_from, nearest

__all__ = ["log_accidents", "log_tail"]


@kernel
def log_tail(n: int, k: int, chance: float) -> float:
    """Return the logarithm of the probability that k or more of n happen, each with a chance within 0 … 1.

    It is the largest term of the sum times what all of them are in units of it: none overflows.
    """
    top = max(k, int((n + 1) * chance))
    if top > n:
        return -math.inf
    odds = chance / (1.0 - chance)
    largest = math.lgamma(n + 1.0) - math.lgamma(top + 1.0) - math.lgamma(n - top + 1.0)
    largest += top * math.log(chance) + (n - top) * math.log1p(-chance)
    total, term = 1.0, 1.0
    for i in range(top, n):
        term *= (n - i) / (i + 1.0) * odds
        total += term
    term = 1.0
    for i in range(top, k, -1):
        term *= i / ((n - i + 1.0) * odds)
        total += term
    return largest + math.log(total)


@brief
def log_accidents(
    moved: Any,
    places: Any,
    area: float,
    radius: float,
    around: float,
    slack: float,
    floor: float,
    tests: float,
) -> float:
    """Return log10 of how many transforms as good are expected between unrelated lists.

    Parameters
    ----------
    moved : (n, 2) float64
        Stars of the source that lie on the target, as the transform puts them.
    places : (m, 2) float64
        Stars of the target, ordered by y.
    area : float
        Of the target, px².
    radius : float
        Within which two detections are one star, px.
    around : float
        The density is also taken this near to the stars, px.
    slack : float
        By how much larger the distances of the other stars are than those that the fit leaves.
    floor : float
        Distances below it say no more, px.
    tests : float
        Hypotheses there are.
    """
    asked = moved.shape[0]
    distance = np.empty(asked)
    agreed = 0
    near = 0
    for s in range(asked):
        x, y = moved[s, 0], moved[s, 1]
        found, square = nearest(places, first_from(places, y - radius), x, y, radius * radius)
        if found >= 0:
            distance[agreed] = math.sqrt(square)
            agreed += 1
        for k in range(first_from(places, y - around), places.shape[0]):
            dx, dy = places[k, 0] - x, places[k, 1] - y
            if dy > around:
                break
            near += dx * dx + dy * dy <= around * around
    if agreed < 3:
        return math.inf
    near -= agreed
    # Three sigma less: a few neighbours are no cluster.
    crowd = max(near - 3.0 * math.sqrt(max(near, 0)), 0.0) / (asked * math.pi * around**2)
    density = max(places.shape[0] / area, crowd)
    least = math.inf
    for k in range(agreed):
        nearer = 0
        for s in range(agreed):
            nearer += distance[s] <= distance[k]
        if nearer > 2:
            chance = min(0.5, density * math.pi * (slack * max(distance[k], floor)) ** 2)
            least = min(least, log_tail(max(asked - 2, 1), nearer - 2, chance))
    return math.log10(tests) + least / math.log(10.0)
