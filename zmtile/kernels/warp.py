"""Interpolation of a frame at the pixels of the tile, with the footprint carried by NaN itself.

Colour patches hold their three channels side by side, padded to `PAD`: the pixels under one row of
the kernel are then one run of floats, and one vector operation serves all channels and taps.
Measured on one core for cubic and three channels: 5 times faster than a loop over pixels.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from zmtile.kernels import kernel
from zmtile.kernels.bend import NODE_STEP
from zmtile.kernels.tables import kernel_table, spread_table

__all__ = ["PAD", "warp_block"]

# Floats of a pixel in a colour patch.
PAD = 4


@intrinsic(prefer_literal=True)
def _sample(
    typing_context: Any,
    taps: Any,
    depth: Any,
    pixels: Any,
    first: Any,
    stride: Any,
    across: Any,
    at_across: Any,
    down: Any,
    at_down: Any,
    clamp: Any,
    out: Any,
    at_out: Any,
) -> Any:
    """Weigh taps × taps pixels, from ``pixels[first]`` on, `stride` floats a row, into ``out[at_out:]``.

    Written in LLVM because the compiler does not see that a kernel row is one vector.
    """
    if not (isinstance(taps, types.IntegerLiteral) and isinstance(depth, types.IntegerLiteral)):
        return None
    count, floats = taps.literal_value, depth.literal_value
    signature = types.void(
        taps,
        depth,
        pixels,
        types.intp,
        types.intp,
        across,
        types.intp,
        down,
        types.intp,
        clamp,
        out,
        types.intp,
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(index: int) -> Any:
            return context.make_array(signature.args[index])(context, builder, arguments[index]).data

        row_type = ir.VectorType(ir.FloatType(), count * floats)
        pixel_type = ir.VectorType(ir.FloatType(), floats)
        whole = ir.Constant(ir.IntType(64), count * floats)

        def load(base: Any, at: Any, kind: Any) -> Any:
            return builder.load(builder.bitcast(builder.gep(base, [at]), kind.as_pointer()), align=4)

        def spread(value: Any) -> Any:
            seed = builder.insert_element(
                ir.Constant(row_type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
            )
            mask = ir.Constant(ir.VectorType(ir.IntType(32), count * floats), [0] * (count * floats))
            return builder.shuffle_vector(seed, seed, mask)

        def part(vector: Any, tap: int) -> Any:
            places = [tap * floats + k for k in range(floats)]
            return builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), floats), places)
            )

        def lower(a: Any, b: Any) -> Any:  # NaN never becomes the lowest
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        at, low = arguments[3], None
        total = None
        for tap in range(count):
            row = load(data(2), at, row_type)
            place = builder.add(builder.mul(arguments[8], ir.Constant(ir.IntType(64), count)), _index(tap))
            weighted = builder.fmul(row, spread(load(data(7), place, ir.FloatType())))
            total = weighted if total is None else builder.fadd(total, weighted)
            low = row if low is None else lower(row, low)
            at = builder.add(at, arguments[4])
        total = builder.fmul(total, load(data(5), builder.mul(arguments[6], whole), row_type))
        value, lowest = part(total, 0), part(low, 0)
        for tap in range(1, count):
            value = builder.fadd(value, part(total, tap))
            lowest = lower(part(low, tap), lowest)
        clamped = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
        value = builder.select(arguments[9], clamped, value)
        target = builder.bitcast(builder.gep(data(10), [arguments[11]]), pixel_type.as_pointer())
        builder.store(value, target, align=4)
        return context.get_dummy_value()

    return signature, generate


def _index(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


@cache
def _warp_of(taps: int, depth: int, bent: bool) -> Any:
    """Return the warp for one kernel size, one number of floats in a pixel, and one kind of map."""
    before = 0 if taps == 1 else taps // 2 - 1

    def warp(
        patch: Any,
        row: int,
        col: int,
        matrix: Any,
        nodes: Any,
        top: int,
        left: int,
        across: Any,
        down: Any,
        clamp: bool,
        scale: Any,
        surface: Any,
        middle_x: float,
        middle_y: float,
        half: float,
        out: Any,
    ) -> None:
        patch_rows, patch_cols, _ = patch.shape
        channels, rows, cols = out.shape
        steps = down.shape[0] - 1
        pixels = patch.reshape(-1)
        stride = patch_cols * depth
        line = np.empty(cols * depth, np.float32)
        node_row, node_col = top // NODE_STEP, left // NODE_STEP
        blend = np.empty((3, nodes.shape[2]))  # the lattice at this row
        for i in range(rows):
            y = float(top + i)
            v = (y - middle_y) / half
            if bent:
                above = (top + i) // NODE_STEP - node_row
                share = ((top + i) % NODE_STEP) / NODE_STEP
                for c in range(3):
                    for k in range(nodes.shape[2]):
                        blend[c, k] = (1.0 - share) * nodes[c, above, k] + share * nodes[c, above + 1, k]
            for j in range(cols):
                area = 1.0
                if bent:
                    before_x = (left + j) // NODE_STEP - node_col
                    share = ((left + j) % NODE_STEP) / NODE_STEP
                    at_x = (1.0 - share) * blend[0, before_x] + share * blend[0, before_x + 1]
                    at_y = (1.0 - share) * blend[1, before_x] + share * blend[1, before_x + 1]
                    area = (1.0 - share) * blend[2, before_x] + share * blend[2, before_x + 1]
                else:
                    x = float(left + j)
                    at_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
                    at_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
                base_x = math.floor(at_x)
                base_y = math.floor(at_y)
                first_x = int(base_x) - before - col
                first_y = int(base_y) - before - row
                if first_x < 0 or first_y < 0 or first_x + taps > patch_cols or first_y + taps > patch_rows:
                    for c in range(depth):
                        line[j * depth + c] = np.float32(np.nan)
                    continue
                _sample(
                    taps,
                    depth,
                    pixels,
                    first_y * stride + first_x * depth,
                    stride,
                    across,
                    int((at_x - base_x) * steps + 0.5),
                    down,
                    int((at_y - base_y) * steps + 0.5),
                    clamp,
                    line,
                    j * depth,
                )
                if bent:
                    for c in range(depth):
                        line[j * depth + c] *= np.float32(area)
            for c in range(channels):
                level = surface[c, 0] + v * (surface[c, 2] + v * surface[c, 5])
                slope = surface[c, 1] + v * surface[c, 4]
                for j in range(cols):
                    u = (float(left + j) - middle_x) / half
                    sky = level + u * (slope + u * surface[c, 3])
                    out[c, i, j] = scale[c] * line[j * depth + c] + np.float32(sky)

    # A name of its own keeps its cached code apart: two processes that compile two of these at once
    # would otherwise write to one file name.
    warp.__name__ = warp.__qualname__ = f"warp_{taps}_{depth}_{'bent' if bent else 'flat'}"
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
    patch : (patch rows, patch cols, 1 or PAD) float32
        ADU; all that the block needs of the frame, contiguous. Floats beyond the channels of a
        colour pixel are padding.
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
    depth = patch.shape[2]
    table = kernel_table(name, span)
    _warp_of(table.shape[1], depth, nodes is not None)(
        patch,
        row,
        col,
        matrix,
        _NO_NODES if nodes is None else nodes,
        top,
        left,
        spread_table(name, depth, span),
        table,
        clamp and table.shape[1] > 2,
        scale,
        surface,
        *middle,
        half,
        out,
    )
