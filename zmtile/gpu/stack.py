"""The second pass on the device, band by band of the tile; the host only feeds it with raw frames.

A band is as many rows as the device's memory holds; most often that is the whole tile. All frames
go up, one after another, are demosaiced, warped and matched into the band's samples, and these are
rejected and combined. Then the planes come down.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zmtile.errors import UsageError
from zmtile.gpu.device import NULL, Device
from zmtile.gpu.geometry import geometry_of
from zmtile.gpu.reject import RejectionOnDevice, result_bytes
from zmtile.gpu.upload import COLOUR, SLOTS, Developer, Raw, Rectangle, patch_bytes, raw_bytes, raw_of, sent
from zmtile.kernels.bend import NODE_STEP
from zmtile.kernels.tables import kernel_table
from zmtile.progress import Progress
from zmtile.stacking.grow import halo
from zmtile.stacking.planes import Planes, SecondPass
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
        When the device's memory is too small for a single row.
    GpuError
        When the device fails.
    """
    device.clear()
    free = device.free_bytes
    budget = min(int(free * _SHARE), memory_limit or free)
    device.limit(budget)
    try:
        with device.at_work():
            work = _Work(device, second)
        canvas = second.canvas
        steps = _Steps(progress, len(second.sources), canvas.rows)
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
                device.clear()
            if block.rows == 1:
                raise UsageError(
                    f"{device.facts.name}: a row of the tile needs {need / 2**20:.0f} MiB, "
                    f"{budget / 2**20:.0f} MiB may be used",
                    "Raise --gpu-memory-limit, free the GPU, or build with --backend cpu.",
                )
            half = block.rows // 2
            waiting.append(Block(block.top + half, 0, block.rows - half, block.cols))
            waiting.append(Block(block.top, 0, half, block.cols))
    finally:
        device.limit(0)
        device.clear()


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


@dataclass(frozen=True)
class _Part:
    """What a band needs of one frame."""

    part: Rectangle
    source: Source


class _Work:
    """All that stays on the device from band to band."""

    def __init__(self, device: Device, second: SecondPass) -> None:
        self._device, self._second = device, second
        self._frames = [source.frame for source in second.sources]
        self._channels = self._frames[0].channels
        self._calibration = second.corrections[0].calibration
        self._margin = halo(second.options)
        self._geometry = device.put(geometry_of(second.sources))
        self._tables: dict[tuple[str, float], Any] = {}
        self._developer = Developer(device, self._calibration, self._geometry)
        self._reject = RejectionOnDevice(device, *second.weight_and_noise, second.options)

    def _area(self, block: Block) -> Block:
        return with_margin(block, self._margin, self._second.canvas)

    def _parts(self, area: Block) -> list[_Part]:
        """Return the parts of the frames that reach an area, in the frames' order."""
        found = []
        for number, source in enumerate(self._second.sources):
            row, col, rows, cols = source.bounds(area)
            if rows > 0 and cols > 0:
                found.append(_Part(Rectangle(number, row, col, rows, cols), source))
        return found

    def bytes_of(self, block: Block) -> tuple[int, int]:
        """Return the bytes that a band needs on the device, and on the host for what is on its way."""
        area = self._area(block)
        parts = self._parts(area)
        pixels, options = area.rows * area.cols, self._second.options
        sending = max((raw_bytes(self._frames[p.part.number], p.part) for p in parts), default=0)
        patch = max((patch_bytes(self._frames[p.part.number], p.part) for p in parts), default=0)
        bent = any(p.source.bent is not None for p in parts)
        lattice = 3 * 8 * (area.rows // NODE_STEP + 3) * (area.cols // NODE_STEP + 3) if bent else 0
        depth = self._channels + (1 if options.feather else 0)
        samples = 4 * len(parts) * depth * pixels + result_bytes(options, len(parts), self._channels) * pixels
        masters = self._calibration.nbytes
        return samples + masters + SLOTS * sending + 2 * patch + lattice, SLOTS * sending

    def stack(self, block: Block, planes: Planes, steps: _Steps) -> None:
        """Make the planes of one band."""
        area = self._area(block)
        parts = self._parts(area)
        steps.at(block.top, 0, block.rows)
        if parts:
            numbers = [p.part.number for p in parts]
            samples = self._samples(parts, area, lambda done: steps.at(block.top, done, block.rows))
            shares = self._shares(numbers, area) if self._second.options.feather else None
            self._reject(samples, shares, numbers, block, area, planes)
        steps.at(block.top + block.rows, 0, 0)

    def _samples(self, parts: Sequence[_Part], area: Block, tell: Callable[[int], None]) -> Any:
        """Return the samples of an area, (channels, frames, pixels) float32 on the device."""
        device, pixels = self._device, area.rows * area.cols
        samples = device.empty((self._channels, len(parts), pixels), np.float32)
        largest = max(raw_bytes(self._frames[p.part.number], p.part) for p in parts)

        def read(part: Rectangle) -> Raw:
            self._second.let_go()
            return raw_of(self._second.opened(part.number), part)

        for place, (part, slot, raw) in enumerate(sent(device, largest, [p.part for p in parts], read)):
            frame = self._frames[part.number]
            patch = self._developer.patch(frame, self._second.corrections[part.number], part, raw, slot.array)
            slot.used()
            self._warp(part, patch, area, samples[0, place], len(parts) * pixels)
            tell(place)
        return samples

    def _warp(self, part: Rectangle, patch: Any, area: Block, out: Any, apart: int) -> None:
        """Sample a patch at the pixels of an area."""
        source, device = self._second.sources[part.number], self._device
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
            self._tables[key] = self._device.put(kernel_table(*key))
        return self._tables[key]

    def _shares(self, numbers: Sequence[int], area: Block) -> Any:
        """Return the factors on the weights of the samples, (frames, pixels) float32 on the device."""
        pixels = area.rows * area.cols
        shares = self._device.empty((len(numbers), pixels), np.float32)
        for place, number in enumerate(numbers):
            self._device.launch(
                "feather",
                pixels,
                self._geometry,
                np.int32(number),
                np.float64(self._second.options.feather),
                np.float32(LEAST_SHARE),
                *(np.int32(v) for v in (area.top, area.left, area.rows, area.cols)),
                shares[place],
            )
        return shares
