"""Strips: blocks side by side, for which a thread reads the frames at once.

Rows of a frame that lie under one block alone are short, and each call of the system costs as much as
thousands of bytes. A strip takes as many blocks as keep what is read of all frames in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from zmtile.frames.pixels import Pixels, part_bytes
from zmtile.memory import BLOCK_COLS, MIN_BLOCK_PIXELS, sample_bytes
from zmtile.parallel import Kept
from zmtile.stacking.canvas import Canvas
from zmtile.stacking.grow import halo
from zmtile.stacking.planes import SecondPass
from zmtile.stacking.warp import Block, Part, Source, with_margin

__all__ = ["STRIP_BYTES", "Reader", "blocks_of", "shared_blocks_of", "strips_of", "together"]

# Samples of a block, as long as it keeps within these sizes. Pixels around a block are demosaiced for its
# neighbours, too, and between kernels threads wait for each other: 60 frames took 3.0 to 3.5 s with
# 8 MiB and 128×128 pixels at most, 2.4 to 3.0 s with these; twelve mono frames of 24 Mpixel 3.6 and 2.2 s.
BLOCK_BYTES = 24 * 2**20
MAX_BLOCK_PIXELS = 256 * 256
# Smaller ones take longer still, 150 frames a third more with half of it; larger ones take memory, 5 MB for a
# thread and 1000 pixels of 400 frames.
GOOD_BLOCK_PIXELS = 56 * 128
# From here on, a block of full width has the shorter outline.
WIDE_BLOCK_PIXELS = 128 * 128
# Samples of a block that all threads share, and its pixels, whatever those take, if the budget allows it.
# 150 and 400 frames took 0.7 of the time of a block for each thread.
SHARED_BYTES = 128 * 2**20
GOOD_SHARED_PIXELS = 56 * 256
# With growth, margins included.
MARGINAL_BLOCK_PIXELS = 150 * 150
# What a thread holds of all frames under a strip.
STRIP_BYTES = 16 * 2**20
_ALIGNED = 16


class Reader:
    """Reads what the second pass needs of the frames.

    Parameters
    ----------
    second : SecondPass
    kept : Kept
        Holds it, for each thread: what is read next takes its place.
    budget : int
        Bytes that whole rows may take of each thread.
    """

    def __init__(self, second: SecondPass, kept: Kept, budget: int = STRIP_BYTES) -> None:
        self.second, self.kept, self._budget = second, kept, budget
        self._margin = halo(second.options)

    def strip(self, blocks: Sequence[Block]) -> dict[int, Pixels]:
        """Return the pixels under a strip, by the numbers of the frames that reach it.

        Of a frame that is unpacked in memory only they are kept: the shelf decides how many such frames stay.
        """
        sources = self.second.sources
        area = _area_of(blocks, self._margin, self.second.canvas)
        parts = [_part_under(source, area) for source in sources]
        sizes = [_room_for(source, part) for source, part in zip(sources, parts, strict=True)]
        room = self.kept.bytes("read", sum(sizes))
        held = {}
        for k, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            if size:
                held[k], room = self.second.opened(k).part(*part, room), room[size:]
        return held

    def rows(self, number: int, part: Part | None) -> Pixels | None:
        """Return pixels of one frame that hold a rectangle: in a file, the rows that it lies on are read.

        To read what lies between them is quicker than a call of the system for each, and than to copy them
        from there. But rows of a wide frame that the budget has no room for are not held, only the rectangle.
        """
        if part is None:
            return None
        pixels = self.second.opened(number)
        if pixels.nbytes:  # in memory already
            return pixels
        (row, col, rows, cols), frame = part, pixels.frame
        if part_bytes(frame, rows, frame.cols) <= self._budget:
            col, cols = 0, frame.cols
        room = self.kept.bytes("read", part_bytes(frame, rows, cols))
        return pixels.part(row, col, rows, cols, room)


def blocks_of(canvas: Canvas, frames: int, depth: int, budget: int, margin: int = 0) -> Iterator[Block]:
    """Cut the canvas into blocks as large as the sizes above allow, and the budget in any case."""
    sample = sample_bytes(frames, depth, margin)
    pixels = min(max(BLOCK_BYTES // sample, GOOD_BLOCK_PIXELS), MAX_BLOCK_PIXELS)
    if margin:  # what lies around small blocks is worked on too often
        pixels = max(pixels, MARGINAL_BLOCK_PIXELS)
    pixels = min(pixels, budget // sample)
    cols = min(BLOCK_COLS if pixels >= WIDE_BLOCK_PIXELS else BLOCK_COLS // 2, canvas.cols)
    rows = pixels // (cols + 2 * margin) - 2 * margin
    yield from _cut(canvas, max(rows, 1, MIN_BLOCK_PIXELS // cols), cols)


def _cut(canvas: Canvas, rows: int, cols: int) -> Iterator[Block]:
    for top in range(0, canvas.rows, rows):
        for left in range(0, canvas.cols, cols):
            yield Block(top, left, min(rows, canvas.rows - top), min(cols, canvas.cols - left))


def shared_blocks_of(canvas: Canvas, frames: int, depth: int, budget: int, workers: int) -> Iterator[Block]:
    """Cut the canvas into blocks for all threads together; the budget is for the samples of one."""
    sample, cols = sample_bytes(frames, depth, 0), min(BLOCK_COLS, canvas.cols)
    pixels = max(min(workers * BLOCK_BYTES, SHARED_BYTES) // sample, GOOD_SHARED_PIXELS)
    pixels = max(min(pixels, budget // sample), MIN_BLOCK_PIXELS)
    yield from _cut(canvas, pixels // cols, cols)


def together(second: SecondPass, depth: int) -> bool:
    """Tell whether a block for each thread would be small, and one for all can be.

    Growth marks all samples of a channel at once. Frames that are unpacked, if they do not all stay in
    memory, are unpacked anew for every strip, and would be for every block.
    """
    pixels = BLOCK_BYTES // sample_bytes(len(second.sources), depth, 0)
    packed = (second.opened(k).nbytes for k in range(len(second.sources)))
    return pixels < WIDE_BLOCK_PIXELS and not halo(second.options) and not any(packed)


def strips_of(
    blocks: Sequence[Block], second: SecondPass, budget: int, workers: int
) -> Iterator[Sequence[Block]]:
    """Join blocks side by side, as long as what is read for them fits the budget.

    The last strips are short, so that no thread waits for another that has just begun a long one.
    """
    start = 0
    while start < len(blocks):
        most = max((len(blocks) - start) // (4 * workers), 1)
        stop = start + 1
        while stop < min(start + most, len(blocks)) and blocks[stop].top == blocks[start].top:
            stop += 1
        while stop - start > 1 and _bytes_under(blocks[start:stop], second) > budget:
            stop = (start + stop) // 2
        yield blocks[start:stop]
        start = stop


def _bytes_under(blocks: Sequence[Block], second: SecondPass) -> int:
    """Return the bytes of all frames under a strip."""
    area = _area_of(blocks, halo(second.options), second.canvas)
    return sum(_room_for(source, _part_under(source, area)) for source in second.sources)


def _room_for(source: Source, part: Part) -> int:
    """Return the bytes of a rectangle of a frame, and what brings the next one to an even address."""
    return -(-part_bytes(source.frame, *part[2:]) // _ALIGNED) * _ALIGNED


def _part_under(source: Source, area: Block) -> Part:
    """Return the rectangle that an area needs of a frame; of no size if none."""
    return source.need(area)[1] or (0, 0, 0, 0)


def _area_of(blocks: Sequence[Block], margin: int, canvas: Canvas) -> Block:
    """Return the area of blocks side by side, with a margin."""
    first, last = blocks[0], blocks[-1]
    return with_margin(replace(first, cols=last.left + last.cols - first.left), margin, canvas)
