"""Call a function on many items from a pool of threads; kernels and libraries release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from zmtile.progress import Progress

__all__ = ["run_parallel"]

Item = TypeVar("Item")
Result = TypeVar("Result")


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
