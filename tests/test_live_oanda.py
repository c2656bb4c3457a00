"""The whole daemon on OANDA's wire: our adapter, the emulated broker, the wall clock five times as fast. After every run the books are the
broker's to the last digit, every order was sent once, and no position was bare for longer than the policy allows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from modules.cli.reports import Reports
from modules.domain.decision import Rule
from modules.domain.errors import VenueDenied
from modules.domain.events import (
    BalanceAdjusted,
    DaemonStarted,
    Filled,
    ForeignFill,
    FundingBooked,
    OrderInDoubt,
    OrderSent,
    PositionClosed,
    Reconciled,
    TradeOpened,
    TradingHalted,
    TransferSeen,
    Trigger,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import DRILL_MARK, ExitReason, Purpose, drill_id
from modules.domain.policies import Policies
from modules.domain.sessions import parse_iso
from modules.runtime.clock import WallClock
from modules.venues import drill
from modules.venues.oanda_venue import OandaVenue
from modules.venues.oanda_wire import Endpoint, Pace
from tests.builders import EUR_USD
from tests.emulators.oanda import ACCOUNT, TOKEN, Fault, OandaEmulator, Reply, serving
from tests.live_worlds import DECIDED, Life, Watch, above, driven, life, played

D = Decimal
FOREX = AssetClass.FOREX
SPEED = 5.0
BAR = 5_000
START = parse_iso("2026-03-02T20:30:00Z")
LOW, HIGH = D("1.09900"), D("1.10100")
SPREAD = D("0.00010")
PACE = Pace(read_s=30.0, write_s=30.0, silence_s=20.0, connections_per_s=1_000, retry_s=0.05, ban_s=0.5, audit_s=0.3, candle_s=0.05)
"""Impatient between its questions, patient with the answers; the time-outs are the wall's."""
PROTECT_MS = 60_000


class World:
    """A broker whose time is the daemon's clock and whose price is what the test says."""

    def __init__(self, emulator: OandaEmulator, clock: WallClock, folder: Path) -> None:
        self.emulator, self.clock, self.folder, self.book = emulator, clock, folder, emulator.book
        self.price = LOW
        self._jitter = 0
        self._read, self._net, self._ours = 0, D(0), D(0)
        self.watch = Watch(clock.now, self.bare)
        self.bare_ms = PROTECT_MS
        """How long a position of ours may be bare at most, by the watch's clock."""
        self.lives: list[Life] = []

    def tick(self) -> None:
        self._jitter = (self._jitter + 1) % 3
        bid = self.price + self._jitter * D("0.00001")
        self.book.move(max(self.book.at, self.clock.now()), {"EUR_USD": (bid, bid + SPREAD)})
        self.watch.look()

    def bare(self) -> bool:
        held = min(self.book.position("EUR_USD"), self._of_ours())
        under = sum((D(order["units"]) for order in self.resting() if order["type"] == "STOP"), D(0))
        return held > 0 and -under < held

    def _of_ours(self) -> D:
        """What of the position is ours: the owner's orders take his own part first; where he holds the other side the two net."""
        for row in self.book.transactions[self._read:]:
            if row["type"] == "ORDER_FILL" and row["instrument"] == "EUR_USD":
                units = D(row["units"])
                self._net += units
                if row.get("clientOrderID", "").startswith("tb"):
                    self._ours += units
                self._ours = max(D(0), min(self._ours, self._net))
        self._read = len(self.book.transactions)
        return self._ours

    def resting(self) -> list[dict[str, Any]]:
        return [order for order in self.book.orders.values() if order["state"] == "PENDING"]

    def born(self, *, allocate: D | None = None, policies: Policies | None = None, **levels: float) -> Life:
        """A new process: its own adapter, the journal of the last one."""
        venue = OandaVenue(Endpoint(self.emulator.url, self.emulator.url), ACCOUNT, SecretStr(TOKEN), self.clock, {EUR_USD: BAR}, pace=PACE)
        made = life(venue, self.clock, self.folder, strategies={FOREX: above(FOREX, **{"level": 1.1, "stop": 0.004, **levels})},
                    settlement={FOREX: "USD"}, allocate={FOREX: allocate}, policies=policies)
        self.lives.append(made)
        return made

    async def starts(self, **options: Any) -> Life:
        made = self.born(**options)
        await made.daemon.start()
        made.run()
        return made

    async def enters(self, alive: Life) -> None:
        """The price rises over the level: an entry and its stop."""
        await alive.until(lambda: self.emulator.listeners == 2, "the streams are up")
        await asyncio.sleep(BAR / 1000 / SPEED)
        self.price = HIGH
        await alive.until(lambda: self.book.position("EUR_USD") > 0, "an entry")
        await alive.until(lambda: alive.resting(Purpose.STOP), "a stop at the broker")

    def sent(self) -> Counter[str]:
        """How often each of our ids was created at the broker."""
        return Counter(row["clientExtensions"]["id"] for row in self.book.transactions if "clientExtensions" in row)


