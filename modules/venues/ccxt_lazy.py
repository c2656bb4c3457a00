"""ccxt without the hundred exchanges nobody asked for: each is loaded when it is first named.

ccxt's three packages import every exchange they have, three times over: half a second of the processor and 55 MB in a process that wants
one of them, and half a second is a long time for a position that has no stop yet. ccxt itself is untouched: of a package's own source, the
statements "import this exchange's class" are left out and carried out at the first look. A package that is written in another way some day
holds no such statements: then it loads whole, as it always did.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Final

PACKAGES: Final = frozenset({"ccxt", "ccxt.async_support", "ccxt.pro"})


class _Package(ModuleType):
    """Its exchanges are attributes from the first look on: the class, as in ccxt, and never the module of the same name."""

    def __getattr__(self, name: str) -> Any:
        if name not in self.__dict__.get("_exchanges", ()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        importlib.import_module(f"{self.__name__}.{name}")
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in self.__dict__.get("_exchanges", ()):  # what importing a submodule does
            value = getattr(value, name)
        super().__setattr__(name, value)


class _Loader(SourceFileLoader):
    """Compiles the package without the statements that are left out; never from a cache of bytecode, nor into one."""

    def get_code(self, fullname: str) -> CodeType:
        tree = ast.parse(self.get_source(fullname) or "")
        self.exchanges = frozenset(word for statement in tree.body if (word := _exchange(statement, fullname)))
        tree.body = [statement for statement in tree.body if not _exchange(statement, fullname)]
        return compile(tree, self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Package
        super().exec_module(module)
        module.__dict__["_exchanges"] = self.exchanges


def _exchange(statement: ast.stmt, package: str) -> str:
    """X where it says "from package.X import X", else ""."""
    if not isinstance(statement, ast.ImportFrom) or statement.level or len(statement.names) != 1:
        return ""
    word = statement.names[0]
    return word.name if word.asname is None and statement.module == f"{package}.{word.name}" else ""


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in PACKAGES else None
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(name, spec.loader.path)
        return spec


def install() -> None:
    """From now on ccxt is loaded so, where it is not loaded yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


__all__ = ["PACKAGES", "install"]
