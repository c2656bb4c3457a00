"""Reads a CSV that somebody else wrote: which character separates, whether there is a header, what a time looks like, which way it runs.

Refuses what could mean two things (day and month, base or quote volume of another coin) instead of guessing.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_files import I64, Table, fault
from modules.backtest.recorded_names import Market

LOOKED_AT: Final = 40
"""Lines that decide how the file is written."""
SEPARATORS: Final = "\t;|,"
_NAMES: Final = {
    "ts": "ts", "timestamp": "ts", "unix": "ts", "unix_timestamp": "ts", "unixtime": "ts", "open_time": "ts", "opentime": "ts",
    "time_utc": "ts", "gmt_time": "ts", "datetime": "ts", "date_time": "ts", "utc": "ts", "date": "date", "day": "date", "time": "time",
    "open": "open", "o": "open", "open_price": "open", "high": "high", "h": "high", "low": "low", "l": "low",
    "close": "close", "c": "close", "close_price": "close", "last": "close",
    "volume": "volume", "vol": "volume", "v": "volume", "base_volume": "volume", "amount": "volume",
    "quote_volume": "quote_volume", "quote_asset_volume": "quote_volume", "volume_quote": "quote_volume", "turnover": "quote_volume",
    "tickvol": "ticks", "tick_volume": "ticks", "funding_rate": "funding_rate", "fundingrate": "funding_rate", "rate": "funding_rate",
    "last_funding_rate": "funding_rate", "calc_time": "ts", "funding_time": "ts", "bid": "bid", "ask": "ask", "open_bid": "open_bid",
    "open_ask": "open_ask", "symbol": "symbol",
    **{f"{side}_{price}": f"{side}_{price}" for side in ("bid", "ask") for price in ("open", "high", "low", "close")},
}
"""Headers, small letters and underscores, and what we call them."""
_HEADERLESS: Final = {
    5: ("ts", "open", "high", "low", "close"), 6: ("ts", "open", "high", "low", "close", "volume"),
    11: ("ts", "open", "high", "low", "close", "volume", "", "quote_volume", "", "", ""),
    12: ("ts", "open", "high", "low", "close", "volume", "", "quote_volume", "", "", "", ""),
}
_METATRADER: Final = ("date", "time", "open", "high", "low", "close", "volume")
_FORMATS: Final = (
    (re.compile(r"\d{4}\.\d{2}\.\d{2}[ T]\d{2}:\d{2}:\d{2}\.\d+"), "%Y.%m.%d %H:%M:%S.%f"),
    (re.compile(r"\d{4}\.\d{2}\.\d{2}[ T]\d{2}:\d{2}:\d{2}"), "%Y.%m.%d %H:%M:%S"),
    (re.compile(r"\d{4}\.\d{2}\.\d{2}[ T]\d{2}:\d{2}"), "%Y.%m.%d %H:%M"), (re.compile(r"\d{4}\.\d{2}\.\d{2}"), "%Y.%m.%d"),
    (re.compile(r"\d{4}/\d{2}/\d{2}[ T]\d{2}:\d{2}:\d{2}"), "%Y/%m/%d %H:%M:%S"),
    (re.compile(r"\d{4}/\d{2}/\d{2}[ T]\d{2}:\d{2}"), "%Y/%m/%d %H:%M"), (re.compile(r"\d{4}/\d{2}/\d{2}"), "%Y/%m/%d"),
    (re.compile(r"\d{8} \d{6}"), "%Y%m%d %H%M%S"), (re.compile(r"\d{8} \d{4}"), "%Y%m%d %H%M"),
    (re.compile(r"\d{8} \d{2}:\d{2}:\d{2}"), "%Y%m%d %H:%M:%S"), (re.compile(r"\d{8} \d{2}:\d{2}"), "%Y%m%d %H:%M"),
    (re.compile(r"(19|20)\d{2}[01]\d[0-3]\d"), "%Y%m%d"),
    (re.compile(r"\d{2}\.\d{2}\.\d{4} \d{2}:\d{2}:\d{2}\.\d+( GMT[+]0000)?"), "%d.%m.%Y %H:%M:%S.%f"),
    (re.compile(r"\d{2}\.\d{2}\.\d{4} \d{2}:\d{2}:\d{2}"), "%d.%m.%Y %H:%M:%S"),
)
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def read_text(path: Path, market: Market) -> Table:
    """Columns by our names, `ts` in UTC ms as the file has it, rows in the file's order. Raises DataError."""
    try:
        with _opened(path) as handle:
            lines = [line for _, line in zip(range(LOOKED_AT), handle, strict=False)]
        separator, first = _layout(path, lines)
        head = _cells(lines[first], separator)
        names = _header(path, head, market)
        start = first if names is None else first + 1
        names = names or _headerless(path, head)
        _check_rows(path, separator, len(names), start)
        return _columns(path, names, separator, start)
    except (OSError, EOFError, zlib.error) as error:
        raise fault(path, f"cannot be read ({type(error).__name__}: {error})", "copy or download it again") from error
    except UnicodeError as error:
        raise fault(path, f"is not text ({error})", "save it as UTF-8") from None


