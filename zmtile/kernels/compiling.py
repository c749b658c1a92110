"""Kernels that the disk has not got: compiled by numba, and kept on the disk in two ways.

In numba's way, with types and bitcode, for kernels that call them; and as object code that is loaded
without numba (`zmtile.kernels.loading`). Where that cannot be, numba compiles them in its own way, for
one run.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import logging
import pickle
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import numba
import numpy as np
from numba.core import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import lookup_environment
from numba.core.errors import TypingError
from numba.core.intrinsics import INTR_MATH
from numba.core.target_extension import target_override
from numba.core.types.containers import BaseTuple
from numba.core.types.misc import unliteral
from numba.core.typing.typeof import Purpose, typeof
from numba.np.numpy_support import from_dtype

from zmtile.kernels import Kernel, Part
from zmtile.kernels.loading import STAMP, Code, Place, Types, linked, load, machine, save
from zmtile.kernels.parts import PART, TARGET, PartDispatcher, Whole, target
from zmtile.kernels.turns import Turn

__all__ = ["compiled", "dispatcher_of", "type_of"]

log = logging.getLogger("zmtile")

_OPTIONS = {"nogil": True, "error_model": "numpy", "boundscheck": False}


class _Locator:
    """Tells numba where kernels lie."""

    def __init__(self, folder: Path, line: int) -> None:
        self._folder = folder
        self._line = line

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator | None:
        """Return the place of a function's code; None if there is no folder for it."""
        folder = Place(function).folder
        return None if folder is None else cls(folder, function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        """Make the folder."""
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        """Return the folder."""
        return str(self._folder)

    def get_source_stamp(self) -> Any:
        """Return what code must be as new as: numba would look at the kernel's own file only."""
        return STAMP

    def get_disambiguator(self) -> str:
        """Return what tells two functions of one name apart."""
        return str(self._line)


class _Results(CompileResultCacheImpl):  # type: ignore[misc]  # numba has no types
    """What numba keeps of a kernel."""

    _locator_classes = (_Locator,)

    def reduce(self, compiled: Any) -> Any:
        """Return what is kept of a part; not its source with the types in it, which takes long to write."""
        return super().reduce(compiled._replace(type_annotation=""))


class _Files(IndexDataCacheFile):  # type: ignore[misc]
    """Files of one kernel; what cannot be read, as after a change of the types' classes, is not there."""

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except Exception as error:
            log.debug("%s is not used: %r", self._index_path, error)
            return {}

    def _load_data(self, name: str) -> Any:
        try:
            return super()._load_data(name)
        except Exception as error:
            raise OSError(f"{name} is not used") from error  # numba takes it for a file that has gone


class _SharedCache(FunctionCache):  # type: ignore[misc]
    """The compiled code of one kernel on the disk, which several processes fill together.

    Who finds nothing there takes the kernel's turn, and keeps it until the code is written. Who had to
    wait for the turn finds what the other has made.
    """

    _impl_class = _Results

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(self.cache_path, self._impl.filename_base, STAMP)
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


class _Dispatcher(PartDispatcher):
    """What numba sees of a kernel."""

    def enable_caching(self) -> None:
        """Keep what is compiled on the disk.

        Raises
        ------
        RuntimeError
            When there is no folder that can be written.
        """
        self._cache = _SharedCache(self.py_func)

    @property
    def shared(self) -> _SharedCache | None:
        """What is kept on the disk, if anything is."""
        return self._cache if isinstance(self._cache, _SharedCache) else None

    def compile(self, signature: Any) -> Any:
        """Return what stands for the part for these types: loaded, or compiled and saved."""
        with global_compiler_lock, target_override(TARGET), _uncollected():
            try:
                return super().compile(signature)
            finally:
                if self.shared:
                    self.shared.turn.give_back()

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return how another kernel calls this one: compiled for numbers of a type, whatever their values.

        Else a variable that begins as a plain 0 would have this compiled twice, and the first in vain.
        """
        plain = tuple(unliteral(a) for a in args), {k: unliteral(a) for k, a in kws.items()}
        return super().get_call_template(*plain)


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


_LOCK = threading.RLock()
_dispatchers: dict[Kernel, _Dispatcher] = {}
_worlds: dict[int, dict[str, Any]] = {}
_own: dict[Kernel, Any] = {}
_own_worlds: dict[int, dict[str, Any]] = {}


def dispatcher_of(kernel: Kernel) -> _Dispatcher:
    """Return what numba sees of a kernel."""
    with _LOCK:
        if kernel not in _dispatchers:
            options = PART | _OPTIONS | {"forceinline": kernel.inlined}
            dispatcher = _Dispatcher(
                _among_real(kernel.py_func, dispatcher_of, _worlds), targetoptions=options
            )
            with contextlib.suppress(RuntimeError):  # no folder for the cache: compiled anew in every run
                dispatcher.enable_caching()
            _dispatchers[kernel] = dispatcher
        return _dispatchers[kernel]


def _own_of(kernel: Kernel) -> Any:
    """Return numba's own dispatcher of a kernel, which compiles and runs it without the disk."""
    with _LOCK:
        if kernel not in _own:
            real = _among_real(kernel.py_func, _own_of, _own_worlds)
            _own.setdefault(kernel, numba.njit(**_OPTIONS, forceinline=kernel.inlined)(real))
        return _own[kernel]


def type_of(value: Any) -> Any:
    """Return the type that numba gives a global."""
    target.typing_context.refresh()
    return target.typing_context.resolve_value_type(value)


def _among_real(
    function: Callable[..., Any], seen: Callable[[Kernel], Any], worlds: dict[int, dict[str, Any]]
) -> Callable[..., Any]:
    """Return the function as a part of a module whose kernels are what numba sees of them."""
    assert isinstance(function, FunctionType)
    names = function.__globals__
    world = worlds.get(id(names))
    if world is None:
        world = worlds[id(names)] = dict(names)  # known before it is filled: kernels call each other
        for name, value in names.items():
            if isinstance(value, Kernel):
                world[name] = seen(value)
            elif isinstance(value, Part):
                world[name] = value.real
    real = FunctionType(function.__code__, world, function.__name__, None, function.__closure__)
    real.__qualname__ = function.__qualname__
    real.__module__ = function.__module__
    real.__doc__ = function.__doc__
    return real


def compiled(
    kernel: Kernel, arguments: tuple[Any, ...], kinds: Types | None, path: Path | None
) -> Callable[..., Any]:
    """Return an entry point for arguments.

    Parameters
    ----------
    kernel : Kernel
    arguments : tuple
        That it is called with.
    kinds : tuple
        Their types; None for such as are not kept on the disk.
    path : Path, optional
        Where the object code is written.
    """
    count = kernel.py_func.__code__.co_argcount
    if len(arguments) != count:
        few = "not enough" if len(arguments) < count else "too many"
        raise TypeError(f"{few} arguments: expected {count}, got {len(arguments)}")
    signature = _signature(arguments)
    if kinds is None or signature != tuple(_numba_type(kind) for kind in kinds):
        return _ByValue(kernel)  # as for an integer beyond 64 bits
    turn = Turn(path.parent, f"{kernel.py_func.__qualname__}, whole") if path else None
    try:
        if turn and path and turn.take() and (entry := load(path, kernel.py_func)):
            return entry
        return _entry(kernel, signature, path)
    finally:
        if turn:
            turn.give_back()


def _signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return numba's types of arguments."""
    try:
        return tuple(typeof(a, Purpose.argument) for a in arguments)
    except ValueError as error:
        raise TypingError(str(error)) from error


class _ByValue:
    """A kernel for arguments whose types depend on their values, or are not told from Python's.

    Parameters
    ----------
    kernel : Kernel
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._entries: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call the code for arguments of these types."""
        signature = _signature(arguments)
        if signature not in self._entries:
            self._entries[signature] = _entry(self._kernel, signature, None)
        return self._entries[signature](*arguments)


def _entry(kernel: Kernel, signature: tuple[Any, ...], path: Path | None) -> Callable[..., Any]:
    """Compile a kernel, and write its object code if there is a path for it."""
    dispatcher = dispatcher_of(kernel)
    with global_compiler_lock, _uncollected():
        dispatcher.compile(signature)
        try:
            code, keepable = _whole(dispatcher.overloads[signature], kernel.brief)
            entry = linked(code, kernel.py_func)
        except Exception as error:  # whatever it is, numba can do without
            log.debug("%s is run by numba: %r", kernel.__name__, error)
            return cast(Callable[..., Any], _own_of(kernel).compile(signature))
    if path and keepable:
        try:
            save(path, code)
            Place(kernel.py_func).drop_old()
        except OSError as error:
            log.debug("%s is not kept: %r", kernel.__name__, error)
    return entry


def _numba_type(kind: Any) -> Any:
    if isinstance(kind, str):
        return {"none": types.none, "bool": types.boolean}.get(kind) or getattr(types, kind)
    if kind[0] == "tuple":
        return BaseTuple.from_types([_numba_type(k) for k in kind[1:]])
    _, dtype, ndim, layout, writeable = kind
    return types.Array(from_dtype(np.dtype(dtype)), ndim, layout, readonly=not writeable)


def _whole(part: Any, brief: bool) -> tuple[Code, bool]:
    """Return code that can be called, and whether other processes can use it."""
    whole = Whole(part, brief)
    defined, undefined = _symbols(whole.object_code)
    own = part.fndesc.env_name
    environments = {own: part.environment}
    for variable in whole.module.global_variables:
        if variable.name in defined and (environment := lookup_environment(variable.name)):
            environments.setdefault(variable.name, environment)
    kept = tuple((name, pickle.dumps(list(e.consts))) for name, e in environments.items())
    needs = {name: f"numba_{name}" if name in INTR_MATH else name for name in sorted(undefined)}
    here = machine()
    keepable = (
        whole.keepable
        and here is not None
        and part.target_context.codegen().magic_tuple() == here[:3]
        and not any(b"numba" in constants for _, constants in kept)
    )
    return Code(part.fndesc.llvm_cpython_wrapper_name, kept, needs, whole.object_code), keepable


def _symbols(code: bytes) -> tuple[set[str], set[str]]:
    """Return the symbols that object code has, and those that it needs.

    Raises
    ------
    ValueError
        When it is not ELF of 64 bits, little-endian.
    """
    if code[:6] != b"\x7fELF\x02\x01":
        raise ValueError("its object code is not ELF")
    (table,), (size, count) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + k * size) for k in range(count)]
    defined: set[str] = set()
    undefined: set[str] = set()
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != 2:  # of symbols
            continue
        texts = sections[link][4]
        for at in range(start, start + length, 24):
            text, _, _, section = struct.unpack_from("<IBBH", code, at)
            begin = texts + text
            name = code[begin : code.index(b"\0", begin)].decode()
            if name:
                (defined if section else undefined).add(name)
    return defined, undefined
