"""Owns an order's life: alone calls venue.submit and venue.cancel, resolves orders in doubt, keeps protective stops, works exits.

May refuse: a full lane. Every order was approved and journaled before it gets here; every step it takes is journaled before the next.
A submit ends in one of four fates, and the default is *in doubt*: then nothing is re-sent, the funds stay reserved, and only the
venue's own answer (or the proof of `_resolve`) ends it. Alone writes OrderSent, OrderAccepted, OrderRejected, OrderInDoubt,
OrderCanceled, OrderExpired, Filled, ForeignFill, ForeignOrder, ExitRequested and TradeAbandoned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from modules.domain.decision import Check
from modules.domain.errors import VenueBusy, VenueDenied, VenueError
from modules.domain.events import (
    ExitRequested,
    Fact,
    FeedRestored,
    Filled,
    ForeignFill,
    ForeignOrder,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderInDoubt,
    OrderRejected,
    OrderSent,
    PositionClosed,
    Scope,
    TradeAbandoned,
    TradingHalted,
    Trigger,
)
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.money import ZERO, book, from_float
from modules.domain.order import (
    WORKING,
    Accepted,
    ExitReason,
    Fate,
    Fill,
    InDoubt,
    NotSent,
    Order,
    OrderKind,
    OrderReport,
    OrderState,
    Purpose,
    Refused,
    derive_id,
)
from modules.domain.policies import CostPolicy, ExecutionPolicy, KillSwitchPolicy, Policies
from modules.domain.position import Position
from modules.domain.signal import Structure
from modules.execution.lifecycle import Lifecycle, Record, Trade
from modules.runtime import failpoint
from modules.runtime.clock import IDLE
from modules.venues.protocol import FillSeen, OrderDone, Venue, Wallet

if TYPE_CHECKING:
    from modules.Kill_Switch import KillSwitch
    from modules.Market_Data import MarketData
    from modules.Risk_Management import ApprovedOrder, RiskManagement
    from modules.runtime.clock import Clock
    from modules.store.journal import Journal

log = structlog.get_logger("Trade_Executor")

MINUTE: Final = 60_000
EXIT_RETRY_LONGEST_MS: Final = 60 * MINUTE
RESEND_MS: Final = 1_000
"""Between two attempts to reach a venue that is not there."""
MARK: Final = "tb"
"""What our client order ids begin with (derive_id)."""
SKEW_MS: Final = MINUTE
"""How much earlier than by our clock a venue may have stamped a fill of an order of ours."""


class Command(NamedTuple):
    record: Record
    cancel: bool
    reason: str


class TradeExecutor:
    def __init__(
        self, *, journal: Journal, clock: Clock, venues: Mapping[str, Venue], risk: RiskManagement, kill_switch: KillSwitch,
        market: MarketData, positions: Mapping[str, Position], policy: ExecutionPolicy, kill_policy: KillSwitchPolicy, costs: CostPolicy,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._venues = venues
        self._risk = risk
        self._kill_switch = kill_switch
        self._market = market
        self._positions = positions
        self._policy = policy
        self._kill_policy = kill_policy
        self._costs = costs
        self._lanes: dict[str, asyncio.Queue[Command]] = {name: asyncio.Queue(policy.lane_size) for name in venues}
        self._life = Lifecycle(positions, self._booked_at)
        self._orders, self._trades, self._doubts = self._life.orders, self._life.trades, self._life.doubts
        self._expiring, self._attention = self._life.expiring, self._life.attention
        self._resolving: set[str] = set()
        self._recancel: dict[str, str] = {}
        """Cancels that got no answer, or no room in the lane: client order id -> reason."""
        self._quiet_until: dict[str, int] = {}
        """Venue -> when it may be talked to again."""
        self._unprotected: dict[str, int] = {}
        """Trade -> since when what it holds has no confirmed stop under it."""
        self.owners_part: Callable[[Fill], Decimal] = lambda fill: ZERO
        """How much of what a fill moves the account's owner holds himself."""
        self._foreign: set[tuple[str, str]] = set()
        """Orders of strangers that are on record."""
        self._found_open: set[str] = set()
        """Orders in doubt and trades without a stop, as the start found them."""
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._react: dict[type, Callable[..., None]] = {
            Filled: self._on_filled, OrderAccepted: self._on_accepted, OrderRejected: self._on_ended, OrderCanceled: self._on_ended,
            OrderExpired: self._on_ended, PositionClosed: self._on_closed, TradingHalted: self._on_halted,
            FeedRestored: self._on_restored,
        }

    def adopt(self, policies: Policies) -> None:
        """Work by the owner's new numbers from the next order on."""
        self._policy, self._kill_policy = policies.execution, policies.kill_switch

    # -- what others ask ---------------------------------------------------------------------------------------------

    @property
    def trades(self) -> Mapping[str, Trade]:
        return self._trades

    @property
    def orders(self) -> Mapping[str, Record]:
        """Every order that has not ended, and those of open trades."""
        return self._orders

    @property
    def in_doubt(self) -> Sequence[Order]:
        return [record.order for record in self._doubts.values()]

    @property
    def settled(self) -> bool:
        """Whether everything a restart found in doubt or unprotected has been cleared up: until then nothing is opened."""
        if self._found_open:
            self._found_open = {name for name in self._found_open if name in self._doubts or name in self._unprotected}
        return not self._found_open

    def doubtful(self, symbol: str) -> bool:
        return any(record.order.symbol == symbol for record in self._doubts.values())

    # -- commands (plain def: nothing suspends between the decision and the lane) ------------------------------------------

    def place(self, approved: ApprovedOrder) -> bool:
        """Hand an approved, journaled order to its venue's lane. False if the lane is full: the order is canceled unsent."""
        return self._enqueue(Command(self._orders[approved.order.client_order_id], False, ""))

    def request_exit(self, trade_id: str, reason: ExitReason, at: int) -> None:
        """Close a trade; asking twice changes nothing. The wish is journaled, so a restart goes on closing."""
        trade = self._trades.get(trade_id)
        if trade is None or trade.exit_reason is not None:
            return
        self._journal.append(ExitRequested(at, trade_id, reason))
        failpoint.hit("exit.requested")
        if self._trades.get(trade_id) is trade:  # closed meanwhile, if all that was left of it was dust
            self._work_exit(trade, at)

    def move_stop(self, trade_id: str, price: Decimal, at: int) -> None:
        """Trail the protective stop to `price` (only ever toward less risk)."""
        trade = self._trades.get(trade_id)
        if trade is None or trade.exit_reason is not None or trade.stop is None:
            return
        gains = price > trade.stop if trade.opened.side == Side.BUY else price < trade.stop
        if gains:
            trade.stop, trade.stop_reason = price, ExitReason.TRAILING_STOP_LOSS
            self._protect(trade, at)

    def cancel_entries(self, covers: Callable[[AssetClass], bool], reason: str) -> int:
        """Cancel working entries; exits and protective stops always stay."""
        count = 0
        for trade in list(self._trades.values()):
            if covers(trade.opened.asset_class):
                for record in trade.working(Purpose.ENTRY):
                    self._cancel(record, reason)
                    count += 1
        return count

    def stop_opening(self) -> None:
        """Shutdown began: no entry leaves from here on."""
        self._stopping = True

    # -- what the venue says ------------------------------------------------------------------------------------------

    def on_fill(self, seen: FillSeen) -> None:
        fill = seen.fill
        if self._life.booked(fill):
            return
        record = self._life.record(fill.client_order_id)
        if record is None and not (fill.liquidation and fill.symbol in self._positions):
            self._take_foreign(fill)
            return
        done = seen.order_done or (record is not None and record.filled + fill.quantity >= record.order.quantity)
        failpoint.hit("fill.before")
        self._journal.append(Filled(fill.at, fill, done))

    def _take_foreign(self, fill: Fill) -> None:
        """Somebody else's execution. What of it cannot be his own holding was ours: the owner closed it at the venue."""
        position, owners = self._positions.get(fill.symbol), self.owners_part(fill)
        part = ZERO
        if position is not None and position.quantity * fill.side.sign < ZERO:
            his = abs(owners) if owners * fill.side.sign < ZERO else ZERO
            part = min(abs(position.quantity), max(ZERO, fill.quantity - his))
        rest = fill.quantity - part
        facts: list[Fact] = [Filled(fill.at, _part_of(fill, part, by_owner=True), True)] if part else []
        self._journal.append_all([*facts, *([ForeignFill(fill.at, _part_of(fill, rest))] if rest else [])])

    def on_done(self, done: OrderDone) -> None:
        record = self._orders.get(done.client_order_id)
        if record is None or not record.working:
            return
        failpoint.hit("done.before")
        match done.how:
            case "canceled":
                self._journal.append(OrderCanceled(done.at, done.client_order_id, done.reason))
            case "expired":
                self._journal.append(OrderExpired(done.at, done.client_order_id, done.reason))
            case _:
                self._journal.append(OrderRejected(done.at, done.client_order_id, done.how, done.reason))

    # -- projection ----------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        self._life.apply(fact)

    def _booked_at(self, at: int) -> list[Fill]:
        return [fact.fill for fact in self._journal.at(at, (Filled, ForeignFill)) if isinstance(fact, Filled | ForeignFill)]

    # -- reactor -------------------------------------------------------------------------------------------------------

    def on_fact(self, fact: Fact) -> None:
        method = self._react.get(type(fact))
        if method is not None:
            method(fact)

    def _on_filled(self, fact: Filled) -> None:
        failpoint.hit("fill.booked")
        record = self._life.record(fact.fill.client_order_id)
        if record is None and fact.fill.by_owner:
            self._closed_by_owner(fact)
            return
        trade = self._life.trade_of(record, fact.fill.symbol) if record is not None else None
        if record is None or trade is None:
            return
        if record.order.purpose is Purpose.ENTRY and not trade.covered(abs(self._held(trade, fact.fill.symbol))):
            self._unprotected.setdefault(trade.opened.trade_id, self._clock.now())
        if trade.exit_reason is not None:
            self._work_exit(trade, fact.at)
        elif trade.late:
            self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)
        elif record.order.purpose is Purpose.ENTRY and trade.opened.structure != Structure.SINGLE:
            if fact.order_done:
                self._next_leg(trade, fact.at)
        else:
            self._protect(trade, fact.at)

    def _closed_by_owner(self, fact: Filled) -> None:
        """The owner took (a part of) our position at the venue: the stop follows what is left."""
        position = self._positions.get(fact.fill.symbol)
        trade = self._trades.get(position.trade_id) if position is not None else None
        if trade is not None:
            self._attention.add(trade.opened.trade_id)

    def _on_accepted(self, fact: OrderAccepted) -> None:
        record = self._orders.get(fact.client_order_id)
        if record is None or record.order.purpose is not Purpose.STOP or not self._unprotected:
            return
        trade = self._trades.get(record.order.trade_id)
        if trade is not None and trade.covered(abs(self._held(trade, record.order.symbol))):
            self._unprotected.pop(record.order.trade_id, None)

    def _on_ended(self, fact: OrderRejected | OrderCanceled | OrderExpired) -> None:
        record = self._orders.get(fact.client_order_id)
        trade = self._trades.get(record.order.trade_id) if record is not None else None
        if record is None or trade is None or record.working:
            return
        purpose = record.order.purpose
        if purpose is Purpose.STOP:
            self._unprotected.setdefault(trade.opened.trade_id, self._clock.now())
        if purpose is Purpose.ENTRY:
            if not trade.filled and not trade.working(Purpose.ENTRY):
                self._journal.append(TradeAbandoned(fact.at, trade.opened.trade_id, fact.reason))
            elif trade.exit_reason is not None:
                self._work_exit(trade, fact.at)
            elif trade.opened.structure != Structure.SINGLE:
                if record.order.symbol == trade.opened.legs[0].symbol:
                    self._next_leg(trade, fact.at)  # it ended with a part of it filled: the other legs follow for that part
                else:
                    self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)  # half a spread is no spread
        elif purpose is Purpose.EXIT:
            # Patience grows only with what the venue had and did not fill: one that it never had waits no longer than an outage lasts.
            unseen = isinstance(fact, OrderExpired) and not record.accepted_at
            tries = trade.exit_tries[record.order.symbol] = 1 if unseen else trade.exit_tries.get(record.order.symbol, 0) + 1
            trade.exit_after[record.order.symbol] = record.order.at + min(MINUTE << min(tries - 1, 8), EXIT_RETRY_LONGEST_MS)
            self._attention.add(trade.opened.trade_id)
        elif trade.exit_reason is not None:
            self._work_exit(trade, fact.at)
        elif isinstance(fact, OrderRejected) and purpose is Purpose.STOP:
            self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)  # what cannot be protected is not held
        elif record.cancel_sent:
            self._protect(trade, fact.at)
        else:  # not our wish: put back at the next tick, not at once, or a full lane (or a stubborn venue) would keep us here for ever
            self._attention.add(trade.opened.trade_id)

    def _on_closed(self, fact: PositionClosed) -> None:
        self._unprotected.pop(fact.trade.trade_id, None)
        for record in list(self._orders.values()):
            if record.order.trade_id == fact.trade.trade_id and record.working:
                self._cancel(record, "trade closed")

    def _on_restored(self, fact: FeedRestored) -> None:
        """There is a market again: exits that waited longer and longer for one are sent at the next tick."""
        for trade_id, trade in self._trades.items():
            if trade.exit_after.pop(fact.symbol, None) is not None:
                trade.exit_tries.pop(fact.symbol, None)
                self._attention.add(trade_id)

    def _on_halted(self, fact: TradingHalted) -> None:
        failpoint.hit("halt.written")
        self.cancel_entries(fact.scope.covers, f"halted: {fact.trigger}")
        if fact.trigger.value in self._kill_policy.flatten_on:
            for trade_id, trade in list(self._trades.items()):
                if fact.scope.covers(trade.opened.asset_class):
                    self.request_exit(trade_id, ExitReason.KILL_SWITCH, fact.at)

    # -- protective orders and exits -----------------------------------------------------------------------------------

    def _held(self, trade: Trade, symbol: str) -> Decimal:
        """Signed quantity of one leg, in whole lots."""
        position = self._positions.get(symbol)
        if position is None or position.trade_id != trade.opened.trade_id:
            return ZERO
        instrument = self._market.instrument(symbol)
        return instrument.round_quantity_down(position.quantity) if instrument is not None else position.quantity

    def _protect(self, trade: Trade, at: int) -> None:
        """Make the resting stop and target cover exactly what is held: never more, and never two of them."""
        opened = trade.opened
        if trade.exit_reason is not None or opened.structure != Structure.SINGLE or opened.stop is None:
            return
        instrument = self._market.instrument(opened.symbol)
        held = self._held(trade, opened.symbol)
        if held == ZERO or instrument is None:
            return
        long = held > ZERO
        if trade.stop is None:
            trade.stop = from_float(opened.stop, instrument.tick, up=long)
        failpoint.hit("protect.before")
        wanted = [(Purpose.STOP, OrderKind.STOP, trade.stop, trade.stop_reason)]
        refused = any(r.state is OrderState.REJECTED and r.order.purpose is Purpose.TARGET for r in trade.records)  # and it would be again
        if opened.target is not None and not refused and self._venues[trade.venue].capabilities.resting_target:
            wanted.append((Purpose.TARGET, OrderKind.TARGET, from_float(opened.target, instrument.tick, up=long), ExitReason.ROI))
        for purpose, kind, price, reason in wanted:
            working = trade.working(purpose)
            if not working:
                if purpose is Purpose.TARGET and trade.refused(price, abs(held)):
                    continue  # the venue said no to this very order: the stop protects, the strategy closes
                self._send(trade, instrument, purpose, kind, -held, price, reason, at)
                failpoint.hit("protect.placed")
            elif len(working) > 1 or working[0].order.quantity - working[0].filled != abs(held) or working[0].order.price != price:
                failpoint.hit("protect.resize")
                for record in working:  # its end calls us again, and then the right one is placed
                    self._cancel(record, "resize")

    def _work_exit(self, trade: Trade, at: int) -> None:
        """Send what is still missing to be flat: the risky legs (short) first, then the rest. What failed is tried again with patience."""
        for record in trade.working(Purpose.ENTRY):
            self._cancel(record, "exit")
        held = {leg: self._held(trade, leg) for leg in self._symbols(trade)}
        shorts = {symbol: quantity for symbol, quantity in held.items() if quantity < ZERO}
        multi = len(held) > 1
        for symbol, quantity in (shorts if multi and shorts else held).items():
            if quantity == ZERO or trade.working(Purpose.EXIT, symbol=symbol):
                continue
            if at < trade.exit_after.get(symbol, 0):
                self._attention.add(trade.opened.trade_id)
                continue
            instrument = self._market.instrument(symbol)
            if instrument is None or trade.exit_reason is None:
                self._attention.add(trade.opened.trade_id)
                continue
            if self._locked(trade, instrument):
                continue
            self._send(trade, instrument, Purpose.EXIT, OrderKind.MARKET, -quantity, None, trade.exit_reason, at)

    def _locked(self, trade: Trade, instrument: Instrument) -> bool:
        """Where resting orders lock the coins they would sell, the stop has to go before the exit can; its end calls us again."""
        if instrument.asset_class is not AssetClass.SPOT or self._venues[trade.venue].capabilities.resting_target:
            return False
        resting = [r for r in trade.working(Purpose.STOP, Purpose.TARGET) if r.state is not OrderState.IN_DOUBT]
        for record in resting:
            self._cancel(record, "exit")
        return bool(resting)

    def _symbols(self, trade: Trade) -> tuple[str, ...]:
        return tuple(leg.symbol for leg in trade.opened.legs) or (trade.opened.symbol,)

    def _next_leg(self, trade: Trade, at: int) -> None:
        sent = {record.order.symbol for record in trade.records if record.order.purpose is Purpose.ENTRY}
        for leg in trade.opened.legs:
            if leg.symbol in sent:
                continue
            instrument = self._market.instrument(leg.symbol)
            done = next(r for r in trade.records if r.order.symbol == trade.opened.legs[0].symbol)
            if instrument is None or trade.exit_reason is not None:
                self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, at)
                return
            self._send(trade, instrument, Purpose.ENTRY, OrderKind.MARKET, leg.side.sign * min(leg.quantity, done.filled), None, None, at)
            return

    def _send(
        self, trade: Trade, instrument: Instrument, purpose: Purpose, kind: OrderKind, quantity: Decimal, price: Decimal | None,
        reason: ExitReason | None, at: int,
    ) -> None:
        side = Side.BUY if quantity > ZERO else Side.SELL
        timeout = self._policy.unfilledtimeout_entry_s if purpose is Purpose.ENTRY else self._policy.unfilledtimeout_exit_s
        order = Order(
            client_order_id=derive_id(trade.opened.trade_id, instrument.symbol, trade.opened.at, side, purpose,
                                      trade.attempts(purpose, instrument.symbol)),
            trade_id=trade.opened.trade_id, decision_id=trade.opened.decision_id, strategy=trade.opened.strategy, venue=trade.venue,
            symbol=instrument.symbol, asset_class=instrument.asset_class, side=side, quantity=abs(quantity), kind=kind, purpose=purpose,
            price=price, reduce_only=purpose is not Purpose.ENTRY, leverage=trade.records[0].order.leverage,
            arrival_price=price if price is not None else self._mid(instrument.symbol, at),
            slippage_model_bp=self.modelled_slippage_bp(instrument, kind), reserves=ZERO, at=at,
            expires_at=at + int(timeout * 1000) if kind is OrderKind.MARKET else None, exit_reason=reason,
        )
        if purpose is not Purpose.ENTRY:
            self.place(self._risk.approve_exit(order))
            return
        approved = self._risk.approve_follow_up(order)
        if isinstance(approved, Check):  # the rest of the structure may not be opened: what is there is closed
            self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, at)
        else:
            failpoint.hit("follow_up.intended")
            self.place(approved)

    def modelled_slippage_bp(self, instrument: Instrument, kind: OrderKind) -> Decimal:
        """What the cost model expects of an order of negligible size, basis points against arrival."""
        model = self._costs.of(instrument.asset_class)
        if kind is OrderKind.TARGET:
            return ZERO
        beyond = model.stop_slippage_bp if kind is OrderKind.STOP else model.half_spread_bp
        return Decimal(repr(round(model.slippage_bp + beyond, 6)))

    def _mid(self, symbol: str, at: int) -> Decimal:
        quote = self._market.quote(symbol)
        if quote is not None:
            return Decimal(repr(quote.mid))
        mark = self._market.mark(symbol, at)
        if mark is not None:
            return mark
        position = self._positions.get(symbol)
        return position.entry if position is not None else ZERO

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, at: int) -> int | None:
        """Unfilled timeouts, exits to try again, stops to put back. Without a trade nothing of that can come up."""
        if self._expiring:
            for record in [r for r in self._expiring.values() if r.order.expires_at is not None and r.order.expires_at <= at]:
                if record.state is OrderState.ACCEPTED and not record.cancel_sent:
                    self._cancel(record, "unfilledtimeout")
        if self._recancel:
            again, self._recancel = self._recancel, {}
            for client_order_id, reason in again.items():
                if (known := self._orders.get(client_order_id)) is not None and known.working:
                    self._cancel(known, reason)
        if self._unprotected:
            self._back_up(at)
        if self._attention:
            for trade_id in list(self._attention):
                trade = self._trades[trade_id]
                self._attention.discard(trade_id)
                if trade.exit_reason is not None:
                    self._work_exit(trade, at)
                else:
                    self._protect(trade, at)
        return None if self._trades or self._expiring or self._recancel or self._attention else IDLE

    def _back_up(self, at: int) -> None:
        """What could not be protected in time is not held: the stop is ours to be if the venue's does not stand."""
        for trade_id, since in list(self._unprotected.items()):
            trade = self._trades.get(trade_id)
            held = ZERO if trade is None else abs(self._held(trade, trade.opened.symbol))
            guarded = trade is not None and trade.opened.structure == Structure.SINGLE and trade.opened.stop is not None
            if trade is None or not guarded or trade.exit_reason is not None or held == ZERO or trade.covered(held):
                del self._unprotected[trade_id]
            elif at - max(since, self._quiet_until.get(trade.venue, 0)) >= self._policy.protect_within_s * 1000 * self._clock.speed:
                del self._unprotected[trade_id]
                log.error("no stop stands at the venue", action="protect", trade_id=trade_id, reason=f"for {(at - since) / 1000:g} s")
                self.request_exit(trade_id, ExitReason.EMERGENCY_EXIT, at)

    # -- lanes ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work every venue's lane for ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for record in list(self._doubts.values()):
                self._ask(record)
            for name, venue in self._venues.items():
                group.create_task(self._lane(venue, self._lanes[name]), name=f"lane {name}")
            group.create_task(self._clock.drive(1.0, self.tick), name="executor tick")

    def _enqueue(self, command: Command) -> bool:
        try:
            self._lanes[command.record.order.venue].put_nowait(command)
        except asyncio.QueueFull:
            if command.cancel:
                command.record.cancel_sent = False
                self._recancel[command.record.order.client_order_id] = command.reason
            else:
                self._journal.append(OrderCanceled(self._clock.now(), command.record.order.client_order_id, "lane full"))
            return False
        return True

    def _cancel(self, record: Record, reason: str) -> None:
        if record.state is OrderState.INTENT:  # still in the lane: it ends here and never leaves
            self._journal.append(OrderCanceled(self._clock.now(), record.order.client_order_id, reason))
        elif not record.cancel_sent:
            record.cancel_sent = True
            self._enqueue(Command(record, True, reason))

    async def _lane(self, venue: Venue, lane: asyncio.Queue[Command]) -> None:
        while True:
            await self._work(venue, await lane.get())

    async def _work(self, venue: Venue, command: Command) -> None:
        await self._clock.sleep_until(self._quiet_until.get(venue.name, 0))
        if command.cancel:
            await self._send_cancel(venue, command)
        else:
            await self._send_order(venue, command.record)

    async def _send_order(self, venue: Venue, record: Record) -> None:
        order = record.order
        at = self._clock.now()
        if record.state is not OrderState.INTENT:
            return
        if order.purpose is Purpose.ENTRY and self._stopping:
            self._journal.append(OrderCanceled(at, order.client_order_id, "shutting down"))
            return
        if order.expires_at is not None and order.expires_at <= at:
            self._journal.append(OrderExpired(at, order.client_order_id, "too old before it could be sent"))
            return
        failpoint.hit("order.before_sent")
        self._journal.append(OrderSent(at, order.client_order_id))
        failpoint.hit("order.sent")
        fate = await self._submit(venue, order)
        while isinstance(fate, NotSent) and (again := self._again_at(venue, record, fate)) is not None:
            await self._clock.sleep_until(again)
            if not record.working or record.cancel_sent or (self._stopping and order.purpose is Purpose.ENTRY):
                break
            fate = await self._submit(venue, order)
        failpoint.hit("order.answered")
        self._book_fate(venue, record, fate)
        failpoint.hit("order.fate_booked")

    async def _submit(self, venue: Venue, order: Order) -> Fate:
        try:
            async with asyncio.timeout(self._policy.submit_timeout_s):
                return await venue.submit(order)
        except TimeoutError:
            return InDoubt(f"no answer within {self._policy.submit_timeout_s:g} s")

    def _again_at(self, venue: Venue, record: Record, fate: NotSent) -> int | None:
        """When an order that provably did not arrive may be sent again with the same id; None = not again. Never before a ban ends, an
        entry only while its decision is fresh, anything else while it still protects what it was meant for."""
        now = self._clock.now()
        self._mind(venue, fate.until)
        self._kill_switch.on_call(venue.name, now, False, "error" if fate.until is None else "rate_limit", fate.message, fate.until)
        again = max(now + RESEND_MS, fate.until or 0)
        fresh_s = self._policy.resend_within_s if record.order.purpose is Purpose.ENTRY else self._policy.protect_within_s
        return again if again <= record.order.at + int(fresh_s * 1000 * self._clock.speed) else None

    def _mind(self, venue: Venue, until: int | None) -> None:
        if until is not None:
            self._quiet_until[venue.name] = max(until, self._quiet_until.get(venue.name, 0))

    def _book_fate(self, venue: Venue, record: Record, fate: Fate) -> None:
        at, client_order_id = self._clock.now(), record.order.client_order_id
        match fate:
            case Accepted(venue_order_id):
                self._kill_switch.on_call(venue.name, at, True, "", "")
                self._journal.append(OrderAccepted(at, client_order_id, venue_order_id))
            case Refused(code, message, denied):
                # It answered, so the venue is healthy; unless it is us it does not accept.
                self._kill_switch.on_call(venue.name, at, not denied, "authentication" if denied else "", message if denied else "")
                self._journal.append(OrderRejected(at, client_order_id, code, message))
            case NotSent(message):  # counted as a failure where it was decided whether to send again
                self._journal.append(OrderExpired(at, client_order_id, f"never left: {message}"))
            case InDoubt(message):
                self._kill_switch.on_call(venue.name, at, False, "error", message)
                self._journal.append(OrderInDoubt(at, client_order_id, message))
                self._ask(record)

    async def _send_cancel(self, venue: Venue, command: Command) -> None:
        record = command.record
        if not record.working:
            return
        failpoint.hit("cancel.before")
        fate = await self._cancel_at(venue, record.order)
        failpoint.hit("cancel.answered")
        self._note_cancel(venue, command, fate)

    def _note_cancel(self, venue: Venue, command: Command, fate: Fate) -> None:
        """Accepted: the end comes as an account event. Unanswered: again at the next tick. Refused: nobody knows what became of it."""
        record, at = command.record, self._clock.now()
        answered = isinstance(fate, Accepted | Refused)
        message = "" if isinstance(fate, Accepted) else fate.message
        denied, until = isinstance(fate, Refused) and fate.denied, fate.until if isinstance(fate, NotSent) else None
        self._mind(venue, until)
        kind = "authentication" if denied else "rate_limit" if until is not None else "" if answered else "error"
        self._kill_switch.on_call(venue.name, at, not kind, kind, message if kind else "", until)
        if isinstance(fate, Accepted):
            record.cancel_acknowledged_at = at
            if record.working and record.order.purpose is Purpose.STOP and record.order.trade_id in self._trades:
                self._unprotected.setdefault(record.order.trade_id, at)  # until the next one stands, whether or not its end is told
        if isinstance(fate, Accepted) or not record.working:
            return
        record.cancel_sent = False
        if not answered:
            self._recancel[record.order.client_order_id] = command.reason
        elif record.state is not OrderState.IN_DOUBT:
            self._journal.append(OrderInDoubt(at, record.order.client_order_id, f"cancel refused: {message}"))
            self._ask(record)

    async def _cancel_at(self, venue: Venue, order: Order) -> Fate:
        try:
            async with asyncio.timeout(self._policy.submit_timeout_s):
                return await venue.cancel(order)
        except TimeoutError:
            return InDoubt(f"no answer to a cancel within {self._policy.submit_timeout_s:g} s")

    # -- in doubt -------------------------------------------------------------------------------------------------------

    def _ask(self, record: Record) -> None:
        """Begin to resolve an order in doubt; once per order, and not before the lanes run (`run` begins with those found at start)."""
        client_order_id = record.order.client_order_id
        if self._group is not None and client_order_id not in self._resolving:
            self._resolving.add(client_order_id)
            self._group.create_task(self._resolve(record), name=f"doubt {client_order_id}")

    async def _resolve(self, record: Record) -> None:
        try:
            await self._find_out(record)
        finally:
            self._resolving.discard(record.order.client_order_id)

    async def _find_out(self, record: Record) -> None:
        """Ask the venue until the order is found or its absence is proven (reliability.md section 3).

        Proof: enough spaced misses over enough time, a full trade history since the sending without it, a cancel by client id as a
        fence, and one more miss. Only then does it end as OrderExpired; the strategy may decide anew, nothing is re-sent here.
        """
        order, venue = record.order, self._venues[record.order.venue]
        began, misses, tries = self._clock.now(), 0, 0
        while record.state is OrderState.IN_DOUBT:
            spacing = self._policy.doubt_query_spacing_s
            await self._clock.sleep_until(self._clock.now() + int(spacing[min(tries, len(spacing) - 1)] * 1000.0))
            tries += 1
            failpoint.hit("doubt.asking")
            try:
                report = await venue.order(order.client_order_id, order.symbol)
                fills = await venue.fills_since(order.at - SKEW_MS)
            except VenueError as error:
                self._kill_switch.on_failure(venue.name, self._clock.now(), error)
                if isinstance(error, VenueBusy):
                    self._mind(venue, error.until)
                    await self._clock.sleep_until(error.until)
                continue
            self._kill_switch.on_call(venue.name, self._clock.now(), True, "", "")
            for seen in fills:
                if seen.fill.client_order_id == order.client_order_id:
                    self.on_fill(seen)
            if report is not None:
                self._adopt(record, report)
                continue
            misses += 1
            waited = (self._clock.now() - began) / 1000.0
            if misses >= self._policy.doubt_misses_min and waited >= self._policy.doubt_proof_s:
                await self._cancel_at(venue, order)
                try:
                    report = await venue.order(order.client_order_id, order.symbol)
                except VenueError:
                    continue
                failpoint.hit("doubt.fenced")
                if report is not None:
                    self._adopt(record, report)
                elif record.state is OrderState.IN_DOUBT:
                    what = "never placed" if record.filled == ZERO else "the venue has no more of it"
                    self._journal.append(OrderExpired(self._clock.now(), order.client_order_id, f"{what}: {misses} misses"))

    def _adopt(self, record: Record, report: OrderReport) -> None:
        """Take the venue's word for what became of an order, once all the fills it speaks of are booked; until then it stays in doubt."""
        at, client_order_id = self._clock.now(), report.client_order_id
        if not record.working or report.filled > record.filled:
            return
        match report.state:
            case OrderState.CANCELED:
                self._journal.append(OrderCanceled(at, client_order_id, "found canceled"))
            case OrderState.EXPIRED:
                self._journal.append(OrderExpired(at, client_order_id, "found expired"))
            case OrderState.REJECTED:
                self._journal.append(OrderRejected(at, client_order_id, "found", "found rejected"))
            case _:
                self._journal.append(OrderAccepted(at, client_order_id, report.venue_order_id))

    # -- start ----------------------------------------------------------------------------------------------------------

    async def catch_up(self, venue: Venue, wallet: Wallet) -> None:
        """After a start: book the fills that happened while nobody listened, ask about orders the venue no longer lists as working,
        and cancel those of ours that rest there though we have done with them. Raises VenueError if the venue cannot be asked."""
        working = [r for r in self._orders.values() if r.order.venue == venue.name and r.state is OrderState.ACCEPTED]
        if working:
            # Every order that could have filled unseen was working at our last word, so the oldest of them says how far back to ask.
            for seen in await venue.fills_since(min(record.order.at for record in working) - SKEW_MS):
                self.on_fill(seen)
        await self.look_after(venue, wallet, starting=True)

    def unlisted(self, venue: str, wallet: Wallet, *, starting: bool = False) -> list[Record]:
        """Our working orders that the venue does not list though it has had them for a while: they ended and nobody told us, or it does
        not know them."""
        listed = {report.client_order_id for report in wallet.open_orders}
        until = self._clock.now() if starting else wallet.at - int(self._policy.wallet_settle_s * 1000)
        return [record for record in self._orders.values() if record.state is OrderState.ACCEPTED and record.order.venue == venue
                and record.order.client_order_id not in listed and record.accepted_at <= until]

    async def look_after(self, venue: Venue, wallet: Wallet, *, starting: bool = False) -> None:
        """Hold the venue's open orders against ours: ask about those it lists no more, cancel those of ours that rest there though we
        have done with them, and put strangers on record. Raises VenueError; VenueDenied if another daemon's orders are found at start."""
        for record in self.unlisted(venue.name, wallet, starting=starting):
            report = await venue.order(record.order.client_order_id, record.order.symbol)
            if record.state is not OrderState.ACCEPTED:
                continue
            if report is not None and report.state not in WORKING:
                self._adopt(record, report)
            elif report is None:
                self._journal.append(OrderInDoubt(self._clock.now(), record.order.client_order_id, "the venue does not list it"))
                self._ask(record)
        for report in wallet.open_orders:
            known = self._life.record(report.client_order_id)
            if known is None:
                self._note_foreign(venue, report, starting=starting)
            elif not known.working:
                await self._cancel_at(venue, known.order)
            elif self._stood_canceled(known, wallet.at):
                known.cancel_sent, known.cancel_acknowledged_at = False, 0
                self._cancel(known, "its cancel was acknowledged and not carried out")

    def _stood_canceled(self, record: Record, at: int) -> bool:
        """Whether a venue that acknowledged a cancel still lists the order at `at`, long after."""
        acknowledged = record.cancel_acknowledged_at
        return bool(record.cancel_sent and acknowledged and at - acknowledged >= self._policy.wallet_settle_s * 1000)

    def _note_foreign(self, venue: Venue, report: OrderReport, *, starting: bool) -> None:
        """By hand it is the owner's business. With our mark it is another daemon's: two of them on one account undo each other."""
        another = report.client_order_id.startswith(MARK)
        what = f"{venue.name}: order {report.client_order_id} on {report.symbol} is another daemon's"
        if another and starting:
            raise VenueDenied(f"{what}: stop that one, or (where a journal was lost) cancel it in the venue's app; then start again")
        if (venue.name, report.venue_order_id) in self._foreign:
            return
        self._foreign.add((venue.name, report.venue_order_id))
        at = self._clock.now()
        self._journal.append(ForeignOrder(at, venue.name, report.symbol, report.venue_order_id, report.client_order_id))
        if another:
            self._kill_switch.halt(Scope.ALL, Trigger.MANUAL, at=at, measured="an order that is not ours", limit="none", reason=what,
                                   venue=venue.name)

    async def protect(self, venue: Venue) -> None:
        """At start, before anything that takes long: put back the stops that are gone and send the exits that were wanted."""
        self.tick(self._clock.now())
        lane = self._lanes[venue.name]
        while not lane.empty():
            await self._work(venue, lane.get_nowait())

    def recover(self, at: int) -> None:
        """After replay: what was never sent ends, what may have been sent is in doubt, what should be closed gets attention."""
        for record in list(self._orders.values()):
            if record.state is OrderState.INTENT:
                self._journal.append(OrderExpired(at, record.order.client_order_id, "not sent before the restart"))
            elif record.state is OrderState.SENT:
                self._journal.append(OrderInDoubt(at, record.order.client_order_id, "sent, and no answer before the restart"))
        for trade_id, trade in list(self._trades.items()):
            if not trade.filled and not trade.working(Purpose.ENTRY):
                self._journal.append(TradeAbandoned(at, trade_id, "no fill before the restart"))
            elif trade.late or (trade.filled and not trade.working(Purpose.ENTRY) and self._incomplete(trade)):
                self.request_exit(trade_id, ExitReason.EMERGENCY_EXIT, at)
            else:
                self._attention.add(trade_id)
                if trade.filled and not trade.covered(abs(self._held(trade, trade.opened.symbol))):
                    self._unprotected[trade_id] = at
        for record in list(self._orders.values()):
            if record.order.trade_id not in self._trades:  # its trade has ended: nothing of it may stay at the venue
                self._cancel(record, "trade closed")
        self._found_open = {*self._doubts, *self._unprotected}

    def _incomplete(self, trade: Trade) -> bool:
        """A structure of which a leg was never sent: what it was decided on is history now, so what there is of it is closed."""
        sent = {record.order.symbol for record in trade.records if record.order.purpose is Purpose.ENTRY}
        return trade.exit_reason is None and any(leg.symbol not in sent for leg in trade.opened.legs)


def _part_of(fill: Fill, quantity: Decimal, *, by_owner: bool = False) -> Fill:
    """So much of an execution, with its share of the fee."""
    fee = fill.fee if quantity == fill.quantity else book(fill.fee * quantity / fill.quantity)
    return replace(fill, quantity=quantity, fee=fee, client_order_id="", by_owner=by_owner)
