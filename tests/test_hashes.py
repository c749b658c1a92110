from __future__ import annotations

import hashlib
import os
import threading

import pytest

from zmtile.frames import hashes
from zmtile.frames.hashes import hash_ahead, sha256_of


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{k}.fits" for k in range(4)]
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k]) * k * 100_000)  # the first is empty
    return paths


def finish():
    for thread in threading.enumerate():
        if thread.name == "zmtile-hash":
            thread.join()


def true(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_hashes_are_those_of_the_files_ahead_or_not(files):
    assert [sha256_of(path) for path in files] == [true(path) for path in files]
    hash_ahead(files)
    finish()
    assert [sha256_of(path) for path in files] == [true(path) for path in files]


def test_what_was_hashed_ahead_is_not_hashed_again(files, monkeypatch):
    hash_ahead(files)
    finish()
    monkeypatch.setattr(hashes, "_hashed", lambda path: "again")
    assert sha256_of(files[3]) == true(files[3])
    assert sha256_of(files[3]) == "again"  # it is forgotten once it is told


def test_a_file_that_has_changed_since_is_hashed_again(files):
    hash_ahead(files)
    finish()
    before = true(files[3])
    status = files[3].stat()
    files[3].write_bytes(files[3].read_bytes()[:-1] + b"!")
    os.utime(files[3], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert sha256_of(files[3]) == true(files[3]) != before


def test_nothing_is_hashed_ahead_once_a_hash_is_asked_for(files, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    hashed, whole = [], hashes._hashed

    def slow(path):
        hashed.append(path)
        if threading.current_thread().name == "zmtile-hash":
            begun.set()
            go.wait(10)
        return whole(path)

    monkeypatch.setattr(hashes, "_hashed", slow)
    hash_ahead(files[1:])
    assert begun.wait(10)
    sha256_of(files[3])
    go.set()
    finish()
    assert hashed == [files[1], files[3]]


def test_what_is_no_file_is_left_to_others(tmp_path, files):
    os.mkfifo(tmp_path / "pipe.fits")
    hash_ahead([tmp_path / "pipe.fits", tmp_path / "missing.fits", tmp_path, files[2]])
    finish()
    assert sha256_of(files[2]) == true(files[2])
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "missing.fits")
