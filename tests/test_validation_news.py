"""Validation hears the news as the daemon would have: the same entries blocked, the same sizes lowered, and nothing before it was seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import common, parity
from modules.backtest.heard import with_news
from modules.backtest.series import Series
from modules.cli.app import run
from modules.domain.instrument import AssetClass
from modules.news.items import Item
from modules.news.releases import Snapshot
from modules.news.store import NewsStore
from modules.venues.protocol import MacroEvent
from tests.test_kernel import NEEDS_DATA, plain, rules, strategy
from tests.test_series import MINUTE, START, walk

DAY = 86_400_000
LATE = int(common.policies().costs.latency_ms)


def bars(symbol: str = "BTC/USDT", asset_class: AssetClass = AssetClass.SPOT, count: int = 600) -> dict[str, Series]:
    one = walk(count, asset_class)
    base, _, quote = symbol.partition("/")
    return {symbol: replace(one, symbol=symbol, instrument=replace(one.instrument, symbol=symbol, base=base, quote=quote),
                            volume=np.full(count, 1e6), quote_volume=np.full(count, 1e8))}


def told(*headlines: tuple[int, str, str]) -> NewsStore:
    store = NewsStore(None)
    store.add([Item(START + minute * MINUTE, domain, domain, title, title) for minute, domain, title in headlines])
    return store


GLOOM = ((30, "a.example", "Bitcoin crashes as sellers panic"), (35, "b.example", "Bitcoin plunges in heavy losses"),
         (40, "c.example", "Bitcoin slumps after record outflows"), (41, "d.example", "Bitcoin tumbles to new lows as fear spreads"))


def news(series: dict[str, Series], store: NewsStore | None, *events: MacroEvent) -> np.ndarray:
    (one,) = with_news(series, common.policies(), events, store).values()
    return one.news


def test_a_mood_holds_from_the_bar_at_which_its_headlines_had_been_seen() -> None:
    (one,) = series = (*bars().values(),)
    found = news({one.symbol: one for one in series}, told(*GLOOM))
    seen = one.at >= START + 35 * MINUTE
    assert np.isnan(found[~seen, 0]).all() and (found[seen, 0] < 0.0).all()
    after = one.at + LATE >= START + 35 * MINUTE
    assert (np.isfinite(found[:, 1]) == after).all()


def test_later_headlines_change_no_earlier_bar() -> None:
    series = bars()
    hack = (300, "e.example", "Bybit exchange hacked, $1.4 billion drained")
    whole, part = news(series, told(*GLOOM, hack)), news(series, told(*GLOOM))
    (one,) = series.values()
    before = one.at < START + 300 * MINUTE
    np.testing.assert_array_equal(whole[before], part[before])
    assert np.isinf(whole[~before]).all() and not np.isinf(part).any()


def test_what_is_passed_on_closes_entries_only_when_the_second_domain_told_it() -> None:
    series, title = bars(), "Bybit exchange hacked, $1.4 billion drained"
    store = NewsStore(None)
    store.add([Item(START + minute * MINUTE, "cryptopanic", domain, domain, title)
               for minute, domain in ((50, "a.example"), (80, "b.example"))])
    (one,) = series.values()
    np.testing.assert_array_equal(np.isinf(news(series, store)[:, 0]), one.at >= START + 80 * MINUTE)


def test_an_event_of_one_currency_closes_its_pairs_alone() -> None:
    event = MacroEvent(START + 120 * MINUTE, "HIGH", "GDP", "GBP", "feed")
    cable, other = bars("GBP/USD", AssetClass.FOREX), bars("EUR/JPY", AssetClass.FOREX)
    (one,) = cable.values()
    before, after = common.policies().news.windows["HIGH"]
    inside = (one.at >= event.at - before * MINUTE) & (one.at <= event.at + after * MINUTE)
    np.testing.assert_array_equal(np.isinf(news(cable, None, event)[:, 0]), inside)
    assert len(news(other, None, event)) == 0 and len(news(bars(), None, event)) == 0


def test_a_release_that_a_feed_moved_closes_the_new_hours_from_the_fetch_on() -> None:
    series = bars(count=2 * 1440)
    (one,) = series.values()
    planned, moved = START + 300 * MINUTE, START + 1700 * MINUTE
    store = NewsStore(None)
    store.add_snapshot(Snapshot(START + 290 * MINUTE, "weekly", START - DAY, START + 6 * DAY, False,
                                (MacroEvent(moved, "CPI", "CPI m/m", "USD", "weekly"),)))
    found = np.isinf(news(series, store, MacroEvent(planned, "CPI", "CPI", "USD", "file"))[:, 0])
    before, after = common.policies().news.windows["CPI"]
    expected = (one.at >= planned - before * MINUTE) & (one.at < START + 290 * MINUTE)
    expected |= (one.at >= moved - before * MINUTE) & (one.at <= moved + after * MINUTE)
    np.testing.assert_array_equal(found, expected)


def test_a_mood_against_the_trade_denies_it_and_a_milder_one_shrinks_it() -> None:
    (one,) = bars().values()
    gated = replace(rules(), gates=True)
    risk = common.policies().risk
    bound, least = float(risk.mood_against), float(risk.mood_size_at_limit)
    sizes = []
    for mood in (np.nan, 1.0, 0.0, -bound / 2, -bound, -bound - 1e-9, np.inf):
        trades = plain(strategy(), replace(one, news=np.full((len(one), 2), mood)), gated).trades
        sizes.append(float(trades["quantity"][0]) if len(trades) else 0.0)
    full = sizes[0]
    assert sizes == pytest.approx([full, full, full, full * (1.0 - (1.0 - least) / 2), full * least, 0.0, 0.0])
    assert full > 0.0


def test_a_news_series_has_another_digest_and_keeps_its_news_when_it_is_cut() -> None:
    (one,) = bars().values()
    (heard,) = with_news({one.symbol: one}, common.policies(), (), told(*GLOOM)).values()
    assert heard.digest != one.digest
    np.testing.assert_array_equal(heard.part(10, 100).news, heard.news[10:100])
    (same,) = with_news({one.symbol: one}, common.policies(), ()).values()
    assert same.digest == one.digest


@NEEDS_DATA
@pytest.mark.parametrize(("case", "name", "count"), [
    (0, "random_01", 2500), pytest.param(8, "random_03", 1200, marks=pytest.mark.slow)])
def test_the_kernel_trades_what_the_daemon_trades_on_a_recording_with_headlines(case: int, name: str, count: int) -> None:
    of = parity.CASES[case]
    daemon = parity.in_a_process_of_its_own(of, name, parity.SHARED, count, news=True)
    ours, _ = parity.kernel_trades(of, name, parity.SHARED, count, compiled=False, news=True)
    deaf, _ = parity.kernel_trades(of, name, parity.SHARED, count, compiled=False)
    assert list(parity.differences(daemon, ours)) == []
    assert 20 < len(ours) < len(deaf), "some entries were blocked"
    sizes = {trade["entry_at"]: trade["quantity"] for trade in deaf}
    assert any(trade["quantity"] < 0.9 * sizes.get(trade["entry_at"], 0.0) for trade in ours), "some sizes were lowered"


@pytest.mark.parametrize(("content", "said"), [(None, "is not a file"), (b"no database at all, but long enough to be one", "news.db")])
def test_a_recording_that_is_none_is_one_clear_error(tmp_path: Path, content: bytes | None, said: str, monkeypatch: pytest.MonkeyPatch,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BOT__STATE_DIR", str(tmp_path / "state"))
    path = tmp_path / "news.db"
    if content is not None:
        path.write_bytes(content)
    assert run(["validate", "-s", "trend", "--data", str(tmp_path), "--news", str(path)]) == 4
    assert said in capsys.readouterr().err
