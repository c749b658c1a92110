"""Kernels that were compiled before: from the disk into memory, without numba.

To import numba takes a third of a second, to have it ready for its own cached code as much again, and
each kernel 15 ms. Here LLVM alone links the object code, 1 ms a kernel. numba made it, and it is called
as numba calls it: through its wrapper of a Python call, with an environment, and with the helpers of
numba's extension modules, which are loaded without the package.

Whatever is not as it should be, here or in a file, means that nothing is found: then numba compiles. If
what it made cannot be linked here either, numba runs the kernel in its own way.
"""

from __future__ import annotations

import builtins
import hashlib
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from zmtile.extensions import extension

__all__ = [
    "STAMP",
    "Code",
    "Place",
    "Types",
    "linked",
    "load",
    "machine",
    "read",
    "save",
    "types_of",
    "write",
]

log = logging.getLogger("zmtile")

# Types of arguments: a name for a number, ("array", dtype, ndim, layout, writeable), ("tuple", ...).
Types = tuple[Any, ...]

# A kernel is part of others, across files: after a change of one file, the code of all kernels is old.
STAMP = tuple(
    (path.name, stat.st_mtime, stat.st_size)
    for path in sorted(Path(__file__).parent.glob("*.py"))
    for stat in [path.stat()]
)

_SCALARS = {int: "int64", float: "float64", bool: "bool", type(None): "none"} | {
    np.dtype(code).type: np.dtype(code).name for code in "?bhilBHILfd"
}
_NUMBERS = {np.dtype(code).name for code in "?bhilBHILfd"}
_C, _F, _ALIGNED, _WRITEABLE = 0x1, 0x2, 0x100, 0x400  # of `numpy.ndarray.flags.num`
_DIGEST = 32


def types_of(kinds: tuple[Any, ...]) -> Types | None:
    """Return the types of arguments; None if there is one that code on the disk is not for.

    Parameters
    ----------
    kinds : tuple
        For each argument its Python type; of an array dtype, ndim and flags, of a tuple the kinds of
        what it holds.
    """
    types: list[Any] = []
    for kind in kinds:
        if isinstance(kind, type):
            one: Any = _SCALARS.get(kind)
        elif kind and isinstance(kind[0], np.dtype):
            one = _array(*kind)
        else:
            inner = types_of(kind)
            one = ("tuple", *inner) if inner else None
        if one is None:
            return None
        types.append(one)
    return tuple(types)


def _array(dtype: np.dtype[Any], ndim: int, flags: int) -> Types | None:
    if not (flags & _ALIGNED and dtype.isnative and dtype.name in _NUMBERS):
        return None
    layout = "C" if flags & _C else "F" if flags & _F else "A"
    return "array", dtype.name, ndim, layout, bool(flags & _WRITEABLE)


class Code(NamedTuple):
    """Compiled code, and what it takes to call it."""

    name: str
    """Symbol of the wrapper that Python calls."""
    environments: tuple[tuple[str, bytes], ...]
    """Of the code, and of what it was made of: symbols, and pickled constants. The first is its own."""
    needs: Mapping[str, str]
    """Symbols from outside, and the names that they have in numba's helpers or in the process."""
    object_code: bytes


class Place:
    """Where the code of one kernel lies on the disk.

    Parameters
    ----------
    function : callable
        The kernel's source.
    beside : tuple
        What it comes from beside the kernels; after a change, too, its files are old.
    """

    def __init__(self, function: Callable[..., Any], beside: tuple[Any, ...] = ()) -> None:
        code = function.__code__
        self.folder = _folder(os.path.dirname(os.path.abspath(code.co_filename)), os.environ.get(_WHERE))
        self._function = function
        self._beside = beside
        name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}".replace("<locals>", "")
        tag = f"{sys.implementation.cache_tag}{sys.abiflags}"
        self._stem = f"{name}-{code.co_firstlineno}.{tag}"
        self._all = f"{name}-*.{tag}.*.zmk"  # it may have been on other lines

    @cached_property
    def _stamp(self) -> str:
        return _short((STAMP, self._beside))

    @cached_property
    def _start(self) -> str | None:
        """How the names of its files begin: sources, then all that is outside of them."""
        here = machine()
        cells = [cell.cell_contents for cell in self._function.__closure__ or ()]
        if here is None or not all(isinstance(c, int | float | str) for c in cells):
            return None
        code = self._function.__code__.co_code.hex()
        return f"{self._stem}.{self._stamp}.{_short((here, code, cells))}"

    def path(self, types: Types) -> Path | None:
        """Return the file of the code for arguments of these types, whether it is there or not."""
        if self.folder is None or self._start is None:
            return None
        return self.folder / f"{self._start}.{_short(types)}.zmk"

    def holds_any(self) -> bool:
        """Tell whether there is code for this processor, for any types."""
        return bool(self.folder and self._start and any(self.folder.glob(f"{self._start}.*.zmk")))

    def drop_old(self, most: int | None = None) -> None:
        """Remove code of other sources, and of the rest all but so many files, the oldest first."""
        if self.folder is None:
            return
        kept = []
        for path in self.folder.glob(self._all):
            if path.name.split(".")[-4] == self._stamp:
                kept.append(path)
            else:
                path.unlink(missing_ok=True)
        if most is not None and len(kept) > most:
            for path in sorted(kept, key=lambda path: path.stat().st_mtime_ns)[:-most]:
                path.unlink(missing_ok=True)


