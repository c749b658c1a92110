"""Instructions that numba does not emit: vectors as values of a kernel.

Only compiling needs this module, and it imports numba: kernels name what is in it by
`zmtile.kernels.instruction`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features, get_process_triple
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from zmtile.kernels.lanes import LANES

__all__ = [
    "as_float",
    "as_integer",
    "bits_of",
    "choose",
    "count_lanes",
    "every",
    "first_bit",
    "highest",
    "lowest",
    "plus_product",
    "put_lanes",
    "root",
    "take_lanes",
]

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


class _Lanes(types.Type):  # type: ignore[misc]  # numba has no types for mypy
    """A float32, or with `truth` a condition, for each lane."""

    def __init__(self, truth: bool) -> None:
        self.truth = truth
        super().__init__("truths" if truth else "lanes")


_FLOAT, _TRUTH = _Lanes(False), _Lanes(True)


@register_model(_Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, _BITS if kind.truth else _FLOATS)


def _spread(builder: Any, value: Any) -> Any:
    """Return a vector with the same number in every lane; vectors are returned as they are."""
    if isinstance(value.type, ir.VectorType):
        return value
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    )


def _define(operation: Any, operand: _Lanes, result: _Lanes, build: Callable[..., Any]) -> None:
    """Give an operator of two values to lanes; lanes may stand beside one float32."""
    fits = (operand,) if operand.truth else (operand, types.float32)

    @type_callable(operation)
    def _type(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return result if operand in (a, b) and a in fits and b in fits else None

        return typer

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b = (_spread(builder, value) for value in arguments)
        return build(builder, lhs=a, rhs=b)

    pairs = [(a, b) for a in fits for b in fits if operand in (a, b)]
    for a, b in pairs:
        lower_builtin(operation, a, b)(lower)


_ARITHMETIC = {
    operator.add: ir.IRBuilder.fadd,
    operator.iadd: ir.IRBuilder.fadd,
    operator.sub: ir.IRBuilder.fsub,
    operator.mul: ir.IRBuilder.fmul,
    operator.truediv: ir.IRBuilder.fdiv,
}
_COMPARISONS = {
    operator.lt: partial(ir.IRBuilder.fcmp_ordered, cmpop="<"),
    operator.le: partial(ir.IRBuilder.fcmp_ordered, cmpop="<="),
    operator.gt: partial(ir.IRBuilder.fcmp_ordered, cmpop=">"),
    operator.ge: partial(ir.IRBuilder.fcmp_ordered, cmpop=">="),
    operator.eq: partial(ir.IRBuilder.fcmp_ordered, cmpop="=="),
}
for _operation, _build in _ARITHMETIC.items():
    _define(_operation, _FLOAT, _FLOAT, _build)
for _operation, _build in _COMPARISONS.items():
    _define(_operation, _FLOAT, _TRUTH, _build)
_define(operator.and_, _TRUTH, _TRUTH, ir.IRBuilder.and_)
_define(operator.or_, _TRUTH, _TRUTH, ir.IRBuilder.or_)


@type_callable(operator.invert)
def _type_invert(context: Any) -> Any:
    return lambda a: _TRUTH if a == _TRUTH else None


@lower_builtin(operator.invert, _TRUTH)
def _invert(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.not_(arguments[0])


@intrinsic
def every(typing_context: Any, value: Any) -> Any:
    """Return lanes that all hold one float32."""
    if value != types.float32:
        return None
    return _FLOAT(value), lambda context, builder, signature, arguments: _spread(builder, arguments[0])


@intrinsic
def choose(typing_context: Any, truth: Any, a: Any, b: Any) -> Any:
    """Return a where the condition is true and b elsewhere; each may be one float32."""
    if truth != _TRUTH or not {a, b} <= {_FLOAT, types.float32}:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(arguments[0], *(_spread(builder, value) for value in arguments[1:]))

    return _FLOAT(truth, a, b), generate


def _extreme(name: str) -> Callable[..., Any]:
    """Return the typing and code of the lowest or highest of two, neither of them NaN."""

    def typed(typing_context: Any, a: Any, b: Any) -> Any:
        if not _FLOAT == a == b:
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS])
            function = get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
            return builder.call(function, arguments, fastmath=("nnan",))

        return _FLOAT(a, b), generate

    return typed


# One instruction each. A choice of the two is not: stored where one of them was read, it becomes a store of
# some lanes only, which takes 20 times as long on a Zen 3 core.
lowest = intrinsic(_extreme("minnum"))
highest = intrinsic(_extreme("maxnum"))


@intrinsic
def root(typing_context: Any, value: Any) -> Any:
    """Return the square root of lanes."""
    if value != _FLOAT:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        return builder.call(get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), arguments)

    return _FLOAT(value), generate


@intrinsic
def plus_product(typing_context: Any, c: Any, a: Any, b: Any) -> Any:
    """Return c + a · b: rounded once, but twice where the processor has no instruction for it."""
    if not _FLOAT == a == b == c:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        c, a, b = arguments
        if not (get_host_cpu_features().get("fma") or get_process_triple().startswith(("aarch64", "arm64"))):
            return builder.fadd(c, builder.fmul(a, b))
        kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
        function = get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")
        return builder.call(function, [a, b, c])

    return _FLOAT(c, a, b), generate


def _reinterpreted(own: Any, other: Any) -> Any:
    """Return the function that reads the bits of one type of number as another of its size."""

    def typed(typing_context: Any, value: Any) -> Any:
        if value != own:
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(other))

        return other(value), generate

    return typed


# The bits of one number. A view of an array does the same, and numba takes 0.2 s to compile one.
as_integer = intrinsic(_reinterpreted(types.float32, types.int32))
as_float = intrinsic(_reinterpreted(types.int32, types.float32))


def _bits(builder: Any, truth: Any) -> Any:
    """Return a condition as an integer: bit k is lane k.

    With AVX2 register by register: as a whole it would be packed into bytes before.
    """
    if get_host_cpu_features().get("avx512f"):
        return builder.zext(builder.bitcast(truth, ir.IntType(LANES)), ir.IntType(64))
    width, bits = LANES // 2, None
    for first in range(0, LANES, width):
        places = [ir.Constant(ir.IntType(32), first + k) for k in range(width)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), width), places)
        part = builder.bitcast(builder.shuffle_vector(truth, truth, mask), ir.IntType(width))
        part = builder.shl(builder.zext(part, ir.IntType(64)), ir.Constant(ir.IntType(64), first))
        bits = part if bits is None else builder.or_(bits, part)
    return bits


@intrinsic
def count_lanes(typing_context: Any, truth: Any) -> Any:
    """Return in how many lanes a condition is true."""
    if truth != _TRUTH:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(_bits(builder, arguments[0]))

    return types.int64(truth), generate


@intrinsic
def bits_of(typing_context: Any, truth: Any) -> Any:
    """Return a condition as an integer: bit k is lane k."""
    if truth != _TRUTH:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _bits(builder, arguments[0])

    return types.int64(truth), generate


@intrinsic
def first_bit(typing_context: Any, bits: Any) -> Any:
    """Return the lowest bit that is set in an integer, of which there is at least one."""
    if bits != types.int64:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(bits), generate


def _place(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Return a pointer to the lanes that begin at a number of an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _FLOATS.as_pointer())


@intrinsic
def take_lanes(typing_context: Any, array: Any, at: Any) -> Any:
    """Return the lanes that begin at number `at` of a contiguous float32 array of any shape."""
    if not (isinstance(array, types.Array) and array.dtype == types.float32 and array.is_c_contig):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *arguments), align=4)

    return _FLOAT(array, types.intp), generate


@intrinsic
def put_lanes(typing_context: Any, array: Any, at: Any, value: Any) -> Any:
    """Store lanes at number `at` of a contiguous float32 array of any shape."""
    if not (isinstance(array, types.Array) and array.dtype == types.float32 and array.is_c_contig):
        return None
    if value not in (_FLOAT, types.float32):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature.args[0], *arguments[:2])
        builder.store(_spread(builder, arguments[2]), place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate
