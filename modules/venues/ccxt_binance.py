"""Binance spot and USD-M perpetuals as ccxt speaks them: how to ask, and which parameter really means what.

Two accounts, so nothing to divide. A trade names its order and not our client id, so orders are looked up; a stop of USD-M is no order
until it goes off (algoOrder), so both drawers are asked (ccxt_binance_orders.py). Owns the translation between Binance's rows
(ccxt_binance_rows.py) and ours. Refuses hedge mode, joint margin, and a key that may move money away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import ROUND_DOWN, Decimal
from functools import partial
from typing import Any, Final

from modules.domain.errors import VenueDenied, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import FundingRate
from modules.domain.money import ONE, ZERO, round_down, round_up, text
from modules.domain.order import Fill, Order, OrderKind, OrderReport
from modules.venues import ccxt_binance_rows as rows
from modules.venues.ccxt_binance_history import Withdrawals, deposits_and_withdrawals, income, trades
from modules.venues.ccxt_binance_orders import DELISTED, FORCED, OURS, Orders, forced
from modules.venues.ccxt_binance_rows import CODES, NAME, parsed
from modules.venues.ccxt_client import Endpoint, Pace, foreign_errors, moved
from modules.venues.ccxt_dialect import Account, Adapter, Creation, KeyFacts, Tick, number, text_only
from modules.venues.ccxt_errors import CodeTable, judge
from modules.venues.protocol import Capabilities, FillSeen, FundingPaid, OrderDone, Transferred

SETTLE: Final = "USDT"
DEMO: Final = Endpoint("https://demo-api.binance.com", "wss://demo-stream.binance.com")
"""Binance's demo trading: ccxt knows its several hosts. (The old futures testnet is closed to it.)"""
OPTIONS: Final[Mapping[str, Any]] = {
    "fetchMarkets": {"types": ["spot", "linear"]}, "fetchCurrencies": False, "defaultType": "spot", "recvWindow": 5_000,
    "warnOnFetchOpenOrdersWithoutSymbol": False, "fetchMargins": False, "watchPositions": {"fetchPositionsSnapshot": False},
    "watchBalance": {"fetchBalanceSnapshot": False}}
TRADE_PACE: Final = Pace(burst=380.0)
"""A look at everything an account tells costs 110 to 180 of what the venue gives a minute (open orders without a symbol and the income are
30 to 40 each). At ccxt's even pace the looks of a start took 22 s, in which a position found without a stop after a crash stayed so."""
DATA_PACE: Final = Pace(20.0, 75.0)
"""So that both together keep to the 2,400 a minute of USD-M: 380 at once and 1,200 there, 20 and 800 here."""
MARGIN_AS_IT_WAS: Final = "-4046"
"""No need to change margin type: what was asked for is so already."""
RIGHTS_REFUSED: Final = ("enableWithdrawals", "enableInternalTransfer", "permitsUniversalTransfer", "enableMargin")
RIGHTS_NEEDED: Final[Mapping[AssetClass, str]] = {AssetClass.SPOT: "enableSpotAndMarginTrading", AssetClass.PERP: "enableFutures"}
SPOT_MARKETS_MAX: Final = 40
"""Trades are told by market at 20 of the 6,000 points a minute (ccxt: 0.2 s each), every 15 s: so many leave room for everything else."""
LEVERAGE_UNTOLD: Final = Decimal(5)
"""Taken for the maximum where there is no key to ask with; only live trading depends on the real one."""
FUNDING_HOURS: Final = 8
TRANSFERS: Final = frozenset({"TRANSFER", "INTERNAL_TRANSFER", "CROSS_COLLATERAL_TRANSFER", "STRATEGY_UMFUTURES_TRANSFER",
                              "COIN_SWAP_DEPOSIT", "COIN_SWAP_WITHDRAW", "WELCOME_BONUS"})
_HOUR_MS: Final = 3_600_000
TRADED_MS: Final = 24 * _HOUR_MS
"""For so long the fills of a symbol are asked for because an order of ours went there; what is held is streamed, and asked for anyway."""
_SPOT, _PERP = AssetClass.SPOT, AssetClass.PERP


