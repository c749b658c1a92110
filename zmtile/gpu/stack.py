"""The second pass on the device, band by band of the tile; the host only feeds it with raw frames.

A band is as many rows as the device's memory holds; most often that is the whole tile. All frames
go up, one after another, are demosaiced, warped and matched into the band's samples, and these are
rejected and combined. Then the planes come down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zmtile.errors import GpuError, UsageError
from zmtile.frames.frame import Frame
from zmtile.gpu.device import NULL, Device, Slot
from zmtile.gpu.geometry import geometry_of
from zmtile.gpu.reject import RejectionOnDevice, result_bytes
from zmtile.gpu.upload import COLOUR, SLOTS, Developer, Raw, Rectangle, patch_bytes, raw_bytes, raw_of, sent
from zmtile.kernels.tables import kernel_table
from zmtile.progress import Progress
from zmtile.stacking.grow import halo
from zmtile.stacking.planes import Planes, SecondPass
from zmtile.stacking.stack import depth_of
from zmtile.stacking.warp import LEAST_SHARE, Block, Source, with_margin

__all__ = ["stack_on_device"]

log = logging.getLogger("zmtile")

# Of the memory that is free, for what the driver and the kernels need themselves.
_SHARE = 0.9


def stack_on_device(
    device: Device,
    second: SecondPass,
    planes: Planes,
    memory_limit: int | None,
    host_bytes: int,
    progress: Progress,
) -> None:
    """Fill the planes of a tile.

    Parameters
    ----------
    device : Device
    second : SecondPass
    planes : Planes
        Written.
    memory_limit : int or None
        Bytes on the device; what is free when not given.
    host_bytes : int
        What the host may hold of raw pixels on their way.
    progress : Progress

    Raises
    ------
    UsageError
        When the device's memory is too small.
    GpuError
        When the device fails.
    """
    failed = False
    try:
        with device.at_work():
            device.clear()
            free = device.free_bytes
            budget = min(int(free * _SHARE), memory_limit or free)
            device.limit(budget)
            work = _work(device, second, budget)
        _stack_bands(work, planes, budget, host_bytes, progress)
    except GpuError:
        failed = True  # nothing can be asked of a device that is lost
        raise
    finally:
        if not failed:
            device.limit(0)
            device.clear()


def _work(device: Device, second: SecondPass, budget: int) -> _Work:
    """Put on the device what stays there.

    Raises
    ------
    UsageError
        When it does not fit.
    """
    try:
        return _Work(device, second, budget)
    except MemoryError:
        masters = second.corrections[0].calibration.nbytes
        raise _too_small(device, "what all bands need", masters, budget) from None


def _stack_bands(work: _Work, planes: Planes, budget: int, host_bytes: int, progress: Progress) -> None:
    """Make the tile in bands that fit; one that does not is halved."""
    device, canvas = work.device, work.second.canvas
    steps = _Steps(progress, len(work.second.sources), canvas.rows)
    waiting = [Block(0, 0, canvas.rows, canvas.cols)]
    while waiting:
        block = waiting.pop()
        need, host = work.bytes_of(block)
        if need <= budget and (host <= host_bytes or block.rows == 1):
            try:
                with device.at_work():
                    work.stack(block, planes, steps)
                continue
            except MemoryError as error:
                log.debug("a band of %d rows does not fit: %s", block.rows, error)
            work.let_go()
        if block.rows == 1:
            raise _too_small(device, "a row of the tile", need, budget)
        half = block.rows // 2
        waiting.append(Block(block.top + half, 0, block.rows - half, block.cols))
        waiting.append(Block(block.top, 0, half, block.cols))


def _too_small(device: Device, what: str, need: int, budget: int) -> UsageError:
    return UsageError(
        f"{device.facts.name}: {what} needs some {need / 2**20:.3g} MiB, "
        f"of {budget / 2**20:.3g} MiB that may be used",
        "Raise --gpu-memory-limit, free the GPU, or build with --backend cpu.",
    )


class _Steps:
    """Tells the progress in rows of single frames, and nothing twice when a band is tried again."""

    def __init__(self, progress: Progress, frames: int, rows: int) -> None:
        self._progress, self._told, self._now = progress, 0, 0
        self.frames = frames
        progress.stage("stack", frames * rows)

    def at(self, rows_done: int, frames_done: int, rows: int) -> None:
        """Tell how far the work is: rows that are finished, and frames of the next ones."""
        now = rows_done * self.frames + frames_done * rows
        if now > self._told:
            self._progress.step(now - self._told)
            self._told = now


class _Work:
    """All that stays on the device from band to band."""

    def __init__(self, device: Device, second: SecondPass, budget: int) -> None:
        self.device, self.second = device, second
        self._frames = [source.frame for source in second.sources]
        self._channels = self._frames[0].channels
        self._calibration = second.corrections[0].calibration
        self._margin = halo(second.options)
        self._geometry = device.put(geometry_of(second.sources))
        self._tables: dict[tuple[str, float], Any] = {}
        self._developer = Developer(device, self._calibration, self._geometry)
        self._reject = RejectionOnDevice(device, *second.weight_and_noise, second.options, budget)
        self._slots: list[Slot] = []

    def _area(self, block: Block) -> Block:
        return with_margin(block, self._margin, self.second.canvas)

    def let_go(self) -> None:
        """Give back what the last band has left, so that a smaller one finds room."""
        self._slots = []
        self.device.clear()

    def _parts(self, area: Block) -> list[Rectangle]:
        """Return the parts of the frames that reach an area, in the frames' order."""
        found = []
        for number, source in enumerate(self.second.sources):
            row, col, rows, cols = source.bounds(area)
            if rows > 0 and cols > 0:
                found.append(Rectangle(number, row, col, rows, cols))
        return found

    def _largest(self, parts: Sequence[Rectangle], size: Callable[[Frame, Rectangle], int]) -> int:
        return max((size(self._frames[part.number], part) for part in parts), default=0)

    def bytes_of(self, block: Block) -> tuple[int, int]:
        """Return the bytes that a band needs on the device, and on the host for what is on its way."""
        area, options = self._area(block), self.second.options
        parts = self._parts(area)
        pixels, frames = area.rows * area.cols, len(parts)
        sending = SLOTS * self._largest(parts, raw_bytes)
        bent = any(self.second.sources[part.number].bent is not None for part in parts)
        _, _, rows, cols = Source.lattice(area)
        samples = 4 * frames * depth_of(options, self._channels)
        needs = (
            self._calibration.nbytes,
            self._geometry.nbytes,
            sending,
            2 * self._largest(parts, patch_bytes),
            3 * 8 * rows * cols if bent else 0,
            (samples + result_bytes(options, frames, self._channels)) * pixels,
            self._reject.scratch_bytes(frames, pixels),
        )
        return sum(needs), 2 * sending  # as it is read, and on its way

    def stack(self, block: Block, planes: Planes, steps: _Steps) -> None:
        """Make the planes of one band."""
        area = self._area(block)
        parts = self._parts(area)
        steps.at(block.top, 0, block.rows)
        rows = slice(block.top, block.top + block.rows)
        if parts:
            numbers = [part.number for part in parts]
            samples = self._samples(parts, area, lambda done: steps.at(block.top, done, block.rows))
            shares = self._shares(numbers, area) if self.second.options.feather else None
            self._reject(samples, shares, numbers, block, area, planes)
            planes.thin_out(self.second.options.min_coverage, rows)
        else:
            planes.clear(rows)
        steps.at(block.top + block.rows, 0, 0)

    def _samples(self, parts: Sequence[Rectangle], area: Block, tell: Callable[[int], None]) -> Any:
        """Return the samples of an area, (channels, frames, pixels) float32 on the device."""
        device, pixels = self.device, area.rows * area.cols
        samples = device.empty((self._channels, len(parts), pixels), np.float32)
        size = self._largest(parts, raw_bytes)
        if not self._slots or self._slots[0].size < size:
            self._slots = [device.slot(size) for _ in range(SLOTS)]

        def read(part: Rectangle) -> Raw:
            return raw_of(self.second.opened(part.number), part)

        for place, (part, slot, raw) in enumerate(sent(self._slots, parts, read)):
            frame = self._frames[part.number]
            patch = self._developer.patch(frame, self.second.corrections[part.number], part, raw, slot.array)
            slot.used()
            self._warp(part, patch, area, samples[0, place], len(parts) * pixels)
            tell(place)
        return samples

    def _warp(self, part: Rectangle, patch: Any, area: Block, out: Any, apart: int) -> None:
        """Sample a patch at the pixels of an area."""
        source, device = self.second.sources[part.number], self.device
        nodes, rows, cols = NULL, 0, 0
        if source.bent is not None:
            row, col, rows, cols = source.lattice(area)
            nodes = device.empty(3 * rows * cols, np.float64)
            numbers = (np.int32(v) for v in (part.number, row, col, rows, cols))
            device.launch("lay_nodes", rows * cols, self._geometry, *numbers, nodes)
        device.launch(
            "warp",
            area.rows * area.cols,
            patch,
            np.int32(1 if self._channels == 1 else COLOUR),
            *(np.int32(v) for v in (part.row, part.col, part.rows, part.cols)),
            self._geometry,
            np.int32(part.number),
            nodes,
            np.int32(rows),
            np.int32(cols),
            self._table(source),
            *(np.int32(v) for v in (area.top, area.left, area.rows, area.cols)),
            np.int64(apart),
            out,
        )

    def _table(self, source: Source) -> Any:
        """Return the weights of a frame's kernel on the device."""
        key = source.kernel, source.span
        if key not in self._tables:
            self._tables[key] = self.device.put(kernel_table(*key))
        return self._tables[key]

    def _shares(self, numbers: Sequence[int], area: Block) -> Any:
        """Return the factors on the weights of the samples, (frames, pixels) float32 on the device."""
        pixels = area.rows * area.cols
        shares = self.device.empty((len(numbers), pixels), np.float32)
        for place, number in enumerate(numbers):
            self.device.launch(
                "feather",
                pixels,
                self._geometry,
                np.int32(number),
                np.float64(self.second.options.feather),
                np.float32(LEAST_SHARE),
                *(np.int32(v) for v in (area.top, area.left, area.rows, area.cols)),
                shares[place],
            )
        return shares
