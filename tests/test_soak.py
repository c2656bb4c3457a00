"""The soak's own instruments: what they must call growth, what a gap, and that the control channel does what it says."""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from benchmarks import soak_verdict
from benchmarks.soak_verdict import Sample
from modules.domain.sessions import parse_iso
from tests import census, hurried
from tests.daemon_process import ROOT
from tests.emulators import binance, bybit, frame, oanda
from tests.emulators.control import BARE_S, Bare, Hands, controlled
from tests.emulators.control_crypto import CryptoHands
from tests.emulators.control_oanda import OandaHands


def samples(rss: Any, *, life: Any = lambda _: 1, tasks: Any = lambda _: 40.0) -> list[Sample]:
    return [Sample(5.0 * n, 10 * n, life(n), rss(n), 30.0 + n % 3, 2.0, tasks(n), 5.0 + n * 0.01, 20.0) for n in range(200)]


def report(found: list[Sample], **changes: Any) -> dict[str, Any]:
    venue = {"twice": [], "bare_longest_s": 1.0, "bare_restart_s": 2.0}
    journal = {"sent_twice": [], "booked_twice": [], "fills_missing": [], "adjusted": [], "round_trips": 9}
    return {"slopes": soak_verdict.slopes(found), "venue": venue, "journal": journal, "differences": {}, "in_doubt_at_end": 0,
            "stopped": (0, 1.0), "died": 0, "real_minutes": 16.0} | changes


def missed(document: dict[str, Any]) -> list[str]:
    return [bar.what for bar in soak_verdict.judged(document) if not bar.held]


def test_noise_and_a_step_at_a_restart_are_no_growth_but_a_line_upward_is() -> None:
    restarted = samples(lambda n: 160.0 + math.sin(n) if n > 40 else 300.0, life=lambda n: 2 if n > 40 else 1)
    assert missed(report(restarted)) == []
    grown = missed(report(samples(lambda n: 160.0 + 0.3 * n)))
    assert grown == ["memory, growth over the second half", "memory, MB per 1,000 orders"]
    assert missed(report(samples(lambda n: 160.0, tasks=lambda n: 40.0 + n / 20.0))) == ["tasks, more at the end of it"]


def test_the_growth_of_a_straight_line_is_measured_as_what_it_is() -> None:
    found = soak_verdict.slopes(samples(lambda n: 100.0 + 0.01 * n))
    assert found["orders"] == 990 and found["rss_mb_per_1000_orders"] == pytest.approx(1.0, abs=0.01)
    assert found["rss_mb_per_hour"] == pytest.approx(0.01 * 720, abs=0.01)


def test_what_was_not_measured_is_not_held() -> None:
    assert "tasks, more at the end of it" in missed(report(samples(lambda n: 160.0, tasks=lambda n: math.nan)))


@pytest.mark.parametrize(("changes", "what"), [
    ({"differences": {"USDT": "-0.00000001"}}, "differences between the books and the venue"), ({"died": 1}, "ended by itself"),
    ({"stopped": (1, 1.0)}, "exit code"), ({"stopped": (0, 10.5)}, "seconds from SIGTERM to the end"),
    ({"in_doubt_at_end": -1}, "orders in doubt at the end")])
def test_each_gap_is_named(changes: dict[str, Any], what: str) -> None:
    assert missed(report(samples(lambda n: 160.0), **changes)) == [what]


def test_a_position_without_a_stop_is_timed_apart_where_the_daemon_was_not_there() -> None:
    now = [100.0]
    bare = Bare(lambda: now[0])
    for at, short in ((100.0, True), (103.0, True), (103.5, False), (110.0, True)):
        now[0] = at
        bare.look("A", short, lambda: "weather")
    assert (bare.longest_s, bare.spells) == (3.0, [])
    bare.away(True)
    for at, short in ((120.0, True), (131.0, True), (131.0, False)):
        now[0] = at
        bare.look("A", short, lambda: "killed")
    assert (bare.longest_s, bare.restart_longest_s) == (3.0, 11.0)
    assert bare.spells == [{"symbol": "A", "seconds": 11.0, "restart": True, "after": "killed"}] and bare.restart_longest_s > BARE_S


def test_two_processes_with_one_word_live_on_one_fast_clock() -> None:
    pace = hurried.pace(30.0, parse_iso("2026-11-16T06:00:00Z"))
    assert hurried.pace_of(pace.word()) == pace
    script = "import sys; sys.path.insert(0, '.'); from tests import hurried as h; p = h.pace_of(sys.argv[1]); h.take_effect(p); " \
             "import time; print(abs(time.time() * 1000 - p.now_ms()) < 3000 and time.time_ns() // 10**9 == int(time.time()))"

    async def go() -> str:
        made = await asyncio.create_subprocess_exec(sys.executable, "-c", script, pace.word(), cwd=ROOT,
                                                    stdout=asyncio.subprocess.PIPE)
        return (await made.communicate())[0].decode().strip()

    assert asyncio.run(go()) == "True"


def test_the_census_counts_what_lies_in_the_containers_of_our_objects() -> None:
    pace = hurried.Pace(1.0, 0, 0.0)
    kind = type("Books", (), {"__module__": "modules.made_up"})
    made = kind()
    made.orders = dict.fromkeys(range(3), pace)
    first = census.held()
    made.orders |= dict.fromkeys(range(10), pace)
    last = census.held()
    assert "Books.orders 3 -> 10" in census.grown(first, last)["containers"]


