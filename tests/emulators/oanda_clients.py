"""Clients of the broker's that others wrote, against our emulator: does it speak the wire they expect? Run by hand (README.md).

oandapyV20 and v20 take nearly anything; fivetwenty reads every transaction into a typed model and refuses what lacks a field.

`python tests/emulators/oanda_clients.py PORT` in an environment that has them; none is a dependency of ours.
"""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from importlib import import_module
from typing import Any

ACCOUNT = "101-001-1234567-001"
TOKEN = "emulator-token-4fKq9Zt2-do-not-show"
TOO_MUCH = "10000000"


def with_oandapyv20(port: int) -> int:
    """Every endpoint class the adapter needs; returns how many requests were made."""
    root = f"http://127.0.0.1:{port}"
    client = import_module("oandapyV20.oandapyV20")
    client.TRADING_ENVIRONMENTS["practice"] = {"stream": root, "api": root}
    accounts, orders, pricing, transactions, trades, positions, instruments = (
        import_module(f"oandapyV20.endpoints.{name}")
        for name in ("accounts", "orders", "pricing", "transactions", "trades", "positions", "instruments"))
    api, made = client.API(access_token=TOKEN), 0

    def ask(request: Any) -> Any:
        nonlocal made
        made += 1
        return api.request(request)

    for request in (accounts.AccountList(), accounts.AccountDetails(ACCOUNT), accounts.AccountSummary(ACCOUNT),
                    accounts.AccountInstruments(ACCOUNT), accounts.AccountChanges(ACCOUNT, params={"sinceTransactionID": 1}),
                    orders.OrdersPending(ACCOUNT), positions.OpenPositions(ACCOUNT), transactions.TransactionList(ACCOUNT),
                    transactions.TransactionsSinceID(ACCOUNT, params={"id": 1}),
                    transactions.TransactionIDRange(ACCOUNT, params={"from": 1, "to": 2})):
        assert ask(request)
    candles = ask(instruments.InstrumentsCandles("EUR_USD", params={"granularity": "M1", "count": 5, "price": "MBA"}))["candles"]
    assert [candle["complete"] for candle in candles] == [True] * 4 + [False]
    bid = float(ask(pricing.PricingInfo(ACCOUNT, params={"instruments": "EUR_USD"}))["prices"][0]["bids"][0]["price"])

    def order(**fields: Any) -> Any:
        return ask(orders.OrderCreate(ACCOUNT, data={"order": {"instrument": "EUR_USD", **fields}}))

    mark = f"check{made}{port}{ask(accounts.AccountSummary(ACCOUNT))['lastTransactionID']}"
    told = order(type="MARKET", units="1000", timeInForce="FOK", clientExtensions={"id": mark},
                 stopLossOnFill={"price": f"{bid - 0.02:.5f}"}, takeProfitOnFill={"price": f"{bid + 0.02:.5f}"})
    assert "orderFillTransaction" in told
    assert ask(orders.OrderDetails(ACCOUNT, told["orderCreateTransaction"]["id"]))["order"]["state"] == "FILLED"
    try:
        ask(orders.OrderDetails(ACCOUNT, f"@{mark}"))
        raise AssertionError("a client id names pending orders only")
    except import_module("oandapyV20.exceptions").V20Error as error:
        assert error.code == 404 and "NO_SUCH_ORDER" in str(error)
    resting = {"type": "LIMIT", "units": "-10", "price": "1.50000", "clientExtensions": {"id": f"{mark}b"}}
    order(**resting)
    try:
        order(**resting)
        raise AssertionError("the same client id twice")
    except import_module("oandapyV20.exceptions").V20Error as error:
        assert error.code == 400 and "CLIENT_ORDER_ID_ALREADY_EXISTS" in str(error)
    ask(orders.OrderCancel(ACCOUNT, f"@{mark}b"))
    trade = ask(trades.OpenTrades(ACCOUNT))["trades"][0]
    assert "orderFillTransaction" in ask(trades.TradeClose(ACCOUNT, trade["id"], data={"units": "ALL"}))
    assert order(type="MARKET", units=TOO_MUCH)["orderCancelTransaction"]["reason"] == "INSUFFICIENT_MARGIN"
    stream = api.request(pricing.PricingStream(ACCOUNT, params={"instruments": "EUR_USD,USD_JPY"}))
    assert all(next(stream)["type"] in ("PRICE", "HEARTBEAT") for _ in range(4))
    return made


