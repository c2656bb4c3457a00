"""The chat, through the unmodified library against a Bot API on loopback: what it does, what it says first, and whom it never hears."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import main
from modules.cli import channels
from modules.cli.chat_reports import ChatReports
from modules.cli.reports import Reports
from modules.cli.telegram_setup import look
from modules.domain.errors import ConfigurationError, JournalUnwritable, OperatorRefused
from modules.domain.events import (
    EntriesPaused,
    Fact,
    FeedLost,
    OperatorCommand,
    PeakRaised,
    Scope,
    TradingHalted,
    TransferSeen,
    Trigger,
)
from modules.domain.instrument import AssetClass
from modules.domain.settings import Settings
from modules.domain.view import TradingState
from modules.news.calendar import Calendar
from modules.notify import chat_words, phone, pictures
from modules.runtime.clock import WallClock
from modules.store.decisions import Decisions
from modules.store.equity import EquityCurve
from modules.store.journal import Journal
from modules.Telegram_Agent import Pace, TelegramAgent
from tests.builders import AT, DAY_MS, shipped_policies
from tests.emulators.telegram import OWNER, TOKEN, BotApi, bot_api
from tests.timing import PATIENCE_S, Lateness, within

QUICK = Pace(poll_s=2, answer_s=30.0, spacing_s=0.0, first_pause_s=0.05, longest_pause_s=0.2, remind_s=0.05)
CODE = "271828"
STRANGER = 666


class StillClock(WallClock):
    """It is always the builders' noon."""

    def now(self) -> int:
        return AT


@dataclass
class Seat:
    """A daemon without a market, its chat, and the phone."""

    api: BotApi
    daemon: main.Daemon
    agent: TelegramAgent
    journal: Journal

    def recorded(self, kind: type) -> list[Any]:
        return [fact for _, fact in self.journal.facts() if isinstance(fact, kind)]

    async def ask(self, text: str) -> str:
        """Say it and wait for its answer; notices of a kill may come in between."""
        count = len(self.api.sent)
        self.api.say(text)
        while (answer := (await self.api.until(count + 1))[count].text).startswith(("<b>HALTED ", "<b>RE-ARMED")):
            count += 1
        return answer

    async def confirm(self, text: str) -> str:
        assert CODE in await self.ask(text)
        return await self.ask(CODE)


def settings_for(api: BotApi, tmp_path: Path, **changes: Any) -> Settings:
    return Settings.model_validate({
        "log_dir": tmp_path, "pair_blacklist": ["DOGE/*"],
        "telegram": {"token": TOKEN, "chat_id": OWNER, "user_ids": [OWNER], "base_url": api.url, **changes}})


def daemon_on(journal: Journal, settings: Settings, tmp_path: Path) -> main.Daemon:
    policies = shipped_policies()
    daemon = main.Daemon(main.Plan(
        mode="demo", policies=policies, clock=StillClock(), journal=journal, decisions=Decisions(None), venues={}, venue_of={},
        settlement=dict.fromkeys(AssetClass, "USDT"), allocate=dict.fromkeys(AssetClass), strategies={}, references={},
        calendar=Calendar((), policies.news, {})))
    curve = EquityCurve(None)
    for step in range(60):
        curve.record(AT - DAY_MS + step * 1_200_000, {c: (Decimal(1000 + step % 7), 1.0, 0.01, 0.02) for c in AssetClass})
    reports = Reports(daemon)
    daemon.desk.attach(reports.all() | ChatReports(daemon, reports, settings, "0.1", curve, tmp_path / "trading_bot.json").all())
    return daemon


def agent_for(settings: Settings, daemon: main.Daemon, now: Callable[[], int] | None = None, pace: Pace = QUICK) -> TelegramAgent:
    assert settings.telegram is not None
    agent = TelegramAgent(settings=settings.telegram, token=TOKEN, desk=daemon.desk, now=now or WallClock().now, pace=pace,
                          opening=lambda: "opening", digits=lambda count: CODE)
    daemon.journal.react(agent.on_fact)
    return agent


