"""CuPy as far as zmtile uses it, on a machine without a GPU: the kernels run as compiled C++, on the host.

`zmtile.gpu.device.Device` takes this in place of CuPy. Kernels are compiled by g++ with
tests/gpu/host.h, their arguments are checked against their declarations, memory that was not
written is garbage, and memory and errors can be limited and provoked.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

HOST_H = Path(__file__).parent / "gpu" / "host.h"
# As zmtile's own options say: no fused multiply-add. The others are g++'s habit anyway.
FLAGS = (
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-w",
    "-fPIC",
    "-shared",
    "-pthread",
    "-include",
    str(HOST_H),
)
KINDS = {
    "int": (np.int32, ctypes.c_int),
    "Index": (np.int64, ctypes.c_longlong),
    "float": (np.float32, ctypes.c_float),
    "double": (np.float64, ctypes.c_double),
}
DECLARATION = re.compile(r'extern "C" void\s+(\w+)\(([^)]*)\)')


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class CompileException(Exception):
    pass


class OutOfMemoryError(MemoryError):
    pass


class Array(np.ndarray):
    """An array on the device: the host reaches it by `set` and `get` alone."""

    def set(self, values, stream):
        assert values.flags.c_contiguous
        assert (values.dtype, values.shape) == (self.dtype, self.shape)
        stream.later(lambda: np.copyto(self, values))

    def get(self, out=None):
        assert out.flags.c_contiguous
        assert (out.dtype, out.shape) == (self.dtype, self.shape)
        NULL_STREAM.synchronize()
        np.copyto(out, self.view(np.ndarray))


class Stream:
    """Its work is done as late as may be: when somebody waits for it."""

    lock = threading.RLock()

    def __init__(self, non_blocking=False):
        self._waiting = deque()

    def later(self, work):
        with self.lock:
            self._waiting.append(work)

    def mark(self):
        """Return something that does the work up to here when it is called."""
        with self.lock:
            last = self._waiting[-1] if self._waiting else None
        return lambda: self._work_until(last)

    def _work_until(self, last):
        with self.lock:
            while last in self._waiting:
                self._waiting.popleft()()

    def wait_event(self, event):
        self.later(event.reached)

    def synchronize(self):
        self.mark()()


NULL_STREAM = Stream()


class Event:
    """A place in the work of a stream."""

    def __init__(self, block=False, disable_timing=False):
        self.reached = lambda: None

    def record(self, stream):
        self.reached = stream.mark()

    def synchronize(self):
        self.reached()


class Kernel:
    def __init__(self, cupy, library, name, kinds):
        self._cupy, self._library, self._kinds = cupy, library, kinds
        self._function = getattr(library, name)
        self._function.restype = None
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid, block, arguments, *, shared_mem=0):
        assert 0 < grid[0] < 2**31
        assert 0 < block[0] <= 1024
        assert shared_mem <= self.max_dynamic_shared_size_bytes, "more shared memory than asked for"
        if self._cupy.failure:
            raise self._cupy.failure
        assert len(arguments) == len(self._kinds), (len(arguments), self._kinds)
        values = [self._value(*pair) for pair in zip(arguments, self._kinds, strict=True)]
        # The arrays are held until the work is done.
        NULL_STREAM.later(
            lambda: arguments and self._cupy.run(self._library, self._function, values, grid[0])
        )

    @staticmethod
    def _value(argument, kind):
        if kind == "pointer":
            if isinstance(argument, Array):
                assert argument.flags.c_contiguous
                return ctypes.c_void_p(argument.ctypes.data)
            assert type(argument) is np.uint64
            assert argument == 0
            return ctypes.c_void_p(0)
        numpy_type, c_type = KINDS[kind]
        assert type(argument) is numpy_type, (argument, kind)
        return c_type(argument.item())


class RawModule:
    def __init__(self, cupy, path):
        self._cupy = cupy
        flags = ("-DHOST_WARP",) if cupy.threads % 32 == 0 else ()
        self._library, self._kernels = compiled(Path(path).read_text(), flags)

    def get_function(self, name):
        return Kernel(self._cupy, self._library, name, self._kernels[name])


@lru_cache(maxsize=64)
def compiled(code, flags=()):
    """Return the program as a library of the host, and the kinds of its kernels' arguments."""
    key = hashlib.sha256((code + HOST_H.read_text() + " ".join([*FLAGS, *flags])).encode()).hexdigest()[:24]
    folder = HOST_H.parent / "__pycache__"
    library, text = folder / f"{key}.so", folder / f"{key}.ii"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source = Path(scratch) / "program.cpp"
            source.write_text(code)
            for out, more in ((text, ["-E", "-P"]), (library, [])):
                made = Path(scratch) / out.name
                subprocess.run(
                    [str(COMPILER), *FLAGS, *flags, *more, str(source), "-o", str(made)], check=True
                )
                made.rename(out)
    kernels = {}
    for name, parameters in DECLARATION.findall(text.read_text()):
        words = [p.replace("const", "").split() for p in parameters.split(",")]
        kernels[name] = ["pointer" if "*" in "".join(w) else w[0] for w in words]
    return ctypes.CDLL(str(library)), kernels


