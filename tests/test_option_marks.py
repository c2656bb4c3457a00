"""What an option is worth follows its underlying at once: one instant has two spots, before its bars are in and after."""

from __future__ import annotations

from decimal import Decimal

from modules.domain.instrument import AssetClass, Instrument, Right
from modules.domain.market import Bar, Batch, Chain, OptionQuote
from modules.Market_Data import MarketData
from modules.store.journal import Journal
from tests.builders import AT, BTC_CALL, BTC_PERP, DAY_MS, shipped_policies

FIVE_MINUTES = 300_000


def bar(ts: int, close: float) -> Bar:
    return Bar(ts, close, close, close, close, 10.0, 10.0 * close)


def test_an_option_asked_for_before_and_after_the_bars_of_one_instant_has_two_prices() -> None:
    """The kill switch marks at the instant's tick, before the bars; what it saw then must not be what the decisions after them see."""
    policies = shipped_policies()
    perp = Instrument(BTC_PERP, "demo", AssetClass.PERP, "BTC", "USDT", "USDT", "BTC", Decimal("0.1"), Decimal("0.001"))
    call = Instrument(BTC_CALL, "demo", AssetClass.OPTION, "BTC", "USDT", "USDT", "BTC", Decimal("0.1"), Decimal("0.01"),
                      expiry=AT + 25 * DAY_MS, strike=Decimal(52_000), right=Right.CALL)
    market = MarketData(journal=Journal(None), risk=policies.risk, kill_switch=policies.kill_switch, costs=policies.costs,
                        on_bar=lambda symbol, closed, at: None)
    market.list_instruments([perp, call], lambda _: FIVE_MINUTES)
    quote = OptionQuote(BTC_CALL, AT + 25 * DAY_MS, 52_000.0, True, 2_000.0, 2_020.0, 2_010.0, 0.6, 0.45, 52.0, 500.0)
    market.accept(Batch(AT, [(BTC_PERP, bar(AT - FIVE_MINUTES, 50_000.0))], chains=[Chain("BTC", AT, 50_000.0, 1.0, [quote])]))
    later = AT + FIVE_MINUTES
    before = market.mark(BTC_CALL, later)
    market.accept(Batch(later, [(BTC_PERP, bar(AT, 51_000.0))]))
    after = market.mark(BTC_CALL, later)
    assert before is not None and after is not None
    assert Decimal(300) < after - before < Decimal(700), "a thousand dollars up at a delta of about a half"