@asynccontextmanager
async def a_seat(tmp_path: Path, *, pace: Pace = QUICK, greet: bool = False, before: Callable[[BotApi], None] | None = None,
                 journal: Journal | None = None, **changes: Any) -> AsyncIterator[Seat]:
    async with bot_api() as api:
        if before is not None:
            before(api)
        settings = settings_for(api, tmp_path, **({"notification_settings": {"startup": "off"}} if not greet else {}) | changes)
        journal = journal or Journal(None)
        daemon = daemon_on(journal, settings, tmp_path)
        daemon.journal.replay()
        for asset_class in AssetClass:
            daemon.journal.append(TransferSeen(AT, asset_class, Decimal(1000), Decimal(0), f"opening {asset_class}"))
        agent = agent_for(settings, daemon, pace=pace)
        task = asyncio.create_task(agent.run())
        try:
            yield Seat(api, daemon, agent, journal)
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def seat(tmp_path: Path) -> AsyncIterator[Seat]:
    async with a_seat(tmp_path) as made:
        yield made


async def eventually(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():    # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- asked and answered ------------------------------------------------------------------------------------------------------


ANSWERS = [
    ("/status", "SPOT"), ("/status table", "SPOT"), ("/status spot", "SPOT"), ("/profit", "trades"), ("/profit 7 perp", "Since"),
    ("/daily 3", "01-05"), ("/weekly", "2026-W02"), ("/monthly 2", "2025-12"), ("/balance", "USDT"), ("/trades 5", "No trade"),
    ("/count", "at most"), ("/locks", "Nothing"), ("/whitelist", "Allowed"), ("/blacklist", "DOGE/*"), ("/show_config", "mode = demo"),
    ("/logs 3", "log is empty"), ("/health", "Not well"), ("/version", "Version 0.1"), ("/help", "/reset_kill"), ("/phase", "USDT: phase "),
    ("/why", "24 h"), ("/validation", "certified"), ("/events", "No release"), ("/news", "News are off"), ("/learning", ""),
    ("/funds", "OFF"), ("/reconcile", "no venue"), ("/start", "understand"), ("/forceexit", "Nothing is open"), ("/cancel", "nothing"),
    ("/pause spot", "SPOT"), ("/stop", "SPOT, PERP, OPTION, FOREX"), ("/stopentry perp", "PERP"), ("/kill option", "HALTED"),
    ("/status@trader_bot", "SPOT"), ("/STATUS", "SPOT"),
]


async def test_every_command_has_its_answer(seat: Seat) -> None:
    for command, part in ANSWERS:
        before = len(seat.api.sent)
        seat.api.say(command)
        await seat.api.until_text(part, after=before)
    assert seat.agent.trouble == "" and not seat.agent.gate.refused


def test_every_word_of_the_interface_is_understood() -> None:
    promised = (
        "start stop pause stopentry resume status profit daily weekly monthly balance performance trades count locks unlock whitelist "
        "blacklist forceexit reload_config show_config logs health version help phase why validation events news learning kill reset_kill "
        "flatten funds reconcile equity")
    known = {*chat_words.WORDS, *chat_words.ALIASES, *chat_words.OURSELVES}
    assert set(promised.split()) <= known


async def test_a_misspelled_command_is_answered_with_what_was_meant(seat: Seat) -> None:
    assert "did you mean /status" in await seat.ask("/staus")
    assert "did you mean spot" in await seat.ask("/pause spto")
    assert "needs class and reason" in await seat.ask("/reset_kill")
    assert "/help" in await seat.ask("how are you?")


@pytest.mark.parametrize("command", ["/equity", "/performance", "/equity 30 spot"])
async def test_pictures_come_as_photos(seat: Seat, command: str) -> None:
    seat.api.say(command)
    sent = (await seat.api.until(1))[0]
    assert sent.method == "sendPhoto" and sent.photo.startswith(b"\x89PNG") and len(sent.photo) > 2_000


def test_a_picture_shows_the_curve_and_not_an_empty_sheet() -> None:
    from io import BytesIO

    from PIL import Image

    points = [[AT + i * 300_000, 1000.0 + (i % 50) * (1 if i < 200 else -1), 0.01, 0.02, 1.0] for i in range(400)]
    image = Image.open(BytesIO(pictures.equity({"days": 7, "until": AT, "classes": {"SPOT": {"currency": "USDT", "points": points}}})))
    colors = {color for _, color in image.getcolors(100_000) or ()}
    assert image.size[0] == 900 and (0, 103, 165) in colors and (246, 201, 184) in colors
    rows = [{"strategy": "trend", "symbol": f"S{n}", "trades": 3, "net": str(20 - n)} for n in range(40)]
    bars = Image.open(BytesIO(pictures.performance({"rows": rows})))
    colors = {color for _, color in bars.getcolors(100_000) or ()}
    assert (27, 127, 121) in colors and (181, 72, 42) in colors


async def test_the_first_message_says_what_a_person_wants_to_know_first(tmp_path: Path) -> None:
    async with bot_api() as api:
        settings = settings_for(api, tmp_path)
        daemon = daemon_on(Journal(None), settings, tmp_path)
        daemon.journal.replay()
        daemon.journal.append(TransferSeen(AT, AssetClass.SPOT, Decimal(500), Decimal(0), "opening SPOT"))
        agent = channels.telegram(settings, daemon, Reports(daemon), lambda: "CPI 13:30 UTC")
        task = asyncio.create_task(agent.run())
        sent = (await api.until(1))[0]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert sent.text.splitlines() == [
        "<b>DEMO.</b> SPOT 500.00 USDT, phase 1, $10 a trade, halts at -25.00 today.",
        "0 of 0 strategies certified: nothing can trade live.", "Next event: CPI 13:30 UTC.", "/why /kill /help"]
    assert ("KILL", "/kill") in sent.buttons


@pytest.mark.parametrize(("mode", "switched", "said"), [
    ("live", {}, True), ("live", {"SPOT"}, True), ("live", {"master", "SPOT"}, False), ("paper", {}, False)])
def test_the_first_message_of_a_live_daemon_says_where_no_real_order_goes_out(mode: str, switched: set[str], said: bool) -> None:
    status = {"mode": mode, "classes": {"SPOT": {"equity": "500", "currency": "USDT", "phase": 1, "halted_by": "", "paused": False}}}
    funds = {"master_on": "master" in switched, "classes": {"SPOT": {"on": "SPOT" in switched}}}
    text = phone.first_message(status, shipped_policies(), certified=1, strategies=7, next_event="", funds=funds)
    assert ("funds are OFF: no real order goes out" in text) is said
    assert text.startswith(f"<b>{mode.upper()}.</b> SPOT 500.00 USDT, phase 1, $10 a trade, halts at -25.00 today.")
    assert "1 of 7 strategies certified.\n" in text


async def test_the_last_words_go_out_before_whatever_waits(tmp_path: Path) -> None:
    async with a_seat(tmp_path, pace=replace(QUICK, spacing_s=0.3)) as seat:
        for number in range(5):
            seat.agent.tell(f"warning {number}")
        await seat.api.until(1)
        for number in range(5):
            seat.daemon.journal.append(FeedLost(AT, f"COIN{number}/USDT", "silence"))
        began = asyncio.get_running_loop().time()
        await seat.agent.last_words("The daemon ENDED by a fault: <the disk>", bad=True, within_s=PATIENCE_S)
        assert asyncio.get_running_loop().time() - began < PATIENCE_S / 2, "it waits no longer than it must"
        texts = [message.text for message in seat.api.sent]
        ended = next(index for index, text in enumerate(texts) if "ENDED by a fault: &lt;the disk&gt;" in text)
        assert all("feed lost" not in text for text in texts[:ended])


async def test_last_words_to_a_telegram_that_hangs_take_no_longer_than_they_may(tmp_path: Path) -> None:
    async with a_seat(tmp_path) as seat:
        seat.api.lasting["sendMessage"] = "hang"
        await eventually(lambda: seat.api.asked["getUpdates"] > 0)
        began = asyncio.get_running_loop().time()
        await seat.agent.last_words("The daemon was stopped.", bad=True, within_s=0.2)
        assert 0.15 < asyncio.get_running_loop().time() - began < QUICK.answer_s / 2


def test_the_document_names_every_command_and_no_other() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "telegram.md").read_text(encoding="utf-8")
    named = set(re.findall(r"[`(\s]/([a-z_]+)", page.split("## Commands")[1].split("## What")[0]))
    assert set(chat_words.WORDS) - {"config"} <= named | {"start", "stop"}
    assert named <= {*chat_words.WORDS, *chat_words.ALIASES, *chat_words.OURSELVES}


