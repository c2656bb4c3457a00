"""What the market said at the moments a run's money was made of, and whether the venue charged and paid what follows from it.

Owns the second half of the audit: fees from the schedule, conversion rates from closes, perp funding from marks and rates, FX financing
from closes and 17:00 New York, option settlements from the underlying. Every row must be there, once, to the last unit. Not re-derived:
conversion of coin-quoted options (their rows are taken as they are). Refuses nothing; reports faults in words.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal
from itertools import accumulate
from typing import Any, Final

from modules.backtest.export_run import Row, Run
from modules.domain.instrument import DOLLARS, AssetClass, Instrument
from modules.domain.sessions import next_rollover, nights
from modules.venues.protocol import MarketSource, Step

UNIT: Final = Decimal("0.00000001")
SIXTEEN: Final = Context(prec=16)
DAYS_PER_YEAR: Final = 365
Course = tuple[list[int], list[Decimal]]
"""A position through time: when it changed, and what it was from then on."""
NOTHING: Final[Course] = ([], [])


class Tape:
    """One pass over a source, keeping only what money was made of."""

    def __init__(self, source: MarketSource, run: Run) -> None:
        fills, settlements = run.tables["fills"], run.tables["settlements"]
        self.instruments = {instrument.symbol: instrument for instrument in source.instruments}
        self._pairs = {(i.base, i.quote): i.symbol for c in (AssetClass.SPOT, AssetClass.FOREX)
                       for i in source.instruments if i.asset_class is c}
        self._stands_for: dict[str, list[str]] = {}
        for asset_class in (AssetClass.PERP, AssetClass.SPOT):
            for instrument in source.instruments:
                if instrument.asset_class is asset_class:
                    self._stands_for.setdefault(instrument.underlying, []).append(instrument.symbol)
        traded = {row["symbol"] for row in (*fills, *settlements)}
        self.contracts = {symbol: rules for symbol in traded - self.instruments.keys() if (rules := source.contract(symbol)) is not None}
        self._wanted = traded & self.instruments.keys()
        self._wanted |= set(self._pairs.values()) if any(row["asset_class"] == "FOREX" for row in fills) else set()
        self._wanted |= {symbol for contract in self.contracts.values() for symbol in self._stands_for.get(contract.underlying, ())}
        self._closed: dict[str, list[int]] = defaultdict(list)
        self._close: dict[str, list[float]] = defaultdict(list)
        self.funding: list[tuple[str, int, int, float, float | None]] = []
        """(symbol, paid at, reference time, rate, mark)"""
        self._financing: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
        self.rollovers: list[tuple[int, int]] = []
        """(17:00 New York, first instant at or after it)"""
        self._index: dict[tuple[str, int], float] = {}
        self._chains: dict[str, list[tuple[int, float]]] = defaultdict(list)
        """Underlying -> (time, index) of every snapshot."""
        for symbol in self._wanted:
            for bar in source.history(symbol, source.start, 1):
                self._remember(symbol, bar.ts + source.intervals_ms[symbol], bar.close)
        self._read(source, sorted((int(row["at"]), self.contracts[row["symbol"]].underlying) for row in fills
                                  if row["symbol"] in self.contracts))

    def _remember(self, symbol: str, closed_at: int, close: float) -> None:
        self._closed[symbol].append(closed_at)
        self._close[symbol].append(close)

    def _read(self, source: MarketSource, option_fills: Sequence[tuple[int, str]]) -> None:
        rollover, shortest = next_rollover(source.start), min(source.intervals_ms.values(), default=0)
        for step in source.steps():
            for symbol, bar in step.bars:
                if symbol in self._wanted:
                    self._remember(symbol, step.at, bar.close)
            for chain in step.chains:
                self._chains[chain.underlying].append((chain.at, chain.spot))
            for stated in step.financing:
                self._financing[stated.symbol].append((step.at, stated.long_rate, stated.short_rate))
            self._note_funding(step)
            while step.at >= rollover:
                self.rollovers.append((rollover, step.at))
                rollover = next_rollover(rollover)
            first = bisect_left(option_fills, (step.at, ""))
            for at, underlying in option_fills[first:bisect_left(option_fills, (step.at + shortest, ""))]:
                index = self._opening(source, underlying)
                self._index[underlying, at] = index if index is not None else self.spot(underlying, step.at)

    def _note_funding(self, step: Step) -> None:
        if step.funding:
            marks = dict(step.marks)
            self.funding += [(f.symbol, step.at, f.at, f.rate, marks.get(f.symbol)) for f in step.funding if f.symbol in self._wanted]

    def _opening(self, source: MarketSource, underlying: str) -> float | None:
        """What an option's underlying trades at when its bar opens: that is what its fee is reckoned on."""
        for symbol in self._stands_for.get(underlying, ()):
            quote = source.opening(symbol)
            if quote is not None and quote.sane:
                return quote.mid
            if self._closed[symbol] and self._closed[symbol][-1] >= self._chains[underlying][-1][0]:
                return None  # its last close speaks
        return None

    # -- asking ---------------------------------------------------------------------------------------------------------

    def close(self, symbol: str, at: int) -> float | None:
        """The last close at or before `at`."""
        row = bisect_right(self._closed[symbol], at)
        return self._close[symbol][row - 1] if row else None

    def index(self, underlying: str, at: int) -> float | None:
        """The underlying's price that an option fill at `at` was charged on."""
        return self._index.get((underlying, at))

    def spot(self, underlying: str, at: int) -> float:
        """The underlying's last close at a step, else the last chain's own index."""
        stated = self._chains[underlying]
        snapshot = bisect_right(stated, at, key=lambda entry: entry[0])
        since, index = stated[snapshot - 1] if snapshot else (0, math.nan)
        for symbol in self._stands_for.get(underlying, ()):
            row = bisect_right(self._closed[symbol], at)
            if row and self._closed[symbol][row - 1] >= since:
                return self._close[symbol][row - 1]
        return index

    def financing(self, symbol: str, at: int) -> tuple[float, float] | None:
        """(long, short) annual rates last stated at or before `at`, the markup taken off; nobody stated one: None."""
        stated = self._financing.get(symbol, ())
        row = bisect_right(stated, at, key=lambda entry: entry[0])
        return stated[row - 1][1:] if row else None

    def rate(self, instrument: Instrument, price: Decimal, currency: str, at: int) -> Decimal | None:
        """What one unit of the quote currency was worth at `at`, by the last closes at or before it; none known, nothing."""
        if instrument.quote == currency or instrument.asset_class is AssetClass.OPTION or {instrument.quote, currency} <= DOLLARS:
            return Decimal(1)  # a dollar coin is a dollar; of options only those quoted in dollars are asked about
        if instrument.base == currency:
            return SIXTEEN.divide(Decimal(1), price)
        direct, inverse = self._pairs.get((instrument.quote, currency)), self._pairs.get((currency, instrument.quote))
        if direct is not None and (close := self.close(direct, at)) is not None:
            return SIXTEEN.create_decimal_from_float(close)
        if inverse is not None and (close := self.close(inverse, at)) is not None:
            return SIXTEEN.divide(Decimal(1), Decimal(repr(close)))
        return None


