"""`go-live CLASS`: the checklist before real money, each line ok or missing with the next command. Exit code 0 only when all are ok.

Sends test alerts and asks the venue, but places no order. The one thing it may change, on a clear yes and only once everything that can be
had without it is ok, is to switch the funds of this class on.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from modules.cli import alerts, asking, doctor, drill, inputs, permits
from modules.cli.output import emit
from modules.cli.questions import DECISIONS, JOURNAL
from modules.domain.errors import ConfigurationError, JournalUnwritable, NotFound, StateLocked
from modules.domain.events import Reconciled
from modules.domain.instrument import AssetClass
from modules.domain.money import text
from modules.domain.policies import Policies
from modules.domain.sessions import parse_iso
from modules.domain.settings import Settings
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.venues import factory

if TYPE_CHECKING:
    from rich.console import Console

OK: Final = "ok"
MISSING: Final = "missing"
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
TEST_WORDS: Final = "Test from go-live: if you read this, halts and fills will reach you here."
RUN: Final = "python main.py"
SETTINGS: Final = "correct the settings; docs/going-live.md has an example, new-config writes one"


POLICIES: Final = "correct that file; docs/configuration.md has every key and what is shipped"


@dataclass(frozen=True, slots=True)
class Line:
    what: str
    state: str
    said: str
    next: str = ""


def run(arguments: argparse.Namespace) -> int:
    asset_class = AssetClass(arguments.asset_class)
    lines: list[Line] = []
    try:
        try:
            settings, policies = inputs.settings_and_policies(arguments, mode="live")
        except ConfigurationError as error:    # good enough for paper, perhaps: then the other lines can be told all the same
            lines = [Line("settings", MISSING, fault, POLICIES if "_policy.json" in fault else SETTINGS) for fault in error.faults]
            settings, policies = inputs.settings_and_policies(arguments)
        venue, _ = permits.venue_of(settings, asset_class)
    except (ConfigurationError, NotFound) as error:
        lines = lines or [Line("settings", MISSING, str(error), SETTINGS)]
        return _said(arguments, asset_class, "", lines)
    at = WallClock().now()
    lines = lines or [Line("settings", OK, f"{asset_class.value} at {venue}")]
    asked = [Line("doctor", MISSING, "not asked while the settings do not fit live trading", f"{RUN} doctor")]
    lines += [_venue(venue, asset_class), *(_doctor(arguments, asset_class, venue) if lines[0].state == OK else asked),
              _paper(settings, policies, asset_class, venue), _certificate(settings, policies, asset_class, at)]
    lines += _alerts(arguments, settings)
    drilled = _drilled(settings, policies, asset_class, at)
    lines += [drilled, _switch(arguments, settings, policies, asset_class, at, [line for line in lines if line.state != OK], drilled),
              _ramp(settings, policies, asset_class, at)]
    return _said(arguments, asset_class, venue, lines)


def _said(arguments: argparse.Namespace, asset_class: AssetClass, venue: str, lines: list[Line]) -> int:
    ready = all(line.state == OK for line in lines)
    shown = [{"what": line.what, "state": line.state, "said": line.said, "next": _same(arguments, line.next)} for line in lines]
    emit(arguments, {"asset_class": asset_class.value, "venue": venue, "result": OK if ready else MISSING,
                     "start": _same(arguments, f"{RUN} trade"), "lines": shown}, _show)
    return 0 if ready else 1


def _same(arguments: argparse.Namespace, command: str) -> str:
    """The command with the settings files this one was given: without them it would speak of another daemon."""
    given = "".join(f" -c {shlex.quote(str(path))}" for path in arguments.config)
    return re.sub(rf"^{RUN} \S+", lambda found: found[0] + given, command)


def _show(out: Console, document: Mapping[str, Any]) -> None:
    from rich.text import Text

    for line in document["lines"]:
        shown = Text(f"{line['state']:<8}", style="green" if line["state"] == OK else "bold yellow")
        shown.append(f"{line['what']}: {line['said']}", style="default")
        if line["next"]:
            shown.append(f"\n         -> {line['next']}", style="default")
        out.print(shown)
    missing = sum(line["state"] != OK for line in document["lines"])
    out.print(f"{missing} still missing; nothing was switched on." if missing else
              f"All ok. Set mode = \"live\" and start it: {document['start']}. Watch the first trades; kill stops everything.",
              markup=False)


# -- the lines ------------------------------------------------------------------------------------------------------------------


def _venue(name: str, asset_class: AssetClass) -> Line:
    row = factory.known(name)
    if asset_class in row.paper_only:
        return Line("venue", MISSING, f"live trading of {asset_class.value} there is refused: {row.paper_only[asset_class]}",
                    f"{RUN} list-venues")
    if row.live:
        return Line("venue", OK, f"{name} has an adapter for live trading; docs/venues.md says what of it nobody has verified yet")
    return Line("venue", MISSING, f"live trading there is refused: {row.missing}", f"{RUN} list-venues")


def _doctor(arguments: argparse.Namespace, asset_class: AssetClass, venue: str) -> Iterator[Line]:
    """Whatever fails, and whatever of this venue could not be asked: not known to be good is not good enough for real money."""
    found = list(doctor.examine(arguments, mode="live", only=asset_class))
    needed = {f"venues.{venue} {what}" for what in ("reachable", "account", "clock")}
    bad = [one for one in found if one.state == doctor.FAIL or (one.state != doctor.OK and (
        one.what in needed or one.what == f"venues.{venue} {asset_class.value}"))]
    if not bad and (unheard := needed - {one.what for one in found}):
        bad = [doctor.Finding(what, doctor.WARN, "could not be asked") for what in sorted(unheard)]
    if not bad:
        yield Line("doctor", OK, f"{len(found)} findings, none that speaks against it")
    for one in bad:
        yield Line("doctor", MISSING, f"{one.what}: {one.said}", one.remedy or f"{RUN} doctor")


def _paper(settings: Settings, policies: Policies, asset_class: AssetClass, venue: str) -> Line:
    days = paper_days(settings, policies, asset_class, venue)
    wanted = policies.funds.paper_days_min
    said = f"{days} of {wanted} days of paper trading on {venue} (a day has bars in {policies.funds.paper_hours_min} hours or more)"
    return Line("paper", OK, said) if days >= wanted else Line("paper", MISSING, said, f"{RUN} trade --mode paper, and let it run")


def paper_days(settings: Settings, policies: Policies, asset_class: AssetClass, venue: str) -> int:
    """UTC days on which the paper daemon looked at this class's bars on this venue, from its journal and its decisions."""
    folder = settings.state_dir / "paper"
    if not (folder / JOURNAL).exists() or not (folder / DECISIONS).exists():
        return 0
    with Journal(folder / JOURNAL, read_only=True) as journal:
        since = min((fact.at for fact in journal.of(Reconciled) if isinstance(fact, Reconciled) and fact.venue == venue), default=None)
    if since is None:
        return 0
    decisions = Decisions(folder / DECISIONS)
    try:
        hours = decisions.hours()[asset_class]
    finally:
        decisions.close()
    days: dict[int, int] = {}
    for hour in hours:
        if hour >= since // HOUR_MS:
            days[hour // 24] = days.get(hour // 24, 0) + 1
    return sum(count >= policies.funds.paper_hours_min for count in days.values())


def _certificate(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> Line:
    good, bad = permits.certified(settings, policies, asset_class, at)
    if good:
        return Line("certificate", OK, "; ".join(good))
    return Line("certificate", MISSING, f"no strategy may trade {asset_class.value}" + (f" ({bad[0]})" if bad else ""),
                f"{RUN} validate --data DIR --classes {asset_class.value.lower()}")


def _alerts(arguments: argparse.Namespace, settings: Settings) -> Iterator[Line]:
    """A message is sent now. Without any channel the person says that they know."""
    for channel, trouble in (tried := alerts.test(settings, TEST_WORDS)):
        yield Line("alerts", MISSING, f"{channel}: {trouble}", "docs/telegram.md, docs/mqtt.md") if trouble else Line(
            "alerts", OK, f"{channel} took a test message; look whether it arrived")
    if tried:
        return
    words = "no alert channel: at three in the morning nobody will be told of a halt"
    known = arguments.no_alerts or (not arguments.json and asking.attended() and asking.confirmed(f"There is {words}. Go on without?"))
    if known:
        yield Line("alerts", OK, f"{words}; you said that you know")
    else:
        yield Line("alerts", MISSING, words, "set up [telegram] (docs/telegram.md), or say --no-alerts")


def _drilled(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> Line:
    """The newest drill on this venue, here or on its playground."""
    verb = f"{RUN} drill {asset_class.value.lower()}"
    try:
        ground = drill.ground_of(settings, asset_class)
    except ConfigurationError as error:
        return Line("drill", MISSING, error.faults[0], f"{RUN} list-venues")
    playground = factory.known(ground.name).testnet is not None and not ground.settings.endpoint
    next_ = f"{verb} --testnet" if playground and ground.place == factory.PRODUCTION else verb
    places = {ground.endpoint} | ({factory.PLAYGROUND} if playground else set())
    logs = [log for log in drill.kept(settings.state_dir, ground.name, asset_class) if log["endpoint"] in places]
    if not logs:
        return Line("drill", MISSING, f"none on record at {ground.name}", next_)
    last = logs[-1]
    days = (at - parse_iso(last["began"])) / DAY_MS
    said = f"{last['began'][:10]} at {last['endpoint']} on {last.get('symbol')}: {'passed' if last['passed'] else 'FAILED'}"
    if not last["passed"]:
        return Line("drill", MISSING, f"{said}; its log: {last['file']}", next_)
    if days > policies.funds.drill_days_max:
        return Line("drill", MISSING, f"{said}, {days:.0f} days ago; at most {policies.funds.drill_days_max} are believed", next_)
    return Line("drill", OK, said)


def _switch(arguments: argparse.Namespace, settings: Settings, policies: Policies, asset_class: AssetClass, at: int, missing: list[Line],
            drilled: Line) -> Line:
    """Both switches; asked for only when nothing else is missing, but a drill that needs them."""
    name = asset_class.value.lower()
    check = permits.switches(settings, policies).switch_check(asset_class)
    if check.passed:
        return Line("funds switch", OK, "master and class are on")
    said = f"{check.note}: no real order goes out"
    if missing:
        return Line("funds switch", MISSING, f"{said}; asked for when the other lines are ok", f"{RUN} go-live {name}")
    needed = "" if drilled.state == OK else " The drill on the real account needs it too."
    agreed = arguments.confirm or (not arguments.json and asking.attended() and asking.confirmed(
        f"Switch real funds on for {asset_class.value}? From the next live start the bot may spend what allocate gives it.{needed}"))
    if not agreed:
        return Line("funds switch", MISSING, said, f"{RUN} go-live {name} --confirm")
    try:
        permits.switch_on(settings, policies, asset_class, at)
    except (StateLocked, JournalUnwritable) as error:
        return Line("funds switch", MISSING, str(error), f"{RUN} funds on {name} --confirm")
    return Line("funds switch", OK, "switched on now, and put on record")


def _ramp(settings: Settings, policies: Policies, asset_class: AssetClass, at: int) -> Line:
    """Never missing: it is in force by itself. Said so that nobody is surprised by ten-dollar trades."""
    progress, sizing = permits.ramp(settings, policies, asset_class, at), policies.sizing
    if not progress.ramping:
        return Line("ramp", OK, f"{progress.note}: over, sizes are the policy's")
    return Line("ramp", OK, f"{progress.note}; until both are reached a trade is ${text(sizing.phase_1_notional)}, or one lot of at most "
                            f"{sizing.ramp_lot_equity_max:%} of equity")
