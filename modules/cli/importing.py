"""`import-data`: files of freqtrade and CSVs of anybody as files that replay and validate read, with every fault by file and row."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modules.backtest.archive_folder import ArchiveFolder
from modules.backtest.gaps import Recorded, holes
from modules.backtest.importing import Taken, take
from modules.backtest.importing_names import Passed, survey
from modules.cli.output import emit, table
from modules.domain.errors import ConfigurationError, DataError, NotFound
from modules.domain.sessions import iso
from modules.venues.archive import Kind

if TYPE_CHECKING:
    from rich.console import Console


def run(arguments: argparse.Namespace) -> int:
    found = list(survey(arguments.source, venue=arguments.venue, symbol=arguments.symbol, timeframe=arguments.timeframe))
    if not found:
        raise NotFound(f"{arguments.source}: holds no feather, JSON, parquet or CSV file")
    if arguments.out.resolve() == arguments.source.resolve():
        raise ConfigurationError([f"--out {arguments.out}: is the source; name another folder"])
    taken: list[Taken] = []
    passed: list[Passed] = []
    faults: list[tuple[str, str]] = []
    with ArchiveFolder(arguments.out) as folder:
        for one in found:
            if isinstance(one, Passed):
                if one.fault:
                    faults.append((str(one.path), f"{one.path.name}: {one.reason}"))
                else:
                    passed.append(one)
                continue
            try:
                taken.append(take(one, folder))
            except DataError as error:
                faults += [(str(one.path), fault) for fault in error.faults]
            except ConfigurationError as error:
                passed += [Passed(one.path, fault) for fault in error.faults]
        document = {"folder": str(arguments.out), "files": [_taken(one) for one in taken],
                    "left_alone": [{"file": str(one.path), "reason": one.reason} for one in passed],
                    "faults": [{"file": path, "fault": fault} for path, fault in faults]}
    emit(arguments, document, show)
    return 1 if faults or not taken else 0


def _taken(one: Taken) -> dict[str, Any]:
    merged = one.merged
    gaps = holes(Recorded(one.file.times(), one.interval_ms, one.source.market.asset_class)) if one.source.kind is Kind.BARS else []
    return {"source": str(one.source.path), "file": one.file.path.name, "symbol": one.source.market.symbol, "kind": one.source.kind.value,
            "rows": one.rows, "new_rows": merged.fresh, "rows_now": merged.rows,
            "first": None if merged.first is None else iso(merged.first), "last": None if merged.last is None else iso(merged.last),
            "gaps": len(gaps), "missing": sum(hole.bars for hole in gaps),
            "notes": list(one.notes)}


def show(out: Console, document: Mapping[str, Any]) -> None:
    if document["files"]:
        out.print(table(f"in {document['folder']}", ("file", "from", ">rows", ">new", "first", "last", ">missing", "notes"), (
            (one["file"], one["source"], f"{one['rows']:,}", f"{one['new_rows']:,}", (one["first"] or "-")[:16], (one["last"] or "-")[:16],
             f"{one['missing']:,}" if one["kind"] == Kind.BARS else "", "; ".join(one["notes"])) for one in document["files"])))
    for one in document["left_alone"]:
        out.print(f"left alone: {one['file']}: {one['reason']}", markup=False)
    for one in document["faults"]:
        out.print(f"NOT IMPORTED: {one['fault']}", markup=False)
    if document["files"]:
        out.print(f"replay it: python main.py replay --data {document['folder']}", markup=False)