def market_faults(run: Run, tape: Tape) -> list[str]:
    """What the venue charged, paid or converted at otherwise than the market and the cost policy say."""
    costs = run.policies["costs"]
    currencies = {name: str(ledger["currency"]) for name, ledger in run.ledgers.items()}
    faults = [fault for row in run.tables["fills"] for fault in _fill_faults(row, tape, costs, currencies)]
    faults += _row_faults("funding", run.tables["funding"], dict(_expected_funding(run, tape, costs, currencies)))
    faults += [fault for row in run.tables["settlements"] for fault in _settlement_faults(row, tape, costs)]
    return faults


# -- fills ------------------------------------------------------------------------------------------------------------------


def _fill_faults(row: Row, tape: Tape, costs: Mapping[str, Any], currencies: Mapping[str, str]) -> Iterator[str]:
    name = f"fill {row['venue_trade_id']} of {row['symbol']}"
    instrument = tape.instruments.get(row["symbol"]) or tape.contracts.get(row["symbol"])
    if instrument is None:
        yield f"{name}: the market has no such instrument"
        return
    asset_class, at = row["asset_class"], int(row["at"])
    quantity, price, rate, fee = (Decimal(row[key]) for key in ("quantity", "price", "settle_rate", "fee"))
    if price % instrument.tick:
        yield f"{name}: price {price} is not a multiple of the tick {instrument.tick}"
    if quantity % instrument.lot:
        yield f"{name}: quantity {quantity} is not a multiple of the lot {instrument.lot}"
    coin_quoted = asset_class == "OPTION" and instrument.quote == instrument.base
    if not coin_quoted and rate != (stated := tape.rate(instrument, price, currencies[asset_class], at)):
        yield f"{name}: converted at {rate}, the market says {'nothing' if stated is None else stated}"
    in_base = asset_class == "SPOT" and row["side"] == "BUY"
    expected = _fee(row, instrument, tape, costs)
    if expected is None:
        yield f"{name}: no price of {instrument.underlying} to reckon its fee on"
    elif fee != expected:
        yield f"{name}: fee {fee}, the schedule says {expected}"
    if row["fee_currency"] != (instrument.base if in_base else currencies[asset_class]):
        yield f"{name}: fee charged in {row['fee_currency']}"
    if Decimal(row["fee_rate"]) != (price * rate if in_base else Decimal(1)):
        yield f"{name}: fee converted at {row['fee_rate']}"


def _fee(row: Row, instrument: Instrument, tape: Tape, costs: Mapping[str, Any]) -> Decimal | None:
    """Always rounded against us: spot purchases pay in the coin, options per unit of the underlying with a cap, the rest on notional."""
    model = costs[row["asset_class"]]
    share = Decimal(model["maker_fee"] if row["maker"] == "1" else model["taker_fee"])
    quantity, price, rate = Decimal(row["quantity"]), Decimal(row["price"]), Decimal(row["settle_rate"])
    units = quantity * instrument.contract_size
    if row["asset_class"] == "SPOT" and row["side"] == "BUY":
        return _up(units * share)
    if row["asset_class"] != "OPTION":
        return _up(units * price * rate * share)
    index = tape.index(instrument.underlying, int(row["at"]))
    if index is None:
        return None
    underlying = Decimal(repr(index)) * (Decimal(1) if instrument.quote == instrument.base else rate)
    return _up(min(share * underlying, Decimal(costs["option_fee_cap"]) * price * rate) * units)