# -- commands that act ---------------------------------------------------------------------------------------------------------


async def test_a_kill_halts_within_a_second_and_needs_no_code(seat: Seat) -> None:
    loop = asyncio.get_running_loop()
    took: dict[str, float] = {}
    for word, classes in (*((f"/kill {c.value.lower()}", {c}) for c in AssetClass), ("/kill", set(AssetClass))):
        began = loop.time()
        seat.api.say(word)
        await eventually(lambda c=classes: {c for c in AssetClass if seat.daemon.kill_switch.state(c) is TradingState.HALTED} >= c)  # type: ignore[misc]
        took[word] = loop.time() - began
        assert {c for c in AssetClass if seat.daemon.kill_switch.state(c) is TradingState.HALTED} >= classes
    assert min(took.values()) < 1.0, f"the best of five, so that a busy machine is no slow kill: {took}"
    halted = seat.recorded(TradingHalted)
    assert all(halt.trigger is Trigger.MANUAL and f"telegram:{OWNER}" in halt.reason for halt in halted)
    await seat.api.until_text("HALTED")


async def test_a_kill_works_with_the_journals_disk_full_and_is_put_on_record_when_there_is_room(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite", reserve_bytes=0) as journal:
        async with a_seat(tmp_path, journal=journal) as seat:
            connection = journal._connection
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
            with pytest.raises(JournalUnwritable, match="disk is full"):
                while True:
                    journal.append(PeakRaised(AT, AssetClass.SPOT, Decimal("1.01")))
            assert "holds in memory" in await seat.ask("/kill")
            assert all(seat.daemon.kill_switch.state(c) is TradingState.HALTED for c in AssetClass)
            assert "disk is full" in await seat.ask("/pause spot"), "what cannot be kept is refused by name"
            connection.execute("PRAGMA max_page_count = 1000000")
            seat.daemon.kill_switch.tick(AT + 1000)
            assert [fact.trigger for fact in seat.recorded(TradingHalted)] == [Trigger.MANUAL]


async def test_what_loosens_or_flattens_asks_for_the_code_shown_in_the_chat(seat: Seat) -> None:
    await seat.ask("/kill")
    await seat.ask("/pause")
    before = seat.journal.head
    for command in ("/resume", "/flatten spot", "/forceexit all", "/reset_kill all looked into it", "/unlock spot", "/funds on"):
        assert f"type <code>{CODE}</code>" in await seat.ask(command)
        assert seat.journal.head == before, command
        assert "Canceled" in await seat.ask("/cancel")
    seat.api.say("/start")
    await seat.api.until_text("type <code>", after=len(seat.api.sent))
    assert seat.journal.head == before
    assert "Re-armed: ALL manual" in await seat.confirm("/reset_kill all looked into it")
    await eventually(lambda: seat.daemon.kill_switch.state(AssetClass.SPOT) is TradingState.ACTIVE)
    commands = seat.recorded(OperatorCommand)
    assert commands[-1].command == "reset-kill" and "looked into it" in commands[-1].arguments and commands[-1].by == f"telegram:{OWNER}"


async def test_what_tightens_needs_no_code(seat: Seat) -> None:
    await seat.confirm("/funds on")
    assert seat.daemon.funds.master_on
    assert "OFF" in await seat.ask("/funds off")
    assert not seat.daemon.funds.master_on


async def test_a_code_works_once_for_one_command_and_a_third_wrong_one_ends_it(seat: Seat) -> None:
    assert "nothing to confirm" in (await seat.ask(CODE)).lower()
    await seat.ask("/pause")
    await seat.ask("/resume")
    for said in ("000000", "111111", "222222"):
        assert "rong code" in await seat.ask(said)
    assert "nothing to confirm" in (await seat.ask(CODE)).lower()
    assert seat.daemon.risk.paused(AssetClass.SPOT)
    assert "none" in await seat.confirm("/resume")
    assert "nothing to confirm" in (await seat.ask(CODE)).lower()


async def test_a_code_is_void_after_its_time(tmp_path: Path) -> None:
    async with bot_api() as api:
        settings = settings_for(api, tmp_path, notification_settings={"startup": "off"})
        daemon = daemon_on(Journal(None), settings, tmp_path)
        daemon.journal.replay()
        late = [0]
        agent = agent_for(settings, daemon, now=lambda: WallClock().now() + late[0])
        task = asyncio.create_task(agent.run())
        api.say("/resume")
        await api.until_text(CODE)
        late[0] = 61_000
        api.say(CODE, age_s=-61.0)
        await api.until_text("too old")
        assert not [fact for _, fact in daemon.journal.facts() if isinstance(fact, OperatorCommand)]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_taps_do_what_words_do_and_a_choice_still_needs_the_code(seat: Seat) -> None:
    seat.api.tap("/pause perp")
    await seat.api.until_text("Entries paused: PERP")
    seat.api.tap("/resume perp")
    shown = await seat.api.until_text(CODE)
    assert shown.buttons == [("Cancel", "/cancel")]
    seat.api.tap("/cancel")
    await seat.api.until_text("Canceled")
    assert seat.daemon.risk.paused(AssetClass.PERP)
    assert seat.api.asked["answerCallbackQuery"] == 3


async def test_a_pause_and_a_barred_pair_survive_a_restart(tmp_path: Path) -> None:
    async with bot_api() as api:
        settings = settings_for(api, tmp_path, notification_settings={"startup": "off"})
        with Journal(tmp_path / "journal.sqlite") as journal:
            daemon = daemon_on(journal, settings, tmp_path)
            journal.replay()
            task = asyncio.create_task(agent_for(settings, daemon).run())
            api.say("/pause spot")
            api.say("/blacklist BTC/USDT")
            await api.until_text("Barred by you: BTC/USDT")
            assert len([fact for _, fact in journal.facts() if isinstance(fact, EntriesPaused)]) == 1
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        with Journal(tmp_path / "journal.sqlite") as journal:
            daemon = daemon_on(journal, settings, tmp_path)
            journal.replay()
            assert daemon.risk.paused(AssetClass.SPOT) and list(daemon.desk.barred) == ["BTC/USDT"]
            assert daemon.look._listed_out("BTC/USDT") and not daemon.look._listed_out("ETH/USDT")
            daemon.desk.handle("unlock", {"subject": "BTC/USDT"}, "cli:tester")
            assert not daemon.look._listed_out("BTC/USDT")


async def test_looser_policies_need_the_code_and_tighter_ones_do_not(seat: Seat) -> None:
    adopted: list[str] = []
    loosened: list[str] = []
    seat.daemon.desk.reloads(lambda: (loosened, lambda: adopted.append("new")))
    assert "in force" in await seat.ask("/reload_config") and adopted == ["new"]
    loosened.append("risk.max_open_trades 3 to 9")
    await seat.ask("/reload_config")
    assert adopted == ["new"]
    assert "max_open_trades" in await seat.ask(CODE) and adopted == ["new", "new"]


# -- whom it never hears -------------------------------------------------------------------------------------------------------


FOREIGN: list[tuple[str, str | None, dict[str, Any]]] = [
    ("stranger", "/kill", {"user": STRANGER}),
    ("stranger", "/kill", {"user": STRANGER, "chat": STRANGER}),
    ("other_chat", "/kill", {"chat": -100, "kind": "group"}),
    ("other_chat", "/kill", {"kind": "supergroup"}),
    ("other_chat", "/kill", {"chat": 77}),
    ("edited", "/kill", {"as_": "edited_message", "edit_date": 1}),
    ("forwarded", "/kill", {"forward_origin": {"type": "hidden_user", "date": 1, "sender_user_name": "x"}}),
    ("via_bot", "/kill", {"via_bot": {"id": 9, "is_bot": True, "first_name": "b"}}),
    ("other", "/kill", {"sender_chat": {"id": -5, "type": "channel", "title": "c"}}),
    ("oversized", "/kill " + "x" * 400, {}),
    ("injected", "/status\n/kill", {}),
    ("injected", "/kill \u202espot", {}),
    ("injected", "/kill \x00", {}),
    ("no_text", None, {}),
]


async def test_what_somebody_or_something_else_says_is_ignored_and_counted(seat: Seat) -> None:
    before = seat.journal.head
    counted: Counter[str] = Counter()
    for reason, text, how in FOREIGN:
        counted[reason] += 1
        seat.api.say(text, **how)
        await eventually(lambda: sum(seat.agent.gate.refused.values()) == counted.total())
        assert seat.agent.gate.refused == counted, (text, how)
    await asyncio.sleep(0.1)
    assert seat.api.sent == [] and seat.journal.head == before and seat.daemon.kill_switch.halts() == []
    assert seat.agent.document({})["ignored"] == dict(counted)


async def test_a_replayed_update_is_executed_once(seat: Seat) -> None:
    number = seat.api.say("/pause spot")
    await seat.api.until_text("Entries paused")
    body = {"message": {"message_id": 5, "date": 2_000_000_000, "chat": {"id": OWNER, "type": "private"}, "text": "/kill",
                        "from": {"id": OWNER, "is_bot": False, "first_name": "x"}}}
    seat.api.again(number, body)
    await eventually(lambda: seat.agent.gate.refused["replayed"] == 1)
    assert seat.daemon.kill_switch.halts() == []


async def test_an_old_command_is_ignored_unless_it_stops_something(tmp_path: Path) -> None:
    """Said while nobody listened: an hour-old /resume must not act, an hour-old /kill must."""
    def said(api: BotApi) -> None:
        for text in ("/resume", "/flatten", "/forceexit all", "/funds on", CODE, "/kill perp"):
            api.say(text, age_s=3600.0)

    async with a_seat(tmp_path, before=said) as seat:
        await seat.api.until_text("HALTED PERP")
        assert seat.agent.gate.refused == {"stale": 5}
        assert [fact.command for fact in seat.recorded(OperatorCommand)] == ["kill"]
        assert not any("type <code>" in message.text for message in seat.api.sent)


async def test_a_strangers_tap_is_ignored(seat: Seat) -> None:
    seat.api.tap("/kill", user=STRANGER)
    seat.api.tap("/kill", chat=-100, kind="group")
    await eventually(lambda: sum(seat.agent.gate.refused.values()) == 2)
    assert seat.daemon.kill_switch.halts() == [] and seat.api.asked["answerCallbackQuery"] == 0


async def test_text_from_outside_is_never_markup(seat: Seat) -> None:
    seat.daemon.journal.append(FeedLost(AT, "<b>BTC</b>&", "<script>"))
    sent = await seat.api.until_text("feed lost")
    assert sent.parse_mode == "HTML" and "&lt;b&gt;BTC&lt;/b&gt;&amp;" in sent.text


# -- what is told, and in which order ------------------------------------------------------------------------------------------


async def test_a_kill_notice_is_first_in_line_after_fifty_throttled_messages(tmp_path: Path) -> None:
    async with a_seat(tmp_path) as seat:
        seat.api.faults["sendMessage"] = deque(["429"])
        for number in range(50):
            seat.daemon.journal.append(FeedLost(AT, f"COIN{number}/USDT", "nothing for 90 s"))
        await eventually(lambda: seat.api.asked["sendMessage"] == 1)
        seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.DAILY_DRAWDOWN, at=AT, measured="5.1 %", limit="5 %")
        first = (await seat.api.until(1))[0]
        assert "HALTED SPOT by daily_drawdown: 5.1 % against 5 %" in first.text
        await seat.api.until_text("COIN49/USDT")
        told = "\n".join(message.text for message in seat.api.sent)
        assert all(f"COIN{number}/USDT" in told for number in range(50))
        assert len(seat.api.sent) < 6, "like ones share a message"


