"""The rehearsal compiles what a build needs: the same kernels, for the same types."""

import subprocess
import sys

CODE = """
import gc
import sys
from zmtile.frames.frame import read_frame
from pathlib import Path
from zmtile.kernels import Kernel
from zmtile.options import Options, Resources
from zmtile.pipeline import build_tile
from zmtile.rehearsal import rehearse

def known():
    every = [k for k in gc.get_objects() if isinstance(k, Kernel)]
    return {(k.__module__.rpartition(".")[2], k.__name__, str(s)) for k in every for s in k.ready_for}

paths = sys.argv[1:]
rehearse(read_frame(Path(paths[0])), len(paths), Options())
rehearsed = known()
build_tile(paths, Options(), Resources(threads=1))
modules = {"reject", "warp", "fluxties", "skyties", "leastsquares", "settle"}
print(sorted({module for module, *_ in rehearsed} & modules))
print(sorted(item for item in known() - rehearsed if item[0] in modules))
"""


def test_a_build_needs_no_other_kernels_after_the_first_pass(group):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, group)], capture_output=True, text=True, check=True
    )
    there, missing = done.stdout.splitlines()
    assert there == "['fluxties', 'leastsquares', 'reject', 'settle', 'skyties', 'warp']"
    assert missing == "[]"
