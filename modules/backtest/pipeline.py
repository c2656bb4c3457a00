"""From strategies and history to verdicts: grids, sweeps, walk-forward, statistics, judgment. Owns the order of the steps.

Each strategy in each class is a generator that yields batches of tasks and is sent their outcomes; `validate` runs all of them through one
executor, so that a strategy that waits for a slow task never keeps the others waiting. Trials are in the registry before a result is
looked at. Seeds and keys come from what a task is about: where it ran, in which order and how often it was begun cannot show.
May refuse nothing: a strategy that raises, hangs or looks ahead gets a verdict that says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.backtest import digests, metrics, structures, tasks, walk_forward
from modules.backtest.basket import Basket
from modules.backtest.bootstrap import Aim, draws_for
from modules.backtest.findings import Walked, evidence_of, picture_of
from modules.backtest.grid import grid
from modules.backtest.ideas import fingerprint
from modules.backtest.kernel import Rules, stressed
from modules.backtest.structures import Recording, Replay
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Floats, Picture, Validation
from modules.backtest.verdict import Evidence, judge, limit
from modules.backtest.workers import Ending, Executor, Outcome, Task
from modules.domain.certificate import bound
from modules.domain.policies import ValidationPolicy
from modules.domain.signal import Structure
from modules.strategies.fingerprint import code_hash
from modules.strategies.protocol import Strategy

DAY_MS: Final = 86_400_000
PROBE_BARS: Final = 6_000
PROBE_CUTS: Final = 6
COMPILING: Final = 4.0
"""Times the usual patience for the task that compiles."""
RESAMPLED: Final = 1_000_000
"""Resamples times trials for which the usual patience is enough."""
MESSAGE_MAX: Final = 240
OPTIONS: Final = ("no recorded option chains with bars of their underlyings: no out-of-sample trade can be shown; trade it on paper, "
                  "paper results are evidence")
Progress = Callable[[str, int, int], None]
"""(what ended, tasks ended, tasks known so far)"""
BARRIER: Final[list[Task]] = []
"""Yielded in place of a batch: wait until every study has come this far or ended."""
Study = Generator[list[Task], dict[str, Outcome], Validation]


class Quarantined(Exception):
    """A strategy's own fault ended its study."""


@dataclass(frozen=True, slots=True)
class Job:
    """One strategy in one class."""

    strategy: Strategy
    basket: Basket
    rules: Rules
    policy: ValidationPolicy
    registry: TrialRegistry
    seed: int
    at: int
    """UTC ms: when it is judged, for the registry."""
    compiled: bool = True
    """False: the strategy's step is interpreted. The same results; for short histories sooner than compiling it."""
    renews: str = ""
    """`terms` of the certificate this run renews: a scheduled revalidation is the same submission."""

    replay: Replay | None = None
    """Option structures: the daemon as simulator; must be a module's own function."""
    recordings: Mapping[str, Recording] = field(default_factory=dict)
    """Option structures: what is replayed, by symbol of the basket."""

    @property
    def name(self) -> str:
        return f"{self.strategy.name} {self.basket.asset_class.value}"

    @property
    def code(self) -> str:
        return code_hash(self.strategy)

    def key(self, step: str, *parts: Any) -> str:
        """What a task's result depends on, besides the program."""
        return digests.of(digests.program(), step, self.strategy.name, self.code, self.rules_digest, *parts)

    def run_id(self, sets: Sequence[Any]) -> str:
        """What is submitted: code, grid, basket, and everything an owner could turn to get another result from them. Only the very same
        again, as when an interrupted run goes on, is the same submission."""
        policy = self.policy
        own = terms(self.basket.data_hash, bound(self.rules.policies, self.basket.asset_class), self.seed)
        return digests.of("submission", self.code, tuple(tuple(one) for one in sets), self.renews or own, self.basket.text, policy.windows,
                          policy.train_share, policy.embargo, policy.random_draws, policy.option_random_draws)

    @property
    def rules_digest(self) -> str:
        rules = self.rules
        return digests.of(rules.policies.hash, rules.phased, rules.wallet, rules.notional, rules.gates,
                          rules.fee_factor, rules.slippage_factor)

    def seed_for(self, step: str, *parts: Any) -> int:
        return digests.seed_of(self.seed, step, self.strategy.name, self.basket.data_hash, *parts)


def terms(data_hash: str, policy: Mapping[str, str], seed: int) -> str:
    """Digest of what a result was computed from besides the strategy: a certificate names all three. `policy` as certificate.bound."""
    return digests.of("terms", data_hash, tuple(sorted(policy.items())), seed)


