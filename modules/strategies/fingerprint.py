"""What a certificate means by "this code": one hash over a strategy's own functions, every function and constant they use. Pure.

Comments, docstrings and layout do not count; any name, number or statement does, in the step and in all its helpers, and so does the
declaration (bar length, warm-up, structure). Parameters are not code: a certificate names them itself.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import Enum
from types import CodeType, FunctionType
from typing import Any

from modules.strategies.protocol import Strategy


def code_hash(strategy: Strategy) -> str:
    """sha256, hex. Raises OSError if the source of one of its functions cannot be read."""
    declared = (strategy.interval_ms, strategy.htf_multiple, strategy.warmup, strategy.structure.value, strategy.days, strategy.delta,
                strategy.width)
    total = hashlib.sha256(repr(declared).encode())
    for line in _lines(strategy.init, strategy.step):
        total.update(line.encode())
        total.update(b"\n")
    return total.hexdigest()


def params_of(strategy: Strategy) -> dict[str, float]:
    """The parameters it runs with, as a certificate names them."""
    return {name: float(value) for name, value in strategy.params._asdict().items()}


def with_params(strategy: Strategy, params: Mapping[str, float]) -> Strategy | None:
    """The strategy with the parameters a certificate names; itself if it has them, None if they cannot be its parameters."""
    own = strategy.params._asdict()
    if set(params) != set(own):
        return None
    typed = {name: type(own[name])(value) for name, value in params.items()}
    if any(float(typed[name]) != value for name, value in params.items()):
        return None  # 96.5 in a whole number's place
    return strategy if typed == own else replace(strategy, params=strategy.params._replace(**typed))


def _lines(*roots: Any) -> Iterator[str]:
    """Each reachable function once, in the order of first use, with the constants and record types it names."""
    waiting, seen = [*roots], set()
    while waiting:
        function = waiting.pop(0)
        if function in seen:
            continue
        seen.add(function)
        yield _text(function)
        for name in sorted(_names(function.__code__)):
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType):
                waiting.append(value)
            elif isinstance(value, type):
                yield f"{name}: {getattr(value, '_fields', value.__name__)}"
            elif isinstance(value, bool | int | float | str | tuple | Enum):
                yield f"{name} = {value!r}"


def _names(code: CodeType) -> set[str]:
    """Global names that a function or one nested in it refers to."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _text(function: FunctionType) -> str:
    """A function's source without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None and len(node.body) > 1:
            node.body = node.body[1:]
    return ast.unparse(tree)
