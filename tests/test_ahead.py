"""Compile ahead: a second process helps the first run, fails without harm, and never stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from make_group import GroupSpec, write_group

from zmtile import ahead
from zmtile.ahead import compiling_ahead
from zmtile.kernels.turns import Turn
from zmtile.options import Options, Resources

TWO = Resources(threads=2)
SLEEP = "import time\ntime.sleep(60)\n"


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """The processes that are started, on a disk that has no kernel; they only sleep."""
    started = []

    def start(paths, options):
        started.append(begin(paths, options))
        return started[-1]

    begin = ahead._started
    monkeypatch.setattr(ahead, "stack_kernel", SimpleNamespace(folder=tmp_path, compiled=False))
    monkeypatch.setattr(ahead, "_started", start)
    monkeypatch.setattr(ahead, "_CODE", SLEEP)
    return started


def gone(pid):
    """Wait until a process has ended; one that nobody has asked about its end counts."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_other_process_ends_with_the_work(helpers):
    with compiling_ahead(["a.fits"], Options(), TWO):
        (helper,) = helpers
        assert helper.poll() is None
    assert helper.returncode == -signal.SIGKILL
    with pytest.raises(ChildProcessError):
        os.waitpid(helper.pid, os.WNOHANG)


def test_the_other_process_ends_with_an_error(helpers):
    with pytest.raises(KeyboardInterrupt), compiling_ahead(["a.fits"], Options(), TWO):
        raise KeyboardInterrupt
    assert helpers[0].returncode == -signal.SIGKILL


PARENT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from zmtile import ahead
from zmtile.options import Options, Resources

ahead.stack_kernel = SimpleNamespace(folder=Path(sys.argv[1]), compiled=False)
ahead._CODE += "print('rehearsed', file=sys.stderr, flush=True)\\nimport time\\ntime.sleep(60)\\n"
begin = ahead._started

def start(paths, options):
    helper = begin(paths, options)
    assert helper.stderr.readline() == b"rehearsed\\n"
    print(helper.pid, flush=True)
    return helper

ahead._started = start
with ahead.compiling_ahead([], Options(), Resources(threads=2)):
    sys.stdin.read()
"""


def test_the_other_process_ends_when_this_one_is_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        helper = int(parent.stdout.readline())
        parent.kill()
    assert gone(helper)


def test_the_other_process_passes_over_files_that_are_no_frames_and_says_nothing(tmp_path):
    (tmp_path / "empty.fits").touch()
    with ahead._started([str(tmp_path / "empty.fits"), str(tmp_path / "missing.fits")], Options()) as helper:
        assert helper.wait(60) == 0
        assert helper.stderr.read() == b""


def test_a_failure_of_the_other_process_is_told_in_the_debug_log_and_nothing_else(monkeypatch, caplog):
    caplog.set_level("DEBUG", "zmtile")
    monkeypatch.setattr(ahead, "_CODE", "raise OSError('no room')")
    helper = ahead._started(["a.fits"], Options())
    helper.wait(20)
    ahead._end(helper)
    (start, end) = caplog.records
    assert "compiled in two processes" in start.message
    assert end.message == "the process that compiles ahead has failed: OSError: no room"
    assert end.levelname == "DEBUG"


@pytest.mark.parametrize(
    ("kernel", "threads"),
    [
        ({"compiled": True}, 2),
        ({"folder": None}, 2),
        ({"folder": Path("/proc/no folder can be made here")}, 2),
        ({}, 1),
    ],
    ids=["the disk has the kernels", "no cache", "no locks", "one core"],
)
def test_no_process_is_started_where_it_does_not_help(helpers, tmp_path, monkeypatch, kernel, threads):
    stack_kernel = SimpleNamespace(**({"folder": tmp_path, "compiled": False} | kernel))
    monkeypatch.setattr(ahead, "stack_kernel", stack_kernel)
    with compiling_ahead(["a.fits"], Options(), Resources(threads=threads)):
        assert not helpers


WITHIN = """
import sys
from pathlib import Path
from zmtile.kernels.turns import Turn
assert Turn(Path(sys.argv[1]), "rehearsal").try_now()
print("held", flush=True)
sys.stdin.read()
"""


def test_of_many_first_runs_one_has_a_second_process(helpers, tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WITHIN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with compiling_ahead(["a.fits"], Options(), TWO):
            assert not helpers
        other.communicate()
    with compiling_ahead(["a.fits"], Options(), TWO):
        assert helpers
    assert Turn(tmp_path, "rehearsal").try_now()


def test_a_first_run_makes_the_same_tile_with_kernels_of_the_other_process(tmp_path):
    # Little is compiled for such frames and options, and all of the second pass in the other process.
    spec = GroupSpec(frames=2, rows=96, cols=128, cfa=None, stars=20, wcs=True)
    group = write_group(spec, tmp_path / "group")
    words = [
        "--align",
        "wcs",
        "--reject",
        "none",
        "--normalize",
        "none",
        "--weight",
        "none",
        "--threads",
        "2",
    ]
    cold = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels"), "NUMBA_DEBUG_CACHE": "1"}
    said = {}
    for name, more in (("cold", cold), ("warm", {})):
        run = [sys.executable, "-m", "zmtile", "build", *group, "-o", tmp_path / name, *words]
        done = subprocess.run(run, env=os.environ | more, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert (tmp_path / "cold").read_bytes() == (tmp_path / "warm").read_bytes()
    assert any((tmp_path / "kernels").rglob("reject.stack_kernel*.zmk"))
    second_pass = [line for line in said["cold"].splitlines() if "reject.stack_kernel" in line]
    assert not any("saved" in line for line in second_pass)  # the other process says nothing here
