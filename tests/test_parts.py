"""Kernels are made of parts: what kernels call is optimised and turned into machine code with them, once."""

import operator
import pickle

import numpy as np
import pytest
from numba import types
from numba.core.cpu import CPUContext
from numba.core.imputils import Registry

from zmtile.kernels import brief, compiling, inlined, kernel, loading
from zmtile.kernels.parts import Whole, target


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for kernels."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    yield tmp_path
    compiling._worlds.pop(id(globals()), None)


@pytest.fixture
def wholes(monkeypatch):
    """Kernels that are turned into machine code, as they come."""
    made = []

    class Counted(Whole):
        def __init__(self, part, brief=False):
            made.append(part.fndesc.qualname)
            super().__init__(part, brief)

    monkeypatch.setattr(compiling, "Whole", Counted)
    return made


def root_of(x):
    """Raise what has no root."""
    if x < 0:
        raise ValueError("below zero")
    return x**0.5


def all_roots(values):
    """Call another kernel, and numpy as numba knows it."""
    out = np.empty(values.size)
    for k in range(values.size):
        out[k] = part(values[k])
    return out, np.sort(out)[0]


part = kernel(root_of)
VALUES = np.array([9.0, 4.0])


def test_what_a_kernel_calls_gets_no_machine_code_of_its_own(folder, wholes):
    roots, least = kernel(all_roots)(VALUES)
    assert (roots.tolist(), least) == ([3.0, 2.0], 2.0)
    assert wholes == ["all_roots"]
    assert [path.name.split("-")[0] for path in folder.rglob("*.zmk")] == ["test_parts.all_roots"]
    for path in folder.rglob("*.nbc"):
        (_, kind, code), *_ = pickle.loads(path.read_bytes())
        assert (kind, code[:2]) == ("part", b"BC")  # of LLVM


def test_a_part_that_python_calls_as_well_is_made_whole(folder, wholes, monkeypatch):
    monkeypatch.setitem(all_roots.__globals__, "part", kernel(root_of))
    kernel(all_roots)(VALUES)
    assert part(4.0) == 2.0
    assert wholes == ["all_roots", "root_of"]


def test_a_part_that_raises_does_so_in_the_kernels_that_call_it(folder):
    with pytest.raises(ValueError, match="below zero"):
        kernel(all_roots)(-VALUES)


def test_of_parts_that_the_disk_has_another_kernel_is_made(folder, monkeypatch):
    kernel(all_roots)(VALUES)
    for path in folder.rglob("*.zmk"):
        path.unlink()
    compiling._worlds.pop(id(globals()), None)
    monkeypatch.setitem(all_roots.__globals__, "part", kernel(root_of))
    read = []
    original = compiling._Results.rebuild
    monkeypatch.setattr(compiling._Results, "rebuild", lambda *a: read.append(a) or original(*a))
    assert kernel(all_roots)(VALUES)[0].tolist() == [3.0, 2.0]
    assert len(read) == 1  # it has the other in it


def refuse(*arguments):
    """Fail where all went well."""
    raise ValueError("not so here")


@pytest.mark.parametrize("what", ["Whole", "_symbols", "linked"])
def test_what_cannot_be_linked_numba_runs_for_this_run(folder, monkeypatch, caplog, what):
    caplog.set_level("DEBUG", "zmtile")
    monkeypatch.setattr(compiling, what, refuse)
    monkeypatch.setitem(all_roots.__globals__, "part", kernel(root_of))
    try:
        whole = kernel(all_roots)
        roots, least = whole(VALUES)
        assert (roots.tolist(), least) == ([3.0, 2.0], 2.0)
        with pytest.raises(ValueError, match="below zero"):
            whole(-VALUES)
        assert part(4.0) == 2.0
        assert "all_roots is run by numba: ValueError('not so here')" in caplog.text
        assert not list(folder.rglob("*.zmk"))
    finally:
        compiling._own_worlds.pop(id(globals()), None)


def test_where_llvm_does_not_know_the_processor_nothing_is_kept(folder, monkeypatch):
    compiling.dispatcher_of(kernel(root_of)).compile((types.float64,))  # numba has asked before
    monkeypatch.setattr("llvmlite.binding.get_host_cpu_features", refuse)
    loading.machine.cache_clear()
    try:
        assert kernel(root_of)(4.0) == 2.0
        assert not list(folder.rglob("*.zmk"))
    finally:
        loading.machine.cache_clear()


def test_who_waited_for_a_kernel_loads_it(folder, wholes, monkeypatch):
    assert kernel(root_of)(4.0) == 2.0
    again, loads = kernel(root_of), []

    def miss_once(*arguments):
        loads.append(arguments)
        return loading.load(*arguments) if len(loads) > 1 else None

    monkeypatch.setattr("zmtile.kernels.load", miss_once)
    monkeypatch.setattr(compiling, "load", miss_once)
    monkeypatch.setattr(compiling.Turn, "take", lambda turn: True)
    assert again(4.0) == 2.0
    assert (len(loads), wholes) == (2, ["root_of"])


def test_an_inlined_kernel_is_not_called(folder, monkeypatch):
    monkeypatch.setitem(all_roots.__globals__, "part", inlined(root_of))
    compiled = compiling.dispatcher_of(kernel(all_roots))
    compiled.compile(tuple(compiled.typeof_pyval(a) for a in (VALUES,)))
    whole = Whole(next(iter(compiled.overloads.values())))
    assert not any("root_of" in f.name for f in whole.module.functions)


def test_a_brief_kernel_does_the_same_in_other_code(folder, monkeypatch):
    kept = []
    monkeypatch.setattr(compiling, "save", lambda path, code: kept.append(code.object_code))
    for made in kernel(all_roots), brief(all_roots):
        roots, least = made(VALUES)
        assert (roots.tolist(), least) == ([3.0, 2.0], 2.0)
    assert len(set(kept)) == 2


def test_what_is_registered_later_is_known(monkeypatch):
    context = target.target_context
    context.refresh()
    looked = []
    monkeypatch.setattr(CPUContext, "refresh", lambda self: looked.append(self))
    context.refresh()
    assert looked == []
    monkeypatch.setitem(context._registries, Registry("new"), None)
    context.refresh()
    assert looked == []
    next(reversed(context._registries)).functions.append(None)
    context.refresh()
    assert looked == [context]
    context.typing_context.registered = 0


def test_numba_is_asked_once_for_the_types_of_a_call(monkeypatch):
    target.typing_context.refresh()
    add = target.typing_context.resolve_value_type(operator.add)
    asked = []
    original = types.Function.get_call_type
    monkeypatch.setattr(types.Function, "get_call_type", lambda *a: asked.append(a) or original(*a))
    add._signatures.clear()
    for kinds in ([types.float32, types.float64], (types.float32, types.float64), (types.int64,) * 2) * 2:
        returned = add.get_call_type(target.typing_context, kinds, {}).return_type
        assert returned == (types.int64 if types.int64 in kinds else types.float64)
    assert len(asked) == 2


def test_functions_that_are_compiled_in_other_ways_are_not_taken_for_each_other():
    flags, same, other = (compiling.dispatcher_of(part)._compiler._customize_flags(None) for _ in range(3))
    assert flags == same
    assert hash(flags) == hash(same)
    other.forceinline = True
    assert flags != other
    assert flags != "flags"
