"""Moods: who a headline is about, one story once, one source capped, all of it fading, and nothing from hype or confusion."""

from __future__ import annotations

import math
import random
from collections.abc import Set as AbstractSet
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.domain.instrument import AssetClass
from modules.news import cautions, entities
from modules.news.cautions import Caution
from modules.news.items import Item, one_line
from modules.news.mood import Moods, looks_like_hype
from modules.news.sentiment import shipped
from tests.builders import make_instrument, shipped_policies

NOW = 1_772_445_600_000
HOUR = 3_600_000
POLICY = shipped_policies().news
BTC = make_instrument(AssetClass.SPOT)
EUR_USD = make_instrument(AssetClass.FOREX)

GOOD = ("Bitcoin surges to record high as ETF inflows soar", "Bitcoin rallies above $90,000 on strong demand",
        "Bulls cheer as bitcoin jumps 8%", "Bitcoin climbs after regulator approves fund", "Bitcoin gains for fifth day in a row",
        "Analysts upgrade bitcoin miners, BTC soars")
BAD = ("Bitcoin plunges as liquidations mount", "Bitcoin tumbles 9% in market rout", "BTC crashes below support, panic spreads",
       "Bitcoin sinks to lowest in a year")


def item(title: str, domain: str = "a.example", at: int = NOW, guid: str = "", **more: object) -> Item:
    return Item(at, more.pop("source", domain), domain, guid or title, title, **more)    # type: ignore[arg-type]


def moods(*items: Item) -> Moods:
    found = Moods(POLICY.mood, shipped())
    for each in items:
        found.take(each)
    return found


def value(found: Moods, at: int = NOW, instrument: object = BTC) -> float | None:
    mood = found.of(instrument, at)    # type: ignore[arg-type]
    return None if mood is None else mood.value


def spread(titles: tuple[str, ...], domains: int, at: int = NOW) -> list[Item]:
    return [item(title, f"{chr(97 + number % domains)}.example", at) for number, title in enumerate(titles)]


def test_good_news_from_several_sources_make_a_good_mood_and_bad_news_a_bad_one() -> None:
    good, bad = value(moods(*spread(GOOD, 4))), value(moods(*spread(BAD, 4)))
    assert good is not None and bad is not None
    assert good > 0.5 and bad < -0.5


def test_one_source_alone_makes_no_mood_however_much_it_writes() -> None:
    assert value(moods(*spread(BAD, 1))) is None
    assert value(moods()) is None


def test_one_source_never_has_more_than_its_share_of_a_mood() -> None:
    loud = [item(title, "loud.example") for title in BAD]
    found = moods(*loud, item("Bitcoin steady ahead of Fed", "quiet.example"))
    mood = value(found)
    assert mood is not None and -0.3 <= mood < -0.2


def test_the_same_story_told_ten_times_counts_once() -> None:
    one = "Bitcoin plunges as liquidations mount across exchanges"
    told = [item(one + (" - report" if n % 2 else ""), f"copy{n}.example", NOW + n) for n in range(10)]
    assert value(moods(*told), NOW + HOUR) is None    # copies are not independent
    both = moods(*told, item(BAD[1], "other.example"))
    twice = moods(told[0], item(BAD[1], "other.example"))
    assert value(both, NOW + HOUR) == value(twice, NOW + HOUR)
    assert len(both.stories) == 2


def test_after_two_days_the_same_words_are_a_new_story() -> None:
    later = NOW + int(48.1 * HOUR)
    assert len(moods(item(BAD[0], "a.example"), item(BAD[0], "b.example", later)).stories) == 2
    assert len(moods(item(BAD[0], "a.example"), item(BAD[0], "b.example", later - HOUR)).stories) == 1


def test_a_mood_halves_with_its_half_life_and_falls_silent_at_last() -> None:
    found = moods(*spread(BAD[:2], 2))
    fresh, later = value(found), value(found, NOW + 4 * HOUR)
    assert fresh is not None and later is not None
    assert later == pytest.approx(fresh / 2.0)
    assert value(found, NOW + 30 * HOUR) is None


