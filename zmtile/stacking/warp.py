"""Warp: what one frame contributes to a block of the tile, straight from its raw pixels.

Only the patch under the block is read; it is demosaiced, interpolated and matched in one go. Without
demosaicing, each sample is the pixel of the frame that is nearest, in its own colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zmtile.frames.frame import Frame
from zmtile.frames.pixels import Pixels
from zmtile.kernels.bend import NODE_STEP, lay_nodes
from zmtile.kernels.demosaic import pattern_codes, separate
from zmtile.kernels.tables import COPY, STEPS, kernel_table, span_of
from zmtile.kernels.warp import warp_block
from zmtile.matching.match import Photometry
from zmtile.options import Options
from zmtile.parallel import Kept
from zmtile.registration.mapping import Bent
from zmtile.registration.transform import Matrix, apply, compose, corners, invert, scale_of
from zmtile.stacking.canvas import Canvas

__all__ = [
    "LEAST_SHARE",
    "Block",
    "Need",
    "Part",
    "Source",
    "bounds_of",
    "feather",
    "source_of",
    "warp",
    "with_margin",
]

# A feathered sample keeps this much of its weight, so that a pixel which only such samples reach is a number.
LEAST_SHARE = 1e-3

# First row, first col, rows, cols of a frame; and such a patch with the nodes of a block.
Part = tuple[int, int, int, int]
Need = tuple[NDArray[np.float64] | None, Part | None]


@dataclass(frozen=True)
class Block:
    """A rectangle of tile pixels."""

    top: int
    left: int
    rows: int
    cols: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where it is on the tile."""
        return slice(self.top, self.top + self.rows), slice(self.left, self.left + self.cols)


