"""News in the whole daemon, on the demo market: a window and an extraordinary headline keep it from opening, never from closing."""

from __future__ import annotations

from pathlib import Path

import main
from modules.domain.events import BlackoutOpened, PositionClosed, TradeOpened
from modules.domain.instrument import AssetClass
from modules.domain.settings import DEMO_WALLETS
from modules.news.calendar import Calendar
from modules.news.items import Item
from modules.news.setup import Setup
from modules.news.store import NewsStore
from modules.strategies.registry import all_strategies
from modules.venues.demo_market import DemoMarket
from modules.venues.protocol import MacroEvent
from tests.builders import shipped_policies

HOUR = 3_600_000


def test_entries_wait_for_windows_and_cautions_while_exits_go_on(tmp_path: Path) -> None:
    shipped = shipped_policies()
    # Payrolls whose window lasts for a day and a half, from the second noon on; and a headline in the first hour, closed for 12 hours.
    news = shipped.news.model_copy(update={"windows": {**shipped.news.windows, "NFP": (0, 36 * 60)}})
    policies = shipped.model_copy(update={"news": news})
    source = DemoMarket(7, 3)
    hacked, payrolls = source.start + HOUR, source.start + 36 * HOUR
    store = NewsStore(tmp_path / "news.db")
    store.add([Item(hacked, "desk", "desk.example", "1", "Bybit exchange hacked, $1.4 billion in ether stolen")])
    calendar = Calendar([MacroEvent(payrolls, "NFP", "payrolls", "USD", "test")], news, {})
    strategies = {c: [s for s in all_strategies().values() if c in s.asset_classes] for c in AssetClass}
    run = main.simulate(source, policies=policies, wallets=DEMO_WALLETS, calendar=calendar, strategies=strategies, folder=tmp_path,
                        news=Setup(store))
    facts = [fact for _, fact in run.daemon.journal.facts()]
    opened = [fact for fact in facts if isinstance(fact, TradeOpened)]
    closed = [fact for fact in facts if isinstance(fact, PositionClosed)]
    until = hacked + int(news.cautions.hours["exchange_hack"] * HOUR)
    crypto = [fact.at for fact in opened if fact.asset_class is not AssetClass.FOREX]
    assert not [at for at in crypto if hacked <= at <= until]
    assert [at for at in crypto if until < at < payrolls]
    assert not [fact for fact in opened if fact.at >= payrolls]
    assert [fact for fact in closed if fact.at > payrolls]
    assert [fact.event for fact in facts if isinstance(fact, BlackoutOpened)] == [
        "caution exchange_hack: Bybit exchange hacked, $1.4 billion in ether stolen", "NFP payrolls"]
