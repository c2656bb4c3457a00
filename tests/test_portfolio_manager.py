"""The books: every unit of money is somewhere, and replay gives the same books to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.events import (
    BalanceAdjusted,
    DaemonStarted,
    ExitRequested,
    Filled,
    ForeignFill,
    FundingBooked,
    InstrumentListed,
    OptionSettled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    PositionClosed,
    TradeAbandoned,
    TradeOpened,
    TransferSeen,
)
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.order import ExitReason, OrderKind, Purpose
from modules.domain.position import ClosedTrade
from modules.Portfolio_Manager import PortfolioManager
from modules.store.journal import Journal
from tests.builders import AT, BTC_CALL, BTC_PERP, BTC_SPOT, EUR_USD, make_fill, make_instrument, make_order
from tests.timing import within

D = Decimal
SPOT, PERP, OPTION, FOREX = AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION, AssetClass.FOREX
BUY, SELL = Side.BUY, Side.SELL
SETTLEMENT = {SPOT: "USDT", PERP: "USDT", OPTION: "USDT", FOREX: "USD"}


def opened(trade_id: str, instrument: Instrument, side: Side = BUY, **changes: Any) -> TradeOpened:
    base = TradeOpened(
        at=AT, trade_id=trade_id, decision_id="d", strategy="trend", symbol=instrument.symbol, asset_class=instrument.asset_class,
        side=side.value, structure="single", score=0.7, confidence=0.6, entry=50_000.0, stop=49_000.0, target=None, hold=0,
        interval_ms=300_000, risk=D(100),
    )
    return replace(base, **changes)


@dataclass
class Desk:
    """The books on a journal, and a hand that trades."""

    journal: Journal
    books: PortfolioManager
    serial: int = 0
    marks: dict[str, Decimal] = field(default_factory=dict)
    rates: dict[str, Decimal] = field(default_factory=dict)

    def know(self, *instruments: Instrument) -> None:
        for instrument in instruments:
            self.journal.append(InstrumentListed(AT, instrument))

    def open(self, trade_id: str, symbol: str, side: Side = BUY, **changes: Any) -> None:
        self.journal.append(opened(trade_id, self.books.instruments[symbol], side, **changes))

    def order(self, symbol: str, side: Side, quantity: str, trade_id: str = "t", purpose: Purpose = Purpose.ENTRY, **changes: Any) -> str:
        self.serial += 1
        order = make_order(self.books.instruments[symbol], side=side, purpose=purpose, quantity=D(quantity))
        changes = {"client_order_id": f"o{self.serial}", "trade_id": trade_id, **changes}
        order = replace(order, **changes)
        self.journal.append(OrderIntended(AT, order))
        return order.client_order_id

    def fill(self, order_id: str, symbol: str, side: Side, quantity: str, price: str, *, fee: str = "0", fee_currency: str = "USDT",
             fee_rate: str = "1", settle_rate: str = "1", done: bool = True, at: int = AT, **changes: Any) -> None:
        self.serial += 1
        fill = make_fill(
            make_order(self.books.instruments[symbol], side=side), client_order_id=order_id, quantity=D(quantity), price=D(price),
            fee=D(fee), fee_currency=fee_currency, fee_rate=D(fee_rate), settle_rate=D(settle_rate), venue_trade_id=f"f{self.serial}",
            at=at,
        )
        self.journal.append(Filled(at, replace(fill, **changes), done))

    def trade(self, symbol: str, side: Side, quantity: str, price: str, *, trade_id: str = "t", purpose: Purpose = Purpose.ENTRY,
              order: dict[str, Any] | None = None, **fill: Any) -> None:
        """One order, filled at once."""
        self.fill(self.order(symbol, side, quantity, trade_id, purpose, **(order or {})), symbol, side, quantity, price, **fill)

    def close(self, symbol: str, side: Side, quantity: str, price: str, *, trade_id: str = "t", purpose: Purpose = Purpose.EXIT,
              order: dict[str, Any] | None = None, **fill: Any) -> None:
        self.trade(symbol, side, quantity, price, trade_id=trade_id, purpose=purpose, order=order, **fill)

    def equity(self, asset_class: AssetClass) -> Decimal | None:
        return self.books.equity(asset_class, self.marks.get, self.rates.get)

    @property
    def closed(self) -> list[ClosedTrade]:
        return self.books.closed

    def check_identities(self) -> None:
        """What holds for every class at every moment."""
        for asset_class in AssetClass:
            ledger = self.books.ledger(asset_class)
            assert ledger.net == ledger.gross - ledger.fees + ledger.funding
            exchanged = sum((p.cost for p in self.books.positions.values() if p.asset_class is asset_class
                             and asset_class in (SPOT, OPTION)), D(0))
            assert ledger.cash + exchanged == ledger.transfers + ledger.net
            finished = sum((t.net for t in self.closed if t.asset_class is asset_class), D(0))
            running = sum((t.gross - t.fees + t.funding for t in self.books.trades.values() if t.opened.asset_class is asset_class), D(0))
            assert finished + running + ledger.unassigned == ledger.net


def desk_on(journal: Journal) -> Desk:
    books = PortfolioManager(journal=journal, settlement=SETTLEMENT)
    journal.project(books.apply)
    journal.react(books.on_fact)
    return Desk(journal, books)


@pytest.fixture
def desk() -> Desk:
    """10,000 in each class, one instrument each."""
    made = desk_on(Journal(None))
    made.know(*(make_instrument(asset_class) for asset_class in AssetClass))
    for asset_class in AssetClass:
        made.journal.append(TransferSeen(AT, asset_class, D(10_000), D(0), f"opening {asset_class}"))
    made.marks = {BTC_SPOT: D(50_000), BTC_PERP: D(50_000), BTC_CALL: D(1_000), EUR_USD: D("1.1")}
    return made


# -- money conservation, against straight-line code of its own --------------------------------------------------------


def to_unit(value: Fraction) -> Fraction:
    """Half-even to 1e-8, in integers."""
    return Fraction(round(value * 10**8), 10**8)


@dataclass
class Plain:
    """The booking rules again, in fractions and without classes, for one symbol."""

    kind: str
    cash: Fraction = Fraction(0)
    quantity: Fraction = Fraction(0)
    value: Fraction = Fraction(0)
    dust: Fraction = Fraction(0)

    def fill(self, side: int, quantity: Fraction, price: Fraction, rate: Fraction, fee: Fraction, fee_rate: Fraction, in_kind: bool,
             lot: Fraction) -> None:
        move = side * quantity
        if in_kind:
            move -= fee
        else:
            self.cash -= to_unit(fee * fee_rate)
        if self.kind == "exchange":
            self.cash -= side * to_unit(quantity * price * rate)
        reducing = self.quantity * side < 0
        if self.kind == "margin":
            part = min(abs(move), abs(self.quantity)) if reducing else Fraction(0)
            if part:
                average = self.value / self.quantity
                self.cash += to_unit(-side * part * (price - average) * rate)
                self.value -= self.value * part / abs(self.quantity)
            self.value += side * (abs(move) - part) * price
        self.quantity += move
        if self.kind == "exchange" and reducing and 0 < abs(self.quantity) < lot:
            self.dust, self.quantity = self.dust + self.quantity, Fraction(0)

    def equity(self, price: Fraction, rate: Fraction) -> Fraction:
        if self.kind == "exchange":
            return self.cash + self.quantity * price * rate
        return self.cash + (self.quantity * price - self.value) * rate


FEES = st.sampled_from(["none", "settle", "rebate", "base", "third"])
FILL = st.tuples(st.just("fill"), st.booleans(), st.integers(1, 400), st.integers(10_000, 9_999_999), FEES, st.integers(0, 5_000))
FUNDING = st.tuples(st.just("funding"), st.integers(-10**10, 10**10))
TRANSFER = st.tuples(st.just("transfer"), st.integers(-10**12, 10**12))
COMMAND = st.one_of(FILL, FILL, FILL, FUNDING, TRANSFER)


@pytest.mark.parametrize(("asset_class", "rate"), [(SPOT, "1"), (PERP, "1"), (PERP, "0.9987"), (OPTION, "61234.56"), (FOREX, "0.00667334")])
@given(commands=st.lists(COMMAND, min_size=1, max_size=25))
@settings(max_examples=25, deadline=None)
def test_cash_and_positions_equal_a_straight_line_recomputation(
    asset_class: AssetClass, rate: str, commands: list[tuple[Any, ...]],
) -> None:
    instrument = replace(
        make_instrument(asset_class), lot=D("0.01"), quantity_min=D(0), notional_min=D(0),
        quote=SETTLEMENT[asset_class] if rate == "1" else "JPY",
    )
    symbol = instrument.symbol
    desk = desk_on(Journal(None))
    desk.know(instrument)
    plain = Plain("exchange" if asset_class in (SPOT, OPTION) else "margin")
    number, open_trade, price = 0, "", D(1)
    for serial, command in enumerate(commands):
        if command[0] == "transfer":
            amount = D(command[1]).scaleb(-8)
            desk.journal.append(TransferSeen(AT + serial, asset_class, amount, D(0), f"x{serial}"))
            plain.cash += Fraction(amount)
        elif command[0] == "funding":
            amount = D(command[1]).scaleb(-8)
            desk.journal.append(FundingBooked(AT + serial, "paper", symbol, asset_class, amount, 0.0, f"r{serial}"))
            plain.cash += Fraction(amount)
        else:
            _, is_buy, lots, ticks, fee_kind, fee_size = command
            side, quantity, price = BUY if is_buy else SELL, D(lots) * instrument.lot, D(ticks).scaleb(-2)
            currency, fee, fee_rate = {
                "none": (instrument.settle, D(0), D(1)),
                "settle": (instrument.settle, D(fee_size).scaleb(-3), D(1)),
                "rebate": (instrument.settle, -D(fee_size).scaleb(-3), D(1)),
                "base": (instrument.base, quantity * D(fee_size) / 10**6, price * D(rate)),
                "third": ("BNB", D(fee_size).scaleb(-6), D("612.3456789")),
            }[fee_kind]
            if open_trade not in desk.books.trades:
                number += 1
                open_trade = f"t{number}"
                desk.open(open_trade, symbol, side)
            held = desk.books.positions.get(symbol)
            reducing = held is not None and held.side is not side
            order = desk.order(symbol, side, str(quantity), open_trade, Purpose.EXIT if reducing else Purpose.ENTRY)
            desk.fill(order, symbol, side, str(quantity), str(price), fee=str(fee), fee_currency=currency, fee_rate=str(fee_rate),
                      settle_rate=rate, at=AT + serial)
            in_kind = asset_class is SPOT and is_buy and fee_kind == "base"
            plain.fill(side.sign, Fraction(quantity), Fraction(price), Fraction(rate), Fraction(fee), Fraction(fee_rate), in_kind,
                       Fraction(instrument.lot))
        desk.check_identities()
    position = desk.books.positions.get(symbol)
    assert Fraction(position.quantity if position else 0) == plain.quantity
    assert Fraction(desk.books.ledger(asset_class).dust.get(instrument.base, D(0))) == plain.dust
    assert Fraction(desk.books.ledger(asset_class).cash) == plain.cash
    desk.marks, desk.rates = {symbol: price * D("1.01")}, {symbol: D(rate)}
    equity = desk.equity(asset_class)
    assert equity is not None
    assert abs(Fraction(equity) - plain.equity(Fraction(price * D("1.01")), Fraction(rate))) < Fraction(1, 10**18)
    unrealized = desk.books.unrealized(asset_class, desk.marks.get, desk.rates.get)
    assert unrealized is not None
    ledger = desk.books.ledger(asset_class)
    assert abs(equity - (ledger.transfers + ledger.net + unrealized)) < D("1e-18")
    assert replayed(desk).state_hash() == desk.books.state_hash()


def replayed(desk: Desk) -> PortfolioManager:
    again = PortfolioManager(journal=desk.journal, settlement=SETTLEMENT)
    for _, fact in desk.journal.facts():
        again.apply(fact)
    return again


# -- fees -------------------------------------------------------------------------------------------------------------


def test_a_round_trip_in_spot_books_price_and_fees_to_the_last_digit(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000", fee="5")
    desk.close(BTC_SPOT, SELL, "0.1", "51000", fee="5.1", at=AT + 60_000, order={"exit_reason": ExitReason.ROI})
    (trade,) = desk.closed
    assert (trade.gross, trade.fees, trade.funding, trade.net) == (D(100), D("10.1"), D(0), D("89.9"))
    assert (trade.entry, trade.exit, trade.quantity, trade.side) == (D(50_000), D(51_000), D("0.1"), BUY)
    assert (trade.opened_at, trade.closed_at, trade.exit_reason) == (AT, AT + 60_000, ExitReason.ROI)
    assert trade.net_r == D("0.899")
    assert desk.books.ledger(SPOT).cash == D("10089.9")
    assert not desk.books.positions
    assert not desk.books.trades


def test_a_fee_in_the_coin_bought_lowers_the_quantity_and_counts_once(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000", fee="0.0001", fee_currency="BTC", fee_rate="50000")
    position = desk.books.positions[BTC_SPOT]
    assert (position.quantity, position.entry, position.cost) == (D("0.0999"), D(50_000), D(4_995))
    assert desk.books.ledger(SPOT).cash == D(5_000)
    assert desk.books.ledger(SPOT).net == D(-5)
    assert desk.equity(SPOT) == D(9_995)
    desk.close(BTC_SPOT, SELL, "0.0999", "50000")
    assert desk.closed[0].net == D(-5)
    assert desk.books.coins(SPOT) == {}


def test_a_fee_in_a_third_currency_is_booked_in_it_and_converted_once(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000", fee="0.005", fee_currency="BNB", fee_rate="600.123456789")
    ledger = desk.books.ledger(SPOT)
    assert ledger.fees == D("3.00061728")
    assert ledger.fees_charged == {"BNB": D("0.005")}
    assert ledger.cash == D("4996.99938272")
    assert desk.books.wallet_cash(SPOT) == D(5_000), "the venue took the coin, not the cash"
    assert desk.books.coins(SPOT) == {"BTC": D("0.1"), "BNB": D("-0.005")}
    desk.check_identities()


def test_a_rebate_is_a_negative_fee(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000", fee="-2.5")
    desk.close(BTC_PERP, SELL, "1", "50000", fee="-2.5")
    assert (desk.closed[0].fees, desk.closed[0].net) == (D(-5), D(5))
    assert desk.books.ledger(PERP).cash == D(10_005)


def test_funding_belongs_to_the_trade_and_is_booked_once(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000")
    for _ in range(2):
        desk.journal.append(FundingBooked(AT + 1, "paper", BTC_PERP, PERP, D("-5.00000001"), 0.0001, "f1"))
    assert desk.books.positions[BTC_PERP].funding == D("-5.00000001")
    desk.close(BTC_PERP, SELL, "1", "50000")
    assert desk.closed[0].net == D("-5.00000001")
    desk.journal.append(FundingBooked(AT + 2, "paper", BTC_PERP, PERP, D("1"), 0.0001, "f2"))
    assert desk.books.ledger(PERP).unassigned == D(1)
    desk.check_identities()


# -- partial fills, crossing zero, repeats -----------------------------------------------------------------------------


def test_partial_closes_lose_nothing_to_rounding(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.03", "33333.33")
    order = desk.order(BTC_SPOT, SELL, "0.03", purpose=Purpose.EXIT)
    for part, done in (("0.01", False), ("0.01", False), ("0.01", True)):
        desk.fill(order, BTC_SPOT, SELL, part, "33333.33", done=done)
    assert desk.closed[0].net == 0
    assert desk.books.ledger(SPOT).cash == D(10_000)


def test_several_entries_share_one_average_and_two_partial_exits_its_cost(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    order = desk.order(BTC_PERP, BUY, "3")
    for price, done in (("100", False), ("101", False), ("103", True)):
        desk.fill(order, BTC_PERP, BUY, "1", price, done=done)
    assert desk.books.positions[BTC_PERP].entry == D("101.3333333333333")
    desk.close(BTC_PERP, SELL, "1", "110")
    assert desk.books.ledger(PERP).cash == D("10008.66666667")
    desk.close(BTC_PERP, SELL, "2", "110")
    assert desk.books.ledger(PERP).cash == D("10026.00000000")
    assert desk.closed[0].gross == D(26)


def test_a_fill_that_crosses_zero_closes_one_trade_and_opens_the_other(desk: Desk) -> None:
    desk.open("long", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000", trade_id="long", fee="10")
    desk.open("short", BTC_PERP, SELL)
    desk.trade(BTC_PERP, SELL, "3", "49000", trade_id="short", fee="30", at=AT + 5)
    position = desk.books.positions[BTC_PERP]
    assert (position.quantity, position.entry, position.cost, position.trade_id) == (D(-2), D(49_000), D(-98_000), "short")
    assert position.opened_at == AT + 5
    (trade,) = desk.closed
    assert (trade.trade_id, trade.gross, trade.fees) == ("long", D(-1_000), D(10))
    assert desk.equity(PERP) == D(10_000) - 1_000 - 40 - 2_000
    desk.close(BTC_PERP, BUY, "2", "48000", trade_id="short")
    assert desk.closed[1].gross == D(2_000)
    assert desk.closed[1].fees == D(30)
    desk.check_identities()


def test_a_spot_fill_that_crosses_zero_splits_its_money_exactly(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000")
    desk.close(BTC_SPOT, SELL, "0.3", "50001")
    assert desk.books.positions[BTC_SPOT].quantity == D("-0.2")
    assert desk.books.positions[BTC_SPOT].cost == D("-10000.2")
    assert desk.books.trades["t"].gross == D("0.1")
    desk.check_identities()


def test_a_fill_seen_twice_is_booked_once(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    order = desk.order(BTC_SPOT, BUY, "0.2")
    for _ in range(3):
        desk.fill(order, BTC_SPOT, BUY, "0.1", "50000", venue_trade_id="same", done=False)
    assert desk.books.positions[BTC_SPOT].quantity == D("0.1")


def test_an_inverse_contract_settles_in_its_base_at_the_exit_price(desk: Desk) -> None:
    coin = make_instrument(PERP, symbol="BTC/USD:BTC", settle="BTC", inverse=True, contract_size=D(100))
    desk.know(coin)
    desk.open("t", "BTC/USD:BTC")
    desk.trade("BTC/USD:BTC", BUY, "10", "40000")
    desk.marks["BTC/USD:BTC"], expected = D(50_000), D(1_000) * (1 / D(40_000) - 1 / D(50_000)) * 50_000
    assert desk.books.gross_notional(PERP) == D(1_000)
    assert desk.equity(PERP) == D(10_000) + expected == D(10_250)
    desk.close("BTC/USD:BTC", SELL, "10", "50000")
    assert desk.closed[0].gross == D(250)
    assert desk.closed[0].entry == D(40_000)


# -- dust -------------------------------------------------------------------------------------------------------------


def test_what_is_left_below_the_lot_after_an_exit_becomes_dust_and_the_trades_loss(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.001", "50000", fee="0.000001", fee_currency="BTC", fee_rate="50000")
    desk.close(BTC_SPOT, SELL, "0.00099", "50000")
    assert desk.books.ledger(SPOT).dust == {"BTC": D("0.000009")}
    assert desk.books.coins(SPOT) == {"BTC": D("0.000009")}
    (trade,) = desk.closed
    assert (trade.gross, trade.fees, trade.net) == (D("-0.45"), D("0.05"), D("-0.5"))
    assert not desk.books.positions
    desk.check_identities()


def test_the_rest_of_an_exit_that_still_works_is_no_dust_yet(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.00102", "50000")
    order = desk.order(BTC_SPOT, SELL, "0.00102", purpose=Purpose.EXIT)
    desk.fill(order, BTC_SPOT, SELL, "0.001015", "50000", done=False)
    assert desk.books.positions[BTC_SPOT].quantity == D("0.000005")
    desk.journal.append(OrderCanceled(AT + 1, order, "timeout"))
    assert not desk.books.positions
    assert desk.books.ledger(SPOT).dust == {"BTC": D("0.000005")}
    assert len(desk.closed) == 1


def test_a_full_exit_that_ends_below_the_venues_minimum_leaves_dust_and_a_partial_one_leaves_a_position(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.01", "50000")
    desk.close(BTC_SPOT, SELL, "0.00995", "50000")
    assert desk.books.positions[BTC_SPOT].quantity == D("0.00005"), "2.50 USDT left on purpose"
    desk.trade(BTC_SPOT, BUY, "0.01", "50000")
    order = desk.order(BTC_SPOT, SELL, "0.01005", purpose=Purpose.EXIT)
    desk.fill(order, BTC_SPOT, SELL, "0.01", "50000", done=False)
    desk.journal.append(OrderExpired(AT + 1, order, "unfilled timeout"))
    assert desk.books.ledger(SPOT).dust == {"BTC": D("0.00005")}, "2.50 USDT that the venue will not take"
    assert len(desk.closed) == 1


def test_an_entry_too_small_to_be_sold_ends_when_its_exit_is_asked_for(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    order = desk.order(BTC_SPOT, BUY, "0.01")
    desk.fill(order, BTC_SPOT, BUY, "0.000008", "50000", done=False)
    desk.journal.append(OrderCanceled(AT + 1, order, "timeout"))
    assert desk.books.positions[BTC_SPOT].quantity == D("0.000008")
    desk.journal.append(ExitRequested(AT + 2, "t", ExitReason.EMERGENCY_EXIT))
    assert desk.closed[0].exit_reason is ExitReason.EMERGENCY_EXIT
    assert desk.closed[0].net == D("-0.4")


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "gross"), [("0", "-1000"), ("2500", "1500")])
def test_a_long_call_expires_out_of_or_in_the_money(desk: Desk, value: str, gross: str) -> None:
    desk.open("t", BTC_CALL)
    desk.trade(BTC_CALL, BUY, "1", "1000", fee="15")
    for _ in range(2):
        desk.journal.append(OptionSettled(AT + 9, "paper", BTC_CALL, D(1), D(value), D(1), D("1.5"), "s1"))
    (trade,) = desk.closed
    assert (trade.exit_reason, trade.gross, trade.fees) == (ExitReason.EXPIRY, D(gross), D("16.5"))
    assert desk.books.ledger(OPTION).cash == D(10_000) + D(gross) - D("16.5")
    desk.check_identities()


def test_a_credit_spread_closes_when_both_legs_have_expired(desk: Desk) -> None:
    short = make_instrument(OPTION, symbol="SHORT", strike=D(51_000))
    desk.know(short)
    desk.open("t", BTC_CALL, SELL, structure="credit_spread", risk=D(700))
    desk.trade(BTC_CALL, BUY, "1", "1000", fee="10")
    assert desk.books.margin(OPTION) == 0
    desk.trade("SHORT", SELL, "1", "1300", fee="10")
    assert desk.books.margin(OPTION) == D(1_000), "the strikes are 1,000 apart"
    desk.marks["SHORT"] = D(1_200)
    assert desk.books.market_value(OPTION, desk.marks.get, desk.rates.get) == D(-200)
    assert desk.equity(OPTION) == D(10_000) + 300 - 20 - 200
    desk.journal.append(OptionSettled(AT + 9, "paper", BTC_CALL, D(1), D(500), D(1), D(0), "a"))
    assert not desk.closed
    desk.journal.append(OptionSettled(AT + 9, "paper", "SHORT", D(-1), D(1_500), D(1), D(0), "b"))
    (trade,) = desk.closed
    assert (trade.gross, trade.fees, trade.net) == (D(-700), D(20), D(-720))
    assert (trade.entry, trade.side) == (D(1_000), SELL)
    desk.check_identities()


def test_premiums_in_coin_are_booked_at_the_rate_of_the_fill(desk: Desk) -> None:
    coin = make_instrument(OPTION, symbol="BTC-C", quote="BTC", settle="BTC", inverse=True)
    desk.know(coin)
    desk.open("t", "BTC-C")
    desk.trade("BTC-C", BUY, "0.1", "0.02", settle_rate="50000", fee="0.00003", fee_currency="BTC", fee_rate="50000")
    assert desk.books.ledger(OPTION).cash == D(10_000) - 100 - D("1.5")
    desk.marks["BTC-C"], desk.rates["BTC-C"] = D("0.03"), D(60_000)
    assert desk.equity(OPTION) == D("9898.5") + 180


def test_contracts_beyond_our_position_that_expire_are_the_owners(desk: Desk) -> None:
    desk.open("t", BTC_CALL)
    desk.trade(BTC_CALL, BUY, "1", "1000")
    desk.journal.append(OptionSettled(AT + 9, "paper", BTC_CALL, D(4), D(2_000), D(1), D(8), "s"))
    assert (desk.closed[0].gross, desk.closed[0].fees) == (D(1_000), D(2))


def test_a_position_that_settles_in_two_parts_closes_with_the_second(desk: Desk) -> None:
    desk.open("t", BTC_CALL)
    desk.trade(BTC_CALL, BUY, "3", "1000")
    desk.journal.append(OptionSettled(AT + 9, "paper", BTC_CALL, D(1), D(2_000), D(1), D(0), "s1"))
    assert desk.books.positions[BTC_CALL].quantity == D(2)
    desk.journal.append(OptionSettled(AT + 9, "paper", BTC_CALL, D(2), D(2_000), D(1), D(0), "s2"))
    assert desk.closed[0].gross == D(3_000)


# -- what is not ours, and what nobody expected -------------------------------------------------------------------------


def test_foreign_fills_are_counted_and_touch_nothing(desk: Desk) -> None:
    before = desk.books.ledger(SPOT).cash
    desk.journal.append(ForeignFill(AT, make_fill()))
    assert desk.books.foreign_fills == 1
    assert desk.books.unallocated == {BTC_SPOT: D("0.01")}
    assert not desk.books.positions
    assert desk.books.ledger(SPOT).cash == before


def test_a_liquidation_closes_our_part_and_leaves_the_owners_alone(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000")
    desk.fill("", BTC_PERP, SELL, "4", "48000", fee="40", liquidation=True)
    (trade,) = desk.closed
    assert (trade.exit_reason, trade.gross, trade.fees) == (ExitReason.LIQUIDATION, D(-2_000), D(10))
    assert desk.books.unallocated == {BTC_PERP: D(-3)}
    assert desk.books.stop_outs(PERP, AT) == 1


def test_a_late_fill_after_the_trade_was_closed_is_a_trade_of_its_own(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000")
    stop = desk.order(BTC_PERP, SELL, "1", purpose=Purpose.STOP, kind=OrderKind.STOP)
    desk.close(BTC_PERP, SELL, "1", "51000")
    desk.journal.append(OrderCanceled(AT + 1, stop, "trade closed"))
    desk.fill(stop, BTC_PERP, SELL, "1", "50900", at=AT + 2)
    assert desk.books.positions[BTC_PERP].trade_id == "t+1"
    desk.close(BTC_PERP, BUY, "1", "50950", trade_id="t+1", at=AT + 3)
    assert [(t.trade_id, t.gross) for t in desk.closed] == [("t", D(1_000)), ("t+1", D(-50))]
    desk.check_identities()


def test_an_abandoned_trade_is_gone_and_a_late_fill_brings_it_back(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    order = desk.order(BTC_PERP, BUY, "1")
    desk.journal.append(OrderExpired(AT + 1, order, "not placed"))
    desk.journal.append(TradeAbandoned(AT + 1, "t", "no fill"))
    assert not desk.books.trades
    assert desk.books.open_risk(PERP) == 0
    desk.fill(order, BTC_PERP, BUY, "1", "50000", at=AT + 2)
    assert desk.books.trades["t"].quantity == D(1)
    desk.close(BTC_PERP, SELL, "1", "50000")
    assert [t.trade_id for t in desk.closed] == ["t"]


def test_a_trade_is_not_over_while_its_entry_may_still_fill(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    entry = desk.order(BTC_PERP, BUY, "2")
    desk.fill(entry, BTC_PERP, BUY, "1", "50000", done=False)
    desk.close(BTC_PERP, SELL, "1", "49000", purpose=Purpose.STOP)
    assert not desk.closed
    desk.fill(entry, BTC_PERP, BUY, "0.5", "49000", done=False)
    desk.journal.append(OrderCanceled(AT + 1, entry, "stopped out"))
    assert not desk.closed
    desk.close(BTC_PERP, SELL, "0.5", "49000")
    assert [t.gross for t in desk.closed] == [D(-1_000)]
    desk.journal.append(OrderAccepted(AT + 2, entry, "v"))
    assert len(desk.closed) == 1


def test_cash_differences_count_as_result_and_transfers_do_not(desk: Desk) -> None:
    desk.journal.append(BalanceAdjusted(AT, SPOT, "USDT", D("-1.5"), "unexplained difference"))
    desk.journal.append(BalanceAdjusted(AT, SPOT, "USDT", D("-100"), "transfer seen late"))
    ledger = desk.books.ledger(SPOT)
    assert (ledger.cash, ledger.transfers, ledger.net, ledger.adjustments) == (D("9898.5"), D(9_900), D("-1.5"), D("-1.5"))
    desk.check_identities()


def test_coins_that_left_the_wallet_leave_the_position_with_their_cost(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000")
    desk.journal.append(BalanceAdjusted(AT + 1, SPOT, "BTC", D("-0.04"), "unexplained difference"))
    assert desk.books.coins(SPOT) == {"BTC": D("0.06")}
    assert desk.books.ledger(SPOT).net == D(-2_000)
    desk.journal.append(BalanceAdjusted(AT + 2, SPOT, "BTC", D("-0.07"), "unexplained difference"))
    assert desk.books.coins(SPOT) == {"BTC": D("-0.01")}
    assert desk.closed[0].exit_reason is ExitReason.FORCE_EXIT
    assert desk.closed[0].net == D(-5_000)
    desk.check_identities()


def test_a_contract_position_closed_by_the_owner_closes_the_trade_without_a_result_of_its_own(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000")
    desk.journal.append(BalanceAdjusted(AT + 1, PERP, BTC_PERP, D(-1), "unexplained difference"))
    desk.journal.append(BalanceAdjusted(AT + 1, PERP, "USDT", D(300), "unexplained difference"))
    assert (desk.closed[0].gross, desk.closed[0].exit_reason) == (D(0), ExitReason.FORCE_EXIT)
    assert desk.books.ledger(PERP).net == D(300)
    assert desk.books.coins(PERP) == {}
    desk.check_identities()


# -- trades: reasons, slippage, risk, counters ---------------------------------------------------------------------------


@pytest.mark.parametrize(("purpose", "own", "asked", "told"), [
    (Purpose.STOP, None, None, ExitReason.STOP_LOSS), (Purpose.STOP, ExitReason.TRAILING_STOP_LOSS, None, ExitReason.TRAILING_STOP_LOSS),
    (Purpose.TARGET, None, None, ExitReason.ROI), (Purpose.EXIT, None, ExitReason.KILL_SWITCH, ExitReason.KILL_SWITCH),
    (Purpose.EXIT, ExitReason.TIME_EXIT, ExitReason.KILL_SWITCH, ExitReason.TIME_EXIT), (Purpose.EXIT, None, None, ExitReason.EXIT_SIGNAL),
])
def test_why_a_trade_ended_comes_from_the_order_that_ended_it(
    desk: Desk, purpose: Purpose, own: ExitReason | None, asked: ExitReason | None, told: ExitReason,
) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, BUY, "1", "50000")
    if asked is not None:
        desk.journal.append(ExitRequested(AT, "t", asked))
    desk.close(BTC_PERP, SELL, "1", "49000", purpose=purpose, order={"exit_reason": own})
    assert desk.closed[0].exit_reason is told


def test_slippage_is_quantity_weighted_over_entries_and_exits_and_adverse_is_positive(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    order = desk.order(BTC_PERP, BUY, "4", arrival_price=D(50_000))
    desk.fill(order, BTC_PERP, BUY, "1", "50050", done=False)  # 10 bp worse
    desk.fill(order, BTC_PERP, BUY, "3", "50010")  # 2 bp worse
    desk.close(BTC_PERP, SELL, "4", "50050", order={"arrival_price": D(50_000)})  # 10 bp better
    assert desk.closed[0].slippage_bp == D(-3)  # (10 + 6 - 40) / 8
    assert desk.books.summary(PERP).slippage == D(50) + D(30) - D(200)


def test_open_risk_shrinks_with_the_position_and_counts_a_working_entry_in_full(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    entry = desk.order(BTC_PERP, BUY, "4")
    desk.fill(entry, BTC_PERP, BUY, "1", "50000", done=False)
    assert desk.books.open_risk(PERP) == D(100)
    desk.journal.append(OrderCanceled(AT, entry, "timeout"))
    assert desk.books.open_risk(PERP) == D(25)
    desk.close(BTC_PERP, SELL, "0.5", "52000")
    assert desk.books.open_risk(PERP) == D("12.5")
    assert desk.books.open_trades(PERP) == 1
    desk.close(BTC_PERP, SELL, "0.5", "52000")
    assert desk.books.open_risk(PERP) == 0
    assert desk.books.open_trades(PERP) == 0


def test_margin_and_gross_notional_follow_the_position(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    desk.trade(BTC_PERP, SELL, "0.3", "50000", order={"leverage": D(3)})
    assert desk.books.margin(PERP) == D(5_000)
    assert desk.books.gross_notional(PERP) == D(15_000)
    desk.marks[BTC_PERP] = D(60_000)
    assert desk.books.gross_notional(PERP, desk.marks.get, desk.rates.get) == D(18_000)
    assert desk.books.market_value(PERP, desk.marks.get, desk.rates.get) == 0
    assert desk.equity(PERP) == D(7_000)
    desk.close(BTC_PERP, BUY, "0.1", "50000")
    assert desk.books.margin(PERP) == D("3333.33333333")


def test_equity_is_unknown_while_a_price_or_a_rate_is(desk: Desk) -> None:
    desk.open("t", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000")
    del desk.marks[BTC_SPOT]
    assert desk.equity(SPOT) is None
    assert desk.equity(PERP) == D(10_000)
    yen = make_instrument(FOREX, symbol="USD/JPY", base="USD", quote="JPY")
    desk.know(yen)
    desk.open("y", "USD/JPY")
    desk.trade("USD/JPY", BUY, "1000", "150", trade_id="y", settle_rate="0.0066")
    desk.marks["USD/JPY"] = D(151)
    assert desk.equity(FOREX) is None
    desk.rates["USD/JPY"] = D("0.0066")
    assert desk.equity(FOREX) == D("10006.6")


def test_losses_in_a_row_and_stop_outs_count_closed_trades(desk: Desk) -> None:
    exits = (("49000", Purpose.STOP), ("49500", Purpose.EXIT), ("52000", Purpose.STOP), ("49000", Purpose.STOP))
    for index, (price, purpose) in enumerate(exits):
        desk.open(f"t{index}", BTC_PERP)
        desk.trade(BTC_PERP, BUY, "1", "50000", trade_id=f"t{index}")
        desk.close(BTC_PERP, SELL, "1", price, trade_id=f"t{index}", purpose=purpose, at=AT + index)
    assert desk.books.losses_in_a_row(BTC_PERP) == 1
    assert desk.books.last_loss_at(BTC_PERP) == AT + 3
    assert desk.books.stop_outs(PERP, AT) == 2, "a stop that took a profit is no stop-out"
    assert desk.books.stop_outs(PERP, AT + 1) == 1
    assert desk.books.last_stop_out_at(PERP) == AT + 3
    assert (desk.books.summary(PERP).trades, desk.books.summary(PERP).wins) == (4, 1)


# -- replay -----------------------------------------------------------------------------------------------------------


def busy_day(desk: Desk) -> None:
    desk.open("s", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.031", "50123.45", trade_id="s", fee="0.000031", fee_currency="BTC", fee_rate="50123.45")
    desk.open("p", BTC_PERP, SELL)
    desk.trade(BTC_PERP, SELL, "0.7", "50100.1", trade_id="p", fee="0.003", fee_currency="BNB", fee_rate="611.1", order={"leverage": D(3)})
    desk.journal.append(FundingBooked(AT, "paper", BTC_PERP, PERP, D("1.23456789"), 0.0001, "f"))
    desk.close(BTC_PERP, BUY, "0.3", "49900.3", trade_id="p", fee="8.2")
    desk.close(BTC_SPOT, SELL, "0.03096", "51000", trade_id="s", fee="1.57")
    desk.journal.append(BalanceAdjusted(AT, PERP, "USDT", D("0.00000001"), "unexplained difference"))


def test_replaying_the_journal_from_disk_gives_the_same_books(tmp_path: Path) -> None:
    first = desk_on(Journal(tmp_path / "journal.sqlite", durable=False))
    first.know(*(make_instrument(asset_class) for asset_class in AssetClass))
    busy_day(first)
    before, count = first.books.state_hash(), first.journal.count
    first.journal.close()
    second = desk_on(Journal(tmp_path / "journal.sqlite", durable=False))
    second.journal.replay()
    assert second.books.state_hash() == before
    assert second.journal.count == count, "reactors are silent in replay"
    second.journal.append(DaemonStarted(AT, "paper", "1", ""))
    assert second.books.state_hash() == before
    second.journal.close()


def test_the_state_hash_sees_the_smallest_unit(desk: Desk) -> None:
    busy_day(desk)
    before = desk.books.state_hash()
    desk.journal.append(BalanceAdjusted(AT, SPOT, "USDT", D("0.00000001"), "unexplained difference"))
    assert desk.books.state_hash() != before


def test_a_trade_gone_flat_just_before_a_crash_is_closed_by_the_next_start_and_only_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    books = PortfolioManager(journal=journal, settlement=SETTLEMENT)
    journal.project(books.apply)  # no reactor: the process dies before it runs
    first = Desk(journal, books)
    first.know(make_instrument())
    first.open("t", BTC_SPOT)
    first.trade(BTC_SPOT, BUY, "0.1", "50000")
    first.close(BTC_SPOT, SELL, "0.1", "50100")
    assert not first.closed
    journal.close()
    for _ in range(2):
        again = desk_on(Journal(tmp_path / "journal.sqlite"))
        again.journal.replay()
        again.journal.append(DaemonStarted(AT + 1, "paper", "1", ""))
        assert [t.net for t in again.closed] == [D(10)]
        assert sum(isinstance(fact, PositionClosed) for _, fact in again.journal.facts()) == 1
        again.journal.close()


def test_every_amount_booked_is_a_multiple_of_the_smallest_unit(desk: Desk) -> None:
    busy_day(desk)
    for asset_class in AssetClass:
        ledger = desk.books.ledger(asset_class)
        for amount in (ledger.cash, ledger.gross, ledger.fees, ledger.funding):
            assert amount == amount.quantize(D("1e-8"), ROUND_HALF_EVEN)


# -- cost -------------------------------------------------------------------------------------------------------------


def best_us(work: Callable[[], object], repeats: int, rounds: int = 7) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = process_time()
        for _ in range(repeats):
            work()
        best = min(best, (process_time() - start) / repeats * 1e6)
    return best


def test_booking_a_fill_costs_microseconds(desk: Desk) -> None:
    desk.open("t", BTC_PERP)
    order = desk.order(BTC_PERP, BUY, "100000")
    sell = desk.order(BTC_PERP, SELL, "100000", purpose=Purpose.STOP)
    fills = []
    for index in range(2_000):
        side, order_id = (BUY, order) if index % 2 == 0 else (SELL, sell)
        fill = make_fill(make_order(make_instrument(PERP), side=side), client_order_id=order_id, venue_trade_id=str(index),
                         quantity=D("1.5") if index % 2 == 0 else D("1.4"), price=D("50000.1") + index, fee=D("0.27"))
        fills.append(Filled(AT, fill, False))
    source = iter(fills)
    assert best_us(lambda: desk.books.apply(next(source)), 400, 5) <= within(60)


def test_equity_costs_microseconds_a_position(desk: Desk) -> None:
    symbols = [f"C{index}/USDT" for index in range(20)]
    for symbol in symbols:
        desk.know(make_instrument(SPOT, symbol=symbol, base=symbol))
        desk.open(symbol, symbol)
        desk.trade(symbol, BUY, "0.001", "100", trade_id=symbol)
        desk.marks[symbol] = D("101.5")
    assert best_us(lambda: desk.equity(SPOT), 500) <= within(2 * len(symbols) + 2)


def test_an_open_trades_result_at_the_mark_is_net_of_what_it_has_cost_and_all_of_them_make_up_the_equity(desk: Desk) -> None:
    desk.open("s", BTC_SPOT)
    desk.trade(BTC_SPOT, BUY, "0.1", "50000", trade_id="s", fee="5")
    desk.open("p", BTC_PERP, Side.SELL)
    desk.trade(BTC_PERP, Side.SELL, "0.2", "50000", trade_id="p", fee="2")
    desk.close(BTC_PERP, BUY, "0.1", "49000", trade_id="p", fee="1")
    desk.marks |= {BTC_SPOT: D(51_000), BTC_PERP: D(50_500)}
    assert desk.books.net_at_marks("s", desk.marks.get, desk.rates.get) == D(100) - D(5)
    assert desk.books.net_at_marks("p", desk.marks.get, desk.rates.get) == D(100) - D(50) - D(3)
    for trade_id, asset_class in (("s", SPOT), ("p", AssetClass.PERP)):
        equity = desk.equity(asset_class)
        assert equity is not None
        assert desk.books.net_at_marks(trade_id, desk.marks.get, desk.rates.get) == equity - D(10_000)
    del desk.marks[BTC_SPOT]
    assert desk.books.net_at_marks("s", desk.marks.get, desk.rates.get) is None
    with pytest.raises(KeyError):
        desk.books.net_at_marks("nothing", desk.marks.get, desk.rates.get)
