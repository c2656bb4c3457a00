"""`doctor --telegram`: who is talking to the bot, so that the owner can put the two ids into the settings. Reads, confirms nothing.

A message is only looked at: the daemon that starts afterward sees it too, and judges it itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from modules.cli import channels, inputs
from modules.cli.output import emit
from modules.domain.errors import ConfigurationError, NotFound, OperatorRefused
from modules.domain.settings import TelegramSettings

if TYPE_CHECKING:
    from rich.console import Console

WAIT_S: Final = 60
PATIENCE_S: Final = 10.0
NAME_MAX: Final = 40


def run(arguments: argparse.Namespace) -> int:
    """Wait for a message and show its ids. Raises ConfigurationError without [telegram], NotFound if nobody spoke."""
    settings = inputs.settings_only(arguments).telegram
    if settings is None:
        raise ConfigurationError(["telegram: is not configured; make a bot with @BotFather, put its token into a file of your own "
                                  "(chmod 600) and say [telegram] token_file = \"...\" in config.toml"])
    token = channels.secret(settings.token, settings.token_file, "telegram.token_file")
    print(f"Send your bot any message now; waiting up to {WAIT_S} s ...", file=sys.stderr)
    emit(arguments, asyncio.run(look(settings, token)), _show)
    return 0


async def look(settings: TelegramSettings, token: str, wait_s: int = WAIT_S) -> dict[str, Any]:
    """{"seen": [{chat_id, user_id, name, private}]} of the first messages that come."""
    from telegram.error import Conflict, InvalidToken, TelegramError

    from modules.notify.telegram_wire import bot_for

    bot, requests = bot_for(settings.base_url, token, PATIENCE_S)
    try:
        for request in requests:
            await request.initialize()
        updates = await bot.get_updates(timeout=wait_s, allowed_updates=["message"])
    except InvalidToken:
        raise OperatorRefused("Telegram does not know this token; copy it from @BotFather again") from None
    except Conflict:
        raise OperatorRefused("another program listens with this token, probably the daemon: stop it first") from None
    except TelegramError as error:
        raise OperatorRefused(f"Telegram cannot be asked: {error}") from None
    finally:
        for request in requests:
            await request.shutdown()
    seen = {(update.message.chat.id, update.message.from_user.id): update.message for update in updates
            if update.message is not None and update.message.from_user is not None}
    if not seen:
        raise NotFound("nobody wrote to the bot; open it in Telegram, press Start, and ask again")
    return {"seen": [{
        "chat_id": chat_id, "user_id": user_id, "private": message.chat.type == "private",
        "name": "".join(c for c in (message.from_user.full_name if message.from_user else "") if c.isprintable())[:NAME_MAX]}
        for (chat_id, user_id), message in seen.items()]}


def _show(out: Console, document: Mapping[str, Any]) -> None:
    for who in document["seen"]:
        out.print(f"{who['name']}: chat_id = {who['chat_id']}, user id {who['user_id']}"
                  + ("" if who["private"] else " (a group: commands are taken in a private chat only)"), markup=False)
    mine = next((who for who in document["seen"] if who["private"]), None)
    if mine is not None:
        out.print(f"If that is you:\n[telegram]\nchat_id = {mine['chat_id']}\nuser_ids = [{mine['user_id']}]", markup=False)
