"""What a strategy says, and what the daemon makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from modules.domain.instrument import AssetClass, Side


class Intent(NamedTuple):
    """A strategy's view at one bar close: what `step` returns.

    `score` in [-1, 1]: its sign is the holding the strategy wants from the next open on (0 = flat), its size how sure it is.
    `stop` and `target` are distances from the entry in price units (0 = none; a signal without a stop cannot be sized by risk);
    `hold` is the longest holding time in bars (0 = no limit). Only the values at the bar of entry count.
    """

    score: float = 0.0
    stop: float = 0.0
    target: float = 0.0
    hold: int = 0


FLAT = Intent()


class Structure(StrEnum):
    """What a strategy trades on its underlying. Everything but SINGLE resolves to option contracts of a chain."""

    SINGLE = "single"
    LONG_OPTION = "long_option"
    CREDIT_SPREAD = "credit_spread"
    IRON_CONDOR = "iron_condor"

    @property
    def sells(self) -> bool:
        """Whether it takes in a premium, and its bought legs bound what it can lose."""
        return self in (Structure.CREDIT_SPREAD, Structure.IRON_CONDOR)


@dataclass(frozen=True, slots=True)
class Signal:
    """One strategy's wish at one bar close, ready to be judged. Distances are fractions of a price in `symbol`'s quote currency."""

    at: int
    strategy: str
    symbol: str
    """The instrument, or for option structures the underlying's series the strategy watches."""
    asset_class: AssetClass
    side: Side
    score: float
    confidence: float
    """Calibrated, in [0, 1]."""
    entry: float
    """Expected entry price: the far side of the quote at the close."""
    stop: float | None
    """Stop price, None if the strategy gives none."""
    target: float | None
    hold: int
    interval_ms: int
    structure: Structure = Structure.SINGLE
