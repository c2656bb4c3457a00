"""Champion against challenger: re-optimized parameters shadow-trade under their own name until one paired look decides. Pure but a file.

A challenger is a strategy of the installation with other parameters. It may trade the book only after the gate certified it (exactly its
parameters) *and* its daily shadow results beat the champion's on the same days, in one test, taken once enough trades are in: looking
again until it fits would find a winner in noise. After a promotion the old champion shadow-trades on, and what turns out worse goes back.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError

from modules.domain.canonical import digest
from modules.domain.errors import ConfigurationError
from modules.domain.events import ChallengerEntered, ChallengerJudged
from modules.domain.instrument import AssetClass
from modules.domain.policies import ChallengePolicy
from modules.strategies.protocol import Strategy

FILE: Final = "challengers.json"
VERSION: Final = 1
PROMOTED: Final = "PROMOTED"
DROPPED: Final = "DROPPED"
ROLLED_BACK: Final = "ROLLED_BACK"
_LAGS: Final = 5


@dataclass(frozen=True, slots=True)
class Challenger:
    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    champion: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    asset_class: AssetClass
    params: dict[str, float]
    origin: str
    """What found it: for people."""

    @property
    def name(self) -> str:
        """The same parameters are the same challenger, whenever they are found again."""
        return f"{self.champion}_{digest(dict(sorted(self.params.items())))[:8]}"


_ADAPTER: Final = TypeAdapter(tuple[Challenger, ...])


def load(folder: Path) -> tuple[Challenger, ...]:
    """Those of state/learning/challengers.json; none without it. Raises ConfigurationError."""
    path = folder / FILE
    if not path.is_file():
        return ()
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(tree, dict) or tree.get("version") != VERSION:
            raise ConfigurationError([f"{path}: is no list of challengers of version {VERSION}"])
        return _ADAPTER.validate_python(tree["challengers"])
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise ConfigurationError([f"{path}: cannot be read: {str(error).splitlines()[0]}"]) from None


def save(challengers: Sequence[Challenger], folder: Path) -> Path:
    """Written whole or not at all; one per champion and class, the newest."""
    newest = {(one.champion, one.asset_class): one for one in challengers}
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / FILE
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("w", encoding="utf-8") as out:
        json.dump({"version": VERSION, "challengers": [
            {"champion": one.champion, "asset_class": one.asset_class.value, "params": one.params, "origin": one.origin}
            for one in newest.values()]}, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return path


def strategy_of(challenger: Challenger, known: Mapping[str, Strategy]) -> Strategy | None:
    """The champion's code with the challenger's name and parameters; None if there is no such strategy, class or parameter (any more)."""
    champion = known.get(challenger.champion)
    if champion is None or challenger.asset_class not in champion.asset_classes or set(challenger.params) != set(champion.params._fields):
        return None
    typed = {name: type(getattr(champion.params, name))(value) for name, value in challenger.params.items()}
    return replace(champion, name=challenger.name, params=champion.params._replace(**typed), asset_classes=(challenger.asset_class,),
                   space={})


# -- the contest ---------------------------------------------------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """What a ChallengerJudged says, field by field."""

    at: int
    champion: str
    challenger: str
    asset_class: AssetClass
    outcome: str
    trades: int
    days: int
    difference_r: float
    p: float
    reason: str


@dataclass(slots=True)
class Contest:
    """What is known of one challenger. `days`: UTC day -> [champion's, challenger's] net R of the shadow trades that closed on it."""

    champion: str
    challenger: str
    asset_class: AssetClass
    entered_day: int
    promoted: bool = False
    over: bool = False
    trades: int = 0
    days: dict[int, list[float]] = field(default_factory=dict)

    def seen(self, strategy: str, day: int, net_r: float) -> None:
        if self.over or strategy not in (self.champion, self.challenger):
            return
        pair = self.days.setdefault(day, [0.0, 0.0])
        pair[strategy == self.challenger] += net_r
        self.trades += strategy == self.challenger

    @property
    def benched(self) -> str:
        """Who only shadow-trades; "" = neither."""
        if self.promoted:
            return self.champion
        return self.challenger

    def told(self, fact: ChallengerJudged) -> None:
        """A judgment: a promotion begins the watch for a roll-back with nothing seen."""
        self.promoted = fact.outcome == PROMOTED
        self.over = not self.promoted
        self.trades, self.days = 0, {}

    def judge(self, day: int, at: int, policy: ChallengePolicy, certified: bool) -> Verdict | None:
        """What is due at the beginning of `day`, if anything. `certified`: the challenger's own certificate is in force now."""
        if self.over:
            return None
        if self.promoted:
            return self._rolled_back(day, at, policy, certified)
        if self.trades >= policy.trades_min and certified:
            mean, p = paired(self._differences(day))
            won = mean > 0.0 and p <= float(policy.p_max)
            return self._verdict(at, PROMOTED if won else DROPPED, mean, p,
                                 "certified and better in the paired test" if won else "certified, but not shown to be better")
        if day - self.entered_day > policy.days_max:
            mean, p = paired(self._differences(day))
            return self._verdict(at, DROPPED, mean, p, f"{self.trades} shadow trades" if certified else "no certificate in all its time")
        return None

    def _rolled_back(self, day: int, at: int, policy: ChallengePolicy, certified: bool) -> Verdict | None:
        mean, p = paired(-self._differences(day))
        if not certified:
            return self._verdict(at, ROLLED_BACK, -mean, p, "its certificate is no longer in force")
        if self.trades >= policy.rollback_trades_min and mean > 0.0 and p <= float(policy.p_max):
            return self._verdict(at, ROLLED_BACK, -mean, p, "worse than the champion it replaced")
        return None

    def _verdict(self, at: int, outcome: str, mean: float, p: float, reason: str) -> Verdict:
        return Verdict(at, self.champion, self.challenger, self.asset_class, outcome, self.trades, len(self.days), mean, p, reason)

    def _differences(self, day: int) -> NDArray[np.float64]:
        """Challenger less champion, f8[days], days without a trade in."""
        if not self.days:
            return np.zeros(0)
        first = min(self.days)
        found = np.zeros(max(1, day - first))
        for at, (champion, challenger) in self.days.items():
            if at - first < len(found):
                found[at - first] = challenger - champion
        return found

    def document(self) -> dict[str, Any]:
        return {"champion": self.champion, "challenger": self.challenger, "asset_class": self.asset_class.value, "promoted": self.promoted,
                "over": self.over, "trades": self.trades, "days": {str(day): list(pair) for day, pair in sorted(self.days.items())}}


def contest_of(fact: ChallengerEntered) -> Contest:
    return Contest(fact.champion, fact.challenger, fact.asset_class, fact.at // 86_400_000)


def paired(differences: NDArray[np.float64]) -> tuple[float, float]:
    """(mean, one-sided p of a mean at or below zero) of f8[days], allowing for a week's dependence: Newey and West's standard error
    (Econometrica 55, 1987) with its small-sample factor; p = 1 where nothing can be said."""
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < 3 * _LAGS:
        return mean, 1.0
    apart = differences - mean
    variance = float(apart @ apart)
    for lag in range(1, _LAGS + 1):
        variance += 2.0 * (1.0 - lag / (_LAGS + 1)) * float(apart[lag:] @ apart[:-lag])
    variance /= count * (count - _LAGS)
    if not variance > 0.0:
        return mean, 1.0
    return mean, 1.0 - NormalDist().cdf(mean / math.sqrt(variance))
