"""pybit, a client nobody here wrote, against a running Bybit emulator: `python tests/emulators/bybit_clients.py PORT`.

It is no dependency of ours. Every answer must be one it understands; the figures are compared with each other, the venue being fresh.
"""

from __future__ import annotations

import importlib
import sys
from decimal import Decimal
from typing import Any

KEY, SECRET = "emulator-key-7QpX", "emulator-secret-h9Zr2Lw"


def check(client: Any, seen: list[str]) -> int:
    """Trade through `client`; the number of requests answered as pybit expects."""

    def asked(name: str, **parameters: Any) -> Any:
        seen.append(name)
        return getattr(client, name)(**parameters)["result"]

    linear = {"category": "linear", "symbol": "BTCUSDT"}
    asked("get_server_time")
    assert {row["symbol"] for row in asked("get_instruments_info", category="linear")["list"]} == {"BTCUSDT", "ETHUSDT"}
    assert len(asked("get_kline", **linear, interval="1", limit=3)["list"]) == 3
    assert asked("get_tickers", **linear)["list"][0]["symbol"] == "BTCUSDT"
    assert asked("get_orderbook", **linear)["s"] == "BTCUSDT"
    before = Decimal(asked("get_wallet_balance", accountType="UNIFIED")["list"][0]["coin"][0]["walletBalance"])
    asked("set_leverage", **linear, buyLeverage="3", sellLeverage="3")
    assert asked("place_order", **linear, side="Buy", orderType="Market", qty="0.01", orderLinkId="p1")["orderLinkId"] == "p1"
    asked("place_order", **linear, side="Sell", orderType="Market", qty="0.01", triggerPrice="40000", triggerDirection=2, reduceOnly=True,
          orderLinkId="p2")
    (resting,) = asked("get_open_orders", **linear)["list"]
    assert (resting["orderLinkId"], resting["orderStatus"]) == ("p2", "Untriggered")
    asked("cancel_order", **linear, orderLinkId="p2")
    assert [row["orderStatus"] for row in asked("get_order_history", **linear, orderLinkId="p2")["list"]] == ["Cancelled"]
    (position,) = asked("get_positions", **linear)["list"]
    assert (Decimal(position["size"]), position["leverage"]) == (Decimal("0.01"), "3")
    (fill,) = asked("get_executions", category="linear")["list"]
    after = Decimal(asked("get_wallet_balance", accountType="UNIFIED")["list"][0]["coin"][0]["walletBalance"])
    assert after == before - Decimal(fill["execFee"])
    after -= options(asked)
    assert Decimal(asked("get_wallet_balance", accountType="UNIFIED")["list"][0]["coin"][0]["walletBalance"]) == after
    asked("place_order", category="spot", symbol="BTCUSDT", side="Buy", orderType="Market", qty="0.001", marketUnit="baseCoin")
    asked("cancel_all_orders", **linear)
    return len(seen)


def options(asked: Any) -> Decimal:
    """Buy and sell an option by limits that end at once; what that cost."""
    listed = asked("get_instruments_info", category="option", baseCoin="BTC")["list"]
    one = next(row for row in listed if row["settleCoin"] == "USDT" and row["symbol"].endswith("-50000-C-USDT"))
    option = {"category": "option", "symbol": one["symbol"]}
    assert one["optionsType"] == "Call" and Decimal(one["lotSizeFilter"]["qtyStep"]) > 0
    (ticker,) = asked("get_tickers", **option)["list"]
    assert Decimal(ticker["bid1Price"]) < Decimal(ticker["markPrice"]) < Decimal(ticker["ask1Price"])
    assert len(asked("get_tickers", category="option", baseCoin="BTC")["list"]) == len(listed)
    assert Decimal(asked("get_orderbook", **option)["a"][0][0]) > 0
    for number, (side, price) in enumerate((("Buy", "100000"), ("Sell", "5"))):
        asked("place_order", **option, side=side, orderType="Limit", price=price, qty="0.1", timeInForce="IOC", orderLinkId=f"o{number}",
              reduceOnly=side == "Sell")
        size = [Decimal(row["size"]) for row in asked("get_positions", **option)["list"]]
        assert size == [Decimal("0.1") if side == "Buy" else 0]
    asked("place_order", **option, side="Buy", orderType="Limit", price="5", qty="0.1", timeInForce="GTC", orderLinkId="o2")
    assert [row["orderLinkId"] for row in asked("get_open_orders", **option)["list"]] == ["o2"]
    asked("cancel_order", **option, orderLinkId="o2")
    assert [row["orderStatus"] for row in asked("get_order_history", **option, orderLinkId="o2")["list"]] == ["Cancelled"]
    assert asked("get_new_delivery_price", category="option", baseCoin="BTC")["list"] == []
    assert asked("get_option_delivery_record", category="option")["list"] == []
    cost = Decimal(0)
    for row in asked("get_executions", category="option")["list"]:
        value = Decimal(row["execValue"]) * (1 if row["side"] == "Buy" else -1)
        cost += value + Decimal(row["execFee"])
    return cost


def main() -> None:
    root = f"127.0.0.1:{sys.argv[1]}"
    trading = importlib.import_module("pybit.unified_trading")
    session = trading.HTTP(api_key=KEY, api_secret=SECRET)
    session.endpoint = f"http://{root}"
    seen: list[str] = []
    print(f"pybit: {check(session, seen)} requests answered as it expects: {', '.join(seen)}")


if __name__ == "__main__":
    main()
