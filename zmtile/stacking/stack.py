"""Warp and stack: the second pass, block by block of the tile, straight from the raw frames.

A block is a small rectangle of tile pixels. For each block every frame that reaches it is read,
demosaiced, warped and matched into a buffer, and the buffer is rejected and combined. A block
depends on nothing but the frames, so their size and the number of threads change no bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zmtile.errors import UsageError
from zmtile.frames.calibrate import Correction
from zmtile.frames.frame import Frame
from zmtile.frames.pixels import Pixels
from zmtile.kernels.network import comparators
from zmtile.kernels.reject import stack_block
from zmtile.matching.match import Photometry
from zmtile.memory import (
    BLOCK_COLS,
    MIN_BLOCK_PIXELS,
    PageGuard,
    Shelf,
    memory_limit,
    open_file_limit,
    plane_bytes,
    sample_bytes,
)
from zmtile.options import Options, Resources
from zmtile.parallel import Kept, run_parallel
from zmtile.progress import NullProgress, Progress
from zmtile.registration.mapping import Bent
from zmtile.registration.transform import Matrix
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.clip import BLOCK_BYTES, MAX_FRAMES
from zmtile.stacking.grow import grow, halo
from zmtile.stacking.planes import PLANE_TYPES, Planes, SecondPass
from zmtile.stacking.rejection import rejection
from zmtile.stacking.warp import Block, feather, source_of, warp, with_margin

if TYPE_CHECKING:
    from zmtile.gpu.device import Device

__all__ = ["depth_of", "stack_frames", "stack_on_cpu"]

MAX_BLOCK_PIXELS = 128 * 128
# Smaller ones cost more time between the kernels than the cache saves within: of 400 frames, the second pass
# took 23 s with 1024 and 11 s with this.
GOOD_BLOCK_PIXELS = 64 * 128


def stack_frames(
    frames: Sequence[Frame],
    corrections: Sequence[Correction],
    maps: Sequence[Matrix | Bent],
    photometry: Sequence[Photometry],
    canvas: Canvas,
    reference: Frame,
    options: Options,
    resources: Resources,
    progress: Progress | None = None,
    device: Device | None = None,
) -> Planes:
    """Make the planes of the tile from the raw frames.

    Parameters
    ----------
    frames, corrections, maps, photometry : sequences of the same length
        The registered frames, what is done to their raw pixels, their maps to the reference, and how
        their values match it.
    canvas : Canvas
    reference : Frame
        Gives the sky surfaces their scale.
    options : Options
    resources : Resources
        Threads and memory; without influence on the result.
    progress : Progress, optional
    device : Device, optional
        The GPU to do it on.

    Returns
    -------
    Planes

    Raises
    ------
    FrameError
        When a frame cannot be read any more.
    UsageError
        When the memory limit is too small for the tile.
    GpuError
        When the GPU fails.
    """
    progress = progress or NullProgress()
    if len(frames) > MAX_FRAMES:
        raise UsageError(f"{len(frames)} frames", f"A tile counts up to {MAX_FRAMES}; stack in groups.")
    channels = frames[0].channels
    masters = corrections[0].calibration.nbytes
    margin = halo(options)
    depth = depth_of(options, channels)
    # On a GPU, one thread at a time has pixels in its hands.
    holding = resources if device is None else replace(resources, threads=1)
    weight = "weight" in options.planes
    limit = memory_limit(frames, canvas, holding, depth, margin, masters, weight)
    planes = Planes.empty(len(frames), channels, canvas.rows, canvas.cols, weight)
    sources = [
        source_of(*item, canvas, reference, options) for item in zip(frames, maps, photometry, strict=True)
    ]
    free = limit - masters - plane_bytes(canvas, channels, weight)
    shelf = Shelf(open_file_limit(len(frames)), free // 3)
    pages = PageGuard(shelf, free // 3)

    def opened(k: int) -> Pixels:
        return shelf.get(k, frames[k], corrections[k])

    second = SecondPass(sources, corrections, photometry, canvas, options, opened, pages.check)
    if device is not None:
        from zmtile.gpu.stack import stack_on_device

        stack_on_device(device, second, planes, resources.gpu_memory_limit, free // 3, progress)
    else:
        stack_on_cpu(second, planes, resources.workers, free // 4, progress)
    return planes


def stack_on_cpu(second: SecondPass, planes: Planes, workers: int, budget: int, progress: Progress) -> None:
    """Fill the planes block by block, on so many threads; `budget` are bytes for all their samples."""
    depth = depth_of(second.options, len(planes.image))
    share = budget // workers
    blocks = list(_blocks(second.canvas, len(second.sources), depth, share, halo(second.options)))
    progress.stage("stack", len(blocks))
    run_parallel(_work(second, planes), blocks, workers, progress)


def _work(second: SecondPass, planes: Planes) -> Callable[[Block], None]:
    """Return what makes the planes of one block, on any thread."""
    sources, canvas, options = second.sources, second.canvas, second.options
    channels, margin, (weight, noise) = len(planes.image), halo(options), second.weight_and_noise
    lock = threading.Lock()
    kept = Kept()

    def work(block: Block) -> None:
        area = with_margin(block, margin, canvas)
        active = [k for k, source in enumerate(sources) if source.reaches(area)]
        rows, cols = slice(block.top, block.top + block.rows), slice(block.left, block.left + block.cols)
        if not active:
            planes.clear(rows, cols)
            return
        samples = kept.floats("samples", (channels, len(active), area.rows, area.cols))
        for place, k in enumerate(active):
            warp(second.opened(k), sources[k], area, samples[:, place])
        shares = None
        if options.feather:
            shares = np.stack([feather(sources[k], area, options.feather) for k in active])
        tally = _combine(samples, weight[active], shares, noise[active], options, planes, block, area)
        planes.thin_out(options.min_coverage, rows, cols)
        with lock:
            planes.tally[active] += tally
        second.let_go()

    return work


def depth_of(options: Options, channels: int) -> int:
    """Return how many floats each frame has in a pixel of a block: a sample per channel, and a weight."""
    return channels + 1 if options.feather else channels


def _blocks(canvas: Canvas, frames: int, depth: int, budget: int, margin: int = 0) -> Iterator[Block]:
    """Cut the canvas into blocks whose samples fit the cache, and the budget in any case."""
    sample = sample_bytes(frames, depth, margin)
    cols = min(BLOCK_COLS, canvas.cols)
    least = max(1, MIN_BLOCK_PIXELS // cols)
    if margin:  # what lies around small blocks is worked on too often: as large as may be
        rows = min(MAX_BLOCK_PIXELS // cols, budget // sample // (cols + 2 * margin) - 2 * margin)
    else:
        rows = min(max(BLOCK_BYTES // sample, GOOD_BLOCK_PIXELS), MAX_BLOCK_PIXELS, budget // sample) // cols
    rows = max(rows, least)
    for top in range(0, canvas.rows, rows):
        for left in range(0, canvas.cols, cols):
            yield Block(top, left, min(rows, canvas.rows - top), min(cols, canvas.cols - left))


def _combine(
    samples: NDArray[np.float32],
    weight: NDArray[np.float32],
    shares: NDArray[np.float32] | None,
    noise: NDArray[np.float32],
    options: Options,
    planes: Planes,
    block: Block,
    area: Block,
) -> NDArray[np.int64]:
    """Reject and combine the samples of an area, the block with its margin; return the block's tallies."""
    channels, frames, rows, cols = samples.shape
    tally = np.zeros((frames, channels, 3), np.int64)
    at = np.s_[block.top : block.top + block.rows, block.left : block.left + block.cols]
    top, left = block.top - area.top, block.left - area.left
    inside = np.s_[top : top + block.rows, left : left + block.cols]
    targets: tuple[NDArray[Any] | None, ...] = (
        planes.image,
        planes.uncert,
        planes.weight,
        planes.coverage,
        planes.rejlow,
        planes.rejhigh,
    )
    parts = None if shares is None else shares.reshape(frames, -1)
    for c in range(channels):
        made = [np.empty(rows * cols, dtype) for dtype in PLANE_TYPES]
        lost = np.zeros((frames, 3), np.int64)
        weights, noises = np.ascontiguousarray(weight[:, c]), np.ascontiguousarray(noise[:, c])
        stack_block(
            samples[c].reshape(frames, -1),
            weights,
            parts,
            noises,
            comparators(frames),
            *rejection(options, frames),
            *made,
            tally=lost,
        )
        if options.grow:
            lost = grow(samples[c], weights, parts, noises, options, made, inside)
        tally[:, c] = lost
        for target, plane in zip(targets, made, strict=True):
            if target is not None:
                target[c][at] = plane.reshape(rows, cols)[inside]
    return tally
