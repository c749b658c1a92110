from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from zmtile import memory
from zmtile.memory import Shelf, give_back


@pytest.mark.parametrize(
    ("files", "room", "sizes", "kept"),
    [(2, 0, [0, 0, 0], [0, 1]), (9, 100, [60, 60, 30], [0, 2]), (9, 100, [200, 0, 0], [1, 2])],
)
def test_a_shelf_keeps_what_the_limits_on_files_and_bytes_allow(monkeypatch, files, room, sizes, kept):
    opened = []

    def open_pixels(frame, correction):
        opened.append(frame)
        return SimpleNamespace(nbytes=sizes[frame])

    monkeypatch.setattr(memory, "open_pixels", open_pixels)
    shelf = Shelf(files, room)
    for _ in range(2):
        for number in range(len(sizes)):
            assert shelf.get(number, number, None).nbytes == sizes[number]
    again = [number for number in range(len(sizes)) if opened.count(number) == 1]
    assert again == kept


def test_a_c_library_that_keeps_its_memory_is_no_error(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    give_back()
