"""Whole daemons on virtual time against a simulated venue, one seed a history, and somebody who looks on.

`History` is a world: the market goes on, a daemon lives, dies - at any time, at any row of its journal, before and after any order leaves -
and is started again; at the end the weather calms down and everything is closed. `Monitor` looks on from the venue's side and from the
journal's: the invariants of reliability.md that can be told from there, each named by its id.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import main as program
from modules.domain.errors import BotError
from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    ForeignFill,
    FundingBooked,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderIntended,
    OrderRejected,
    OrderSent,
    PositionClosed,
    Scope,
    TradingHalted,
    TradingRearmed,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.domain.order import MARK, ExitReason, Order, OrderKind, Purpose
from modules.domain.policies import Policies
from modules.domain.signal import FLAT, Intent
from modules.news.calendar import Calendar
from modules.runtime.clock import Clock, VirtualClock, VirtualLoop
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.protocol import Market as Seen
from modules.strategies.protocol import Strategy
from modules.venues.protocol import FillSeen, FundingPaid, Transferred
from tests.builders import AT, shipped_policies
from tests.emulators.bybit_market import Ticket
from tests.simulated_exchange import NAME, PERP, SPOT, STEP_MS, SYMBOLS, Exchange, gaps
from tests.simulated_venue import Dead, SimulatedVenue

CALM_S: Final = 900
"""The end: no weather, nobody's hands."""
BARE_MS: Final = 10_000
"""I14: no position is without its stop for longer while orders get through and the daemon is there."""
OVER_MS: Final = 30_000
"""I15: no stops rest for more than is held for longer than it takes to see that less is held (a poll), and to have them replaced."""
STOP_MS: Final = 10_000
"""I25."""
WALLET_MS: Final = 60_000
PRICES_MS: Final = 10_000
"""I13."""
LIFE_S: Final = 5_400.0
"""Mean length of a life."""
ALLOCATE: Final[dict[AssetClass, Decimal | None]] = {SPOT: Decimal(4_000), PERP: Decimal(5_000)}
SHIFT_MS: Final = 60_000
ROUNDING: Final = Decimal("0.000001")
"""Fills that are told in another order than they happened have results that are rounded otherwise, by 1e-8 each."""


def lenient() -> Policies:
    """As shipped, but for what would keep two coins that move as one, or a market this restless, from being traded at all."""
    shipped = shipped_policies()
    risk = shipped.risk.model_copy(update={
        "correlation_returns_min": 1, "correlated_others_max": 100, "cooldown_losses": 1_000, "cooldown_stop_outs": 1_000,
        "frozen_bars_max": 1_000})
    switch = shipped.kill_switch.model_copy(update={"slippage_events_max": 1_000, "drawdown_daily_max": Decimal("0.5"),
                                                    "drawdown_monthly_max": Decimal("0.6")})
    return shipped.model_copy(update={"risk": risk, "kill_switch": switch})


policies = lenient
"""What the daemons run with: a mutant puts others in its place."""


def _step(state: tuple[float, int], seen: Seen, params: object) -> tuple[tuple[float, int], Intent]:
    """Restless: with the last minutes' move, for a quarter of an hour at most."""
    slow, bars = state
    slow = seen.close if bars == 0 else slow + 0.15 * (seen.close - slow)
    gap = (seen.close - slow) / seen.close
    if abs(gap) < 0.0006:
        return (slow, bars + 1), FLAT
    return (slow, bars + 1), Intent(0.9 if gap > 0.0 else -0.9, 0.003 * seen.close, 0.006 * seen.close, 15)


def restless(asset_class: AssetClass) -> Strategy:
    return Strategy("restless", "with the last minutes", (asset_class,), (), lambda params: (0.0, 0), _step, 1)


class Fuse:
    """When a life ends: after so many rows or writes. `burnt` from then on."""

    def __init__(self, where: str, left: int) -> None:
        self._where, self._left = where, left
        self.burnt = False

    def at(self, where: str) -> None:
        if self.burnt:
            raise Dead
        if where == self._where:
            self._left -= 1
            if self._left <= 0:
                self.burnt = True
                raise Dead


