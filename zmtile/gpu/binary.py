"""Compile the programs for the device at hand, and keep what comes out on the disk.

CuPy's own way of compiling adds -ftz=true behind the caller's options: numbers below 1e-38 would become
zero, which the squares of pixels in physical units may well be. So NVRTC is asked directly.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from zmtile.gpu.program import OPTIONS
from zmtile.kernels.reject import stack_kernel

__all__ = ["binary_of", "cache_folder"]


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Return the folder of the CPU's compiled kernels; one for this process alone where there is none."""
    folder: Path | None = stack_kernel.folder
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    own = _own_folder()
    return Path(own.name)


@lru_cache(maxsize=1)
def _own_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that goes away with the process."""
    return tempfile.TemporaryDirectory(prefix="zmtile-gpu-")


def binary_of(cupy: Any, text: str, capability: tuple[int, int]) -> Path:
    """Return the file that holds a program, compiled now if it is not there.

    Parameters
    ----------
    cupy : module
    text : str
        From `zmtile.gpu.program`.
    capability : (int, int)
        Compute capability of the current device.
    """
    runtime = cupy.cuda.runtime.runtimeGetVersion()
    key = "\n".join([*OPTIONS, repr(capability), cupy.__version__, str(runtime), text])
    path = cache_folder() / f"gpu-{hashlib.sha256(key.encode()).hexdigest()[:32]}.cubin"
    if not path.exists():
        code, _ = cupy.cuda.compiler.compile_using_nvrtc(text, OPTIONS)
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=".gpu-")
        with os.fdopen(handle, "wb") as file:
            file.write(code)
        os.replace(made, path)  # others may do the same at this moment: all write the same
    return path
