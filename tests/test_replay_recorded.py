"""The whole daemon over the shared recordings: every trap of real data, by the rule that must catch it, checked against the raw files."""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fastparquet
import pytest

import config
import main
from modules.backtest.audit import audit
from modules.backtest.recorded import ENDED_AFTER_MS, RecordedSource
from modules.domain import sessions
from modules.domain.decision import Decision, Outcome, Rule
from modules.domain.events import Fact, ForeignFill, OrderIntended, OrderRejected
from modules.domain.instrument import AssetClass, Side
from modules.domain.market import Bar
from modules.domain.money import ZERO, book
from modules.domain.order import ExitReason, Fill, OrderKind, Purpose
from modules.domain.policies import Policies
from modules.domain.position import ClosedTrade
from modules.domain.signal import FLAT, Intent, Structure
from modules.news.calendar import Calendar
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("BOT_SHARED", ROOT.parent / "shared")) / "market_data"
POLICIES: Policies = config.load_policies(ROOT / "policies")
SPOT, PERP, FOREX, OPTION = AssetClass.SPOT, AssetClass.PERP, AssetClass.FOREX, AssetClass.OPTION
MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LATENCY = POLICIES.costs.latency_ms
TIRELESS = POLICIES.model_copy(update={"risk": POLICIES.risk.model_copy(update={
    "cooldown_losses": 0, "cooldown_stop_outs": 0, "correlated_others_max": 9, "quote_volume_24h_min": ZERO})})
"""Without the rules that would rest or ration a strategy that wants to trade all the time."""
F = TypeVar("F", bound=Fact)
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are absent")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


# -- strategies that want to trade ------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """When to hold what, and how far away stop and target are (fractions of price, 0 = none)."""

    since: float = 0.0
    until: float = math.inf
    on: int = 1
    """Bars a view lasts..."""
    off: int = 1
    """...and rests, over and over; 0 = it lasts from `since` to `until`."""
    stop: float = 0.02
    target: float = 0.0
    side: float = 1.0
    turn: bool = False
    """The other side every second time."""


def _step(state: int, market: Market, plan: Plan) -> tuple[int, Intent]:
    if not plan.since <= market.at < plan.until:
        return 0, FLAT
    cycle = plan.on + plan.off
    wants = plan.off == 0 or state % cycle < plan.on
    side = -plan.side if plan.turn and state // cycle % 2 else plan.side
    return state + 1, Intent(side, plan.stop * market.close, plan.target * market.close, 0) if wants else FLAT


def _daily(state: int, market: Market, plan: Plan) -> tuple[int, Intent]:
    """Wants to buy at the end of every UTC day."""
    return 0, Intent(1.0, plan.stop * market.close, 0.0, 0) if market.at % DAY == 0 else FLAT


def wanting(*classes: AssetClass, step: Any = _step, name: str = "wanting", **plan: Any) -> Strategy:
    return Strategy(name=name, description="trades by the clock", asset_classes=classes, params=Plan(**plan), init=lambda _: 0, step=step,
                    warmup=0)


# -- the whole daemon over a few files ----------------------------------------------------------------------------------------


class Run(NamedTuple):
    source: RecordedSource
    simulation: main.Simulation

    @property
    def fills(self) -> list[Fill]:
        return [fact.fill for fact in self.simulation.recorder.fills]

    @property
    def decisions(self) -> Sequence[Decision]:
        return self.simulation.recorder.decisions

    @property
    def trades(self) -> list[ClosedTrade]:
        return [fact.trade for fact in self.simulation.recorder.trades]

    def facts(self, kind: type[F]) -> list[F]:
        return [fact for _, fact in self.simulation.daemon.journal.facts() if type(fact) is kind]

    def bars(self, symbol: str) -> dict[int, Bar]:
        """By their open."""
        return {bar.ts: bar for bar in self.source.history(symbol, self.source.end + DAY, 10**9)}


