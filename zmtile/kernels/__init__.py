"""Compiled CPU kernels. Each releases the GIL, writes into arrays that it is given, and keeps no state.

`fastmath` stays off everywhere (it assumes that NaN never occurs), `error_model='numpy'` is on
(the default traps every division). Threads are the caller's: kernels are called on blocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba

# numba keys a cached kernel by its own file only, but kernels call each other across files: after a
# change of one, the cached code of its callers would be old. So all files are the key of each.
_STAMP = tuple(
    (path.name, stat.st_mtime, stat.st_size)
    for path in sorted(Path(__file__).parent.glob("*.py"))
    for stat in [path.stat()]
)

__all__ = ["kernel"]


def kernel(function: Any) -> Any:
    """Compile a kernel the way all of them are: nopython, GIL released, cached on disk."""
    options = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        compiled = numba.njit(function, cache=True, **options)
        compiled._cache._cache_file._source_stamp = _STAMP
        return compiled
    except RuntimeError:  # no folder where the cache could be written: compiled anew in every run
        return numba.njit(function, **options)
