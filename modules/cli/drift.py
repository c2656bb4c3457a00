"""`drift`: the stored candles stepped again through the strategies, beside what the daemon decided. The daemon runs it once a day.

Reads journal, decisions and candles of the settings' mode, also while a daemon writes them; changes nothing. Certified strategies are
compared from their certificate on, with its parameters. Exit code 1 if any strategy differs by more than the policy allows. With
`--warm` it also compiles validation's kernel, as the daemon has it do while nobody waits.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules.cli import following, inputs
from modules.cli.output import emit, table
from modules.domain.events import DaemonStarted, Fact, PositionClosed, StrategyApproved, TradeAbandoned, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.sessions import iso
from modules.store.journal import Journal

if TYPE_CHECKING:
    from rich.console import Console

    from modules.backtest.drift import Past, Seen
    from modules.strategies.protocol import Strategy

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
FOREVER: Final = 1 << 62
CANDLES: Final = "candles.sqlite"
DECISIONS: Final = "decisions.sqlite"
LEADERS: Final = ("BTC/USDT", "BTC/USDT:USDT", "EUR/USD")
"""As main.reference_series chooses them."""


def run(arguments: argparse.Namespace) -> int:
    from modules.backtest import drift
    from modules.backtest.kernel import Rules

    settings, policies = inputs.settings_and_policies(arguments, mode=following.mode_of(arguments, files=True))
    folder = inputs.state_folder(settings)
    with Journal(folder / "journal.sqlite", read_only=True) as journal:
        facts = journal.of(DaemonStarted, TradeOpened, PositionClosed, TradeAbandoned, StrategyApproved)
    past, classes = _past(folder, facts)
    every = _seen(folder, classes)
    now = max((one.closes[-1] for one in every), default=0)
    since, rules, limits = now - arguments.days * DAY_MS, Rules(policies), policies.learning.demotion
    rows = []
    for asset_class, listed in inputs.strategies(settings).items():
        leader = next((one for one in every if one.asset_class is asset_class and one.symbol in LEADERS), None)
        for installed in listed:
            strategy, certified = _certified(installed, asset_class, facts, every)
            found = drift.of_strategy(strategy, asset_class, every, leader, past, rules, max(since, certified))
            different, share = found.found.different, found.found.share
            rows.append({"strategy": strategy.name, "asset_class": asset_class.value, "compared": found.found.compared,
                         "different": different, "first": found.found.first, "why_not": found.why_not,
                         "drifts": different >= limits.drift_min and share > float(limits.drift_share_max)})
    compiled = None
    if arguments.warm:
        from modules.backtest.warm import warm

        compiled = warm({one.name: one for listed in inputs.strategies(settings).values() for one in listed}.values(), rules)
    emit(arguments, {"until": iso(now) if now else None, "days": arguments.days, "strategies": rows, "compiled": compiled}, _show)
    return 1 if any(row["drifts"] for row in rows) else 0


def _past(folder: Path, facts: Sequence[Fact]) -> tuple[Past, dict[str, AssetClass]]:
    """What the daemon did, and the class of every instrument it ever decided about: others are not compared."""
    from modules.backtest.drift import Past
    from modules.store.decisions import Decisions

    if not (folder / DECISIONS).exists():
        return Past((), {}, (), lambda _, __: False), {}
    decisions = Decisions(folder / DECISIONS)
    try:
        decided, hours = list(decisions.between(0, FOREVER)), decisions.hours()
    finally:
        decisions.close()
    open_: dict[str, TradeOpened] = {}
    held: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for fact in facts:
        match fact:
            case TradeOpened():
                open_[fact.trade_id] = fact
            case PositionClosed(at=at, trade=trade) if trade.trade_id in open_:
                held[trade.strategy, trade.symbol].append((open_.pop(trade.trade_id).at, at))
            case TradeAbandoned(at=at, trade_id=trade_id) if trade_id in open_:
                begun = open_.pop(trade_id)
                held[begun.strategy, begun.symbol].append((begun.at, at))
    for begun in open_.values():
        held[begun.strategy, begun.symbol].append((begun.at, FOREVER))

    def up(asset_class: AssetClass, at: int) -> bool:
        """In the hour before, too: the first bars after a start only warm up."""
        return {at // HOUR_MS, at // HOUR_MS - 1} <= hours[asset_class]

    starts = sorted(fact.at for fact in facts if isinstance(fact, DaemonStarted))
    return Past(decided, held, starts, up), {one.symbol: one.asset_class for one in decided if one.asset_class is not AssetClass.OPTION}


def _seen(folder: Path, classes: Mapping[str, AssetClass]) -> list[Seen]:
    from modules.backtest.drift import Seen
    from modules.store.candles import Candles

    if not (folder / CANDLES).exists():
        return []
    candles = Candles(folder / CANDLES)
    try:
        return [Seen(symbol, classes[symbol], interval, bars) for symbol, interval in candles.kept()
                if symbol in classes and (bars := candles.range(symbol, interval, 0, FOREVER))]
    finally:
        candles.close()


def _certified(installed: Strategy, asset_class: AssetClass, facts: Sequence[Fact], every: Sequence[Seen]) -> tuple[Strategy, int]:
    """With the parameters it was certified with, and from when on: what it ran with before was something else, and then it warmed up."""
    from modules.strategies import fingerprint

    mine = [fact for fact in facts if isinstance(fact, StrategyApproved) and fact.certificate.asset_class is asset_class
            and fact.certificate.strategy == installed.name]
    fitted = fingerprint.with_params(installed, mine[-1].certificate.params) if mine else None
    if fitted is None:
        return installed, 0
    longest = max((one.interval_ms for one in every if one.asset_class is asset_class), default=0)
    return fitted, mine[-1].at + installed.warmup * longest


def _show(out: Console, document: Mapping[str, Any]) -> None:
    rows = document["strategies"]
    out.print(table(f"Decided and replayed, the last {document['days']} days", ("strategy", "class", ">signals", ">different", "first"), (
        (row["strategy"], row["asset_class"], row["compared"], row["different"], row["why_not"] or row["first"]) for row in rows)))
    if not any(row["compared"] for row in rows):
        out.print("Nothing to compare yet: it takes a strategy's warm-up in stored bars, and a signal after it.", markup=False)
