"""Reject and combine a stack that is already aligned: the kernel of the second pass as a function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.frames.frame import LARGEST
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import drop_beyond, stack_block
from zmtile.options import Options, Resources
from zmtile.parallel import Kept, run_parallel
from zmtile.progress import NullProgress
from zmtile.stacking.rejection import rejection, settled

__all__ = ["BLOCK_BYTES", "MAX_FRAMES", "ClipResult", "winsorized_sigma_clip"]

# Samples of a block should stay in the processor's cache.
BLOCK_BYTES = 8 * 2**20
# COVERAGE counts in 16 bits.
MAX_FRAMES = 65535


@dataclass(frozen=True)
class ClipResult:
    """What `winsorized_sigma_clip` returns, each of the stack's shape without its first axis.

    Attributes
    ----------
    image : float32
        Combined value; NaN where the stack has no finite sample.
    coverage, rejlow, rejhigh : uint16
        Finite samples before rejection; rejected below and above.
    uncert : float32
        Standard error of the value, wide enough to hold the truth in 68.3 % of all pixels; NaN where
        it cannot be known (fewer than two survivors, and no noises given).
    """

    image: NDArray[np.float32]
    coverage: NDArray[np.uint16]
    rejlow: NDArray[np.uint16]
    rejhigh: NDArray[np.uint16]
    uncert: NDArray[np.float32]


def winsorized_sigma_clip(
    stack: NDArray[Any],
    *,
    kappa: tuple[float, float] = (3.0, 3.0),
    weights: NDArray[Any] | None = None,
    noises: NDArray[Any] | None = None,
    method: str = "winsor",
    winsor_limits: tuple[float, float] = (0.05, 0.05),
    rewinsorize: bool = False,
    esd_outliers: float = 0.3,
    esd_alpha: float = 0.05,
    minmax: tuple[int, int] = (1, 1),
    combine: str = "mean",
    threads: int | None = None,
) -> ClipResult:
    """Reject outliers along the first axis and combine what is left; NaN is no data.

    Parameters
    ----------
    stack : (N, H, W) or (N, H, W, C) array
        Aligned samples; NaN, masked values and those beyond 1e18 are no data. Worked on in float32.
    kappa : (float, float)
        Bounds below and above the median, in sigma.
    weights : (N,) array, or one of the stack's shape, optional
        Positive weights of the mean, for each frame or for each sample; equal when not given.
        A median has none.
    noises : (N,) array, optional
        Positive: the sigma of each frame's samples, for `ClipResult.uncert`. The samples' own scatter
        corrects it by a factor that all frames share. When not given, the weights are taken for
        inverse variances.
    method : {'winsor', 'winsor-quantile', 'sigma', 'mad', 'linear-fit', 'esd', 'minmax', 'auto', 'none'}
        docs/how-it-works.md defines them. 'winsor' is Huber's winsorisation with true rejection, as
        PixInsight and Siril define it.
    winsor_limits : (float, float)
        Fractions clipped by 'winsor-quantile'.
    rewinsorize : bool
        'winsor-quantile' replaces an outlier by its bound.
    esd_outliers, esd_alpha : float
        Largest fraction that 'esd' rejects, and its significance.
    minmax : (int, int)
        Samples that 'minmax' drops below and above.
    combine : {'mean', 'median'}
    threads : int, optional
        One for every usable core when not given; without influence on the result.

    Returns
    -------
    ClipResult

    Raises
    ------
    UsageError
        For a stack without a frame axis, weights or noises that do not fit, or options that make no
        sense.

    Examples
    --------
    >>> import numpy as np
    >>> from zmtile import winsorized_sigma_clip
    >>> stack = np.full((5, 1, 2), 10.0)
    >>> stack[:, 0, 0] = np.nan
    >>> winsorized_sigma_clip(stack).image
    array([[nan, 10.]], dtype=float32)
    """
    options = Options(
        kappa=kappa,
        reject=method,
        winsor_limits=winsor_limits,
        rewinsorize=rewinsorize,
        esd_outliers=esd_outliers,
        esd_alpha=esd_alpha,
        minmax=minmax,
        combine=combine,
    )
    if isinstance(stack, np.ma.MaskedArray):
        stack = np.where(np.ma.getmaskarray(stack), np.nan, np.ma.getdata(stack))
    stack = np.asarray(stack)
    if stack.ndim < 2 or not 1 <= stack.shape[0] <= MAX_FRAMES:
        raise UsageError(
            f"a stack of shape {stack.shape}", "Give (N, H, W) or (N, H, W, C), N from 1 to 65535."
        )
    frames, pixels = stack.shape[0], math.prod(stack.shape[1:])
    options = settled(options, frames)
    weight = np.ones(frames, np.float32) if weights is None else np.asarray(weights, np.float32)
    if weight.shape not in ((frames,), stack.shape) or not _positive(weight):
        raise UsageError(
            f"weights of shape {weight.shape}",
            f"Give {frames} positive numbers, or one for each sample of the stack.",
        )
    if weights is not None and combine == "median":
        raise UsageError("weights do nothing with combine='median'", "Leave them out, or give noises.")
    noise = None if noises is None else np.asarray(noises, np.float32)
    if noise is not None and not (noise.shape == (frames,) and _positive(noise)):
        raise UsageError(f"noises of shape {noise.shape}", f"Give {frames} positive numbers.")
    share = weight.reshape(frames, pixels) if weight.ndim > 1 else None
    weight = np.ones(frames, np.float32) if weight.ndim > 1 else weight
    flat = stack.reshape(frames, pixels)
    values, counts = np.empty((3, pixels), np.float32), np.empty((3, pixels), np.uint16)
    size = max(1024, BLOCK_BYTES // (4 * frames))

    kept = Kept()

    def work(start: int) -> None:
        part = np.s_[start : start + size]
        samples = kept.floats("samples", (frames, min(size, pixels - start)))
        np.copyto(samples, flat[:, part], casting="unsafe")
        if not np.issubdtype(stack.dtype, np.integer):
            drop_beyond(samples.reshape(-1), np.float32(LARGEST))
        stack_block(
            samples,
            weight,
            None if share is None else share[:, part],
            noise,
            comparators(frames),
            *rejection(options, frames),
            *(plane[part] for plane in (*values, *counts)),
            tally=np.zeros((frames, 3), np.int64),
        )

    run_parallel(work, range(0, pixels, size), Resources(threads).workers, NullProgress())
    image, uncert, _ = values.reshape(3, *stack.shape[1:])
    coverage, rejlow, rejhigh = counts.reshape(3, *stack.shape[1:])
    return ClipResult(image, coverage, rejlow, rejhigh, uncert)


def _positive(values: NDArray[np.float32]) -> bool:
    return bool((np.isfinite(values) & (values > 0)).all())
