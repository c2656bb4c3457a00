"""What the kill switch counts of orders: only what nobody knows yet is in doubt."""

from __future__ import annotations

from decimal import Decimal

from modules.domain.events import Filled, OrderInDoubt
from modules.domain.executions import Executions
from modules.domain.money import ONE, ZERO
from modules.domain.order import Fill
from tests.builders import shipped_policies
from tests.bybit_worlds import PERP, order


def test_an_answer_that_is_lost_after_the_last_fill_was_told_leaves_nothing_in_doubt() -> None:
    seen = Executions(shipped_policies().kill_switch)
    for name, told in (("told", True), ("untold", False)):
        one = order(name, PERP)
        seen.intended(one)
        if told:
            fill = Fill(venue=one.venue, symbol=one.symbol, venue_trade_id=name, client_order_id=one.client_order_id, side=one.side,
                        quantity=one.quantity, price=Decimal(50_000), fee=ZERO, fee_currency="USDT", fee_rate=ONE, settle_rate=ONE,
                        maker=False, at=1)
            seen.filled(Filled(1, fill, order_done=True))
        seen.doubted(OrderInDoubt(2, one.client_order_id, "the answer was cut off"))
    assert list(seen.in_doubt) == ["tbuntold"]
