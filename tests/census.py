"""What a process holds, written down at SIGUSR2: how many objects of each type, and how much lies in each container of our objects.

Run inside the process that is looked at (tests/hurried.py does, where CENSUS names a file). It stops the process for about a second. With
PYTHONTRACEMALLOC=1 in the environment it also says how many bytes each line of code holds.
"""

from __future__ import annotations

import gc
import json
import signal
import tracemalloc
from collections import Counter, deque
from pathlib import Path
from typing import Any

CONTAINERS = (dict, list, set, deque, frozenset)
OURS = ("modules", "main", "ccxt", "aiohttp", "__main__")


def held() -> dict[str, dict[str, int]]:
    """{"types": name -> objects, "containers": "Type.attribute" -> elements, "lines": "file:line" -> bytes}."""
    gc.collect()
    types: Counter[str] = Counter()
    containers: Counter[str] = Counter()
    for one in gc.get_objects():
        kind = type(one)
        types[f"{kind.__module__}.{kind.__qualname__}"] += 1
        if str(kind.__module__).split(".")[0] not in OURS:
            continue
        for name, value in _attributes(one):
            if isinstance(value, CONTAINERS):
                containers[f"{kind.__qualname__}.{name}"] += len(value)
    lines: Counter[str] = Counter()
    if tracemalloc.is_tracing():
        for one in tracemalloc.take_snapshot().statistics("lineno"):
            lines[f"{'/'.join(one.traceback[0].filename.split('/')[-3:])}:{one.traceback[0].lineno}"] += one.size
    return {"types": dict(types), "containers": dict(containers), "lines": dict(lines)}


def _attributes(one: Any) -> list[tuple[str, Any]]:
    found = list(vars(one).items()) if hasattr(one, "__dict__") and not isinstance(one, type) else []
    for slots in (getattr(kind, "__slots__", ()) for kind in type(one).__mro__):
        for name in (slots,) if isinstance(slots, str) else slots:
            found.append((name, getattr(one, name, None)))
    return found


def grown(first: dict[str, dict[str, int]], last: dict[str, dict[str, int]], most: int = 40) -> dict[str, list[str]]:
    """What there is more of, the most first."""
    return {part: [f"{name} {first[part].get(name, 0)} -> {count}" for name, count in sorted(
        last[part].items(), key=lambda item: first[part].get(item[0], 0) - item[1])[:most] if count > first[part].get(name, 0)]
        for part in first}


def on_signal(path: Path) -> None:
    """At each SIGUSR2 one line of JSON more in the file."""
    def write(*_: object) -> None:
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(held()) + "\n")

    signal.signal(signal.SIGUSR2, write)
