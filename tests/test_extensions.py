"""Compiled modules are had without their packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zmtile.extensions import extension

CODER = "astropy.io.fits.hdu.compressed._compression"


def test_a_module_comes_alone_and_its_package_can_be_loaded_afterwards():
    script = f"""
import sys
from zmtile.extensions import extension
alone = extension({CODER!r})
assert not [name for name in sys.modules if name.startswith("astropy")]
code = alone.compress_rice_1_c(bytes(64), 32, 2)
from astropy.io.fits.hdu.compressed._codecs import Rice1
import numpy as np
assert Rice1(blocksize=32, bytepix=2, tilesize=32).encode(np.zeros(32, np.int16)) == code
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_of_a_package_that_is_loaded_the_module_is_that_of_the_package():
    import astropy.io.fits.hdu.compressed._compression as real

    assert extension(CODER) is real


@pytest.mark.parametrize("name", ["no_such_package._module", "llvmlite._no_such_module"])
def test_what_is_not_there_is_an_import_error(name):
    with pytest.raises(ImportError, match=r"(?i)no "):
        extension(name)


def test_threads_that_load_the_package_meanwhile_do_no_harm():
    script = f"""
import threading
from zmtile.extensions import extension
failed = []
def take(work):
    try:
        work()
    except BaseException as error:
        failed.append(error)
def package():
    import astropy.io.fits
works = [package] + 3 * [lambda: extension({CODER!r})]
threads = [threading.Thread(target=take, args=(work,)) for work in works]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert not failed, failed
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", script], check=True)
