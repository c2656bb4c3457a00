"""What goes wrong on an exchange's wire: every reply to a write, every garbage to a read. R7 and R8 of the design, on each venue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueError, VenueUnreachable
from modules.domain.order import Accepted, Fate, InDoubt, NotSent, OrderState, Refused
from modules.venues.ccxt_binance import BinanceDialect
from modules.venues.ccxt_binance_history import Withdrawals
from modules.venues.ccxt_errors import CLASSES, Meaning
from modules.venues.ccxt_venue import CcxtVenue
from tests.binance_worlds import binance
from tests.bybit_worlds import PushedClock, bybit, order
from tests.ccxt_worlds import HTML, NONE_OF_IT, READS, WORLDS, World, lived, rich
from tests.emulators.frame import Fault, Reply
from tests.timing import PATIENCE_S

STATUSES = (302, 400, 401, 403, 404, 408, 409, 418, 422, 429, 451, 500, 501, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 530)
each_world = pytest.mark.parametrize("world", WORLDS, ids=str)
# The perpetual's plain order goes the way of spot's; its matrix runs with the slow ones.
each_matrix = pytest.mark.parametrize(
    "world", [pytest.param(world, marks=[pytest.mark.slow] if world.name == "binance perp" else []) for world in WORLDS], ids=str)
each_venue = pytest.mark.parametrize("venue_name", ["bybit", "binance"])
OPEN: dict[str, Any] = {"bybit": bybit, "binance": binance}
BALANCE = {"bybit": "wallet-balance", "binance": "/api/v3/account"}
HANGS_MS = 2_000
"""How long a write is waited for whose answer never comes."""


def unproven(world: World) -> dict[str, Reply]:
    """Replies none of which says what became of the order."""
    return {
        **{f"http {status}": Reply(status, HTML) for status in STATUSES},
        **{name: Reply(200, body) for name, body in world.garbage.items()},
        **{name: Reply(200, body) for name, body in world.odd_acks.items()},
        **{f"code {code}": world.coded(code) for code in world.unproven},
        "429 with Retry-After": Reply(429, b"", headers=(("Retry-After", "1"),)), "reset": Reply(how="close"), "cut": Reply(how="cut"),
        "silence": Reply(how="stall"),
    }


def _push(made: CcxtVenue) -> None:
    """Past every ban."""
    assert isinstance(made.clock, PushedClock)
    made.clock.ahead_ms += made.dialect.codes.ban_ms + 1


@contextmanager
def _hanging(made: CcxtVenue, reply: Reply) -> Iterator[None]:
    """A write whose answer never comes is waited for briefly; whatever is answered has all the time of a busy machine."""
    patient = made.trade.timeout
    if reply.how == "stall":
        made.trade.timeout = HANGS_MS
    yield
    made.trade.timeout = patient


async def _fates(world: World, accepted: bool, write: Callable[[CcxtVenue, str, Reply], Awaitable[Fate]], method: str, path: str
                 ) -> dict[str, Fate]:
    """The fate of one write per reply; each left once."""
    fates: dict[str, Fate] = {}
    replies = unproven(world)
    assert len(replies) >= 41
    async with world.open() as (venue, made):
        await made.instruments()
        rich(venue)
        for index, (name, reply) in enumerate(replies.items()):
            before = venue.asked[f"{method} {path}"]
            venue.faults.append(Fault(path, reply, accepted, method))
            fates[name] = await write(made, f"{index:026d}", reply)
            sent = venue.asked[f"{method} {path}"] - before
            # aiohttp repeats a DELETE whose connection was cut; taking one order of ours back twice is taking it back.
            assert sent == 1 or (method, name, sent) == ("DELETE", "reset", 2), f"{name}: sent {sent} times"
            _push(made)
            venue.faults.clear()
    return fates


@each_matrix
async def test_a_submit_the_venue_accepted_is_never_called_rejected_or_unsent_whatever_it_answers(world: World) -> None:
    async def submit(made: CcxtVenue, name: str, reply: Reply) -> Fate:
        sent = world.made(name)
        with _hanging(made, reply):
            fate = await made.submit(sent)
        _push(made)
        report = await made.order(sent.client_order_id, sent.symbol)
        assert report is not None and report.state is world.state
        return fate

    fates = await _fates(world, True, submit, "POST", world.create)
    assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


@each_matrix
async def test_a_submit_that_never_took_effect_is_never_called_accepted(world: World) -> None:
    async def submit(made: CcxtVenue, name: str, reply: Reply) -> Fate:
        sent = world.made(name)
        with _hanging(made, reply):
            fate = await made.submit(sent)
        _push(made)
        assert await made.order(sent.client_order_id, sent.symbol) is None
        return fate

    fates = await _fates(world, False, submit, "POST", world.create)
    assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


@each_matrix
@pytest.mark.parametrize("accepted", [True, False], ids=["canceled", "not canceled"])
async def test_a_cancel_is_in_doubt_whatever_unproven_is_answered(world: World, accepted: bool) -> None:
    async def cancel(made: CcxtVenue, name: str, reply: Reply) -> Fate:
        resting = world.resting(name)
        assert isinstance(await made.submit(resting), Accepted)
        with _hanging(made, reply):
            fate = await made.cancel(resting)
        if isinstance(fate, Accepted):
            _push(made)
            report = await made.order(resting.client_order_id, resting.symbol)
            assert report is not None and report.state is OrderState.CANCELED, "only the truth may be said without doubt"
            assert world.cancel[0] == "DELETE"
            return InDoubt("")
        return fate

    fates = await _fates(world, accepted, cancel, *world.cancel)
    assert {name: fate for name, fate in fates.items() if not isinstance(fate, InDoubt)} == {}


@each_world
async def test_only_a_listed_code_proves_a_refusal(world: World) -> None:
    async with world.open() as (venue, made):
        for index, (code, kind) in enumerate(world.proven):
            venue.faults.append(Fault(world.create, world.coded(code), False, "POST"))
            fate = await made.submit(world.made(str(index)))
            assert isinstance(fate, kind), (code, fate)
            assert not isinstance(fate, Refused) or fate.code == str(code)
            _push(made)


@each_world
async def test_nobody_listening_is_not_sent(world: World) -> None:
    async with world.open() as (_, made):
        assert isinstance(await made.submit(world.made("0")), Accepted)
        world.unreached(made)
        assert isinstance(await made.submit(world.made("1")), NotSent)


@each_venue
async def test_garbage_never_becomes_a_fact_of_any_read(venue_name: str) -> None:
    garbage = next(world.garbage for world in WORLDS if world.name.startswith(venue_name))
    believed = []
    async with OPEN[venue_name]() as (venue, made):
        await lived(venue_name, venue, made)
        for (name, path), read in READS[venue_name].items():
            for what, body in garbage.items():
                if venue_name == "binance" and (what == "array" and name in NONE_OF_IT):
                    continue
                venue.always = [Fault(path, Reply(200, body), False, "GET")]
                if isinstance(made.dialect, BinanceDialect):
                    made.dialect._orders._owners.clear()  # whose each order is, is asked once
                    made.dialect._withdrawals = Withdrawals()  # and what was withdrawn, every ten seconds
                try:
                    believed.append((name, what, await read(made)))
                except VenueError as error:
                    assert isinstance(error, VenueUnreachable), (name, what, error)
            venue.always = []
            await read(made)  # and the same question is answered when the venue is well
    assert believed == []


@each_venue
async def test_a_rate_limit_silences_us_until_the_time_the_venue_names(venue_name: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault(BALANCE[venue_name], Reply(429, b"", headers=(("Retry-After", "70"),)), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert 5_000 < busy.value.until - made.clock.now() <= 70_000
        asked = venue.asked.total()
        with pytest.raises(VenueBusy):
            await made.wallet()
        fate = await made.submit(order("1"))
        assert isinstance(fate, NotSent) and fate.until == busy.value.until
        assert venue.asked.total() == asked
        assert isinstance(made.clock, PushedClock)
        made.clock.ahead_ms += 70_001
        assert isinstance(await made.submit(order("1")), Accepted)


@each_venue
@pytest.mark.parametrize("seconds", ["864000", "9999999999"])
async def test_a_ban_of_days_or_of_nonsense_is_obeyed_for_a_quarter_of_an_hour_and_then_asked_about_again(
        venue_name: str, seconds: str) -> None:
    async with OPEN[venue_name]() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault(BALANCE[venue_name], Reply(429, b"", headers=(("Retry-After", seconds),)), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert 60_000 < busy.value.until - made.clock.now() <= 900_000
        assert isinstance(made.clock, PushedClock)
        made.clock.ahead_ms += 900_001
        assert isinstance(await made.submit(order("1")), Accepted)


@pytest.mark.parametrize("seconds", [-60, 60])
@each_venue
async def test_a_wrong_clock_does_not_keep_the_private_stream_shut(venue_name: str, seconds: int) -> None:
    async with OPEN[venue_name]() as (venue, made):
        venue.skew_ms = seconds * 1000
        await made.instruments()
        events = made.account_events()
        first = asyncio.ensure_future(anext(events))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not any(topic in venue.listeners for topic in ("execution", "user:spot")):
                    assert not first.done() or first.result()
                    await asyncio.sleep(0.02)
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await events.aclose()


@each_world
async def test_a_wrong_clock_is_measured_once_and_the_order_goes_out_once(world: World) -> None:
    async with world.open() as (venue, made):
        if world.name != "bybit":
            await made.submit(world.made("0"))  # leverage and margin type are set by now
        before = venue.asked[f"POST {world.create}"]
        venue.skew_ms = -60_000
        sent = world.made("1")
        assert isinstance(await made.submit(sent), Accepted)
        assert venue.asked[f"POST {world.create}"] - before == 2
        assert [report.client_order_id for report in [await made.order("tb1", sent.symbol)] if report] == ["tb1"]
        offset = await made.clock_offset_ms()
        assert offset is not None and 59_000 < offset < 61_000


@each_venue
async def test_a_refused_key_is_a_denial_on_every_read(venue_name: str) -> None:
    code = {"bybit": 10003, "binance": -2015}[venue_name]
    coded = next(world.coded for world in WORLDS if world.name.startswith(venue_name))
    async with OPEN[venue_name]() as (venue, made):
        await made.instruments()
        await made.wallet()  # ccxt calls Binance's -2015 a rate limit once a key has worked
        venue.faults.append(Fault(BALANCE[venue_name], coded(code, "API key is invalid."), False))
        with pytest.raises(VenueDenied):
            await made.wallet()


def test_every_error_class_of_ccxt_has_a_meaning() -> None:
    from ccxt.base.errors import error_hierarchy  # type: ignore[import-untyped]

    def names(tree: dict[str, Any]) -> set[str]:
        return set(tree) | {name for below in tree.values() for name in names(below)}

    assert names(error_hierarchy) == set(CLASSES)
    assert {CLASSES[name] for name in ("RequestTimeout", "ExchangeNotAvailable", "ExchangeError", "BadResponse")} == {Meaning.IN_DOUBT}
