"""Reach frames that miss the reference over frames that do not, and solve them together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.models import WIDTH
from zmtile.registration.proof import verify
from zmtile.registration.starfield import MIN_STARS, Field, final_radius, pair_up
from zmtile.registration.starmatch import FLIP, match_fields, refine
from zmtile.registration.transform import (
    IDENTITY,
    Matrix,
    Transform,
    apply,
    compose,
    design_rows,
    invert,
    matrix_of,
)

__all__ = ["MANY_STARS", "hop", "solve_together"]

# A frame is offered to this many solved neighbours (nearest in the natural order) in each round.
NEIGHBOURS = 6
# Stars that prove a scale by themselves, and a place in the common solution.
MANY_STARS = 12
# Frames are found by this model; `refit` goes on from there.
MODEL = "similarity"


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
    asked: set[tuple[int, int]] = {(k, reference) for k in order}
    progressing = True
    while progressing:
        progressing = False
        for k in order:
            if k in solved or len(fields[k].stars) < MIN_STARS:
                continue
            near = sorted((s for s in solved if (k, s) not in asked), key=lambda s: (abs(s - k), s))
            for s in near[:NEIGHBOURS]:
                asked.add((k, s))
                progressing = True  # the frames not asked yet come in the next round
                transform = match_fields(fields[k], fields[s], search="near")
                if transform is not None:
                    solved[k] = compose(solved[s], transform.matrix)
                    hops[k] = {s: transform}
                    break
    for k, edges in hops.items():  # every further overlap steadies the chain
        centre = {s: apply(solved[s], _middle(fields[s]))[0] for s in solved}
        near = sorted(solved, key=lambda s: (float(np.hypot(*(centre[s] - centre[k]))), s))
        for s in near[1 : NEIGHBOURS + 1]:
            if s not in edges and s != k:
                guess = compose(invert(solved[s]), solved[k])
                transform = refine(fields[k], fields[s], guess)
                if transform is not None and verify(fields[k], fields[s], transform):
                    edges[s] = transform
    return hops


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
    names = {k: i for i, k in enumerate(sorted(hops))}
    width = WIDTH[MODEL]
    normal = np.zeros((width * len(names),) * 2)
    right = np.zeros(width * len(names))
    pairs: list[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]] = []
    weights: list[NDArray[np.float64]] = []
    for k, edges in hops.items():
        for s, transform in edges.items():
            i, j = pair_up(fields[k], fields[s], transform.matrix, final_radius(fields[k], fields[s]))
            here, there = fields[k].xy[i], fields[s].xy[j]
            agreed = np.hypot(*(apply(transform.matrix, here) - there).T) <= max(3.0 * transform.rms, 0.1)
            pairs.append((k, s, here[agreed], there[agreed]))
            error = np.hypot(fields[k].stars.error[i[agreed]], fields[s].stars.error[j[agreed]])
            weights.append(np.tile(error**-2.0, 2))
    if not pairs:
        return {}
    # A similarity knows no reflection: what is a mirror image of the reference is turned over first.
    turn = {k: FLIP if np.linalg.det(solved[k][:, :2]) < 0 else IDENTITY for k in names}
    for (k, s, here, there), weight in zip(pairs, weights, strict=True):
        rows = np.zeros((2 * len(here), len(right)))
        rows[:, names[k] * width : (names[k] + 1) * width] = design_rows(MODEL, apply(turn[k], here))
        value = np.zeros(2 * len(here))
        if s in names:
            rows[:, names[s] * width : (names[s] + 1) * width] -= design_rows(
                "similarity", apply(turn[s], there)
            )
        else:
            value = apply(solved[s], there).T.ravel()
        normal += rows.T @ (rows * weight[:, None])
        right += rows.T @ (value * weight)
    solution = np.linalg.lstsq(normal, right, rcond=None)[0].reshape(len(names), width)
    placed = dict(solved) | {k: compose(matrix_of(MODEL, solution[i]), turn[k]) for k, i in names.items()}
    result = {}
    for k in names:
        proven = any(
            verify(fields[k], fields[s], Transform(compose(invert(placed[s]), placed[k]), t.nmatch, t.rms))
            for s, t in hops[k].items()
        )
        if not proven or sum(t.nmatch for t in hops[k].values()) < MANY_STARS:
            placed[k] = solved[k]  # too few stars to gain by it
        squares = [
            ((apply(placed[a], here) - apply(placed[b], there)) ** 2).sum(axis=1)
            for a, b, here, there in pairs
            if k in (a, b)
        ]
        every = np.concatenate(squares)
        result[k] = Transform(placed[k], every.size, float(np.sqrt(every.mean())))
    return result
