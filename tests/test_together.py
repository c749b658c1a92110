from __future__ import annotations

import time
import weakref

import numpy as np
import pytest
from secondpass import differing, empty_planes, in_files, on_cpu, second_pass

from zmtile import Options
from zmtile.errors import FrameError
from zmtile.frames.calibrate import Calibration
from zmtile.parallel import Kept
from zmtile.progress import NullProgress
from zmtile.stacking import stack, strips, together
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.stack import stack_on_cpu

KINDS = {
    "mosaic": {},
    "mosaic, colours apart": {"options": Options(cfa="direct")},
    "mosaic, corrected": {
        "calibration": Calibration(bias=np.full((1, 70, 90), 7.0, np.float32)),
        "bad": [300, 4000],
    },
    "colour planes": {"layout": "planes"},
    "interleaved floats": {"layout": "interleaved", "dtype": ">f4"},
    "bent": {"bent": True},
    # Nodes beyond a block reach further than the bend.
    "bent a little, floats": {"bent": True, "bend_size": 0.05, "turn": 0.0, "layout": "mono", "dtype": ">f4"},
    "bent a little, shorts": {"bent": True, "bend_size": 0.05, "turn": 0.0, "layout": "mono"},
    "turned": {"turn": 0.9, "layout": "mono"},
    "feathered": {"options": Options(feather=9.0)},
    # Frames end within the canvas, and most of it is empty.
    "small": {"turn": 0.0, "canvas": Canvas(160, 180)},
    "least coverage": {"options": Options(min_coverage=5)},
}


@pytest.fixture
def many_frames(monkeypatch):
    """What is six frames counts as many."""
    monkeypatch.setattr(strips, "BLOCK_BYTES", 0)
    monkeypatch.setattr(strips, "GOOD_SHARED_PIXELS", 17 * 13)
    monkeypatch.setattr(strips, "BLOCK_COLS", 17)
    monkeypatch.setattr(strips, "MIN_BLOCK_PIXELS", 17 * 8)
    monkeypatch.setattr(together, "PART_SAMPLES", 400)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [1, 3])
def test_a_block_of_all_threads_is_that_of_one(tmp_path, monkeypatch, kind, workers, many_frames):
    second = second_pass(**KINDS[kind])
    expected = on_cpu(second)
    made = []
    monkeypatch.setattr(stack, "stack_together", lambda *a: made.append(together.stack_together(*a)))
    planes = empty_planes(second)
    stack_on_cpu(in_files(second, tmp_path), planes, workers, 2**28, NullProgress())
    assert made == [None]
    assert differing(planes, expected) == []


def test_samples_of_a_block_are_let_go_before_those_of_a_larger_one(tmp_path, monkeypatch, many_frames):
    # Fewer frames reach the first blocks than those after them.
    second = in_files(second_pass(options=Options(feather=9.0), canvas=Canvas(120, 140, -30, -30)), tmp_path)
    held, alive = {}, []

    class Watched(Kept):
        def floats(self, name, shape):
            old, size = held.get(name, (None, 0))
            if name in ("samples", "shares") and 4 * np.prod(shape) > size:
                self._kept.pop(name, None)
                for _ in range(100):  # a thread that is done may be about to let it go
                    if old is None or old() is None:
                        break
                    time.sleep(0.01)
                alive.append(old is not None and old() is not None)
            made = super().floats(name, shape)
            if name in ("samples", "shares"):
                kept = self._kept[name]
                held[name] = weakref.ref(kept), kept.size
            return made

    monkeypatch.setattr(together, "Kept", Watched)
    stack_on_cpu(second, empty_planes(second), 2, 2**28, NullProgress())
    assert len(alive) > 3
    assert not any(alive)


@pytest.mark.parametrize("case", ["few frames", "growth", "unpacked"])
def test_each_thread_has_its_block(tmp_path, monkeypatch, case, many_frames):
    if case == "few frames":
        monkeypatch.setattr(strips, "BLOCK_BYTES", 24 * 2**20)
    second = second_pass(options=Options(grow=2) if case == "growth" else None)
    assert not strips.together(second if case == "unpacked" else in_files(second, tmp_path), 3)


def test_a_frame_that_has_become_shorter_ends_the_run(tmp_path, many_frames):
    second = in_files(second_pass(), tmp_path)
    with open(tmp_path / "4", "r+b") as file:
        file.truncate(100)
    with pytest.raises(FrameError, match="shorter"):
        stack_on_cpu(second, empty_planes(second), 2, 2**28, NullProgress())


@pytest.mark.parametrize("frames", [150, 400, 5000])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_shared_blocks_cover_the_canvas_and_fit_the_budget(frames, workers):
    canvas, budget = Canvas(1080, 1920), 200 * 2**20
    blocks = list(strips.shared_blocks_of(canvas, frames, 3, budget, workers))
    seen = np.zeros((canvas.rows, canvas.cols), np.uint8)
    for block in blocks:
        seen[block.slices] += 1
        assert block.rows * block.cols * frames * 12 <= budget
    assert (seen == 1).all()
