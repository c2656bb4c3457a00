"""Bybit v5 unified as ccxt speaks it: how to ask, and which parameter really means what.

Owns the translation between Bybit's rows (ccxt_bybit_rows.py) and ours. Refuses an account that is not unified and one-way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, Final

from modules.domain.errors import VenueDenied, VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument, Side
from modules.domain.market import Chain, FundingRate
from modules.domain.money import ONE, ZERO, text
from modules.domain.order import Fill, Order, OrderKind, OrderReport, OrderState
from modules.domain.sessions import parse_iso
from modules.venues import ccxt_bybit_options
from modules.venues.ccxt_bybit_rows import (
    CODES,
    NAME,
    STATES,
    AccountRow,
    AckRow,
    ExecutionRow,
    MarketRow,
    OrderRow,
    PositionRow,
    TransferRow,
    fault_in,
    parsed,
)
from modules.venues.ccxt_client import Endpoint, Pace, foreign_errors, moved
from modules.venues.ccxt_dialect import Account, Adapter, Chains, Creation, KeyFacts, Tick, number
from modules.venues.ccxt_errors import CodeTable, judge
from modules.venues.protocol import Capabilities, FillSeen, FundingPaid, OrderDone, Settled, Transferred

SETTLE: Final = "USDT"
CATEGORIES: Final[Mapping[AssetClass, str]] = {AssetClass.SPOT: "spot", AssetClass.PERP: "linear", AssetClass.OPTION: "option"}
CLASSES: Final[Mapping[str, AssetClass]] = {category: asset_class for asset_class, category in CATEGORIES.items()}
OPTIONS: Final[Mapping[str, Any]] = {"fetchMarkets": {"types": ["spot", "linear"]}, "fetchCurrencies": False, "defaultSettle": SETTLE,
                                     "enableUnifiedMargin": False, "enableUnifiedAccount": True, "unifiedMarginStatus": 6,
                                     "watchMyTrades": {"execType": ["Trade", "AdlTrade", "BustTrade", "Delivery", "Settle"]}}
"""Only the unified account is supported, so ccxt needs not ask. (`check_key` does.) Its stream leaves Delivery out unless told."""
DELISTED: Final = ("Delivery", "Settle")
"""Kinds of execution that close what is held of a contract that ends: of linear ones, of inverse ones."""
EXECUTIONS: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.SPOT: ("Trade",), AssetClass.PERP: ("Trade", "BustTrade", "AdlTrade", *DELISTED), AssetClass.OPTION: ("Trade", "BustTrade"),
}
"""Kinds of execution that are fills. ccxt asks for "Trade" only unless told, so a liquidation would be missed."""
PAGE: Final = 50
EXECUTIONS_PAGE: Final = 100
HISTORY_DAYS: Final = 7
"""The longest span one question about executions or transfers may cover."""
ISOLATED: Final = "ISOLATED_MARGIN"
MARGIN_MODES: Final = ("REGULAR_MARGIN", ISOLATED)
"""Cross and isolated: those whose liquidation our stops keep clear of."""
LEVERAGE_AS_IT_WAS: Final = "110043"
"""Not modified: what was asked for is so already."""
RIGHTS_REFUSED: Final = frozenset({"Withdraw", "AccountTransfer", "SubMemberTransfer", "SubMemberTransferList"})
GROUPS_REFUSED: Final = frozenset({"Earn", "FiatP2P", "FiatBybitPay", "FiatConvertBroker"})
"""Whatever the right in them is called: they pay, sell or lock away what the account holds."""
RELIST_MS: Final = 300_000
SHORT_MARGIN: Final = Decimal("0.15")
"""What settings say where they say nothing; see OptionsSettings."""
DELIVERIES_MS: Final = 30 * 86_400_000
"""The longest span one question about deliveries may cover."""
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
SPAN_MS: Final = HISTORY_DAYS * _DAY_MS
KEPT_MS: Final = 730 * _DAY_MS
"""How far back the venue knows executions and transfers at all."""


class BybitDialect:
    """`option_coins`: whose options are listed from the start, where there are any; those of a coin that is streamed later come with its
    first chain."""

    name = NAME
    settle = SETTLE
    data_pace = trade_pace = Pace()
    codes: CodeTable = CODES
    trades = True

    def __init__(self, option_coins: Sequence[str] = (), short_margin: Decimal = SHORT_MARGIN) -> None:
        listed = tuple(coin for coin in option_coins if coin in ccxt_bybit_options.BASES)
        self.option_coins: Sequence[str] = ccxt_bybit_options.BASES
        self.options: Mapping[str, Any] = OPTIONS if not listed else {
            **OPTIONS, "fetchMarkets": ccxt_bybit_options.market_fields(listed)}
        self._short_margin = short_margin
        self._relisted_at: dict[str, int] = {}
        """Coin -> when its options were last asked for because a chain named one that was not listed."""

    def capabilities(self, classes: Sequence[AssetClass]) -> Capabilities:
        return Capabilities(
            set_client_id=True, query_by_client_id=True, trade_history_by_order=True, venue_stop=True,
            resting_target=AssetClass.SPOT not in classes,  # on spot a resting target locks the coins its stop would sell
            reduce_only=AssetClass.SPOT not in classes, shared_wallet=True)

    def fault_in(self, reply: object, url: str) -> str:
        return fault_in(reply, url)

    def point(self, client: Any, endpoint: Endpoint) -> None:
        client.urls["api"] = moved(client.urls["api"], endpoint)

    async def learn(self, venue: Adapter) -> None:
        """Nothing: instruments-info says it all."""

    def instrument(self, symbol: str, market: Mapping[str, Any], asset_class: AssetClass, maker_fee: Decimal, taker_fee: Decimal
                   ) -> Instrument | None:
        if asset_class is AssetClass.OPTION:
            return ccxt_bybit_options.contract(symbol, market["info"], maker_fee, taker_fee, self._short_margin)
        row = parsed(MarketRow, market["info"], f"instrument {symbol}")
        lot = row.lot_size_filter.base_precision if asset_class is AssetClass.SPOT else row.lot_size_filter.qty_step
        if lot is None:
            raise VenueUnreachable(f"{NAME}: instrument {symbol} is not what it should be: no lot")
        perp = asset_class is AssetClass.PERP
        return Instrument(
            symbol=symbol, venue=NAME, asset_class=asset_class, base=row.base_coin, quote=row.quote_coin, settle=row.quote_coin,
            underlying=row.base_coin, tick=row.price_filter.tick_size, lot=lot, quantity_min=row.lot_size_filter.min_order_qty,
            notional_min=row.lot_size_filter.min_notional_value if perp else row.lot_size_filter.min_order_amt, maker_fee=maker_fee,
            taker_fee=taker_fee, leverage_max=row.leverage_filter.max_leverage if perp and row.leverage_filter else Decimal(1),
            funding_interval_h=int(row.funding_interval or 480) // 60 if perp else None,
        )

    # -- market data ------------------------------------------------------------------------------------------------------

    def candles(self, venue: Adapter, symbol: str) -> Callable[[], Awaitable[Sequence[Any]]]:
        return lambda: venue.data.watch_ohlcv(symbol, venue.timeframe)

    def ticks(self, venue: Adapter, symbol: str) -> Sequence[Callable[[], Awaitable[Tick]]]:
        async def spot() -> Tick:
            # Bybit's spot ticker carries no bid and ask, the first level of the book does.
            best = (await venue.data.watch_bids_asks([symbol]))[symbol]
            return Tick(float(best["bid"]), float(best["ask"]))

        async def perp() -> Tick:
            info = (await venue.data.watch_ticker(symbol))["info"]
            hours = number(info, "fundingIntervalHour") if "fundingIntervalHour" in info else 8.0
            due, rate = int(number(info, "nextFundingTime")), number(info, "fundingRate")
            return Tick(number(info, "bid1Price"), number(info, "ask1Price"), number(info, "markPrice"),
                        FundingRate(symbol, due - int(hours * _HOUR_MS), rate, hours, rate))

        return (perp if ":" in symbol else spot,)

    async def chain(self, venue: Adapter, underlying: str, bounds: Chains, kept: Collection[str]) -> Chain:
        """One question for all contracts of a coin; its contracts are listed anew when one is told that nobody knows, at most every few
        minutes."""
        asked = {"category": ccxt_bybit_options.CATEGORY, "baseCoin": underlying}
        raws = (await venue.read(lambda: venue.data.publicGetV5MarketTickers(asked)))["result"]["list"]
        at, ids = venue.clock.now(), venue.ids(AssetClass.OPTION)
        ours = [name for raw in raws if isinstance(raw, dict) and (name := str(raw.get("symbol"))).endswith(f"-{SETTLE}")]
        if any(name not in ids for name in ours) and at - self._relisted_at.get(underlying, 0) >= RELIST_MS:
            self._relisted_at[underlying] = at
            await venue.list_options(underlying)
            ids = venue.ids(AssetClass.OPTION)
        known = await venue.known()
        return ccxt_bybit_options.chain_of(underlying, raws, {name: known[symbol] for name, symbol in ids.items()}, bounds, kept, at)

    def gone(self, symbol: str) -> Instrument | None:
        return ccxt_bybit_options.gone(symbol)

    async def delivered(self, venue: Adapter, instrument: Instrument) -> Decimal | None:
        asked = {"category": ccxt_bybit_options.CATEGORY, "baseCoin": instrument.base, "settleCoin": SETTLE}
        raws = (await venue.read(lambda: venue.data.publicGetV5MarketNewDeliveryPrice(asked)))["result"]["list"]
        return ccxt_bybit_options.delivery_of(raws, instrument.expiry or 0)

    def carries(self, url: str, symbol: str) -> bool:
        return url.endswith("/linear" if ":" in symbol else "/spot")

    # -- private streams --------------------------------------------------------------------------------------------------

    def private_socket(self, url: str) -> bool:
        return url.endswith("/private")

    def relogin(self, client: Any) -> None:
        """Nothing: each connection signs anew."""

    def fill_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        return (lambda: venue.private().watch_my_trades(),)

    def order_streams(self, venue: Adapter) -> Sequence[Callable[[], Awaitable[Any]]]:
        return (lambda: venue.private().watch_orders(),)

    async def streamed_fill(self, venue: Adapter, trade: Mapping[str, Any]) -> FillSeen | None:
        asset_class = CLASSES.get(trade["info"].get("category"))
        if asset_class is not None and ccxt_bybit_options.foreign(trade["info"], asset_class):
            return None
        return await self._fill(venue, trade["info"], asset_class) if asset_class in venue.classes and asset_class else None

    def streamed_end(self, venue: Adapter, order: Mapping[str, Any]) -> OrderDone | None:
        if CLASSES.get(order["info"].get("category")) not in venue.classes:
            return None
        row = parsed(OrderRow, order["info"], "order")
        how = {OrderState.CANCELED: "canceled", OrderState.REJECTED: "rejected"}.get(STATES[row.order_status])
        if how is None or not row.order_link_id:
            return None
        return OrderDone(row.order_link_id, row.updated_time, how, row.reject_reason, row.cum_exec_qty)

    # -- the account ------------------------------------------------------------------------------------------------------

    async def check_key(self, venue: Adapter) -> None:
        result = (await venue.read(lambda: venue.private().privateGetV5UserQueryApi({})))["result"]
        rights = result.get("permissions")
        if not isinstance(rights, dict) or not all(isinstance(names, list) for names in rights.values()):
            raise VenueUnreachable(f"{NAME}: the key's rights are not told")
        forbidden = sorted({str(name) for group, names in rights.items() for name in names
                            if group in GROUPS_REFUSED or name in RIGHTS_REFUSED})
        if forbidden:
            raise VenueDenied(f"{NAME}: the key may {', '.join(forbidden)}; make one that may only trade")
        if str(result.get("uta")) != "1":
            raise VenueDenied(f"{NAME}: not a unified account")

    async def key_facts(self, venue: Adapter) -> KeyFacts:
        result = (await venue.read(lambda: venue.private().privateGetV5UserQueryApi({})))["result"]
        bound, until = result.get("ips"), str(result.get("expiredAt", ""))
        told = isinstance(bound, list)
        try:
            expires = parse_iso(until)
        except ValueError:
            expires = 0
        return KeyFacts(sum(address != "*" for address in bound) if told else None, expires or None)

    async def check_mode(self, venue: Adapter) -> None:
        """Bybit sets the position mode for all perpetuals of one settlement coin at once, so one of them tells."""
        symbol = next((symbol for symbol in venue.symbols if ":" in symbol), None)
        if AssetClass.PERP not in venue.classes or symbol is None:
            return
        asked = {"category": CATEGORIES[AssetClass.PERP], "symbol": venue.private().market(symbol)["id"]}
        rows = (await venue.read(lambda: venue.private().privateGetV5PositionList(asked)))["result"]["list"]
        if any(not isinstance(row, dict) or str(row.get("positionIdx")) != "0" for row in rows):
            raise VenueDenied(f"{NAME}: perpetuals are in hedge mode; switch the account to one-way mode (no open positions or orders)")
        margin = (await venue.read(lambda: venue.private().privateGetV5AccountInfo({})))["result"].get("marginMode")
        if AssetClass.OPTION in venue.classes and margin == ISOLATED:
            raise VenueDenied(f"{NAME}: options cannot be sold on isolated margin; switch the account to cross margin")
        if margin not in MARGIN_MODES:
            raise VenueDenied(f"{NAME}: margin mode {str(margin)[:40]} is not reckoned with here; switch it to cross or isolated margin")

    async def accounts(self, venue: Adapter) -> Sequence[Account]:
        """Every coin of the unified account. Raises VenueUnreachable if it is not exactly one account."""
        reply = (await venue.read(lambda: venue.private().fetch_balance()))["info"]
        accounts: Sequence[object] = reply["result"].get("list", ()) if isinstance(reply, dict) else ()
        if len(accounts) != 1:
            raise VenueUnreachable(f"{NAME}: wallet-balance lists {len(accounts)} accounts, not one")
        account = parsed(AccountRow, accounts[0], "wallet")
        coins = {row.coin: row.wallet_balance for row in account.coin}
        if len(coins) != len(account.coin):
            raise VenueUnreachable(f"{NAME}: wallet lists a coin twice")
        return [Account(venue.classes, coins)]

    async def positions(self, venue: Adapter) -> Mapping[str, Decimal]:
        client, found = venue.private(), dict[str, Decimal]()
        for asset_class, named in ((AssetClass.PERP, {"settleCoin": SETTLE}), (AssetClass.OPTION, {"category": "option"})):
            if asset_class not in venue.classes:
                continue
            for raw in await _pages(venue, lambda more, named=named: client.fetch_positions(None, {**named, **more})):  # type: ignore[misc]
                if ccxt_bybit_options.foreign(raw, asset_class):
                    continue
                row = parsed(PositionRow, raw, "position")
                if row.size:
                    found[_symbol(venue, asset_class, row.symbol)] = row.size if row.side == "Buy" else -row.size
        return found

    async def open_orders(self, venue: Adapter, asset_class: AssetClass) -> Sequence[OrderReport]:
        client, category = venue.private(), CATEGORIES[asset_class]
        raws = await _pages(venue, lambda more: client.fetch_open_orders(None, None, PAGE, {"category": category, **more}))
        rows = [parsed(OrderRow, raw, "open order") for raw in raws if not ccxt_bybit_options.foreign(raw, asset_class)]
        return [_report(row, _symbol(venue, asset_class, row.symbol)) for row in rows]

    async def order(self, venue: Adapter, client_order_id: str, instrument: Instrument) -> OrderReport | None:
        """Asked among the open orders and then the ended ones: ccxt's fetch_order cannot ask Bybit by client id. Its fetch_open_orders can,
        but drops an answer about another market and says that there is none; so these are the same questions without its sieve."""
        client, symbol, asset_class = venue.private(), instrument.symbol, instrument.asset_class
        market_id = ccxt_bybit_options.market_id_of(instrument) if asset_class is AssetClass.OPTION else client.market(symbol)["id"]
        named = {"category": CATEGORIES[asset_class], "symbol": market_id, "orderLinkId": client_order_id}
        for ask in (client.privateGetV5OrderRealtime, client.privateGetV5OrderHistory):
            for raw in (await venue.read(partial(ask, dict(named))))["result"]["list"]:
                row = parsed(OrderRow, raw, "order")
                if row.order_link_id != client_order_id or _symbol(venue, asset_class, row.symbol) != symbol:
                    raise VenueUnreachable(f"{NAME}: asked for one order, was told of another")
                return _report(row, symbol)
        return None

    async def fills_since(self, venue: Adapter, at: int) -> Sequence[FillSeen]:
        """Asked in the spans and pages the venue allows."""
        return [await self._fill(venue, raw, asset_class) for asset_class in venue.classes for kind in EXECUTIONS[asset_class]
                for raw in await _executions(venue, CATEGORIES[asset_class], kind, at) if not ccxt_bybit_options.foreign(raw, asset_class)]

    async def _fill(self, venue: Adapter, raw: Any, asset_class: AssetClass) -> FillSeen:
        row = parsed(ExecutionRow, raw, "execution")
        symbol, side = _symbol(venue, asset_class, row.symbol), Side.BUY if row.side == "Buy" else Side.SELL
        if asset_class is AssetClass.OPTION:  # which may be listed no more
            fee_rate = ONE if row.fee_currency in ("", SETTLE) else await venue.rate(row.fee_currency, SETTLE)
            return FillSeen(Fill(NAME, symbol, row.exec_id, row.order_link_id, side, row.exec_qty, row.exec_price, row.exec_fee,
                                 row.fee_currency or SETTLE, fee_rate, ONE, row.is_maker, row.exec_time, row.exec_type == "BustTrade"),
                            row.leaves_qty == ZERO)
        instrument = (await venue.known())[symbol]
        in_base = instrument.asset_class is AssetClass.SPOT and side is Side.BUY
        fee_currency = row.fee_currency or (instrument.base if in_base else instrument.quote)
        fee_rate = ONE if fee_currency == instrument.settle else row.exec_price if fee_currency == instrument.base else (
            await venue.rate(fee_currency, instrument.settle))
        forced = row.exec_type in ("BustTrade", "AdlTrade")
        return FillSeen(Fill(NAME, symbol, row.exec_id, row.order_link_id, side, row.exec_qty, row.exec_price, row.exec_fee,
                             fee_currency, fee_rate, ONE, row.is_maker, row.exec_time, forced, row.exec_type in DELISTED),
                        row.leaves_qty == ZERO)

    async def funding_since(self, venue: Adapter, at: int) -> Sequence[FundingPaid]:
        rows = [parsed(ExecutionRow, raw, "funding") for raw in await _executions(venue, "linear", "Funding", at)]
        return [FundingPaid(NAME, venue.symbol(AssetClass.PERP, row.symbol), AssetClass.PERP, -row.exec_fee, float(row.fee_rate),
                            row.exec_time, row.exec_id) for row in rows]

    async def settled_since(self, venue: Adapter, at: int) -> Sequence[Settled]:
        """Options that were delivered, in spans of what one question may cover."""
        client, found, start = venue.private(), list[Settled](), max(at, venue.clock.now() - KEPT_MS)
        while start <= venue.clock.now():
            asked = {"category": ccxt_bybit_options.CATEGORY, "startTime": start, "endTime": start + DELIVERIES_MS,
                     "limit": PAGE, "cursor": ""}
            while True:
                result = (await venue.read(partial(client.privateGetV5AssetDeliveryRecord, dict(asked))))["result"]
                found += [ccxt_bybit_options.settled_of(raw) for raw in result["list"]
                          if not ccxt_bybit_options.foreign(raw, AssetClass.OPTION)]
                cursor = result.get("nextPageCursor")
                if not cursor or cursor == asked["cursor"]:
                    break
                asked["cursor"] = cursor
            start += DELIVERIES_MS + 1
        return found

    async def transfers_since(self, venue: Adapter, at: int) -> Sequence[Transferred]:
        """They belong to the first class. Asked in spans that name both ends: with a start alone the log tells one day."""
        client, raws, start = venue.private(), list[Any](), max(at, venue.clock.now() - KEPT_MS)
        while start <= venue.clock.now():
            for kind in ("TRANSFER_IN", "TRANSFER_OUT"):
                raws += await _pages(venue, partial(_transfers, client, start, kind))
            start += SPAN_MS + 1
        rows = [parsed(TransferRow, raw, "transfer") for raw in raws]
        return [Transferred(venue.classes[0], row.change, row.transaction_time, row.id) for row in rows if row.currency == SETTLE]

    # -- orders -----------------------------------------------------------------------------------------------------------

    def creation(self, order: Order, market: Mapping[str, Any]) -> Creation:
        """On spot a stop is told by triggerPrice alone (ccxt refuses a direction there), on linear with its direction."""
        if order.asset_class is AssetClass.OPTION:
            return ccxt_bybit_options.creation(order, Decimal(str(market["precision"]["price"])))
        side = "buy" if order.side is Side.BUY else "sell"
        parameters: dict[str, Any] = {"clientOrderId": order.client_order_id}
        perp = order.asset_class is AssetClass.PERP
        if perp:
            parameters |= {"positionIdx": 0}
            if order.reduce_only:
                parameters |= {"reduceOnly": True}
        price = None if order.price is None else text(order.price)
        if order.kind is OrderKind.STOP:
            parameters |= {"triggerPrice": price}
            if perp:
                parameters |= {"triggerDirection": "descending" if order.side is Side.SELL else "ascending", "triggerBy": "LastPrice"}
            return Creation("market", side, None, parameters)
        if order.kind is OrderKind.MARKET:
            return Creation("market", side, None, parameters)
        return Creation("limit", side, price, parameters | {"timeInForce": "GTC"})

    def cancellations(self, order: Order) -> Sequence[dict[str, Any]]:
        """Spot keeps conditional orders in a drawer of their own until they trigger."""
        named = {"orderLinkId": order.client_order_id}
        conditional = order.asset_class is AssetClass.SPOT and order.kind is OrderKind.STOP
        return (named | {"trigger": True}, named) if conditional else (named,)

    def acknowledged(self, raw: object, order: Order, parameters: Mapping[str, Any]) -> str:
        try:
            row = parsed(AckRow, raw, "acknowledgement")
        except VenueUnreachable:
            return ""
        return row.order_id if row.order_link_id == order.client_order_id else ""

    async def prepare(self, venue: Adapter, order: Order) -> None:
        try:
            await venue.private().set_leverage(text(order.leverage), order.symbol)
        except foreign_errors() as error:
            if judge(error, CODES, sent=True).code != LEVERAGE_AS_IT_WAS:
                raise


def _symbol(venue: Adapter, asset_class: AssetClass, market_id: str) -> str:
    """Options end: of theirs the name says it all."""
    return ccxt_bybit_options.symbol_of(market_id) if asset_class is AssetClass.OPTION else venue.symbol(asset_class, market_id)


def _report(row: OrderRow, symbol: str) -> OrderReport:
    return OrderReport(row.order_link_id, row.order_id, symbol, STATES[row.order_status], row.cum_exec_qty, row.qty)


async def _pages(venue: Adapter, ask: Callable[[dict[str, Any]], Awaitable[Any]]) -> list[Any]:
    """The raw rows of every page. ccxt hangs the cursor on one row of each page."""
    raws: list[Any] = []
    more: dict[str, Any] = {}
    while True:
        page = [item["info"] for item in await venue.read(partial(ask, more))]
        raws += page
        cursor = next((raw["nextPageCursor"] for raw in page if isinstance(raw, dict) and raw.get("nextPageCursor")), None)
        if cursor is None or cursor == more.get("cursor"):
            return raws
        more = {"cursor": cursor}


async def _executions(venue: Adapter, category: str, kind: str, at: int) -> list[Any]:
    client, raws, start = venue.private(), list[Any](), max(at, venue.clock.now() - KEPT_MS)
    while start <= venue.clock.now():
        asked = {"category": category, "execType": kind, "endTime": start + SPAN_MS}

        def ask(more: dict[str, Any], start: int = start, asked: dict[str, Any] = asked) -> Awaitable[Any]:
            return client.fetch_my_trades(None, start, EXECUTIONS_PAGE, {**asked, **more})  # type: ignore[no-any-return]

        raws += await _pages(venue, ask)
        start += SPAN_MS + 1
    return raws


def _transfers(client: Any, at: int, kind: str, more: dict[str, Any]) -> Awaitable[Any]:
    return client.fetch_ledger(None, at, PAGE, {"type": kind, "endTime": at + SPAN_MS, **more})  # type: ignore[no-any-return]
