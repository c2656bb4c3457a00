"""Owns what the market is now: closed bars, latest quotes, marks, 24 h volume, funding, chains, staleness.

Refuses bars and quotes that make no sense (zero, crossed, a tick 1000x away): a refused one changes nothing, so it can neither trade,
move a baseline nor trip anything. Alone writes FeedLost and FeedRestored.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from modules.domain import options
from modules.domain.events import FeedLost, FeedRestored
from modules.domain.instrument import DOLLARS, AssetClass, Instrument
from modules.domain.market import AGREEING_BARS, NAN, Bar, Batch, Chain, Financing, FundingRate, OptionQuote, Quote
from modules.domain.money import ONE
from modules.domain.policies import CostPolicy, KillSwitchPolicy, RiskPolicy
from modules.domain.sessions import forex_open, next_close
from modules.filters.correlation import ReturnsBook

if TYPE_CHECKING:
    from modules.store.journal import Journal

INFINITE: Final = math.inf
HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
HOURS_8: Final = 8.0
FOREX_SILENCE_MS: Final = HOUR // 4
"""A bar of forex may be so late: brokers pause for the rollover, and at night a pair has minutes without a tick and so without a bar."""


class HigherBar(NamedTuple):
    """The last closed bar of a higher timeframe."""

    ts: float = NAN
    open: float = NAN
    high: float = NAN
    low: float = NAN
    close: float = NAN


class Higher:
    """Builds one higher timeframe out of closed bars; only bars that are complete are ever shown."""

    __slots__ = ("_close", "_high", "_low", "_open", "_ts", "_whole", "closed", "length", "seen")

    def __init__(self, length: int) -> None:
        self.length = length
        self.closed = HigherBar()
        self.seen: tuple[int, Any] = (0, None)
        """(bar's close, what the strategies of this series see of it): made once for all that share this timeframe."""
        self._ts = -1
        self._whole = False
        """Seen from its beginning: the very first one rarely is."""
        self._open = self._high = self._low = self._close = NAN

    def accept(self, bar: Bar, interval_ms: int) -> None:
        ts = bar.ts - bar.ts % self.length
        if ts != self._ts:
            if self._ts >= 0:  # its last bar was missing: it closed with what it had
                self._close_it(self._ts)
            if ts == bar.ts:
                self._whole = True
            self._ts, self._open, self._high, self._low = ts, bar.open, bar.high, bar.low
        else:
            if bar.high > self._high:
                self._high = bar.high
            if bar.low < self._low:
                self._low = bar.low
        self._close = bar.close
        if bar.ts + interval_ms == ts + self.length:
            self._close_it(ts)
            self._ts = -1

    def _close_it(self, ts: int) -> None:
        if self._whole:
            self.closed = HigherBar(float(ts), self._open, self._high, self._low, self._close)
        self._whole = True  # whatever comes next is watched from its first bar on


class Series:
    """Everything known about one instrument's market."""

    __slots__ = (
        "_summed",
        "ask",
        "bar",
        "bars",
        "bid",
        "closed_at",
        "decimal_mark",
        "financing",
        "frozen",
        "funding",
        "funding_8h",
        "funding_at",
        "funding_interval_h",
        "gaps",
        "half_spread",
        "higher",
        "hour_close",
        "hour_end",
        "instrument",
        "interval_ms",
        "lost",
        "mark_at",
        "mark_price",
        "predicted",
        "quoted_at",
        "refused",
        "refused_close",
        "refused_run",
        "synthetic",
        "volumes",
        "volumes_at",
    )

    def __init__(self, instrument: Instrument, interval_ms: int, half_spread: float) -> None:
        self.instrument = instrument
        self.interval_ms = interval_ms
        self.half_spread = half_spread
        self.bar: Bar | None = None
        self.bars = 0
        """How many were shown to strategies."""
        self.closed_at = 0
        self.bid = self.ask = NAN
        self.quoted_at = 0
        self.synthetic = True
        self.mark_price = NAN
        self.mark_at = 0
        self.decimal_mark: tuple[float, Decimal] = (NAN, ONE)
        self.volumes: deque[float] = deque()
        """Quote volume of each bar of the last 24 h, and when it closed: two columns, for a column sums five times as fast as pairs."""
        self.volumes_at: deque[int] = deque()
        self._summed: tuple[int, float] = (0, NAN)
        self.frozen = 0
        self.funding = self.predicted = NAN
        self.funding_8h = NAN
        """The last settled rate as a rate for eight hours."""
        self.funding_at = 0
        self.funding_interval_h = 8.0
        self.financing: Financing | None = None
        self.higher: dict[int, Higher] = {}
        self.hour_end = 0
        """When the hour that is being watched ends, UTC ms."""
        self.hour_close = NAN
        """The last close within it so far."""
        self.refused = 0
        self.refused_close = NAN
        self.refused_run = 0
        self.gaps = 0
        self.lost = False

    def day_volume(self) -> float:
        """Sum of `volumes`, quote currency; summed once per bar, and only if somebody asks."""
        if self._summed[0] != self.closed_at:
            self._summed = (self.closed_at, math.fsum(self.volumes))
        return self._summed[1]


class MarketData:
    """See the module's first line. `patience` stretches how late a bar may be, for a demo market faster than real
    time. `on_bar(symbol, bar, at)` is called for every accepted bar after all of an instant are in; set it before the first."""

    def __init__(
        self, *, journal: Journal, risk: RiskPolicy, kill_switch: KillSwitchPolicy, costs: CostPolicy,
        on_bar: Callable[[str, Bar, int], None] | None = None, after_batch: Sequence[Callable[[int], None]] = (), patience: float = 1.0,
    ) -> None:
        self._patience = patience
        self._journal = journal
        self._risk = risk
        self._frozen_max = risk.frozen_bars_max
        self._costs = costs
        self._jump = float(kill_switch.mark_jump_max)
        self._silence_ms = 1000.0 * max(risk.bar_late_s_max, risk.quote_age_s_max) * patience
        """How late a bar may be before its feed counts as silent."""
        self._quote_age_ms = risk.quote_age_s_max * 1000.0
        self._skew_ms = risk.clock_offset_s_max * 1000.0
        self._horizon = math.inf
        """No bar can have closed later than this, UTC ms: a venue's clock is not further from ours."""
        self.on_bar = on_bar
        self._after = after_batch
        self._series: dict[str, Series] = {}
        self._dropped: dict[AssetClass, int] = {}
        """Bars that were shown of series that are watched no longer."""
        self._chains: dict[str, Chain] = {}
        self._contracts: dict[str, tuple[str, OptionQuote]] = {}
        self._leaders: dict[str, str] = {}
        self._listed: dict[str, Instrument] = {}
        self._repriced: dict[str, tuple[int, int, float, tuple[float, float, float]]] = {}
        self.returns = ReturnsBook(risk.correlation_window)
        self.version = 0
        """Grows with whatever can change a mark or a rate."""

    def adopt(self, risk: RiskPolicy, kill_switch: KillSwitchPolicy) -> None:
        """Work by the owner's new numbers from the next bar on (the correlation window is set at start)."""
        self._risk = risk
        self._frozen_max = risk.frozen_bars_max
        self._jump = float(kill_switch.mark_jump_max)
        self._quote_age_ms = risk.quote_age_s_max * 1000.0
        self._silence_ms = 1000.0 * max(risk.bar_late_s_max, risk.quote_age_s_max) * self._patience

    def instant(self, asset_class: AssetClass, at: int) -> tuple[int, int]:
        """Names a state of the market: while it is the same, so is every mark and rate of a class. Options are repriced as time passes."""
        return self.version, at if asset_class is AssetClass.OPTION else 0

    # -- listing -------------------------------------------------------------------------------------------------------

    def list_instruments(self, instruments: Sequence[Instrument], interval_ms: Callable[[str], int]) -> None:
        for instrument in instruments:
            self._listed[instrument.symbol] = instrument
            if instrument.asset_class is not AssetClass.OPTION and instrument.symbol not in self._series:
                half = self._costs.of(instrument.asset_class).half_spread_bp / 1e4
                self._series[instrument.symbol] = Series(instrument, interval_ms(instrument.symbol), half)
                leader = self._leaders.get(instrument.underlying)
                if leader is None or _leads(instrument, self._listed[leader]):
                    self._leaders[instrument.underlying] = instrument.symbol

    def drop(self, symbol: str) -> None:
        """Watch this series no longer. Its rules stay known, for what was traded of it; who else speaks for its underlying is found out."""
        series = self._series.pop(symbol)
        self._dropped[series.instrument.asset_class] = self._dropped.get(series.instrument.asset_class, 0) + series.bars
        underlying = series.instrument.underlying
        if self._leaders.get(underlying) == symbol:
            del self._leaders[underlying]
            for other in self._series.values():
                if other.instrument.underlying == underlying:
                    leader = self._leaders.get(underlying)
                    if leader is None or _leads(other.instrument, self._listed[leader]):
                        self._leaders[underlying] = other.instrument.symbol
        self.version += 1

    def list_contract(self, instrument: Instrument) -> None:
        self._listed[instrument.symbol] = instrument

    def instrument(self, symbol: str) -> Instrument | None:
        return self._listed.get(symbol)

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        return self._listed

    @property
    def series(self) -> Mapping[str, Series]:
        return self._series

    def leader(self, underlying: str) -> str | None:
        """The series an underlying is watched on: its perpetual, else spot."""
        return self._leaders.get(underlying)

    def want_higher(self, symbol: str, length_ms: int) -> Higher:
        series = self._series[symbol]
        if length_ms not in series.higher:
            series.higher[length_ms] = Higher(length_ms)
        return series.higher[length_ms]

    def bars_seen(self, asset_class: AssetClass) -> int:
        """Closed bars of the class that were shown to strategies."""
        watched = sum(series.bars for series in self._series.values() if series.instrument.asset_class is asset_class)
        return watched + self._dropped.get(asset_class, 0)

    # -- taking it in -------------------------------------------------------------------------------------------------

    def accept(self, batch: Batch) -> None:
        """One instant: rates and chains first, then every bar, and only then the strategies, so that each sees the same market."""
        at, bars, quotes, marks, funding, financings, chains = batch
        if funding or financings or chains:
            for rate in funding:
                self._fund(rate)
            for financing in financings:
                if financing.symbol in self._series:
                    self._series[financing.symbol].financing = financing
            for chain in chains:
                self._list_chain(chain)
        for symbol, price in marks:
            series = self._series.get(symbol)
            if series is None or not 0.0 < price < math.inf:
                continue
            if series.bar is None or series.bar.close / self._jump < price < series.bar.close * self._jump:
                series.mark_price, series.mark_at = price, at
        self._horizon = at + self._skew_ms
        for symbol, quote in quotes:
            self._quote(symbol, quote, at)
        self.version += 1
        take, on_bar = self.take, self.on_bar
        assert on_bar is not None
        if len(bars) == 1:  # most often, and then there is no other to wait for
            (symbol, bar), = bars
            if take(symbol, bar):
                self._series[symbol].bars += 1
                on_bar(symbol, bar, at)
        else:
            for symbol, bar in [entry for entry in bars if take(*entry)]:
                self._series[symbol].bars += 1
                on_bar(symbol, bar, at)
        for hook in self._after:
            hook(at)

    def remember(self, symbol: str, bars: Sequence[Bar]) -> None:
        """Bars from long before the start: only their hourly closes matter, to the correlations. A close out of line is left out."""
        series = self._series[symbol]
        interval, jump, last = series.interval_ms, self._jump, 0.0
        for bar in bars:
            close = bar.close
            if 0.0 < close < math.inf and (last == 0.0 or (last < close * jump and close < last * jump)):
                last = close
                closed_at = bar.ts + interval
                if closed_at < series.hour_end:
                    series.hour_close = close
                else:
                    self._hourly(series, symbol, closed_at, close)

    def take(self, symbol: str, bar: Bar) -> bool:
        """Accept one closed bar into the books of the market; False if it was refused. Also how history is warmed up."""
        series = self._series.get(symbol)
        if series is None:
            return False
        last, jump = series.bar, self._jump
        ts, opened, high, low, close, volume, quote_volume, bid, ask = bar
        if not (0.0 < low <= close <= high < INFINITE and low <= opened <= high):
            return self._refuse(series, bar, "bar is not a bar: prices must be positive and low <= open, close <= high")
        closed_at = ts + series.interval_ms
        if closed_at > self._horizon:
            return self._refuse(series, bar, "the bar has not closed yet")
        if last is not None:
            if ts <= last.ts:
                return False  # a repeat or an older one: known already
            before = last.close
            if not (before < close * jump and close < before * jump) and not self._agreed(series, close):
                return self._refuse(series, bar, f"close {close!r} is more than {jump:g}x away from {before!r}")
            if close == before and volume == 0.0:
                series.frozen += 1
            else:
                series.frozen = 0
            if ts != series.closed_at:
                series.gaps += 1
        self.version += 1
        series.refused_run = 0
        series.bar = bar
        series.closed_at = closed_at
        if bid == bid and ask == ask:  # not NaN: recorded
            # A crossed, empty or absurd book is no quote: the last one ages. A bar told late brings back none from before a live quote.
            if close / jump < bid <= ask < close * jump and (closed_at >= series.quoted_at or series.quoted_at > self._horizon):
                series.bid, series.ask, series.quoted_at, series.synthetic = bid, ask, closed_at, False
        elif series.synthetic or closed_at - series.quoted_at > self._quote_age_ms:  # else a live quote knows better
            half = close * series.half_spread
            series.bid, series.ask, series.quoted_at, series.synthetic = close - half, close + half, closed_at, True
        volumes_at = series.volumes_at
        volumes_at.append(closed_at)
        series.volumes.append(quote_volume)
        while volumes_at[0] <= closed_at - DAY:
            volumes_at.popleft()
            series.volumes.popleft()
        for higher in series.higher.values():
            higher.accept(bar, series.interval_ms)
        if closed_at < series.hour_end:
            series.hour_close = close
        else:
            self._hourly(series, symbol, closed_at, close)
        if series.frozen >= self._frozen_max:
            if not series.lost:
                series.lost = True
                self._journal.append(FeedLost(closed_at, symbol, f"frozen: {series.frozen} bars with an unchanged price and no volume"))
        elif series.lost:
            series.lost = False
            self._journal.append(FeedRestored(closed_at, symbol))
        return True

    def _hourly(self, series: Series, symbol: str, closed_at: int, close: float) -> None:
        """A bar that ends the hour being watched, or comes after it: hand that hour's close over and watch the next."""
        if closed_at > series.hour_end and series.hour_close == series.hour_close:  # its last bar is missing: it closed with what it had
            self.returns.accept(symbol, series.hour_end // HOUR, series.hour_close)
        hour, rest = divmod(closed_at, HOUR)
        if rest == 0:
            self.returns.accept(symbol, hour, close)
        series.hour_close = close if rest else NAN
        series.hour_end = (hour + 1) * HOUR

    def _agreed(self, series: Series, close: float) -> bool:
        if series.refused_run and series.refused_close / self._jump < close < series.refused_close * self._jump:
            return series.refused_run + 1 >= AGREEING_BARS
        return False

    def _refuse(self, series: Series, bar: Bar, reason: str) -> bool:
        consistent = series.refused_run and series.refused_close > 0.0 and 1 / self._jump < bar.close / series.refused_close < self._jump
        series.refused_run = series.refused_run + 1 if consistent else 1
        series.refused_close = bar.close
        series.refused += 1
        if not series.lost:
            series.lost = True
            self._journal.append(FeedLost(bar.ts + series.interval_ms, series.instrument.symbol, reason))
        return False

    def _quote(self, symbol: str, quote: Quote, now: int) -> None:
        """None is dated after `now`, and one that is (a wrong stamp, a clock set back) holds back none that is told after it."""
        series = self._series.get(symbol)
        if series is None or not quote.sane:
            return
        at = quote.at if quote.at <= now else now
        if at < series.quoted_at <= self._horizon:
            return
        if series.bar is not None and not 1 / self._jump < quote.mid / series.bar.close < self._jump:
            return
        series.bid, series.ask, series.quoted_at, series.synthetic = quote.bid, quote.ask, at, quote.synthetic

    def _fund(self, rate: FundingRate) -> None:
        series = self._series.get(rate.symbol)
        if series is not None and math.isfinite(rate.rate):
            series.funding, series.funding_at, series.funding_interval_h = rate.rate, rate.at, rate.interval_h
            series.funding_8h = rate.rate * (HOURS_8 / rate.interval_h)
            series.predicted = rate.predicted

    def _list_chain(self, chain: Chain) -> None:
        self._chains[chain.underlying] = chain
        for quote in chain.quotes:
            self._contracts[quote.symbol] = (chain.underlying, quote)

    # -- asking -------------------------------------------------------------------------------------------------------

    def quote(self, symbol: str) -> Quote | None:
        """The last sane quote; None before the first."""
        series = self._series.get(symbol)
        if series is None or series.quoted_at == 0:
            return None
        return Quote(series.quoted_at, series.bid, series.ask, series.synthetic)

    def chain(self, underlying: str) -> Chain | None:
        return self._chains.get(underlying)

    def spot(self, underlying: str) -> float | None:
        """Price of an option's underlying: the leading series' last close, or the chain's index where that was told since."""
        leader, chain = self._leaders.get(underlying), self._chains.get(underlying)
        if leader is not None:
            series = self._series[leader]
            if series.bar is not None and (chain is None or series.closed_at >= chain.at):
                return series.bar.close
        return chain.spot if chain is not None else None

    def contract(self, symbol: str) -> OptionQuote | None:
        """The last snapshot of one option contract."""
        found = self._contracts.get(symbol)
        return None if found is None else found[1]

    def option_quote(self, symbol: str, at: int) -> tuple[float, float, float] | None:
        """(bid, ask, mark) of a contract now: the last snapshot repriced at the present spot; None if unknown or too old."""
        found = self._contracts.get(symbol)
        if found is None:
            return None
        underlying, snapshot = found
        chain = self._chains[underlying]
        spot = self.spot(underlying)
        if spot is None or at - chain.at > self._risk.chain_age_s_max * 1000.0:
            return None
        known = self._repriced.get(symbol)
        # The spot too: one instant has two of them, before its bars are in (the kill switch looks) and after.
        if known is not None and known[0] == at and known[1] == chain.at and known[2] == spot:
            return known[3]
        prices = options.reprice(snapshot, chain, spot, at)
        self._repriced[symbol] = (at, chain.at, spot, prices)
        return prices

    def mark(self, symbol: str, at: int) -> Decimal | None:
        """What one unit is worth for valuation, quote currency: mark price where the venue gives one, else the mid. None = unknown."""
        series = self._series.get(symbol)
        if series is None:
            prices = self.option_quote(symbol, at)
            return Decimal(repr(prices[2])) if prices is not None and math.isfinite(prices[2]) and prices[2] >= 0.0 else None
        if series.quoted_at == 0:
            return None
        price = series.mark_price if series.mark_at == series.closed_at and series.mark_at else 0.5 * (series.bid + series.ask)
        known = series.decimal_mark
        if known[0] != price:
            known = series.decimal_mark = (price, Decimal(repr(price)))
        return known[1]

    def settle_rate(self, symbol: str) -> Decimal | None:
        """The instrument's quote currency in its settlement currency; None = unknown."""
        instrument = self._listed.get(symbol)
        if instrument is None:
            return None
        if instrument.quote == instrument.settle or (instrument.quote in DOLLARS and instrument.settle in DOLLARS):
            return ONE
        if instrument.asset_class is AssetClass.OPTION:
            spot, chain = self.spot(instrument.underlying), self._chains.get(instrument.underlying)
            return None if spot is None or chain is None else Decimal(repr(options.settle_rate_at(chain, spot)))
        return self.rate(instrument.quote, instrument.settle)

    def rate(self, currency: str, into: str) -> Decimal | None:
        """One unit of `currency` in `into`, from the pairs we watch; dollars and dollar coins count as one."""
        if currency == into or (currency in DOLLARS and into in DOLLARS):
            return ONE
        targets = DOLLARS if into in DOLLARS else (into,)
        for target in sorted(targets):
            direct = self._series.get(f"{currency}/{target}")
            if direct is not None and direct.quoted_at:
                return Decimal(repr(0.5 * (direct.bid + direct.ask)))
            inverse = self._series.get(f"{target}/{currency}")
            if inverse is not None and inverse.quoted_at:
                return ONE / Decimal(repr(0.5 * (inverse.bid + inverse.ask)))
        return None

    def quote_volume_24h(self, symbol: str, at: int) -> float | None:
        """Traded in the last 24 h, USD: what we have seen, so right after a start a lower bound. None where the market has no volume."""
        series = self._series.get(symbol)
        if series is None or not series.volumes:
            return None
        if series.volumes_at[0] > at - DAY:
            total = series.day_volume()
        else:
            total = math.fsum([volume for seen, volume in zip(series.volumes_at, series.volumes, strict=True) if seen > at - DAY])
        if not math.isfinite(total):
            return None
        rate = self.rate(series.instrument.quote, "USD")
        return total * float(rate) if rate is not None else None

    def bar_notional(self, symbol: str) -> float | None:
        """Average quote volume of one bar over the last 24 h, quote currency; None where unknown."""
        series = self._series.get(symbol)
        if series is None or not series.volumes:
            return None
        total = series.day_volume()
        return total / len(series.volumes) if math.isfinite(total) else None

    def watch(self, at: int) -> int:
        """Announce feeds that have gone silent: more than an interval and the policy's lateness since the last close. Answers when
        the next can have."""
        usual = int(self._silence_ms)
        following = at + usual  # lost or never heard: it may speak at any moment, and be silent again no sooner than this
        for symbol, series in self._series.items():
            forex = series.instrument.asset_class is AssetClass.FOREX
            patience = max(usual, FOREX_SILENCE_MS) if forex else usual
            late_ms = at - series.closed_at - series.interval_ms
            if late_ms <= patience:
                if at - late_ms + patience < following:
                    following = at - late_ms + patience
            elif not series.lost and series.bar is not None and (not forex or _traded(at - series.interval_ms - patience, at)):
                series.lost = True
                self._journal.append(FeedLost(at, symbol, f"no closed bar for {late_ms / 1000.0:.0f} s past its time"))
        return following


def _traded(since: int, until: int) -> bool:
    """Whether forex was open all the time."""
    return forex_open(since) and next_close(since) > until


def _leads(candidate: Instrument, present: Instrument) -> bool:
    """PERP before SPOT before anything else: whose series speaks for an underlying. A plain symbol before a second recording of it."""
    def rank(instrument: Instrument) -> tuple[int, bool]:
        order = {AssetClass.PERP: 0, AssetClass.SPOT: 1}
        return order.get(instrument.asset_class, 2), "#" in instrument.symbol

    return rank(candidate) < rank(present)
