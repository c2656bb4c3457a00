"""Instruments by rule, day after day: what comes is warmed up first, what goes is flat, and a restart goes on where the day was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from pydantic import SecretStr

import main
from modules.cli.app import run
from modules.cli.choosing import Asking, last_choice
from modules.domain.errors import ConfigurationError, VenueUnreachable
from modules.domain.events import InstrumentsChosen, TradeAbandoned, TradeOpened
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Batch
from modules.domain.settings import SelectSettings, VenueSettings
from modules.news.calendar import Calendar
from modules.notify.render import sentence
from modules.runtime.clock import VirtualClock, VirtualLoop, WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies import registry
from modules.venues import factory
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.demo_market import DemoMarket
from modules.venues.oanda_venue import OandaVenue
from modules.venues.oanda_wire import Endpoint
from modules.venues.paper_venue import PaperVenue
from modules.venues.selection import Choice, Chosen, rule_of
from tests import venue_threads
from tests.builders import shipped_policies
from tests.emulators import bybit as bybit_emulator
from tests.emulators import oanda as oanda_emulator
from tests.emulators.bybit import Fault, Reply
from tests.timing import PATIENCE_S

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SPOT = AssetClass.SPOT
BTC, ETH, SOL, XRP, ADA = "BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT"
T = TypeVar("T")


class Rotating(PaperVenue):
    """A paper venue that is told what to stream."""

    watched: Sequence[str] = ()
    admitted: tuple[str, ...] = ()

    async def admit(self, instruments: Sequence[Instrument]) -> None:
        self.admitted += tuple(one.symbol for one in instruments)

    def watch(self, symbols: Sequence[str]) -> None:
        self.watched = tuple(symbols)


@dataclass
class World:
    daemon: main.Daemon
    venue: Rotating
    journal: Journal
    loop: VirtualLoop
    instruments: dict[str, Instrument]
    answer: Any = ()
    """What the rule says next: symbols, or an error."""
    announced: list[str] = field(default_factory=list)

    async def choose(self) -> Chosen:
        if isinstance(self.answer, Exception):
            raise self.answer
        left = {symbol: "place 4 by 24 h volume $1; number_assets is 3" for symbol in self.instruments if symbol not in self.answer}
        return Chosen("rule", self.daemon.clock.now(), Choice(tuple(self.answer), left), self.instruments, DAY_MS)

    def look(self, *answer: str, at: int | None = None, error: Exception | None = None) -> InstrumentsChosen | None:
        """One look, by default when the choice has grown old; the fact it left, if it did."""
        before = self.journal.count
        self.answer = error or answer
        last = self.chosen[-1]
        self.run(self.daemon.instruments.look(self.venue, at if at is not None else last.asked_at + DAY_MS))
        return self.chosen[-1] if self.journal.count > before and self.chosen[-1] is not last else None

    @property
    def chosen(self) -> list[InstrumentsChosen]:
        return [fact for _, fact in self.journal.facts() if isinstance(fact, InstrumentsChosen)]

    @property
    def series(self) -> set[str]:
        return set(self.daemon.market.series)

    def run(self, work: Awaitable[T]) -> T:
        return cast("T", self.loop.run_until_complete(cast(Any, work)))


@contextmanager
def world(folder: Path, *symbols: str, market: DemoMarket) -> Iterator[World]:
    journal = Journal(folder / "journal.sqlite", durable=False)
    loop = VirtualLoop(market.start + HOUR_MS if journal.latest_at is None else journal.latest_at + 1)
    asyncio.set_event_loop(loop)
    policies, clock = shipped_policies(), VirtualClock(loop)
    announced: list[str] = []
    wallets = {SPOT: Decimal(1000)}
    plan = main.simulated_plan(
        market, mode="paper", policies=policies, clock=clock, journal=journal, decisions=Decisions(None), wallets=wallets,
        calendar=Calendar((), policies.news, {}), strategies={SPOT: [registry.get("breakout")]}, announce=announced.append)
    venue = Rotating(market, clock, policies.costs, wallets, plan.settlement)
    plan = replace(plan, venues={venue.name: venue}, symbols=frozenset(symbols))
    made = World(main.Daemon(plan), venue, journal, loop, {one.symbol: one for one in market.instruments if one.asset_class is SPOT},
                 announced=announced)
    try:
        made.run(made.daemon.start())
        made.answer = symbols
        first = made.run(made.choose())
        made.daemon.instruments.begin({venue.name: made.choose}, {venue.name: first}, (BTC,), clock.now())
        yield made
    finally:
        made.run(made.daemon.close())
        asyncio.set_event_loop(None)
        loop.close()


@pytest.fixture(scope="module")
def market() -> DemoMarket:
    return DemoMarket(3, 2)


def opened(world: World, symbol: str) -> TradeOpened:
    at = world.daemon.clock.now()
    return TradeOpened(at, "t1", "d1", "breakout", symbol, SPOT, "buy", "single", 1.0, 0.6, 100.0, 97.0, None, 0, 300_000, Decimal(1))


def test_what_comes_is_warm_before_it_trades_and_what_goes_is_gone(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, SOL, market=market) as here:
        first = here.chosen[0]
        assert first.symbols == (BTC, ETH, SOL) == first.came and not first.went and not first.kept
        assert here.look(at=first.asked_at + DAY_MS - 1) is None, "it stands for a day"
        fact = here.look(BTC, XRP, ETH)
        assert fact is not None and fact.symbols == (BTC, XRP, ETH)
        assert (fact.came, fact.went, fact.kept) == ((XRP,), {SOL: "place 4 by 24 h volume $1; number_assets is 3"}, {})
        assert here.series == {BTC, ETH, XRP} == set(here.venue.watched) and here.venue.admitted == (XRP,)
        runners = here.daemon.strategies.runners
        assert SOL not in runners and {runner.bars for runner in runners[XRP]} == {runner.bars for runner in runners[BTC]}
        assert all(runner.bars >= runner.strategy.warmup for runner in runners[XRP])
        assert not here.daemon.instruments.barred
        said = sentence(fact)
        assert said is not None and "new XRP/USDT" in said and "gone SOL/USDT (place 4" in said
        unchanged = here.look(BTC, XRP, ETH)
        assert unchanged is not None and sentence(unchanged) is None, "that it was asked is on record; nobody is told of nothing"


def test_what_is_held_stays_watched_opens_nothing_and_goes_when_it_is_flat(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, SOL, market=market) as here:
        here.journal.append(opened(here, SOL))
        fact = here.look(BTC, ETH, XRP)
        assert fact is not None and fact.kept == {SOL: "a trade is open"} and not fact.went
        assert here.series == {BTC, ETH, SOL, XRP} and set(here.venue.watched) == here.series
        assert here.daemon.look._listed_out(SOL) and not here.daemon.look._listed_out(ETH)
        assert here.look(at=fact.asked_at + 60_000) is None, "still held"
        here.journal.append(TradeAbandoned(here.daemon.clock.now(), "t1", "never filled"))
        fact = here.look(at=fact.asked_at + 120_000)
        assert fact is not None and (fact.kept, fact.went) == ({}, {SOL: "flat by now"})
        assert SOL not in here.series and not here.daemon.look._listed_out(SOL)


def test_what_leads_its_class_is_watched_whatever_the_rule_says_and_is_not_traded(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, market=market) as here:
        fact = here.look(ETH, SOL)
        assert fact is not None and fact.kept == {BTC: "it leads its class"}
        assert BTC in here.series and here.daemon.look._listed_out(BTC)
        here.look(ETH, SOL, BTC)
        assert not here.daemon.look._listed_out(BTC)


def test_a_pair_that_tells_what_another_is_worth_stays_until_that_is_gone(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, SOL, market=market) as here:
        crossed = replace(here.instruments[SOL], symbol="SOL/ETH", base="SOL", quote="ETH")
        here.daemon.market.list_instruments([crossed], lambda _: 300_000)
        fact = here.look(BTC, SOL)
        assert fact is not None and fact.kept == {ETH: "it converts SOL/ETH"}
        here.daemon.market.drop("SOL/ETH")
        fact = here.look(at=fact.asked_at + 60_000)
        assert fact is not None and fact.went == {ETH: "flat by now"}


def test_where_the_venue_cannot_be_asked_or_the_rule_leaves_nothing_the_choice_stands(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, market=market) as here:
        at = here.chosen[0].asked_at + DAY_MS
        for minute, error in enumerate((VenueUnreachable("no answer"), ConfigurationError(["leaves none of 5"]))):
            assert here.look(error=error, at=at + minute * 15 * 60_000) is None
        assert here.series == {BTC, ETH} and len(here.announced) == 1 and "the last choice stands: no answer" in here.announced[0]
        assert here.look(SOL, at=at + 16 * 60_000) is None, "not at every look"
        assert here.look(SOL, BTC, at=at + 31 * 60_000) is not None


def test_a_restart_is_no_new_choice_and_still_watches_what_was_kept(tmp_path: Path, market: DemoMarket) -> None:
    with world(tmp_path, BTC, ETH, SOL, market=market) as here:
        here.journal.append(opened(here, SOL))
        here.look(BTC, ETH)
        last = here.chosen[-1]
    with Journal(tmp_path / "journal.sqlite", read_only=True) as journal:
        assert last_choice(journal, here.venue.name) == last and last_choice(journal, "bybit") is None
    with world(tmp_path, BTC, ETH, SOL, market=market) as here:
        again = here.run(here.choose())._replace(asked_at=last.asked_at, choice=Choice(last.symbols, {}))
        before = here.journal.count
        here.daemon.instruments.begin({here.venue.name: here.choose}, {here.venue.name: again}, (BTC,), here.daemon.clock.now())
        here.daemon.instruments.begin({here.venue.name: here.choose}, {here.venue.name: again}, (BTC,), here.daemon.clock.now())
        assert here.journal.count == before + 1
        assert here.daemon.look._listed_out(SOL)


# -- over the wire --------------------------------------------------------------------------------------------------------


def rule(**more: Any) -> SelectSettings:
    return SelectSettings(min_value=Decimal(0), max_spread_ratio=1.0, min_days_listed=0, **more)


def test_a_restart_on_the_same_day_asks_for_no_figures_and_an_old_choice_is_better_than_none() -> None:
    with venue_threads.bybit() as venue:
        select, clock = rule(number_assets=1), WallClock()
        settings = VenueSettings(classes=(SPOT,), endpoint=venue.url, select=select)
        asking = Asking("bybit", settings, shipped_policies(), clock)
        first = asyncio.run(asking.by_rule())
        assert len(first.choice.symbols) == 1 and first.every_ms == DAY_MS and first.rule == rule_of(select)
        (other,) = {BTC, ETH} - set(first.choice.symbols)
        asked = venue.asked["/v5/market/tickers"]

        def journaled(at: int, by: str) -> InstrumentsChosen:
            return InstrumentsChosen(at, "bybit", by, at, (other, "GONE/USDT"), {}, (), {})

        now = clock.now()
        same = asyncio.run(asking.going_on(journaled(now - HOUR_MS, first.rule)))
        assert same.choice.symbols == (other,) and same.asked_at == now - HOUR_MS and venue.asked["/v5/market/tickers"] == asked
        anew = asyncio.run(asking.going_on(journaled(now - HOUR_MS, "another rule")))
        assert anew.choice.symbols == first.choice.symbols
        anew = asyncio.run(asking.going_on(journaled(now - 2 * DAY_MS, first.rule)))
        assert anew.choice.symbols == first.choice.symbols and anew.asked_at >= now
        venue.faults += [Fault("market/tickers", Reply(500, b"<html>"), False) for _ in range(4)]
        old = asyncio.run(asking.going_on(journaled(now - 2 * DAY_MS, first.rule)))
        assert old.choice.symbols == (other,) and old.asked_at == now - 2 * DAY_MS
        with pytest.raises(VenueUnreachable):
            asyncio.run(asking.going_on(None))


async def _until(venue: Any, batches: Any, holds: Callable[[Batch], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async for batch in batches:
            if holds(batch):
                return


def test_the_stream_follows_the_choice() -> None:
    """The venue is told to send what came, and sends what went no more."""
    with venue_threads.served(bybit_emulator.serving, _walking) as emulator:
        async def life() -> None:
            settings = VenueSettings(classes=(SPOT,), endpoint=emulator.url, timeframe="1m")
            venue = factory.connect("bybit", settings, clock=WallClock(), policies=shipped_policies(), trading=False, symbols=(BTC,))
            assert isinstance(venue, CcxtVenue)
            batches = venue.market_events()
            try:
                await _until(venue, batches, lambda batch: any(symbol == BTC for symbol, _ in batch.quotes))
                offered = {one.symbol: one for one in await venue.offered()}
                await venue.admit([offered[ETH]])
                venue.watch((ETH,))
                await _until(venue, batches, lambda batch: any(symbol == ETH for symbol, _ in batch.quotes))
                topics: set[str] = set()
                async with asyncio.timeout(PATIENCE_S):
                    while not topics or any("BTCUSDT" in topic for topic in topics):
                        topics = {topic for _, some, _ in list(emulator._sockets.values()) for topic in list(some)}
                        await asyncio.sleep(0.05)
                assert any("ETHUSDT" in topic for topic in topics)
                assert BTC in venue.symbols, "what was traded once is asked for fills"
            finally:
                await cast(Any, batches).aclose()
                await venue.close()

        asyncio.run(life())


async def _walking(venue: Any) -> None:
    while True:
        for name in ("BTCUSDT", "ETHUSDT"):
            venue.market.walk("spot", name, 1, 1)
        await asyncio.sleep(0.1)


def test_a_brokers_stream_follows_it_too() -> None:
    clock = WallClock()

    async def tick(broker: Any) -> None:
        broker.book.weekends = True
        while True:
            broker.book.move(clock.now(), dict(broker.book.prices))
            await asyncio.sleep(0.1)

    with venue_threads.served(lambda: oanda_emulator.serving(clock.now()), tick) as emulator:
        async def life() -> None:
            venue = OandaVenue(Endpoint(emulator.url, emulator.url), oanda_emulator.ACCOUNT,
                               SecretStr(oanda_emulator.TOKEN), clock, {"EUR/USD": 60_000})
            batches = venue.market_events()
            try:
                await _until(venue, batches, lambda batch: any(symbol == "EUR/USD" for symbol, _ in batch.quotes))
                offered = {one.symbol: one for one in await venue.offered()}
                other = next(symbol for symbol in offered if symbol != "EUR/USD")
                await venue.admit([offered[other]])
                venue.watch((other,))
                await _until(venue, batches, lambda batch: any(symbol == other for symbol, _ in batch.quotes))
                seen: set[str] = set()
                async with asyncio.timeout(PATIENCE_S):
                    async for batch in batches:
                        seen |= {symbol for symbol, _ in batch.quotes}
                        if len(seen) and batch.quotes and batch.quotes[0][0] == other:
                            break
                assert "EUR/USD" not in seen and await venue.history(other, clock.now(), 3) is not None
            finally:
                await cast(Any, batches).aclose()
                await venue.close()

        asyncio.run(life())


SELECT = """
[venues.bybit.select]
number_assets = 1
min_value = 0
max_spread_ratio = 1
min_days_listed = 0
pair_whitelist = ["ETH/*"]
"""


def test_doctor_and_drill_go_by_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(Path(main.__file__).parent / "policies")
    with venue_threads.bybit() as venue:
        path = venue_threads.bybit_settings(tmp_path, venue, classes='"SPOT"')
        text = path.read_text().replace('symbols = ["BTC/USDT", "BTC/USDT:USDT"]\n', "").replace(', PERP = "300"', "")
        path.write_text(text + SELECT)
        run(["doctor", "--json"])
        found = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
        assert found["venues.bybit reachable"]["said"] == "1 instruments by rule: ETH/USDT"
        assert run(["drill", "spot", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["symbol"] == ETH
        path.write_text(text + SELECT.replace("ETH/*", "NONE/*"))
        assert run(["doctor", "--json"]) == 1
        found = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
        assert "leaves none" in found["venues.bybit.select"]["said"]
        path.write_text(text)  # the usual ones, of which an emulator lists few: that is no fault
        run(["doctor", "--json"])
        found = {one["what"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
        assert found["venues.bybit reachable"]["said"] == "2 instruments of the usual ones: BTC/USDT, ETH/USDT"
