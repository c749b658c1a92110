"""What the options of the rejection mean to the kernel: its parameters, and the width of the uncertainty."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.dependence import USED_BY
from zmtile.errors import UsageError
from zmtile.kernels.bounds import METHODS
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block, stack_kernel
from zmtile.options import Options, Resources
from zmtile.remembered import remembered

__all__ = ["critical_values", "recombination", "rejection", "settled", "student", "thinking_ahead"]

log = logging.getLogger("zmtile")

# One sigma either side of a Gaussian: what UNCERT promises for any number of samples.
_WITHIN = math.erf(math.sqrt(0.5))
# Numbers of samples at which the effect of a rejection is measured. Up to 16 all of them: a median,
# of the samples or of the survivors, does not scatter alike for even and odd numbers.
_NODES = (*range(3, 17), 20, 28, 40, 64, 128)
_PIXELS = 2**14
_NEGLIGIBLE = np.float32(2**-10)


# 'auto': the least noise without outliers, among those that two outliers do not move.
# docs/accuracy.md has the table.
_AUTO = ((6, "mad"), (10, "winsor"))
_AUTO_MANY = "esd"


def settled(options: Options, frames: int) -> Options:
    """Return the options for a stack of so many frames, in which 'auto' is the method that it stands for.

    What that method does not look at has its default; a warning says so where it was chosen otherwise.

    Raises
    ------
    UsageError
        When 'minmax' would drop every sample.
    """
    method = _method_of(options, frames)
    if options.reject == "auto":
        log.info("rejection of %d frames: %s", frames, method)
    elif method == "minmax" and 3 <= frames <= sum(options.minmax):
        low, high = options.minmax
        raise UsageError(
            f"--minmax {low} {high} drops all samples of {frames} frames",
            f"Choose numbers whose sum is below {frames}, or another --reject.",
        )
    made = _with_method(options, method)
    for name in USED_BY:
        if getattr(made, name) != getattr(options, name):
            option = name.replace("_", "-")
            log.warning("--%s does nothing: --reject auto chose %s for %d frames", option, method, frames)
    return made


def _method_of(options: Options, frames: int) -> str:
    """Return the method for so many frames."""
    if options.reject == "auto":
        return next((name for limit, name in _AUTO if frames < limit), _AUTO_MANY)
    return options.reject


@contextmanager
def thinking_ahead(options: Options, frames: int, resources: Resources) -> Iterator[None]:
    """Work out what `rejection` will be asked for beside what is done within.

    It takes 0.4 s where the disk has none of it. Not where the kernel must be compiled first, which
    other kernels would have to wait for.

    Parameters
    ----------
    options : Options
    frames : int
        Those of them that may be stacked.
    resources : Resources
        Of one thread, nothing is gained.
    """
    if resources.workers < 2 or not stack_kernel.compiled:
        yield
        return
    settled_options = _with_method(options, _method_of(options, frames))
    with ThreadPoolExecutor(1, thread_name_prefix="zmtile-ahead") as pool:
        pool.submit(rejection, settled_options, frames)  # an error comes again to who asks for it
        yield


def _with_method(options: Options, method: str) -> Options:
    unused = {name: getattr(Options, name) for name, methods in USED_BY.items() if method not in methods}
    return replace(options, reject=method, **unused)


def rejection(options: Options, frames: int) -> tuple[Any, ...]:
    """Return the arguments of `stack_block` that choose method, combination and uncertainty.

    Parameters
    ----------
    options : Options
        From `settled`.
    frames : int
        Length of the stack.
    """
    return (*_parameters(options, frames), student(frames), _widening(options, frames))


def recombination(options: Options, frames: int) -> tuple[Any, ...]:
    """Return these arguments for what a rejection has left already: nothing more is rejected."""
    none = _with_method(options, "none")
    return (*_parameters(none, frames), student(frames), _widening(options, frames))


def _parameters(options: Options, frames: int) -> tuple[Any, ...]:
    kappa_low, kappa_high = options.kappa
    low, high = {
        "winsor-quantile": options.winsor_limits,
        "esd": (options.esd_outliers, 0.0),
        "minmax": options.minmax,
    }.get(options.reject, (0.0, 0.0))
    return (
        METHODS[options.reject],
        np.float32(kappa_low),
        np.float32(kappa_high),
        float(low),
        float(high),
        critical_values(frames, options.esd_alpha),
        options.rewinsorize,
        options.combine == "median",
    )


def critical_values(frames: int, alpha: float) -> NDArray[np.float64]:
    """Return Rosner's critical values by the number of samples left; infinite where it has none.

    Rosner gives them by n and the number of the outlier, but only their difference counts.
    """
    return _critical_values(_room(frames), alpha)[: frames + 1]


def student(frames: int) -> NDArray[np.float32]:
    """Return, by the number of survivors, how many standard errors hold 68.3 %.

    A scatter of few samples is often too small: two of them need 1.84 standard errors, five 1.14.
    That is Student's t, in the first row: the scatter and the error of the best mean are independent.
    The second is for a value all of whose error is part of the scatter: two samples then need 1.
    """
    return np.ascontiguousarray(_student(_room(frames))[:, : frames + 1])


def _room(frames: int) -> int:
    """Return for how many frames tables are made, so that there are few of them."""
    return max(128, 1 << frames.bit_length())


@lru_cache(maxsize=64)
@remembered
def _critical_values(frames: int, alpha: float) -> NDArray[np.float64]:
    from scipy.special import stdtrit  # slow to load: only who works them out pays for it

    left = np.arange(3.0, frames + 1)
    t = stdtrit(left - 2, 1 - alpha / (2 * left))
    values = (left - 1) * t / np.sqrt((left - 2 + t * t) * left)
    return np.concatenate([np.full(min(frames + 1, 3), np.inf), values])


@lru_cache(maxsize=64)
@remembered
def _student(frames: int) -> NDArray[np.float32]:
    from scipy.special import betaincinv, stdtrit

    factors = np.ones((2, frames + 1))
    free = np.arange(1.0, frames)
    factors[0, 2:] = stdtrit(free, (1 + _WITHIN) / 2)
    # The share of one direction in the square of a Gaussian vector.
    factors[1, 3:] = np.sqrt(free[1:] * betaincinv(0.5, (free[1:] - 1) / 2, _WITHIN))
    return factors.astype(np.float32)


def _widening(options: Options, frames: int) -> NDArray[np.float32]:
    """Return, by the number of samples, what to widen the uncertainty by for the rejection itself.

    A rejection cuts tails off, so the survivors scatter less than the samples, and their mean more
    than the survivors tell. How much depends on the method, on its parameters and on the
    combination; it is measured on Gaussian samples, at `_NODES`.
    """
    if options.reject == "none" and options.combine == "mean":
        return np.ones(frames + 1, np.float32)
    return _widths(options.reject, options.combine, tuple(getattr(options, name) for name in USED_BY), frames)


@lru_cache(maxsize=1024)
def _widths(reject: str, combine: str, values: tuple[Any, ...], frames: int) -> NDArray[np.float32]:
    """Return the same of the options that count: every block asks, and 0.4 ms each time was half a second."""
    given = dict(zip(USED_BY, values, strict=True))
    used = {name: given[name] for name, methods in USED_BY.items() if reject in methods}
    choice = Options(reject=reject, combine=combine, **used)
    nodes = [n for n, before in zip(_NODES, (0, *_NODES), strict=False) if before < frames]
    widths = [_measured_width(choice, n) for n in nodes]
    factors = np.ones(frames + 1)
    factors[3:] = np.interp(np.arange(3, frames + 1), nodes, widths) if nodes else 1.0
    return factors.astype(np.float32)


@lru_cache(maxsize=1024)
@remembered
def _measured_width(options: Options, n: int) -> float:
    """Return how wide the pulls of n Gaussian samples are when only Student's factor is in their error.

    Relative to those of the plain mean of the same samples, whose width is 1: what is peculiar to
    the samples that were drawn falls out.
    """
    # The stream of RandomState never changes, unlike those of numpy's newer generators.
    stack = np.random.RandomState(n).standard_normal((n, _PIXELS)).astype(np.float32)
    plain = Options(reject="none")
    return _pull_width(stack, options) / _pull_width(stack, plain, METHODS[options.reject])


def _pull_width(stack: NDArray[np.float32], options: Options, alike: int = 0) -> float:
    """Return the half width of the central 68.3 % of value over error.

    About its own middle: what an asymmetric kappa adds to the value itself is not scatter.
    """
    n = len(stack)
    values, counts = np.empty((3, _PIXELS), np.float32), np.empty((3, _PIXELS), np.uint16)
    ones = np.ones(n + 1, np.float32)
    stack_block(
        stack,
        ones[:n],
        None,
        # As in a build, so that one compiled kernel does for both; the least uncertainty goes with them, and
        # is out of reach here.
        _NEGLIGIBLE * ones[:n],
        comparators(n),
        *(*_parameters(options, n), student(n), ones),
        *(*values, *counts),
        tally=np.zeros((n, 3), np.int64),
        alike=alike,
    )
    values[1][counts[0] - counts[1] - counts[2] == 1] = np.nan  # one survivor does not scatter
    low, high = np.quantile(values[0] / values[1], [(1 - _WITHIN) / 2, (1 + _WITHIN) / 2])
    return float(high - low) / 2
