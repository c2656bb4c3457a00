"""Which strategies a research verb works on and over what history: recorded files, or the embedded demo market written to a folder.

Refuses by ConfigurationError with file, key and remedy. Loads NumPy and the recordings only when asked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from modules.cli import inputs
from modules.cli.challenging import with_challengers
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import Settings
from modules.strategies import registry

if TYPE_CHECKING:
    from modules.backtest.recorded import RecordedSource
    from modules.backtest.series import Series
    from modules.news.store import NewsStore
    from modules.strategies.protocol import Strategy
    from modules.venues.protocol import MacroEvent, MarketSource, Step

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Work:
    """What was asked for. `chains`: option chains were recorded."""

    settings: Settings
    policies: Policies
    strategies: tuple[Strategy, ...]
    classes: frozenset[AssetClass]
    series: dict[str, Series]
    origin: str
    """Where the history came from, for people."""
    data: Path | None
    """The folder named by --data; None = demo market."""
    chains: bool
    macro_events: tuple[MacroEvent, ...]
    """Releases that were recorded beside the prices."""
    news: NewsStore | None
    """A recording of headlines, if one was named."""


def work(arguments: argparse.Namespace) -> Work:
    """Settings, strategies and history of one research verb."""
    settings, policies = inputs.settings_and_policies(arguments, mode=getattr(arguments, "mode", None))
    named = getattr(arguments, "news", None)
    news = inputs.recorded_news(named) if named is not None else None
    strategies = chosen(arguments.strategy, inputs.state_folder(settings) / "learning")
    wanted = frozenset(map(AssetClass, arguments.classes)) if arguments.classes else None
    classes = frozenset(of for strategy in strategies for of in strategy.asset_classes if wanted is None or of in wanted)
    if not classes:
        fits = ", ".join(sorted({of.value.lower() for strategy in strategies for of in strategy.asset_classes}))
        raise ConfigurationError([f"--classes {','.join(arguments.classes).lower()}: no strategy of these trades there; they trade {fits}"])
    folder, origin, since = _folder(arguments, settings)
    series, source = _load(arguments, folder, policies, since, wanted)
    chains = AssetClass.OPTION in source.asset_classes or arguments.data is None
    return Work(settings, policies, strategies, classes, series, origin, arguments.data, chains, tuple(source.macro_events),
                news)


def chosen(names: list[str], challengers: Path | None = None) -> tuple[Strategy, ...]:
    """The named strategies (challengers too, where their list is), or all. Every name that does not exist is a fault."""
    known = registry.all_strategies()
    if names and challengers is not None:
        known = with_challengers(known, challengers)
    faults = [registry.not_found(name, known, registry.faults()) for name in names if name not in known]
    if faults:
        raise ConfigurationError([f"-s: {fault}" for fault in faults])
    for fault in () if names else registry.faults():
        print(f"quarantined: {fault}", file=sys.stderr)
    return tuple(known[name] for name in dict.fromkeys(names)) if names else tuple(known.values())


def _folder(arguments: argparse.Namespace, settings: Settings) -> tuple[Path, str, int | None]:
    """The folder to read, what it is called, and where its history begins if not at its first bar (UTC ms)."""
    if arguments.data is not None:
        if not arguments.data.is_dir():
            raise ConfigurationError([f"--data {arguments.data}: is not a folder; download-data makes one, demo --export DIR too"])
        return arguments.data, str(arguments.data), None
    from modules.backtest.export import HISTORY_DAYS, export_market
    from modules.venues.demo_market import DemoMarket

    seed, days = settings.demo.seed, settings.demo.days
    market = DemoMarket(seed, days)
    since = market.start - HISTORY_DAYS * DAY_MS
    folder = settings.state_dir / "validation" / f"demo-{seed}-{days}"
    if not (folder / "replay.json").is_file():  # written last
        print("writing the demo market's history, once ...", file=sys.stderr)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        export_market(cast("MarketSource", _WithoutChains(market)), unfinished)
        unfinished.rename(folder)
    return folder, f"demo market, seed {seed}, {days} days", since


class _WithoutChains:
    """A market whose option chains nobody asks for: most of what there would be to write."""

    def __init__(self, market: MarketSource) -> None:
        self._market = market

    def __getattr__(self, name: str) -> Any:
        return getattr(self._market, name)

    def steps(self) -> Iterator[Step]:
        for step in self._market.steps():
            yield step._replace(chains=()) if step.chains else step


def _load(arguments: argparse.Namespace, folder: Path, policies: Policies, since: int | None,
          wanted: frozenset[AssetClass] | None) -> tuple[dict[str, Series], RecordedSource]:
    from modules.backtest.recorded import RecordedSource
    from modules.backtest.series import of_source

    start, end = inputs.timerange(arguments.timerange)
    source = RecordedSource(folder, wanted, (start if start is not None else since, end), costs=policies.costs,
                            timeframe=arguments.timeframe, skip_faulty=True)
    for line in ((*source.skipped, *source.notes) if arguments.verbose else ()):
        print(line, file=sys.stderr)
    series = of_source(source, arguments.symbols)
    missing = [symbol for symbol in arguments.symbols or () if symbol not in series]
    if missing:
        near = sorted(instrument.symbol for instrument in source.instruments)
        shown = ", ".join(near[:12]) + (f" and {len(near) - 12} more" if len(near) > 12 else "")
        raise ConfigurationError([f"--symbols {symbol}: is not recorded in {folder}; there are {shown}" for symbol in missing])
    return series, source
