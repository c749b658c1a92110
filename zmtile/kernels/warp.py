"""Interpolation of a frame at the pixels of the tile, with the footprint carried by NaN itself.

Colour patches hold their three channels side by side, padded to `PAD`: the pixels under one row of
the kernel are then one run of floats, and one vector operation serves all channels and taps. What is the
same for every channel, and the matching, are loops over a row of the tile, which the compiler turns into
vectors. Measured on one core for cubic and three channels: 10 times faster than a loop over pixels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from zmtile.kernels import kernel
from zmtile.kernels.bend import NODE_STEP
from zmtile.kernels.tables import kernel_table

__all__ = ["PAD", "warp_block"]

# Channels of a colour image, and floats of a pixel in its patch.
CHANNELS = 3
PAD = 4


@intrinsic(prefer_literal=True)
def _sample(
    typing_context: Any,
    taps: Any,
    depth: Any,
    pixels: Any,
    first: Any,
    stride: Any,
    table: Any,
    step_x: Any,
    step_y: Any,
    clamp: Any,
    out: Any,
    at_out: Any,
    apart: Any,
) -> Any:
    """Weigh taps × taps pixels, from ``pixels[first]`` on, `stride` floats a row.

    The channels go into ``out[at_out]`` and on, `apart` floats from each other.

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
        table,
        types.intp,
        types.intp,
        clamp,
        out,
        types.intp,
        types.intp,
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(index: int) -> Any:
            return context.make_array(signature.args[index])(context, builder, arguments[index]).data

        row_type = ir.VectorType(ir.FloatType(), count * floats)

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

        weights_x, weights_y = (builder.mul(step, _index(count)) for step in arguments[6:8])
        at, low = arguments[3], None
        total = None
        for tap in range(count):
            row = load(data(2), at, row_type)
            weight = load(data(5), builder.add(weights_y, _index(tap)), ir.FloatType())
            weighted = builder.fmul(row, spread(weight))
            total = weighted if total is None else builder.fadd(total, weighted)
            low = row if low is None else lower(row, low)
            at = builder.add(at, arguments[4])
        across = load(data(5), weights_x, ir.VectorType(ir.FloatType(), count))
        places = [k // floats for k in range(count * floats)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), count * floats), places)
        total = builder.fmul(total, builder.shuffle_vector(across, across, mask))
        value, lowest = part(total, 0), part(low, 0)
        for tap in range(1, count):
            value = builder.fadd(value, part(total, tap))
            lowest = lower(part(low, tap), lowest)
        clamped = builder.select(builder.fcmp_ordered("<", value, lowest), lowest, value)
        value = builder.select(arguments[8], clamped, value)
        at = arguments[10]
        for channel in range(min(floats, CHANNELS)):
            number = builder.extract_element(value, ir.Constant(ir.IntType(32), channel))
            builder.store(number, builder.gep(data(9), [at]), align=4)
            at = builder.add(at, arguments[11])
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
        table: Any,
        clamp: bool,
        scale: Any,
        surface: Any,
        middle_x: float,
        middle_y: float,
        half: float,
        out: Any,
    ) -> None:
        patch_rows, patch_cols, _ = patch.shape
        channels, (rows, cols) = len(out), out[0].shape
        steps = table.shape[0] - 1
        pixels = patch.reshape(-1)
        stride = patch_cols * depth
        # Where the kernel's first tap may lie, in frame pixels.
        least_x, least_y = float(col + before), float(row + before)
        most_x, most_y = least_x + (patch_cols - taps), least_y + (patch_rows - taps)
        line = np.empty(channels * cols, np.float32)
        at_x, at_y, area = np.empty(cols), np.empty(cols), np.empty(cols)
        first_x, first_y = np.empty(cols, np.int32), np.empty(cols, np.int32)
        step_x, step_y = np.empty(cols, np.int32), np.empty(cols, np.int32)
        u = np.empty(cols)
        for j in range(cols):
            u[j] = (float(left + j) - middle_x) / half
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
                for j in range(cols):
                    x = float(left + j)
                    at_x[j] = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]
                    at_y[j] = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
            for j in range(cols):
                base_x, base_y = np.floor(at_x[j]), np.floor(at_y[j])
                inside = (base_x >= least_x) & (base_y >= least_y) & (base_x <= most_x) & (base_y <= most_y)
                first_x[j] = np.int32(base_x - least_x if inside else -1.0)
                first_y[j] = np.int32(base_y - least_y if inside else -1.0)
                step_x[j] = np.int32((at_x[j] - base_x) * steps + 0.5 if inside else 0.0)
                step_y[j] = np.int32((at_y[j] - base_y) * steps + 0.5 if inside else 0.0)
            for j in range(cols):
                if first_x[j] < 0:
                    for c in range(channels):
                        line[c * cols + j] = np.float32(np.nan)
                    continue
                _sample(
                    taps,
                    depth,
                    pixels,
                    first_y[j] * stride + first_x[j] * depth,
                    stride,
                    table,
                    step_x[j],
                    step_y[j],
                    clamp,
                    line,
                    j,
                    cols,
                )
            v = (y - middle_y) / half
            for c in range(channels):
                level = surface[c, 0] + v * (surface[c, 2] + v * surface[c, 5])
                slope = surface[c, 1] + v * surface[c, 4]
                plane = out[c]
                for j in range(cols):
                    sky = level + u[j] * (slope + u[j] * surface[c, 3])
                    value = line[c * cols + j]
                    if bent:
                        value *= np.float32(area[j])
                    plane[i, j] = scale[c] * value + np.float32(sky)

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
        table,
        clamp and table.shape[1] > 2,
        scale,
        surface,
        *middle,
        half,
        tuple(out),
    )
