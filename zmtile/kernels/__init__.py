"""Compiled CPU kernels. Each releases the GIL, writes into arrays that it is given, and keeps no state.

`fastmath` stays off everywhere (it assumes that NaN never occurs), `error_model='numpy'` is on
(the default traps every division). Threads are the caller's: kernels are called on blocks.

What the disk has is loaded without numba, and only who must compile imports it (`loading`, `compiling`).
So kernels name what numba alone can define, as `instruction`, until then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property, update_wrapper
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from zmtile.kernels.loading import Place, Types, load, types_of

__all__ = ["Kernel", "Part", "brief", "inlined", "instruction", "kernel"]

# One thread loads or compiles, the others wait: for the same kernel, or in the compiler all the same.
_LOCK = threading.RLock()
_ARRAY = attrgetter("dtype", "ndim", "flags.num")
_NDARRAY = np.ndarray


class Kernel:
    """A function that is compiled for the types it is called with: once, by one process, for all.

    Compiled code trusts that its arguments are of these types. So all that their types depend on is
    looked at in every call, which takes 0.1 μs an argument.

    Parameters
    ----------
    function : callable
        Of arguments by position.
    inlined : bool
        Its code goes into the kernels that call it, however large it is.
    brief : bool
        It takes next to no time of a build: when Python calls it, its code is made quickly rather than well.
    """

    __name__: str

    def __init__(self, function: Callable[..., Any], inlined: bool = False, brief: bool = False) -> None:
        self.py_func = function
        self.inlined = inlined
        self.brief = brief
        self._entries: dict[tuple[Any, ...], Callable[..., Any]] = {}
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        """Call the code for arguments of these types."""
        kinds = _kinds(arguments)
        entry = self._entries.get(kinds)
        if entry is None:
            entry = self._entry(kinds, arguments)
        return entry(*arguments)

    @property
    def folder(self) -> Path | None:
        """Where other processes find what this one compiles; None when they do not."""
        return self._place.folder

    @property
    def compiled(self) -> bool:
        """Whether the disk has it already, for any types."""
        return self._place.holds_any()

    @property
    def ready_for(self) -> set[Types | None]:
        """The types that it was called with; None stands for such as are not kept on the disk."""
        return {types_of(kinds) for kinds in self._entries}

    @cached_property
    def _place(self) -> Place:
        return Place(self.py_func)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes it for in other compiled functions."""
        return self._compiler.dispatcher_of(self)._numba_type_

    @cached_property
    def _compiler(self) -> Any:
        return import_module("zmtile.kernels.compiling")

    def _entry(self, kinds: tuple[Any, ...], arguments: tuple[Any, ...]) -> Callable[..., Any]:
        """Load or compile the code for arguments of these kinds."""
        with _LOCK:
            entry = self._entries.get(kinds)
            if entry is None:
                types = types_of(kinds)
                path = self._place.path(types) if types else None
                if path:
                    entry = load(path, self.py_func)
                if entry is None:
                    entry = self._compiler.compiled(self, arguments, types, path)
                self._entries[kinds] = entry
            return entry


def _kinds(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return all that the types of values depend on, as finely as it is had quickly."""
    return tuple(
        [
            _ARRAY(v)
            if (t := type(v)) is _NDARRAY
            else _kinds(v)
            if t is tuple
            else t  # a list: it is faster
            for v in values
        ]
    )


class Part:
    """What compiled code calls, and nobody else: it is made when a kernel is compiled.

    Parameters
    ----------
    make : callable
        Returns what numba shall see in its place.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def real(self) -> Any:
        """What numba sees."""
        return self._make()

    @property
    def _numba_type_(self) -> Any:
        return import_module("zmtile.kernels.compiling").type_of(self.real)


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel the way all of them are: nopython, GIL released, cached on disk."""
    return Kernel(function)


def brief(function: Callable[..., Any]) -> Any:
    """Compile a kernel quickly: for one that next to no time of a build is spent in, however many frames."""
    return Kernel(function, brief=True)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a kernel whose code goes into those that call it: for one that is called for each of many."""
    return Kernel(function, inlined=True)


def instruction(name: str, module: str = "instructions") -> Any:
    """Return what stands for an instruction of a module that is imported when a kernel is compiled."""
    return Part(lambda: getattr(import_module(f"zmtile.kernels.{module}"), name))
