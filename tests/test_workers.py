"""Where validation computes: nothing is lost when a worker dies, nothing waits for one that hangs, and where it ran cannot be seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modules.backtest import digests
from modules.backtest.kept import Kept
from modules.backtest.workers import Ending, Executor, Outcome, Pool, Serial, Task
from modules.domain.errors import ConfigurationError
from tests import worker_tasks
from tests.timing import PATIENCE_S, STORY_S

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(2, timeout_s=STORY_S, nice=0) as started:
        yield started


def task(name: str, function: Any, *arguments: Any, shared: tuple[str, ...] = ()) -> Task:
    return Task(name, name, function, arguments, shared)


def outcomes(executor: Executor, *tasks: Task) -> dict[str, Outcome]:
    for each in tasks:
        executor.submit(each)
    return {done.key: outcome for done, outcome in (executor.next() for _ in tasks)}


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.01)


def gone(process: int) -> bool:
    """Whether no such process runs; one that nobody buried does not run."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def matrices() -> list[Task]:
    return [task(f"product {seed}", worker_tasks.product, seed, shared=("matrix",)) for seed in range(6)]


def test_two_processes_give_the_bits_that_one_gives(pool: Pool) -> None:
    matrix = np.random.default_rng(7).standard_normal((300, 40))
    alone = Serial()
    for executor in (pool, alone):
        executor.share("matrix", matrix)
    here, there = outcomes(alone, *matrices()), outcomes(pool, *matrices())
    assert len(pool.processes) == 2
    for key, outcome in here.items():
        assert there[key].value.tobytes() == outcome.value.tobytes()


def test_a_worker_computes_with_one_thread_and_its_prints_do_not_reach_our_output(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    found = outcomes(pool, task("threads", worker_tasks.threads), task("noisy", worker_tasks.noisy, "chatter"))
    assert (found["threads"].value, found["noisy"].value) == ("1", "chatter")
    assert capfd.readouterr().out == ""


def test_a_task_whose_worker_is_killed_is_done_by_another_one(pool: Pool, tmp_path: Path) -> None:
    tasks = [task(f"held {number}", worker_tasks.held, tmp_path) for number in range(4)]
    for each in tasks:
        pool.submit(each)
    victim = pool.processes[0]
    until(lambda: (tmp_path / f"begun {victim}").exists(), "a step has begun")
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "go").touch()
    found = [pool.next() for _ in tasks]
    assert sorted(done.key for done, _ in found) == sorted(each.key for each in tasks)
    assert {outcome.ending for _, outcome in found} == {Ending.DONE}
    assert victim not in {outcome.value for _, outcome in found}


def test_a_task_that_kills_its_worker_once_is_forgiven_and_one_that_always_does_is_given_up(pool: Pool, tmp_path: Path) -> None:
    found = outcomes(pool, task("once", worker_tasks.dies_once, tmp_path / "mark"), task("always", worker_tasks.always_dies),
                     task("other", worker_tasks.noisy, "fine"))
    assert found["once"] == Outcome(Ending.DONE, "alive")
    assert found["always"].ending is Ending.DIED
    assert "SIGKILL, 3 times in a row" in found["always"].message
    assert found["other"].value == "fine"


def test_a_task_that_hangs_is_stopped_and_the_others_go_on() -> None:
    with Pool(1, timeout_s=STORY_S, nice=0) as pool:
        brief = replace(task("hangs", worker_tasks.forever), patience=0.6 / STORY_S)
        found = outcomes(pool, brief, task("next", worker_tasks.noisy, "fine"))
        assert found["hangs"].ending is Ending.HUNG
        assert "0.6 s" in found["hangs"].message
        assert found["next"].value == "fine"


def test_a_task_that_raises_says_what_and_one_that_answers_nonsense_too(pool: Pool) -> None:
    found = outcomes(pool, task("raises", worker_tasks.wrong, "mondays"), task("nonsense", worker_tasks.unsendable))
    assert found["raises"] == Outcome(Ending.RAISED, None, "ValueError: does not like mondays")
    assert found["nonsense"].ending is Ending.RAISED
    assert outcomes(pool, task("after", worker_tasks.noisy, "fine"))["after"].value == "fine"


def test_asking_for_more_than_was_submitted_is_an_error_and_not_a_wait(pool: Pool) -> None:
    with pytest.raises(LookupError):
        pool.next()


def test_closing_leaves_no_process_behind() -> None:
    pool = Pool(2, timeout_s=STORY_S)
    pool.submit(task("hangs", worker_tasks.forever))
    pool.submit(task("hangs too", worker_tasks.forever))
    started = pool.processes
    assert len(started) == 2
    pool.close()
    for process in started:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("moment", ["starting", "computing"])
def test_a_hanging_step_does_not_outlive_the_program_that_was_killed(tmp_path: Path, moment: str) -> None:
    """Also when the program dies before its worker could ask to be told."""
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent died")
    code = ("import sys, time\nfrom pathlib import Path\nfrom modules.backtest.workers import Pool, Task\n"
            "from tests.worker_tasks import begun_forever\npool = Pool(1, timeout_s=600.0)\n"
            "pool.submit(Task('x', 'x', begun_forever, (Path(sys.argv[1]),)))\nprint(pool.processes[0], flush=True)\ntime.sleep(600)\n")
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "begun")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    if moment == "computing":
        until((tmp_path / "begun").exists, "the step has begun")
    parent.kill()
    parent.wait()
    until(lambda: gone(worker), "the worker has gone too")


