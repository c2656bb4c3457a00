"""`go-live`: nothing counts but what is proven, nothing is switched on without a yes, and each missing line names the next command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.backtest.trial_anchor import file_of
from modules.backtest.trials import TrialRegistry
from modules.cli import inputs, permits
from modules.cli.app import run
from modules.cli.arguments import parse
from modules.domain.certificate import save
from modules.domain.events import DaemonStarted, Reconciled, Scope, SwitchChanged, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.sessions import iso
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.journal import Journal
from modules.store.lock import StateFolder
from tests import venue_threads
from tests.certificates import certificate
from tests.daemon_process import ROOT
from tests.emulators.bybit import BybitEmulator
from tests.emulators.telegram import TOKEN, bot_api
from tests.test_mqtt import a_broker, needs_broker

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
NOW = WallClock().now()
SPOT = AssetClass.SPOT


class World:
    """A folder with live settings at an emulated Bybit, and the parts of a person's proof one by one."""

    def __init__(self, folder: Path, venue: BybitEmulator) -> None:
        self.folder, self.venue = folder, venue
        venue_threads.bybit_settings(folder, venue, 'allocate = { SPOT = "500" }', classes='"SPOT"')
        path = folder / "config.toml"
        path.write_text(path.read_text().replace(', "BTC/USDT:USDT"', ""))

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def paper(self, days: int = 7, hours: int = 24, venue: str = "bybit") -> None:
        (self.state / "paper").mkdir(parents=True, exist_ok=True)
        first = (NOW // DAY_MS - days - 1) * DAY_MS
        with Journal(self.state / "paper" / "journal.sqlite") as journal:
            journal.append(Reconciled(first, venue, 0))
        decisions = Decisions(self.state / "paper" / "decisions.sqlite")
        for day in range(days):
            for hour in range(hours):
                decisions.count_bars(SPOT, 12, first + day * DAY_MS + hour * HOUR_MS)
        decisions.close()

    def certify(self, age_days: int = 1, *, counted: bool = True, **changes: Any) -> None:
        at = NOW - age_days * DAY_MS
        made = certificate(issued_at=at, revalidate_at=at + 30 * DAY_MS, expires_at=at + 45 * DAY_MS, data_until=at - DAY_MS,
                           data_from=at - 700 * DAY_MS, **changes)
        save(made, self.state / "certificates")
        if counted:
            registry = TrialRegistry(file_of(self.state / "validation", made.asset_class), same_code=0.85, same_results=0.9)
            registry.issued(made.strategy, made.digest, at)
            registry.close()

    def drilled(self, passed: bool = True, age_days: int = 1, endpoint: str = "") -> None:
        (self.state / "drills").mkdir(parents=True, exist_ok=True)
        began = NOW - age_days * DAY_MS
        (self.state / "drills" / f"bybit-SPOT-{began}.json").write_text(json.dumps({
            "passed": passed, "began": iso(began), "endpoint": endpoint or self.venue.url, "symbol": "BTC/USDT"}))

    def everything(self) -> None:
        self.paper()
        self.certify()
        self.drilled()

    def asked(self, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        capsys.readouterr()
        code = run(["go-live", "spot", "--json", *words])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, {line["what"]: line for line in json.loads(said.out)["lines"]}

    def switches(self) -> list[tuple[Scope, bool]]:
        path = self.state / "live" / "journal.sqlite"
        if not path.exists():
            return []
        with Journal(path, read_only=True) as journal:
            return [(fact.scope, fact.on) for _, fact in journal.facts() if isinstance(fact, SwitchChanged)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    with venue_threads.bybit() as venue:
        yield World(tmp_path, venue)


def missing(lines: dict[str, dict[str, Any]]) -> set[str]:
    return {what for what, line in lines.items() if line["state"] != "ok"}


def test_at_the_beginning_every_missing_line_names_its_next_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = world.asked(capsys)
    assert code == 1 and missing(lines) == {"paper", "certificate", "alerts", "drill", "funds switch"}
    assert "0 of 7 days" in lines["paper"]["said"] and "--mode paper" in lines["paper"]["next"]
    assert "validate" in lines["certificate"]["next"] and "drill spot" in lines["drill"]["next"] and "telegram" in lines["alerts"]["next"]
    assert "0 of 20 closed trades" in lines["ramp"]["said"] and "$10" in lines["ramp"]["said"] and world.switches() == []
    for line in lines.values():
        command = line["next"].partition("main.py ")[2].split(",")[0]
        if command:
            parse(command.split())  # it is one the program takes


def test_the_next_commands_speak_of_the_same_settings_file(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    (world.folder / "config.toml").rename(world.folder / "my bot.toml")
    _, lines = world.asked(capsys, "-c", "my bot.toml", "--no-alerts")
    assert lines["drill"]["next"] == "python main.py drill -c 'my bot.toml' spot"
    assert lines["paper"]["next"] == "python main.py trade -c 'my bot.toml' --mode paper, and let it run"


def test_settings_without_a_key_are_one_missing_line_among_the_others(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.paper()
    path = world.folder / "config.toml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "key_file" not in line).replace('"live"', '"paper"'))
    code, lines = world.asked(capsys, "--no-alerts", "--confirm")
    assert code == 1 and "needs key_file" in lines["settings"]["said"] and lines["paper"]["state"] == "ok"
    assert missing(lines) == {"settings", "doctor", "certificate", "drill", "funds switch"} and world.switches() == []
    path.unlink()
    code, lines = world.asked(capsys)
    assert code == 1 and set(lines) == {"settings"}  # nothing trades SPOT


def test_all_ok_only_with_a_yes_to_the_switch_which_is_put_on_record(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.everything()
    code, lines = world.asked(capsys, "--no-alerts")
    assert code == 1 and missing(lines) == {"funds switch"} and world.switches() == []  # nobody said yes
    code, lines = world.asked(capsys, "--no-alerts", "--confirm")
    assert (code, missing(lines)) == (0, set()) and world.switches() == [(Scope.ALL, True)]  # the class's own is on by policy
    assert world.asked(capsys, "--no-alerts") == (0, lines | {"funds switch": lines["funds switch"] | {"said": "master and class are on"}})


def test_a_yes_switches_nothing_on_while_anything_else_is_missing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.everything()
    world.venue.rights["Wallet"] = ["Withdraw"]
    code, lines = world.asked(capsys, "--no-alerts", "--confirm")
    assert code == 1 and {"doctor", "funds switch"} == missing(lines) and world.switches() == []
    assert "Withdraw" in lines["doctor"]["said"]


def test_a_venue_that_cannot_be_asked_is_not_known_to_be_good(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.everything()
    path = world.folder / "config.toml"
    path.write_text(path.read_text().replace(world.venue.url, "http://127.0.0.1:9"))
    code, lines = world.asked(capsys, "--no-alerts", "--confirm")
    assert code == 1 and "doctor" in missing(lines) and world.switches() == []


def test_days_with_few_hours_of_bars_do_not_count(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.paper(days=9, hours=11)
    assert "0 of 7" in world.asked(capsys)[1]["paper"]["said"]


def test_days_on_another_venue_do_not_count(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.paper(days=9, venue="kraken")
    assert "0 of 7" in world.asked(capsys)[1]["paper"]["said"]


@pytest.mark.parametrize("flaw", ["expired", "other code", "other class", "made by hand"])
def test_a_certificate_that_permits_nothing_is_none(world: World, capsys: pytest.CaptureFixture[str], flaw: str) -> None:
    if flaw == "expired":
        world.certify(age_days=46)
    elif flaw == "made by hand":
        world.certify(counted=False)
    elif flaw == "other code":
        world.certify(code_hash="0" * 64)
    else:
        world.certify(asset_class=AssetClass.PERP)
    line = world.asked(capsys)[1]["certificate"]
    words = {"expired": "expired", "other code": "code changed", "other class": "may trade", "made by hand": "no approval"}[flaw]
    assert line["state"] == "missing" and words in line["said"]


@pytest.mark.parametrize(("changes", "said"), [
    ({"passed": False}, "FAILED"), ({"age_days": 91}, "91 days ago"), ({"endpoint": "production"}, "none on record"),
])
def test_a_drill_that_failed_is_old_or_was_elsewhere_does_not_count(
        world: World, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str) -> None:
    world.drilled(**changes)
    line = world.asked(capsys)[1]["drill"]
    assert line["state"] == "missing" and said in line["said"]


def test_a_later_failure_outweighs_an_earlier_pass(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.drilled(age_days=5)
    world.drilled(passed=False, age_days=2)
    assert world.asked(capsys)[1]["drill"]["state"] == "missing"


def test_a_channel_that_does_not_take_the_test_is_none(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    path = world.folder / "config.toml"
    path.write_text(path.read_text() + '[mqtt]\nhost = "127.0.0.1"\nport = 9\n')
    line = world.asked(capsys, "--no-alerts")[1]["alerts"]
    assert line["state"] == "missing" and line["said"].startswith("MQTT: the broker does not take it")


@needs_broker
def test_a_broker_that_takes_the_message_is_a_channel(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    with venue_threads.served(lambda: a_broker(world.folder)) as broker:
        path = world.folder / "config.toml"
        path.write_text(path.read_text() + f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
        line = world.asked(capsys)[1]["alerts"]
    assert line["state"] == "ok" and line["said"].startswith("MQTT took a test message")


def test_a_drill_that_was_really_run_is_what_the_checklist_reads(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["drill", "spot", "--json"]) == 0
    line = world.asked(capsys)[1]["drill"]
    assert line["state"] == "ok" and "on BTC/USDT: passed" in line["said"]
    assert run(["list-venues"]) == 0 and "SPOT passed" in capsys.readouterr().out


def test_a_message_that_arrives_is_what_makes_a_channel_ok(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    key = world.folder / "telegram.key"
    key.write_text(f"{TOKEN}\n")
    key.chmod(0o600)
    with venue_threads.served(bot_api) as api:
        path = world.folder / "config.toml"
        path.write_text(path.read_text() + f'[telegram]\ntoken_file = "{key}"\nchat_id = 7\nuser_ids = [7]\nbase_url = "{api.url}"\n')
        line = world.asked(capsys)[1]["alerts"]
        (sent,) = api.sent
    assert line["state"] == "ok" and sent.chat_id == 7 and "go-live" in sent.text and TOKEN not in line["said"]


def test_beside_a_running_daemon_nothing_is_switched(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.everything()
    with StateFolder(world.state / "live"):
        code, lines = world.asked(capsys, "--no-alerts", "--confirm")
    assert code == 1 and "running process" in lines["funds switch"]["said"] and "funds on spot" in lines["funds switch"]["next"]


# -- the gate at a live start -----------------------------------------------------------------------------------------------------


def gate(world: World) -> permits.Gate:
    settings, policies = inputs.settings_and_policies(parse(["go-live", "spot"]))
    return permits.gate(settings, policies, NOW)


def test_a_live_start_is_refused_in_plain_words_until_switch_and_certificate_are_there(world: World) -> None:
    refused = gate(world).refused
    assert "SPOT will open nothing: its funds switches are not on" in refused[0] and "no strategy has a valid certificate" in refused[0]
    assert "go-live spot" in refused[0] and "--mode paper" in refused[-1]
    world.certify()
    assert "certificate" not in gate(world).refused[0]
    settings, policies = inputs.settings_and_policies(parse(["go-live", "spot"]))
    permits.switch_on(settings, policies, SPOT, NOW)
    assert gate(world) == permits.Gate((), ())


def test_what_is_open_from_before_is_looked_after_whatever_expired(world: World) -> None:
    with StateFolder(world.state / "live") as folder, Journal(folder.journal) as journal:
        journal.append(DaemonStarted(NOW, "live", "1", ""))
        journal.append(TradeOpened(NOW, "t1", "d", "s", "BTC/USDT", SPOT, "BUY", "single", 0.5, 0.5, 1.0, 0.9, None, 1, 60_000, Decimal(1)))
    found = gate(world)
    assert found.refused == () and "SPOT will open nothing" in found.warned[0]
