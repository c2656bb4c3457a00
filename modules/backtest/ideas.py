"""What a strategy's code amounts to once names, numbers and layout are taken away: how the trial registry recognizes an idea. Pure.

An idea is the multiset of the statements of `init`, `step` and every plain function they reach. Names, constants, comments, annotations,
docstrings, layout and the order of functions and statements do not count; operators, calls and the market's fields do.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, Final

from modules.domain.market import ChainSlice
from modules.strategies.protocol import Market, Strategy

_DATA: Final = frozenset(Market._fields) | frozenset(getattr(ChainSlice, "_fields", ()))
"""Attributes that are the market's own words: which of them is read is the idea."""
_WORD: Final = 10
"""Characters of a statement's hash that are kept."""


def fingerprint(strategy: Strategy) -> str:
    """The idea as text: sorted hashes of its statements. Code without readable source is taken by its bytecode."""
    words: Counter[str] = Counter()
    for function in reached((strategy.init, strategy.step)):
        words.update(_statements(function))
    return " ".join(sorted(words.elements()))


def likeness(one: str, other: str) -> float:
    """Share of statements two fingerprints have in common, [0, 1] (Dice coefficient of the multisets)."""
    left, right = Counter(one.split()), Counter(other.split())
    total = left.total() + right.total()
    return 2.0 * (left & right).total() / total if total else 1.0


def reached(functions: Sequence[Any]) -> list[FunctionType]:
    """The plain functions among `functions` and all that they call by global name, each once, in order of discovery."""
    found: list[FunctionType] = []
    waiting = [function for function in functions if isinstance(function, FunctionType)]
    while waiting:
        function = waiting.pop(0)
        if function not in found:
            found.append(function)
            names = (function.__globals__.get(name) for name in function.__code__.co_names)
            waiting.extend(called for called in names if isinstance(called, FunctionType))
    return found


def _statements(function: FunctionType) -> Iterator[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError, TypeError):
        yield hashlib.sha256(function.__code__.co_code).hexdigest()[:_WORD]
        return
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        yield _word(definition)
        return
    for statement in _leaves(definition.body):
        yield _word(statement)


def _leaves(body: Sequence[ast.stmt]) -> Iterator[ast.AST]:
    """Simple statements, and of compound ones their conditions."""
    for statement in body:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        if isinstance(statement, ast.Pass):
            continue
        if isinstance(statement, ast.If | ast.While):
            yield statement.test
            yield from _leaves(statement.body)
            yield from _leaves(statement.orelse)
        elif isinstance(statement, ast.For):
            yield statement.iter
            yield from _leaves(statement.body)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            yield ast.Assign(targets=[statement.target], value=statement.value)
        else:
            yield statement


def _word(node: ast.AST) -> str:
    return hashlib.sha256(_shape(node).encode()).hexdigest()[:_WORD]


def _shape(node: Any) -> str:
    """A node's structure without its names and numbers."""
    match node:
        case ast.Name() | ast.arg():
            return "n"
        case ast.Constant():
            return "c"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant()):
            return "c"
        case ast.Attribute(value=value, attr=attr):
            return f"{_shape(value)}.{attr if attr in _DATA else 'a'}"
        case ast.keyword(value=value):
            return _shape(value)
        case ast.AST():
            parts = (f"{_shape(value)}" for name, value in ast.iter_fields(node) if name not in ("ctx", "type_comment", "kind"))
            return f"{type(node).__name__}({','.join(parts)})"
        case list():
            return f"[{','.join(map(_shape, node))}]"
    return "" if node is None or isinstance(node, str | int | float) else str(node)
