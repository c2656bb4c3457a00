"""The option half of the Bybit emulator: contracts, their quotes, and what happens to them at expiry. No wire of its own.

Marks are Black-76 on a forward a little above the index; the index is the price of the underlying's linear contract here. A quote is the
mark less or more `half` of it, at least a tick. Premiums are paid and received in USDT the moment a contract trades; a contract ends with
`deliver`, which pays its intrinsic value and takes the delivery fee from what ends in the money. Chains have to be asked for: no stream
tells of them.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.emulators.bybit_market import Market, Product

Row = dict[str, Any]
Rows = list[Row]
ZERO, UNIT = Decimal(0), Decimal("1e-8")
YEAR_MS = 365 * 86_400_000
TRADE_FEE, DELIVERY_FEE, FEE_CAP = Decimal("0.0003"), Decimal("0.00015"), Decimal("0.07")
GROWTH = 0.03
"""Of the forward over the index, a year."""
GRID = {"BTC": (Decimal(5), Decimal("0.01")), "ETH": (Decimal("0.1"), Decimal("0.1"))}
"""Tick and lot."""
STEPS = {"BTC": 1_000, "ETH": 50}
DAY_MS, MORNING_MS = 86_400_000, 8 * 3_600_000
AHEAD = (1, 2, 3, 7, 14)
"""Days until the expiries that are listed."""


class Terms(NamedTuple):
    base: str
    expiry: int
    strike: Decimal
    call: bool
    settle: str = "USDT"


def contract_id(terms: Terms) -> str:
    """BTC-4DEC26-50000-C-USDT; contracts that settle in USDC have no ending."""
    day = datetime.fromtimestamp(terms.expiry / 1000, UTC)
    name = f"{terms.base}-{day.day}{day:%b}{day:%y}".upper()
    return f"{name}-{terms.strike}-{'C' if terms.call else 'P'}" + (f"-{terms.settle}" if terms.settle != "USDC" else "")


class OptionDesk:
    """The contracts of one `Market`. `volatility` is the same for every strike; `half` is half a spread as a share of the mark."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self.terms: dict[str, Terms] = {}
        self.volatility = 0.6
        self.half = Decimal("0.01")
        self.interest = Decimal(250)
        self.size = Decimal(5)
        """Shown at the best price of either side."""
        self.unquoted: set[str] = set()
        """Contracts nobody bids or offers."""
        self.delivered: list[Row] = []
        """Delivery prices by base, settlement coin and time."""
        self.records: list[Row] = []
        """What was delivered to or by us."""
        self.untold: list[Row] = []
        """The same, of which nobody has told yet."""

    def list(self, base: str, expiry: int, *strikes: str, settle: str = "USDT") -> list[str]:
        """A call and a put at each strike, expiring at `expiry` UTC ms; their ids."""
        found = []
        for strike in strikes:
            for call in (True, False):
                terms = Terms(base, expiry, Decimal(strike), call, settle)
                found.append(name := contract_id(terms))
                self.terms[name] = terms
                self._market.list_option(name, base, *GRID[base], TRADE_FEE)
        return found

    def roll(self) -> None:
        """What a venue does by itself: expiries of the next days are listed, those that are due delivered at the index."""
        at = self._market.now()
        for base, expiry in sorted({(terms.base, terms.expiry) for terms in self.terms.values() if terms.expiry <= at}):
            self.deliver(expiry, str(self.index(base)), base)
        morning = (at - MORNING_MS) // DAY_MS * DAY_MS + MORNING_MS
        for base, step in STEPS.items():
            for days in AHEAD:
                expiry = morning + days * DAY_MS
                if not any((terms.base, terms.expiry) == (base, expiry) for terms in self.terms.values()):
                    middle = round(self.index(base) / step)
                    self.list(base, expiry, *(str((middle + away) * step) for away in range(-8, 9)))

    # -- prices -----------------------------------------------------------------------------------------------------------

    def index(self, base: str) -> Decimal:
        return self._market.price["linear", f"{base}USDT"]

    def _theory(self, name: str) -> tuple[float, float, float, float]:
        """(forward, value, delta, vega per volatility point), Black (1976) without discounting."""
        terms = self.terms[name]
        years = max(1e-9, (terms.expiry - self._market.now()) / YEAR_MS)
        forward, strike, deviation = float(self.index(terms.base)) * math.exp(GROWTH * years), float(terms.strike), (
            self.volatility * math.sqrt(years))
        d1 = math.log(forward / strike) / deviation + deviation / 2
        above, below = 0.5 * math.erfc(-d1 / math.sqrt(2)), 0.5 * math.erfc(-(d1 - deviation) / math.sqrt(2))
        call = forward * above - strike * below
        vega = forward * math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi) * math.sqrt(years) / 100
        return forward, call if terms.call else call - forward + strike, above if terms.call else above - 1, vega

    def mark(self, name: str) -> Decimal:
        return max(UNIT, Decimal(repr(round(self._theory(name)[1], 8))))

    def quote(self, product: Product, *, ask: bool) -> Decimal:
        """0 = none: a mark below a tick has no bid."""
        if product.id in self.unquoted:
            return ZERO
        mark = self.mark(product.id)
        half = max(product.tick, mark * self.half)
        price = mark + half if ask else mark - half
        return max(ZERO, (price / product.tick).quantize(Decimal(1), ROUND_HALF_UP) * product.tick)

    def fee(self, product: Product, quantity: Decimal, price: Decimal) -> Decimal:
        each = min(TRADE_FEE * self.index(product.base), FEE_CAP * price)
        return (each * quantity).quantize(UNIT, ROUND_HALF_EVEN)

    def sold(self, name: str) -> Decimal:
        """What a unified account ties up of one contract sold, without portfolio margin: no long one beside it counts."""
        terms, index = self.terms[name], self.index(self.terms[name].base)
        out = max(ZERO, terms.strike - index if terms.call else index - terms.strike)
        return max(Decimal("0.15") * index - out, Decimal("0.10") * index)

    def margin(self) -> Decimal:
        """Of all that is sold, what it would cost to buy it back with it."""
        return sum((-holding.size * (self.sold(name) + self.mark(name)) for (kind, name), holding in self._market.holdings.items()
                    if kind == "option" and holding.size < 0 and name in self.terms), ZERO)

    # -- rows -------------------------------------------------------------------------------------------------------------

    def listing(self, product: Product) -> Row:
        terms = self.terms[product.id]
        return {"symbol": product.id, "status": "Trading", "baseCoin": terms.base, "quoteCoin": "USDT" if terms.settle == "USDT" else "USD",
                "settleCoin": terms.settle, "optionsType": "Call" if terms.call else "Put", "launchTime": "1688630400000",
                "deliveryTime": str(terms.expiry), "deliveryFeeRate": str(DELIVERY_FEE), "displayName": product.id,
                "priceFilter": {"minPrice": str(product.tick), "maxPrice": "10000000", "tickSize": str(product.tick)},
                "lotSizeFilter": {"maxOrderQty": "500", "minOrderQty": str(product.lot), "qtyStep": str(product.lot)}}

    def ticker(self, product: Product) -> Row:
        forward, _, delta, vega = self._theory(product.id)
        bid, ask, mark, iv = self.quote(product, ask=False), self.quote(product, ask=True), self.mark(product.id), str(self.volatility)
        return {"symbol": product.id, "bid1Price": str(bid), "bid1Size": str(self.size if bid else 0), "bid1Iv": iv if bid else "0",
                "ask1Price": str(ask), "ask1Size": str(self.size if ask else 0), "ask1Iv": iv if ask else "0", "lastPrice": str(mark),
                "highPrice24h": "0", "lowPrice24h": "0", "markPrice": str(mark), "indexPrice": str(self.index(product.base)), "markIv": iv,
                "underlyingPrice": repr(round(forward, 8)), "openInterest": str(self.interest), "turnover24h": "0", "volume24h": "0",
                "totalVolume": "2", "totalTurnover": "78719", "delta": f"{delta:.8f}", "gamma": "0.00001", "vega": f"{vega:.8f}",
                "theta": "-30.1", "predictedDeliveryPrice": "0", "change24h": "0"}

    # -- expiry -----------------------------------------------------------------------------------------------------------

    def tell(self) -> None:
        """The records of what was delivered before."""
        self.records[:0], self.untold = self.untold, []

    def deliver(self, expiry: int, price: str, base: str = "BTC", *, told: bool = True) -> None:
        """Every contract of this expiry ends at this price of its underlying: paid, charged, and listed no more. Not `told`: its records
        come later, by `tell`."""
        market, at = self._market, Decimal(price)
        for name, terms in [(name, terms) for name, terms in self.terms.items() if (terms.base, terms.expiry) == (base, expiry)]:
            value = max(ZERO, at - terms.strike if terms.call else terms.strike - at)
            self._settle(name, terms, value, at, self.records if told else self.untold)
            del self.terms[name]
            market.unlist_option(name)
            row = {"baseCoin": terms.base, "settleCoin": terms.settle, "deliveryPrice": price, "deliveryTime": str(expiry)}
            if row not in self.delivered:
                self.delivered.insert(0, row)

    def _settle(self, name: str, terms: Terms, value: Decimal, price: Decimal, records: Rows) -> None:
        market = self._market
        holding = market.holdings["option", name]
        if not holding.size:
            return
        quantity = abs(holding.size)
        fee = (min(DELIVERY_FEE * price, FEE_CAP * value) * quantity).quantize(UNIT, ROUND_HALF_EVEN)
        flow = holding.size * value
        side = "Buy" if holding.size > 0 else "Sell"
        market.wallet["USDT"] += flow - fee
        records.insert(0, {"deliveryTime": terms.expiry, "symbol": name, "side": side, "position": str(quantity),
                                "entryPrice": str(holding.cost / holding.size), "deliveryPrice": str(price), "strike": str(terms.strike),
                                "fee": str(fee), "deliveryRpl": str(flow - fee - holding.cost)})
        market.log.append({"id": f"d-{name}", "symbol": name, "category": "option", "side": side, "transactionTime": str(market.now()),
                           "type": "DELIVERY", "transSubType": "", "qty": str(quantity), "size": "0", "currency": "USDT",
                           "tradePrice": str(price), "funding": "", "fee": str(fee), "cashFlow": str(flow), "change": str(flow - fee),
                           "cashBalance": str(market.wallet["USDT"]), "feeRate": str(DELIVERY_FEE), "bonusChange": "", "tradeId": name,
                           "orderId": "", "orderLinkId": ""})
        holding.size = holding.cost = ZERO
        market.emit("position", [market.position(("option", name))])
        market.emit("wallet", [market.account()])
