"""Does the compiled kernel trade what the daemon trades? `python -m benchmarks.parity [--data DIR] [--only NAME] [--bars N] [--json FILE]`.

Every shipped strategy (option structures excepted, which the kernel does not simulate) and twenty generated ones, one strategy on one
instrument at a time, portfolio gates off: the whole daemon replays the recording with the kernel's import blocked, the kernel runs the
same files, and the trades must be the same one for one: side, bars of entry and exit, reason, prices to the tick, net result to 1e-9.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from benchmarks import common
from benchmarks.parity_strategies import generated
from modules.backtest.recorded import RecordedSource
from modules.backtest.series import of_source
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.signal import Structure
from modules.strategies.protocol import Strategy
from modules.strategies.registry import all_strategies

SHARED: Final = Path(__file__).resolve().parents[2] / "shared" / "market_data"
NET: Final = 1e-9
PRICE: Final = 1e-12


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


def replayed(source: RecordedSource, strategy: Strategy, asset_class: AssetClass, rules: Policies) -> list[dict[str, Any]]:
    """The daemon's trades, oldest first. Raises RuntimeError if it has loaded the kernel."""
    from main import simulate
    from modules.news.calendar import Calendar

    with tempfile.TemporaryDirectory() as folder:
        done = simulate(source, policies=rules, wallets={asset_class: common.WALLET}, calendar=Calendar((), rules.news, {}),
                        strategies={asset_class: (strategy,)}, folder=Path(folder))
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


def in_a_process_of_its_own(case: Case, name: str, data: Path, bars: int) -> list[dict[str, Any]]:
    """`replayed` where importing the kernel or Numba fails."""
    program = ("import sys, json; sys.modules['numba'] = None; sys.modules['modules.backtest.kernel'] = None\n"
               "from pathlib import Path; from benchmarks import parity\n"
               f"print(json.dumps(parity.replay_case({CASES.index(case)}, {name!r}, Path({str(data)!r}), {bars})))")
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


def replay_case(index: int, name: str, data: Path, bars: int) -> list[dict[str, Any]]:
    sys.modules.pop("numba", None)  # None there blocks the import; what the replay leaves is looked at
    with tempfile.TemporaryDirectory() as folder:
        case = CASES[index]
        return replayed(opened(case, data, Path(folder), bars), strategies()[name], case.asset_class, policies())


def strategies() -> Mapping[str, Strategy]:
    shipped = {name: strategy for name, strategy in all_strategies().items() if strategy.structure is Structure.SINGLE}
    return {**shipped, **{strategy.name: strategy for strategy in generated()}}


def kernel_trades(case: Case, name: str, data: Path, bars: int, *, compiled: bool = True) -> tuple[list[dict[str, Any]], int]:
    """The kernel's trades in the same words, and how many bars there were."""
    from modules.backtest import kernel

    rules = kernel.Rules(policies(), phased=True, wallet=float(common.WALLET))
    with tempfile.TemporaryDirectory() as folder:
        (series,) = of_source(opened(case, data, Path(folder), bars)).values()
    strategy = strategies()[name]
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


def compare(case: Case, name: str, data: Path, bars: int = 0, *, compiled: bool = True) -> dict[str, Any]:
    began = time.perf_counter()
    daemon = in_a_process_of_its_own(case, name, data, bars)
    kernel, count = kernel_trades(case, name, data, bars, compiled=compiled)
    found = list(differences(daemon, kernel))
    return {"strategy": name, "class": case.asset_class.value, "file": case.files[0], "bars": count, "trades": len(daemon),
            "reasons": dict(Counter(trade["reason"] for trade in daemon)), "faults": len(found), "first": found[:5],
            "seconds": round(time.perf_counter() - began, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--only", action="append", help="strategy to run; may be repeated")
    parser.add_argument("--class", dest="asset_class", help="only this asset class")
    parser.add_argument("--bars", type=int, default=0, help="only the first bars of every recording")
    parser.add_argument("--plain", action="store_true", help="run the kernel's lines in plain Python: nothing is compiled")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    rows = []
    for name, strategy in strategies().items():
        if options.only and name not in options.only:
            continue
        for case in CASES:
            if case.asset_class in strategy.asset_classes and options.asset_class in (None, case.asset_class.value):
                row = compare(case, name, options.data, options.bars, compiled=not options.plain)
                rows.append(row)
                print(f"  {name:<14} {row['file']:<45} {row['bars']:>7} bars {row['trades']:>5} trades {row['faults']:>5} faults "
                      f"{row['seconds']:>5} s {row['reasons']}", *row["first"], sep="\n      " if row["first"] else " ", flush=True)
    faults = sum(row["faults"] for row in rows)
    print(f"  {sum(row['trades'] for row in rows)} trades, {sum(row['bars'] for row in rows)} bars, {faults} differences")
    if options.json is not None:
        options.json.write_text(json.dumps({"benchmark": "parity", "machine": common.machine(), "rows": rows}, indent=2) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())