def _opened(path: Path) -> IO[str]:
    """As text, whichever of the usual ways it was saved in."""
    packed = path.name.lower().endswith(".gz")
    with gzip.open(path, "rb") if packed else path.open("rb") as raw:
        wide = raw.read(2) in (b"\xff\xfe", b"\xfe\xff")
    encoding = "utf-16" if wide else "utf-8-sig"
    return gzip.open(path, "rt", encoding=encoding) if packed else path.open(encoding=encoding)


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"').strip() for cell in line.split(separator)]


def _layout(path: Path, lines: Sequence[str]) -> tuple[str, int]:
    """The separator, and the first line that has as many cells as most: what is above is a title."""
    if not any(map(str.strip, lines)):
        raise fault(path, "is empty", "delete it or write it again")
    tail = lines[1:] or lines
    for enough in (4, 1):
        for separator in SEPARATORS:
            counts = [line.count(separator) for line in tail]
            usual = max(set(counts), key=counts.count)
            if usual >= enough:
                return separator, next(number for number, line in enumerate(lines) if line.count(separator) >= usual)
    raise fault(path, "row 1 has one column only", "separate the columns with commas")


def _check_rows(path: Path, separator: str, columns: int, start: int) -> None:
    """Every row has the header's number of cells; what a cut-off file ends with has not."""
    rows = 0
    with _opened(path) as handle:
        for number, line in enumerate(handle, 1):
            if number <= start or line.isspace():
                continue
            rows += 1
            if "\0" in line or (found := line.count(separator) + 1) != columns:
                what = "holds a zero byte" if "\0" in line else f"has {found} columns, not {columns}"
                raise fault(path, f"row {number} {what} (is the file cut off?)", "correct it or leave it out")
    if not rows:
        raise fault(path, "holds no rows", "delete it or write it again")


def _header(path: Path, head: Sequence[str], market: Market) -> list[str] | None:
    """Our name of each column ("" = not needed); None if the line is data."""
    if _is_time(head[0]) and any(_NUMBER.fullmatch(cell) for cell in head[1:]):
        return None
    said = [re.sub(r"[^a-z0-9]+", "_", cell.lower()).strip("_") for cell in head]
    base, quote = market.base.lower(), market.quote.lower()
    own = {f"volume_{base}": "volume", f"volume_{quote}": "quote_volume", f"{base}_volume": "volume", f"{quote}_volume": "quote_volume"}
    names = [own.get(name, _NAMES.get(name, "")) for name in said]
    if "ts" in names and ("date" in names or "time" in names):
        names = ["" if name in ("date", "time") else name for name in names]
    elif "ts" not in names and "date" not in names and names.count("time") == 1:
        names[names.index("time")] = "ts"
    elif "date" in names and "time" not in names:
        names[names.index("date")] = "ts"
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise fault(path, f"row 1 has more than one column for {', '.join(twice)} ({', '.join(head)})", "leave one of each")
    if "ts" not in names and "date" not in names:
        raise fault(path, f"row 1 names no time column ({', '.join(head)})", "name one ts, timestamp, open_time or date")
    return names


