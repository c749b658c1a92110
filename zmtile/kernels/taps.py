"""The taps of the interpolation: pixels under `WIDTH` samples, weighed together.

Only compiling needs this module, as `zmtile.kernels.instructions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from zmtile.kernels.warp import WIDTH

__all__ = ["sample"]

_FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
_INTS = ir.VectorType(ir.IntType(32), WIDTH)


@intrinsic(prefer_literal=True)
def sample(
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
