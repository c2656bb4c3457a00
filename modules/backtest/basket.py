"""Which instruments a class is validated on. Owns the choice: one recording per market, long enough to say something.

The choice looks at names and lengths only, never at results: dropping an instrument for its result would be a trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from modules.backtest import digests
from modules.backtest.series import Series
from modules.domain.instrument import AssetClass

DAY_MS: Final = 86_400_000


@dataclass(frozen=True)
class Basket:
    """Series by symbol, in order of name, and why the others are not in it."""

    asset_class: AssetClass
    series: Mapping[str, Series]
    notes: dict[str, str] = field(default_factory=dict)
    beside: str = ""
    """Digest of what is looked at besides the series: option chains."""

    @cached_property
    def digests(self) -> Mapping[str, str]:
        return {symbol: one.digest for symbol, one in self.series.items()}

    @cached_property
    def data_hash(self) -> str:
        return digests.of(sorted(self.digests.values()), *([self.beside] if self.beside else []))

    @property
    def text(self) -> str:
        """Instruments, bar length and first day: a longer history of the same basket has the same text."""
        return ", ".join(f"{symbol} {one.interval_ms} {one.at[0] // DAY_MS}" for symbol, one in self.series.items())

    @property
    def why_empty(self) -> str:
        shown = "; ".join(f"{symbol} {why}" for symbol, why in list(self.notes.items())[:3])
        return f"no history of {self.asset_class.value} instruments long enough" + (f": {shown}" if shown else "")


def basket(series: Iterable[Series], asset_class: AssetClass, *, bars_min: int, share_min: float, named: bool = False) -> Basket:
    """The class's instruments with more than `bars_min` bars and at least `share_min` of the longest one's days. Of several recordings of
    one underlying the longest in days counts; with `named` the owner chose, and every one counts that has bars enough."""
    fitting = sorted((one for one in series if one.asset_class is asset_class), key=lambda one: (-_days(one), one.symbol))
    chosen: dict[str, Series] = {}
    notes: dict[str, str] = {}
    taken: dict[str, str] = {}
    for one in fitting:
        underlying = one.instrument.underlying
        if len(one) <= bars_min:
            notes[one.symbol] = f"has {len(one):,} bars, its strategy's warm-up alone takes {bars_min:,}"
        elif not named and underlying in taken:
            notes[one.symbol] = f"is the same market as {taken[underlying]}"
        elif not named and _days(one) < share_min * _days(fitting[0]):
            notes[one.symbol] = f"is recorded for {_days(one):.0f} days, the longest for {_days(fitting[0]):.0f}"
        else:
            taken[underlying] = one.symbol
            chosen[one.symbol] = one
    return Basket(asset_class, {symbol: chosen[symbol] for symbol in sorted(chosen)}, notes)


def _days(one: Series) -> float:
    return float(one.at[-1] - one.at[0]) / DAY_MS
