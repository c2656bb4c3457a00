"""Does a strategy know more than it may? Three checks: what its code refers to, whether later bars change earlier answers, and how much
its answers depend on where its history begins (freqtrade's lookahead-analysis and recursive-analysis). Pure; runs `step` interpreted.

A step function sees one bar at a time, so it can only cheat by remembering outside its state, or by being given the future through a
global. The first shows when the same bars are shown twice or fewer of them are shown; the second in what the code refers to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from modules.backtest.series import Series
from modules.domain.market import ChainSlice
from modules.domain.signal import Intent
from modules.strategies.protocol import NAN, Market, Strategy

PURE_MODULES: Final = frozenset({"math", "numpy"})
_NO_CHAIN: Final = ChainSlice()
HOURS_8: Final = 8.0
DIGITS_MAX: Final = 150
"""Significant digits of all the numbers a strategy's code and parameters hold: 498 bits, not one for each of the 500 trades the gate asks
for. The shipped ones hold 36 at most; a table of what happened, however it is packed, holds a digit for every three bars."""
CODE_MAX: Final = 6_000
"""Units of bytecode of all its functions together, the library's included: numbers can be written as statements too. The shipped ones have
1,313 at most; a bit takes five."""
_DIGITS_A_CHARACTER: Final = 2.4


# -- the code ------------------------------------------------------------------------------------------------------------------------


def impurities(strategy: Strategy) -> list[str]:
    """Everything `init` and `step` refer to that could carry knowledge from elsewhere: one sentence each, empty when pure."""
    faults: list[str] = []
    digits = _digits(tuple(strategy.params))
    length = 0
    seen: set[FunctionType] = set()
    waiting: list[Any] = [strategy.init, strategy.step]
    while waiting:
        function = waiting.pop()
        if not isinstance(function, FunctionType) or function in seen:
            continue
        seen.add(function)
        length += _length(function.__code__)
        held = dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=False))
        held |= dict(_defaults(function))
        names = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        for name, value in (names | held).items():
            if isinstance(value, FunctionType):
                waiting.append(value)
            elif _constant(value):
                digits += _digits(value)
            else:
                faults.append(f"{function.__name__} refers to {name}, a {type(value).__name__}: only constants and functions may be used")
        faults += [f"{function.__name__} uses {name}" for name in ("open", "exec", "eval", "__import__", "globals", "setattr")
                   if name in _names(function.__code__) and name not in function.__globals__]
        digits += sum(_digits(value) for value in _literals(function.__code__) if value != function.__doc__)
    if digits > DIGITS_MAX:
        faults.append(f"the numbers of its code and parameters have {digits:,.0f} digits, at most {DIGITS_MAX} are taken for rules: in "
                      "more than that what happened can be written down")
    if length > CODE_MAX:
        faults.append(f"its code is {length:,} units long, at most {CODE_MAX:,} are taken for rules: in more than that what happened can "
                      "be written down")
    return faults


def _length(code: CodeType) -> int:
    """Units of bytecode, nested functions in."""
    return len(code.co_code) // 2 + sum(_length(value) for value in code.co_consts if isinstance(value, CodeType))


def _literals(code: CodeType) -> Iterator[Any]:
    """Constants written in a function and in those nested in it."""
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _literals(value)
        else:
            yield value


def _digits(value: Any) -> float:
    """Significant digits of a constant, of every number in it: as many as it takes to write it down. 1,000 and .001 have one."""
    if isinstance(value, tuple | frozenset):
        return sum(_digits(one) for one in value)
    if isinstance(value, bool) or value is None:
        return 0.0
    if isinstance(value, Enum):
        return _digits(value.value)
    if isinstance(value, int):
        return float(len(str(abs(value)).strip("0"))) if value.bit_length() < 64 else value.bit_length() * math.log10(2.0)
    if isinstance(value, float):
        return float(len(repr(abs(value)).partition("e")[0].replace(".", "").strip("0"))) if math.isfinite(value) else 0.0
    if isinstance(value, complex):
        return _digits((value.real, value.imag))
    if isinstance(value, type):
        held = (one for name, one in vars(value).items() if not name.startswith("_"))
        return sum(_digits(one) for one in (*held, *getattr(value, "_field_defaults", {}).values()) if not isinstance(one, type))
    return len(value) * _DIGITS_A_CHARACTER if isinstance(value, str | bytes) else 0.0


def _defaults(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Default values of arguments: they live as long as the function."""
    for number, value in enumerate(function.__defaults__ or ()):
        yield f"default {number}", value
    yield from (function.__kwdefaults__ or {}).items()


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


