"""Reach frames that miss the reference over frames that do not, and solve them together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.links import Link, link_up, residual_of, rms_of, stars_of
from zmtile.registration.mapping import Map
from zmtile.registration.models import improve, plain
from zmtile.registration.proof import verify
from zmtile.registration.starfield import MIN_STARS, Field, final_radius
from zmtile.registration.starmatch import FLIP, match_fields, refine
from zmtile.registration.transform import IDENTITY, Matrix, Transform, apply, compose, invert

__all__ = ["MANY_STARS", "hop", "islands", "solve_together"]

# A frame is offered to this many solved neighbours (nearest in the natural order) in each round, and to
# this many more that lie apart from each other on the sky.
NEIGHBOURS = 6
APART = 6
# A frame that reaches no solved one is matched with this many others of its kind, to tell why.
COMPANY = 3
# Stars that prove a scale by themselves, and a place in the common solution.
MANY_STARS = 12


def hop(
    fields: Sequence[Field], reference: int, order: Sequence[int], solved: dict[int, Matrix]
) -> dict[int, dict[int, Transform]]:
    """Reach frames that miss the reference through solved ones; extends `solved`.

    Returns
    -------
    dict
        For each frame reached: its verified transforms to other frames, by their index.
    """
    hops: dict[int, dict[int, Transform]] = {}
    centre = {s: apply(solved[s], _middle(fields[s]))[0] for s in solved}
    fresh = {k: [s for s in solved if s != reference] for k in order if k not in solved}
    while any(fresh.values()):
        for k in [k for k in order if k in fresh]:
            offered, fresh[k] = _offered(k, fresh[k], centre), []
            if len(fields[k].stars) < MIN_STARS:
                continue
            for s in offered:
                transform = match_fields(fields[k], fields[s], search="near")
                if transform is not None:
                    solved[k] = compose(solved[s], transform.matrix)
                    centre[k] = apply(solved[k], _middle(fields[k]))[0]
                    hops[k] = {s: transform}
                    del fresh[k]
                    for others in fresh.values():
                        others.append(k)
                    break
    for k, edges in hops.items():  # every further overlap steadies the chain
        near = sorted(solved, key=lambda s: (float(np.hypot(*(centre[s] - centre[k]))), s))
        for s in near[1 : NEIGHBOURS + 1]:
            if s not in edges and s != k:
                guess = compose(invert(solved[s]), solved[k])
                transform = refine(fields[k], fields[s], guess)
                if transform is not None and verify(fields[k], fields[s], transform):
                    edges[s] = transform
    return hops


def islands(fields: Sequence[Field], lost: Sequence[int]) -> set[int]:
    """Return those of the frames that miss the reference which match another of them: of another field.

    Each is matched with the nearest in order only, so this costs little beside the search before it.
    """
    found: set[int] = set()
    for place, k in enumerate(lost):
        for s in lost[place + 1 : place + 1 + COMPANY]:
            if not found >= {k, s} and match_fields(fields[k], fields[s], search="near") is not None:
                found |= {k, s}
    return found


def _offered(k: int, fresh: Sequence[int], centre: Mapping[int, NDArray[np.float64]]) -> list[int]:
    """Return the solved frames that a frame is matched with: the nearest in order, and some all over the sky.

    All those solved since the last time would be too many in a large group with many clouded frames.
    """
    near = sorted(fresh, key=lambda s: (abs(s - k), s))
    chosen, left = near[:NEIGHBOURS], near[NEIGHBOURS:]
    far = {s: min(float(math.dist(centre[s], centre[c])) for c in chosen) for s in left}
    for _ in range(min(APART, len(left))):
        s = max(far, key=lambda other: (far[other], -other))
        chosen.append(s)
        del far[s]
        far = {t: min(d, float(math.dist(centre[t], centre[s]))) for t, d in far.items()}
    return chosen


def _middle(field: Field) -> NDArray[np.float64]:
    return np.array([[(field.cols - 1) / 2, (field.rows - 1) / 2]])


def solve_together(
    fields: Sequence[Field],
    solved: dict[int, Matrix],
    hops: dict[int, dict[int, Transform]],
) -> dict[int, Transform]:
    """Solve all frames that hopped in one least squares over the stars of all their overlaps.

    A pair of matched stars says M_k x = M_s y, with the inverse variance of its centroids for weight.
    Frames with a direct match are held fixed.
    """
    links: list[Link] = []
    for k, edges in hops.items():
        for s, transform in edges.items():
            radius = final_radius(fields[k], fields[s])
            link = link_up(fields, {k: transform.matrix, s: IDENTITY}, k, s, radius)
            links.append(link.of(link.residual <= max(3.0 * transform.rms, 0.1), link.residual))
    if not links:
        return {}
    # A similarity knows no reflection: what is a mirror image of the reference is turned over first.
    turn = {k: FLIP if np.linalg.det(m[:, :2]) < 0 else IDENTITY for k, m in solved.items()}
    upright: dict[int, Map] = {
        k: plain(compose(m, turn[k]), fields[k].rows, fields[k].cols) for k, m in solved.items()
    }
    turned = [
        replace(p, here=apply(turn[p.a], p.here), there=apply(turn[p.b], p.there))
        for p in (link.pairs for link in links)
    ]
    together = improve(upright, dict.fromkeys(sorted(hops), "similarity"), turned)
    placed = dict(solved) | {k: compose(bent.matrix, turn[k]) for k, bent in together.items()}
    result = {}
    for k in sorted(hops):
        own = [link for link in links if k in (link.pairs.a, link.pairs.b)]
        count = stars_of(own, k)
        proven = any(
            verify(fields[k], fields[s], Transform(compose(invert(placed[s]), placed[k]), t.nmatch, t.rms))
            for s, t in hops[k].items()
        )
        if not proven or count < MANY_STARS:
            placed[k] = solved[k]  # too few stars to gain by it
        every = np.concatenate([residual_of(placed, link.pairs) for link in own])
        result[k] = Transform(placed[k], count, rms_of(every))
    return result
