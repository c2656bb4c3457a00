"""Owns the chat: who is listened to there, what is told and in which order. Periphery: whatever becomes of it, trading goes on.

May refuse: everybody but the owner's people in the one private chat, what is edited, forwarded, replayed, oversized or too old, and
whatever loosens or flattens without the one-time code that was shown in the same chat. It decides nothing: a command goes to the operator
desk, which every channel goes through. The library is imported when the agent is built, so a daemon without Telegram never holds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from modules.domain.errors import BotError, ConfigurationError
from modules.domain.events import Fact
from modules.domain.settings import TelegramSettings
from modules.notify import chat_words, phone, pictures
from modules.notify.chat_words import Wish
from modules.notify.gate import Asked, Codes, Gate, Said
from modules.notify.notices import Notices
from modules.notify.outbox import Buttons, Message, Outbox, Parcel, Rank
from modules.runtime import chance
from modules.runtime.supervise import attempt

if TYPE_CHECKING:
    from telegram import Update

    from modules.Operator_Desk import OperatorDesk

log = structlog.get_logger("Telegram_Agent")

DAY_MS: Final = 86_400_000
ALLOWED: Final = ("message", "edited_message", "callback_query")
MENU: Final[Buttons] = (
    (("Status", "/status"), ("Balance", "/balance"), ("Why", "/why")),
    (("Equity", "/equity"), ("Trades", "/trades"), ("Profit", "/profit")),
    (("Pause entries", "/pause"), ("KILL", "/kill")),
)
CANCEL: Final[Buttons] = ((("Cancel", "/cancel"),),)
PICTURES: Final = ("equity", "performance")
CHOICES_MAX: Final = 10
DATA_MAX: Final = 64
"""Bytes behind a button, by Telegram's rule."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often Telegram is talked to, seconds."""

    poll_s: int = 25
    """How long the server may keep a question for news open."""
    answer_s: float = 10.0
    """How long any answer may take beyond that."""
    spacing_s: float = 1.0
    """Between two messages: one chat takes about one a second."""
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0
    remind_s: float = 30.0