class Play:
    """Replays links to some recordings with some strategies. Whatever happens, the books must agree with the venue's wallet at the end,
    with a recount from the market's own numbers, and nobody may have been quarantined."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp = tmp_path
        self._runs = 0

    def __call__(self, patterns: Iterable[str], strategies: Sequence[Strategy], first: str | None = None, last: str | None = None, *,
                 wallet: str = "1000", policies: Policies = POLICIES) -> Run:
        self._runs += 1
        data, state = self._tmp / f"data{self._runs}", self._tmp / f"state{self._runs}"
        state.mkdir()
        for pattern in patterns:
            found = list(SHARED.glob(pattern))
            assert found, pattern
            for path in found:
                (data / path.parent.name).mkdir(parents=True, exist_ok=True)
                (data / path.parent.name / path.name).symlink_to(path)
        by_class = {c: [s for s in strategies if c in s.asset_classes] for c in AssetClass}
        source = RecordedSource(data, None, (at(first) if first else None, at(last) if last else None), costs=policies.costs)
        simulation = main.simulate(
            source, policies=policies, wallets={c: Decimal(wallet) for c in AssetClass if by_class[c]},
            calendar=Calendar((), policies.news, {}), strategies=by_class, folder=state)
        assert simulation.differences == 0
        assert audit(simulation) == []
        assert not simulation.daemon.strategies.quarantined
        return Run(source, simulation)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path)


def failed(decision: Decision) -> set[Rule]:
    return {check.rule for check in decision.checks if not check.passed}


# -- one impossible price -----------------------------------------------------------------------------------------------------


@needs_shared
def test_a_long_in_link_is_stopped_at_its_stop_and_not_at_the_wick_of_2020_03_12(play: Play) -> None:
    wick = at("2020-03-12 10:00")
    run = play(["crypto_spot/binance_LINKUSDT_1h*"], [wanting(SPOT, since=at("2020-03-12 09:00"), off=0, stop=0.1)],
               "2020-03-10", "2020-03-14", wallet="100000")
    assert run.bars("LINK/USDT")[wick].low == 0.0001
    bought, sold = run.fills[:2]
    (stop,) = [fact.order.price for fact in run.facts(OrderIntended) if fact.order.purpose is Purpose.STOP][:1]
    model = POLICIES.costs.SPOT
    assert stop is not None and bought.side is Side.BUY and sold.side is Side.SELL and sold.at == wick + HOUR
    least = stop * (1 - Decimal(str(model.slippage_bp + model.stop_slippage_bp + model.impact_bp)) / 10_000) - Decimal("0.0001")
    assert least <= sold.price < stop
    assert run.trades[0].exit_reason is ExitReason.STOP_LOSS
    assert run.simulation.recorder.halts == []
    least_equity = min(equity for _, equity in run.simulation.recorder.curve[SPOT])
    assert least_equity > 100_000 - bought.quantity * (bought.price - sold.price) - 2 * (bought.fee * bought.price + sold.fee)


@needs_shared
def test_the_wick_moves_no_mark_and_is_refused_by_nobody(play: Play) -> None:
    run = play(["crypto_spot/binance_LINKUSDT_1h*"], [wanting(SPOT)], "2020-03-11", "2020-03-12 11:00")
    market = run.simulation.daemon.market
    mark = market.mark("LINK/USDT", run.source.end)
    assert mark is not None and float(mark) == pytest.approx(2.4693)
    assert market.series["LINK/USDT"].refused == 0


# -- a feed that freezes and then goes -----------------------------------------------------------------------------------------


@needs_shared
def test_on_the_frozen_feed_of_2023_03_24_nothing_is_entered_and_in_the_hole_after_it_nothing_fills(play: Play) -> None:
    hole = (at("2023-03-24 12:40"), at("2023-03-24 14:00"))
    run = play(["crypto_spot/binance_BTCUSDT_5m*", "crypto_spot/binance_ETHUSDT_5m*", "crypto_spot/binance_XRPUSDT_5m*"],
               [wanting(SPOT, on=4, off=1)], "2023-03-24 08:00", "2023-03-24 18:00", policies=TIRELESS)
    assert len(run.fills) > 100
    frozen = [d for d in run.decisions if at("2023-03-24 12:00") <= d.at <= hole[0]]
    assert frozen
    for decision in frozen:  # six bars of 11:30..11:55 without a trade: from 12:00 on the feed counts as frozen
        assert decision.outcome is Outcome.DENIED and Rule.FEED_FROZEN in failed(decision), decision
    assert not any(Rule.FEED_FROZEN in failed(d) for d in run.decisions if d.at < at("2023-03-24 12:00") or d.at > hole[1])
    assert not [fill for fill in run.fills if hole[0] < fill.at < hole[1]]
    assert not [fill for fill in run.fills if at("2023-03-24 11:35") < fill.at < hole[1]]  # without volume nobody trades with us


@needs_shared
def test_what_is_held_when_a_feed_freezes_is_sold_when_it_is_back_and_asking_does_not_flood_the_journal(play: Play) -> None:
    run = play(["crypto_spot/binance_BTCUSDT_5m*"],
               [wanting(SPOT, since=at("2023-03-24 11:15"), until=at("2023-03-24 12:00"), off=0, stop=0.05)],
               "2023-03-24 08:00", "2023-03-24 18:00")
    bought, sold = run.fills
    assert bought.at == at("2023-03-24 11:15") + LATENCY
    assert sold.at == at("2023-03-24 14:05") + LATENCY  # the first opening after a bar with volume
    exits = [fact for fact in run.facts(OrderIntended) if fact.order.purpose is Purpose.EXIT]
    assert 2 <= len(exits) <= 8


@needs_shared
def test_every_fill_lies_in_a_bar_that_exists_and_inside_its_prices(play: Play) -> None:
    restless = wanting(SPOT, PERP, FOREX, on=3, off=1, stop=0.004, target=0.006, turn=True)
    fills = 0
    for first, last, patterns in (("2012-02-07", "2012-02-07 12:00", ["forex/fxcm_GBPUSD_1m*", "forex/fxcm_EURUSD_1h*", "macro/oecd*"]),
                                  ("2014-05-13", "2014-05-13 12:00", ["forex/oanda_*1m_bidask*", "macro/oecd*"]),
                                  ("2018-04-05", "2018-04-05 08:00", ["crypto_spot/coinbase_*_1m_bidask*"]),
                                  ("2018-02-05", "2018-02-12", ["crypto_spot/binance_[BEL]*USDT_1h*"])):
        run = play(patterns, [restless], first, last, policies=TIRELESS)
        orders = {fact.order.client_order_id: fact.order for fact in run.facts(OrderIntended)}
        books = {i.symbol: (run.bars(i.symbol), run.source.intervals_ms[i.symbol], i) for i in run.source.instruments}
        for fill in run.fills:
            bars, interval, instrument = books[fill.symbol]
            order = orders.get(fill.client_order_id)
            model = POLICIES.costs.of(instrument.asset_class)
            off = (model.half_spread_bp + model.slippage_bp + model.stop_slippage_bp + model.impact_bp) / 1e4
            if order is not None and order.kind is OrderKind.MARKET:  # at an opening, after the latency
                opened = fill.at - fill.at % interval
                assert LATENCY <= fill.at - opened <= 4 * LATENCY  # a reversal's opening follows its close
                bar = bars[opened]
                low = high = bar.open
            else:  # in the range of a bar that has just closed, or at its close by the venue
                bar = bars[fill.at - interval]
                low, high = bar.low, bar.high
            # forex and Coinbase bars are mids of a bid and an ask: half of the widest spread they quote lies beyond
            wide = max(2.0 * abs(bar.ask - bar.bid) / bar.close, 0.002) if bar.ask == bar.ask else 0.0
            assert low * (1 - off - wide) <= float(fill.price) <= high * (1 + off + wide), fill
            fills += 1
    assert fills > 500


# -- a universe ------------------------------------------------------------------------------------------------------------------


@needs_shared
def test_273_of_the_379_pairs_trade_less_than_five_million_a_day_and_are_denied_on_such_days(play: Play) -> None:
    run = play(["crypto_spot/binance_universe*"], [wanting(SPOT, step=_daily)])
    minimum = float(POLICIES.risk.quote_volume_24h_min)
    seen: dict[str, list[float]] = {}
    for decision in run.decisions:
        (check,) = [check for check in decision.checks if check.rule is Rule.LIQUIDITY_BELOW_MINIMUM]
        assert check.measured is not None
        seen.setdefault(decision.symbol, []).append(float(check.measured))
        assert check.passed == (check.measured >= minimum)
        if check.measured < minimum:
            assert decision.outcome is Outcome.DENIED
    assert len(seen) == 379
    assert sum(statistics.median(volumes) < minimum for volumes in seen.values()) == 273
    assert any(decision.outcome is Outcome.APPROVED for decision in run.decisions)
    # the measure is the day's own quote volume, to the cent
    table = fastparquet.ParquetFile(str(next(SHARED.glob("crypto_spot/binance_universe*")))).to_pandas()
    day = table[(table.ts >= at("2024-07-24")) & (table.ts < at("2024-07-25"))].groupby("symbol").quote_volume.sum()
    (btc,) = [d for d in run.decisions if d.symbol == "BTC/USDT" and d.at == at("2024-07-25")]
    (check,) = [check for check in btc.checks if check.rule is Rule.LIQUIDITY_BELOW_MINIMUM]
    assert check.measured == pytest.approx(next(total for name, total in day.items() if str(name).replace("/", "") == "BTCUSDT"), rel=1e-12)


# -- forex -----------------------------------------------------------------------------------------------------------------------


@needs_shared
def test_a_crossed_close_is_no_quote_so_nothing_is_entered_on_it(play: Play) -> None:
    run = play(["forex/fxcm_EURUSD_1h*", "macro/oecd*"], [wanting(FOREX, on=1, off=1)], "2010-03-01", "2010-03-20")
    crossed = {ts + HOUR for ts, bar in run.bars("EUR/USD").items() if bar.ask < bar.bid}
    on_crossed = [d for d in run.decisions if d.at in crossed]
    assert len(on_crossed) >= 5
    for decision in on_crossed:
        (age,) = [check for check in decision.checks if check.rule is Rule.QUOTE_STALE]
        assert decision.outcome is Outcome.DENIED and age.measured is not None and age.measured >= 3600
    assert any(d.outcome is Outcome.APPROVED for d in run.decisions)


@needs_shared
def test_forex_is_flat_over_weekends_christmas_and_new_year_and_fills_only_while_it_is_open(play: Play) -> None:
    restless = wanting(FOREX, on=30, off=2, stop=0.03)
    run = play(["forex/oanda_EURUSD_1h*", "forex/mt5_GBPUSD*", "macro/oecd*"], [restless], "2014-11-15", "2015-01-20")
    assert len(run.trades) > 50
    opens = {symbol: sorted(run.bars(symbol)) for symbol in ("EUR/USD", "GBP/USD")}
    for trade in run.trades:
        assert trade.closed_at <= sessions.next_close(trade.opened_at), trade
        lived = [trade.opened_at, *(ts for ts in opens[trade.symbol] if trade.opened_at < ts < trade.closed_at), trade.closed_at]
        assert max(b - a for a, b in pairwise(lived)) <= 4 * HOUR, trade  # no closed market in between, whatever the calendar says
        assert trade.exit_reason in (ExitReason.EXIT_SIGNAL, ExitReason.TIME_EXIT, ExitReason.STOP_LOSS)
    assert all(sessions.forex_open(fill.at) for fill in run.fills)
    assert sum(trade.exit_reason is ExitReason.TIME_EXIT for trade in run.trades) > 10


@needs_shared
def test_forex_nights_cost_the_recorded_interest_difference_and_are_unknown_without_it(play: Play) -> None:
    holding = wanting(FOREX, since=at("2012-05-07 12:00"), until=at("2012-05-11 12:00"), off=0, stop=0.2)
    run = play(["forex/oanda_EURUSD_1h*", "macro/oecd*"], [holding], "2012-05-01", "2012-05-12")
    rates = {}
    table = fastparquet.ParquetFile(str(next(SHARED.glob("macro/oecd*")))).to_pandas()
    for country in ("EA19", "USA"):
        row = table[(table.location == country) & (table.ts == at("2012-04-01"))]
        rates[country] = float(row.rate_pct.iloc[0]) / 100
    annual = rates["EA19"] - rates["USA"] - float(POLICIES.costs.forex_financing_markup)
    (bought, _) = run.fills
    booked = run.simulation.recorder.funding
    assert [datetime.fromtimestamp(fact.at / 1000, UTC).weekday() for fact in booked] == [0, 1, 2, 3]
    for fact, nights in zip(booked, (1, 1, 3, 1), strict=True):
        assert fact.rate == pytest.approx(annual)
        mark = run.bars("EUR/USD")[fact.at - HOUR].close
        assert float(fact.amount) == pytest.approx(float(bought.quantity) * mark * fact.rate / 365 * nights, abs=2e-8)
    without = play(["forex/oanda_EURUSD_1h*"], [holding], "2012-05-01", "2012-05-12")
    assert not without.fills
    assert all(Rule.CARRY_ABOVE_MAXIMUM in failed(d) for d in without.decisions)
    assert any("EUR/USD" in note for note in without.source.notes)


# -- perpetuals --------------------------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_funding_is_charged_at_each_recorded_settlement_at_its_rate_on_the_recorded_mark(play: Play, side: Side) -> None:
    run = play(["crypto_perp/binance_BTCUSDT-PERP_1h*", "crypto_perp/binance_BTCUSDT-PERP_funding*"],
               [wanting(PERP, on=37, off=3, stop=0.15, side=side.sign)], "2021-01-05", "2021-02-05", wallet="50000")
    read = {kind: fastparquet.ParquetFile(str(SHARED / "crypto_perp" / f"binance_BTCUSDT-PERP_{kind}.parquet")).to_pandas()
            for kind in ("funding", "1h_mark")}
    rates = dict(zip(read["funding"].ts, read["funding"].funding_rate, strict=True))
    marks = dict(zip(read["1h_mark"].ts + HOUR, read["1h_mark"].close, strict=True))
    position, expected = ZERO, []
    events = sorted([(fill.at, 1, fill) for fill in run.fills] + [(int(ts), 0, None) for ts in rates
                                                                  if run.source.start <= ts <= run.source.end], key=lambda e: e[:2])
    for when, _, fill in events:
        if fill is not None:
            position += fill.side.sign * fill.quantity
        elif position:
            amount = -position * Decimal(repr(float(marks[when]))) * Decimal(repr(float(rates[when])))
            expected.append((when, float(rates[when]), book(amount)))
    booked = [(fact.at, fact.rate, fact.amount) for fact in run.simulation.recorder.funding]
    assert booked == expected and len(booked) > 25
    paid = sum((amount for _, _, amount in booked), ZERO)
    assert (paid < 0) is (side is Side.BUY)  # rates were positive that month: longs paid


# -- recordings that end, and several of one market -----------------------------------------------------------------------------------


@needs_shared
def test_a_recording_that_ends_takes_no_position_with_it(play: Play) -> None:
    forever = wanting(SPOT, PERP, since=at("2019-10-11"), off=0, stop=0.35)
    run = play(["crypto_spot/coinbase_BTCUSD_1h*", "crypto_spot/binance_ETHUSDT_1h*", "crypto_perp/binance_BTCUSDT-PERP_1h.*",
                "crypto_perp/binance_BTCUSDT-PERP_funding.*"], [forever], "2019-10-10", "2019-12-01")
    last = max(run.bars("BTC/USD"))
    (ended,) = [trade for trade in run.trades if trade.symbol == "BTC/USD"]
    assert ended.exit_reason is ExitReason.DELISTED and ended.closed_at == last + HOUR
    close = run.bars("BTC/USD")[last].close
    assert close * 0.998 < float(ended.exit) < close
    assert "BTC/USD" not in run.simulation.daemon.portfolio.positions
    assert {"ETH/USDT", "BTC/USDT:USDT"} <= set(run.simulation.daemon.portfolio.positions)  # theirs go on
    assert run.simulation.daemon.executor.trades.keys().isdisjoint({ended.trade_id})


@needs_shared
def test_only_a_week_without_bars_ends_a_recording(tmp_path: Path) -> None:
    for path in SHARED.glob("crypto_perp/binance_[BEA]*"):
        (tmp_path / path.name).symlink_to(path)
    source = RecordedSource(tmp_path, [PERP], (at("2018-02-01"), at("2026-02-01")), costs=POLICIES.costs, timeframe="1h")
    ended = {(symbol, step.at) for step in source.steps() for symbol in step.ended}
    assert ended == {(symbol, at("2025-01-01")) for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT", "ADA/USDT:USDT")}  # BTC and ETH begin anew


@needs_shared
def test_the_longest_outage_on_record_is_no_end(tmp_path: Path) -> None:
    (tmp_path / "binance_BTCUSDT_1h.parquet").symlink_to(SHARED / "crypto_spot" / "binance_BTCUSDT_1h.parquet")
    source = RecordedSource(tmp_path, None, (at("2018-02-01"), at("2018-03-01")), costs=POLICIES.costs)
    opens = [bar.ts for step in source.steps() for _, bar in step.bars]
    assert DAY < max(b - a for a, b in pairwise(opens)) < ENDED_AFTER_MS
    assert not any(step.ended for step in source.steps())


@needs_shared
def test_two_recordings_of_one_coin_never_sell_each_others_coins(play: Play) -> None:
    # Both are long; the 5-minute one is stopped and re-enters all the time, the hourly one has a stop far away and must keep its coins.
    nervous = wanting(SPOT, name="nervous", on=6, off=1, stop=0.0006, target=0.0006)
    calm = wanting(SPOT, name="calm", since=at("2023-01-12 02:00"), off=0, stop=0.4)
    nervous = replace(nervous, interval_ms=5 * MINUTE)
    calm = replace(calm, interval_ms=HOUR)
    run = play(["crypto_spot/binance_BTCUSDT_5m*", "crypto_spot/binance_BTCUSDT_1h*"],
               [nervous, calm], "2023-01-12", "2023-01-14", policies=TIRELESS)
    assert len(run.trades) > 50 and {trade.strategy for trade in run.trades} == {"nervous"}
    assert {trade.symbol for trade in run.trades} == {"BTC/USDT#binance-5m"}
    sold: Counter[str] = Counter()
    for fill in run.fills:
        sold[fill.symbol] += 1 if fill.side is Side.SELL else 0
    assert sold["BTC/USDT"] == 0
    held = run.simulation.daemon.portfolio.positions["BTC/USDT"]
    (bought,) = [fill for fill in run.fills if fill.symbol == "BTC/USDT"]
    assert held.quantity == bought.quantity - bought.fee
    assert not run.facts(ForeignFill)


# -- options -------------------------------------------------------------------------------------------------------------------------


@needs_shared
def test_deribit_options_are_bought_and_settled_in_dollars_from_premiums_in_coin(play: Play) -> None:
    buyer = replace(wanting(OPTION, name="buyer", on=24 * 3, off=24, stop=0.0, turn=True), structure=Structure.LONG_OPTION, days=21.0,
                    delta=0.45)
    run = play(["crypto_perp/binance_*_2026.parquet", "options/deribit_*2026-01_1d*", "options/deribit_*2026-02_1d*"], [buyer],
               "2026-01-01", "2026-02-20", wallet="15000")
    approved = [d for d in run.decisions if d.outcome is Outcome.APPROVED]
    assert len(approved) >= 5, Counter(d.stopped_by for d in run.decisions)
    perp = {symbol.partition("/")[0]: run.bars(symbol) for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT")}
    for fill in run.fills:
        hour = fill.at - fill.at % HOUR
        bars = perp[fill.symbol.partition("/")[0]]
        index = bars[hour].open if hour in bars else bars[hour - HOUR].close
        assert 0 < fill.price < 1 and fill.price % Decimal("0.0001") == 0  # coin
        assert float(fill.settle_rate) == pytest.approx(index, rel=0.02)  # dollars a coin
        assert float(fill.fee) <= 0.125 * float(fill.price * fill.settle_rate * fill.quantity) * 1.001
    ledger = run.simulation.daemon.portfolio.ledger(OPTION)
    cash = Decimal(15000)
    for fill in run.fills:
        cash -= fill.side.sign * book(fill.quantity * fill.price * fill.settle_rate) + fill.fee
    for settled in run.simulation.recorder.settlements:
        cash += book(settled.quantity * settled.value * settled.settle_rate) - settled.fee
    assert ledger.cash == cash
    assert len(run.trades) >= 3


# -- years ---------------------------------------------------------------------------------------------------------------------------


@needs_shared
def test_the_shipped_strategies_replay_the_crash_of_2020_without_flooding_the_journal(play: Play) -> None:
    run = play(["crypto_spot/binance_[BEL]*USDT_1h*", "crypto_perp/*PERP_1h.*", "crypto_perp/*PERP_1h_mark.*", "crypto_perp/*funding.*"],
               list(all_strategies().values()), "2020-02-15", "2020-04-15", wallet="10000")
    trades = len(run.trades)
    assert trades > 10
    orders = run.facts(OrderIntended)
    assert len(orders) < 8 * trades + 50  # entry, stop, target, exit and a few retries
    entries = {fact.order.trade_id: fact.order for fact in orders if fact.order.purpose is Purpose.ENTRY}
    stops = {fact.order.trade_id for fact in orders if fact.order.purpose is Purpose.STOP}
    filled = {fill.client_order_id for fill in run.fills}
    assert {trade for trade, order in entries.items() if order.client_order_id in filled} <= stops  # nothing is held without a stop
    assert run.simulation.daemon.journal.count < 100 * trades + 2000


@needs_shared
def test_a_short_whose_target_lies_below_zero_has_no_target_and_nothing_is_refused(play: Play) -> None:
    # After a crash a target of many average ranges does that; in May 2021 one was sent, and refused, every hour.
    run = play(["crypto_perp/binance_ADAUSDT-PERP_1h.*", "crypto_perp/binance_ADAUSDT-PERP_funding*"],
               [wanting(PERP, since=at("2021-08-24"), off=0, stop=0.3, target=1.5, side=-1.0)], "2021-08-23", "2021-08-26")
    assert run.decisions and run.decisions[0].outcome is Outcome.APPROVED, failed(run.decisions[0])
    assert {fact.order.purpose for fact in run.facts(OrderIntended)} == {Purpose.ENTRY, Purpose.STOP}
    assert not run.facts(OrderRejected)


# -- the forex calendar (no recordings needed) --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opened", "closes"), [
    ("2015-12-22 10:00", "2015-12-24 17:00"),   # Thursday before Christmas, noon New York
    ("2015-12-28 10:00", "2015-12-31 17:00"),
    ("2016-01-04 10:00", "2016-01-08 22:00"),   # an ordinary Friday, 17:00 New York
    ("2016-07-04 10:00", "2016-07-08 21:00"),   # in summer time
    ("2010-12-23 10:00", "2010-12-24 17:00"),   # the eve is the Friday itself
])
def test_forex_closes_for_weekends_and_at_noon_before_christmas_and_new_year(opened: str, closes: str) -> None:
    assert sessions.next_close(at(opened)) == at(closes)
    assert sessions.forex_open(at(closes) - MINUTE) and not sessions.forex_open(at(closes))


def test_forex_opens_again_at_five_in_new_york_after_a_holiday() -> None:
    assert not sessions.forex_open(at("2014-12-25 21:59")) and sessions.forex_open(at("2014-12-25 22:00"))
    assert not sessions.forex_open(at("2016-01-01 22:00")) and sessions.forex_open(at("2016-01-03 22:00"))
