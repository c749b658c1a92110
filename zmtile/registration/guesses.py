"""Guesses of the transform between two star lists. None is trusted: each is refined and verified.

All take positions (n, 2), brightest first, and give matrices without a reflection; for a mirror
image the caller turns one of the lists over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.pattern import best_of_pairs, best_of_triangles, best_shift
from zmtile.kernels.stars import nearest_stars
from zmtile.registration.starfield import MIN_STARS
from zmtile.registration.transform import Matrix, apply, scale_of

__all__ = ["match_asterisms", "search_pairs", "search_triangles", "vote_shift"]

Points = NDArray[np.float64]

VOTE_STARS = 50
VOTE_BIN = 8.0
# The search over pairs: stars, fewer where the scale is free (15 times more pairs are to
# try), how near (px) a star must land, the shortest pair (px).
PAIR_STARS, PAIR_STARS_ANY, PAIR_REACH, SHORTEST_PAIR = 60, 40, 4.0, 40.0
# The search over triangles, of which each star makes one with any two of its nearest neighbours:
# stars, neighbours, how many of them tell whether it is right, how near (px) they must land, the
# smallest longest side (px), how far a corner may be off (px).
TRIANGLE_STARS, NEIGHBOURS, WITNESSES = 400, 9, 30
TRIANGLE_REACH, TRIANGLE_SIDE, BLUR = 2.5, 20.0, 1.0
# Stars that astroalign is shown.
ASTERISM_STARS = 50
# Guesses of one search that are given on, out of this many hypotheses.
KEEP, HYPOTHESES = 8, 64


def vote_shift(here: Points, there: Points, size: float, guess: Matrix) -> Matrix | None:
    """Keep rotation and scale of a guess and let the bright stars vote for its shift.

    All differences between the stars of the two lists fall into bins; the fullest 3×3 bins win.
    Shifts beyond `size` px are no overlap.
    """
    shift = np.empty(2)
    moved = apply(guess, here[:VOTE_STARS])
    if best_shift(moved, there[:VOTE_STARS], size, VOTE_BIN, shift) < MIN_STARS:
        return None
    voted = guess.copy()
    voted[:, 2] += shift
    return voted


def search_pairs(here: Points, there: Points, spread: float) -> Iterator[Matrix]:
    """Lay every pair of bright stars on every pair of the other frame; yield the best few.

    The scale lies within exp(± `spread`).
    """
    stars = PAIR_STARS if spread < 0.1 else PAIR_STARS_ANY
    here, there = here[:stars], there[:stars]
    first, second = np.triu_indices(len(there), 1)
    # Both directions: the two stars may have changed their order.
    first, second = np.concatenate([first, second]), np.concatenate([second, first])
    distance = np.hypot(*(there[second] - there[first]).T)
    far = distance > SHORTEST_PAIR * np.exp(-spread)
    first, second, length = first[far], second[far], np.log(distance[far])
    order = np.argsort(length, kind="stable")
    pairs = first[order], second[order], length[order], SHORTEST_PAIR, spread
    yield from _best(best_of_pairs, here, there, PAIR_REACH, pairs)


def search_triangles(here: Points, there: Points, spread: float) -> Iterator[Matrix]:
    """Lay triangles of neighbouring stars on those of the other frame ([Groth1986]_); yield the best few.

    They are small, so that a narrow overlap holds many of them; their stars need not be the brightest.
    """
    here, there = here[:TRIANGLE_STARS], there[:TRIANGLE_STARS]
    if min(len(here), len(there)) >= 3:
        near = _neighbours(here, WITNESSES)
        shapes = *triangles(here), *triangles(there), near, BLUR, spread
        yield from _best(best_of_triangles, here, there, TRIANGLE_REACH, shapes)


def match_asterisms(here: Points, there: Points) -> Iterator[Matrix]:
    """Yield what astroalign's match of triangles finds ([Beroiz2020]_), if it finds anything.

    astroalign draws its random samples from an unseeded generator. Here it sees one with a seed:
    the same stars must always give the same transform.
    """
    import astroalign

    class SeededNumpy:
        random = SimpleNamespace(default_rng=lambda: np.random.default_rng(0))

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    own = astroalign._np
    astroalign._np = SeededNumpy()
    try:
        found, _ = astroalign.find_transform(
            here[:ASTERISM_STARS], there[:ASTERISM_STARS], max_control_points=ASTERISM_STARS
        )
    except Exception:  # it raises its own and numpy's errors alike when there is nothing to find
        return
    finally:  # others who use it in this process are to have it as it was
        astroalign._np = own
    matrix = np.asarray(found.params, np.float64)[:2]
    if np.isfinite(matrix).all() and scale_of(matrix) > 0:
        yield matrix


def _neighbours(xy: Points, count: int) -> NDArray[np.int64]:
    """Return the indices of the nearest stars of each star, nearest first, itself included."""
    near = np.empty((len(xy), min(count + 1, len(xy))), np.int64)
    nearest_stars(np.ascontiguousarray(xy), near)
    return near


def triangles(xy: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the triangles that stars form with two of their neighbours, ordered by shape.

    Returns
    -------
    ends : (triangles, 2) int64
        The longest side, beginning with the end that is nearer to the third corner.
    shape : (triangles, 3) float64
        See `best_of_triangles`.
    """
    near = _neighbours(xy, NEIGHBOURS)
    corner = np.sort(
        np.concatenate([near[:, [0, i, j]] for i, j in combinations(range(1, near.shape[1]), 2)])
    )
    corner = corner[np.unique((corner[:, 0] * len(xy) + corner[:, 1]) * len(xy) + corner[:, 2], True)[1]]
    place = (xy @ [1, 1j])[corner]
    side = np.abs(place[:, [1, 2, 0]] - place[:, [2, 0, 1]])  # opposite to each corner
    third = side.argmax(axis=1)
    row = np.arange(len(corner))
    begin, end = (third + 1) % 3, (third + 2) % 3
    swap = side[row, end] > side[row, begin]  # the side opposite to `end` joins `begin` and the third
    begin, end = np.where(swap, end, begin), np.where(swap, begin, end)
    length = side[row, third]
    with np.errstate(invalid="ignore", divide="ignore"):
        shape = (place[row, third] - place[row, begin]) / (place[row, end] - place[row, begin])
        columns = np.column_stack([shape.real, shape.imag, np.log(length)])
    ends = np.column_stack([corner[row, begin], corner[row, end]]).astype(np.int64)
    order = np.lexsort((columns[:, 1], columns[:, 0]))
    order = order[length[order] > TRIANGLE_SIDE]
    return ends[order], np.ascontiguousarray(columns[order])


