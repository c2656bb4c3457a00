"""The way to Telegram: the library's client with our time-outs, and what its updates are in our words. Imported only where it is wanted."""

from __future__ import annotations

import html
import os
import re
from datetime import timedelta
from typing import Any, Final

os.environ.setdefault("PTB_TIMEDELTA", "1")    # its coming way to tell waits; the old one warns on stderr

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.constants import ParseMode
from telegram.request import HTTPXRequest

from modules.domain.errors import ConfigurationError
from modules.notify.gate import Said
from modules.notify.outbox import Message

TELEGRAM: Final = "https://api.telegram.org"
CONNECTIONS: Final = 4


def bot_for(base_url: str, token: str, patience_s: float) -> tuple[Bot, list[HTTPXRequest]]:
    """A client and its two connections (a question for news is always open, and nothing may wait behind it).

    Raises ConfigurationError for an address that is neither https nor loopback: the token is in every request's path.
    """
    if base_url and not re.match(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])([:/]|$)", base_url):
        raise ConfigurationError([f"telegram.base_url = {base_url!r}: must be https (http only on loopback)"])
    requests = [HTTPXRequest(
        connection_pool_size=CONNECTIONS, read_timeout=patience_s, write_timeout=patience_s, connect_timeout=patience_s,
        pool_timeout=patience_s, media_write_timeout=patience_s) for _ in range(2)]
    address = f"{(base_url or TELEGRAM).rstrip('/')}/bot"
    return Bot(token, base_url=address, request=requests[0], get_updates_request=requests[1]), requests


async def send(bot: Bot, chat_id: int, message: Message, *, plain: bool = False) -> None:
    """One message or photo. `plain`: without markup and buttons, so that there is nothing to be refused. Raises TelegramError."""
    text = html.unescape(re.sub(r"</?[a-z]+>", "", message.text)) if plain else message.text
    keyboard = InlineKeyboardMarkup([[InlineKeyboardButton(label, callback_data=data) for label, data in row]
                                     for row in message.buttons]) if message.buttons and not plain else None
    how: dict[str, Any] = {"disable_notification": message.silent, "reply_markup": keyboard,
                           "parse_mode": None if plain else ParseMode.HTML}
    if message.photo is not None:
        await bot.send_photo(chat_id, message.photo, caption=text, filename="picture.png", **how)
    else:
        await bot.send_message(chat_id, text, **how)


def seconds(retry_after: float | timedelta) -> float:
    return retry_after.total_seconds() if isinstance(retry_after, timedelta) else float(retry_after)


def said(update: Update, now: int) -> Said:
    """What an update is; nothing in it is believed yet."""
    tap = update.callback_query
    if tap is not None:
        chat = tap.message.chat if tap.message is not None else None
        private = chat is not None and chat.type == "private"
        return Said(update.update_id, tap.from_user.id, chat.id if chat is not None else 0, private, now, tap.data or "",
                    "" if tap.data else "no_text")
    message = update.message or update.edited_message
    if message is None:
        return Said(update.update_id, update.effective_user.id if update.effective_user is not None else 0,
                    update.effective_chat.id if update.effective_chat is not None else 0, False, now, "", "other")
    foreign = ("edited" if update.message is None else "forwarded" if message.forward_origin is not None
               else "via_bot" if message.via_bot is not None else "other" if message.sender_chat is not None
               else "no_text" if message.text is None else "")
    user = message.from_user
    return Said(update.update_id, user.id if user is not None and not user.is_bot else 0, message.chat.id, message.chat.type == "private",
                int(message.date.timestamp() * 1000), (message.text or "").strip(), foreign)
