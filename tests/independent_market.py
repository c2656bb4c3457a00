"""The exported market as a stranger reads it: bars, marks, rates, releases and option chains, as they were known at an instant.

Standard library and numpy only, nothing of ours. Belongs to tests/independent_rules.py.
"""

import bisect
import csv
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NEW_YORK = ZoneInfo("America/New_York")
DOLLARS = ("USD", "USDC", "USDT")
AGREEING_BARS = 3
"""A jump this many bars in a row agree on is a new price."""

Row = dict[str, str]


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def numbers(rows: list[Row], column: str) -> list[float]:
    return [float(row[column]) if row.get(column) else math.nan for row in rows]


class Bars:
    """One instrument's closed bars as a careful reader takes them: nonsense and lone jumps refused, crossed quotes ignored."""

    def __init__(self, rows: list[Row], interval: int, half_spread: float, jump: float) -> None:
        self.interval = interval
        self.closed: list[int] = []
        self.close: list[float] = []
        self.bid: list[float] = []
        self.ask: list[float] = []
        self.quoted: list[int] = []
        self.frozen: list[int] = []
        self.volume: list[float] = []
        bid = ask = math.nan
        quoted = still = run = 0
        refused = 0.0
        columns = ("open", "high", "low", "close", "volume", "quote_volume", "bid", "ask")
        for ts, opened, high, low, close, volume, quote_volume, its_bid, its_ask in zip(
                [int(row["ts"]) for row in rows], *(numbers(rows, name) for name in columns), strict=True):
            sane = 0 < low <= close <= high < math.inf and low <= opened <= high
            last = self.close[-1] if self.close else close
            agreed = run > 0 and refused / jump < close < refused * jump
            if not sane or (not last / jump < close < last * jump and not (agreed and run + 1 >= AGREEING_BARS)):
                run, refused = (run + 1 if agreed else 1), close
                continue
            run = 0
            still = still + 1 if self.close and close == last and volume == 0.0 else 0
            if math.isnan(its_bid) or math.isnan(its_ask):
                bid, ask, quoted = close - close * half_spread, close + close * half_spread, ts + interval
            elif 0 < its_bid <= its_ask:
                bid, ask, quoted = its_bid, its_ask, ts + interval
            for kept, value in ((self.closed, ts + interval), (self.close, close), (self.bid, bid), (self.ask, ask), (self.quoted, quoted),
                                (self.frozen, still), (self.volume, quote_volume)):
                kept.append(value)  # type: ignore[arg-type]
        self._count_hours()

    def _count_hours(self) -> None:
        """Hourly closes and log returns on a dense grid, and when each hour became known: its last bar came, or a later one."""
        hours = {-(-at // HOUR): (at, close) for at, close in zip(self.closed, self.close, strict=True)}
        self.first_hour = min(hours)
        self.hour_returns = np.full(max(hours) - self.first_hour + 1, math.nan)
        self.known_hours, self.known_at = [], []
        for hour, (at, close) in hours.items():
            if hour - 1 in hours:
                self.hour_returns[hour - self.first_hour] = math.log(close / hours[hour - 1][1])
            after = bisect.bisect_right(self.closed, at)
            if at == hour * HOUR or after < len(self.closed):
                self.known_hours.append(hour)
                self.known_at.append(at if at == hour * HOUR else self.closed[after])

    def newest_hour(self, at: int) -> int:
        return self.known_hours[bisect.bisect_right(self.known_at, at) - 1]

    def last(self, at: int) -> int:
        """Index of the last bar closed at or before `at`; -1 = none."""
        return bisect.bisect_right(self.closed, at) - 1

    def mid(self, index: int) -> float:
        return 0.5 * (self.bid[index] + self.ask[index])


@dataclass
class Contract:
    expiry: int
    strike: float
    call: bool
    bid: float
    ask: float
    mark: float
    iv: float
    interest: float


class Chain:
    """One snapshot of one underlying's options, priced later by Black-76 with the snapshot's volatilities (dollar-quoted contracts)."""

    def __init__(self, at: int, rows: list[Row]) -> None:
        self.at = at
        self.spot = float(np.median([float(row["index_price"]) for row in rows]))
        self.contracts = {row["instrument"]: Contract(
            int(row["expiry_ts"]), float(row["strike"]), row["type"].startswith("c"),
            *(float(row[name]) if row[name] else math.nan for name in ("bid", "ask", "mark", "mark_iv", "open_interest"))) for row in rows}
        self._carry: dict[str, float] = {}

    def carry(self, name: str) -> float:
        """Annual growth of the forward at which the stated volatility gives the stated mark; 0 where none within reason does."""
        if name not in self._carry:
            contract = self.contracts[name]
            years = max(0.0, (contract.expiry - self.at) / (365 * DAY))
            value = contract.mark if contract.mark > 0 else 0.5 * (contract.bid + contract.ask)
            bound = 0.02 + 0.20 * years

            def excess(growth: float) -> float:
                price = black_76(self.spot * math.exp(growth), contract.strike, years, contract.iv, contract.call)
                return (price - value) * (1 if contract.call else -1)

            low, high = -bound, bound
            if years > 0 and excess(low) < 0 < excess(high):
                while high - low > 1e-15:
                    middle = 0.5 * (low + high)
                    if middle in (low, high):
                        break
                    low, high = (middle, high) if excess(middle) < 0 else (low, middle)
                self._carry[name] = 0.5 * (low + high) / years
            else:
                self._carry[name] = 0.0
        return self._carry[name]

    def value(self, name: str, spot: float, at: int, shift: float = 0.0) -> float:
        contract = self.contracts[name]
        years = (contract.expiry - at) / (365 * DAY)
        if years <= 0:
            return max(0.0, spot - contract.strike if contract.call else contract.strike - spot)
        return black_76(spot * math.exp(self.carry(name) * years), contract.strike, years, contract.iv + shift, contract.call)

    def quote(self, name: str, spot: float, at: int) -> tuple[float, float]:
        """Bid and ask now: each side keeps its relative distance from the mark, at least 0.25 %."""
        contract, mark = self.contracts[name], self.value(name, spot, at)
        was = contract.mark if contract.mark > 0 else 0.5 * (contract.bid + contract.ask)
        return (max(0.0, mark * (1 - max(1 - contract.bid / was, 0.0025))), mark * (1 + max(contract.ask / was - 1, 0.0025)))

    def delta_and_vega(self, name: str, spot: float, at: int) -> tuple[float, float]:
        contract = self.contracts[name]
        years = max(0.0, (contract.expiry - at) / (365 * DAY))
        sign = 1 if contract.call else -1
        deviation = contract.iv * math.sqrt(years)
        if deviation <= 0:
            return (sign if sign * (spot - contract.strike) > 0 else 0.0), 0.0
        growth = math.exp(self.carry(name) * years)
        d1 = math.log(spot * growth / contract.strike) / deviation + 0.5 * deviation
        density = math.exp(-0.5 * d1 * d1) / math.sqrt(2 * math.pi)
        return sign * growth * normal(sign * d1), spot * growth * density * math.sqrt(years)


def normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def black_76(forward: float, strike: float, years: float, iv: float, call: bool) -> float:
    deviation = iv * math.sqrt(years)
    sign = 1 if call else -1
    if not deviation > 0:
        return max(0.0, sign * (forward - strike))
    d1 = math.log(forward / strike) / deviation + 0.5 * deviation
    return sign * (forward * normal(sign * d1) - strike * normal(sign * (d1 - deviation)))


class Market:
    def __init__(self, folder: Path, policies: Any) -> None:
        replay = json.loads((folder / "replay.json").read_text())
        self.start, self.end, self.releases = replay["start"], replay["end"], replay["macro_events"]
        self.rules = {row["symbol"]: row for row in json.loads((folder / "instruments.json").read_text())}
        self.bars: dict[str, Bars] = {}
        self.marks: dict[str, dict[int, float]] = defaultdict(dict)
        self.funding: dict[str, list[tuple[int, float, float, float]]] = {}
        self.financing: dict[str, list[tuple[int, float, float]]] = {}
        jump = float(policies["kill_switch"]["mark_jump_max"])
        for symbol, rule in self.rules.items():
            if rule["asset_class"] == "OPTION":
                continue
            stem = rule["base"] + rule["quote"] + ("-PERP" if rule["asset_class"] == "PERP" else "")
            for path in sorted(folder.glob(f"demo_{stem}_*.csv")):
                kind, rows = path.stem.split("_")[-1], rows_of(path)
                if kind == "funding":
                    self.funding[symbol] = list(zip([int(row["ts"]) for row in rows], numbers(rows, "funding_rate"),
                                                    numbers(rows, "interval_h"), numbers(rows, "predicted"), strict=True))
                elif kind == "financing":
                    self.financing[symbol] = [(int(row["ts"]), float(row["long_rate"]), float(row["short_rate"])) for row in rows]
                elif kind == "mark":
                    length = span(path.stem.split("_")[-2])
                    self.marks[symbol] = {int(row["ts"]) + length: float(row["close"]) for row in rows}
                else:
                    half = policies["costs"][rule["asset_class"]]["half_spread_bp"] / 1e4
                    self.bars[symbol] = Bars(rows, span(kind), half, jump)
        self.chains: dict[str, tuple[list[int], list[Chain]]] = {}
        self._read_chains(folder / "demo_options_chain.csv")

    def _read_chains(self, path: Path) -> None:
        groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in rows_of(path) if path.exists() else ():
            groups[row["currency"], int(row["ts"])].append(row)
        for (underlying, at), rows in sorted(groups.items()):
            times, chains = self.chains.setdefault(underlying, ([], []))
            times.append(at)
            chains.append(Chain(at, rows))

    def chain(self, underlying: str, at: int) -> Chain | None:
        times, chains = self.chains.get(underlying, ([], []))
        index = bisect.bisect_right(times, at) - 1
        return chains[index] if index >= 0 else None

    def leader(self, underlying: str) -> str:
        names: list[str] = [symbol for kind in ("PERP", "SPOT") for symbol, rule in self.rules.items()
                            if rule["asset_class"] == kind and rule["underlying"] == underlying]
        return names[0]

    def spot(self, underlying: str, seen: int) -> float:
        bars = self.bars[self.leader(underlying)]
        return bars.close[bars.last(seen)]

    def mark(self, symbol: str, seen: int, at: int) -> float:
        """What a unit is worth at `at` to somebody who has seen the bars up to `seen`."""
        rule = self.rules[symbol]
        if rule["asset_class"] == "OPTION":
            chain = self.chain(rule["underlying"], seen)
            assert chain is not None
            return chain.value(symbol, self.spot(rule["underlying"], seen), at)
        bars = self.bars[symbol]
        index = bars.last(seen)
        return self.marks[symbol].get(bars.closed[index], bars.mid(index))

    def rate(self, symbol: str, seen: int) -> float:
        rule = self.rules[symbol]
        quote, settle = rule["quote"], rule["settle"]
        if quote == settle or (quote in DOLLARS and settle in DOLLARS):
            return 1.0
        for other in DOLLARS if settle in DOLLARS else (settle,):
            for name, inverse in ((f"{quote}/{other}", False), (f"{other}/{quote}", True)):
                bars = self.bars.get(name)
                if bars is not None and (index := bars.last(seen)) >= 0:
                    return 1 / bars.mid(index) if inverse else bars.mid(index)
        raise ValueError(f"no rate from {quote} to {settle}")

    # -- correlation ------------------------------------------------------------------------------------------------------

    def correlation(self, one: str, other: str, at: int, window: int) -> tuple[float, int]:
        """Of hourly log returns over the window that ends at the newest hour of any market; and over how many hours both have."""
        newest = max(bars.newest_hour(at) for bars in self.bars.values())
        x, y = (self._returns(self.bars[symbol], newest - window + 1, newest, at) for symbol in (one, other))
        both = ~(np.isnan(x) | np.isnan(y))
        x, y, count = x[both], y[both], int(both.sum())
        if count < 2 or np.ptp(x) <= 1e-12 or np.ptp(y) <= 1e-12:
            return math.nan, count
        return float(np.corrcoef(x, y)[0, 1]), count

    def _returns(self, bars: Bars, first: int, last: int, at: int) -> Any:
        found = np.full(last - first + 1, math.nan)
        low, high = max(first, bars.first_hour), min(last, bars.newest_hour(at))
        if low <= high:
            found[low - first:high - first + 1] = bars.hour_returns[low - bars.first_hour:high - bars.first_hour + 1]
        return found


def span(timeframe: str) -> int:
    return int(timeframe[:-1]) * {"m": MINUTE, "h": HOUR, "d": DAY}[timeframe[-1]]


# -- New York's week ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def five_pm(day: int) -> int:
    date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return int(datetime(date.year, date.month, date.day, 17, tzinfo=NEW_YORK).timestamp() * 1000)


def forex_open(at: int) -> bool:
    local = datetime.fromtimestamp(at / 1000, NEW_YORK)
    if local.weekday() == 4:
        return local.hour < 17
    return local.weekday() < 4 or (local.weekday() == 6 and local.hour >= 17)


def nights(symbol: str, since: int, until: int) -> int:
    total = 0
    for day in range(since // DAY - 1, until // DAY + 2):
        weekday = (day + 3) % 7
        if weekday < 5 and since < five_pm(day) <= until:
            total += 3 if weekday == (3 if symbol in ("USD/CAD", "USD/TRY") else 2) else 1
    return total