async def test_retry_after_is_honored(tmp_path: Path) -> None:
    async with a_seat(tmp_path) as seat:
        seat.api.faults["sendMessage"] = deque(["429"])
        loop = asyncio.get_running_loop()
        began = loop.time()
        seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT)
        await seat.api.until(1)
        assert loop.time() - began >= 0.95 and seat.api.asked["sendMessage"] == 2


async def test_levels_decide_what_rings_what_is_silent_and_what_is_not_sent(tmp_path: Path) -> None:
    levels = {"startup": "off", "warning": "silent", "status": "off", "kill": "on"}
    async with a_seat(tmp_path, notification_settings=levels) as seat:
        seat.daemon.risk.pause(Scope.SPOT, AT, "cli:somebody")
        seat.daemon.journal.append(FeedLost(AT, "BTC/USDT", "silence"))
        assert (await seat.api.until_text("BTC/USDT")).silent
        seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT)
        assert not (await seat.api.until_text("HALTED")).silent
        assert not any("PAUSED" in message.text for message in seat.api.sent)


def test_a_kill_cannot_be_turned_off_nor_an_unknown_kind_be_set() -> None:
    for levels in ({"kill": "off"}, {"kil": "on"}):
        with pytest.raises(ValueError, match="notification_settings"):
            Settings.model_validate({"telegram": {"token": "x", "chat_id": 1, "notification_settings": levels}})


