"""Turns a strategy's plain functions into Numba ones, unchanged. For validation's worker processes: the live process never calls it.

A step calls other plain functions by their global names; Numba cannot call those, so each is compiled first and a copy of the caller is
made whose globals hold the compiled ones. The modules themselves stay as they are: live code goes on calling the plain functions.
Import helpers by name (`from modules.strategies.indicators import ema`): a function reached as a module's attribute is not found here.

Machine code may be kept in a folder between runs. Numba's own cache knows a function by its file and line, which copies with different
globals share, and so do the two forms of one function, with a door from Python and without: loading the wrong one ends the process. Here
it is known by a digest of everything it is made of.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, Final

import numpy as np

from modules.domain.signal import Intent

WITHIN: Final[Mapping[str, bool]] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of a function that only compiled ones call: doors from Python would be a fifth of the time compilation takes."""


def prefetch(array: Any, row: int) -> None:
    """Ask for `array[row]` before it is wanted. A hint to the processor and nothing else: compiled it becomes one instruction, no value
    hangs on it, and plain Python has no use for it. `row` need not be in the array."""


def cache_folder() -> Path | None:
    """Where machine code is kept between processes: KERNEL_CACHE, else the user's cache folder; an empty KERNEL_CACHE keeps none."""
    asked = os.environ.get("KERNEL_CACHE")
    if asked is not None:
        return Path(asked) if asked else None
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return home / "kernels" if home.is_absolute() else None


def short_intents(function: Callable[..., Any]) -> str:
    """Where `function`, or a plain function it calls, leaves values of an Intent to their defaults, which compiled code does not fill in:
    a line with the remedy for who wrote it, "" = nowhere. Reads their source; what has none is passed over."""
    for one in _closure([function]):
        try:
            lines, first = inspect.getsourcelines(one)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, SyntaxError):
            continue
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and one.__globals__.get(call.func.id) is Intent:
                given = [*call.args, *call.keywords]
                if len(given) < len(Intent._fields) and not any(isinstance(value, ast.Starred) for value in call.args):
                    where = f"{Path(one.__code__.co_filename).name}, line {first + call.lineno - 1}"
                    return (f"{where}: {ast.unparse(call)} gives {len(given)} of an Intent's {len(Intent._fields)} values, and compiled "
                            "code knows no defaults; write Intent(score, stop, target, hold) with all of them, 0.0 for no target and 0 "
                            "for no limit of holding")
    return ""


