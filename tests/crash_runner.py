"""The whole daemon on the demo market, to be stopped, killed and started again: what the restart and crash tests stand on.

Time is virtual, so a demo day costs about a second. The strategies are hair triggers: they enter and leave every class all day long with
stops near enough to be hit, so that every journal step of an order's life happens many times in half a day. As a program it runs one
daemon until the market ends, or dies at FAILPOINT on the way:

    python -m tests.crash_runner STATE_FOLDER HOURS
"""

from __future__ import annotations

import asyncio
import copy
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog

import main
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass
from modules.domain.market import Bar
from modules.domain.order import Fate, Order, Purpose
from modules.domain.policies import Policies
from modules.domain.signal import Intent, Structure
from modules.news.calendar import Calendar
from modules.runtime import failpoint
from modules.runtime.clock import VirtualClock, VirtualLoop
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.strategies.protocol import Market, Strategy
from modules.venues.demo_market import DemoMarket
from modules.venues.paper_venue import PaperVenue
from modules.venues.protocol import Step
from tests.builders import shipped_policies

SEED = 7
HOUR_MS = 3_600_000
CASH = {AssetClass.SPOT: Decimal(4000), AssetClass.PERP: Decimal(4900), AssetClass.OPTION: Decimal(15000), AssetClass.FOREX: Decimal(25000)}


# -- hair triggers -----------------------------------------------------------------------------------------------------


class Pulse(NamedTuple):
    """In for `on` bars of every `period`, beginning at `phase`; one side after the other. Stop and target are fractions of the price."""

    period: int
    on: int
    phase: int
    stop: float
    target: float
    both_sides: bool


def step(state: int, market: Market, params: Pulse) -> tuple[int, Intent]:
    bar = int(market.at) // 300_000 + params.phase
    if bar % params.period >= params.on:
        return state, Intent()
    sign = -1.0 if params.both_sides and bar // params.period % 2 else 1.0
    return state, Intent(0.8 * sign, market.close * params.stop, market.close * params.target, params.on)


def _pulse(name: str, classes: tuple[AssetClass, ...], params: Pulse, structure: Structure = Structure.SINGLE, days: float = 0.0,
           delta: float = 0.0, width: float = 0.0) -> Strategy:
    return Strategy(name, name, classes, params, lambda _: 0, step, 1, structure=structure, days=days, delta=delta, width=width)


HAIR_TRIGGERS = (
    _pulse("short_breath", (AssetClass.SPOT,), Pulse(9, 5, 0, 0.0025, 0.003, False)),
    _pulse("two_sided", (AssetClass.PERP,), Pulse(8, 8, 2, 0.0022, 0.004, True)),
    _pulse("tides", (AssetClass.FOREX,), Pulse(7, 5, 3, 0.0009, 0.0006, True)),
    _pulse("calls", (AssetClass.OPTION,), Pulse(22, 14, 1, 0.0, 0.0, True), Structure.LONG_OPTION, 3.0, 0.45),
    _pulse("verticals", (AssetClass.OPTION,), Pulse(16, 12, 5, 0.0, 0.0, True), Structure.CREDIT_SPREAD, 6.0, 0.30, 0.02),
)


def strategies() -> dict[AssetClass, list[Strategy]]:
    return {c: [strategy for strategy in HAIR_TRIGGERS if c in strategy.asset_classes] for c in AssetClass}


@cache
def policies() -> Policies:
    """The shipped ones, but for a trader who never tires, stops that trail, and orders in doubt that are asked about every few seconds."""
    shipped = shipped_policies()
    risk = shipped.risk.model_copy(update={
        "cooldown_losses": 1_000, "cooldown_stop_outs": 1_000, "correlated_others_max": 9, "expiry_days_min": 1, "option_delta_max": 2,
    })
    execution = shipped.execution.model_copy(update={
        "doubt_query_spacing_s": (1.0, 2.0), "doubt_misses_min": 3, "doubt_proof_s": 5.0,
        "break_even_at_r": 0.3, "trail_at_r": 0.6, "trail_distance_r": 0.5})
    return shipped.model_copy(update={"risk": risk, "execution": execution})


# -- a market with transfers ----------------------------------------------------------------------------------------------


