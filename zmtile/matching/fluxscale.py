"""Flux scales: the factor of every frame and channel, from the stars that pairs have in common."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.kernels.fluxties import log_ratios
from zmtile.matching.pairs import Pair, ends_of, solve_ties
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
    back = [invert(m) for m in maps]
    # Sigma of an aperture flux from the noise of the sky, ADU (apertures reach 2 FWHM).
    error = [s.noise * (np.sqrt(np.pi) * 2.0 * s.fwhm) for s in stats]
    ratio = np.empty((len(pairs), channels, 2))
    for pair, found in zip(pairs, ratio, strict=True):
        a, b = pair.a, pair.b
        across = compose(back[b], maps[a])
        i, j = pair_up(fields[a], fields[b], across, final_radius(fields[a], fields[b]))
        flux_a, flux_b = stats[a].stars.channel_flux, stats[b].stars.channel_flux
        log_ratios(flux_a, flux_b, i, j, error[a], error[b], FLUX_FLOOR, MIN_COMMON_STARS, found)
    ends = ends_of(pairs)
    logs, known = np.zeros((count, channels)), np.zeros((count, channels), bool)
    for c in range(channels):
        seen = np.isfinite(ratio[:, c, 0])
        weight = ratio[seen, c, 1] ** -2.0
        pull = -ratio[seen, c, 0] * weight
        nothing = np.zeros((count, 1, 1))
        solution, known[:, c] = solve_ties(
            ends[seen], weight[:, None, None], pull[:, None], reference, nothing
        )
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
