"""OANDA's orders and transactions in our words. Pure: what a reply proves, what a transaction did to the account.

Money: the broker rounds each result to its own precision while our ledgers book 1e-8, so what its rounding took or gave is part of the
fill's fee; the sum is the broker's balance to the last digit as long as a position was opened by one fill (it closes lots oldest first,
we at the average; over the whole round trip both come to the same quote-currency result).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ONE, ZERO, book, text
from modules.domain.order import Accepted, Fate, Fill, InDoubt, NotSent, Order, OrderKind, OrderReport, OrderState, Refused
from modules.domain.sessions import iso
from modules.venues.oanda_codes import EXPIRED, Meaning, meaning
from modules.venues.oanda_schema import (
    Canceled,
    Created,
    Declined,
    Ended,
    Error,
    Factors,
    Filled,
    Financed,
    Moved,
    OrderRow,
    Submitted,
    Told,
)
from modules.venues.oanda_wire import Answered, Unknown, Unsent
from modules.venues.protocol import AccountEvent, FillSeen, FundingPaid, OrderDone, Transferred

OURS: Final = "tb"
"""What derive_id begins our ids with."""
LOCAL: Final = "LOCAL_CHECK"
LIQUIDATION: Final = "MARKET_ORDER_MARGIN_CLOSEOUT"
_KINDS: Final = {OrderKind.MARKET: "MARKET", OrderKind.LIMIT: "LIMIT", OrderKind.TARGET: "LIMIT", OrderKind.STOP: "STOP"}
_STATES: Final = {"PENDING": OrderState.ACCEPTED, "FILLED": OrderState.FILLED, "TRIGGERED": OrderState.FILLED,
                  "CANCELLED": OrderState.CANCELED}


def wired(symbol: str) -> str:
    """EUR/USD is EUR_USD there."""
    return symbol.replace("/", "_")


def unwired(name: str) -> str:
    return name.replace("_", "/")


def fault_of(order: Order, instrument: Instrument | None) -> str:
    """Why this order must not leave; "" if nothing is wrong with it. The last look before the wire."""
    if instrument is None:
        return f"{order.symbol} is not listed"
    if not order.client_order_id.startswith(OURS):
        return "no client order id of ours"
    if not order.quantity.is_finite() or order.quantity < max(instrument.quantity_min, instrument.lot):
        return f"quantity {order.quantity} is below the minimum"
    if order.quantity % instrument.lot:
        return f"quantity {order.quantity} is no multiple of {instrument.lot}"
    if order.kind is OrderKind.MARKET:
        return ""
    if order.price is None or not order.price.is_finite() or order.price <= ZERO:
        return "no price"
    return f"price {order.price} is no multiple of {instrument.tick}" if order.price % instrument.tick else ""


def body_of(order: Order, instrument: Instrument) -> dict[str, Any]:
    """What POST /orders is sent. Units are signed text; a market order fills whole or not at all."""
    kind = _KINDS[order.kind]
    body: dict[str, Any] = {
        "type": kind, "instrument": wired(order.symbol), "units": text(order.quantity * order.side.sign),
        "positionFill": "REDUCE_ONLY" if order.reduce_only else "DEFAULT", "clientExtensions": {"id": order.client_order_id},
    }
    if kind == "MARKET":
        return {"order": body | {"timeInForce": "FOK"}}
    assert order.price is not None  # fault_of saw to it
    body |= {"price": text(order.price.quantize(instrument.tick)), "timeInForce": "GTC", "triggerCondition": "DEFAULT"}
    if order.expires_at is not None:
        body |= {"timeInForce": "GTD", "gtdTime": iso(order.expires_at)}
    return {"order": body}


# -- verdicts -----------------------------------------------------------------------------------------------------------------


def submitted(order: Order, answer: Answered | Unsent | Unknown) -> Fate:
    """What became of a submit. Only a listed word of the broker's, in its own envelope, is a refusal."""
    if isinstance(answer, Unsent):
        return NotSent(answer.message, answer.until)
    if isinstance(answer, Unknown):
        return InDoubt(answer.message)
    try:
        if answer.status == 201:
            return _created(order, Submitted.model_validate(answer.body))
        return _refused(order, answer.status, Error.model_validate(answer.body))
    except ValueError:
        return InDoubt(f"answered {answer.status} with something outside our schema")


def _created(order: Order, reply: Submitted) -> Fate:
    created, ended = reply.order_create_transaction, reply.order_cancel_transaction
    echoed = (created.client_extensions.id, created.instrument, created.units)
    if echoed != (order.client_order_id, wired(order.symbol), order.quantity * order.side.sign):
        return InDoubt("the reply speaks of another order")
    if ended is None or reply.order_fill_transaction is not None:
        return Accepted(created.id)
    if ended.order_id == created.id and meaning(ended.reason) in (Meaning.REFUSED, Meaning.DENIED):
        return Refused(ended.reason, "accepted and canceled at once", denied=meaning(ended.reason) is Meaning.DENIED)
    return InDoubt("canceled for a reason we do not know")


def _refused(order: Order, status: int, error: Error) -> Fate:
    if status in (401, 403):
        return Refused(str(status), "the token is not accepted", denied=True)
    rejected = error.order_reject_transaction
    if status not in (400, 404) or rejected is None or rejected.client_extensions.id not in ("", order.client_order_id):
        return InDoubt(f"answered {status} without a proof of refusal")
    match meaning(rejected.reject_reason):
        case Meaning.REFUSED | Meaning.DENIED:
            return Refused(rejected.reject_reason, "rejected", denied=meaning(rejected.reject_reason) is Meaning.DENIED)
        case Meaning.EXISTED:
            return InDoubt("an order with this client id exists already")
    return InDoubt("rejected for a reason we do not know")


