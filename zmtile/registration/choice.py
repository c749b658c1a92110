"""The choice of a model for a group, by cross-validated residual.

Each frame's stars are dealt into folds. A model is fitted on all folds but one and judged by the
residuals of the stars of that one, which it has not seen: a model that is too rich for the stars
follows their noise, and does worse on others. All frames of a group share a model, since they share
a telescope, and since their stars together tell more of it than those of one frame.

A richer model must win clearly: the simplest is taken of those that are worse than the best by less
than two standard errors of the difference. This error is taken over the stars of the reference: the
centroid of such a star is in the residuals of all frames, so these do not count as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.registration.mapping import apply
from zmtile.registration.models import MODELS, WIDTH, fit_each

__all__ = ["Sample", "choose_model"]

FOLDS = 5
STANDARD_ERRORS = 2.0
# Stars for each parameter of a model that is to be considered.
STARS_PER_PARAMETER = 2.5
# This many frames, spread over the group, speak for it.
VOTERS = 16
# A star far off, in squared sigma: it counts as this, in every model.
CAP = 25.0


@dataclass(frozen=True)
class Sample:
    """Stars that a frame has in common with another.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the frame.
    here, there : (n, 2) float64
        The stars in pixels of both frames.
    weight : (n,) float64
        Inverse variances, 1/px².
    other : int
        The other frame.
    star : (n,) int
        Places of the stars in that frame's list.
    """

    shape: tuple[int, int]
    here: NDArray[np.float64]
    there: NDArray[np.float64]
    weight: NDArray[np.float64]
    other: int
    star: NDArray[np.intp]


def choose_model(samples: Sequence[Sample]) -> str:
    """Return the simplest model that none is clearly better than."""
    counts = np.array([len(sample.here) for sample in samples])
    if not counts.size:
        return MODELS[0]
    able = [m for m in MODELS if STARS_PER_PARAMETER * WIDTH[m] <= np.median(counts)] or [MODELS[0]]
    voters = [s for s in samples if len(s.here) >= STARS_PER_PARAMETER * WIDTH[able[-1]]]
    if not voters or len(able) == 1:
        return able[0]
    voters = [voters[k] for k in np.unique(np.linspace(0, len(voters) - 1, VOTERS).astype(int))]
    scores = np.concatenate([_scores(sample, able) for sample in voters], axis=1)
    best = scores[int(scores.mean(axis=1).argmin())]
    _, star = np.unique(
        np.concatenate([np.column_stack([np.full(s.star.size, s.other), s.star]) for s in voters]),
        axis=0,
        return_inverse=True,
    )
    for model, score in zip(able, scores, strict=True):
        worse = score - best
        spread = np.bincount(star.ravel(), worse - worse.mean())
        if worse.mean() <= STANDARD_ERRORS * np.sqrt(np.sum(spread**2)) / worse.size:
            return model
    raise AssertionError("the best model is not worse than itself")


def _scores(sample: Sample, models: Sequence[str]) -> NDArray[np.float64]:
    """Return the squared residuals of stars left out of the fit, (models, n), in squared sigma."""
    fold = np.arange(len(sample.here)) % FOLDS  # stars are in order of brightness: folds are alike
    squares = np.empty((len(models), fold.size))
    for f in range(FOLDS):
        seen, left = fold != f, fold == f
        learned = (sample.here[seen], sample.there[seen], sample.weight[seen])
        for m, fitted in enumerate(fit_each(models, sample.shape, *learned)):
            gap = apply(fitted, sample.here[left]) - sample.there[left]
            squares[m, left] = (gap**2).sum(axis=1) * sample.weight[left]
    # The median of a squared distance is 1.386 times the variance of a coordinate.
    variance = np.median(squares, axis=1).min() / 1.386
    scores: NDArray[np.float64] = np.minimum(squares / max(variance, 1e-12), CAP)
    return scores
