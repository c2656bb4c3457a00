"""Fills that no stream tells, and answers that leave one out: what was bought has no stop until it is known."""

from __future__ import annotations

import asyncio
import json

import pytest

from modules.domain.order import Accepted
from modules.venues.protocol import FillSeen
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
