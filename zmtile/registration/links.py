"""Links: the stars that two frames have in common under their maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.mapping import Map, apply, compose, invert
from zmtile.registration.models import Pairs
from zmtile.registration.starfield import Field, pair_up

__all__ = ["Link", "link_of", "link_up", "residual_of", "rms_of", "stars_of"]


@dataclass(frozen=True)
class Link:
    """Stars that two frames have in common: their places in the two lists, and how well they agree.

    Attributes
    ----------
    i, j : (n,) int
        Places of the stars in the lists of the frames a and b.
    pairs : Pairs
    residual : (n,) float64
        Their distances, px of the reference.
    """

    i: NDArray[np.intp]
    j: NDArray[np.intp]
    pairs: Pairs
    residual: NDArray[np.float64]

    def of(self, keep: NDArray[np.bool_], residual: NDArray[np.float64]) -> Link:
        """Return the stars to be kept, with their distances as they are now."""
        p = self.pairs
        pairs = Pairs(p.a, p.b, p.here[keep], p.there[keep], p.weight[keep])
        return Link(self.i[keep], self.j[keep], pairs, residual[keep])


def link_up(fields: Sequence[Field], maps: Mapping[int, Map], a: int, b: int, radius: float) -> Link:
    """Pair the stars of two frames that lie within `radius` px of each other under their maps."""
    i, j = pair_up(fields[a], fields[b], compose(invert(maps[b]), maps[a]), radius)
    return link_of(fields, maps, a, b, i, j)


def link_of(
    fields: Sequence[Field],
    maps: Mapping[int, Map],
    a: int,
    b: int,
    i: NDArray[np.intp],
    j: NDArray[np.intp],
) -> Link:
    """Return the link of stars that are paired already, by their places in the lists of both frames."""
    weight = 1.0 / (fields[a].stars.error[i] ** 2 + fields[b].stars.error[j] ** 2)
    pairs = Pairs(a, b, fields[a].xy[i], fields[b].xy[j], weight)
    return Link(i, j, pairs, residual_of(maps, pairs))


def residual_of(maps: Mapping[int, Map], pairs: Pairs) -> NDArray[np.float64]:
    """Return the distances of paired stars, px of the reference."""
    x, y = (apply(maps[pairs.a], pairs.here) - apply(maps[pairs.b], pairs.there)).T
    distance: NDArray[np.float64] = np.hypot(x, y)
    return distance


def rms_of(residual: NDArray[np.float64]) -> float:
    """Return the root mean square of distances; infinite without any."""
    return math.sqrt(float(np.mean(residual**2))) if residual.size else math.inf


def stars_of(links: Sequence[Link], k: int) -> int:
    """Return how many of a frame's stars are paired, each counted once however many frames show it."""
    own = [link.i if link.pairs.a == k else link.j for link in links if k in (link.pairs.a, link.pairs.b)]
    return np.unique(np.concatenate(own)).size if own else 0
