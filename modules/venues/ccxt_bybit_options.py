"""Bybit's USDT options: what a contract is, what a chain says, how an order is put, at what price an expiry was delivered.

Owns the schema of those rows and what makes one believable. Refuses a chain whose rows are not as promised, whose index is not one price or
of which more than half contradicts itself; a single contract that does is left out, and a side nobody quotes is unknown, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from modules.backtest.costs import option_value
from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Right, Side
from modules.domain.market import NAN, Chain, OptionQuote
from modules.domain.money import ONE, ZERO, round_down, round_up, text
from modules.domain.options import DAY_MS, years_between
from modules.domain.order import Order, OrderKind
from modules.domain.pricing import black_76
from modules.venues.ccxt_bybit_rows import NAME, Row, parsed
from modules.venues.ccxt_dialect import Amount, Chains, Creation, Moment, NotNegative, Positive, Stamp, Word
from modules.venues.protocol import Settled

SETTLE: Final = "USDT"
CATEGORY: Final = "option"
BASES: Final = ("BTC", "ETH", "SOL", "XRP", "DOGE", "MNT")
"""What Bybit lists options of."""
PAGE: Final = 200
DELIVERY_HOUR: Final = 8
"""UTC, of every expiry."""
IV_MAX: Final = 10.0
"""1000 % a year; a volatility beyond it is none."""
INDEX_GAP_MAX: Final = 0.01
"""Between two rows of one answer: they all tell the same index."""
SLACK_OPENING: Final = Decimal("0.10")
SLACK_CLOSING: Final = Decimal("0.30")
"""How far beyond the price it was decided at an order may trade, as a share of it. What is left is tried again, from a new price."""
MARK_GAP: Final = 0.03
MARK_GAP_INDEX: Final = 0.001
"""How far a mark may be off Black-76 at the row's own forward and volatility: of itself, and of the index."""


class _Lot(Row):
    min_order_qty: Positive
    qty_step: Positive


class _Tick(Row):
    tick_size: Positive


class ContractRow(Row):
    symbol: Word
    base_coin: Word
    quote_coin: Word
    settle_coin: Word
    options_type: Literal["Call", "Put"]
    delivery_time: Moment
    lot_size_filter: _Lot
    price_filter: _Tick


class TickerRow(Row):
    symbol: Word
    bid1_price: NotNegative
    bid1_size: NotNegative
    ask1_price: NotNegative
    ask1_size: NotNegative
    mark_price: NotNegative
    index_price: Positive
    mark_iv: NotNegative
    underlying_price: Positive
    """The forward of this expiry."""
    open_interest: NotNegative
    delta: Amount
    vega: Amount


class DeliveryRow(Row):
    delivery_price: Positive
    delivery_time: Moment


class _Named(NamedTuple):
    """What a contract's own name says."""

    base: str
    day: str
    strike: Decimal
    right: Right


def _name(market_id: str) -> _Named | None:
    """BTC-4DEC26-50000-C-USDT; None for another kind of name."""
    parts = market_id.split("-")
    if len(parts) not in (4, 5) or parts[3] not in ("C", "P"):
        return None
    try:
        strike = Decimal(parts[2])
    except ArithmeticError:
        return None
    return _Named(parts[0], parts[1], strike, Right(parts[3])) if strike.is_finite() and strike > 0 else None


def foreign(raw: object, asset_class: AssetClass) -> bool:
    """A row about an option that settles in another coin: none of ours, whoever trades it on this account."""
    if asset_class is not AssetClass.OPTION or not isinstance(raw, Mapping):
        return False
    name = str(raw.get("symbol"))
    return _name(name) is not None and not name.endswith(f"-{SETTLE}")


def symbol_of(market_id: str) -> str:
    """BTC-4DEC26-50000-C-USDT as BTC/USDT:USDT-261204-50000-C, listed or long gone. Raises VenueUnreachable for another kind of name."""
    named = _name(market_id)
    try:
        if named is None or not market_id.endswith(f"-{SETTLE}"):
            raise ValueError
        day = datetime.strptime(named.day, "%d%b%y").replace(tzinfo=UTC)
    except ValueError:
        raise VenueUnreachable(f"{NAME}: unknown OPTION market {market_id[:40]!r}") from None
    return f"{named.base}/{SETTLE}:{SETTLE}-{day:%y%m%d}-{market_id.split('-')[2]}-{named.right.value}"