def test_age_counts_from_publication_when_that_was_earlier_than_our_first_sight() -> None:
    fresh = moods(*spread(BAD[:2], 2))
    old = moods(*(item(title, f"{n}.example", published=NOW - 4 * HOUR) for n, title in enumerate(BAD[:2])))
    assert value(old) == pytest.approx(value(fresh, NOW + 4 * HOUR))


def test_nothing_seen_later_is_in_an_earlier_mood() -> None:
    found = moods(*spread(GOOD, 4), *spread(BAD, 4, NOW + HOUR))
    assert value(found) == value(moods(*spread(GOOD, 4)))
    assert value(found, NOW - 1) is None


def test_an_edited_headline_counts_from_the_edit_on_and_not_before() -> None:
    base = [item(GOOD[0], "a.example", guid="1"), item(GOOD[1], "b.example", guid="2")]
    edited = moods(*base, item("CORRECTED: Bitcoin plunges as liquidations mount", "a.example", NOW + HOUR, guid="1"))
    assert value(edited, NOW + HOUR - 1) == value(moods(*base), NOW + HOUR - 1)
    after, before = value(edited, NOW + HOUR), value(edited, NOW + HOUR - 1)
    assert after is not None and before is not None and after < before - 0.3


@pytest.mark.parametrize(("published", "reason"), [
    (NOW + HOUR, "dated in the future"), (NOW - 97 * HOUR, "too old"),
])
def test_items_from_the_future_or_of_long_ago_do_not_count(published: int, reason: str) -> None:
    found = moods(*(item(title, f"{n}.example", published=published) for n, title in enumerate(BAD)))
    assert value(found) is None and found.refused == {reason: 4}


def test_a_strong_dollar_is_bad_for_the_euro_in_dollars() -> None:
    items = [item("Dollar gains as Fed signals higher for longer", "a.example"), item("Greenback rallies to one-month high", "b.example"),
             item("EUR/USD slides under 1.0500", "c.example"), item("ECB turns dovish", "d.example")]
    mood = value(moods(*items), instrument=EUR_USD)
    assert mood is not None and mood < -0.4
    reverse = value(moods(*items), instrument=make_instrument(AssetClass.FOREX, base="USD", quote="EUR", symbol="USD/EUR"))
    assert reverse == -mood


def test_news_about_the_whole_crypto_market_weigh_half_for_one_coin() -> None:
    market = moods(item("Crypto market loses $200 billion in rout", "a.example"), item("Cryptocurrencies tumble on war fears", "b.example"))
    coin = moods(item("Bitcoin loses 20% in rout", "a.example"), item("Bitcoin tumbles on war fears", "b.example"))
    whole, own = value(market), value(coin)
    assert whole is not None and own is not None and own < whole < 0.0


@pytest.mark.parametrize(("title", "codes", "assets"), [
    ("Bitcoin plunges 10%", (), {"BTC": -1}), ("Bitcoin near $60,000 as rally cools", (), {"BTC": 0}),
    ("NEAR token soars 20%", (), {"NEAR": 1}), ("Stocks near record high", (), {}), ("$LINK breaks out", (), {"LINK": 1}),
    ("Click the link to win", (), {}), ("Bitcoin Cash climbs 5%", (), {"BCH": 1}), ("Avalanche kills three skiers", (), {}),
    ("Avalanche token jumps 12%", (), {"AVAX": 1}), ("Ripple effects of tariffs hurt stocks", (), {}),
    ("Solana and Ethereum rally", (), {"SOL": 1, "ETH": 1}), ("Bitcoin surges while Ether tumbles", (), {}),
    ("Big gains for the token", ("PEPE", "USD"), {"PEPE": 1}), ("EUR/USD rises as dollar weakens", (), {"EUR": 1, "USD": -1}),
    ("USD/JPY tumbles on intervention", (), {"USD": -1, "JPY": 1}), ("Yen weakens past 160 per dollar", (), {"JPY": -1}),
    ("ECB turns hawkish", (), {"EUR": 1}), ("Fed cuts rates by 50bp", (), {"USD": -1}), ("Fed pauses hikes", (), {}),
    ("UK GDP shrinks 0.5%", (), {"GBP": -1}), ("US inflation falls more than expected", (), {"USD": -1}),
    ("Hot US CPI: inflation accelerates", (), {"USD": 1}), ("Gold surges as dollar slips", (), {"XAU": 1}),
    ("Apple unveils new iPhone", (), {}),
])
def test_headlines_are_about_whom_they_name_with_the_right_sign(title: str, codes: tuple[str, ...], assets: dict[str, int]) -> None:
    found = entities.tag(title, shipped().read(title), codes).assets
    assert found.keys() == assets.keys(), found
    for asset, sign in assets.items():
        assert sign == 0 or math.copysign(1, found[asset]) == sign, found


