"""Owns the strategies' states and the pipeline: closed bar -> step -> signal -> view -> checks -> size -> decision -> approved order.

May refuse: any signal of which one check fails. `on_bar` is a plain def and nothing below it suspends, so what was checked is still true
when it is used. A strategy that raises, returns nonsense or the wrong type is quarantined by name; the others go on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from modules.backtest import costs as cost_model
from modules.domain import sessions
from modules.domain.decision import Decision, Leg, Outcome, Rule
from modules.domain.events import Fact, PositionClosed, TradeAbandoned, TradeOpened
from modules.domain.instrument import ASSET_CLASSES, AssetClass, Instrument, Side
from modules.domain.market import NAN, Bar, Chain
from modules.domain.money import from_float
from modules.domain.order import ExitReason
from modules.domain.policies import Policies
from modules.domain.signal import Intent, Signal, Structure
from modules.filters import gates
from modules.filters.blackout import mood_factor
from modules.filters.option_book import option_book
from modules.learning.option_shadow import Shape
from modules.runtime.supervise import attempt, attempt_step
from modules.strategies.protocol import ChainSlice, Market, Strategy
from modules.venues.protocol import TellsContracts

if TYPE_CHECKING:
    from modules.learning.option_shadow import OptionShadow
    from modules.learning.shadow import Shadow
    from modules.Learning_Agent import LearningAgent
    from modules.Market_Data import Higher, MarketData, Series
    from modules.Risk_Management import RiskManagement
    from modules.runtime.clock import Clock
    from modules.Sizer import Sizer
    from modules.store.decisions import Decisions
    from modules.Trade_Executor import TradeExecutor
    from modules.venues.protocol import Venue
    from modules.View_Builder import ViewBuilder

log = structlog.get_logger("Strategy_Manager")
NO_CHAIN: Final = ChainSlice()
MINUTE: Final = 60_000
LARGEST: Final = 1e300
OF_THE_MARKET: Final = frozenset((
    Rule.QUOTE_STALE, Rule.BAR_STALE, Rule.FEED_FROZEN, Rule.SESSION_CLOSED, Rule.SPREAD_ABOVE_MAXIMUM, Rule.LIQUIDITY_BELOW_MINIMUM,
    Rule.FUNDING_ABOVE_MAXIMUM, Rule.CARRY_ABOVE_MAXIMUM, Rule.CARRY_SHARE_ABOVE_MAXIMUM, Rule.BLACKOUT,
    Rule.OPEN_INTEREST_BELOW_MINIMUM, Rule.EXPIRY_TOO_NEAR))
"""What forbids an entry whoever's book it is: then its shadow does not enter either."""


