"""Reads from a file's name what it holds: venue, market, bar length, kind of series. Decides by name alone which files are not ours.

Names are VENUE_MARKET_TIMEFRAME[_KIND][_PERIOD].parquet or .csv, as the recordings and our own export write them:
binance_BTCUSDT_1h, binance_BTCUSDT-PERP_1h_mark_2026, oanda_EURUSD_1m_bidask, deribit_BTC_ETH_chain_2026-01_1d.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from modules.domain.instrument import DOLLARS, AssetClass

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz")
FIAT: Final = frozenset(("USD", "EUR", "GBP", "JPY", "CHF", "AUD", "NZD", "CAD", "SEK", "NOK", "DKK", "SGD", "HKD", "CNH", "CNY", "MXN",
                         "ZAR", "TRY", "PLN", "CZK", "HUF", "THB", "INR", "ILS"))
METALS: Final = frozenset(("XAU", "XAG", "XPT", "XPD"))
BID_ONLY_VENUES: Final = frozenset(("mt5", "mt4", "metatrader"))
"""Their candles are made of bid prices."""
USD_VOLUME_VENUES: Final = frozenset(("ftx",))
"""Their perps state volume in dollars, not in base units."""
_QUOTES: Final = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USDP", "USD", "DAI", "EUR", "GBP", "JPY", "TRY", "BRL", "AUD",
                  "BTC", "ETH", "BNB")
_UNIT_MS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_TIMEFRAME: Final = re.compile(r"^([1-9]\d{0,3})([mhdw])$")
_PERIOD: Final = re.compile(r"^(19|20)\d\d(-?\d\d){0,2}$|^to$|^\d\d$|^[1-9]\d?h$")
_NOT_SERIES: Final = {
    "ticks": "single ticks are not replayed: bars are",
    "trades": "single trades are not replayed: bars are",
    "bbo": "order book recordings are not replayed: bars are",
    "depth": "order book recordings are not replayed: bars are",
    "quotes": "option quote bars without greeks are not replayed: chains are",
}
_NOT_VENUES: Final = {
    "index": "an index cannot be traded",
    "us": "US listed options and stocks have no venue here",
    "ecb": "daily fixings cannot be traded",
    "manifest": "not a series",
    "readme": "not a series",
}


class Kind(StrEnum):
    BARS = "bars"
    UNIVERSE = "universe"
    """Long format: many symbols in one file."""
    MARK = "mark"
    FUNDING = "funding"
    FINANCING = "financing"
    CHAIN = "chain"
    EVENTS = "events"
    INTEREST = "interest"
    """Short-term interest rates per country and month."""


class Market(NamedTuple):
    asset_class: AssetClass
    base: str
    quote: str
    settle: str
    symbol: str
    underlying: str


@dataclass(frozen=True, slots=True)
class Named:
    """What a file's name says it holds. `market` is None for chains, calendars, interest rates and universes."""

    path: Path
    kind: Kind
    venue: str = ""
    market: Market | None = None
    timeframe: str | None = None


@dataclass(frozen=True, slots=True)
class NotOurs:
    """A file that is left alone, and why."""

    path: Path
    reason: str


def interval_of(timeframe: str) -> int | None:
    """Milliseconds of "1m", "4h", "1d"; None if the text is not a timeframe."""
    found = _TIMEFRAME.match(timeframe)
    return int(found[1]) * _UNIT_MS[found[2]] if found else None


def timeframe_of(interval_ms: int) -> str:
    """The shortest text for a bar length: 300,000 -> "5m"."""
    for unit in "wdhm":
        if interval_ms % _UNIT_MS[unit] == 0:
            return f"{interval_ms // _UNIT_MS[unit]}{unit}"
    return f"{interval_ms}ms"


def market_of(text: str) -> Market | str:
    """The instrument behind a market's name (BTCUSDT, BTC-USDT, BTCUSDT-PERP, EURUSD), or why there is none."""
    core = text.upper()
    perpetual = core.endswith("-PERP")
    core = core.removesuffix("-PERP")
    base, quote = _split(core)
    if perpetual:
        if not quote:
            base, quote = core, "USD"  # FTX named them BTC-PERP
        if quote not in DOLLARS:
            return f"settles in {quote}; a perp sub-ledger settles in {_one_of(DOLLARS)}"
        return Market(AssetClass.PERP, base, quote, quote, f"{base}/{quote}:{quote}", base)
    if not quote:
        return f"cannot tell base and quote of {text!r}; write BASE-QUOTE"
    symbol = f"{base}/{quote}"
    if base in FIAT | METALS and quote in FIAT:
        return Market(AssetClass.FOREX, base, quote, "USD", symbol, symbol)
    if quote not in DOLLARS:
        return f"quoted in {quote}: a spot sub-ledger holds {_one_of(DOLLARS)} and cannot pay in {quote}"
    return Market(AssetClass.SPOT, base, quote, quote, symbol, base)


def name_of(path: Path) -> Named | NotOurs:
    """What `path` holds, by its name."""
    stem = path.name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    tokens = stem.split("_")
    venue, words = tokens[0].lower(), {token.lower() for token in tokens[1:]}
    if path.parent.name == "meta":
        return NotOurs(path, "instrument rules, not a series")
    if "forexfactory" in venue or "events" in words or {"high", "impact"} <= words:
        return Named(path, Kind.EVENTS)
    if "interest" in words:
        return Named(path, Kind.INTEREST)
    if venue in _NOT_VENUES:
        return NotOurs(path, _NOT_VENUES[venue])
    for word in tokens[1:]:
        if word.lower() in _NOT_SERIES:
            return NotOurs(path, _NOT_SERIES[word.lower()])
    if "chain" in words:
        return Named(path, Kind.CHAIN, venue)
    timeframe = next((token for token in tokens[2:] if interval_of(token)), None)
    if "universe" in words:
        return Named(path, Kind.UNIVERSE, venue, None, timeframe)
    return _named_series(path, venue, tokens[1:], timeframe)


def _named_series(path: Path, venue: str, tokens: list[str], timeframe: str | None) -> Named | NotOurs:
    kind = Kind.BARS
    market_tokens: list[str] = []
    for token in tokens:
        lower = token.lower()
        if lower in (Kind.MARK, Kind.FUNDING, Kind.FINANCING):
            kind = Kind(lower)
        elif lower != "bidask" and not interval_of(token) and not _PERIOD.match(lower):
            market_tokens.append(token)
    if not market_tokens or len(market_tokens) > 2:
        return NotOurs(path, "its name is not VENUE_MARKET_TIMEFRAME (like binance_BTCUSDT_1h)")
    found = market_of("-".join(market_tokens))
    if isinstance(found, str):
        return NotOurs(path, found)
    return Named(path, kind, venue, found, timeframe)


def _split(core: str) -> tuple[str, str]:
    for separator in ("-", "/"):
        if separator in core:
            base, _, quote = core.partition(separator)
            return base, quote
    if len(core) == 6 and core[:3] in FIAT | METALS and core[3:] in FIAT:
        return core[:3], core[3:]
    for quote in _QUOTES:
        if core.endswith(quote) and len(core) > len(quote):
            return core[: -len(quote)], quote
    return core, ""


def _one_of(currencies: frozenset[str]) -> str:
    return " or ".join(sorted(currencies))