@pytest.mark.parametrize("title", [
    "BITCOIN WILL EXPLODE 100X BUY NOW", "Get rich with this presale token", "This altcoin is going to the moon!!",
    "Guaranteed profits in ETH",
])
def test_hype_praises_nobody_but_its_warnings_count(title: str) -> None:
    assert looks_like_hype(title)
    story = moods(item("Bitcoin soars, best crypto to buy, guaranteed gains", "a.example")).stories[0]
    assert story.note and not any(story.assets.values())
    warned = moods(item("Bitcoin presale scam: investors lose everything as bitcoin price crashes", "a.example")).stories[0]
    assert warned.assets["BTC"] < 0


class Counted:
    """Counts how often sets of words are compared."""

    def __init__(self) -> None:
        self.times = 0

    def watched(self, words: frozenset[str]) -> frozenset[str]:
        counter = self

        class Watched(frozenset[str]):
            def __and__(self, other: AbstractSet[object]) -> frozenset[str]:
                counter.times += 1
                return frozenset.__and__(self, other)

        return Watched(words)


def test_of_many_headlines_with_the_same_words_few_are_compared_and_the_likest_is_found() -> None:
    rng = random.Random(2)
    words = ["".join(letters) for letters in product("bcdfghkl", "aeiou", "mnprstvw")]
    found = Moods(POLICY.mood, shipped())
    titles = [" ".join(["bitcoin", "falls", *rng.sample(words, 8)]) for _ in range(600)]
    for number, title in enumerate(titles):
        found.take(item(title, "a.example", NOW + number))
    assert len(found.stories) == len(titles)
    compared = Counted()
    for story in found.stories:
        story.words = compared.watched(story.words)
    for number in range(0, 600, 60):
        twin = found.take(item(titles[number] + " live", "b.example", NOW + 1_000))
        assert twin is found.stories[number]
    assert compared.times < 10 * 150    # and not each of 600


# -- cautions --------------------------------------------------------------------------------------------------------------


def cautioned(title: str, *tellers: str, source: str = "desk") -> Caution | None:
    found = Moods(POLICY.mood, shipped())
    result = None
    for number, domain in enumerate(tellers or ("a.example",)):
        story = found.take(item(title, domain, NOW + number, guid=domain, source=source))
        assert story is not None
        result = cautions.caution(story, NOW, POLICY.cautions, ("panic",))
    return result