def compiled(function: Callable[..., Any], *, replace: Mapping[str, Callable[..., Any]] | None = None, folder: Path | None = None,
             **options: Any) -> Callable[..., Any]:
    """`function` and every plain function it refers to, compiled in nopython mode. `options` go to `numba.njit`.

    `replace` puts other plain functions in the place of global names of `function` and what it calls, and has them inlined; `folder`
    keeps machine code between processes. Raises ImportError without Numba, TypeError if `function` is not a plain Python function.
    Compilation itself is lazy: types that do not fit raise numba.core.errors.TypingError at the first call.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"only a plain Python function can be compiled, not {function!r}")
    njit = importlib.import_module("numba").njit
    replaced = dict(replace or {})
    done: dict[FunctionType, Callable[..., Any]] = {}
    inlined = set(_closure(list(replaced.values())))

    def build(source: FunctionType) -> Callable[..., Any]:
        if source in done:
            return done[source]
        if source is prefetch:
            done[source] = _prefetching()
            return done[source]
        names = dict(source.__globals__)
        for name, value in called(source, replaced):
            names[name] = build(value)
        copy = FunctionType(source.__code__, names, source.__name__, source.__defaults__, source.__closure__)
        copy.__qualname__ = source.__qualname__
        copy.__module__ = source.__module__
        copy.__kwdefaults__ = source.__kwdefaults__
        chosen = dict(options)
        if source is not function:
            chosen |= WITHIN
        if source in inlined:
            chosen["forceinline"] = True
        result: Callable[..., Any] = njit(copy, **chosen)
        done[source] = result
        return result

    result = build(function)
    if folder is not None:
        keep(result, folder, code_digest(function, replaced, str(sorted(options.items()))))
    return result


def _prefetching() -> Callable[..., Any]:
    """`prefetch` as Numba has it: llvm.prefetch of the address, which never faults (LLVM Language Reference)."""
    ir = importlib.import_module("llvmlite.ir")
    extending, types = importlib.import_module("numba.extending"), importlib.import_module("numba.core.types")
    arrays = importlib.import_module("numba.np.arrayobj")

    def prefetching(typing: Any, array: Any, row: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            held = arrays.make_array(signature.args[0])(context, builder, arguments[0])
            number = context.cast(builder, arguments[1], signature.args[1], types.intp)
            place = builder.add(builder.ptrtoint(held.data, ir.IntType(64)), builder.mul(number, held.itemsize))
            pointer = builder.inttoptr(place, ir.IntType(8).as_pointer())
            function = builder.module.declare_intrinsic(
                "llvm.prefetch", [pointer.type], ir.FunctionType(ir.VoidType(), [pointer.type, *[ir.IntType(32)] * 3]))
            builder.call(function, [pointer, *(ir.IntType(32)(number) for number in (0, 3, 1))])  # to read, to keep, data
            return context.get_dummy_value()

        return types.none(array, row), emit

    found: Callable[..., Any] = extending.intrinsic(prefetching)
    return found


def _closure(functions: list[Any]) -> Iterator[FunctionType]:
    """The functions and all that they call."""
    seen: set[FunctionType] = set()
    while functions:
        function = functions.pop()
        if isinstance(function, FunctionType) and function not in seen:
            seen.add(function)
            yield function
            functions.extend(value for _, value in called(function, {}))


def called(function: FunctionType, replaced: Mapping[str, Callable[..., Any]]) -> Iterator[tuple[str, FunctionType]]:
    """The plain functions a function refers to by global names."""
    for name in function.__code__.co_names:
        value = replaced.get(name, function.__globals__.get(name))
        if isinstance(value, FunctionType) and value is not function:
            yield name, value


def code_digest(function: Callable[..., Any], replace: Mapping[str, Callable[..., Any]] | None = None, *more: str) -> str:
    """sha256 over the code of a function, of every plain function it refers to and of the constants they use: what it computes hangs on
    nothing else. Comments, names of local variables and the file's place do not count."""
    total = hashlib.sha256("|".join((sys.version, *more)).encode())
    replaced = dict(replace or {})
    seen: set[FunctionType] = set()

    def add(source: FunctionType) -> None:
        if source in seen:
            return
        seen.add(source)
        total.update(_code(source.__code__).encode())
        total.update(repr((source.__defaults__, source.__kwdefaults__)).encode())
        for name in source.__code__.co_names:
            value = replaced.get(name, source.__globals__.get(name))
            if isinstance(value, (bool, int, float, str, bytes, tuple, np.generic)):
                total.update(f"{name}={value!r}".encode())
            elif isinstance(value, type):
                fields = getattr(value, "_fields", ())
                total.update(f"{name}={value.__qualname__}{fields!r}{getattr(value, '_field_defaults', {})!r}".encode())
        for name, value in called(source, replaced):
            total.update(name.encode())
            add(value)

    assert isinstance(function, FunctionType)
    add(function)
    return total.hexdigest()


def _code(code: CodeType) -> str:
    constants = [_code(constant) if isinstance(constant, CodeType) else repr(constant) for constant in code.co_consts]
    return f"{code.co_code.hex()}|{code.co_names}|{code.co_argcount}|{constants}"


def keep(dispatcher: Any, folder: Path, digest: str) -> None:
    """Let a compiled function load and save its machine code in `folder` under `digest`. The folder holds pickles: it must be ours."""
    caching = importlib.import_module("numba.core.caching")
    numba = importlib.import_module("numba")

    class Apart(caching.IndexDataCacheFile):  # type: ignore[name-defined, misc]
        """Numba numbers the files of a function's signatures, and two processes that save at once take one number for two signatures:
        whoever loads it next runs the wrong code. Here a signature has a name of its own, and the worst is that one is compiled again."""

        def save(self, key: object, data: object) -> None:
            name = f"{self._index_name[:-4]}.{hashlib.sha256((repr(key) + origins(key)).encode()).hexdigest()[:16]}.nbc"
            self._save_data(name, data)
            self._save_index({**self._load_index(), key: name})

    class Kept(caching.FunctionCache):  # type: ignore[name-defined, misc]
        """Numba's cache with a name of our own in place of file and line."""

        def __init__(self, py_func: FunctionType) -> None:
            place = folder / digest[:2]
            self._name, self._py_func, self._cache_path = repr(py_func), py_func, str(place)
            self._impl = object.__new__(caching.CompileResultCacheImpl)
            self._cache_file = Apart(
                cache_path=str(place), filename_base=f"{py_func.__name__}-{digest[:32]}", source_stamp=numba.__version__)
            place.mkdir(parents=True, exist_ok=True)
            self._impl._locator = _Place(str(place))
            self.enable()

    dispatcher._cache = Kept(dispatcher.py_func)


def origins(key: Any) -> str:
    """Where the named tuples of a signature are from: two modules may have one of the same name, a program run as `__main__` its own."""
    return "".join(str(getattr(getattr(one, "instance_class", None), "__module__", "")) for one in key[0])


class _Place:
    """Where Numba's cache may write: made by `keep`."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ensure_cache_path(self) -> None:
        Path(self._path).mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return self._path
