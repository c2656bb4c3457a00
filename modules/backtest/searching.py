"""`optimize`: a strategy's declared space, in sample only. Every set tried is a counted trial, whatever becomes of it.

Only days before the first out-of-sample window of a later `validate` are looked at, so that looking costs nothing there. Shows the plateau:
a set is as good as its neighbours say.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from modules.backtest import metrics, walk_forward
from modules.backtest.basket import Basket
from modules.backtest.grid import grid
from modules.backtest.ideas import fingerprint
from modules.backtest.pipeline import DAY_MS, OPTIONS, Job, Quarantined, pooled, probed, swept
from modules.backtest.validation import plain
from modules.backtest.verdict import limit
from modules.backtest.workers import Executor, Outcome, Task
from modules.domain.signal import Structure

SHOWN: Final = 10


def search(job: Job, executor: Executor) -> dict[str, Any]:
    """The best sets with their neighbours, as plain data; {"fault": why} where nothing could be searched."""
    about = {"strategy": job.strategy.name, "asset_class": job.basket.asset_class.value}
    if job.strategy.structure is not Structure.SINGLE:
        return about | {"fault": OPTIONS}
    cut = in_sample(job)
    if not cut.basket.series:
        return about | {"fault": cut.basket.why_empty}
    for one in cut.basket.series.values():
        executor.share(cut.basket.digests[one.symbol], one)
    try:
        return about | _driven(_searched(cut), executor)
    except Quarantined as fault:
        return about | {"fault": str(fault)}


def in_sample(job: Job) -> Job:
    """The same job on the days before the first out-of-sample window."""
    every = job.basket.series.values()
    if not every:
        return job
    first, last = min(int(one.at[0]) for one in every), max(int(one.at[-1]) for one in every)
    end = first + int((last - first) * float(job.policy.train_share))
    kept = {}
    notes = dict(job.basket.notes)
    for symbol, one in job.basket.series.items():
        rows = int(np.searchsorted(one.at, end, side="right"))
        if rows > job.strategy.warmup:
            kept[symbol] = one.part(0, rows)
        else:
            notes[symbol] = f"begins after the in-sample days (until {_date(end // DAY_MS)})"
    return replace(job, basket=Basket(job.basket.asset_class, kept, notes))


def _driven(steps: Generator[list[Task], dict[str, Outcome], dict[str, Any]], executor: Executor) -> dict[str, Any]:
    """Run the batches one after the other."""
    outcomes: dict[str, Outcome] | None = None
    while True:
        try:
            batch = steps.send(outcomes) if outcomes is not None else next(steps)
        except StopIteration as end:
            found: dict[str, Any] = end.value
            return found
        for task in batch:
            executor.submit(task)
        outcomes = {task.key: outcome for task, outcome in (executor.next() for _ in batch)}


def _searched(job: Job) -> Generator[list[Task], dict[str, Outcome], dict[str, Any]]:
    sets = grid(job.strategy, job.policy.sets_max)
    named = tuple({name: float(value) for name, value in one._asdict().items()} for one in sets)
    yield from probed(job)
    counted = job.registry.register(strategy=job.strategy.name, code=job.code, fingerprint=fingerprint(job.strategy),
                                    basket=job.basket.text, data=job.basket.data_hash, sets=named, at=job.at)
    found = yield from swept(job, sets)
    if not found:
        return {"fault": f"no instrument of the basket can be simulated: {'; '.join(job.basket.notes.values())}"}
    first_day, daily = pooled(job.basket, found, "daily")
    around = walk_forward.neighbours(named)
    scale = math.sqrt(metrics.PERIODS[job.basket.asset_class])
    every = metrics.ratios(daily) * scale
    trades = np.sum([one["trades"] for one in found.values()], axis=0)
    near = [float(np.median(every[list(each)])) if each else math.nan for each in around]
    smooth = np.array([own if math.isnan(beside) else 0.5 * (own + beside) for own, beside in zip(every, near, strict=True)])
    order = np.argsort(-smooth, kind="stable")[:SHOWN]
    policy = job.policy
    return {
        "from": _date(first_day), "to": _date(first_day + len(daily) - 1), "instruments": list(found), "sets": len(sets),
        "trials": counted.trials, "submissions": counted.submissions,
        "plateau": [{"params": {name: named[n][name] for name in job.strategy.space} or named[n], "sharpe": plain(float(every[n])),
                     "neighbours": plain(near[n]), "trades": int(trades[n]), "default": n == 0} for n in order.tolist()],
        "asks": f"more than {policy.trades_min} out-of-sample trades, p <= {limit(policy, counted.submissions + 1):g} over all "
                f"{counted.trials} trials, Sharpe above {policy.sharpe_min[job.basket.asset_class]:g}, neighbors at least "
                f"{float(policy.neighbours_share_min):.0%} as good, a profit at {policy.stress_multiple:g} times the costs",
        "next_command": f"python main.py validate -s {job.strategy.name} --data DIR"}


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