async def test_the_heartbeat_and_the_summaries_come_in_their_time(tmp_path: Path) -> None:
    async with bot_api() as api:
        settings = settings_for(api, tmp_path, heartbeat_h=6, notification_settings={"startup": "off"})
        daemon = daemon_on(Journal(None), settings, tmp_path)
        daemon.journal.replay()
        monday = AT - AT % DAY_MS
        now = [monday - 7 * 3_600_000]
        agent = agent_for(settings, daemon, now=lambda: now[0])
        told: list[list[str]] = []
        for at in (monday - 2 * 3_600_000, monday - 3_600_000, monday + 60_000, monday + 120_000, monday + DAY_MS + 60_000):
            now[0] = at
            agent.remind()
            parcels = iter(agent.outbox.take, None)
            told.append([parcel.message.text.splitlines()[0] for parcel in parcels])
        assert told == [[], ["Alive: demo, trading, 0 positions; 2 problems, see /health."] if "2 problems" in str(told) else told[1],
                        ["<b>Yesterday</b>", "<b>Last week</b>"], [], [told[1][0], "<b>Yesterday</b>"]]
        assert told[1] and told[1][0].startswith("Alive: demo, trading")


def test_a_channel_that_stumbles_over_a_fact_does_not_close_the_journal(tmp_path: Path) -> None:
    """An observer that raises would leave the books half told; what channels hear goes through a guard."""
    settings = Settings.model_validate({
        "log_dir": tmp_path, "mqtt": {"host": "127.0.0.1"},
        "telegram": {"token": TOKEN, "chat_id": OWNER, "base_url": "http://127.0.0.1:9"}})
    daemon = daemon_on(Journal(None), settings, tmp_path)
    handlers = list(logging.getLogger().handlers)

    def stumble(fact: Fact) -> None:
        raise KeyError(type(fact).__name__)

    channels._listen(daemon, "Stumbler", stumble, stumble)
    assert set(channels.build(settings, daemon, Reports(daemon), lambda: "")) == {"Telegram", "MQTT"}
    assert len(logging.getLogger().handlers) == len(handlers) + 1
    daemon.journal.replay()
    for symbol in ("BTC/USDT", "ETH/USDT"):
        daemon.journal.append(FeedLost(AT, symbol, "silence"))
    assert daemon.desk.handle("telegram", {}, "")["waiting"] == 2
    assert daemon.desk.handle("mqtt", {}, "")["waiting"] >= 4