@pytest.mark.parametrize(("title", "kind", "assets"), [
    ("Bybit exchange hacked, $1.4 billion in ether stolen", "exchange_hack", set()),
    ("Hackers steal $40M from Binance", "exchange_hack", set()),
    ("FTX halts withdrawals", "withdrawals_halted", set()), ("Withdrawals paused at Kraken after outage", "withdrawals_halted", set()),
    ("USDC depegs after bank failure", "depeg", set()), ("Tether loses dollar peg", "depeg", set()),
    ("Bybit hacked for $1.4bn; CEO says exchange will restore funds", "exchange_hack", set()),
    ("Hackers steal $1.4bn in ether from Bybit, CEO says withdrawals not affected", "exchange_hack", set()),
    ("BitMart loses $150 million in hack", "exchange_hack", set()), ("Third exchange hacked in 2026", "exchange_hack", set()),
    ("KuCoin hack: $280 million stolen", "exchange_hack", set()), ("Exchange halts withdrawals, court freezes assets",
                                                                   "withdrawals_halted", set()),
    ("FTX files for bankruptcy", "insolvency", set()), ("USDC drops to 88 cents", "depeg", set()),
    ("USDe plunges to $0.65 on Binance", "depeg", set()), ("USDC breaks its dollar peg", "depeg", set()),
    ("Coinbase suspends trading in Monero", "delisting", {"XMR"}),
    ("Binance to delist Monero", "delisting", {"XMR"}), ("Crypto exchange files for Chapter 11", "insolvency", set()),
])
def test_extraordinary_headlines_close_entries_for_their_class_or_coin(title: str, kind: str, assets: set[str]) -> None:
    found = cautioned(title)
    assert found is not None and (found.kind, set(found.assets)) == (kind, assets)
    assert title in found.name and found.until == NOW + int(POLICY.cautions.hours[kind] * HOUR)
    assert found.covers(AssetClass.PERP, ("XMR", "USDT")) and not found.covers(AssetClass.FOREX, ("EUR", "USD"))
    assert found.covers(AssetClass.PERP, ("BTC", "USDT")) is (not assets)


@pytest.mark.parametrize("title", [
    "Was Binance hacked? What we know", "Binance denies it was hacked", "Kraken resumes withdrawals after pause",
    "Mt. Gox: ten years after the exchange was hacked", "Tether regains dollar peg after brief depeg",
    "Exchange recovers stolen funds from hack",
    "Man convicted in Bitfinex hack sentenced", "Firm to delist its shares from Frankfurt", "Bitcoin falls 10%",
    "How to withdraw from Coinbase", "How Bybit hack changed industry", "Lazarus launders ether stolen from Bybit",
    "Bitfinex hacker released from prison early", "Marshals move bitcoin from Bitfinex hack", "Kraken refutes reports of security breach",
    "Microsoft Exchange servers hacked by Chinese group", "Hackers exploit Microsoft Exchange zero-day", "NYSE delists bitcoin miner",
    "Exchange-traded funds drained of $1bn", "Bitcoin exchange balances drained to record low", "Chinese bank freezes withdrawals",
    "Stop withdrawals of ether from staking, says dev", "Gemini exits bankruptcy fight with Genesis",
    "USDC falls below $100 billion market cap", "USDT premium falls below 1%", "Analyst fears Tether depeg",
    "Binance rules out delisting of Monero", "Is Binance about to be hacked", "Exchange hacks fell 50% this year, Chainalysis says",
    "Third suspect charged after exchange hacked in 2019", "Withdrawals reopen at exchange after breach, all balances intact",
])
def test_questions_denials_and_old_cases_do_not(title: str) -> None:
    assert cautioned(title) is None


def test_hearsay_must_be_told_by_two_domains() -> None:
    title = "Bybit exchange hacked, $1.4 billion in ether stolen"
    assert cautioned(title, "a.example", source="panic") is None
    assert cautioned(title, "a.example", "b.example", source="panic") is not None


# -- properties ------------------------------------------------------------------------------------------------------------

ITEMS = st.lists(st.tuples(st.sampled_from([*GOOD, *BAD]) | st.text(max_size=60), st.integers(0, 3), st.integers(0, 100)), max_size=25)


@settings(max_examples=40, deadline=None)
@given(ITEMS, st.integers(0, 200))
def test_a_mood_is_bounded_and_the_same_every_time(rows: list[tuple[str, int, int]], hours: int) -> None:
    items = [item(one_line(title), f"{domain}.example", NOW + hour * HOUR) for title, domain, hour in sorted(rows, key=lambda row: row[2])]
    first, second = moods(*items), moods(*items)
    at = NOW + hours * HOUR
    assert first.of(BTC, at) == second.of(BTC, at)
    found = value(first, at)
    assert found is None or -1.0 <= found <= 1.0
    if found is not None:
        mood = first.of(BTC, at)
        assert mood is not None and mood.domains >= 2 and abs(found) <= 0.3 * mood.domains + 1e-12
