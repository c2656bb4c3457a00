"""Finished tasks on disk, so that an interrupted validation goes on where it was. Owns state/validation/results.

A result is kept under its task's key, which names everything it depends on; a file that is damaged, foreign or of an older program is as
good as none. Plain data only (numbers, text, lists, tuples, mappings, NumPy arrays): nothing read here can run code.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections import deque
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from modules.backtest.workers import Ending, Executor, Outcome, Task
from modules.runtime.supervise import attempt

_SKELETON: Final = "skeleton"


class Kept:
    """An executor that answers from `folder` what was computed before, and keeps what `executor` computes now.

    Only what ended well is kept: a time-out or a killed worker may be the machine's fault and is tried again next time. Above `bytes_max`
    the files that were not asked for longest go first.
    """

    def __init__(self, executor: Executor, folder: Path, bytes_max: int = 500_000_000) -> None:
        self._executor = executor
        self._folder = folder
        self._known: deque[tuple[Task, Outcome]] = deque()
        self.reused = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._prune(bytes_max)

    def share(self, key: str, value: Any) -> None:
        self._executor.share(key, value)

    def submit(self, task: Task) -> None:
        path = self._path(task)
        value, error = attempt(_read, path) if path.is_file() else (None, OSError())
        if error is None:
            os.utime(path)
            self.reused += 1
            self._known.append((task, Outcome(Ending.DONE, value)))
        else:
            self._executor.submit(task)

    def next(self) -> tuple[Task, Outcome]:
        if self._known:
            return self._known.popleft()
        task, outcome = self._executor.next()
        if outcome.ending is Ending.DONE:
            self._write(task, outcome.value)
        return task, outcome

    def close(self) -> None:
        self._executor.close()

    def _path(self, task: Task) -> Path:
        return self._folder / f"{task.key}.npz"

    def _write(self, task: Task, value: Any) -> None:
        """Whole or not at all: a crash between two files leaves the old state. Two processes with one key write the same bytes."""
        arrays: list[NDArray[Any]] = []
        skeleton = json.dumps(_taken_apart(value, arrays)).encode()
        held = io.BytesIO()
        contents: dict[str, Any] = {_SKELETON: np.frombuffer(skeleton, dtype=np.uint8)}
        contents.update((f"a{n}", array) for n, array in enumerate(arrays))
        np.savez(held, **contents)
        path = self._path(task)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        temporary.write_bytes(held.getvalue())
        temporary.replace(path)

    def _prune(self, bytes_max: int) -> None:
        files = sorted(self._folder.glob("*.npz"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > bytes_max:
                path.unlink(missing_ok=True)
        for path in self._folder.glob("*.part"):
            path.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return _put_together(json.loads(arrays[_SKELETON].tobytes()), arrays)


def _taken_apart(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """JSON with marks where arrays, tuples and numbers JSON has no word for stood."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, np.generic):
        return _taken_apart(value.item(), arrays)
    if isinstance(value, float):
        return {"float": value.hex()} if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, tuple):
        return {"tuple": [_taken_apart(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_taken_apart(item, arrays) for item in value]
    if isinstance(value, dict):
        return {"dict": [[_taken_apart(key, arrays), _taken_apart(item, arrays)] for key, item in value.items()]}
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"a task's result may hold plain data only, not {type(value).__name__}")


def _put_together(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_put_together(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, inner), = value.items()
    match kind:
        case "array":
            return arrays[f"a{inner}"]
        case "float":
            return float.fromhex(inner) if "0x" in inner else float(inner)
        case "tuple":
            return tuple(_put_together(item, arrays) for item in inner)
        case "dict":
            return {cast("Any", _put_together(key, arrays)): _put_together(item, arrays) for key, item in inner}
    raise ValueError(f"unknown mark {kind!r}")
