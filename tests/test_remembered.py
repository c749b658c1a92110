"""Numbers are worked out once, and again where anything is not as it was."""

import os
import subprocess
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest

from zmtile import remembered as module
from zmtile.kernels import loading
from zmtile.remembered import remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for what is kept."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


calls = []


def work(count, factor=1.0):
    """Be worked out."""
    calls.append((count, factor))
    return factor * np.arange(float(count)) ** 2


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def test_what_one_worked_out_another_reads(folder):
    first = remembered(work)(5)
    assert calls == [(5, 1.0)]
    again = remembered(work)(5)
    assert calls == [(5, 1.0)]
    assert again.dtype == first.dtype
    np.testing.assert_array_equal(again, first)


def test_other_arguments_are_other_numbers(folder):
    for factor in (1.0, 2.0):
        assert remembered(work)(3, factor=factor)[2] == 4 * factor
    assert remembered(work)(4, 1.0)[3] == 9.0
    assert len(calls) == 3


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data[:-1] + b"!", lambda data: b"x" * 99])
def test_a_damaged_file_is_not_used_but_written_again(folder, change):
    remembered(work)(5)
    (file,) = folder.rglob("*.zmk")
    file.write_bytes(change(file.read_bytes()))
    for _ in range(2):
        assert remembered(work)(5)[4] == 16.0
    assert len(calls) == 2


@pytest.mark.parametrize("what", ["machine", "STAMP", "version", "source"])
def test_after_a_change_it_is_worked_out_again(folder, monkeypatch, what):
    remembered(work)(5)
    if what == "machine":
        monkeypatch.setattr(loading, "machine", lambda: ("another",))
    elif what == "STAMP":
        monkeypatch.setattr(loading, "STAMP", ("another",))
    elif what == "version":
        monkeypatch.setattr(module, "version", lambda name: "0")
    else:
        other = os.stat(os.path.dirname(__file__))
        monkeypatch.setattr(module, "os", SimpleNamespace(stat=lambda path: other))
    remembered(work)(5)
    assert len(calls) == 2
    assert len(list(folder.rglob("*.zmk"))) == 1 + (what == "machine")  # old ones go


def test_a_function_leaves_so_many_files(folder, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    for count in range(1, 7):
        remembered(work)(count)
        for age, file in enumerate(sorted(folder.rglob("*.zmk"), key=lambda f: -f.stat().st_mtime_ns)):
            os.utime(file, (1000 - age, 1000 - age))  # clocks are coarse
    assert len(list(folder.rglob("*.zmk"))) == 3
    for count in range(4, 7):
        remembered(work)(count)
    assert len(calls) == 6  # the newest


@pytest.mark.parametrize("what", ["source", "scipy"])
def test_what_cannot_be_told_apart_is_worked_out_each_time(folder, monkeypatch, what):
    if what == "scipy":
        monkeypatch.setattr(module, "version", lambda name: version(f"no-{name}"))
    else:
        monkeypatch.setattr(module, "os", SimpleNamespace(stat=lambda path: os.stat(f"{path}.missing")))
    for _ in range(2):
        assert remembered(work)(5)[4] == 16.0
    assert len(calls) == 2
    assert not list(folder.rglob("*.zmk"))


def test_without_a_folder_it_is_worked_out(folder, monkeypatch):
    monkeypatch.setattr(loading, "machine", lambda: None)
    for _ in range(2):
        assert remembered(work)(5)[4] == 16.0
    assert len(calls) == 2
    monkeypatch.undo()
    monkeypatch.setattr(module, "write", lambda path, numbers: (_ for _ in ()).throw(OSError))
    assert remembered(work)(6)[5] == 25.0


def test_a_second_build_does_not_import_scipy(folder):
    code = (
        "import sys; from zmtile.options import Options; from zmtile.stacking.rejection import rejection\n"
        "print(repr(rejection(Options(reject='winsor'), 9)), 'scipy' in sys.modules)"
    )
    said = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert said[0].endswith(" True\n")
    assert said[1] == said[0].replace(" True\n", " False\n")
