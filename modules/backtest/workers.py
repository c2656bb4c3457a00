"""Where validation computes: a pool of processes on this machine, or whatever else can take a task and give back its outcome.

Owns the processes it starts. A task is a function of its arguments alone, so where it ran and how often it was begun cannot show in the
result. A worker that dies loses nothing: its task is given to another one. A task that does not end is killed after the time-out and comes
back as HUNG; one that raises comes back as RAISED: neither stops the others. Refuses nothing.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Protocol, Self

from modules.backtest.worker import DROP, HOLD, LEAN, ONE_THREAD, PATH, TASK
from modules.runtime.clock import WallClock
from modules.runtime.supervise import attempt

ROOT: Final = Path(__file__).resolve().parents[2]
HELD_BYTES_MAX: Final = 400_000_000
"""What a worker keeps of shared objects; the longest unused go first."""


@dataclass(frozen=True, slots=True)
class Task:
    """One call. `key` identifies everything its result depends on: equal keys, equal results.

    `function` is a module's own function (it travels by name); it is called with the shared objects, then with `arguments`.
    """

    key: str
    label: str
    """For people: "trend on BTC/USDT"."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    shared: tuple[str, ...] = ()
    """Keys under which `Executor.share` was given large objects."""
    patience: float = 1.0
    """Multiple of the executor's time-out: compiling takes longer than running."""


