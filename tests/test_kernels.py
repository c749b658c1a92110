"""How kernels are compiled: the cache on disk."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import zmtile

CODE = """
import numpy as np
from zmtile.kernels.demosaic import pattern_codes
from zmtile.kernels.photometry import aperture_fluxes
planes = np.zeros((1, 64, 64), np.float32)
planes[0, 32, 33] = 1000.0  # red; green at this place is all correction
flux = np.empty((3, 1), np.float32)
aperture_fluxes(planes, pattern_codes("GRBG"), np.array([33.0]), np.array([32.0]), 0.5, flux)
print(flux.ravel().tolist())
"""


def test_a_changed_kernel_is_compiled_anew_in_the_kernels_that_call_it(tmp_path):
    package = tmp_path / "zmtile"
    shutil.copytree(Path(zmtile.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    where = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def fluxes():
        done = subprocess.run(
            [sys.executable, "-c", CODE], env=where, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    before = fluxes()
    assert fluxes() == before
    demosaic = package / "kernels" / "demosaic.py"
    source = demosaic.read_text()
    assert "TO_GREEN = np.float32(3 / 8)" in source
    demosaic.write_text(source.replace("TO_GREEN = np.float32(3 / 8)", "TO_GREEN = np.float32(2 / 8)"))
    assert fluxes() != before
