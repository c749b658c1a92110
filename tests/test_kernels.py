"""How kernels are compiled: the cache on disk."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numba import types

import zmtile
from zmtile.kernels import kernel
from zmtile.kernels.compiling import dispatcher_of

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


def test_code_of_old_sources_goes_before_new_code_is_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    double = dispatcher_of(kernel(_double))
    double.compile((types.float64,))
    (code,) = tmp_path.rglob("*.nbc")
    again = dispatcher_of(kernel(_double))
    again.shared._cache_file._source_stamp = "of changed sources"
    again.shared._cache_file._save_data = lambda name, data: None  # the moment before the code is written
    again.compile((types.float64,))
    assert not code.exists()


def test_a_kernel_tells_whether_the_disk_has_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    double = kernel(_double)
    assert tmp_path in double.folder.parents
    assert not double.compiled
    double(2.0)
    assert double.ready_for == {("float64",)}
    assert kernel(_double).compiled


def test_without_a_folder_for_the_cache_a_kernel_is_compiled_for_this_run(monkeypatch):
    monkeypatch.setattr("zmtile.kernels.loading._folder", lambda sources, where: None)
    double = kernel(_double)
    assert (double.folder, double.compiled) == (None, False)
    assert double(2.0) == 4.0


def test_the_garbage_collector_is_as_it_was_after_compiling(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel(_double)(2.0)
    assert gc.isenabled()
    gc.disable()
    try:
        kernel(_double)(np.float32(2.0))
        assert not gc.isenabled()
    finally:
        gc.enable()


def _double(x):
    return x + x
