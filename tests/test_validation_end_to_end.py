"""One life of one strategy on virtual time: an edge planted in prices earns a certificate from recorded history, the live daemon opens with
it and with its parameters, the edge goes, and the strategy is back on paper."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import main
from modules.backtest import pipeline
from modules.backtest.basket import basket
from modules.backtest.certify import certificate
from modules.backtest.kernel import Rules
from modules.backtest.recorded import RecordedSource
from modules.backtest.series import of_source
from modules.backtest.trials import TrialRegistry
from modules.backtest.validation import Validation
from modules.backtest.workers import Serial
from modules.domain.certificate import Certificate, save
from modules.domain.decision import Decision, Outcome, Rule
from modules.domain.events import Fact, Scope, ShadowClosed, StrategyApproved, StrategyDemoted, SwitchChanged, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.news.calendar import Calendar
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.protocol import Strategy
from tests import validation_worlds as worlds
from tests.builders import shipped_policies

SPOT: Final = AssetClass.SPOT
HOUR: Final = worlds.HOUR
PROVING, EARNING, FADED = 4_800, 720, 1_200
"""Hours of history that is validated, of live trading with the edge, and without it."""
LIVE_FROM: Final = worlds.BEGIN + PROVING * HOUR
GONE_FROM: Final = LIVE_FROM + EARNING * HOUR
NAMES: Final = ("BTC", "ETH")


def rows(seed: int) -> Iterator[str]:
    """An hourly random walk. Until the edge is gone the volume foretells the next hours' drift; after that it means nothing."""
    bars = PROVING + EARNING + FADED
    draw = np.random.default_rng(seed)
    signal = np.clip(np.repeat(draw.standard_normal(bars // 12 + 1), 12)[:bars], -0.9, 3.0)
    edge = np.where(np.arange(bars) < PROVING + EARNING, 0.5, 0.0)
    moves = 0.004 * (draw.standard_normal(bars) + edge * np.concatenate(((0.0,), signal[:-1])))
    close = 10_000.0 * np.exp(np.cumsum(moves))
    opened = np.concatenate(((10_000.0,), close[:-1]))
    reach = np.abs(draw.standard_normal(bars)) * 0.001
    yield "ts,open,high,low,close,volume"
    for bar in range(bars):
        high, low = max(opened[bar], close[bar]) * (1.0 + reach[bar]), min(opened[bar], close[bar]) * (1.0 - reach[bar])
        yield (f"{worlds.BEGIN + bar * HOUR},{opened[bar]:.2f},{high:.2f},{low:.2f},{close[bar]:.2f},{1000.0 * (1.0 + signal[bar]):.6f}")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    for number, name in enumerate(NAMES):
        (folder / f"binance_{name}USDT_1h.csv").write_text("\n".join(rows(number)) + "\n", encoding="utf-8")
    return folder


def policies() -> Policies:
    """The shipped ones with a gate sized to half a year, and a trader who never tires: pauses and halts are others' tests."""
    shipped = shipped_policies()
    validation = shipped.validation.model_copy(update={
        "bootstrap_draws": 2_000, "sets_max": 5, "windows": 4, "random_draws": 20, "trades_min": 60, "evidence_sharpe_multiple": 6.0})
    risk = shipped.risk.model_copy(update={"cooldown_losses": 1_000, "cooldown_stop_outs": 8, "correlated_others_max": 9})
    kill = shipped.kill_switch.model_copy(update={"drawdown_daily_max": Decimal(1), "drawdown_monthly_max": Decimal(1)})
    return shipped.model_copy(update={"validation": validation, "risk": risk, "kill_switch": kill})


def planted() -> Strategy:
    """Installed with parameters that would hardly ever trade: those that have the edge are for validation to choose."""
    made = worlds.strategy(worlds.echo, "planted", {"threshold": (0.25, 0.5, 1.9), "hold": (6, 12)})
    return replace(made, asset_classes=(SPOT,), params=worlds.Params(1.9, 6))


def validated(folder: Path, strategy: Strategy, rules: Policies) -> Validation:
    source = RecordedSource(folder, (SPOT,), (None, LIVE_FROM), costs=rules.costs)
    chosen = basket(of_source(source).values(), SPOT, bars_min=strategy.warmup, share_min=0.25)
    trials = TrialRegistry(None, same_code=0.85, same_results=0.9)
    found, = pipeline.validate(
        [pipeline.Job(strategy, chosen, Rules(rules), rules.validation, trials, 7, LIVE_FROM, compiled=False)], Serial())
    return found


@dataclass
class Lived:
    daemon: main.Daemon
    facts: list[Fact]
    decisions: list[Decision]
    announced: list[str]

    def told(self, kind: type) -> list[Any]:
        return [fact for fact in self.facts if isinstance(fact, kind)]


def lived(history: Path, state: Path, strategy: Strategy, rules: Policies, mode: str, until: int | None = None) -> Lived:
    """The daemon from the end of the validated history on."""
    source = RecordedSource(history, (SPOT,), (LIVE_FROM, until), costs=rules.costs)
    loop = VirtualLoop(source.start)
    try:
        asyncio.set_event_loop(loop)
        decisions: list[Decision] = []
        announced: list[str] = []
        journal = Journal(None)
        strategies: Mapping[AssetClass, list[Strategy]] = {SPOT: [strategy]}
        daemon = main.Daemon(main.simulated_plan(
            source, mode=mode, policies=rules, clock=VirtualClock(loop), journal=journal, decisions=Decisions(state / f"{mode}.sqlite"),
            wallets={SPOT: Decimal(10_000)}, calendar=Calendar((), rules.news, {}), strategies=strategies, on_decision=decisions.append,
            certificates=state / "certificates", announce=announced.append))

        async def life() -> None:
            await daemon.start()
            for scope in (Scope.ALL, Scope.SPOT):
                journal.append(SwitchChanged(LIVE_FROM, scope, True, "owner"))
            await daemon.run()

        loop.run_until_complete(life())
        return Lived(daemon, [fact for _, fact in journal.facts()], decisions, announced)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_an_edge_earns_a_certificate_trades_with_it_and_goes_back_to_paper_when_the_edge_is_gone(history: Path, tmp_path: Path) -> None:
    rules, strategy = policies(), planted()
    found = validated(history, strategy, rules)
    assert found.verdict == "APPROVED", found.missing
    assert found.trades is not None
    made: Certificate = certificate(found, found.trades, rules, LIVE_FROM)
    assert made.params != {"threshold": 1.9, "hold": 6.0}, "the installed parameters have no edge worth choosing"
    save(made, tmp_path / "certificates")

    live = lived(history, tmp_path, strategy, rules, "live")
    assert [fact.certificate.digest for fact in live.told(StrategyApproved)] == [made.digest]
    runner = next(iter(live.daemon.strategies.runners.values()))[0]
    assert runner.params._asdict() == made.params, "what trades is what was certified"

    demoted, = live.told(StrategyDemoted)
    opened = live.told(TradeOpened)
    before = [fact for fact in opened if fact.at < GONE_FROM]
    assert len(before) >= 15, "it opens with the certificate while the edge lasts"
    assert demoted.at > GONE_FROM, "and is not demoted while it does"
    assert max(fact.at for fact in opened) <= demoted.at, "nothing opens with real money after the demotion"
    after = [one for one in live.decisions if one.at > demoted.at]
    assert len(after) >= 5 and all(one.outcome is Outcome.DENIED and one.stopped_by is Rule.CERTIFICATE_MISSING for one in after)
    said = next(check for check in after[0].checks if check.rule is Rule.CERTIFICATE_MISSING)
    assert "demoted to paper" in said.note
    assert any("demoted to paper" in words for words in live.announced)
    assert [fact for fact in live.told(ShadowClosed) if fact.at > demoted.at], "on paper it goes on"
    held = sum(1 for fact in opened if GONE_FROM <= fact.at <= demoted.at)
    print(f"{len(before)} trades with the edge, {held} without it before {demoted.reason}")


def test_the_same_life_without_a_certificate_opens_nothing_live_and_everything_on_paper(history: Path, tmp_path: Path) -> None:
    rules = policies()
    active = replace(planted(), params=worlds.Params(0.25, 12))
    until = LIVE_FROM + 240 * HOUR
    live = lived(history, tmp_path, active, rules, "live", until)
    assert live.decisions and not live.told(TradeOpened)
    assert {one.stopped_by for one in live.decisions} == {Rule.CERTIFICATE_MISSING}
    assert lived(history, tmp_path, active, rules, "replay", until).told(TradeOpened), "paper trading is never gated"