def on_oanda(folder: Path, story: Callable[[World], Awaitable[None]], at: int = START) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with serving(at - 600_000) as emulator:
            emulator.heartbeat_s = 0.2
            made = World(emulator, WallClock(SPEED, at), folder)
            for past in range(at - 600_000 + 1_000, at, 1_000):
                made.book.move(past, {"EUR_USD": (LOW, LOW + SPREAD)})
            async with driven(made.tick):
                yield made

    played(world, story)


def agree(on: World, alive: Life) -> None:
    """The books are the broker's."""
    portfolio = alive.daemon.portfolio
    owners = alive.daemon.wallets.unallocated("oanda")
    assert portfolio.wallet_cash(FOREX) + owners.get("USD", D(0)) == on.book.balance
    ours = portfolio.positions[EUR_USD].quantity if EUR_USD in portfolio.positions else D(0)
    assert ours + owners.get(EUR_USD, D(0)) == on.book.position("EUR_USD")


def test_a_day_on_oanda_entry_stop_a_night_and_exit_leaves_our_books_the_brokers(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        alive = await on.starts()
        await on.enters(alive)
        (stop,) = on.resting()
        assert (stop["type"], stop["positionFill"], D(stop["units"])) == ("STOP", "REDUCE_ONLY", -on.book.position("EUR_USD"))
        on.clock._start += 5 * 3_600_000  # over 17:00 New York: the night is charged
        await alive.until(lambda: alive.of(FundingBooked), "the night's financing")
        on.price = LOW
        await alive.until(lambda: alive.of(PositionClosed) and not on.resting(), "flat")
        assert alive.of(PositionClosed)[0].trade.exit_reason is ExitReason.EXIT_SIGNAL
        assert alive.of(PositionClosed)[0].trade.net == on.book.balance - 10_000
        await alive.soon(lambda: agree(on, alive))
        await alive.end()
        assert alive.of(BalanceAdjusted) == [] and alive.of(TradingHalted) == []

    on_oanda(tmp_path, story)


@pytest.mark.parametrize("kind", ["killed", "ended"])
def test_a_restart_in_the_middle_books_each_thing_once_and_puts_back_a_stop_that_is_gone(tmp_path: Path, kind: str) -> None:
    async def story(on: World) -> None:
        first = await on.starts()
        await on.enters(first)
        entry = first.of(TradeOpened)[0].trade_id
        await (first.die() if kind == "killed" else first.end())
        assert on.book.position("EUR_USD") > 0 and len(on.resting()) == 1, "the stop stays at the broker"
        # While nobody is there: a night is charged, money comes in, and the owner cancels the stop in the broker's app.
        on.book.cancel(on.resting()[0], "CLIENT_REQUEST")
        on.clock._start += 5 * 3_600_000
        on.tick()
        on.book.transfer(D("250.5"))
        born = on.clock.now()
        on.watch.begin()
        second = on.born()
        await second.daemon.start()
        assert second.resting(Purpose.STOP) and len(on.resting()) == 1, "the stop is back before anything else is done"
        assert on.clock.now() - born < PROTECT_MS
        second.run()
        assert len(second.of(FundingBooked)) == 1 and [fact.amount for fact in second.of(TransferSeen)] == [D("250.5")]
        await second.soon(lambda: agree(on, second))
        on.price = LOW
        await second.until(lambda: second.of(PositionClosed) and not on.resting(), "flat")
        assert second.of(PositionClosed)[0].trade.trade_id == entry
        await second.soon(lambda: agree(on, second))
        await second.end()
        third = on.born()
        await third.daemon.start()
        await third.soon(lambda: agree(on, third))
        every = [fact for life in on.lives for fact in life.facts]
        assert not any(isinstance(fact, BalanceAdjusted | OrderInDoubt) for fact in every)
        assert sum(isinstance(fact, FundingBooked) for fact in every) == 1
        assert len({f.fill.venue_trade_id for f in every if isinstance(f, Filled)}) == sum(isinstance(f, Filled) for f in every) == 2
        nav = third.daemon.kill_switch.nav(FOREX)
        assert nav is not None and nav < 1, "the night and the spread are a loss, the deposit is no profit"

    on_oanda(tmp_path, story)


def test_a_stop_that_filled_while_nobody_listened_is_found_and_its_trade_closed(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        first = await on.starts()
        await on.enters(first)
        await first.die()
        on.price = D("1.09000")  # through the stop
        on.tick()
        assert on.book.position("EUR_USD") == 0
        second = await on.starts()
        (closed,) = second.of(PositionClosed)
        assert closed.trade.exit_reason in (ExitReason.STOP_LOSS, ExitReason.STOPLOSS_ON_EXCHANGE)
        assert second.of(BalanceAdjusted) == [] and second.of(ForeignFill) == []
        await second.soon(lambda: agree(on, second))

    on_oanda(tmp_path, story)


def test_deaf_streams_cost_a_poll_a_stop_the_owner_cancels_comes_back_and_what_he_does_is_his(tmp_path: Path) -> None:
    """A fill no stream told, a cancel no stream told, a trade and a close by hand, a deposit and a withdrawal beyond the allocation."""
    async def story(on: World) -> None:
        on.book.transfer(D(500))  # before the first start: it is in the opening balance, and in nothing else
        alive = await on.starts(allocate=D(2_000))
        await alive.soon(lambda: agree(on, alive))
        assert alive.daemon.portfolio.ledger(FOREX).cash == 2_000 and alive.daemon.wallets.unallocated("oanda") == {"USD": D(8_500)}
        await alive.until(lambda: on.emulator.listeners == 2, "the streams are up")
        await asyncio.sleep(BAR / 1000 / SPEED)
        on.emulator.deaf = {"transactions"}
        on.price = HIGH
        await alive.until(lambda: alive.resting(Purpose.STOP), "a stop under a fill that no stream told")
        (stop,) = on.resting()
        on.book.cancel(stop, "CLIENT_REQUEST")
        await alive.until(lambda: on.resting(), "the stop is back")
        held = on.book.position("EUR_USD")
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": "5000", "timeInForce": "FOK"})
        await alive.until(lambda: alive.of(ForeignFill), "the owner's trade on record")
        await alive.until(lambda: alive.daemon.wallets.unallocated("oanda").get(EUR_USD) == 5_000, "the owner's position known as his")
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": str(-5_000 - held), "timeInForce": "FOK"})  # he closes it all
        await alive.until(lambda: alive.of(PositionClosed), "our trade closed by him")
        assert alive.of(PositionClosed)[0].trade.exit_reason is ExitReason.FORCE_EXIT
        await alive.until(lambda: not on.resting(), "the stop gone with the position")
        await alive.until(lambda: set(alive.daemon.wallets.unallocated("oanda")) == {"USD"}, "his position gone")

        def explained() -> bool:
            owners = alive.daemon.wallets.unallocated("oanda").get("USD", D(0))
            return owners + alive.daemon.portfolio.wallet_cash(FOREX) == on.book.balance

        await alive.until(explained, "his result is his")
        on.book.transfer(D(-9_000))
        await alive.until(lambda: any("transfer" in fact.reason for fact in alive.of(UnallocatedMoved)), "the withdrawal")
        assert explained()
        await alive.soon(lambda: agree(on, alive))
        ledger = alive.daemon.portfolio.ledger(FOREX)
        assert ledger.net == alive.of(PositionClosed)[0].trade.net and alive.of(BalanceAdjusted) == []
        assert ledger.transfers < 2_000, "the withdrawal went beyond the owner's part"
        nav = alive.daemon.kill_switch.drawdown(FOREX, "day")
        assert nav < D("0.01")

    on_oanda(tmp_path, story)


def test_a_lost_answer_and_a_ban_make_one_order_and_no_word_before_the_ban_ends(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        alive = await on.starts()
        await alive.until(lambda: on.emulator.listeners == 2, "the streams are up")
        await asyncio.sleep(BAR / 1000 / SPEED)
        on.emulator.faults = [Fault("POST", "/orders", Reply(502, b"<html>"), accepted=True),
                              Fault("POST", "/orders", Reply(429, b"{}", headers=(("Retry-After", "10"),)))]
        on.price = HIGH
        await alive.until(lambda: alive.of(OrderInDoubt), "the entry in doubt")
        await alive.until(lambda: alive.of(Filled), "the entry found")
        await alive.until(lambda: alive.of(TradingHalted), "a halt for the ban")
        asked = sum(on.emulator.asked.values())
        (halt,) = alive.of(TradingHalted)
        assert halt.trigger is Trigger.API_ERRORS and halt.until is not None
        until_then = asked
        while on.clock.now() < halt.until:
            until_then = sum(on.emulator.asked.values())
            await asyncio.sleep(0.02)
        assert until_then - asked <= 2, "the broker wanted silence"
        await alive.until(lambda: alive.resting(Purpose.STOP), "the stop, after the ban")
        assert len(alive.of(OrderSent)) == 2 and sorted(on.sent().values()) == [1, 1]
        await alive.soon(lambda: agree(on, alive))

    on_oanda(tmp_path, story)


def test_a_token_that_is_taken_away_halts_the_class_until_an_operator_re_arms(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        alive = await on.starts()
        await alive.until(lambda: alive.of(Reconciled), "reconciled")
        on.emulator.always = [Fault("GET", "/v3/accounts", Reply(401, b'{"errorMessage": "Insufficient authorization"}'))]
        await alive.until(lambda: alive.of(TradingHalted), "the halt")
        assert {fact.trigger for fact in alive.of(TradingHalted)} == {Trigger.API_AUTHENTICATION}
        on.emulator.always = []
        await asyncio.sleep(0.5)
        assert len(alive.daemon.kill_switch.halts()) == 1

    on_oanda(tmp_path, story)


@pytest.mark.parametrize(("change", "words"), [
    ({"currency": "EUR"}, "the account is in EUR, not USD"), ({"hedgingEnabled": True}, "hedging"), ({"id": "9-9"}, "another account")])
def test_the_wrong_account_is_no_start_and_says_what_to_do(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    async def story(on: World) -> None:
        right = on.emulator._summary
        on.emulator._summary = lambda: right() | change  # type: ignore[method-assign]
        refused = on.born()
        with pytest.raises(VenueDenied, match=words):
            await refused.daemon.start()
        assert [type(fact) for fact in refused.facts if not isinstance(fact, DaemonStarted)] == []

    on_oanda(tmp_path, story)


def test_nothing_is_opened_against_what_the_owner_holds_by_hand_because_the_broker_would_net_the_two(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        alive = await on.starts(allocate=D(5_000))
        await alive.until(lambda: on.emulator.listeners == 2, "the streams are up")
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": "-900", "timeInForce": "FOK"})
        await alive.until(lambda: alive.daemon.wallets.unallocated("oanda").get(EUR_USD) == -900, "his position known as his")
        on.price = HIGH
        await alive.until(lambda: any(not check.passed and check.rule is Rule.INSTRUMENT_OWNED and "by hand" in check.note
                                      for decision in DECIDED for check in decision.checks), "an entry denied for his sake")
        assert on.book.position("EUR_USD") == -900 and not alive.of(OrderSent)
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": "900", "timeInForce": "FOK"})
        await alive.until(lambda: EUR_USD not in alive.daemon.wallets.unallocated("oanda"), "he is out")
        on.price = LOW
        bars = alive.daemon.market.series[EUR_USD].closed_at + 2 * BAR
        await alive.until(lambda: alive.daemon.market.series[EUR_USD].closed_at >= bars, "bars below the level")
        on.price = HIGH
        await alive.until(lambda: alive.resting(Purpose.STOP), "we are in")
        await alive.soon(lambda: agree(on, alive))
        await alive.end()

    DECIDED.clear()
    on_oanda(tmp_path, story)


def test_a_trade_by_hand_that_turns_the_net_position_around_closes_ours_first_and_the_rest_is_his(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        alive = await on.starts(allocate=D(5_000))
        await on.enters(alive)
        held = on.book.position("EUR_USD")
        on.book.create({"type": "MARKET", "instrument": "EUR_USD", "units": str(-held - 300), "timeInForce": "FOK"})
        await alive.until(lambda: alive.of(PositionClosed), "ours closed by him")
        await alive.until(lambda: not on.resting(), "no stop is left to trade against him")
        await alive.until(lambda: alive.daemon.wallets.unallocated("oanda").get(EUR_USD) == -300, "the rest is his")
        await alive.soon(lambda: agree(on, alive))
        ours = [(fact.fill.venue_trade_id, fact.fill.by_owner, fact.fill.quantity) for fact in alive.of(Filled)]
        (his,) = alive.of(ForeignFill)
        assert [(by_owner, quantity) for _, by_owner, quantity in ours] == [(False, held), (True, held)]
        assert his.fill.quantity == 300 and his.fill.venue_trade_id == ours[1][0], "one execution, divided"
        assert not alive.of(BalanceAdjusted) and alive.daemon.portfolio.ledger(FOREX).net == alive.of(PositionClosed)[0].trade.net
        await alive.end()

    on_oanda(tmp_path, story)


@pytest.mark.parametrize("closed", [True, False])
def test_a_pair_taken_off_the_list_while_it_is_held_keeps_nobody_from_starting(tmp_path: Path, closed: bool) -> None:
    """The broker closes what it takes away, soon or late: that is booked like any fill, and until then it is told."""

    async def story(on: World) -> None:
        first = await on.starts()
        await on.enters(first)
        await first.die()
        for order in on.resting():
            on.book.cancel(order, "MARKET_HALTED")
        away = {"type": "MARKET", "instrument": "EUR_USD", "units": str(-on.book.position("EUR_USD")), "timeInForce": "FOK"}
        if closed:
            on.book.create(away)
        on.emulator.unlisted.add("EUR_USD")
        venue = OandaVenue(Endpoint(on.emulator.url, on.emulator.url), ACCOUNT, SecretStr(TOKEN), on.clock, {EUR_USD: BAR, "USD/JPY": BAR},
                           pace=PACE)
        second = life(venue, on.clock, on.folder, strategies={FOREX: above(FOREX, level=200.0, stop=0.004)}, settlement={FOREX: "USD"},
                      allocate={FOREX: None})
        on.lives.append(second)
        await second.daemon.start()
        second.run()
        if not closed:
            reports = Reports(second.daemon)
            await second.until(lambda: any(EUR_USD in words for words in reports.status({})["problems"]), "the owner is told")
            assert EUR_USD in second.daemon.portfolio.positions
            on.book.create(away)
        await second.until(lambda: second.of(PositionClosed), "what the broker closed is booked")
        await second.soon(lambda: agree(on, second))
        await second.end()

    on_oanda(tmp_path, story)


@pytest.mark.parametrize("allocate", [None, D(5_000)])
def test_what_a_drill_did_between_two_lives_is_told_as_a_drills_and_halts_nobody(
        tmp_path: Path, allocate: D | None) -> None:
    async def story(on: World) -> None:
        first = await on.starts(allocate=allocate)
        await first.until(lambda: on.emulator.listeners == 2, "the streams are up")
        await first.end()
        on.tick()  # the broker's clock goes with its price: a drill sooner than the next one would stand before the books were opened
        own = OandaVenue(Endpoint(on.emulator.url, on.emulator.url), ACCOUNT, SecretStr(TOKEN), on.clock, {EUR_USD: BAR}, pace=PACE)
        (instrument,) = await own.instruments()
        outcome = await drill.Drill(own, own, instrument, on.clock, lambda _: None, drill.Pace(60.0 * SPEED, 0.05)).run()
        await own.close()
        assert outcome.passed and outcome.cost
        on.watch.begin()
        second = await on.starts(allocate=allocate)
        await second.until(lambda: len(second.of(ForeignFill)) == 2, "the drill's two fills")
        assert all(fact.fill.client_order_id.startswith(DRILL_MARK) for fact in second.of(ForeignFill))
        await second.soon(lambda: agree(on, second))
        ledger = second.daemon.portfolio.ledger(FOREX)
        # Where the wallet is all the class's, so is what the drill cost; else it is the owner's.
        assert ledger.net == (-outcome.cost if allocate is None else 0)
        assert not second.of(TradingHalted) and not second.of(Filled)
        await second.end()

    on_oanda(tmp_path, story)


def test_an_order_that_a_drill_left_behind_refuses_a_start_in_words(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        name = drill_id(EUR_USD, on.clock.now(), Side.BUY, Purpose.ENTRY, 0)
        on.book.create({"type": "LIMIT", "instrument": "EUR_USD", "units": "1", "price": "0.90000", "timeInForce": "GTC",
                        "positionFill": "DEFAULT", "clientExtensions": {"id": name}})
        refused = on.born()
        with pytest.raises(VenueDenied, match="is left of a drill: cancel it in the venue's app"):
            await refused.daemon.start()

    on_oanda(tmp_path, story)
