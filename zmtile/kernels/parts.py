"""What numba compiles kernels for: parts of object code, which it never runs itself.

For numba every function is compiled to the end: optimised, turned into machine code with a way in from
Python, and then once more as a part of each function that calls it. Most kernels are called by kernels
only, as are numba's own functions. So here a function becomes a part, which is LLVM's code as it comes;
a kernel that Python calls is put together from its parts, and that whole is optimised and turned into
machine code, once.

It is a target of numba's, beside the processor as numba sees it, whose typing and code it takes over.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from llvmlite.binding import Target, get_process_triple, parse_bitcode
from numba.core import externals
from numba.core.codegen import JITCodeLibrary, JITCPUCodegen
from numba.core.compiler import Flags
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.datamodel.models import OpaqueModel
from numba.core.descriptors import TargetDescriptor
from numba.core.dispatcher import Dispatcher
from numba.core.runtime import rtsys
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_registry
from numba.core.types import Function
from numba.core.typing import Context
from numba.extending import register_model

from zmtile.kernels.quicker import IN_PLACE_OF, TARGET, hurry

hurry()

__all__ = ["PART", "TARGET", "PartDispatcher", "Whole", "target"]


# Nobody calls a part but code. So the ways in from Python and C are not compiled.
PART = {"nopython": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class _Library(JITCodeLibrary):  # type: ignore[misc]  # numba has no types
    """The code of one function, and of all that it calls."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout
        # Wholes are optimised to the end. More of it here took longer, and kernels were no faster for it.
        passes, builder = self._codegen._function_pass_manager(opt=1)
        for function in module.functions:
            if not function.is_declaration:
                passes.run(function, builder)

    def finalize(self) -> None:
        """Add what is called, and nothing more."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._finalized = True

    def serialize_using_object_code(self) -> tuple[str, str, bytes]:
        """Return what is kept of a part, of which there is no object code."""
        return self.name, "part", self._get_module_for_linking().as_bitcode()

    @classmethod
    def _unserialize(cls, codegen: Any, state: tuple[str, str, bytes]) -> _Library:
        name, _, code = state
        library: _Library = codegen.create_library(name)
        library._final_module = library._shared_module = parse_bitcode(code)
        library._finalize_dynamic_globals()
        library._finalized = True
        return library


class _Codegen(JITCPUCodegen):  # type: ignore[misc]
    """Makes such libraries."""

    _library_class = _Library

    @cached_property
    def brief_machine(self) -> Any:
        """What makes machine code in a fifth of the time, and does not care how good it is."""
        options = {"opt": 0}
        self._customize_tm_options(options)
        return Target.from_triple(get_process_triple()).create_target_machine(**options)

    def set_env(self, name: str, environment: Any) -> None:
        """Nothing: what runs gets its environments where it is linked."""


class _Context(CPUContext):  # type: ignore[misc]
    """The processor, and code for it that is not run."""

    def init(self) -> None:
        """Make ready what makes code."""
        self.is32bit = False
        self._sizes: dict[Any, int] = {}
        self._internal_codegen = _Codegen("zmtile.kernels")
        externals.c_math_functions.install(self)

    def get_abi_sizeof(self, kind: Any) -> int:
        """Return the bytes of one of LLVM's types, which has to be asked by a module of its own."""
        if kind not in self._sizes:
            self._sizes[kind] = super().get_abi_sizeof(kind)
        return self._sizes[kind]

    def refresh(self) -> None:
        """Take in what has been registered meanwhile; numba looks for it long, and mostly finds nothing."""
        typing = self.typing_context
        count = _registered(self, typing)
        if typing.registered != count:
            super().refresh()
            typing.registered = _registered(self, typing)

    def get_executable(self, library: Any, description: Any, environment: Any) -> Any:
        """Return what stands for a part where others call it."""
        return object()


def _registered(*contexts: Any) -> int:
    """Return how many functions, attributes and the like are in registries, which only ever gain some."""
    return sum(
        len(items)
        for context in contexts
        for registry in context._registries
        for items in vars(registry).values()
        if isinstance(items, list)
    )