COMPILER = shutil.which("g++") or shutil.which("c++")


class FakeCupy:
    """The module.

    Parameters
    ----------
    memory : int
        Bytes of the device.
    threads : int
        Threads of a block; more than one where kernels meet at barriers.
    at_once : int
        Blocks that run at the same time; more than one where they use no shared memory.
    """

    __version__ = "0 (fake)"

    def __init__(self, memory=2**40, threads=1, at_once=1, shared=227 * 1024, devices=1):
        if not COMPILER:
            pytest.skip("no C++ compiler (g++) is installed")
        self.failure = self.compiler_failure = None
        self._at_once = at_once
        self.threads, self._memory, self._limit, self._held = threads, memory, 0, 0
        self.most_held = self.refused = 0
        about = {
            "name": b"Fake GPU",
            "major": 8,
            "minor": 0,
            "multiProcessorCount": 3,
            "sharedMemPerBlock": 48 * 1024,
            "sharedMemPerBlockOptin": shared,
        }
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: devices,
            getDevice=lambda: 0,
            getDeviceProperties=lambda number: about,
            memGetInfo=lambda: (self._memory - self._held, self._memory),
            driverGetVersion=lambda: 12040,
            runtimeGetVersion=lambda: 12020,
        )
        current = copy(NULL_STREAM)  # the same work, and the failures of this device
        current.synchronize = self._synchronize
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            compiler=SimpleNamespace(CompileException=CompileException, compile_using_nvrtc=self._compile),
            get_current_stream=lambda: SimpleNamespace(
                later=NULL_STREAM.later,
                mark=NULL_STREAM.mark,
                wait_event=NULL_STREAM.wait_event,
                synchronize=self._synchronize,
            ),
            Stream=Stream,
            Event=Event,
            alloc_pinned_memory=bytearray,
        )

    def _synchronize(self):
        if self.failure:
            raise self.failure
        NULL_STREAM.synchronize()

    def _compile(self, text, options):
        assert set(options) == {
            "-std=c++17",
            "-fmad=false",
            "-prec-div=true",
            "-prec-sqrt=true",
            "-ftz=false",
        }
        if self.compiler_failure:
            raise self.compiler_failure
        return text.encode(), None

    def RawModule(self, *, path):
        return RawModule(self, path)

    def get_default_memory_pool(self):
        def set_limit(*, size):
            self._limit = size

        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None, set_limit=set_limit)

    def get_default_pinned_memory_pool(self):
        return SimpleNamespace(free_all_blocks=lambda: None)

    def empty(self, shape, dtype):
        made = np.empty(shape, dtype)
        made.reshape(-1).view(np.uint8)[:] = 0xA5  # garbage, for those who would read what nobody wrote
        return self._kept(made)

    def zeros(self, shape, dtype):
        return self._kept(np.zeros(shape, dtype))

    def asarray(self, values):
        return self._kept(values.copy())

    def _kept(self, made):
        if self._held + made.nbytes > (self._limit or self._memory):
            NULL_STREAM.synchronize()  # a pool knows the order of the work: what was let go is free
        if self._held + made.nbytes > (self._limit or self._memory):
            self.refused += 1
            raise OutOfMemoryError(f"{made.nbytes} bytes")
        self._held += made.nbytes
        self.most_held = max(self.most_held, self._held)
        array = made.view(Array)
        weakref.finalize(made, self._free, made.nbytes)
        return array

    def _free(self, size):
        self._held -= size

    def run(self, library, function, values, blocks):
        """Run a kernel block after block, each of `threads` threads that meet at its barriers."""

        def one(block):
            library.be_thread(0, 1, block, blocks)
            function(*values)

        if self.threads == 1:
            with ThreadPoolExecutor(self._at_once) as pool:
                list(pool.map(one, range(blocks)))
            return
        library.expect_threads(self.threads)

        def thread(number):
            for block in range(blocks):
                library.be_thread(number, self.threads, block, blocks)
                function(*values)

        team = [threading.Thread(target=thread, args=(number,)) for number in range(self.threads)]
        for member in team:
            member.start()
        for member in team:
            member.join()
