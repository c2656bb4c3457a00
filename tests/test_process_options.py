"""Paper with options as a user runs it: the real process, two lines of settings, Bybit's public prices on loopback."""

from __future__ import annotations

import signal
from decimal import Decimal
from pathlib import Path

import pytest

from modules.domain.events import Filled
from modules.domain.instrument import Side
from modules.store.journal import Journal
from tests import venue_threads
from tests.emulators import bybit as emulator
from tests.mode_process import Hurry, Modes, changed, installation

DAY_MS = 86_400_000
SPREADS = '''"""Sells a call spread above a price."""
from typing import Any, NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.signal import Intent, Structure
from modules.strategies.protocol import Market, Strategy


class Params(NamedTuple):
    level: float = 50500.0


def init(params: Params) -> int:
    return 0


def step(state: int, market: Market, params: Params) -> tuple[int, Intent]:
    """Flat below the level."""
    return state, Intent(-0.9 if market.close > params.level else 0.0, 0.0, 0.0, 0)


STRATEGY = Strategy("above", "sells a call spread above a price", (AssetClass.OPTION,), Params(), init, step, 1,
                    structure=Structure.CREDIT_SPREAD, days=2.5, delta=0.4, width=0.05)
'''
SETTINGS = """
[strategies]
SPOT = []
PERP = []
OPTION = ["above"]
FOREX = []
[dry_run_wallet]
OPTION = "15000"
[venues.bybit]
classes = ["PERP", "OPTION"]
symbols = ["BTC/USDT:USDT"]
endpoint = "{url}"
timeframe = "1m"
options = {{ every_s = 1.0 }}
"""


class Listed(Hurry):
    """The same, with an expiry of options in four days."""

    async def run(self, venue: emulator.BybitEmulator) -> None:
        venue.market.options.list("BTC", (venue.now() // DAY_MS + 4) * DAY_MS, *(str(40_000 + 500 * step) for step in range(41)))
        await super().run(venue)


@pytest.mark.slow
def test_paper_sells_a_spread_at_live_prices_is_killed_comes_back_and_buys_it_back(tmp_path: Path) -> None:
    app, hurry = installation(tmp_path, SPREADS), Listed()
    changed(app, "risk", bar_late_s_max=100_000, frozen_bars_max=1000, clock_offset_s_max=10, quote_age_s_max=30)
    with venue_threads.served(emulator.serving, hurry.run) as venue:
        process = Modes(app, "paper", SETTINGS.format(url=venue.url))
        try:
            process.start()
            process.wait("it has started", process.running)
            process.wait("it has warmed up", process.warm)
            process.wait("chains are asked for", lambda: venue.asked["/v5/market/tickers"] > 2)
            hurry.price = "51000"
            process.wait("a spread", lambda: process.ask("status")["classes"]["OPTION"]["open_positions"] > 0)
            process.wait("both legs", lambda: len(_fills(process)) == 2)
            process.stop(signal.SIGKILL)
            process.start()
            process.wait("it has started again", process.running)
            process.wait("it has warmed up again", process.warm)
            assert process.ask("status")["classes"]["OPTION"]["open_positions"] > 0
            hurry.price = "50000"
            process.wait("its end", lambda: process.ask("status")["classes"]["OPTION"]["open_positions"] == 0)
            shown = process.ask("status")["classes"]["OPTION"]["equity"]
            assert process.stop() == 0
        finally:
            process.end()
        fills = _fills(process)
        assert [fill.fill.side for fill in fills[:2]] == [Side.BUY, Side.SELL], "the protective leg first"
        assert sorted(fill.fill.side for fill in fills[2:]) == [Side.BUY, Side.SELL]
        assert fills[2].fill.side is Side.BUY, "what was sold is bought back before what protects it is sold"
        cash = Decimal(15_000)
        for one in fills:
            cash -= one.fill.side.sign * one.fill.quantity * one.fill.price + one.fill.fee
        assert Decimal(shown) == cash
        assert venue.bodies == [] and not [path for path in venue.asked if "/market/" not in path]


def _fills(process: Modes) -> list[Filled]:
    with Journal(process.state / "journal.sqlite", read_only=True) as journal:
        return [fact for _, fact in journal.facts() if isinstance(fact, Filled)]