class _Function(Function):
    """A function of numba's that remembers for which types it was asked: of 14 searches, one is the first."""

    def __init__(self, templates: Any) -> None:
        super().__init__(templates)
        self._signatures: dict[tuple[Any, ...], Any] = {}

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        """Return the types of a call."""
        key = tuple(args)
        signature = None if kws else self._signatures.get(key)
        if signature is None:
            signature = super().get_call_type(context, args, kws)
            if not kws and all(kind.is_precise() for kind in key):
                self._signatures[key] = signature
        return signature

    def augment(self, other: Any) -> Any:
        """Return a function for more types."""
        return Function(self.templates).augment(other)


register_model(_Function)(OpaqueModel)


class _Typing(Context):  # type: ignore[misc]
    """What numba knows of types, with functions that remember."""

    def __init__(self) -> None:
        self._remembering: dict[Any, _Function] = {}
        self.registered = 0
        super().__init__()

    def _get_global_type(self, value: Any) -> Any:
        for known, own in IN_PLACE_OF.items():
            if value is known:
                return super()._get_global_type(own)
        return super()._get_global_type(value)

    def _lookup_global(self, value: Any) -> Any:
        found = super()._lookup_global(value)
        if type(found) is not Function:
            return found
        if found not in self._remembering:
            self._remembering[found] = _Function(found.templates)
        return self._remembering[found]


class _Flags(Flags):  # type: ignore[misc]
    """How a function is compiled; in numba, to compare two of these took a tenth of the time of compiling."""

    __slots__ = ()

    def __hash__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Flags) and self._values == other._values


class _Target(TargetDescriptor):  # type: ignore[misc]
    """The target, as dispatchers see it."""

    options = CPUTargetOptions

    @cached_property
    def typing_context(self) -> Any:
        """What knows the types of functions."""
        return _Typing()

    @cached_property
    def target_context(self) -> Any:
        """What makes code of them."""
        return _Context(self.typing_context, self._target_name)


class _Zmtile(CPU):  # type: ignore[misc]
    """The name of the target in numba's registries."""


target_registry[TARGET] = _Zmtile
target = _Target(TARGET)


class PartDispatcher(Dispatcher):
    """What numba sees of a part, for all types."""

    targetdescr = target

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        compiler: Any = self._compiler  # type: ignore[attr-defined]
        compiler._customize_flags = _Flags

    def add_overload(self, result: Any) -> None:
        """Know a part for more types."""
        self.overloads[tuple(result.signature.args)] = result


def _jit(**options: Any) -> Any:
    """Compile numba's own functions as parts, too."""
    return lambda function: PartDispatcher(function, targetoptions={**options, **PART})


jit_registry[_Zmtile] = _jit
dispatcher_registry[_Zmtile] = PartDispatcher


class Whole:
    """Object code of a part and all that it calls, with a way in from Python.

    Parameters
    ----------
    part : numba.core.compiler.CompileResult
    brief : bool
        It is made quickly rather than well; it does the same.
    """

    def __init__(self, part: Any, brief: bool = False) -> None:
        context = target.target_context.subtarget(enable_nrt=True)  # arrays have an owner
        codegen = context.codegen()
        library = codegen.create_library(part.fndesc.qualname)
        library.add_linking_library(part.library)
        library.add_linking_library(rtsys.library)
        context.create_cpython_wrapper(library, part.fndesc, part.environment, None, release_gil=True)
        library.finalize()
        if brief:
            passes, builder = codegen._module_pass_manager(opt=1, loop_vectorize=False, slp_vectorize=False)
            passes.run(library._final_module, builder)
        else:
            library._optimize_final_module()
        library._final_module.verify()
        self.module = library._final_module
        self.keepable = not (library.has_dynamic_globals or library._reload_init)
        machine = codegen.brief_machine if brief else codegen._tm
        self.object_code: bytes = machine.emit_object(library._final_module)
