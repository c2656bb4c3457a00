"""A stranger with an exported folder and nothing of ours: recomputes every balance, fee, funding row, trade and net P&L to the last unit.

    python tests/independent_ledger.py FOLDER

prints {"reconciled": true|false, "faults": [...], "counted": {...}} and leaves with 0 or 1. It imports the standard library only, reckons
in exact fractions where the program reckons in decimals, and reads its prices from the exported market files itself. Amounts are booked to
1e-8: computed ones half-even, fees up.

Not recomputed, taken as stated: what an open option is worth at the end (its model price), option conversion for coin-quoted contracts.
"""

import bisect
import csv
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

UNIT = 100_000_000
NEW_YORK = ZoneInfo("America/New_York")
CONVERTED_NEXT_DAY = ("USD/CAD", "USD/TRY")
Row = dict[str, str]


def number(text: str) -> Fraction:
    return Fraction(text)


def booked(amount: Fraction) -> Fraction:
    """Half-even to 1e-8: round() of a Fraction is half-even."""
    return Fraction(round(amount * UNIT), UNIT)


def against_us(amount: Fraction) -> Fraction:
    return Fraction(math.ceil(amount * UNIT), UNIT)


def sixteen(amount: Fraction) -> Fraction:
    """To 16 significant digits, half-even: how prices are shown and cross rates are kept."""
    if amount == 0:
        return Fraction(0)
    digits = math.floor(math.log10(abs(amount))) + 1
    for exponent in (digits - 17, digits - 16, digits - 15):
        scaled = round(amount / Fraction(10) ** exponent)
        if len(str(abs(scaled))) <= 16:
            return scaled * Fraction(10) ** exponent
    raise AssertionError(amount)


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


class Market:
    """The exported prices, asked for what was known at an instant."""

    def __init__(self, folder: Path) -> None:
        replay = json.loads((folder / "replay.json").read_text())
        self.start: int = replay["start"]
        self.end: int = replay["end"]
        self.rules: dict[str, Any] = {row["symbol"]: row for row in json.loads((folder / "instruments.json").read_text())}
        self.bars: dict[str, tuple[list[int], list[Row]]] = {}
        self.openings: dict[str, dict[int, Row]] = {}
        self.marks: dict[str, dict[int, str]] = {}
        self.funding: dict[str, list[tuple[int, str]]] = {}
        self.financing: dict[str, list[tuple[int, str, str]]] = {}
        for symbol, rule in self.rules.items():
            if rule["asset_class"] == "OPTION":
                continue
            stem = rule["base"] + rule["quote"] + ("-PERP" if rule["asset_class"] == "PERP" else "")
            for path in sorted(folder.glob(f"demo_{stem}_*.csv")):
                self._take(symbol, path)
        self.chains: dict[str, dict[int, float]] = defaultdict(dict)
        for row in rows_of(folder / "demo_options_chain.csv") if (folder / "demo_options_chain.csv").exists() else ():
            self.chains[row["currency"]].setdefault(int(row["ts"]), float(row["index_price"]))

    def _take(self, symbol: str, path: Path) -> None:
        kind = path.stem.split("_")[-1]
        rows = rows_of(path)
        if kind == "funding":
            self.funding[symbol] = [(int(row["ts"]), row["funding_rate"]) for row in rows]
        elif kind == "financing":
            self.financing[symbol] = [(int(row["ts"]), row["long_rate"], row["short_rate"]) for row in rows]
        elif kind == "mark":
            length = span(path.stem.split("_")[-2])
            self.marks[symbol] = {int(row["ts"]) + length: row["close"] for row in rows}
        else:
            length = span(kind)
            self.bars[symbol] = ([int(row["ts"]) + length for row in rows], rows)
            self.openings[symbol] = {int(row["ts"]): row for row in rows}

    def bar(self, symbol: str, at: int) -> tuple[int, Row | None]:
        closed, rows = self.bars[symbol]
        index = bisect.bisect_right(closed, at)
        return (closed[index - 1], rows[index - 1]) if index else (0, None)

    def close(self, symbol: str, at: int) -> Fraction:
        """0 before the first bar."""
        row = self.bar(symbol, at)[1]
        return number(row["close"]) if row else Fraction(0)

    def stands_for(self, underlying: str) -> list[str]:
        return [s for kind in ("PERP", "SPOT") for s, r in self.rules.items() if r["asset_class"] == kind and r["underlying"] == underlying]

    def index(self, underlying: str, at: int, *, opening: bool) -> Fraction:
        """An underlying's price: the mid its bar opened at (at a fill), else its last close, else the chain's own index."""
        stated = max((when for when in self.chains[underlying] if when <= at), default=0)
        for symbol in self.stands_for(underlying):
            closed, row = self.bar(symbol, at)
            opened = self.openings[symbol].get(closed) if opening else None
            if opened and closed < self.end:
                if opened["open_bid"]:
                    return number(repr(0.5 * (float(opened["open_bid"]) + float(opened["open_ask"]))))
                return number(opened["open"])
            if row and closed >= stated:
                return number(row["close"])
        return number(repr(self.chains[underlying][stated]))

    def rate(self, symbol: str, price: Fraction, currency: str, at: int) -> Fraction | None:
        """Quote currency in settlement currency, by the last close of a pair that joins them; None if there is none."""
        rule = self.rules[symbol]
        if rule["quote"] == currency or rule["asset_class"] == "OPTION":
            return Fraction(1)
        if rule["base"] == currency:
            return sixteen(1 / price)
        for other, pair in self.rules.items():
            if pair["asset_class"] in ("SPOT", "FOREX") and {pair["base"], pair["quote"]} == {rule["quote"], currency}:
                close = self.close(other, at)
                if close:
                    return sixteen(close) if pair["base"] == rule["quote"] else sixteen(1 / close)
        return None

    def last_mark(self, symbol: str, costs: Any) -> Fraction:
        """What a unit is worth at the end: the venue's mark at the last close, else the mid of the last quote."""
        closed, row = self.bar(symbol, self.end)
        assert row is not None
        mark = self.marks.get(symbol, {}).get(closed)
        if mark:
            return number(mark)
        if row["bid"] and row["ask"]:
            return number(repr(0.5 * (float(row["bid"]) + float(row["ask"]))))
        close = float(row["close"])
        half = close * (costs[self.rules[symbol]["asset_class"]]["half_spread_bp"] / 1e4)
        return number(repr(0.5 * ((close - half) + (close + half))))


