"""CuPy as far as zmtile uses it, on a machine without a GPU: the kernels run as compiled C++, on the host.

`zmtile.gpu.device.Device` takes this in place of CuPy. Kernels are compiled by g++ with
tests/gpu/host.h, their arguments are checked against their declarations, memory that was not
written is garbage, and memory and errors can be limited and provoked.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
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

    def set(self, values, stream=None):
        assert values.flags.c_contiguous
        assert (values.dtype, values.shape) == (self.dtype, self.shape)
        np.copyto(self, values)

    def get(self, out=None):
        assert out.flags.c_contiguous
        assert (out.dtype, out.shape) == (self.dtype, self.shape)
        np.copyto(out, self.view(np.ndarray))


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
        self._cupy.run(self._library, self._function, values)

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
    def __init__(self, cupy, code, options):
        assert "-fmad=false" in options
        self._cupy = cupy
        self._library, self._kernels = compiled(code)

    def get_function(self, name):
        return Kernel(self._cupy, self._library, name, self._kernels[name])


@lru_cache(maxsize=64)
def compiled(code):
    """Return the program as a library of the host, and the kinds of its kernels' arguments."""
    key = hashlib.sha256((code + HOST_H.read_text() + " ".join(FLAGS)).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"zmtile-kernels-{os.getuid()}"
    library, text = folder / f"{key}.so", folder / f"{key}.ii"
    if not library.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            source = Path(scratch) / "program.cpp"
            source.write_text(code)
            for out, more in ((text, ["-E", "-P"]), (library, [])):
                made = Path(scratch) / out.name
                subprocess.run([str(COMPILER), *FLAGS, *more, str(source), "-o", str(made)], check=True)
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
    """

    __version__ = "0 (fake)"

    def __init__(self, memory=2**40, threads=1, shared=227 * 1024, devices=1):
        if not COMPILER:
            pytest.skip("no C++ compiler (g++) is installed")
        self.failure = None
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
        event = SimpleNamespace(synchronize=lambda: None, record=lambda stream: None)
        stream = SimpleNamespace(wait_event=lambda event: None, synchronize=self._synchronize)
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            compiler=SimpleNamespace(CompileException=CompileException),
            Stream=type("Stream", (), {"null": stream, "__new__": lambda cls, non_blocking: stream}),
            Event=lambda disable_timing: event,
            alloc_pinned_memory=bytearray,
        )

    def _synchronize(self):
        if self.failure:
            raise self.failure

    def RawModule(self, *, code, options):
        return RawModule(self, code, options)

    def get_default_memory_pool(self):
        def set_limit(*, size):
            self._limit = size

        return SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None, set_limit=set_limit)

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
            self.refused += 1
            raise OutOfMemoryError(f"{made.nbytes} bytes")
        self._held += made.nbytes
        self.most_held = max(self.most_held, self._held)
        array = made.view(Array)
        weakref.finalize(made, self._free, made.nbytes)
        return array

    def _free(self, size):
        self._held -= size

    def run(self, library, function, values):
        """Run a kernel as one block of `threads`, which meet at its barriers."""
        if self.threads == 1:
            function(*values)
            return
        library.expect_threads(self.threads)

        def thread(number):
            library.be_thread(number, self.threads)
            function(*values)

        team = [threading.Thread(target=thread, args=(number,)) for number in range(self.threads)]
        for member in team:
            member.start()
        for member in team:
            member.join()
