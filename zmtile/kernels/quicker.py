"""What numba does with more of Python than it must, done with less of it: the same code comes out.

Two thirds of a first run is numba's Python. Here are the few of its functions that are called most, written
anew for the version that zmtile asks for, and some that numba compiles anew for every type. Only compiling
needs this module. Other code in the process that uses numba gets from them what it got before; what is done
less, as to count who holds a value, is done less for parts alone.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import types
from numba.core import base, cgutils, errors, event, ir, lowering, postproc, transforms, typeinfer
from numba.core.runtime.context import NRTContext
from numba.core.target_extension import current_target
from numba.cpython import builtins
from numba.extending import intrinsic
from numba.np import arrayobj, linalg
from numba.np.numpy_support import is_nonelike

__all__ = ["IN_PLACE_OF", "TARGET", "hurry"]

# What numba compiles parts for: `zmtile.kernels.parts`.
TARGET = "zmtile"

_ERRORS: Any = errors
_NO_VARIABLES = (ir.Loc, str, int, bool, float, type(None))


def _gather(values: Iterable[Any], found: list[ir.Var]) -> None:
    """Add the variables among values of an instruction."""
    for value in values:
        kind = type(value)
        if kind is ir.Var:
            found.append(value)
        elif kind in _NO_VARIABLES:
            pass
        elif isinstance(value, ir.Inst):
            found += value.list_vars()
        elif isinstance(value, (list, tuple)):
            _gather(value, found)
        elif isinstance(value, dict):
            _gather(value.values(), found)


def _variables_of_statement(self: Any) -> list[ir.Var]:
    """List the variables that a statement reads or writes."""
    found: list[ir.Var] = []
    _gather(vars(self).values(), found)
    return found


def _variables_of_expression(self: Any) -> list[ir.Var]:
    """List the variables that an expression reads."""
    found: list[ir.Var] = []
    _gather(self._kws.values(), found)
    return found


class _Context:
    """Tells in errors raised within what was compiled there."""

    __slots__ = ("_arguments", "_names", "_text")

    def __init__(self, text: str, *arguments: Any, **names: Any) -> None:
        self._text, self._arguments, self._names = text, arguments, names
        place = names.get("loc")
        if place is not None and not place.filename.startswith(_ERRORS._numba_path):
            _ERRORS.loc_info.update(names)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, errors.NumbaError):
            plain = not self._arguments and not self._names
            error.add_context(self._text if plain else self._text.format(*self._arguments, **self._names))


def _if_heard(tell: Any) -> Any:
    """Return a function that tells of an event if anybody listens."""

    def told(kind: str, *arguments: Any, **names: Any) -> None:
        if event._registered.get(kind):
            tell(kind, *arguments, **names)

    return told


def _if_wanted(follow: Any) -> Any:
    """Return a method that looks how long the variables of parts live if it is asked, which is seldom."""

    def followed(self: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
        code = self.func_ir
        if emit_dels or code.is_generator or current_target() != TARGET:
            follow(self, emit_dels, extend_lifetimes)
        else:
            code.blocks = transforms.canonicalize_cfg(code.blocks)
            code.variable_lifetime = postproc.VariableLifetime(code.blocks)
            code.generator_info = None

    return followed


def _unless_plain(look: Any) -> Any:
    """Return a function that tells whether another takes a place in the source, mostly without `inspect`."""

    def takes(function: Any) -> bool:
        code = getattr(function, "__code__", None)
        if code is None or hasattr(function, "__wrapped__"):
            return bool(look(function))
        return "loc" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]

    return takes


def _owns(context: Any, kind: Any) -> bool:
    """Return whether values of a type hold memory that is counted: arrays do, and tuples of them.

    Types of other people may hold what their models do not tell, as deferred ones do: of those, all might.
    """
    if context.target_name != TARGET:
        return True
    known: dict[Any, bool] = vars(context).setdefault("_zmtile_owners", {})
    if kind not in known:
        known[kind] = context.data_model_manager[kind].contains_nrt_meminfo()
    return known[kind]


def _if_owned(count: Any) -> Any:
    """Return a method that counts who holds a value, if there is anything to count."""

    def counted(self: Any, kind: Any, value: Any) -> None:
        if _owns(self.context, kind):
            count(self, kind, value)

    return counted


def _if_worth(forget: Any) -> Any:
    """Return a method that forgets a variable; a number that nobody reads again need not be set to 0."""

    def forgotten(self: Any, name: str) -> None:
        if _owns(self.context, self.typeof(name)):
            forget(self, name)
        else:
            if name not in self._blk_local_varmap:
                self._singly_assigned_vars.discard(name)
            self._alloca_var(name, self.typeof(name))

    return forgotten


def _counters(self: Any, builder: Any, kind: Any, value: Any) -> list[tuple[Any, Any]]:
    """Return the types and counters within a value, for parts without a look at its numbers."""
    model = self._context.data_model_manager[kind]
    found = [(kind, model.get_nrt_meminfo(builder, value))] if model.has_nrt_meminfo() else []
    for member, getter in model.traverse(builder):
        if _owns(self._context, member):
            found += self.get_meminfos(builder, member, getter(value))
    return found


def _without_blas() -> None:
    """Load what numba knows of numpy's arithmetic without scipy's BLAS, 0.15 s, that it looks for then."""
    if "numba.np.arraymath" not in sys.modules:
        asked = linalg.ensure_blas
        linalg.ensure_blas = lambda: None  # who multiplies matrices asks again
        try:
            import numba.np.arraymath
        finally:
            linalg.ensure_blas = asked
            numba.np.arraymath.ensure_blas = asked


def hurry() -> None:
    """Put them in place."""
    ir.Stmt.list_vars = _variables_of_statement
    ir.Expr.list_vars = _variables_of_expression
    lowering.new_error_context = typeinfer.new_error_context = _Context
    postproc.PostProcessor.run = _if_wanted(postproc.PostProcessor.run)
    base._has_loc = _unless_plain(base._has_loc)
    lower = lowering.Lower
    lower.incref, lower.decref, lower.delvar = (
        _if_owned(lower.incref),
        _if_owned(lower.decref),
        _if_worth(lower.delvar),
    )
    NRTContext.get_meminfos = _counters
    event.start_event, event.end_event = _if_heard(event.start_event), _if_heard(event.end_event)
    _without_blas()


def _array_of(shape: Any, dtype: Any) -> Any:
    """Return the type of a new array; None if it is not known."""
    plain = dtype is None or is_nonelike(dtype)
    plain = plain or (isinstance(dtype, types.Function) and dtype.typing_key is float)
    number = types.float64 if plain else arrayobj.ty_parse_dtype(dtype)
    count = arrayobj.ty_parse_shape(shape)
    return None if number is None or count is None else types.Array(number, count, "C")


def _new(zeroed: bool) -> Any:
    """Return the function that makes a new array, as numpy's."""

    def new(typing_context: Any, shape: Any, dtype: Any = None) -> Any:
        array = _array_of(shape, dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            shapes = arrayobj._parse_shape(context, builder, signature.args[0], arguments[0])
            made = arrayobj._empty_nd_impl(context, builder, array, shapes)
            if zeroed:
                cgutils.memset(builder, made.data, builder.mul(made.itemsize, made.nitems), 0)
            return made._getvalue()

        return array and (array(shape, types.Omitted(None) if dtype is None else dtype), generate)

    return new


def _chosen(comparison: Any) -> Any:
    """Return the function that chooses the second of two numbers where a comparison to the first is true."""

    def chosen(typing_context: Any, a: Any, b: Any) -> Any:
        if not isinstance(a, types.Number) or not isinstance(b, types.Number):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builtins.do_minmax(context, builder, signature.args, arguments, comparison)

        return typing_context.unify_types(a, b)(a, b), generate

    return chosen


# What parts call instead: numba would compile one or two functions for every combination of types. The lower
# and the higher are of two numbers, as kernels need them.
IN_PLACE_OF = {
    np.empty: intrinsic(_new(zeroed=False)),
    np.zeros: intrinsic(_new(zeroed=True)),
    min: intrinsic(_chosen(operator.lt)),
    max: intrinsic(_chosen(operator.gt)),
}
