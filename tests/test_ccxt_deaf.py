"""Fills that no stream tells, and answers that leave one out: what was bought has no stop until it is known."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from modules.domain.errors import VenueError, VenueUnreachable
from modules.domain.order import Accepted, Order, OrderKind
from modules.venues.ccxt_bybit import BybitDialect
from modules.venues.ccxt_dialect import Adapter
from modules.venues.protocol import FillSeen, OrderDone
from tests.bybit_worlds import PERP, SPOT, Listener, bybit, order, until
from tests.emulators.bybit import Fault, Reply


@pytest.mark.parametrize("symbol", [SPOT, PERP])
def test_the_fill_of_a_market_order_that_a_deaf_stream_does_not_tell_is_asked_for_long_before_the_next_audit(symbol: str) -> None:
    async def story() -> None:
        async with bybit(audit_s=3_600.0) as (venue, made), Listener(made) as heard:
            await until(lambda: venue.listeners["execution"] > 0 and venue.asked["/v5/execution/list"] > 0, 60.0)
            venue.market.emit = lambda topic, rows: None
            assert isinstance(await made.submit(order("deaf", symbol)), Accepted)
            await heard.until(lambda events: any(isinstance(event, FillSeen) for event in events), 120.0)
            (seen,) = (event for event in heard.events if isinstance(event, FillSeen))
            assert seen.fill.client_order_id == "tbdeaf"

    asyncio.run(story())


def test_the_rest_of_a_market_order_whose_first_execution_alone_was_told_is_asked_for_too() -> None:
    async def story() -> None:
        async with bybit(audit_s=3_600.0) as (venue, made), Listener(made) as heard:
            await until(lambda: venue.listeners["execution"] > 0 and venue.asked["/v5/execution/list"] > 0, 60.0)
            emit, told = venue.market.emit, list[str]()

            def first_only(topic: str, rows: list[Any]) -> None:
                if topic != "execution" or not told:
                    told.extend([topic] if topic == "execution" else [])
                    emit(topic, rows)

            venue.market.emit = first_only
            wanted = order("half-told", SPOT)
            venue.market.depth["spot", "BTCUSDT"] = wanted.quantity / 2
            assert isinstance(await made.submit(wanted), Accepted)
            await heard.until(lambda events: sum(e.fill.quantity for e in events if isinstance(e, FillSeen)) == wanted.quantity, 120.0)
            assert told == ["execution"]

    asyncio.run(story())


def test_one_answer_that_leaves_a_fill_out_does_not_lose_it() -> None:
    async def story() -> None:
        async with bybit(audit_s=3_600.0) as (venue, made):
            assert await made.missed() == []
            assert isinstance(await made.submit(order("left-out", SPOT)), Accepted)
            venue.skew_ms += 600_000
            made.clock.ahead_ms += 600_000  # type: ignore[attr-defined]
            made.trade.milliseconds = made.clock.now  # ccxt signs with our clock
            nothing = json.dumps({"retCode": 0, "retMsg": "OK", "result": {"list": [], "nextPageCursor": "", "category": "spot"},
                                  "retExtInfo": {}, "time": venue.now()}).encode()
            always = Fault("execution/list", Reply(200, nothing), False)
            venue.always.append(always)
            assert not [event for event in await made.missed() if isinstance(event, FillSeen)]
            venue.always.remove(always)
            (seen,) = (event for event in await made.missed() if isinstance(event, FillSeen))
            assert seen.fill.client_order_id == "tbleft-out"
            assert await made.missed() == [], "told once"

    asyncio.run(story())


def test_a_fill_that_was_read_in_an_audit_whose_next_question_failed_is_told_by_the_one_after() -> None:
    async def story() -> None:
        async with bybit(audit_s=3_600.0) as (venue, made):
            assert await made.missed() == []
            assert isinstance(await made.submit(order("read-once", SPOT)), Accepted)
            venue.faults.append(Fault("transaction-log", Reply(503, b""), False))
            with pytest.raises(VenueError):
                await made.missed()
            (seen,) = (event for event in await made.missed() if isinstance(event, FillSeen))
            assert seen.fill.client_order_id == "tbread-once"

    asyncio.run(story())


def resting(name: str) -> Order:
    return order(name, PERP, kind=OrderKind.LIMIT, price="40000")


class Reader(BybitDialect):
    """Counts the rows it is shown, and cannot read those of one order."""

    def __init__(self, unreadable: str = "") -> None:
        super().__init__()
        self.shown: Counter[str] = Counter()
        self._unreadable = unreadable

    def streamed_end(self, venue: Adapter, order: Mapping[str, Any]) -> OrderDone | None:
        name = str(order["info"]["orderLinkId"])
        self.shown[name] += 1
        if name == self._unreadable:
            raise VenueUnreachable("an order outside our schema")
        return super().streamed_end(venue, order)


def test_every_word_of_an_order_is_read_once_however_many_others_there_were_and_an_unreadable_one_hides_no_other() -> None:
    async def story() -> None:
        reader = Reader("tbodd")
        async with bybit(audit_s=3_600.0, dialect=reader) as (venue, made), Listener(made) as heard:
            await until(lambda: venue.listeners["order"] > 0 and venue.asked["/v5/execution/list"] > 0)
            for name in (*(f"old{n}" for n in range(8)), "odd"):
                assert isinstance(await made.submit(resting(name)), Accepted)
                await until(lambda name=name: reader.shown[f"tb{name}"] > 0)
            later = 0
            while not any(name.startswith("tbnew") for name in reader.shown):  # the stream starts anew
                later += 1
                assert isinstance(await made.submit(resting(f"new{later}")), Accepted)
                await asyncio.sleep(0.2)
            assert isinstance(await made.cancel(resting("old7")), Accepted)
            await heard.until(lambda events: any(isinstance(event, OrderDone) for event in events))
            assert [event.client_order_id for event in heard.events if isinstance(event, OrderDone)] == ["tbold7"]
            assert max(reader.shown.values()) <= 2, reader.shown

    asyncio.run(story())