class Market24(DemoMarket):
    """The demo market of some hours, with a deposit and a withdrawal early enough for a short test."""

    def __init__(self, hours: float, seed: int = SEED) -> None:
        super().__init__(seed, max(1, math.ceil(hours / 24)))
        self.stop_after(hours)
        self.transfers = {
            self.start + 2 * HOUR_MS: (AssetClass.SPOT, Decimal(600)),
            self.start + 5 * HOUR_MS: (AssetClass.FOREX, Decimal(-2500)),
        }

    def stop_after(self, hours: float) -> None:
        self._until = self.start + int(hours * HOUR_MS)

    def history(self, symbol: str, until: int, bars: int) -> Sequence[Bar]:
        """Two days of it: nothing here looks further back, and a start is what these tests do most."""
        return super().history(symbol, until, min(bars, 2 * 288))

    def resume(self, at: int) -> Iterator[Step]:
        return self._with_transfers(super().resume(at))

    def steps(self) -> Iterator[Step]:
        return self._with_transfers(super().steps())

    def _with_transfers(self, steps: Iterator[Step]) -> Iterator[Step]:
        for one in steps:
            if one.at > self._until:
                return
            yield one._replace(transfers=(self.transfers[one.at],)) if one.at in self.transfers else one


@cache
def whole_market() -> Market24:
    """The longest one, its days made: forked processes inherit it."""
    made = Market24(24)
    made.history("BTC/USDT", made.end, 1)
    return made


@cache
def market(hours: float) -> Market24:
    """The first `hours` (24 at most) of it. They share its days."""
    part = copy.copy(whole_market())
    part.stop_after(hours)
    return part


# -- a venue that keeps a log of what reached it ----------------------------------------------------------------------------


class Witness:
    """Notes in a file beside the journal what really reached the venue: evidence that does not come from the daemon."""

    def __init__(self, venue: PaperVenue, path: Path) -> None:
        self._submit = venue.submit
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    async def submit(self, order: Order) -> Fate:
        os.write(self._log, f"{order.client_order_id} {order.symbol} {order.side} {order.quantity} {order.purpose}\n".encode())
        return await self._submit(order)

    def close(self) -> None:
        os.close(self._log)


def reached_venue(folder: Path) -> list[list[str]]:
    """[client order id, symbol, side, quantity, purpose] of every submit, oldest first."""
    path = folder / "venue.log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# -- one life of the daemon ----------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """A daemon that has run and ended: its parts are still there to be looked at."""

    daemon: main.Daemon
    venue: PaperVenue
    journal: Journal
    loop: VirtualLoop
    differences_at_start: int
    differences: int

    def close(self) -> None:
        self.journal.close()
        self.daemon.decisions.close()
        self.loop.close()


def live(
    folder: Path, source: DemoMarket, *, until: int | None = None, durable: bool = False, hook: Callable[[Life, int], None] | None = None,
    chosen: dict[AssetClass, list[Strategy]] | None = None, observers: Sequence[Callable[[Fact], None]] = (),
    on_started: Callable[[Life], None] | None = None,
) -> Life:
    """Start (or start again) on the journal in `folder`, run to the end of the market or to `until` (UTC ms, then a graceful stop)."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    journal = Journal(folder / "journal.sqlite", durable=durable, reserve_bytes=0)
    start = max(source.start, main.resume_at(journal) or 0)
    loop = VirtualLoop(start)
    asyncio.set_event_loop(loop)
    clock = VirtualClock(loop)
    life: Life

    def after_batch(at: int) -> None:
        if hook is not None:
            hook(life, at)
        if until is not None and at >= until:
            life.daemon.stop()

    plan = main.simulated_plan(
        source, mode="demo", policies=policies(), clock=clock, journal=journal, decisions=Decisions(None), wallets=CASH,
        calendar=Calendar(source.macro_events, policies().news, {}), strategies=chosen or strategies(), halt_file=folder / "HALT",
        after_batch=(after_batch,), observers=observers)
    (venue,) = plan.venues.values()
    assert isinstance(venue, PaperVenue)
    witness = Witness(venue, folder / "venue.log")
    venue.submit = witness.submit  # type: ignore[method-assign]
    life = Life(main.Daemon(plan), venue, journal, loop, 0, 0)

    async def whole() -> None:
        await life.daemon.start()
        life.differences_at_start = life.daemon.wallets.compare(venue.name, await venue.wallet())
        if on_started is not None:
            on_started(life)
        await life.daemon.run()
        await clock.settle()
        life.differences = life.daemon.wallets.compare(venue.name, await venue.wallet())

    try:
        loop.run_until_complete(whole())
    finally:
        asyncio.set_event_loop(None)
        witness.close()
    journal.flush()
    return life


