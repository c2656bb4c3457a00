"""Options with real money as a user runs them: the real process in mode live on an emulated Bybit. Its drill, the checklist, a spread, a
`kill -9` in the middle of the second leg, a second life, the kill switch; books that are the venue's to the last unit."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modules.domain.events import BalanceAdjusted, Fact, Filled, FundingBooked, OptionSettled, OrderInDoubt, OrderSent, PositionClosed
from modules.domain.instrument import Side
from modules.store.journal import Journal
from tests import venue_threads
from tests.emulators import bybit as emulator
from tests.mode_process import Modes, certify, changed, installation
from tests.option_worlds import short_of_cover_ms
from tests.test_process_options import SPREADS, Listed

D = Decimal
SETTINGS = """
[strategies]
SPOT = []
PERP = []
OPTION = ["above"]
FOREX = []
[venues.bybit]
classes = ["PERP", "OPTION"]
symbols = ["BTC/USDT:USDT"]
endpoint = "{url}"
timeframe = "1m"
key_file = "{key}"
allocate = {{ PERP = "1000", OPTION = "9000" }}
options = {{ every_s = 1.0 }}
"""
NAKED_MS_MAX = 10_000


def made(folder: Path) -> Path:
    """An installation whose spreads may trade: certificate and switches."""
    app = installation(folder, SPREADS)
    changed(app, "risk", bar_late_s_max=100_000, frozen_bars_max=1000, clock_offset_s_max=10, quote_age_s_max=30)
    changed(app, "execution", wallet_poll_s=0.5, wallet_settle_s=0.3, difference_proof_s=0.3,
            doubt_query_spacing_s=[0.2, 0.5], doubt_proof_s=2)
    changed(app, "funds", funds_on=True, classes_on={"SPOT": False, "PERP": False, "OPTION": True, "FOREX": False})
    key = app / "bybit.key"
    key.write_text(f"key={emulator.KEY}\nsecret={emulator.SECRET}\n")
    key.chmod(0o600)
    certify(app, "above", "OPTION", ["BTC/USDT:USDT"])
    return app


def journaled(process: Modes) -> list[Fact]:
    with Journal(process.state / "journal.sqlite", read_only=True) as journal:
        return [fact for _, fact in journal.facts()]


def of(process: Modes, kind: Any) -> list[Any]:
    return [fact for fact in journaled(process) if isinstance(fact, kind)]


def held(venue: emulator.BybitEmulator) -> list[Decimal]:
    return sorted(holding.size for (kind, _), holding in list(venue.market.holdings.items()) if kind == "option" and holding.size)


@pytest.mark.slow
def test_live_spreads_outlive_a_kill_on_either_side_of_the_second_order_and_end_by_the_kill_switch(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, hurry = made(tmp_path), Listed()
    with venue_threads.served(emulator.serving, hurry.run) as venue:
        process = Modes(app, "live", SETTINGS.format(url=venue.url, key=app / "bybit.key"))
        try:
            drilled = process.verb("drill", "option", "--json")
            assert drilled.returncode == 0, drilled.stderr
            document = json.loads(drilled.stdout)
            assert document["passed"] and D(document["cost"]) == D(10_000) - venue.market.wallet["USDT"] > 0 and held(venue) == []
            checklist = json.loads(process.verb("go-live", "option", "--no-alerts", "--json").stdout)
            states = {line["what"]: line["state"] for line in checklist["lines"]}
            lines = ("settings", "venue", "doctor", "certificate", "drill", "funds switch")
            assert [states[name] for name in lines] == ["ok"] * len(lines), checklist
            drill_orders, before = len(venue.bodies), venue.market.wallet["USDT"]

            def rises() -> None:
                """By so little that a chain told before is still about what the venue asks: an order ends at once where it is not."""
                hurry.price = "50450"
                process.wait("it has warmed up", process.warm)
                asked = venue.asked["/v5/market/tickers"]
                process.wait("chains are asked for", lambda: venue.asked["/v5/market/tickers"] > asked + 2)
                hurry.price = "50550"

            def dies() -> None:
                """The failpoint's doing; `wait` would take it for a fault. A rise that came too early is made once more."""
                for _ in range(5):
                    rises()
                    if process.ends(seconds=15):
                        return
                pytest.fail(f"it never came to the second order: {process.out[-2000:]}")

            # The second order is on record and no byte of it left: it is searched for, proven absent, and the first leg is sold again.
            monkeypatch.setenv("FAILPOINT", "order.sent:kill@2")
            process.start()
            process.wait("it has started", process.running)
            dies()
            assert [size > 0 for size in held(venue)] == [True], "the protective leg is there, and nothing was sold"
            monkeypatch.delenv("FAILPOINT")
            process.start()
            process.wait("it has started again", process.running)
            process.wait("nothing is held", lambda: held(venue) == [] and process.ask("status")["classes"]["OPTION"]["open_positions"] == 0)
            assert len(of(process, OrderInDoubt)) == 1
            assert process.stop() == 0

            # The venue has both, and the answer to the second is not on record: it is found, and the spread is what it was to be.
            monkeypatch.setenv("FAILPOINT", "order.answered:kill@2")
            process.start()
            process.wait("it has started", process.running)
            dies()
            assert len(held(venue)) == 2
            monkeypatch.delenv("FAILPOINT")
            process.start()
            process.wait("it has started again", process.running)
            process.wait("it has warmed up again", process.warm)
            process.wait("two legs", lambda: len({fact.fill.symbol for fact in of(process, Filled)[-2:]}) == 2 and len(held(venue)) == 2)
            assert process.ask("status")["classes"]["OPTION"]["open_positions"] > 0

            # By hand, from the command line.
            assert process.verb("kill", "option").returncode == 0
            assert len(held(venue)) == 2, "a halt keeps what limits its own loss"
            assert process.verb("flatten", "option").returncode == 0
            process.wait("flat", lambda: held(venue) == [] and process.ask("status")["classes"]["OPTION"]["open_positions"] == 0)
            shown = {name: D(one["equity"]) for name, one in process.ask("status")["classes"].items()}
            assert process.stop() == 0
        finally:
            process.end()
        fills = [fact.fill for fact in of(process, Filled)]
        assert [fill.side for fill in fills[-2:]] == [Side.BUY, Side.SELL], "what was sold is bought back before what covers it is sold"
        sent = Counter(fact.client_order_id for fact in of(process, OrderSent))
        created = Counter(body["orderLinkId"] for path, body in venue.bodies[drill_orders:] if path.endswith("order/create"))
        assert set(sent.values()) == {1} and set(created.values()) == {1} and created.keys() <= sent.keys()
        assert len(sent.keys() - created.keys()) == 1, "one never left"
        cash = before
        for fill in fills:
            cash -= fill.side.sign * fill.quantity * fill.price + fill.fee
        assert cash == venue.market.wallet["USDT"] == sum(shown.values())
        assert not of(process, BalanceAdjusted) and not of(process, OptionSettled) and not of(process, FundingBooked)
        assert len(of(process, PositionClosed)) == 2
        assert short_of_cover_ms(venue.market) == 0
