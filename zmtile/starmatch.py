"""Match the stars of two frames: a guess, then all stars, then proof that it is no accident.

Every guess goes through `refine` and `verify`; where it came from does not matter. Guesses are, in
this order: those of the caller (a WCS, the transforms of other frames); an exhaustive search over
pairs of bright stars at nearly equal scale, quick and then deep; astroalign's triangles
([Beroiz2020]_); the exhaustive search at any scale. The search comes before astroalign because it
is faster and needs fewer common stars. Nothing here is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.pattern import best_hypotheses
from zmtile.mapping import Map, apply
from zmtile.measure import Stars
from zmtile.transform import Matrix, Transform, fit, invert, scale_of

__all__ = ["Field", "match_fields"]

VOTE_STARS = 50
TRIANGLE_STARS = 50
# Stars, tolerance (px) and shortest pair (px) of the quick search and of the deep one, for frames
# that overlap little: few of their brightest stars are the same then.
QUICK = (60, 4.0, 40.0)
DEEP = (120, 2.5, 100.0)
# Frames of one telescope differ by less: focus, refraction, temperature.
NEAR_SCALE = 0.03
VERIFY_STARS = 300
VOTE_BIN = 8.0
# The search knows about a million ways to lay one list on the other; fewer than one in a million
# unrelated pairs may pass all of them.
LOG_TESTS = 6.0
LOG_FALSE_ALARMS = -6.0
MIN_FRACTION = 0.15
MIN_STARS = 4
SCALE_RANGE = 2.2


@dataclass(frozen=True)
class Field:
    """Stars of a frame as the matching needs them.

    Attributes
    ----------
    stars : Stars
    rows, cols : int
        Size of the frame, px.
    fwhm : float
        px.
    """

    stars: Stars
    rows: int
    cols: int
    fwhm: float

    @cached_property
    def xy(self) -> NDArray[np.float64]:
        """Positions, (n, 2), brightest first."""
        return self.stars.xy

    @cached_property
    def tree(self) -> Any:
        """KD-tree of the positions."""
        from scipy.spatial import cKDTree

        return cKDTree(self.xy)

    def contains(self, xy: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points lie on the frame."""
        x, y = xy.T
        inside: NDArray[np.bool_] = (x >= 0) & (y >= 0) & (x <= self.cols - 1) & (y <= self.rows - 1)
        return inside


def match_fields(
    source: Field,
    target: Field,
    guesses: Sequence[Matrix] = (),
    model: str = "similarity",
    search: str = "full",
) -> Transform | None:
    """Return the verified transform source → target, or None.

    Parameters
    ----------
    source, target : Field
    guesses : sequence of (2, 3) float64
        Tried first. Rotation and scale should be about right; the shift is found by vote.
    model : {'similarity', 'affine'}
        Fitted on all matched stars.
    search : {'none', 'near', 'full'}
        How to go on when no guess holds: not at all; at nearly equal scale; with everything.
    """
    if min(len(source.stars), len(target.stars)) < MIN_STARS:
        return None
    for guess in _guesses(source, target, guesses, search):
        transform = refine(source, target, guess, model)
        if transform is not None and verify(source, target, transform):
            return transform
    return None


def _guesses(source: Field, target: Field, given: Sequence[Matrix], search: str) -> Iterator[Matrix]:
    for guess in given:
        yield guess
        voted = vote_shift(source, target, guess)
        if voted is not None:
            yield voted
    if search in ("near", "full"):
        yield from search_pairs(source, target, NEAR_SCALE, QUICK)
    if search == "full":
        yield from search_pairs(source, target, NEAR_SCALE, DEEP)
        triangles = match_triangles(source, target)
        if triangles is not None:
            yield triangles
        yield from search_pairs(source, target, math.log(SCALE_RANGE), QUICK)


