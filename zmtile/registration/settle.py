"""Pairing and fitting in turn, each under the other's result, until the set of stars stands still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zmtile.kernels.settle import settle_bend
from zmtile.registration.links import Link, link_of, link_up, residual_of, rms_of, stars_of
from zmtile.registration.mapping import Bent, Map
from zmtile.registration.models import FIT, NUMBER, improve
from zmtile.registration.starfield import Field, final_radius
from zmtile.registration.starmatch import NEAREST, WIDEST
from zmtile.registration.transform import IDENTITY

__all__ = ["settle"]

# With fewer stars, half of which may be dropped as outliers, nothing is fitted at all.
FEWEST = 8
# Stars are gathered under a simpler model first.
_FIRST = {"poly3": "poly2", "homography": "affine"}
_ROUNDS = 10


def settle(
    fields: Sequence[Field],
    maps: Mapping[int, Map],
    models: Mapping[int, str],
    ties: Sequence[tuple[int, int]],
) -> tuple[dict[int, Map], list[Link]]:
    """Pair and fit until the set of stars stands still, first under the simpler models.

    Parameters
    ----------
    fields : sequence of Field
    maps : dict
        Map of each frame that a tie names; `Bent` for those that are fitted.
    models : dict
        Model of each frame that is fitted.
    ties : sequence of (int, int)
        The frames whose stars are paired.

    Returns
    -------
    maps : dict
    links : list of Link
        The stars that agree; all that lie near, where a frame has too few of them to be fitted.
    """
    if len(models) == len(ties) == 1:
        ((k, model),) = models.items()
        other = sum(ties[0]) - k
        held = maps[other]
        if model != "similarity" and isinstance(held, np.ndarray) and np.array_equal(held, IDENTITY):
            found, link = _settle_alone(fields, maps, k, other, model)
            return dict(maps) | {k: found}, [link]
    now = dict(maps)
    links: list[Link] = []
    radius = [3.0 * final_radius(fields[a], fields[b]) for a, b in ties]
    for stage in [{k: _FIRST.get(m, m) for k, m in models.items()}, models]:
        previous = b""
        for _ in range(_ROUNDS):
            links = every = [link_up(fields, now, a, b, r) for (a, b), r in zip(ties, radius, strict=True)]
            if min(stars_of(links, k) for k in models) < FEWEST:
                return now, links
            for _ in range(4):
                now |= improve(now, stage, [link.pairs for link in links])
                links = [_trimmed(now, link) for link in every]
            state = b"|".join(link.i.tobytes() + link.j.tobytes() for link in links)
            if state == previous:
                break
            previous = state
            radius = [
                max(final_radius(fields[a], fields[b]), min(r, 4.0 * rms_of(link.residual)))
                for (a, b), r, link in zip(ties, radius, links, strict=True)
            ]
    return now, links


def _trimmed(maps: Mapping[int, Map], link: Link) -> Link:
    """Return the stars that agree: within 3.5 robust sigma, as in `zmtile.registration.starmatch.refine`."""
    residual = residual_of(maps, link.pairs)
    limit = max(WIDEST * float(np.median(residual)) / 1.177, NEAREST) if residual.size else 0.0
    return link.of(residual <= limit, residual)


def _settle_alone(
    fields: Sequence[Field], maps: Mapping[int, Map], k: int, reference: int, model: str
) -> tuple[Bent, Link]:
    """Do the same for one frame on the reference, as most are: all of it in one kernel."""
    frame, home, start = fields[k], fields[reference], maps[k]
    assert isinstance(start, Bent)
    matrix, bend = start.matrix.copy(), start.bend.copy()
    pairs = np.empty((len(frame.stars), 2), np.int64)
    count = settle_bend(
        np.array([NUMBER[_FIRST.get(model, model)], NUMBER[model]]),
        matrix,
        bend,
        frame.xy,
        frame.stars.error,
        home.places,
        home.errors,
        final_radius(frame, home),
        FEWEST,
        WIDEST,
        NEAREST,
        *FIT,
        pairs,
    )
    found = Bent(matrix, bend)
    i, place = pairs[:count].T
    return found, link_of(fields, {k: found, reference: IDENTITY}, k, reference, i, home.order[place])
