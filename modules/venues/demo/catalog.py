"""The demo market's listings and script: what trades there, how each instrument behaves, and which mishaps are planted when.

Owns numbers only. They describe an invented venue, not an owner's choice: nothing here limits or permits a trade. Days count from the
market's start (day 0); scripted days repeat every CYCLE_DAYS where the text says so, so an endless demo stays eventful.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from modules.domain.instrument import AssetClass, Instrument, Right
from modules.domain.sessions import NEW_YORK
from modules.venues.protocol import MacroEvent

VENUE: Final = "demo"
SOURCE: Final = "demo"
BAR_MS: Final = 300_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
BARS_PER_DAY: Final = DAY_MS // BAR_MS
BARS_PER_HOUR: Final = HOUR_MS // BAR_MS
DEFAULT_START: Final = 1_767_571_200_000
"""2026-01-05 00:00 UTC, a Monday: NFP, CPI and FOMC all fall into the thirty days after it."""
HISTORY_DAYS: Final = 40
"""Days of bars before the start: 720 hourly returns and the slowest indicators need about 31."""
CYCLE_DAYS: Final = 30
AVERAGE_WEIGHT: Final = 1.0 / 288.0
"""Of the newest bar in the slow average that `revert` refers to: one day."""


class CryptoModel(NamedTuple):
    """One coin. Returns per bar = beta x common factor + its own noise; all magnitudes relative to the common factor's volatility."""

    name: str
    price: float
    """At the beginning of history, USDT."""
    beta: float
    own: float
    """Own noise: correlation with the factor is beta / sqrt(beta^2 + own^2)."""
    trend: float
    """Share of a trend regime's drift it takes part in: where momentum pays."""
    revert: float
    """Per bar, how fast the price is pulled back to its own slow average: where mean reversion pays. 0 = not at all."""
    shock: float
    """Multiple of a crash it suffers."""
    daily_volume: float
    """USDT on an average day; half of it in the perpetual where both exist."""
    banking_hours: bool = False
    """Its volume keeps the hours of the currency markets."""


CRYPTO: Final = (
    CryptoModel("BTC", 92_000.0, 1.00, 0.43, 0.9, 0.0, 0.85, 1.2e9),
    CryptoModel("ETH", 3_150.0, 1.20, 0.55, 1.1, 0.0, 1.00, 7.0e8),
    CryptoModel("SOL", 135.0, 1.45, 0.85, 1.3, 0.0, 1.10, 3.0e8),
    CryptoModel("XRP", 2.10, 1.15, 0.82, 0.3, 0.014, 1.00, 2.2e8),
    CryptoModel("ADA", 0.62, 1.25, 0.88, 0.2, 0.014, 1.05, 6.0e7),
    CryptoModel("DOGE", 0.16, 1.40, 1.00, 1.2, 0.0, 1.20, 1.4e8),
    CryptoModel("DUST", 0.0420, 1.00, 0.78, 0.0, 0.0, 1.00, 3.4e6),
    CryptoModel("PAXG", 4_400.0, 0.05, 0.30, 0.0, 0.0, 0.05, 6.9e6, banking_hours=True),
)
"""PAXG is gold on a crypto venue: calm, moved by nothing the coins are moved by, so thinly traded that a weekend's volume does not reach
the usual minimum, and its longs pay for leverage every eight hours."""


COMMODITIES: Final = (
    CryptoModel("OIL", 68.00, 0.10, 0.80, 0.5, 0.0, 1.00, 2.6e6),
    CryptoModel("GAS", 3.60, 0.05, 0.95, 0.5, 0.0, 1.10, 2.3e6),
    CryptoModel("COPPER", 5.20, 0.15, 0.70, 0.5, 0.0, 0.95, 2.5e6),
    CryptoModel("NICKEL", 16_200.0, 0.10, 0.85, 0.5, 0.0, 1.05, 2.2e6),
    CryptoModel("WHEAT", 5.40, 0.05, 0.75, 0.5, 0.0, 1.00, 2.3e6),
    CryptoModel("CORN", 4.50, 0.05, 0.70, 0.5, 0.0, 0.95, 2.2e6),
    CryptoModel("SOY", 10.60, 0.05, 0.70, 0.5, 0.0, 0.95, 2.2e6),
    CryptoModel("SUGAR", 0.1480, 0.05, 0.75, 0.5, 0.0, 1.00, 2.1e6),
    CryptoModel("COFFEE", 3.55, 0.05, 0.90, 0.5, 0.0, 1.10, 2.4e6),
    CryptoModel("COCOA", 6_050.0, 0.05, 0.95, 0.5, 0.0, 1.10, 2.4e6),
    CryptoModel("COTTON", 0.6500, 0.05, 0.70, 0.5, 0.0, 0.95, 2.1e6),
)
"""Perpetuals on goods, which have nothing to do with each other but who trades them here. Too thin to trade on most days; on some, whole
baskets are bought and dumped at once (RUSHES)."""


