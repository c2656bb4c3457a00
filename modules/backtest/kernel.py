"""The compiled validation kernel: any strategy's own `step` over a recorded series, trade for trade what the whole daemon would do.

For worker processes and campaigns: Numba is imported when the first run begins, and the live process never calls anything here. Owns the
results' shape; refuses option structures, and quarantines a strategy that raises or returns nonsense with `StrategyFault`. A step that
never returns hangs its process: whoever starts workers ends them after a time.

`run` and `sweep` give the same trades; `run(compiled=False)` runs the same lines in plain Python, bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modules.backtest import kernel_views
from modules.backtest.kernel_draws import placed
from modules.backtest.kernel_loop import simulate
from modules.backtest.kernel_money import NO_REASON, STOP_MEMORY, State
from modules.backtest.kernel_rows import E_DAY_LAST, TURN_COLUMNS, V_BAR, Tape, Turn
from modules.backtest.kernel_rules import Rules
from modules.backtest.kernel_tape import loop, numbers, tape
from modules.backtest.kernel_views import NONSENSE
from modules.backtest.series import F64, I64, Series
from modules.domain.errors import BotError
from modules.domain.order import ExitReason
from modules.domain.signal import Structure
from modules.runtime.supervise import attempt
from modules.strategies.compiled import cache_folder, short_intents
from modules.strategies.compiled import compiled as compile_function
from modules.strategies.protocol import Strategy

DAY: Final = 86_400_000
FOREVER: Final = 1 << 62
STATE: Final = np.dtype((np.record, [*((name, "f8") for name, kind in State.__annotations__.items() if kind == "float"),
                                     ("stop_times", "f8", (STOP_MEMORY,))]))
TURN: Final = np.dtype((np.record, [(name, "f8") for name in Turn.__annotations__]))
LEAN: Final = {"_nrt": False}
"""The loop makes no array, so that nobody need count who holds one: counting took most of a trade's time."""
REASONS: Final = (None, ExitReason.STOP_LOSS, ExitReason.ROI, ExitReason.EXIT_SIGNAL, ExitReason.TIME_EXIT, ExitReason.TRAILING_STOP_LOSS,
                  ExitReason.LIQUIDATION, ExitReason.DELISTED, ExitReason.FORCE_EXIT)
"""`reason` of a trade -> why it ended."""
TRADE: Final = np.dtype([
    ("entry_at", "i8"), ("exit_at", "i8"), ("entry_bar", "i8"), ("exit_bar", "i8"), ("side", "i8"), ("reason", "i8"), ("entry", "f8"),
    ("exit", "f8"), ("quantity", "f8"), ("gross", "f8"), ("fees", "f8"), ("funding", "f8"), ("net", "f8"), ("risk", "f8"),
    ("slippage", "f8"), ("ordered", "f8")])
"""One round trip. Times in UTC ms; bars are indices of the bars in which the fills happened; prices are averages of the fills; money in
settlement currency, risk is 1 R; slippage in basis points against arrival, adverse positive, averaged over all fills; `ordered` is the
quantity of the entry order, of which `quantity` was filled (and, bought on SPOT, what the fee left of it)."""
ROW: Final = np.dtype((np.record, [(name, "f8") for name in TRADE.names or ()]))
"""The same as the loop writes it."""
FIELDS: Final = len(TRADE.names or ())
WHOLE: Final = sum(TRADE[name].kind == "i" for name in TRADE.names or ())
"""How many of a trade's fields are whole numbers: the first."""
_THREAD: Final = threading.local()
_BUILT: dict[Callable[..., Any], Callable[..., int]] = {}


class StrategyFault(BotError):
    """A strategy cannot be run, and at which bar it showed: `bar` is its index, -1 = before the first."""

    def __init__(self, strategy: str, reason: str, bar: int = -1, at: int = 0) -> None:
        self.strategy, self.reason, self.bar, self.at = strategy, reason, bar, at
        super().__init__(f"strategy {strategy}: {reason}" + (f" (bar {bar}, closed at {at})" if bar >= 0 else ""))

    def __reduce__(self) -> tuple[type[StrategyFault], tuple[str, str, int, int]]:
        return StrategyFault, (self.strategy, self.reason, self.bar, self.at)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One strategy with one set of parameters on one instrument. `daily` is the net marked-to-market result of each UTC day from
    `first_day` (days since 1970) on, flat days in: per unit of notional, or where sizes are phased, of the opening wallet."""

    trades: NDArray[Any]
    """[trades] of dtype TRADE."""
    daily: F64
    first_day: int
    exposure_long: float
    """Share of the bars a long was held."""
    exposure_short: float
    unfilled: int = 0
    """Entry orders that ended without any fill."""

    @property
    def exposure(self) -> float:
        return self.exposure_long + self.exposure_short


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Many sets of parameters on one instrument."""

    daily: F64
    """[days, K]"""
    trades: I64
    """[K]"""
    first_day: int
    exposure: F64
    """[K] share of the bars anything was held."""
    net: F64
    """[K] sum of the trades' net results, settlement currency."""
    net_exposure: F64
    """[K] share of the bars a long was held, less that of a short."""
    longest: I64
    """[K] longest holding time of a trade, ms."""


