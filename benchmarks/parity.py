"""Does the compiled kernel trade what the daemon trades? `python -m benchmarks.parity [--data DIR] [--only NAME] [--bars N] [--json FILE]`.

Every shipped strategy (option structures excepted, which the kernel does not simulate) and twenty generated ones, one strategy on one
instrument at a time, portfolio gates off: the whole daemon replays the recording with the kernel's import blocked, the kernel runs the
same files, and the trades must be the same one for one: side, bars of entry and exit, reason, prices to the tick, net result to 1e-9.
A shipped strategy runs over its recordings, one class after the other, until it has 100,000 bars, 300 trades and 20 of every reason of exit
that it can have (that the kernel finds with any set of its grid on any recording; `--all`: over every recording). What is lacking then is
looked for: the kernel finds with which set, on which recording, it comes most often (`carry@7` is the seventh set), and both run
that; what comes nowhere often, they run in those stretches of the recordings alone where it comes, from before the warm-up on (`--around
REASON` does only this). `short` says what was not reached. A generated strategy runs over one recording of its class.

`--keep FILE` writes one line a comparison as it ends and, under the very same program, goes on from there when it is run again.

--news gives both an invented recording of headlines and calendar snapshots, and the shipped calendar: moods, cautions and blackouts then
block the same entries and lower the same sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.parity_news import record
from benchmarks.parity_strategies import generated
from modules.backtest import digests
from modules.backtest.grid import grid
from modules.backtest.heard import with_news
from modules.backtest.recorded import RecordedSource
from modules.backtest.series import of_source
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.signal import Structure
from modules.news import calendar
from modules.news.setup import Setup
from modules.news.store import NewsStore
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies
from modules.venues.protocol import MacroEvent

SHARED: Final = Path(__file__).resolve().parents[2] / "shared" / "market_data"
NET: Final = 1e-9
PRICE: Final = 1e-12
TRADES_MIN: Final = 300
REASON_MIN: Final = 20
BARS_MIN: Final = 100_000
GENERATED_BARS: Final = 20_000
FEW: Final = 4
"""A recording that adds fewer of what is lacking is not run as a whole: stretches of it cost less."""
WHOLE_MAX: Final = 12
"""Further recordings as a whole, with other sets."""
SETS: Final = 50
ROOM: Final = 3
"""Warm-ups before the entry a stretch is about."""


@dataclass(frozen=True)
class Case:
    """One recording: the files of one instrument."""

    asset_class: AssetClass
    files: tuple[str, ...]
    timeframe: str | None = None


CASES: Final = (
    Case(AssetClass.SPOT, ("crypto_spot/binance_BTCUSDT_5m.parquet",)),
    Case(AssetClass.SPOT, ("crypto_spot/binance_ETHUSDT_5m.parquet",)),
    Case(AssetClass.SPOT, ("crypto_spot/binance_BTCUSDT_1h.parquet",)),
    Case(AssetClass.SPOT, ("crypto_spot/binance_ADAUSDT_5m.parquet",)),
    Case(AssetClass.PERP, ("crypto_perp/binance_BTCUSDT-PERP_1h.parquet", "crypto_perp/binance_BTCUSDT-PERP_1h_mark.parquet",
                           "crypto_perp/binance_BTCUSDT-PERP_funding.parquet")),
    Case(AssetClass.PERP, ("crypto_perp/binance_ETHUSDT-PERP_1h.parquet", "crypto_perp/binance_ETHUSDT-PERP_1h_mark.parquet",
                           "crypto_perp/binance_ETHUSDT-PERP_funding.parquet")),
    Case(AssetClass.PERP, ("crypto_perp/binance_ADAUSDT-PERP_1h.parquet", "crypto_perp/binance_ADAUSDT-PERP_1h_mark.parquet",
                           "crypto_perp/binance_ADAUSDT-PERP_funding.parquet")),
    Case(AssetClass.PERP, ("crypto_perp/binance_SOLUSDT-PERP_5m.parquet", "crypto_perp/binance_SOLUSDT-PERP_funding.parquet")),
    Case(AssetClass.FOREX, ("forex/mt5_GBPUSD_1h.parquet",)),
    Case(AssetClass.FOREX, ("forex/mt5_USDJPY_1h.parquet",)),
    Case(AssetClass.FOREX, ("forex/oanda_EURUSD_1h_bidask.parquet",)),
    Case(AssetClass.FOREX, ("forex/mt5_AUDUSD_1h.parquet",)),
)


@cache
def policies() -> Policies:
    """The owner's, with what looks beyond one instrument and what halts a class opened wide."""
    found = common.policies()
    kill = found.kill_switch.model_copy(update={"drawdown_daily_max": 1, "drawdown_monthly_max": 1, "slippage_events_max": 10**9})
    return found.model_copy(update={"kill_switch": kill, "sizing": found.sizing.model_copy(update={"daily_risk_budget": 1})})