# -- what holding cost --------------------------------------------------------------------------------------------------------


def _expected_funding(run: Run, tape: Tape, costs: Mapping[str, Any], currencies: Mapping[str, str]
                      ) -> Iterator[tuple[str, tuple[int, Decimal]]]:
    """Venue reference -> (time, amount) of every settlement and rollover that a position lived through."""
    held = _positions(row for row in run.tables["fills"] if row["margined"] == "1")
    for symbol, at, stated_at, rate, mark in tape.funding:
        position, price = _at(held.get(symbol, NOTHING), at), mark if mark is not None else tape.close(symbol, at)
        if position and price is not None:
            instrument, exact = tape.instruments[symbol], Decimal(repr(price))
            notional = position * instrument.contract_size * exact * (tape.rate(instrument, exact, currencies["PERP"], at) or Decimal(0))
            yield f"funding:{symbol}:{stated_at}", (at, _book(-notional * Decimal(repr(rate))))
    markup = Decimal(costs["forex_financing_markup"])
    for rollover, at in tape.rollovers:
        for symbol, changes in held.items():
            instrument = tape.instruments[symbol]
            position, price = _at(changes, at), tape.close(symbol, at)
            if instrument.asset_class is AssetClass.FOREX and position and price is not None:
                stated, exact = tape.financing(symbol, at), Decimal(repr(price))
                annual = -markup if stated is None else Decimal(repr(stated[0 if position > 0 else 1]))
                into = tape.rate(instrument, exact, currencies["FOREX"], at) or Decimal(0)
                notional = abs(position) * instrument.contract_size * exact * into
                yield f"financing:{symbol}:{rollover}", (at, _book(notional * annual * nights(symbol, rollover) / DAYS_PER_YEAR))


def _row_faults(kind: str, rows: Sequence[Row], expected: dict[str, tuple[int, Decimal]]) -> Iterator[str]:
    for row in rows:
        reference = row["venue_ref"]
        due = expected.pop(reference, None)
        if due is None:
            yield f"{kind} {reference} of {row['amount']}: nothing was due, or it is booked twice"
        elif Decimal(row["amount"]) != due[1]:
            yield f"{kind} {reference}: {row['amount']}, due were {due[1]}"
        elif int(row["at"]) != due[0]:
            yield f"{kind} {reference}: booked at {row['at']}, due at {due[0]}"
    for reference, (_, amount) in expected.items():
        yield f"{kind} {reference}: {amount} due, not booked"


def _settlement_faults(row: Row, tape: Tape, costs: Mapping[str, Any]) -> Iterator[str]:
    name = f"settlement {row['venue_ref']}"
    contract = tape.contracts.get(row["symbol"])
    if contract is None or contract.strike is None or contract.right is None:
        yield f"{name}: the market has no such contract"
        return
    rate = Decimal(row["settle_rate"])
    spot = Decimal(repr(tape.spot(contract.underlying, int(row["at"]))))
    coin_quoted = contract.quote == contract.base
    index = spot if coin_quoted else spot * rate
    value = max(Decimal(0), spot - contract.strike if contract.right.value == "C" else contract.strike - spot)
    value = SIXTEEN.divide(value, spot) if coin_quoted else value
    units = abs(Decimal(row["quantity"])) * contract.contract_size
    fee = _up(min(Decimal(costs["option_settlement_fee"]) * index, Decimal(costs["option_fee_cap"]) * value * rate) * units)
    if Decimal(row["value"]) != value:
        yield f"{name}: settled at {row['value']}, the underlying at {spot} makes it {value}"
    if Decimal(row["fee"]) != fee:
        yield f"{name}: fee {row['fee']}, the schedule says {fee}"


# -- small arithmetic ---------------------------------------------------------------------------------------------------------


def _positions(fills: Iterable[Row]) -> dict[str, Course]:
    """Symbol -> its fills' times in order and the signed position after each."""
    changes: dict[str, list[tuple[int, Decimal]]] = defaultdict(list)
    for row in fills:
        changes[row["symbol"]].append((int(row["at"]), (1 if row["side"] == "BUY" else -1) * Decimal(row["quantity"])))
    return {symbol: ([at for at, _ in sorted(some)], list(accumulate(change for _, change in sorted(some))))
            for symbol, some in changes.items()}


def _at(course: Course, at: int) -> Decimal:
    row = bisect_right(course[0], at)
    return course[1][row - 1] if row else Decimal(0)


def _up(amount: Decimal) -> Decimal:
    return amount.quantize(UNIT, ROUND_CEILING)


def _book(amount: Decimal) -> Decimal:
    return amount.quantize(UNIT, ROUND_HALF_EVEN)
