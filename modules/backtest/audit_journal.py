"""Holds every cell of an exported run's tables against the journal that lies beside them, and that journal against its last hash.

What money adds up to is recounted elsewhere (audit). This finds what no sum would: a side, a symbol, a risk, a rate or a slippage that was
edited, a row that was dropped, moved or slipped in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from modules.backtest.export_run import FOLDER, HEAD, HEADERS, Row, tables_of
from modules.domain.errors import JournalCorrupt
from modules.domain.events import Fact, InstrumentListed
from modules.store import codec
from modules.store.journal import head_of

if TYPE_CHECKING:
    from modules.backtest.export_run import Run
    from modules.domain.instrument import Instrument

KEYS: Final[Mapping[str, str]] = {"instruments": "symbol"}
"""Table -> the column that names a row; every other table's rows are named by `seq`."""


def journal_faults(folder: Path, run: Run) -> list[str]:
    """What the tables of `run` say otherwise than the journal in FOLDER/run. Raises OSError and ValueError for what cannot be read."""
    target = folder / FOLDER
    try:
        facts = list(_facts(target / "journal.jsonl"))
    except JournalCorrupt as error:
        return [f"journal.jsonl: {error}"]
    faults = _chain(target, facts)
    listed: dict[str, Instrument] = {}
    tables = tables_of(_learning(facts, listed), listed)
    for name in HEADERS:
        faults += _differences(name, run.tables[name], tables[name])
    return faults


def _facts(path: Path) -> Iterator[tuple[int, Fact]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            seq, kind = int(row.pop("seq")), str(row.pop("kind"))
            yield seq, codec.decode(kind.encode(), json.dumps(row).encode(), seq)


def _learning(facts: Sequence[tuple[int, Fact]], listed: dict[str, Instrument]) -> Iterator[tuple[int, Fact]]:
    """The same facts; `listed` knows every instrument by the time a fact needs it."""
    for seq, fact in facts:
        if isinstance(fact, InstrumentListed):
            listed[fact.instrument.symbol] = fact.instrument
        yield seq, fact


def _chain(target: Path, facts: Sequence[tuple[int, Fact]]) -> list[str]:
    head = json.loads((target / HEAD).read_text(encoding="utf-8"))
    if [seq for seq, _ in facts] != list(range(1, int(head["rows"]) + 1)):
        return [f"journal.jsonl does not hold rows 1 to {head['rows']}, each once and in order"]
    found = head_of(fact for _, fact in facts)
    return [] if found == head["hash"] else [f"journal.jsonl was changed: its rows hash to {found[:12]}, {HEAD} says {head['hash'][:12]}"]


def _differences(name: str, stated: Sequence[Row], known: Sequence[Row]) -> Iterator[str]:
    key = KEYS.get(name, "seq")
    rows = {row[key]: row for row in known}
    seen: set[str] = set()
    for row in stated:
        named = f"{name}.csv, {key} {row[key]}"
        truth = rows.get(row[key])
        if truth is None or row[key] in seen:
            yield f"{named}: the journal has no such row" if truth is None else f"{named}: the row is there twice"
            continue
        seen.add(row[key])
        yield from (f"{named}: {column} is {row[column]!r}, the journal says {cell!r}"
                    for column, cell in truth.items() if row[column] != cell)
    yield from (f"{name}.csv: the row of {key} {missing} is missing" for missing in rows if missing not in seen)