@dataclass(frozen=True)
class Source:
    """One frame as the second pass needs it.

    Attributes
    ----------
    frame : Frame
    inverse : (2, 3) float64
        Tile pixel → frame pixel; of a bent map, its matrix alone.
    bent : Bent or None
        The way to the reference, where a matrix alone does not tell it.
    origin : (int, int)
        Reference pixel (x, y) that is tile pixel (0, 0).
    kernel : str
        As for `zmtile.kernels.tables.kernel_table`.
    beside : str
        The kernel of frames that are not copied.
    span : float
        Width of a tile pixel in the frame, from `zmtile.kernels.tables.span_of`.
    clamp : bool
        Keep interpolation from undershooting.
    scale : (channels,) float32
        Factor on the pixel values, the change of pixel area included; a bent map has its own everywhere.
    surface : (channels, 6) float64
        Sky added after scaling, as for `zmtile.kernels.warp.warp_block`.
    middle, half : (float, float) and float
        Tile pixel at the middle of the reference, and half of its longer side: the surface's units.
    codes : (2, 2) uint8
        Colours of a mosaic.
    direct : bool
        Take the nearest pixel, in its own colour alone.
    """

    frame: Frame
    inverse: Matrix
    bent: Bent | None
    origin: tuple[int, int]
    kernel: str
    beside: str
    span: float
    clamp: bool
    scale: NDArray[np.float32]
    surface: NDArray[np.float64]
    middle: tuple[float, float]
    half: float
    codes: NDArray[np.uint8]
    direct: bool

    @cached_property
    def reach(self) -> int:
        """Pixels that the kernel, and the demosaic under it, look to either side."""
        return int(kernel_table(self.kernel, self.span).shape[1]) // 2 + 3

    @cached_property
    def _rows(self) -> list[list[float]]:
        rows: list[list[float]] = self.inverse.tolist()
        return rows

    @staticmethod
    def lattice(block: Block) -> tuple[int, int, int, int]:
        """Return first row, first col, rows, cols of the nodes around a block."""
        row, col = block.top // NODE_STEP, block.left // NODE_STEP
        rows = (block.top + block.rows - 1) // NODE_STEP - row + 2
        cols = (block.left + block.cols - 1) // NODE_STEP - col + 2
        return row, col, rows, cols

    def nodes(self, block: Block) -> NDArray[np.float64] | None:
        """Return a block's lattice, as for `zmtile.kernels.warp.warp_block`; None without a bend."""
        if self.bent is None:
            return None
        row, col, rows, cols = self.lattice(block)
        nodes = np.empty((3, rows, cols))
        bent, (x0, y0) = self.bent, self.origin
        lay_nodes(bent.matrix, bent.back, bent.bend, float(x0), float(y0), row, col, nodes)
        return nodes

    def places(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the frame pixels of tile pixels, (n, 2)."""
        return apply(self.inverse, xy) if self.bent is None else self.bent.inverse(xy + self.origin)

    def bounds(self, block: Block, nodes: NDArray[np.float64] | None = None) -> Part:
        """Return first row, first col, rows, cols of the patch of the frame that a block needs.

        The places of a block's samples lie between those of its nodes. Without the nodes of a bent
        map the patch is what its bend could make of the block at most, wherever on the frame it is. It
        holds what the samples need, too, but not always the patch with the nodes, of which some
        lie beyond the block: what is read for a block and what is warped must be one of them.
        """
        if nodes is None:
            # Plain floats: arrays of four corners took a tenth of the second pass.
            (ax, bx, cx), (ay, by, cy) = self._rows
            left, right = block.left, block.left + block.cols - 1
            top, bottom = block.top, block.top + block.rows - 1
            x = sorted((ax * left, ax * right)), sorted((bx * top, bx * bottom))
            y = sorted((ay * left, ay * right)), sorted((by * top, by * bottom))
            least_x, most_x = x[0][0] + x[1][0] + cx, x[0][1] + x[1][1] + cx
            least_y, most_y = y[0][0] + y[1][0] + cy, y[0][1] + y[1][1] + cy
        else:
            (least_x, least_y), (most_x, most_y) = nodes[:2].min(axis=(1, 2)), nodes[:2].max(axis=(1, 2))
        bend_x, bend_y = self.bent.reach if self.bent is not None and nodes is None else (0.0, 0.0)
        reach, frame = self.reach, self.frame
        row = max(math.floor(least_y - bend_y) - reach, 0)
        col = max(math.floor(least_x - bend_x) - reach, 0)
        return (
            row,
            col,
            min(math.floor(most_y + bend_y) + reach + 2, frame.rows) - row,
            min(math.floor(most_x + bend_x) + reach + 2, frame.cols) - col,
        )

    def need(self, block: Block, part: Part | None = None) -> Need:
        """Return a block's nodes, and with them the patch of the frame that it needs; None for no patch.

        `part` is what `bounds_of` says, where it is known: without a bend, that is the patch.
        """
        nodes = self.nodes(block)
        if part is None or nodes is not None:
            part = self.bounds(block, nodes)
        return nodes, part if part[2] > 0 and part[3] > 0 else None


def bounds_of(sources: Sequence[Source], block: Block) -> list[Part]:
    """Return `Source.bounds` of many frames at once, without the nodes of bent maps."""
    ax, bx, cx, ay, by, cy = np.array([source.inverse for source in sources]).reshape(-1, 6).T
    bends = np.array([source.bent.reach if source.bent else (0.0, 0.0) for source in sources])
    reach = np.array([source.reach for source in sources])
    right, bottom = block.left + block.cols - 1, block.top + block.rows - 1
    bounds = []
    for along, down, shift, bend, size in (
        (ay, by, cy, bends[:, 1], [source.frame.rows for source in sources]),
        (ax, bx, cx, bends[:, 0], [source.frame.cols for source in sources]),
    ):
        x, y = (along * block.left, along * right), (down * block.top, down * bottom)
        least, most = np.minimum(*x) + np.minimum(*y) + shift, np.maximum(*x) + np.maximum(*y) + shift
        first = np.maximum(np.floor(least - bend).astype(np.int64) - reach, 0)
        last = np.minimum(np.floor(most + bend).astype(np.int64) + reach + 2, size)
        bounds += [first.tolist(), (last - first).tolist()]
    row, rows, col, cols = bounds
    return list(zip(row, col, rows, cols, strict=True))


def with_margin(block: Block, margin: int, canvas: Canvas) -> Block:
    """Return a block with a margin, as far as the canvas goes."""
    top, left = max(block.top - margin, 0), max(block.left - margin, 0)
    bottom = min(block.top + block.rows + margin, canvas.rows)
    right = min(block.left + block.cols + margin, canvas.cols)
    return Block(top, left, bottom - top, right - left)


def source_of(
    frame: Frame,
    to_reference: Matrix | Bent,
    photometry: Photometry,
    canvas: Canvas,
    reference: Frame,
    options: Options,
) -> Source:
    """Return a frame as the second pass needs it; `reference` gives the sky surfaces their scale."""
    shift = np.array([[1.0, 0.0, canvas.x0], [0.0, 1.0, canvas.y0]])
    bent = to_reference if isinstance(to_reference, Bent) else None
    matrix = to_reference.matrix if isinstance(to_reference, Bent) else to_reference
    inverse = compose(invert(matrix), shift)
    # Moved by whole pixels, as near as the kernel's table can tell: copied, not interpolated.
    moved = np.column_stack([np.eye(2), np.rint(inverse[:, 2])])
    ends = corners(canvas.rows, canvas.cols)
    whole = bent is None and bool(np.abs(apply(inverse, ends) - apply(moved, ends)).max() < 0.5 / STEPS)
    inverse = moved if whole else inverse
    direct = options.cfa == "direct"
    surface = np.zeros((frame.channels, 6))
    surface[:, : photometry.surface.shape[1]] = photometry.surface
    return Source(
        frame,
        inverse,
        bent,
        (canvas.x0, canvas.y0),
        COPY if whole or direct else options.kernel,
        COPY if direct else options.kernel,
        span_of(scale_of(matrix)),
        options.clamp,
        (photometry.scale / (1.0 if bent else scale_of(matrix) ** 2)).astype(np.float32),
        surface,
        ((reference.cols - 1) / 2 - canvas.x0, (reference.rows - 1) / 2 - canvas.y0),
        max(reference.rows, reference.cols) / 2,
        pattern_codes(frame.cfa) if frame.cfa else np.zeros((2, 2), np.uint8),
        direct,
    )


def warp(
    pixels: Pixels | None,
    source: Source,
    block: Block,
    out: NDArray[np.float32],
    kept: Kept | None = None,
    need: Need | None = None,
) -> None:
    """Fill one frame's samples of a block, (channels, rows, cols): matched values, NaN without data.

    `pixels` may be None where nothing of the frame lies there; `kept` holds what is made on the way; `need`
    is what `Source.need` says of the block, where it is known.
    """
    kept = kept or Kept()
    nodes, part = need or source.need(block)
    if pixels is None or part is None:  # a bend that might have reached the block does not
        out[:] = np.nan
        return
    row, col, rows, cols = part
    patch = kept.floats("patch", (source.frame.stored_colours, rows, cols))
    pixels.patch(row, col, rows, cols, patch)
    mosaic = codes = None
    if source.frame.cfa:
        mosaic, codes, patch = patch[0], source.codes, kept.floats("colours", (3, rows, cols))
        if source.direct:
            separate(mosaic, codes, row, col, patch)
            mosaic = codes = None
    inverse = source.inverse
    if source.direct:  # copying rounds down: half a pixel further on, that is to the nearest
        inverse = inverse + np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
        nodes = None if nodes is None else nodes + np.array([0.5, 0.5, 0.0]).reshape(3, 1, 1)
    warp_block(
        patch,
        row,
        col,
        inverse,
        block.top,
        block.left,
        source.kernel,
        source.clamp,
        source.scale,
        source.surface,
        source.middle,
        source.half,
        out,
        nodes,
        source.span,
        mosaic,
        codes,
        source.beside,
    )


def feather(source: Source, block: Block, width: float) -> NDArray[np.float32]:
    """Return the part of its weight, (rows, cols), that a frame keeps at the pixels of a block.

    It rises from 0 (in truth `LEAST_SHARE`) at the outline of the frame to 1 at `width` frame pixels
    from it, as 3 t² - 2 t³: without a kink at either end.
    """
    y, x = np.mgrid[block.top : block.top + block.rows, block.left : block.left + block.cols]
    at = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    at_x, at_y = source.places(at).T
    right, bottom = source.frame.cols - 1 - at_x, source.frame.rows - 1 - at_y
    inside = np.minimum.reduce([at_x, at_y, right, bottom]) + 0.5
    t = np.clip(inside / width, 0.0, 1.0)
    share: NDArray[np.float32] = np.maximum(t * t * (3 - 2 * t), LEAST_SHARE).astype(np.float32)
    return share.reshape(block.rows, block.cols)
