"""Flux scales: the factor of every frame and channel, from the stars that pairs have in common."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.matching.pairs import Pair, Ties
from zmtile.registration.mapping import Map, compose, invert
from zmtile.registration.starfield import Field, final_radius, pair_up

__all__ = ["flux_scales"]

log = logging.getLogger("zmtile")

MIN_COMMON_STARS = 3
# No star's flux is trusted better than this from frame to frame (pixel response, PSF).
FLUX_FLOOR = 0.01


def flux_scales(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    maps: Sequence[Map],
    pairs: Sequence[Pair],
    reference: int,
) -> NDArray[np.float64]:
    """Factor of each frame and channel from the fluxes of the stars that pairs have in common."""
    count, channels = len(frames), frames[0].channels
    fields = [Field(s.stars, f.rows, f.cols, s.fwhm) for f, s in zip(frames, stats, strict=True)]
    ties, one = [Ties(count, 1) for _ in range(channels)], np.ones((1, 1))
    for pair in pairs:
        a, b = pair.a, pair.b
        across = compose(invert(maps[b]), maps[a])
        i, j = pair_up(fields[a], fields[b], across, final_radius(fields[a], fields[b]))
        measured = (i < stats[a].stars.channel_flux.shape[1]) & (j < stats[b].stars.channel_flux.shape[1])
        i, j = i[measured], j[measured]
        for c in range(channels):
            ratio = _log_ratio(
                stats[a].stars.channel_flux[c, i],
                stats[b].stars.channel_flux[c, j],
                _flux_error(stats[a], c),
                _flux_error(stats[b], c),
            )
            if ratio is not None:
                ties[c].tie(pair, one, np.array([-ratio[0]]), np.array([ratio[1] ** -2.0]))
    logs, known = np.zeros((count, channels)), np.zeros((count, channels), bool)
    for c in range(channels):
        solution, known[:, c] = ties[c].solve(reference)
        logs[:, c] = solution[:, 0]
    for k, tied in enumerate(known):
        if not tied.all():
            # A factor of 1 beside two others would colour the stars.
            logs[k, ~tied] = logs[k, tied].mean() if tied.any() else 0.0
            log.warning(
                "%s: too few common stars to measure its flux scale in %d of %d channels; %s",
                frames[k].name,
                (~tied).sum(),
                channels,
                "the others' is used" if tied.any() else "1 is used",
            )
    return np.exp(logs)


def _flux_error(stats: FrameStats, channel: int) -> float:
    """Sigma of an aperture flux from the noise of the sky, ADU (apertures reach 2 FWHM)."""
    return float(stats.noise[channel] * np.sqrt(np.pi) * 2.0 * stats.fwhm)


def _log_ratio(
    flux_a: NDArray[np.float32], flux_b: NDArray[np.float32], error_a: float, error_b: float
) -> tuple[float, float] | None:
    """Robust mean of log(flux_a / flux_b) over stars, and its standard error; None with too few.

    Starts from the weighted median, so that saturated and variable stars do not count, and ends
    as the inverse-variance mean of the stars within 3 sigma.
    """
    good = (flux_a > 5 * error_a) & (flux_b > 5 * error_b)  # NaN compares false
    if good.sum() < MIN_COMMON_STARS:
        return None
    a, b = flux_a[good].astype(np.float64), flux_b[good].astype(np.float64)
    ratio = np.log(a / b)
    variance = (error_a / a) ** 2 + (error_b / b) ** 2 + 2 * FLUX_FLOOR**2
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum(1 / variance[order])
    centre = ratio[order][np.searchsorted(share, share[-1] / 2)]
    stretch = 1.0
    for _ in range(5):
        away = np.abs(ratio - centre) / np.sqrt(variance)
        stretch = max(1.0, 1.4826 * float(np.median(away)))
        near = away <= 3.0 * stretch
        centre = float(np.average(ratio[near], weights=1 / variance[near]))
    return centre, stretch / float(np.sqrt((1 / variance[near]).sum()))
