"""What goes wrong on Bybit's wire: every reply to a write, every garbage to a read. R7 and R8 of the design, on this venue."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, OrderKind, OrderState, Refused
from modules.venues.ccxt_bybit import CODES
from modules.venues.ccxt_errors import CLASSES, Meaning
from modules.venues.ccxt_venue import CcxtVenue
from tests.bybit_worlds import PERP, SPOT, PushedClock, bybit, order
from tests.emulators.bybit import BybitEmulator, Fault, Reply, coded

HTML = b"<!DOCTYPE html><html><body>cloud</body></html>"
GARBAGE: dict[str, bytes] = {
    "malformed": b'{"retCode":0,"result":{', "empty": b"", "html": HTML, "null": b"null", "array": b"[]", "object": b"{}",
    "not a number": b'{"retCode":0,"result":{"list":[{"symbol":NaN,"walletBalance":NaN}]}}', "no result": b'{"retCode":0,"result":null}',
    "strange rows": b'{"retCode":0,"result":{"list":[{"symbol":null,"coin":"x","size":"-1","qty":"1e400"}],"timeNano":"x"}}',
}
ODD_ACKS: dict[str, Any] = {
    "another's id": {"orderId": "9", "orderLinkId": "tbother"}, "no id": {"orderLinkId": "x"},
    "null id": {"orderId": None, "orderLinkId": "x"},
    "list of acks": [{"orderId": "9"}], "empty ack": {},
}
STATUSES = (302, 400, 401, 403, 404, 408, 409, 418, 422, 429, 451, 500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530)
UNPROVEN: dict[str, Reply] = {
    **{f"http {status}": Reply(status, HTML) for status in STATUSES},
    **{name: Reply(200, body) for name, body in GARBAGE.items()},
    **{name: Reply(200, json.dumps({"retCode": 0, "retMsg": "OK", "result": ack}).encode()) for name, ack in ODD_ACKS.items()},
    **{f"code {code}": coded(code) for code in (10000, 10016, 170146, 987654)},
    "429 with Retry-After": Reply(429, b"", headers=(("Retry-After", "1"),)), "reset": Reply(how="close"), "cut": Reply(how="cut"),
    "silence": Reply(how="stall"),
}
"""46 replies none of which says what became of the order."""


def _push(made: CcxtVenue) -> None:
    """Past every ban."""
    assert isinstance(made.clock, PushedClock)
    made.clock.ahead_ms += CODES.ban_ms + 1


async def _fates(accepted: bool, write: Callable[[CcxtVenue, BybitEmulator, str], Awaitable[Fate]], path: str) -> dict[str, Fate]:
    """The fate of one write per reply; each left once."""
    fates: dict[str, Fate] = {}
    async with bybit(timeout_s=0.5) as (venue, made):
        await made.instruments()
        venue.market.wallet["USDT"] *= 100
        for index, (name, reply) in enumerate(UNPROVEN.items()):
            before = venue.asked[path]
            venue.faults.append(Fault(path, reply, accepted))
            fates[name] = await write(made, venue, f"{index:026d}")
            assert venue.asked[path] == before + 1, f"{name}: sent {venue.asked[path] - before} times"
            _push(made)
            venue.faults.clear()
    return fates


async def test_a_submit_the_venue_accepted_is_never_called_rejected_or_unsent_whatever_it_answers() -> None:
    async def submit(made: CcxtVenue, venue: BybitEmulator, name: str) -> Fate:
        fate = await made.submit(order(name))
        _push(made)
        report = await made.order(f"tb{name}", SPOT)
        assert report is not None and report.state is OrderState.FILLED
        return fate

    fates = await _fates(True, submit, "/v5/order/create")
    assert len(fates) >= 41
    assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


async def test_a_submit_that_never_took_effect_is_never_called_accepted() -> None:
    async def submit(made: CcxtVenue, venue: BybitEmulator, name: str) -> Fate:
        fate = await made.submit(order(name))
        _push(made)
        assert await made.order(f"tb{name}", SPOT) is None
        return fate

    fates = await _fates(False, submit, "/v5/order/create")
    assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


async def test_a_cancel_is_in_doubt_whatever_unproven_is_answered() -> None:
    async def cancel(made: CcxtVenue, venue: BybitEmulator, name: str) -> Fate:
        resting = order(name, kind=OrderKind.LIMIT, price="40000")
        assert isinstance(await made.submit(resting), Accepted)
        return await made.cancel(resting)

    for accepted in (True, False):
        fates = await _fates(accepted, cancel, "/v5/order/cancel")
        assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


@pytest.mark.parametrize(("code", "kind"), [(170131, Refused), (110007, Refused), (10001, Refused), (10003, Refused), (33004, Refused),
                                            (10006, NotSent), (10018, NotSent), (10016, InDoubt), (170146, InDoubt)])
async def test_only_a_listed_code_proves_a_refusal(code: int, kind: type) -> None:
    async with bybit() as (venue, made):
        venue.faults.append(Fault("order/create", coded(code), False))
        fate = await made.submit(order("1"))
        assert isinstance(fate, kind), fate
        assert not isinstance(fate, Refused) or fate.code == str(code)


async def test_nobody_listening_is_not_sent() -> None:
    async with bybit() as (_, made):
        await made.instruments()
        await made.wallet()
        made.trade.urls["api"]["private"] = "http://127.0.0.1:9"
        assert isinstance(await made.submit(order("1")), NotSent)


async def test_garbage_never_becomes_a_fact_of_any_read() -> None:
    reads: dict[tuple[str, str], Callable[[CcxtVenue], Awaitable[Any]]] = {
        ("instruments", "market/instruments-info"): lambda made: made.instruments(),
        ("history", "market/kline"): lambda made: made.history(SPOT, made.clock.now(), 5),
        ("balance", "account/wallet-balance"): lambda made: made.wallet(),
        ("positions", "position/list"): lambda made: made.wallet(),
        ("open orders", "order/realtime"): lambda made: made.wallet(),
        ("order", "order/realtime"): lambda made: made.order("tb1", PERP),
        ("ended order", "order/history"): lambda made: made.order("tb2", PERP),
        ("fills", "execution/list"): lambda made: made.fills_since(made.clock.now() - 60_000),
        ("funding", "execution/list"): lambda made: made.funding_since(made.clock.now() - 60_000),
        ("transfers", "transaction-log"): lambda made: made.transfers_since(made.clock.now() - 60_000),
        ("time", "market/time"): lambda made: made.clock_offset_ms(),
        ("rights", "user/query-api"): lambda made: made.check_account(),
    }
    believed = []
    async with bybit() as (venue, made):
        await made.instruments()
        for (name, path), read in reads.items():
            for what, body in GARBAGE.items():
                venue.always = [Fault(path, Reply(200, body), False)]
                try:
                    believed.append((name, what, await read(made)))
                except VenueError as error:
                    assert isinstance(error, VenueUnreachable), (name, what, error)
            venue.always = []
            await read(made)  # and the same question is answered when the venue is well
    assert believed == []


async def test_a_rate_limit_silences_us_until_the_time_the_venue_names() -> None:
    async with bybit() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault("wallet-balance", Reply(429, b"", headers=(("Retry-After", "7"),)), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert 5_000 < busy.value.until - made.clock.now() <= 7_000
        asked = venue.asked.total()
        with pytest.raises(VenueBusy):
            await made.wallet()
        assert isinstance(await made.submit(order("1")), NotSent)
        assert venue.asked.total() == asked
        assert isinstance(made.clock, PushedClock)
        made.clock.ahead_ms += 7_001
        assert isinstance(await made.submit(order("1")), Accepted)


async def test_a_wrong_clock_is_measured_once_and_the_order_goes_out_once() -> None:
    async with bybit() as (venue, made):
        await made.instruments()
        venue.skew_ms = -60_000
        assert isinstance(await made.submit(order("1")), Accepted)
        assert (venue.asked["/v5/order/create"], len(venue.market.orders)) == (2, 1)
        assert 59_000 < await made.clock_offset_ms() < 61_000


async def test_a_refused_key_is_a_denial_on_every_read() -> None:
    async with bybit() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault("wallet-balance", coded(10003, "API key is invalid."), False))
        with pytest.raises(VenueDenied):
            await made.wallet()


def test_every_error_class_of_ccxt_has_a_meaning() -> None:
    from ccxt.base.errors import error_hierarchy  # type: ignore[import-untyped]

    def names(tree: dict[str, Any]) -> set[str]:
        return set(tree) | {name for below in tree.values() for name in names(below)}

    assert names(error_hierarchy) == set(CLASSES)
    assert {CLASSES[name] for name in ("RequestTimeout", "ExchangeNotAvailable", "ExchangeError", "BadResponse")} == {Meaning.IN_DOUBT}
