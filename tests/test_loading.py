"""Kernels are loaded without numba: only for the very types they were made for, and only if all is well."""

import hashlib
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_group import GroupSpec, write_group
from numba.core.errors import TypingError

from zmtile.kernels import Kernel, compiling, kernel, loading
from zmtile.kernels.loading import Code, types_of


def total(a, offset, weight, others):
    """Use arrays, numbers, None and a tuple of arrays."""
    result = 0.0
    for k in range(a.size):
        result += float(a.flat[k])
    if weight is not None:
        result *= weight
    for other in others:
        result += other[0]
    return result + offset


def spoiling(values):
    """Fail, with an exception of Python."""
    if values[0] > 0:
        raise ValueError("too large")
    values[0] = 1.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for kernels."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_compiler(monkeypatch):
    """numba, which must not be asked."""

    def refuse(*arguments):
        raise AssertionError("numba was asked")

    return lambda: monkeypatch.setattr(compiling, "compiled", refuse)


ARGUMENTS = (np.arange(6.0).reshape(2, 3), 1, 2.0, (np.ones(2), np.ones(3)))


def test_what_one_kernel_compiles_another_loads_and_returns_the_same(folder, no_compiler):
    made = kernel(total)(*ARGUMENTS)
    no_compiler()
    assert kernel(total)(*ARGUMENTS) == made == 33.0


A = np.arange(24, dtype=np.float32).reshape(4, 6)
READ_ONLY = A.copy()
READ_ONLY.flags.writeable = False
UNALIGNED = np.frombuffer(b"x" + A.tobytes(), np.uint8)[1:].view(np.float32).reshape(4, 6)
VARIANTS = {
    "another dtype": A.astype(np.float64),
    "an integer of the same size": A.astype(np.int32),
    "unsigned": A.astype(np.uint32),
    "columns first": np.asfortranarray(A),
    "with gaps": A[:, ::2],
    "a row": A[0],
    "read only": READ_ONLY,
    "unaligned": UNALIGNED,
    "the other byte order": A.astype(">f4"),
    "a subclass": A.view(np.matrix),
    "masked": np.ma.array(A),
    "a list": [1.0, 2.0],
    "a number": 1.0,
    "half a float": A.astype(np.float16),
    "complex": A.astype(np.complex64),
    "dates": A.astype("datetime64[s]"),
    "fields": np.zeros((4, 6), [("x", "f4")]),
}


@pytest.mark.parametrize("other", VARIANTS.values(), ids=VARIANTS)
def test_code_is_never_called_with_an_argument_of_another_type(other):
    asked = []
    sums = kernel(total)
    sums._entry = lambda kinds, arguments: lambda *arguments: asked.append(arguments)
    rest = ARGUMENTS[1:]
    sums._entries[_kinds_of(A, *rest)] = lambda *arguments: "called"
    assert sums(A, *rest) == "called"
    assert sums(other, *rest) is None
    assert sums(A, 1, 2.0, (other, other)) is None
    assert types_of(_kinds_of(other)) != types_of(_kinds_of(A))
    assert len(asked) == 2


def _kinds_of(*arguments):
    seen = []
    probe = kernel(total)
    probe._entry = lambda kinds, arguments: lambda *arguments: seen.append(kinds)
    probe(*arguments)
    return seen[0]


@pytest.mark.parametrize(
    "arguments",
    [
        (A, 1.0, 2.0, ()),
        (A, 1, None, (A[0],)),
        (A, True, 2.0, (A[0],)),
        (A, 1, np.float32(2.0), (A[0],)),
        (A, 1, 2.0, (A[0], A[0])),
        (A, 1, 2.0, A[0]),
        (A, 1, 2.0),
    ],
)
def test_numbers_none_and_tuples_are_told_apart(arguments):
    assert types_of(_kinds_of(*arguments)) != types_of(_kinds_of(A, 1, 2.0, (A[0],)))