_OF_RECORDS: Final = frozenset({
    "_fields", "_field_defaults", "_member_map_", "_member_names_", "_value2member_map_", "_unhashable_values_", "_hashable_values_",
    "_generate_next_value_", "_unhashable_values_map_"})
"""What NamedTuple and Enum keep on every class they make."""


def _constant(value: Any) -> bool:
    if isinstance(value, type):
        return not any(isinstance(held, dict | list | set | bytearray) or hasattr(held, "__array__")
                       for name, held in vars(value).items() if not name.startswith("__") and name not in _OF_RECORDS)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | Enum):
        return True
    if isinstance(value, ModuleType):
        return value.__name__ in PURE_MODULES
    if isinstance(value, tuple | frozenset):
        return all(_constant(item) for item in value)
    # Functions of math and numpy; typing's and abc's names that only annotations use.
    return (getattr(value, "__module__", None) or "").partition(".")[0] in {*PURE_MODULES, "typing", "collections"} and callable(value)


# -- the bars ------------------------------------------------------------------------------------------------------------------------


def markets(series: Series, htf_multiple: int, first: int = 0) -> Iterator[Market]:
    """What a strategy sees bar by bar, from row `first` on, as the daemon shows it (without option chains)."""
    length = htf_multiple * series.interval_ms
    interval = series.interval_ms
    higher = _Higher(length, interval)
    rates = _funding(series)
    columns = (series.at, series.open, series.high, series.low, series.close, series.volume, series.bid, series.ask, series.mark,
               series.ref_close)
    for at, opened, high, low, close, volume, bid, ask, mark, leader in zip(*(column[first:].tolist() for column in columns), strict=True):
        higher.take(at - interval, opened, high, low, close)
        yield Market(float(at), opened, high, low, close, volume, bid, ask, mark if mark == mark else close, rates(at), *higher.closed[1:],
                     higher.closed[0], leader, _NO_CHAIN)


def _funding(series: Series) -> Callable[[int], float]:
    """The rate settled last at an instant, per 8 h; NaN before the first."""
    settled = list(zip(series.funding_at.tolist(), (series.funding_rate * HOURS_8 / series.funding_hours).tolist(), strict=True))
    place, last = 0, NAN

    def rate(at: int) -> float:
        nonlocal place, last
        while place < len(settled) and settled[place][0] <= at:
            last = settled[place][1]
            place += 1
        return last

    return rate


class _Higher:
    """Bars of a higher timeframe out of closed bars; only complete ones are shown, and never one whose beginning was not seen."""

    def __init__(self, length: int, interval: int) -> None:
        self._length, self._interval = length, interval
        self.closed = (NAN, NAN, NAN, NAN, NAN)
        self._begun = -1
        self._whole = False
        self._bar = (NAN, NAN, NAN, NAN)

    def take(self, begun: int, opened: float, high: float, low: float, close: float) -> None:
        frame = begun - begun % self._length
        if frame != self._begun:
            if self._begun >= 0:
                self._close()
            self._whole = self._whole or frame == begun
            self._begun, self._bar = frame, (opened, high, low, close)
        else:
            self._bar = (self._bar[0], max(self._bar[1], high), min(self._bar[2], low), close)
        if begun + self._interval == frame + self._length:
            self._close()
            self._begun = -1

    def _close(self) -> None:
        if self._whole:
            self.closed = (float(self._begun), *self._bar)
        self._whole = True


def answers(strategy: Strategy, params: Any, series: Series, bars: int, first: int = 0) -> list[Intent]:
    """The intents over `bars` bars from row `first` on, from a fresh state. Raises what the step raises."""
    state = strategy.init(params)
    found = []
    for market in islice(markets(series, strategy.htf_multiple, first), bars):
        state, intent = strategy.step(state, market, params)
        found.append(Intent(*intent))
    return found


# -- look-ahead ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """One prefix: how many of its answers differ from those given when later bars were there."""

    at: int
    """UTC ms of the last bar shown."""
    bars: int
    signals: int
    differing: int
    first_differing: int | None
    """UTC ms of the first answer that changed."""


@dataclass(frozen=True, slots=True)
class Lookahead:
    """`biased` if anything was found. `repeatable`: the same bars gave the same answers twice."""

    symbol: str
    cuts: tuple[Cut, ...]
    impurities: tuple[str, ...]
    repeatable: bool

    @property
    def biased(self) -> bool:
        return bool(self.impurities) or not self.repeatable or any(cut.differing for cut in self.cuts)

    @property
    def reason(self) -> str:
        """What is wrong, in a sentence; empty when nothing is."""
        if self.impurities:
            return self.impurities[0]
        changed = [cut for cut in self.cuts if cut.differing]
        if changed:
            return f"{sum(cut.differing for cut in changed)} answers on {self.symbol} change when later bars are shown"
        return "" if self.repeatable else f"the same bars of {self.symbol} gave other answers the second time: it has a hidden memory"


