"""The child process of `workers.Pool`: takes tasks from its parent one at a time, computes, answers. Owns nothing and decides nothing.

Started as `python -m modules.backtest.worker DESCRIPTOR NICE PARENT` with one end of a socket pair. It ends when the parent does, even one
that died while this process was starting, leaves Ctrl-C to the parent, and uses one thread whatever library computes: two runs of one
task give the same bits.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any, Final

from modules.runtime.supervise import attempt

PATH: Final = "path"
HOLD: Final = "hold"
DROP: Final = "drop"
TASK: Final = "task"
_PR_SET_PDEATHSIG: Final = 1
ONE_THREAD: Final = dict.fromkeys(
    ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""Environment of a worker: a sum's order must not depend on how many cores there are."""
LEAN: Final = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "4000000", "MALLOC_TRIM_THRESHOLD_": "16000000"}
"""The same for the C library's memory: what a task has freed goes back to the system, not into a heap that keeps its largest size."""


def serve(connection: Connection) -> None:
    """Answer (True, value) or (False, "ErrorName: message") to every task until the connection ends."""
    held: dict[str, Any] = {}
    while True:
        try:
            message = connection.recv()
        except (EOFError, ConnectionError):
            return
        match message:
            case (str() as kind, paths) if kind == PATH:
                sys.path[:0] = [path for path in paths if path not in sys.path]
            case (str() as kind, key, value) if kind == HOLD:
                held[key] = value
            case (str() as kind, key) if kind == DROP:
                held.pop(key, None)
            case (str() as kind, function, shared, arguments) if kind == TASK:
                value, error = attempt(function, *(held[key] for key in shared), *arguments)
                answer = (True, value) if error is None else (False, f"{type(error).__name__}: {error}")
                _, unsendable = attempt(connection.send, answer)
                if isinstance(unsendable, ConnectionError):
                    return
                if unsendable is not None:
                    connection.send((False, f"{type(unsendable).__name__}: {unsendable}"))


def main(descriptor: int, nice: int, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # a step that loops for ever must not outlive whoever would have killed it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we could ask to be told
            return
    os.nice(nice)
    serve(Connection(descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