def _headerless(path: Path, head: Sequence[str]) -> list[str]:
    if len(head) == 7 and re.fullmatch(r"\d{4}\.?\d{2}\.?\d{2}", head[0]) and re.fullmatch(r"\d{2}:?\d{2}(:?\d{2})?", head[1]):
        return list(_METATRADER)
    names = _HEADERLESS.get(len(head))
    if names is None:
        raise fault(path, f"row 1 has {len(head)} columns and no header", "add a first line: ts,open,high,low,close,volume")
    return list(names)


def _is_time(cell: str) -> bool:
    return any((_NUMBER.fullmatch(cell), re.match(r"\d{2,4}[-./]\d{2}[-./]\d{2}", cell), re.fullmatch(r"\d{8} \d{4,6}", cell)))


def _columns(path: Path, names: Sequence[str], separator: str, start: int) -> Table:
    import pandas as pd

    wanted = [place for place, name in enumerate(names) if name not in ("", "symbol", "ticks")]
    dated = {place: str for place in wanted if names[place] in ("ts", "date", "time")}
    try:
        with _opened(path) as handle:
            frame = pd.read_csv(handle, sep=separator, header=None, skiprows=start, usecols=wanted, dtype=dated, low_memory=False,
                                na_values=["None", "none", "Null"], skipinitialspace=True)
    except pd.errors.ParserError as error:
        raise fault(path, f"cannot be read ({error})", "no line breaks or separators inside of cells") from None
    cells = {names[place]: frame[place] for place in wanted}
    times = cells.pop("ts") if "ts" in cells else cells["date"].str.cat(cells["time"], sep=" ") if "time" in cells else cells["date"]
    table: Table = {"ts": _times(path, times.fillna("").str.strip(), start)}
    return table | {name: _numbers(path, name, column, start) for name, column in cells.items() if name not in ("date", "time")}


def _numbers(path: Path, name: str, column: Any, start: int) -> npt.NDArray[np.float64]:
    """Empty and "nan" are unknown; a comma instead of a point is refused with its row."""
    import pandas as pd

    numbers = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    wrong = np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy())
    if len(wrong):
        row = int(wrong[0])
        raise fault(path, f"row {start + row + 1}: {name} is {str(column.iloc[row])[:30]!r}, which is no number",
                    "correct it or leave the row out; numbers have a decimal point")
    return numbers


def _times(path: Path, texts: Any, start: int) -> I64:
    """UTC ms of a column of texts. Without a zone times count as UTC."""
    import pandas as pd

    sample = str(texts.iloc[0])
    if _NUMBER.fullmatch(sample) and not any(pattern.fullmatch(sample) for pattern, _ in _FORMATS):
        return _units(path, _numbers(path, "time", texts.mask(texts == ""), start), start)
    form = next((written for pattern, written in _FORMATS if pattern.fullmatch(sample)), "ISO8601")
    if form != "ISO8601":
        texts = texts.str.replace(" GMT+0000", "", regex=False).str.replace("T", " ", regex=False)
    times = pd.to_datetime(texts, utc=True, format=form, errors="coerce")
    wrong = np.flatnonzero(times.isna().to_numpy())
    if len(wrong):
        row = int(wrong[0])
        raise fault(path, f"row {start + row + 1}: its time {str(texts.iloc[row])[:30]!r} cannot be read",
                    "write ISO times in UTC (2024-01-31 14:00) or UTC milliseconds")
    return np.asarray(times.dt.as_unit("ms").astype("int64").to_numpy(), dtype=np.int64)


def _units(path: Path, numbers: npt.NDArray[np.float64], start: int) -> I64:
    """Seconds, ms, us or ns, told apart by size, each row by itself: exchanges changed their unit in the middle of a year."""
    absent = np.flatnonzero(np.isnan(numbers))
    if len(absent):
        raise fault(path, f"row {start + int(absent[0]) + 1} has no time (is the file cut off?)", "every row needs its time")
    size = np.abs(numbers)
    scaled = np.where(size < 1e11, numbers * 1e3, np.where(size < 1e14, numbers, np.where(size < 1e17, numbers / 1e3, numbers / 1e6)))
    return np.asarray(np.round(scaled), dtype=np.int64)
