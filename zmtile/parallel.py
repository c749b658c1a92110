"""Call a function on many items from a pool of threads; kernels and libraries release the GIL."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zmtile.progress import Progress

__all__ = ["Kept", "run_parallel"]

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


def run_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int, progress: Progress
) -> list[Result]:
    """Call `work` on every item from a pool of threads; return the results in order.

    The first error ends the run: what has not begun is dropped. So does a signal.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="zmtile") as pool:
        futures: list[Future[Result]] = [pool.submit(work, item) for item in items]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=0.1, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                if done:
                    progress.step(len(done))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]
