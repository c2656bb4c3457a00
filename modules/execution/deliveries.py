"""Options that have expired and whose delivery is not told yet: what of a wallet says nothing until it is. Pure.

A venue takes expired contracts off the account, pays or charges them, and tells the delivery's record minutes later. In between the
wallet differs from the books by money that is nobody's mistake: it is neither booked as one, nor is such a wallet one to decide on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.position import Position

RECENT_MS: Final = 3_600_000
"""A contract whose delivery was told may stay in a venue's list of positions for as long as this."""


def awaited(positions: Mapping[str, Position], rules: Mapping[str, Instrument], at: int, wait_s: float) -> frozenset[str]:
    """Contracts of ours that expired at most `wait_s` before `at` (UTC ms) and are on the books still."""
    return frozenset(symbol for symbol, position in positions.items()
                     if position.asset_class is AssetClass.OPTION and _ended_within(rules.get(symbol), at, wait_s * 1000.0))


def held_back(differences: Iterable[tuple[str, str, Decimal]], ours: Collection[str], cash: Mapping[str, str],
              rules: Mapping[str, Instrument], at: int) -> Iterator[tuple[str, str, Decimal]]:
    """Of the `differences` (wallet, name, how much) those that say nothing yet: of contracts of `ours` that are awaited, of any that
    expired a moment ago, and while something is awaited of the cash of the wallets it will come to (`cash`: wallet -> currency)."""
    for one in differences:
        wallet, name, _ = one
        if name in ours or _ended_within(rules.get(name), at, RECENT_MS) or (ours and cash.get(wallet) == name):
            yield one


def _ended_within(instrument: Instrument | None, at: int, wait_ms: float) -> bool:
    return (instrument is not None and instrument.asset_class is AssetClass.OPTION and instrument.expiry is not None
            and instrument.expiry <= at < instrument.expiry + wait_ms)
