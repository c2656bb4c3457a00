"""python-binance, a client nobody here wrote, against a running Binance emulator: `python tests/emulators/binance_clients.py PORT`.

It is no dependency of ours. Every answer must be one it understands; the figures are compared with each other, the venue being fresh.
"""

from __future__ import annotations

import importlib
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

KEY, SECRET = "emulator-key-b1NaNc3", "emulator-secret-q8Vt5Yd"


def check(client: Any, seen: list[str]) -> int:
    """Trade through `client`; the number of requests answered as python-binance expects."""

    def asked(name: str, **parameters: Any) -> Any:
        seen.append(name)
        return getattr(client, name)(**parameters)

    def cash() -> Decimal:
        return Decimal(asked("get_asset_balance", asset="USDT")["free"])

    spot = {"symbol": "BTCUSDT"}
    asked("ping")
    asked("get_server_time")
    assert {row["symbol"] for row in asked("get_exchange_info")["symbols"]} == {"BTCUSDT", "ETHUSDT", "BNBUSDT"}
    assert asked("get_symbol_info", symbol="BTCUSDT")["baseAsset"] == "BTC"
    assert len(asked("get_klines", **spot, interval="1m", limit=3)) == 3
    assert Decimal(asked("get_orderbook_ticker", **spot)["askPrice"]) > Decimal(asked("get_ticker", **spot)["bidPrice"])
    assert asked("get_account_api_permissions")["enableWithdrawals"] is False
    before = cash()
    bought = asked("order_market_buy", **spot, quantity="0.01", newClientOrderId="p1")
    (fill,) = bought["fills"]
    assert (bought["status"], bought["clientOrderId"], fill["commissionAsset"]) == ("FILLED", "p1", "BTC")
    assert cash() == before - Decimal(bought["cummulativeQuoteQty"])
    resting = asked("order_limit_buy", **spot, quantity="0.01", price="40000.00", newClientOrderId="p2")
    assert [row["clientOrderId"] for row in asked("get_open_orders", **spot)] == ["p2"]
    assert asked("get_order", **spot, origClientOrderId="p2")["orderId"] == resting["orderId"]
    assert asked("cancel_order", **spot, origClientOrderId="p2")["origClientOrderId"] == "p2"
    stop = asked("create_order", **spot, side="SELL", type="STOP_LOSS", quantity="0.009", stopPrice="40000.00")
    assert asked("get_order", **spot, orderId=stop["orderId"])["status"] == "NEW"
    assert [row["qty"] for row in asked("get_my_trades", **spot)] == [fill["qty"]]
    assert {row["symbol"] for row in asked("futures_exchange_info")["symbols"]} == {"BTCUSDT", "ETHUSDT"}
    assert asked("futures_get_position_mode") == {"dualSidePosition": False}
    asked("futures_change_margin_type", **spot, marginType="ISOLATED")
    assert asked("futures_change_leverage", **spot, leverage=3)["leverage"] == 3
    order = asked("futures_create_order", **spot, side="BUY", type="MARKET", quantity="0.01", newClientOrderId="p3")
    assert asked("futures_get_order", **spot, orderId=order["orderId"])["status"] == "FILLED"
    (position,) = asked("futures_position_information", **spot)
    assert Decimal(position["positionAmt"]) == Decimal("0.01")
    (trade,) = asked("futures_account_trades", **spot)
    (paid,) = asked("futures_income_history", incomeType="COMMISSION")
    assert Decimal(paid["income"]) == -Decimal(trade["commission"])
    (balance,) = asked("futures_account_balance")
    assert Decimal(balance["balance"]) == Decimal(10_000) + Decimal(paid["income"])
    algo = asked("futures_create_algo_order", **spot, side="SELL", type="STOP_MARKET", quantity="0.01", triggerPrice="40000.0",
                 clientAlgoId="p4", reduceOnly="true")
    assert asked("futures_get_open_algo_orders", **spot)[0]["algoId"] == algo["algoId"]
    asked("futures_cancel_algo_order", **spot, clientAlgoId="p4")
    assert asked("futures_get_algo_order", clientAlgoId="p4")["algoStatus"] == "CANCELED"
    assert asked("futures_stream_get_listen_key")
    return len(seen)


def main() -> None:
    # Our emulator beside this file is called binance too.
    sys.path = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    root = f"http://127.0.0.1:{sys.argv[1]}"
    made = importlib.import_module("binance.client").Client
    made.API_URL, made.MARGIN_API_URL, made.FUTURES_URL = f"{root}/api", f"{root}/sapi", f"{root}/fapi"
    seen: list[str] = []
    print(f"python-binance: {check(made(KEY, SECRET), seen)} requests answered as it expects: {', '.join(seen)}")


if __name__ == "__main__":
    main()