class BinanceDialect:
    """`margin`: the margin type set before a perpetual is opened. `stop_slack`: how far beyond its trigger a spot stop may trade where
    a market has no plain one, as a fraction."""

    name = NAME
    settle = SETTLE
    options = OPTIONS
    data_pace, trade_pace = DATA_PACE, TRADE_PACE
    codes: CodeTable = CODES
    trades = True

    def __init__(self, *, margin: str = "ISOLATED", stop_slack: Decimal = Decimal("0.05")) -> None:
        self._margin = margin
        self._stop_slack = stop_slack
        self._orders = Orders()
        self._withdrawals = Withdrawals()
        self._traded: dict[str, int] = {}
        """Symbols we sent orders for -> when the last of them was decided on, UTC ms."""
        self._hours: dict[str, int] = {}
        self._brackets: dict[str, tuple[Decimal, Decimal]] = {}
        """(highest leverage, maintenance margin) of each USD-M market."""

    def capabilities(self, classes: Sequence[AssetClass]) -> Capabilities:
        return Capabilities(
            set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
            resting_target=_SPOT not in classes,  # on spot a resting stop or target locks the coins of the other
            reduce_only=_SPOT not in classes)

    def fault_in(self, reply: object, url: str) -> str:
        return rows.fault_in(reply, url)

    def point(self, client: Any, endpoint: Endpoint) -> None:
        """ccxt tells spot streams from futures' by the address: on one host the path must say it, or both would have one price."""
        if endpoint == DEMO:
            client.enable_demo_trading(True)
            return
        stream = endpoint.stream.rstrip("/")
        client.urls["api"] = moved(client.urls["api"], endpoint)
        client.urls["api"]["ws"] |= {"spot": f"{stream}/stream/ws", "linear": f"{stream}/fstream/ws", "ws-api": {
            "spot": f"{stream}/ws-api/v3", "linear": f"{stream}/ws-fapi/v1"}}

    async def learn(self, venue: Adapter) -> None:
        """Funding intervals that are not eight hours, and (with a key that is accepted) leverage and margin of each market."""
        if _PERP not in venue.classes:
            return
        told = await venue.read(lambda: venue.data.fapiPublicGetFundingInfo({}))
        self._hours = {row["symbol"]: row["fundingIntervalHours"] for row in told
                       if isinstance(row.get("symbol"), str) and row.get("fundingIntervalHours") in (1, 2, 4, 8)}
        if venue.trading:
            try:
                told = await venue.read(lambda: venue.private().fapiPrivateGetLeverageBracket({}))
            except VenueDenied:
                return  # market data needs no key; the account's check says what is wrong with this one
            if not isinstance(told, list) or not told:
                raise VenueUnreachable(f"{NAME}: leverage brackets are not told")
            self._brackets = {str(row.get("symbol")): _bracket(row) for row in told}

    def instrument(self, symbol: str, market: Mapping[str, Any], asset_class: AssetClass, maker_fee: Decimal, taker_fee: Decimal
                   ) -> Instrument | None:
        perp = asset_class is _PERP
        if perp and market.get("settle") != SETTLE:
            return None
        raw = market["info"]
        filters = {row["filterType"]: row for row in raw["filters"] if isinstance(row, dict) and "filterType" in row}
        try:
            lot, tick = text_only(filters["LOT_SIZE"]["stepSize"]), text_only(filters["PRICE_FILTER"]["tickSize"])
            least = text_only(filters["LOT_SIZE"]["minQty"])
            notional = text_only(filters["MIN_NOTIONAL"]["notional"] if perp else (
                filters.get("NOTIONAL") or filters["MIN_NOTIONAL"])["minNotional"])
        except (KeyError, ValueError, TypeError):
            raise VenueUnreachable(f"{NAME}: instrument {symbol} is not what it should be: filters") from None
        if lot <= ZERO or tick <= ZERO:
            raise VenueUnreachable(f"{NAME}: instrument {symbol} is not what it should be: no lot or tick")
        leverage, maintenance = self._brackets.get(raw["symbol"], (LEVERAGE_UNTOLD, ZERO)) if perp else (ONE, ZERO)
        return Instrument(
            symbol=symbol, venue=NAME, asset_class=asset_class, base=raw["baseAsset"], quote=raw["quoteAsset"], settle=raw["quoteAsset"],
            underlying=raw["baseAsset"], tick=tick, lot=lot, quantity_min=least, notional_min=notional, maker_fee=maker_fee,
            taker_fee=taker_fee, leverage_max=leverage, maintenance_margin=maintenance,
            funding_interval_h=self._hours.get(raw["symbol"], FUNDING_HOURS) if perp else None)

    # -- market data ------------------------------------------------------------------------------------------------------

    def candles(self, venue: Adapter, symbol: str) -> Callable[[], Awaitable[Sequence[Any]]]:
        return lambda: venue.data.watch_ohlcv(symbol, venue.timeframe)

    def ticks(self, venue: Adapter, symbol: str) -> Sequence[Callable[[], Awaitable[Tick]]]:
        async def book() -> Tick:
            best = (await venue.data.watch_bids_asks([symbol]))[symbol]
            return Tick(float(best["bid"]), float(best["ask"]))

        async def mark() -> Tick:
            info = (await venue.data.watch_mark_price(symbol))["info"]
            hours = self._hours.get(info["s"], FUNDING_HOURS)
            rate = number(info, "r")
            return Tick(mark=number(info, "p"), funding=FundingRate(symbol, int(info["T"]) - hours * _HOUR_MS, rate, float(hours), rate))

        return (book, mark) if ":" in symbol else (book,)

    def carries(self, url: str, symbol: str) -> bool:
        futures = "/public/ws" in url or "/market/ws" in url
        return futures if ":" in symbol else not futures and not self.private_socket(url)

    # -- private streams --------------------------------------------------------------------------------------------------

    def private_socket(self, url: str) -> bool:
        return "/ws-api" in url or "ws-api." in url or "/private/ws" in url

    def relogin(self, client: Any) -> None:
        """A listen key that ran out is believed good for another twenty minutes by ccxt."""
        client.options["linear"] = {"listenKey": None, "lastAuthenticatedTime": 0}

    def _kinds(self, venue: Adapter) -> list[dict[str, str]]:
        kinds = {_SPOT: {"type": "spot"}, _PERP: {"type": "swap", "subType": "linear"}}
        return [kinds[asset_class] for asset_class in venue.classes]

    def fill_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        return [partial(_watched, venue, "watch_my_trades", kind) for kind in self._kinds(venue)]

    def order_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        return [partial(_watched, venue, "watch_orders", kind) for kind in self._kinds(venue)]

    async def streamed_fill(self, venue: Adapter, trade: Mapping[str, Any]) -> FillSeen | None:
        asset_class = _PERP if "ps" in trade["info"] else _SPOT
        if asset_class not in venue.classes:
            return None
        row = parsed(rows.StreamTrade, trade["info"], "execution")
        symbol = venue.symbol(asset_class, row.s)
        known = row.c.startswith(OURS) or forced(row.c)
        name = row.c if known else (await self._orders.owner(venue, asset_class, row.s, row.i)).client_order_id
        if row.N is None and row.n:
            raise VenueUnreachable(f"{NAME}: an execution's fee has no coin")
        return await self._seen(venue, symbol, str(row.t), name, row.S == "BUY", row.l, row.L, row.n, row.N or SETTLE, row.m, row.T,
                                row.X == "FILLED")

    def streamed_end(self, venue: Adapter, order: Mapping[str, Any]) -> OrderDone | None:
        info = order["info"]
        done = self._orders.ended(info)
        return done if (_PERP if "ps" in info else _SPOT) in venue.classes else None

    # -- the account ------------------------------------------------------------------------------------------------------

    async def check_key(self, venue: Adapter) -> None:
        client = venue.private()
        if "sapi" not in client.urls["api"]:
            return  # demo trading has none, and no money either
        rights = await venue.read(lambda: client.sapiGetAccountApiRestrictions({}))
        if not all(isinstance(rights.get(name), bool) for name in (*RIGHTS_REFUSED, *(RIGHTS_NEEDED[one] for one in venue.classes))):
            raise VenueUnreachable(f"{NAME}: the key's rights are not told")
        forbidden = [name for name in RIGHTS_REFUSED if rights[name]]
        if forbidden:
            raise VenueDenied(f"{NAME}: the key has {', '.join(forbidden)}; make one that may only read and trade")
        lacking = [RIGHTS_NEEDED[asset_class] for asset_class in venue.classes if not rights[RIGHTS_NEEDED[asset_class]]]
        if lacking:
            raise VenueDenied(f"{NAME}: the key lacks {', '.join(lacking)}")

    async def key_facts(self, venue: Adapter) -> KeyFacts:
        client = venue.private()
        if "sapi" not in client.urls["api"]:
            return KeyFacts()
        rights = await venue.read(lambda: client.sapiGetAccountApiRestrictions({}))
        bound, until = rights.get("ipRestrict"), str(rights.get("tradingAuthorityExpirationTime", ""))
        return KeyFacts(int(bound) if isinstance(bound, bool) else None, int(until) if until.isdecimal() and len(until) == 13 else None)

    async def check_mode(self, venue: Adapter) -> None:
        spot = sum(":" not in symbol for symbol in venue.symbols) if _SPOT in venue.classes else 0
        if spot > SPOT_MARKETS_MAX:
            raise VenueDenied(f"{NAME}: {spot} spot markets are too many to trade: each is asked for its fills every 15 s, and the venue "
                              f"allows that for {SPOT_MARKETS_MAX}; name fewer in symbols, or lower select.number_assets")
        if _PERP not in venue.classes:
            return
        client = venue.private()
        if (await venue.read(lambda: client.fapiPrivateGetPositionSideDual({})))["dualSidePosition"]:
            raise VenueDenied(f"{NAME}: perpetuals are in hedge mode; switch the account to one-way mode (nothing may be open)")
        if (await venue.read(lambda: client.fapiPrivateGetMultiAssetsMargin({})))["multiAssetsMargin"]:
            raise VenueDenied(f"{NAME}: multi-assets mode is on; switch the futures account to single-asset mode")

    async def accounts(self, venue: Adapter) -> Sequence[Account]:
        client, found = venue.private(), list[Account]()
        if _SPOT in venue.classes:
            reply = await venue.read(lambda: client.privateGetAccount({}))
            coins = [parsed(rows.CoinRow, raw, "wallet") for raw in reply["balances"]]
            found.append(_account(_SPOT, [(row.asset, row.free + row.locked) for row in coins]))
        if _PERP in venue.classes:
            reply = await venue.read(lambda: client.fapiPrivateV3GetBalance({}))
            purses = [parsed(rows.PurseRow, raw, "futures wallet") for raw in reply]
            found.append(_account(_PERP, [(row.asset, row.balance) for row in purses]))
        return found

    async def positions(self, venue: Adapter) -> Mapping[str, Decimal]:
        raws = await venue.read(lambda: venue.private().fapiPrivateV3GetPositionRisk({}))
        held = [parsed(rows.PositionRow, raw, "position") for raw in raws]
        found = {venue.symbol(_PERP, row.symbol): row.position_amt for row in held if row.position_amt}
        if len(found) != sum(1 for row in held if row.position_amt):
            raise VenueUnreachable(f"{NAME}: lists a position twice")
        return found

    async def open_orders(self, venue: Adapter, asset_class: AssetClass) -> Sequence[OrderReport]:
        return await self._orders.open_orders(venue, asset_class)

    async def order(self, venue: Adapter, client_order_id: str, instrument: Instrument) -> OrderReport | None:
        return await self._orders.find(venue, client_order_id, instrument)

    async def fills_since(self, venue: Adapter, at: int) -> Sequence[FillSeen]:
        """Binance tells trades by market only. Of USD-M the income says in which; of spot those we stream, send orders for or hold."""
        client, found = venue.private(), list[FillSeen]()
        self._traded = {symbol: sent for symbol, sent in self._traded.items() if sent >= at - TRADED_MS}
        for asset_class in venue.classes:
            perp = asset_class is _PERP
            markets = {client.market(symbol)["id"] for symbol in (*venue.symbols, *self._traded)
                       if (":" in symbol) == perp and symbol in client.markets}
            if perp:
                markets |= {row.symbol for row in await income(venue, at, "COMMISSION") if row.symbol}
            ask = client.fapiPrivateGetUserTrades if perp else client.privateGetMyTrades
            model: type[rows.SpotTradeRow | rows.PerpTradeRow] = rows.PerpTradeRow if perp else rows.SpotTradeRow
            for market_id in sorted(markets):
                found += await self._fills(venue, asset_class, market_id, await trades(venue, ask, model, market_id, at, perp=perp))
        return found

    async def _fills(self, venue: Adapter, asset_class: AssetClass, market_id: str, told: Sequence[rows.SpotTradeRow | rows.PerpTradeRow]
                     ) -> list[FillSeen]:
        symbol, found = venue.symbol(asset_class, market_id), list[FillSeen]()
        last = {row.order_id: row.id for row in sorted(told, key=lambda row: row.id)}
        for row in told:
            owner = await self._orders.owner(venue, asset_class, market_id, row.order_id)
            buy = row.is_buyer if isinstance(row, rows.SpotTradeRow) else row.buyer
            maker = row.is_maker if isinstance(row, rows.SpotTradeRow) else row.maker
            found.append(await self._seen(venue, symbol, str(row.id), owner.client_order_id, buy, row.qty, row.price, row.commission,
                                          row.commission_asset, maker, row.time, owner.filled and last[row.order_id] == row.id))
        return found

    async def _seen(self, venue: Adapter, symbol: str, trade_id: str, name: str, buy: bool, quantity: Decimal, price: Decimal, fee: Decimal,
                    coin: str, maker: bool, at: int, done: bool) -> FillSeen:
        instrument = (await venue.known())[symbol]
        worth = ONE if coin == instrument.settle else price if coin == instrument.base else await venue.rate(coin, instrument.settle)
        side, ours = Side.BUY if buy else Side.SELL, "" if forced(name) else name
        return FillSeen(Fill(NAME, symbol, trade_id, ours, side, quantity, price, fee, coin, worth, ONE, maker, at,
                             name.startswith(FORCED), name.startswith(DELISTED)), done)

    async def funding_since(self, venue: Adapter, at: int) -> Sequence[FundingPaid]:
        found = []
        for row in await income(venue, at, "FUNDING_FEE"):
            if row.asset != SETTLE:
                raise VenueUnreachable(f"{NAME}: funding was paid in {row.asset}")
            rate = await self._rate(venue, row.symbol, row.time)
            reference = f"{row.symbol}-{row.tran_id}"
            found.append(FundingPaid(NAME, venue.symbol(_PERP, row.symbol), _PERP, row.income, rate, row.time, reference))
        return found

    async def _rate(self, venue: Adapter, market_id: str, at: int) -> float:
        """The rate behind a payment: its row does not tell it. Market data, not money."""
        asked = {"symbol": market_id, "startTime": at - 60_000, "limit": 1}
        told = await venue.read(lambda: venue.data.fapiPublicGetFundingRate(asked))
        return number(told[0], "fundingRate") if told else 0.0

    async def transfers_since(self, venue: Adapter, at: int) -> Sequence[Transferred]:
        found = [Transferred(_PERP, row.income, row.time, f"{row.income_type}-{row.tran_id}")
                 for row in (await income(venue, at, None) if _PERP in venue.classes else ())
                 if row.income_type in TRANSFERS and row.asset == SETTLE]
        if _SPOT in venue.classes:
            found += await deposits_and_withdrawals(venue, at, SETTLE, self._withdrawals)
        return found

    # -- orders -----------------------------------------------------------------------------------------------------------

    def creation(self, order: Order, market: Mapping[str, Any]) -> Creation:
        side = "buy" if order.side is Side.BUY else "sell"
        perp, stop = order.asset_class is _PERP, order.kind is OrderKind.STOP
        self._traded[order.symbol] = order.at
        parameters: dict[str, Any] = {"clientAlgoId" if perp and stop else "newClientOrderId": order.client_order_id}
        if perp and order.reduce_only:
            parameters |= {"reduceOnly": True}
        if stop:
            return self._stop(order, market, side, parameters)
        if order.kind is OrderKind.MARKET:
            return Creation("market", side, None, parameters)
        return Creation("limit", side, None if order.price is None else text(order.price), parameters | {"timeInForce": "GTC"})

    def _stop(self, order: Order, market: Mapping[str, Any], side: str, parameters: dict[str, Any]) -> Creation:
        """USD-M: a conditional STOP_MARKET on the last price. Spot: STOP_LOSS, or STOP_LOSS_LIMIT with slack where there is no other."""
        if order.price is None:
            raise ValueError("a stop without a price")
        parameters |= {"triggerPrice": text(order.price)}
        if order.asset_class is _PERP:
            return Creation("market", side, None, parameters | {"workingType": "CONTRACT_PRICE"})
        kinds = market["info"].get("orderTypes", ())
        if "STOP_LOSS" in kinds:
            return Creation("market", side, None, parameters)
        if "STOP_LOSS_LIMIT" not in kinds:
            raise ValueError(f"{order.symbol} has no stop order")
        tick = Decimal(repr(market["precision"]["price"]))
        away = order.price * (ONE + self._stop_slack * order.side.sign)
        limit = round_up(away, tick) if order.side is Side.SELL else round_down(away, tick)
        return Creation("limit", side, text(limit), parameters)

    def cancellations(self, order: Order) -> Sequence[dict[str, Any]]:
        """A conditional order of USD-M is one until it goes off."""
        plain = {"origClientOrderId": order.client_order_id}
        conditional = order.asset_class is _PERP and order.kind is OrderKind.STOP
        return ({"trigger": True, "clientAlgoId": order.client_order_id}, plain) if conditional else (plain,)

    def acknowledged(self, raw: object, order: Order, parameters: Mapping[str, Any]) -> str:
        try:
            if "clientAlgoId" in parameters:
                algo = parsed(rows.AlgoAckRow, raw, "acknowledgement")
                return str(algo.algo_id) if algo.client_algo_id == order.client_order_id else ""
            row = parsed(rows.AckRow, raw, "acknowledgement")
        except VenueUnreachable:
            return ""
        # A canceled spot order has a client id of the cancel's own, and ours beside it.
        return str(row.order_id) if (row.orig_client_order_id or row.client_order_id) == order.client_order_id else ""

    async def prepare(self, venue: Adapter, order: Order) -> None:
        """Margin type, then leverage, which Binance takes in whole numbers: rounded down is more margin, never less."""
        client = venue.private()
        market_id = client.market(order.symbol)["id"]
        try:
            await client.fapiPrivatePostMarginType({"symbol": market_id, "marginType": self._margin})
        except foreign_errors() as error:
            if judge(error, CODES, sent=True).code != MARGIN_AS_IT_WAS:
                raise
        wanted = max(1, int(order.leverage.to_integral_value(ROUND_DOWN)))
        told = await client.fapiPrivatePostLeverage({"symbol": market_id, "leverage": wanted})
        if told.get("leverage") != wanted or told.get("symbol") != market_id:
            raise VenueUnreachable(f"{NAME}: leverage {wanted} was asked for, another told")


async def _watched(venue: Adapter, method: str, kind: Mapping[str, str]) -> Any:
    return await getattr(venue.private(), method)(None, None, None, dict(kind))


def _account(asset_class: AssetClass, held: Sequence[tuple[str, Decimal]]) -> Account:
    coins = dict(held)
    if len(coins) != len(held):
        raise VenueUnreachable(f"{NAME}: wallet lists a coin twice")
    return Account((asset_class,), coins)


def _bracket(row: Any) -> tuple[Decimal, Decimal]:
    """(highest leverage, maintenance margin of the smallest position). Raises VenueUnreachable."""
    try:
        first = row["brackets"][0]
        found = Decimal(repr(first["initialLeverage"])), Decimal(repr(first["maintMarginRatio"]))
    except (KeyError, IndexError, TypeError, ArithmeticError):
        raise VenueUnreachable(f"{NAME}: leverage brackets are not what they should be") from None
    if not all(value.is_finite() for value in found) or found[0] < ONE or not ZERO <= found[1] < ONE:
        raise VenueUnreachable(f"{NAME}: leverage brackets are not what they should be")
    return found