class ForexModel(NamedTuple):
    """One pair. `dollar` is its loading on the dollar factor (negative: falls when the dollar rises)."""

    symbol: str
    price: float
    digits: int
    dollar: float
    own: float
    trend: float
    revert: float
    session: float
    """Drift per bar from London's opening on, in a direction drawn anew each day: where session breakouts pay; fraction of price."""
    half_spread: float
    """In price units, in liquid hours."""
    long_rate: float
    short_rate: float
    """Annualized financing earned (negative: paid) by a long and a short position, the broker's markup taken off."""


FOREX: Final = (
    ForexModel("EUR/USD", 1.1720, 5, -1.00, 0.70, 0.0, 0.0, 2.4e-5, 0.00003, -0.0250, 0.0060),
    ForexModel("USD/JPY", 156.40, 3, 0.80, 0.90, 1.0, 0.0, 0.0, 0.005, 0.0240, -0.0580),
    ForexModel("GBP/USD", 1.3450, 5, -1.00, 0.80, 0.0, 0.012, 0.0, 0.00005, -0.0080, -0.0110),
    ForexModel("AUD/USD", 0.6680, 5, -1.10, 1.00, 0.0, 0.0, 0.0, 0.00004, -0.0105, -0.0095),
)

PERPS: Final = ("BTC", "ETH", "SOL", "DOGE", "PAXG", *(model.name for model in COMMODITIES))
SPOTS: Final = ("BTC", "ETH", "SOL", "XRP", "ADA", "DUST")
OPTION_UNDERLYINGS: Final = ("BTC", "ETH", "PAXG")
OPTION_CURRENCY: Final = "USDT"
QUOTED_SPOT: Final = "ADA/USDT"
"""The one spot pair whose bid and ask are recorded, sometimes too wide to trade."""

SPOT_DIGITS: Final = {"BTC": 2, "ETH": 2, "SOL": 2, "XRP": 4, "ADA": 5, "DUST": 6}
PERP_DIGITS: Final = {"BTC": 1, "ETH": 2, "SOL": 3, "DOGE": 5, "PAXG": 2, "OIL": 3, "GAS": 4, "COPPER": 4, "NICKEL": 1, "WHEAT": 4,
                      "CORN": 4, "SOY": 4, "SUGAR": 5, "COFFEE": 4, "COCOA": 1, "COTTON": 5}
_SPOT_LOT: Final = {"BTC": "0.0000001", "ETH": "0.000001", "SOL": "0.00001", "XRP": "0.001", "ADA": "0.01", "DUST": "0.1"}
"""About a cent: a coin's purchase pays its fee in the coin, and what is left of it below a lot cannot be sold again."""
_PERP_LOT: Final = {"BTC": "0.001", "ETH": "0.001", "SOL": "0.01", "DOGE": "1", "PAXG": "0.001", "OIL": "0.01", "GAS": "0.1",
                    "COPPER": "0.1", "NICKEL": "0.0001", "WHEAT": "0.1", "CORN": "0.1", "SOY": "0.1", "SUGAR": "1", "COFFEE": "0.1",
                    "COCOA": "0.0001", "COTTON": "1"}
"""A lot of BTC is some $90: more than a small account may put into one trade."""


class OptionListing(NamedTuple):
    """How an underlying's contracts are listed: strikes are multiples of `strike_step`, times 1, 2 or 5 by time to expiry."""

    strike_step: int
    tick: str
    lot: str
    open_interest: float
    """Contracts, at the money."""
    volatility: float
    """Annual, in the long run."""


OPTIONS: Final = {"BTC": OptionListing(1_000, "1", "0.01", 1_600.0, 0.50), "ETH": OptionListing(50, "0.1", "0.1", 9_000.0, 0.66),
                  "PAXG": OptionListing(10, "0.1", "0.1", 700.0, 0.15)}


def spot_symbol(name: str) -> str:
    return f"{name}/USDT"


def perp_symbol(name: str) -> str:
    return f"{name}/USDT:USDT"


def _step(digits: int) -> Decimal:
    return Decimal(1).scaleb(-digits)


def _spot(name: str) -> Instrument:
    lot = Decimal(_SPOT_LOT[name])
    return Instrument(spot_symbol(name), VENUE, AssetClass.SPOT, name, "USDT", "USDT", name, _step(SPOT_DIGITS[name]), lot, lot, Decimal(5),
                      maker_fee=Decimal("0.001"), taker_fee=Decimal("0.001"))


