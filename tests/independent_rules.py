"""A stranger with an exported folder re-derives why the daemon did not trade: every denial and every halt, from the exported inputs.

    python -m tests.independent_rules FOLDER

The standard library and numpy, nothing of ours (prices: independent_market.py). It walks the journal for what was open, working, lost
and halted, reads bars, rates, chains and releases from the market files, and computes the measured value of each check anew; value and
verdict must be what the decision recorded, and a decision denied must be denied by the first check that fails. Drawdown halts come from
equity marked twice per instant (before and after its bars), slippage halts from fills against arrival prices.

Not re-derived, and why: see TAKEN_AS_STATED. A check that is in neither list is a fault.
"""

import bisect
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.independent_market import DAY, HOUR, MINUTE, Chain, Market, five_pm, forex_open, nights

STOP_OUTS = {"stop_loss", "stoploss_on_exchange", "trailing_stop_loss", "liquidation"}

SIZING = "arithmetic of the size, which tests/test_sizer.py holds against vectors; the verdict must follow from the two numbers stated"
TAKEN_AS_STATED = {
    ("SIZE_BELOW_MINIMUM", None): SIZING, ("SIZE_ABOVE_CEILING", None): SIZING, ("NOT_EXITABLE", None): SIZING,
    ("LIQUIDATION_TOO_NEAR", None): SIZING, ("LEARNING_WEIGHT_BELOW_MINIMUM", None): SIZING, ("STOP_MISSING", None): SIZING,
    ("CONTRACT_NOT_FOUND", "contract found"): "which maturity and delta a strategy wants is its own code, not exported",
    ("CONTRACT_NOT_FOUND", "legs with a known instrument of the class"): "the veto's own bookkeeping, follows from the legs",
    ("SHORT_NOT_POSSIBLE", "legs sold without cover"): "the veto's own bookkeeping, follows from the legs",
    ("TRADING_REDUCING", "disk full"): "about this machine, not about the market",
}
"""(rule, unit; None = any) -> why its measured value is not computed again here."""


# -- what the journal says ----------------------------------------------------------------------------------------------------


@dataclass
class Money:
    """One class, in floats: nothing here is booked, only compared."""

    cash: float = 0.0
    quantity: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    basis: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@lru_cache
def snake(kind: str) -> str:
    """"OrderIntended" -> "_order_intended"."""
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in kind)


