"""Warp and stack: the second pass, block by block of the tile, straight from the raw frames.

A block is a small rectangle of tile pixels. For each block every frame that reaches it is
demosaiced, warped and matched into a buffer, and the buffer is rejected and combined. A block
depends on nothing but the frames, so their size and the number of threads change no bit.

Blocks side by side are a strip: a thread reads the rows of the frames that lie under it at once. Of many
frames all threads work on one block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

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
    Shelf,
    give_back,
    memory_limit,
    open_file_limit,
    plane_bytes,
)
from zmtile.options import Options, Resources
from zmtile.parallel import Kept, run_parallel
from zmtile.progress import NullProgress, Progress
from zmtile.registration.mapping import Bent
from zmtile.registration.transform import Matrix
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.clip import MAX_FRAMES
from zmtile.stacking.grow import grow, halo
from zmtile.stacking.planes import PLANE_TYPES, Planes, SecondPass
from zmtile.stacking.rejection import rejection
from zmtile.stacking.strips import STRIP_BYTES, Reader, blocks_of, shared_blocks_of, strips_of, together
from zmtile.stacking.together import stack_together
from zmtile.stacking.warp import Block, bounds_of, feather, source_of, warp, with_margin

if TYPE_CHECKING:
    from zmtile.gpu.device import Device

__all__ = ["depth_of", "stack_frames", "stack_on_cpu"]


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
    give_back()
    limit = memory_limit(frames, canvas, holding, depth, margin, masters, weight)
    planes = Planes.empty(len(frames), channels, canvas.rows, canvas.cols, weight)
    sources = [
        source_of(*item, canvas, reference, options) for item in zip(frames, maps, photometry, strict=True)
    ]
    free = limit - masters - plane_bytes(canvas, channels, weight)
    shelf = Shelf(open_file_limit(len(frames)), free // 3)

    def opened(k: int) -> Pixels:
        return shelf.get(k, frames[k], corrections[k])

    second = SecondPass(sources, corrections, photometry, canvas, options, opened)
    if device is not None:
        from zmtile.gpu.stack import stack_on_device

        stack_on_device(device, second, planes, resources.gpu_memory_limit, free // 3, progress)
    else:
        stack_on_cpu(second, planes, resources.workers, free // 4, progress)
    return planes


def stack_on_cpu(second: SecondPass, planes: Planes, workers: int, budget: int, progress: Progress) -> None:
    """Fill the planes block by block, on so many threads; `budget` are bytes for all their samples.

    As much again at most are for what they read, but no more than `STRIP_BYTES` each.
    """
    frames, depth = len(second.sources), depth_of(second.options, len(planes.image))
    share = budget // workers
    held = min(share, STRIP_BYTES)
    if together(second, depth):
        blocks = list(shared_blocks_of(second.canvas, frames, depth, budget, workers))
        stack_together(second, planes, blocks, workers, held, progress)
        return
    blocks = list(blocks_of(second.canvas, frames, depth, share, halo(second.options)))
    strips = list(strips_of(blocks, second, held, workers))
    progress.stage("stack", len(strips))
    run_parallel(_work(second, planes, held), strips, workers, progress)


def _work(second: SecondPass, planes: Planes, budget: int) -> Callable[[Sequence[Block]], None]:
    """Return what makes the planes of a strip of blocks, on any thread."""
    sources, canvas, options = second.sources, second.canvas, second.options
    channels, margin, (weight, noise) = len(planes.image), halo(options), second.weight_and_noise
    lock = threading.Lock()
    kept = Kept()
    reader = Reader(second, kept, budget)

    def make(block: Block, held: dict[int, Pixels] | None) -> None:
        area = with_margin(block, margin, canvas)
        parts = bounds_of(sources, area)
        active = [k for k, (_, _, rows, cols) in enumerate(parts) if rows > 0 and cols > 0]
        if not active:
            planes.clear(*block.slices)
            return
        samples = kept.floats("samples", (channels, len(active), area.rows, area.cols))
        for place, k in enumerate(active):
            need = sources[k].need(area, parts[k])
            pixels = reader.rows(k, need[1]) if held is None else held.get(k)
            warp(pixels, sources[k], area, samples[:, place], kept, need)
        shares = None
        if options.feather:
            shares = np.stack([feather(sources[k], area, options.feather) for k in active])
        tally = _combine(samples, weight[active], shares, noise[active], options, planes, block, area)
        planes.thin_out(options.min_coverage, *block.slices)
        with lock:
            planes.tally[active] += tally

    def work(strip: Sequence[Block]) -> None:
        held = reader.strip(strip) if len(strip) > 1 else None  # of a lone block, one frame at a time
        for block in strip:
            make(block, held)

    return work


def depth_of(options: Options, channels: int) -> int:
    """Return how many floats each frame has in a pixel of a block: a sample per channel, and a weight."""
    return channels + 1 if options.feather else channels


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
    top, left = block.top - area.top, block.left - area.left
    inside = np.s_[top : top + block.rows, left : left + block.cols]
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
        planes.put(c, block.slices, [plane.reshape(rows, cols)[inside] for plane in made])
    return tally
