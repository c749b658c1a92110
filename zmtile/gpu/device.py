"""One GPU: its facts, its memory, its kernels; all that zmtile asks of CuPy is here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import GpuError, UsageError, parser_said
from zmtile.gpu.binary import binary_of, cache_folder
from zmtile.gpu.program import THREADS, frames_program, stack_program

__all__ = ["NULL", "Device", "Facts", "Slot", "no_gpu", "open_device"]

# What a kernel gets for a pointer to nothing.
NULL = np.uint64(0)
# Blocks of a launch for each multiprocessor: enough to keep it busy, few enough to walk over many items.
_BLOCKS = 32
INSTALL = "pip install 'zmtile[gpu-cuda12]' or 'zmtile[gpu-cuda13]', as the driver allows"


@dataclass(frozen=True)
class Facts:
    """What a GPU is.

    Attributes
    ----------
    name : str
        As its driver calls it.
    capability : (int, int)
        Compute capability.
    multiprocessors : int
    shared_bytes : int
        Largest shared memory that a block may ask for.
    memory, free : int
        Bytes in all, and those that were free when the device was opened.
    driver, runtime : (int, int)
        Versions of CUDA that the driver supports, and that CuPy uses.
    cupy : str
        Version of CuPy.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    shared_bytes: int
    memory: int
    free: int
    driver: tuple[int, int]
    runtime: tuple[int, int]
    cupy: str