def gone(symbol: str) -> Instrument | None:
    """A contract as its symbol alone tells it, for one that is listed no more: enough to ask about what became of orders in it. Its expiry
    is the morning (UTC) of its day. None = no such name."""
    parts = symbol.partition(":")[2].split("-")
    try:
        settle, day, strike, right = parts
        base, expiry = symbol.partition("/")[0], datetime.strptime(day, "%y%m%d").replace(tzinfo=UTC, hour=DELIVERY_HOUR)
        named = Instrument(
            symbol=symbol, venue=NAME, asset_class=AssetClass.OPTION, base=base, quote=SETTLE, settle=SETTLE, underlying=base, tick=ONE,
            lot=ONE, expiry=int(expiry.timestamp()) * 1000, strike=Decimal(strike), right=Right(right))
    except (ValueError, ArithmeticError):
        return None
    return named if settle == SETTLE and symbol_of(market_id_of(named)) == symbol else None


def market_id_of(instrument: Instrument) -> str:
    """BTC/USDT:USDT-261204-50000-C as BTC-4DEC26-50000-C-USDT."""
    _, day, strike, right = instrument.symbol.partition(":")[2].split("-")
    moment = datetime.strptime(day, "%y%m%d").replace(tzinfo=UTC)
    return f"{instrument.base}-{moment.day}{moment:%b%y}-{strike}-{right}-{SETTLE}".upper()


def contract(symbol: str, raw: object, maker_fee: Decimal, taker_fee: Decimal, short_margin: Decimal = ZERO) -> Instrument | None:
    """The rules of one contract; None = it does not settle in USDT. Raises VenueUnreachable where name and row contradict each other."""
    row = parsed(ContractRow, raw, f"option {symbol}")
    if row.settle_coin != SETTLE:
        return None
    named, day = _name(row.symbol), datetime.fromtimestamp(row.delivery_time / 1000, UTC)
    right = Right.CALL if row.options_type == "Call" else Right.PUT
    if named is None or (named.base, named.right) != (row.base_coin, right) or named.day.lstrip("0") != f"{day.day}{day:%b%y}".upper():
        raise VenueUnreachable(f"{NAME}: option {symbol} is not what it should be: its name says otherwise")
    return Instrument(
        symbol=symbol, venue=NAME, asset_class=AssetClass.OPTION, base=row.base_coin, quote=SETTLE, settle=SETTLE,
        underlying=row.base_coin, tick=row.price_filter.tick_size, lot=row.lot_size_filter.qty_step,
        quantity_min=row.lot_size_filter.min_order_qty, maker_fee=maker_fee, taker_fee=taker_fee, expiry=row.delivery_time,
        strike=named.strike, right=right, short_margin=short_margin)


def market_fields(reach: Sequence[str]) -> dict[str, Any]:
    """What ccxt must be told so that it lists the options of these coins, every page of them."""
    return {"types": ["spot", "linear", "option"], "options": list(reach), "loadAllOptions": True}


def chain_of(underlying: str, raws: Sequence[object], by_id: Mapping[str, Instrument], bounds: Chains, kept: Collection[str], at: int
             ) -> Chain:
    """The contracts within the bounds, and those that are `kept` whatever these say. `at`: when it was heard, UTC ms.

    Raises VenueUnreachable: a chain that is not believed is no chain, and the one before grows old.
    """
    listed = [(by_id[name], raw) for raw in raws if isinstance(raw, dict) and (name := str(raw.get("symbol"))) in by_id]
    listed = [(one, raw) for one, raw in listed if one.expiry is not None and one.expiry > at]
    if not listed:
        raise VenueUnreachable(f"{NAME}: tells no option of {underlying} that is listed here")
    index = float(parsed(TickerRow, listed[0][1], f"chain of {underlying}").index_price)
    wanted = [(one, raw) for one, raw in listed if one.symbol in kept or _within(one, index, bounds, at)]
    rows = [(one, parsed(TickerRow, raw, f"chain of {underlying}")) for one, raw in wanted]
    if any(abs(float(row.index_price) - index) > INDEX_GAP_MAX * index for _, row in rows):
        raise VenueUnreachable(f"{NAME}: the chain of {underlying} tells several prices of its index")
    quotes = [quote for quote in (_quote(one, row, index, at) for one, row in rows) if quote is not None]
    if 2 * len(quotes) < len(rows) or not quotes:
        raise VenueUnreachable(f"{NAME}: of {len(rows)} options of {underlying} only {len(quotes)} agree with themselves")
    return Chain(underlying, at, index, 1.0, quotes)