def canceled(order: Order, answer: Answered | Unsent | Unknown) -> Fate:
    """What became of a cancel. Refused("ORDER_DOESNT_EXIST") = it is not pending: ask what became of it before concluding."""
    if isinstance(answer, Unsent):
        return NotSent(answer.message, answer.until)
    if isinstance(answer, Unknown):
        return InDoubt(answer.message)
    try:
        if answer.status == 200:
            ended = Canceled.model_validate(answer.body).order_cancel_transaction
            if ended.type == "ORDER_CANCEL" and ended.client_order_id == order.client_order_id:
                return Accepted(ended.order_id)
            return InDoubt("the reply speaks of another order")
        error = Error.model_validate(answer.body)
    except ValueError:
        return InDoubt(f"answered {answer.status} with something outside our schema")
    if answer.status in (401, 403):
        return Refused(str(answer.status), "the token is not accepted", denied=True)
    rejected = error.order_cancel_reject_transaction
    if answer.status == 404 and rejected is not None and meaning(rejected.reject_reason) is Meaning.MISSING:
        return Refused(rejected.reject_reason, "not pending")
    return InDoubt(f"a cancel answered {answer.status}")


# -- what is told -------------------------------------------------------------------------------------------------------------


def report_of(row: OrderRow, symbol: str) -> OrderReport:
    """An order as the broker shows it. Raises VenueUnreachable for one that makes no sense."""
    state = _STATES.get(row.state)
    if state is None or row.units is None:
        raise VenueUnreachable("oanda: an order in a state we do not know")
    quantity = abs(row.units)
    return OrderReport(row.client_extensions.id, row.id, symbol, state, quantity if state is OrderState.FILLED else ZERO, quantity)


def history_of(client_order_id: str, symbol: str, rows: list[Told]) -> OrderReport | None:
    """An order put together from the transactions that speak of it; None if none does. Its end names it even where its beginning is older
    than `rows`."""
    found: OrderReport | None = None

    def its(row: Filled | Ended) -> bool:
        return row.client_order_id == client_order_id or (found is not None and row.order_id == found.venue_order_id)

    for row in rows:
        if isinstance(row, Created) and row.client_extensions.id == client_order_id and not row.type.endswith("_REJECT"):
            found = OrderReport(client_order_id, row.id, symbol, OrderState.ACCEPTED, ZERO, abs(row.units))
        elif isinstance(row, Declined) and row.client_extensions.id == client_order_id and found is None:
            if meaning(row.reject_reason) is Meaning.REFUSED:
                found = OrderReport(client_order_id, row.id, symbol, OrderState.REJECTED, ZERO, ZERO)
        elif isinstance(row, Filled) and its(row):
            ordered = abs(row.units) if found is None else found.quantity
            found = OrderReport(client_order_id, row.order_id, symbol, OrderState.FILLED, abs(row.units), ordered)
        elif isinstance(row, Ended) and its(row):
            state = OrderState.EXPIRED if row.reason == EXPIRED else OrderState.CANCELED
            filled, ordered = (ZERO, ZERO) if found is None else (found.filled, found.quantity)
            found = OrderReport(client_order_id, row.order_id, symbol, state, filled, ordered)
    return found


def fill_of(row: Filled, venue: str, settle: str) -> FillSeen:
    """One ORDER_FILL; the broker never fills an order twice. Raises VenueUnreachable if a conversion it needs is missing."""
    quote = row.instrument.partition("_")[2]
    rate = ONE if quote == settle else _rate(row)
    gross = ZERO if row.quote_pl is None else row.quote_pl
    rounding = ZERO if row.quote_pl is None else book(gross * rate) - row.pl
    fee = row.commission + row.guaranteed_execution_fee + rounding
    fill = Fill(
        venue=venue, symbol=unwired(row.instrument), venue_trade_id=row.id,
        client_order_id=row.client_order_id if row.client_order_id.startswith(OURS) else "",
        side=Side.BUY if row.units > ZERO else Side.SELL, quantity=abs(row.units), price=row.price, fee=fee, fee_currency=settle,
        fee_rate=ONE, settle_rate=rate, maker=row.reason == "LIMIT_ORDER", at=row.time, liquidation=row.reason == LIQUIDATION)
    return FillSeen(fill, order_done=True)


def _rate(row: Filled) -> Decimal:
    """Home currency per unit of quote currency, as the broker converted this result."""
    gain, factors = (row.quote_pl or row.pl) > ZERO, row.home_conversion_factors or Factors()
    told = factors.gain_quote_home if gain else factors.loss_quote_home
    rate = told.factor if told is not None else (
        row.gain_quote_home_conversion_factor if gain else row.loss_quote_home_conversion_factor)
    if rate is None:
        raise VenueUnreachable("oanda: a fill without its conversion factor")
    return rate


def events_of(row: Told, venue: str, settle: str) -> Iterator[AccountEvent]:
    """What one transaction did to the account, in our words; most kinds did nothing."""
    match row:
        case Filled():
            yield fill_of(row, venue, settle)
            if row.financing:
                yield FundingPaid(venue, unwired(row.instrument), AssetClass.FOREX, row.financing, 0.0, row.time, f"{row.id}:financing")
        case Ended():
            if row.client_order_id.startswith(OURS):
                yield OrderDone(row.client_order_id, row.time, "expired" if row.reason == EXPIRED else "canceled", row.reason)
        case Financed():
            for part in row.position_financings:
                if part.financing:
                    yield FundingPaid(venue, unwired(part.instrument), AssetClass.FOREX, part.financing, 0.0, row.time,
                                      f"{row.id}:{part.instrument}")
        case Moved():
            yield Transferred(AssetClass.FOREX, row.amount, row.time, f"{venue}:{row.id}")