class Runner:
    """One strategy on one series: its state, its present view and the trade it has open."""

    __slots__ = ("asset_class", "bars", "best", "entered_ts", "higher", "intent", "option", "params", "quarantined", "reversal", "shadow",
                 "sign", "state", "step", "strategy", "successor", "symbol", "trade", "trade_id")

    def __init__(self, strategy: Strategy, symbol: str, asset_class: AssetClass, higher: Higher) -> None:
        self.symbol = symbol
        self.asset_class = asset_class
        self.option = strategy.structure is not Structure.SINGLE
        self.higher = higher
        self.quarantined = ""
        self.begin(strategy)
        self.trade_id = ""
        self.trade: TradeOpened | None = None
        self.entered_ts = 0
        self.best = NAN
        """Best price since entry, for trailing."""
        self.shadow: Shadow | OptionShadow | None = None
        """Its trades on paper beside the book."""
        self.reversal: Signal | None = None
        """The opening side of a reversal, decided when the close has been filled."""

    def begin(self, strategy: Strategy) -> None:
        """Look at the series with these parameters and no past."""
        self.strategy = strategy
        self.step = strategy.step
        self.params = strategy.params
        self.state: Any = strategy.init(strategy.params)
        self.intent: Any = None
        """The last one, checked."""
        self.sign = 0
        self.bars = 0
        self.reversal = None
        self.successor: Strategy | None = None
        """Itself with other parameters, from the end of its open trade on."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    strategy: str
    symbol: str
    reason: str


class StrategyManager:
    def __init__(
        self, *, clock: Clock, policies: Policies, look: ViewBuilder, sizer: Sizer, risk: RiskManagement, executor: TradeExecutor,
        decisions: Decisions, on_decision: Callable[[Decision], None] | None = None, learning: LearningAgent | None = None,
    ) -> None:
        self._clock = clock
        self._policies = policies
        self._look = look
        self._sizer = sizer
        self._risk = risk
        self._executor = executor
        self._decisions = decisions
        self._on_decision = on_decision
        self._learning = learning
        self._market: MarketData
        self._series: Mapping[str, Series]
        self._runners: dict[str, list[Runner]] = {}
        self._by_trade: dict[str, Runner] = {}
        self._opened: dict[tuple[str, str, AssetClass], TradeOpened] = {}
        self._references: dict[AssetClass, str] = {}
        self._option_strategies: tuple[Strategy, ...] = ()
        self._option_series: dict[str, int] = {}
        """Where option strategies look -> how many bars had been shown there before they did."""
        self._counted = dict.fromkeys(AssetClass, 0)
        self._trading_from = 0
        self.quarantined: list[Quarantine] = []
        self.last_decisions: deque[Decision] = deque(maxlen=200)

    def adopt(self, policies: Policies) -> None:
        """Work by the owner's new numbers from the next bar on."""
        self._policies = policies

    # -- wiring ---------------------------------------------------------------------------------------------------------

    def attach(self, market: MarketData, strategies: Mapping[AssetClass, Sequence[Strategy]], references: Mapping[AssetClass, str]) -> None:
        """Put every class's strategies on every series of that class; option strategies on the series their underlying is watched on."""
        self._market = market
        self._series = market.series
        self._references = dict(references)
        self._option_strategies = tuple(strategies.get(AssetClass.OPTION, ()))
        self.add(market.series, strategies)

    def add(self, symbols: Collection[str], strategies: Mapping[AssetClass, Sequence[Strategy]]) -> None:
        """Put every class's strategies on the series of `symbols`."""
        for symbol in list(symbols):
            asset_class = self._series[symbol].instrument.asset_class
            for strategy in strategies.get(asset_class, ()):
                if strategy.structure is Structure.SINGLE:
                    self._add(strategy, symbol, asset_class)

    def remove(self, symbol: str) -> None:
        """Nobody looks at this series any more. Nothing is held there."""
        for runner in self._runners.pop(symbol, ()):
            assert runner.trade is None and not runner.option

    def carries_options(self, symbol: str) -> bool:
        """Whether option strategies look at this series."""
        return symbol in self._option_series

    def attach_options(self, underlying: str, strategies: Sequence[Strategy]) -> None:
        symbol = self._market.leader(underlying)
        if symbol is None:
            return
        for strategy in strategies:
            known = any(r.option and r.strategy.name == strategy.name for r in self._runners.get(symbol, ()))
            if strategy.structure is not Structure.SINGLE and not known:
                self._add(strategy, symbol, AssetClass.OPTION)

    def _add(self, strategy: Strategy, symbol: str, asset_class: AssetClass) -> None:
        interval = self._market.series[symbol].interval_ms
        if strategy.interval_ms is not None and strategy.interval_ms != interval:
            return
        runner = Runner(strategy, symbol, asset_class, self._market.want_higher(symbol, interval * strategy.htf_multiple))
        if self._learning is not None and not runner.option:
            runner.shadow = self._learning.shadow(strategy.name, symbol, asset_class)
        elif self._learning is not None:
            runner.shadow = self._learning.option_shadow(
                strategy.name, symbol, Shape(strategy.structure, strategy.days, strategy.delta, strategy.width),
                self._series[symbol].instrument.underlying, self._market)
        opened = self._opened.get((strategy.name, symbol, asset_class))
        if opened is not None:
            self._hold(runner, opened)
        self._runners.setdefault(symbol, []).append(runner)
        if runner.option:
            self._option_series.setdefault(symbol, self._series[symbol].bars)

    def bars_seen(self, asset_class: AssetClass) -> int:
        """Closed bars that the class's strategies were shown: an option's have none of their own, they look at their underlying's."""
        if asset_class is not AssetClass.OPTION:
            return self._market.bars_seen(asset_class)
        return sum(self._series[symbol].bars - before for symbol, before in self._option_series.items())

    def count_bars(self, at: int) -> None:
        """The mouth of `explain`'s funnel: the bars that every class's strategies were shown since this was last called. `at` UTC ms."""
        for asset_class in ASSET_CLASSES:
            seen = self.bars_seen(asset_class)
            if seen > self._counted[asset_class]:
                self._decisions.count_bars(asset_class, seen - self._counted[asset_class], at)
                self._counted[asset_class] = seen

    def refit(self, strategy: Strategy, asset_class: AssetClass) -> None:
        """From now on this strategy runs with these parameters: each series at once, or when the trade it has open there is over. It sees
        its warm-up anew before it opens anything."""
        if asset_class is AssetClass.OPTION:
            self._option_strategies = tuple(strategy if one.name == strategy.name else one for one in self._option_strategies)
        for runners in self._runners.values():
            for runner in runners:
                if runner.strategy.name == strategy.name and runner.asset_class is asset_class:
                    if runner.trade is None:
                        runner.begin(strategy)
                    else:
                        runner.successor = strategy

    @property
    def runners(self) -> Mapping[str, Sequence[Runner]]:
        return self._runners

    def warm(self, symbol: str, bar: Bar) -> None:
        """Let the strategies of a series see a bar of the past: states move, nothing is decided."""
        series = self._market.series[symbol]
        for runner in self._runners.get(symbol, ()):
            at, shadow = bar.ts + series.interval_ms, runner.shadow
            self._step(runner, series, bar, at)
            if shadow is not None and shadow.busy and bar.ts >= shadow.opened_at:  # what it held when the process ended
                assert self._learning is not None
                self._learning.shadowed(shadow.on_bar(series, bar, at, None))

    # -- projection: which trade belongs to which runner -------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        kind = type(fact)
        if kind is TradeOpened:
            assert isinstance(fact, TradeOpened)
            self._opened[(fact.strategy, fact.symbol, fact.asset_class)] = fact
            for runner in self._runners.get(fact.symbol, ()):
                if runner.strategy.name == fact.strategy and runner.asset_class is fact.asset_class:
                    self._hold(runner, fact)
        elif kind is PositionClosed:
            assert isinstance(fact, PositionClosed)
            self._release(fact.trade.trade_id)
        elif kind is TradeAbandoned:
            assert isinstance(fact, TradeAbandoned)
            self._release(fact.trade_id)

    def _hold(self, runner: Runner, opened: TradeOpened) -> None:
        runner.trade_id, runner.trade = opened.trade_id, opened
        runner.best = opened.entry
        runner.entered_ts = opened.at
        self._by_trade[opened.trade_id] = runner

    def _release(self, trade_id: str) -> None:
        runner = self._by_trade.pop(trade_id, None)
        if runner is not None:
            runner.trade_id, runner.trade = "", None
            if runner.successor is not None:
                runner.begin(runner.successor)
        for key, opened in list(self._opened.items()):
            if opened.trade_id == trade_id:
                del self._opened[key]

    def on_fact(self, fact: Fact) -> None:
        """The opening side of a reversal is decided once its closing side is through."""
        if not isinstance(fact, PositionClosed):
            return
        for runner in self._runners.get(fact.trade.symbol, ()):
            signal = runner.reversal
            if signal is not None and not runner.trade_id:
                runner.reversal = None
                if not self._benched(runner) and (fact.at - signal.at) / 1000.0 <= self._policies.risk.bar_late_s_max:
                    self.consider(runner.strategy, signal, fact.at)

    async def run(self, market: MarketData, venues: Sequence[Venue]) -> None:
        """Take every venue's closed bars as they come; ends only when recorded data ends."""
        async with asyncio.TaskGroup() as group:
            for venue in venues:
                group.create_task(self._follow(market, venue), name=f"market {venue.name}")

    async def _follow(self, market: MarketData, venue: Venue) -> None:
        async for batch in venue.market_events():
            for chain in batch.chains:
                await self._list(market, venue, chain)
            market.accept(batch)

    async def _list(self, market: MarketData, venue: Venue, chain: Chain) -> None:
        """New contracts of a chain are listed, and option strategies put on its underlying, before anybody sees its prices."""
        unknown = [quote.symbol for quote in chain.quotes if market.instrument(quote.symbol) is None]
        if unknown and isinstance(venue, TellsContracts):
            market.list_instruments([one for symbol in unknown if (one := venue.contract(symbol)) is not None], venue.interval_ms)
        elif unknown:
            market.list_instruments(await venue.instruments(), venue.interval_ms)
        self.attach_options(chain.underlying, self._option_strategies)

    # -- one closed bar ---------------------------------------------------------------------------------------------------

    def on_bar(self, symbol: str, bar: Bar, at: int) -> None:
        """Every strategy on this series looks at its closed bar; exits first, then at most one entry each."""
        runners = self._runners.get(symbol)
        if runners is None:
            return
        series, step = self._series[symbol], self._step
        for runner in runners:
            before = runner.sign
            intent = step(runner, series, bar, at)
            if intent is None:
                continue
            runner.reversal = None  # decided when the close is filled at once, or not at all: by now it is an old bar's view
            sign, shadow = runner.sign, runner.shadow
            if shadow is not None and (sign != before or (shadow.busy and not shadow.untouched(series, bar, at, sign))):
                self._shadowed(runner, shadow, series, bar, intent, at, before)
            if runner.trade is None and (sign == 0 or sign == before):
                continue
            if runner.trade is not None:
                self._manage(runner, bar, at, sign)
                if sign == 0 or sign == before or runner.trade is None:
                    continue
                wanted = Side.BUY if sign > 0 else Side.SELL
                if runner.trade.side != wanted:
                    runner.reversal = self._signal(runner, series, intent, at)
            elif at >= self._trading_from and runner.bars >= runner.strategy.warmup and not self._benched(runner):
                decision = self.consider(runner.strategy, self._signal(runner, series, intent, at), at)
                if shadow is not None and decision.outcome is Outcome.DENIED and any(
                        not check.passed and check.rule in OF_THE_MARKET for check in decision.checks):
                    shadow.refused()

    def _shadowed(self, runner: Runner, shadow: Shadow | OptionShadow, series: Series, bar: Bar, intent: Any, at: int, before: int) -> None:
        """The strategy's own trade on paper: what this bar did to it, and what the strategy wants now."""
        assert self._learning is not None
        if shadow.busy:
            self._learning.shadowed(shadow.on_bar(series, bar, at, runner.sign))
        if runner.sign not in (0, before) and at >= self._trading_from and runner.bars >= runner.strategy.warmup:
            shadow.want(series, intent, at, runner.sign)

    def _benched(self, runner: Runner) -> bool:
        return self._learning is not None and self._learning.benched(runner.strategy.name, runner.asset_class)

    def _step(self, runner: Runner, series: Series, bar: Bar, at: int) -> Any:
        """Run the strategy's own function on this bar; None if it is quarantined. Leaves the new view's sign in the runner."""
        if runner.quarantined:
            return None
        seen = runner.higher.seen
        market = seen[1] if seen[0] == at and not runner.option else self._seen(runner, series, bar, at)
        result = attempt_step(runner.step, runner.state, market, runner.params)
        if type(result) is not tuple or len(result) != 2 or (type(result[1]) is not Intent and not hasattr(result[1], "score")):
            if isinstance(result, Exception):
                return self._quarantine(runner, f"raised {type(result).__name__}: {result}", at)
            return self._quarantine(runner, f"returned {type(result).__name__}, not (state, Intent)", at)
        runner.state, intent = result
        runner.bars += 1
        if intent is runner.intent:  # the very same tuple as at the bar before: checked then
            return intent
        sign, error = attempt(_sign_of, intent)
        if error is not None:
            return self._quarantine(runner, f"returned nonsense: {intent!r}", at)
        runner.intent = intent
        runner.sign = sign
        return intent

    def _seen(self, runner: Runner, series: Series, bar: Bar, at: int) -> Market:
        """The market at this close as a strategy sees it; kept for all strategies of a series that share a higher timeframe."""
        option, higher = runner.option, runner.higher
        reference = self._references.get(runner.asset_class)
        leader = self._series[reference].bar if reference is not None else None
        ts, high_open, high_high, high_low, high_close = higher.closed
        # tuple.__new__ instead of Market(): once a bar and series, and a NamedTuple's own constructor costs as much as an indicator.
        market = tuple.__new__(Market, (
            at, bar.open, bar.high, bar.low, bar.close, bar.volume, series.bid, series.ask,
            series.mark_price if series.mark_at == series.closed_at else bar.close, series.funding_8h,
            high_open, high_high, high_low, high_close, ts, leader.close if leader is not None else NAN,
            self._look.chain_slice(runner.strategy, series.instrument, at) if option else NO_CHAIN,
        ))
        if not option:
            higher.seen = (at, market)
        return market

    def _quarantine(self, runner: Runner, reason: str, at: int) -> None:
        """This strategy is out, on every series, until a restart; what it holds is closed."""
        name = runner.strategy.name
        for runners in self._runners.values():
            for other in runners:
                if other.strategy.name == name and not other.quarantined:
                    other.quarantined = reason
                    other.reversal = None
                    if other.trade_id:
                        self._executor.request_exit(other.trade_id, ExitReason.EMERGENCY_EXIT, at)
        self.quarantined.append(Quarantine(name, runner.symbol, reason))
        log.error("strategy quarantined", action="strategy_rejected", strategy_id=name, symbol=runner.symbol, reason=reason)

    def _manage(self, runner: Runner, bar: Bar, at: int, sign: int) -> None:
        """An open trade at a bar close: the view gone, its time up, or its stop to be trailed."""
        trade = runner.trade
        assert trade is not None
        side = 1 if trade.side == Side.BUY else -1
        if sign != side:
            self._executor.request_exit(trade.trade_id, ExitReason.EXIT_SIGNAL, at)
            return
        if trade.asset_class is AssetClass.FOREX and self._policies.risk.forex_weekend_flat and (
            at + 2 * trade.interval_ms + self._policies.risk.rollover_minutes * MINUTE >= sessions.next_close(runner.entered_ts)
        ):
            # Out before the spreads of the last minutes, and with an open to spare: real feeds often lack the last one. Where none was
            # to be had (the feed ended early), the first one after.
            self._executor.request_exit(trade.trade_id, ExitReason.TIME_EXIT, at)
            return
        if trade.hold > 0 and at - runner.entered_ts >= trade.hold * trade.interval_ms:
            self._executor.request_exit(trade.trade_id, ExitReason.TIME_EXIT, at)
            return
        policy = self._policies.execution
        if trade.stop is None or (policy.break_even_at_r == 0.0 and policy.trail_at_r == 0.0):
            return
        best = bar.high if side > 0 else bar.low
        runner.best = best if runner.best != runner.best else (max(runner.best, best) if side > 0 else min(runner.best, best))
        known = self._executor.trades.get(trade.trade_id)
        instrument = self._market.instrument(trade.symbol)
        if known is None or known.stop is None or instrument is None:
            return
        price = cost_model.next_stop(
            side, trade.entry, float(known.stop), runner.best, abs(trade.entry - trade.stop),
            policy.break_even_at_r, policy.trail_at_r, policy.trail_distance_r,
        )
        self._executor.move_stop(trade.trade_id, from_float(price, instrument.tick, up=side < 0), at)

    # -- the pipeline -----------------------------------------------------------------------------------------------------

    def _signal(self, runner: Runner, series: Series, intent: Any, at: int) -> Signal:
        side = Side.BUY if intent.score > 0.0 else Side.SELL
        entry = series.ask if side is Side.BUY else series.bid
        sign = side.sign
        target = entry + sign * intent.target if intent.target > 0.0 else None
        if target is not None and target <= 0.0:
            target = None  # a short cannot gain more than everything: after a crash a target of many ranges may lie below zero
        return Signal(
            at=at, strategy=runner.strategy.name, symbol=runner.symbol, asset_class=runner.asset_class, side=side, score=intent.score,
            confidence=self._look.confidence(runner.strategy.name, runner.asset_class, intent.score),
            entry=entry, stop=entry - sign * intent.stop if intent.stop > 0.0 else None,
            target=target,
            hold=int(intent.hold), interval_ms=series.interval_ms, structure=runner.strategy.structure,
        )

    def consider(self, strategy: Strategy, signal: Signal, at: int) -> Decision:
        """The whole pipeline: look once, evaluate every check, size, decide, record, and hand over what was approved."""
        decision_id = "d" + hashlib.blake2b(f"{signal.strategy}|{signal.symbol}|{signal.asset_class}|{signal.at}|{signal.side}".encode(),
                                            digest_size=10).hexdigest()
        view, legs, signal = self._look.view(strategy, signal, at)
        checks = gates(signal, view, self._policies.risk)
        good = all(check.passed for check in checks)
        size = self._sizer.size(signal, view, good=good, mood_factor=mood_factor(signal, view, self._policies.risk))
        if view.option is not None and size.approved:
            checks = (*checks, *option_book(signal, view, size, self._policies.risk))
        legs = tuple(Leg(leg.symbol, leg.side, size.quantity, leg.price) for leg in legs)
        decision = self._risk.decide(signal, view, checks, size, legs, decision_id, learning=self._look.learned(signal))
        verdict = self._risk.approve(decision, view, signal, self._look.venue_of(signal.asset_class), self._market.instruments, at)
        decision = verdict.decision
        for order in verdict.orders:
            self._executor.place(order)
        self._decisions.record(decision)
        self.last_decisions.append(decision)
        if self._on_decision is not None:
            self._on_decision(decision)
        return decision

    def trade_from(self, at: int) -> None:
        """Nothing opens before `at`: the first bars only warm up."""
        self._trading_from = at
        self._counted = {asset_class: self.bars_seen(asset_class) for asset_class in AssetClass}


def _sign_of(intent: Any) -> int:
    """The holding an intent wants. Raises ValueError (or what comparing a strategy's own types raises) if its numbers make no sense."""
    score: float = intent.score
    if not (-1.0 <= score <= 1.0 and 0.0 <= intent.stop < LARGEST and 0.0 <= intent.target < LARGEST and 0 <= int(intent.hold) < LARGEST):
        raise ValueError("out of range")
    return (score > 0.0) - (score < 0.0)


def decision_line(decision: Decision) -> dict[str, object]:
    """The log fields of a decision."""
    size = decision.size
    return {
        "action": "signal" if decision.outcome is Outcome.APPROVED else "reject", "decision_id": decision.decision_id,
        "asset_class": decision.asset_class.value, "symbol": decision.symbol, "strategy_id": decision.strategy, "side": decision.side.value,
        "signal_score": decision.score, "confidence": decision.confidence,
        "reason": decision.stopped_by.value if decision.stopped_by is not None else "", "policy_hash": decision.policy_hash,
        "phase": size.phase if size is not None else None, "size_usd": str(size.notional) if size is not None else None,
    }


__all__ = ["Instrument", "Quarantine", "Runner", "StrategyManager", "decision_line"]
