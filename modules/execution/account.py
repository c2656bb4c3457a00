"""What has been told of the accounts so far, and what of them is the owner's: what Wallet_Sync decides on. A projection; writes nothing."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Final

from modules.domain.events import (
    BalanceAdjusted,
    Fact,
    Filled,
    ForeignFill,
    FundingBooked,
    OptionSettled,
    Reconciled,
    TransferSeen,
    UnallocatedMoved,
)
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.domain.pools import merged

MOVES_KEPT: Final = 200
"""Fills per instrument that are remembered, to know what was held when a funding was charged that is told late."""
LONG_AGO: Final = -(1 << 62)


class AccountBook:
    """Mappings are live: read, don't keep. `coins_at`: the venues where pairs are bought as coins, not held as positions."""

    def __init__(self, coins_at: frozenset[str] = frozenset()) -> None:
        self._coins_at = coins_at
        self.booked: set[tuple[str, str]] = set()
        """(venue, reference) of what was booked; transfers and openings under venue ""."""
        self.opened_at: dict[AssetClass, int] = {}
        """When each class's books were opened, UTC ms: what happened before is in its opening balance."""
        self.known_until: dict[str, int] = {}
        """Until when each venue's account has been told and agreed, UTC ms."""
        self._owners: dict[tuple[str, str, str], Decimal] = {}
        """(venue, pool, currency or symbol) -> the owner's part."""
        self._moves: dict[str, deque[tuple[int, Decimal]]] = {}
        """Symbol -> our last fills in it: when (UTC ms), and how much, signed."""
        self._strange: dict[str, list[tuple[int, Decimal]]] = {}
        """The owner's fills that no booked difference accounts for yet, by symbol: when (UTC ms), and how much, signed."""
        self._coins: dict[str, str] = {}
        """The coin of each symbol of those that is bought as one."""
        self._settled_at: dict[str, int] = {}
        """Currency, coin or position -> the wallet (UTC ms) whose difference in it was booked last: it had what was traded before."""

    def apply(self, fact: Fact) -> None:
        if isinstance(fact, Filled):
            fill = fact.fill
            self._moves.setdefault(fill.symbol, deque(maxlen=MOVES_KEPT)).append((fill.at, fill.quantity * fill.side.sign))
        elif isinstance(fact, ForeignFill):
            fill = fact.fill
            if fill.venue in self._coins_at and ":" not in fill.symbol:
                self._coins[fill.symbol] = fill.symbol.partition("/")[0]
            if fill.at > max(self._settled_at.get(name, LONG_AGO) for name in self._names(fill.symbol)):
                fee = fill.fee if fill.fee_currency == self._coins.get(fill.symbol) else ZERO
                self._strange.setdefault(fill.symbol, []).append((fill.at, fill.quantity * fill.side.sign - fee))
        elif isinstance(fact, BalanceAdjusted):
            self._settle(fact.currency, fact.at)
        elif isinstance(fact, FundingBooked | OptionSettled):
            self.booked.add((fact.venue, fact.venue_ref))
        elif isinstance(fact, TransferSeen):
            self.booked.add(("", fact.venue_ref))
            self.opened_at.setdefault(fact.asset_class, fact.at)
        elif isinstance(fact, UnallocatedMoved):
            key = fact.venue, fact.pool, fact.currency
            self._owners[key] = self._owners.get(key, ZERO) + fact.amount
            if fact.venue_ref:
                self.booked |= {("", fact.venue_ref), (fact.venue, fact.venue_ref)}
            else:
                self._settle(fact.currency, fact.at)
        elif isinstance(fact, Reconciled):
            self.known_until[fact.venue] = fact.at
            if not fact.differences:  # the wallet is what the books and the owner's part say
                for symbol in self._strange:
                    self._strange[symbol] = [one for one in self._strange[symbol] if one[0] > fact.at]

    def _names(self, symbol: str) -> tuple[str, str]:
        """Under what a wallet shows that it was traded."""
        return symbol, self._coins.get(symbol, symbol)

    def _settle(self, name: str, at: int) -> None:
        """A difference in this currency, coin or position was booked: whatever was traded in it before has been counted."""
        self._settled_at[name] = at
        for symbol in self._strange:
            if name in self._names(symbol):
                self._strange[symbol] = [one for one in self._strange[symbol] if one[0] > at]

    def strange(self, symbol: str) -> Decimal:
        """How much the owner's own fills in it came to, signed, that no booked difference accounts for yet."""
        return sum((quantity for _, quantity in self._strange.get(symbol, ())), ZERO)

    def explained(self, name: str) -> Decimal:
        """The same of a coin or a position, over all symbols that trade it."""
        return sum((self.strange(symbol) for symbol in self._strange if name in self._names(symbol)), ZERO)

    def unallocated(self, venue: str) -> dict[str, Decimal]:
        """What the owner holds at a venue beside us, by name, over all its wallets."""
        return merged({name: amount} for (at, _, name), amount in self._owners.items() if at == venue)

    def owners(self, venue: str, name: str) -> Decimal:
        """The same of one currency, coin or position."""
        return sum((amount for (at, _, of), amount in self._owners.items() if at == venue and of == name), ZERO)

    def owners_in(self, venue: str, pool: str) -> dict[str, Decimal]:
        """The same of one wallet."""
        return {name: amount for (at, of, name), amount in self._owners.items() if (at, of) == (venue, pool)}

    def traded_at(self, symbol: str) -> int:
        """Our last fill in it, UTC ms; long ago if there is none."""
        return max((at for at, _ in self._moves.get(symbol, ())), default=LONG_AGO)

    def moved_since(self, symbol: str, at: int) -> Decimal:
        """How much of it our fills after `at` (UTC ms) came to, signed, as far as the last ones tell."""
        return sum((quantity for moved_at, quantity in self._moves.get(symbol, ()) if moved_at > at), ZERO)
