"""`drill CLASS`: every wire that trading depends on, tried once with the smallest orders there are, and a log of it kept.

Refuses while a daemon holds the account, while the funds switches or a HALT file forbid real orders, and real money without a
confirmation. The steps and the cleaning up are `venues/drill.py`; here are the account, the question and the log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import main
from modules import Logger_Config
from modules.cli import asking, inputs, market, permits
from modules.cli.choosing import Asking
from modules.cli.output import emit, money
from modules.domain.errors import ConfigurationError, NotFound, OperatorRefused, VenueError, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import Policies
from modules.domain.sessions import iso, parse_iso
from modules.domain.settings import Settings, VenueSettings
from modules.runtime.clock import WallClock
from modules.store.lock import StateFolder
from modules.venues import drill, drill_options, factory

if TYPE_CHECKING:
    from rich.console import Console

    from modules.venues.selection import Listing

FOLDER: Final = "drills"
LOG_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a drill runs: the venue with its settings, and whether that is real money."""

    name: str
    settings: VenueSettings
    place: str
    """emulator (loopback), testnet (practice accounts too) or production."""

    @property
    def endpoint(self) -> str:
        """Scheme, host and port where the settings say so, else what the place is called."""
        return self.settings.endpoint.rstrip("/") or self.place


def run(arguments: argparse.Namespace) -> int:
    settings, policies = inputs.settings_and_policies(arguments)
    asset_class = AssetClass(arguments.asset_class)
    ground = ground_of(settings, asset_class, testnet=arguments.testnet, key_file=arguments.key_file)
    Logger_Config.configure(None)
    if ground.place == factory.PRODUCTION:
        permits.demand(settings, policies, asset_class)
    if (settings.state_dir / "live" / "HALT").exists():
        raise OperatorRefused(f"{settings.state_dir / 'live' / 'HALT'} halts every class: nothing is sent while it is there")
    with ExitStack() as held:    # nobody else trades this account meanwhile
        if not arguments.testnet:
            held.enter_context(StateFolder(settings.state_dir / "live"))    # a service may have a folder for locks of its own
        market.lock_accounts(settings.model_copy(update={"venues": {ground.name: ground.settings}}), held)
        document = asyncio.run(_life(arguments, ground, asset_class, policies))
    document["file"] = str(_keep(settings.state_dir / FOLDER, document))
    emit(arguments, document, _show)
    return 0 if document["passed"] else 1


def ground_of(settings: Settings, asset_class: AssetClass, *, testnet: bool = False, key_file: Path | None = None) -> Ground:
    """The venue that trades a class, on its playground if asked for. Raises NotFound, ConfigurationError."""
    name, venue = permits.venue_of(settings, asset_class)
    if testnet and venue.endpoint:
        raise ConfigurationError([f"venues.{name}.endpoint = {venue.endpoint!r}: goes before --testnet; leave one of them out"])
    if testnet and factory.known(name).testnet is None:
        raise ConfigurationError([f"--testnet: {name} has none that is known here; without it the drill uses the real account"])
    changes: dict[str, Any] = {"testnet": True} if testnet else {}
    if key_file is not None:
        changes["key_file"] = key_file
    venue = venue.model_copy(update=changes)
    if faults := factory.faults(name, venue, trading=True):
        raise ConfigurationError(faults)
    return Ground(name, venue, factory.place_of(venue))


async def _life(arguments: argparse.Namespace, ground: Ground, asset_class: AssetClass, policies: Policies) -> dict[str, Any]:
    """Connect, choose the instrument, ask, drill. A signal to end ends the drill, and it cleans up all the same."""
    clock = WallClock()
    symbols = (arguments.symbol,) if arguments.symbol else await _traded(ground, policies, clock)
    venue = factory.connect(ground.name, ground.settings, clock=clock, policies=policies, trading=True, symbols=symbols,
                            split=lambda total: dict.fromkeys(ground.settings.classes, total))
    began = clock.now()
    try:
        made, symbol, settle, what = await _made(venue, asset_class, symbols, clock)
        if not arguments.confirm:
            ask(ground, what)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        outcome = await made.run()
    finally:
        await venue.close()
    return {
        "venue": ground.name, "asset_class": asset_class.value, "place": ground.place, "endpoint": ground.endpoint,
        "symbol": symbol, "began": iso(began), "ended": iso(clock.now()), "passed": outcome.passed,
        "cost": None if outcome.cost is None else format(outcome.cost, "f"), "currency": settle,
        "steps": [{"step": step.name, "ok": step.ok, "said": Logger_Config.redactor.text(step.said), "ms": step.ms}
                  for step in outcome.steps],
        "left": [Logger_Config.redactor.text(words) for words in outcome.left], "version": main.VERSION}


async def _traded(ground: Ground, policies: Policies, clock: WallClock) -> tuple[str, ...]:
    """What the daemon would trade there: by list, or by the settings' rule."""
    try:
        return (await Asking(ground.name, ground.settings, policies, clock).symbols()).symbols
    except VenueError as error:
        raise VenueUnreachable(f"the venue cannot be asked, so nothing was sent: {error}") from None