class MortalJournal(Journal):
    """A journal whose process may die before a row, or with the row on disk and nobody told."""

    def __init__(self, path: Path, fuse: Fuse, told: Callable[[Fact], None]) -> None:
        super().__init__(path, reserve_bytes=0)
        self._fuse, self._told = fuse, told
        self._heard = self.count

    def append_all(self, facts: Sequence[Fact]) -> int:
        self._fuse.at("row")
        return super().append_all(facts)

    def _write(self, rows: Any) -> None:
        super()._write(rows)
        self._fuse.at("written")

    def _tell_projections(self, fact: Fact) -> None:
        self._heard += 1
        self._told(fact)
        super()._tell_projections(fact)

    def close(self) -> None:
        """What is on disk and was told to nobody happened all the same."""
        super().close()
        left = Journal(self._path, read_only=True)
        for _, fact in left.facts(self._heard):
            self._told(fact)
        left.close()


@dataclass
class Monitor:
    """Looks on from both sides. `violations`: (id, what)."""

    exchange: Exchange
    violations: list[tuple[str, str]] = field(default_factory=list)
    checks: Counter[str] = field(default_factory=Counter)
    intended: dict[str, Order] = field(default_factory=dict)
    sent: set[str] = field(default_factory=set)
    halts: set[tuple[str, str, str]] = field(default_factory=set)
    """(scope, trigger, venue) in force by the journal."""
    doubtful: set[str] = field(default_factory=set)
    """Orders in doubt by the journal."""
    halted: Counter[str] = field(default_factory=Counter)
    venue: SimulatedVenue | None = None
    stopping: bool = False
    alive_since: int | None = None
    bare_since: dict[str, int] = field(default_factory=dict)
    over_since: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, Decimal] = field(default_factory=dict)
    longest_bare: int = 0

    def wrong(self, law: str, what: str) -> None:
        self.violations.append((law, f"{(self.exchange.now() - self.exchange.start) / 1000:.3f} s: {what}"))

    def check(self, law: str, holds: bool, what: str) -> None:
        self.checks[law] += 1
        if not holds:
            self.wrong(law, what)

    # from the journal

    def fact(self, fact: Fact) -> None:
        if isinstance(fact, OrderIntended):
            known = self.intended.get(fact.order.client_order_id)
            self.check("I09", known is None, f"{fact.order.client_order_id} was intended twice")
            self.intended[fact.order.client_order_id] = fact.order
            if fact.order.purpose is Purpose.ENTRY:
                self._fresh(fact.order)
                self.check("I16", not self._halted(fact.order.asset_class), f"an entry of a halted class: {fact.order.symbol}")
                self.check("I25", not self.stopping, f"an entry while stopping: {fact.order.symbol}")
        elif isinstance(fact, OrderSent):
            self.check("I10", fact.client_order_id not in self.sent, f"{fact.client_order_id} was sent twice")
            self.sent.add(fact.client_order_id)
            order = self.intended.get(fact.client_order_id)
            if order is not None and order.purpose is Purpose.ENTRY:
                self.check("I16", not self._halted(order.asset_class), f"an entry left under a halt: {order.symbol}")
        elif isinstance(fact, OrderInDoubt):
            self.doubtful.add(fact.client_order_id)
        elif isinstance(fact, OrderAccepted | OrderRejected | OrderCanceled | OrderExpired):
            self.doubtful.discard(fact.client_order_id)
            if isinstance(fact, OrderExpired) and fact.reason.startswith("never placed"):
                there = self.exchange.books.find(fact.client_order_id) is not None
                self.check("I11", not there, f"{fact.client_order_id} is given up and was there")
        elif isinstance(fact, Filled) and fact.order_done:
            self.doubtful.discard(fact.fill.client_order_id)
        elif isinstance(fact, TradingHalted):
            self.halted[fact.trigger.value] += 1
            self.halts.add((fact.scope.value, fact.trigger.value, fact.venue))
        elif isinstance(fact, TradingRearmed):
            self.halts.discard((fact.scope.value, fact.trigger.value, fact.venue))

    def _fresh(self, order: Order) -> None:
        """I13: an entry is decided on what was heard lately."""
        assert self.venue is not None
        wallet, prices = self.exchange.now() - self.venue.wallet_at, self.exchange.now() - self.venue.prices_at
        self.check("I13", wallet <= WALLET_MS and prices <= PRICES_MS, f"{order.symbol} on a wallet of {wallet} and prices of {prices} ms")

    def _halted(self, asset_class: AssetClass) -> bool:
        return any(Scope(scope).covers(asset_class) for scope, _, _ in self.halts)

    # from the venue

    def arrived(self, order: Order, known: Ticket | None) -> None:
        link = order.client_order_id
        self.check("I08", link in self.sent and self.intended.get(link) == order, f"{link} arrived and is not on record as it is")
        self.check("I10", known is None, f"{link} arrived twice")
        books, product = self.exchange.books, self.exchange.books.products[SYMBOLS[order.symbol]]
        price = order.price or books.price[SYMBOLS[order.symbol]]
        in_rules = order.quantity > 0 and order.quantity % product.lot == 0 and (order.price is None or order.price % product.tick == 0)
        enough = order.purpose is not Purpose.ENTRY or order.quantity * price >= product.notional_min
        self.check("I12", in_rules and enough, f"{link}: {order.quantity} {order.symbol} at {order.price}")
        if order.kind is OrderKind.STOP and not self.exchange.owners[order.symbol]:
            size = max([abs(self.exchange.ours[order.symbol]), *(size for _, size in self.exchange.lately[order.symbol])])
            resting = sum((t.remaining for t in books.orders.values() if t.open and t.trigger is not None and t.link.startswith(MARK)
                           and t.product is product), ZERO)
            self.check("I15", resting + order.quantity <= size, f"stops for {resting} + {order.quantity} of {size} {order.symbol}")

    def looked(self, at: int) -> None:
        """After every step of the market."""
        if self.alive_since is None or not self.exchange.weather.writes(at) or self.exchange.weather.blind(at):
            self.bare_since.clear()
            self.over_since.clear()
            return
        now = gaps(self.exchange)
        self.checks["I14"] += 1
        self.checks["I15"] += 1
        for symbol in SYMBOLS:
            gap = now.get(symbol, ZERO)
            if self._lasts(self.bare_since, symbol, gap > ZERO, at, BARE_MS):
                self.wrong("I14", f"{gap} of {self.exchange.ours[symbol]} {symbol} bare for longer than {BARE_MS} ms")
            if self.exchange.ours[symbol] != self.sizes.get(symbol):
                self.over_since.pop(symbol, None)  # a target that is filled in parts: the stop follows each
            self.sizes[symbol] = self.exchange.ours[symbol]
            waits = any(self.intended[link].symbol == symbol for link in self.doubtful if link in self.intended)
            if self._lasts(self.over_since, symbol, gap < ZERO and not waits, at, OVER_MS):
                self.wrong("I15", f"stops for {-gap} more than {self.exchange.ours[symbol]} {symbol} for longer than {OVER_MS} ms")
            if symbol in self.bare_since:
                self.longest_bare = max(self.longest_bare, at - self.bare_since[symbol])

    @staticmethod
    def _lasts(since: dict[str, int], symbol: str, wrong: bool, at: int, limit_ms: int) -> bool:
        """Whether something has been wrong for longer than it may; said once."""
        if not wrong:
            since.pop(symbol, None)
            return False
        if at - since.setdefault(symbol, at) <= limit_ms:
            return False
        since[symbol] = at + 3_600_000
        return True


