"""Interpolation of a frame at the pixels of the tile, with the footprint carried by NaN itself.

Samples side by side are made together, one in each lane of a vector. Between frames that are hardly turned
their pixels lie side by side as well, so a tap of all of them is one load; if not, each sample loads its own
pixels, and they are transposed. The weights serve every channel. Places and matching are loops over a row of
the tile, which the compiler turns into vectors. Measured on one Zen 3 core: 1.6 times as fast as one vector
for the taps of a sample, whose sum goes across its lanes; and 1.2 times for frames that are turned by 45°.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from zmtile.kernels import kernel
from zmtile.kernels.bend import NODE_STEP
from zmtile.kernels.lanes import LANES
from zmtile.kernels.tables import kernel_table

__all__ = ["warp_block"]

# Samples that are made at once, as many as a register holds: 16 with AVX-512, else 8.
WIDTH = LANES // 2
_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
_INTS = ir.VectorType(ir.IntType(32), WIDTH)
# Where a sample begins that has no pixels; none follows it in order.
NOWHERE = -(2**30)


@intrinsic(prefer_literal=True)
def _sample(
    typing_context: Any,
    taps: Any,
    pixels: Any,
    stride: Any,
    apart: Any,
    first: Any,
    step_x: Any,
    step_y: Any,
    at: Any,
    table: Any,
    clamp: Any,
    channels: Any,
    lines: Any,
    line: Any,
) -> Any:
    """Weigh taps × taps pixels for each of `WIDTH` samples side by side, and for each channel.

    Written in LLVM because the compiler does not see that what lies side by side is one vector.

    Parameters
    ----------
    taps : int
        Literal.
    pixels : float32 array
        The channels' planes, `apart` floats from each other; a row is `stride` floats.
    first : int32 array
        Where the first pixel under each sample lies; below zero: nowhere.
    step_x, step_y : int32 array
        Where the weights of each sample begin in the table.
    at : int
        Index of the first sample in these arrays and in the lines.
    table : (steps, taps) float32
    clamp : float32
        A sample that is less than all pixels under it is raised to the lowest, but no higher than this.
    lines : float32 array
        Written: a line of samples for each channel, `line` floats from each other.
    """
    if not isinstance(taps, types.IntegerLiteral):
        return None
    count, index = taps.literal_value, types.intp
    signature = types.void(
        taps, pixels, index, index, first, step_x, step_y, index, table, clamp, index, lines, index
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(k: int) -> Any:
            return context.make_array(signature.args[k])(context, builder, arguments[k]).data

        def load(base: Any, at: Any, kind: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [at]), kind.as_pointer()), align=4)

        def lower(a: Any, b: Any) -> Any:  # NaN never becomes the lowest
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        stride, apart, at, least, channels, line = (arguments[k] for k in (2, 3, 7, 9, 10, 12))
        pixels, first, step_x, step_y, table, lines = (data(k) for k in (1, 4, 5, 6, 8, 11))
        places = load(first, at, _INTS)
        start, second = (builder.extract_element(places, ir.IntType(32)(k)) for k in range(2))
        backward = builder.icmp_signed(">", start, second)
        run = builder.select(backward, _INTS([-k for k in range(WIDTH)]), _INTS(list(range(WIDTH))))
        run = builder.icmp_signed("==", places, builder.add(_spread(builder, start), run))
        run = builder.icmp_signed("==", builder.bitcast(run, ir.IntType(WIDTH)), ir.IntType(WIDTH)(-1))
        backward = builder.and_(run, backward)
        # Samples whose pixels run to the left are taken from the last on.
        begin = builder.select(backward, builder.add(at, _index(WIDTH - 1)), at)
        step = builder.select(backward, _index(-1), _index(1))
        samples = [builder.add(begin, builder.mul(step, _index(k))) for k in range(WIDTH)]

        def integers(array: Any) -> list[Any]:
            return [builder.sext(load(array, k, ir.IntType(32)), ir.IntType(64)) for k in samples]

        def columns(base: Any, starts: list[Any]) -> list[Any]:
            def take(k: int, tap: int, kind: Any) -> Any:
                return load(base, builder.add(starts[k], _index(tap)), kind)

            return _columns(builder, count, take)

        weights_x, weights_y = columns(table, integers(step_x)), columns(table, integers(step_y))

        def finish(column: Callable[[int], tuple[Any, Any]]) -> Any:
            value = lowest = None
            for tap in range(count):
                total, low = column(tap)
                total = builder.fmul(total, weights_x[tap])
                value = total if tap == 0 else builder.fadd(value, total)
                lowest = low if tap == 0 else lower(low, lowest)
            lowest = lower(lowest, _spread(builder, least))
            return builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)

        def add_row(total: Any, low: Any, tap: int, pixel: Any) -> tuple[Any, Any]:
            weighted = builder.fmul(pixel, weights_y[tap])
            return (weighted, pixel) if tap == 0 else (builder.fadd(total, weighted), lower(pixel, low))

        def put(channel: Any, value: Any) -> None:
            place = builder.gep(lines, [builder.add(builder.mul(channel, line), at)])
            builder.store(value, builder.bitcast(place, _FLOATS.as_pointer()), align=4)

        rows = [builder.mul(stride, _index(tap)) for tap in range(count)]
        with builder.if_else(run) as (together, scattered):
            with together:
                base = builder.sext(start, ir.IntType(64))
                base = builder.select(backward, builder.sub(base, _index(WIDTH - 1)), base)
                with cgutils.for_range(builder, channels) as loop:
                    plane = builder.add(base, builder.mul(loop.index, apart))

                    def column(tap: int) -> tuple[Any, Any]:
                        total = low = None
                        for k in range(count):
                            place = builder.add(builder.add(plane, rows[k]), _index(tap))
                            total, low = add_row(total, low, k, load(pixels, place, _FLOATS))
                        return total, low

                    value = finish(column)
                    turned = builder.shuffle_vector(value, value, _INTS(list(range(WIDTH))[::-1]))
                    put(loop.index, builder.select(backward, turned, value))
            with scattered:
                nowhere = builder.icmp_signed("<", places, _INTS([0] * WIDTH))
                inside = builder.select(nowhere, _INTS([0] * WIDTH), places)
                starts = [builder.extract_element(inside, ir.IntType(32)(k)) for k in range(WIDTH)]
                starts = [builder.sext(place, ir.IntType(64)) for place in starts]
                with cgutils.for_range(builder, channels) as loop:
                    plane = builder.mul(loop.index, apart)
                    sums = [(None, None)] * count
                    for k in range(count):
                        row = builder.gep(pixels, [builder.add(plane, rows[k])])
                        pixel = columns(row, starts)
                        sums = [add_row(*sums[tap], k, pixel[tap]) for tap in range(count)]
                    value = finish(lambda tap: sums[tap])
                    put(loop.index, builder.select(nowhere, _FLOATS([float("nan")] * WIDTH), value))
        return context.get_dummy_value()

    return signature, generate


def _columns(builder: Any, count: int, load: Callable[[int, int, Any], Any]) -> list[Any]:
    """Return vectors over the samples, one for each of `count` numbers that lie side by side for a sample.

    Four by four they are transposed within parts of four floats, as vector units do it fast.
    """
    columns = []
    for first in range(0, count, 4):
        size = min(4, count - first)
        kind = ir.VectorType(ir.FloatType(), size)
        wide = [min(k, size - 1) for k in range(4)]
        loaded = [_shuffle(builder, load(k, first, kind), None, wide) for k in range(WIDTH)]
        quads = [_joined(builder, loaded[k::4]) for k in range(4)]
        parts = range(0, WIDTH, 4)
        low = [p + k for p in parts for k in (0, WIDTH, 1, WIDTH + 1)]
        high = [k + 2 for k in low]
        for half in (low, high):
            a, b = _shuffle(builder, quads[0], quads[1], half), _shuffle(builder, quads[2], quads[3], half)
            columns.append(_shuffle(builder, a, b, [p + k for p in parts for k in (0, 1, WIDTH, WIDTH + 1)]))
            columns.append(
                _shuffle(builder, a, b, [p + k for p in parts for k in (2, 3, WIDTH + 2, WIDTH + 3)])
            )
    return columns[:count]


def _joined(builder: Any, vectors: list[Any]) -> Any:
    """Return one vector of several."""
    while len(vectors) > 1:
        places = range(2 * vectors[0].type.count)
        vectors = [_shuffle(builder, a, b, places) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def _shuffle(builder: Any, a: Any, b: Any, places: Iterable[int]) -> Any:
    """Return floats of two vectors, by their places."""
    mask = list(places)
    kind = ir.VectorType(ir.IntType(32), len(mask))
    return builder.shuffle_vector(a, a if b is None else b, kind(mask))


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector with the same number in every lane."""
    kind = ir.VectorType(value.type, WIDTH)
    seed = builder.insert_element(kind(ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(seed, seed, _INTS([0] * WIDTH))


def _index(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


@cache
def _warp_of(taps: int, bent: bool) -> Any:
    """Return the warp for one kernel size and one kind of map."""
    before = 0 if taps == 1 else taps // 2 - 1

    def warp(
        patch: Any,
        row: int,
        col: int,
        matrix: Any,
        nodes: Any,
        top: int,
        left: int,
        table: Any,
        clamp: bool,
        scale: Any,
        surface: Any,
        middle_x: float,
        middle_y: float,
        half: float,
        out: Any,
    ) -> None:
        channels, patch_rows, patch_cols = patch.shape
        rows, cols = out[0].shape
        if patch_rows < taps or patch_cols < taps:
            for c in range(channels):
                out[c][:] = np.float32(np.nan)
            return
        wide = (cols + WIDTH - 1) // WIDTH * WIDTH
        steps, last = float(table.shape[0] - 1), np.int32(table.shape[0] - 1)
        stride, nowhere = float(patch_cols), float(NOWHERE)
        low = np.float32(np.inf if clamp else -np.inf)
        ax, bx, cx = matrix[0, 0], matrix[0, 1], matrix[0, 2]
        ay, by, cy = matrix[1, 0], matrix[1, 1], matrix[1, 2]
        # Where the kernel's first tap may lie, in frame pixels.
        least_x, least_y = float(col + before), float(row + before)
        most_x, most_y = least_x + (patch_cols - taps), least_y + (patch_rows - taps)
        line = np.empty((channels, wide), np.float32)
        at_x, at_y, area = np.empty(cols), np.empty(cols), np.empty(cols)
        first = np.full(wide, NOWHERE, np.int32)
        step_x, step_y = np.zeros(wide, np.int32), np.zeros(wide, np.int32)
        x, u = np.empty(cols), np.empty(cols)
        for j in range(cols):
            x[j] = float(left + j)
            u[j] = (x[j] - middle_x) / half
        node_row, node_col = top // NODE_STEP, left // NODE_STEP
        blend = np.empty((3, nodes.shape[2]))  # the lattice at this row
        for i in range(rows):
            y = float(top + i)
            if bent:
                above = (top + i) // NODE_STEP - node_row
                share = ((top + i) % NODE_STEP) / NODE_STEP
                for c in range(3):
                    for k in range(nodes.shape[2]):
                        blend[c, k] = (1.0 - share) * nodes[c, above, k] + share * nodes[c, above + 1, k]
                for j in range(cols):
                    k = (left + j) // NODE_STEP - node_col
                    share = ((left + j) % NODE_STEP) / NODE_STEP
                    at_x[j] = (1.0 - share) * blend[0, k] + share * blend[0, k + 1]
                    at_y[j] = (1.0 - share) * blend[1, k] + share * blend[1, k + 1]
                    area[j] = (1.0 - share) * blend[2, k] + share * blend[2, k + 1]
            else:
                shift_x, shift_y = bx * y, by * y
                for j in range(cols):
                    at_x[j] = ax * x[j] + shift_x + cx
                    at_y[j] = ay * x[j] + shift_y + cy
            for j in range(cols):
                base_x, base_y = np.floor(at_x[j]), np.floor(at_y[j])
                inside = (base_x >= least_x) & (base_y >= least_y) & (base_x <= most_x) & (base_y <= most_y)
                place = (base_y - least_y) * stride + (base_x - least_x)
                first[j] = np.int32(place if inside else nowhere)
                near_x = np.int32((at_x[j] - base_x) * steps + 0.5)
                near_y = np.int32((at_y[j] - base_y) * steps + 0.5)
                # No place of the table is meant where a place of the frame is no number.
                step_x[j] = min(max(near_x, np.int32(0)), last) * taps
                step_y[j] = min(max(near_y, np.int32(0)), last) * taps
            for j in range(0, cols, WIDTH):
                _sample(
                    taps,
                    patch,
                    patch_cols,
                    patch_rows * patch_cols,
                    first,
                    step_x,
                    step_y,
                    j,
                    table,
                    low,
                    channels,
                    line,
                    wide,
                )
            v = (y - middle_y) / half
            for c in range(channels):
                level = surface[c, 0] + v * (surface[c, 2] + v * surface[c, 5])
                slope = surface[c, 1] + v * surface[c, 4]
                bow, factor = surface[c, 3], scale[c]
                plane = out[c]
                for j in range(cols):
                    sky = level + u[j] * (slope + u[j] * bow)
                    value = line[c, j]
                    if bent:
                        value *= np.float32(area[j])
                    plane[i, j] = factor * value + np.float32(sky)

    # A name of its own keeps its cached code apart: two processes that compile two of these at once
    # would otherwise write to one file name.
    warp.__name__ = warp.__qualname__ = f"warp_{taps}_{'bent' if bent else 'flat'}"
    return kernel(warp)


_NO_NODES = np.empty((3, 0, 0))


def warp_block(
    patch: NDArray[np.float32],
    row: int,
    col: int,
    matrix: NDArray[np.float64],
    top: int,
    left: int,
    name: str,
    clamp: bool,
    scale: NDArray[np.float32],
    surface: NDArray[np.float64],
    middle: tuple[float, float],
    half: float,
    out: NDArray[np.float32],
    nodes: NDArray[np.float64] | None = None,
    span: float = 0.0,
) -> None:
    """Sample a patch of a frame at a block of tile pixels and match it photometrically.

    A sample is a number only if every pixel under the kernel is: NaN outlasts any sum, also with a
    weight of zero, and outside the patch there is nothing.

    Parameters
    ----------
    patch : (channels, patch rows, patch cols) float32
        ADU; all that the block needs of the frame, contiguous.
    row, col : int
        Frame pixel of ``patch[0, 0]``.
    matrix : (2, 3) float64
        Tile pixel → frame pixel.
    top, left : int
        Tile pixel of the block's first pixel.
    name : str
        The kernel, as for `kernel_table`.
    clamp : bool
        Raise a value that undershoots all pixels under the kernel to the lowest of them: the dark
        ring that negative lobes leave around a star or a hot pixel. Peaks may overshoot.
    scale : (channels,) float32
    surface : (channels, 6) float64
        Added after scaling: coefficients of 1, u, v, u², uv, v², where (u, v) is the tile pixel
        less `middle`, divided by `half`.
    middle : (float, float)
        Tile pixel x, y.
    half : float
        px.
    out : (channels, rows, cols) float32
        Written: matched samples, NaN where there is no data.
    nodes : (3, node rows, node cols) float64, optional
        The block's lattice, from `zmtile.kernels.bend.lay_nodes`; takes the place of the matrix. Between
        nodes, places and the change of area are linear.
    span : float
        As for `kernel_table`.
    """
    table = kernel_table(name, span)
    _warp_of(table.shape[1], nodes is not None)(
        patch,
        row,
        col,
        matrix,
        _NO_NODES if nodes is None else nodes,
        top,
        left,
        table,
        clamp and table.shape[1] > 2,
        scale,
        surface,
        *middle,
        half,
        tuple(out),
    )