def _perp(name: str) -> Instrument:
    lot = Decimal(_PERP_LOT[name])
    return Instrument(perp_symbol(name), VENUE, AssetClass.PERP, name, "USDT", "USDT", name, _step(PERP_DIGITS[name]), lot, lot, Decimal(5),
                      maker_fee=Decimal("0.0002"), taker_fee=Decimal("0.00055"), leverage_max=Decimal(20),
                      maintenance_margin=Decimal("0.01"), funding_interval_h=8)


def _pair(model: ForexModel) -> Instrument:
    base, quote = model.symbol.split("/")
    return Instrument(model.symbol, VENUE, AssetClass.FOREX, base, quote, "USD", model.symbol, _step(model.digits), Decimal(1), Decimal(1),
                      leverage_max=Decimal(50), maintenance_margin=Decimal("0.01"), pip=_step(model.digits - 1))


INSTRUMENTS: Final = (*map(_spot, SPOTS), *map(_perp, PERPS), *map(_pair, FOREX))


def option_symbol(name: str, expiry: int, strike: int, *, is_call: bool) -> str:
    """The ccxt unified form, e.g. "BTC/USDT:USDT-260130-95000-C"."""
    day = datetime.fromtimestamp(expiry / 1000, UTC)
    return f"{name}/USDT:USDT-{day:%y%m%d}-{strike}-{'C' if is_call else 'P'}"


def option_contract(symbol: str) -> Instrument | None:
    """The rules of a contract, derived from its symbol alone so that a restart needs no memory of the chain; None for anything else."""
    market, _, rest = symbol.partition("-")
    name = market.partition("/")[0]
    parts = rest.split("-")
    if name not in OPTIONS or market != perp_symbol(name) or len(parts) != 3:
        return None
    day, strike, right = parts
    listing = OPTIONS[name]
    if right not in ("C", "P") or not strike.isdecimal() or int(strike) % listing.strike_step or len(day) != 6 or not day.isdecimal():
        return None
    try:
        expiry = datetime(2000 + int(day[:2]), int(day[2:4]), int(day[4:]), 8, tzinfo=UTC)
    except ValueError:
        return None
    return Instrument(symbol, VENUE, AssetClass.OPTION, name, "USDT", OPTION_CURRENCY, name, Decimal(listing.tick), Decimal(listing.lot),
                      Decimal(listing.lot), maker_fee=Decimal("0.0003"), taker_fee=Decimal("0.0003"), expiry=int(expiry.timestamp()) * 1000,
                      strike=Decimal(strike), right=Right(right))


# -- the script -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """Bars spoiled on one instrument, each cycle: `first` is the bar of the day."""

    day: int
    first: int
    bars: int


FROZEN: Final = Fault(day=7, first=62, bars=48)
"""The crypto venue's matching engine stands still for four hours, over a funding settlement: every spot and perpetual bar
repeats the last price with volume 0, as if nothing were wrong."""
REOPENING_BARS: Final = 9
REOPENING_SHARE: Final = 0.015
"""Of the usual volume, in the first bars after it: makers are slow to come back."""
HOLE_SYMBOL: Final = "XRP/USDT"
HOLE: Final = Fault(day=11, first=152, bars=16)
"""Bars that never come; the price has moved on when they come again."""
INSANE_SYMBOL: Final = "SOL/USDT:USDT"
INSANE: Final = Fault(day=12, first=100, bars=1)
"""Close and high 1000 x the price. The mark price stays sane."""
INSANE_MULTIPLE: Final = 1_000.0

WIDE_SPREAD_DAYS: Final = (3, 10, 15, 22, 27)
WIDE_SPREAD_BARS: Final = (150, 210)
"""On those days of each cycle, between those bars, QUOTED_SPOT's half spread is WIDE_HALF_SPREAD of its price."""
WIDE_HALF_SPREAD: Final = 0.0022
QUOTED_HALF_SPREAD: Final = 0.00012


class FundingStretch(NamedTuple):
    """Each cycle, between two days, a perpetual's funding settles around `rate` per 8 h instead of the usual 0.01 %."""

    name: str
    first_day: float
    last_day: float
    rate: float


FUNDING_BASE: Final = 0.0001
FUNDING_STRETCHES: Final = (
    FundingStretch("DOGE", 3.0, 7.4, 0.0011),
    FundingStretch("ETH", 7.1, 9.0, -0.0005),
    FundingStretch("SOL", 7.1, 9.4, -0.0006),
    FundingStretch("DOGE", 10.4, 13.4, -0.0007),
    FundingStretch("BTC", 16.6, 19.0, -0.0004),
    FundingStretch("ETH", 20.0, 22.4, 0.0008),
    FundingStretch("SOL", 24.0, 27.4, -0.0006),
    FundingStretch("PAXG", 0.0, 30.0, 0.0004),
    *(FundingStretch(model.name, 0.0, 30.0, 0.00004) for model in COMMODITIES),
)