# -- what is kept ----------------------------------------------------------------------------------------------------------------


def test_what_was_finished_before_an_interruption_is_not_computed_again(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    tasks = [task(name, worker_tasks.counted, marks, name) for name in ("a", "b", "c")]
    first = Kept(Serial(), tmp_path / "results")
    for each in tasks:
        first.submit(each)
    first.next()
    first.next()  # and here somebody pressed Ctrl-C
    again = Kept(Serial(), tmp_path / "results")
    found = outcomes(again, *tasks)
    assert again.reused == 2
    assert sorted(path.name[0] for path in marks.iterdir()) == ["a", "b", "c"]
    kept, fresh = found["a"].value, found["c"].value
    assert kept["pair"] == (1, 2.5) and np.isnan(kept["bad"]) and kept["many"].tobytes() == fresh["many"].tobytes()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"PK\x03\x04half"])
def test_a_damaged_result_is_computed_again(tmp_path: Path, damage: bytes) -> None:
    one = task("a", worker_tasks.noisy, "a")
    outcomes(Kept(Serial(), tmp_path), one)
    (tmp_path / "a.npz").write_bytes(damage)
    assert outcomes(Kept(Serial(), tmp_path), one)["a"].value == "a"


def test_failures_are_tried_again_next_time_and_old_results_make_room(tmp_path: Path) -> None:
    outcomes(Kept(Serial(), tmp_path), task("bad", worker_tasks.wrong, "x"), task("good", worker_tasks.noisy, "y"))
    assert [path.name for path in tmp_path.iterdir()] == ["good.npz"]
    Kept(Serial(), tmp_path, bytes_max=10)
    assert list(tmp_path.iterdir()) == []


def test_a_key_names_all_a_result_depends_on() -> None:
    base = digests.of("sweep", (1, 2.0), np.arange(3.0))
    assert base == digests.of("sweep", (1, 2.0), np.arange(3.0))
    others = [digests.of("sweep", (1, 2.5), np.arange(3.0)), digests.of("sweep", (1, 2.0), np.arange(4.0)),
              digests.of("sweep", (1, 2.0), np.arange(3)), digests.of("run", (1, 2.0), np.arange(3.0))]
    assert len({base, *others}) == 5
    assert 0 <= digests.seed_of("a", 1) < 2**63 and digests.seed_of("a", 1) != digests.seed_of("a", 2)


# -- a cluster -------------------------------------------------------------------------------------------------------------------


def test_a_cluster_address_nobody_answers_at_is_a_fault_with_its_remedy() -> None:
    pytest.importorskip("distributed", reason="the optional extra `cluster` is not installed")
    from modules.backtest import cluster

    with pytest.raises(ConfigurationError, match="dask scheduler"):
        cluster.Cluster("tcp://127.0.0.1:9", timeout_s=10.0, connect_s=0.5)


class RealCluster:
    """A scheduler and two workers as processes of their own, on a port the system chose."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
        file = folder / "scheduler.json"
        self._log = (folder / "log.txt").open("wb")
        python = [sys.executable, "-m", "distributed.cli.dask_scheduler"]

        def start(command: list[str]) -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, cwd=folder, env=environment, stdout=self._log, stderr=self._log)

        self._scheduler = start([*python, "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"])
        end = time.monotonic() + PATIENCE_S
        while not file.exists() or not file.read_text().strip():
            assert time.monotonic() < end, (folder / "log.txt").read_text()
            time.sleep(0.05)
        self.workers = [start([sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
                               "--no-nanny", "--no-dashboard"]) for _ in range(2)]
        import json

        self.address = str(json.loads(file.read_text())["address"])

    def end(self) -> None:
        for process in (*self.workers, self._scheduler):
            process.kill()
            process.wait()
        self._log.close()


@pytest.fixture
def real_cluster(tmp_path: Path) -> Iterator[RealCluster]:
    pytest.importorskip("distributed", reason="the optional extra `cluster` is not installed")
    started = RealCluster(tmp_path)
    yield started
    started.end()


def test_a_cluster_gives_the_same_bits_although_one_of_its_workers_is_killed(real_cluster: RealCluster) -> None:
    from modules.backtest.cluster import Cluster

    matrix = np.random.default_rng(7).standard_normal((300, 40))
    alone = Serial()
    alone.share("matrix", matrix)
    here = outcomes(alone, *matrices())
    cluster = Cluster(real_cluster.address, timeout_s=STORY_S, nice=0)
    try:
        cluster.share("matrix", matrix)
        sleepers = [task(f"slow {number}", worker_tasks.slow, 0.5) for number in range(6)]
        tasks = [*sleepers, *matrices(), task("bad", worker_tasks.wrong, "x")]
        for each in tasks:
            cluster.submit(each)
        first = cluster.next()
        real_cluster.workers[0].kill()
        found = {done.key: outcome for done, outcome in (first, *(cluster.next() for _ in tasks[1:]))}
    finally:
        cluster.close()
    assert found.keys() == {each.key for each in tasks}
    assert found["bad"].message == "ValueError: does not like x"
    assert all(found[each.key].ending is Ending.DONE for each in sleepers)
    for key, outcome in here.items():
        assert found[key].value.tobytes() == outcome.value.tobytes()