@pytest.mark.parametrize("name", ["bybit", "binance", "oanda"])
def test_the_control_channel_does_to_each_venue_what_it_says(name: str) -> None:
    symbol, other = ("EUR/USD", "USD/JPY") if name == "oanda" else ("BTC/USDT:USDT", "BTC/USDT")

    async def go() -> None:
        async with AsyncExitStack() as held:
            hands: Hands
            if name == "oanda":
                pace = hurried.pace(1.0, parse_iso("2026-11-16T06:00:00Z"))
                broker = await held.enter_async_context(oanda.serving(pace.start_ms))
                venue: Any = broker
                hands = OandaHands(broker, 1, pace)
            else:
                venue = await held.enter_async_context((bybit if name == "bybit" else binance).serving())
                hands = CryptoHands(venue, 1, 1.0)
            port = await held.enter_async_context(controlled(hands, 0))
            client = await held.enter_async_context(aiohttp.ClientSession())

            async def do(command: str, wanted: int = 200, **asked: Any) -> Any:
                async with client.post(f"http://127.0.0.1:{port}/{command}", json=asked) as reply:
                    said = await reply.json()
                    assert reply.status == wanted, said
                    return said.get("answer")

            await do("walk", on=False)
            before = await do("state")
            assert before["positions"] == {} and before["twice"] == [] and before["bare_now"] == []
            await do("transfer", amount="25")
            settle = "USD" if name == "oanda" else "USDT"
            after = await do("state")
            assert Decimal(after["wallet"][settle]) == Decimal(before["wallet"][settle]) + 25
            await do("trade", symbol=other, quantity="300" if name == "oanda" else "0.0005")
            owned = await do("state")
            assert owned["positions"] == {other: "300"} if name == "oanda" else "BTC" in owned["wallet"]
            assert owned["orders"] == owned["fills"] == 0, "what the owner does is not the bot's"
            await do("price", symbol=symbol, price="1.10777" if name == "oanda" else "51234.5")
            assert _price(hands, symbol) == Decimal("1.10777" if name == "oanda" else "51234.5")
            assert await do("fault", method="GET", path="/nowhere", status=503, body="busy") == "done"
            assert await do("fault", method="GET", path="/nowhere", status=504) is None, "faults do not pile up"
            for failed in (True, False):
                async with client.get(f"{venue.url}/nowhere") as reply:
                    assert (reply.status == 503) == failed
            await do("fault", method="GET", path="/nowhere", status=503)
            await do("clear")
            async with client.get(f"{venue.url}/nowhere") as reply:
                assert reply.status != 503
            assert await do("trade", 409 if name != "oanda" else 200, symbol=symbol, quantity="10000000") is None or name == "oanda"
            assert await do("close", symbol=symbol, share="0.5") is None, "there is nothing"
            await do("trade", symbol=symbol, quantity="400" if name == "oanda" else "0.004")
            await do("close", symbol=symbol, share="0.25")
            assert Decimal((await do("state"))["positions"][symbol]) == (300 if name == "oanda" else Decimal("0.003"))
            for what in ("lagging",) if name == "oanda" else ("lagging", "old", "thin"):
                await do("quiet", what=what, on=True)
                assert _weather(hands) == [what]
                await do("quiet", what=what, on=False)
                assert _weather(hands) == []
            await do("expire", 200 if name == "binance" else 409)
            await do("nothing", 400)
            await do("quiet", 400, what="loud", on=True)

    asyncio.run(go())


def _weather(hands: Hands) -> list[str]:
    if isinstance(hands, OandaHands):
        return ["lagging"] if hands.venue.behind else []
    assert isinstance(hands, CryptoHands)
    there = {"lagging": hands.venue.lag_ms, "old": hands.venue.old, "thin": hands.market.depth}
    return [what for what, is_there in there.items() if is_there]


@pytest.mark.parametrize("name", ["bybit", "binance"])
def test_a_history_that_lags_a_copy_that_is_old_and_an_answer_that_is_late(name: str) -> None:
    async def go() -> None:
        async with AsyncExitStack() as held:
            venue: Any = await held.enter_async_context((bybit if name == "bybit" else binance).serving())
            hands = CryptoHands(venue, 1, 1.0)
            client = await held.enter_async_context(aiohttp.ClientSession())
            hands.trade("BTC/USDT", Decimal("0.001"))
            asked = {"category": "spot", "symbol": "BTCUSDT"}
            told = venue._executions if name == "bybit" else venue._trades("spot")

            def known() -> int:
                rows = told(asked)
                return len(rows["list"] if isinstance(rows, dict) else rows)

            assert known() == 1
            hands.quiet("lagging", True)
            assert known() == 0
            hands.clear()
            assert known() == 1
            venue.old = ("/time",)
            path = f"{venue.url}/{'v5/market/time' if name == 'bybit' else 'api/v3/time'}"

            async def ask() -> Any:
                async with client.get(path) as reply:
                    said = await reply.json()
                    return said.get("time", said.get("serverTime"))

            first = await ask()
            venue.skew_ms = 60_000
            assert await ask() == first
            hands.clear()
            venue.faults.append(bybit.Fault("/time", bybit.Reply(how="late"), True))
            before = asyncio.get_running_loop().time()
            assert await ask() >= first and asyncio.get_running_loop().time() - before >= frame.ANSWER_LATE_S

    asyncio.run(go())


def _price(hands: Hands, symbol: str) -> Decimal:
    if isinstance(hands, OandaHands):
        return hands.book.prices[symbol.replace("/", "_")][0]
    assert isinstance(hands, CryptoHands)
    return hands.market.price[hands.traded[symbol]]
