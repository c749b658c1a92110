"""Call a function on many items from a pool of threads; kernels and libraries release the GIL."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zmtile.progress import NullProgress, Progress

__all__ = ["Crew", "Kept", "run_parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Kept(threading.local):
    """Memory that each thread keeps from item to item: new pages cost more than what is written to them."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def bytes(self, name: str, size: int) -> NDArray[np.uint8]:
        """Return memory with whatever was in it; the thread's next of that name takes its place."""
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            self._kept.pop(name, None)  # before the next, so that both are never held
            del kept
            kept = self._kept[name] = np.empty(size, np.uint8)
        return kept[:size]

    def floats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Return an array of float32 in such memory."""
        return self.bytes(name, 4 * math.prod(shape)).view(np.float32).reshape(shape)


class Crew:
    """Threads that stay from one call to the next, with what they keep.

    Parameters
    ----------
    workers : int
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="zmtile")

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def share(self, work: Callable[[Item], object], items: Sequence[Item]) -> None:
        """Call `work` on every item; each thread takes the next one, which costs less than `run`.

        After an error or a signal no thread takes another.
        """
        left, over = iter(items), threading.Event()  # Python's lock gives an item to one of them

        def take(_: int) -> None:
            for item in left:
                if over.is_set():
                    break
                work(item)

        try:
            self.run(take, range(self._workers), NullProgress())
        finally:
            over.set()

    def run(self, work: Callable[[Item], Result], items: Sequence[Item], progress: Progress) -> list[Result]:
        """Call `work` on every item; return the results in order. The first error ends the run."""
        futures: list[Future[Result]] = [self._pool.submit(work, item) for item in items]
        pending = set(futures)
        while pending:
            done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            if done:
                progress.step(len(done))
        return [future.result() for future in futures]


def run_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, progress: Progress
) -> list[Result]:
    """Call `work` on every item from a pool of threads; return the results in order.

    The first error ends the run: what has not begun is dropped. So does a signal.
    """
    with Crew(workers) as crew:
        return crew.run(work, items, progress)
