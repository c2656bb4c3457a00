"""Owns the books: one sub-ledger per asset class, positions, open and closed trades, all net of fees and funding. Refuses nothing.

A projection of the journal: `apply` books facts, `on_fact` alone writes PositionClosed, once per round trip, when all its legs are flat
(only dust left) and no order of it can open more. Replay gives the same books to the last digit (`state_hash`). How an amount is booked
is in modules/domain/ledger.py. Fills that are not ours are counted and never touch a position: coins and contracts the owner holds
are unallocated.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from modules.domain.canonical import digest
from modules.domain.events import (
    BalanceAdjusted,
    ExitRequested,
    Fact,
    Filled,
    ForeignFill,
    FundingBooked,
    InstrumentListed,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    TradeAbandoned,
    TradeOpened,
    TransferSeen,
)
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.ledger import Booking, Holding, SubLedger, book_fill, book_settlement, book_write_off, counts_as_transfer
from modules.domain.money import ONE, ZERO, book
from modules.domain.order import ExitReason, Fill, Order, Purpose
from modules.domain.position import ClosedTrade, Position
from modules.domain.trades import OpenTrade, OrderRecord, TradeBook, TradeRegister
from modules.runtime import failpoint

if TYPE_CHECKING:
    from modules.store.journal import Journal

Price = Callable[[str], Decimal | None]
"""Symbol -> mark price in quote currency, or -> what one unit of its quote currency is worth in the sub-ledger's. None = unknown."""

_MOVES_NOTHING: Final = frozenset({TradeOpened, OrderIntended, OrderAccepted, TransferSeen})
"""Facts about trades and cash that change no holding."""
_STOP_OUTS: Final = frozenset({
    ExitReason.STOP_LOSS, ExitReason.STOPLOSS_ON_EXCHANGE, ExitReason.TRAILING_STOP_LOSS, ExitReason.LIQUIDATION,
})


@dataclass(frozen=True, slots=True)
class ClassSummary:
    """What one class did since the books were opened: closed trades, and money in settlement currency from the ledger."""

    asset_class: AssetClass
    currency: str
    trades: int
    wins: int
    gross: Decimal
    fees: Decimal
    funding: Decimal
    net: Decimal
    slippage: Decimal
    """Money lost to fills against arrival prices (adverse positive); part of gross."""
    slippage_bp: Decimal | None
    """The same over the notional traded; None before the first fill."""


