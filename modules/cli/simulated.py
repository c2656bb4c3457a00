"""`demo` and `replay`: the whole daemon on virtual time, then what became of the money, per class, as tables or one JSON document.

Nothing is decided here. Both say exit code 1 when the books do not agree with the venue's wallet at the end: then no number in them
is worth reading.
"""

from __future__ import annotations

import argparse
import heapq
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import main
from modules import Logger_Config
from modules.backtest.export import export_market
from modules.backtest.export_run import FOLDER, export_run
from modules.backtest.recorded import RecordedSource
from modules.cli import inputs
from modules.cli.output import emit, money, percent, picture, signed, table
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.domain.settings import Settings
from modules.news import calendar
from modules.news.calendar import Calendar
from modules.news.setup import Setup
from modules.notify.render import FactLogger
from modules.venues.demo_market import DemoMarket
from modules.venues.protocol import MarketSource

if TYPE_CHECKING:
    from rich.console import Console

AUDIT: Final = "modules.backtest.audit"


def demo(arguments: argparse.Namespace) -> int:
    """Thirty days (or as told) of the embedded market."""
    settings, policies = inputs.settings_and_policies(arguments, mode="demo", demo__seed=arguments.seed, demo__days=arguments.days)
    seed, days = settings.demo.seed, settings.demo.days
    source = DemoMarket(seed, days)
    wallets = {asset_class: settings.dry_run_wallet[asset_class] for asset_class in AssetClass}
    events = Calendar(source.macro_events, policies.news, covered_until={})
    if arguments.export is not None:
        _export(DemoMarket(seed, days), arguments.export, wallets)
    return _run(arguments, settings, policies, source, wallets, events, seed)


def replay(arguments: argparse.Namespace) -> int:
    """Recorded history. The macro calendar is the source's own events and the shipped ones; headlines come from a recording, if one is
    named, each from the moment on at which it was first seen."""
    settings, policies = inputs.settings_and_policies(arguments)
    if arguments.speed:
        raise ConfigurationError(["--speed: replay runs as fast as it goes; the only value is max"])
    wanted = frozenset(map(AssetClass, arguments.classes)) if arguments.classes else None
    if not arguments.data.is_dir():
        raise ConfigurationError([f"--data {arguments.data}: is not a folder"])
    news = Setup(inputs.recorded_news(arguments.news)) if arguments.news is not None else None
    source = RecordedSource(arguments.data, wanted, inputs.timerange(arguments.timerange), costs=policies.costs,
                            timeframe=arguments.timeframe)
    for line in ((*source.skipped, *source.notes) if arguments.verbose else ()):
        print(line, file=sys.stderr)
    present = wanted if wanted is not None else source.asset_classes
    opening = source.wallets if source.wallets is not None else settings.dry_run_wallet
    wallets = {asset_class: opening[asset_class] for asset_class in AssetClass if asset_class in present and asset_class in opening}
    shipped, _ = calendar.load(settings.policy_dir / "macro_calendar.json", policies.news)
    events = Calendar((*source.macro_events, *shipped), policies.news, covered_until={})
    if arguments.export is not None:
        _export(source, arguments.export, wallets)
    return _run(arguments, settings, policies, source, wallets, events, source.seed, news)


def _export(source: MarketSource, folder: Path, wallets: Mapping[AssetClass, Decimal]) -> None:
    try:
        export_market(source, folder, wallets=wallets)
    except (ValueError, OSError) as error:
        raise ConfigurationError([f"--export {folder}: {error}"]) from None


def _run(arguments: argparse.Namespace, settings: Settings, policies: Policies, source: MarketSource,
         wallets: Mapping[AssetClass, Decimal], events: Calendar, seed: int | None, news: Setup | None = None) -> int:
    log = Logger_Config.configure(settings.log_dir)
    with _folder(arguments.state) as folder, _progress(source) as on_instant:
        simulation = main.simulate(source, policies=policies, wallets=wallets, calendar=events, strategies=inputs.strategies(settings),
                                   folder=folder, on_instant=on_instant, news=news, blacklist=settings.pair_blacklist,
                                   whitelist=settings.pair_whitelist)
        faults = _audit(simulation)
        document = {
            "seed": seed, "from": iso(source.start), "to": iso(source.end), "bars": simulation.bars,
            "wall_s": round(simulation.wall_s, 3), "bars_per_s": round(simulation.bars / simulation.wall_s, 1),
            "trace_hash": simulation.daemon.journal.head, "reconciled": simulation.differences == 0 and not faults,
            "classes": simulation.recorder.classes(wallets), "blackouts": simulation.recorder.blackouts,
            "trade_log": str(log) if log is not None else None,
        }
        if arguments.export is not None:
            document["export"] = str(_export_run(simulation, arguments.export))
        _write_log(simulation, arguments.verb)
        simulation.daemon.decisions.close()
        simulation.daemon.journal.close()
    for fault in faults:
        print(f"audit: {fault}", file=sys.stderr)
    emit(arguments, document, show)
    return 0 if document["reconciled"] else 1


