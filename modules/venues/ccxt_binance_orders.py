"""Binance's orders as we are told of them: which is whose, and in which of two drawers it lies.

A stop of USD-M is a condition until it goes off and an order afterwards, with another number and perhaps another name; trades name the
order only. Owns the memory of which order is whose. Refuses an answer that speaks of another order than was asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.domain.money import ZERO
from modules.domain.order import OrderReport, OrderState
from modules.venues import ccxt_binance_rows as rows
from modules.venues.ccxt_binance_rows import ALGO_STATES, NAME, STATES, parsed
from modules.venues.ccxt_dialect import Adapter
from modules.venues.protocol import OrderDone

FORCED: Final = ("autoclose-", "adl_autoclose")
"""How Binance names the orders of a liquidation and a deleveraging."""
DELISTED: Final = "settlement_autoclose-"
OURS: Final = "tb"
"""How our client ids begin (domain.order.derive_id)."""
REMEMBERED: Final = 5_000
"""Orders whose owner is kept in mind."""
_SPOT, _PERP = AssetClass.SPOT, AssetClass.PERP


def forced(name: str) -> bool:
    """Whether the venue sent the order of this client id on its own."""
    return name.startswith((*FORCED, DELISTED))


class Owner(NamedTuple):
    """Whose order it is, once it cannot change any more."""

    client_order_id: str
    filled: bool


class Orders:
    """What we know of orders; one per account."""

    def __init__(self) -> None:
        self._owners: OrderedDict[tuple[AssetClass, int], Owner] = OrderedDict()
        self._became: OrderedDict[int, str] = OrderedDict()
        """Client id of the conditional order that became this order."""

    def ended(self, info: Mapping[str, Any]) -> OrderDone | None:
        """An order's or a condition's end, out of the user data streams; None = it has not ended, or was filled."""
        if "caid" in info:
            algo = parsed(rows.StreamAlgo, info, "algo order")
            self._learn(algo.ai, algo.caid)
            state, name, at, reason, filled = ALGO_STATES[algo.X], algo.caid, algo.T, algo.rm, ZERO
        else:
            row = parsed(rows.StreamOrder, info, "order")
            name = self._became.get(row.i) or row.C or row.c
            state, at, reason, filled = STATES[row.X], row.T, "" if row.r == "NONE" else row.r, row.z
        how = {OrderState.CANCELED: "canceled", OrderState.REJECTED: "rejected", OrderState.EXPIRED: "expired"}.get(state)
        return None if how is None else OrderDone(name, at, how, reason, filled)

    async def open_orders(self, venue: Adapter, asset_class: AssetClass) -> Sequence[OrderReport]:
        client = venue.private()
        ask = client.privateGetOpenOrders if asset_class is _SPOT else client.fapiPrivateGetOpenOrders
        plain = [parsed(rows.OrderRow, raw, "open order") for raw in await venue.read(lambda: ask({}))]
        found = [self._report(row, venue.symbol(asset_class, row.symbol)) for row in plain]
        if asset_class is _PERP:
            raws = await venue.read(lambda: client.fapiPrivateGetOpenAlgoOrders({}))
            found += [_algo_report(row, venue.symbol(_PERP, row.symbol))
                      for row in (parsed(rows.AlgoRow, raw, "open algo order") for raw in raws)]
        return found

    async def find(self, venue: Adapter, client_order_id: str, instrument: Instrument) -> OrderReport | None:
        """A perpetual's may lie in two drawers: the plain one is asked first."""
        client, asset_class = venue.private(), instrument.asset_class
        named = {"symbol": client.market(instrument.symbol)["id"], "origClientOrderId": client_order_id}
        ask = client.privateGetOrder if asset_class is _SPOT else client.fapiPrivateGetOrder
        raw = await venue.find(lambda: ask(dict(named)))
        if raw is not None:
            row = parsed(rows.OrderRow, raw, "order")
            if row.client_order_id != client_order_id or row.symbol != named["symbol"]:
                raise VenueUnreachable(f"{NAME}: asked for one order, was told of another")
            return self._report(row, instrument.symbol)
        return None if asset_class is _SPOT else await self._conditional(venue, client_order_id, instrument.symbol, named["symbol"])

    async def _conditional(self, venue: Adapter, client_order_id: str, symbol: str, market_id: str) -> OrderReport | None:
        client = venue.private()
        raw = await venue.find(lambda: client.fapiPrivateGetAlgoOrder({"symbol": market_id, "clientAlgoId": client_order_id}))
        if raw is None:  # one that ended is not told by this question for long
            told = [parsed(rows.AlgoRow, row, "algo order") for row in await self._all_conditional(venue, market_id)]
            algo = next((row for row in told if row.client_algo_id == client_order_id), None)
            if algo is None:
                return None
        else:
            algo = parsed(rows.AlgoRow, raw, "algo order")
        if algo.client_algo_id != client_order_id or algo.symbol != market_id:
            raise VenueUnreachable(f"{NAME}: asked for one order, was told of another")
        became = self._learn(algo.actual_order_id, client_order_id)
        if became is None:
            if algo.algo_status == "FINISHED":
                raise VenueUnreachable(f"{NAME}: a stop went off, and the order it became is not told")
            return _algo_report(algo, symbol)
        raw = await venue.read(lambda: client.fapiPrivateGetOrder({"symbol": market_id, "orderId": became}))
        row = parsed(rows.OrderRow, raw, "order")
        if row.order_id != became or row.symbol != market_id:
            raise VenueUnreachable(f"{NAME}: asked for one order, was told of another")
        return OrderReport(client_order_id, str(algo.algo_id), symbol, STATES[row.status], row.executed_qty, algo.quantity)

    async def _all_conditional(self, venue: Adapter, market_id: str) -> Sequence[object]:
        client = venue.private()
        raws: Sequence[object] = await venue.read(lambda: client.fapiPrivateGetAllAlgoOrders({"symbol": market_id}))
        return raws

    def _learn(self, order_id: str | int | None, client_order_id: str) -> int | None:
        """Which order a conditional one became; None = it has not yet."""
        if order_id in (None, "", "0", 0):
            return None
        became = int(str(order_id))
        self._became[became] = client_order_id
        while len(self._became) > REMEMBERED:
            self._became.popitem(last=False)
        return became

    def _report(self, row: rows.OrderRow, symbol: str) -> OrderReport:
        name = self._became.get(row.order_id, row.client_order_id)
        return OrderReport(name, str(row.order_id), symbol, STATES[row.status], row.executed_qty, row.orig_qty)

    async def owner(self, venue: Adapter, asset_class: AssetClass, market_id: str, order_id: int) -> Owner:
        """Whose an order is: ours by its client id, or by that of the conditional order it came of; "" = somebody else's."""
        key = asset_class, order_id
        if key in self._owners:
            return self._owners[key]
        client = venue.private()
        ask = client.privateGetOrder if asset_class is _SPOT else client.fapiPrivateGetOrder
        row = parsed(rows.OrderRow, await venue.read(lambda: ask({"symbol": market_id, "orderId": order_id})), "order")
        if row.order_id != order_id or row.symbol != market_id:
            raise VenueUnreachable(f"{NAME}: asked for one order, was told of another")
        name = row.client_order_id
        if asset_class is _PERP and not name.startswith(OURS) and not forced(name):
            if order_id not in self._became:
                for algo in (parsed(rows.AlgoRow, raw, "algo order") for raw in await self._all_conditional(venue, market_id)):
                    self._learn(algo.actual_order_id, algo.client_algo_id)
            name = self._became.get(order_id, name)
        owner = Owner(name, row.status == "FILLED")
        if STATES[row.status] is not OrderState.ACCEPTED:
            self._owners[key] = owner
            while len(self._owners) > REMEMBERED:
                self._owners.popitem(last=False)
        return owner


def _algo_report(row: rows.AlgoRow, symbol: str) -> OrderReport:
    return OrderReport(row.client_algo_id, str(row.algo_id), symbol, ALGO_STATES[row.algo_status], ZERO, row.quantity)
