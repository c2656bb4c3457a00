"""Which strategies there are: every module of this folder that has a module-level `STRATEGY`.

A strategy that cannot be used is quarantined, not fatal: it is reported by file name with its fault, and the others go on. Faults are of
the kind a module can be read for: it does not import, it has no `STRATEGY`, its declaration contradicts itself. Whether it is any good is
for validation to say.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, MappingProxyType, ModuleType

from modules.domain.errors import NotFound
from modules.domain.signal import Structure
from modules.runtime.supervise import attempt
from modules.strategies.protocol import Strategy

FOLDER = Path(__file__).resolve().parent
PACKAGE = "modules.strategies"
LIBRARY = frozenset({"__init__", "compiled", "fingerprint", "holding", "indicators", "protocol", "registry"})
"""Modules of the folder that are no strategies. A helper of the user's own is left alone if its name begins with an underscore."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What was found: usable strategies by name, and one line per quarantined file."""

    strategies: Mapping[str, Strategy]
    faults: tuple[str, ...]


def discover(folder: Path = FOLDER, package: str = PACKAGE) -> Catalog:
    """Import every module of `folder` as `package`.NAME, in order of name. Of two strategies with one name the second is a fault."""
    strategies: dict[str, Strategy] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.py")):
        if path.stem in LIBRARY or path.stem.startswith("_"):
            continue
        module, error = attempt(_load, path, f"{package}.{path.stem}")
        if error is not None:
            faults.append(f"{path.name}: does not import: {type(error).__name__}: {error}{_line_of(error, path)}")
            continue
        strategy = getattr(module, "STRATEGY", None)
        if not isinstance(strategy, Strategy):
            faults.append(f"{path.name}: has no module-level STRATEGY of type Strategy")
            continue
        found, error = attempt(contradictions, strategy)
        if found is None:  # a declaration of the wrong types
            found = [f"its declaration cannot be read: {type(error).__name__}: {error}"]
        if strategy.name in strategies:
            found.append(f"the name {strategy.name!r} is taken by another file")
        if found:
            faults.extend(f"{path.name}: {fault}" for fault in found)
            continue
        strategies[strategy.name] = strategy
    return Catalog(MappingProxyType(strategies), tuple(faults))


def contradictions(strategy: Strategy) -> list[str]:
    """Everything in a declaration that cannot be meant: one line each, empty when it can be used."""
    faults = []
    fields: tuple[str, ...] = getattr(strategy.params, "_fields", ())
    if not strategy.name.isidentifier():
        faults.append(f"name {strategy.name!r} is not an identifier")
    if not fields:
        faults.append("params must be a NamedTuple with at least one field")
    if not strategy.asset_classes:
        faults.append("asset_classes is empty: it could trade nothing")
    if strategy.warmup < 0:
        faults.append(f"warmup {strategy.warmup} is negative")
    if strategy.htf_multiple < 2:
        faults.append(f"htf_multiple {strategy.htf_multiple}: a higher timeframe has at least two bars")
    if strategy.interval_ms is not None and strategy.interval_ms < 1000:
        faults.append(f"interval_ms {strategy.interval_ms} is not a bar length")
    for name in ("init", "step"):
        if not isinstance(getattr(strategy, name), FunctionType):
            faults.append(f"{name} must be a plain function (a method or an object cannot be compiled)")
    for name, values in strategy.space.items():
        if name not in fields:
            faults.append(f"space names {name!r}, which is no parameter ({', '.join(fields)})")
            continue
        default = getattr(strategy.params, name)
        if not values:
            faults.append(f"space of {name!r} is empty")
        elif any(type(value) is not type(default) for value in values):
            faults.append(f"space of {name!r} must hold {type(default).__name__} values like its default {default!r}")
    if strategy.structure is not Structure.SINGLE:
        if not strategy.days > 0.0:
            faults.append(f"{strategy.structure} needs days to expiry > 0, not {strategy.days!r}")
        if not 0.0 < strategy.delta < 1.0:
            faults.append(f"{strategy.structure} needs a delta between 0 and 1, not {strategy.delta!r}")
    if strategy.structure.sells and not (strategy.width > 0.0 and math.isfinite(strategy.width)):
        faults.append(f"{strategy.structure} needs a width > 0, not {strategy.width!r}")
    return faults


@cache
def catalog() -> Catalog:
    """The strategies of this installation, imported once per process."""
    return discover()


def all_strategies() -> Mapping[str, Strategy]:
    """Usable strategies by name, in order of file name."""
    return catalog().strategies


def faults() -> tuple[str, ...]:
    """One line per quarantined strategy file, empty when there is none."""
    return catalog().faults


def get(name: str) -> Strategy:
    """The strategy of that name. Raises NotFound, which says what it could have been, or why it is quarantined."""
    found = all_strategies()
    if name in found:
        return found[name]
    raise NotFound(not_found(name, found, faults()))


def not_found(name: str, known: Mapping[str, Strategy], quarantined: Sequence[str]) -> str:
    """The message for a name that is not there: its own fault first, else the nearest name, else all of them."""
    own = [fault for fault in quarantined if fault.startswith(f"{name}.py:")]
    if own:
        return f"strategy {name!r} is quarantined: {'; '.join(own)}"
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    return f"no strategy named {name!r}; {hint}"


def _load(path: Path, name: str) -> ModuleType:
    """Import one file under `name`; a module that failed leaves nothing behind, so that a repaired one can be tried again."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    done = False
    try:
        spec.loader.exec_module(module)
        done = True
    finally:
        if not done:
            del sys.modules[name]
    return module


def _line_of(error: BaseException, path: Path) -> str:
    """Where in the user's own file it happened: " (line 12)", or nothing if it cannot be told."""
    if isinstance(error, SyntaxError):
        return ""  # its message says so already
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f" (line {lines[-1]})" if lines and lines[-1] else ""