def pair_up(
    source: Field, target: Field, moved_by: Map, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return indices of stars that are each other's nearest within `radius` px of the target."""
    moved = apply(moved_by, source.xy)
    distance, nearest = target.tree.query(moved, distance_upper_bound=radius)
    found = np.flatnonzero(np.isfinite(distance))
    found = found[np.lexsort((distance[found], nearest[found]))]
    _, first = np.unique(nearest[found], return_index=True)
    chosen = np.sort(found[first])
    return chosen, nearest[chosen]


def final_radius(source: Field, target: Field) -> float:
    """Distance within which two detections are one star, px."""
    return max(2.0, 0.6 * max(source.fwhm, target.fwhm))


def refine(source: Field, target: Field, guess: Matrix, model: str) -> Transform | None:
    """Fit the model on all stars that agree with a guess, until the set of stars stands still.

    Weights are the centroids' inverse variances; stars beyond 3.5 robust sigma are dropped.
    """
    matrix, radius = guess, 3.0 * final_radius(source, target)
    previous: bytes = b""
    transform = None
    for _ in range(15):
        i, j = pair_up(source, target, matrix, radius)
        if i.size < MIN_STARS:
            return None
        here, there = source.xy[i], target.xy[j]
        weight = 1.0 / (source.stars.error[i] ** 2 + target.stars.error[j] ** 2)
        keep = np.ones(i.size, bool)
        for _ in range(4):  # robust fit on these pairs
            # Few stars cannot tell shear from noise.
            matrix = fit(model if keep.sum() >= 8 else "similarity", here[keep], there[keep], weight[keep])
            residual = np.hypot(*(apply(matrix, here) - there).T)
            # Rayleigh: the median distance is 1.177 sigma of a coordinate.
            limit = max(3.5 * float(np.median(residual[keep])) / 1.177, 0.1)
            agreed = residual <= limit
            if agreed.sum() < MIN_STARS or (agreed == keep).all():
                break
            keep = agreed
        state = i[keep].tobytes() + b"|" + j[keep].tobytes()
        rms = float(np.sqrt(np.mean(residual[keep] ** 2)))
        transform = Transform(matrix, int(keep.sum()), rms)
        if state == previous:
            break
        previous = state
        radius = max(final_radius(source, target), min(radius, 4.0 * rms))
    return transform


def verify(source: Field, target: Field, transform: Transform) -> bool:
    """Tell whether a transform is true beyond doubt.

    The stars that agree must be too many for chance (a-contrario: the expected number of equally
    good accidents among all tests is below 1e-6), a fair fraction of those that could, close
    together, and the scale and shear within reason.
    """
    from scipy.stats import binom

    matrix = transform.matrix
    singular = np.linalg.svd(matrix[:, :2], compute_uv=False)
    if not (1 / SCALE_RANGE < scale_of(matrix) < SCALE_RANGE and singular[0] < 1.05 * singular[1]):
        return False
    radius = final_radius(source, target)
    if transform.rms > 0.45 * radius:
        return False
    # The brightest are enough to prove it, and keep crowded fields from matching anything.
    moved = apply(matrix, source.xy[:VERIFY_STARS])
    moved = moved[target.contains(moved)]
    bright = target.xy[:VERIFY_STARS]
    if len(moved) < MIN_STARS:
        return False
    distance, _ = target.tree.query(moved, distance_upper_bound=radius)
    agreed = int(np.isfinite(distance).sum())
    density = len(target.stars) / (target.rows * target.cols)
    chance = min(0.5, density * math.pi * radius**2)
    # Two of them define the transform and prove nothing.
    alarms = LOG_TESTS + binom.logsf(agreed - 3, max(len(moved) - 2, 1), chance) / math.log(10)
    possible = min(len(moved), int(source.contains(apply(invert(matrix), bright)).sum()))
    return bool(alarms < LOG_FALSE_ALARMS and transform.nmatch >= MIN_FRACTION * possible)


def vote_shift(source: Field, target: Field, guess: Matrix) -> Matrix | None:
    """Keep rotation and scale of a guess and let the bright stars vote for its shift.

    All differences between the stars of the two lists fall into bins; the fullest 3×3 bins win.
    """
    moved, there = apply(guess, source.xy[:VOTE_STARS]), target.xy[:VOTE_STARS]
    shift = (there[None] - moved[:, None]).reshape(-1, 2)
    cell = np.floor(shift / VOTE_BIN).astype(np.int64)
    # Shifts beyond the frame are no overlap; they would only make the table large.
    near = (np.abs(shift) <= max(target.rows, target.cols)).all(axis=1)
    if not near.any():
        return None
    shift, cell = shift[near], cell[near]
    cell -= cell.min(axis=0)
    votes = np.zeros(cell.max(axis=0) + 3, np.int64)
    for dx in range(3):
        for dy in range(3):
            np.add.at(votes, (cell[:, 0] + dx, cell[:, 1] + dy), 1)
    top = np.array(np.unravel_index(int(votes.argmax()), votes.shape)) - 1
    winners = shift[(np.abs(cell - top) <= 1).all(axis=1)]
    if len(winners) < MIN_STARS:
        return None
    voted = guess.copy()
    voted[:, 2] += np.median(winners, axis=0)
    return voted


def match_triangles(source: Field, target: Field) -> Matrix | None:
    """Return astroalign's transform, or None where it finds none.

    astroalign draws its random samples from an unseeded generator. Here it sees one with a seed:
    the same stars must always give the same transform.
    """
    import astroalign

    class SeededNumpy:
        random = SimpleNamespace(default_rng=lambda: np.random.default_rng(0))

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    if astroalign._np is np:
        astroalign._np = SeededNumpy()
    try:
        found, _ = astroalign.find_transform(
            source.xy[:TRIANGLE_STARS], target.xy[:TRIANGLE_STARS], max_control_points=TRIANGLE_STARS
        )
    except Exception:  # it raises its own and numpy's errors alike when there is nothing to find
        return None
    matrix = np.asarray(found.params, np.float64)[:2]
    return matrix if np.isfinite(matrix).all() and scale_of(matrix) > 0 else None


def search_pairs(
    source: Field, target: Field, spread: float, depth: tuple[int, float, float], keep: int = 5
) -> Iterator[Matrix]:
    """Try every pair of bright stars on every pair of the other frame; yield the best few.

    The scale lies within exp(± `spread`); `depth` is `QUICK` or `DEEP`.
    """
    stars, tolerance, shortest = depth
    here, there = source.xy[:stars], target.xy[:stars]
    first, second = np.triu_indices(len(there), 1)
    # Both directions: the two stars may have changed their order.
    first, second = np.concatenate([first, second]), np.concatenate([second, first])
    distance = np.hypot(*(there[second] - there[first]).T)
    far = distance > shortest / SCALE_RANGE
    first, second, length = first[far], second[far], np.log(distance[far])
    order = np.argsort(length, kind="stable")
    # A map at half the tolerance, with a star in every cell within reach of one.
    step = tolerance / 2
    origin = there.min(axis=0) - 4 * step
    cells = ((there - origin) / step).astype(np.int64)
    star_map = np.zeros(cells.max(axis=0) + 6, np.bool_)
    for dx in range(-2, 3):
        for dy in range(-2, 3):
            star_map[cells[:, 0] + dx, cells[:, 1] + dy] = True
    found, score = np.zeros((64, 4)), np.zeros(64, np.int64)
    best_hypotheses(
        *(np.ascontiguousarray(v) for v in (*here.T, *there.T)),
        first[order],
        second[order],
        length[order],
        shortest,
        spread,
        star_map,
        *(float(v) for v in origin),
        step,
        found,
        score,
    )
    ends = np.array([here.min(axis=0), here.max(axis=0)])
    kept: list[Matrix] = []
    for a, b, tx, ty in found[score > 0]:
        matrix = np.array([[a, -b, tx], [b, a, ty]])
        # Not what puts the field where a better one already did.
        if all(np.hypot(*(apply(matrix, ends) - apply(other, ends)).T).max() > 15 for other in kept):
            kept.append(matrix)
            yield matrix
        if len(kept) == keep:
            break