_WHERE = "NUMBA_CACHE_DIR"


@cache
def _folder(sources: str, where: str | None) -> Path | None:
    """Return the folder for kernels: numba's choice, so that all lie together."""
    name = f"{os.path.basename(sources)}_{hashlib.sha1(sources.encode()).hexdigest()}"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    choices = [Path(sources, "__pycache__"), Path(home, "numba", name)]
    for folder in [Path(where, name), *choices] if where else choices:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


@cache
def machine() -> tuple[str, ...] | None:
    """Return what code depends on beside the sources: processor and versions; None where LLVM is not."""
    try:
        import llvmlite.binding as llvm

        return (
            llvm.get_process_triple(),
            llvm.get_host_cpu_name(),
            llvm.get_host_cpu_features().flatten(),
            sys.version,
            *(version(name) for name in ("numba", "llvmlite", "numpy")),
        )
    except Exception as error:  # whatever it is, numba can do without
        log.debug("kernels are loaded by numba: %r", error)
        return None


def _short(key: Any) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()[:16]


def write(path: Path, content: Any) -> None:
    """Write what can be pickled, in one step.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    data = pickle.dumps((path.name, content))
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".zmk", delete=False) as file:
        try:
            file.write(hashlib.sha256(data).digest() + data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def read(path: Path) -> Any:
    """Return what was written.

    Raises
    ------
    OSError
        When there is no such file.
    ValueError
        When it is damaged.
    """
    data = path.read_bytes()
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise ValueError("damaged")
    name, content = pickle.loads(data[_DIGEST:])
    if name != path.name:
        raise ValueError("of another name")
    return content


def save(path: Path, code: Code) -> None:
    """Write code.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    write(path, tuple(code))


def load(path: Path, function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the compiled function of a file; None if there is none that can be used.

    Parameters
    ----------
    path : Path
    function : callable
        The kernel's source.
    """
    try:
        return linked(Code(*read(path)), function)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever it is, numba can do without
        log.debug("%s is not used: %r", path, error)
        return None


def linked(code: Code, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of Python that runs the code."""
    import ctypes

    import llvmlite.binding as llvm

    helpers = _helpers()
    # An engine for each: private functions of two kernels may have the same name, and not be the same.
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(
        llvm.parse_assembly(""), target
    )  # it makes the process's symbols known
    for symbol, source in code.needs.items():  # LLVM would end the process if one were missing
        address = helpers.addresses.get(source)
        if address is not None:
            llvm.add_symbol(symbol, address)
        elif symbol != source or not llvm.address_of_symbol(symbol):
            raise ValueError(f"no {source}")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_code))
    engine.finalize_object()
    environments = []
    for symbol, constants in code.environments:
        place = engine.get_global_value_address(symbol)
        environment = helpers.dynfunc.Environment(function.__globals__)
        environment.consts.extend(pickle.loads(constants))
        environments.append(environment)
        if not place:
            raise ValueError(f"no {symbol}")
        ctypes.c_void_p.from_address(place).value = id(environment)
    entry = engine.get_function_address(code.name)
    if not entry:
        raise ValueError(f"no {code.name}")
    return helpers.dynfunc.make_function(
        ModuleType(function.__module__),
        function.__name__,
        f"compiled {function.__qualname__}",
        entry,
        environments[0],
        (engine, environments),  # live as long as the function
    )


class _Helpers(NamedTuple):
    """What compiled code asks for."""

    dynfunc: Any
    addresses: Mapping[str, int]


@cache
def _helpers() -> _Helpers:
    """Load numba's helpers, give them the names that numba gives them, and have LLVM ready."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    helperlib, dynfunc, runtime = (
        extension(name) for name in ("numba._helperlib", "numba._dynfunc", "numba.core.runtime._nrt_python")
    )
    addresses = {"_Py_NoneStruct": id(None)}
    addresses |= {f"numba_{k}": v for m in (helperlib, dynfunc) for k, v in m.c_helpers.items()}
    addresses |= {k if k.startswith("_") else f"NRT_{k}": v for k, v in runtime.c_helpers.items()}
    addresses |= {
        f"PyExc_{error.__name__}": id(error)
        for error in vars(builtins).values()
        if isinstance(error, type) and issubclass(error, BaseException)
    }
    return _Helpers(dynfunc, addresses)