def run(strategy: Strategy, params: Any, series: Series, rules: Rules, *, trade_from: int | None = None, trade_until: int | None = None,
        direction: int | None = None, finish: bool = True, compiled: bool = True) -> Run:
    """Warm up on every bar before `trade_from`, open trades while trade_from <= close < trade_until (UTC ms), then close what is open.

    `direction` +1 / -1 allows one side only. `finish` closes what is open at the last bar at its close (a replay leaves it open).
    Raises StrategyFault, DataError for an instrument that cannot be simulated.
    """
    job = _Job(strategy, series, rules, trade_from, trade_until, direction or 0, finish, compiled)
    return job.run(params)


def sweep(strategy: Strategy, params_list: Sequence[Any], series: Series, rules: Rules, *, trade_from: int | None = None,
          trade_until: int | None = None, direction: int | None = None, compiled: bool = True) -> Sweep:
    """`run` for every set of parameters, without the list of trades."""
    job = _Job(strategy, series, rules, trade_from, trade_until, direction or 0, True, compiled)
    daily = np.zeros((job.days, len(params_list)))
    trades = np.zeros(len(params_list), dtype=np.int64)
    exposure, net, net_exposure = np.zeros(len(params_list)), np.zeros(len(params_list)), np.zeros(len(params_list))
    longest = np.zeros(len(params_list), dtype=np.int64)
    for column, params in enumerate(params_list):
        record, count, equity = job.simulate(params)
        daily[:, column] = job.daily(equity)
        trades[column] = count
        net[column] = float(record["net"].sum())
        bars = record["exit_bar"] - record["entry_bar"]
        exposure[column] = float(bars.sum()) / len(series)
        net_exposure[column] = float((bars * record["side"]).sum()) / len(series)
        longest[column] = int((record["exit_at"] - record["entry_at"]).max()) if count else 0
    return Sweep(daily, trades, job.first_day, exposure, net, net_exposure, longest)


def turns(strategy: Strategy, params: Any, series: Series, rules: Rules, *, compiled: bool = False) -> F64:
    """[turns, TURN_COLUMNS] where the strategy's view of this series turns, whatever is traded. Raises StrategyFault."""
    return _Job(strategy, series, rules, None, None, 0, True, compiled).turns(params).copy()


def random_entries(result: Run, series: Series, rules: Rules, seed: int, draws: int) -> F64:
    """[draws, days] what as many trades of the same sides, holding times and notionals would have made, entered at random bars.

    Each draw deals the trades in random order into the bars with random pauses between them, never two at a time; they enter and leave
    at opens and pay what market orders pay, funding and financing left out. The days are those of `result`.
    """
    trades = result.trades
    job = _Job(None, series, rules, None, None, 0, True, True)
    found = np.zeros((draws, job.days))
    if not len(trades):
        return found
    r, t = job.numbers[0], job.tape
    generator = np.random.default_rng(seed)
    lengths = np.maximum(trades["exit_bar"] - trades["entry_bar"], 1)
    share = trades["entry"] * trades["quantity"] * r.contract_size * series.rate[trades["entry_bar"]] / job.unit
    deal = loop(placed)
    for draw in range(draws):
        order = generator.permutation(len(trades))
        spare = max(0, len(series) - 2 - int(lengths.sum()))
        starts = np.sort(generator.integers(0, spare + 1, len(trades))) + np.concatenate([[0], np.cumsum(lengths[order])[:-1]])
        equity = np.zeros(len(job.ends))
        deal(r, t, np.minimum(starts, len(series) - 2), lengths[order], trades["side"][order].astype(np.float64), share[order], equity)
        found[draw] = job.spread(equity)
    return found