def linked(case: Case, data: Path, folder: Path) -> Path:
    """A folder with the case's files, and the interest rates forex financing comes from."""
    more = tuple(str(path.relative_to(data)) for path in (data / "macro").glob("*")) if case.asset_class is AssetClass.FOREX else ()
    for name in (*case.files, *more):
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(data / name)
    return folder


def macro_events(source: RecordedSource, rules: Policies, news: bool) -> Sequence[MacroEvent]:
    """What closes entries: nothing, or with news as in a replay the recording's own events and the shipped ones."""
    return (*source.macro_events, *calendar.load(common.ROOT / "policies" / "macro_calendar.json", rules.news)[0]) if news else ()


def headlines(source: RecordedSource, folder: Path) -> NewsStore:
    (series,) = source.recordings
    path = folder / "news.db"
    return NewsStore.recording(path if path.exists() else record(path, series.instrument, source.start, source.end, 5))


def replayed(source: RecordedSource, strategy: Strategy, asset_class: AssetClass, rules: Policies,
             news: NewsStore | None = None) -> list[dict[str, Any]]:
    """The daemon's trades, oldest first. Raises RuntimeError if it has loaded the kernel."""
    from main import simulate

    events = calendar.Calendar(macro_events(source, rules, news is not None), rules.news, {})
    with tempfile.TemporaryDirectory() as folder:
        done = simulate(source, policies=rules, wallets={asset_class: common.WALLET}, calendar=events,
                        strategies={asset_class: (strategy,)}, folder=Path(folder), news=Setup(news) if news is not None else None)
        trades = [{"side": trade.side.sign, "entry_at": trade.opened_at, "exit_at": trade.closed_at, "reason": trade.exit_reason.value,
                   "entry": float(trade.entry), "exit": float(trade.exit), "quantity": float(trade.quantity), "net": float(trade.net),
                   "funding": float(trade.funding), "fees": float(trade.fees), "risk": float(trade.risk)}
                  for trade in done.daemon.portfolio.closed]
        assert done.differences == 0, "books and wallet differ"
        done.daemon.decisions.close()
        done.daemon.journal.close()
    if "numba" in sys.modules:
        raise RuntimeError("the replay has loaded numba")
    return trades


