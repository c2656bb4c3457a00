"""What Learning_Agent remembers of each strategy and each class, as data and as words for people. Pure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modules.domain.instrument import ASSET_CLASSES, AssetClass
from modules.learning.allocation import FORECASTERS, Belief
from modules.learning.calibration import Calibration, Prior

Key = tuple[str, AssetClass]
FILE: Final = "learning.json"
SEARCHED: Final = "searched.json"


@dataclass(slots=True)
class Record:
    """One strategy's outcomes, oldest first, and its running reward."""

    scores: deque[float]
    net_r: deque[float]
    closed: int = 0
    shadows: int = 0
    """How many of them only its shadow traded."""
    total_r: float = 0.0
    today: float = 0.0
    running: float = 0.0
    peak: float = 0.0
    prior: Prior | None = None
    """From its certificate; without one its score is not calibrated."""
    calibration: Calibration | None = None
    fresh: bool = False
    """Outcomes came in since the last calibration."""
    announced: int = -1
    """Outcomes in the last CalibrationUpdated."""

    def outcome(self, score: float, net_r: float, turnover_penalty: float, drawdown_penalty: float) -> None:
        """One trade is over: its net R, less what its owner's policy takes off for trading at all and for falling deeper."""
        self.scores.append(abs(score))
        self.net_r.append(net_r)
        self.closed += 1
        self.total_r += net_r
        self.fresh = True
        before = self.peak - self.running
        self.running += net_r
        self.peak = max(self.peak, self.running)
        deeper = max(0.0, self.peak - self.running - before)
        self.today += net_r - turnover_penalty - drawdown_penalty * deeper


@dataclass(slots=True)
class ClassMemory:
    """One asset class's allocation."""

    names: tuple[str, ...]
    belief: Belief
    halts: set[tuple[str, str]] = field(default_factory=set)
    last_closed: int | None = None
    announced: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        belief = self.belief
        return {
            "names": list(self.names), "weights": belief.weights.tolist(), "trust": belief.trust.tolist(),
            "total": belief.total.tolist(), "square": belief.square.tolist(), "effective": belief.effective,
            "pending": [row.tolist() for row in belief.pending], "days": belief.days, "halts": sorted(map(list, self.halts)),
            "last_closed": self.last_closed}


def record_document(record: Record) -> dict[str, Any]:
    made = record.calibration
    return {
        "closed": record.closed, "shadows": record.shadows, "total_r": record.total_r, "today": record.today, "running": record.running,
        "peak": record.peak, "scores": list(record.scores), "net_r": list(record.net_r),
        "expected_r": made.expected.value.tolist() if made is not None else None,
        "lower_r": made.lower.value.tolist() if made is not None else None}


def reasons(strategy: str, found: ClassMemory | None, record: Record | None, *, allocation_on: bool, frozen: bool) -> list[str]:
    """Why a strategy weighs what it weighs, the weightiest first."""
    if found is None or strategy not in found.names:
        return ["this strategy is not weighed"]
    said = [] if allocation_on else ["allocation is off: everybody keeps its size"]
    if frozen or found.halts:
        said.append("frozen by the operator" if frozen else "frozen while the class is halted")
    belief, index = found.belief, found.names.index(strategy)
    trust, trusted = max(zip(belief.trust.tolist(), FORECASTERS, strict=True))
    said.append(f"{trusted} is believed most ({trust:.0%})")
    mean = belief.total.item(index) / belief.effective if belief.effective > 0.0 else 0.0
    said.append(f"decayed net result {mean:+.4f} R a day over {belief.days} days")
    closed, shadows = (0, 0) if record is None else (record.closed, record.shadows)
    fell = 0.0 if record is None else record.peak - record.running
    said.append(f"{closed} closed trades ({shadows} of them only its shadow's), fell {fell:.1f} R from its peak")
    return said


def lines(classes: Mapping[AssetClass, ClassMemory], records: Mapping[Key, Record], *, allocation_on: bool, frozen: bool) -> list[str]:
    """What is believed, for people."""
    said = ["frozen by the operator" if frozen else "learning", "weights multiply sizes" if allocation_on else
            "weights are computed but not used (learning_policy.json: allocation_on)"]
    for asset_class in ASSET_CLASSES:
        found = classes.get(asset_class)
        if found is None or not found.belief.days:
            continue
        said.append(f"{asset_class.value} after {found.belief.days} days:")
        for name, weight in zip(found.names, found.belief.weights.tolist(), strict=True):
            record = records.get((name, asset_class))
            told = "no closed trades" if record is None or not record.closed else (
                f"{record.closed} trades ({record.shadows} shadow), {record.total_r:+.1f} R")
            said.append(f"  {name}: weight {weight:.2f}, {told}")
    return said


def save(document: Mapping[str, Any], folder: Path) -> None:
    """The state for people and backups, whole or not at all; a lost one is made anew from the journal."""
    _write(folder, FILE, json.dumps(document, indent=1))


def searched(folder: Path, at: int) -> None:
    """Parameters were last optimized anew at `at` (UTC ms)."""
    _write(folder, SEARCHED, json.dumps({"version": 1, "at": at}))


def searched_at(folder: Path) -> int | None:
    """When that was; None if never, or if the file says nothing."""
    path = folder / SEARCHED
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = folder / f"{name}.part"
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(folder / name)