def _export_run(simulation: main.Simulation, folder: Path) -> Path:
    """Beside the market: every fill, row and decision, so that a stranger can recompute all of it (`journal audit`)."""
    try:
        return export_run(simulation, folder)
    except OSError as error:
        raise ConfigurationError([f"--export {folder / FOLDER}: {error}"]) from None


def _audit(simulation: main.Simulation) -> Sequence[str]:
    """What an independent recount of the books finds wrong."""
    if importlib.util.find_spec(AUDIT) is None:
        return ()
    faults: Sequence[str] = importlib.import_module(AUDIT).audit(simulation)
    return faults


def _write_log(simulation: main.Simulation, mode: str) -> None:
    """Facts and decisions in the order of their times, as the running daemon writes them."""
    logger = FactLogger(mode)
    facts = ((fact.at, 1, logger.on_fact, fact) for _, fact in simulation.daemon.journal.facts())
    decisions = ((decision.at, 0, logger.on_decision, decision) for decision in simulation.recorder.decisions)
    for _, _, write, what in heapq.merge(decisions, facts, key=lambda entry: entry[:2]):
        write(what)  # type: ignore[operator]


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where journal and decisions go: a new folder that is kept, or a temporary one."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="trading_bot_") as name:
            yield Path(name)
        return
    try:
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(kept.iterdir()):
            raise ConfigurationError([f"--state {kept}: is not empty; a simulated run needs a folder of its own"])
    except OSError as error:
        raise ConfigurationError([f"--state {kept}: {error.strerror}"]) from None
    yield kept


@contextmanager
def _progress(source: MarketSource) -> Iterator[Callable[[int], None] | None]:
    """A progress bar on stderr, only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    total = max(1, source.end - source.start)
    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn(),
                  console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total)
        step, due = total // 400, source.start

        def on_instant(at: int) -> None:
            nonlocal due
            if at >= due:
                due = at + step
                progress.update(task, completed=at - source.start, description=iso(at)[:10])

        yield on_instant


# -- for people --------------------------------------------------------------------------------------------------------


def show(out: Console, document: Mapping[str, Any]) -> None:
    """Money, risk and reasons per class, an equity picture, and where the log is."""
    classes: Mapping[str, Mapping[str, Any]] = document["classes"]
    seed = f", seed {document['seed']}" if document["seed"] is not None else ""
    out.print(f"{document['from'][:16]} to {document['to'][:16]} UTC{seed}: {document['bars']:,} bars in {document['wall_s']:.1f} s"
              f" ({document['bars_per_s']:,.0f} a second)", markup=False)
    out.print(table("Money (settlement currency, net of fees and funding)",
                    ("class", ">start", ">end", ">trades", ">gross", ">fees", ">funding", ">net", ">slippage bp"),
                    ((name, money(c["equity_start"]), money(c["equity_end"]), c["trades"], signed(c["gross_pnl"]), money(c["fees"]),
                      signed(c["funding"]), signed(c["net_pnl"]), f"{c['slippage_bp']:.2f}") for name, c in classes.items())))
    out.print(table("Risk", ("class", ">worst day", ">worst month", "phases", "halts"),
                    ((name, percent(c["drawdown_daily_max"]), percent(c["drawdown_monthly_max"]), _phases(c["phases"]), _halts(c["halts"]))
                     for name, c in classes.items())))
    out.print(table("Signals and what stopped them", ("class", ">signals", ">denied", "by rule"),
                    ((name, c.get("signals", ""), sum(c["denials"].values()), _denials(c["denials"])) for name, c in classes.items())))
    out.print("Equity")
    for name, c in classes.items():
        values = [float(equity) for _, equity in c["equity_curve"]]
        if values:
            out.print(f"  {name:<7}{picture(values)}  {min(values):,.2f} to {max(values):,.2f}", markup=False)
    verdict = "Books and wallet agree to the last digit." if document["reconciled"] else "BOOKS AND WALLET DIFFER: do not trust this run."
    out.print(f"\n{document['blackouts']} blackouts around macro releases. Trace {document['trace_hash'][:16]}. {verdict}", markup=False)
    out.print(f"Log: {document['trade_log']}", markup=False)
    if "export" in document:
        out.print(f"Run: {document['export']}; `python main.py journal audit {Path(document['export']).parent}` recounts it.", markup=False)


def _phases(phases: Sequence[Mapping[str, Any]]) -> str:
    shown = [f"{entry['phase']} ({entry['at'][:10]})" for entry in phases]
    return " > ".join(shown if len(shown) <= 4 else [*shown[:2], f"... {len(shown) - 3} more", shown[-1]]) or "-"


def _halts(halts: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{halt['trigger']} {halt['at'][:16]} {halt['measured']} (limit {halt['limit']}), "
                     + (f"re-armed {halt['rearmed_at'][:16]}" if halt["rearmed_at"] else "still halted") for halt in halts) or "none"


def _denials(denials: Mapping[str, int]) -> str:
    ordered = sorted(denials.items(), key=lambda item: -item[1])
    return ", ".join(f"{rule} {count}" for rule, count in ordered) or "-"
