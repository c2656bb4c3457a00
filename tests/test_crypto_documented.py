"""The adapters of Bybit and Binance held to what others wrote down: the venues' published pages, and what clients of theirs recorded.

Emulators and adapters have one author, so what both got wrong no test between them can see. The rows here are our own, with the names and
values of the pages; which page says what is in docs/venues.md.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from modules.domain.errors import VenueBusy, VenueDenied, VenueUnreachable
from modules.domain.instrument import Side
from modules.domain.order import Accepted, InDoubt, NotSent, OrderState
from modules.venues import ccxt_binance_rows as binance_rows
from modules.venues import ccxt_bybit_options as bybit_options
from modules.venues import ccxt_bybit_rows as bybit_rows
from modules.venues.ccxt_binance_orders import Orders
from modules.venues.ccxt_errors import Meaning
from modules.venues.protocol import FillSeen
from tests.binance_worlds import binance
from tests.bybit_worlds import PERP, Listener, PushedClock, bybit, order, stop, until
from tests.emulators import binance as binance_emulator
from tests.emulators import bybit as bybit_emulator
from tests.emulators.binance import Reply
from tests.emulators.bybit import Fault
from tests.emulators.bybit_market import Ticket

D = Decimal
_M = Meaning

# -- what a code means for an order that was sent -----------------------------------------------------------------------------

BYBIT_MEANINGS: tuple[tuple[Meaning, str], ...] = (
    (_M.REFUSED, "10001 110003 110004 110006 110007 110009 110012 110013 110016 110017 110020 110021 110022 110023 110032 110034 110040 "
                 "110042 110044 110045 110051 110052 110053 110057 110063 110066 110068 110085 110086 110094 170033 170036 170037 170105 "
                 "170115 170116 170117 170121 170124 170130 170131 170132 170133 170134 170135 170136 170137 170140 170148 170151 170157 "
                 "170159 170192 170193 170194 170197 170198 170204 170206 170210 170217 170218 170226 170227 170228 170229 3200403"),
    (_M.DENIED, "10003 10004 10005 10007 10008 10009 10010 10024 10027 10028 10029 33004 170201 170219"),
    (_M.BUSY, "10006 10018 170005 170222"), (_M.SKEWED, "10002"), (_M.EXISTED, "110072 170141"),
    (_M.UNKNOWN_ORDER, "110001 110008 110010 110079 170139 170142 170143 170144 170190 170212 170213"),
    (_M.IN_DOUBT, "10000 10014 10016 10019 170001 170007 170032 170035 170146 170147 170149 170150 170191 170234"),
)
BINANCE_MEANINGS: tuple[tuple[Meaning, str], ...] = (
    (_M.REFUSED, "-1013 -1014 -1102 -1111 -1112 -1116 -1121 -2010 -2018 -2019 -2020 -2021 -2022 -2023 -2025 -2026 -2027 -4003 -4004 -4005 "
                 "-4013 -4014 -4015 -4016 -4023 -4024 -4045 -4061 -4062 -4087 -4109 -4118 -4120 -4131 -4140 -4141 -4142 -4164 -4183 -4184 "
                 "-4192 -4210 -4211 -4400 -4401 -4402 -4403 -5021 -5022 -5025 -5028 -5041"),
    (_M.DENIED, "-1002 -1022 -2014 -2015 -2017 -4088"), (_M.BUSY, "-1003 -1015"), (_M.SKEWED, "-1021"), (_M.EXISTED, "-4116"),
    (_M.UNKNOWN_ORDER, "-2011 -2013 -4117"), (_M.IN_DOUBT, "-1000 -1001 -1006 -1007 -1008 -1016"),
)


@pytest.mark.parametrize(("table", "meaning", "codes"), [
    *((bybit_rows.CODES, meaning, codes) for meaning, codes in BYBIT_MEANINGS),
    *((binance_rows.CODES, meaning, codes) for meaning, codes in BINANCE_MEANINGS)],
    ids=[f"{name} {meaning.value}" for name, told in (("bybit", BYBIT_MEANINGS), ("binance", BINANCE_MEANINGS)) for meaning, _ in told])
def test_each_published_code_means_what_its_page_says(table: Any, meaning: Meaning, codes: str) -> None:
    assert {code: table.codes.get(code) for code in codes.split()} == dict.fromkeys(codes.split(), meaning)


@pytest.mark.parametrize(("code", "words", "fate"), [
    (-1008, "Request throttled by system-level protection. Reduce-only/close-position orders are exempt. Please try again.", NotSent),
    (-1008, "Server is currently overloaded with other requests. Please try again in a few minutes.", InDoubt),
    (-1000, "Unknown error, please check your request or try again later.", InDoubt)])
async def test_of_the_meanings_of_a_503_only_the_one_that_says_so_was_not_taken(code: int, words: str, fate: type[Any]) -> None:
    async with binance() as (venue, made):
        venue.faults.append(binance_emulator.Fault("/fapi/v1/order", binance_emulator.coded(code, words, 503), False, "POST"))
        assert isinstance(await made.submit(order("1", PERP)), fate)
        assert isinstance(await made.submit(order("2", PERP)), Accepted), "nobody is silenced by it"


async def test_a_stop_that_is_going_off_is_asked_about_when_it_cannot_be_canceled() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", PERP))
        await made.submit(stop("2", PERP, "49000"))
        venue.faults.append(binance_emulator.Fault("/fapi/v1/algoOrder", binance_emulator.coded(-4117, "stop order is triggering"), False,
                                                   "DELETE"))
        assert isinstance(await made.cancel(stop("2", PERP, "49000")), InDoubt), "it rests still, as far as anybody says"
        venue.market.move("linear", "BTCUSDT", "48999")
        venue.faults.append(binance_emulator.Fault("/fapi/v1/algoOrder", binance_emulator.coded(-4117, "stop order is triggering"), False,
                                                   "DELETE"))
        assert isinstance(await made.cancel(stop("2", PERP, "49000")), Accepted)


@pytest.mark.parametrize("code", [10006, 10429, 170005, 170222])
async def test_a_limit_that_is_counted_by_the_second_is_no_ban_of_minutes(code: int) -> None:
    """An exit that waits ten minutes because of one question too many is worse than what the limit protects."""
    async with bybit() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault("wallet-balance", bybit_emulator.coded(code, "Too many visits. Exceeded the API Rate Limit."), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert busy.value.until - made.clock.now() <= 10_000


async def test_a_page_that_bans_an_address_is_minded_for_ten_minutes() -> None:
    async with bybit() as (venue, made):
        await made.instruments()
        venue.faults.append(Fault("wallet-balance", Reply(403, b"access too frequent"), False))
        with pytest.raises(VenueBusy) as busy:
            await made.wallet()
        assert busy.value.until - made.clock.now() > 60_000


# -- keys ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "right"), [
    ("Wallet", "AccountTransfer"), ("Wallet", "SubMemberTransfer"), ("Wallet", "Withdraw"), ("Earn", "Earn"),
    ("FiatP2P", "FiatP2POrder"), ("FiatP2P", "Advertising"), ("FiatBybitPay", "FaitPayOrder"),
    ("FiatConvertBroker", "FiatConvertBrokerOrder")])
async def test_a_bybit_key_that_may_move_money_by_any_published_right_is_refused(group: str, right: str) -> None:
    async with bybit() as (venue, made):
        venue.rights |= {"Exchange": ["ExchangeHistory"], "BlockTrade": [], "Earn": [], "FiatP2P": [], "FiatBybitPay": []}
        await made.check_account()
        venue.rights[group] = [right]
        with pytest.raises(VenueDenied, match=right):
            await made.check_account()


# -- what the owner does in the app -------------------------------------------------------------------------------------------


async def test_a_stop_of_the_owners_that_closes_the_whole_position_names_no_quantity_and_hides_nothing() -> None:
    async with binance() as (venue, made):
        await made.submit(order("1", PERP))
        await made.submit(stop("2", PERP, "49000"))
        venue.market.place_algo({"symbol": "BTCUSDT", "side": "SELL", "algoType": "CONDITIONAL", "type": "STOP_MARKET",
                                 "triggerPrice": "40000", "closePosition": "true", "clientAlgoId": "ios_st_1"})
        rested = {report.client_order_id: report.quantity for report in (await made.wallet()).open_orders}
        assert rested == {"tb2": D("0.01"), "ios_st_1": D(0)}


def test_only_a_conditional_order_that_closes_everything_may_be_without_a_quantity() -> None:
    told = {"symbol": "BTCUSDT", "algoId": 1, "clientAlgoId": "ios_st_1", "side": "SELL", "algoStatus": "NEW", "actualOrderId": "",
            "closePosition": True, "quantity": "0.000"}
    for quantity in ({"quantity": "0.000"}, {"quantity": None}, {"quantity": ""}):
        assert binance_rows.parsed(binance_rows.AlgoRow, told | quantity, "algo order").quantity == 0
        with pytest.raises(VenueUnreachable):
            binance_rows.parsed(binance_rows.AlgoRow, told | quantity | {"closePosition": False}, "algo order")


async def test_a_bybit_order_without_a_quantity_of_its_own_hides_nothing() -> None:
    """`qty` 0 with reduceOnly and closeOnTrigger closes what there is."""
    async with bybit() as (venue, made):
        await made.submit(order("1", PERP))
        product = venue.market.products["linear", "BTCUSDT"]
        venue.market.orders["owner"] = Ticket(
            "owner", "", product, False, True, D(0), D("50000"), D("40000"), False, True, made.clock.now(), status="Untriggered")
        assert [(report.venue_order_id, report.quantity) for report in (await made.wallet()).open_orders] == [("owner", D(0))]


# -- what the venue does on its own -------------------------------------------------------------------------------------------


async def test_a_perpetual_that_is_delisted_is_closed_by_an_execution_of_its_own_kind() -> None:
    async with bybit() as (venue, made), Listener(made) as heard:
        await until(lambda: venue.listeners["execution"])
        await made.submit(order("1", PERP))
        venue.market.delist("BTCUSDT")
        asked = (await made.fills_since(made.clock.now() - 60_000))[-1].fill
        assert (asked.side, asked.quantity, asked.client_order_id, asked.liquidation) == (Side.SELL, D("0.01"), "", False)
        assert asked.delisted
        await heard.until(lambda events: sum(isinstance(event, FillSeen) for event in events) >= 2)
        assert [event.fill for event in heard.events if isinstance(event, FillSeen)][-1] == asked


@pytest.mark.parametrize("ended", ["went off", "canceled"])
async def test_a_conditional_order_that_its_own_question_knows_no_more_is_found_in_the_list(ended: str) -> None:
    async with binance() as (venue, made):
        venue.market.tells_ended_algos = False
        await made.submit(order("1", PERP))
        await made.submit(stop("2", PERP, "49000"))
        if ended == "canceled":
            venue.market.drop_algo({"clientAlgoId": "tb2"})
        else:
            venue.market.move("linear", "BTCUSDT", "48999")
        report = await made.order("tb2", PERP)
        assert report is not None and report.state is (OrderState.CANCELED if ended == "canceled" else OrderState.FILLED)
        assert await made.order("tbnever", PERP) is None


async def test_a_deposit_counts_from_when_it_is_credited_and_once() -> None:
    """Its record is dated when the chain was first seen to carry it, minutes before."""
    async with binance() as (venue, made):
        now = made.clock.now()
        venue.market.transfer("USDT", "100", status=6)
        (row,) = venue.market.deposits
        row["insertTime"] = now - 1_800_000
        (credited,) = await made.transfers_since(now - 60_000)
        row["status"] = 1
        assert await made.transfers_since(now - 60_000) == [credited] and credited.amount == D(100)
        for status in (0, 2, 7, 8):
            row["status"] = status
            assert list(await made.transfers_since(now - 60_000)) == []


@pytest.mark.parametrize(("status", "gone"), [(0, True), (1, False), (2, True), (3, False), (4, True), (5, False), (6, True)])
async def test_a_withdrawal_counts_from_when_it_was_asked_for_unless_it_came_to_nothing(status: int, gone: bool) -> None:
    """The wallet is without it from then on; done it is much later."""
    async with binance() as (venue, made):
        venue.market.transfer("USDT", "-100")
        venue.market.withdrawals[0]["status"] = status
        assert [row.amount for row in await made.transfers_since(made.clock.now() - 60_000)] == ([D(-100)] if gone else [])


async def test_what_the_funding_wallet_receives_and_sends_is_none_of_the_spot_wallets() -> None:
    async with binance() as (venue, made):
        venue.market.transfer("USDT", "100")
        venue.market.transfer("USDT", "-40")
        venue.market.deposits[0]["walletType"] = venue.market.withdrawals[0]["walletType"] = 1
        venue.market.moves += [{"asset": "USDT", "amount": amount, "type": kind, "status": "CONFIRMED", "tranId": number,
                                "timestamp": made.clock.now()}
                               for number, amount, kind in ((1, "30", "FUNDING_MAIN"), (2, "10", "MAIN_FUNDING"))]
        assert sorted(row.amount for row in await made.transfers_since(made.clock.now() - 60_000)) == [D(-10), D(30)]


async def test_the_dearest_question_is_asked_no_more_than_the_venue_allows() -> None:
    """A question for withdrawals costs a tenth of what an account has in a minute, and audits come as often as there is need."""
    async with binance() as (venue, made):
        begun = made.clock.now()
        for _ in range(12):
            await made.transfers_since(begun - 60_000)
        assert venue.asked["/sapi/v1/capital/withdraw/history"] <= 1 + (made.clock.now() - begun) // 10_000
        venue.market.transfer("USDT", "-100")
        assert isinstance(made.clock, PushedClock)
        made.clock.ahead_ms += 10_001
        assert [row.amount for row in await made.transfers_since(made.clock.now() - 60_000)] == [D(-100)]


async def test_what_was_paid_in_while_nobody_looked_for_days_is_found() -> None:
    """The log tells one day from a start alone, and seven at most."""
    async with bybit() as (venue, made):
        day, now = 86_400_000, made.clock.now()
        for days in (16, 9, 3, 0):
            venue.market.transfer("USDT", str(days + 1))
            venue.market.log[-1]["transactionTime"] = str(now - days * day)
        told = await made.transfers_since(now - 17 * day)
        assert sorted(row.amount for row in told) == [D(1), D(4), D(10), D(17)]


# -- rows as the pages show them ----------------------------------------------------------------------------------------------


def test_bybits_published_rows_are_read() -> None:
    account = bybit_rows.parsed(bybit_rows.AccountRow, {
        "totalEquity": "3.31216591", "accountIMRate": "0", "accountType": "UNIFIED", "accountMMRate": "0", "accountLTV": "0", "coin": [
            {"availableToBorrow": "", "bonus": "0", "accruedInterest": "0", "availableToWithdraw": "", "totalOrderIM": "0", "equity": "0",
             "totalPositionMM": "0", "usdValue": "0", "spotBorrow": "0", "unrealisedPnl": "0", "collateralSwitch": True,
             "borrowAmount": "0.0", "totalPositionIM": "0", "walletBalance": "-0.5", "cumRealisedPnl": "0", "locked": "0",
             "marginCollateral": True, "coin": "BTC", "spotHedgingQty": "0"}]}, "wallet")
    assert [(row.coin, row.wallet_balance) for row in account.coin] == [("BTC", D("-0.5"))], "borrowed is below nothing"
    position = bybit_rows.parsed(bybit_rows.PositionRow, {
        "positionIdx": 0, "riskId": 1, "riskLimitValue": "150", "symbol": "BTCUSDT", "side": "Sell", "size": "300", "avgPrice": "27464.50",
        "tradeMode": 0, "positionStatus": "Normal", "leverage": "10", "liqPrice": "", "bustPrice": "", "seq": 5723621632}, "position")
    assert (position.side, position.size) == ("Sell", D(300))
    empty = bybit_rows.parsed(bybit_rows.PositionRow, {"positionIdx": 0, "symbol": "BTCUSDT", "side": "", "size": "0"}, "position")
    assert empty.size == 0
    execution = bybit_rows.parsed(bybit_rows.ExecutionRow, {
        "symbol": "ETHUSDT", "orderType": "Market", "underlyingPrice": "", "orderLinkId": "", "side": "Buy", "indexPrice": "",
        "orderId": "8c065341", "stopOrderType": "UNKNOWN", "leavesQty": "0", "execTime": "1672282722429", "feeCurrency": "",
        "isMaker": False, "execFee": "0.071409", "feeRate": "0.0006", "execId": "e0cbe81d-0f18", "tradeIv": "", "blockTradeId": "",
        "markPrice": "1183.54", "execPrice": "1190.15", "markIv": "", "orderQty": "0.1", "orderPrice": "1236.9", "execValue": "119.015",
        "execType": "Trade", "execQty": "0.1", "closedSize": "", "extraFees": "", "seq": 4688002127}, "execution")
    assert (execution.exec_time, execution.exec_fee, execution.fee_currency) == (1_672_282_722_429, D("0.071409"), "")
    for status in ("New", "PartiallyFilled", "Untriggered", "Rejected", "PartiallyFilledCanceled", "Filled", "Cancelled", "Triggered",
                   "Deactivated"):
        assert status in bybit_rows.STATES


def test_bybits_published_deliveries_are_read_though_a_record_is_stamped_after_the_hour() -> None:
    record = {"symbol": "BTC-29DEC22-16000-P-USDT", "side": "Buy", "deliveryTime": 1672300800860, "strike": "16000", "fee": "0.00000000",
              "position": "0.01", "deliveryPrice": "16541.86369547", "deliveryRpl": "3.5"}
    settled = bybit_options.settled_of(record)
    assert (settled.symbol, settled.quantity, settled.value, settled.fee) == ("BTC/USDT:USDT-221229-16000-P", D("0.01"), D(0), D(0))
    prices = [{"deliveryPrice": "111675.89830854", "deliveryTime": "1756080000000"},
              {"deliveryPrice": "114990.41430239", "deliveryTime": "1755993600000"}]
    assert bybit_options.delivery_of(prices, 1_755_993_600_000) == D("114990.41430239")
    assert bybit_options.delivery_of(prices, 1_756_166_400_000) is None


def test_binances_published_rows_are_read() -> None:
    told = {"caid": "Q5xaq5EGKgXXa0fD7fs0Ip", "aid": 2148719, "at": "CONDITIONAL", "o": "TAKE_PROFIT", "s": "BNBUSDT", "S": "SELL",
            "ps": "BOTH", "f": "GTC", "q": "0.01", "X": "CANCELED", "ai": "", "ap": "0.00000", "aq": "0.00000", "act": "0", "tp": "750",
            "p": "750", "V": "EXPIRE_MAKER", "wt": "CONTRACT_PRICE", "pm": "NONE", "cp": False, "pP": False, "R": False, "tt": 0,
            "gtd": 0, "rm": "Reduce Only reject", "T": 1750515742297}
    done = Orders().ended(told)
    assert done is not None and (done.client_order_id, done.how) == (told["caid"], "canceled") and done.reason == told["rm"]
    for status in ("NEW", "CANCELED", "TRIGGERING", "TRIGGERED", "FINISHED", "REJECTED", "EXPIRED"):
        assert status in binance_rows.ALGO_STATES
    rights = {"ipRestrict": False, "createTime": 1623840271000, "enableReading": True, "enableWithdrawals": False,
              "enableInternalTransfer": False, "enableMargin": False, "enableFutures": True, "permitsUniversalTransfer": False,
              "enableVanillaOptions": False, "enableFixApiTrade": False, "enableFixReadOnly": True, "enableSpotAndMarginTrading": True,
              "enablePortfolioMarginTrading": False}
    assert binance_rows.fault_in(rights, "https://x/sapi/v1/account/apiRestrictions") == ""
