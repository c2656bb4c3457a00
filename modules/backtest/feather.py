"""Reads feather files (version 2: Arrow's file format), as pandas and freqtrade write them, without Arrow's own library.

Knows flat columns of numbers and times, plain or compressed by LZ4 or Zstandard; columns of text are passed over. Refuses everything else,
and every file whose parts do not fit together, naming what it met. Format: arrow.apache.org/docs/format/Columnar.html.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from modules.backtest.recorded_files import Table, fault

MAGIC: Final = b"ARROW1"
OLD_MAGIC: Final = b"FEA1"
BYTES_MAX: Final = 4 << 30
AGAIN: Final = "write it again (pandas.read_feather and to_feather), or convert it to CSV"
_RECORD_BATCH: Final = 3
_CODECS: Final = {0: "lz4", 1: "zstd"}
_TIME_UNITS: Final = ("s", "ms", "us", "ns")
_FLAT: Final = {4: 3, 5: 3, 6: 2, 8: 2, 9: 2, 18: 2, 19: 3, 20: 3}
"""Other flat types (text, bytes, bool, date, time, duration): how many buffers of a batch each takes."""


class _Column(NamedTuple):
    name: str
    dtype: str
    """numpy's; "" = passed over."""
    buffers: int


class _View:
    """A flatbuffers table at `at` of `data`. Out-of-range reads raise struct.error, ValueError or IndexError."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self._vtable = at - self._read("<i", at)
        self._size = self._read("<H", self._vtable)

    def _read(self, form: str, at: int) -> Any:
        if at < 0:
            raise ValueError("a place before the beginning")
        return struct.unpack_from(form, self.data, at)[0]

    def field(self, number: int) -> int | None:
        """Where field `number` lies; None if it has its default."""
        slot = 4 + 2 * number
        offset: int = self._read("<H", self._vtable + slot) if slot + 2 <= self._size else 0
        return self.at + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        at = self.field(field)
        return default if at is None else int(self._read(form, at))

    def table(self, field: int) -> _View | None:
        at = self.field(field)
        return None if at is None else _View(self.data, at + self._read("<I", at))

    def vector(self, field: int) -> tuple[int, int]:
        """Where its elements begin, and how many there are."""
        at = self.field(field)
        if at is None:
            return 0, 0
        start = at + self._read("<I", at)
        return start + 4, self._read("<I", start)

    def text(self, field: int) -> str:
        start, length = self.vector(field)
        return self.data[start:start + length].decode("utf-8")

    def tables(self, field: int) -> list[_View]:
        start, length = self.vector(field)
        return [_View(self.data, at + self._read("<I", at)) for at in range(start, start + 4 * length, 4)]


def read_feather(path: Path) -> Table:
    """Its columns of numbers; times as UTC ms in int64. Raises DataError."""
    from cramjam import DecompressionError

    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= BYTES_MAX else b""
        if not data:
            raise fault(path, "is empty" if not size else "is larger than 4 GB", "download it again" if not size else "split it")
        if data[:4] == OLD_MAGIC:
            raise fault(path, "is feather of version 1", AGAIN)
        if data[:6] != MAGIC or data[-6:] != MAGIC or len(data) < 24:
            raise fault(path, "is cut off or not feather (no ARROW1 mark at both ends)", "copy or download it again")
        return _table(path, data)
    except (OSError, struct.error, ValueError, TypeError, LookupError, OverflowError, MemoryError, DecompressionError) as error:
        raise fault(path, f"cannot be read: it is damaged ({type(error).__name__}: {error})", "copy or download it again") from error


def _table(path: Path, data: bytes) -> Table:
    length = struct.unpack_from("<i", data, len(data) - 10)[0]
    start = len(data) - 10 - length
    if length <= 0 or start < 8:
        raise ValueError("its footer does not fit")
    footer = _View(data, start + struct.unpack_from("<I", data, start)[0])
    schema = footer.table(1)
    if schema is None or schema.number(0, "<h") != 0:
        raise ValueError("no schema of this kind of machine")
    columns = [_column(path, field) for field in schema.tables(1)]
    parts: dict[str, list[npt.NDArray[Any]]] = {column.name: [] for column in columns if column.dtype}
    if len(columns) != len({column.name for column in columns}):
        raise fault(path, "names a column twice", AGAIN)
    first, count = footer.vector(3)
    for at in range(first, first + 24 * count, 24):
        offset, described, body = struct.unpack_from("<qi4xq", data, at)
        if min(offset, described, body) < 0 or offset + described + body > start:
            raise ValueError("a batch lies outside the file")
        for name, values in _batch(data, columns, offset, offset + described, body).items():
            parts[name].append(values)
    return {name.strip().lower(): np.concatenate(found) if found else np.zeros(0) for name, found in parts.items()}


def _column(path: Path, field: _View) -> _Column:
    name, kind, detail = field.text(0), field.number(2, "<B"), field.table(3)
    if detail is None or field.table(4) is not None or (kind not in (2, 3, 10) and kind not in _FLAT):
        raise fault(path, f"column {name!r} is of a kind that is not read here ({kind})", AGAIN)
    if kind == 2:
        return _Column(name, f"<{'i' if detail.number(1, '<B') else 'u'}{detail.number(0, '<i') // 8}", 2)
    if kind == 3:
        return _Column(name, ("<f2", "<f4", "<f8")[detail.number(0, "<h")], 2)
    if kind == 10:
        return _Column(name, f"<M8[{_TIME_UNITS[detail.number(0, '<h')]}]", 2)
    return _Column(name, "", _FLAT[kind])


def _batch(data: bytes, columns: list[_Column], message_at: int, body_at: int, body: int) -> dict[str, npt.NDArray[Any]]:
    """One record batch's columns."""
    prefix = 8 if data[message_at:message_at + 4] == b"\xff\xff\xff\xff" else 4
    root = message_at + prefix
    message = _View(data, root + struct.unpack_from("<I", data, root)[0])
    batch = message.table(2)
    if message.number(1, "<B") != _RECORD_BATCH or batch is None:
        raise ValueError("a batch that is none")
    rows = batch.number(0, "<q")
    compression = batch.table(3)
    codec = None if compression is None else _CODECS[compression.number(0, "<b")]
    nodes, node_count = batch.vector(1)
    buffers, buffer_count = batch.vector(2)
    if node_count != len(columns) or buffer_count != sum(column.buffers for column in columns) or rows < 0:
        raise ValueError("a batch does not hold what the schema says")
    found: dict[str, npt.NDArray[Any]] = {}
    place = buffers
    for number, column in enumerate(columns):
        length, nulls = struct.unpack_from("<qq", data, nodes + 16 * number)
        if length != rows:
            raise ValueError(f"column {column.name!r} has another length")
        if column.dtype:
            valid, values = (_buffer(data, place + 16 * index, body_at, body, codec, rows) for index in (0, 1))
            found[column.name] = _values(column, rows, nulls, valid, values)
        place += 16 * column.buffers
    return found


