"""The demo market: the same for a seed everywhere, honest about time, alive enough to show every rule, and exported to the last bit."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice, pairwise, zip_longest
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from modules.backtest.export import export_market
from modules.backtest.recorded import RecordedSource
from modules.domain.instrument import AssetClass, Right
from modules.domain.market import Bar, Chain, OptionQuote, Quote
from modules.domain.pricing import black_76
from modules.domain.sessions import forex_open, minutes_to_rollover, next_rollover
from modules.venues.demo import catalog
from modules.venues.demo.catalog import BAR_MS, BARS_PER_DAY, DAY_MS, DEFAULT_START, HOUR_MS
from modules.venues.demo.options import expiries
from modules.venues.demo.weather import Noise
from modules.venues.demo_market import DemoMarket
from modules.venues.protocol import Step
from tests.timing import within

ROOT = Path(__file__).resolve().parents[1]
SEED = 7
DAYS = 20
CRYPTO_SPOT = [catalog.spot_symbol(name) for name in catalog.SPOTS]
PERPS = [catalog.perp_symbol(name) for name in catalog.PERPS]
GOLD = "PAXG/USDT:USDT"
GOODS = [catalog.perp_symbol(model.name) for model in catalog.COMMODITIES]
COINS = [symbol for symbol in CRYPTO_SPOT + PERPS if symbol not in (GOLD, *GOODS)]
PAIRS = [model.symbol for model in catalog.FOREX]


@dataclass
class Run:
    """Twenty days of one market, and all its bars with the 31 days before."""

    market: DemoMarket
    steps: list[Step]
    bars: dict[str, list[Bar]]
    openings: dict[int, dict[str, Quote | None]]
    """At the steps of the first day and of the first Sunday."""
    history_s: float
    steps_s: float
    """Processor time."""

    @property
    def chains(self) -> Iterator[Chain]:
        return (chain for step in self.steps for chain in step.chains)

    def live(self, symbol: str) -> list[Bar]:
        return [bar for bar in self.bars[symbol] if bar.ts >= self.market.start]


class FirstDay:
    """A source that ends after a day."""

    def __init__(self, whole: DemoMarket) -> None:
        self._whole = whole
        self.name, self.seed, self.start, self.end = whole.name, whole.seed, whole.start, whole.start + DAY_MS
        self.instruments, self.intervals_ms, self.macro_events = whole.instruments, whole.intervals_ms, whole.macro_events
        self.opening, self.history, self.contract = whole.opening, whole.history, whole.contract
        self.option_currency = whole.option_currency

    def steps(self) -> Iterator[Step]:
        return islice(self._whole.steps(), BARS_PER_DAY + 1)


@pytest.fixture(scope="module")
def run() -> Run:
    begun = process_time()
    market = DemoMarket(SEED, DAYS)
    bars = {symbol: list(market.history(symbol, market.start, 31 * BARS_PER_DAY)) for symbol in market.intervals_ms}
    made = process_time()
    steps, openings = [], {}
    for step in market.steps():
        steps.append(step)
        for symbol, bar in step.bars:
            bars[symbol].append(bar)
        if (step.at - market.start) // DAY_MS in (0, 6):
            openings[step.at] = {symbol: market.opening(symbol) for symbol in bars}
    return Run(market, steps, bars, openings, made - begun, process_time() - made)


def exact(step: Step) -> str:
    """Every number with all its digits; NaN equals NaN."""
    return repr((step.at, list(step.bars), list(step.marks), list(step.funding), list(step.financing),
                 [(*chain[:4], list(chain.quotes)) for chain in step.chains], list(step.transfers)))


def hourly_returns(bars: Sequence[Bar], hours: Sequence[int]) -> np.ndarray:
    closes = {bar.ts // HOUR_MS: bar.close for bar in bars}
    return np.diff(np.log([closes[hour] for hour in hours]))


# -- determinism and time ---------------------------------------------------------------------------------------------


def test_the_noise_of_a_seed_is_the_same_on_every_machine() -> None:
    assert Noise(7, 0).normals(4) == [1.923292234, 0.574434477, -0.872278176, -0.735297709]
    assert Noise(7, 0).exponentials(2) == [0.055198108, 0.664904017]


def test_an_endless_run_gives_the_very_same_steps(run: Run) -> None:
    """Nothing in a day knows how many days are to come: looking ahead would show here."""
    endless = DemoMarket(SEED, None)
    for mine, theirs in zip_longest(islice(endless.steps(), BARS_PER_DAY + 20), run.steps[:BARS_PER_DAY + 20]):
        assert exact(mine) == exact(theirs)


def test_another_seed_is_another_market(run: Run) -> None:
    early = run.market.start - 39 * DAY_MS
    markets = run.market, DemoMarket(SEED, 1), DemoMarket(SEED + 1, 1)
    for symbol in run.bars:
        mine, same, other = (market.history(symbol, early, 10) for market in markets)
        assert repr(mine) == repr(same) and mine[-1].close != other[-1].close


def test_history_at_any_moment_is_what_was_seen_until_then(run: Run) -> None:
    for symbol in ("BTC/USDT", "XRP/USDT", "EUR/USD", "DOGE/USDT:USDT"):
        for until in (run.market.start, run.market.start + 11 * DAY_MS + 14 * HOUR_MS + 7, run.market.end):
            seen = [bar for bar in run.bars[symbol] if bar.ts + BAR_MS <= until][-2000:]
            assert repr(list(run.market.history(symbol, until, 2000))) == repr(seen)


def test_the_first_live_bar_opens_where_history_closed(run: Run) -> None:
    for symbol in CRYPTO_SPOT + PERPS:
        last, first = (next(bar for bar in run.bars[symbol] if bar.ts == run.market.start + offset) for offset in (-BAR_MS, 0))
        assert abs(first.open / last.close - 1.0) < 1e-4


def test_steps_are_five_minutes_apart_from_start_to_end_and_bars_close_at_them(run: Run) -> None:
    assert [step.at for step in run.steps] == list(range(run.market.start, run.market.end + 1, BAR_MS))
    assert not run.steps[0].bars
    assert all(bar.ts + BAR_MS == step.at for step in run.steps for _, bar in step.bars)


def test_an_opening_is_the_quote_at_which_the_next_bar_begins(run: Run) -> None:
    following = {symbol: {bar.ts: bar for bar in bars} for symbol, bars in run.bars.items()}
    for at, openings in run.openings.items():
        for symbol, quote in openings.items():
            bar = following[symbol].get(at)
            if bar is None:
                assert quote is None
                continue
            assert quote is not None and quote.at == at and quote.sane
            recorded = symbol in PAIRS or symbol == catalog.QUOTED_SPOT
            assert quote.synthetic is not recorded
            assert quote.mid == pytest.approx(bar.open, rel=1e-5)
            assert (quote.ask > quote.bid) is recorded


def test_nothing_opens_at_the_end(run: Run) -> None:
    market = DemoMarket(SEED, 1)
    market._at = market.end
    assert market.opening("BTC/USDT") is None


@pytest.mark.parametrize(("seed", "days", "start"), [(-1, 30, None), (7, 0, None), (7, 30, DEFAULT_START + 1)])
def test_senseless_arguments_are_refused(seed: int, days: int, start: int | None) -> None:
    with pytest.raises(ValueError):
        DemoMarket(seed, days, start=start)


def test_the_first_month_holds_the_real_releases(run: Run) -> None:
    inside = [(event.kind, datetime.fromtimestamp(event.at / 1000, UTC)) for event in run.market.macro_events
              if run.market.start <= event.at < run.market.start + 30 * DAY_MS]
    assert inside == [("NFP", datetime(2026, 1, 9, 13, 30, tzinfo=UTC)), ("CPI", datetime(2026, 1, 13, 13, 30, tzinfo=UTC)),
                      ("FOMC", datetime(2026, 1, 28, 19, 0, tzinfo=UTC))]


def test_history_and_a_month_are_made_in_seconds(run: Run) -> None:
    assert run.history_s < within(3.0)
    assert run.steps_s * 30 / DAYS < within(6.0)


# -- prices -----------------------------------------------------------------------------------------------------------


def test_every_bar_is_sane_except_the_one_that_is_planted(run: Run) -> None:
    insane = []
    for symbol, bars in run.bars.items():
        for before, bar in pairwise(bars):
            assert bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
            assert bar.low > 0.0
            if bar.close / before.close > 100.0:
                insane.append((symbol, bar))
    [(symbol, bar)] = insane
    assert symbol == catalog.INSANE_SYMBOL
    marks = {step.at: dict(step.marks)[symbol] for step in run.steps}
    assert marks[bar.ts + BAR_MS] == pytest.approx(bar.open, rel=0.02)


def test_crypto_moves_together_and_currencies_do_not_follow(run: Run) -> None:
    hours = sorted({bar.ts // HOUR_MS for bar in run.bars["EUR/USD"] if run.market.start - 30 * DAY_MS <= bar.ts < run.market.start})
    every_hour = range(run.market.start // HOUR_MS - 720, run.market.start // HOUR_MS)
    coins = np.array([hourly_returns(run.bars[symbol], every_hour) for symbol in [*CRYPTO_SPOT, "DOGE/USDT:USDT"]])
    rho = np.corrcoef(coins)[np.triu_indices(len(coins), 1)]
    assert rho.min() > 0.55 and rho.max() < 0.92 and 0.62 < np.median(rho) < 0.82
    for name in ("BTC", "ETH", "SOL"):
        both = [hourly_returns(run.bars[symbol], every_hour) for symbol in (catalog.spot_symbol(name), catalog.perp_symbol(name))]
        assert np.corrcoef(both)[0, 1] > 0.99
    pairs = np.array([hourly_returns(run.bars[symbol], hours) for symbol in PAIRS])
    assert np.abs(np.corrcoef(hourly_returns(run.bars["BTC/USDT"], hours), pairs)[0, 1:]).max() < 0.2
    assert 0.3 < np.corrcoef(pairs)[0, 2] < 0.85, "EUR/USD and GBP/USD share the dollar"


def test_volatilities_are_those_of_such_markets(run: Run) -> None:
    for symbol, bars in run.bars.items():
        moves = np.diff(np.log([bar.close for bar in bars]))
        daily = float(np.std(moves[np.abs(moves) < 1.0])) * math.sqrt(BARS_PER_DAY)
        calm, wild = (0.002, 0.012) if symbol in (*PAIRS, GOLD) else (0.01, 0.03) if symbol in GOODS else (0.02, 0.07)
        assert calm < daily < wild, symbol


def test_commodities_follow_neither_each_other_nor_the_coins(run: Run) -> None:
    """Below the bar of the correlation rule, also with a rush in the window: else it would never be more than three of them."""
    for end_day in (0, DAYS):
        last = run.market.start // HOUR_MS + 24 * end_day
        returns = np.array([hourly_returns(run.bars[symbol], range(last - 720, last)) for symbol in (*GOODS, "BTC/USDT")])
        assert np.corrcoef(returns)[np.triu_indices(len(returns), 1)].max() < 0.55


def test_money_rushes_into_every_commodity_in_turn_and_out_of_all_at_once(run: Run) -> None:
    for rush in catalog.RUSHES:
        begin = run.market.start + rush.day * DAY_MS
        days = {symbol: [bar for bar in run.bars[symbol] if begin <= bar.ts < begin + DAY_MS] for symbol in GOODS}
        first = begin + rush.bar * BAR_MS
        tops = {symbol: max(bar.high for bar in run.bars[symbol] if begin - 2 * DAY_MS <= bar.ts < first) for symbol in GOODS}
        dumps = {max(pairwise(days[symbol]), key=lambda pair: pair[0].close / pair[1].close)[1].ts for symbol in GOODS}
        assert len(dumps) == 1, "one bar"
        above = [next((bar.ts for bar in days[symbol] if bar.close > tops[symbol]), 0) for symbol in GOODS]
        assert sum(0 < ts < min(dumps) for ts in above) >= 5, "beyond two days' range"


def test_the_crash_takes_a_sixth_to_a_third_within_an_hour_and_gives_some_back(run: Run) -> None:
    begin = run.market.start + catalog.CRASH_DAY * DAY_MS + catalog.CRASH_BAR * BAR_MS
    for symbol in COINS:
        day = [bar for bar in run.bars[symbol] if begin <= bar.ts < begin + 5 * HOUR_MS]
        fall, first = min((bar.low / max(earlier.high for earlier in day[max(0, index - 12):index + 1]), index)
                          for index, bar in enumerate(day))
        assert -0.33 < fall - 1.0 < -0.13, symbol
        low, high = day[first].low, max(bar.high for bar in day[max(0, first - 12):first])
        assert (max(bar.close for bar in day[first:]) - low) / (high - low) > 0.2, symbol
        gaps = [bar.open / last.close - 1.0 for last, bar in pairwise(day)]
        assert min(gaps) < -0.02, "a stop inside the gap fills below itself"


def test_the_feed_hangs_once_and_loses_bars_once(run: Run) -> None:
    for symbol in CRYPTO_SPOT + PERPS:
        bars = run.live(symbol)
        frozen = [bar for last, bar in pairwise(bars) if bar.volume == 0.0 and bar.open == bar.high == bar.low == bar.close == last.close]
        assert len(frozen) == catalog.FROZEN.bars and frozen[-1].ts - frozen[0].ts == (catalog.FROZEN.bars - 1) * BAR_MS
        assert len({(bar.bid, bar.ask) for bar in frozen if not math.isnan(bar.bid)}) == (symbol == catalog.QUOTED_SPOT)
        back = [bar.quote_volume for bar in bars if frozen[-1].ts < bar.ts <= frozen[-1].ts + catalog.REOPENING_BARS * BAR_MS]
        usual = [bar.quote_volume for bar in bars if bar.ts < frozen[0].ts][-288:]
        assert 0.0 < max(back) < 0.2 * sum(usual) / len(usual), "it reopens thin"
    for symbol in CRYPTO_SPOT + PERPS:
        ts = [bar.ts for bar in run.live(symbol)]
        missing = [b - a for a, b in pairwise(ts) if b - a != BAR_MS]
        assert missing == ([(catalog.HOLE.bars + 1) * BAR_MS] if symbol == catalog.HOLE_SYMBOL else [])


def test_dust_is_too_thin_to_trade_and_the_others_are_not(run: Run) -> None:
    for symbol in CRYPTO_SPOT + PERPS:
        bars, days = run.live(symbol), range(0, DAYS * BARS_PER_DAY, BARS_PER_DAY)
        volumes = [sum(bar.quote_volume for bar in bars[first:first + BARS_PER_DAY]) for first in days]
        thin = sum(volume < 5e6 for volume in volumes) / len(volumes)
        assert {"DUST/USDT": thin > 0.8, GOLD: 0.1 < thin < 0.8, **dict.fromkeys(GOODS, 0.7 < thin < 1.0)}.get(symbol, thin == 0.0), symbol


def test_one_spot_pair_is_quoted_too_wide_at_times(run: Run) -> None:
    spreads = [(bar.ask - bar.bid) / bar.close * 1e4 for bar in run.live(catalog.QUOTED_SPOT)]
    wide = sum(spread > 30.0 for spread in spreads) / len(spreads)
    assert 0.01 < wide < 0.10
    assert sum(spread < 5.0 for spread in spreads) / len(spreads) > 0.9


def test_a_ten_dollar_trade_is_possible_but_in_one_perpetual_and_fees_are_those_of_the_cost_policy(run: Run) -> None:
    costs = json.loads((ROOT / "policies" / "cost_policy.json").read_text())
    for instrument in run.market.instruments:
        price = Decimal(repr(run.bars[instrument.symbol][-1].close))
        usd = instrument.notional(instrument.lot, price) / (price if instrument.quote == "JPY" else 1)
        assert usd > Decimal(49) if instrument.symbol == "BTC/USDT:USDT" else usd <= Decimal(5), instrument.symbol
        assert instrument.notional_min <= 5
        model = costs[instrument.asset_class]
        assert (instrument.maker_fee, instrument.taker_fee) == (Decimal(model["maker_fee"]), Decimal(model["taker_fee"]))
        assert instrument.leverage_max >= Decimal(model["leverage"])


# -- currencies -------------------------------------------------------------------------------------------------------


def test_currencies_rest_from_friday_to_sunday_five_in_new_york(run: Run) -> None:
    for symbol in PAIRS:
        opened = {bar.ts for bar in run.live(symbol)}
        assert opened == {at for at in range(run.market.start, run.market.end, BAR_MS) if forex_open(at)}
        assert all(math.isnan(bar.volume) and 0.0 < bar.bid < bar.ask for bar in run.live(symbol))


def test_spreads_exceed_the_cap_around_the_rollover_and_only_there(run: Run) -> None:
    for symbol in PAIRS:
        for bar in run.live(symbol):
            spread = (bar.ask - bar.bid) / bar.close * 1e4
            assert (spread > 3.0) is (minutes_to_rollover(bar.ts + BAR_MS) <= 20.0), (symbol, bar)


def test_financing_is_stated_at_each_rollover_and_one_side_of_one_pair_is_excessive(run: Run) -> None:
    stated = defaultdict(list)
    for step in run.steps[1:]:
        for rate in step.financing:
            assert rate.at == step.at == next_rollover(step.at - 1)
            stated[rate.symbol].append(rate)
    assert {len(rates) for rates in stated.values()} == {15}
    assert all(rate.short_rate < -0.05 for rate in stated["USD/JPY"])
    assert all(min(rate.long_rate, rate.short_rate) > -0.05 for symbol, rates in stated.items() if symbol != "USD/JPY" for rate in rates)
    assert [rate.symbol for rate in run.steps[0].financing] == PAIRS, "known from the first step on"


# -- funding and transfers --------------------------------------------------------------------------------------------


def test_funding_settles_every_eight_hours_excessive_at_times_and_negative_at_times(run: Run) -> None:
    rates = defaultdict(list)
    for step in run.steps:
        for funding in step.funding:
            assert funding.at == step.at and step.at % (8 * HOUR_MS) == 0
            rates[funding.symbol].append(funding.rate)
    assert {symbol: len(values) for symbol, values in rates.items()} == dict.fromkeys(PERPS, 61)
    assert sum(rate > 0.0005 for rate in rates["DOGE/USDT:USDT"]) >= 9
    assert all(min(rates[symbol]) < -0.0002 for symbol in ("BTC/USDT:USDT", "DOGE/USDT:USDT"))
    assert sum(0.0 < rate < 0.0003 for values in rates.values() for rate in values) > 150


def test_money_is_moved_once_each_and_spot_crosses_into_phase_two(run: Run) -> None:
    moved = [(step.at - run.market.start, *transfer) for step in run.steps for transfer in step.transfers]
    assert [(asset_class, amount) for _, asset_class, amount in moved] == [
        (AssetClass.SPOT, Decimal(600)), (AssetClass.PERP, Decimal(1300)), (AssetClass.FOREX, Decimal(-2500))]
    assert moved[0][0] // DAY_MS == 6


# -- options ----------------------------------------------------------------------------------------------------------


def by_strike(chain: Chain) -> dict[int, dict[float, dict[bool, OptionQuote]]]:
    result: dict[int, dict[float, dict[bool, OptionQuote]]] = defaultdict(lambda: defaultdict(dict))
    for quote in chain.quotes:
        result[quote.expiry][quote.strike][quote.is_call] = quote
    return result


def test_chains_come_hourly_for_both_coins_and_only_list_living_contracts(run: Run) -> None:
    times = defaultdict(list)
    for chain in run.chains:
        times[chain.underlying].append(chain.at)
        assert all(quote.expiry > chain.at for quote in chain.quotes)
        assert len({quote.expiry for quote in chain.quotes}) >= 5
    assert times["BTC"] == times["ETH"] == list(range(run.market.start, run.market.end + 1, HOUR_MS))


def test_marks_leave_no_arbitrage(run: Run) -> None:
    for chain in islice(run.chains, 0, None, 97):
        for strikes in by_strike(chain).values():
            forwards = [strike + sides[True].mark - sides[False].mark for strike, sides in strikes.items()]
            assert max(forwards) - min(forwards) < 3e-4, "put-call parity: one forward for every strike"
            assert abs(forwards[0] / chain.spot - 1.0) < 0.02
            calls, puts = ([sides[right].mark for _, sides in sorted(strikes.items())] for right in (True, False))
            assert calls == sorted(calls, reverse=True) and puts == sorted(puts)
            gaps = np.diff(sorted(strikes))
            slopes = np.diff(calls) / gaps
            assert (slopes > -1.0 - 2e-5).all() and (np.diff(slopes) > -2e-5).all(), "butterflies cost something"


def test_marks_are_black_76_at_their_own_volatility(run: Run) -> None:
    for chain in islice(run.chains, 0, None, 211):
        for expiry, strikes in by_strike(chain).items():
            years = (expiry - chain.at) / (365.0 * DAY_MS)
            for strike, sides in strikes.items():
                forward = strike + sides[True].mark - sides[False].mark
                for is_call, quote in sides.items():
                    assert quote.mark == pytest.approx(black_76(forward, strike, years, quote.iv, is_call=is_call), abs=5e-4)
                    assert not quote.bid > quote.mark and quote.ask >= quote.mark


def test_contracts_near_the_money_pass_the_filters_and_far_ones_fail(run: Run) -> None:
    near, far = [], []
    for chain in islice(run.chains, 0, None, 53):
        for quote in chain.quotes:
            good = quote.open_interest >= 100 and quote.ask - quote.bid <= 0.10 * 0.5 * (quote.ask + quote.bid)
            if quote.expiry - chain.at < 2 * DAY_MS:
                continue
            if 0.30 <= abs(quote.delta) <= 0.70:
                near.append(good)
            elif abs(quote.delta) < 0.03:
                far.append(good)
    assert sum(near) / len(near) > 0.95
    assert sum(far) / len(far) < 0.10


def test_a_listed_contract_is_quoted_until_it_expires_and_expiries_end_both_ways(run: Run) -> None:
    living: dict[str, OptionQuote] = {}
    paid, worthless = 0, 0
    for chain in run.chains:
        if chain.underlying != "BTC":
            continue
        quoted = {quote.symbol: quote for quote in chain.quotes}
        for symbol, quote in living.items():
            if quote.expiry > chain.at:
                assert symbol in quoted
            elif (chain.spot > quote.strike) is quote.is_call:
                paid += 1
            else:
                worthless += 1
        living = quoted
    assert paid > 100 and worthless > 100


def test_a_contract_is_known_by_its_symbol_alone(run: Run) -> None:
    quote = next(run.chains).quotes[0]
    contract = DemoMarket(SEED, 1).contract(quote.symbol)
    assert contract is not None
    assert (contract.expiry, contract.right) == (quote.expiry, Right.CALL if quote.is_call else Right.PUT)
    assert contract.strike == Decimal(repr(quote.strike)) and contract.settle == "USDT" and contract.asset_class is AssetClass.OPTION
    for symbol in ("BTC/USDT", "BTC/USDT:USDT", "XRP/USDT:USDT-260130-2-C", "BTC/USDT:USDT-260130-95001-C", "BTC/USDT:USDT-269930-95000-C"):
        assert run.market.contract(symbol) is None


def test_expiries_are_daily_weekly_and_monthly() -> None:
    listed = [datetime.fromtimestamp(expiry / 1000, UTC) for expiry in expiries(DEFAULT_START)]
    assert [day.strftime("%m-%d") for day in listed] == ["01-05", "01-06", "01-07", "01-08", "01-09", "01-10", "01-16", "01-23", "01-30"]
    assert {day.hour for day in listed} == {8}
    assert expiries(int(listed[0].timestamp()) * 1000)[0] == int(listed[1].timestamp()) * 1000, "at its expiry a contract is gone"


# -- export -----------------------------------------------------------------------------------------------------------


def test_an_exported_market_is_read_back_to_the_last_bit(tmp_path: Path, run: Run) -> None:
    market = FirstDay(run.market)
    wallets = {AssetClass.SPOT: Decimal(950)}
    export_market(market, tmp_path / "demo", wallets=wallets, history_days=2)
    read = RecordedSource(tmp_path / "demo", costs=None)
    assert (read.name, read.seed, read.start, read.end, read.wallets) == (market.name, SEED, market.start, market.end, wallets)
    assert tuple(read.instruments) == tuple(market.instruments)
    assert dict(read.intervals_ms) == dict(market.intervals_ms)
    assert tuple(read.macro_events) == tuple(market.macro_events)
    for mine, theirs in zip_longest(read.steps(), run.steps[:BARS_PER_DAY + 1]):
        assert exact(mine) == exact(theirs)
        if mine.at < market.end:
            assert {symbol: read.opening(symbol) for symbol in run.bars} == run.openings[mine.at]
    for symbol, bars in run.bars.items():
        before = [bar for bar in bars if bar.ts < market.start][-200:]
        assert repr(read.history(symbol, market.start, 200)) == repr(before)
    symbol = next(run.chains).quotes[0].symbol
    assert read.contract(symbol) == market.contract(symbol)


def test_an_endless_market_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no end"):
        export_market(DemoMarket(SEED, None), tmp_path)
    (tmp_path / "old.csv").write_text("")
    with pytest.raises(FileExistsError):
        export_market(DemoMarket(SEED, 1), tmp_path)
