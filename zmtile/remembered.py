"""Numbers that take long to work out, and are the same each time: from the disk, as compiled kernels are.

What is not there, or cannot be read, is worked out.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from functools import cache, wraps
from importlib.metadata import version
from typing import Any, ParamSpec, TypeVar, cast

from zmtile import __version__
from zmtile.kernels.loading import Place, read, write

__all__ = ["remembered"]

log = logging.getLogger("zmtile")

Given = ParamSpec("Given")
Numbers = TypeVar("Numbers")


def remembered(function: Callable[Given, Numbers]) -> Callable[Given, Numbers]:
    """Keep what a function returns on the disk.

    It is asked again where its file, a kernel, the processor, or a library has changed.

    Parameters
    ----------
    function : callable
        Of arguments whose `repr` says all of them. What it returns can be pickled.
    """

    @cache
    def place() -> Place:
        return Place(function)

    @cache
    def made_by() -> tuple[Any, ...]:
        status = os.stat(function.__code__.co_filename)
        return __version__, status.st_mtime, status.st_size, version("scipy")

    @wraps(function)
    def recalled(*args: Given.args, **kwargs: Given.kwargs) -> Numbers:
        path = place().path((*made_by(), args, kwargs))
        if path is None:
            return function(*args, **kwargs)
        try:
            return cast(Numbers, read(path))
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever it is, it can be worked out
            log.debug("%s is not used: %r", path, error)
        numbers = function(*args, **kwargs)
        with contextlib.suppress(OSError):
            write(path, numbers)
            place().drop_old()
        return numbers

    return recalled
