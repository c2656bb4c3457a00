"""Owns who may spend what: the owner's switches, each asset class's allocation, the cap per instrument, and what working orders hold.

May refuse: a change outside the owner's own bounds (OperatorRefused) and, by its numbers, any order: a switch that is off, free funds that
are short. Alone writes SwitchChanged and BudgetChanged. Everything it knows is a projection of facts, so a restart changes none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from modules.domain.decision import Check, Rule
from modules.domain.errors import OperatorRefused
from modules.domain.events import (
    BudgetChanged,
    Fact,
    Filled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderIntended,
    OrderRejected,
    PositionClosed,
    Scope,
    SwitchChanged,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ONE, ZERO
from modules.domain.policies import FundsPolicy
from modules.domain.pools import pro_rata

if TYPE_CHECKING:
    from modules.store.journal import Journal

_ENDED_ORDERS: Final = 1_000
"""Ended orders that late evidence may still bring back to life. Bounds memory, decides nothing."""

Change = SwitchChanged | BudgetChanged


@dataclass(frozen=True, slots=True)
class Reservation:
    """Settlement currency held for one working order: less and less as it fills, for what is filled is in the books."""

    asset_class: AssetClass
    held: Decimal
    quantity: Decimal
    open_quantity: Decimal

    @property
    def amount(self) -> Decimal:
        return self.held * self.open_quantity / self.quantity


class FundsController:
    """`allocate`: settlement currency the owner gives each class at first start, None = all that its wallet shows."""

    def __init__(self, journal: Journal, policy: FundsPolicy, allocate: Mapping[AssetClass, Decimal | None]) -> None:
        self._journal = journal
        self._policy = policy
        self._master = policy.funds_on
        self._classes = {asset_class: policy.classes_on[asset_class] for asset_class in AssetClass}
        self._caps = dict.fromkeys(AssetClass, policy.pair_cap)
        self._allocated: dict[AssetClass, Decimal | None] = {asset_class: allocate.get(asset_class) for asset_class in AssetClass}
        self._closed = dict.fromkeys(AssetClass, ZERO)
        """Net result of all closed trades."""
        self._closed_before = dict.fromkeys(AssetClass, ZERO)
        """The same at the moment the present allocation was made."""
        self._reservations: dict[str, Reservation] = {}
        self._reserved = dict.fromkeys(AssetClass, ZERO)
        self._ended: dict[str, Reservation] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            OrderIntended: self._intended, Filled: self._filled, OrderCanceled: self._order_ended, OrderExpired: self._order_ended,
            OrderRejected: self._order_ended, OrderAccepted: self._accepted, SwitchChanged: self._switched, BudgetChanged: self._budgeted,
            PositionClosed: self._closed_trade,
        }

    # -- switches and caps ------------------------------------------------------------------------------------------------

    @property
    def master_on(self) -> bool:
        """The owner's "the bot may use funds"."""
        return self._master

    def class_on(self, asset_class: AssetClass) -> bool:
        """The class's own switch, whatever the master's."""
        return self._classes[asset_class]

    def switch_on(self, asset_class: AssetClass) -> bool:
        """Both the master and the class switch: what a real order needs."""
        return self._master and self._classes[asset_class]

    def switch_check(self, asset_class: AssetClass) -> Check:
        """The two switches as a gate: how many of them are on."""
        on = int(self._master) + int(self._classes[asset_class])
        missing = [name for name, is_on in (("master", self._master), (asset_class.value, self._classes[asset_class])) if not is_on]
        return Check(Rule.SWITCH_OFF, on, 2, "switches on", on == 2, f"off: {', '.join(missing)}" if missing else "")

    def pair_cap(self, asset_class: AssetClass) -> Decimal:
        """The most one instrument may tie up, fraction of the class's equity."""
        return self._caps[asset_class]

    @property
    def pair_cap_bounds(self) -> tuple[Decimal, Decimal]:
        """What the owner's policy lets a pair cap be set to."""
        return self._policy.pair_cap_min, self._policy.pair_cap_max

    def allocated(self, asset_class: AssetClass) -> Decimal | None:
        """The owner's allocation, None = all that the class's wallet shows."""
        return self._allocated[asset_class]

    # -- money ------------------------------------------------------------------------------------------------------------

    def reserved(self, asset_class: AssetClass) -> Decimal:
        """What working orders, those in doubt included, hold in settlement currency."""
        return self._reserved[asset_class]

    def free(self, asset_class: AssetClass, equity: Decimal, margin: Decimal, positions_value: Decimal) -> Decimal:
        """What a new order may still use: equity less reservations, posted margin and what spot and option positions are worth. An
        unrealized gain is part of equity, but short option positions (negative value) free nothing. Never negative."""
        return max(ZERO, equity - self._reserved[asset_class] - margin - max(ZERO, positions_value))

    def sizing_equity(
        self, asset_class: AssetClass, worth: Decimal, transfers: Decimal, *, wallet_total: Decimal | None = None,
        sharing: Collection[AssetClass] = (),
    ) -> Decimal | None:
        """E of domain.md section 1: min(allocation + the class's own net result since, what the synced wallet shows for it).

        `worth` is what the wallet shows for the class (open positions at their marks), `transfers` the sum of what was ever moved in and
        out: their difference is the class's net result, unrealized included. An allocation made later counts the result since then;
        a trade open at that moment counts in full.

        Where `sharing` classes live on one wallet worth `wallet_total`, allocations above the total scale pro rata. None if the total or
        one of those allocations is unknown: then nobody can say whose money it is.
        """
        allocated = self._allocated[asset_class]
        if len(sharing) > 1:
            scale = self.allocation_scale(sharing, wallet_total)
            if scale is None or allocated is None:
                return None
            allocated *= scale
        if allocated is None:
            return worth
        return min(allocated + (worth - transfers) - self._closed_before[asset_class], worth)

    def allocation_scale(self, sharing: Collection[AssetClass], wallet_total: Decimal | None) -> Decimal | None:
        """1, or by how much the allocations of classes on one wallet are scaled down because together they exceed it (to be told loudly).

        None if an allocation or the wallet is unknown.
        """
        amounts = [self._allocated[asset_class] for asset_class in sharing]
        known = [amount for amount in amounts if amount is not None]
        if wallet_total is None or len(known) < len(amounts):
            return None
        claimed = sum(known, ZERO)
        return ONE if claimed <= wallet_total else max(ZERO, wallet_total) / claimed

    def grants(
        self, classes: Collection[AssetClass], given: Mapping[AssetClass, Decimal], spare: Decimal,
    ) -> dict[AssetClass, Decimal]:
        """What is to move into (+) or out of (-) each class's books so that each has been given its allocation. `given`: what was moved
        in so far, less what was moved out; `spare`: the owner's part of the wallet. Allocations above what is there scale pro rata."""
        missing = {c: amount - given[c] for c in classes if (amount := self._allocated[c]) is not None and amount != given[c]}
        wanted = {asset_class: amount for asset_class, amount in missing.items() if amount > ZERO}
        moves = {asset_class: amount for asset_class, amount in missing.items() if amount < ZERO}
        room = max(ZERO, spare)
        if wanted and room:
            moves |= wanted if sum(wanted.values(), ZERO) <= room else pro_rata(room, wanted)
        return moves

    # -- changes by the owner ---------------------------------------------------------------------------------------------

    def loosens(self, change: Change) -> bool:
        """True if the change gives the bot more room than it has now: then the operator desk asks for a confirmation first."""
        if isinstance(change, SwitchChanged):
            current = self._master if change.scope is Scope.ALL else self._classes[AssetClass(change.scope.value)]
            return change.on and not current
        covered = [asset_class for asset_class in AssetClass if change.scope.covers(asset_class)]
        if change.pair_cap is not None and any(change.pair_cap > self._caps[asset_class] for asset_class in covered):
            return True
        # A class without an allocation uses all its wallet shows: any number is tighter.
        amounts = [self._allocated[asset_class] for asset_class in covered]
        return change.allocate is not None and any(amount is not None and change.allocate > amount for amount in amounts)

    def set_switch(self, scope: Scope, on: bool, at: int, by: str) -> None:
        """`scope` ALL is the master switch, a class its own."""
        self._journal.append(SwitchChanged(at, scope, on, by))

    def set_pair_cap(self, scope: Scope, pair_cap: Decimal, at: int, by: str) -> None:
        """Fraction of equity, for one class or all. Raises OperatorRefused outside the policy's bounds."""
        low, high = self._policy.pair_cap_min, self._policy.pair_cap_max
        if not (pair_cap.is_finite() and low <= pair_cap <= high):
            raise OperatorRefused(f"a pair cap of {pair_cap:f} is outside {low:f} to {high:f} of equity")
        self._journal.append(BudgetChanged(at, scope, pair_cap, None, by))

    def set_allocate(self, asset_class: AssetClass, amount: Decimal, at: int, by: str) -> None:
        """Settlement currency this class may use, plus what it earns or loses from now on. Raises OperatorRefused if not positive or 0."""
        if not (amount.is_finite() and amount >= ZERO):
            raise OperatorRefused(f"an allocation of {amount} is not an amount of money")
        self._journal.append(BudgetChanged(at, Scope(asset_class.value), None, amount, by))

    # -- projection -------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def _intended(self, fact: OrderIntended) -> None:
        order = fact.order
        if order.reserves > ZERO and order.quantity > ZERO:
            self._hold(order.client_order_id, Reservation(order.asset_class, order.reserves, order.quantity, order.quantity))

    def _filled(self, fact: Filled) -> None:
        held = self._release(fact.fill.client_order_id)
        if held is not None and not fact.order_done:
            left = max(ZERO, held.open_quantity - fact.fill.quantity)
            self._hold(fact.fill.client_order_id, replace(held, open_quantity=left))

    def _order_ended(self, fact: OrderCanceled | OrderExpired | OrderRejected) -> None:
        held = self._release(fact.client_order_id)
        if held is not None:
            self._ended[fact.client_order_id] = held
            if len(self._ended) > _ENDED_ORDERS:
                del self._ended[next(iter(self._ended))]

    def _accepted(self, fact: OrderAccepted) -> None:
        """Late evidence: an order we took for ended works at the venue after all, and locks money again."""
        held = self._ended.pop(fact.client_order_id, None)
        if held is not None:
            self._hold(fact.client_order_id, held)

    def _hold(self, client_order_id: str, reservation: Reservation) -> None:
        self._release(client_order_id)
        self._reservations[client_order_id] = reservation
        self._reserved[reservation.asset_class] += reservation.amount

    def _release(self, client_order_id: str) -> Reservation | None:
        held = self._reservations.pop(client_order_id, None)
        if held is not None:
            # Summed anew: adding and subtracting pro rata parts would leave rounding behind for ever.
            rest = (r.amount for r in self._reservations.values() if r.asset_class is held.asset_class)
            self._reserved[held.asset_class] = sum(rest, ZERO)
        return held

    def _switched(self, fact: SwitchChanged) -> None:
        if fact.scope is Scope.ALL:
            self._master = fact.on
        else:
            self._classes[AssetClass(fact.scope.value)] = fact.on

    def _budgeted(self, fact: BudgetChanged) -> None:
        for asset_class in AssetClass:
            if fact.scope.covers(asset_class):
                if fact.pair_cap is not None:
                    self._caps[asset_class] = fact.pair_cap
                if fact.allocate is not None:
                    self._allocated[asset_class] = fact.allocate
                    self._closed_before[asset_class] = self._closed[asset_class]

    def _closed_trade(self, fact: PositionClosed) -> None:
        self._closed[fact.trade.asset_class] += fact.trade.net
