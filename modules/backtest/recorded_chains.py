"""Recorded option chains: files in Deribit's columns, merged by snapshot, held as numpy columns with one table of contracts.

Prices stay in the contract's quote currency (the coin for Deribit's inverse contracts, dollars where the name says so). Several files may
hold the same snapshot (a 6-hourly crash week inside a month of daily ones): each snapshot is taken once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_files import F64, I64, fault, iso, read_table, time_faults
from modules.domain.errors import DataError
from modules.domain.instrument import DOLLARS, Right
from modules.domain.market import Chain, OptionQuote

NUMBERS: Final = ("bid", "ask", "mark", "mark_iv", "delta", "vega", "open_interest")
"""In this order they follow the contract's terms in an OptionQuote. Greeks as recorded (Deribit: vega in USD per volatility point)."""
_REQUIRED: Final = ("instrument", "type", "strike", "expiry_ts", "index_price", *NUMBERS)
_NATIVE: Final = re.compile(r"^([A-Z0-9]+?)(?:_([A-Z]+))?-(\d{1,2}[A-Z]{3}\d{2})-([0-9.d]+)-([CP])$")
_UNIFIED: Final = re.compile(r"^([A-Z0-9]+)/([A-Z]+):([A-Z0-9]+)-\d{6}-[0-9.]+-[CP]$")


class Contract(NamedTuple):
    """One listed option. `quote` is what its prices are in, `settle` the dollar currency its sub-ledger books."""

    symbol: str
    base: str
    quote: str
    settle: str
    expiry: int
    strike: float
    right: Right


@dataclass(frozen=True, slots=True)
class Chains:
    """All snapshots in time order. Rows of one snapshot and underlying are contiguous, in the order they were recorded."""

    contracts: list[Contract]
    """By code."""
    starts: I64
    """First row of each group; one more entry than there are groups."""
    at: I64
    """UTC ms of each group."""
    underlyings: list[str]
    """Of each group."""
    spots: F64
    """Index price of each group: the median of its rows, which a slow snapshot collected one after the other."""
    codes: npt.NDArray[np.int32]
    numbers: dict[str, F64]

    def groups(self, after: int, until: int) -> dict[int, list[int]]:
        """Numbers for `chain` of what was listed at after < at <= until, by time."""
        first, last = np.searchsorted(self.at, [after, until], side="right").tolist()
        found: dict[int, list[int]] = {}
        for group, at in enumerate(self.at[first:last].tolist(), first):
            found.setdefault(at, []).append(group)
        return found

    def chain(self, group: int) -> Chain:
        rows = slice(int(self.starts[group]), int(self.starts[group + 1]))
        contracts = [self.contracts[code] for code in self.codes[rows].tolist()]
        columns = [self.numbers[name][rows].tolist() for name in NUMBERS]
        quotes = [OptionQuote(contract.symbol, contract.expiry, contract.strike, contract.right is Right.CALL, *values)
                  for contract, *values in zip(contracts, *columns, strict=True)]
        spot = float(self.spots[group])
        linear = not contracts or contracts[0].quote in DOLLARS
        return Chain(self.underlyings[group], int(self.at[group]), spot, 1.0 if linear else spot, quotes)


def contract_of(name: str, expiry: int, strike: float, right: Right) -> Contract:
    """Terms of a contract by its recorded name: the unified one or Deribit's own (BTC-31JAN26-100000-C). Raises ValueError if neither."""
    unified = _UNIFIED.match(name)
    if unified:
        base, quote, settle = unified[1], unified[2], unified[3]
        coin = settle not in DOLLARS
        return Contract(name, base, settle if coin else quote, "USD" if coin else settle, expiry, strike, right)
    native = _NATIVE.match(name)
    if native is None:
        raise ValueError(f"not the name of an option contract: {name!r}")
    base, currency = native[1], native[2]
    day = datetime.fromtimestamp(expiry / 1000.0, UTC).strftime("%y%m%d")
    terms = f"{day}-{plain_number(strike)}-{right.value}"
    if currency:  # Deribit's linear options: BTC_USDC-...
        return Contract(f"{base}/{currency}:{currency}-{terms}", base, currency, currency, expiry, strike, right)
    return Contract(f"{base}/USD:{base}-{terms}", base, base, "USD", expiry, strike, right)