SCALARS = st.sampled_from(
    [1, 1.0, True, None, np.float32(1), np.float64(1), np.int32(1), np.uint8(1), np.bool_(1)]
)
ARRAYS = st.builds(
    lambda dtype, shape, order, step: np.zeros(shape, dtype, order)[::step],
    st.sampled_from(["f4", "f8", "i4", "i8", "u1", "u2", "?", "l", "q"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from("CF"),
    st.sampled_from([1, 2, -1]),
)


@given(st.lists(SCALARS | ARRAYS | st.tuples(ARRAYS, ARRAYS) | st.tuples(SCALARS), min_size=1, max_size=3))
def test_types_are_those_that_numba_sees(arguments):
    probe = compiling.dispatcher_of(kernel(spoiling))
    types = types_of(_kinds_of(*arguments))
    assert types is not None
    assert [compiling._numba_type(t) for t in types] == [probe.typeof_pyval(a) for a in arguments]


def test_numba_still_tells_what_is_wrong_with_arguments(folder):
    total_of = kernel(total)
    with pytest.raises(TypeError, match="not enough arguments"):
        total_of(A)
    with pytest.raises(TypingError):
        total_of(A.astype(">f4"), *ARGUMENTS[1:])
    with pytest.raises(TypingError, match="too large"):
        kernel(len_of)(2**70)
    assert kernel(len_of)(2**63) == 2**63
    assert kernel(len_of)(5) == 5


def len_of(number):
    """Return a number."""
    return number


def damaged(data):
    """Change one byte in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def of(**changes):
    """Change the content, with a sum that is right."""

    def change(data):
        name, code = pickle.loads(data[32:])
        data = pickle.dumps(
            (changes.get("file", name), tuple(Code(*code)._replace(**changes.get("code", {}))))
        )
        return hashlib.sha256(data).digest() + data

    return change


@pytest.mark.parametrize(
    "change",
    [
        damaged,
        lambda data: b"",
        lambda data: data[:-100],
        lambda data: b"\0" * len(data),
        of(file="another.zmk"),
        of(code={"needs": {"no_such_function": "no_such_function"}}),
        of(code={"needs": {"PyTuple_New": "numba_no_such_helper"}}),
        of(code={"name": "no_such_symbol"}),
        of(code={"environments": (("no_such_symbol", pickle.dumps([])),)}),
        lambda data: hashlib.sha256(b"no pickle").digest() + b"no pickle",
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_not_used_but_written_again(folder, change, caplog):
    caplog.set_level("DEBUG", "zmtile")
    expected = kernel(total)(*ARGUMENTS)
    (file,) = folder.rglob("*.zmk")
    good = file.read_bytes()
    file.write_bytes(change(good))
    assert loading.load(file, total) is None
    assert "is not used" in caplog.text
    assert kernel(total)(*ARGUMENTS) == expected
    assert loading.load(file, total)(*ARGUMENTS) == expected


@pytest.mark.parametrize("what", ["STAMP", "machine"])
def test_code_of_other_sources_or_for_another_machine_is_not_found(folder, monkeypatch, what):
    expected = kernel(total)(*ARGUMENTS)
    (file,) = folder.rglob("*.zmk")
    other = ("another",)
    monkeypatch.setattr(loading, what, (lambda: other) if what == "machine" else other)
    again = kernel(total)
    assert not again.compiled
    assert again(*ARGUMENTS) == expected
    assert again.compiled
    assert file.exists() == (what == "machine")  # a folder may be shared by machines, not by sources


def test_code_of_old_sources_goes_wherever_the_kernel_stood_in_them(folder, monkeypatch):
    kernel(total)(*ARGUMENTS)
    (old,) = folder.rglob("*.zmk")
    moved = lambda *a: 0.0  # noqa: E731
    moved.__code__ = total.__code__.replace(co_firstlineno=total.__code__.co_firstlineno + 1)
    moved.__name__, moved.__qualname__ = total.__name__, total.__qualname__
    loading.Place(moved).drop_old()
    assert old.exists()  # there may be two of one name
    monkeypatch.setattr(loading, "STAMP", ("another",))
    loading.Place(moved).drop_old()
    assert not old.exists()


def test_where_nothing_can_be_loaded_numba_does_it(folder, monkeypatch):
    monkeypatch.setattr(loading, "machine", lambda: None)
    assert kernel(total)(*ARGUMENTS) == 33.0
    assert not list(folder.rglob("*.zmk"))
    assert list(folder.rglob("*.nbc"))


def test_a_folder_that_cannot_be_written_is_read(folder):
    expected = kernel(total)(*ARGUMENTS)
    (file,) = folder.rglob("*.zmk")
    with pytest.raises(OSError, match="No such file"):
        loading.save(folder / "missing" / "x.zmk", Code("", (), {}, b""))
    file.chmod(0o400)
    assert loading.load(file, total)(*ARGUMENTS) == expected


def test_threads_that_need_a_kernel_at_once_load_it_once(folder, monkeypatch):
    expected = kernel(total)(*ARGUMENTS)
    loads = []
    original = loading.load
    monkeypatch.setattr("zmtile.kernels.load", lambda *a: loads.append(a) or original(*a))
    shared = kernel(total)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: shared(*ARGUMENTS), range(64))) == {expected}
    assert len(loads) == 1


def inner(x):
    """Be called by another kernel."""
    return x + 1.0


inner_kernel = kernel(inner)


def outer(x):
    """Call another kernel."""
    return inner_kernel(x) * 2.0


def test_code_that_was_first_compiled_as_a_part_of_another_kernel_is_kept_too(
    folder, no_compiler, monkeypatch
):
    part = kernel(inner)
    monkeypatch.setitem(outer.__globals__, "inner_kernel", part)
    compiling._worlds.pop(id(outer.__globals__), None)
    assert kernel(outer)(1.0) == 4.0
    assert part(1.0) == 2.0
    no_compiler()
    assert kernel(inner)(1.0) == 2.0
    compiling._worlds.pop(id(outer.__globals__), None)


def test_a_kernel_is_a_kernel(folder):
    assert isinstance(kernel(total), Kernel)
    assert kernel(total).__doc__ == total.__doc__


ALONE = """
import sys
import numpy as np
from zmtile.kernels import kernel
sys.path[:0] = {paths!r}
from test_loading import spoiling, total
raising, summing = kernel(spoiling), kernel(total)
values = np.zeros(2)
raising(values)
try:
    raising(values)
except ValueError as error:
    print(error, end=" ")
print(summing(np.ones(3), 1, 2.0, (np.ones(1),)), end=" ")  # numba is there now, and kernels go on
print(kernel(total)(np.ones(3, np.float32), 1, 2.0, (np.ones(1),)))
"""


def test_an_exception_of_loaded_code_is_raised_and_numba_can_join_later(folder):
    here = os.path.dirname(__file__)
    code = ALONE.format(paths=[here, os.path.join(os.path.dirname(here), "examples")])
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "too large 8.0 8.0\n"
        for file in folder.rglob("*total*.zmk"):  # the next one needs numba for this
            file.unlink()
            break


WITHOUT = """
import sys
from zmtile.cli import main
try:
    main()
finally:
    print([m for m in sys.modules if m.split(".")[0] == "numba"])
"""


def test_a_build_that_has_its_kernels_does_not_import_numba(tmp_path, folder):
    spec = GroupSpec(frames=6, rows=160, cols=200, stars=60)
    words = ["build", *write_group(spec, tmp_path / "group"), "--threads", "2", "-o"]
    outcome = {}
    for name in ("cold", "warm"):
        code = WITHOUT.replace("try:", "import os\nos._exit = sys.exit\ntry:")
        run = [sys.executable, "-c", code, *words, tmp_path / name]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        outcome[name] = done.stdout.splitlines()[-1]
    assert (tmp_path / "cold").read_bytes() == (tmp_path / "warm").read_bytes()
    assert "numba.core" in outcome["cold"]
    assert outcome["warm"] == "[]"


def test_arrays_from_other_processes_are_of_the_same_types():
    array = np.ones(3, np.float32)
    there = pickle.loads(pickle.dumps(array))
    kinds = [((a.dtype, a.ndim, a.flags.num),) for a in (array, there)]
    assert types_of(kinds[0]) == types_of(kinds[1]) is not None
