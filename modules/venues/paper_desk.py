"""The paper venue's trading desk: accepts, matches, fills and settles, all in plain functions of (step, now).

Owns orders, fills and the wallet. Refuses at acceptance what the rules or the wallet forbid for certain, rejects at the fill what turns
out unpayable then. Prices come from paper_prices, rules of filling from backtest/costs.py, money goes through paper_book.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Final

from modules.backtest import costs
from modules.domain.errors import VenueError
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import Bar, Financing
from modules.domain.money import ONE, UNIT, ZERO, book, round_down, round_up
from modules.domain.order import Accepted, Fate, Fill, Order, OrderKind, OrderState, Refused
from modules.domain.policies import CostPolicy
from modules.domain.sessions import next_rollover, nights
from modules.venues.paper_book import BALANCE, Execution, Holding, PaperBook, charge, strike_of
from modules.venues.paper_orders import Working
from modules.venues.paper_prices import Prices, Series
from modules.venues.paper_rules import malformed, reduces
from modules.venues.protocol import AccountEvent, FillSeen, FundingPaid, OrderDone, Settled, Step, Transferred

NEVER: Final = 1 << 62
_MODELLED: Final = Context(prec=12)
"""Digits of a modelled float that mean something: binary noise in the 16th must not cost a whole tick or lot."""
_VALUE: Final = Context(prec=16)


class PaperDesk:
    """`emit` is told of everything that happens to the account, in order. `at` is the present step's time, UTC ms."""

    def __init__(self, name: str, prices: Prices, policy: CostPolicy, books: Mapping[AssetClass, PaperBook], start: int,
                 emit: Callable[[AccountEvent], None]) -> None:
        self.books = books
        self.orders: dict[str, Working] = {}
        self.pending: list[Working] = []
        """Orders that wait for an opening, oldest first."""
        self.fills: list[FillSeen] = []
        self.held: set[str] = set()
        """Symbols with at least one lot of position."""
        self.at = start
        self._name = name
        self._prices = prices
        self._policy = policy
        self._emit = emit
        self._financing: dict[str, Financing] = {}
        self._rollover = next_rollover(start)
        self._next_expiry = NEVER
        self._numbers = 0

    def recall(self, orders: Iterable[Working], fills: Iterable[FillSeen], numbers: int, step: Step, booked: Collection[str]) -> None:
        """Take over what an earlier run left: orders (ended ones too), fills, the highest number given out, and the market as it stood
        at `step`. Nothing of that instant happens again but transfers that are not `booked`. The books have been filled before."""
        self.at = step.at
        self.fills = list(fills)
        self._numbers = numbers
        self._rollover = next_rollover(step.at)
        for chain in step.chains:
            self._prices.list_chain(chain)
        for rate in step.financing:
            self._financing[rate.symbol] = rate
        touched = {symbol for wallet in self.books.values() for symbol in (*wallet.holdings, *wallet.bought)}
        for working in orders:
            self.orders[working.order.client_order_id] = working
            if working.works:
                touched.add(working.order.symbol)
                self._prices.known(working.order.symbol).orders.append(working)
                if not working.rests:
                    self.pending.append(working)
        for symbol in sorted(touched):
            series = self._prices.known(symbol)
            self._position_changed(series, self.books[series.asset_class], step.at)
        self._move_money(step, booked)

    # -- orders in and out ----------------------------------------------------------------------------------------------------

    def accept(self, order: Order, now: int, eligible_at: int) -> Fate:
        """Take an order in, or refuse it with a code: DUPLICATE, SYMBOL, CLASS, BALANCE, REDUCE_ONLY, NO_RATE, INSUFFICIENT_FUNDS,
        UNCOVERED and those of paper_rules.malformed."""
        if order.client_order_id in self.orders:
            return Refused("DUPLICATE", f"{order.client_order_id} was used before")
        series, wallet = self._prices.find(order.symbol), self.books.get(order.asset_class)
        if series is None:
            return Refused("SYMBOL", f"{order.symbol} is not listed")
        if wallet is None:
            return Refused("CLASS", f"no {order.asset_class} account")
        price = self._prices.last(series)
        working = Working(order, f"P{self._next_number()}", now, eligible_at)
        refused = malformed(order, series.instrument, price, now)
        refused = refused or self._unpayable(working, series.instrument, wallet, order.price or price)
        if refused is not None:
            return refused
        self.orders[order.client_order_id] = working
        series.orders.append(working)
        series.changed = True
        if order.kind in (OrderKind.MARKET, OrderKind.LIMIT):
            self.pending.append(working)
        return Accepted(working.venue_id)

    def cancel(self, order: Order, now: int) -> Fate:
        working = self.orders.get(order.client_order_id)
        if working is None:
            return Refused("UNKNOWN_ORDER", f"{order.client_order_id} was never placed here")
        if working.works:
            self._finish(working, OrderState.CANCELED, "canceled on request", now)
        return Accepted(working.venue_id)

    def _unpayable(self, working: Working, instrument: Instrument, wallet: PaperBook, price: Decimal | None) -> Refused | None:
        order = working.order
        if instrument.asset_class is AssetClass.SPOT and order.side is Side.SELL:
            held = wallet.position(instrument)
            return Refused(BALANCE, f"{held} {instrument.base} held, {order.quantity} to be sold") if order.quantity > held else None
        if working.reduces:
            closable = wallet.reducible(instrument, order.side)
            return Refused("REDUCE_ONLY", f"no {order.symbol} position that a {order.side} would reduce") if closable == ZERO else None
        if instrument.asset_class is AssetClass.OPTION or price is None:
            return None  # what it costs is known at the fill
        rate = self._prices.settle_rate(instrument, price, wallet.currency)
        if rate is None:
            return Refused("NO_RATE", f"no price converts {instrument.quote} to {wallet.currency}")
        code = wallet.refusal(Execution(instrument, order.side, order.quantity, price, rate, ZERO, False, order.leverage))
        return Refused(code, f"{order.quantity} {order.symbol} at {price}: free are {wallet.free} {wallet.currency}") if code else None

    def _finish(self, working: Working, state: OrderState, reason: str, at: int) -> None:
        working.state = state
        series = self._prices.series[working.order.symbol]
        series.orders.remove(working)
        series.changed = True
        self._emit(OrderDone(working.order.client_order_id, at, state.value, reason))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    # -- one step: what happened until `step.at` --------------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        """Bars without orders or a liquidation price to watch cost next to nothing."""
        at = self.at = step.at
        prices, average = self._prices, costs.average_notional
        all_series = prices.series
        prices.forget()
        for symbol, bar in step.bars:
            all_series[symbol].close = bar.close  # all of them first: what a fill is converted at must not hang on the bars' order
        for symbol, bar in step.bars:
            series = all_series[symbol]
            if (series.orders or series.liquidation) and not series.quiet(bar):
                self._match(series, bar, at)
            series.bar = bar
            series.closed_at = at
            series.taken = 0.0
            series.average = average(series.average, bar.quote_volume)
        for chain in step.chains:
            prices.list_chain(chain)
        for rate in step.financing:
            self._financing[rate.symbol] = rate
        if step.funding:
            self._pay_funding(step)
        while at >= self._rollover:
            self._roll_over(self._rollover)
            self._rollover = next_rollover(self._rollover)
        if at >= self._next_expiry:
            self._expire_options()
        if step.transfers:
            self._move_money(step)
        for symbol in step.ended:
            self._delist(all_series[symbol], at)

    def _match(self, series: Series, bar: Bar, at: int) -> None:
        """Resting orders and liquidation in one closed bar: first what the open decides, then stops, then limits (costs.bar_exit)."""
        self._lapse(series, bar, at)
        self._resolve(series, bar, series.offset(bar), [w for w in series.orders if w.rests and w.eligible_at < at], at)

    def _resolve(self, series: Series, bar: Bar, offset: float, resting: Sequence[Working], at: int) -> None:
        """What one bar does to these resting orders and to the position. `offset`: how far the side they trade on is off its prices."""
        stops = sorted((w for w in resting if w.order.kind is OrderKind.STOP), key=lambda w: w.side * w.price)
        limits = [w for w in resting if w.order.kind is not OrderKind.STOP]
        if self._liquidation_reached(series, bar, offset) == costs.AT_OPEN:
            self._liquidate(series, bar, offset, costs.AT_OPEN, at)
        for working in stops:
            if working.works and _stop_reached(working, bar, offset) == costs.AT_OPEN:
                self._trigger(working, series, bar, costs.stop_raw(working.side, bar.open, working.price, offset, costs.AT_OPEN), at)
        for working in limits:
            if working.works and not working.late_in(bar, series.interval) and _limit_reached(working, bar, offset) == costs.AT_OPEN:
                self._fill_limit(working, series, bar, at)
        for working in stops:
            if working.rests and working.works and not working.lapsed(at) and _stop_reached(working, bar, offset) == costs.IN_RANGE:
                if series.liquidation and working.reduces and working.side * (working.price - series.liquidation) >= 0.0:
                    break  # liquidation lies before this stop
                self._trigger(working, series, bar, working.price, at)
        reached = self._liquidation_reached(series, bar, offset)
        if reached != costs.UNTOUCHED:
            self._liquidate(series, bar, offset, reached, at)
        for working in limits:
            if working.works and not working.lapsed(at) and self._limit_in_range(working, series, bar, offset):
                self._fill_limit(working, series, bar, at)
        for working in resting:
            if working.works and working.rests and working.lapsed(at):
                self._finish(working, OrderState.EXPIRED, "unfilled timeout", at)

    def _lapse(self, series: Series, bar: Bar, at: int) -> None:
        """Before the bar counts: what timed out by its open, and entries from before a hole in the prices (they meant another market)."""
        after_hole = 0 < series.closed_at < bar.ts
        for working in list(series.orders):
            if working.lapsed(bar.ts):
                self._finish(working, OrderState.EXPIRED, "unfilled timeout", at)
            elif after_hole and not working.reduces and working.submitted_at < bar.ts:
                self._finish(working, OrderState.EXPIRED, "older than a hole in the prices", at)

    def _limit_in_range(self, working: Working, series: Series, bar: Bar, offset: float) -> bool:
        if working.late_in(bar, series.interval):
            return working.side * (bar.close - working.price) + offset < 0.0
        return _limit_reached(working, bar, offset) == costs.IN_RANGE

    def _trigger(self, working: Working, series: Series, bar: Bar, raw: float, at: int) -> None:
        """A stop becomes a market order: what the bar's volume allows fills now, the rest at the next openings."""
        working.triggered = series.changed = True
        model = series.model
        price = costs.stop_fill(working.side, raw, model.slippage_bp, self._impact(working, series, raw), model.stop_slippage_bp)
        self._fill(working, series, self._room(working, series, bar), self._tick(price, series.instrument, working.order.side), False, at)
        if working.works:
            self.pending.append(working)

    def _fill_limit(self, working: Working, series: Series, bar: Bar, at: int) -> None:
        assert working.order.price is not None  # malformed() saw to it
        self._fill(working, series, self._room(working, series, bar), working.order.price, True, at)

    # -- openings -------------------------------------------------------------------------------------------------------------

    def trade_openings(self, now: int) -> None:
        """Try every eligible order that waits for an opening; of options the purchases first, so that no short leg is ever naked."""
        for working in sorted(self.pending, key=lambda w: w.order.asset_class is AssetClass.OPTION and w.side < 0):
            if working.works and working.eligible_at <= now:
                working.tried_at = self.at
                self._trade_opening(working, self._prices.series[working.order.symbol], now)
        self.pending = [w for w in self.pending if w.works and (not w.rests or w.tried_at < 0)]

    def tradable_now(self, order: Order) -> bool:
        """Whether a market order between two steps would find a price: it closes what is held and the bar's opening was kept."""
        if order.kind is not OrderKind.MARKET or order.symbol not in self.held or not reduces(order):
            return False
        return order.asset_class is AssetClass.OPTION or self._prices.opening(order.symbol) is not None

    def _trade_opening(self, working: Working, series: Series, now: int) -> None:
        order, instrument, model = working.order, series.instrument, series.model
        if working.lapsed(self.at):
            return self._finish(working, OrderState.EXPIRED, "unfilled timeout", now)
        if instrument.expiry is not None and instrument.expiry <= self.at:
            return self._finish(working, OrderState.EXPIRED, "the contract expired", now)
        if working.reduces and self.books[order.asset_class].reducible(instrument, order.side) == ZERO:
            return self._finish(working, OrderState.CANCELED, "position closed", now)
        touch = self._touch(order, series, now)
        if touch is None:
            return None
        if not working.reduces and 0 < series.closed_at < self.at and working.submitted_at < self.at:
            return self._finish(working, OrderState.EXPIRED, "older than a hole in the prices", now)
        raw = costs.market_fill(working.side, touch, model.slippage_bp, self._impact(working, series, touch))
        price = self._tick(raw, instrument, order.side)
        if order.kind is OrderKind.LIMIT and order.price is not None and working.side * (price - order.price) > ZERO:
            return None  # rests
        return self._fill(working, series, self._room(working, series, series.bar), price, False, now)

    def _touch(self, order: Order, series: Series, now: int) -> float | None:
        """The side of the market the order takes, None while there is no market."""
        if series.asset_class is AssetClass.OPTION:
            return self._prices.option_touch(series.instrument, order.side, now)
        quote = self._prices.opening(order.symbol)
        if quote is None:
            return None
        return costs.touched(order.side.sign, quote.bid, quote.ask, quote.synthetic, series.model.half_spread_bp)

    # -- fills ----------------------------------------------------------------------------------------------------------------

    def _impact(self, working: Working, series: Series, price: float) -> float:
        notional = float(self._wanted(working, series) * series.instrument.contract_size) * price
        return costs.impact(series.model.impact_bp, notional, series.average)

    def _wanted(self, working: Working, series: Series) -> Decimal:
        """What is left of the order, and never more than a reduce-only one may close: two orders may guard one position."""
        if not working.reduces:
            return working.remaining
        return min(working.remaining, self.books[working.order.asset_class].reducible(series.instrument, working.order.side))

    def _room(self, working: Working, series: Series, bar: Bar | None) -> Decimal:
        """How much of the order fills against `bar`'s volume: whole lots, and never more than a reduce-only order may close."""
        instrument, quantity = series.instrument, self._wanted(working, series)
        wanted = float(quantity * instrument.contract_size)
        room = costs.participation(wanted, series.volume(bar), float(series.model.participation_max), series.taken)
        if room >= wanted:
            return quantity
        return round_down(_MODELLED.create_decimal_from_float(room / float(instrument.contract_size)), instrument.lot)

    def _tick(self, price: float, instrument: Instrument, side: Side) -> Decimal:
        """A modelled price as money: rounded to the tick against us."""
        exact = _MODELLED.create_decimal_from_float(price)
        return round_up(exact, instrument.tick) if side is Side.BUY else round_down(exact, instrument.tick)

    def _fill(self, working: Working, series: Series, quantity: Decimal, price: Decimal, maker: bool, at: int) -> None:
        """Execute `quantity` of an order; nothing if there is no room or the price rounds to nothing. Unpayable: rejected."""
        if quantity <= ZERO or price <= ZERO:
            return
        order, wallet = working.order, self.books[working.order.asset_class]
        rate = self._prices.settle_rate(series.instrument, price, wallet.currency)
        if rate is None:
            return self._finish(working, OrderState.REJECTED, f"NO_RATE {series.instrument.quote} to {wallet.currency}", at)
        execution = self._execution(series, order.side, quantity, price, rate, maker, order.leverage)
        if code := wallet.refusal(execution):
            return self._finish(working, OrderState.REJECTED, f"{code}: free are {wallet.free} {wallet.currency}", at)
        working.filled += quantity
        if working.remaining == ZERO:
            working.state = OrderState.FILLED
            series.orders.remove(working)
        self._book(series, wallet, execution, order.client_order_id, maker, at, done=working.remaining == ZERO)

    def _execution(self, series: Series, side: Side, quantity: Decimal, price: Decimal, rate: Decimal, maker: bool,
                   leverage: Decimal) -> Execution:
        """With the fee of cost_policy: spot purchases pay in the coin bought, options per unit of the underlying, the rest on notional."""
        instrument, model = series.instrument, series.model
        fee_rate = model.maker_fee if maker else model.taker_fee
        in_base = instrument.asset_class is AssetClass.SPOT and side is Side.BUY
        if in_base:
            fee = charge(quantity * instrument.contract_size * fee_rate)
        elif instrument.asset_class is AssetClass.OPTION:
            per_unit = costs.option_fee(fee_rate, self._index(instrument, rate), price * rate, self._policy.option_fee_cap)
            fee = charge(per_unit * quantity * instrument.contract_size)
        else:
            fee = charge(instrument.notional(quantity, price) * rate * fee_rate)
        return Execution(instrument, side, quantity, price, rate, fee, in_base, leverage)

    def _index(self, instrument: Instrument, rate: Decimal) -> Decimal:
        """Price of an option's underlying in settlement currency."""
        spot = self._prices.spot(instrument.underlying)
        if spot is None:
            raise VenueError(f"no price of {instrument.underlying} for {instrument.symbol}")
        return Decimal(repr(spot)) * (ONE if instrument.quote == instrument.base else rate)

    def _book(self, series: Series, wallet: PaperBook, execution: Execution, client_order_id: str, maker: bool, at: int, *,
              done: bool, delisted: bool = False) -> None:
        instrument = series.instrument
        wallet.apply(execution)
        series.taken += float(execution.quantity * instrument.contract_size)
        fill = Fill(
            venue=self._name, symbol=instrument.symbol, venue_trade_id=f"T{self._next_number()}", client_order_id=client_order_id,
            side=execution.side, quantity=execution.quantity, price=execution.price, fee=execution.fee,
            fee_currency=instrument.base if execution.fee_in_base else wallet.currency,
            fee_rate=execution.price * execution.settle_rate if execution.fee_in_base else ONE,
            settle_rate=execution.settle_rate, maker=maker, at=at, liquidation=not client_order_id, delisted=delisted,
        )
        seen = FillSeen(fill, done)
        self.fills.append(seen)
        self._emit(seen)
        self._position_changed(series, wallet, at)

    def _position_changed(self, series: Series, wallet: PaperBook, at: int) -> None:
        """Watch the new liquidation price and expiry; cancel reduce-only orders that have nothing left to reduce (OCO)."""
        instrument = series.instrument
        if round_down(wallet.position(instrument), instrument.lot) == ZERO:
            self.held.discard(instrument.symbol)
        else:
            self.held.add(instrument.symbol)
        if instrument.expiry is not None and instrument.symbol in self.held:
            self._next_expiry = min(self._next_expiry, instrument.expiry)
        holding = wallet.holdings.get(instrument.symbol)
        series.liquidation, series.long = self._liquidation_price(series, holding), holding is None or holding.side > 0
        series.changed = True
        for working in list(series.orders):
            if working.reduces and wallet.reducible(instrument, working.order.side) == ZERO:
                self._finish(working, OrderState.CANCELED, "position closed", at)

    # -- liquidation ------------------------------------------------------------------------------------------------------------

    def _liquidation_price(self, series: Series, holding: Holding | None) -> float:
        if holding is None or not series.instrument.is_margined:
            return 0.0
        maintenance = max(series.instrument.maintenance_margin, series.model.maintenance_margin)
        return max(0.0, float(costs.liquidation_price(holding.side, holding.entry, holding.leverage, maintenance)))

    def _liquidation_reached(self, series: Series, bar: Bar, offset: float) -> int:
        if not series.liquidation:
            return costs.UNTOUCHED
        return costs.stop_reached(-1 if series.long else 1, bar.open, bar.high, bar.low, series.liquidation, offset)

    def _liquidate(self, series: Series, bar: Bar, offset: float, reached: int, at: int) -> None:
        """A perp is taken over at the price where its whole margin is gone; FX is closed at the market, which may cost more than that."""
        instrument, model, wallet = series.instrument, series.model, self.books[series.asset_class]
        holding = wallet.holdings[instrument.symbol]
        side = Side.SELL if holding.side > 0 else Side.BUY
        if series.asset_class is AssetClass.PERP:
            price = float(costs.bankruptcy_price(holding.side, holding.entry, holding.leverage))
        else:
            raw = costs.stop_raw(side.sign, bar.open, series.liquidation, offset, reached)
            price = costs.stop_fill(side.sign, raw, model.slippage_bp, 0.0, model.stop_slippage_bp)
        money = max(instrument.tick, self._tick(price, instrument, side))
        rate = self._rate(instrument, money, wallet)
        self._book(series, wallet, self._execution(series, side, abs(holding.quantity), money, rate, False, ONE), "", False, at,
                   done=True)

    def _delist(self, series: Series, at: int) -> None:
        """Trading in a symbol ends: what is held is closed at its last close like a market order, what still works expires.

        Without this a position would outlive its market: its mark would stand still and its place in every limit stay taken for ever."""
        wallet, bar, model = self.books.get(series.asset_class), series.bar, series.model
        if wallet is not None and bar is not None and series.instrument.symbol in self.held:
            instrument = series.instrument
            quantity = round_down(wallet.position(instrument), instrument.lot)
            side = Side.SELL if quantity > ZERO else Side.BUY
            quoted = 0.0 < bar.bid <= bar.ask  # NaN compares false
            touch = costs.touched(side.sign, bar.bid if quoted else bar.close, bar.ask if quoted else bar.close, not quoted,
                                  model.half_spread_bp)
            impact = costs.impact(model.impact_bp, float(abs(quantity) * instrument.contract_size) * touch, series.average)
            price = max(instrument.tick, self._tick(costs.market_fill(side.sign, touch, model.slippage_bp, impact), instrument, side))
            rate = self._rate(instrument, price, wallet)
            self._book(series, wallet, self._execution(series, side, abs(quantity), price, rate, False, ONE), "", False, at, done=True,
                       delisted=True)
        for working in list(series.orders):
            self._finish(working, OrderState.EXPIRED, "trading ended", at)

    # -- what holding costs, expiry, transfers -------------------------------------------------------------------------------------

    def _rate(self, instrument: Instrument, price: Decimal, wallet: PaperBook) -> Decimal:
        rate = self._prices.settle_rate(instrument, price, wallet.currency)
        if rate is None:
            raise VenueError(f"no price converts {instrument.quote} to {wallet.currency}")
        return rate

    def _pay_funding(self, step: Step) -> None:
        wallet = self.books.get(AssetClass.PERP)
        if wallet is None or not wallet.holdings:
            return
        marks = dict(step.marks)
        for settled in step.funding:
            holding, series = wallet.holdings.get(settled.symbol), self._prices.series.get(settled.symbol)
            if holding is None or series is None or series.bar is None:
                continue
            price = Decimal(repr(marks.get(settled.symbol, series.bar.close)))
            notional = holding.quantity * holding.instrument.contract_size * price * self._rate(holding.instrument, price, wallet)
            amount = book(costs.funding(notional, Decimal(repr(settled.rate))))
            self._accrue(wallet, holding, amount, settled.rate, f"funding:{settled.symbol}:{settled.at}")

    def _roll_over(self, rollover: int) -> None:
        """17:00 New York: every FX position is carried over to the next value date at the rate stated for its side, which is net of the
        broker's markup. A rate nobody states is 0, less the markup."""
        wallet = self.books.get(AssetClass.FOREX)
        for symbol, holding in list(wallet.holdings.items()) if wallet is not None else ():
            price = self._prices.last(self._prices.series[symbol])
            if wallet is None or price is None:
                continue
            stated = self._financing.get(symbol)
            unstated = -float(self._policy.forex_financing_markup)
            annual = unstated if stated is None else stated.long_rate if holding.side > 0 else stated.short_rate
            notional = abs(holding.quantity) * holding.instrument.contract_size * price * self._rate(holding.instrument, price, wallet)
            amount = book(costs.financing(notional, Decimal(repr(annual)), nights(symbol, rollover)))
            self._accrue(wallet, holding, amount, annual, f"financing:{symbol}:{rollover}")

    def _accrue(self, wallet: PaperBook, holding: Holding, amount: Decimal, rate: float, reference: str) -> None:
        wallet.cash += amount
        instrument = holding.instrument
        self._emit(FundingPaid(self._name, instrument.symbol, instrument.asset_class, amount, rate, self.at, reference))

    def _expire_options(self) -> None:
        wallet = self.books[AssetClass.OPTION]
        due = [h.instrument for h in wallet.holdings.values() if h.instrument.expiry is not None and h.instrument.expiry <= self.at]
        for instrument in due:
            self._expire(instrument, wallet)
        self._next_expiry = min((h.instrument.expiry for h in wallet.holdings.values() if h.instrument.expiry is not None), default=NEVER)

    def _expire(self, instrument: Instrument, wallet: PaperBook, delivered: Decimal | None = None) -> None:
        """Cash settlement against the price the underlying was delivered at, None = its price now; coin-quoted contracts pay their dollar
        value in coin."""
        rate = self._rate(instrument, ONE, wallet)
        index = self._index(instrument, rate) if delivered is None else delivered
        spot = index if instrument.quote == instrument.base else index / rate
        value = costs.option_value(instrument.right is Right.CALL, spot, strike_of(instrument))
        if instrument.quote == instrument.base:
            value = _VALUE.divide(value, spot)
        units = abs(wallet.position(instrument)) * instrument.contract_size
        fee = charge(costs.option_fee(self._policy.option_settlement_fee, index, value * rate, self._policy.option_fee_cap) * units)
        quantity = wallet.expire(instrument, value, rate, fee)
        reference = f"expiry:{instrument.symbol}"
        self._emit(Settled(self._name, instrument.symbol, quantity, value, rate, fee, self.at, reference))
        series = self._prices.series[instrument.symbol]
        for working in list(series.orders):
            self._finish(working, OrderState.EXPIRED, "the contract expired", self.at)
        self.held.discard(instrument.symbol)

    def _move_money(self, step: Step, booked: Collection[str] = ()) -> None:
        """The transfers of one instant, each under a reference that a restart gives it again, so that none is made twice."""
        for number, (asset_class, amount) in enumerate(step.transfers):
            reference = f"transfer:{step.at}:{number}"
            if reference not in booked:
                self._transfer(asset_class, amount, reference)

    def _transfer(self, asset_class: AssetClass, amount: Decimal, reference: str) -> None:
        """A withdrawal takes what is free, never margin or collateral."""
        wallet = self.books.get(asset_class)
        if wallet is None:
            return
        moved = amount if amount > ZERO else -min(-amount, round_down(max(ZERO, wallet.free), UNIT))
        if moved == ZERO:
            return
        wallet.cash += moved
        self._emit(Transferred(asset_class, moved, self.at, reference))


def _stop_reached(working: Working, bar: Bar, offset: float) -> int:
    return costs.stop_reached(working.side, bar.open, bar.high, bar.low, working.price, offset)


def _limit_reached(working: Working, bar: Bar, offset: float) -> int:
    return costs.limit_reached(working.side, bar.open, bar.high, bar.low, working.price, offset)
