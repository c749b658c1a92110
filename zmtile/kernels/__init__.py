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
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder where the cache could be written: compiled anew in every run
        return numba.njit(function, **options)
