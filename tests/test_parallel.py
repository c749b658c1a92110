from __future__ import annotations

import signal
import time

import pytest

from zmtile.parallel import Crew


@pytest.mark.parametrize("workers", [1, 3])
def test_shared_items_are_each_done_once(workers):
    done = []
    with Crew(workers) as crew:
        for _ in range(2):
            crew.share(done.append, range(100))
    assert sorted(done) == sorted([*range(100)] * 2)


@pytest.mark.parametrize("kind", ["error", "signal"])
def test_what_ends_a_crew_ends_it_before_all_items_are_taken(kind):
    done = []

    def work(item):
        if item == 5 and kind == "error":
            raise RuntimeError
        if item == 5:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        done.append(item)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    try:
        with pytest.raises((RuntimeError, KeyboardInterrupt)), Crew(3) as crew:
            crew.share(work, range(300))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(done) < 150
