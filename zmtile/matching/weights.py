"""Weights of the frames in the mean: what each is worth for the sky, or for faint stars.

Frames k of noise σ, after scaling, show a faint star of flux a (1 where the frames are scaled to one
flux) with a Gaussian image of FWHM F. The mean with weights w, seen through the filter that is best
for its star images, then has

    (S/N)² ∝ Σ_jk w_j a_j w_k a_k / (F_j² + F_k²)  /  Σ_k w_k² σ_k²

because two Gaussians overlap by 1 / (F_j² + F_k²), but for a constant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["frame_weights"]

Floats = NDArray[np.float64]

# Of the best weights; they converge by a factor of five or more in each turn.
TOLERANCE = 1e-12
TURNS = 200


def frame_weights(kind: str, noise: Floats, fwhm: Floats, signal: Floats) -> Floats:
    """Return the weight of each frame in the mean.

    Parameters
    ----------
    kind : {'none', 'noise', 'fwhm', 'stars'}
        'noise' is the inverse variance, best for what is larger than a star. 'fwhm' are the weights
        with the largest S/N of the formula above, with a = 1. 'stars' is (S/N)² / a of each frame's
        own stars, the inverse variance of a star's flux: favours sharp frames more.
    noise : (frames, channels) float64
        Sigma after scaling, of an area of one reference pixel.
    fwhm : (frames,) float64
        Reference px.
    signal : (frames, channels) float64
        Flux of a star after scaling over its flux in the reference.

    Returns
    -------
    (frames, channels) float64
        The largest of each channel is 1. A frame without noise or FWHM (a constant, a simulation)
        counts with the typical one, the median of the others.
    """
    if kind == "none":
        return np.ones_like(noise)
    precision = np.column_stack([known(sigma) for sigma in noise.T]) ** -2.0
    width = known(fwhm)[:, None]
    if kind == "noise":
        weight = precision
    elif kind == "stars":
        weight = signal * precision / width**2
    else:
        weight = np.column_stack([_deepest(p, width[:, 0]) for p in precision.T])
    largest: Floats = weight / weight.max(axis=0)
    return largest


def known(values: Floats, otherwise: float = 1.0) -> Floats:
    """Return the values, with the median of those above 0 in place of all others; or a number, if all are."""
    usable = np.isfinite(values) & (values > 0)
    return np.where(usable, values, np.median(values[usable]) if usable.any() else otherwise)


def _deepest(precision: Floats, fwhm: Floats) -> Floats:
    """Return the weights with the largest S/N for faint stars.

    The S/N is a Rayleigh quotient, so they are an eigenvector, w ∝ precision · (overlap w). Overlaps
    are positive: the largest eigenvalue has the only positive eigenvector (Perron), and the power
    method finds it from any positive start.
    """
    overlap: Floats = 1.0 / (fwhm[:, None] ** 2 + fwhm[None] ** 2)
    weight: Floats = precision / precision.max()
    for _ in range(TURNS):
        before, weight = weight, precision * (overlap * weight).sum(axis=1)
        weight /= weight.max()
        if np.abs(weight - before).max() <= TOLERANCE:
            break
    return weight
