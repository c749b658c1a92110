"""Match: put every frame on the reference's photometric scale and sky.

A pixel v of frame k becomes scale·v/|det M| + surface(x, y) at reference pixel (x, y): the
determinant keeps the flux of a star when pixel scales differ.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.frames.measure import FrameStats
from zmtile.kernels.tables import span_of
from zmtile.matching.fluxscale import flux_scales
from zmtile.matching.pairs import pair_frames
from zmtile.matching.skysurface import sky_surfaces
from zmtile.matching.weights import frame_weights, known
from zmtile.options import LEVELLED, SCALED, Options
from zmtile.progress import Progress
from zmtile.registration.mapping import Bent, apply, scale_of
from zmtile.registration.transform import Matrix

__all__ = ["Photometry", "match"]

log = logging.getLogger("zmtile")

# Sky surfaces bend, unless told otherwise, if at least this much of every frame lies on the reference.
BENDING_SHARE = 0.5
# Sigma of a channel that is constant in all frames, ADU.
NOISELESS = 1e-5


@dataclass(frozen=True)
class Photometry:
    """How one frame's values become the reference's.

    Attributes
    ----------
    scale : (channels,) float64
        Factor on the pixel values, reference ADU per ADU.
    surface : (channels, terms) float64
        Added after scaling, ADU: coefficients of `surface_terms` in reference pixels; the first
        is the offset at the middle of the reference frame.
    weight : (channels,) float64
        Of the frame in the mean; the group's largest is 1.
    noise : (channels,) float64
        Sigma of a pixel after scaling, reference ADU; of a frame with finer pixels, of their mean
        unless colours are taken directly. Above 0: where it is not known, the median of the others.
    """

    scale: NDArray[np.float64]
    surface: NDArray[np.float64]
    weight: NDArray[np.float64]
    noise: NDArray[np.float64]

    @property
    def sky_degree(self) -> int:
        """Degree of the surface."""
        return {1: 0, 3: 1, 6: 2}[self.surface.shape[1]]


def match(
    frames: Sequence[Frame],
    stats: Sequence[FrameStats],
    maps: Sequence[Matrix | Bent],
    reference: int,
    options: Options,
    progress: Progress,
    workers: int = 1,
) -> tuple[Photometry, ...]:
    """Match the frames of a group to their reference.

    Parameters
    ----------
    frames, stats, maps : sequences of the same length
        The registered frames and their maps to the reference.
    reference : int
        Index of the reference among them.
    options : Options
        `normalize`, `sky_degree`, `weight` and `cfa` are used.
    progress : Progress
    workers : int
        Threads; without influence on the result.

    Returns
    -------
    tuple of Photometry
        One for each frame; the reference's is the identity.
    """
    count, channels = len(frames), frames[0].channels
    progress.stage("match", 2)
    pairs = pair_frames(frames, maps, reference)
    scale = light = np.ones((count, channels))
    if options.normalize in SCALED or options.weight == "stars":
        light = flux_scales(frames, stats, maps, pairs, reference)
    if options.normalize in SCALED:
        scale = light
    progress.step()
    area = np.array([scale_of(m) ** 2 for m in maps])
    surface = np.zeros((count, channels, 1))
    if options.normalize in LEVELLED:
        degree = _degree(frames, maps, reference, options)
        factor = scale / area[:, None]
        surface = sky_surfaces(frames, stats, maps, pairs, reference, factor, degree, workers)
    noise = np.array([s.noise for s in stats]) * scale / area[:, None]
    # Magnified pixels share their noise with their neighbours. What a weight must know is the
    # noise of an area of the reference, whatever the pixels of the frame.
    side = np.sqrt(area)
    fwhm = np.array([s.fwhm for s in stats]) * side
    direct = options.cfa == "direct"  # of finer pixels one is taken, and the others are lost
    spread = np.maximum(side, 1.0) if direct else side
    weight = frame_weights(options.weight, noise * spread[:, None], fwhm, scale / light)
    # Else a sample of a frame with finer pixels is their mean, and has that noise.
    finer = np.array([span_of(s) > 0.0 and not direct for s in side])
    noise[finer] *= side[finer, None]
    progress.step()
    noise = np.column_stack([known(sigma, NOISELESS) for sigma in noise.T])
    return tuple(Photometry(scale[k], surface[k], weight[k], noise[k]) for k in range(count))


def _degree(frames: Sequence[Frame], maps: Sequence[Matrix | Bent], reference: int, options: Options) -> int:
    """Return the degree of the sky surfaces: the one asked for, or what the overlaps bear.

    An error of a bend grows with the square of the distance from where it was measured.
    """
    if options.normalize != "surface":
        return 0
    if options.sky_degree is not None:
        return options.sky_degree
    home = frames[reference]
    least = min(_share(f, m, home) for f, m in zip(frames, maps, strict=True))
    degree = 2 if least >= BENDING_SHARE else 1
    log.debug("sky surfaces of degree %d: frames lie on the reference by %.0f%% or more", degree, 100 * least)
    return degree


def _share(frame: Frame, moved_by: Matrix | Bent, reference: Frame) -> float:
    """Return the fraction of a frame that lies on the reference."""
    x, y = np.meshgrid(np.linspace(0, frame.cols - 1, 17), np.linspace(0, frame.rows - 1, 17))
    there = apply(moved_by, np.column_stack([x.ravel(), y.ravel()]))
    inside = (there >= 0) & (there <= [reference.cols - 1, reference.rows - 1])
    return float(inside.all(axis=1).mean())