def in_a_process_of_its_own(case: Case, name: str, data: Path, bars: int, *, news: bool = False) -> list[dict[str, Any]]:
    """`replayed` where importing the kernel or Numba fails."""
    program = ("import sys, json; sys.modules['numba'] = None; sys.modules['modules.backtest.kernel'] = None\n"
               "from pathlib import Path; from benchmarks import parity\n"
               f"print(json.dumps(parity.replay_case({CASES.index(case)}, {name!r}, Path({str(data)!r}), {bars}, news={news})))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def opened(case: Case, data: Path, folder: Path, bars: int) -> RecordedSource:
    source = RecordedSource(linked(case, data, folder), (case.asset_class,), costs=policies().costs, timeframe=case.timeframe)
    if not bars:
        return source
    (series,) = source.recordings
    until = int(series.bars.ts[min(bars, len(series.bars)) - 1]) + series.interval_ms
    return RecordedSource(folder, (case.asset_class,), (None, until), costs=policies().costs, timeframe=case.timeframe)


def replay_case(index: int, name: str, data: Path, bars: int, *, news: bool = False) -> list[dict[str, Any]]:
    sys.modules.pop("numba", None)  # None there blocks the import; what the replay leaves is looked at
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[index]
        source = opened(case, data, Path(folder), bars)
        return replayed(source, resolved(name), case.asset_class, policies(), headlines(source, Path(folder)) if news else None)


def strategies() -> Mapping[str, Strategy]:
    shipped = {name: strategy for name, strategy in all_strategies().items() if strategy.structure is Structure.SINGLE}
    return {**shipped, **{strategy.name: strategy for strategy in generated()}}


def resolved(name: str) -> Strategy:
    """A strategy by name, `name@k` with the k-th set of its grid."""
    plain, _, number = name.partition("@")
    strategy = strategies()[plain]
    return replace(strategy, params=grid(strategy, SETS)[int(number)]) if number else strategy


def lacking(rows: Sequence[Mapping[str, Any]], can: Sequence[str] = ()) -> dict[str, int]:
    """What a strategy's rows lack of the bars ("bars"), trades ("trades") and exits (by reason) that were asked for. `can`: reasons it can
    have that need not be in the rows."""
    reasons = sum((Counter(row["reasons"]) for row in rows), Counter[str]())
    missing = {"bars": BARS_MIN - sum(row["bars"] for row in rows), "trades": TRADES_MIN - sum(row["trades"] for row in rows),
               **{reason: REASON_MIN - reasons[reason] for reason in sorted({*can, *reasons})}}
    return {what: count for what, count in missing.items() if count > 0}


def kernel_trades(case: Case, name: str, data: Path, bars: int, *, compiled: bool = True,
                  news: bool = False) -> tuple[list[dict[str, Any]], int]:
    """The kernel's trades in the same words, and how many bars there were."""
    from modules.backtest import kernel

    rules = kernel.Rules(policies(), phased=True, wallet=float(common.WALLET))
    with tempfile.TemporaryDirectory() as folder:
        source = opened(case, data, Path(folder), bars)
        found_series = of_source(source)
        if news:
            found_series = with_news(found_series, policies(), macro_events(source, policies(), news), headlines(source, Path(folder)))
        (series,) = found_series.values()
    strategy = resolved(name)
    found = kernel.run(strategy, strategy.params, series, rules, finish=False, compiled=compiled)
    trades = []
    for row in found.trades:
        reason = kernel.REASONS[int(row["reason"])]
        keys = ("side", "entry_at", "exit_at", "entry", "exit", "quantity", "net", "funding", "fees", "risk")
        trades.append({key: row[key].item() for key in keys} | {"reason": reason.value if reason is not None else ""})
    return trades, len(series)


def differences(daemon: Sequence[Mapping[str, Any]], kernel: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Every way in which the two lists differ."""
    if len(daemon) != len(kernel):
        yield f"{len(daemon)} trades against {len(kernel)}"
    for number, (ours, theirs) in enumerate(zip(daemon, kernel, strict=False)):
        for key in ("side", "entry_at", "exit_at", "reason"):
            if ours[key] != theirs[key]:
                yield f"trade {number}: {key} {ours[key]} against {theirs[key]}"
        for key, limit in (("entry", PRICE), ("exit", PRICE), ("quantity", PRICE), ("net", NET), ("risk", NET)):
            if abs(ours[key] - theirs[key]) > limit * max(abs(ours[key]), 1e-300):
                yield f"trade {number}: {key} {ours[key]!r} against {theirs[key]!r}"


@cache
def exits(case: Case, strategy: str, data: Path) -> Mapping[str, Sequence[tuple[str, int, int]]]:
    """Name with its set -> (reason, since, until) of every exit the kernel finds there, with room for a warm-up before and after."""
    from modules.backtest import kernel

    rules = kernel.Rules(policies(), phased=True, wallet=float(common.WALLET))
    with tempfile.TemporaryDirectory() as folder:
        (series,) = of_source(opened(case, data, Path(folder), 0)).values()
    plain = strategies()[strategy]
    found = {}
    for number, params in enumerate(grid(plain, SETS)):
        rows = []
        for row in kernel.run(plain, params, series, rules, finish=False).trades:
            known = kernel.REASONS[int(row["reason"])]
            first = max(0, int(row["entry_bar"]) - ROOM * plain.warmup)
            last = min(len(series) - 1, int(row["exit_bar"]) + plain.warmup)
            rows.append((known.value if known is not None else "", int(series.at[first]), int(series.at[last])))
        found[f"{strategy}@{number}"] = rows
    return found


def stretches(case: Case, strategy: str, data: Path, reason: str) -> list[tuple[str, int, int]]:
    """(name with its set, since, until): where an exit for `reason` comes, each beginning once."""
    found: dict[int, tuple[str, int, int]] = {}
    for name, rows in exits(case, strategy, data).items():
        for why, since, until in rows:
            if why == reason:
                found.setdefault(since, (name, since, until))
    return list(found.values())


def richest(strategy: str, cases: Sequence[Case], data: Path, missing: Mapping[str, int], done: set[tuple[str, Case]]
            ) -> tuple[int, str, Case] | None:
    """(how much of what is missing, name with its set, recording) of the whole run that brings most; None if all were run."""
    best: tuple[int, str, Case] | None = None
    for case in cases:
        for name, rows in exits(case, strategy, data).items():
            counts = Counter(why for why, _, _ in rows) + Counter({"trades": len(rows)})
            gain = sum(min(count, counts[what]) for what, count in missing.items())
            if (name, case) not in done and (best is None or gain > best[0]):
                best = gain, name, case
    return best


def excerpt(case: Case, name: str, data: Path, since: int, until: int, *, compiled: bool) -> dict[str, Any]:
    """`compare` on files that hold what opened from `since` until `until` (UTC ms) alone: both begin there knowing nothing."""
    import pandas

    with tempfile.TemporaryDirectory() as folder:
        cut = linked(case, data, Path(folder))
        for name_of in case.files:
            table = pandas.read_parquet(data / name_of)
            (cut / name_of).unlink()
            table[(table["ts"] >= since) & (table["ts"] < until)].to_parquet(cut / name_of, index=False)
        return compare(case, name, cut, compiled=compiled)


def compare(case: Case, name: str, data: Path, bars: int = 0, *, compiled: bool = True, news: bool = False) -> dict[str, Any]:
    began = time.perf_counter()
    daemon = in_a_process_of_its_own(case, name, data, bars, news=news)
    kernel, count = kernel_trades(case, name, data, bars, compiled=compiled, news=news)
    found = list(differences(daemon, kernel))
    return {"strategy": name, "class": case.asset_class.value, "file": case.files[0], "bars": count, "trades": len(daemon),
            "reasons": dict(Counter(trade["reason"] for trade in daemon)), "faults": len(found), "first": found[:5],
            "seconds": round(time.perf_counter() - began, 1)}


class Comparer:
    """Runs comparisons, tells each as it ends, and keeps them in a file."""

    def __init__(self, data: Path, keep: Path | None, *, compiled: bool, news: bool) -> None:
        self.data, self._keep, self._compiled, self._news = data, keep, compiled, news
        self._terms = digests.of(digests.daemon(), compiled, news)[:16]
        lines = keep.read_text(encoding="utf-8").splitlines() if keep is not None and keep.exists() else []
        self._known = {row["key"]: row for row in map(json.loads, lines) if row["terms"] == self._terms}

    def whole(self, case: Case, name: str, bars: int = 0) -> dict[str, Any]:
        return self._row(f"{name} {case.files[0]} {bars}", lambda: compare(
            case, name, self.data, bars, compiled=self._compiled, news=self._news))

    def excerpt(self, case: Case, name: str, since: int, until: int) -> dict[str, Any]:
        return self._row(f"{name} {case.files[0]} {since} {until}", lambda: excerpt(
            case, name, self.data, since, until, compiled=self._compiled))

    def _row(self, key: str, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        row: dict[str, Any] = self._known.get(key) or {**run(), "key": key, "terms": self._terms}
        if self._keep is not None and key not in self._known:
            with self._keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        print(f"  {row['strategy']:<14} {row['file']:<45} {row['bars']:>7} bars {row['trades']:>5} trades {row['faults']:>5} faults "
              f"{row['seconds']:>5} s {row['reasons']}", *row["first"], sep="\n      " if row["first"] else " ", flush=True)
        return row


def in_turn(cases: Sequence[Case]) -> list[Case]:
    """The first of every class, then the second of every class, ..."""
    seen = Counter[AssetClass]()
    order: list[tuple[int, int, Case]] = []
    for case in cases:
        order.append((seen[case.asset_class], len(order), case))
        seen[case.asset_class] += 1
    return [case for _, _, case in sorted(order, key=lambda one: one[:2])]


def shipped(run: Comparer, strategy: Strategy, cases: Sequence[Case], *, every: bool) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """(rows, what they lack) of one strategy: recordings as a whole, other sets of its grid, stretches."""
    name = strategy.name
    found = [exits(case, name, run.data) for case in cases]
    can = sorted({why for one in found for rows in one.values() for why, _, _ in rows})
    rows: list[dict[str, Any]] = []
    done: set[tuple[str, Case]] = set()
    classes = len({case.asset_class for case in cases})
    for number, case in enumerate(in_turn(cases)):
        missing = lacking(rows, can)
        if every or number < classes or {"bars", "trades"} & set(missing):
            rows.append(run.whole(case, name))
            done |= {(name, case), (f"{name}@0", case)}
    while (missing := lacking(rows, can)) and len(done) < WHOLE_MAX + 2 * len(cases):
        best = richest(name, cases, run.data, missing, done)
        if best is None or best[0] < min(FEW, sum(missing.values())):
            break
        rows.append(run.whole(best[2], best[1]))
        done.add((best[1], best[2]))
    for reason in lacking(rows, can):
        for case in cases:
            for chosen, since, until in stretches(case, name, run.data, reason):
                if reason in lacking(rows, can):
                    rows.append(run.excerpt(case, chosen, since, until))
    return rows, lacking(rows, can)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--only", action="append", help="strategy to run; may be repeated")
    parser.add_argument("--class", dest="asset_class", help="only this asset class")
    parser.add_argument("--bars", type=int, default=0, help="only the first bars of every recording, defaults alone")
    parser.add_argument("--all", action="store_true", help="every recording of a strategy's classes")
    parser.add_argument("--news", action="store_true", help="with the shipped calendar and an invented recording of headlines")
    parser.add_argument("--plain", action="store_true", help="run the kernel's lines in plain Python: nothing is compiled")
    parser.add_argument("--around", metavar="REASON", help="only stretches in which a trade ends for this reason, with any set of the grid")
    parser.add_argument("--keep", type=Path, help="one line of JSON a comparison; what is in it is not compared again")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    short: dict[str, dict[str, int]] = {}
    run = Comparer(options.data, options.keep, compiled=not options.plain, news=options.news)
    turns = Counter[AssetClass]()
    for name, strategy in strategies().items():
        cases = [case for case in CASES if case.asset_class in strategy.asset_classes
                 and options.asset_class in (None, case.asset_class.value)]
        own = [one for one in cases if one.asset_class is strategy.asset_classes[0]]
        case = own[turns[strategy.asset_classes[0]] % len(own)] if own else None
        turns[strategy.asset_classes[0]] += not strategy.space
        if (options.only and name not in options.only) or not cases:
            continue
        if options.around:
            rows += [run.excerpt(one, *found) for one in cases for found in stretches(one, name, options.data, options.around)]
        elif not strategy.space and not options.all and case is not None:
            rows.append(run.whole(case, name, options.bars or GENERATED_BARS))
        elif options.bars or options.news or options.plain or not strategy.space:
            rows += [run.whole(one, name, options.bars) for one in cases]
        else:
            made, lacks = shipped(run, strategy, cases, every=options.all)
            rows += made
            if lacks:
                short[name] = lacks
    faults = sum(row["faults"] for row in rows)
    print(f"  {sum(row['trades'] for row in rows)} trades, {sum(row['bars'] for row in rows)} bars, {faults} differences")
    for name, lacks in short.items():
        print(f"  {name} is short of {', '.join(f'{count} {what}' for what, count in lacks.items())}")
    if options.json is not None:
        document = {"benchmark": "parity", "machine": common.machine(), "faults": faults, "short": short, "rows": rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())