def _best(
    search: Callable[..., None], here: Points, there: Points, reach: float, arguments: tuple[Any, ...]
) -> Iterator[Matrix]:
    """Run a search and yield its best hypotheses that differ from each other."""
    # A map at half the reach, with a star in every cell within reach of one.
    step = reach / 2
    origin = there.min(axis=0) - 4 * step
    cells = ((there - origin) / step).astype(np.int64)
    star_map = np.zeros(cells.max(axis=0) + 6, np.bool_)
    for dx in range(-2, 3):
        for dy in range(-2, 3):
            star_map[cells[:, 0] + dx, cells[:, 1] + dy] = True
    found, score = np.zeros((HYPOTHESES, 4)), np.zeros(HYPOTHESES, np.int64)
    lists = (np.ascontiguousarray(v) for v in (*here.T, *there.T))
    search(*lists, star_map, *(float(v) for v in origin), step, found, score, *arguments)
    ends = np.array([here.min(axis=0), here.max(axis=0)])
    kept: list[Matrix] = []
    for a, b, tx, ty in found[score > 0]:
        matrix = np.array([[a, -b, tx], [b, a, ty]])
        # Not what puts the field where a better one already did.
        if all(np.hypot(*(apply(matrix, ends) - apply(other, ends)).T).max() > 15 for other in kept):
            kept.append(matrix)
            yield matrix
        if len(kept) == KEEP:
            break
