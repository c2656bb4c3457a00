"""The daemon told to end while others hang: it ends, and nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from modules.domain.events import Filled, OrderInDoubt, OrderSent, TradeAbandoned
from modules.domain.instrument import AssetClass
from modules.runtime.clock import WallClock
from modules.store.journal import Journal
from modules.venues.absent import Absent
from tests.bybit_worlds import SPOT
from tests.daemon_process import ROOT
from tests.emulators.frame import Fault, Reply
from tests.live_worlds import above, life
from tests.test_live_binance import BinanceWorld, on_binance
from tests.test_live_bybit import HIGH
from tests.timing import PATIENCE_S

STUCK = """
import asyncio, sys, time
from modules.runtime.leaving import leave_after

async def life():
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 36_000)  # as a name server that does not answer
    await asyncio.sleep(0)
    print("said")
    leave_after(0.2, 7)

asyncio.run(life())
"""


class Clinging(Absent):
    """It never lets go."""

    async def close(self) -> None:
        await asyncio.Event().wait()


async def test_a_venue_that_does_not_let_go_keeps_no_file_from_being_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    made = life([Clinging("binance")], WallClock(), tmp_path, strategies={AssetClass.SPOT: above(AssetClass.SPOT, level=1.0)},  # type: ignore[list-item]
                settlement={AssetClass.SPOT: "USDT"}, journal=journal, venue_of={AssetClass.SPOT: "binance"})
    async with asyncio.timeout(PATIENCE_S):
        await made.daemon.close()
    with pytest.raises(Exception, match="closed"):
        journal.append(OrderSent(1, "tb1"))


def test_a_thread_that_nothing_can_cancel_is_left_behind_and_all_was_said() -> None:
    ended = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (ended.returncode, ended.stdout) == (7, "said\n"), ended.stderr


def test_an_order_on_its_way_when_it_is_told_to_end_is_in_doubt_for_the_next_start_and_lost_to_nobody(tmp_path: Path) -> None:
    async def story(on: BinanceWorld) -> None:
        first = await on.starts()
        on.binance.faults.append(Fault("/api/v3/order", Reply(how="stall"), False, "POST"))
        on.price(HIGH)
        on.minute()
        await first.until(lambda: not on.binance.faults, "it is on its way, and nothing comes back")
        await first.end()
        assert not first.of(OrderInDoubt) and SPOT not in {fact.fill.symbol for fact in first.of(Filled)}
        second = await on.starts()
        told = {fact.client_order_id: fact.reason for fact in second.of(OrderInDoubt)}
        (sent,) = [record.order for record in first.daemon.executor.orders.values() if record.order.symbol == SPOT]
        assert told[sent.client_order_id] == "sent, and no answer before the restart"
        await second.until(lambda: sent.trade_id in {fact.trade_id for fact in second.of(TradeAbandoned)}, "its absence is proven")
        assert not second.of(Filled) or SPOT not in {fact.fill.symbol for fact in second.of(Filled)}
        assert all(count == 1 for count in on.sent().values())
        await second.end()

    on_binance(tmp_path, story)