class State:
    """What is open, working, lost and halted after the facts so far."""

    def __init__(self, market: Market, policies: Any) -> None:
        self.market, self.policies = market, policies
        self.money: dict[str, Money] = defaultdict(Money)
        self.trades: dict[str, Any] = {}
        self.orders: dict[str, Any] = {}
        self.working: dict[str, str] = {}
        self.entries: list[tuple[int, str, float]] = []
        self.losses: Counter[str] = Counter()
        self.last_loss: dict[str, int] = {}
        self.stop_outs: dict[str, list[int]] = defaultdict(list)
        self.halted: dict[str, set[str]] = defaultdict(set)
        self.paused: set[str] = set()
        self.doubtful: dict[str, str] = {}

    def apply(self, fact: Any) -> None:
        handler: Callable[[Any], None] | None = getattr(self, snake(fact["kind"]), None)
        if handler is not None:
            handler(fact)

    def equity(self, name: str, seen: int, at: int) -> float:
        """Cash and positions at the marks known after the bars up to `seen`."""
        money, worth = self.money[name], self.money[name].cash
        for symbol, quantity in money.quantity.items():
            if abs(quantity) > 1e-12:
                size = float(self.market.rules[symbol]["contract_size"])
                value = quantity * size * self.market.mark(symbol, seen, at)
                worth += (value - money.basis[symbol] if name in ("PERP", "FOREX") else value) * self.market.rate(symbol, seen)
        return worth

    def _transfer_seen(self, fact: Any) -> None:
        self.money[fact["asset_class"]].cash += float(fact["amount"])

    def _funding_booked(self, fact: Any) -> None:
        self.money[fact["asset_class"]].cash += float(fact["amount"])

    def _option_settled(self, fact: Any) -> None:
        money, quantity = self.money["OPTION"], float(fact["quantity"])
        size = float(self.market.rules[fact["symbol"]]["contract_size"])
        money.cash += quantity * size * float(fact["value"]) * float(fact["settle_rate"]) - float(fact["fee"])
        money.quantity.pop(fact["symbol"])

    def _filled(self, fact: Any) -> None:
        fill = fact["fill"]
        rule = self.market.rules[fill["symbol"]]
        name, symbol, sign = rule["asset_class"], fill["symbol"], 1 if fill["side"] == "BUY" else -1
        money, quantity, fee = self.money[name], float(fill["quantity"]), float(fill["fee"])
        price, rate, size = float(fill["price"]), float(fill["settle_rate"]), float(rule["contract_size"])
        in_kind = name == "SPOT" and sign > 0
        if in_kind:
            money.cash -= quantity * size * price * rate
            quantity -= fee
        else:
            money.cash -= fee * float(fill["fee_rate"])
            if name in ("SPOT", "OPTION"):
                money.cash -= sign * quantity * size * price * rate
        held = money.quantity[symbol]
        if name in ("PERP", "FOREX"):
            if held * sign < 0:
                gone = money.basis[symbol] * quantity / abs(held)
                money.cash += (-sign * quantity * size * price - gone) * rate
                money.basis[symbol] -= gone
            else:
                money.basis[symbol] += sign * quantity * size * price
        money.quantity[symbol] = held + sign * quantity
        if fact["order_done"]:
            self._ended(fill["client_order_id"])

    def _trade_opened(self, fact: Any) -> None:
        self.trades[fact["trade_id"]] = fact

    def _trade_abandoned(self, fact: Any) -> None:
        self.trades.pop(fact["trade_id"], None)

    def _position_closed(self, fact: Any) -> None:
        trade = fact["trade"]
        self.trades.pop(trade["trade_id"], None)
        symbol, name = trade["symbol"], trade["asset_class"]
        if name == "SPOT":
            self.money[name].quantity.pop(symbol, None)  # what is left is dust, worth nothing
        if float(trade["net"]) >= 0:
            self.losses[symbol] = 0
            return
        self.losses[symbol] += 1
        self.last_loss[symbol] = trade["closed_at"]
        if trade["exit_reason"] in STOP_OUTS:
            bisect.insort(self.stop_outs[name], trade["closed_at"])

    def _order_intended(self, fact: Any) -> None:
        order = fact["order"]
        self.orders[order["client_order_id"]] = order
        if order["purpose"] == "entry":
            self.working[order["client_order_id"]] = order["asset_class"]
            self.entries.append((fact["at"], order["asset_class"], float(order["notional"])))

    def _ended(self, client_order_id: str) -> None:
        self.working.pop(client_order_id, None)
        self.doubtful.pop(client_order_id, None)

    def _order_canceled(self, fact: Any) -> None:
        self._ended(fact["client_order_id"])

    _order_expired = _order_rejected = _order_canceled

    def _order_in_doubt(self, fact: Any) -> None:
        self.doubtful[fact["client_order_id"]] = self.orders[fact["client_order_id"]]["symbol"]

    def _trading_halted(self, fact: Any) -> None:
        self.halted[fact["scope"]].add(fact["trigger"])

    def _trading_rearmed(self, fact: Any) -> None:
        self.halted[fact["scope"]].discard(fact["trigger"])

    def _entries_paused(self, fact: Any) -> None:
        self.paused.add(fact["scope"])

    def _entries_resumed(self, fact: Any) -> None:
        self.paused.discard(fact["scope"])


# -- the checks -----------------------------------------------------------------------------------------------------------------


