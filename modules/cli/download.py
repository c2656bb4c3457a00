"""`download-data`: a venue's past as files that replay and validate read. Interrupt it whenever you like: run again, it goes on.

Refuses symbols the venue does not list and what replay could not read, before the first candle is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modules import Logger_Config
from modules.backtest.archive_folder import ArchiveFolder
from modules.backtest.downloading import Fetched, Job, fetch, patiently, plan
from modules.backtest.gaps import Hole, Recorded, holes, outages
from modules.backtest.recorded_names import interval_of
from modules.cli import inputs
from modules.cli.output import emit, table
from modules.domain import sessions
from modules.domain.errors import ConfigurationError, NotFound
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import Policies
from modules.domain.sessions import iso
from modules.domain.settings import Settings, VenueSettings
from modules.runtime.clock import WallClock
from modules.venues.archive import Archive, Kind
from modules.venues.selection import Listing, symbols_for

if TYPE_CHECKING:
    from rich.console import Console

SETTLED_MS: Final = 10_000
"""A bar may still change for a moment after it closed."""
HOLES_SHOWN: Final = 10
STEPS: Final = 1_000
FOLDER: Final = Path("data")


def run(arguments: argparse.Namespace) -> int:
    settings, policies = inputs.settings_and_policies(arguments)
    Logger_Config.configure(None)
    clock = WallClock()
    since, until = _instant(arguments.since, "--since"), clock.now() - SETTLED_MS
    if arguments.until is not None:
        until = min(until, _instant(arguments.until, "--until"))
    if since >= until:
        raise ConfigurationError([f"--since {iso(since)[:16]} is not before {iso(until)[:16]}, where the download ends"])
    try:
        document = asyncio.run(_run(arguments, settings, policies, clock, since, until))
    except KeyboardInterrupt:
        print("what came is kept; the same command goes on where it was", file=sys.stderr)
        raise
    emit(arguments, document, show)
    return 0 if document["complete"] else 1


def _instant(text: str, option: str) -> int:
    try:
        return inputs.timerange(f"{text}-")[0] or 0
    except ConfigurationError:
        raise ConfigurationError([f"{option} {text!r}: write 20240131, 2024-01-31 or a UTC timestamp in s or ms"]) from None


def venue_settings(settings: Settings, name: str, symbols: Sequence[str], timeframe: str) -> VenueSettings:
    """The configured section of that name, else one that market data needs no more of; with the classes that `symbols` need."""
    from modules.venues import factory

    classes = tuple(dict.fromkeys(map(_class_of, symbols))) if name != "oanda" else (AssetClass.FOREX,)
    found = settings.venues.get(name)
    base = found if found is not None else VenueSettings(classes=classes or factory.known(name).classes)
    changes = {"allocate": {}, "classes": classes or base.classes, "timeframe": timeframe}
    try:
        return VenueSettings.model_validate(base.model_dump() | changes)
    except ValueError as error:
        raise ConfigurationError([f"--timeframe {timeframe}: {error}"]) from None


def _class_of(symbol: str) -> AssetClass:
    return AssetClass.PERP if ":" in symbol else AssetClass.SPOT


def connected(name: str, settings: VenueSettings, policies: Policies, clock: WallClock, symbols: Sequence[str]) -> tuple[Listing, Archive]:
    """A venue's present and its past, over one connection: closing the archive closes both. Raises ConfigurationError. Imports ccxt for
    all but OANDA."""
    from modules.venues import factory
    from modules.venues.ccxt_venue import CcxtVenue
    from modules.venues.oanda_venue import OandaVenue

    venue = factory.connect(name, settings, clock=clock, policies=policies, trading=False, symbols=symbols)
    if isinstance(venue, OandaVenue):
        from modules.venues.oanda_archive import OandaArchive

        return venue, OandaArchive(venue)
    if isinstance(venue, CcxtVenue):
        from modules.venues.ccxt_archive import CcxtArchive

        return venue, CcxtArchive(venue)
    raise ConfigurationError([f"--venue {name}: has no history to download"])


async def _run(arguments: argparse.Namespace, settings: Settings, policies: Policies, clock: WallClock, since: int, until: int,
               ) -> dict[str, Any]:
    from modules.venues import factory

    length = interval_of(arguments.timeframe)
    if length is None:
        raise ConfigurationError([f"--timeframe {arguments.timeframe!r}: write 1m, 5m, 1h, 1d"])
    name, symbols = arguments.venue, arguments.symbols or ()
    here = venue_settings(settings, name, symbols, arguments.timeframe)
    listing, archive = connected(name, here, policies, clock, symbols)
    folder_path = arguments.out if arguments.out is not None else FOLDER / name
    began = clock.now()
    try:
        with ArchiveFolder(folder_path) as folder:
            offered = await patiently(archive.offered, name, clock, _say)
            symbols = symbols or (await symbols_for(listing, here, (), now=clock.now(), usual=factory.symbols_of(name, here))).symbols
            instruments = _chosen(name, symbols, offered, policies)
            folder.check_venue(name, instruments)
            kinds = [Kind.BARS, *([Kind.MARK] if arguments.mark else []), *([Kind.FUNDING] if arguments.funding else []), Kind.FINANCING]
            jobs, untold = plan(folder, archive, instruments, length, since, until, kinds)
            if without := [line for line in untold if f"no {Kind.BARS.value} " in line]:
                raise ConfigurationError([f"--timeframe {arguments.timeframe}: {line}" for line in without])
            folder.list_instruments(instruments)
            with _progress(jobs) as (say, advance):
                done = await fetch(archive, jobs, clock, say=say, advance=advance, assume_financing=arguments.assume_financing)
            document = report(name, folder_path, arguments.timeframe, done, untold)
    finally:
        await archive.close()
    return document | {"wall_s": round((clock.now() - began) / 1000.0, 1)}


def _chosen(name: str, symbols: Sequence[str], offered: Sequence[Instrument], policies: Policies) -> list[Instrument]:
    """What is asked for, with the venue's own rules; where it is silent about maintenance margin, the cost policy's."""
    rules = {one.symbol: one for one in offered}
    faults = []
    for symbol in symbols:
        if symbol not in rules:
            near = difflib.get_close_matches(symbol, rules, 1)
            faults.append(f"{symbol}: {name} does not list it" + (f"; did you mean {near[0]}?" if near else ""))
    if faults:
        raise NotFound("\n".join(faults))
    return [replace(rules[symbol], maintenance_margin=max(rules[symbol].maintenance_margin,
                                                          policies.costs.of(rules[symbol].asset_class).maintenance_margin))
            for symbol in symbols]


# -- the report ------------------------------------------------------------------------------------------------------------


def report(name: str, folder: Path, timeframe: str, done: Sequence[Fetched], untold: Sequence[str]) -> dict[str, Any]:
    """What is in the folder now, and every hole of it by name."""
    recorded = {str(one.job.instrument.symbol): Recorded(one.job.file.times(), one.job.interval_ms, one.job.instrument.asset_class)
                for one in done if one.job.kind is Kind.BARS}
    gaps = {symbol: holes(series) for symbol, series in recorded.items()}
    rows = [_series(one, gaps.get(one.job.instrument.symbol, []) if one.job.kind is Kind.BARS else []) for one in done]
    notes = [*untold, *_notes(name, done)]
    return {"venue": name, "folder": str(folder), "timeframe": timeframe, "complete": not any(one.failed for one in done), "series": rows,
            "outages": [_hole(hole) | {"series": list(names)} for hole, names in outages(recorded, gaps)], "notes": notes}


def _series(one: Fetched, gaps: Sequence[Hole]) -> dict[str, Any]:
    merged = one.merged
    return {"file": one.job.file.path.name, "symbol": one.job.instrument.symbol, "kind": one.job.kind.value, "rows": merged.rows,
            "new_rows": merged.fresh, "first": None if merged.first is None else iso(merged.first),
            "last": None if merged.last is None else iso(merged.last), "missing": sum(hole.bars for hole in gaps),
            "gaps": [_hole(hole) for hole in gaps], "refused": one.refused, "differing": merged.differing,
            "failed": None if one.failed is None else str(one.failed)}


def _hole(hole: Hole) -> dict[str, Any]:
    return {"from": iso(hole.since), "until": iso(hole.until), "bars": hole.bars}


def _notes(name: str, done: Sequence[Fetched]) -> Iterator[str]:
    for one in done:
        symbol, merged = one.job.instrument.symbol, one.merged
        if one.job.kind is Kind.BARS and merged.first is not None and merged.first > one.job.since + 7 * sessions.DAY:
            yield f"{symbol}: nothing before {iso(merged.first)[:10]}: {name} has or keeps no older bars of this length"
        if one.job.kind is Kind.BARS and merged.first is None and one.failed is None:
            yield f"{symbol}: {name} has no bars at all of that time"
        if one.refused:
            yield f"{symbol} {one.job.kind}: {one.refused} rows the venue told cannot be, and were left out"
        if merged.differing:
            yield f"{symbol} {one.job.kind}: {merged.differing} rows are told differently now; what was recorded first stays"
        if one.assumed:
            yield f"{symbol}: interest before today is today's, as --assume-financing asks: what holding it really cost then is not known"
    if forex := [one.merged.first or one.job.until for one in done if one.job.kind is Kind.FINANCING and not one.assumed]:
        yield (f"interest of {len(forex)} pairs is known from {iso(min(forex))[:10]} on: {name} tells no past, so replay denies earlier "
               "entries (CARRY_ABOVE_MAXIMUM); add a file of interest rates (docs/replay.md) or --assume-financing")


def show(out: Console, document: Mapping[str, Any]) -> None:
    out.print(table(f"{document['venue']} in {document['folder']}", ("series", ">rows", ">new", "first", "last", ">missing", ">gaps"), (
        (one["file"], f"{one['rows']:,}", f"{one['new_rows']:,}", (one["first"] or "-")[:16], (one["last"] or "-")[:16],
         f"{one['missing']:,}" if one["kind"] == Kind.BARS else "", f"{len(one['gaps']):,}" if one["kind"] == Kind.BARS else "")
        for one in document["series"])))
    for outage in document["outages"][:HOLES_SHOWN]:
        out.print(f"outage of {document['venue']}: {outage['from'][:16]} to {outage['until'][:16]}, all {len(outage['series'])} series",
                  markup=False)
    common = {(outage["from"], outage["until"]) for outage in document["outages"]}
    own = sorted(((hole["bars"], one["symbol"], hole) for one in document["series"] for hole in one["gaps"]
                  if (hole["from"], hole["until"]) not in common), key=lambda found: (-found[0], found[1], found[2]["from"]))
    for bars, symbol, hole in own[:HOLES_SHOWN]:
        out.print(f"hole in {symbol}: {hole['from'][:16]} to {hole['until'][:16]}, {bars:,} bars", markup=False)
    if len(own) > HOLES_SHOWN:
        out.print(f"and {len(own) - HOLES_SHOWN:,} shorter holes (--json names all)", markup=False)
    for note in document["notes"]:
        out.print(f"note: {note}", markup=False)
    for one in document["series"]:
        if one["failed"] is not None:
            out.print(f"NOT COMPLETE: {one['file']}: {one['failed']}", markup=False)
    if document["complete"]:
        out.print(f"replay it: python main.py replay --data {document['folder']} --timeframe {document['timeframe']}", markup=False)
    else:
        out.print("Run the same command again: it goes on where it was.", markup=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def _progress(jobs: Sequence[Job]) -> Iterator[tuple[Callable[[str], None], Callable[[Job, int], None]]]:
    """A bar on stderr over the time that is asked for; without a terminal, what is worth a word as a line of its own."""
    if not sys.stderr.isatty():
        yield _say, lambda job, at: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn(),
                  console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=STEPS * len(jobs))
        reached: dict[Job, float] = {}

        def advance(job: Job, at: int) -> None:
            reached[job] = STEPS * min(1.0, (at - job.since) / max(1, job.until - job.since))
            progress.update(task, completed=sum(reached.values()), description=f"{job.instrument.symbol} {job.kind} {iso(at)[:10]}")

        yield lambda text: progress.console.print(text, markup=False, style="yellow"), advance
