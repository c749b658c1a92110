"""Compiled modules of other packages, loaded without the packages around them, whose import takes long."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from itertools import accumulate
from pathlib import Path
from typing import Any

__all__ = ["extension"]

_LOCK = threading.Lock()


def extension(name: str) -> Any:
    """Return an extension module.

    Parameters
    ----------
    name : str
        With the packages that it lies in. It must need nothing of them.

    Raises
    ------
    ImportError
        When it is not there.
    """
    with _LOCK:
        return _loaded(name)


def _loaded(name: str) -> Any:
    top, *inner = name.split(".")
    if top in sys.modules:
        # From the outside in, as all others do: two threads would wait for each other.
        for part in accumulate([top, *inner], "{}.{}".format):
            module = importlib.import_module(part)
        return module
    package = importlib.util.find_spec(top)
    if package is None or package.origin is None:
        raise ImportError(f"no {top}")
    stem = Path(package.origin).parent.joinpath(*inner)
    path = next((p for s in EXTENSION_SUFFIXES if os.path.exists(p := f"{stem}{s}")), None)
    if path is None:
        raise ImportError(f"no {name}")
    loader = ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules.pop(name, None)  # its package imports it in its own way, if at all
    return module