class PortfolioManager:
    """See the module. `settlement`: the currency of each class's sub-ledger ("" for classes not traded). Mappings handed out are live:
    read, don't keep."""

    def __init__(self, journal: Journal, settlement: Mapping[AssetClass, str]) -> None:
        self._journal = journal
        self._ledgers = {asset_class: SubLedger(asset_class, settlement.get(asset_class, "")) for asset_class in AssetClass}
        self._holdings: dict[str, Holding] = {}
        self._of_class: dict[AssetClass, dict[str, Holding]] = {asset_class: {} for asset_class in AssetClass}
        self._register = TradeRegister()
        self._books = self._register.open
        self._seen: set[tuple[str, str, str]] = set()
        self._flat: dict[str, None] = {}
        self._losses: dict[str, int] = {}
        self._last_loss_at: dict[str, int] = {}
        self._stop_outs: dict[AssetClass, list[int]] = {asset_class: [] for asset_class in AssetClass}
        self.instruments: dict[str, Instrument] = {}
        self.positions: dict[str, Position] = {}
        self.trades: dict[str, OpenTrade] = {}
        self.closed: list[ClosedTrade] = []
        self._changes = 0
        """Grows with every fact that may have changed a holding."""
        self._worth: dict[AssetClass, tuple[object, Decimal | None]] = {}
        self._risk: dict[AssetClass, Decimal] = {}
        """What was reckoned last, until the books change."""
        self.foreign_fills = 0
        self.unallocated: dict[str, Decimal] = {}
        """Symbol -> net signed quantity that foreign fills moved: the owner's, never ours."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            InstrumentListed: self._listed,
            TradeOpened: self._trade_opened,
            TradeAbandoned: self._trade_abandoned,
            OrderIntended: self._order_intended,
            OrderAccepted: self._order_accepted,
            OrderRejected: self._order_ended,
            OrderCanceled: self._order_ended,
            OrderExpired: self._order_ended,
            Filled: self._filled,
            ForeignFill: self._foreign,
            FundingBooked: self._funding_booked,
            OptionSettled: self._option_settled,
            PositionClosed: self._position_closed,
            TransferSeen: self._transfer_seen,
            BalanceAdjusted: self._balance_adjusted,
            ExitRequested: self._exit_requested,
        }

    # -- facts in, facts out ----------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        """Projection."""
        kind = type(fact)
        handler = self._handlers.get(kind)
        if handler is not None:
            self._risk.clear()
            if kind not in _MOVES_NOTHING:
                self._changes += 1
            handler(fact)

    def on_fact(self, fact: Fact) -> None:
        """Reactor: whatever went flat becomes a PositionClosed. After a crash in between, the first fact of the new start does it."""
        for trade_id in tuple(self._flat):
            failpoint.hit("close.before")
            self._journal.append(PositionClosed(fact.at, self._books[trade_id].result()))
            failpoint.hit("close.written")

    # -- what others ask -------------------------------------------------------------------------------------------------

    def ledger(self, asset_class: AssetClass) -> SubLedger:
        return self._ledgers[asset_class]

    def holds(self, asset_class: AssetClass) -> bool:
        """Whether anything is open; without, the class is worth its cash."""
        return bool(self._of_class[asset_class])

    def equity(self, asset_class: AssetClass, mark: Price, rate: Price, instant: object = None) -> Decimal | None:
        """Cash + value of spot and options at the mark + unrealized P&L of perps and FX, settlement currency, unrounded.

        `rate` is asked only for instruments quoted in another currency than the sub-ledger's. None if any price is missing. `instant`,
        where given, names the state of the market that the prices are of: a second question in it is answered without asking them again.
        """
        value = self._value(asset_class, mark, rate, instant)
        return None if value is None else self._ledgers[asset_class].cash + value

    def market_value(self, asset_class: AssetClass, mark: Price, rate: Price, instant: object = None) -> Decimal | None:
        """What open spot and options are worth (short options negative); 0 for PERP and FOREX, whose positions are not property."""
        if asset_class in (AssetClass.PERP, AssetClass.FOREX):
            return ZERO
        return self._value(asset_class, mark, rate, instant)

    def unrealized(self, asset_class: AssetClass, mark: Price, rate: Price) -> Decimal | None:
        """Result of open positions if closed at the mark, fees not counted: equity - transfers - net, for every class."""
        value = self._value(asset_class, mark, rate)
        if value is None:
            return None
        held = self._of_class[asset_class].values()
        return value - sum((h.cost for h in held if not h.margined), ZERO)

    def net_at_marks(self, trade_id: str, mark: Price, rate: Price) -> Decimal | None:
        """What an open trade would have earned if it were closed at the mark, the costs so far off and those of closing not. None if a
        price is missing. KeyError for a trade that is not open."""
        trade = self._books[trade_id]
        total = trade.net
        for symbol, holding in self._of_class[trade.opened.asset_class].items():
            if holding.trade_id == trade_id:
                worth = self._worth_of(symbol, holding, mark, rate)
                if worth is None:
                    return None
                total += worth if holding.margined else worth - holding.cost
        return total

    def _value(self, asset_class: AssetClass, mark: Price, rate: Price, instant: object = None) -> Decimal | None:
        if instant is None:
            return self._valued(asset_class, mark, rate)
        known, key = self._worth.get(asset_class), (instant, self._changes)
        if known is None or known[0] != key:
            known = self._worth[asset_class] = (key, self._valued(asset_class, mark, rate))
        return known[1]

    def _valued(self, asset_class: AssetClass, mark: Price, rate: Price) -> Decimal | None:
        total = ZERO
        for symbol, holding in self._of_class[asset_class].items():
            worth = self._worth_of(symbol, holding, mark, rate)
            if worth is None:
                return None
            total += worth
        return total

    def _worth_of(self, symbol: str, holding: Holding, mark: Price, rate: Price) -> Decimal | None:
        """Property at the mark, or the unrealized result of a margined position; settlement currency, unrounded."""
        price = mark(symbol)
        if price is None:
            return None
        worth = holding.marked(price) if holding.margined else holding.units * price
        if holding.instrument.quote != self._ledgers[holding.instrument.asset_class].currency:
            factor = rate(symbol)
            return None if factor is None else worth * factor
        return worth

    def margin(self, asset_class: AssetClass) -> Decimal:
        """What open positions tie up: entry notional / leverage for PERP and FOREX; for options, which have no margin leg by leg, the
        collateral of structures with a short leg: their maximum loss (the trade's risk) plus the credit that is already in cash, or what
        the venue ties up of the short leg by itself, where that is more."""
        held = self._of_class[asset_class].values()
        if asset_class is not AssetClass.OPTION:
            return sum((h.margin for h in held), ZERO)
        collateral = ZERO
        for trade_id in dict.fromkeys(h.trade_id for h in held if h.quantity < ZERO):
            trade = self._books.get(trade_id)
            credit = -sum((h.cost for h in held if h.trade_id == trade_id), ZERO)
            risk = trade.opened.risk * self._open_share(trade) if trade is not None else ZERO
            sold = sum((h.instrument.tied_up_sold(-h.quantity) - h.cost for h in held if h.trade_id == trade_id and h.quantity < ZERO
                        and h.instrument.short_margin), ZERO)
            collateral += max(book(risk + max(ZERO, credit)), book(sold))
        return collateral

    def gross_notional(self, asset_class: AssetClass, mark: Price | None = None, rate: Price | None = None) -> Decimal:
        """Sum of unsigned notionals, settlement currency: per position the larger of entry and (where known) marked value."""
        total = ZERO
        currency = self._ledgers[asset_class].currency
        for symbol, holding in self._of_class[asset_class].items():
            instrument = holding.instrument
            entry = abs(holding.cost)
            price = mark(symbol) if mark is not None else None
            factor = ONE if instrument.quote == currency else rate(symbol) if rate is not None else None
            if price is not None and factor is not None:
                entry = max(entry, abs(holding.units if holding.inverse else holding.units * price) * factor)
            total += entry
        return total

    def open_risk(self, asset_class: AssetClass) -> Decimal:
        """What the stops of open trades are modelled to lose: each trade's risk, scaled by how much of it is still open. A trade whose
        entry still works counts in full, and a stop beyond the entry is not taken for safety."""
        known = self._risk.get(asset_class)
        if known is None:
            trades = (trade for trade in self._books.values() if trade.opened.asset_class is asset_class)
            known = self._risk[asset_class] = sum((book(trade.opened.risk * self._open_share(trade)) for trade in trades), ZERO)
        return known

    def open_trades(self, asset_class: AssetClass) -> int:
        """Trades that hold something or whose entry may still fill."""
        return sum(1 for trade in self._books.values() if trade.opened.asset_class is asset_class)

    def coins(self, asset_class: AssetClass) -> dict[str, Decimal]:
        """What the venue should hold for us besides cash: coins of spot positions and dust less fees paid in coins, and signed
        quantities per symbol for the other classes. Zero entries are left out."""
        ledger = self._ledgers[asset_class]
        expected = dict(ledger.dust)
        for symbol, holding in self._of_class[asset_class].items():
            key = holding.instrument.base if asset_class is AssetClass.SPOT else symbol
            expected[key] = expected.get(key, ZERO) + holding.quantity
        for coin, amount in ledger.coins_spent.items():
            expected[coin] = expected.get(coin, ZERO) - amount
        return {key: quantity for key, quantity in expected.items() if quantity}

    def wallet_cash(self, asset_class: AssetClass) -> Decimal:
        """What the venue should hold of the settlement currency: our cash, and what fees charged in other coins did not take there."""
        ledger = self._ledgers[asset_class]
        return ledger.cash + ledger.coin_fees

    def losses_in_a_row(self, symbol: str) -> int:
        """Closed trades with net < 0 since the last that was not, on the watched symbol."""
        return self._losses.get(symbol, 0)

    def last_loss_at(self, symbol: str) -> int | None:
        return self._last_loss_at.get(symbol)

    def stop_outs(self, asset_class: AssetClass, since: int) -> int:
        """Losing trades of the class that ended by a stop or a liquidation at or after `since` (UTC ms)."""
        times = self._stop_outs[asset_class]
        return len(times) - bisect_left(times, since)

    def last_stop_out_at(self, asset_class: AssetClass) -> int | None:
        times = self._stop_outs[asset_class]
        return times[-1] if times else None

    def summary(self, asset_class: AssetClass) -> ClassSummary:
        ledger = self._ledgers[asset_class]
        return ClassSummary(
            asset_class=asset_class, currency=ledger.currency, trades=ledger.trades, wins=ledger.wins, gross=ledger.gross, fees=ledger.fees,
            funding=ledger.funding, net=ledger.net, slippage=ledger.slippage, slippage_bp=ledger.slippage_bp,
        )

    def state_hash(self) -> str:
        """sha256 over ledgers, positions, open and closed trades, cooldown counters and booked keys in canonical text."""
        return digest((
            self._ledgers, self._holdings, self._books, self.trades, self.closed, self._losses, self._last_loss_at, self._stop_outs,
            self.foreign_fills, self.unallocated, sorted(self._flat), len(self._seen),
        ))

    # -- orders and trades -----------------------------------------------------------------------------------------------

    def _listed(self, fact: InstrumentListed) -> None:
        instrument = fact.instrument
        self.instruments[instrument.symbol] = instrument
        holding = self._holdings.get(instrument.symbol)
        if holding is not None and holding.instrument.contract_size == instrument.contract_size:
            holding.instrument = instrument

    def _trade_opened(self, fact: TradeOpened) -> None:
        self._register.begin(fact)
        self._show(fact.trade_id)

    def _trade_abandoned(self, fact: TradeAbandoned) -> None:
        trade = self._books.get(fact.trade_id)
        if trade is not None and not trade.legs:
            self._end(trade, finished=False)

    def _end(self, trade: TradeBook, *, finished: bool) -> None:
        self._register.end(trade, finished=finished)
        self.trades.pop(trade.trade_id, None)
        self._flat.pop(trade.trade_id, None)

    def _order_intended(self, fact: OrderIntended) -> None:
        trade = self._register.intend(fact.order)
        if trade is not None and fact.order.purpose is Purpose.ENTRY:
            self._review(trade)

    def _order_accepted(self, fact: OrderAccepted) -> None:
        record = self._register.record(fact.client_order_id)
        trade = self._register.revive(record) if record is not None else None
        if trade is not None:
            self._review(trade)

    def _order_ended(self, fact: OrderRejected | OrderCanceled | OrderExpired) -> None:
        record = self._register.record(fact.client_order_id)
        if record is None:
            return
        trade = self._register.finish_order(record)
        holding = self._holdings.get(record.order.symbol)
        if holding is not None and record.filled and record.order.purpose is not Purpose.ENTRY:
            self._sweep(holding, record, record.order.arrival_price)
        if trade is not None:
            self._review(trade)

    def _exit_requested(self, fact: ExitRequested) -> None:
        trade = self._books.get(fact.trade_id)
        if trade is None:
            return
        trade.requested = fact.reason
        if not trade.entries:
            for symbol in trade.legs:
                holding = self._holdings.get(symbol)
                if holding is not None and holding.trade_id == fact.trade_id:
                    self._sweep(holding, None, ZERO)
        self._review(trade)

    # -- fills -----------------------------------------------------------------------------------------------------------

    def _first_time(self, venue: str, symbol: str, reference: str) -> bool:
        key = (venue, symbol, reference)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _foreign(self, fact: ForeignFill) -> None:
        self._count_foreign(fact.fill, fact.fill.quantity)

    def _count_foreign(self, fill: Fill, quantity: Decimal) -> None:
        self.foreign_fills += 1
        self.unallocated[fill.symbol] = self.unallocated.get(fill.symbol, ZERO) + fill.side.sign * quantity

    def _ours(self, fill: Fill) -> Fill | None:
        """The part of an execution that concerns our books. A liquidation takes the owner's position with ours: only ours is booked."""
        if fill.symbol not in self.instruments:
            self._count_foreign(fill, fill.quantity)
            return None
        if not fill.liquidation:
            return fill
        holding = self._holdings.get(fill.symbol)
        part = ZERO
        if holding is not None and holding.quantity * fill.side.sign < ZERO:
            part = min(fill.quantity, abs(holding.quantity))
        if part < fill.quantity:
            self._count_foreign(fill, fill.quantity - part)
        if not part:
            return None
        return fill if part == fill.quantity else replace(fill, quantity=part, fee=book(fill.fee * part / fill.quantity))

    def _filled(self, fact: Filled) -> None:
        record = self._register.record(fact.fill.client_order_id)
        if not self._first_time(fact.fill.venue, fact.fill.symbol, fact.fill.venue_trade_id):
            return
        fill = self._ours(fact.fill)
        if fill is None:
            return
        order = record.order if record is not None else None
        holding = self._holdings.get(fill.symbol)
        trade = self._register.of(order) if order is not None else self._books.get(holding.trade_id) if holding is not None else None
        if holding is None:
            holding = self._hold(fill, trade, order)
        ledger = self._ledgers[holding.instrument.asset_class]
        owner = self._books.get(holding.trade_id)
        booking = book_fill(ledger, holding, fill, order.leverage if order is not None else holding.leverage)
        self._attribute(ledger, holding, fill, booking, order, owner, trade)
        if record is not None:
            record.filled += fill.quantity
            if fact.order_done or record.filled >= record.order.quantity:
                self._register.finish_order(record)
        if booking.closed and (record is None or record.ended):
            self._sweep(holding, record, fill.price)
        self._settle_up(holding)
        if owner is not None and owner is not trade:
            self._review(owner)
        if trade is not None:
            self._review(trade)

    def _hold(self, fill: Fill, trade: TradeBook | None, order: Order | None) -> Holding:
        instrument = self.instruments[fill.symbol]
        trade_id = trade.trade_id if trade is not None else ""
        strategy = order.strategy if order is not None else ""
        holding = Holding(instrument, trade_id, strategy, fill.at)
        self._holdings[fill.symbol] = self._of_class[instrument.asset_class][fill.symbol] = holding
        return holding

    def _attribute(
        self, ledger: SubLedger, holding: Holding, fill: Fill, booking: Booking, order: Order | None, owner: TradeBook | None,
        trade: TradeBook | None,
    ) -> None:
        """Whose result it is: what was closed belongs to the trade that held it (`owner`), what was opened and the fee to the order's."""
        if booking.closed and owner is not None:
            owner.exited(fill.symbol, booking.closed, fill.price, booking.gross, owner.reason_for(order, fill), fill.at)
        elif booking.gross:
            ledger.unassigned += booking.gross
        if booking.closed and booking.opened:
            holding.hand_over(trade.trade_id if trade is not None else "", order.strategy if order is not None else "", fill.at)
        holding.fees += booking.fee
        if trade is None:
            ledger.unassigned -= booking.fee
        else:
            if booking.opened:
                trade.entered(fill.symbol, booking.opened, fill.price, fill.at)
            trade.fees += booking.fee
        if order is not None and order.arrival_price > ZERO:
            if trade is not None:
                trade.slipped(fill, order.arrival_price)
            instrument = holding.instrument
            notional = instrument.notional(fill.quantity, fill.price) * fill.settle_rate
            ledger.turnover += notional
            ledger.slippage += fill.side.sign * notional * (fill.price - order.arrival_price) / fill.price if fill.price else ZERO

    def _sweep(self, holding: Holding, record: OrderRecord | None, price: Decimal) -> None:
        """After an exit: what the venue would not take any more goes to the dust account, its cost into the trade's loss. Below the lot
        always; below the venue's minimum only if the order was meant to close everything and ended short of it."""
        instrument = holding.instrument
        rest = abs(holding.quantity)
        if instrument.asset_class is not AssetClass.SPOT or not rest:
            return
        if rest >= instrument.lot:
            meant_all = record is not None and rest + record.filled < record.order.quantity + instrument.lot
            sellable = rest >= instrument.quantity_min and rest * instrument.contract_size * price >= instrument.notional_min
            if sellable or not meant_all:
                return
        ledger = self._ledgers[AssetClass.SPOT]
        ledger.keep_dust(instrument.base, holding.quantity)
        self._write_off(ledger, holding, rest)

    def _write_off(self, ledger: SubLedger, holding: Holding, part: Decimal) -> Decimal:
        loss = book_write_off(ledger, holding, part)
        trade = self._books.get(holding.trade_id)
        if trade is not None:
            trade.gross += loss
        else:
            ledger.unassigned += loss
        self._settle_up(holding)
        return loss

    def _settle_up(self, holding: Holding) -> None:
        """Keep the public views in step with a holding that changed."""
        symbol = holding.instrument.symbol
        if holding.quantity:
            self.positions[symbol] = holding.shown()
        elif self._holdings.pop(symbol, None) is not None:
            del self._of_class[holding.instrument.asset_class][symbol]
            self.positions.pop(symbol, None)

    def _review(self, trade: TradeBook) -> None:
        """Flat, and nothing can open more: its PositionClosed is due."""
        trade_id = trade.trade_id
        if trade_id not in self._books:
            return
        if trade.legs and not trade.entries and not any(self._leg(trade_id, symbol) for symbol in trade.legs):
            self._flat[trade_id] = None
        else:
            self._flat.pop(trade_id, None)
        self._show(trade_id)

    def _show(self, trade_id: str) -> None:
        trade = self._books[trade_id]
        first = next(iter(trade.legs), "")
        self.trades[trade_id] = trade.shown(self._leg(trade_id, first))

    def _leg(self, trade_id: str, symbol: str) -> Holding | None:
        holding = self._holdings.get(symbol)
        return holding if holding is not None and holding.trade_id == trade_id else None

    def _open_share(self, trade: TradeBook) -> Decimal:
        """How much of what its risk was sized for a trade still holds: the leg with most of it left; 1 while its entry works."""
        if trade.entries or not trade.legs:
            return ONE
        largest = ZERO
        for symbol in trade.legs:
            holding = self._leg(trade.trade_id, symbol)
            if holding is not None:
                intended = trade.intended.get(symbol, ZERO)
                largest = max(largest, min(ONE, abs(holding.quantity) / intended) if intended else ONE)
        return largest

    def _position_closed(self, fact: PositionClosed) -> None:
        result = fact.trade
        trade = self._books.get(result.trade_id)
        if trade is not None:
            self._end(trade, finished=True)
        self.closed.append(result)
        ledger = self._ledgers[result.asset_class]
        ledger.trades += 1
        if result.net >= ZERO:
            ledger.wins += result.net > ZERO
            self._losses[result.symbol] = 0
            return
        self._losses[result.symbol] = self._losses.get(result.symbol, 0) + 1
        self._last_loss_at[result.symbol] = result.closed_at
        if result.exit_reason in _STOP_OUTS:
            insort(self._stop_outs[result.asset_class], result.closed_at)

    # -- funding, settlement, transfers, differences -----------------------------------------------------------------------

    def _funding_booked(self, fact: FundingBooked) -> None:
        if not self._first_time(fact.venue, fact.symbol, f"funding {fact.venue_ref}"):
            return
        ledger = self._ledgers[fact.asset_class]
        ledger.cash += fact.amount
        ledger.funding += fact.amount
        holding = self._holdings.get(fact.symbol)
        trade = self._books.get(holding.trade_id) if holding is not None else None
        if holding is not None:
            holding.funding += fact.amount
            self._settle_up(holding)
        if trade is None:
            ledger.unassigned += fact.amount
        else:
            trade.funding += fact.amount
            self._show(trade.trade_id)

    def _option_settled(self, fact: OptionSettled) -> None:
        """Only our part of what expired: contracts beyond our position are the owner's."""
        if not self._first_time(fact.venue, fact.symbol, f"settled {fact.venue_ref}"):
            return
        holding = self._holdings.get(fact.symbol)
        if holding is None or holding.quantity * fact.quantity <= ZERO:
            return
        settled = abs(fact.quantity)
        part = min(settled, abs(holding.quantity))
        fee = fact.fee if part == settled else book(fact.fee * part / settled)
        ledger = self._ledgers[holding.instrument.asset_class]
        trade = self._books.get(holding.trade_id)
        booking = book_settlement(ledger, holding, part, fact.value, fact.settle_rate, fee)
        holding.fees += fee
        self._settle_up(holding)
        if trade is None:
            ledger.unassigned += booking.gross - fee
            return
        trade.exited(fact.symbol, part, fact.value, booking.gross, ExitReason.EXPIRY, fact.at)
        trade.fees += fee
        self._review(trade)

    def _transfer_seen(self, fact: TransferSeen) -> None:
        ledger = self._ledgers[fact.asset_class]
        ledger.cash += fact.amount
        ledger.transfers += fact.amount

    def _balance_adjusted(self, fact: BalanceAdjusted) -> None:
        """Make the books equal the wallet. Cash is result (or a transfer, if it says so); coins and contracts that are gone take their
        cost with them; more of what we hold comes for nothing; more of what we do not hold is dust."""
        ledger = self._ledgers[fact.asset_class]
        if fact.currency == ledger.currency:
            ledger.cash += fact.amount
            if counts_as_transfer(fact):
                ledger.transfers += fact.amount
            else:
                ledger.gross += fact.amount
                ledger.adjustments += fact.amount
                ledger.unassigned += fact.amount
            return
        rest = fact.amount
        for symbol, holding in sorted(self._of_class[fact.asset_class].items()):
            is_spot = fact.asset_class is AssetClass.SPOT
            if rest and fact.currency == (holding.instrument.base if is_spot else symbol):
                rest = self._adjust(ledger, holding, rest, fact.at)
        if rest and fact.asset_class is AssetClass.SPOT:
            ledger.keep_dust(fact.currency, rest)
        elif rest:
            self.unallocated[fact.currency] = self.unallocated.get(fact.currency, ZERO) + rest

    def _adjust(self, ledger: SubLedger, holding: Holding, amount: Decimal, at: int) -> Decimal:
        """Change one position by at most `amount`; what does not fit is returned. A position never changes sides this way."""
        trade = self._books.get(holding.trade_id)
        if holding.quantity * amount > ZERO:
            # More contracts than we know of: their price is unknown, so they come in at our average and show no result.
            extra = holding.basis * amount / holding.quantity if holding.margined else ZERO
            holding.quantity += amount
            holding.units = holding.quantity * holding.instrument.contract_size
            holding.basis += extra
            self._settle_up(holding)
            rest = ZERO
        else:
            part = min(abs(amount), abs(holding.quantity))
            rest = amount + part if amount < ZERO else amount - part
            ledger.adjustments += self._write_off(ledger, holding, part)
            if trade is not None:
                trade.exit_reason = ExitReason.FORCE_EXIT
                trade.last_at = max(trade.last_at, at)
        if trade is not None:
            self._review(trade)
        return rest


__all__ = ["ClassSummary", "OpenTrade", "PortfolioManager", "SubLedger"]