class History:
    """One seed's world."""

    def __init__(self, seed: int, hours: float, intensity: float, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.chance = random.Random(f"life {seed}")
        self.loop = VirtualLoop(AT)
        self.end = AT + int(hours * 3_600_000)
        self.finish = self.end + CALM_S * 1000
        steps = (self.finish - AT + 600_000) // STEP_MS
        self.exchange = Exchange(seed, AT, steps, self._now, intensity)
        self.monitor = Monitor(self.exchange)
        self.exchange.arrivals.append(self.monitor.arrived)
        self.intensity = intensity
        self.allocate = {PERP: None} if self.exchange.alone else ALLOCATE
        self.lives: Counter[str] = Counter()
        self.head, self.rows, self.trades = "", 0, 0

    def _now(self) -> int:
        return round(self.loop.time() * 1000.0)

    def play(self) -> None:
        try:
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(self.loop.create_task(self._world(), name="world"))
        finally:
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _world(self) -> None:
        market = asyncio.create_task(self._market(), name="market")
        try:
            number = 0
            while self._now() < self.end:
                number += 1
                await self._live(number, last=False)
                await asyncio.sleep(self.chance.uniform(0.5, 90.0))
            self.exchange.weather.end()
            await self._live(number + 1, last=True)
        finally:
            market.cancel()
            await asyncio.gather(market, return_exceptions=True)

    async def _market(self) -> None:
        """The market goes on whoever looks."""
        at = AT
        while True:
            at += STEP_MS
            await asyncio.sleep(max(0.0, (at - 5) / 1000.0 - self.loop.time()))
            self.exchange.step(at)
            if self.chance.random() < self.intensity * STEP_MS / 900_000 and self._now() < self.end:
                self.exchange.hands()
            self.monitor.looked(self._now())

    # -- a life

    async def _live(self, number: int, *, last: bool) -> None:
        way = "last" if last else self.chance.choice(("time", "row", "written", "before", "after", "stop", "time", "written"))
        length = self.chance.expovariate(1.0 / LIFE_S)
        left = {"row": length / 12.0, "written": length / 12.0, "before": length / 60.0, "after": length / 60.0}.get(way, 0.0)
        fuse = Fuse(way, max(1, int(left)))
        clock = VirtualClock(self.loop)
        venue = SimulatedVenue(self.exchange, clock, f"wire {self.seed} {number}", fuse.at)
        journal = MortalJournal(self.folder / "journal.sqlite", fuse, self.monitor.fact)
        decided = Decisions(None)
        plan = program.Plan(
            mode="paper", policies=policies(), clock=clock, journal=journal, decisions=decided, venues={NAME: venue},
            venue_of=dict.fromkeys(self.allocate, NAME), settlement=dict.fromkeys(self.allocate, "USDT"), allocate=self.allocate,
            strategies={one: [restless(one)] for one in self.allocate}, references={}, calendar=Calendar([], policies().news, {}),
            symbols=frozenset(self.exchange.symbols), waits=lambda text: None)
        daemon = program.Daemon(plan)
        self.monitor.alive_since, self.monitor.stopping, self.monitor.venue = self._now(), False, venue
        running = asyncio.create_task(self._run(daemon), name="daemon")
        try:
            if last:
                await self._last(daemon, running)
            elif way in ("time", "stop"):
                await self._until(running, min(self._now() + int(length * 1000), self.end), daemon)
                if way == "stop" and not running.done():
                    await self._stopped(daemon, running)
            else:
                await self._until(running, self.end, daemon)
        finally:
            fuse.burnt = True
            venue.die()
            self.monitor.alive_since = None
            running.cancel()
            results = await asyncio.gather(running, return_exceptions=True)
            self._buried(way, results[0])
            others = [task for task in asyncio.all_tasks() if task.get_name() not in ("market", "world")]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self.head, self.rows = journal.head, journal.count
            decided.close()
            journal.close()

    async def _run(self, daemon: program.Daemon) -> None:
        ticking = asyncio.create_task(self._tick(daemon.clock), name="ticks")
        try:
            await daemon.run()
        finally:
            ticking.cancel()

    async def _tick(self, clock: Clock) -> None:
        """As on the wall's time, where ticks do not wait for prices."""
        while True:
            await asyncio.sleep(1.0)
            clock.pulse(self._now())

    def _buried(self, way: str, how: BaseException | None) -> None:
        self.lives[way] += 1
        leaves = list(_leaves(how)) if how is not None else []
        for leaf in leaves:
            if not isinstance(leaf, Dead | asyncio.CancelledError):
                self.monitor.wrong("I26", f"the daemon ended by itself: {type(leaf).__name__}: {leaf}")

    async def _until(self, running: asyncio.Task[None], until: int, daemon: program.Daemon) -> None:
        while self._now() < until and not running.done():
            await asyncio.wait([running], timeout=min(SHIFT_MS, until - self._now()) / 1000.0)
            self._owner(daemon)

    def _owner(self, daemon: program.Daemon) -> None:
        """Every minute somebody may look: what is halted is armed again after a while."""
        if daemon.started_at and self.chance.random() < 0.05:
            self._rearm(daemon, "have looked at it")

    def _rearm(self, daemon: program.Daemon, reason: str) -> None:
        for scope in {halt.scope for halt in daemon.kill_switch.halts()}:
            try:
                daemon.kill_switch.rearm(scope, at=self._now(), by="owner", reason=reason)
            except (BotError, Dead):
                return

    async def _stopped(self, daemon: program.Daemon, running: asyncio.Task[None]) -> None:
        """As SIGTERM does it."""
        if not daemon.started_at:  # a process that is still starting is simply ended
            return
        began, self.monitor.stopping = self._now(), True
        daemon.stop()
        await asyncio.wait([running], timeout=60.0)
        self.monitor.check("I25", running.done() and self._now() - began <= STOP_MS, f"stopping took {self._now() - began} ms")

    # -- the end

    async def _last(self, daemon: program.Daemon, running: asyncio.Task[None]) -> None:
        """Calm: what was in doubt is resolved, what is held is closed when asked to, and the books are the venue's."""
        await self._until(running, self._now() + 360_000, daemon)
        monitor = self.monitor
        monitor.check("L1", not daemon.executor.in_doubt, f"still in doubt: {[o.client_order_id for o in daemon.executor.in_doubt]}")
        in_force = {(halt.scope.value, halt.trigger.value, halt.venue) for halt in daemon.kill_switch.halts()}
        monitor.check("I17", in_force == monitor.halts, f"halts in force {sorted(in_force)}, on record {sorted(monitor.halts)}")
        daemon.executor.stop_opening()
        for _ in range(3):
            for trade_id in list(daemon.executor.trades):
                daemon.executor.request_exit(trade_id, ExitReason.FORCE_EXIT, self._now())
            await self._until(running, self._now() + 120_000, daemon)
        if running.done():
            return
        monitor.check("L2", not daemon.executor.trades, f"never closed: {[t.opened.symbol for t in daemon.executor.trades.values()]}")
        self._agree(daemon)
        self._accounts(daemon)

    def _agree(self, daemon: program.Daemon) -> None:
        """I01, R11: the classes' books and the owner's part are the venue's wallet."""
        monitor, books = self.monitor, self.exchange.books
        owners = daemon.wallets.unallocated(NAME)
        mine = {"USDT": sum((daemon.portfolio.wallet_cash(one) for one in self.allocate), ZERO)}
        for one in self.allocate:
            for name, amount in daemon.portfolio.coins(one).items():
                mine[name] = mine.get(name, ZERO) + amount
        total = {name: mine.get(name, ZERO) + owners.get(name, ZERO) for name in mine.keys() | owners.keys()}
        wallet = self.exchange.wallet(self._now())
        coins = {name: amount for of in wallet.classes.values() for name, amount in of.coins.items()}
        held = {"USDT": books.wallet["USDT"], **coins, **wallet.classes[PERP].positions}
        for name in total.keys() | held.keys():
            difference = total.get(name, ZERO) - held.get(name, ZERO)
            monitor.check("I01", difference == ZERO, f"{name}: books and owner {total.get(name)}, venue {held.get(name)}")
        resting = [t.link for t in books.orders.values() if t.open and t.link.startswith(MARK)]
        monitor.check("L2", not resting, f"orders left at the venue: {resting}")

    def _accounts(self, daemon: program.Daemon) -> None:
        """I02, I03, I05, I07, I19: what the venue did stands in the journal exactly once, and nothing else does."""
        monitor, journal = self.monitor, daemon.journal
        facts = [fact for _, fact in journal.facts()]
        booked: Counter[tuple[str, str]] = Counter()
        for fact in facts:
            if isinstance(fact, Filled):
                booked[fact.fill.symbol, fact.fill.venue_trade_id] += 1
        foreign = {(fact.fill.symbol, fact.fill.venue_trade_id) for fact in facts if isinstance(fact, ForeignFill)}
        by_order: Counter[str] = Counter()
        for _, event in self.exchange.events:
            if isinstance(event, FillSeen):
                key = event.fill.symbol, event.fill.venue_trade_id
                if event.fill.client_order_id.startswith(MARK):
                    monitor.check("I02", booked[key] == 1, f"fill {key} of {event.fill.client_order_id} is booked {booked[key]} times")
                    by_order[event.fill.client_order_id] += event.fill.quantity  # type: ignore[assignment]
                else:
                    monitor.check("I02", booked[key] + (key in foreign) >= 1, f"fill {key} of the owner's is not on record")
        for link, quantity in by_order.items():
            monitor.check("I03", quantity <= self.intended(link), f"{link} filled {quantity} of {self.intended(link)}")
        self._funding(facts)
        moved: dict[str, Decimal] = {}
        for fact in facts:
            if isinstance(fact, TransferSeen | UnallocatedMoved):
                name = fact.venue_ref.partition(" ")[0]
                moved[name] = moved.get(name, ZERO) + fact.amount
        for _, event in self.exchange.events:
            if isinstance(event, Transferred):
                booked_as = moved.get(event.venue_ref)
                monitor.check("I19", booked_as == event.amount, f"transfer {event.venue_ref}: {event.amount} moved, {booked_as} booked")
        for fact in facts:
            if isinstance(fact, BalanceAdjusted) and abs(fact.amount) > ROUNDING and not self._netted(fact):
                at = (fact.at - AT) / 1000
                monitor.wrong("I01", f"at {at:.3f} s: {fact.amount} {fact.currency} of {fact.asset_class}, {fact.reason}")
        monitor.check("I07", journal.verify() == journal.count, "the journal does not verify")
        self.trades = sum(isinstance(fact, PositionClosed) for fact in facts)

    def _netted(self, fact: BalanceAdjusted) -> bool:
        return any(symbol == fact.currency and 0 <= fact.at - at <= 120_000 for at, symbol in self.exchange.netted)

    def intended(self, link: str) -> Decimal:
        order = self.monitor.intended.get(link)
        return order.quantity if order is not None else ZERO

    def _funding(self, facts: Sequence[Fact]) -> None:
        booked: dict[str, Decimal] = {}
        for fact in facts:
            if isinstance(fact, FundingBooked):
                booked[fact.venue_ref] = booked.get(fact.venue_ref, ZERO) + fact.amount
            elif isinstance(fact, UnallocatedMoved) and fact.venue_ref.endswith(" owner"):
                name = fact.venue_ref.removesuffix(" owner")
                booked[name] = booked.get(name, ZERO) + fact.amount
        for _, event in self.exchange.events:
            if isinstance(event, FundingPaid):
                amount = booked.get(event.venue_ref)
                self.monitor.check("I05", amount == event.amount, f"funding {event.venue_ref}: {event.amount} paid, {amount} booked")


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def played(seed: int, hours: float, intensity: float) -> History:
    """One history, from its beginning to its end."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        history = History(seed, hours, intensity, Path(folder))
        history.play()
    return history
