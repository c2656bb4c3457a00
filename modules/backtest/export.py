"""Writes a price source to a folder of CSV and JSON that RecordedSource reads back to the last bit.

Floats are written with repr, unknown numbers as empty cells. Refuses a source without an end and a folder that already holds files.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

from modules.backtest.recorded_names import timeframe_of
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Bar, Chain, Quote
from modules.domain.money import text
from modules.venues.protocol import MarketSource, Step

BARS: Final = ("ts", "open", "high", "low", "close", "volume", "quote_volume", "bid", "ask", "open_bid", "open_ask")
"""One layout for every market: the fields of `Bar`, then the recorded quote at the open. Forex bars are mids."""
MARKS: Final = ("ts", "open", "high", "low", "close")
FUNDING: Final = ("ts", "funding_rate", "interval_h", "predicted")
FINANCING: Final = ("ts", "long_rate", "short_rate")
CHAIN: Final = ("ts", "instrument", "currency", "type", "strike", "expiry_ts", "index_price", "underlying_price", "bid", "ask", "mark",
                "mark_iv", "delta", "vega", "open_interest", "volume_24h", "volume_usd_24h")
HISTORY_DAYS: Final = 31
"""What 720 hourly returns need."""
_DAY_MS: Final = 86_400_000
_SPAN_MAX_MS: Final = 100 * 366 * _DAY_MS
_Cell = str | int | float


class _Writer(Protocol):
    def writerow(self, row: Iterable[Any], /) -> Any: ...


class _Folder:
    """Files by name, opened when the first row comes, so that what a source does not have leaves no empty file."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._open: dict[str, _Writer] = {}

    def write(self, name: str, header: tuple[str, ...], row: Iterable[_Cell]) -> None:
        writer = self._open.get(name)
        if writer is None:
            handle = self._stack.enter_context((self._folder / name).open("w", encoding="utf-8", newline=""))
            writer = self._open[name] = csv.writer(handle, lineterminator="\n")
            writer.writerow(header)
        writer.writerow(["" if value != value else value for value in row])  # NaN alone differs from itself; csv writes floats with repr


def export_market(source: MarketSource, folder: Path, *, wallets: Mapping[AssetClass, Decimal] | None = None,
                  history_days: int = HISTORY_DAYS) -> None:
    """Write the history of the last `history_days`, every step, the instruments and replay.json into `folder`, which is made if absent.

    `wallets` are the balances a replay should open with. Iterates the source once. Raises ValueError for an endless source and
    FileExistsError if the folder is not empty.
    """
    if source.end - source.start > _SPAN_MAX_MS:
        raise ValueError(f"{source.name} has no end: give it a number of days to export it")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: export into a new folder, so that no old file is replayed beside the new ones")
    names = {instrument.symbol: instrument for instrument in source.instruments}
    contracts: dict[str, Instrument] = {}
    transfers: list[dict[str, str | int]] = []
    openings: dict[str, Quote | None] = {}
    with ExitStack() as stack:
        files = _Folder(folder, stack)
        for symbol, instrument in names.items():
            for bar in source.history(symbol, source.start, history_days * _DAY_MS // source.intervals_ms[symbol]):
                files.write(_bars_name(source, instrument), BARS, _bar_row(bar, None))
        for step in source.steps():
            for symbol, bar in step.bars:
                files.write(_bars_name(source, names[symbol]), BARS, _bar_row(bar, openings.get(symbol)))
            openings = {symbol: source.opening(symbol) for symbol in names}
            _write_rates(files, source, names, step)
            for chain in step.chains:
                _write_chain(files, chain)
                contracts |= {quote.symbol: rules for quote in chain.quotes if quote.symbol not in contracts
                              and (rules := source.contract(quote.symbol)) is not None}
            transfers += [{"at": step.at, "asset_class": asset_class.value, "amount": text(amount)}
                          for asset_class, amount in step.transfers]
    _write_json(folder / "instruments.json", [instrument_row(rules) for rules in (*names.values(), *contracts.values())])
    _write_json(folder / "replay.json", {
        "name": source.name, "seed": getattr(source, "seed", None), "start": source.start, "end": source.end,
        "wallets": {asset_class.value: text(amount) for asset_class, amount in wallets.items()} if wallets is not None else None,
        "macro_events": [event._asdict() for event in source.macro_events], "transfers": transfers})


def file_stem(instrument: Instrument) -> str:
    """The market's part of a file name: BTCUSDT, BTCUSDT-PERP, EURUSD."""
    return f"{instrument.base}{instrument.quote}{'-PERP' if instrument.asset_class is AssetClass.PERP else ''}"


def _bars_name(source: MarketSource, instrument: Instrument) -> str:
    return f"demo_{file_stem(instrument)}_{timeframe_of(source.intervals_ms[instrument.symbol])}.csv"


def _write_rates(files: _Folder, source: MarketSource, names: Mapping[str, Instrument], step: Step) -> None:
    for symbol, mark in step.marks:
        length = source.intervals_ms[symbol]
        files.write(f"demo_{file_stem(names[symbol])}_{timeframe_of(length)}_mark.csv", MARKS, (step.at - length, mark, mark, mark, mark))
    for funding in step.funding:
        files.write(f"demo_{file_stem(names[funding.symbol])}_funding.csv", FUNDING,
                    (funding.at, funding.rate, funding.interval_h, funding.predicted))
    for financing in step.financing:
        files.write(f"demo_{file_stem(names[financing.symbol])}_financing.csv", FINANCING,
                    (financing.at, financing.long_rate, financing.short_rate))


def _write_chain(files: _Folder, chain: Chain) -> None:
    for quote in chain.quotes:
        files.write("demo_options_chain.csv", CHAIN, (
            chain.at, quote.symbol, chain.underlying, "call" if quote.is_call else "put", quote.strike, quote.expiry, chain.spot, math.nan,
            quote.bid, quote.ask, quote.mark, quote.iv, quote.delta, quote.vega, quote.open_interest, math.nan, math.nan))


def _bar_row(bar: Bar, opening: Quote | None) -> tuple[_Cell, ...]:
    """`opening` only where the source has it recorded: a synthetic quote is made again by whoever reads the bars."""
    if opening is None or opening.synthetic or opening.at != bar.ts:
        return (*bar, math.nan, math.nan)
    return (*bar, opening.bid, opening.ask)


def instrument_row(instrument: Instrument) -> dict[str, Any]:
    row = {field.name: getattr(instrument, field.name) for field in fields(Instrument)}
    return {name: text(value) if isinstance(value, Decimal) else value for name, value in row.items()}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
