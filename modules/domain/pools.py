"""Whose money is in a venue's wallet: how one wallet is divided between our asset classes and the owner. Pure arithmetic, no state.

A pool is one wallet: of one class, or one that several classes share (a unified account). Per currency, coin and position symbol, always:

    sum of the classes' books + the owner's part (unallocated) = what the venue says

An account's owner may hold coins, money and positions beside us; their changes are never our result. So a difference that no fact explains
is the owner's, as far as the owner's part covers it; what is missing beyond that is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.money import UNIT, ZERO


class Pool(NamedTuple):
    """One wallet at a venue. `name` "" = all its classes share it, else the class whose own it is."""

    venue: str
    name: str
    classes: tuple[AssetClass, ...]


class Part(NamedTuple):
    """One difference, divided: what of it is the owner's and what each class's."""

    owners: Decimal
    classes: Mapping[AssetClass, Decimal]


def pools_of(venue: str, classes: Sequence[AssetClass], *, shared: bool) -> tuple[Pool, ...]:
    if shared and len(classes) > 1:
        return (Pool(venue, "", tuple(classes)),)
    return tuple(Pool(venue, asset_class.value, (asset_class,)) for asset_class in classes)


def merged(parts: Iterable[Mapping[str, Decimal]]) -> dict[str, Decimal]:
    """Sums per name, zero ones left out."""
    total: dict[str, Decimal] = {}
    for part in parts:
        for name, amount in part.items():
            total[name] = total.get(name, ZERO) + amount
    return {name: amount for name, amount in total.items() if amount}


def pro_rata(amount: Decimal, weights: Mapping[AssetClass, Decimal]) -> dict[AssetClass, Decimal]:
    """`amount` by positive weights, to 1e-8, the rest of the rounding to the heaviest; all to the first if nothing weighs anything."""
    heavy = {asset_class: max(ZERO, weight) for asset_class, weight in weights.items()}
    total = sum(heavy.values(), ZERO)
    if not total:
        return {next(iter(weights)): amount}
    parts = {asset_class: (amount * weight / total).quantize(UNIT, ROUND_DOWN) for asset_class, weight in heavy.items() if weight}
    heaviest = max(parts, key=lambda asset_class: heavy[asset_class])
    parts[heaviest] += amount - sum(parts.values(), ZERO)
    return {asset_class: part for asset_class, part in parts.items() if part}


def divided(difference: Decimal, owners: Decimal, books: Mapping[AssetClass, Decimal]) -> Part:
    """Money or coins the venue holds more (+) or less (-) than is explained: to the owner, whose part never becomes negative; what is
    missing beyond it is missing from the classes that hold it."""
    left = owners + difference
    if left >= ZERO:
        return Part(difference, {})
    return Part(-owners, pro_rata(left, books))


def divided_position(difference: Decimal, owners: Decimal, books: Mapping[AssetClass, Decimal]) -> Part:
    """Contracts, signed: ours are there as far as the venue's net position reaches, the rest of it is the owner's."""
    ours = sum(books.values(), ZERO)
    found = ours + owners + difference
    if ours * found <= ZERO:
        left = ZERO
    else:
        left = min(abs(ours), abs(found)) * (1 if ours > ZERO else -1)
    lost = left - ours
    return Part(difference - lost, pro_rata(lost, {name: abs(held) for name, held in books.items()}) if lost else {})


def share_of_net(ours: Decimal, owners: Decimal) -> Decimal:
    """What part of a venue's net position is ours, 0 to 1: as far as the net reaches (both signed); nothing where there is none."""
    net = ours + owners
    if ours * net <= ZERO:
        return ZERO
    return min(abs(ours), abs(net)) / abs(net)
