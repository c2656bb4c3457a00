"""Turns a strategy's plain functions into Numba ones, unchanged. For validation's worker processes: the live process never calls it.

A step calls other plain functions by their global names; Numba cannot call those, so each is compiled first and a copy of the caller is
made whose globals hold the compiled ones. The modules themselves stay as they are: live code goes on calling the plain functions.
Import helpers by name (`from modules.strategies.indicators import ema`): a function reached as a module's attribute is not found here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import FunctionType
from typing import Any


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`function` and every plain function it refers to, compiled in nopython mode. `options` go to `numba.njit`.

    Raises ImportError without Numba, TypeError if `function` is not a plain Python function. Compilation itself is lazy: types that
    do not fit raise numba.core.errors.TypingError at the first call.
    """
    if not isinstance(function, FunctionType):
        raise TypeError(f"only a plain Python function can be compiled, not {function!r}")
    njit = importlib.import_module("numba").njit
    done: dict[FunctionType, Callable[..., Any]] = {}

    def build(source: FunctionType) -> Callable[..., Any]:
        if source in done:
            return done[source]
        names = dict(source.__globals__)
        for name in source.__code__.co_names:
            value = names.get(name)
            if isinstance(value, FunctionType) and value is not source:
                names[name] = build(value)
        copy = FunctionType(source.__code__, names, source.__name__, source.__defaults__, source.__closure__)
        copy.__qualname__ = source.__qualname__
        copy.__module__ = source.__module__
        copy.__kwdefaults__ = source.__kwdefaults__
        result: Callable[..., Any] = njit(copy, **options)
        done[source] = result
        return result

    return build(function)
