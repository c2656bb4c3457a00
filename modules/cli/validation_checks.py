"""`lookahead` and `recursive`: two questions to a strategy that cost seconds and need no verdict. Names as in freqtrade.

`lookahead` ends with exit code 1 if a strategy knows what it should not. `recursive` decides nothing: it shows from how many start-up bars
on the numbers stop depending on where the history began.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from modules.backtest import prefix
from modules.cli import validation_data
from modules.cli.output import emit, table
from modules.domain.errors import ConfigurationError
from modules.runtime.supervise import attempt

if TYPE_CHECKING:
    from rich.console import Console

    from modules.backtest.series import Series
    from modules.cli.validation_data import Work
    from modules.strategies.protocol import Strategy

LOOKAHEAD_BARS: Final = 10_000
LOOKAHEAD_CUTS: Final = 10
RECURSIVE_PLACES: Final = 5
INSTRUMENTS_EACH: Final = 3
"""Without --symbols: the longest recordings of each class a strategy trades."""
MATTERS: Final = 1e-3
"""A relative difference below this changes no decision worth the name."""


def lookahead(arguments: argparse.Namespace) -> int:
    """Answers over prefixes of the history against answers over all of it, and what the code refers to."""
    work = validation_data.work(arguments)
    rows: list[dict[str, Any]] = []
    for strategy in work.strategies:
        for series in instruments(work, strategy, bool(arguments.symbols)):
            found, error = attempt(_looked, strategy, series)
            rows.append(found if error is None else {
                "strategy": strategy.name, "symbol": series.symbol, "biased": True, "bars": len(series), "cuts": [], "repeatable": None,
                "reason": f"it raised {type(error).__name__}: {error}"})
    emit(arguments, {"data": work.origin, "checks": rows}, _show_lookahead)
    return 1 if any(row["biased"] for row in rows) else 0


def _looked(strategy: Strategy, series: Series) -> dict[str, Any]:
    found = prefix.lookahead(strategy, strategy.params, series, bars_max=LOOKAHEAD_BARS, cuts=LOOKAHEAD_CUTS)
    return {
        "strategy": strategy.name, "symbol": series.symbol, "biased": found.biased, "bars": min(len(series), LOOKAHEAD_BARS),
        "cuts": [{"at": _iso(cut.at), "bars": cut.bars, "signals": cut.signals, "differing": cut.differing,
                  "first_differing": _iso(cut.first_differing)} for cut in found.cuts],
        "repeatable": found.repeatable, "reason": found.reason, "impurities": list(found.impurities)}


def _show_lookahead(out: Console, document: Mapping[str, Any]) -> None:
    out.print(f"Look-ahead check over {document['data']}", markup=False)
    out.print(table("", ("strategy", "instrument", ">bars", ">prefixes", ">signals", ">changed answers", "verdict"), (
        (row["strategy"], row["symbol"], f"{row['bars']:,}", len(row["cuts"]), max((cut["signals"] for cut in row["cuts"]), default=0),
         sum(cut["differing"] for cut in row["cuts"]), f"BIASED: {row['reason']}" if row["biased"] else "clean")
        for row in document["checks"])))


def recursive(arguments: argparse.Namespace) -> int:
    """A table of differences per number of start-up bars."""
    work = validation_data.work(arguments)
    rows: list[dict[str, Any]] = []
    for strategy in work.strategies:
        for series in instruments(work, strategy, bool(arguments.symbols))[:None if arguments.symbols else 1]:
            warmups = arguments.warmups or sorted({max(1, strategy.warmup * share // 4) for share in (1, 2, 4, 8)})
            if len(series) < 2 * warmups[-1]:
                raise ConfigurationError([f"--warmups {warmups[-1]}: {series.symbol} has only {len(series):,} bars; at least twice as many "
                                          f"as the longest warm-up are needed"])
            found, error = attempt(_recursed, strategy, series, warmups)
            rows.append({"strategy": strategy.name, "symbol": series.symbol, "declared": strategy.warmup, "warmups": list(warmups)} | (
                {"error": f"{type(error).__name__}: {error}"} if error is not None else
                {"differences": {name: list(row) for name, row in found.differences.items()}, "signals": list(found.signals)}))
    emit(arguments, {"data": work.origin, "checks": rows}, _show_recursive)
    return 1 if any("error" in row for row in rows) else 0


def _recursed(strategy: Strategy, series: Series, warmups: Sequence[int]) -> prefix.Recursive:
    return prefix.recursive(strategy, strategy.params, series, warmups, places=RECURSIVE_PLACES)


def _show_recursive(out: Console, document: Mapping[str, Any]) -> None:
    out.print(f"Dependence on where the history begins, over {document['data']}: largest relative difference from a history four times as "
              "long", markup=False)
    for row in document["checks"]:
        title = f"{row['strategy']} on {row['symbol']} (it declares {row['declared']:,} bars of warm-up)"
        if "error" in row:
            out.print(f"{title}: {row['error']}", markup=False)
            continue
        moving = {name: values for name, values in row["differences"].items() if any(value > 0.0 for value in values)}
        lines = [(name, *map(_share, values)) for name, values in moving.items()]
        lines.append(("wanted holding", *(f"{value:.0%}" if value else "same" for value in row["signals"])))
        out.print(table(title, ("number of its state", *(f">{count:,} bars" for count in row["warmups"])), lines))


def _share(value: float) -> str:
    if value == 0.0:
        return "same"
    if value != value:
        return "-"
    return f"{value:.1e}" if value < MATTERS else f"{value:.2%}"


def instruments(work: Work, strategy: Strategy, named: bool) -> list[Series]:
    """Of the classes the strategy trades: all that were named, else the longest recordings. Raises ConfigurationError if there is none."""
    classes = work.classes & frozenset(strategy.asset_classes)
    fitting = [one for one in work.series.values() if one.asset_class in classes]
    if not fitting and not named:  # option strategies watch the underlying
        fitting = list(work.series.values())
    ordered: Sequence[Series] = sorted(fitting, key=lambda one: -len(one))
    if not ordered:
        raise ConfigurationError([f"{work.origin}: holds no history {strategy.name} could be run on"])
    if named:
        return list(ordered)
    by_class = ([one for one in ordered if one.asset_class is of][:INSTRUMENTS_EACH] for of in sorted(classes))
    return [one for some in by_class for one in some] or [ordered[0]]


def _iso(at: int | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at / 1000.0, UTC).isoformat().replace("+00:00", "Z")