def plain_number(value: float) -> str:
    """100000.0 -> "100000", 0.525 -> "0.525": no exponent, no trailing zeros."""
    return format(Decimal(repr(value)).normalize(), "f")


def read_chains(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Checked columns of one chain file. Raises DataError with every fault found."""
    table = read_table(path)
    missing = [name for name in _REQUIRED if name not in table]
    if missing:
        raise fault(path, f"lacks {', '.join(missing)} (has {', '.join(table)})", f"chains need ts, {', '.join(_REQUIRED)}")
    ts: I64 = table["ts"]
    faults = time_faults(ts, repeats=True)
    strange = [name for name in sorted(set(map(str, table["instrument"].tolist()))) if not (_NATIVE.match(name) or _UNIFIED.match(name))]
    if strange:
        faults.append(f"option contract {strange[0]!r} is not understood ({len(strange)} names); write names like BTC-31JAN26-100000-C")
    for name in ("strike", "expiry_ts", "index_price", *NUMBERS):
        column = table[name]
        if column.dtype.kind not in "fiu":
            if not bool(np.all([value is None for value in column])):
                faults.append(f"{name} holds text; only plain numbers, empty where there is no quote")
            continue
        lowest = -np.inf if name == "delta" else 0.0
        bad = ~(column >= lowest) if name in ("strike", "expiry_ts", "index_price") else column < lowest
        if name in ("strike", "expiry_ts", "index_price"):
            bad |= column == 0.0
        if bool(np.any(bad)):
            row = int(np.argmax(bad))
            faults.append(f"row {row + 1} ({iso(int(ts[row]))}): {name} is {column[row]}; leave the row out, or the cell empty")
    if not faults:
        keys = np.unique(np.asarray(table["instrument"], dtype=np.str_), return_inverse=True)[1].astype(np.int64)
        order = np.lexsort((keys, ts))
        twice = np.flatnonzero((np.diff(ts[order]) == 0) & (np.diff(keys[order]) == 0))
        if len(twice):
            row = int(order[twice[0] + 1])
            name = table["instrument"][row]
            faults.append(f"row {row + 1} ({iso(int(ts[row]))}): {name} twice in one snapshot ({len(twice)} rows); keep one")
    if faults:
        raise DataError([f"{path.name}: {text}" for text in faults])
    return {name: table[name] for name in ("ts", *_REQUIRED)}


def merge_chains(files: list[tuple[Path, dict[str, npt.NDArray[Any]]]]) -> Chains:
    """One time line of snapshots from several files that `read_chains` has checked."""
    joined = {name: np.concatenate([table[name] for _, table in files]) for name in files[0][1]}
    names, first, codes = np.unique(np.asarray(joined["instrument"], dtype=np.str_), return_index=True, return_inverse=True)
    contracts = []
    for name, row in zip(names.tolist(), first.tolist(), strict=True):
        right = Right.CALL if str(joined["type"][row]).lower().startswith("c") else Right.PUT
        contracts.append(contract_of(name, int(joined["expiry_ts"][row]), float(joined["strike"][row]), right))
    bases = sorted({contract.base for contract in contracts})
    base_codes = np.array([bases.index(contract.base) for contract in contracts], dtype=np.int64)[codes]
    ts = joined["ts"]
    # the same snapshot in two files: the first file's row of each contract stays
    kept = np.sort(np.unique(np.stack([ts, codes.astype(np.int64)]), axis=1, return_index=True)[1])
    rows = kept[np.lexsort((base_codes[kept], ts[kept]))]
    edges = np.flatnonzero((np.diff(ts[rows], prepend=-1) != 0) | (np.diff(base_codes[rows], prepend=-1) != 0))
    starts = np.append(edges, len(rows)).astype(np.int64)
    index = np.asarray(joined["index_price"], dtype=np.float64)[rows]
    spots = np.array([np.median(index[begin:end]) for begin, end in pairwise(starts.tolist())])
    numbers = {name: np.asarray(joined[name], dtype=np.float64)[rows] for name in NUMBERS}
    return Chains(contracts, starts, ts[rows][edges], [bases[code] for code in base_codes[rows][edges].tolist()], spots,
                  codes[rows].astype(np.int32), numbers)