def validate(jobs: Sequence[Job], executor: Executor, progress: Progress | None = None) -> list[Validation]:
    """One verdict per job, in the order of `jobs`. The executor stays open; what it computed of an interrupted run is its own to keep."""
    done: list[Validation | None] = [None] * len(jobs)
    running: dict[int, Study] = {}
    waiting: dict[str, set[int]] = {}
    batches: dict[int, dict[str, Outcome | None]] = {}
    ended = known = 0

    def advance(number: int, outcomes: dict[str, Outcome] | None) -> None:
        nonlocal known
        try:
            batch = running[number].send(outcomes) if outcomes is not None else next(running[number])
        except StopIteration as end:
            done[number] = end.value
            del running[number]
            return
        batches[number] = {task.key: None for task in batch}
        for task in batch:
            if task.key not in waiting:
                waiting[task.key] = set()
                known += 1
                executor.submit(task)
            waiting[task.key].add(number)

    for number, job in enumerate(jobs):
        for one in job.basket.series.values():
            executor.share(job.basket.digests[one.symbol], one)
        running[number] = study(job)
        advance(number, None)
    while running:
        if not waiting:  # everybody who has not finished is at a barrier: on in the order of the jobs, whoever came first
            for number in sorted(running):
                advance(number, {})
            continue
        task, outcome = executor.next()
        ended += 1
        if progress is not None:
            progress(task.label, ended, known)
        for number in sorted(waiting.pop(task.key)):
            batch = batches[number]
            batch[task.key] = outcome
            complete = {key: found for key, found in batch.items() if found is not None}
            if len(complete) == len(batch):
                advance(number, complete)
    return [found for found in done if found is not None]


def study(job: Job) -> Study:
    """All steps of one job."""
    if job.strategy.structure is not Structure.SINGLE and not job.recordings:
        return _unmeasured(job, reason=OPTIONS)
    if not job.basket.series:
        return _unmeasured(job, reason=job.basket.why_empty)
    try:
        return (yield from _study(job))
    except Quarantined as fault:
        return _unmeasured(job, fault=str(fault))


