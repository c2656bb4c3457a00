"""The paper venue's desk on a live market: trades at the quotes of this moment, matches what rests against every quote and closed bar.

Adds to PaperDesk when things happen, never what they cost. The rules, each against us where nobody can know:

- A market order trades at bid or ask the moment it arrives. Without a fresh quote an entry ends unfilled; an exit waits for the next.
- What rests is matched against each quote at once, and again against the whole range of each closed bar, for quotes miss what trades
  between them. An order that came after the first tenth of a bar is held against its close only: what was before did not happen to it.
- A bar whose close is many times off the last one is no price until three in a row agree on it.
- Bars told late (a gap of the feed, the time nobody ran) are matched the same way, in the order they closed. Of the bar in which the
  process ended nobody knows what came after: a stop within its range counts as reached, a target does not.
- Funding is due at the settlement, at the last rate told before it. FX is financed at 17:00 New York.
- An option trades at what the last chain said of it, moved along with its underlying, and for no more than was bid or offered there. A
  chain that was not heard anew within `chain_age_ms` is none. It ends at the price its expiry was delivered at, once the venue says it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Final

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import AGREEING_BARS, NAN, Bar, Chain, Financing, FundingRate, Quote
from modules.domain.money import round_down
from modules.domain.order import Order, OrderKind, OrderState
from modules.domain.policies import CostPolicy
from modules.domain.sessions import next_rollover
from modules.venues.paper_book import PaperBook
from modules.venues.paper_desk import PaperDesk
from modules.venues.paper_orders import FRESH_SHARE, Working
from modules.venues.paper_prices import Prices, Series
from modules.venues.protocol import AccountEvent, Step

HOUR_MS: Final = 3_600_000
FINANCING_WAIT_MS: Final = HOUR_MS
"""How long after a rollover its rates are waited for; then it is charged as if none were stated."""


class LiveDesk(PaperDesk):
    """Everything of PaperDesk but `take`: quotes, bars, rates and chains come one by one. Times are UTC ms."""

    def __init__(self, name: str, prices: Prices, policy: CostPolicy, books: Mapping[AssetClass, PaperBook], start: int,
                 emit: Callable[[AccountEvent], None], chain_age_ms: float = 0.0, jump: float = math.inf) -> None:
        super().__init__(name, prices, policy, books, start, emit)
        self._chain_age_ms = chain_age_ms
        self._jump = jump
        self._odd: dict[str, tuple[float, int]] = {}
        """Per symbol: the close of the last bar that was not believed, and how many in a row agree on it."""
        self._due: dict[str, FundingRate] = {}
        """Per perpetual: the next settlement (`at`) and the rate it will probably have."""
        self._paid: dict[str, int] = {}
        """Per perpetual: the last settlement that was looked at."""
        self._since = start

    @property
    def watched(self) -> list[str]:
        """Symbols that something rests on or is held in."""
        working = {order.order.symbol for order in self.orders.values() if order.works}
        return sorted(self.held | working | {symbol for book in self.books.values() for symbol in book.holdings})

    # -- prices -----------------------------------------------------------------------------------------------------------

    def quote(self, symbol: str, quote: Quote, now: int) -> None:
        """Match what rests on `symbol` against bid and ask."""
        series = self._prices.series[symbol]
        self.at = now
        if not series.orders and not series.liquidation:
            return
        mid = quote.mid
        self._expire_late(series, now)
        self._resolve(series, Bar(now, mid, mid, mid, mid, NAN, NAN, quote.bid, quote.ask), 0.5 * (quote.ask - quote.bid),
                      [working for working in series.orders if working.rests and working.eligible_at <= now], now)

    def bar(self, symbol: str, bar: Bar, *, broken: bool = False) -> bool:
        """A closed bar, in the order of closing; False for one that is known or not believed. `broken`: the process ended within it."""
        series = self._prices.series[symbol]
        at = bar.ts + series.interval
        if at <= series.closed_at:
            return False
        if not self._believed(series, bar):
            series.closed_at = at
            return False
        self.at = at
        series.close = bar.close
        if series.orders or series.liquidation:
            self._expire_late(series, at)
            self._match_bar(series, bar, at, broken=broken)
        series.remember((bar,))
        series.taken = 0.0
        return True

    def _believed(self, series: Series, bar: Bar) -> bool:
        """Whether its close is near the last one, or several in a row agree on the new price: as Market_Data judges."""
        symbol, close, jump = series.instrument.symbol, bar.close, self._jump
        if not (close * jump < series.close or close > series.close * jump):  # NaN: nothing to hold it against
            self._odd.pop(symbol, None)
            return True
        odd, agree = self._odd.get(symbol, (close, 0))
        agree = agree + 1 if odd / jump < close < odd * jump else 1
        self._odd[symbol] = close, agree
        if agree < AGREEING_BARS:
            return False
        del self._odd[symbol]
        return True

    def _match_bar(self, series: Series, bar: Bar, at: int, *, broken: bool) -> None:
        begun = bar.ts + series.interval // FRESH_SHARE
        resting = [working for working in series.orders if working.rests and working.eligible_at < at]

        def whole(working: Working) -> bool:
            return working.eligible_at <= begun or (broken and working.order.kind is OrderKind.STOP)

        self._resolve(series, bar, series.offset(bar), [working for working in resting if whole(working)], at)
        if late := [working for working in resting if not whole(working)]:
            close = Bar(at, bar.close, bar.close, bar.close, bar.close, bar.volume, bar.quote_volume, bar.bid, bar.ask)
            self._resolve(series, close, series.offset(close), late, at)

    def _expire_late(self, series: Series, at: int) -> None:
        for working in list(series.orders):
            if working.lapsed(at):
                self._finish(working, OrderState.EXPIRED, "unfilled timeout", at)

    # -- options ----------------------------------------------------------------------------------------------------------

    def chain(self, chain: Chain) -> None:
        """What is bid and offered anew may be taken anew."""
        self._prices.list_chain(chain)
        for quote in chain.quotes:
            if (series := self._prices.series.get(quote.symbol)) is not None:
                series.taken = 0.0

    def expired(self, now: int) -> list[Instrument]:
        """Contracts that are held past their expiry: they wait for the price they were delivered at."""
        wallet = self.books.get(AssetClass.OPTION)
        held = (holding.instrument for holding in wallet.holdings.values()) if wallet is not None else ()
        return [instrument for instrument in held if instrument.expiry is not None and instrument.expiry <= now]

    def deliver(self, instrument: Instrument, price: Decimal, now: int) -> None:
        """Settle what is held of a contract, once."""
        wallet = self.books[AssetClass.OPTION]
        if instrument.symbol in wallet.holdings:
            self.at = now
            self._expire(instrument, wallet, price)

    def _touch(self, order: Order, series: Series, now: int) -> float | None:
        if series.asset_class is AssetClass.OPTION:
            chain = self._prices.chains.get(series.instrument.underlying)
            if chain is None or now - chain.at > self._chain_age_ms:
                return None
        return super()._touch(order, series, now)

    def _room(self, working: Working, series: Series, bar: Bar | None) -> Decimal:
        """Of an option, what is bid or offered: an entry gets no more than that at this price, an exit the rest when more is."""
        room = super()._room(working, series, bar)
        quote = self._prices.contract_quote(series.instrument) if series.asset_class is AssetClass.OPTION else None
        if quote is None:
            return room
        size = (quote.ask_size if working.side > 0 else quote.bid_size) - series.taken
        if not math.isfinite(size) or size >= float(room):
            return room
        return round_down(Decimal(repr(max(0.0, size))), series.instrument.lot)

    # -- orders -----------------------------------------------------------------------------------------------------------

    def trade(self, now: int) -> None:
        """Trade what waits, at the quotes of this moment. What opens and finds none, or not enough of it, has had its chance."""
        self.at = now
        for working in [w for w in self.pending if w.works and w.order.asset_class is AssetClass.OPTION]:
            if not working.reduces and working.submitted_at < self._since:  # an option has no bars that would tell of the hole
                self._finish(working, OrderState.EXPIRED, "older than this run: it meant another market", now)
        self.trade_openings(now)
        for working in [w for w in self.pending if w.works and not w.reduces and w.eligible_at <= now]:
            quoted = self._touch(working.order, self._prices.series[working.order.symbol], now) is not None
            self._finish(working, OrderState.EXPIRED, "no more volume to take" if quoted else "no fresh quote to trade at", now)
        self.pending = [working for working in self.pending if working.works]

    # -- what holding costs -------------------------------------------------------------------------------------------------

    def rates(self, funding: Iterable[FundingRate], financing: Iterable[Financing], now: int) -> None:
        """What venues say of the next settlement and the next night."""
        for rate in funding:
            due, known = rate.at + int(rate.interval_h * HOUR_MS), self._due.get(rate.symbol)
            if known is not None and due > known.at:
                self._fund(known)  # the venue speaks of the one after: that one is through
            if due > self._paid.get(rate.symbol, self._since):
                self._due[rate.symbol] = rate._replace(at=due, rate=rate.predicted)
        for stated in financing:
            self._financing[stated.symbol] = stated
        self.settle(now)

    def settle(self, now: int) -> None:
        """Book every funding and every night's financing that is due by `now`."""
        for rate in [rate for rate in self._due.values() if rate.at <= now]:
            self._fund(rate)
        while now >= self._rollover:
            wallet = self.books.get(AssetClass.FOREX)
            held = wallet.holdings if wallet is not None else {}
            if not held.keys() <= self._financing.keys() and now - self._rollover < FINANCING_WAIT_MS:
                return
            self.at = self._rollover
            self._roll_over(self._rollover)
            self._rollover = next_rollover(self._rollover)

    def settled(self, rates: Iterable[FundingRate], booked: Collection[str]) -> None:
        """Settlements of the past, oldest first, but those under a reference that is `booked`."""
        for rate in rates:
            if f"funding:{rate.symbol}:{rate.at}" not in booked:
                self._fund(rate)

    def _fund(self, rate: FundingRate) -> None:
        """One settlement, at `rate.at`. A rate nobody knows (NaN) books nothing."""
        self._due.pop(rate.symbol, None)
        self._paid[rate.symbol] = max(rate.at, self._paid.get(rate.symbol, 0))
        if rate.rate == rate.rate:
            self.at = rate.at
            self._pay_funding(Step(rate.at, funding=(rate,)))
