"""The same tasks on a dask.distributed scheduler (`pip install distributed`). Owns its connection and nothing on the cluster.

Every cluster worker hands a task to a child process of its own, exactly as the local pool does: same time-out, same single thread, same
bits. Shared objects are tasks too, whose data the scheduler remembers, so that a worker that dies takes nothing along that cannot be had
again. Every machine needs this program at the same version: a worker with other code refuses.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

from modules.backtest.digests import program
from modules.backtest.workers import Ending, Outcome, Pool, Task
from modules.domain.errors import BotError, ConfigurationError
from modules.runtime.supervise import attempt

_here = threading.local()


class Cluster:
    """An `Executor` at a scheduler's `address` ("host:8786" or "tcp://host:8786"). `timeout_s`, `attempts`, `nice` as for `Pool`."""

    def __init__(self, address: str, *, timeout_s: float, attempts: int = 3, nice: int = 10,
                 connect_s: float = 10.0) -> None:
        try:
            distributed: Any = importlib.import_module("distributed")
        except ImportError:
            raise ConfigurationError([f"--cluster {address}: needs the package distributed; pip install distributed"]) from None
        try:
            self._client = distributed.Client(address, timeout=connect_s, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            fault = f"--cluster {address}: no scheduler answers there ({error}); start one with `dask scheduler`"
            raise ConfigurationError([fault]) from None
        self._options = (timeout_s, attempts, nice)
        self._attempts = attempts
        self._shared: dict[str, Any] = {}
        self._tasks: dict[Any, Task] = {}
        self._ended = distributed.as_completed(loop=self._client.loop)

    def share(self, key: str, value: Any) -> None:
        self._shared[key] = self._client.submit(_itself, value, key=f"shared-{key}", retries=self._attempts)

    def submit(self, task: Task) -> None:
        values = [self._shared[key] for key in task.shared]
        future = self._client.submit(_run, program(), self._options, task, *values, key=f"task-{task.key}", retries=self._attempts)
        self._tasks[future.key] = task
        self._ended.add(future)

    def next(self) -> tuple[Task, Outcome]:
        if not self._tasks:
            raise LookupError("no task was submitted")
        future = next(self._ended)
        task = self._tasks.pop(future.key)
        if future.status == "finished":
            outcome: Outcome = future.result()
        else:
            error = future.exception() if future.status == "error" else None
            outcome = Outcome(Ending.DIED, None, f"the cluster gave it up: {error or future.status}")
        future.release()
        return task, outcome

    def close(self) -> None:
        self._tasks.clear()
        self._shared.clear()
        self._client.close()


def _itself(value: Any) -> Any:
    return value


def _run(version: str, options: tuple[float, int, int], task: Task, *shared: Any) -> Outcome:
    """On a cluster's worker: through a pool of one process that this thread keeps."""
    if program() != version:
        raise BotError(f"this worker runs another version of the program ({program()[:12]}, wanted {version[:12]}); update it")
    pool: Pool | None = getattr(_here, "pool", None)
    if pool is None:
        timeout_s, attempts, nice = options
        pool = _here.pool = Pool(1, timeout_s=timeout_s, attempts=attempts, nice=nice)
    for key, value in zip(task.shared, shared, strict=True):
        pool.share(key, value)
    pool.submit(task)
    result, error = attempt(pool.next)
    if error is not None:
        raise error
    outcome: Outcome = result[1]
    return outcome