# -- when Telegram is unwell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["409", "401", "403", "400", "429", "502", "hang"])
async def test_commands_are_heard_again_after_any_fault(tmp_path: Path, fault: str) -> None:
    def broken(api: BotApi) -> None:
        api.lasting["getUpdates"] = fault

    pace = Pace(poll_s=0, answer_s=1.0 if fault == "hang" else 30.0, spacing_s=0.0, first_pause_s=0.02, longest_pause_s=0.1)
    async with a_seat(tmp_path, before=broken, pace=pace) as seat:
        seat.api.say("/pause spot")
        await eventually(lambda: seat.api.asked["getUpdates"] >= 2)
        assert seat.agent.trouble or fault == "429"
        seat.api.lasting.clear()
        await seat.api.until_text("Entries paused: SPOT")
        await eventually(lambda: seat.agent.trouble == "")


@pytest.mark.parametrize("fault", ["409", "401", "403", "429", "502", "hang"])
async def test_a_kill_notice_outlives_any_fault(tmp_path: Path, fault: str) -> None:
    pace = Pace(poll_s=1, answer_s=1.0 if fault == "hang" else 30.0, spacing_s=0.0, first_pause_s=0.02, longest_pause_s=0.1)
    async with a_seat(tmp_path, pace=pace) as seat:
        seat.api.lasting["sendMessage"] = fault
        seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT)
        await eventually(lambda: seat.api.asked["sendMessage"] >= (1 if fault == "429" else 2))
        seat.api.lasting.clear()
        assert "HALTED SPOT" in (await seat.api.until(1))[0].text


