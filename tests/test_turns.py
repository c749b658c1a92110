"""Turns: of the processes that lack a kernel one compiles it; nobody waits for ever."""

import os
import subprocess
import sys

import pytest

from zmtile.kernels.turns import Turn

HOLD = """
import sys
from pathlib import Path
from zmtile.kernels.turns import Turn
assert not Turn(Path(sys.argv[1]), "sorting").take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the turn of a kernel named sorting until it is told to end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_turn_that_nobody_has_is_taken_at_once(tmp_path):
    turn = Turn(tmp_path / "new" / "folder", "sorting")
    assert not turn.take()
    assert not turn.take()  # it is ours already
    turn.give_back()
    turn.give_back()
    assert not turn.take()


def test_a_turn_is_waited_for_until_its_holder_gives_it_back(tmp_path, holder):
    holder.stdin.close()
    turn = Turn(tmp_path, "sorting")
    turn.take()
    holder.wait(10)
    assert not Turn(tmp_path, "sorting").take()


def test_a_holder_that_is_killed_gives_its_turn_back(tmp_path, holder):
    assert Turn(tmp_path, "sorting").take(0.0)
    holder.kill()
    holder.wait(10)
    assert not Turn(tmp_path, "sorting").take(0.0)


def test_patience_ends(tmp_path, holder, caplog):
    caplog.set_level("DEBUG", "zmtile")
    assert Turn(tmp_path, "sorting").take(0.05)
    assert "sorting is not compiled by another process after 0 s" in caplog.text


def test_kernels_have_turns_of_their_own(tmp_path, holder):
    assert not Turn(tmp_path, "merging").take(0.0)


def test_without_locks_everybody_may(tmp_path, caplog):
    caplog.set_level("DEBUG", "zmtile")
    (tmp_path / "file").touch()
    turn = Turn(tmp_path / "file", "sorting")  # no folder, so no place for a lock
    assert not turn.take()
    turn.give_back()
    assert "sorting is compiled without a lock (File exists)" in caplog.text


SMALL = """
import sys
import numpy as np
from zmtile.kernels.bounds import median
print("ready", flush=True)
sys.stdin.readline()
print(float(median(np.arange(6, dtype=np.float32).reshape(6, 1), 0, 0, 6)), flush=True)
"""


def test_processes_that_start_together_compile_a_kernel_once_and_get_the_same(tmp_path):
    where = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_DEBUG_CACHE": "1"}
    together = [
        subprocess.Popen(
            [sys.executable, "-c", SMALL], env=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in together:
        while process.stdout.readline() != "ready\n":
            pass
    for process in together:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0] for process in together]
    assert all("2.5" in text.split() for text in said)
    assert sum(text.count("data saved") for text in said) == 1
    assert sum(text.count("data loaded") for text in said) <= 2  # or without numba, if it was there by then
