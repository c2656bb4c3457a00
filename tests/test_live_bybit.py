"""The whole daemon on Bybit's wire: the unmodified ccxt client, the emulated venue, one unified wallet for spot and perpetuals. After every
run the books and the owner's part are the venue's to the last unit, every order was sent once, and nothing was bare for long."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from modules.domain.errors import ConfigurationError, VenueDenied
from modules.domain.events import (
    BalanceAdjusted,
    BudgetChanged,
    Filled,
    ForeignFill,
    FundingBooked,
    OrderExpired,
    OrderInDoubt,
    PositionClosed,
    Reconciled,
    Scope,
    TradeAbandoned,
    TradingHalted,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass
from modules.domain.order import ExitReason, Purpose
from modules.domain.policies import Policies
from modules.runtime.clock import WallClock
from modules.venues.oanda_venue import OandaVenue
from modules.venues.oanda_wire import Endpoint as Place
from modules.venues.oanda_wire import Pace
from tests.bybit_worlds import BOTH, PERP, SPOT, PushedClock, adapter
from tests.emulators import bybit as emulator
from tests.emulators import oanda as broker
from tests.live_worlds import Life, Watch, above, driven, life, patient, played

D = Decimal
HAND = {"symbol": "BTCUSDT", "orderType": "Market"}
OF = {"spot": AssetClass.SPOT, "linear": AssetClass.PERP}
ALLOCATE: dict[AssetClass, Decimal | None] = {AssetClass.SPOT: D(3_000), AssetClass.PERP: D(6_000)}
LOW, HIGH = "50000", "51000"
LEVEL = 50_500.0
PROTECT_MS = 30_000


class World:
    """A venue with 10,000 USDT in one wallet. Time is the wall's, and what the test pushes it by to end a minute."""

    def __init__(self, venue: emulator.BybitEmulator, folder: Path) -> None:
        self.venue, self.market, self.folder = venue, venue.market, folder
        self.clock = PushedClock()
        self.watch = Watch(lambda: WallClock().now(), self.bare)
        self.lives: list[Life] = []
        self.policies: Policies | None = None
        """Of daemons born from now on, in place of the patient ones."""
        self.bare_ms = PROTECT_MS
        """How long a position may be bare at most."""
        self.minute()  # so that the wall's own minute does not end while a daemon starts

    def tick(self) -> None:
        self.watch.look()
        self.natural_minute()
        self.market.emit("tickers.BTCUSDT", [self.market.streamed_ticker(("linear", "BTCUSDT"))])
        self.market.emit("orderbook.1.BTCUSDT", [self.market.best(("spot", "BTCUSDT"))])

    def bare(self) -> bool:
        """Whether a perpetual is held with less than its size under conditional reduce-only orders."""
        size = self.market.holdings["linear", "BTCUSDT"].size
        under = sum((ticket.quantity for ticket in self.stops() if ticket.product.category == "linear"), D(0))
        return size > 0 and under < size

    def stops(self) -> list[Any]:
        return [ticket for ticket in self.market.orders.values() if ticket.status == "Untriggered"]

    # what the owner and the weather do

    def trade_by_hand(self, side: str, quantity: str) -> None:
        self.market.create(HAND | {"category": "spot", "side": side, "qty": quantity, "marketUnit": "baseCoin"})

    def close_by_hand(self) -> None:
        size = self.market.holdings["linear", "BTCUSDT"].size
        self.market.create(HAND | {"category": "linear", "side": "Sell", "qty": str(size), "reduceOnly": True})

    def cancel_by_hand(self) -> None:
        for ticket in self.stops():
            drawer = {"orderFilter": "StopOrder"} if ticket.product.category == "spot" else {}
            self.market.cancel({"category": ticket.product.category, "symbol": "BTCUSDT", "orderId": ticket.id, **drawer})

    def deafen(self) -> None:
        self.market.emit = lambda topic, rows: None if topic in ("execution", "order") else self.venue._emit(topic, rows)

    def listen(self) -> None:
        self.market.emit = self.venue._emit

    def lose(self, reply: emulator.Reply, *, accepted: bool) -> None:
        """The answer to the next order is lost."""
        self.venue.faults.append(emulator.Fault("order/create", reply, accepted))

    def price(self, now: str) -> None:
        for category in ("spot", "linear"):
            self.market.move(category, "BTCUSDT", now)

    def natural_minute(self) -> None:
        """A minute that ended on the wall ended at the venue, as it would at a real one: the daemon has asked for it by then."""
        while self.market.candles["spot", "BTCUSDT"][-1][0] + 60_000 <= self.venue.now():
            self._close_bars()

    def minute(self) -> None:
        """The minute ends, for the venue and for us."""
        start = self.market.candles["spot", "BTCUSDT"][-1][0]
        push = max(0, start + 60_050 - self.venue.now())
        self.venue.skew_ms += push
        self.clock.ahead_ms += push
        self._close_bars()

    def _close_bars(self) -> None:
        for category in ("spot", "linear"):
            self.market.close_bar(category, "BTCUSDT")

    def born(self, classes: tuple[AssetClass, ...] = BOTH, *, allocate: dict[AssetClass, Decimal | None] | None = None,
             **execution: Any) -> Life:
        venue = adapter(self.venue, classes=classes, symbols=[{AssetClass.SPOT: SPOT, AssetClass.PERP: PERP}[c] for c in classes])
        venue.clock = self.clock
        for client in (venue.data, venue.trade):
            client.milliseconds = self.clock.now  # ccxt signs with our clock
        made = life(venue, self.clock, self.folder, strategies={c: above(c, level=LEVEL, stop=0.01) for c in classes},
                    settlement=dict.fromkeys(classes, "USDT"), allocate=ALLOCATE if allocate is None else allocate,
                    symbols=frozenset(venue.symbols),
                    policies=self.policies or patient(**{"protect_within_s": PROTECT_MS / 1000, **execution}))
        self.lives.append(made)
        return made

    async def starts(self, **named: Any) -> Life:
        made = self.born(**named)
        await made.daemon.start()
        made.run()
        topics = ("execution", "order", "kline.1.BTCUSDT", "tickers.BTCUSDT")
        await made.until(lambda: all(self.venue.listeners[topic] for topic in topics), "the streams are up")
        await made.until(lambda: made.daemon.market.quote(PERP) is not None, "quotes")
        return made

    async def enters(self, alive: Life, count: int = 2) -> None:
        self.price(HIGH)
        self.minute()
        await alive.until(lambda: len(alive.resting(Purpose.STOP)) == count, f"{count} entries with their stops")

    def our_executions(self) -> set[tuple[str, str]]:
        """(symbol, trade) of all that the venue filled of our orders."""
        names = {"spot": SPOT, "linear": PERP}
        return {(names[row["category"]], row["execId"]) for row in self.market.executions
                if row["execType"] == "Trade" and row["orderLinkId"]}

    def sent(self) -> Counter[str]:
        return Counter(body["orderLinkId"] for path, body in self.venue.bodies if path.endswith("/order/create"))

    def agree(self, alive: Life, classes: tuple[AssetClass, ...] = BOTH) -> None:
        """Sum of the classes' books + the owner's part = the venue's wallet, coin by coin."""
        portfolio, owners = alive.daemon.portfolio, alive.daemon.wallets.unallocated("bybit")
        cash = sum((portfolio.wallet_cash(c) for c in classes), D(0))
        assert cash + owners.pop("USDT", D(0)) == self.market.wallet["USDT"]
        coins = {k: v for c in classes for k, v in portfolio.coins(c).items()}
        total = {name: coins.get(name, D(0)) + owners.get(name, D(0)) for name in coins.keys() | owners.keys()}
        held = {coin: amount for coin, amount in self.market.wallet.items() if coin != "USDT" and amount}
        size = self.market.holdings["linear", "BTCUSDT"].size
        assert {name: amount for name, amount in total.items() if amount} == held | ({PERP: size} if size else {})


