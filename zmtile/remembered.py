"""Numbers that take long to work out, and are the same each time: from the disk, as compiled kernels are.

What is not there, or cannot be read, is worked out.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, version
from typing import ParamSpec, TypeVar, cast

from zmtile import __version__
from zmtile.kernels.loading import Place, read, write

__all__ = ["remembered"]

log = logging.getLogger("zmtile")

Given = ParamSpec("Given")
Numbers = TypeVar("Numbers")

_MOST = 512  # files of a function: each is small, but every kappa that is tried leaves a dozen


def remembered(function: Callable[Given, Numbers]) -> Callable[Given, Numbers]:
    """Keep what a function returns on the disk.

    It is asked again where its file, a kernel, the processor, or a library has changed; and each time
    where it has no file.

    Parameters
    ----------
    function : callable
        Of arguments whose `repr` says all of them. What it returns can be pickled.
    """

    @cache
    def place() -> Place | None:
        try:
            status = os.stat(function.__code__.co_filename)
            made_by = __version__, status.st_mtime, status.st_size, version("scipy")
        except (OSError, PackageNotFoundError) as error:
            log.debug("%s is not kept: %r", function.__name__, error)
            return None
        return Place(function, made_by)

    @wraps(function)
    def recalled(*args: Given.args, **kwargs: Given.kwargs) -> Numbers:
        where = place()
        path = where.path((args, kwargs)) if where else None
        if where is None or path is None:
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
            where.drop_old(_MOST)
        return numbers

    return recalled