async def _made(venue: Any, asset_class: AssetClass, symbols: tuple[str, ...], clock: WallClock) -> tuple[drill.Drill, str, str, str]:
    """The drill, what it trades, in what it costs, and all of it in words."""
    if asset_class is not AssetClass.OPTION:
        instrument, what = await _chosen(venue, asset_class, symbols)
        return drill.Drill(venue, cast("Listing", venue), instrument, clock, _tell), instrument.symbol, instrument.settle, what
    try:
        await venue.instruments()
        pair = await drill_options.cheapest(venue, clock.now())
    except VenueError as error:
        raise VenueUnreachable(f"the venue cannot be asked, so nothing was sent: {error}") from None
    if pair is None:
        raise NotFound(f"no two neighboring options on {', '.join(symbols)} are quoted on both sides now")
    made = drill_options.OptionDrill(venue, cast("Listing", venue), pair, clock, _tell)
    return made, f"{pair.bought.symbol} against {pair.sold.symbol}", pair.bought.settle, drill_options.words(pair)


async def _chosen(venue: Any, asset_class: AssetClass, symbols: tuple[str, ...]) -> tuple[Instrument, str]:
    """The cheapest of the class's instruments among `symbols`, and what the drill would buy of it, in words."""
    try:
        listed = [one for one in await venue.instruments() if one.asset_class is asset_class and one.symbol in symbols]
        if not listed:
            raise NotFound(f"{symbols[0]} is no {asset_class.value} instrument there" if len(symbols) == 1 else
                           f"none of {', '.join(symbols)} is a {asset_class.value} instrument there: say --symbol")
        found = drill.cheapest(listed, await venue.statistics())
    except VenueError as error:
        raise VenueUnreachable(f"the venue cannot be asked, so nothing was sent: {error}") from None
    if found is None:
        raise NotFound("no instrument there has a sane quote now; is the market closed?")
    instrument, row = found
    bid = type(instrument.tick)(repr(row.bid))
    quantity = drill.quantity_for(instrument, bid)
    return instrument, f"buy and sell {quantity.normalize():f} {instrument.symbol}, about {money(instrument.notional(quantity, bid))} " \
                       f"{instrument.quote}; fees and spread are what it costs"


def ask(ground: Ground, what: str) -> None:
    """Raises OperatorRefused unless the person at the terminal types it out. Play money needs no yes; at an address on this machine one is
    asked all the same if somebody sits there, for who answers may be a tunnel to the real venue."""
    if ground.place == factory.PLAYGROUND:
        return
    if ground.place == factory.EMULATOR:
        words = f"{ground.endpoint} is on this machine, so it is taken for an emulator. The drill will {what}."
        if not asking.attended():
            print(words, file=sys.stderr)
        elif not asking.confirmed(words, "drill"):
            raise OperatorRefused("not confirmed; nothing was sent")
        return
    words = f"This is real money at {ground.name} ({ground.endpoint}). The drill will {what}."
    if not asking.attended():
        raise OperatorRefused(f"{words} Nobody is there to confirm it: say --confirm, or use --testnet")
    if not asking.confirmed(words, "drill"):
        raise OperatorRefused("not confirmed; nothing was sent")


def _tell(step: drill.Step) -> None:
    said = Logger_Config.redactor.text(step.said)
    print(f"{'ok  ' if step.ok else 'FAIL'} {step.name}: {said} ({step.ms} ms)", file=sys.stderr, flush=True)


def _keep(folder: Path, document: Mapping[str, Any]) -> Path:
    """The log, for its owner alone. It holds no key and no account number."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stamp = "".join(c for c in document["began"] if c.isdigit())
    path = folder / f"{document['venue']}-{document['asset_class']}-{stamp}.json"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=2) + "\n")
    return path


def kept(state_dir: Path, name: str, asset_class: AssetClass) -> list[dict[str, Any]]:
    """The logs of this venue and class, oldest first; a file that is no log is passed over."""
    found = []
    for path in sorted((state_dir / FOLDER).glob(f"{name}-{asset_class.value}-*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= LOG_BYTES_MAX else None
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(document, dict) and isinstance(document.get("passed"), bool) and _dated(document.get("began")) and isinstance(
                document.get("endpoint"), str):
            found.append(document | {"file": str(path)})
    return found


def _dated(moment: object) -> bool:
    try:
        return isinstance(moment, str) and parse_iso(moment) > 0
    except ValueError:
        return False


def _show(out: Console, document: Mapping[str, Any]) -> None:
    cost = "unknown" if document["cost"] is None else f"{money(document['cost'], 6)} {document['currency']}"
    out.print(f"{'PASSED' if document['passed'] else 'FAILED'} at {document['venue']} ({document['endpoint']}) on {document['symbol']}; "
              f"cost {cost}; log: {document['file']}", markup=False)
    for words in document["left"]:
        out.print(f"LEFT BEHIND: {words}", style="bold red", markup=False)
