"""Work for the tests of the pool: small functions that can be sent to another process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def product(matrix: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Thousands of roundings: another order of additions would show."""
    rows = matrix @ np.linspace(0.1, seed + 1.0, matrix.shape[1])
    return np.asarray(np.cumsum(np.sin(rows)) / 3.0)


def slow(seconds: float) -> int:
    """Takes `seconds` of sleep in small steps; the process that did it."""
    time.sleep(seconds)
    return os.getpid()


def held(folder: Path) -> int:
    """Leaves a mark and waits until it may go on; the process that did it."""
    (folder / f"begun {os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    return os.getpid()


def begun_forever(mark: Path) -> None:
    mark.touch()
    forever()


def forever() -> None:
    while True:
        pass


def wrong(word: str) -> None:
    raise ValueError(f"does not like {word}")


def noisy(word: str) -> str:
    print(word)
    return word


def dies_once(mark: Path) -> str:
    """Kills its own process the first time it is run."""
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def always_dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def counted(folder: Path, name: str) -> dict[str, Any]:
    """Leaves one mark per call."""
    (folder / f"{name}.{time.monotonic_ns()}").touch()
    return {"name": name, "pair": (1, 2.5), "bad": float("nan"), "many": np.arange(3.0)}


def threads() -> str:
    return os.environ["NUMBA_NUM_THREADS"]


def unsendable() -> Any:
    return lambda: None