class TelegramAgent:
    """`run` for ever, supervised. `learn` is a projection, `on_fact` an observer. `now` is wall time (UTC ms), `opening` the first message,
    `hide` takes secrets out of text.

    Raises ConfigurationError for an address that is neither https nor loopback.
    """

    def __init__(
        self, *, settings: TelegramSettings, token: str, desk: OperatorDesk, now: Callable[[], int], opening: Callable[[], str],
        pace: Pace | None = None, digits: Callable[[int], str] = chance.digits, hide: Callable[[str], str] = str,
    ) -> None:
        from modules.notify import telegram_wire

        if not settings.chat_id:
            raise ConfigurationError(["telegram.chat_id: is missing; `doctor --telegram` shows it"])
        self._settings = settings
        self._desk = desk
        self._now = now
        self._opening: Callable[[], str] | None = opening
        self._pace = pace or Pace()
        self._hide = hide
        self._wire = telegram_wire
        self._bot, self._requests = telegram_wire.bot_for(settings.base_url, token, self._pace.answer_s)
        self.gate = Gate(settings.chat_id, settings.user_ids, settings.command_age_s * 1000)
        self._codes = Codes(digits, settings.code_valid_s * 1000)
        self.outbox = Outbox(settings.outbox_max)
        self._notices = Notices()
        self._offset: int | None = None
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._pause = self._pace.first_pause_s
        self._group: asyncio.TaskGroup | None = None
        self._drawing = False
        self._idle = asyncio.Event()
        """Set while nothing waits to be sent."""
        self._told_at = now()
        self._summed = self._day(now())
        self.sent = 0
        self.undeliverable = 0
        self.trouble = ""
        """What Telegram answered last if it was no good, "" while all is well."""

    # -- facts ---------------------------------------------------------------------------------------------------------------

    def learn(self, fact: Fact) -> None:
        self._notices.learn(fact)

    def on_fact(self, fact: Fact) -> None:
        """Queue what a person should know of; never waits."""
        self._notices.learn(fact)
        notice = self._notices.of(fact)
        if notice is None or (notice.rank is not Rank.KILL and str(getattr(fact, "by", "")).startswith("telegram:")):
            return    # what was commanded here is answered here
        level = self._settings.level(notice.kind)
        if level != "off" or notice.rank is Rank.KILL:
            text = phone.escaped(self._hide(notice.text), 700)
            self._put(Message(notice.rank, f"<b>{text}</b>" if notice.rank is Rank.KILL else text, silent=level == "silent",
                              together=True, key=notice.key))

    def tell(self, text: str) -> None:
        """Queue what is no fact but should be heard: a certificate running out, a weakened gate. As loud as a warning."""
        level = self._settings.level("warning")
        if level != "off":
            self._put(Message(Rank.WARNING, phone.escaped(self._hide(text), 700), silent=level == "silent", together=True))

    async def last_words(self, text: str, *, bad: bool, within_s: float) -> None:
        """Say that the daemon ends, before whatever else waits, and give it `within_s` seconds to get out. `run` must be running."""
        level = "on" if bad else self._settings.level("startup")
        if level == "off" or self._group is None:
            return
        told = phone.escaped(self._hide(text), 700)
        self._put(Message(Rank.KILL, f"<b>{told}</b>" if bad else told, silent=level == "silent"))
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    def document(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """How the channel does, for the operator desk."""
        return {"sent": self.sent, "waiting": len(self.outbox), "dropped": self.outbox.dropped_ever, "trouble": self.trouble,
                "undeliverable": self.undeliverable, "ignored": dict(self.gate.refused)}

    def _put(self, message: Message) -> None:
        self.outbox.put(message)
        self._idle.clear()
        self._wake.set()

    def _say(self, text: str, buttons: Buttons = (), rank: Rank = Rank.ANSWER) -> None:
        self._put(Message(rank, text, buttons=buttons))

    # -- life ----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Listen, deliver and remind until canceled. Telegram's own troubles are waited out in here; what is raised is a bug."""
        self.greet()
        for request in self._requests:
            await request.initialize()
        try:
            async with asyncio.TaskGroup() as self._group:
                for work in (self._listen, self._deliver, self._remind):
                    self._group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None    # named as itself in the log
        finally:
            self._group = None
            for request in self._requests:
                await request.shutdown()

    def greet(self) -> None:
        """Say the first message, once; as long as there is none to say ("") it is left for the next time this is called."""
        if self._opening is None or not (words := self._opening()):
            return
        self._opening = None
        if (level := self._settings.level("startup")) != "off":
            self._put(Message(Rank.ANSWER, words, silent=level == "silent", buttons=MENU))

    async def _listen(self) -> None:
        from telegram.error import RetryAfter, TelegramError

        pause = self._pace.first_pause_s
        while True:
            try:
                updates = await self._bot.get_updates(offset=self._offset, timeout=self._pace.poll_s, allowed_updates=list(ALLOWED))
            except RetryAfter as error:
                await asyncio.sleep(self._wire.seconds(error.retry_after))
                continue
            except TelegramError as error:
                self._troubled("asking for messages", error)
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, self._pace.longest_pause_s)
                continue
            pause, self.trouble = self._pace.first_pause_s, ""
            for update in updates:
                self._offset = update.update_id + 1
                await self._take(update)

    def _troubled(self, doing: str, error: Exception) -> None:
        told = f"{doing}: {type(error).__name__}: {error}"
        if told != self.trouble:
            log.warning("Telegram does not answer well; trading goes on", reason=told)
        self.trouble = told

    # -- what is said to us ----------------------------------------------------------------------------------------------------

    async def _take(self, update: Update) -> None:
        said = self._wire.said(update, self._now())
        if reason := self.gate.refuse(said):
            self._ignored(reason)
            return
        if update.callback_query is not None:
            self._later(self._bot.answer_callback_query(update.callback_query.id))
        if said.text.startswith("/"):
            await self._command(said)
        elif not self.gate.stale(said, self._now(), tightens=False):
            await self._code(said)

    def _ignored(self, reason: str) -> None:
        count = self.gate.refused[reason]
        if str(count).strip("0") == "1":    # 1, 10, 100 ...: a flood fills no log
            log.warning("a message was ignored", reason=reason, count=count)

    async def _command(self, said: Said) -> None:
        try:
            wish = chat_words.parse(said.text)
            if self.gate.stale(said, self._now(), tightens=wish.name in chat_words.STOPS):
                self._ignored("stale")
                self._say(f"Ignored: {phone.escaped(wish.name)} was sent more than {self._settings.command_age_s} s ago. Give it again.")
                return
            if wish.name == "start":
                self._say(phone.help_text(), MENU)
                if not self._paused():
                    return
                wish = Wish("resume", ("resume",), {})    # as in freqtrade: what was stopped starts again
            if self._answered(wish, said.user_id):
                return
            if any(self._desk.needs_confirmation(ask, wish.arguments) for ask in wish.asks):
                self._ask(said.user_id, wish)
                return
        except BotError as refusal:
            self._say(phone.escaped(refusal, 1_000))
            return
        await self._carry_out(wish, said.user_id)

    def _paused(self) -> bool:
        return any(shown["paused"] for shown in self._desk.handle("status", {}, "")["classes"].values())

    def _answered(self, wish: Wish, user_id: int) -> bool:
        """What needs no desk."""
        if wish.name == "help":
            self._say(phone.help_text(), MENU)
        elif wish.name == "cancel":
            self._say("Canceled; nothing was done." if self._codes.forget(user_id) else "There is nothing to cancel.")
        elif wish.name == "forceexit" and not wish.arguments:
            self._choose_trade()
        else:
            return False
        return True

    def _choose_trade(self) -> None:
        held = self._desk.handle("trades", {"n": 0}, "")["open"][:CHOICES_MAX]
        if not held:
            self._say("Nothing is open.")
            return
        rows = [((f"{trade['symbol']} {trade['side']}", f"/forceexit {trade['trade_id']}"),) for trade in held]
        buttons = tuple(row for row in rows if len(row[0][1].encode()) <= DATA_MAX)
        self._say("Close which one?", (*buttons, (("All of them", "/forceexit all"), ("Cancel", "/cancel"))))

    def _ask(self, user_id: int, wish: Wish) -> None:
        """Show the code that confirms `wish`."""
        asked = self._codes.ask(user_id, wish.name, {"asks": wish.asks, "arguments": wish.arguments}, self._now())
        words = " ".join(str(value) for value in wish.arguments.values()) or "all"
        self._say(f"<b>/{wish.name}</b> {phone.escaped(words, 100)}: type <code>{asked.code}</code> within {self._settings.code_valid_s} s "
                  "to do it.", CANCEL)

    async def _code(self, said: Said) -> None:
        if not (said.text.isascii() and said.text.isdigit()):
            self._say("I understand commands only: /help")
            return
        asked = self._codes.redeem(said.user_id, said.text, self._now())
        if not isinstance(asked, Asked):
            self.gate.refused["wrong_code"] += 1
            self._say(phone.escaped(asked[0].upper() + asked[1:] + "."))
            return
        arguments = dict(asked.arguments["arguments"])
        if asked.command in ("funds", "reload_config"):
            arguments["confirm"] = True
        await self._carry_out(Wish(asked.command, asked.arguments["asks"], arguments), said.user_id)

    async def _carry_out(self, wish: Wish, user_id: int) -> None:
        by = f"telegram:{user_id}"
        if wish.name == "reconcile":
            self._later(self._reconcile(wish, by))
            return
        # Whatever a report stumbles over is told and logged, and the next command is heard all the same.
        documents, error = attempt(lambda: {ask: self._desk.handle(ask, wish.arguments, by) for ask in wish.asks})
        if error is None and wish.name in PICTURES:
            self._draw(wish, documents)
            return
        if error is None:
            text, error = attempt(phone.show, wish, documents)
        if error is None:
            self._say(text, rank=Rank.KILL if wish.name == "kill" else Rank.ANSWER)
        else:
            self._failed(wish, error)

    def _failed(self, wish: Wish, error: Exception) -> None:
        if isinstance(error, BotError):
            self._say(phone.escaped(error, 1_000))
            return
        log.error("a command could not be answered", reason=f"{wish.name}: {type(error).__name__}: {error}")
        self._say(f"/{wish.name} failed: {phone.escaped(type(error).__name__)}. The log says more.")

    async def _reconcile(self, wish: Wish, by: str) -> None:
        try:
            self._say(phone.show(wish, {"reconcile": await self._desk.answer("reconcile", {}, by)}))
        except BotError as refusal:
            self._say(phone.escaped(refusal, 1_000))

    def _draw(self, wish: Wish, documents: Mapping[str, Any]) -> None:
        if self._drawing:
            self._say("A picture is being drawn; one at a time.")
            return
        self._drawing = True
        self._later(self._picture(wish, documents))

    async def _picture(self, wish: Wish, documents: Mapping[str, Any]) -> None:
        try:
            photo = await pictures.drawn(wish.name, documents[wish.name])
            text = f"Equity of the last {documents['equity']['days']} days" if wish.name == "equity" else phone.caption(wish, documents)
            self._put(Message(Rank.ANSWER, text, photo=photo))
        except BotError as refusal:
            self._say(phone.escaped(refusal))
        finally:
            self._drawing = False

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside listening; what Telegram refuses of it is no loss."""
        assert self._group is not None
        self._group.create_task(self._quietly(work))

    @staticmethod
    async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
        from telegram.error import TelegramError

        try:
            await work
        except TelegramError as error:
            log.info("Telegram refused", reason=f"{type(error).__name__}: {error}")

    # -- what we say -----------------------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            # Waiting before choosing: whoever came first in importance meanwhile goes first.
            await asyncio.sleep(max(0.0, self._not_before - loop.time()))
            if lost := self.outbox.confess():
                self.outbox.put(Message(Rank.WARNING, f"{lost} less important messages were dropped while Telegram took none.",
                                        together=True))
            parcel = self.outbox.take()
            if parcel is None:
                self._wake.clear()
                self._idle.set()
                continue
            try:
                delay = await self._try(parcel)
            except asyncio.CancelledError:
                self.outbox.give_back(parcel)
                raise
            self._not_before = loop.time() + delay

    async def _try(self, parcel: Parcel) -> float:
        """Send one parcel or put it back; seconds until the next may go."""
        from telegram.error import BadRequest, Forbidden, InvalidToken, RetryAfter, TelegramError

        try:
            try:
                await self._wire.send(self._bot, self._settings.chat_id, parcel.message)
            except BadRequest as error:
                # Our markup or their mood: plain text has nothing to be refused.
                log.warning("Telegram refused a message as it was", reason=str(error))
                await self._wire.send(self._bot, self._settings.chat_id, parcel.message, plain=True)
        except RetryAfter as error:
            self.outbox.give_back(parcel)
            return self._wire.seconds(error.retry_after)
        except BadRequest as error:
            self._troubled("sending", error)
            if parcel.message.rank is not Rank.KILL:
                self.undeliverable += len(parcel.parts)
                return self._pace.spacing_s
            self.outbox.give_back(parcel)
            return self._backed_off()
        except (Forbidden, InvalidToken) as error:
            self._troubled("sending", error)
            self.outbox.give_back(parcel)
            return self._pace.longest_pause_s
        except TelegramError as error:
            self._troubled("sending", error)
            self.outbox.give_back(parcel)
            return self._backed_off()
        self.sent += 1
        self._told_at = self._now()
        self._pause = self._pace.first_pause_s
        return self._pace.spacing_s

    def _backed_off(self) -> float:
        pause, self._pause = self._pause, min(2.0 * self._pause, self._pace.longest_pause_s)
        return pause

    # -- signs of life -----------------------------------------------------------------------------------------------------------

    def _day(self, at: int) -> int:
        """Number of the day whose summary is due next after `at`."""
        return (at - self._settings.summary_hour * 3_600_000) // DAY_MS

    async def _remind(self) -> None:
        while True:
            await asyncio.sleep(self._pace.remind_s)
            self.remind()

    def remind(self) -> None:
        """Queue the heartbeat and the daily and weekly summary when their time has come."""
        now = self._now()
        quiet_ms = self._settings.heartbeat_h * 3_600_000
        if quiet_ms and now - self._told_at >= quiet_ms and (level := self._settings.level("heartbeat")) != "off":
            self._told_at = now
            self._put(Message(Rank.INFO, phone.heartbeat(self._desk.handle("status", {}, "")), silent=level == "silent", key="heartbeat"))
        if self._day(now) > self._summed:
            self._summed = self._day(now)
            self._summarize("Yesterday", 1)
            if now // DAY_MS % 7 == 4:    # 1970-01-01 was a Thursday, so days 4, 11 ... are Mondays
                self._summarize("Last week", 7)

    def _summarize(self, title: str, days: int) -> None:
        level = self._settings.level("summary")
        if level != "off":
            status, profit = self._desk.handle("status", {}, ""), self._desk.handle("profit", {"n": days}, "")
            self._put(Message(Rank.INFO, phone.summary(title, profit, status), silent=level == "silent", key=title))


__all__ = ["Pace", "TelegramAgent"]