def report(life: Life) -> dict[str, object]:
    """What the tests ask of a daemon that has run."""
    daemon = life.daemon
    return {
        "differences_at_start": life.differences_at_start, "differences": life.differences, "unprotected": unprotected(life),
        "state_hash": daemon.portfolio.state_hash(), "kill_hash": daemon.kill_switch.state_hash(), "replayed": replayed(life),
        "in_doubt": len(daemon.executor.in_doubt), "facts": life.journal.verify(), "head": life.journal.head,
        "halts": [str(halt.trigger) for halt in daemon.kill_switch.halts()], "open": len(daemon.executor.trades),
        "closed": len(daemon.portfolio.closed), "quarantined": [q.reason for q in daemon.strategies.quarantined],
    }


def unprotected(life: Life) -> list[str]:
    """Open trades that should have a stop at the venue for exactly what they hold, and have none, too many, or no exit under way."""
    daemon = life.daemon
    resting = {working.order.client_order_id for working in life.venue._desk.orders.values() if working.works}
    found = []
    for trade_id, trade in daemon.executor.trades.items():
        held = daemon.portfolio.positions.get(trade.opened.symbol)
        if trade.opened.structure != Structure.SINGLE or trade.opened.stop is None or held is None or trade.exit_reason is not None:
            continue
        stops = [r for r in trade.working(Purpose.STOP) if r.order.client_order_id in resting]
        lots = daemon.market.series[trade.opened.symbol].instrument.round_quantity_down(abs(held.quantity))
        if len(stops) != 1 or stops[0].order.quantity - stops[0].filled != lots:
            found.append(f"{trade_id} {trade.opened.symbol} holds {held.quantity}, stops {[str(r.order.quantity) for r in stops]}")
    return found


def replayed(life: Life) -> list[str]:
    """What a fresh replay of the journal rebuilds differently from what the daemon has: nothing, if facts are the whole truth."""
    plan = life.daemon.plan
    fresh = main.Daemon(main.Plan(**{
        **{name: getattr(plan, name) for name in plan.__dataclass_fields__}, "journal": Journal(None), "observers": (), "after_batch": ()}))
    plan.journal.rebuild(fresh.journal._projections)
    fresh.market.list_instruments([s.instrument for s in life.daemon.market.series.values()], life.venue.interval_ms)
    pairs = {
        "books": (life.daemon.portfolio.state_hash(), fresh.portfolio.state_hash()),
        "kill switch": (life.daemon.kill_switch.state_hash(), fresh.kill_switch.state_hash()),
        "orders": (orders_of(life.daemon), orders_of(fresh)),
        "trades": (trades_of(life.daemon), trades_of(fresh)),
        "reservations": ({c: life.daemon.funds.reserved(c) for c in AssetClass}, {c: fresh.funds.reserved(c) for c in AssetClass}),
        "pauses": ({c: life.daemon.risk.paused(c) for c in AssetClass}, {c: fresh.risk.paused(c) for c in AssetClass}),
    }
    return [f"{name}: {live} != {again}" for name, (live, again) in pairs.items() if live != again]


def orders_of(daemon: main.Daemon) -> dict[str, tuple[str, Decimal]]:
    return {key: (record.state.value, record.filled) for key, record in daemon.executor.orders.items()}


def trades_of(daemon: main.Daemon) -> dict[str, tuple[str, str, bool, str]]:
    trades = daemon.executor.trades
    return {key: (trade.opened.symbol, str(trade.exit_reason), trade.filled, str(trade.stop)) for key, trade in trades.items()}


# -- as a process --------------------------------------------------------------------------------------------------------------


def run_once(folder: str, hours: float, specification: str = "") -> None:
    """One life in this process, to be killed or to leave its report in report.json."""
    failpoint.arm(specification)
    life = live(Path(folder), market(hours), durable=True)
    document = report(life)
    (Path(folder) / "report.json").write_text(json.dumps(document, default=str))
    life.close()


if __name__ == "__main__":
    run_once(sys.argv[1], float(sys.argv[2]), os.environ.get("FAILPOINT", ""))
