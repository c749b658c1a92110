"""Many frames: all threads work on one block.

The samples of hundreds of frames take so much memory that a block for each thread would have to be small,
and then too much is done around it: rows are read, margins demosaiced. So the threads first take the frames
of a block one by one and warp them into samples that they share; then they reject and combine its pixels,
part by part.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zmtile.kernels.lanes import LANES
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.parallel import Crew, Kept
from zmtile.progress import Progress
from zmtile.stacking.planes import PLANE_TYPES, Planes, SecondPass
from zmtile.stacking.rejection import rejection
from zmtile.stacking.strips import Reader
from zmtile.stacking.warp import Block, Part, bounds_of, feather, warp

__all__ = ["stack_together"]

# Samples of a channel that a thread rejects at once: so few that none waits long for another in the end.
PART_SAMPLES = 2**18


def stack_together(
    second: SecondPass, planes: Planes, blocks: Sequence[Block], workers: int, held: int, progress: Progress
) -> None:
    """Fill the planes block by block, each by all threads; `held` are bytes for what each thread reads."""
    shared = Kept()  # by this thread, for the others
    progress.stage("stack", len(blocks))
    with Crew(workers) as crew:
        reader = Reader(second, Kept(), held)
        for block in blocks:
            _make(crew, reader, planes, shared, block)
            progress.step()


def _make(crew: Crew, reader: Reader, planes: Planes, shared: Kept, block: Block) -> None:
    """Fill the planes of a block.

    Its samples are let go in the end: those of the next may take more memory, and then both would be held.
    """
    second = reader.second
    parts = bounds_of(second.sources, block)
    active = [k for k, (_, _, rows, cols) in enumerate(parts) if rows > 0 and cols > 0]
    if not active:
        planes.clear(*block.slices)
        return
    shape = len(planes.image), len(active), block.rows, block.cols
    samples = shared.floats("samples", shape)
    shares = shared.floats("shares", shape[1:]) if second.options.feather else None
    _warp(crew, reader, parts, active, block, samples, shares)
    planes.tally[active] += _combine(crew, second, planes, active, block, samples, shares)


def _warp(
    crew: Crew,
    reader: Reader,
    parts: Sequence[Part],
    active: Sequence[int],
    block: Block,
    samples: NDArray[np.float32],
    shares: NDArray[np.float32] | None,
) -> None:
    """Fill the samples of a block, and the shares of their weights, frame by frame."""
    sources, kept = reader.second.sources, reader.kept

    def take(place: int) -> None:
        k = active[place]
        need = sources[k].need(block, parts[k])
        warp(reader.rows(k, need[1]), sources[k], block, samples[:, place], kept, need)
        if shares is not None:
            shares[place] = feather(sources[k], block, reader.second.options.feather)

    crew.share(take, range(len(active)))


def _combine(
    crew: Crew,
    second: SecondPass,
    planes: Planes,
    active: Sequence[int],
    block: Block,
    samples: NDArray[np.float32],
    shares: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    """Reject and combine the samples of a block; return the tallies of its frames."""
    channels, frames, rows, cols = samples.shape
    pixels = rows * cols
    flat = samples.reshape(channels, frames, pixels)
    parts = None if shares is None else shares.reshape(frames, pixels)
    weights, noises = (np.ascontiguousarray(values[active].T) for values in second.weight_and_noise)
    how = comparators(frames), *rejection(second.options, frames)
    made = [[np.empty(pixels, dtype) for dtype in PLANE_TYPES] for _ in range(channels)]
    tally = np.zeros((frames, channels, 3), np.int64)
    lock = threading.Lock()

    def take(part: tuple[int, int, int]) -> None:
        c, first, last = part
        lost = np.zeros((frames, 3), np.int64)
        stack_block(flat[c], weights[c], parts, noises[c], *how, *made[c], tally=lost, span=(first, last))
        with lock:
            tally[:, c] += lost

    size = max(PART_SAMPLES // (frames * LANES), 1) * LANES
    starts = range(0, pixels, size)
    crew.share(take, [(c, start, min(start + size, pixels)) for c in range(channels) for start in starts])
    for c in range(channels):
        planes.put(c, block.slices, [plane.reshape(rows, cols) for plane in made[c]])
    planes.thin_out(second.options.min_coverage, *block.slices)
    return tally