async def test_markup_that_is_refused_is_sent_again_as_plain_text(seat: Seat) -> None:
    seat.api.faults["sendMessage"] = deque(["400"])
    seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT, reason="a < b & c")
    sent = (await seat.api.until(1))[0]
    assert sent.parse_mode == "" and "a < b & c" in sent.text and "<b>" not in sent.text


async def test_a_message_that_is_refused_for_good_is_given_up_unless_it_is_about_a_kill(seat: Seat) -> None:
    seat.api.lasting["sendMessage"] = "400"
    seat.daemon.journal.append(FeedLost(AT, "BTC/USDT", "silence"))
    await eventually(lambda: seat.agent.undeliverable == 1)
    seat.daemon.kill_switch.halt(Scope.SPOT, Trigger.MANUAL, at=AT)
    await eventually(lambda: seat.api.asked["sendMessage"] >= 6)
    seat.api.lasting.clear()
    assert "HALTED" in (await seat.api.until(1))[0].text


@pytest.mark.parametrize("fault", ["hang", "429", "409", "403", "400", "401"])
async def test_the_loop_runs_on_time_whatever_telegram_does(tmp_path: Path, fault: str) -> None:
    def broken(api: BotApi) -> None:
        api.lasting.update(getUpdates=fault, sendMessage=fault)

    pace = Pace(poll_s=1, answer_s=0.3, spacing_s=0.0, first_pause_s=0.05, longest_pause_s=0.2)
    async with a_seat(tmp_path, before=broken, pace=pace) as seat, Lateness() as late:
        for number in range(60):
            seat.daemon.journal.append(FeedLost(AT, f"COIN{number % 30}/USDT", "silence"))
            await asyncio.sleep(0.01)
        assert late.worst_but(1) < 0.25 + 2.0 * late.machine, "the loop's lag; measured idle: under 10 ms"


