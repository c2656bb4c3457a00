"""What a result depends on, as one short text: the program, a strategy's own code, its parameters, data and rules. Pure."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from modules.domain.canonical import digest
from modules.strategies.registry import FOLDER, LIBRARY

MODULES: Final = Path(__file__).resolve().parents[1]
_PACKAGES: Final = ("backtest", "domain", "runtime")


@cache
def program() -> str:
    """sha256 over the source of everything that computes: backtest, domain, runtime and the strategies' own library."""
    total = hashlib.sha256()
    files = [path for package in _PACKAGES for path in sorted((MODULES / package).glob("*.py"))]
    for path in (*files, *sorted(path for path in FOLDER.glob("*.py") if path.stem in LIBRARY)):
        total.update(f"{path.parent.name}/{path.name}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


@cache
def daemon() -> str:
    """sha256 over the source of the whole program: what a replay's result depends on."""
    total = hashlib.sha256()
    for path in (MODULES.parent / "main.py", *sorted(MODULES.rglob("*.py"))):
        total.update(f"{path.relative_to(MODULES.parent)}\n".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def of(*parts: Any) -> str:
    """One key for plain values and arrays; the order counts."""
    return hashlib.sha256("\n".join(_part(part) for part in parts).encode()).hexdigest()


def seed_of(*parts: Any) -> int:
    """A 63-bit seed that belongs to what it is for, not to where or when it runs."""
    return int(of(*parts)[:16], 16) >> 1


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, np.ndarray):
        return f"{part.dtype}{part.shape}{hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()}"
    if isinstance(part, list | tuple):
        return f"{type(part).__name__}({','.join(_part(item) for item in part)})"
    return digest(part)