class Device:
    """A GPU that is open for work.

    Parameters
    ----------
    cupy : module
        CuPy.

    Raises
    ------
    UsageError
        When there is no GPU, or none that CuPy can use.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._kernels: dict[tuple[str, str], Any] = {}
        runtime = cupy.cuda.runtime
        try:
            if runtime.getDeviceCount() < 1:
                raise no_gpu("CUDA finds no GPU")
            number = runtime.getDevice()
            about = runtime.getDeviceProperties(number)
            free, memory = runtime.memGetInfo()
            self.facts = Facts(
                about["name"].decode("utf-8", "replace"),
                (int(about["major"]), int(about["minor"])),
                int(about["multiProcessorCount"]),
                int(about.get("sharedMemPerBlockOptin") or about["sharedMemPerBlock"]),
                int(memory),
                int(free),
                _version(runtime.driverGetVersion()),
                _version(runtime.runtimeGetVersion()),
                cupy.__version__,
            )
            self._kernel(frames_program(), "develop")  # whether the compiler is there, too
        except (RuntimeError, OSError, cupy.cuda.compiler.CompileException) as error:
            raise no_gpu(parser_said(error)) from None

    @property
    def free_bytes(self) -> int:
        """Bytes that can be had now, those kept for reuse included."""
        pool = self._cupy.get_default_memory_pool()
        return int(self._cupy.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())

    def limit(self, size: int) -> None:
        """Let no more than `size` bytes be held at any time; 0 for as many as there are."""
        self._cupy.get_default_memory_pool().set_limit(size=size)

    def clear(self) -> None:
        """Give back what is kept for reuse, on the device and of the host's page-locked memory."""
        self._cupy.get_default_memory_pool().free_all_blocks()
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def empty(self, shape: int | Sequence[int], dtype: Any) -> Any:
        """Return an array on the device; MemoryError when it does not fit."""
        return self._cupy.empty(shape, dtype)

    def zeros(self, shape: int | Sequence[int], dtype: Any) -> Any:
        """Return an array of zeros on the device; MemoryError when it does not fit."""
        return self._cupy.zeros(shape, dtype)

    def put(self, values: NDArray[Any]) -> Any:
        """Return a copy of an array on the device. A structured one becomes bytes."""
        plain = np.ascontiguousarray(values)
        return self._cupy.asarray(plain if plain.dtype.fields is None else plain.view(np.uint8))

    def get(self, array: Any, out: NDArray[Any]) -> None:
        """Copy an array from the device once the kernels before are done."""
        array.get(out=out)

    def slot(self, size: int) -> Slot:
        """Return a way for up to `size` bytes from the host to the device."""
        return Slot(self._cupy, size)

    def launch(self, name: str, items: int, *arguments: Any) -> None:
        """Run a kernel of `frames_program` on so many items."""
        blocks = min(-(-items // THREADS), self.facts.multiprocessors * _BLOCKS)
        self._kernel(frames_program(), name)((max(blocks, 1),), (THREADS,), arguments)

    def launch_stack(
        self,
        name: str,
        size: int,
        method: str,
        blocks: int,
        shared: int,
        *arguments: Any,
        threads: int = THREADS,
    ) -> None:
        """Run a kernel of `stack_program` in so many blocks, each with `shared` bytes of shared memory."""
        kernel = self._kernel(stack_program(size, method), name)
        if shared > kernel.max_dynamic_shared_size_bytes:
            kernel.max_dynamic_shared_size_bytes = shared
        kernel((blocks,), (threads,), arguments, shared_mem=shared)

    def _kernel(self, text: str, name: str) -> Any:
        """Return a kernel of a program, loaded once."""
        if (text, name) not in self._kernels:
            path = binary_of(self._cupy, text, self.facts.capability)
            self._kernels[text, name] = self._cupy.RawModule(path=str(path)).get_function(name)
        return self._kernels[text, name]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Turn what CUDA complains of, a lost device for instance, into a GpuError; MemoryError stays."""
        cuda = self._cupy.cuda
        try:
            yield
            cuda.get_current_stream().synchronize()
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
            if "out of memory" in str(error):
                raise MemoryError(str(error)) from None
            raise GpuError(
                f"{self.facts.name} failed: {error}",
                "`zmtile doctor` tries the GPU; --backend cpu needs none.",
            ) from None
        except cuda.compiler.CompileException as error:
            raise GpuError(
                f"the kernels could not be compiled for {self.facts.name}: {str(error)[:400]}",
                "--backend cpu needs no GPU.",
            ) from None


class Slot:
    """Page-locked memory of the host and an array of the device, with a stream that copies between them.

    While the kernels work on what is on the device, the host's memory is filled anew.
    """

    def __init__(self, cupy: Any, size: int) -> None:
        self.size = size
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._current = cupy.cuda.get_current_stream()
        # Those who wait for a copy sleep meanwhile.
        self._sent = cupy.cuda.Event(block=True, disable_timing=True)
        self._used = cupy.cuda.Event(disable_timing=True)
        memory = cupy.cuda.alloc_pinned_memory(size)
        self.host: NDArray[np.uint8] = np.frombuffer(memory, np.uint8, size)
        self.array = cupy.empty(size, np.uint8)
        self._used.record(self._current)  # whoever had this memory before

    def wait(self) -> None:
        """Wait until the host's memory may be filled again."""
        self._sent.synchronize()

    def send(self, size: int) -> None:
        """Begin to copy the first `size` bytes; kernels launched from now on wait for them."""
        self._stream.wait_event(self._used)
        self.array[:size].set(self.host[:size], stream=self._stream)
        self._sent.record(self._stream)
        self._current.wait_event(self._sent)

    def used(self) -> None:
        """Tell that all kernels that read the array have been launched."""
        self._used.record(self._current)


def open_device() -> Device:
    """Return the GPU that CUDA offers first (CUDA_VISIBLE_DEVICES chooses it).

    Raises
    ------
    UsageError
        When there is none, or CuPy is not installed.
    """
    # CuPy makes a folder for its own cache when it is imported.
    os.environ.setdefault("CUPY_CACHE_DIR", str(cache_folder() / "cupy"))
    try:
        import cupy
    except (ImportError, OSError) as error:
        why = f"CuPy cannot be imported ({parser_said(error)})"
        raise no_gpu(why, f"Install it: {INSTALL}.") from None
    return Device(cupy)


def no_gpu(why: str, remedy: str = "`zmtile doctor` shows what is there.") -> UsageError:
    """Return the error for a machine without a usable GPU."""
    return UsageError(f"no GPU can be used: {why}", f"{remedy} Or build with --backend cpu.")


def _version(number: int) -> tuple[int, int]:
    """Return major and minor of a version as CUDA writes it: 12040 is 12.4."""
    return int(number) // 1000, int(number) % 1000 // 10