async def test_drawing_a_picture_does_not_hold_the_loop() -> None:
    """A child of low priority draws. Measured: no turn of the loop takes more than 3 ms of processor time, most of it the child's start;
    drawing itself takes 60."""
    points = [[AT + i * 300_000, 1000.0 + i % 50, 0.01, 0.02, 1.0] for i in range(400)]
    document = {"days": 7, "until": AT, "classes": {c.value: {"currency": "USDT", "points": points} for c in AssetClass}}
    held = []
    for _ in range(3):
        drawing = asyncio.create_task(pictures.drawn("equity", document))
        longest, before = 0.0, time.process_time()
        while not drawing.done():
            await asyncio.sleep(0.002)
            now = time.process_time()
            longest, before = max(longest, now - before), now
        held.append(longest)
        assert (await drawing).startswith(b"\x89PNG")
    print(f"the loop was held for {min(held) * 1000:.1f} ms")
    assert min(held) < within(0.005), held


async def test_a_picture_that_cannot_be_drawn_is_refused_in_words() -> None:
    with pytest.raises(OperatorRefused, match="could not be drawn"):
        await pictures.drawn("nothing", {})


async def test_the_first_time_set_up_shows_the_ids_and_leaves_the_message_to_the_daemon(tmp_path: Path) -> None:
    async with bot_api() as api:
        settings = settings_for(api, tmp_path, chat_id=0).telegram
        assert settings is not None
        api.say("/kill", user=77, chat=77)
        assert await look(settings, TOKEN, 1) == {"seen": [{"chat_id": 77, "user_id": 77, "private": True, "name": "Somebody"}]}
        assert api.offsets == [0]
        with pytest.raises(OperatorRefused, match="BotFather"):
            await look(settings, "123456:another-token_that_is_not_known", 1)
        api.lasting["getUpdates"] = "409"
        with pytest.raises(OperatorRefused, match="daemon"):
            await look(settings, TOKEN, 1)


def test_the_token_goes_nowhere_in_the_clear(tmp_path: Path) -> None:
    async def build() -> None:
        settings = Settings.model_validate({"telegram": {"token": TOKEN, "chat_id": 1, "base_url": "http://telegram.example"}})
        daemon = daemon_on(Journal(None), settings, tmp_path)
        agent_for(settings, daemon)

    with pytest.raises(ConfigurationError, match="must be https"):
        asyncio.run(build())