class Ending(StrEnum):
    DONE = "done"
    RAISED = "raised"
    HUNG = "hung"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: `value` if DONE, else a sentence saying what happened."""

    ending: Ending
    value: Any = None
    message: str = ""


class Executor(Protocol):
    """Takes tasks, gives back outcomes in the order in which they end."""

    def share(self, key: str, value: Any) -> None:
        """Keep a large object for tasks that name `key`; it is sent once to where it is needed."""
        ...

    def submit(self, task: Task) -> None: ...

    def next(self) -> tuple[Task, Outcome]:
        """The next task that has ended. Waits; raises LookupError if nothing was submitted."""
        ...

    def close(self) -> None:
        """Stop whatever still runs."""
        ...


class Serial:
    """Everything in this process, one after the other: for small work and as the plainest definition of what a pool must give."""

    def __init__(self) -> None:
        self._shared: dict[str, Any] = {}
        self._waiting: deque[Task] = deque()

    def share(self, key: str, value: Any) -> None:
        self._shared[key] = value

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def next(self) -> tuple[Task, Outcome]:
        if not self._waiting:
            raise LookupError("no task was submitted")
        task = self._waiting.popleft()
        value, error = attempt(task.function, *(self._shared[key] for key in task.shared), *task.arguments)
        return task, Outcome(Ending.DONE, value) if error is None else Outcome(Ending.RAISED, None, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        self._waiting.clear()
        self._shared.clear()


class _Worker:
    """One child process with our end of its connection."""

    def __init__(self, nice: int) -> None:
        ours, theirs = socket.socketpair()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "modules.backtest.worker", str(theirs.fileno()), str(nice), str(os.getpid())], cwd=ROOT,
            pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors,
            env={**LEAN, **os.environ, **ONE_THREAD})
        theirs.close()
        self.connection = Connection(ours.detach())
        self.held: OrderedDict[str, int] = OrderedDict()
        self.task: Task | None = None
        self.began = 0
        self.connection.send((PATH, [path for path in sys.path if path]))

    def give(self, task: Task, shared: dict[str, Any], at: int) -> None:
        """Send the task and those of its shared objects the worker has not got. Raises OSError if the worker has gone."""
        self.task, self.began = task, at
        for key in task.shared:
            if key in self.held:
                self.held.move_to_end(key)
                continue
            message = pickle.dumps((HOLD, key, shared[key]), protocol=pickle.HIGHEST_PROTOCOL)
            self.connection.send_bytes(message)
            self.held[key] = len(message)
        while sum(self.held.values()) > HELD_BYTES_MAX and next(iter(self.held)) not in task.shared:
            self.connection.send((DROP, self.held.popitem(last=False)[0]))
        self.connection.send((TASK, task.function, task.shared, task.arguments))

    def end(self) -> str:
        """Kill it; how it ended, in words."""
        died = self.process.poll() is not None
        self.process.kill()
        code = self.process.wait()
        self.connection.close()
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        self._errors.close()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"worker {how}{f': {last}' if last and died else ''}"


class Pool:
    """`count` processes on this machine, begun when there is work for them, at priority `nice`.

    `timeout_s`: longest time one task may take. `attempts`: how often a task is begun before its workers' deaths are its own fault.
    """

    def __init__(self, count: int, *, timeout_s: float, attempts: int = 3, nice: int = 10) -> None:
        if count < 1:
            raise ValueError(f"a pool needs at least one worker, not {count}")
        self._count, self._timeout_ms, self._attempts, self._nice = count, timeout_s * 1000.0, attempts, nice
        self._clock = WallClock(start=0)  # never jumps
        self._shared: dict[str, Any] = {}
        self._waiting: deque[Task] = deque()
        self._begun: dict[str, int] = {}
        self._workers: list[_Worker] = []
        self._ended: deque[tuple[Task, Outcome]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def share(self, key: str, value: Any) -> None:
        self._shared[key] = value

    def submit(self, task: Task) -> None:
        self._waiting.append(task)
        self._assign()

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of the workers that live."""
        return tuple(worker.process.pid for worker in self._workers)

    def next(self) -> tuple[Task, Outcome]:
        while not self._ended:
            self._assign()
            busy = {worker.connection: worker for worker in self._workers if worker.task is not None}
            if not busy and not self._ended:
                raise LookupError("no task was submitted")
            now = self._clock.now()
            first = min((self._ends(worker) for worker in busy.values()), default=now)
            for ready in wait(list(busy), max(0.0, first - now) / 1000.0):
                assert isinstance(ready, Connection)
                self._receive(busy.pop(ready))
            now = self._clock.now()
            for worker in busy.values():
                if now >= self._ends(worker):
                    self._stop_hung(worker)
        return self._ended.popleft()

    def close(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._waiting.clear()
        self._ended.clear()

    def _ends(self, worker: _Worker) -> float:
        """When the worker's patience with its task ends."""
        assert worker.task is not None
        return worker.began + worker.task.patience * self._timeout_ms

    def _assign(self) -> None:
        """Every idle worker gets a task, if it can one whose shared objects it already holds."""
        while self._waiting:
            idle = [worker for worker in self._workers if worker.task is None]
            if not idle and len(self._workers) >= self._count:
                return
            found = next(((worker, task) for task in self._waiting for worker in idle
                          if task.shared and all(key in worker.held for key in task.shared)), None)
            if found is None and len(self._workers) < self._count:
                self._workers.append(_Worker(self._nice))
                continue
            worker, task = found if found is not None else (idle[0], self._waiting[0])
            self._waiting.remove(task)
            self._begun[task.key] = self._begun.get(task.key, 0) + 1
            try:
                worker.give(task, self._shared, self._clock.now())
            except OSError:  # it died idle
                self._bury(worker)

    def _receive(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None
        try:
            done, value = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        worker.task = None
        self._ended.append((task, Outcome(Ending.DONE, value) if done else Outcome(Ending.RAISED, None, str(value))))

    def _bury(self, worker: _Worker) -> None:
        """A worker has gone: its task is first in the queue again, unless it seems to be what kills them."""
        task = worker.task
        assert task is not None
        self._workers.remove(worker)
        how = worker.end()
        if self._begun[task.key] < self._attempts:
            self._waiting.appendleft(task)
        else:
            self._ended.append((task, Outcome(Ending.DIED, None, f"{how}, {self._begun[task.key]} times in a row")))

    def _stop_hung(self, worker: _Worker) -> None:
        task = worker.task
        assert task is not None
        self._workers.remove(worker)
        worker.end()
        allowed = task.patience * self._timeout_ms / 1000.0
        self._ended.append((task, Outcome(Ending.HUNG, None, f"did not end within {allowed:g} s and was stopped")))