class _Job:
    """What all runs over one series under one set of rules share."""

    def __init__(self, strategy: Strategy | None, series: Series, rules: Rules, trade_from: int | None, trade_until: int | None,
                 direction: int, finish: bool, quick: bool) -> None:
        if strategy is not None and strategy.structure is not Structure.SINGLE:
            raise StrategyFault(strategy.name, f"{strategy.structure} trades option contracts, which the kernel does not simulate")
        self.strategy, self.series, self.quick, self.finish = strategy, series, quick, finish
        self.numbers = numbers(series, rules, direction)
        self.tape: Tape = tape(series, rules, strategy.htf_multiple if strategy is not None else 12, quick=quick)
        self.since = float(trade_from if trade_from is not None else series.at[0])
        self.until = float(trade_until if trade_until is not None else FOREVER)
        self.unit = rules.wallet if rules.phased else rules.notional
        last = self.tape.events[E_DAY_LAST]
        self.ends = last[np.isfinite(last)].astype(np.int64)
        ends = (series.at[self.ends] - 1) // DAY
        self.first_day, self.days = int(ends[0]), int(ends[-1] - ends[0]) + 1
        self._rows = (ends - ends[0]).astype(np.int64)
        self._views = (_built(strategy) if quick else _plain(strategy)) if strategy is not None else None
        self._simulate: Callable[..., None] = loop(simulate, **LEAN) if quick else simulate
        self.unfilled = 0
        """Of the last run."""
        self._turns = _scratch("turns", (len(series) if strategy is not None else 0) + 1, TURN_COLUMNS)

    def turns(self, params: Any) -> F64:
        """[turns, TURN_COLUMNS] of the strategy with these parameters; overwritten by the next call, whoever's in this thread it is."""
        strategy = self.strategy
        assert strategy is not None and self._views is not None
        params = _typed(strategy, params)
        status = np.full(1, -1, dtype=np.int64)
        state, error = attempt(strategy.init, params)
        if error is None:
            count, error = attempt(self._views, params, state, self.tape.bars, self._turns, status)
        if error is not None and status[0] < 0 and (short := short_intents(strategy.step)):
            raise self._fault(short, -1)
        if error is not None:
            raise self._fault(f"raised {type(error).__name__}: {str(error).strip()[:400]}", int(status[0]))
        if count == NONSENSE:
            raise self._fault("returned an intent out of range (score in [-1, 1]; stop, target and hold finite and not negative)",
                              int(status[0]))
        self._turns[count, V_BAR] = np.inf
        return self._turns[:count]

    def simulate(self, params: Any) -> tuple[NDArray[Any], int, F64]:
        """([trades] of ROW, how many, net result so far at the end of each day that has bars); overwritten like `turns`."""
        assert self.strategy is not None
        turns = self.turns(params)
        # No more trades than turns: every entry, and the opening half of a reversal too, is taken at one.
        state, equity = np.zeros(1, dtype=STATE), np.zeros(len(self._rows))
        record = _scratch("record", len(turns) + 1, FIELDS).view(ROW)[:, 0]
        ended = self._turns[: len(turns) + 1].view(TURN)[:, 0]
        self._simulate(ended, self.tape, self.numbers, 0, self.strategy.warmup, self.since, self.until, self.finish, state, record, equity)
        count, self.unfilled = int(state["trades"][0]), int(state["unfilled"][0])
        return record[:count], count, equity

    def _fault(self, reason: str, bar: int) -> StrategyFault:
        assert self.strategy is not None
        return StrategyFault(self.strategy.name, reason, bar, int(self.series.at[bar]) if bar >= 0 else 0)

    def run(self, params: Any) -> Run:
        record, count, equity = self.simulate(params)
        unfilled = self.unfilled
        fields = np.empty((count, FIELDS), dtype=np.int64)
        floats = record.view(np.float64).reshape(count, FIELDS)
        fields[:, :WHOLE] = floats[:, :WHOLE]
        fields[:, WHOLE:] = floats.view(np.int64)[:, WHOLE:]
        trades = fields.view(TRADE)[:, 0]
        held = (trades["exit_bar"] - trades["entry_bar"]) / len(self.series)
        return Run(trades, self.daily(equity), self.first_day, float(held[trades["side"] > 0].sum()), float(held[trades["side"] < 0].sum()),
                   unfilled)

    def daily(self, equity: F64) -> F64:
        """Changes from day to day per unit, days without bars flat."""
        return self.spread(np.diff(equity, prepend=0.0) / self.unit)

    def spread(self, results: F64) -> F64:
        """Results of the days with bars, on all days."""
        found = np.zeros(self.days)
        found[self._rows] = results
        return found


def _scratch(name: str, rows: int, columns: int) -> F64:
    """[rows, columns] to write into, one a thread: most of a fresh one would be fetched from the system for nothing."""
    found: F64 | None = getattr(_THREAD, name, None)
    if found is None or len(found) < rows:
        found = np.empty((rows, columns))
        setattr(_THREAD, name, found)
    return found[:rows]


def _typed(strategy: Strategy, params: Any) -> Any:
    """Parameters with the types of the defaults: 2 where 2.0 is meant would be another signature to compile."""
    return type(strategy.params)(*(type(default)(value) for default, value in zip(strategy.params, params, strict=True)))


def _built(strategy: Strategy) -> Callable[..., int]:
    """The loop around this strategy's step, compiled once a process and kept between processes."""
    known = _BUILT.get(strategy.step)
    if known is None:
        known = _BUILT[strategy.step] = compile_function(kernel_views.views, replace={"step": strategy.step}, folder=cache_folder())
    return known


def _plain(strategy: Strategy) -> Callable[..., int]:
    """The same loop in plain Python."""
    from types import FunctionType

    names: Mapping[str, Any] = {**kernel_views.views.__globals__, "step": strategy.step}
    return FunctionType(kernel_views.views.__code__, dict(names), "views")


def stressed(rules: Rules, factor: float) -> Rules:
    """The same rules at `factor` times the fees, spread, slippage and impact."""
    return replace(rules, fee_factor=rules.fee_factor * factor, slippage_factor=rules.slippage_factor * factor)


__all__ = ["NO_REASON", "REASONS", "TRADE", "Rules", "Run", "StrategyFault", "Sweep", "random_entries", "run", "stressed",
           "sweep", "turns"]