def on_bybit(folder: Path, story: Callable[[World], Awaitable[None]]) -> None:
    @asynccontextmanager
    async def world() -> AsyncIterator[World]:
        async with emulator.serving() as venue:
            made = World(venue, folder)
            async with driven(made.tick):
                yield made

    played(world, story)


def test_a_day_on_one_unified_wallet_partial_fills_stops_funding_and_exits_leaves_the_books_the_venues(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        on.market.wallet["BTC"] = D("0.5")  # the owner's: never sized on, never sold
        on.market.depth["linear", "BTCUSDT"] = D("0.004")
        alive = await on.starts()
        assert {c: alive.daemon.portfolio.ledger(c).cash for c in BOTH} == ALLOCATE
        assert alive.daemon.wallets.unallocated("bybit") == {"USDT": D(1_000), "BTC": D("0.5")}
        await on.enters(alive)
        fills = [fact.fill for fact in alive.of(Filled)]
        assert len([fill for fill in fills if fill.symbol == PERP]) > 1, "filled in parts"
        await alive.until(lambda: {(t.product.category, t.quantity) for t in on.stops()} == {
            ("linear", on.market.holdings["linear", "BTCUSDT"].size),
            ("spot", alive.daemon.portfolio.positions[SPOT].quantity // D("0.000001") * D("0.000001"))}, "each stop covers what is held")
        await alive.soon(lambda: on.agree(alive))
        on.market.fund("BTCUSDT", "0.000137")
        await alive.until(lambda: alive.of(FundingBooked), "the funding")
        on.market.transfer("USDT", "250.5")
        await alive.until(lambda: alive.daemon.wallets.unallocated("bybit").get("USDT") == D("1250.5"), "the deposit is the owner's")
        await alive.soon(lambda: on.agree(alive))
        on.price(LOW)
        on.minute()
        await alive.until(lambda: len(alive.of(PositionClosed)) == 2 and not on.stops(), "flat")
        await alive.soon(lambda: on.agree(alive))
        assert on.market.wallet["BTC"] - D("0.5") < D("0.00001"), "only dust is left of ours, and the owner's coins are there"
        nets = {c: alive.daemon.portfolio.ledger(c).net for c in BOTH}
        assert sum(nets.values()) == on.market.wallet["USDT"] - D("10250.5")
        await alive.end()
        assert not any(isinstance(fact, BalanceAdjusted | TradingHalted) for fact in alive.facts)

    on_bybit(tmp_path, story)



def test_killed_in_the_middle_with_a_position_open_it_finds_everything_and_puts_back_a_stop_that_is_gone(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        first = await on.starts()
        await on.enters(first)
        await first.die()
        # While nobody is there: funding, a deposit, the spot stop fills, and the owner cancels the perpetual's stop in the venue's app.
        on.market.fund("BTCUSDT", "0.000137")
        on.market.transfer("USDT", "77.7")
        on.market.move("spot", "BTCUSDT", "49000")
        (bare,) = [ticket for ticket in on.stops() if ticket.product.category == "linear"]
        on.market.cancel({"category": "linear", "symbol": "BTCUSDT", "orderId": bare.id})
        on.watch.begin()
        second = await on.starts()
        await second.until(lambda: [ticket.product.category for ticket in on.stops()] == ["linear"], "the stop is back")
        assert on.watch.longest_ms < PROTECT_MS
        (closed,) = second.of(PositionClosed)
        assert (closed.trade.asset_class, len(second.of(FundingBooked))) == (AssetClass.SPOT, 1)
        assert [(fact.reason, fact.amount) for fact in second.of(UnallocatedMoved)] == [("transfer", D("77.7"))]
        await second.soon(lambda: on.agree(second))
        on.price(LOW)
        on.minute()
        await second.until(lambda: len(second.of(PositionClosed)) == 2 and not on.stops(), "flat")
        await second.soon(lambda: on.agree(second))
        await second.end()
        third = on.born()
        await third.daemon.start()
        await third.soon(lambda: on.agree(third))
        every = [fact for one in on.lives for fact in one.facts]
        assert not any(isinstance(fact, BalanceAdjusted | ForeignFill) for fact in every)
        executions = {row["execId"] for row in on.market.executions if row["execType"] == "Trade"}
        booked = [fact.fill.venue_trade_id for fact in every if isinstance(fact, Filled)]
        assert set(booked) == executions and len(booked) == len(executions)

    on_bybit(tmp_path, story)


def test_what_no_stream_tells_is_found_and_what_the_owner_does_is_his(tmp_path: Path) -> None:
    """Deaf private streams; a stop canceled by hand; coins bought, an order placed and our position closed in the venue's app."""
    async def story(on: World) -> None:
        alive = await on.starts()
        told = on.market.emit
        on.market.emit = lambda topic, rows: None if topic in ("execution", "order", "wallet", "position") else told(topic, rows)
        began = on.clock.now()
        await on.enters(alive)
        assert on.clock.now() - began - 60_000 < 60_000, "fills that no stream told are found within a minute"
        (ticket,) = [ticket for ticket in on.stops() if ticket.product.category == "spot"]
        on.market.cancel({"category": "spot", "symbol": "BTCUSDT", "orderId": ticket.id, "orderFilter": "StopOrder"})
        await alive.until(lambda: len(on.stops()) == 2, "the stop is back")
        size = on.market.holdings["linear", "BTCUSDT"].size
        hand = {"symbol": "BTCUSDT", "orderType": "Market"}
        on.market.create(hand | {"category": "spot", "side": "Buy", "qty": "0.01", "marketUnit": "baseCoin"})
        on.market.create(hand | {"category": "linear", "side": "Sell", "qty": str(size), "reduceOnly": True})
        await alive.until(lambda: alive.of(PositionClosed), "our position closed by him")
        assert alive.of(PositionClosed)[0].trade.exit_reason is ExitReason.FORCE_EXIT
        await alive.until(lambda: "BTC" in alive.daemon.wallets.unallocated("bybit"), "his coins known as his")
        await alive.soon(lambda: on.agree(alive))
        on.market.create(hand | {"category": "spot", "side": "Sell", "qty": "0.005", "marketUnit": "baseCoin"})
        await alive.until(lambda: alive.daemon.wallets.unallocated("bybit").get("BTC", D(1)) < D("0.006"), "he sold of his own")
        await alive.soon(lambda: on.agree(alive))
        assert SPOT in alive.daemon.portfolio.positions and len(alive.of(PositionClosed)) == 1
        assert not alive.of(BalanceAdjusted) and not alive.of(TradingHalted)
        assert sum(alive.daemon.portfolio.ledger(c).net for c in BOTH) > -5, "his trades are no result of ours"

    on_bybit(tmp_path, story)


def test_allocations_follow_the_owner_as_far_as_the_money_reaches(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        on.market.wallet["USDT"] = D(6_000)
        alive = on.born()
        await alive.daemon.start()
        assert {c.value: alive.daemon.portfolio.ledger(c).cash for c in BOTH} == {"SPOT": D(2_000), "PERP": D(4_000)}, "scaled pro rata"
        alive.run()
        on.market.transfer("USDT", "2000")
        await alive.until(lambda: sum(alive.daemon.portfolio.ledger(c).cash for c in BOTH) == 8_000, "the deposit made up for what did "
                          "not fit")
        assert alive.daemon.wallets.unallocated("bybit") == {}
        alive.daemon.journal.append(BudgetChanged(on.clock.now(), Scope.PERP, None, D(3_000), "owner"))
        await alive.until(lambda: alive.daemon.portfolio.ledger(AssetClass.PERP).cash == 3_000, "the owner took some back")
        await alive.until(lambda: alive.daemon.portfolio.ledger(AssetClass.SPOT).cash == 3_000, "and spot has what it was given")
        on.market.transfer("USDT", "-3000")
        await alive.until(lambda: on.market.wallet["USDT"] == 5_000 and any(
            fact.amount < 0 and fact.venue_ref.startswith("t-") for fact in alive.of(TransferSeen)), "a withdrawal beyond the owner's part")
        await alive.soon(lambda: on.agree(alive))
        assert all(alive.daemon.kill_switch.drawdown(c, "day") == 0 and alive.daemon.portfolio.ledger(c).net == 0 for c in BOTH)

    on_bybit(tmp_path, story)


def _may_withdraw(on: World) -> None:
    on.venue.rights = on.venue.rights | {"Wallet": ["Withdraw"]}


def _hedged(on: World) -> None:
    right = on.market.position
    on.market.position = lambda key: right(key) | {"positionIdx": 1}  # type: ignore[method-assign]


def _portfolio_margin(on: World) -> None:
    right = on.venue._account_info
    on.venue._routes["GET", "/v5/account/info"] = lambda asked: right(asked) | {"marginMode": "PORTFOLIO_MARGIN"}


@pytest.mark.parametrize(("wrong", "words"), [(_portfolio_margin, "margin mode PORTFOLIO_MARGIN is not reckoned with"),
                                              (_may_withdraw, "the key may Withdraw; make one that may only trade"),
                                              (_hedged, "hedge mode; switch the account to one-way mode")])
def test_the_wrong_key_or_account_is_no_start_and_says_what_to_do(tmp_path: Path, wrong: Callable[[World], None], words: str) -> None:
    async def story(on: World) -> None:
        wrong(on)
        refused = on.born()
        with pytest.raises(VenueDenied, match=words):
            await refused.daemon.start()
        assert not refused.of(Reconciled) and not on.venue.bodies

    on_bybit(tmp_path, story)


def test_classes_that_share_a_wallet_need_an_amount_each(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        with pytest.raises(ConfigurationError, match=r"venues\.bybit\.allocate: PERP"):
            await on.born(allocate={AssetClass.SPOT: D(1_000), AssetClass.PERP: None}).daemon.start()

    on_bybit(tmp_path, story)


def test_a_broker_that_takes_our_token_away_halts_its_own_class_and_no_other(tmp_path: Path) -> None:
    async def story(on: World) -> None:
        async with broker.serving(on.clock.now()) as oanda:
            oanda.heartbeat_s = 0.2
            forex = OandaVenue(Place(oanda.url, oanda.url), broker.ACCOUNT, SecretStr(broker.TOKEN), on.clock, {"EUR/USD": 60_000},
                               pace=Pace(read_s=30.0, write_s=30.0, silence_s=20.0, audit_s=0.3, retry_s=0.1))
            crypto = adapter(on.venue, symbols=[SPOT, PERP])
            crypto.clock = on.clock
            for client in (crypto.data, crypto.trade):
                client.milliseconds = on.clock.now
            alive = life(
                [crypto, forex], on.clock, on.folder, strategies={c: above(c, level=LEVEL, stop=0.01) for c in BOTH},
                settlement={**dict.fromkeys(BOTH, "USDT"), AssetClass.FOREX: "USD"}, allocate={**ALLOCATE, AssetClass.FOREX: None},
                venue_of={**dict.fromkeys(BOTH, "bybit"), AssetClass.FOREX: "oanda"}, policies=patient(),
                symbols=frozenset({SPOT, PERP, "EUR/USD"}))
            on.lives.append(alive)
            await alive.daemon.start()
            alive.run()
            assert alive.daemon.portfolio.ledger(AssetClass.FOREX).cash == oanda.book.balance
            await alive.until(lambda: alive.daemon.market.quote(PERP) is not None and alive.daemon.warm, "quotes")
            oanda.always = [broker.Fault("GET", "/v3/accounts", broker.Reply(401, b'{"errorMessage": "no"}'))]
            await alive.until(lambda: alive.of(TradingHalted), "the halt")
            await on.enters(alive)
            assert {fact.scope for fact in alive.of(TradingHalted)} == {Scope.FOREX}
            await alive.soon(lambda: on.agree(alive))
            await alive.die()

    on_bybit(tmp_path, story)


@pytest.mark.parametrize("accepted", [True, False])
def test_an_entry_whose_answer_is_lost_is_found_or_proven_absent_and_never_sent_again(tmp_path: Path, accepted: bool) -> None:
    async def story(on: World) -> None:
        alive = await on.starts(classes=(AssetClass.PERP,))
        on.venue.faults = [emulator.Fault("order/create", emulator.Reply(502, b"<html>bad gateway</html>"), accepted)]
        on.price(HIGH)
        on.minute()
        await alive.until(lambda: alive.of(OrderInDoubt) or alive.of(Filled), "an entry of which nobody knows")
        if accepted:
            await alive.until(lambda: len(on.stops()) == 1, "found, and its stop placed")
            assert len(alive.of(PositionClosed)) == 0 and sum(on.sent().values()) == 2
        else:
            await alive.until(lambda: alive.of(OrderExpired), "proven that it was never placed")
            assert alive.of(OrderExpired)[0].reason.startswith("never placed") and alive.of(TradeAbandoned)
            assert on.market.holdings["linear", "BTCUSDT"].size == 0 and sum(on.sent().values()) <= 1
            assert alive.daemon.funds.reserved(AssetClass.PERP) == 0
        await alive.soon(lambda: on.agree(alive, (AssetClass.PERP,)))

    on_bybit(tmp_path, story)