def _within(instrument: Instrument, index: float, bounds: Chains, at: int) -> bool:
    assert instrument.expiry is not None and instrument.strike is not None  # an option's are stated
    return (instrument.expiry - at <= bounds.days_max * DAY_MS
            and abs(float(instrument.strike) / index - 1.0) <= bounds.reach)


def _quote(instrument: Instrument, row: TickerRow, index: float, at: int) -> OptionQuote | None:
    """None where mark, forward and volatility contradict each other. A side without a price or a size is NaN; so are both of a crossed
    quote."""
    assert instrument.expiry is not None and instrument.strike is not None
    is_call, strike = instrument.right is Right.CALL, float(instrument.strike)
    mark, iv, delta = float(row.mark_price), float(row.mark_iv), float(row.delta)
    theory = black_76(float(row.underlying_price), strike, years_between(at, instrument.expiry), iv, is_call=is_call)
    sane = 0.0 < iv <= IV_MAX and abs(theory - mark) <= MARK_GAP * mark + MARK_GAP_INDEX * index  # NaN compares false
    if not sane or not (0.0 <= delta <= 1.0 if is_call else -1.0 <= delta <= 0.0):
        return None
    bid, ask = _side(row.bid1_price, row.bid1_size), _side(row.ask1_price, row.ask1_size)
    if bid > ask:
        bid = ask = NAN
    return OptionQuote(
        instrument.symbol, instrument.expiry, strike, is_call, bid, ask, mark, iv, delta, float(row.vega), float(row.open_interest),
        float(row.bid1_size) if math.isfinite(bid) else NAN, float(row.ask1_size) if math.isfinite(ask) else NAN)


def _side(price: Decimal, size: Decimal) -> float:
    return float(price) if price > 0 and size > 0 else NAN


class SettlementRow(Row):
    symbol: Word
    side: Literal["Buy", "Sell"]
    """Of the position."""
    position: Positive
    delivery_price: Positive
    delivery_time: Stamp
    strike: Positive
    fee: NotNegative


def settled_of(raw: object) -> Settled:
    """One contract of ours that was delivered. Raises VenueUnreachable."""
    row = parsed(SettlementRow, raw, "delivery record")
    named = _name(row.symbol)
    if named is None or named.strike != row.strike:
        raise VenueUnreachable(f"{NAME}: a delivery record whose name says otherwise")
    value = option_value(named.right is Right.CALL, row.delivery_price, row.strike)
    quantity = row.position if row.side == "Buy" else -row.position
    return Settled(NAME, symbol_of(row.symbol), quantity, value, ONE, row.fee, row.delivery_time,
                   f"delivery:{row.symbol}:{row.delivery_time}")


def creation(order: Order, tick: Decimal) -> Creation:
    """An option's book is thin: what is meant as a market order is a limit that ends at once, a bounded way beyond the price it was decided
    at. Raises ValueError for what rests: Bybit has no conditional orders for options."""
    if order.kind is not OrderKind.MARKET:
        raise ValueError(f"{order.symbol}: options trade by market orders only, and those are limits that end at once")
    slack = SLACK_CLOSING if order.reduce_only else SLACK_OPENING
    beyond = order.arrival_price * (ONE + slack * order.side.sign)
    price = round_up(beyond, tick) if order.side is Side.BUY else max(tick, round_down(beyond, tick))
    parameters: dict[str, Any] = {"clientOrderId": order.client_order_id, "timeInForce": "IOC"}
    if order.reduce_only:
        parameters["reduceOnly"] = True
    return Creation("limit", "buy" if order.side is Side.BUY else "sell", text(price), parameters)


def delivery_of(raws: Sequence[object], expiry: int) -> Decimal | None:
    """At what price the options that expired at `expiry` were delivered; None = not told yet."""
    rows = [parsed(DeliveryRow, raw, "delivery") for raw in raws]
    return next((row.delivery_price for row in rows if row.delivery_time == expiry), None)
