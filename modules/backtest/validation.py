"""What a validation found about one strategy in one asset class: the verdict's document and what its report draws. Data only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.domain.instrument import AssetClass

Floats = NDArray[np.float64]
NO_DAYS: Floats = np.zeros(0)


@dataclass(frozen=True, slots=True)
class Line:
    """One bar of the gate with the number held against it; `measured` None = could not be measured, which never passes."""

    rule: str
    measured: float | None
    limit: float | None
    unit: str
    passed: bool
    note: str = ""
    gate: bool = True
    """False: reported, decides nothing."""


@dataclass(frozen=True, slots=True)
class Window:
    """One step of the anchored walk-forward. Days are UTC day numbers; the end is not included."""

    train_from: int
    train_until: int
    test_from: int
    test_until: int
    params: Mapping[str, float]
    """What was chosen by in-sample days alone."""
    in_sample: float
    """Annual Sharpe of the choice in its training days, and of the same choice in the days after them."""
    out_of_sample: float


@dataclass(frozen=True, slots=True)
class OnInstrument:
    """One instrument's part. Results are net and in units of the notional traded; `trades`, `net`, `sharpe` out of sample."""

    symbol: str
    bars: int
    begin: int
    """UTC ms."""
    end: int
    trades: int
    net: float
    sharpe: float
    fees: float
    funding: float
    certified: bool
    """Enough out-of-sample trades to be in a certificate."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Marks:
    """Prices of one instrument and the out-of-sample trades on it, thinned out for drawing."""

    symbol: str
    at: NDArray[np.int64]
    close: Floats
    entry_at: NDArray[np.int64]
    entry: Floats
    exit_at: NDArray[np.int64]
    exit: Floats
    side: NDArray[np.int64]
    net: Floats


@dataclass(frozen=True, slots=True)
class Picture:
    """What the report draws; empty arrays where nothing could be computed. Daily results are net, flat days in, per unit of notional."""

    periods: float
    """Days a year has for this class."""
    first_day: int = 0
    daily: Floats = field(default_factory=lambda: NO_DAYS)
    """The final parameters over all days, in sample and out of sample alike."""
    test_first_day: int = 0
    tested: Floats = field(default_factory=lambda: NO_DAYS)
    """The walk-forward's out-of-sample days, each by parameters chosen before it."""
    sets: tuple[Mapping[str, float], ...] = ()
    chosen: int = -1
    sharpes: Floats = field(default_factory=lambda: NO_DAYS)
    """Annual, of every set over all days."""
    observed: float = math.nan
    """The studentized maximum that was observed, and quantiles of the same under the null."""
    null: Floats = field(default_factory=lambda: NO_DAYS)
    null_limit: float = math.nan
    """The quantile that had to be passed."""
    windows: tuple[Window, ...] = ()
    instruments: tuple[OnInstrument, ...] = ()
    marks: Marks | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """One verdict with every number behind it."""

    strategy: str
    asset_class: AssetClass
    verdict: str
    """APPROVED, REJECTED or INSUFFICIENT EVIDENCE."""
    lines: tuple[Line, ...]
    metrics: Mapping[str, float]
    missing: str
    """What an approval lacks, in years, trades or cost; empty if approved."""
    next_command: str
    params: Mapping[str, float]
    """Final parameters: what a certificate is for."""
    instruments: tuple[str, ...]
    """Those with enough trades."""
    trials: int
    submissions: int
    data_hash: str
    code_hash: str
    seed: int
    picture: Picture
    failed_task: str = ""
    """Set where a task of this strategy raised, hung or killed its worker."""
    evidence: Any = None
    """What was handed to the judge (verdict.Evidence)."""
    trades: NDArray[Any] | None = None
    """Out-of-sample trades (kernel.TRADE) on those instruments."""
    certificate: str | None = None
    """The file that permits live trading; None without approval."""

    def document(self) -> dict[str, Any]:
        """The verdict as interfaces.md promises it to scripts."""
        return {
            "strategy": self.strategy, "asset_class": self.asset_class.value, "instruments": list(self.instruments),
            "verdict": self.verdict.replace(" ", "_"),
            "checks": [{"rule": line.rule, "measured": plain(line.measured), "limit": plain(line.limit), "unit": line.unit,
                        "passed": line.passed, "note": line.note, "gate": line.gate} for line in self.lines],
            "metrics": {name: plain(value) for name, value in self.metrics.items()}, "params": dict(self.params),
            "missing": self.missing, "next_command": self.next_command, "trials": self.trials, "submissions": self.submissions,
            "seed": self.seed, "data_hash": self.data_hash, "code_hash": self.code_hash, "certificate": self.certificate,
        }


def plain(value: float | None) -> float | None:
    """JSON has no word for what is not a number."""
    return None if value is None or not math.isfinite(value) else value
