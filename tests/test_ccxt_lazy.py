"""ccxt loaded one exchange at a time, and what waits for a venue's limits."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable
from typing import Any

from modules.domain.order import Accepted, OrderKind
from modules.venues.ccxt_client import WRITES_LEFT
from tests.binance_worlds import binance
from tests.bybit_worlds import SPOT, order
from tests.daemon_process import ROOT

LOADED = """
import json, sys
from modules.venues import factory
factory.prepare(("binance", "oanda", "nonsense"))
print(json.dumps([name for name in sys.modules if name.startswith("ccxt.")]))
"""
ALL = """
import json
from modules.venues import ccxt_lazy
ccxt_lazy.install()
import ccxt.pro
packages = (ccxt, ccxt.async_support, ccxt.pro)
lazy = sum(len(package._exchanges) for package in packages)
classes = [getattr(package, name) for package in packages for name in package.exchanges]
from ccxt.async_support.kraken import kraken
whole = all(isinstance(one, type) and one.__module__.startswith("ccxt") for one in classes)
print(json.dumps([lazy, len(classes), whole, ccxt.async_support.kraken is kraken, hasattr(ccxt.pro, "nonsense")]))
"""


def said_by(program: str) -> Any:
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)


def test_only_the_exchange_that_is_asked_for_is_loaded() -> None:
    loaded = said_by(LOADED)
    assert {"ccxt.pro.binance", "ccxt.async_support.binance"} <= set(loaded)
    others = {name for name in loaded if name.rpartition(".")[2] in ("bybit", "kraken", "okx", "deribit")}
    assert not others
    assert len(loaded) < 60, "ccxt has 400 modules"


def test_every_exchange_of_ccxt_is_there_when_it_is_named_and_is_its_class() -> None:
    lazy, classes, whole, same, nonsense = said_by(ALL)
    assert lazy == classes > 200, "ccxt's packages are written in another way: what they say of exchanges is no longer left out"
    assert (whole, same, nonsense) == (True, True, False)


async def _waits(waiting: Awaitable[Any]) -> asyncio.Task[Any]:
    task = asyncio.ensure_future(waiting)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_an_order_waits_behind_no_question_that_waits_for_the_venues_limits() -> None:
    async with binance() as (venue, made):
        await made.known()
        made.trade.enableRateLimit = True
        await made.trade.throttle(1_000_000.0)  # hours of the venue's limits
        question = await _waits(made.wallet())
        resting = order("1", SPOT, kind=OrderKind.LIMIT, price="40000")
        assert isinstance(await made.submit(resting), Accepted)
        assert isinstance(await made.cancel(resting), Accepted)
        assert not question.done()
        question.cancel()
        await asyncio.gather(question, return_exceptions=True)
        assert WRITES_LEFT.get() is None
        assert not venue.asked["GET /api/v3/account"]
