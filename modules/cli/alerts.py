"""Sends one test message over each alert channel that is configured: a channel nobody has heard from is none."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from modules.cli import channels
from modules.domain.errors import ConfigurationError
from modules.domain.settings import MqttSettings, Settings, TelegramSettings

PATIENCE_S: Final = 15.0


def test(settings: Settings, words: str) -> list[tuple[str, str]]:
    """(channel, what went wrong); "" = the message was taken. [] = no channel is configured."""
    tried = []
    if settings.telegram is not None:
        tried.append(("Telegram", asyncio.run(_telegram(settings.telegram, words))))
    if settings.mqtt is not None:
        tried.append(("MQTT", asyncio.run(_mqtt(settings.mqtt, settings.instance_id, words))))
    return tried


async def _telegram(settings: TelegramSettings, words: str) -> str:
    from telegram.error import TelegramError

    from modules.notify.telegram_wire import bot_for

    if not settings.chat_id:
        return "chat_id is not set: doctor --telegram shows it"
    try:
        token = channels.secret(settings.token, settings.token_file, "telegram.token_file")
        bot, requests = bot_for(settings.base_url, token, PATIENCE_S)
    except ConfigurationError as error:
        return "; ".join(error.faults)
    try:
        for request in requests:
            await request.initialize()
        await bot.send_message(settings.chat_id, words)
    except TelegramError as error:
        return f"Telegram does not take it: {error}"
    finally:
        for request in requests:
            await request.shutdown()
    return ""


async def _mqtt(settings: MqttSettings, instance: str, words: str) -> str:
    from aiomqtt import Client, MqttError

    from modules.notify import mqtt

    name = settings.instance_id or instance
    try:
        mqtt.check_wire(settings)
        password = channels.secret(settings.password, settings.password_file, "mqtt.password_file")
        context = mqtt.tls_context(settings)
    except ConfigurationError as error:
        return "; ".join(error.faults)
    try:
        async with asyncio.timeout(PATIENCE_S), Client(
                settings.host, settings.port, username=settings.username or None, password=password or None, tls_context=context,
                identifier=f"{settings.namespace}-{name}-test", timeout=PATIENCE_S) as client:
            await client.publish(f"{settings.namespace}/{name}/notify", json.dumps({"text": words}), qos=1)
    except (MqttError, TimeoutError, OSError) as error:
        return f"the broker does not take it: {error or 'no answer in time'}"
    return ""
