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
from zmtile.stacking.clip import BLOCK_BYTES
from zmtile.stacking.grow import halo
from zmtile.stacking.planes import SecondPass
from zmtile.stacking.warp import Block, Source, with_margin

__all__ = ["STRIP_BYTES", "Reader", "blocks_of", "strips_of"]

MAX_BLOCK_PIXELS = 128 * 128
# Smaller ones cost more time between the kernels than the cache saves within: of 400 frames, the second pass
# took 23 s with 1024 and 11 s with this.
GOOD_BLOCK_PIXELS = 64 * 128
# What a thread holds of all frames under a strip. The second pass of 60 frames took 2.71, 2.40, 2.45 and
# 2.62 s with 8, 16, 32 and 64 MiB.
STRIP_BYTES = 16 * 2**20


class Reader:
    """Reads what the second pass needs of the frames.

    Parameters
    ----------
    second : SecondPass
    kept : Kept
        Holds it, for each thread: what is read next takes its place.
    """

    def __init__(self, second: SecondPass, kept: Kept) -> None:
        self._second, self._kept = second, kept
        self._margin = halo(second.options)

    def strip(self, blocks: Sequence[Block]) -> dict[int, Pixels]:
        """Return the pixels under a strip, by the numbers of the frames that reach it."""
        sources = self._second.sources
        area = _area_of(blocks, self._margin, self._second.canvas)
        parts = [_part_under(source, area) for source in sources]
        sizes = [part_bytes(source.frame, *part[2:]) for source, part in zip(sources, parts, strict=True)]
        room = self._kept.bytes("strip", sum(sizes))
        held = {}
        for k, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            if size:
                held[k], room = self._second.opened(k).part(*part, room), room[size:]
        return held

    def frame(self, number: int, area: Block) -> Pixels:
        """Return the pixels of one frame under an area."""
        source = self._second.sources[number]
        part = _part_under(source, area)
        room = self._kept.bytes("part", part_bytes(source.frame, *part[2:]))
        return self._second.opened(number).part(*part, room)


def blocks_of(canvas: Canvas, frames: int, depth: int, budget: int, margin: int = 0) -> Iterator[Block]:
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
    return sum(part_bytes(source.frame, *_part_under(source, area)[2:]) for source in second.sources)


def _part_under(source: Source, area: Block) -> tuple[int, int, int, int]:
    """Return the rectangle that an area needs of a frame; of no size if none."""
    row, col, rows, cols = source.bounds(area, source.nodes(area))
    return (row, col, rows, cols) if rows > 0 and cols > 0 else (0, 0, 0, 0)


def _area_of(blocks: Sequence[Block], margin: int, canvas: Canvas) -> Block:
    """Return the area of blocks side by side, with a margin."""
    first, last = blocks[0], blocks[-1]
    return with_margin(replace(first, cols=last.left + last.cols - first.left), margin, canvas)
