"""Owns nothing: gathers what the authorities know into one frozen View, the only thing a decision may look at.

What an authority does not know stays None, and None never passes a check. It also resolves option structures to contracts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from modules.backtest import costs as cost_model
from modules.domain import options, sessions
from modules.domain.decision import Leg
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import NAN, Chain, OptionQuote
from modules.domain.money import ONE, ZERO
from modules.domain.policies import Policies
from modules.domain.settings import matches
from modules.domain.signal import Signal, Structure
from modules.domain.view import Correlated, OptionView, TradingState, View
from modules.filters.correlation import correlated
from modules.strategies.protocol import ChainSlice, Strategy

if TYPE_CHECKING:
    from modules.Funds_Controller import FundsController
    from modules.Kill_Switch import KillSwitch
    from modules.Learning_Agent import LearningAgent
    from modules.Market_Data import MarketData, Series
    from modules.News_Agent import NewsAgent
    from modules.Portfolio_Manager import PortfolioManager
    from modules.Risk_Management import RiskManagement
    from modules.Trade_Executor import TradeExecutor
    from modules.Validation_Manager import ValidationManager
    from modules.Wallet_Sync import WalletSync

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
VOLATILITY_SHOCK: Final = 0.10
"""Ten volatility points: the move domain.md section 10 limits the loss of."""


class ViewBuilder:
    def __init__(
        self, *, live: bool, policies: Policies, market: MarketData, portfolio: PortfolioManager, kill_switch: KillSwitch,
        funds: FundsController, risk: RiskManagement, wallets: WalletSync, executor: TradeExecutor, news: NewsAgent,
        validation: ValidationManager, venue_of: Mapping[AssetClass, str], blacklist: Sequence[str] = (), whitelist: Sequence[str] = (),
        barred: Callable[[], Collection[str]] = tuple, learning: LearningAgent | None = None,
    ) -> None:
        self._live = live
        self._policies = policies
        self._market = market
        self._portfolio = portfolio
        self._kill_switch = kill_switch
        self._funds = funds
        self._risk = risk
        self._wallets = wallets
        self._executor = executor
        self._news = news
        self._validation = validation
        self._venue_of = venue_of
        self._blacklist = tuple(blacklist)
        self._whitelist = tuple(whitelist)
        self._barred = barred
        self._learning = learning
        self._slices: dict[tuple[str, float], tuple[int, ChainSlice]] = {}

    def adopt(self, policies: Policies) -> None:
        """Work by the owner's new numbers from the next view on."""
        self._policies = policies

    def venue_of(self, asset_class: AssetClass) -> str:
        return self._venue_of[asset_class]

    def confidence(self, strategy: str, asset_class: AssetClass, score: float) -> float:
        """Without evidence or certificate: nothing in live trading, the score itself on paper (domain.md section 8)."""
        given = self._validation.confidence(strategy, asset_class, abs(score), live=self._live)
        return given if self._learning is None else self._learning.confidence(strategy, asset_class, score, given)

    def learned(self, signal: Signal) -> dict[str, float | str]:
        """What learning had to do with a decision, for its record."""
        return {} if self._learning is None else self._learning.explain(signal.strategy, signal.asset_class, signal.score)

    # -- the snapshot ---------------------------------------------------------------------------------------------------

    def view(self, strategy: Strategy, signal: Signal, at: int) -> tuple[View, tuple[Leg, ...], Signal]:
        """Look at everything once. For option structures the signal comes back in terms of the contract, with its legs."""
        series = self._market.series[signal.symbol]
        asset_class = signal.asset_class
        policy = self._policies.risk
        if signal.structure is Structure.SINGLE:
            instrument, option = series.instrument, None
            legs: tuple[Leg, ...] = (Leg(signal.symbol, signal.side, ZERO, Decimal(repr(signal.entry))),)
        else:
            instrument, option, legs, signal = self._resolve(strategy, signal, series.instrument, at)
        equity = self._wallets.equity(asset_class)
        marked = self._portfolio.equity(
            asset_class, lambda s: self._market.mark(s, at), self._market.settle_rate, self._market.instant(asset_class, at))
        day_peak = self._kill_switch.day_peak(asset_class)
        quote = self._market.quote(signal.symbol)
        certificate, certificate_note = self._validation.permission(signal.strategy, signal.symbol, asset_class, at)
        ramp = self._validation.ramp(asset_class, at) if self._live else None
        blackout, blackout_until = self._news.blackout(asset_class, (instrument.base, instrument.quote), at)
        horizon = signal.hold * signal.interval_ms if signal.hold else int(policy.holding_default_s * 1000)
        held = self._portfolio.positions.get(instrument.symbol)
        rate = self._market.settle_rate(instrument.symbol)
        fx = asset_class is AssetClass.FOREX
        financing = series.financing
        return View(
            at=at, live=self._live, instrument=instrument,
            trading_state=self._trading_state(asset_class), halted_by=self._kill_switch.halted_by(asset_class),
            paused=self._risk.paused(asset_class), switch_on=not self._live or self._funds.switch_on(asset_class),
            blacklisted=self._listed_out(instrument.symbol),
            certificate_expires=certificate.expires_at if certificate is not None else None,
            certificate_confidence=certificate.confidence if certificate is not None else None,
            wallet_age_s=self._wallets.age_s(asset_class, at),
            quote=quote,
            quote_age_s=self._quote_age_s(signal, instrument, option, at),
            bar_age_s=(at - series.closed_at) / 1000.0, frozen_bars=series.frozen, clock_offset_s=self._wallets.clock_offset_s(asset_class),
            session_open=self._session_open(at, 2 * signal.interval_ms) if fx else True,
            minutes_to_rollover=sessions.minutes_to_rollover(at) if fx else None,
            spread_cap_bp=self._spread_cap(instrument), quote_volume_24h=self._market.quote_volume_24h(signal.symbol, at),
            deep_pair=_plain(instrument.symbol) in policy.forex_deep_pairs,
            correlated=self._correlated(signal, instrument, option),
            funding_rate_8h=_known(series.funding * 8.0 / series.funding_interval_h) if asset_class is AssetClass.PERP else None,
            funding_settlements=self._settlements(series, at, horizon), funding_rate=_known(self._rate(series)),
            financing_annual=None if financing is None else (financing.long_rate if signal.side is Side.BUY else financing.short_rate),
            financing_nights=sessions.nights_between(instrument.symbol, at, at + horizon) if fx else 0,
            reward=self._reward(signal),
            blackout=blackout, blackout_until=blackout_until, calendar_ok=self._news.calendar_ok(asset_class, at),
            mood=self._news.mood(instrument, at),
            open_positions=self._portfolio.open_trades(asset_class), losses_in_a_row=self._portfolio.losses_in_a_row(signal.symbol),
            last_loss_at=self._portfolio.last_loss_at(signal.symbol),
            stop_outs_4h=self._stop_outs(asset_class),
            last_stop_out_at=self._portfolio.last_stop_out_at(asset_class),
            owned_by=self._owner(signal), in_doubt=self._executor.doubtful(instrument.symbol),
            orders_last_minute=self._risk.orders_last_minute(asset_class, at),
            notional_last_minute=self._risk.notional_last_minute(asset_class, at), open_orders=self._risk.open_orders(asset_class),
            equity=equity, free=self._free(asset_class, equity, at), day_peak=day_peak,
            drawdown_today=max(ZERO, day_peak - marked) if day_peak is not None and marked is not None else None,
            open_risk=self._portfolio.open_risk(asset_class),
            gross_notional=self._portfolio.gross_notional(asset_class, lambda s: self._market.mark(s, at), self._market.settle_rate),
            position_tied_up=ZERO if held is None else (held.margin if instrument.is_margined else abs(held.cost)),
            position_notional=ZERO if held is None else abs(held.quantity) * held.entry * instrument.contract_size * (rate or ONE),
            settle_rate=rate, pair_cap=self._funds.pair_cap(asset_class),
            stop_slippage=self._stop_slippage(asset_class),
            learning_weight=1.0 if self._learning is None else self._learning.weight(signal.strategy, asset_class),
            ramp=ramp is not None and ramp.ramping, ramp_note="" if ramp is None else ramp.note,
            option=option, certificate_note=certificate_note,
        ), legs, signal

    def _trading_state(self, asset_class: AssetClass) -> TradingState:
        """As the kill switch says; while it refuses to believe the marks, or a restart is not cleared up, nobody may open either."""
        state = self._kill_switch.state(asset_class)
        careful = self._kill_switch.disbelieved(asset_class) or not self._executor.settled
        return TradingState.REDUCING if state is TradingState.ACTIVE and careful else state

    def _listed_out(self, symbol: str) -> bool:
        return symbol in self._barred() or matches(symbol, self._blacklist) or (
            bool(self._whitelist) and not matches(symbol, self._whitelist))

    def _session_open(self, at: int, ahead: int) -> bool:
        """Open now, and (if positions must be flat by the weekend) still open when the entry bar and the next one are over."""
        return sessions.forex_open(at) and (not self._policies.risk.forex_weekend_flat or sessions.forex_open(at + ahead))

    def _free(self, asset_class: AssetClass, equity: Decimal | None, at: int) -> Decimal | None:
        if equity is None:
            return None
        margin = self._portfolio.margin(asset_class)
        value = self._portfolio.market_value(
            asset_class, lambda s: self._market.mark(s, at), self._market.settle_rate, self._market.instant(asset_class, at))
        return None if value is None else self._funds.free(asset_class, equity, margin, value)

    def _quote_age_s(self, signal: Signal, instrument: Instrument, option: OptionView | None, at: int) -> float | None:
        """For options the repriced quote is as old as its underlying's; a chain too old gives no quote at all."""
        if option is not None and self._market.option_quote(instrument.symbol, at) is None:
            return None
        quote = self._market.quote(signal.symbol)
        return None if quote is None else (at - quote.at) / 1000.0

    def _spread_cap(self, instrument: Instrument) -> float | None:
        policy = self._policies.risk
        symbol = _plain(instrument.symbol)
        if instrument.asset_class is not AssetClass.FOREX:
            return policy.spread_bp_max[instrument.asset_class]
        if symbol in policy.forex_majors:
            return policy.spread_bp_majors_max
        return policy.spread_bp_max[AssetClass.FOREX] if symbol in policy.forex_deep_pairs else None

    def _rate(self, series: Series) -> float:
        """The predicted rate where the venue gives one, else the last settled: what the next settlements will probably cost."""
        return series.predicted if series.predicted == series.predicted else series.funding

    def _settlements(self, series: Series, at: int, horizon: int) -> int:
        if series.instrument.asset_class is not AssetClass.PERP:
            return 0
        interval = int(series.funding_interval_h * HOUR_MS)
        return (at + horizon) // interval - at // interval

    def _reward(self, signal: Signal) -> float | None:
        """Expected reward as a fraction of entry: the target, else expected net R times the stop."""
        if signal.target is not None:
            return abs(signal.target - signal.entry) / signal.entry
        if signal.stop is not None:
            expected_r = signal.confidence * float(self._policies.risk.expected_r_per_confidence)
            return expected_r * abs(signal.entry - signal.stop) / signal.entry
        return None

    def _stop_outs(self, asset_class: AssetClass) -> int:
        """Within the window that ends with the last one, not now: the rest it starts must outlast the window it was counted in."""
        last = self._portfolio.last_stop_out_at(asset_class)
        return 0 if last is None else self._portfolio.stop_outs(asset_class, last - int(self._policies.risk.cooldown_window_s * 1000))

    def _stop_slippage(self, asset_class: AssetClass) -> float:
        model = self._policies.costs.of(asset_class)
        return (model.slippage_bp + model.stop_slippage_bp) / 1e4

    def _owner(self, signal: Signal) -> str:
        """Who holds or is entering this instrument (option structures: the class's book on this underlying). The account's owner, where
        he holds the other side by hand: the venue would net the two, and close his position in place of opening ours."""
        for trade in self._executor.trades.values():
            opened = trade.opened
            if opened.symbol == signal.symbol and opened.asset_class is signal.asset_class:
                return "a late fill that is being closed" if trade.late else opened.strategy
        if signal.asset_class is not AssetClass.SPOT:
            by_hand = self._wallets.owners_part(self._venue_of[signal.asset_class], signal.symbol)
            if by_hand * signal.side.sign < ZERO:
                return "the account's owner, by hand"
        return ""

    def _correlated(self, signal: Signal, instrument: Instrument, option: OptionView | None) -> tuple[Correlated, ...]:
        """Every open trade and working entry, as the series it moves with and the sign of its exposure."""
        side_sign = signal.side.sign if option is None else (1 if option.delta >= 0.0 else -1)
        open_positions = []
        for trade in self._executor.trades.values():
            opened = trade.opened
            watched = self._market.instrument(opened.symbol)
            if watched is not None:
                sign = 1 if opened.side == Side.BUY else -1
                open_positions.append((opened.symbol, opened.asset_class, watched.underlying, sign))
        if not open_positions:
            return ()
        policy = self._policies.risk
        return correlated(self._market.returns, signal.symbol, side_sign, instrument.underlying, open_positions,
                          minimum=float(policy.correlation_min), returns_min=policy.correlation_returns_min)

    # -- options ----------------------------------------------------------------------------------------------------------

    def chain_slice(self, strategy: Strategy, watched: Instrument, at: int) -> ChainSlice:
        """Implied volatilities at the strategy's maturity: what an option strategy sees of the chain."""
        chain = self._market.chain(watched.underlying)
        if chain is None or at - chain.at > self._policies.risk.chain_age_s_max * 1000.0:
            return ChainSlice()
        key = (watched.underlying, strategy.days)
        known = self._slices.get(key)
        if known is None or known[0] != chain.at:  # a snapshot says the same until the next one comes
            known = self._slices[key] = (chain.at, options.slice_of(chain, strategy.days, chain.at))
        return known[1]

    def _resolve(self, strategy: Strategy, signal: Signal, watched: Instrument, at: int
                 ) -> tuple[Instrument, OptionView | None, tuple[Leg, ...], Signal]:
        """Contracts for an option structure at the present prices; without them the view has no option and the checks fail."""
        chain = self._market.chain(watched.underlying)
        spot = self._market.spot(watched.underlying)
        if chain is None or spot is None:
            return watched, None, (), signal
        # What the strategy asked for is judged, by `option_book.expiry` too; nobody quietly hands it another contract instead.
        chosen = options.choose(signal.structure, chain, signal.side, strategy.days, strategy.delta, strategy.width, at, 0.0, spot=spot)
        if not chosen:
            return watched, None, (), signal
        legs: list[Leg] = []
        spreads: list[float] = []
        priced: list[tuple[Instrument, Side, float]] = []
        for contract, side in chosen:
            instrument = self._market.instrument(contract.symbol)
            quote = self._market.option_quote(contract.symbol, at)
            if instrument is None or quote is None:
                return watched, None, (), signal
            bid, ask, _ = quote
            price = ask if side is Side.BUY else bid
            spreads.append((ask - bid) / (0.5 * (ask + bid)) if bid > 0.0 and ask >= bid else NAN)
            if not (price > 0.0):
                return watched, None, (), signal
            legs.append(Leg(contract.symbol, side, ZERO, Decimal(repr(price))))
            priced.append((instrument, side, price))
        main = priced[0][0] if signal.structure is Structure.LONG_OPTION else priced[-1][0]
        option = self._option_view(signal, chain, chosen, priced, spreads, spot, main, at)
        premium = priced[0][2] if signal.structure is Structure.LONG_OPTION else priced[-1][2]
        contract_signal = Signal(
            at=signal.at, strategy=signal.strategy, symbol=signal.symbol, asset_class=signal.asset_class, side=signal.side,
            score=signal.score, confidence=signal.confidence, entry=premium, stop=None, target=None, hold=signal.hold,
            interval_ms=signal.interval_ms, structure=signal.structure,
        )
        return main, option, tuple(legs), contract_signal

    def _option_view(
        self, signal: Signal, chain: Chain, chosen: Sequence[tuple[OptionQuote, Side]],
        priced: Sequence[tuple[Instrument, Side, float]], spreads: Sequence[float], spot: float, main: Instrument, at: int,
    ) -> OptionView:
        rate = float(self._market.settle_rate(main.symbol) or NAN)
        model = self._policies.costs.OPTION
        cap = float(self._policies.costs.option_fee_cap)
        fees = math.fsum(cost_model.option_fee(float(model.taker_fee), spot, price * rate, cap) for _, _, price in priced)
        risk = options.structure_risk(
            signal.structure, [(quote, side, price * rate) for (quote, side), (_, _, price) in zip(chosen, priced, strict=True)],
            spot, at, chain=chain)
        book = self._option_book(at)
        worst = max(spreads) if not any(math.isnan(s) for s in spreads) else None
        return OptionView(
            days_to_expiry=(chosen[0][0].expiry - at) / DAY_MS, spread_share=worst,
            open_interest=min(quote.open_interest for quote, _ in chosen),
            cost=_money(risk.cost), max_loss=_money(risk.max_loss + 2.0 * fees), delta=risk.delta, vega=risk.vega,
            shock_loss=_money(risk.shock_loss), class_delta_value=_money(book[0]), class_vol_loss=_money(book[1]),
            class_shock_loss=_money(book[2]), spot=_money(spot),
        )

    def _option_book(self, at: int) -> tuple[float, float, float]:
        """(net delta value, loss at +10 volatility points, loss on a 3-sigma day) of all open option positions, settlement currency.

        Shocks net within an underlying and add up over underlyings: that two of them crash on one day is what the limit is for.
        """
        delta = vol_loss = 0.0
        books: dict[str, list[tuple[OptionQuote, options.Model, float]]] = {}
        for position in self._portfolio.positions.values():
            if position.asset_class is not AssetClass.OPTION:
                continue
            chain, spot = self._market.chain(position.underlying), self._market.spot(position.underlying)
            contract = self._market.contract(position.symbol)
            if chain is None or spot is None or contract is None:
                return NAN, NAN, NAN
            model = options.model_of(contract, chain)
            instrument = self._market.instrument(position.symbol)
            units = float(position.quantity * (instrument.contract_size if instrument is not None else ONE))
            greek = options.contract_greeks(contract, model, spot, at)
            delta += units * greek.delta * spot
            vol_loss -= units * greek.vega * VOLATILITY_SHOCK
            books.setdefault(position.underlying, []).append((contract, model, units))
        shock = math.fsum(options.shock_loss(book, self._market.spot(u) or NAN, at) for u, book in books.items())
        return delta, vol_loss, shock


def _plain(symbol: str) -> str:
    """Without the suffix that tells two recordings of one market apart."""
    return symbol.partition("#")[0]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _money(value: float) -> Decimal:
    return Decimal(repr(round(value, 8))) if math.isfinite(value) else Decimal("Infinity")
