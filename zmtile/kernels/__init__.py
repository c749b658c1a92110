"""Compiled CPU kernels. Each releases the GIL, writes into arrays that it is given, and keeps no state.

`fastmath` stays off everywhere (it assumes that NaN never occurs), `error_model='numpy'` is on
(the default traps every division). Threads are the caller's: kernels are called on blocks.
"""

from __future__ import annotations

from typing import Any

import numba

__all__ = ["kernel"]


def kernel(function: Any) -> Any:
    """Compile a kernel the way all of them are: nopython, GIL released, cached on disk."""
    return numba.njit(function, nogil=True, cache=True, error_model="numpy", boundscheck=False)