def with_v20(port: int) -> None:
    """The broker's own (sync) client: typed replies."""
    context = import_module("v20").Context("127.0.0.1", port, ssl=False, token=TOKEN)
    assert context.account.get(ACCOUNT).get("account").id == ACCOUNT
    assert context.account.instruments(ACCOUNT).get("instruments")[0].name == "EUR_USD"
    assert context.instrument.candles("EUR_USD", granularity="M5", price="MBA", count=3).get("candles")[0].mid.c > 0
    filled = context.order.market(ACCOUNT, instrument="EUR_USD", units=100)
    assert filled.status == 201 and filled.get("orderFillTransaction").units == 100.0
    assert context.order.limit(ACCOUNT, instrument="EUR_USD", units=10, price="1.00000", clientExtensions={"id": "v20"}).status == 201
    assert context.order.get(ACCOUNT, "@v20").get("order").state == "PENDING"
    assert context.order.cancel(ACCOUNT, "@v20").status == 200
    assert context.position.list_open(ACCOUNT).get("positions") and context.trade.list_open(ACCOUNT).get("trades")
    assert context.transaction.since(ACCOUNT, id=1).get("transactions")
    refused = context.order.market(ACCOUNT, instrument="EUR_USD", units=int(TOO_MUCH))
    assert refused.get("orderCancelTransaction").reason == "INSUFFICIENT_MARGIN"
    parts = context.pricing.stream(ACCOUNT, snapshot=True, instruments="EUR_USD").parts()
    assert next(iter(parts))[0] == "pricing.ClientPrice"


async def with_fivetwenty(port: int) -> int:
    """Typed all through; returns how many transactions it read."""
    environment = import_module("fivetwenty._internal.environment").Environment
    environment.base_url = environment.stream_url = property(lambda _: f"http://127.0.0.1:{port}/v3")
    async with import_module("fivetwenty").AsyncClient(TOKEN, account_id=ACCOUNT) as client:
        assert (await client.accounts.get_account_instruments(ACCOUNT))["instruments"][0].financing.financing_days_of_week
        assert (await client.accounts.get_account(ACCOUNT))["account"].id == ACCOUNT
        assert (await client.accounts.get_account_summary(ACCOUNT))["account"].currency == "USD"
        filled = await client.orders.post_market_order(ACCOUNT, "EUR_USD", 100)
        assert filled["orderFillTransaction"].units == 100
        resting = await client.orders.post_limit_order(ACCOUNT, "EUR_USD", 10, Decimal("1.00000"))
        assert (await client.orders.cancel_order(ACCOUNT, resting["orderCreateTransaction"].id))["orderCancelTransaction"].reason
        assert await client.positions.get_open_positions(ACCOUNT) and await client.pricing.get_pricing(ACCOUNT, ["EUR_USD"])
        async for line in client.pricing.get_pricing_stream(ACCOUNT, ["EUR_USD"]):
            assert line.time
            break
        told = (await client.transactions.get_transactions_since_id(ACCOUNT, "1"))["transactions"]
        return len(told)


if __name__ == "__main__":
    asked = with_oandapyv20(int(sys.argv[1]))
    with_v20(int(sys.argv[1]))
    read = asyncio.run(with_fivetwenty(int(sys.argv[1])))
    print(f"oandapyV20: {asked} requests and a stream; v20: 10 requests and a stream; fivetwenty: {read} transactions; all as they expect")
