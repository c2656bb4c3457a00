"""Option structures in validation: a replay's trades and equity become evidence as the kernel's do. The replay here is invented."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from modules.backtest import kernel, pipeline, structures
from modules.backtest.basket import Basket
from modules.backtest.kernel import Rules, StrategyFault
from modules.backtest.structures import DAY_MS, Recording, Replayed
from modules.backtest.trials import TrialRegistry
from modules.backtest.workers import Serial, Task
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason
from modules.domain.policies import Policies
from modules.domain.position import ClosedTrade
from modules.domain.signal import FLAT, Intent, Structure
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies, get
from tests import validation_worlds as worlds
from tests.builders import shipped_policies

OPTION = AssetClass.OPTION
SYMBOL = "BTC/USDT:USDT"
DAYS = 400
RECORDING = Recording("nowhere", SYMBOL, "BTC", worlds.BEGIN, worlds.BEGIN + DAYS * DAY_MS)


def closed(opened_at: int, net: float, fee: float) -> ClosedTrade:
    return ClosedTrade(
        trade_id=f"t{opened_at}", strategy="x", symbol=SYMBOL, asset_class=OPTION, side=Side.BUY, quantity=Decimal(1), entry=Decimal(100),
        exit=Decimal(90), gross=Decimal(repr(net + fee)), fees=Decimal(repr(fee)), funding=Decimal(0), net=Decimal(repr(net)),
        risk=Decimal(100), slippage_bp=Decimal(5), opened_at=opened_at, closed_at=opened_at + DAY_MS // 2,
        exit_reason=ExitReason.EXIT_SIGNAL, confidence=0.5, score=0.5)


def invented(recording: Recording, strategy: Strategy, policies: Policies) -> Replayed:
    """A trade a day. The strategy earns 40 on 10,000 on average, whoever deals at random only pays fees."""
    fee = 2.0 * float(policies.costs.OPTION.taker_fee) / float(shipped_policies().costs.OPTION.taker_fee)
    dealt = strategy.name.endswith("_dealt")
    mean, seed = (0.0, 1_000_000) if dealt else (40.0, 0)
    trades, equity, total = [], [], 10_000.0
    for day in range(recording.since // DAY_MS, recording.until // DAY_MS):
        net = mean + 60.0 * float(np.random.default_rng(seed + day).standard_normal()) - fee
        trades.append(closed(day * DAY_MS + DAY_MS // 4, net, fee))
        total += net
        equity.append(((day + 1) * DAY_MS, total))
    return Replayed(trades, equity, 10_000.0)


def job(strategy: Strategy, replay: Any = invented) -> pipeline.Job:
    shipped = shipped_policies()
    rules = shipped.model_copy(update={"validation": shipped.validation.model_copy(update={
        "bootstrap_draws": 2_000, "trades_min": 100, "evidence_sharpe_multiple": 10.0, "windows": 4, "option_sets_max": 3})})
    series = replace(worlds.world(SYMBOL, DAYS * 24, 1), symbol=SYMBOL)
    return pipeline.Job(strategy, Basket(OPTION, {SYMBOL: series}, beside="chains"), Rules(rules), rules.validation,
                        TrialRegistry(None, same_code=0.85, same_results=0.9), 1, worlds.BEGIN, replay=replay,
                        recordings={SYMBOL: RECORDING})


def test_an_edge_that_a_replay_shows_is_judged_by_the_same_bars_and_one_of_random_entries_is_none() -> None:
    found, = pipeline.validate([job(get("credit_spread"))], Serial())
    lines = {line.rule: line for line in found.lines}
    assert lines["TRADES"].passed and lines["P_VALUE"].passed and lines["P_VALUE_EXCESS"].passed, found.missing
    assert found.instruments == (SYMBOL,) and found.trials == 3 and found.metrics["fill_ratio"] == 1.0
    assert found.trades is not None and set(found.trades["net"]) and np.all(found.trades["risk"] == 100.0)
    assert lines["NET_STRESSED"].measured is not None and lines["NET_STRESSED"].measured == pytest.approx(
        found.metrics["net"] - 2.0 * len(found.trades) / 10_000.0), "twice the fees"


def lucky(recording: Recording, strategy: Strategy, policies: Policies) -> Replayed:
    """Whoever sells this structure earns: no judgment is in it."""
    return invented(recording, replace(strategy, name="x"), policies)


def test_what_random_entries_into_the_same_structure_earn_is_no_skill() -> None:
    found, = pipeline.validate([job(get("credit_spread"), lucky)], Serial())
    lines = {line.rule: line for line in found.lines}
    assert lines["P_VALUE"].passed and not lines["P_VALUE_EXCESS"].passed
    assert found.verdict != "APPROVED"


def raising(recording: Recording, strategy: Strategy, policies: Policies) -> Replayed:
    raise ArithmeticError("no such chain")


def test_a_replay_that_fails_quarantines_the_strategy_and_without_chains_there_is_no_evidence() -> None:
    found, = pipeline.validate([job(get("long_option"), raising)], Serial())
    assert found.verdict == "REJECTED" and "quarantined" in found.missing and "no such chain" in found.missing
    found, = pipeline.validate([replace(job(get("long_option")), replay=None, recordings={})], Serial())
    assert found.verdict == "INSUFFICIENT EVIDENCE" and "no recorded option chains" in found.missing


def test_random_entries_are_the_same_structure_and_about_as_many() -> None:
    series = worlds.world(SYMBOL, 9_000, 1)
    strategy = get("credit_spread")
    trades = [closed(worlds.BEGIN + number * 3 * DAY_MS, 1.0, 0.0) for number in range(60)]
    dealt = structures.random_entries(strategy, trades, series, 7)
    assert (dealt.structure, dealt.days, dealt.width, dealt.warmup) == (strategy.structure, strategy.days, strategy.width, strategy.warmup)
    state, before, begun = dealt.init(dealt.params), FLAT, 0
    for at in series.at.tolist():
        state, wish = dealt.step(state, Market(float(at), *(1.0,) * 15, None), dealt.params)  # type: ignore[arg-type]
        begun += before.score == 0.0 and wish.score == 1.0
        before = wish
    assert 40 <= begun <= 85 and isinstance(before, Intent)


def test_nothing_of_an_option_run_is_computed_twice_the_daemons_replay_is_its_only_simulator() -> None:
    """Why there is no parity to measure for options: the kernel refuses them, every number comes of the replay that was handed in."""
    replayed: list[Strategy] = []

    def told(recording: Recording, strategy: Strategy, policies: Policies) -> Replayed:
        replayed.append(strategy)
        return invented(recording, strategy, policies)

    functions: set[str] = set()

    class Listening(Serial):
        def submit(self, task: Task) -> None:
            functions.add(f"{task.function.__module__}.{task.function.__name__}")
            super().submit(task)

    for strategy in (one for one in all_strategies().values() if one.structure is not Structure.SINGLE):
        series = job(strategy).basket.series[SYMBOL]
        for simulate in (kernel.run, kernel.turns):
            with pytest.raises(StrategyFault, match="option contracts"):
                simulate(strategy, strategy.params, series, Rules(shipped_policies()))
        found, = pipeline.validate([job(strategy, told)], Listening())
        simulators = {name for name in functions if not name.endswith(("judge_luck", "judge_excess"))}
        assert simulators == {f"modules.backtest.structures.{name}" for name in ("probe", "sweep", "test")}
        assert any(one.name == strategy.name for one in replayed) and any(one.name == f"{strategy.name}_dealt" for one in replayed)
        assert found.trades is not None and len(found.trades)
        told_of = {(trade.opened_at, trade.closed_at, float(trade.net)) for trade in
                   invented(RECORDING, strategy, shipped_policies()).trades}
        assert {(row["entry_at"].item(), row["exit_at"].item(), row["net"].item()) for row in found.trades} <= told_of, "to the bit"
