"""Match the stars of two frames: a guess, then all stars, then proof that it is no accident.

Every guess goes through `refine` and `verify`; where it came from does not matter. The cheap
guesses come first; a mirror image is tried after everything of the same scale that is none has
failed. Nothing here is random.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.similarity import refine_similarity
from zmtile.registration.guesses import match_asterisms, search_pairs, search_triangles, vote_shift
from zmtile.registration.proof import SCALE_RANGE, verify
from zmtile.registration.starfield import MIN_STARS, Field, final_radius
from zmtile.registration.transform import Matrix, Transform, compose

__all__ = ["FLIP", "NEAREST", "WIDEST", "match_fields", "refine"]

# Frames of one telescope differ by less: focus, refraction, temperature.
NEAR_SCALE = 0.03
ANY_SCALE = math.log(SCALE_RANGE)
# Stars that are farther off than this, in robust sigma and in px, are not those that they are taken for.
WIDEST, NEAREST = 3.5, 0.1
FLIP: Matrix = np.array([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def match_fields(
    source: Field,
    target: Field,
    guesses: Sequence[Matrix] = (),
    search: str = "full",
) -> Transform | None:
    """Return the verified similarity source → target, or None.

    Parameters
    ----------
    source, target : Field
    guesses : sequence of (2, 3) float64
        Tried first. Rotation, scale and parity should be about right; the shift is found by vote.
    search : {'none', 'near', 'full'}
        How to go on when no guess holds: not at all; at nearly equal scale; with everything.
    """
    if min(len(source.stars), len(target.stars)) < MIN_STARS:
        return None
    for guess in _guesses(source, target, guesses, search):
        transform = refine(source, target, guess)
        if transform is not None and verify(source, target, transform):
            return transform
    return None


def _guesses(source: Field, target: Field, given: Sequence[Matrix], search: str) -> Iterator[Matrix]:
    for guess in given:
        yield guess
        voted = vote_shift(source.xy, target.xy, max(target.rows, target.cols), guess)
        if voted is not None:
            yield voted
    if search in ("near", "full"):
        yield from _search(source.xy, target.xy, NEAR_SCALE)
    if search == "full":
        turned = source.xy * [-1.0, 1.0]
        for guess in _search(turned, target.xy, NEAR_SCALE):
            yield compose(guess, FLIP)
        yield from _search(source.xy, target.xy, ANY_SCALE)
        for guess in _search(turned, target.xy, ANY_SCALE):
            yield compose(guess, FLIP)
        yield from match_asterisms(source.xy, target.xy)


def _search(here: NDArray[np.float64], there: NDArray[np.float64], spread: float) -> Iterator[Matrix]:
    # The triangles are faster, and need fewer common stars where there are many; the pairs miss nothing
    # where there are few.
    yield from search_triangles(here, there, spread)
    yield from search_pairs(here, there, spread)


def refine(source: Field, target: Field, guess: Matrix) -> Transform | None:
    """Fit a similarity on all stars that agree with a guess, until the set of stars stands still.

    Weights are the centroids' inverse variances; stars beyond 3.5 robust sigma are dropped. The
    parity of the guess is kept.
    """
    matrix = np.array(guess, np.float64)
    found, rms = refine_similarity(
        source.xy,
        source.stars.error,
        target.places,
        target.errors,
        matrix,
        final_radius(source, target),
        MIN_STARS,
        WIDEST,
        NEAREST,
    )
    return Transform(matrix, found, rms) if found else None
