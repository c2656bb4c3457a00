"""The shipped strategies: the rules all of them keep, and what each one promises on a market made for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from modules.domain.errors import NotFound
from modules.domain.instrument import AssetClass
from modules.domain.market import NAN, ChainSlice
from modules.domain.signal import Intent, Structure
from modules.strategies import registry
from modules.strategies.protocol import Market, Strategy
from modules.strategies.registry import all_strategies, contradictions, discover, get
from tests.strategy_contract import INTERVAL_MS, START, broken_rules, random_walk, run
from tests.timing import within

EVERY_STRATEGY = pytest.mark.parametrize("strategy", all_strategies().values(), ids=list(all_strategies()))
MONDAY = START + 4 * 86_400_000
"""2026-01-05 00:00 UTC."""


# --- rules of all ---------------------------------------------------------------------------------------------------------------


def test_every_asset_class_has_a_shipped_strategy_and_none_is_quarantined() -> None:
    assert registry.faults() == ()
    assert {"trend", "breakout", "reversion", "carry", "session", "long_option", "credit_spread"} <= set(all_strategies())
    assert {asset_class for strategy in all_strategies().values() for asset_class in strategy.asset_classes} == set(AssetClass)


@EVERY_STRATEGY
def test_a_strategy_keeps_every_rule_on_random_walks(strategy: Strategy) -> None:
    for seed, volatility in ((1, 0.002), (2, 0.0003), (3, 0.03)):
        assert broken_rules(strategy, random_walk(bars=1600, seed=seed, volatility=volatility)) == []


@EVERY_STRATEGY
def test_a_strategy_stays_sane_when_the_venue_tells_nothing_but_prices(strategy: Strategy) -> None:
    blind = random_walk(bars=1600, seed=4, blind=True)
    assert broken_rules(strategy, blind) == []
    if strategy.structure is not Structure.SINGLE or strategy.asset_classes == (AssetClass.PERP,):
        assert {intent.score for intent in run(strategy, blind)} == {0.0}, "unknown volatility or funding is no reason to trade"


@EVERY_STRATEGY
def test_a_market_that_never_moves_gives_no_view(strategy: Strategy) -> None:
    still = [bar._replace(open=1.1, high=1.1, low=1.1, close=1.1) for bar in random_walk(bars=1600, seed=0)]
    assert {intent.score for intent in run(strategy, still)} == {0.0}


@EVERY_STRATEGY
def test_price_scale_is_no_information(strategy: Strategy) -> None:
    # Powers of two scale floats exactly, so every comparison must come out the same.
    walk = random_walk(bars=1600, seed=5)
    scaled = [
        bar._replace(
            open=bar.open * 1024, high=bar.high * 1024, low=bar.low * 1024, close=bar.close * 1024, bid=bar.bid * 1024, ask=bar.ask * 1024
        )
        for bar in walk
    ]
    assert [intent.score for intent in run(strategy, scaled)] == [intent.score for intent in run(strategy, walk)]


@EVERY_STRATEGY
def test_a_month_of_five_minute_bars_gives_a_few_trades_an_instrument_and_graded_scores(strategy: Strategy) -> None:
    entries, scores = 0, set()
    for seed in range(3):
        volatility = 0.0004 if strategy.asset_classes == (AssetClass.FOREX,) else 0.002
        before = 0.0
        for intent in run(strategy, random_walk(bars=8640, seed=seed, volatility=volatility)):
            if intent.score != 0.0 and intent.score * before <= 0.0:
                entries += 1
                scores.add(round(abs(intent.score), 3))
            before = intent.score
    assert 3 <= entries <= 3 * 40, entries
    assert scores
    assert min(scores) >= 0.4
    assert max(scores) <= 1.0


@EVERY_STRATEGY
def test_every_parameter_set_of_the_space_runs(strategy: Strategy) -> None:
    walk = random_walk(bars=400, seed=6)
    for name, values in strategy.space.items():
        for value in (min(values), max(values)):
            varied = replace(strategy, params=strategy.params._replace(**{name: value}), warmup=0)
            assert broken_rules(varied, walk) == []


def test_a_step_costs_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    walk = random_walk(bars=4000, seed=8)
    figures = {}
    for name, strategy in all_strategies().items():
        began = time.process_time()
        run(strategy, walk)
        figures[name] = (time.process_time() - began) / len(walk) * 1e6
    with capsys.disabled():
        print("\nstep, us a bar:", ", ".join(f"{name} {cost:.1f}" for name, cost in figures.items()))
    assert max(figures.values()) < within(20.0), "an order of magnitude above what it should be"


# --- what each one promises -----------------------------------------------------------------------------------------------------


def bars(closes: list[float], *, start: int = MONDAY, funding: float = NAN, iv: float = NAN, reach: float = 0.001) -> list[Market]:
    """Five-minute bars through `closes`, each reaching a little beyond its open and close."""
    markets = []
    before = closes[0]
    for number, close in enumerate(closes):
        at = float(start + (number + 1) * INTERVAL_MS)
        high, low = max(before, close) * (1.0 + reach), min(before, close) * (1.0 - reach)
        chain = ChainSlice(iv, iv, iv, 14.0)
        markets.append(Market(at, before, high, low, close, 1.0, close, close, close, funding, NAN, NAN, NAN, NAN, NAN, NAN, chain))
        before = close
    return markets


def wiggle(count: int, size: float = 0.001, price: float = 100.0) -> list[float]:
    return [price * (1.0 + size * (1 if number % 2 else -1)) for number in range(count)]


def views(name: str, markets: list[Market]) -> list[Intent]:
    return run(get(name), markets)


def test_trend_is_long_in_a_rise_and_short_in_a_fall_and_flat_in_between() -> None:
    flat = wiggle(800)
    rise = [100.0 * 1.001**number for number in range(300)]
    assert {intent.score for intent in views("trend", bars(flat))} == {0.0}
    assert views("trend", bars(flat + rise))[-1].score > 0.4
    assert views("trend", bars(flat + [100.0 * 100.0 / price for price in rise]))[-1].score < -0.4
    last = views("trend", bars(flat + rise))[-1]
    assert last.target == pytest.approx(3.0 * last.stop)


def test_breakout_takes_a_close_beyond_the_channel_and_leaves_at_its_own_stop() -> None:
    quiet = wiggle(600)
    beyond = views("breakout", bars([*quiet, 100.5]))[-1]
    assert beyond.score > 0.0
    assert views("breakout", bars([*quiet, 99.5]))[-1].score < 0.0
    assert views("breakout", bars([*quiet, 100.05]))[-1].score == 0.0, "inside the channel"
    followed = views("breakout", bars([*quiet, 100.5, 100.6, 100.5 - 1.1 * beyond.stop]))
    assert [intent.score > 0.0 for intent in followed[-3:]] == [True, True, False]


def test_reversion_fades_an_extreme_only_once_it_turns_and_not_in_a_trend() -> None:
    quiet = [100.0 + 0.5 * ((number * 7) % 11 - 5) / 5 for number in range(1400)]
    falling = [99.5, 99.2, 98.9]
    told = views("reversion", bars([*quiet, *falling, 99.0]))
    assert {intent.score for intent in told[:-1]} == {0.0}, "no falling knife"
    assert told[-1].score > 0.0
    assert told[-1].target > told[-1].stop > 0.0
    trend = [100.0 * 1.0005**number for number in range(1400)]
    # Two and more deviations below the mean of two days, and turning: only the drift of the mean itself speaks against it.
    dip = [trend[-1] * factor for factor in (0.8, 0.7, 0.6, 0.61)]
    assert {intent.score for intent in views("reversion", bars(trend + dip))} == {0.0}


def test_carry_takes_the_side_that_is_paid_and_drops_it_when_the_payment_ends() -> None:
    quiet = wiggle(1300)
    assert views("carry", bars(quiet, funding=0.0004))[-1].score < 0.0, "longs pay, so be short"
    assert views("carry", bars(quiet, funding=-0.0004))[-1].score > 0.0
    assert views("carry", bars(quiet, funding=0.00005))[-1].score == 0.0
    rise = [100.0 * 1.001**number for number in range(200)]
    assert views("carry", bars(quiet + rise, funding=0.0004))[-1].score == 0.0, "the trend runs over the payment"
    ends = bars(quiet, funding=0.0004)
    assert views("carry", [*ends[:-1], ends[-1]._replace(funding=0.0)])[-1].score == 0.0


def test_session_trades_the_break_of_the_night_once_and_is_flat_by_the_evening() -> None:
    night = wiggle(288 + 84, size=0.0005, price=1.1)  # a whole day before, then until 07:00
    morning = [1.1035] * 12
    rest = [1.1040] * (288 - 84 - 12)
    told = views("session", bars(night + morning + rest, reach=0.0001))
    day = told[288:]
    assert {intent.score for intent in day[:84]} == {0.0}, "nothing before 07:00"
    assert day[84].score > 0.0
    assert day[19 * 12 - 2].score > 0.0
    assert {intent.score for intent in day[19 * 12 - 1 :]} == {0.0}, "the bar that closes at 19:00 ends it"
    failed = views("session", bars([*night, 1.1035, 1.0900, 1.1035, 1.1035], reach=0.0001))[288 + 84 :]
    assert [intent.score > 0.0 for intent in failed] == [True, False, False, False], "one long a day"


def test_session_leaves_a_night_it_has_only_half_seen_alone() -> None:
    half = wiggle(288 + 84, size=0.0005, price=1.1)
    markets = bars([*half, 1.1035, 1.1036], reach=0.0001)
    assert views("session", markets)[-1].score > 0.0
    assert views("session", markets[:288] + markets[288 + 30 :])[-1].score == 0.0, "the feed came back at 02:30"


def compression() -> list[float]:
    return wiggle(1000, size=0.002) + wiggle(400, size=0.0003)


def test_long_option_buys_the_break_of_a_compression_when_options_are_not_dear() -> None:
    up, down = [*compression(), 100.8], [*compression(), 99.2]
    realized = 0.8  # of the wide stretch, roughly
    assert views("long_option", bars(up, iv=realized))[-1].score > 0.0
    assert views("long_option", bars(down, iv=realized))[-1].score < 0.0
    assert views("long_option", bars(up, iv=4.0))[-1].score == 0.0, "dear"
    assert views("long_option", bars(up, iv=NAN))[-1].score == 0.0, "unknown"
    assert views("long_option", bars(up, iv=realized))[-1].stop == 0.0, "the premium is the risk"
    assert views("long_option", bars([*wiggle(1400, size=0.002), 101.5], iv=realized))[-1].score == 0.0, "no compression, no option"


def test_credit_spread_sells_rich_volatility_on_the_side_of_the_trend_and_rests_between() -> None:
    rich, fair = 1.2, 0.6  # realized is 0.65: 0.2 % a bar, annualized
    assert views("credit_spread", bars(wiggle(1000), iv=fair))[-1].score == 0.0
    bullish = views("credit_spread", bars(wiggle(863) + [100.4] * 3, iv=rich))
    bearish = views("credit_spread", bars(wiggle(863) + [99.6] * 3, iv=rich))
    assert bullish[-1].score > 0.0 > bearish[-1].score
    collapse = views("credit_spread", bars(wiggle(863) + [100.4] * 4 + [80.0] * 3, iv=rich))
    assert [intent.score > 0.0 for intent in collapse[-4:]] == [True, False, False, False]


def test_credit_spread_rests_for_two_hours_before_it_sells_again() -> None:
    signs = [intent.score != 0.0 for intent in views("credit_spread", bars(wiggle(2600), iv=1.2))]
    first = signs.index(True)
    ended = signs.index(False, first)
    again = signs.index(True, ended)
    assert (ended - first, again - ended) == (768, 24)


# --- the registry ---------------------------------------------------------------------------------------------------------------


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(NotFound, match="did you mean 'breakout'"):
        get("brekout")
    with pytest.raises(NotFound, match="there are: breakout"):
        get("zzz")
    assert get("trend").name == "trend"


def test_a_broken_file_is_quarantined_by_name_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "fails_to_import.py").write_text("x = 1\nimport no_such_module_anywhere\n")
    (tmp_path / "raises.py").write_text("class Odd(Exception): ...\nraise Odd('when executed')\n")
    (tmp_path / "syntax.py").write_text("def broken(:\n")
    (tmp_path / "forgot.py").write_text("Strategy = None\n")
    (tmp_path / "jumbled.py").write_text(
        "from modules.strategies.trend import STRATEGY as T\nimport dataclasses\nSTRATEGY = dataclasses.replace(T, warmup='long')\n")
    (tmp_path / "_helper.py").write_text("raise SystemError\n")
    (tmp_path / "good.py").write_text(
        "from modules.strategies.trend import STRATEGY as T\nimport dataclasses\nSTRATEGY = dataclasses.replace(T, name='good')\n"
    )
    (tmp_path / "later.py").write_text(
        "from modules.strategies.trend import STRATEGY as T\nimport dataclasses\nSTRATEGY = dataclasses.replace(T, name='good')\n"
    )
    found = discover(tmp_path, "quarantine_example")
    assert list(found.strategies) == ["good"]
    assert [fault.split(":")[0] for fault in found.faults] == [
        "fails_to_import.py", "forgot.py", "jumbled.py", "later.py", "raises.py", "syntax.py"]
    assert "ModuleNotFoundError" in found.faults[0]
    assert "(line 2)" in found.faults[0]
    assert "cannot be read" in found.faults[2]
    assert "is taken" in found.faults[3]
    with pytest.raises(NotFound, match=r"quarantined: raises\.py"):
        raise NotFound(registry.not_found("raises", found.strategies, found.faults))


class _Bare(NamedTuple):
    length: int = 5


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "two words"}, "not an identifier"),
        ({"asset_classes": ()}, "could trade nothing"),
        ({"warmup": -1}, "negative"),
        ({"htf_multiple": 1}, "higher timeframe"),
        ({"interval_ms": 5}, "not a bar length"),
        ({"params": (), "space": {}}, "NamedTuple"),
        ({"space": {"lenght": (1, 2)}}, "no parameter (length)"),
        ({"space": {"length": (1.5, 2.0)}}, "must hold int values"),
        ({"space": {"length": ()}}, "is empty"),
        ({"step": print}, "plain function"),
        ({"structure": Structure.LONG_OPTION, "delta": 0.4}, "days to expiry"),
        ({"structure": Structure.LONG_OPTION, "days": 7.0, "delta": 40.0}, "between 0 and 1"),
        ({"structure": Structure.CREDIT_SPREAD, "days": 7.0, "delta": 0.3}, "needs a width"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_told_so(change: Mapping[str, object], told: str) -> None:
    base = replace(get("trend"), params=_Bare(), space=MappingProxyType({"length": (3, 5)}))
    assert contradictions(base) == []
    faults = contradictions(replace(base, **change))  # type: ignore[arg-type]
    assert len(faults) == 1
    assert told in faults[0]


# --- the contract itself --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "told"),
    [
        (Intent(1.5, 1.0, 0.0, 0), "outside [-1, 1]"),
        (Intent(0.5, 0.0, 0.0, 0), "without a stop"),
        (Intent(0.5, NAN, 0.0, 0), "not finite"),
        (Intent(0.5, 1.0, -1.0, 0), "negative"),
    ],
)
def test_the_contract_names_the_rule_a_strategy_breaks(intent: Intent, told: str) -> None:
    def step(state: int, market: Market, params: _Bare) -> tuple[int, Intent]:
        return state + 1, intent

    def always(change: Callable[[Strategy], Strategy]) -> list[str]:
        return broken_rules(change(replace(get("trend"), params=_Bare(), init=lambda params: 0, step=step, warmup=0)), walk)

    walk = random_walk(bars=50, seed=0)
    assert told in always(lambda strategy: strategy)[0]
    if told == "without a stop":
        assert always(lambda strategy: replace(strategy, structure=Structure.LONG_OPTION)) == []
        assert "warm-up" in always(lambda strategy: replace(strategy, structure=Structure.LONG_OPTION, warmup=20))[0]
