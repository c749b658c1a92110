"""What numba does in less of Python: the same comes out, in parts and in other people's functions."""

import resource
import subprocess
import sys
from itertools import product

import numba
import numpy as np
import pytest
from numba.core import errors, event, ir, postproc
from numba.core.compiler import run_frontend
from numba.core.target_extension import target_override

from zmtile.kernels import kernel, parts, quicker

LOC = ir.Loc("here", 1)


def var(name):
    return ir.Var(None, name, LOC)


def test_variables_are_found_wherever_they_are():
    assert parts.TARGET  # imported: numba is hurried
    a, b, c, d = map(var, "abcd")
    call = ir.Expr.call(a, [b, c], [("key", d)], LOC)
    assert call.list_vars() == [a, b, c, d]
    assert ir.Assign(call, b, LOC).list_vars() == [a, b, c, d, b]
    assert ir.Assign(ir.Const(3, LOC), a, LOC).list_vars() == [a]
    assert ir.Expr.build_map([(a, b)], 1, None, None, LOC).list_vars() == [a, b]
    assert ir.Jump(3, LOC).list_vars() == []


def numbers_of(a, b, out):
    """Choose of integers and floats, mixed and alike."""
    out[0], out[1] = min(a, b), max(a, b)
    out[2], out[3] = min(a, 2), max(3, b)


@pytest.mark.parametrize(
    ("a", "b"),
    [*product([-1.5, 0.0, -0.0, np.inf, np.nan], repeat=2), (2, 3), (3, 2), (2, 2.5), (-7.5, 4)],
)
def test_the_lower_and_the_higher_are_pythons(a, b):
    made, expected = np.empty(4), np.empty(4)
    kernel(numbers_of)(a, b, made)
    numbers_of(a, b, expected)
    assert made.tobytes() == expected.tobytes()


def arrays_of(n, out):
    """Make arrays of all kinds, in a loop; of each, all are zeros or it is written."""
    for k in range(out.size):
        total = 0.0
        for values in (np.zeros(n), np.empty(n)):
            total += values.size
        pair = np.zeros((n, 2), np.float32), np.zeros((2, n, 3), np.bool_)
        both = pair
        whole = np.empty((n, n), np.int32)
        whole[:] = k
        total += both[0].sum() + pair[1].sum() + whole.sum() + np.zeros(n, np.uint8).sum()
        out[k] = total


def test_new_arrays_are_zeros_or_what_is_written():
    out = np.empty(3)
    kernel(arrays_of)(5, out)
    assert out.tolist() == [10 + 25 * k for k in range(3)]


def test_memory_is_given_back():
    call = kernel(arrays_of)
    call(8, np.empty(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(400, np.empty(4000))  # 1.6 MB and more each time
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def shape_of(n):
    return np.zeros((n, 3)).shape[0]


def test_an_array_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="negative"):
        kernel(shape_of)(-1)


def ignorant(x):
    return x.nothing + 1


def test_errors_tell_where_they_come_from():
    with pytest.raises(errors.TypingError, match=r"(?s)nothing.*During: typing of"):
        numba.njit(ignorant)(1)
    with pytest.raises(errors.NumbaError, match=r"at \{nowhere\}"), quicker._Context("at {nowhere}"):
        raise errors.NumbaError("x")


def test_errors_of_other_code_keep_their_place():
    errors.loc_info.clear()
    with quicker._Context("at {loc}", loc=LOC):
        assert errors.loc_info["loc"] is LOC


def test_what_others_hold_is_counted():
    """A linked list of objects that know their own type only later: it must not be freed under way."""
    code = """
from numba import deferred_type, int64, njit, optional
from numba.experimental import jitclass
import zmtile.kernels.parts
kind = deferred_type()
class Node:
    def __init__(self, value, next):
        self.value, self.next = value, next
Node = jitclass([("value", int64), ("next", optional(kind))])(Node)
kind.define(Node.class_type.instance_type)
@njit
def made(n):
    head = Node(0, None)
    for k in range(1, n):
        head = Node(k, head)
    return head
@njit
def total(node):
    sum = 0
    at = node
    while True:
        sum += at.value
        if at.next is None:
            return sum
        at = at.next
head = made(1000)
for _ in range(3):
    assert total(head) == 999 * 500
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_who_listens_hears():
    with event.install_recorder("numba:compile") as heard:
        numba.njit(lambda x: x + 1)(1)
    assert len(heard.buffer) >= 2


def test_how_long_variables_live_is_known_when_it_is_asked():
    code = run_frontend(shape_of)
    with target_override(quicker.TARGET):
        postproc.PostProcessor(code).run()
    light = code.variable_lifetime.livemap
    postproc.PostProcessor(code).run()
    assert light == code.variable_lifetime.livemap


def test_others_multiply_matrices():
    code = """
import numba, numpy as np
from zmtile.kernels.parts import target
target.typing_context.refresh()
target.target_context.refresh()
a = np.arange(4.0).reshape(2, 2)
assert np.array_equal(numba.njit(lambda a: a @ a)(a), a @ a)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
