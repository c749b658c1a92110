"""Stars of two lists that lie on each other.

The list that is searched is ordered by y: the stars within some distance of a point are then among
those of a narrow band, found by bisection. A frame has 2000 stars at most, so such a band of a few
pixels holds a handful, and nothing has to be built but the order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zmtile.kernels import brief, kernel

__all__ = ["count_repeats", "first_from", "nearest", "nearest_stars", "pair_stars", "stand_still"]


@kernel
def first_from(places: Any, y: float) -> int:
    """Return the first of some places, ordered by y, that is not above y."""
    low, high = 0, places.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if places[middle, 1] < y:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def nearest(places: Any, first: int, x: float, y: float, square: float) -> Any:
    """Return the place nearest to a point, and the square of its distance; -1 without one below `square`.

    Those before `first` are known to be too far up.
    """
    found = -1
    reach = np.sqrt(square)
    for k in range(first, places.shape[0]):
        dy = places[k, 1] - y
        if dy > reach:
            break
        dx = places[k, 0] - x
        away = dx * dx + dy * dy
        if away < square:
            found, square = k, away
    return found, square


@brief
def pair_stars(moved: Any, places: Any, radius: float, pairs: Any, owner: Any, distance: Any) -> int:
    """Pair points with the places nearest to them, each place with one point.

    Parameters
    ----------
    moved : (n, 2) float64
    places : (m, 2) float64
        Ordered by y.
    radius : float
        Of a pair, px.
    pairs : (n, 2) int64
        Written: point and place of each pair, in the order of the points.
    owner : (m,) int64
    distance : (m,) float64
        Scratch.

    Returns
    -------
    int
        Pairs.
    """
    owner[:] = -1
    for s in range(moved.shape[0]):
        first = first_from(places, moved[s, 1] - radius)
        t, away = nearest(places, first, moved[s, 0], moved[s, 1], radius * radius)
        pairs[s, 1] = t
        if t >= 0 and (owner[t] < 0 or away < distance[t]):
            owner[t], distance[t] = s, away
    count = 0
    for s in range(moved.shape[0]):
        t = pairs[s, 1]
        if t >= 0 and owner[t] == s:
            pairs[count, 0], pairs[count, 1] = s, t
            count += 1
    return count


@kernel
def stand_still(pairs: Any, count: int, before: Any, count_before: int) -> bool:
    """Tell whether two lists of pairs (n, 2) are the same, and note the first in place of the second."""
    same = count == count_before
    for p in range(count):
        same = same and pairs[p, 0] == before[p, 0] and pairs[p, 1] == before[p, 1]
        before[p, 0], before[p, 1] = pairs[p, 0], pairs[p, 1]
    return same


@brief
def count_repeats(points: Any, places: Any, radius: float, seen: Any) -> None:
    """Add 1 to `seen` (n,) for every point (n, 2) that has a place within `radius` px; both ordered by y."""
    first = 0
    for s in range(points.shape[0]):
        x, y = points[s, 0], points[s, 1]
        while first < places.shape[0] and places[first, 1] < y - radius:
            first += 1
        if nearest(places, first, x, y, radius * radius)[0] >= 0:
            seen[s] += 1


@kernel
def nearest_stars(points: Any, near: Any) -> None:
    """Fill `near` (n, k) with the points (n, 2) nearest to each, itself first; k is n at most."""
    kept = near.shape[1]
    distance = np.empty(kept)
    for s in range(points.shape[0]):
        near[s, 0], distance[0] = s, 0.0
        count = 1
        for t in range(points.shape[0]):
            if t == s:
                continue
            dx, dy = points[t, 0] - points[s, 0], points[t, 1] - points[s, 1]
            away = dx * dx + dy * dy
            if count < kept:
                place = count
                count += 1
            elif away < distance[kept - 1]:
                place = kept - 1
            else:
                continue
            while place > 1 and distance[place - 1] > away:
                near[s, place], distance[place] = near[s, place - 1], distance[place - 1]
                place -= 1
            near[s, place], distance[place] = t, away
