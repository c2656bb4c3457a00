"""News_Agent: what decisions may know at an instant, live, after a restart and in a replay; what closes entries besides the calendar."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from modules.domain.errors import ConfigurationError, StoreUnreadable
from modules.domain.events import BlackoutClosed, BlackoutOpened, Fact
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.settings import NewsSettings
from modules.news.calendar import Calendar
from modules.news.items import Item
from modules.news.releases import Snapshot, parse_weekly
from modules.news.setup import FILE, Setup, from_settings
from modules.news.sources import SOURCES, Shape, Source
from modules.news.store import NewsStore
from modules.News_Agent import NewsAgent
from modules.store.journal import Journal
from modules.venues.protocol import MacroEvent
from tests.builders import make_instrument, shipped_policies
from tests.emulators.feeds import item as feed_item
from tests.emulators.feeds import rss, serving
from tests.test_news_mood import BAD, GOOD, HOUR, NOW
from tests.timing import PATIENCE_S

NEWS = shipped_policies().news
INSTRUMENTS = (make_instrument(AssetClass.SPOT), make_instrument(AssetClass.PERP), make_instrument(AssetClass.OPTION),
               make_instrument(AssetClass.FOREX))
NOWHERE = (Source("nowhere", Shape.XML, "http://127.0.0.1:9/", 60.0, "nowhere.example"),)


class Hand:
    """A clock set by hand; what is driven runs once."""

    speed = 1.0

    def __init__(self, at: int = NOW) -> None:
        self.at = at

    def now(self) -> int:
        return self.at

    async def sleep_until(self, at: int) -> None: ...

    async def settle(self) -> None: ...

    def pulse(self, at: int) -> None: ...

    def reach(self, at: int) -> bool:
        return True

    def busy(self) -> bool:
        return False

    def stir(self) -> None: ...

    async def drive(self, period_s: float, tick: object) -> None:
        await asyncio.Event().wait()


def agent(
    store: NewsStore | None, sources: Sequence[Source] = NOWHERE, events: Sequence[MacroEvent] = (), *, at: int = NOW,
    journal: Journal | None = None,
) -> NewsAgent:
    setup = None if store is None else Setup(store, sources)
    return NewsAgent(journal=journal or Journal(None), clock=Hand(at), calendar=Calendar(events, NEWS, {}), policy=NEWS, setup=setup)


def headline(title: str, domain: str, at: int = NOW, guid: str = "") -> Item:
    return Item(at, domain, domain, guid or title, title)


def campaign(seed: int) -> list[Item]:
    """Three days of headlines: repetitions, copies, edits, hype, other assets."""
    rng = random.Random(seed)
    others = ("EUR/USD climbs above 1.1000 as dollar weakens", "ECB turns dovish", "Dollar rallies on hot CPI", "Crypto market sheds $50bn",
              "Ether surges while bitcoin falls", "GET RICH WITH BITCOIN 100X NOW",
              "Bybit exchange hacked, ether stolen", "Solana rallies 9%")
    items, at = [], NOW
    for number in range(400):
        at += rng.randrange(0, 1_300_000)
        domain = f"{rng.choice('abcdef')}.example"
        title = rng.choice([*GOOD, *BAD, *others]) + rng.choice(["", "", f" in {rng.randrange(9)} charts", " - live"])
        items.append(Item(at, domain, domain, f"{domain}/{rng.randrange(number // 2 + 1)}", title, at - rng.randrange(0, 7_200_000),
                          ("BTC",) if rng.random() < 0.2 else ()))
    return items


Known = tuple[int, str, float | None, tuple[str, int | None]]


def look(news: NewsAgent, at: int) -> list[Known]:
    return [(at, i.symbol, news.mood(i, at), news.blackout(i.asset_class, (i.base, i.quote), at)) for i in INSTRUMENTS]


def test_a_recorded_store_replays_to_the_same_moods_and_cautions_bit_for_bit(tmp_path: Path) -> None:
    store = NewsStore(tmp_path / FILE)
    live, asked, known = agent(store), random.Random(1), list[Known]()
    for each in campaign(5):
        live.take([each])
        if asked.random() < 0.4:
            # Decisions are taken at a bar's close, some seconds before the headline that came last was seen, or long after it.
            known += look(live, each.first_seen + asked.choice([-20_000, -1, 0, 1, 400_000]))
    replayed = agent(NewsStore(tmp_path / FILE), ())
    assert [row for at in dict.fromkeys(at for at, *_ in known) for row in look(replayed, at)] == known
    assert sum(mood is not None for _, _, mood, _ in known) > 100 and any(name for *_, (name, _) in known)


def test_a_headline_that_comes_in_the_millisecond_of_a_decision_was_not_seen_by_it() -> None:
    store = NewsStore(None)
    news = agent(store)
    news.take([headline(BAD[0], "a.example")])
    assert news.mood(INSTRUMENTS[0], NOW + 5) is None
    news.take([headline(BAD[1], "b.example", NOW + 5)])
    assert news.mood(INSTRUMENTS[0], NOW + 5) is None
    assert news.mood(INSTRUMENTS[0], NOW + 6) is not None
    assert [each.first_seen for each in store.items()] == [NOW, NOW + 6]


def test_a_restarted_agent_knows_what_it_had_known(tmp_path: Path) -> None:
    store = NewsStore(tmp_path / FILE)
    before = agent(store)
    items = campaign(6)
    before.take(items)
    end = items[-1].first_seen + 1000
    after = agent(NewsStore(tmp_path / FILE), at=end)
    assert look(after, end) == look(before, end)
    assert after.cautions


def test_without_a_source_moods_are_silent_and_the_calendar_still_works() -> None:
    release = MacroEvent(NOW, "CPI", "CPI", "USD", "test")
    news = agent(None, events=[release])
    assert news.mood(INSTRUMENTS[0], NOW) is None
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), NOW) == ("CPI CPI", NOW + 30 * 60_000)


def test_an_exchange_hack_closes_crypto_entries_for_its_hours_and_is_announced_with_its_headline() -> None:
    journal, seen = Journal(None), list[Fact]()
    news = agent(NewsStore(None), journal=journal)
    journal.project(news.apply)
    journal.react(seen.append)
    with capture_logs() as logs:
        news.take([headline("Bybit exchange hacked, $1.4 billion stolen", "a.example")])
    name = "caution exchange_hack: Bybit exchange hacked, $1.4 billion stolen"
    until = NOW + int(NEWS.cautions.hours["exchange_hack"] * HOUR)
    for asset_class, closed in ((AssetClass.SPOT, True), (AssetClass.PERP, True), (AssetClass.OPTION, True), (AssetClass.FOREX, False)):
        assert news.blackout(asset_class, ("SOL", "USDT"), NOW + HOUR) == ((name, until) if closed else ("", None))
    assert news.blackout(AssetClass.SPOT, ("SOL", "USDT"), until + 1) == ("", None)
    for at in (NOW, NOW + HOUR, until, until + 1, until + HOUR):
        news.tick(at)
    assert seen == [BlackoutOpened(NOW, name, NOW, until, ("OPTION", "PERP", "SPOT")), BlackoutClosed(until + 1, name)]
    assert logs[0]["log_level"] == "error" and logs[0]["reason"] == name


def test_a_delisting_closes_its_coin_only() -> None:
    news = agent(NewsStore(None))
    news.take([headline("Binance to delist Monero next week", "a.example")])
    assert news.blackout(AssetClass.SPOT, ("XMR", "USDT"), NOW)[0].startswith("caution delisting")
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), NOW) == ("", None)


def test_a_moved_release_takes_its_window_along_while_running_and_after_a_restart(tmp_path: Path) -> None:
    release = MacroEvent(NOW + 30 * HOUR, "CPI", "CPI", "USD", "shipped")
    store = NewsStore(tmp_path / FILE)
    news = agent(store, events=[release])
    body = (b'[{"title": "CPI y/y", "country": "USD", "impact": "High", "date": "2026-03-05T08:30:00-05:00"},'
            b' {"title": "Wholesale", "country": "USD", "impact": "Low", "date": "2026-03-02T10:00:00-05:00"}]')
    with capture_logs() as logs:
        for _ in range(3):
            news.take_snapshot(parse_weekly(body, "forexfactory", NOW))
    moved = NOW + 3 * 24 * HOUR + 3 * HOUR + 30 * 60_000
    for each in (news, agent(NewsStore(tmp_path / FILE), events=[release]), agent(NewsStore(tmp_path / FILE), (), [release])):
        assert each.blackout(AssetClass.SPOT, ("BTC", "USDT"), release.at) == ("", None)
        assert each.blackout(AssetClass.SPOT, ("BTC", "USDT"), moved)[0] == "CPI CPI y/y"
    assert [(line["before"], line["after"]) for line in logs] == [(release.at, moved)]
    assert len(list(store.snapshots())) == 1


def test_new_policies_change_windows_and_moods_from_the_next_decision_on() -> None:
    news = agent(NewsStore(None), events=[MacroEvent(NOW + 2 * HOUR, "CPI", "CPI", "USD", "test")])
    news.take([headline(BAD[0], "a.example"), headline(BAD[1], "b.example")])
    assert news.mood(INSTRUMENTS[0], NOW + 10) is not None
    wider = NEWS.model_copy(update={"windows": {**NEWS.windows, "CPI": (180, 30)}, "mood": NEWS.mood.model_copy(update={"domains_min": 3})})
    news.adopt(wider)
    assert news.mood(INSTRUMENTS[0], NOW + 10) is None
    assert news.blackout(AssetClass.SPOT, ("BTC", "USDT"), NOW)[0] == "CPI CPI"


async def test_running_feeds_bring_headlines_into_the_mood_and_one_dead_source_stops_nothing() -> None:
    store = NewsStore(None)
    async with serving() as server:
        for name, titles in (("a", BAD[:2]), ("b", BAD[2:])):
            server.bodies[f"/{name}"] = rss(*(feed_item(title, title) for title in titles))
        sources = [Source(name, Shape.XML, server.url(f"/{name}"), 0.01, f"{name}.example") for name in ("a", "b")]
        news = agent(store, [*sources, *NOWHERE, Source("bad", Shape.XML, server.url("/bomb"), 60.0, "bad.example")])
        running = asyncio.create_task(news.run())
        async with asyncio.timeout(PATIENCE_S):
            while len(store.feeds()) < 4:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    mood = news.mood(INSTRUMENTS[0], NOW + 60_000)
    assert mood is not None and mood < -0.3
    states = {source: state for source, state, *_ in store.feeds()}
    assert states == {"a": "good", "b": "good", "nowhere": "unreachable", "bad": "broken"}


def test_a_store_that_cannot_write_loses_no_headline_in_memory(tmp_path: Path) -> None:
    store = NewsStore(tmp_path / FILE)
    news = agent(store)
    store._database.connection.execute("PRAGMA query_only=ON")
    news.take([headline(BAD[0], "a.example"), headline(BAD[1], "b.example")])
    assert news.mood(INSTRUMENTS[0], NOW + 10) is not None and store.degraded
    store._database.connection.execute("PRAGMA query_only=OFF")
    news.take([headline(GOOD[0], "c.example")])
    assert [each.title for each in store.items()] == [BAD[0], BAD[1], GOOD[0]] and not store.degraded


def test_a_damaged_store_costs_memory_and_no_start(tmp_path: Path) -> None:
    pages, payload = tmp_path / "pages.db", tmp_path / "payload.db"
    for path in (pages, payload):
        store = NewsStore(path)
        store.add([headline(f"Bitcoin falls {n} on report {n * 7}", "a.example", NOW - 9_000 + n) for n in range(2000)])
        store._database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.close()
    body = bytearray(pages.read_bytes())
    body[8_192:40_960] = b"\xa5" * 32_768
    pages.write_bytes(body)
    connection = sqlite3.connect(payload)
    connection.execute("INSERT INTO snapshots VALUES (1, 5, 'forexfactory', '{nonsense')")
    connection.commit()
    connection.close()
    for path in (pages, payload):
        with capture_logs() as logs:
            news = agent(NewsStore(path))
        assert {line["action"] for line in logs if line["log_level"] == "error"} == {"news_store"}
        news.take([headline(BAD[0], "a.example"), headline(BAD[1], "b.example")])
        assert news.mood(INSTRUMENTS[0], NOW + 10) is not None
    with pytest.raises(StoreUnreadable):
        agent(NewsStore.recording(payload), ())


def test_a_store_that_another_program_holds_never_keeps_the_loop_waiting(tmp_path: Path) -> None:
    store = NewsStore(tmp_path / FILE)
    (timeout,) = store._database.connection.execute("PRAGMA busy_timeout").fetchone()
    assert timeout <= 5
    news, other = agent(store), sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    news.take([headline(BAD[0], "a.example")])
    assert store.degraded
    other.execute("ROLLBACK")
    other.close()
    news.take([headline(BAD[1], "b.example")])
    assert len(list(store.items())) == 2 and not store.degraded


def test_a_clock_that_was_a_year_ahead_hides_no_later_caution() -> None:
    news = agent(NewsStore(None))
    news.mood(INSTRUMENTS[0], NOW + 365 * 24 * HOUR)
    news.take([headline("Bybit exchange hacked, $1.4 billion stolen", "a.example")])
    assert news.blackout(AssetClass.SPOT, ("SOL", "USDT"), NOW + 60_000)[0].startswith("caution exchange_hack")


def test_what_a_calendar_said_long_ago_is_let_go_and_what_it_moved_ahead_is_kept(tmp_path: Path) -> None:
    release = MacroEvent(NOW + 400 * 24 * HOUR, "CPI", "CPI", "USD", "shipped")
    news = agent(NewsStore(tmp_path / FILE), events=[release])
    for week in range(60):
        at = NOW + week * 7 * 24 * HOUR
        events: tuple[MacroEvent, ...] = (MacroEvent(at + HOUR, "HIGH", "GDP", "EUR", "ff"),
                                          MacroEvent(at + 2 * HOUR, "RATE_DECISION", "Cash Rate", "AUD", "ff"))
        if week == 57:
            events = (MacroEvent(release.at + HOUR, "CPI", "CPI", "USD", "ff"), *events)
        news.take_snapshot(Snapshot(at, "ff", at, at + 5 * 24 * HOUR, False, events))
        assert news.blackout(AssetClass.FOREX, ("EUR", "USD"), at + HOUR)[0] == "HIGH GDP"
    assert len(news._snapshots) < 12 and len(news.calendar.events) < 30
    again = agent(NewsStore(tmp_path / FILE), events=[release], at=NOW + 59 * 7 * 24 * HOUR)
    replayed = agent(NewsStore(tmp_path / FILE), (), [release])
    replayed.tick(NOW + 59 * 7 * 24 * HOUR)
    for each in (news, again, replayed):
        since = NOW + 55 * 7 * 24 * HOUR
        assert [w for w in each.calendar.windows if w.opens > since] == [w for w in news.calendar.windows if w.opens > since]
        assert [e.at for e in each.calendar.events if e.kind == "CPI"] == [release.at + HOUR]


# -- settings --------------------------------------------------------------------------------------------------------------


def test_news_are_off_unless_switched_on_and_sources_can_be_left_out_or_redirected(tmp_path: Path) -> None:
    assert from_settings(NewsSettings(), tmp_path) is None
    setup = from_settings(NewsSettings(enabled=True, off=("fed", "bls"), endpoints={"coindesk": "http://127.0.0.1:1/rss"}), tmp_path)
    assert setup is not None
    names = {source.name: source.endpoint for source in setup.sources}
    assert names.keys() == {source.name for source in SOURCES} - {"fed", "bls", "cryptopanic"}    # no token
    assert names["coindesk"] == "http://127.0.0.1:1/rss"


def test_faults_in_the_settings_are_told_together_and_the_token_file_must_be_private(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n", encoding="utf-8")
    token.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        from_settings(NewsSettings(enabled=True, off=("cnn",), endpoints={"fed": "http://evil.example/"},
                                   cryptopanic_token_file=token), tmp_path)
    assert len(caught.value.faults) == 3 and "s3cret" not in str(caught.value)
    token.chmod(0o600)
    for content in ("  \n", "s3cret\nX-Other: 1"):
        token.write_text(content, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="one line"):
            from_settings(NewsSettings(enabled=True, cryptopanic_token_file=token), tmp_path)
    token.write_text("s3cret\n", encoding="utf-8")
    setup = from_settings(NewsSettings(enabled=True, cryptopanic_token_file=token), tmp_path)
    assert setup is not None and setup.token == "s3cret" and "cryptopanic" in {source.name for source in setup.sources}


def test_instruments_share_a_mood_by_what_they_are_about_not_by_their_symbol() -> None:
    news = agent(NewsStore(None))
    news.take([headline(BAD[0], "a.example"), headline(BAD[1], "b.example")])
    perp: Instrument = replace(INSTRUMENTS[1], symbol="BTC/USDC:USDC", quote="USDC", settle="USDC")
    assert news.mood(perp, NOW + 10) == news.mood(INSTRUMENTS[0], NOW + 10) != None    # noqa: E711