def lookahead(strategy: Strategy, params: Any, series: Series, *, bars_max: int, cuts: int) -> Lookahead:
    """Answers over the first `bars_max` bars, compared with those over `cuts` prefixes of them, ending where signals begin if there are
    enough: a cheat shows where it decides. O(bars x cuts / 2)."""
    shown = min(len(series), bars_max)
    whole = answers(strategy, params, series, shown)
    begins = [n + 1 for n in range(1, shown) if whole[n].score != 0.0 and _sign(whole[n]) != _sign(whole[n - 1])]
    places = begins[:: max(1, len(begins) // cuts)][:cuts] if len(begins) >= cuts else [shown * n // (cuts + 1) for n in range(1, cuts + 1)]
    found = []
    for length in sorted({place for place in places if 0 < place < shown}):
        part = answers(strategy, params, series.part(0, length), length)
        differing = [n for n, (one, other) in enumerate(zip(part, whole, strict=False)) if not same(one, other)]
        found.append(Cut(int(series.at[length - 1]), length, sum(place <= length for place in begins), len(differing),
                         int(series.at[differing[0]]) if differing else None))
    again = answers(strategy, params, series, shown)
    return Lookahead(series.symbol, tuple(found), tuple(impurities(strategy)),
                     all(same(one, other) for one, other in zip(whole, again, strict=True)))


def same(one: Intent, other: Intent) -> bool:
    """To the last bit; NaN equals NaN."""
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def _sign(intent: Intent) -> int:
    return (intent.score > 0.0) - (intent.score < 0.0)


# -- where history begins --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recursive:
    """How far state and answers still are from those of a longer history after each number of start-up bars."""

    symbol: str
    warmups: tuple[int, ...]
    differences: Mapping[str, tuple[float, ...]]
    """Name of a state's number -> largest relative difference after each warm-up; NaN where it could not be compared."""
    signals: tuple[float, ...]
    """Share of the places looked at where the wanted holding differs."""
    declared: int
    """The strategy's own `warmup`."""


def recursive(strategy: Strategy, params: Any, series: Series, warmups: Sequence[int], *, places: int) -> Recursive:
    """At `places` bars, the state after each of `warmups` bars of history against that after four times the longest.

    Indicators that never forget (exponential averages) differ for ever, by less and less: the table says from which start-up count on
    the difference no longer matters. Only floating point numbers of the state are compared: counters differ by design.
    """
    longest = 4 * max(warmups)
    spare = len(series) - longest
    ends = [longest + spare * n // (places + 1) for n in range(1, places + 1)] if spare > 0 else [len(series)]
    worst: dict[str, list[float]] = {}
    differing = [0] * len(warmups)
    for end in ends:
        reference, held = _state_at(strategy, params, series, max(0, end - longest), end)
        for number, warmup in enumerate(warmups):
            state, intent = _state_at(strategy, params, series, max(0, end - warmup), end)
            differing[number] += _sign(intent) != _sign(held)
            for name, value in state.items():
                row = worst.setdefault(name, [math.nan] * len(warmups))
                gap = _relative(value, reference.get(name, math.nan))
                row[number] = gap if row[number] != row[number] else max(row[number], gap)
    return Recursive(series.symbol, tuple(warmups), {name: tuple(row) for name, row in worst.items()},
                     tuple(count / len(ends) for count in differing), strategy.warmup)


def _state_at(strategy: Strategy, params: Any, series: Series, first: int, end: int) -> tuple[dict[str, float], Intent]:
    state, intent = strategy.init(params), Intent()
    for market in islice(markets(series, strategy.htf_multiple, first), end - first):
        state, intent = strategy.step(state, market, params)
    return dict(_floats("", state)), Intent(*intent)


def _floats(path: str, value: Any) -> Iterator[tuple[str, float]]:
    names = getattr(value, "_fields", None)
    if names is not None:
        for name, item in zip(names, value, strict=True):
            yield from _floats(f"{path}.{name}" if path else name, item)
    elif isinstance(value, float):
        yield path, value


def _relative(one: float, other: float) -> float:
    if one == other or (one != one and other != other):
        return 0.0
    size = max(abs(one), abs(other))
    return abs(one - other) / size if math.isfinite(size) else math.nan
