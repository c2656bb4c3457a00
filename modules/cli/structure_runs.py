"""The daemon as validation's simulator of option structures: one underlying, one strategy, one wallet, over recorded chains.

Called by worker processes, by name. Owns nothing; portfolio limits that look beyond one strategy are open, every other rule is the
owner's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import main
from modules.backtest.recorded import RecordedSource
from modules.backtest.series import Series, of_source
from modules.backtest.structures import Recording, Replayed
from modules.domain.instrument import AssetClass
from modules.domain.policies import CostPolicy, Policies
from modules.news.calendar import Calendar
from modules.strategies.protocol import Strategy

if TYPE_CHECKING:
    from modules.venues.protocol import MacroEvent, MarketSource, Step

CLASSES = (AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION)


class Alone:
    """A recording of which only one underlying is told."""

    def __init__(self, source: RecordedSource, symbol: str, underlying: str) -> None:
        self._source, self._symbol, self._underlying = source, symbol, underlying
        self.instruments = tuple(one for one in source.instruments if one.symbol == symbol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def steps(self) -> Iterator[Step]:
        for step in self._source.steps():
            bars = tuple(one for one in step.bars if one[0] == self._symbol)
            chains = tuple(one for one in step.chains if one.underlying == self._underlying)
            if bars or chains:
                yield step._replace(
                    bars=bars, chains=chains, marks=tuple(one for one in step.marks if one[0] == self._symbol),
                    funding=tuple(one for one in step.funding if one.symbol == self._symbol), financing=(), transfers=(), ended=())


def replay(recording: Recording, strategy: Strategy, policies: Policies) -> Replayed:
    """Raises what the daemon raises, DataError for files that cannot be read."""
    source = _opened(recording.folder, recording.since, recording.until, policies.costs.model_dump_json())
    alone = cast("MarketSource", Alone(source, recording.symbol, recording.underlying))
    wallet = policies.validation.drawdown_equity
    with tempfile.TemporaryDirectory() as folder:
        done = main.simulate(
            alone, policies=_alone(policies), wallets={AssetClass.OPTION: wallet}, calendar=Calendar(recording.events, policies.news, {}),
            strategies={AssetClass.OPTION: (strategy,)}, folder=Path(folder))
        done.daemon.decisions.close()
        done.daemon.journal.close()
    return Replayed(tuple(done.daemon.portfolio.closed), [(at, float(equity)) for at, equity in done.recorder.curve[AssetClass.OPTION]],
                    float(wallet))


@lru_cache(maxsize=2)
def _opened(folder: str, since: int, until: int, costs: str) -> RecordedSource:
    """Opening takes longer than replaying: the sets of one task share it."""
    return RecordedSource(Path(folder), CLASSES, (since, until), costs=CostPolicy.model_validate_json(costs), skip_faulty=True)


def _alone(policies: Policies) -> Policies:
    """What looks beyond one strategy and what halts a class, opened wide: as benchmarks.parity."""
    kill = policies.kill_switch.model_copy(update={"drawdown_daily_max": 1, "drawdown_monthly_max": 1, "slippage_events_max": 10**9})
    return policies.model_copy(update={"kill_switch": kill, "sizing": policies.sizing.model_copy(update={"daily_risk_budget": 1})})


def recordings(folder: Path, costs: CostPolicy, events: Sequence[MacroEvent]) -> tuple[tuple[Recording, Series], ...]:
    """Every underlying of the recorded chains that has bars meanwhile, with those bars, by name."""
    whole = RecordedSource(folder, CLASSES, costs=costs, skip_faulty=True)
    span = whole.chain_span
    if span is None:
        return ()
    source = RecordedSource(folder, CLASSES, span, costs=costs, skip_faulty=True)
    series = of_source(source)
    found = []
    for underlying in source.chain_underlyings:
        fitting = [one for one in source.instruments if one.underlying == underlying and "#" not in one.symbol]
        watched = sorted(fitting, key=lambda one: (one.asset_class is not AssetClass.PERP, one.symbol))
        if watched:
            found.append((Recording(str(folder.resolve()), watched[0].symbol, underlying, *span, tuple(events)), series[watched[0].symbol]))
    return tuple(sorted(found, key=lambda one: one[0].symbol))


def beside(folder: Path) -> str:
    """Digest of the recorded chains' files: names and contents."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if "chain" in path.name and path.is_file()):
        total.update(path.name.encode())
        total.update(path.read_bytes())
    return total.hexdigest()
