"""Owns an order's life: alone calls venue.submit and venue.cancel, resolves orders in doubt, keeps protective stops, works exits.

May refuse: a full lane. Every order was approved and journaled before it gets here; every step it takes is journaled before the next.
A submit ends in one of four fates, and the default is *in doubt*: then nothing is re-sent, the funds stay reserved, and only the
venue's own answer (or the proof that execution/doubt.py demands) ends it. What a trade needs next is decided in execution/keeper.py;
execution/wire.py is the hands; whatever becomes of an order is put on record here. Alone writes OrderSent, OrderAccepted, OrderRejected,
OrderInDoubt, OrderCanceled, OrderExpired, Filled, ForeignFill, ForeignOrder, ExitRequested and TradeAbandoned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

import structlog

from modules.domain.decision import Check
from modules.domain.errors import VenueDenied, VenueError
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
from modules.domain.money import ZERO
from modules.domain.order import (
    DRILL_MARK,
    MARK,
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
)
from modules.domain.policies import CostPolicy, ExecutionPolicy, KillSwitchPolicy, Policies
from modules.domain.position import Position
from modules.execution import cover, structures
from modules.execution.doubt import Doubts
from modules.execution.keeper import Keeper
from modules.execution.lanes import Command, Lanes
from modules.execution.lifecycle import Lifecycle, Record, Trade
from modules.execution.roundup import RoundUp
from modules.execution.sending import follow_up
from modules.execution.strangers import divided_fill
from modules.execution.wire import Wire
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
        self._life = Lifecycle(positions, self._booked_at)
        self._orders, self._trades, self._doubts = self._life.orders, self._life.trades, self._life.doubts
        self._expiring, self._attention = self._life.expiring, self._life.attention
        self._recancel: dict[str, str] = {}
        """Cancels that got no answer, or no room in the lane: client order id -> reason."""
        self._ends: dict[str, OrderDone] = {}
        """Ends that were told before all the fills they speak of."""
        self._foreign: set[tuple[str, str]] = set()
        """Orders of strangers that are on record."""
        self._unexplained: Callable[[str, str], Decimal] = lambda venue, symbol: ZERO
        self._reached: set[str] = set()
        """Venues that have answered since the start: from then on a position that is bare there is counted."""
        self._found_open: set[str] = set()
        """Orders in doubt and trades without a stop, as the start found them."""
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._wire = Wire(clock, kill_switch, lambda: self._policy)
        self._lanes = Lanes(venues, policy.lane_size)
        self._keeper = Keeper(self._life, venues=venues, positions=positions, clock=clock, silence=self._wire.silence,
                              instrument=market.instrument, policy=lambda: self._policy, hands=self)
        self._inquiries = Doubts(venues, clock, self._wire, lambda: self._policy, self, self._begin)
        self._round_up = RoundUp(self._life, self._wire, lambda: self._clock.now(), lambda: self._policy, self)
        self._react: dict[type, Callable[..., None]] = {
            Filled: self._keeper.on_filled, OrderAccepted: self._keeper.on_accepted, OrderRejected: self._keeper.on_ended,
            OrderCanceled: self._keeper.on_ended, OrderExpired: self._keeper.on_ended, PositionClosed: self._keeper.on_closed,
            FeedRestored: self._keeper.on_restored, TradingHalted: self._on_halted,
        }

    def attach(self, owners_part: Callable[[str, str], Decimal], unexplained: Callable[[str, str], Decimal] = lambda venue, symbol: ZERO,
               ) -> None:
        """`owners_part(venue, symbol)`: how much of it the account's owner holds himself, spot coins or a signed position. `unexplained`:
        how much more of it than everything explains the venue's last wallet had."""
        self._keeper.owners_part, self._unexplained = owners_part, unexplained

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
            self._found_open = {name for name in self._found_open if name in self._doubts or (
                name in self._keeper.bare and (trade := self._trades.get(name)) is not None and trade.exit_reason is None)}
        return not self._found_open

    def problems(self) -> list[str]:
        """What somebody should know of now that is no fact of its own."""
        at = self._clock.now()
        banned = [f"{venue} wants silence (a ban): nothing goes out there for another {(until - at) / 1000:.0f} s"
                  for venue, until in self._wire.silence.asked_at(at)]
        return banned + [f"{self._trades[trade_id].opened.symbol} {cover.lacks(self._trades[trade_id])}, for {(at - since) / 1000:.0f} s"
                         for trade_id, since in self._keeper.bare.since.items() if trade_id in self._trades]

    def untold(self, venue: str) -> bool:
        """Whether something may have traded there that is not booked: an order is in doubt, or more of one was filled than was told."""
        return any(record.order.venue == venue and (record.state is OrderState.IN_DOUBT or record.told > record.filled)
                   for record in self._orders.values() if record.working)

    def doubtful(self, symbol: str) -> bool:
        return any(record.order.symbol == symbol for record in self._doubts.values())

    # -- commands (plain def: nothing suspends between the decision and the lane) ------------------------------------------

    def place(self, approved: ApprovedOrder) -> bool:
        """Hand an approved, journaled order to its venue's lane. False if the lane is full: the order is canceled unsent."""
        client_order_id = approved.order.client_order_id
        taken = self._lanes.put(Command(self._orders[client_order_id], False, ""))
        if not taken:
            self._journal.append(OrderCanceled(self._clock.now(), client_order_id, "lane full"))
        return taken

    def request_exit(self, trade_id: str, reason: ExitReason, at: int, *, later: bool = False) -> None:
        """Close a trade; asking twice changes nothing. The wish is journaled, so a restart goes on closing. `later`: the venue is not
        there yet, and the wish is carried out when `protect` speaks to it first."""
        trade = self._trades.get(trade_id)
        if trade is None or trade.exit_reason is not None:
            return
        self._journal.append(ExitRequested(at, trade_id, reason))
        failpoint.hit("exit.requested")
        if later:
            self._attention.add(trade_id)
        elif self._trades.get(trade_id) is trade:  # closed meanwhile, if all that was left of it was dust
            self._keeper.work_exit(trade, at)

    def move_stop(self, trade_id: str, price: Decimal, at: int) -> None:
        """Trail the protective stop to `price` (only ever toward less risk)."""
        trade = self._trades.get(trade_id)
        if trade is None or trade.exit_reason is not None or trade.stop is None:
            return
        gains = price > trade.stop if trade.opened.side == Side.BUY else price < trade.stop
        if gains:
            trade.stop, trade.stop_reason = price, ExitReason.TRAILING_STOP_LOSS
            self._keeper.protect(trade, at)

    def cancel_entries(self, covers: Callable[[AssetClass], bool], reason: str) -> int:
        """Cancel working entries; exits and protective stops always stay."""
        working = [record for trade in self._trades.values() if covers(trade.opened.asset_class) for record in trade.working(Purpose.ENTRY)]
        for record in working:
            self.cancel(record, reason)
        return len(working)

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
        whole = record is not None and record.filled + fill.quantity >= record.order.quantity
        told_first = seen.order_done and not whole and record is not None and not self._at_once(record)
        failpoint.hit("fill.before")
        self._journal.append(Filled(fill.at, fill, whole or (seen.order_done and not told_first)))
        if told_first and record is not None:
            self._inquiries.hear_out(record)
        if (end := self._ends.pop(fill.client_order_id, None)) is not None:
            self.on_done(end)

    def _at_once(self, record: Record) -> bool:
        """Whether an order trades in one execution there. Else the last of several may be told before the others, and an order that was
        taken for done would be followed by another for what those have sold."""
        offers = self._venues[record.order.venue].capabilities
        return offers.in_process or offers.one_execution

    def _take_foreign(self, fill: Fill) -> None:
        ours, rest = divided_fill(fill, self._positions.get(fill.symbol), self._keeper.owners_part(fill.venue, fill.symbol))
        facts: list[Fact] = [Filled(fill.at, ours, True)] if ours is not None else []
        self._journal.append_all([*facts, *([ForeignFill(fill.at, rest)] if rest is not None else [])])

    def on_done(self, done: OrderDone) -> None:
        record = self._orders.get(done.client_order_id)
        if record is None or not record.working:
            return
        record.told = max(record.told, done.filled)
        if done.filled > record.filled:  # its last fills are still to be told: a leg that seems not to be there may be
            self._ends[done.client_order_id] = done
            return self._inquiries.hear_out(record)
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

    def _on_halted(self, fact: TradingHalted) -> None:
        failpoint.hit("halt.written")
        self.cancel_entries(fact.scope.covers, f"halted: {fact.trigger}")
        if fact.trigger.value in self._kill_policy.flatten_on:
            for trade_id, trade in list(self._trades.items()):
                if fact.scope.covers(trade.opened.asset_class):
                    self.request_exit(trade_id, ExitReason.KILL_SWITCH, fact.at)

    # -- what the keeper asks for ---------------------------------------------------------------------------------------

    def send(
        self, trade: Trade, instrument: Instrument, purpose: Purpose, kind: OrderKind, quantity: Decimal, price: Decimal | None,
        reason: ExitReason | None, at: int,
    ) -> None:
        order = follow_up(trade, instrument, purpose, kind, quantity, price, reason, at, arrival=self._mid(instrument.symbol, at),
                          policy=self._policy, costs=self._costs, bare=trade.opened.trade_id in self._keeper.bare)
        if purpose is not Purpose.ENTRY:
            self.place(self._risk.approve_exit(order))
            return
        approved = self._risk.approve_follow_up(order)
        if isinstance(approved, Check):  # the rest of the structure may not be opened: what is there is closed
            self.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, at)
        else:
            failpoint.hit("follow_up.intended")
            self.place(approved)

    def cancel(self, record: Record, reason: str) -> None:
        """Take an order back: unsent it ends here and never leaves, else its venue is asked, once at a time."""
        if record.state is OrderState.INTENT:
            self._journal.append(OrderCanceled(self._clock.now(), record.order.client_order_id, reason))
        elif not record.cancel_sent:
            record.cancel_sent = self._lanes.put(Command(record, True, reason))
            if not record.cancel_sent:
                self._recancel[record.order.client_order_id] = reason

    def abandon(self, trade_id: str, reason: str, at: int) -> None:
        self._journal.append(TradeAbandoned(at, trade_id, reason))

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
                    self.cancel(record, "unfilledtimeout")
        if self._recancel:
            again, self._recancel = self._recancel, {}
            for client_order_id, reason in again.items():
                if (known := self._orders.get(client_order_id)) is not None and known.working:
                    self.cancel(known, reason)
        self._keeper.watch_legs(at)
        if self._keeper.bare:
            self._keeper.back_up(at)
        if self._attention:
            for trade_id in list(self._attention):
                trade = self._trades[trade_id]
                self._attention.discard(trade_id)
                if trade.exit_reason is not None:
                    self._keeper.work_exit(trade, at)
                else:
                    self._keeper.protect(trade, at)
        return None if self._trades or self._expiring or self._recancel or self._attention else IDLE

    # -- lanes ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work every venue's lane for ever."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for record in list(self._doubts.values()):
                self._inquiries.ask(record)
            for name, job in self._lanes.jobs(self._work):
                group.create_task(job, name=name)
            group.create_task(self._clock.drive(1.0, self.tick), name="executor tick")

    async def _work(self, venue: Venue, command: Command) -> None:
        await self._wire.quiet(venue)
        if command.cancel:
            await self._send_cancel(venue, command)
        else:
            await self._send_order(venue, command.record)

    async def _send_order(self, venue: Venue, record: Record) -> None:
        order, at = record.order, self._clock.now()
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
        fate = await self._wire.submit(venue, record, lambda: self._still_wanted(record))
        failpoint.hit("order.answered")
        self._book_fate(record, fate)
        failpoint.hit("order.fate_booked")

    def _still_wanted(self, record: Record) -> bool:
        return record.working and not record.cancel_sent and not (self._stopping and record.order.purpose is Purpose.ENTRY)

    def _book_fate(self, record: Record, fate: Fate) -> None:
        at, client_order_id = self._clock.now(), record.order.client_order_id
        match fate:
            case Accepted(venue_order_id):
                self._journal.append(OrderAccepted(at, client_order_id, venue_order_id))
            case Refused(code, message):
                self._journal.append(OrderRejected(at, client_order_id, code, message))
            case NotSent(message):
                self._journal.append(OrderExpired(at, client_order_id, f"never left: {message}"))
            case InDoubt(message):
                self.doubt(record, message)

    def doubt(self, record: Record, reason: str) -> None:
        self._journal.append(OrderInDoubt(self._clock.now(), record.order.client_order_id, reason))
        self._inquiries.ask(record)

    async def _send_cancel(self, venue: Venue, command: Command) -> None:
        if not command.record.working:
            return
        failpoint.hit("cancel.before")
        fate = await self._wire.cancel(venue, command.record.order)
        failpoint.hit("cancel.answered")
        self._wire.count_cancel(venue, fate)
        self._note_cancel(command, fate)

    def _note_cancel(self, command: Command, fate: Fate) -> None:
        """Accepted: the end comes as an account event. Unanswered: again at the next tick. Refused: nobody knows what became of it."""
        record, at = command.record, self._clock.now()
        if isinstance(fate, Accepted):
            record.cancel_acknowledged_at = at
            if record.working and record.order.purpose is Purpose.STOP and record.order.trade_id in self._trades:
                self._keeper.bare.begin(record.order.trade_id, at)  # until the next one stands, whether or not its end is told
                self._inquiries.hear_out(record)
        if isinstance(fate, Accepted) or not record.working:
            return
        record.cancel_sent = False
        if not isinstance(fate, Refused):
            self._recancel[record.order.client_order_id] = command.reason
            self._clock.stir()  # which is no fact, and a tick may think that there is nothing to do
        elif record.state is not OrderState.IN_DOUBT:
            self.doubt(record, f"cancel refused: {fate.message}")

    def on_failure(self, venue: Venue, error: VenueError) -> int:
        """A question failed: counted, and a ban minded. Returns when the venue may be asked again, UTC ms."""
        return self._wire.failed(venue, error)

    # -- what a venue says of an order that somebody asked about -------------------------------------------------------------

    def _begin(self, job: Coroutine[None, None, None], name: str) -> None:
        if self._group is not None:
            self._group.create_task(job, name=name)
        else:
            job.close()  # `run` begins with every doubt found at start

    def shows(self, record: Record) -> bool:
        """Whether the venue's wallet has what (a part of) this order would have moved and nothing else explains."""
        moved = self._unexplained(record.order.venue, record.order.symbol) * record.order.side.sign
        return ZERO < moved <= record.order.quantity - record.filled

    def given_up(self, record: Record, misses: int) -> None:
        """The venue has proven that there is no (more of) it."""
        what = "never placed" if record.filled == ZERO else "the venue has no more of it"
        self._journal.append(OrderExpired(self._clock.now(), record.order.client_order_id, f"{what}: {misses} misses"))

    def adopt_report(self, record: Record, report: OrderReport) -> None:
        """Take the venue's word for what became of an order, once all the fills it speaks of are booked; until then it stays in doubt."""
        at, client_order_id = self._clock.now(), report.client_order_id
        record.told = max(record.told, report.filled)
        if not record.working or report.filled > record.filled:
            return
        match report.state:
            case OrderState.CANCELED:
                self._journal.append(OrderCanceled(at, client_order_id, "found canceled"))
            case OrderState.EXPIRED:
                self._journal.append(OrderExpired(at, client_order_id, "found expired"))
            case OrderState.REJECTED:
                self._journal.append(OrderRejected(at, client_order_id, "found", "found rejected"))
            case OrderState.FILLED:  # and all of it is booked, which was less than ordered
                self._journal.append(OrderExpired(at, client_order_id, "filled as far as the venue does"))
            case _:
                self._journal.append(OrderAccepted(at, client_order_id, report.venue_order_id))

    # -- start ----------------------------------------------------------------------------------------------------------

    async def catch_up(self, venue: Venue, wallet: Wallet) -> None:
        """After a start; see RoundUp. Raises VenueError."""
        await self._round_up.catch_up(venue, wallet)

    def unlisted(self, venue: str, wallet: Wallet) -> list[Record]:
        return self._round_up.unlisted(venue, wallet)

    async def look_after(self, venue: Venue, wallet: Wallet) -> None:
        """Hold the venue's open orders against ours; see RoundUp. Raises VenueError."""
        await self._round_up.look_after(venue, wallet)

    def note_foreign(self, venue: Venue, report: OrderReport, *, starting: bool) -> None:
        """By hand it is the owner's business. With our mark it is another daemon's: two of them on one account undo each other."""
        drilled = report.client_order_id.startswith(DRILL_MARK)
        another = report.client_order_id.startswith(MARK) and not drilled
        what = f"{venue.name}: order {report.client_order_id} on {report.symbol} is another daemon's"
        if another and starting:
            raise VenueDenied(f"{what}: stop that one, or (where a journal was lost) cancel it in the venue's app; then start again")
        if drilled and starting:
            raise VenueDenied(f"{venue.name}: order {report.client_order_id} on {report.symbol} is left of a drill: cancel it in the"
                              " venue's app; then start again")
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
        at = self._clock.now()
        if venue.name not in self._reached:
            self._reached.add(venue.name)
            for trade_id in self._keeper.bare.since:
                if (trade := self._trades.get(trade_id)) is not None and trade.venue == venue.name:
                    self._keeper.bare.since[trade_id] = at  # before this nobody could do anything about it
        self.tick(at)
        await self._lanes.drain(venue, self._work)

    def recover(self, at: int) -> None:
        """After replay: what was never sent ends, what may have been sent is in doubt, what should be closed gets attention."""
        for trade_id, trade in self._trades.items():
            if trade.filled and not trade.covered(abs(self._keeper.held(trade, trade.opened.symbol))):
                self._keeper.bare.begin(trade_id, at)  # before anything ends: how soon an exit is tried again depends on it
        for record in list(self._orders.values()):
            if record.state is OrderState.INTENT:
                self._journal.append(OrderExpired(at, record.order.client_order_id, "not sent before the restart"))
            elif record.state is OrderState.SENT:
                self._journal.append(OrderInDoubt(at, record.order.client_order_id, "sent, and no answer before the restart"))
        for trade_id, trade in list(self._trades.items()):
            if not trade.filled and not trade.working(Purpose.ENTRY):
                self._journal.append(TradeAbandoned(at, trade_id, "no fill before the restart"))
            elif trade.exit_reason is None and (trade.late or (trade.filled and structures.incomplete(trade))):
                self.request_exit(trade_id, ExitReason.EMERGENCY_EXIT, at)
            else:
                self._attention.add(trade_id)
        for record in list(self._orders.values()):
            if record.order.trade_id not in self._trades:  # its trade has ended: nothing of it may stay at the venue
                self.cancel(record, "trade closed")
        self._found_open = {*self._doubts, *self._keeper.bare.since}
