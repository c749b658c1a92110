"""Compiled CPU kernels. Each releases the GIL, writes into arrays that it is given, and keeps no state.

`fastmath` stays off everywhere (it assumes that NaN never occurs), `error_model='numpy'` is on
(the default traps every division). Threads are the caller's: kernels are called on blocks.
"""

from __future__ import annotations

import contextlib
import gc
import glob
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.types.misc import unliteral

from zmtile.kernels.turns import Turn

__all__ = ["Kernel", "kernel"]

# numba keys a cached kernel by its own file only, but kernels call each other across files: after a
# change of one, the cached code of its callers would be old. So all files are the key of each.
_STAMP = tuple(
    (path.name, stat.st_mtime, stat.st_size)
    for path in sorted(Path(__file__).parent.glob("*.py"))
    for stat in [path.stat()]
)
# Nobody calls a kernel from C, so that way in is not compiled: it took a twentieth of the time.
_OPTIONS = {
    "nopython": True,
    "nogil": True,
    "error_model": "numpy",
    "boundscheck": False,
    "no_cfunc_wrapper": True,
}


class _SharedCache(FunctionCache):  # type: ignore[misc]  # numba has no types
    """The compiled code of one kernel on the disk, which several processes fill together.

    Who finds nothing there takes the kernel's turn, and keeps it until the code is written. Who had to
    wait for the turn finds what the other has made.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = _STAMP
        self.turn = Turn(Path(self.cache_path), function.__qualname__)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return what was compiled for these types, or None: then the turn is ours, if it can be had."""
        found = super().load_overload(signature, context)
        if found is None and self.turn.take():
            found = super().load_overload(signature, context)
        return found

    def save_overload(self, signature: Any, compiled: Any) -> None:
        """Write code for these types."""
        if (
            not self._cache_file._load_index()
        ):  # it is written first, and must not lead to code of old sources
            for old in Path(self.cache_path).glob(f"{glob.escape(self._impl.filename_base)}.*.nbc"):
                old.unlink(missing_ok=True)
        super().save_overload(signature, compiled)

    def holds_any(self, context: Any) -> bool:
        """Tell whether there is code for this processor, for any types."""
        processor = context.codegen().magic_tuple()
        return any(key[1] == processor for key in self._cache_file._load_index())


class Kernel(CPUDispatcher):  # type: ignore[misc]  # numba has no types
    """A function that is compiled for the types it is called with: once, by one process, for all."""

    def enable_caching(self) -> None:
        """Keep what is compiled on the disk.

        Raises
        ------
        RuntimeError
            When there is no folder that can be written.
        """
        self._cache = _SharedCache(self.py_func)

    @property
    def folder(self) -> Path | None:
        """Where other processes find what this one compiles; None when they do not."""
        return Path(self._cache.cache_path) if isinstance(self._cache, _SharedCache) else None

    @property
    def compiled(self) -> bool:
        """Whether the disk has it already, for any types."""
        return isinstance(self._cache, _SharedCache) and self._cache.holds_any(self.targetctx)

    def compile(self, signature: Any) -> Any:
        """Return the entry point for these types: loaded, or compiled and saved."""
        with global_compiler_lock, _uncollected():
            try:
                return super().compile(signature)
            finally:
                if isinstance(self._cache, _SharedCache):
                    self._cache.turn.give_back()

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return how another kernel calls this one: compiled for numbers of a type, whatever their values.

        Else a variable that begins as a plain 0 would have this compiled twice, and the first in vain.
        """
        plain = tuple(unliteral(a) for a in args), {k: unliteral(a) for k, a in kws.items()}
        return super().get_call_template(*plain)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel the way all of them are: nopython, GIL released, cached on disk."""
    compiled = Kernel(function, targetoptions=_OPTIONS)
    with contextlib.suppress(RuntimeError):  # no folder for the cache: compiled anew in every run
        compiled.enable_caching()
    return compiled


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector away: it took an eighth of the time of compiling, and found little."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
