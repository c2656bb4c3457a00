"""Keeps every trade in order: a stop under what is held, exits worked until it is flat, a structure's legs one after another.

Decides which orders a trade needs after a fact and at a tick; Trade_Executor is its hands. Refuses to hold what cannot be protected: a
position without a confirmed stop is closed, and nothing is ever sent that could sell what is not this trade's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

import structlog

from modules.domain.events import FeedRestored, Filled, OrderAccepted, OrderCanceled, OrderExpired, OrderRejected, PositionClosed
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import ZERO
from modules.domain.order import ExitReason, OrderKind, OrderState, Purpose
from modules.domain.policies import ExecutionPolicy
from modules.domain.position import Position
from modules.execution import cover, exits, structures
from modules.execution.lifecycle import Lifecycle, Record, Trade
from modules.execution.silence import Silence
from modules.runtime import failpoint
from modules.runtime.clock import Clock
from modules.venues.protocol import Venue

log = structlog.get_logger("Trade_Executor")


class Hands(Protocol):
    """Who carries out what is decided here, and puts it on record."""

    def send(self, trade: Trade, instrument: Instrument, purpose: Purpose, kind: OrderKind, quantity: Decimal, price: Decimal | None,
             reason: ExitReason | None, at: int) -> None: ...

    def cancel(self, record: Record, reason: str) -> None: ...

    def request_exit(self, trade_id: str, reason: ExitReason, at: int) -> None: ...

    def abandon(self, trade_id: str, reason: str, at: int) -> None: ...


class Keeper:
    def __init__(
        self, life: Lifecycle, *, venues: Mapping[str, Venue], positions: Mapping[str, Position], clock: Clock, silence: Silence,
        instrument: Callable[[str], Instrument | None], policy: Callable[[], ExecutionPolicy], hands: Hands,
    ) -> None:
        self._life = life
        self._venues = venues
        self._positions = positions
        self._clock = clock
        self._silence = silence
        self._instrument = instrument
        self._policy = policy
        self._hands = hands
        self.bare = cover.Bare()
        self.owners_part: Callable[[str, str], Decimal] = lambda venue, symbol: ZERO
        """How much of an instrument the account's owner holds himself at a venue: spot coins, or a signed position."""

    # -- what happened -----------------------------------------------------------------------------------------------------

    def on_filled(self, fact: Filled) -> None:
        failpoint.hit("fill.booked")
        record = self._life.record(fact.fill.client_order_id)
        if record is None and (fact.fill.by_owner or fact.fill.liquidation):
            self._closed_from_outside(fact)
            return
        trade = self._life.trade_of(record, fact.fill.symbol) if record is not None else None
        if record is None or trade is None:
            return
        if structures.made_of_legs(trade):
            self._look_at_legs(trade, fact.at)
        elif record.order.purpose is Purpose.ENTRY and not trade.covered(abs(self.held(trade, fact.fill.symbol))):
            self.bare.begin(trade.opened.trade_id, self._clock.now())
        if trade.exit_reason is not None:
            self.work_exit(trade, fact.at)
        elif trade.late:
            self._hands.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)
        elif record.order.purpose is Purpose.ENTRY and structures.made_of_legs(trade):
            if fact.order_done:
                self._next_leg(trade, fact.at)
        else:
            self.protect(trade, fact.at)

    def _closed_from_outside(self, fact: Filled) -> None:
        """The owner, or the venue of its own, took (a part of) our position: the stop follows what is left."""
        position = self._positions.get(fact.fill.symbol)
        trade = self._life.trades.get(position.trade_id) if position is not None else None
        if trade is not None:
            self._life.attention.add(trade.opened.trade_id)

    def on_accepted(self, fact: OrderAccepted) -> None:
        record = self._life.orders.get(fact.client_order_id)
        if record is None or record.order.purpose is not Purpose.STOP or not self.bare:
            return
        trade = self._life.trades.get(record.order.trade_id)
        if trade is not None and trade.covered(abs(self.held(trade, record.order.symbol))):
            self.bare.end(record.order.trade_id)

    def on_ended(self, fact: OrderRejected | OrderCanceled | OrderExpired) -> None:
        record = self._life.orders.get(fact.client_order_id)
        trade = self._life.trades.get(record.order.trade_id) if record is not None else None
        if record is None or trade is None or record.working:
            return
        purpose = record.order.purpose
        if purpose is Purpose.STOP:
            self.bare.begin(trade.opened.trade_id, self._clock.now())
        if purpose is Purpose.ENTRY:
            if not trade.filled and not trade.working(Purpose.ENTRY):
                self._hands.abandon(trade.opened.trade_id, fact.reason, fact.at)
            elif trade.exit_reason is not None:
                self.work_exit(trade, fact.at)
            elif structures.made_of_legs(trade):
                if structures.carries_on(trade, record):
                    self._next_leg(trade, fact.at)
                else:
                    self._hands.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)  # half a spread is no spread
        elif purpose is Purpose.EXIT:
            unseen = isinstance(fact, OrderExpired) and not record.accepted_at
            exits.be_patient(trade, record, self._policy(), unseen=unseen, bare=trade.opened.trade_id in self.bare)
            self._life.attention.add(trade.opened.trade_id)
        elif trade.exit_reason is not None:
            self.work_exit(trade, fact.at)
        elif isinstance(fact, OrderRejected) and purpose is Purpose.STOP:
            self._hands.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, fact.at)  # what cannot be protected is not held
        elif record.cancel_sent:
            self.protect(trade, fact.at)
        else:  # not our wish: put back at the next tick, not at once, or a full lane (or a stubborn venue) would keep us here for ever
            self._life.attention.add(trade.opened.trade_id)

    def on_closed(self, fact: PositionClosed) -> None:
        self.bare.end(fact.trade.trade_id)
        for record in list(self._life.orders.values()):
            if record.order.trade_id == fact.trade.trade_id and record.working:
                self._hands.cancel(record, "trade closed")

    def on_restored(self, fact: FeedRestored) -> None:
        """There is a market again: exits that waited longer and longer for one are sent at the next tick."""
        for trade_id, trade in self._life.trades.items():
            if trade.exit_after.pop(fact.symbol, None) is not None:
                trade.exit_tries.pop(fact.symbol, None)
                self._life.attention.add(trade_id)

    # -- stops and exits -------------------------------------------------------------------------------------------------------

    def held(self, trade: Trade, symbol: str) -> Decimal:
        """Signed quantity of one leg of a trade, in whole lots."""
        position = self._positions.get(symbol)
        if position is None or position.trade_id != trade.opened.trade_id:
            return ZERO
        instrument = self._instrument(symbol)
        return instrument.round_quantity_down(position.quantity) if instrument is not None else position.quantity

    def protect(self, trade: Trade, at: int, *, closing: bool = False) -> None:
        """Make the resting stop and target cover exactly what is held: never more, and never two of them. `closing`: it is to be closed,
        but nobody knows whether its exit is on the way; a stop that stood would be left standing too."""
        if (trade.exit_reason is not None and not closing) or not cover.guarded(trade):
            return
        instrument = self._instrument(trade.opened.symbol)
        held = self.held(trade, trade.opened.symbol)
        if held == ZERO or instrument is None:
            return
        failpoint.hit("protect.before")
        resting_target = self._venues[trade.venue].capabilities.resting_target
        for purpose, kind, price, reason in cover.wanted(trade, instrument, long=held > ZERO, resting_target=resting_target):
            working = trade.working(purpose)
            if not working:
                if purpose is Purpose.TARGET and trade.refused(price, abs(held)):
                    continue  # the venue said no to this very order: the stop protects, the strategy closes
                self._hands.send(trade, instrument, purpose, kind, -held, price, reason, at)
                failpoint.hit("protect.placed")
            elif not cover.fits(working, abs(held), price):
                failpoint.hit("protect.resize")
                for record in working:  # its end calls us again, and then the right one is placed
                    self._hands.cancel(record, "resize")

    def work_exit(self, trade: Trade, at: int) -> None:
        """Send what is still missing to be flat. What failed is tried again with patience."""
        for record in trade.working(Purpose.ENTRY):
            self._hands.cancel(record, "exit")
        for symbol, quantity in structures.to_close(self._held_legs(trade), trade.working(Purpose.ENTRY)).items():
            instrument, working = self._instrument(symbol), trade.working(Purpose.EXIT, symbol=symbol)
            if quantity == ZERO or (working and not self._may_go_beside(working, trade, instrument, at)):
                continue
            if instrument is not None and structures.expired(instrument, at):
                continue  # nobody trades it any more: its delivery ends it
            if at < trade.exit_after.get(symbol, 0) or instrument is None or trade.exit_reason is None or self._locked(trade, instrument):
                self._life.attention.add(trade.opened.trade_id)
                continue
            self._hands.send(trade, instrument, Purpose.EXIT, OrderKind.MARKET, -quantity, None, trade.exit_reason, at)

    def _may_go_beside(self, working: Sequence[Record], trade: Trade, instrument: Instrument | None, at: int) -> bool:
        """An order in doubt is never replaced, but for this: nothing protects the position, nobody knows what became of its exits, and
        the venue itself cannot sell it twice."""
        return (trade.opened.trade_id in self.bare and instrument is not None and self._alone(trade, instrument)
                and exits.beside(working, at, self._policy(), self._clock.speed))

    def _alone(self, trade: Trade, instrument: Instrument) -> bool:
        """Whether nobody but this trade holds any of it at the venue. Then it cannot be sold twice there, whatever is sent twice: coins
        that are gone are gone, and an order that may only reduce finds nothing to reduce."""
        others = abs(self.owners_part(trade.venue, instrument.symbol))
        if instrument.asset_class is AssetClass.SPOT:
            elsewhere = [(self._instrument(symbol), p) for symbol, p in self._positions.items() if symbol != instrument.symbol]
            others += sum((p.quantity for other, p in elsewhere if other is not None and other.asset_class is AssetClass.SPOT
                           and other.base == instrument.base), ZERO)
        return others < instrument.lot

    def _locked(self, trade: Trade, instrument: Instrument) -> bool:
        """Whether the stop has to go before the exit can: where it locks the coins the exit would sell, and beside what the account's owner
        holds of the same, because if both were filled the second would sell his. Of locked coins a stop in doubt may be there: beside
        other people's it is waited for."""
        locks = instrument.asset_class is AssetClass.SPOT and not self._venues[trade.venue].capabilities.resting_target
        alone = self._alone(trade, instrument)
        if alone and not locks:
            return False
        working = trade.working(Purpose.STOP, Purpose.TARGET) if locks else trade.working(Purpose.STOP)
        resting = [r for r in working if r.state is not OrderState.IN_DOUBT]
        for record in resting:
            self._hands.cancel(record, "exit")
        return bool(resting) or (locks and bool(working) and not alone)

    def _held_legs(self, trade: Trade) -> dict[str, Decimal]:
        return {symbol: self.held(trade, symbol) for symbol in structures.symbols(trade)}

    def _next_leg(self, trade: Trade, at: int) -> None:
        following = structures.next_leg(trade)
        if following is None:
            return
        instrument = self._instrument(following.leg.symbol)
        if instrument is None or trade.exit_reason is not None:
            self._hands.request_exit(trade.opened.trade_id, ExitReason.EMERGENCY_EXIT, at)
        else:
            quantity = following.leg.side.sign * following.quantity
            self._hands.send(trade, instrument, Purpose.ENTRY, OrderKind.MARKET, quantity, None, None, at)

    def watch_legs(self, at: int) -> None:
        """Every tick: whatever took a leg away (the owner in the venue's app, a fill told late), what is left is covered or closed."""
        for trade in list(self._life.trades.values()):
            if len(trade.opened.legs) > 1:
                self._look_at_legs(trade, at)

    def _look_at_legs(self, trade: Trade, at: int) -> None:
        """Contracts that are sold and not covered are the one thing a structure may never leave: they are bought back at once."""
        trade_id = trade.opened.trade_id
        if structures.naked(self._held_legs(trade), self._instrument, at) == ZERO:
            self.bare.end(trade_id)
            return
        if trade_id not in self.bare:
            log.error("contracts are sold that nothing covers", action="protect", trade_id=trade_id, symbol=trade.opened.symbol)
        self.bare.begin(trade_id, self._clock.now())
        if trade.exit_reason is None:
            self._hands.request_exit(trade_id, ExitReason.EMERGENCY_EXIT, at)

    def back_up(self, at: int) -> None:
        """What could not be protected in time is not held: the stop is ours to be if the venue's does not stand."""
        for trade_id, since in list(self.bare.since.items()):
            trade = self._life.trades.get(trade_id)
            if trade is not None and structures.made_of_legs(trade):
                self._look_at_legs(trade, at)
                if trade_id in self.bare:
                    self.work_exit(trade, at)
                continue
            held = ZERO if trade is None else abs(self.held(trade, trade.opened.symbol))
            if trade is None or not cover.guarded(trade) or held == ZERO or trade.covered(held):
                self.bare.end(trade_id)
            elif trade.exit_reason is not None:
                self.work_exit(trade, at)
                if exits.may_be_lost(trade) and trade.opened.asset_class is not AssetClass.SPOT:  # coins would be locked
                    self.protect(trade, at, closing=True)
            elif at - max(since, self._silence.until(trade.venue)) >= self._policy().flatten_after_s * 1000 * self._clock.speed:
                log.error("no stop stands at the venue", action="protect", trade_id=trade_id, reason=f"for {(at - since) / 1000:g} s")
                self._hands.request_exit(trade_id, ExitReason.EMERGENCY_EXIT, at)
