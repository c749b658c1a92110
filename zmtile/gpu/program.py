"""The kernels' program: CUDA sources, the numbers they share with the CPU's, and how to compile them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels import bend, bounds, demosaic, grow, network, reject, uncertainty, winsor

__all__ = [
    "LANES",
    "OPTIONS",
    "OWN",
    "PER",
    "SEARCHING",
    "THREADS",
    "TOGETHER",
    "frames_program",
    "own_size",
    "stack_program",
    "stages",
]

# What is done to frames and to whole bands, and what is done to the samples of a pixel.
FRAMES = ("base.cuh", "geometry.cuh", "develop.cuh", "demosaic.cuh", "bend.cuh", "warp.cuh", "grow.cuh")
STACK = ("base.cuh", "columns.cuh", "reject.cuh", "stack.cuh", "bounds.cuh", "together.cuh", "search.cuh")
# Both back ends round alike: multiply-adds are fused where the sources say so; roots, quotients by IEEE 754.
OPTIONS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")
# Threads of a block.
THREADS = 128
# Pixels whose samples lie side by side in shared memory: one warp has a pixel each.
LANES = 32
# Sizes for which a thread holds the samples itself. Each is a program of its own, so they are few.
OWN = (4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
# Sizes for which a warp holds them: powers of two.
TOGETHER = (128, 256, 512, 1024, 2048)
# Rejections that search sigma.
SEARCHING = ("sigma", "winsor")
# Pixels that a warp reads at a time.
GROUP = 4
# Pixels that a thread combines at a time.
PER = 4


def own_size(frames: int, method: str) -> int:
    """Return the size of the program for so many frames; 0 for the one that takes any number."""
    sizes = (*OWN, *TOGETHER) if method in SEARCHING else OWN
    return next((size for size in sizes if frames <= size), 0)


@lru_cache(maxsize=1)
def frames_program() -> str:
    """Return the text of the kernels that do not depend on the rejection."""
    defines = {
        "TO_GREEN": demosaic.TO_GREEN,
        "TO_OPPOSITE": demosaic.TO_OPPOSITE,
        "TO_BOTH": demosaic.AT_GREEN,
        "NODE_STEP": bend.NODE_STEP,
        "CLOSE": bend.CLOSE,
        "MOST_TURNS": bend.MOST_TURNS,
        "GROW_REACH": grow.REACH,
        "GROW_NEED": grow.NEED,
    }
    return _text(defines, FRAMES)


@lru_cache(maxsize=64)
def stack_program(size: int, method: str) -> str:
    """Return the text of the kernel that rejects and combines.

    Parameters
    ----------
    size : int
        From `own_size`.
    method : str
        The rejection, one of `zmtile.kernels.bounds.METHODS`.
    """
    defines = {
        **{name.upper().replace("-", "_"): number for name, number in bounds.METHODS.items()},
        "METHOD": bounds.METHODS[method],
        "ITERATIVE": int(method in ("none", "sigma", "winsor")),
        "OWN_SIZE": size,
        "MOST_OWN": OWN[-1],
        "SEARCHING": int(method in SEARCHING),
        "GROUP": GROUP,
        "PER": PER,
        "LANES": LANES,
        "THREADS": THREADS,
        "WINSOR_CLIP": winsor.CLIP,
        "WINSOR_GROW": winsor.GROW,
        "WINSOR_SETTLED": winsor.TOLERANCE,
        "WINSOR_ROUNDS": int(winsor.MAX_ROUNDS),
        "MAD_SCALE": bounds.MAD_SCALE,
        "MEDIAN_VARIANCE": uncertainty.MEDIAN_VARIANCE,
        "LEAST_UNCERT": reject.LEAST_UNCERT,
        "NETWORK(x)": " ".join(_exchanges(size if size <= OWN[-1] else 0)),
    }
    return _text(defines, STACK)


def _text(defines: Mapping[str, object], sources: Sequence[str]) -> str:
    lines = [f"#define {name} {_number(value)}" for name, value in defines.items()]
    folder = files("zmtile.gpu") / "cuda"
    return "\n".join([*lines, *((folder / name).read_text("utf-8") for name in sources)])


def _number(value: object) -> str:
    """Return a number as CUDA reads it, to the last bit."""
    if isinstance(value, np.float32):
        return f"{float(value).hex()}f"
    return value.hex() if isinstance(value, float) else str(value)


def _exchanges(size: int) -> Iterable[str]:
    for a, b in network.comparators(size):
        yield (f"{{ const float u = x[{a}], v = x[{b}]; x[{a}] = fminf(u, v); x[{b}] = fmaxf(u, v); }}")


@lru_cache(maxsize=64)
def stages(frames: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the comparators of a network, and where its stages begin: those of one stage share no row.

    Returns
    -------
    (comparators, 2) int32, (stages + 1,) int32
    """
    pairs = network.comparators(frames)
    begins, used = [0], set[int]()
    for k, (a, b) in enumerate(pairs.tolist()):
        if a in used or b in used:
            begins.append(k)
            used = set()
        used |= {a, b}
    return pairs, np.array([*begins, len(pairs)], np.int32)
