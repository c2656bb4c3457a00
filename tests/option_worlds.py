"""What the tests of Bybit's options share: contracts on the emulator, our adapter in front of it, paper trading over that."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr

from modules.domain.instrument import AssetClass, Side
from modules.domain.order import Order
from modules.domain.policies import Policies
from modules.domain.signal import Intent, Structure
from modules.runtime.clock import WallClock
from modules.strategies.protocol import Market as Seen
from modules.strategies.protocol import Strategy
from modules.venues.ccxt_bybit import SHORT_MARGIN, BybitDialect
from modules.venues.ccxt_client import Credentials
from modules.venues.ccxt_dialect import Chains
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.live_paper import LivePaperVenue
from modules.venues.paper_book import PaperBook
from tests.bybit_worlds import FEES, PERP, PushedClock, adapter, order
from tests.emulators import bybit as emulator
from tests.live_worlds import Life, driven, life, patient

D = Decimal
HOUR_MS = 3_600_000
CLASSES = (AssetClass.PERP, AssetClass.OPTION)
OPTION_FEES = {**FEES, AssetClass.OPTION: (D("0.0003"), D("0.0003"))}
STRIKES = tuple(str(46_000 + 500 * step) for step in range(17))


KEY = Credentials(SecretStr(emulator.KEY), SecretStr(emulator.SECRET))


def _policies() -> Policies:
    """Those of a market in a hurry, for options that end tomorrow."""
    return patient(risk={"expiry_days_min": D("0.01"), "option_delta_max": D(3)}, clock_poll_s=1.0, exit_retry_s=2.0)


class Above(NamedTuple):
    level: float = 50_500.0


def _step(state: Any, seen: Seen, params: Above) -> tuple[Any, Intent]:
    """Bearish above the level, flat between, bullish far below."""
    score = -0.9 if seen.close > params.level else 0.9 if seen.close < params.level - 1_000.0 else 0.0
    return state, Intent(score, 0.0, 0.0, 0)


def spreads(structure: Structure = Structure.CREDIT_SPREAD) -> Strategy:
    """Above 50,500 it sells a call spread (or buys a put), below 49,500 a put spread (or buys a call)."""
    return Strategy("spreads", "by the price", (AssetClass.OPTION,), Above(), lambda params: 0, _step, 1, structure=structure, days=0.5,
                    delta=0.4, width=0.02)


def option_adapter(venue: emulator.BybitEmulator, clock: PushedClock | None = None, **changes: Any) -> CcxtVenue:
    """Market data alone unless `credentials` are given; chains several times a second."""
    settings: dict[str, Any] = {"classes": CLASSES, "symbols": (PERP,), "credentials": None, "dialect": BybitDialect(("BTC", "ETH")),
                                "chains": Chains(45.0, 0.25, 0.1, 120.0), "fees": OPTION_FEES, **changes}
    made = adapter(venue, **settings)
    if clock is not None:
        made.clock = clock
        for client in filter(None, (made.data, made.trade)):
            client.milliseconds = clock.now
    return made


class World:
    """A venue with one expiry of BTC options twenty hours away and one in a week, and paper daemons on it, one after the other."""

    def __init__(self, venue: emulator.BybitEmulator, folder: Path) -> None:
        self.venue, self.market, self.folder = venue, venue.market, folder
        self.options = venue.market.options
        self.clock = PushedClock()
        self.expiry = venue.now() // HOUR_MS * HOUR_MS + 20 * HOUR_MS
        self.contracts = self.options.list("BTC", self.expiry, *STRIKES)
        self.options.list("BTC", self.expiry + 7 * 24 * HOUR_MS, "50000")
        self.paper: LivePaperVenue
        self.push(max(0, self._ends() - self.venue.now()))  # so that the wall's own minute does not end while a daemon starts
        self.market.close_bar("linear", "BTCUSDT")

    def _ends(self) -> int:
        """When the minute that forms is surely over, UTC ms."""
        return int(self.market.candles["linear", "BTCUSDT"][-1][0]) + 60_050

    def tick(self) -> None:
        self.market.emit("tickers.BTCUSDT", [self.market.streamed_ticker(("linear", "BTCUSDT"))])

    def push(self, milliseconds: int) -> None:
        """Time passes, for the venue and for us."""
        self.venue.skew_ms += milliseconds
        self.clock.ahead_ms += milliseconds

    async def minute(self, made: Life, price: str | None = None) -> None:
        """The minute ends, at `price`, and the chain has been told since."""
        if price is not None:
            self.market.move("linear", "BTCUSDT", price)
        self.push(max(0, self._ends() - self.venue.now()))
        await self.heard(made)
        self.market.close_bar("linear", "BTCUSDT")

    async def heard(self, made: Life) -> None:
        """A chain that was asked for after this moment: the first that comes may have been on its way."""
        for _ in range(2):
            await made.until(self._told_after(made, self.clock.now()), "a chain")
        # Pushing the time makes what was measured of the clocks old, and an old measure opens nothing.
        await made.until(lambda: made.daemon.wallets.clock_offset_s(AssetClass.OPTION) is not None, "a look at the clock")

    def _told_after(self, made: Life, since: int) -> Callable[[], bool]:
        return lambda: (chain := made.daemon.market.chain("BTC")) is not None and chain.at > since

    async def starts(self, strategy: Strategy, *, symbols: Sequence[str] = (), wallet: str = "15000") -> Life:
        data = option_adapter(self.venue, self.clock)
        policies = _policies()
        instruments = [one for one in await data.instruments() if one.symbol == PERP]
        self.paper = LivePaperVenue(data, instruments, self.clock, policies, {
            AssetClass.PERP: PaperBook("USDT", D(5_000)), AssetClass.OPTION: PaperBook("USDT", D(wallet))}, chain_age_s=20.0)
        made = life(self.paper, self.clock, self.folder, strategies={AssetClass.OPTION: strategy},
                    settlement=dict.fromkeys(CLASSES, "USDT"), symbols=frozenset((PERP, *symbols)), policies=policies)
        return await self._up(made)

    async def starts_live(self, *, symbols: Sequence[str] = (), allocate: Mapping[AssetClass, Decimal] | None = None,
                          short_margin: Decimal = SHORT_MARGIN, structure: Structure = Structure.CREDIT_SPREAD) -> Life:
        """With a key: the legs go over the wire."""
        data = option_adapter(self.venue, self.clock, credentials=KEY, audit_s=0.5, dialect=BybitDialect(("BTC", "ETH"), short_margin))
        made = life(data, self.clock, self.folder, strategies={AssetClass.OPTION: spreads(structure)},
                    settlement=dict.fromkeys(CLASSES, "USDT"),
                    allocate=allocate or {AssetClass.PERP: D(1_000), AssetClass.OPTION: D(9_000)}, symbols=frozenset((PERP, *symbols)),
                    policies=_policies())
        await self._up(made)
        await made.until(lambda: self.venue.listeners["execution"] and self.venue.listeners["order"], "the private streams are up")
        return made

    async def _up(self, made: Life) -> Life:
        await made.daemon.start()
        made.run()
        await made.until(lambda: self.venue.listeners["kline.1.BTCUSDT"] and self.venue.listeners["tickers.BTCUSDT"], "the streams are up")
        await made.until(lambda: made.daemon.market.quote(PERP) is not None, "quotes")
        await self.heard(made)
        return made


@asynccontextmanager
async def optioned(folder: Path) -> AsyncIterator[World]:
    async with emulator.serving() as venue:
        world = World(venue, folder)
        async with driven(world.tick):
            yield world


@asynccontextmanager
async def option_account(**changes: Any) -> AsyncIterator[tuple[emulator.BybitEmulator, CcxtVenue]]:
    """A running emulator with options, and an adapter with a key."""
    async with emulator.serving() as venue:
        venue.market.options.list("BTC", a_week_away(venue.now()), *STRIKES)
        made = option_adapter(venue, credentials=KEY, **changes)
        try:
            yield venue, made
        finally:
            await made.close()


def a_week_away(at: int) -> int:
    week = 7 * 24 * HOUR_MS
    return at // week * week + 2 * week + 8 * HOUR_MS


def contract(right: str = "C", strike: str = "51000") -> str:
    """The symbol of one contract of `option_account`."""
    return f"BTC/USDT:USDT-{datetime.fromtimestamp(a_week_away(now()) / 1000, UTC):%y%m%d}-{strike}-{right}"


def option_order(name: str, side: Side = Side.BUY, quantity: str = "0.1", *, symbol: str = "", arrival: str = "1600", reduce: bool = False
                 ) -> Order:
    made = order(name, symbol or contract(), side, quantity, reduce=reduce)
    return replace(made, asset_class=AssetClass.OPTION, arrival_price=D(arrival), leverage=D(1))


def now() -> int:
    return WallClock().now()


def short_of_cover_ms(market: Any, until: int | None = None) -> int:
    """For how long at a stretch more contracts of an expiry and kind were sold than bought at the emulated venue, by its own executions;
    milliseconds. What is uncovered still counts until `until` (UTC ms; None = its last execution)."""
    held: Counter[tuple[str, str, str]] = Counter()
    since: int | None = None
    longest = 0
    rows = [row for row in market.executions if row["category"] == "option"]
    for row in rows:
        base, day, _, right = row["symbol"].split("-")[:4]
        held[base, day, right] += D(row["execQty"]) * (1 if row["side"] == "Buy" else -1)  # type: ignore[assignment]
        at, bare = int(row["execTime"]), any(quantity < 0 for quantity in held.values())
        longest = max(longest, at - since) if since is not None else longest
        since = (at if since is None else since) if bare else None
    end = until if until is not None else int(rows[-1]["execTime"]) if rows else 0
    return max(longest, end - since) if since is not None else longest