CRASH_DAY: Final = 16
CRASH_BAR: Final = 168
"""14:00 UTC, give or take by seed."""
CRASH: Final = ((0.0, -0.020), (-0.040, -0.015), (-0.045, -0.010), (-0.012, -0.025), (-0.030, -0.005), (-0.010, 0.015), (-0.030, -0.020),
                (-0.012, -0.014), (-0.012, -0.006), (0.012, 0.006), (0.042, 0.012), (0.026, 0.006))
"""(gap before the bar, move inside it) over one hour, to be scaled: a market order in it does not find the price it saw, on the way down
nor when those who sold last must buy back."""
CRASH_REBOUND: Final = (36, 0.0012)
"""Bars and move per bar afterwards: with the snap before about half of it comes back in three hours."""
AFTERSHOCK_BAR: Final = CRASH_BAR + 60
AFTERSHOCK: Final = ((-0.004, -0.008), (-0.022, -0.012), (-0.030, -0.004), (0.034, 0.010), (0.016, 0.004))
"""Five hours later the low is tested once more, and bought back in a gap."""
AFTERSHOCK_REBOUND: Final = (12, 0.0008)
SQUEEZE_DAY: Final = 26
SQUEEZE_BAR: Final = 110
SQUEEZE: Final = ((0.015, 0.008), (0.030, 0.008), (0.012, 0.006), (0.0, 0.0))
SQUEEZE_REBOUND: Final = (24, -0.0013)
"""The same the other way, for who is short by then."""


class Rush(NamedTuple):
    """On one day of each cycle everybody comes to trade commodities: money enters them one after the other, and leaves all in one bar."""

    day: int
    bar: int
    """Of the first commodity's breakout, give or take by seed; the others follow, one a bar."""
    slip: float
    """Move of all of them, and back in the next bar, before the volume comes: it ends what views were left from the calm."""
    breakout: float
    dump: tuple[float, float]
    """(gap before the bar, move inside it) two bars after the last breakout."""
    after: tuple[int, float]
    """Bars and move per bar that follow."""


RUSHES: Final = (Rush(1, 84, -0.016, 0.018, (0.0, -0.030), (10, 0.0050)), Rush(14, 120, -0.018, 0.022, (-0.072, -0.006), (12, 0.0020)))
"""A breakout that shakes everybody out and turns out to be real: who was stopped wants in again at once. And one that ends in a gap
through every stop."""
RUSH_LEAD_BARS: Final = 10
RUSH_VOLUME: Final = 80.0
"""Times the usual volume, from that many bars before the first breakout to the end of the day: only then do they trade enough."""


class ScriptedTransfer(NamedTuple):
    """Money the demo's owner moves; once, not each cycle."""

    after_ms: int
    asset_class: AssetClass
    amount: Decimal


TRANSFERS: Final = (
    ScriptedTransfer(6 * DAY_MS + 10 * HOUR_MS, AssetClass.SPOT, Decimal(600)),
    ScriptedTransfer(8 * DAY_MS + 9 * HOUR_MS, AssetClass.PERP, Decimal(1300)),
    ScriptedTransfer(14 * DAY_MS + 12 * HOUR_MS, AssetClass.FOREX, Decimal(-2500)),
)
"""SPOT crosses from phase 1 to 2, PERP from 2 to 3; the withdrawal is a tenth of FOREX and must not look like a loss."""

# Release dates as published by the Bureau of Labor Statistics and the Federal Reserve; New York wall time.
_RELEASES: Final = {
    ("CPI", "US consumer price index", 8, 30): "2026-01-13 2026-02-13 2026-03-11 2026-04-10 2026-05-12 2026-06-10 2026-07-14 2026-08-12 "
                                               "2026-09-11 2026-10-14 2026-11-10 2026-12-10",
    ("NFP", "US employment report", 8, 30): "2026-01-09 2026-02-11 2026-03-06 2026-04-03 2026-05-08 2026-06-05 2026-07-02 2026-08-07 "
                                            "2026-09-04 2026-10-02 2026-11-06 2026-12-04",
    ("FOMC", "FOMC rate decision", 14, 0): "2026-01-28 2026-03-18 2026-04-29 2026-06-17 2026-07-29 2026-09-16 2026-10-28 2026-12-09 "
                                           "2027-01-27 2027-03-17 2027-04-28 2027-06-09 2027-07-28 2027-09-15 2027-10-27 2027-12-08",
}


def _macro_events() -> tuple[MacroEvent, ...]:
    events = []
    for (kind, title, hour, minute), dates in _RELEASES.items():
        for date in dates.split():
            local = datetime.fromisoformat(date).replace(hour=hour, minute=minute, tzinfo=NEW_YORK)
            events.append(MacroEvent(int(local.timestamp()) * 1000, kind, title, "USD", SOURCE))
    return tuple(sorted(events))


MACRO_EVENTS: Final = _macro_events()
