"""Reads from a foreign file's name what it holds: freqtrade's folders, dumps of exchanges, MetaTrader's exports. Opens nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from modules.backtest.recorded_names import FIAT, Market, Named, interval_of, market_of, name_of
from modules.backtest.recorded_names import Kind as Holds
from modules.domain.errors import ConfigurationError
from modules.domain.instrument import DOLLARS
from modules.venues.archive import Kind

FREQTRADE: Final = (".feather", ".json", ".json.gz", ".parquet")
TEXT: Final = (".csv", ".csv.gz", ".txt", ".tsv")
_UNREADABLE: Final = {
    ".h5": "HDF5 is not read here; convert it: freqtrade convert-data --format-from hdf5 --format-to feather",
    ".hdf5": "HDF5 is not read here; convert it: freqtrade convert-data --format-from hdf5 --format-to feather",
    ".xlsx": "is a spreadsheet; save it as CSV", ".xls": "is a spreadsheet; save it as CSV",
    ".zip": "is an archive; unpack it", ".tar": "is an archive; unpack it", ".7z": "is an archive; unpack it",
}
_OURS_TOO: Final = frozenset(("instruments.json", "replay.json", "package.json", "config.json"))
_FREQTRADE: Final = re.compile(r"(?P<pair>[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+)-(?P<timeframe>\d{1,2}(?:[mhdwM]|Mo))(?:-(?P<kind>[A-Za-z_]+))?")
_CANDLES: Final = {None: Kind.BARS, "spot": Kind.BARS, "futures": Kind.BARS, "mark": Kind.MARK, "funding_rate": Kind.FUNDING}
_METATRADER: Final = re.compile(r"(M|H|D|W)([1-9]\d?)")
_WORD: Final = re.compile(r"[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Source:
    """A file and what it holds. `timeframe` "" = to be told by its rows."""

    path: Path
    venue: str
    market: Market
    kind: Kind
    timeframe: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A file that is left alone, and why; `fault` if somebody should do something about it."""

    path: Path
    reason: str
    fault: bool = False


def survey(source: Path, *, venue: str = "", symbol: str = "", timeframe: str = "") -> Iterator[Source | Passed]:
    """Every file at or below `source` that is one of a kind we know. What is given wins over what names say. Raises ConfigurationError."""
    if not source.exists():
        raise ConfigurationError([f"{source}: no such file or folder"])
    if timeframe and interval_of(timeframe) is None:
        raise ConfigurationError([f"--timeframe {timeframe!r}: write 1m, 5m, 1h, 1d"])
    if venue and not re.fullmatch(r"[a-z0-9]{1,32}", venue):
        raise ConfigurationError([f"--venue {venue!r}: small letters and digits"])
    if symbol and source.is_dir():
        raise ConfigurationError(["--symbol: names what one file holds; SOURCE is a folder"])
    market = _market(symbol) if symbol else None
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    for path in files:
        if any(part.startswith(".") for part in path.relative_to(source).parts) or path.name in _OURS_TOO:
            continue
        ending = next((one for one in (*FREQTRADE, *TEXT) if path.name.lower().endswith(one)), "")
        if ending:
            yield _named(path, path.name[:-len(ending)], venue, market, timeframe, alone=path == source)
        elif (reason := _UNREADABLE.get(path.suffix.lower())) is not None:
            yield Passed(path, reason, fault=True)
        elif path == source:
            yield Passed(path, f"is none of {', '.join((*FREQTRADE, *TEXT))}", fault=True)


def _market(symbol: str) -> Market:
    """The market of a unified symbol. Raises ConfigurationError."""
    core, _, settle = symbol.partition(":")
    base, _, quote = core.partition("/")
    name = f"{base}-{quote}-PERP" if settle else f"{base}-{quote}"
    found = market_of(name) if base and quote else "write BTC/USDT, BTC/USDT:USDT or EUR/USD"
    if isinstance(found, str) or found.symbol != symbol:
        raise ConfigurationError([f"--symbol {symbol!r}: {found if isinstance(found, str) else f'did you mean {found.symbol}?'}"])
    return found


def _named(path: Path, stem: str, venue: str, market: Market | None, timeframe: str, *, alone: bool) -> Source | Passed:
    if re.search(r"(^|[-_])trades$", stem):
        return Passed(path, "single trades are not replayed: bars are")
    freqtrade = _FREQTRADE.fullmatch(stem)
    if freqtrade is not None and market is None:
        return _of_freqtrade(path, freqtrade, venue)
    ours = name_of(path.with_name(f"{stem}.csv"))
    if isinstance(ours, Named) and ours.market is not None and market is None and ours.kind in (Holds.BARS, Holds.MARK, Holds.FUNDING):
        return Source(path, venue or ours.venue, ours.market, Kind(ours.kind.value), timeframe or ours.timeframe or "")
    words = [word for word in _WORD.split(stem) if word]
    told = next((found for word in words if (found := _timeframe(word))), "")
    names = [word for word in words if not _timeframe(word)]
    pairs = (f"{base}-{quote}" for base, quote in pairwise(names) if quote.upper() in DOLLARS | FIAT)
    guesses = map(market_of, (*names, *pairs))
    guess = market or next((one for one in guesses if isinstance(one, Market)), None)
    if guess is None:
        reason = "its name does not tell what it holds; rename it (BTCUSDT-1h.csv), or give the file alone with --symbol"
        return Passed(path, reason, fault=alone or path.name.lower().endswith(TEXT))
    return Source(path, venue or "imported", guess, Kind.BARS, timeframe or told)


def _of_freqtrade(path: Path, found: re.Match[str], venue: str) -> Source | Passed:
    """BTC_USDT-5m, BTC_USDT_USDT-1h-mark: the exchange is the name of the folder."""
    if found["kind"] not in _CANDLES:
        return Passed(path, f"{found['kind']} series are not replayed")
    if interval_of(found["timeframe"]) is None:
        return Passed(path, "bars of a month are not replayed")
    parts = found["pair"].split("_")
    market = market_of(f"{parts[0]}-{parts[1]}" if len(parts) == 2 else f"{parts[0]}-{parts[1]}-PERP")
    if len(parts) > 3 or (len(parts) == 3 and parts[1] != parts[2]):
        return Passed(path, "neither a spot pair nor a linear perpetual")
    if isinstance(market, str):
        return Passed(path, market)
    folder = path.parent.parent if path.parent.name == "futures" else path.parent
    exchange = _WORD.sub("", folder.name.lower())
    known = exchange if exchange and exchange not in ("data", "userdata") else "imported"
    kind = _CANDLES[found["kind"]]
    return Source(path, venue or known, market, kind, found["timeframe"] if kind is not Kind.FUNDING else "")


def _timeframe(word: str) -> str:
    """"1h", MetaTrader's "M5" and "H1": the bar length as we write it; "" if it is none."""
    if interval_of(word.lower()) is not None:
        return word.lower()
    found = _METATRADER.fullmatch(word)
    return f"{found[2]}{found[1].lower()}" if found is not None else ""