def span(timeframe: str) -> int:
    return int(timeframe[:-1]) * {"m": 60_000, "h": 3_600_000, "d": 86_400_000}[timeframe[-1]]


def rollovers(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Every 17:00 New York on a weekday in (start, end], with the night's weekday."""
    day = datetime.fromtimestamp(start / 1000, UTC).date()
    while True:
        at = int(datetime(day.year, day.month, day.day, 17, tzinfo=NEW_YORK).timestamp() * 1000)
        if at > end:
            return
        if at > start and day.weekday() < 5:
            yield at, day.weekday()
        day += timedelta(days=1)


class Books:
    """Sums only: cash and results per class, quantity, cost and basis per (trade, symbol)."""

    def __init__(self, folder: Path) -> None:
        run = folder / "run"
        self.faults: list[str] = []
        self.tables = {name: rows_of(run / f"{name}.csv") for name in
                       ("fills", "funding", "settlements", "transfers", "adjustments", "trades", "orders")}
        self.ledger = json.loads((run / "ledger.json").read_text())
        self.costs = json.loads((run / "policies.json").read_text())["costs"]
        self.market = Market(folder)
        self.sums: dict[str, dict[str, Fraction]] = {name: defaultdict(Fraction) for name in self.ledger}
        self.coins: dict[str, dict[str, Fraction]] = {name: defaultdict(Fraction) for name in self.ledger}
        self.dust: dict[str, Fraction] = defaultdict(Fraction)
        self.trade: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
        self.first_leg: dict[str, str] = {}
        self.held: dict[tuple[str, str], Any] = {}
        self.moves: dict[str, list[tuple[int, Fraction]]] = defaultdict(list)

    def fault(self, *words: object) -> None:
        self.faults.append(" ".join(str(float(w)) if isinstance(w, Fraction) else str(w) for w in words))

    def recompute(self) -> None:
        events = [(int(row["seq"]), name, row) for name, rows in self.tables.items() for row in rows if name != "orders"]
        for _, name, row in sorted(events, key=lambda event: event[0]):
            getattr(self, "on_" + name)(row)
        self.unique()
        self.due()
        self.compare()

    def unique(self) -> None:
        for name, key in (("fills", "venue_trade_id"), ("funding", "venue_ref"), ("settlements", "venue_ref"), ("transfers", "venue_ref"),
                          ("orders", "client_order_id"), ("trades", "trade_id")):
            seen = [row[key] for row in self.tables[name]]
            for twice in sorted({reference for reference in seen if seen.count(reference) > 1}):
                self.fault(name, twice, "is there twice")
        filled: dict[str, Fraction] = defaultdict(Fraction)
        for row in self.tables["fills"]:
            filled[row["client_order_id"]] += number(row["quantity"])
        for order in self.tables["orders"]:
            whole, done = number(order["quantity"]), filled[order["client_order_id"]]
            if done > whole or (order["ended"] == "filled" and done != whole):
                self.fault("order", order["client_order_id"], "of", whole, "was filled for", done)

    # -- what happened --------------------------------------------------------------------------------------------------

    def on_transfers(self, row: Row) -> None:
        for what in ("cash", "transfers"):
            self.sums[row["asset_class"]][what] += number(row["amount"])

    def on_adjustments(self, row: Row) -> None:
        self.fault("an adjustment of", row["amount"], row["currency"], "hides a difference")

    def on_fills(self, row: Row) -> None:
        kind, buy = row["asset_class"], row["side"] == "BUY"
        sums, trade, sign = self.sums[kind], self.trade[row["trade_id"]], 1 if buy else -1
        quantity, price, fee, rate, size = (number(row[k]) for k in ("quantity", "price", "fee", "settle_rate", "contract_size"))
        self.check_fill(row, quantity, price, fee, rate, size)
        fee_value = booked(fee * number(row["fee_rate"]))
        sums["fees"] += fee_value
        trade["fees"] += fee_value
        exchanged = kind in ("SPOT", "OPTION")
        received = quantity
        if kind == "SPOT" and buy:
            received = quantity - fee
        else:
            sums["cash"] -= fee_value
        money = booked(quantity * size * price * rate)
        if exchanged:
            sums["cash"] -= sign * money
        self.coins[kind][row["base"] if kind == "SPOT" else row["symbol"]] += sign * received
        self.moves[row["symbol"]].append((int(row["at"]), sign * received))
        cost = money - (fee_value if kind == "SPOT" and buy else 0)
        leg = self.held.setdefault((row["trade_id"], row["symbol"]), {
            "kind": kind, "base": row["base"], "size": size, "quantity": Fraction(0), "cost": Fraction(0), "basis": Fraction(0)})
        self.show(row["trade_id"], row["symbol"], received, price, opens=leg["quantity"] * sign >= 0)
        if leg["quantity"] * sign >= 0:
            leg["quantity"] += sign * received
            leg["cost"] += sign * cost
            leg["basis"] += sign * received * size * price
            return
        if received > abs(leg["quantity"]):
            self.fault("fill", row["venue_trade_id"], "closes more than was held")
        gone_cost, gone_basis = self.release(leg, received)
        if exchanged:
            result = -sign * cost - gone_cost
        else:
            result = booked((-sign * received * size * price - gone_basis) * rate)
            sums["cash"] += result
        sums["gross"] += result
        trade["gross"] += result

    def release(self, leg: Any, part: Fraction) -> tuple[Fraction, Fraction]:
        share = min(Fraction(1), part / abs(leg["quantity"]))
        cost, basis = (leg["cost"] if share == 1 else booked(leg["cost"] * share)), leg["basis"] * share
        leg["cost"] -= cost
        leg["basis"] -= basis
        leg["quantity"] -= share * leg["quantity"]
        return cost, basis

    def show(self, trade_id: str, symbol: str, quantity: Fraction, price: Fraction, *, opens: bool) -> None:
        if self.first_leg.setdefault(trade_id, symbol) == symbol:
            way = "entered" if opens else "exited"
            self.trade[trade_id][way] += quantity
            self.trade[trade_id][way + " value"] += quantity * price

    def on_funding(self, row: Row) -> None:
        amount = number(row["amount"])
        for what in ("cash", "funding"):
            self.sums[row["asset_class"]][what] += amount
        holders = [trade_id for (trade_id, symbol), leg in self.held.items() if symbol == row["symbol"] and leg["quantity"]]
        if len(holders) != 1:
            self.fault("funding", row["venue_ref"], "for", len(holders), "positions")
        for trade_id in holders[:1]:
            self.trade[trade_id]["funding"] += amount

    def on_settlements(self, row: Row) -> None:
        quantity, value, fee, size = (number(row[k]) for k in ("quantity", "value", "fee", "contract_size"))
        rule = self.market.rules[row["symbol"]]
        spot = self.market.index(rule["underlying"], int(row["at"]), opening=False)
        if rule["quote"] != rule["base"]:
            strike = number(rule["strike"])
            intrinsic = max(Fraction(0), spot - strike if rule["right"] == "C" else strike - spot)
            due = against_us(min(number(self.costs["option_settlement_fee"]) * spot, number(self.costs["option_fee_cap"]) * intrinsic)
                             * abs(quantity) * size)
            if value != intrinsic or fee != due:
                self.fault("settlement", row["venue_ref"], "worth", value, "fee", fee, "should be", intrinsic, "and", due)
        payoff = booked(quantity * size * value * number(row["settle_rate"]))
        leg, sums, trade = self.held[row["trade_id"], row["symbol"]], self.sums["OPTION"], self.trade[row["trade_id"]]
        if leg["quantity"] != quantity:
            self.fault("settlement", row["venue_ref"], "of", quantity, "where", leg["quantity"], "were held")
        self.show(row["trade_id"], row["symbol"], abs(quantity), value, opens=False)
        result = payoff - self.release(leg, abs(leg["quantity"]))[0]
        sums["cash"] += payoff - fee
        self.coins["OPTION"][row["symbol"]] -= quantity
        for total in (sums, trade):
            total["gross"] += result
            total["fees"] += fee

    def on_trades(self, row: Row) -> None:
        trade = self.trade[row["trade_id"]]
        for (trade_id, _), leg in self.held.items():
            if trade_id == row["trade_id"] and leg["quantity"]:
                if leg["kind"] != "SPOT":
                    self.fault("trade", trade_id, "closed but still holds", leg["quantity"])
                self.dust[leg["base"]] += leg["quantity"]
                lost = self.release(leg, abs(leg["quantity"]))[0]
                trade["gross"] -= lost
                self.sums[row["asset_class"]]["gross"] -= lost
        sums = self.sums[row["asset_class"]]
        net = trade["gross"] - trade["fees"] + trade["funding"]
        sums["trades"] += 1
        sums["wins"] += net > 0
        entry = sixteen(trade["entered value"] / trade["entered"]) if trade["entered"] else Fraction(0)
        leave = sixteen(trade["exited value"] / trade["exited"]) if trade["exited"] else Fraction(0)
        for what, amount in (("gross", trade["gross"]), ("fees", trade["fees"]), ("funding", trade["funding"]), ("net", net),
                             ("quantity", trade["entered"]), ("entry", entry), ("exit", leave)):
            if number(row[what]) != amount:
                self.fault("trade", row["trade_id"], what, row[what], "should be", amount)

    # -- what the venue charged and what was due --------------------------------------------------------------------------

    def check_fill(self, row: Row, quantity: Fraction, price: Fraction, fee: Fraction, rate: Fraction, size: Fraction) -> None:
        name, kind, rule = f"fill {row['venue_trade_id']}", row["asset_class"], self.market.rules[row["symbol"]]
        if (price / number(rule["tick"])).denominator != 1 or (quantity / number(rule["lot"])).denominator != 1:
            self.fault(name, "price or quantity is off the grid")
        if rule["quote"] != rule["base"] and rate != self.market.rate(row["symbol"], price, self.ledger[kind]["currency"], int(row["at"])):
            self.fault(name, "was converted at", rate)
        share = number(self.costs[kind]["maker_fee" if row["maker"] == "1" else "taker_fee"])
        if kind == "SPOT" and row["side"] == "BUY":
            due, fee_rate = against_us(quantity * size * share), price * rate
        elif kind == "OPTION":
            index = self.market.index(rule["underlying"], int(row["at"]), opening=True)
            per_unit = min(share * index, number(self.costs["option_fee_cap"]) * price * rate)
            due, fee_rate = against_us(per_unit * quantity * size), Fraction(1)
        else:
            due, fee_rate = against_us(quantity * size * price * rate * share), Fraction(1)
        if fee != due or number(row["fee_rate"]) != fee_rate:
            self.fault(name, "was charged", fee, "at", row["fee_rate"], "due were", due, "at", fee_rate)

    def position(self, symbol: str, at: int) -> Fraction:
        return sum((change for when, change in self.moves[symbol] if when <= at), Fraction(0))

    def due(self) -> None:
        """Every funding settlement and rollover that a position lived through, against the rows: all there, once, to the last unit."""
        expected: dict[str, Fraction] = {}
        for symbol in self.moves:
            rule = self.market.rules[symbol]
            size, currency = number(rule["contract_size"]), self.ledger[rule["asset_class"]]["currency"]
            for at, rate in self.market.funding.get(symbol, ()):
                held = self.position(symbol, at)
                if held and self.market.start <= at <= self.market.end:
                    stated_mark = self.market.marks.get(symbol, {}).get(at)
                    mark = number(stated_mark) if stated_mark else self.market.close(symbol, at)
                    into = self.market.rate(symbol, mark, currency, at) or Fraction(0)
                    expected[f"funding:{symbol}:{at}"] = booked(-held * size * mark * into * number(rate))
            for at, weekday in rollovers(self.market.start, self.market.end) if rule["asset_class"] == "FOREX" else ():
                held = self.position(symbol, at)
                if held:
                    stated = [(long, short) for when, long, short in self.market.financing.get(symbol, ()) if when <= at]
                    annual = number(stated[-1][0 if held > 0 else 1]) if stated else -number(self.costs["forex_financing_markup"])
                    nights = 3 if weekday == (3 if symbol in CONVERTED_NEXT_DAY else 2) else 1
                    price = self.market.close(symbol, at)
                    into = self.market.rate(symbol, price, currency, at) or Fraction(0)
                    expected[f"financing:{symbol}:{at}"] = booked(abs(held) * size * price * into * annual * nights / 365)
        for row in self.tables["funding"]:
            if number(row["amount"]) != expected.pop(row["venue_ref"], None):
                self.fault("funding", row["venue_ref"], row["amount"], "was not due (or not so much, or twice)")
        for reference in expected:
            self.fault("funding", reference, "was due and is not there")

    # -- the end ----------------------------------------------------------------------------------------------------------

    def compare(self) -> None:
        for name, stated in self.ledger.items():
            sums = self.sums[name]
            sums["net"] = sums["gross"] - sums["fees"] + sums["funding"]
            for what in ("cash", "transfers", "gross", "fees", "funding", "net", "trades", "wins"):
                if number(str(stated[what])) != sums[what]:
                    self.fault(name, what, stated[what], "should be", sums[what])
            venue, currency = stated["venue"], stated["currency"]
            self.same(name + " wallet", {**venue["coins"], **venue["positions"], currency: venue["cash"]},
                      {**self.coins[name], currency: sums["cash"]})
            open_legs = {symbol: leg for (_, symbol), leg in self.held.items() if leg["kind"] == name and leg["quantity"]}
            self.same(name + " positions", stated["positions"], {symbol: leg["quantity"] for symbol, leg in open_legs.items()})
            self.same(name + " dust", stated["dust"], self.dust if name == "SPOT" else {})
            worth = sums["cash"]
            for symbol, leg in open_legs.items():
                mark, rate = (number(stated["marks"][symbol][what]) for what in ("mark", "rate"))
                if name != "OPTION" and mark != self.market.last_mark(symbol, self.costs):
                    self.fault(name, symbol, "is marked at", mark, "the market says", self.market.last_mark(symbol, self.costs))
                margined = name in ("PERP", "FOREX")
                worth += (leg["quantity"] * leg["size"] * mark - (leg["basis"] if margined else 0)) * rate
            if booked(worth) != booked(number(stated["equity_end"])):
                self.fault(name, "equity", stated["equity_end"], "should be", worth)

    def same(self, name: str, stated: dict[str, str], counted: dict[str, Fraction]) -> None:
        for key in sorted(set(stated) | set(counted)):
            if number(stated.get(key, "0")) != counted.get(key, 0):
                self.fault(name, key, stated.get(key, "0"), "should be", counted.get(key, Fraction(0)))


def main(folder: Path) -> int:
    try:
        books = Books(folder)
        books.recompute()
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        print(json.dumps({"reconciled": False, "faults": [f"the export cannot be read: {type(error).__name__}: {error}"]}))
        return 1
    counted = {name: len(rows) for name, rows in books.tables.items()}
    print(json.dumps({"reconciled": not books.faults, "faults": books.faults[:50], "counted": counted}, indent=1))
    return 1 if books.faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
