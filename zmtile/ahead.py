"""Compile ahead: in the first run ever, a second process compiles what is needed last.

What it makes comes to the first one over the disk; kernels are compiled in turns, so whatever it has
not done in time, or cannot do, is compiled where it is needed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence

from zmtile.kernels.reject import stack_kernel
from zmtile.kernels.turns import Turn
from zmtile.options import Options, Resources

__all__ = ["compiling_ahead"]

log = logging.getLogger("zmtile")

# It imports from where this process does, whatever its working folder holds.
_CODE = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from zmtile.rehearsal import main
main(*pickle.load(sys.stdin.buffer))
"""


@contextlib.contextmanager
def compiling_ahead(
    paths: Sequence[str | os.PathLike[str]], options: Options, resources: Resources
) -> Iterator[None]:
    """Have the later kernels compiled beside what is done within, if that saves time.

    It does when the disk has not got the largest of them, when a second core may be used, and when no
    other process that shares the disk does the same already.

    Parameters
    ----------
    paths : sequence of path
        Files of the frames.
    options : Options
    resources : Resources
    """
    folder = stack_kernel.folder
    if folder is None or resources.workers < 2 or stack_kernel.compiled:
        yield
        return
    turn = Turn(folder, "rehearsal")
    try:
        free = turn.try_now()
    except OSError:  # without locks, both would compile the same
        free = False
    if not free:
        yield
        return
    helper = _started([os.fspath(path) for path in paths], options)
    try:
        yield
    finally:
        turn.give_back()
        _end(helper)


def _started(paths: Sequence[str], options: Options) -> subprocess.Popen[bytes]:
    """Start the other process. It lives as long as the pipe to it is open: no longer than this one."""
    log.debug("kernels are compiled in two processes: the disk has none yet")
    helper = subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert helper.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended: why, is told when all is done
        helper.stdin.write(pickle.dumps(sys.path) + pickle.dumps((paths, options)))
        helper.stdin.flush()
    return helper


def _end(helper: subprocess.Popen[bytes]) -> None:
    """End the other process if it still works, and tell if it has failed."""
    if helper.poll() is None:
        helper.kill()
        helper.communicate()
    else:
        said = helper.communicate()[1].decode(errors="replace").strip().splitlines()
        if helper.returncode:
            log.debug(
                "the process that compiles ahead has failed: %s", said[-1] if said else helper.returncode
            )
