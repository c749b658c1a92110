"""Rejection and combination on the device, growth included, of the samples of one band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmtile.gpu.device import NULL, Device
from zmtile.gpu.geometry import RULE
from zmtile.gpu.program import LANES, OWN, PER, SEARCHING, THREADS, own_size, stages
from zmtile.kernels.bounds import METHODS
from zmtile.options import Options
from zmtile.stacking.planes import Planes
from zmtile.stacking.rejection import recombination, rejection
from zmtile.stacking.warp import Block

__all__ = ["RejectionOnDevice", "result_bytes"]

# Bytes of scratch memory at most, for columns that do not fit shared memory and for the sums of ESD.
_SCRATCH = 2**28
_METHOD_NAMES = {number: name for name, number in METHODS.items()}
_FLOATS, _COUNTS = 3, 3


def result_bytes(options: Options, frames: int, channels: int) -> int:
    """Return the bytes of a pixel that the rejection needs beside its samples."""
    growing = frames + 4 * (2 + _FLOATS) + 2 * _COUNTS + 1 if options.grow else 0
    return channels * (4 * _FLOATS + 2 * _COUNTS) + growing


@dataclass(frozen=True)
class _Columns:
    """Blocks of a launch, bytes of shared memory of each, and scratch memory of all: floats, doubles."""

    blocks: int
    shared: int
    floats: int
    doubles: int


class RejectionOnDevice:
    """The rejection of a build.

    Parameters
    ----------
    device : Device
    weight, noise : (frames, channels) float32
    options : Options
    budget : int
        Bytes that may be held on the device in all; scratch memory is an eighth of it at most.
    """

    def __init__(
        self,
        device: Device,
        weight: NDArray[np.float32],
        noise: NDArray[np.float32],
        options: Options,
        budget: int = 8 * _SCRATCH,
    ) -> None:
        self._scratch = min(_SCRATCH, budget // 8)
        self._device, self._options = device, options
        self._weight, self._noise = weight, noise

    def __call__(
        self, samples: Any, shares: Any, numbers: Sequence[int], block: Block, area: Block, planes: Planes
    ) -> None:
        """Reject and combine the samples of an area, the block with its margin; fill the block's planes."""
        device = self._device
        floats, counts, tally = self.compute(samples, shares, numbers, block, area)
        rows, (first, last) = np.s_[block.top : block.top + block.rows], _inside(block, area)
        results: tuple[tuple[Any, tuple[NDArray[Any] | None, ...]], ...] = (
            (floats, (planes.image, planes.uncert, planes.weight)),
            (counts, (planes.coverage, planes.rejlow, planes.rejhigh)),
        )
        for made, targets in results:
            for k, target in enumerate(targets):
                for c, plane in enumerate([] if target is None else target):
                    device.get(made[c, k, first:last], plane[rows].reshape(-1))
        found = np.empty(tally.shape, np.uint64)
        device.get(tally, found)
        # Last: what failed before would be done again, and must not be counted twice.
        planes.tally[list(numbers)] += np.moveaxis(found, 1, 0).astype(np.int64)

    def compute(
        self, samples: Any, shares: Any, numbers: Sequence[int], block: Block, area: Block
    ) -> tuple[Any, Any, Any]:
        """Reject and combine the samples of an area, on the device.

        Parameters
        ----------
        samples : (channels, frames, pixels) float32 on the device
            With growth, what is rejected is overwritten.
        shares : (frames, pixels) float32 on the device, or None
        numbers : sequence of int
            Numbers of the frames.
        block, area : Block
            What is tallied, and the same with its margin: whole rows.

        Returns
        -------
        floats : (channels, 3, pixels) float32 on the device
            Image, uncertainty, sum of weights.
        counts : (channels, 3, pixels) uint16
            Coverage, rejected below, above.
        tally : (channels, frames, 3) uint64
        """
        device, options = self._device, self._options
        channels, frames, pixels = samples.shape
        inside = _inside(block, area)
        tally = device.zeros((channels, frames, 3), np.uint64)
        floats = device.empty((channels, _FLOATS, pixels), np.float32)
        counts = device.empty((channels, _COUNTS, pixels), np.uint16)
        bounds: Any = device.empty((2, pixels), np.float32) if options.grow else (NULL, NULL)
        for c in range(channels):
            weights, noises = self._weight[list(numbers), c], self._noise[list(numbers), c]
            common = (samples[c], shares, weights, noises)
            self._stack(rejection(options, frames), *common, inside, floats[c], counts[c], bounds, tally[c])
            if options.grow:
                self._grow(*common, area, inside, floats[c], counts[c], bounds, tally[c])
        return floats, counts, tally

    def _stack(
        self,
        chosen: tuple[Any, ...],
        samples: Any,
        shares: Any,
        weights: NDArray[np.float32],
        noises: NDArray[np.float32],
        inside: tuple[int, int],
        floats: Any,
        counts: Any,
        bounds: Any,
        tally: Any,
    ) -> None:
        """Launch the kernel; `chosen` is from `zmtile.stacking.rejection.rejection`."""
        device = self._device
        method, klow, khigh, low, high, critical, clamp, use_median, student, widening = chosen
        frames, pixels = samples.shape
        with np.errstate(over="ignore", divide="ignore", under="ignore"):  # as in a kernel
            precisions = np.float32(1) / (noises * noises)
        rule = np.array([(klow, khigh, low, high, clamp, use_median)], RULE)
        arguments = (
            samples,
            np.int64(pixels),
            np.int32(frames),
            device.put(weights),
            NULL if shares is None else shares,
            device.put(noises),
            device.put(precisions),
            device.put(rule),
            device.put(student),
            device.put(widening),
            device.put(critical),
            np.int32(len(widening)),
            np.int64(inside[0]),
            np.int64(inside[1]),
            *floats,
            *counts,
            *bounds,
            tally,
        )
        name = _METHOD_NAMES[method]
        size = self._size(frames, name)
        if size > OWN[-1]:
            warps, columns = _together(frames, device.facts.shared_bytes)
            blocks = min(-(-pixels // LANES), warps * device.facts.multiprocessors)
            shared = 4 * _padded(frames) * columns
            device.launch_stack(
                "search_warp", size, name, blocks, shared, *arguments, np.int32(columns), threads=LANES
            )
        elif size:
            searching = name in SEARCHING
            shared = 8 * size * THREADS if searching else 0
            kernel = "search_own" if searching else "bounds_own"
            blocks = min(-(-pixels // THREADS), self._most_blocks)
            device.launch_stack(kernel, size, name, blocks, shared, *arguments)
        else:
            pairs, begins = stages(frames)
            plan = self._columns(frames, pixels, name)
            scratch = device.empty(plan.floats, np.float32) if plan.floats else NULL
            sums = device.empty(plan.doubles, np.float64) if plan.doubles else NULL
            network = (device.put(pairs), device.put(begins), np.int32(len(begins) - 1), scratch, sums)
            device.launch_stack("bounds_shared", size, name, plan.blocks, plan.shared, *arguments, *network)
        shared = 12 * frames
        counters = shared <= 48 * 1024
        blocks = min(-(-pixels // (THREADS * PER)), self._most_blocks)
        device.launch_stack(
            "combine_planes", size, name, blocks, shared * counters, *arguments, np.int32(counters)
        )

    def _size(self, frames: int, method: str) -> int:
        """Return the size of the program, as `own_size`; 0 also where shared memory holds no column."""
        size = own_size(frames, method)
        if size > OWN[-1] and not _together(frames, self._device.facts.shared_bytes)[1]:
            return 0
        return size

    @property
    def _most_blocks(self) -> int:
        return 16 * self._device.facts.multiprocessors

    def _columns(self, frames: int, pixels: int, method: str) -> _Columns:
        """Return where the columns of more frames than a thread can hold lie."""
        cells = frames * LANES
        blocks, shared, floats, doubles = min(-(-pixels // LANES), self._most_blocks), 4 * cells, 0, 0
        if shared > self._device.facts.shared_bytes:
            blocks, shared = max(min(blocks, self._scratch // (4 * cells)), 1), 0
            floats = blocks * cells
        if method == "esd":
            blocks = max(min(blocks, self._scratch // (16 * cells)), 1)
            floats, doubles = min(floats, blocks * cells), 2 * blocks * cells
        return _Columns(blocks, shared, floats, doubles)

    def scratch_bytes(self, frames: int, pixels: int) -> int:
        """Return the bytes of scratch memory for an area, beside what `result_bytes` tells."""
        methods = [
            self._options.reject,
            *(["none"] if self._options.grow else []),
        ]  # the combination after growth
        plans = [self._columns(frames, pixels, m) for m in methods if not self._size(frames, m)]
        most = max((4 * plan.floats + 8 * plan.doubles for plan in plans), default=0)
        return most + stages(frames)[0].nbytes if plans else 0

    def _grow(
        self,
        samples: Any,
        shares: Any,
        weights: NDArray[np.float32],
        noises: NDArray[np.float32],
        area: Block,
        inside: tuple[int, int],
        floats: Any,
        counts: Any,
        bounds: Any,
        tally: Any,
    ) -> None:
        """Take the samples beside rejected regions away, too, and combine again: `zmtile.stacking.grow`."""
        device, options = self._device, self._options
        frames, pixels = samples.shape
        lower, upper = bounds
        near = device.zeros(frames * pixels, np.uint8)
        sizes = (np.int32(v) for v in (frames, area.rows, area.cols, options.grow))
        device.launch("grow_regions", frames * pixels, samples, upper, *sizes, near)
        touched = device.empty(pixels, np.uint8)
        edges = (np.int64(v) for v in (pixels, *inside))
        device.launch(
            "take_away",
            pixels,
            samples,
            lower,
            upper,
            near,
            np.int32(frames),
            *edges,
            counts[2],
            touched,
            tally,
        )
        again, unused = device.empty(floats.shape, np.float32), device.empty(counts.shape, np.uint16)
        nowhere = (0, 0)  # what is combined again was counted before
        chosen = recombination(options, frames)
        self._stack(chosen, samples, shares, weights, noises, nowhere, again, unused, (NULL, NULL), tally)
        device.launch("put_back", pixels, touched, np.int64(pixels), *again, *floats)


def _padded(frames: int) -> int:
    """Return the rows of a column in shared memory: they lie four by four."""
    return -(-frames // 4) * 4


def _together(frames: int, shared: int) -> tuple[int, int]:
    """Return how many warps of a multiprocessor search columns of so many frames, and how many each has.

    Those that hold the most, but 12 if half of their lanes have one.
    """
    column, kept = 4 * _padded(frames), 1024  # of each block for CUDA

    def columns(warps: int) -> int:
        return max(0, min(31, ((shared + kept) // warps - kept) // column))  # odd: fewer lanes meet in a bank

    warps = 12 if columns(12) >= 16 else max(range(4, 25), key=lambda warps: warps * columns(warps))
    return warps, columns(warps)


def _inside(block: Block, area: Block) -> tuple[int, int]:
    """Return the pixels of an area where a block begins and ends; both have whole rows."""
    top = block.top - area.top
    return top * area.cols, (top + block.rows) * area.cols
