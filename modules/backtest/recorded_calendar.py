"""What recorded folders say beside prices: macro releases, interest rates for FX financing, and an export's replay.json.

Refuses a replay.json it cannot read. Calendars are taken as recorded, with their known errors: missing FOMC dates stay missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from modules.backtest.recorded_files import I64, Values, fault, read_table
from modules.backtest.recorded_names import METALS
from modules.domain.instrument import AssetClass, Instrument
from modules.venues.protocol import MacroEvent

DAY_MS: Final = 86_400_000
_FOMC: Final = re.compile(r"^FOMC (Statement|Decision|Economic Projections|Press Conference)|^Federal Funds Rate")
"""Meetings and their decisions; not minutes, and not "FOMC Member X Speaks"."""
_CPI: Final = re.compile(r"^(Core )?CPI\b")
_NFP: Final = re.compile(r"^Non-Farm Employment Change|Nonfarm Payrolls|\(NFP\)")
_RATES: Final = frozenset(("Main Refinancing Rate", "Official Bank Rate", "Official Cash Rate", "Cash Rate", "Overnight Rate",
                           "SNB Policy Rate", "BOJ Policy Rate", "Monetary Policy Summary"))
_COUNTRY: Final = {"USD": "USA", "EUR": "EA19", "GBP": "GBR", "JPY": "JPN", "CHF": "CHE", "AUD": "AUS", "NZD": "NZL", "CAD": "CAN",
                   "SEK": "SWE", "NOK": "NOR", "DKK": "DNK", "MXN": "MEX", "ZAR": "ZAF", "PLN": "POL", "CZK": "CZE", "HUF": "HUN",
                   "ILS": "ISR", "INR": "IND", "CNY": "CHN", "CNH": "CHN"}
"""Codes the OECD files rates under."""
INTEREST_AGE_MAX_MS: Final = 100 * DAY_MS
"""A monthly rate is published with some delay; one older than this is not known any more."""


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    at: int
    kind: str
    title: str = ""
    currency: str = ""
    source: str = ""


class _Transfer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)
    at: int
    asset_class: AssetClass
    amount: Decimal


class Replay(BaseModel):
    """replay.json of an exported folder; everything in it may be absent."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str | None = None
    seed: int | None = None
    start: int | None = None
    end: int | None = None
    wallets: dict[AssetClass, Decimal] | None = None
    macro_events: tuple[_Event, ...] = ()
    transfers: tuple[_Transfer, ...] | None = None

    def events(self) -> list[MacroEvent]:
        return [MacroEvent(event.at, event.kind, event.title, event.currency, event.source) for event in self.macro_events]


@dataclass(frozen=True, slots=True)
class InterestRates:
    """Annual short-term rates as fractions per OECD country code, each known from the month after the one it describes."""

    series: Mapping[str, Values]

    def of(self, currency: str, at: int) -> float | None:
        """The last rate published before `at`; metals pay none; None = unknown."""
        if currency in METALS:
            return 0.0
        values = self.series.get(_COUNTRY.get(currency, ""))
        if values is None:
            return None
        row = int(np.searchsorted(values.ts, at, side="right")) - 1
        if row < 0 or at - int(values.ts[row]) > INTEREST_AGE_MAX_MS:
            return None
        return float(values.columns["rate"][row])

    def months(self, after: int, until: int) -> I64:
        """Every moment at which some rate became known, after < at <= until."""
        times = np.unique(np.concatenate([values.ts for values in self.series.values()])) if self.series else np.zeros(0, dtype=np.int64)
        return np.asarray(times[(times > after) & (times <= until)], dtype=np.int64)


def financing_of(instrument: Instrument, rates: InterestRates, first: int, last: int, markup: float) -> Values | None:
    """FX financing from the interest difference: a long earns base minus quote rate, a short the opposite, both less the broker's markup.

    One value at `first` and one at the start of every month; None where a currency's rate is unknown at all of them.
    """
    times, longs, shorts = [], [], []
    for at in (first, *rates.months(first, last).tolist()):
        base, quote = rates.of(instrument.base, at), rates.of(instrument.quote, at)
        if base is not None and quote is not None:
            times.append(at)
            longs.append(base - quote - markup)
            shorts.append(quote - base - markup)
    if not times:
        return None
    return Values(np.array(times, dtype=np.int64), {"long_rate": np.array(longs), "short_rate": np.array(shorts)})


def read_replay(path: Path) -> Replay:
    try:
        return Replay.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise fault(path, f"cannot be read ({error})", "export the folder again") from error


def read_interest(path: Path) -> InterestRates:
    """OECD monthly rates in percent -> fractions, each stamped with the first instant of the following month: no look-ahead."""
    table = read_table(path)
    if not {"location", "rate_pct"} <= table.keys():
        raise fault(path, f"lacks location or rate_pct (has {', '.join(table)})", "interest files need ts, location, rate_pct")
    locations = table["location"].astype(str)
    series = {}
    for location in sorted(set(locations.tolist())):
        rows = np.flatnonzero(locations == location)
        known = np.array([_next_month(int(ts)) for ts in table["ts"][rows].tolist()], dtype=np.int64)
        order = np.argsort(known, kind="stable")
        series[location] = Values(known[order], {"rate": np.asarray(table["rate_pct"], dtype=np.float64)[rows][order] / 100.0})
    return InterestRates(series)


def read_events(path: Path) -> list[MacroEvent]:
    """The releases of one calendar file that a blackout can name; rows in any order. Raises DataError if columns are missing."""
    table = read_table(path)
    missing = [name for name in ("currency", "impact", "event") if name not in table]
    if missing:
        raise fault(path, f"lacks {', '.join(missing)} (has {', '.join(table)})", "calendars need ts, currency, impact, event")
    columns = (table[name].astype(str).tolist() for name in ("currency", "impact", "event"))
    events = []
    for at, currency, impact, title in zip(table["ts"].tolist(), *columns, strict=True):
        kind = kind_of(currency, impact, title)
        if kind is not None:
            events.append(MacroEvent(at, kind, title, currency, path.name))
    return events


def kind_of(currency: str, impact: str, title: str) -> str | None:
    """The blackout kind a release falls under; None for those that close nothing."""
    if currency == "USD":
        if _FOMC.search(title):
            return "FOMC"
        if _NFP.search(title):
            return "NFP"
        if _CPI.search(title):
            return "CPI"
    elif title in _RATES:
        return "RATE_DECISION"
    return "HIGH" if impact.lower() == "high" and currency != "All" else None


def merged_events(events: Iterable[MacroEvent]) -> list[MacroEvent]:
    """In time order, the earliest of one kind, currency and UTC day; HIGH ones, several a day, by their exact time."""
    seen: set[tuple[Any, ...]] = set()
    result = []
    for event in sorted(events):
        key = (event.kind, event.currency, event.at if event.kind == "HIGH" else event.at // DAY_MS)
        if key not in seen:
            seen.add(key)
            result.append(event)
    return result


def _next_month(at: int) -> int:
    day = datetime.fromtimestamp(at / 1000.0, UTC)
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)