def _study(job: Job) -> Study:
    strategy, basket, policy, registry = job.strategy, job.basket, job.policy, job.registry
    sets = grid(strategy, min(policy.sets_max, policy.option_sets_max) if job.replay is not None else policy.sets_max)
    named = tuple({name: float(value) for name, value in one._asdict().items()} for one in sets)
    found = yield from probed(job)
    counted = registry.register(strategy=strategy.name, code=job.code, fingerprint=fingerprint(strategy), basket=basket.text,
                                data=basket.data_hash, sets=named, at=job.at)
    trials = counted.trials
    found_on = yield from swept(job, sets)
    usable = tuple(found_on)
    if not usable:
        return _unmeasured(job, reason=f"no instrument of the basket can be simulated: {'; '.join(basket.notes.values())}", trials=trials)
    first_day, daily = pooled(basket, found_on, "daily")
    around = walk_forward.neighbours(named)
    purge = math.ceil(max(int(one["longest"].max()) for one in found_on.values()) / DAY_MS)
    windows = walk_forward.windows(len(daily), policy.windows, policy.embargo, min(purge, len(daily) // 8), policy.train_share)
    if not windows or not np.any(daily):
        return _unmeasured(job, reason=f"{len(daily)} days with {int(sum(one['trades'].sum() for one in found_on.values()))} trades of "
                           f"{len(sets)} parameter sets are too little for a walk-forward of {policy.windows} windows", trials=trials,
                           trades=0, days=len(daily))
    walk = walk_forward.walk(daily, windows, around)
    final = walk_forward.choose(daily, around)
    numbers = metrics.day_numbers(first_day, len(daily) + 1, basket.asset_class)
    spans = [(sets[column], int(numbers[window.test_from]) * DAY_MS, int(numbers[window.test_until]) * DAY_MS)
             for window, column in zip(windows, walk.chosen, strict=True)]
    tested = yield from _tested(job, usable, spans, sets[final])
    if job.replay is not None:
        for symbol, found_there in found_on.items():
            structures.benchmarked(found_there, tested[symbol])
    registry.remember(counted.idea, code=job.code, basket=basket.text, data=basket.data_hash, first_day=first_day, daily=daily, at=job.at)
    yield BARRIER  # what is one idea shows when everybody's results are remembered, in whatever order they came
    run = job.run_id(sets)
    submission = registry.submit(counted.idea, run, job.at)
    yield BARRIER
    trials = registry.count(counted.idea).trials
    others = _others(registry.columns(counted.idea, basket=basket.text, data=basket.data_hash), first_day, daily)
    walked = Walked(strategy, basket, named, around, final, walk, first_day, daily, others, numbers, found_on, tested)
    luck = yield from _luck(job, walked, submission)
    allowed = limit(policy, submission)
    judged = _judged(job, evidence_of(walked, luck, policy, allowed, trials, found), submission,
                     picture_of(walked, luck, allowed, policy.instrument_trades_min), named[final], walked.certified(policy),
                     walked.trades(walked.certified(policy)))
    registry.judged(counted.idea, run, judged.verdict, job.at)
    return judged


def _others(remembered: tuple[int, Floats] | None, first_day: int, daily: Floats) -> Floats:
    """[days, n] earlier trials of the same idea on the same data that are not among ours: they are in the test of luck too."""
    if remembered is None or remembered[0] != first_day or len(remembered[1]) != len(daily):
        return np.zeros((len(daily), 0))
    ours = {column.tobytes() for column in daily.astype(np.float32).T}
    fresh = [column for column in remembered[1].T if column.astype(np.float32).tobytes() not in ours]
    return np.stack(fresh, axis=1) if fresh else np.zeros((len(daily), 0))


def probed(job: Job) -> Generator[list[Task], dict[str, Outcome], dict[str, Any]]:
    """Compile and look for look-ahead, on the longest series."""
    longest = max(job.basket.series.values(), key=len)
    digest = job.basket.digests[longest.symbol]
    if job.replay is not None:
        recording, policies = job.recordings[longest.symbol], job.rules.policies
        task = Task(job.key("probe structure", digests.daemon(), digest, job.basket.data_hash, recording.since, recording.until),
                    f"{job.name}: look-ahead", structures.probe,
                    (job.replay, recording, job.strategy, policies, PROBE_BARS, PROBE_CUTS), (digest,), patience=structures.PATIENCE)
        outcomes = yield [task]
        looked: dict[str, Any] = _value(outcomes[task.key], task.label)
        return looked
    task = Task(job.key("probe", digest, PROBE_BARS, PROBE_CUTS), f"{job.name}: look-ahead on {longest.symbol}", tasks.probe,
                (job.strategy, job.rules, PROBE_BARS, PROBE_CUTS, job.compiled), (digest,), patience=COMPILING)
    ready = Task(digests.of("prepare", job.rules.policies.hash), "compiling", tasks.prepare, (job.rules,), patience=COMPILING)
    outcomes = yield [task, ready] if job.compiled else [task]  # whatever becomes of `ready`: who needs it compiles it
    found: dict[str, Any] = _value(outcomes[task.key], task.label)
    return found


def swept(job: Job, sets: Sequence[Any]) -> Generator[list[Task], dict[str, Outcome], dict[str, dict[str, Any]]]:
    """Symbol -> its sweep, in the basket's order; instruments that cannot be simulated are noted and left out."""
    plain_sets = tuple(tuple(one) for one in sets)
    batch = {symbol: Task(job.key("sweep", digest, plain_sets), f"{job.name}: {len(sets)} sets on {symbol}", tasks.sweep,
                          (job.strategy, sets, job.rules, job.compiled), (digest,)) for symbol, digest in job.basket.digests.items()}
    if job.replay is not None:
        batch = {symbol: Task(
            job.key("sweep structure", digests.daemon(), digest, job.basket.data_hash, plain_sets),
            f"{job.name}: {len(sets)} sets on {symbol}", structures.sweep,
            (job.replay, job.recordings[symbol], job.strategy, sets, job.rules.policies), (digest,), patience=structures.PATIENCE)
            for symbol, digest in job.basket.digests.items()}
    outcomes = yield list(batch.values())
    found = {}
    for symbol, task in batch.items():
        value = _value(outcomes[task.key], task.label)
        if "unusable" in value:
            job.basket.notes[symbol] = value["unusable"]
        else:
            found[symbol] = value
    return found


def _tested(job: Job, usable: Sequence[str], spans: Sequence[tuple[Any, int, int]], final: Any
            ) -> Generator[list[Task], dict[str, Outcome], dict[str, dict[str, Any]]]:
    """Symbol -> the walk-forward's own trades there."""
    policy = job.policy
    rules = {"plain": job.rules, "stressed": stressed(job.rules, policy.stress_multiple),
             "phased": replace(job.rules, phased=True, wallet=float(policy.drawdown_equity))}
    plain_spans = tuple((tuple(params), begin, end) for params, begin, end in spans)
    batch = {}
    for symbol in usable:
        digest = job.basket.digests[symbol]
        if job.replay is not None:
            plain = job.rules.policies
            costs = {"plain": plain, "stressed": structures.stressed(plain, policy.stress_multiple)}
            key = job.key("test structure", digests.daemon(), digest, job.basket.data_hash, plain_spans, tuple(final),
                          policy.stress_multiple, policy.option_random_draws, job.seed)
            batch[symbol] = Task(key, f"{job.name}: out of sample on {symbol}", structures.test, (
                job.replay, job.recordings[symbol], job.strategy, spans, final, costs, policy.option_random_draws,
                job.seed_for("random", symbol)), (digest,), patience=structures.PATIENCE)
            continue
        key = job.key("test", digest, plain_spans, tuple(final), policy.stress_multiple, policy.drawdown_equity, policy.random_draws,
                      job.seed)
        batch[symbol] = Task(key, f"{job.name}: out of sample on {symbol}", tasks.test,
                             (job.strategy, spans, final, rules, policy.random_draws, job.seed_for("random", symbol), job.compiled),
                             (digest,))
    outcomes = yield list(batch.values())
    return {symbol: _value(outcomes[task.key], task.label) for symbol, task in batch.items()}


def _luck(job: Job, walked: Walked, submission: int) -> Generator[list[Task], dict[str, Outcome], dict[str, Any]]:
    policy = job.policy
    allowed = limit(policy, submission)
    draws = draws_for(allowed, policy.bootstrap_draws, policy.bootstrap_draws_max)
    aim = Aim(walked.final, allowed, draws_for(float(policy.p_value_max), policy.bootstrap_draws))
    seeds = [job.seed_for(step, submission) for step in ("luck", "drawdown", "tested")]
    every = np.concatenate((walked.daily, walked.others), axis=1)
    luck = (every, walked.tested("plain"), walked.phased(), draws, aim, policy.cscv_blocks, policy.drawdown_level, seeds)
    excess = (every, walked.benchmark(), draws, aim, job.seed_for("excess", submission))
    patience = max(1.0, draws * every.shape[1] / RESAMPLED)
    batch = [Task(job.key("luck", *luck), f"{job.name}: {draws:,} resamples", tasks.judge_luck, luck, patience=patience),
             Task(job.key("excess", *excess), f"{job.name}: {draws:,} resamples over random entries", tasks.judge_excess, excess,
                 patience=patience)]
    outcomes = yield batch
    return {name: value for task in batch for name, value in _value(outcomes[task.key], task.label).items()}


def _value(outcome: Outcome, label: str) -> Any:
    """What a task computed. A task that failed is the strategy's fault: the same task runs for every other strategy."""
    if outcome.ending is Ending.DONE:
        return outcome.value
    words = {Ending.RAISED: "failed", Ending.HUNG: "hung: it", Ending.DIED: "killed its process:"}[outcome.ending]
    raise Quarantined(f"quarantined: {label} {words} {' '.join(outcome.message.split())[:MESSAGE_MAX]}")


def pooled(basket: Basket, found: Mapping[str, Mapping[str, Any]], name: str) -> tuple[int, Floats]:
    """(first day, [days, K]) of the basket's sweeps."""
    parts = list(found.values())
    return metrics.pool([one["first_day"] for one in parts], [one[name] for one in parts], basket.asset_class)


def _judged(job: Job, evidence: Evidence, submission: int, picture: Picture, params: Mapping[str, float], certified: tuple[str, ...],
            trades: NDArray[Any] | None = None) -> Validation:
    verdict = judge(evidence, job.policy, submission)
    return Validation(
        strategy=job.strategy.name, asset_class=job.basket.asset_class, verdict=verdict.verdict.value, lines=verdict.checks,
        metrics=verdict.metrics, missing=verdict.missing, next_command=verdict.next_command, params=params, instruments=certified,
        trials=evidence.trials, submissions=submission, data_hash=job.basket.data_hash, code_hash=job.code, seed=job.seed, picture=picture,
        failed_task=evidence.fault, evidence=evidence, trades=trades)


def _unmeasured(job: Job, *, fault: str = "", reason: str = "", trials: int = 0, trades: int = 0, days: int = 0) -> Validation:
    """A verdict without numbers: quarantined, or nothing to measure. No submission: nothing was judged."""
    periods = metrics.PERIODS[job.basket.asset_class]
    evidence = Evidence(
        strategy=job.strategy.name, asset_class=job.basket.asset_class, trades=trades, years=days / periods, out_years=0.0,
        trials=max(1, trials), tested=max(1, trials), p=math.nan, t=math.nan, critical_t=math.inf, excess_p=math.nan,
        sharpe=math.nan, psr=math.nan, net=math.nan,
        loss_probability=math.nan, stressed_net=math.nan, trade_share=math.nan, month_share=math.nan, drawdown=math.nan,
        neighbours_share=math.nan, has_neighbours=bool(job.strategy.space), prefix_differences=-1 if fault else 0,
        prefix_note="not reached" if fault else "", fault=fault, reason=reason)
    params = {name: float(value) for name, value in job.strategy.params._asdict().items()}
    return replace(_judged(job, evidence, 1, Picture(periods), params, ()), trials=trials, submissions=0,
                   missing=fault or reason)
