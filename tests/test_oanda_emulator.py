"""The emulated broker is one: it nets lots oldest first, charges the night, refuses what it should, and its balance is the sum of it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from modules.domain.sessions import parse_iso
from tests.emulators.oanda import ACCOUNT, TOKEN, OandaEmulator, serving
from tests.emulators.oanda_book import Book, Denied

D = Decimal
MONDAY = parse_iso("2026-03-02T10:00:00Z")
ROLLOVER = parse_iso("2026-03-02T22:00:00Z")  # 17:00 in New York, before daylight saving


def venue(at: int = MONDAY) -> Book:
    return OandaEmulator(at).book


def market(units: str, name: str = "EUR_USD", **more: Any) -> dict[str, Any]:
    return {"type": "MARKET", "instrument": name, "units": units, "timeInForce": "FOK", **more}


def quote(book: Book, bid: str, ask: str, at: int | None = None, name: str = "EUR_USD") -> None:
    book.move(book.at if at is None else at, {name: (D(bid), D(ask))})


def test_lots_close_oldest_first_and_the_balance_is_the_sum_of_what_was_told() -> None:
    book = venue()
    book.create(market("1000"))
    quote(book, "1.10100", "1.10112")
    book.create(market("1000"))
    quote(book, "1.10200", "1.10212")
    filled = book.create(market("-1500"))["orderFillTransaction"]
    assert [row["units"] for row in (*filled["tradesClosed"], filled["tradeReduced"])] == ["-1000", "-500"]
    # 1,000 from 1.10012 and 500 from 1.10112, both to 1.10200
    assert D(filled["pl"]) == D("1.88") + D("0.44") and book.position("EUR_USD") == 500
    told = sum((D(row.get("pl") or row.get("financing") or row.get("amount") or 0) for row in book.transactions), D(0))
    assert told == book.balance == D("10002.3200")


def test_a_result_in_yen_is_converted_at_the_side_against_us() -> None:
    book = venue()
    book.create(market("1000", "USD_JPY"))
    quote(book, "151.016", "151.032", name="USD_JPY")
    assert D(book.create(market("-1000", "USD_JPY"))["orderFillTransaction"]["pl"]) == (D("1000") / D("151.032")).quantize(D("0.0001"))


def test_five_in_the_afternoon_in_new_york_charges_the_night_and_wednesday_three() -> None:
    book = venue(ROLLOVER - 120_000)
    book.create(market("10000"))
    quote(book, "1.10000", "1.10012", ROLLOVER + 1)
    one = D(book.transactions[-1]["financing"])
    assert book.transactions[-1]["type"] == "DAILY_FINANCING"
    assert one == (D("-0.0150") * 10_000 * D("1.10006") / 365).quantize(D("0.0001"))
    quote(book, "1.10000", "1.10012", ROLLOVER + 2 * 86_400_000 + 1)
    assert D(book.transactions[-1]["financing"]) == (D("-0.0150") * 10_000 * D("1.10006") / 365 * 3).quantize(D("0.0001"))


def test_more_than_the_margin_allows_is_created_and_canceled_at_once() -> None:
    book = venue()
    reply = book.create(market("1000000"))
    assert reply["orderCancelTransaction"]["reason"] == "INSUFFICIENT_MARGIN" and "orderFillTransaction" not in reply


def test_a_halted_market_and_a_weekend_cancel_a_market_order() -> None:
    book = venue()
    book.halted.add("EUR_USD")
    assert book.create(market("100"))["orderCancelTransaction"]["reason"] == "MARKET_HALTED"
    saturday = venue(parse_iso("2026-03-07T12:00:00Z"))
    assert saturday.create(market("100"))["orderCancelTransaction"]["reason"] == "MARKET_HALTED"


def test_nothing_trades_and_nothing_ticks_around_five_in_the_afternoon() -> None:
    for before, traded in ((61_000, True), (60_000, False), (-299_000, False), (-300_000, True)):
        book = venue(ROLLOVER - before)
        told = book.create(market("100"))
        assert ("orderFillTransaction" in told) is traded, before
        quote(book, "1.10000", "1.10012")
        assert bool(book.ticks) is traded


def test_stop_loss_and_take_profit_on_fill_belong_to_the_trade_and_end_with_it() -> None:
    book = venue()
    book.create(market("1000", stopLossOnFill={"price": "1.09900"}, takeProfitOnFill={"price": "1.10300"}))
    quote(book, "1.09850", "1.09862")
    kinds = [(row["type"], row.get("reason")) for row in book.transactions[-2:]]
    assert kinds == [("ORDER_FILL", "STOP_LOSS_ORDER"), ("ORDER_CANCEL", "LINKED_TRADE_CLOSED")]
    assert book.position("EUR_USD") == 0 and book.balance == D("10000") + 1000 * (D("1.09850") - D("1.10012"))  # through the gap


@pytest.mark.parametrize(("order", "reason"), [
    (market("0"), "UNITS_INVALID"), (market("1.5"), "UNITS_PRECISION_EXCEEDED"), (market("1", "XAU_XAG"), "INVALID_PARAMETER"),
    (market("100000001"), "UNITS_LIMIT_EXCEEDED"),
    ({"type": "LIMIT", "instrument": "EUR_USD", "units": "1", "price": "1.100001"}, "PRICE_PRECISION_EXCEEDED"),
    ({"type": "STOP", "instrument": "EUR_USD", "units": "1"}, "PRICE_MISSING"),
    (market("1", stopLossOnFill={"price": "1.0000001"}), "STOP_LOSS_ON_FILL_PRICE_PRECISION_EXCEEDED"),
])
def test_what_breaks_a_rule_is_denied_by_its_name(order: dict[str, Any], reason: str) -> None:
    with pytest.raises(Denied) as denied:
        venue().create(order)
    assert denied.value.reason == reason


def test_a_client_id_is_taken_only_while_its_order_is_pending() -> None:
    book = venue()
    resting = {"type": "LIMIT", "instrument": "EUR_USD", "units": "10", "price": "1.00000", "clientExtensions": {"id": "tb1"}}
    book.create(resting)
    with pytest.raises(Denied) as denied:
        book.create(resting)
    assert denied.value.reason == "CLIENT_ORDER_ID_ALREADY_EXISTS"
    order = book.find("@tb1")
    assert order is not None
    book.cancel(order, "CLIENT_REQUEST")
    book.create(resting)


def over_the_wire(talk: Callable[[OandaEmulator, aiohttp.ClientSession], Awaitable[None]]) -> None:
    async def go() -> None:
        async with serving(MONDAY) as emulator, aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
            await talk(emulator, session)

    asyncio.run(go())


def test_nothing_is_told_without_the_token() -> None:
    async def talk(emulator: OandaEmulator, session: aiohttp.ClientSession) -> None:
        for token in ("", "Bearer wrong"):
            async with session.get(f"{emulator.url}/v3/accounts", headers={"Authorization": token}) as reply:
                assert reply.status == 401 and ACCOUNT not in await reply.text()

    over_the_wire(talk)


def test_the_emulator_shares_no_code_with_the_adapter_it_judges() -> None:
    for path in (Path(__file__).parent / "emulators").glob("oanda*.py"):
        imported = {node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not any(name.startswith("modules.venues") for name in imported)
