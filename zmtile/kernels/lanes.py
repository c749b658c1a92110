"""Numbers of `LANES` pixels as one value of a kernel: vector instructions without the compiler's guesses.

The samples of neighbouring pixels lie side by side, so the steps of the rejection are the same for each of
them. Written as loops over lanes they become vectors only if the compiler can prove that no two arrays
overlap, and what is summed over rows goes through memory in between: 2 to 3 times as long on a Zen 5 core.
Here a row of lanes is a value like any other and stays in registers. It has +, -, *, /, the comparisons,
and ``&``, ``|``, ``~`` of what these return; a float32 beside it stands for every lane. Every operation is
that of IEEE float32, rounded by itself, as for scalars.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite.binding import get_host_cpu_features

from zmtile.kernels import instruction, kernel

__all__ = [
    "HALF",
    "INF",
    "LANES",
    "ONE",
    "TWO",
    "ZERO",
    "aligned",
    "bits_of",
    "choose",
    "count_lanes",
    "every",
    "first_bit",
    "highest",
    "lowest",
    "plus_product",
    "put_lanes",
    "root",
    "take_lanes",
]

# As many as leave the variables of a search in registers: there are 32 with AVX-512, else 16, half as wide.
# Any number gives the same pixels.
LANES = 32 if get_host_cpu_features().get("avx512f") else 16

ZERO = np.float32(0.0)
ONE = np.float32(1.0)
TWO = np.float32(2.0)
HALF = np.float32(0.5)
INF = np.float32(np.inf)

# Bytes of a line of the cache, and of the widest vector: one that lies across two lines takes twice as long.
_LINE = 64

# Lanes that all hold one float32.
every = instruction("every")
# Of a condition and two others: the first where it is true, the second elsewhere; each may be one float32.
choose = instruction("choose")
# The first of three and the product of the others, rounded once: see `instructions`.
plus_product = instruction("plus_product")
# The square root of lanes.
root = instruction("root")
# In how many lanes a condition is true.
count_lanes = instruction("count_lanes")
# A condition as an integer: bit k is lane k.
bits_of = instruction("bits_of")
# The lowest bit that is set in an integer, of which there is at least one.
first_bit = instruction("first_bit")
# The lanes that begin at a number of a contiguous float32 array of any shape.
take_lanes = instruction("take_lanes")
# The lower of two lanes, and the higher: b where neither is lower, or one is NaN.
lowest = instruction("lowest")
highest = instruction("highest")
# Stores lanes there.
put_lanes = instruction("put_lanes")


@kernel
def aligned(size: int) -> Any:
    """Return memory for so many float32 that begins at a line of the cache."""
    room = np.empty(size + _LINE // 4, np.float32)
    skip = (-room.ctypes.data % _LINE) // 4
    return room[skip : skip + size]