def _buffer(data: bytes, at: int, body_at: int, body: int, codec: str | None, rows: int) -> bytes:
    offset, length = struct.unpack_from("<qq", data, at)
    if offset < 0 or length < 0 or offset + length > body:
        raise ValueError("a buffer lies outside its batch")
    raw = data[body_at + offset:body_at + offset + length]
    if codec is None or not raw:
        return raw
    size = struct.unpack_from("<q", raw, 0)[0]
    if size == -1:  # it did not become smaller
        return raw[8:]
    if not 0 <= size <= min(BYTES_MAX, 8 * rows + 128):  # eight bytes a value at most, and padding
        raise ValueError("a buffer of impossible size")
    import cramjam

    opened = bytes(getattr(cramjam, codec).decompress(raw[8:], output_len=size))
    if len(opened) != size:
        raise ValueError("a buffer is shorter than it says")
    return opened


def _values(column: _Column, rows: int, nulls: int, valid: bytes, values: bytes) -> npt.NDArray[Any]:
    dtype = np.dtype(column.dtype)
    found: npt.NDArray[Any] = np.frombuffer(values, dtype=dtype, count=rows)
    time = dtype.kind == "M"
    if time:
        found = found.astype("M8[ms]").astype(np.int64)
    if not nulls:
        return found
    there = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), count=rows, bitorder="little").astype(bool)
    if time and not bool(there.all()):
        raise ValueError(f"row {int(np.flatnonzero(~there)[0]) + 1} has no time")
    return np.where(there, found.astype(np.float64), np.nan) if not time else found