class Checks:
    """(rule, unit) -> (measured, passes) from the inputs, at one decision."""

    def __init__(self, state: State, decision: Any) -> None:
        self.state, self.d, self.market, self.policies = state, decision, state.market, state.policies
        self.risk = state.policies["risk"]
        self.at, self.kind, self.symbol = decision["at"], decision["asset_class"], decision["symbol"]
        self.sign = 1 if decision["side"] == "BUY" else -1
        self.bars = self.market.bars[self.symbol]
        self.index = self.bars.last(self.at)
        self.plain = self.symbol.partition("#")[0]
        self.horizon = decision["hold"] * decision["interval_ms"] or int(self.risk["holding_default_s"] * 1000)

    def derive(self, rule: str, unit: str) -> tuple[float, bool] | None:
        """None: no code here for it."""
        name = rule.lower()
        method: Callable[[str], tuple[float, bool] | None] | None = getattr(self, name, None)
        return method(unit) if method is not None else None

    # permission

    def trading_halted(self, _: str) -> tuple[float, bool]:
        halted = bool(self.state.halted[self.kind] | self.state.halted["ALL"])
        return int(halted), not halted

    def trading_reducing(self, unit: str) -> tuple[float, bool] | None:
        return (0, True) if unit == "reducing" else None  # nothing of a demo is ever late: its venue is in the process

    def paused_by_operator(self, _: str) -> tuple[float, bool]:
        paused = bool(self.state.paused & {self.kind, "ALL"})
        return int(paused), not paused

    def blacklisted(self, _: str) -> tuple[float, bool]:
        return 0, True  # a demo runs without lists

    def short_not_possible(self, unit: str) -> tuple[float, bool] | None:
        return (int(self.sign < 0), self.sign > 0) if unit == "short" else None

    # inputs

    def wallet_stale(self, _: str) -> tuple[float, bool]:
        return 0.0, True

    clock_skew = wallet_stale

    def quote_stale(self, _: str) -> tuple[float, bool]:
        age = (self.at - self.bars.quoted[self.index]) / 1000
        return age, age <= self.risk["quote_age_s_max"]

    def bar_stale(self, _: str) -> tuple[float, bool]:
        age = (self.at - self.bars.closed[self.index]) / 1000
        return age, age <= self.risk["bar_late_s_max"]

    def feed_frozen(self, _: str) -> tuple[float, bool]:
        return self.bars.frozen[self.index], self.bars.frozen[self.index] < self.risk["frozen_bars_max"]

    # market

    def session_closed(self, unit: str) -> tuple[float, bool]:
        if unit == "session open":
            is_open = self.kind != "FOREX" or (forex_open(self.at) and (
                not self.risk["forex_weekend_flat"] or forex_open(self.at + 2 * self.bars.interval)))
            return int(is_open), is_open
        minutes = min(abs(five_pm(day) - self.at) for day in range(self.at // DAY - 1, self.at // DAY + 2)) / MINUTE
        return minutes, minutes >= self.risk["rollover_minutes"]

    def spread_above_maximum(self, unit: str) -> tuple[float, bool] | None:
        if unit == "of mid":
            return self._option_spread()
        spread = (self.bars.ask[self.index] - self.bars.bid[self.index]) / self.bars.mid(self.index) * 1e4
        cap = self.risk["spread_bp_max"][self.kind]
        if self.kind == "FOREX":
            cap = self.risk["spread_bp_majors_max"] if self.plain in self.risk["forex_majors"] else cap
        return spread, spread <= cap

    def liquidity_below_minimum(self, unit: str) -> tuple[float, bool]:
        if self.kind == "FOREX":
            deep = self.plain in self.risk["forex_deep_pairs"]
            return int(deep), deep
        volume = sum(self.bars.volume[self.bars.last(self.at - DAY) + 1:self.index + 1])
        return volume, volume >= float(self.risk["quote_volume_24h_min"])

    def correlated_positions_above_maximum(self, _: str) -> tuple[float, bool]:
        minimum, window = float(self.risk["correlation_min"]), self.risk["correlation_window"]
        book = [(self.symbol, self.sign), *((trade["symbol"], 1 if trade["side"] == "BUY" else -1) for trade in self.state.trades.values())]

        def high(i: int, j: int) -> bool:
            (one, side), (other, its_side) = book[i], book[j]
            if self.market.rules[one]["underlying"] == self.market.rules[other]["underlying"]:
                return side * its_side >= minimum
            rho, count = self.market.correlation(one, other, self.at, window)
            return True if count < self.risk["correlation_returns_min"] or math.isnan(rho) else rho * side * its_side >= minimum

        most = max(sum(high(i, j) for j in range(len(book)) if j != i) for i in range(len(book)))
        return most, most <= self.risk["correlated_others_max"]

    def _funding(self) -> tuple[float, float, float]:
        """(last settled, interval in hours, expected next) rate."""
        _, rate, hours, predicted = max(row for row in self.market.funding[self.symbol] if row[0] <= self.at)
        return rate, hours, rate if math.isnan(predicted) else predicted

    def funding_above_maximum(self, _: str) -> tuple[float, bool]:
        rate, hours, _expected = self._funding()
        pays = self.sign * (rate * 8 / hours)
        return pays, pays <= float(self.risk["funding_rate_8h_max"])

    def _earned(self) -> float:
        _, long_rate, short_rate = max(row for row in self.market.financing[self.symbol] if row[0] <= self.at)
        return long_rate if self.sign > 0 else short_rate

    def carry_above_maximum(self, _: str) -> tuple[float, bool]:
        return -self._earned(), -self._earned() <= float(self.risk["carry_annual_max"])

    def carry_share_above_maximum(self, _: str) -> tuple[float, bool]:
        if self.kind == "PERP":
            _settled, hours, expected = self._funding()
            interval = int(hours * HOUR)
            cost = self.sign * expected * ((self.at + self.horizon) // interval - self.at // interval)
        else:
            cost = -self._earned() / 365 * nights(self.plain, self.at, self.at + self.horizon)
        entry, stop, target = self.d["entry"], self.d["stop"], self.d["target"]
        if cost <= 0:
            return 0.0, True
        reward = abs(target - entry) / entry if target is not None else (
            self.d["confidence"] * float(self.risk["expected_r_per_confidence"]) * abs(entry - stop) / entry)
        return cost / reward, cost / reward <= float(self.risk["carry_reward_share_max"])

    # events and news

    def blackout(self, _: str) -> tuple[float, bool]:
        news, rule = self.policies["news"], self.market.rules[self.symbol]
        for release in sorted(self.market.releases, key=lambda one: one["at"] - news["windows"].get(one["kind"], [0])[0] * MINUTE):
            before, after = news["windows"].get(release["kind"], (0, 0))
            closes = release["at"] + after * MINUTE
            if release["at"] - before * MINUTE <= self.at <= closes and self.kind in news["classes"].get(release["kind"], ()):
                general = self.kind != "FOREX" or release["kind"] not in ("RATE_DECISION", "HIGH")
                if general or release["currency"] in (rule["base"], rule["quote"]):
                    return (closes - self.at) / MINUTE, False
        return 0.0, True

    def calendar_exhausted(self, _: str) -> tuple[float, bool]:
        return 1, True  # a demo's calendar covers its whole run

    def mood_against(self, _: str) -> tuple[float, bool]:
        return 0.0, True  # no news source: neutral by rule

    # ourselves

    def cooldown_instrument(self, _: str) -> tuple[float, bool]:
        if not 0 < self.risk["cooldown_losses"] <= self.state.losses[self.symbol]:
            return 0.0, True
        return self._left(self.state.last_loss[self.symbol], self.risk["cooldown_instrument_s"])

    def cooldown_class(self, _: str) -> tuple[float, bool]:
        times = self.state.stop_outs[self.kind]
        window = int(self.risk["cooldown_window_s"] * 1000)
        if not times or not 0 < self.risk["cooldown_stop_outs"] <= sum(times[-1] - window <= at for at in times):
            return 0.0, True
        return self._left(times[-1], self.risk["cooldown_class_s"])

    def _left(self, since: int, rest: float) -> tuple[float, bool]:
        left = max(0.0, rest - (self.at - since) / 1000)
        return left, left <= 0

    def open_positions_above_maximum(self, _: str) -> tuple[float, bool]:
        count = 1 + sum(trade["asset_class"] == self.kind for trade in self.state.trades.values())
        return count, count <= self.risk["max_open_trades"]

    def instrument_owned(self, _: str) -> tuple[float, bool]:
        owners = [t["strategy"] for t in self.state.trades.values() if t["symbol"] == self.symbol and t["asset_class"] == self.kind]
        foreign = bool(owners) and owners[0] != self.d["strategy"]
        return int(foreign), not foreign

    def order_in_doubt(self, _: str) -> tuple[float, bool]:
        doubt = self.symbol in self.state.doubtful.values()
        return int(doubt), not doubt

    def _last_minute(self) -> list[float]:
        return [notional for at, kind, notional in self.state.entries if kind == self.kind and self.at - at < MINUTE]

    def orders_per_minute_above_maximum(self, _: str) -> tuple[float, bool]:
        count = len(self._last_minute()) + 1
        return count, count <= self.risk["orders_per_minute_max"]

    def notional_per_minute_above_maximum(self, _: str) -> tuple[float, bool]:
        """A full-size position of the class is allowed even where it is more than the cap."""
        sizing = self.policies["sizing"]
        one = float(sizing["good_setup_cap_max"]) * min(float(self.policies["costs"][self.kind]["leverage"]),
                                                        float(sizing["leverage_max"][self.kind]))
        ceiling = float(sizing["instrument_notional_max"][self.kind])
        limit = max(float(self.risk["notional_per_minute_max"]), min(one, ceiling) if ceiling else one)
        share = (sum(self._last_minute()) + float(self.d["size"]["notional"])) / self.equity()
        return share, share <= limit

    def open_orders_above_maximum(self, _: str) -> tuple[float, bool]:
        count = 1 + sum(kind == self.kind for kind in self.state.working.values())
        return count, count <= self.risk["open_orders_max"]

    # money and options

    def equity(self) -> float:
        return self.state.equity(self.kind, self.at, self.at)

    def equity_not_positive(self, _: str) -> tuple[float, bool]:
        return self.equity(), self.equity() > 0

    def _chain(self) -> tuple[Chain, float]:
        underlying = self.market.rules[self.symbol]["underlying"]
        chain = self.market.chain(underlying, self.at)
        assert chain is not None
        return chain, self.market.spot(underlying, self.at)

    def _option_spread(self) -> tuple[float, bool]:
        chain, spot = self._chain()
        shares = []
        for leg in self.d["legs"]:
            bid, ask = chain.quote(leg["symbol"], spot, self.at)
            shares.append((ask - bid) / (0.5 * (ask + bid)))
        return max(shares), max(shares) <= float(self.risk["option_spread_share_max"])

    def open_interest_below_minimum(self, _: str) -> tuple[float, bool]:
        interest = min(self._chain()[0].contracts[leg["symbol"]].interest for leg in self.d["legs"])
        if interest < float(self.risk["option_open_interest_min"]):  # then what they stand for counts: a coin each in what is recorded
            interest *= self._chain()[1]
            return interest, interest >= float(self.risk["option_open_interest_usd_min"])
        return interest, True

    def expiry_too_near(self, _: str) -> tuple[float, bool]:
        days = (self._chain()[0].contracts[self.d["legs"][0]["symbol"]].expiry - self.at) / DAY
        return days, days >= self.risk["expiry_days_min"]

    def _book(self) -> Iterator[tuple[str, str, float]]:
        """(underlying, contract, signed units) of what is held."""
        for symbol, quantity in self.state.money["OPTION"].quantity.items():
            if quantity:
                rule = self.market.rules[symbol]
                yield rule["underlying"], symbol, quantity * float(rule["contract_size"])

    def _legs(self) -> list[tuple[str, str, float]]:
        """The structure per unit of quantity."""
        underlying = self.market.rules[self.symbol]["underlying"]
        return [(underlying, leg["symbol"], 1.0 if leg["side"] == "BUY" else -1.0) for leg in self.d["legs"]]

    def _share(self, held: float, per_unit: float) -> float:
        return (held + float(self.d["size"]["quantity"]) * round(per_unit, 8)) / self.equity()

    def _sum(self, book: list[tuple[str, str, float]], which: int) -> float:
        """Delta in money (0) or vega (1) of a book."""
        total = 0.0
        for underlying, symbol, units in book:
            chain, spot = self.market.chain(underlying, self.at), self.market.spot(underlying, self.at)
            assert chain is not None
            greek = chain.delta_and_vega(symbol, spot, self.at)[which]
            total += units * greek * (spot if which == 0 else 1.0)
        return total

    def delta_above_maximum(self, _: str) -> tuple[float, bool]:
        share = abs(self._share(self._sum(list(self._book()), 0), self._sum(self._legs(), 0)))
        return share, share <= float(self.risk["option_delta_max"])

    def vega_loss_above_maximum(self, _: str) -> tuple[float, bool]:
        share = self._share(-0.1 * self._sum(list(self._book()), 1), -0.1 * self._sum(self._legs(), 1))
        return share, share <= float(self.risk["option_vol_loss_max"])

    def _shock(self, book: list[tuple[str, str, float]]) -> float:
        """Loss on the worse 3-sigma day, at once or by tomorrow, netted within an underlying and added over them."""
        total = 0.0
        for underlying in {entry[0] for entry in book}:
            chain, spot = self.market.chain(underlying, self.at), self.market.spot(underlying, self.at)
            assert chain is not None
            legs = [(symbol, units) for owner, symbol, units in book if owner == underlying]
            move = 3 * max(chain.contracts[symbol].iv for symbol, _ in legs) * math.sqrt(1 / 365)
            days = [sum(units * (chain.value(symbol, there, when) - chain.value(symbol, spot, self.at)) for symbol, units in legs)
                    for when in (self.at, self.at + DAY) for there in (spot * max(0.0, 1 - move), spot * (1 + move))]
            total += max(0.0, -min(days))
        return total

    def shock_loss_above_maximum(self, _: str) -> tuple[float, bool]:
        share = self._share(self._shock(list(self._book())), self._shock(self._legs()))
        return share, share <= float(self.risk["option_shock_loss_max"])


# -- halts ------------------------------------------------------------------------------------------------------------------------


@dataclass
class Nav:
    """Unitized value of one class: money moved in or out buys and sells units."""

    units: float = 0.0
    last: float = 1.0
    peak: dict[str, float] = field(default_factory=lambda: {"day": 1.0, "month": 1.0})
    day: int = 0
    month: tuple[int, int] = (0, 0)


class Halts:
    """Derives every trip and automatic re-arm: (at, class, trigger, "halted" | "rearmed")."""

    def __init__(self, policies: Any) -> None:
        policy = policies["kill_switch"]
        self.limits = {"day": float(policy["drawdown_daily_max"]), "month": float(policy["drawdown_monthly_max"])}
        self.jump = float(policy["mark_jump_max"])
        self.multiple, self.floors = float(policy["slippage_model_multiple"]), policy["slippage_floor_bp"]
        self.events_max, self.window = policy["slippage_events_max"], int(policy["slippage_window_s"] * 1000)
        self.navs: dict[str, Nav] = {}
        self.latched: set[tuple[str, str]] = set()
        self.happened: list[tuple[int, str, str, str]] = []
        self.slipped: dict[str, dict[str, int]] = defaultdict(dict)
        self._filled: dict[str, tuple[float, float]] = {}

    def transfer(self, fact: Any) -> None:
        name, amount, before = fact["asset_class"], float(fact["amount"]), float(fact["equity_before"])
        nav = self.navs.get(name)
        if nav is None:
            self.navs[name] = Nav(units=amount, day=fact["at"] // DAY, month=month_of(fact["at"]))
        else:
            nav.units += amount * nav.units / before

    def mark(self, name: str, equity: float, at: int) -> None:
        nav = self.navs.get(name)
        if nav is None or not nav.units:
            return
        value = equity / nav.units
        if value <= 0 or value > nav.last * self.jump or nav.last > value * self.jump:
            return
        nav.last = value
        if month_of(at) > nav.month:
            nav.month, nav.peak["month"] = month_of(at), value
        if at // DAY > nav.day:
            nav.day, nav.peak["day"] = at // DAY, value
        for period, trigger in (("day", "daily_drawdown"), ("month", "monthly_drawdown")):
            nav.peak[period] = max(nav.peak[period], value)
            if (nav.peak[period] - value) / nav.peak[period] > self.limits[period] + 1e-12:
                self.halt(name, trigger, at)

    def halt(self, name: str, trigger: str, at: int) -> None:
        if (name, trigger) not in self.latched:
            self.latched.add((name, trigger))
            self.happened.append((at, name, trigger, "halted"))

    def fill(self, fact: Any, order: Any) -> None:
        """One order is one event, by its quantity-weighted price."""
        fill, name = fact["fill"], order["asset_class"]
        key = fill["client_order_id"]
        quantity, value = self._filled.get(key, (0.0, 0.0))
        quantity, value = quantity + float(fill["quantity"]), value + float(fill["quantity"]) * float(fill["price"])
        self._filled[key] = quantity, value
        arrival = float(order["arrival_price"])
        if arrival <= 0:
            return
        adverse = (value / quantity - arrival) / arrival * 1e4 * (1 if fill["side"] == "BUY" else -1)
        events = self.slipped[name]
        if adverse > max(self.multiple * float(order["slippage_model_bp"]), self.floors[name]):
            events.setdefault(key, fact["at"])
        else:
            events.pop(key, None)
        if sum(fact["at"] - seen < self.window for seen in events.values()) >= self.events_max > 0:
            self.halt(name, "slippage", fact["at"])

    def rearm(self, at: int) -> None:
        """What clears by itself: a drawdown of the day on the next one, slippage when the window has emptied."""
        for name, trigger in sorted(self.latched):
            since = max(when for when, who, what, _ in self.happened if (who, what) == (name, trigger))
            new_day = trigger == "daily_drawdown" and at // DAY > since // DAY and self.navs[name].day > since // DAY
            emptied = trigger == "slippage" and not any(at - seen < self.window for seen in self.slipped[name].values())
            if new_day or emptied:
                self.latched.discard((name, trigger))
                self.happened.append((at, name, trigger, "rearmed"))
                if trigger == "slippage":
                    self.slipped[name].clear()


def month_of(at: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return moment.year, moment.month


# -- the walk -----------------------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    faults: list[str] = field(default_factory=list)
    decisions: int = 0
    derived: Counter[str] = field(default_factory=Counter)
    """Checks computed anew, by rule."""
    stated: Counter[str] = field(default_factory=Counter)
    """Checks of which only the verdict was compared with the numbers stated, by rule."""
    denials: Counter[str] = field(default_factory=Counter)
    denials_derived: Counter[str] = field(default_factory=Counter)
    """Denials whose named rule was computed anew."""
    halts: Counter[str] = field(default_factory=Counter)


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rederive(folder: Path) -> Report:
    policies = json.loads((folder / "run" / "policies.json").read_text())
    facts, decisions = lines_of(folder / "run" / "journal.jsonl"), lines_of(folder / "run" / "decisions.jsonl")
    market, report = Market(folder, policies), Report()
    _walk_decisions(facts, decisions, State(market, policies), report)
    _walk_halts(facts, decisions, State(market, policies), report)
    return report


def _walk_decisions(facts: list[Any], decisions: list[Any], state: State, report: Report) -> None:
    place = 0
    for decision in decisions:
        place = _advance(facts, place, decision, state)
        halting = any(fact["kind"] == "TradingHalted" and fact["at"] == decision["at"] for fact in facts[place:place + 50])
        _judge(decision, Checks(state, decision), report, halting=halting)
        if decision["outcome"] == "APPROVED":  # its own facts come next: trade, then entry
            while not (facts[place]["kind"] == "OrderIntended" and facts[place]["order"]["decision_id"] == decision["decision_id"]):
                state.apply(facts[place])
                place += 1
            state.apply(facts[place])
            place += 1


def _advance(facts: list[Any], place: int, decision: Any, state: State) -> int:
    """Apply what was known at the decision. Of the facts of its very instant: all before the next trade opened or halt (a slip's halt comes
    between fills, before anything is decided); for the opening side of a reversal, decided when its close had filled, all up to that
    close."""
    at, stop = decision["at"], len(facts)
    if at % MINUTE:
        closes = [i for i in range(place, len(facts)) if facts[i]["at"] == at and facts[i]["kind"] == "PositionClosed"
                  and facts[i]["trade"]["symbol"] == decision["symbol"]]
        stop = closes[0] + 1 if closes else len(facts)
    while place < stop and facts[place]["at"] <= at:
        fact = facts[place]
        if fact["at"] == at and (fact["kind"] == "TradeOpened" or (fact["kind"] == "TradingHalted" and fact["trigger"] != "slippage")):
            break
        state.apply(facts[place])
        place += 1
    return place


def _judge(decision: Any, checks: Checks, report: Report, *, halting: bool) -> None:
    report.decisions += 1
    name = f"{decision['decision_id']} {decision['symbol']} at {decision['at']}"
    size_checks = (decision["size"] or {}).get("checks") or []
    every = [*decision["checks"], *size_checks]
    derived: set[str] = set()
    for check in every:
        rule, unit, passed = check["rule"], check["unit"], check["passed"]
        if check["measured"] is None:  # unknown (no contract was found, say), and unknown never passes
            if passed:
                report.faults.append(f"{name}: {rule} ({unit}) passed on an unknown input")
            report.stated[rule] += 1
            continue
        found = None if _as_stated(rule, unit) else checks.derive(rule, unit)
        if found is None:
            if not _as_stated(rule, unit):
                report.faults.append(f"{name}: nobody re-derives {rule} ({unit})")
            elif check["limit"] is not None and not _follows(check):
                report.faults.append(f"{name}: {rule} {check['measured']} against {check['limit']} is said to be {passed}")
            report.stated[rule] += 1
            continue
        measured, passes = found
        if rule == "TRADING_HALTED" and halting and passes != passed:
            measured, passes = float(check["measured"]), passed  # tripped at this very instant: before or after, both are right
        if passes != passed or not math.isclose(measured, float(check["measured"]), rel_tol=1e-7, abs_tol=1e-9):
            report.faults.append(f"{name}: {rule} ({unit}) is {check['measured']}, passed {passed}; the inputs say {measured}, {passes}")
        report.derived[rule] += 1
        derived.add(rule)
    failed = [check["rule"] for check in every if not check["passed"]]
    if decision["outcome"] == "DENIED":
        report.denials[decision["stopped_by"]] += 1
        report.denials_derived[decision["stopped_by"]] += decision["stopped_by"] in derived
        if not failed or failed[0] != decision["stopped_by"]:
            report.faults.append(f"{name}: denied by {decision['stopped_by']}, the first check that fails is {failed[:1]}")
    elif failed:
        report.faults.append(f"{name}: approved although {failed} failed")


def _as_stated(rule: str, unit: str) -> bool:
    return (rule, None) in TAKEN_AS_STATED or (rule, unit) in TAKEN_AS_STATED


AT_LEAST = {"SIZE_BELOW_MINIMUM", "NOT_EXITABLE", "LIQUIDATION_TOO_NEAR", "LEARNING_WEIGHT_BELOW_MINIMUM", "CONTRACT_NOT_FOUND"}


def _follows(check: Any) -> bool:
    measured, limit = float(check["measured"]), float(check["limit"])
    if check["rule"] == "STOP_MISSING" or (check["rule"] == "SIZE_ABOVE_CEILING" and check["note"].startswith("phase 1 trades it all")):
        return not check["passed"]
    return bool((measured >= limit if check["rule"] in AT_LEAST else measured <= limit) == check["passed"])


def _walk_halts(facts: list[Any], decisions: list[Any], state: State, report: Report) -> None:
    """At every instant: what happened to the account, a mark at the old prices, re-arms, the bars, a mark at the new ones. A decision that
    nothing but the cap on orders per minute denied is a runaway."""
    market, halts = state.market, Halts(state.policies)
    for decision in decisions:
        size_checks = (decision["size"] or {}).get("checks") or []
        failed = {check["rule"] for check in (*decision["checks"], *size_checks) if not check["passed"]}
        if failed == {"ORDERS_PER_MINUTE_ABOVE_MAXIMUM"}:
            halts.halt(decision["asset_class"], "runaway", decision["at"])
    interval = min(bars.interval for bars in market.bars.values())
    place = 0

    def book_until(at: int) -> None:
        nonlocal place
        while place < len(facts) and facts[place]["at"] <= at:
            fact = facts[place]
            if fact["kind"] == "TransferSeen":
                halts.transfer(fact)
            elif fact["kind"] == "Filled" and fact["fill"]["client_order_id"] in state.orders:
                halts.fill(fact, state.orders[fact["fill"]["client_order_id"]])
            state.apply(fact)
            place += 1

    book_until(market.start)
    for at in range(market.start, market.end + 1, interval):
        for seen in (max(market.start, at - interval), at):
            book_until(at)
            for name in list(halts.navs):
                halts.mark(name, state.equity(name, seen, at), at)
            if seen != at:
                halts.rearm(at)
    book_until(market.end + DAY)
    said = [(fact["at"], fact["scope"], fact["trigger"], "halted" if fact["kind"] == "TradingHalted" else "rearmed")
            for fact in facts if fact["kind"] in ("TradingHalted", "TradingRearmed")]
    for missing in sorted(set(said) - set(halts.happened)):
        report.faults.append(f"the journal says {missing}, the inputs do not")
    for extra in sorted(set(halts.happened) - set(said)):
        report.faults.append(f"the inputs say {extra}, the journal does not")
    report.halts.update(f"{trigger} {what}" for _, _, trigger, what in said)


def main(folder: Path) -> int:
    report = rederive(folder)
    print(json.dumps({"agrees": not report.faults, "faults": report.faults[:50], "decisions": report.decisions, "derived": report.derived,
                      "stated": report.stated, "denials": report.denials, "denials_derived": report.denials_derived,
                      "halts": report.halts}, indent=1))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
