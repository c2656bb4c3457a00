"""P10: how fast a journal comes back after a crash. `python -m benchmarks.recovery [--events 200000] [--json FILE]`, from the repository.

Writes journals of three sizes with the facts of a real trading life (trades with entry, stop, cancel and exit; funding; baselines),
then opens each as a restart does: read, decode, verify the hash chain, feed a projection that only counts. Also measures appends.
The goal for 200,000 events is 4 s with the real books; reading and verifying may take half of that.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path

from modules.domain import events
from modules.domain.events import Fact
from modules.domain.instrument import AssetClass, Side
from modules.domain.order import ExitReason, Fill, Order, OrderKind, Purpose, derive_id
from modules.domain.position import ClosedTrade
from modules.store.journal import Journal

ONE = Decimal(1)
ZERO = Decimal(0)
START = 1_700_000_000_000
MARKETS = (
    ("BTC/USDT", AssetClass.SPOT),
    ("ETH/USDT:USDT", AssetClass.PERP),
    ("SOL/USDT:USDT", AssetClass.PERP),
    ("EUR/USD", AssetClass.FOREX),
)


@dataclass(frozen=True)
class Result:
    events: int
    seconds: float
    cpu_seconds: float
    events_per_s: float
    us_per_event: float


def trading_life(seed: int = 7) -> Iterator[Fact]:
    """Endless facts, about eleven a trade."""
    random_source = random.Random(seed)
    at = START
    for number in range(sys.maxsize):
        symbol, asset_class = MARKETS[number % len(MARKETS)]
        at += random_source.randrange(60_000, 3_600_000)
        yield from _trade(random_source, number, at, symbol, asset_class)
        if asset_class is AssetClass.PERP:
            amount = Decimal(random_source.randrange(-5_000_000, 5_000_000)).scaleb(-8)
            yield events.FundingBooked(at, "bybit", symbol, asset_class, amount, random_source.uniform(-1e-4, 1e-4), f"funding-{number}")
        if number % 20 == 0:
            yield events.PeakRaised(at, asset_class, Decimal(random_source.randrange(90_000_000, 110_000_000)).scaleb(-8))


def _trade(random_source: random.Random, number: int, at: int, symbol: str, asset_class: AssetClass) -> Iterator[Fact]:
    price = Decimal(random_source.randrange(100_000, 9_000_000)).scaleb(-2)
    quantity = Decimal(random_source.randrange(1, 500_000)).scaleb(-5)
    trade_id = f"trade{number}"
    yield events.TradeOpened(
        at, trade_id, f"decision{number}", "trend_ema", symbol, asset_class, "BUY", "single",
        random_source.random(), random_source.random(),
        float(price), float(price) * 0.97, float(price) * 1.06, 96, 300_000, Decimal("3.00"),
    )  # fmt: skip

    def order(kind: OrderKind, purpose: Purpose, side: Side, trigger: Decimal | None, moment: int) -> Order:
        return Order(
            derive_id("trend_ema", symbol, moment, side, purpose, 0), trade_id, f"decision{number}", "trend_ema", "bybit", symbol,
            asset_class, side, quantity, kind, purpose, trigger, purpose is not Purpose.ENTRY, ONE, price, Decimal("3.5"),
            quantity * price if purpose is Purpose.ENTRY else ZERO, moment, moment + 60_000,
            ExitReason.EXIT_SIGNAL if purpose is Purpose.EXIT else None,
        )  # fmt: skip

    def sent(sending: Order, moment: int) -> Iterator[Fact]:
        yield events.OrderIntended(moment, sending)
        yield events.OrderSent(moment + 2, sending.client_order_id)
        yield events.OrderAccepted(moment + 90, sending.client_order_id, f"{number:010d}-{sending.purpose}")

    def filled(done: Order, moment: int) -> Fact:
        fee = (quantity * price * Decimal("0.001")).quantize(Decimal("1e-8"))
        fill = Fill(
            "bybit", symbol, f"{number}-{done.purpose}", done.client_order_id, done.side, quantity, price, fee,
            "USDT", ONE, ONE, False, moment,
        )  # fmt: skip
        return events.Filled(moment, fill, True)

    entry = order(OrderKind.MARKET, Purpose.ENTRY, Side.BUY, None, at)
    yield from sent(entry, at)
    yield filled(entry, at + 120)
    stop = order(OrderKind.STOP, Purpose.STOP, Side.SELL, price * Decimal("0.97"), at + 130)
    yield from sent(stop, at + 130)
    until = at + random_source.randrange(300_000, 3_600_000)
    yield events.OrderCanceled(until, stop.client_order_id, "replaced by the exit")
    leaving = order(OrderKind.MARKET, Purpose.EXIT, Side.SELL, None, until)
    yield from sent(leaving, until)
    yield filled(leaving, until + 120)
    yield events.PositionClosed(
        until + 120,
        ClosedTrade(
            trade_id, "trend_ema", symbol, asset_class, Side.BUY, quantity, price, price, ZERO, Decimal("0.2"), ZERO, Decimal("-0.2"),
            Decimal("3.00"), Decimal("1.7"), at, until + 120, ExitReason.EXIT_SIGNAL, 0.61, 0.4,
        ),
    )  # fmt: skip


def rebuild(folder: Path, count: int) -> Result:
    path = folder / f"journal-{count}.sqlite"
    with Journal(path, durable=False) as journal:
        for fact in islice(trading_life(), count):
            journal.append(fact)
    seen = 0

    def counting(_: Fact) -> None:
        nonlocal seen
        seen += 1

    began, began_cpu = time.perf_counter(), time.process_time()
    with Journal(path, durable=False) as journal:
        journal.project(counting)
        journal.replay()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    assert seen == count, f"{seen} facts came back of {count}"
    return _result(count, seconds, cpu_seconds)


def appends(folder: Path, count: int, *, durable: bool) -> dict[str, float]:
    facts = list(islice(trading_life(), count))
    waits = []
    with Journal(folder / f"append-{durable}.sqlite", durable=durable) as journal:
        began, began_cpu = time.perf_counter(), time.process_time()
        for fact in facts:
            before = time.perf_counter()
            journal.append(fact)
            waits.append(time.perf_counter() - before)
        journal.flush()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    waits.sort()
    return {
        **asdict(_result(count, seconds, cpu_seconds)),
        "p50_ms": waits[count // 2] * 1e3,
        "p99_ms": waits[count * 99 // 100] * 1e3,
        "longest_ms": waits[-1] * 1e3,
    }


def _result(count: int, seconds: float, cpu_seconds: float) -> Result:
    return Result(count, round(seconds, 4), round(cpu_seconds, 4), round(count / seconds), round(seconds / count * 1e6, 2))


def machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.system(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="P10: rebuild of a journal after a crash")
    parser.add_argument("--events", type=int, default=200_000, help="rows of the largest journal")
    parser.add_argument("--appends", type=int, default=2_000, help="durable appends to time (ten times as many that are not)")
    parser.add_argument("--folder", type=Path, help="where to put the journals (default: a temporary folder); the disk matters for appends")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_args()
    print(f"machine: {machine()}")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        sizes = [max(1, arguments.events // 4), max(1, arguments.events // 2), arguments.events]
        results = [rebuild(folder, size) for size in sizes]
        for result in results:
            print(
                f"rebuild {result.events:>9,} events: {result.seconds:7.3f} s (CPU {result.cpu_seconds:.3f} s) "
                f"{result.events_per_s:>9,.0f} events/s  {result.us_per_event:6.2f} us"
            )
        growth = results[-1].cpu_seconds / results[0].cpu_seconds
        exponent = math.log(growth) / math.log(sizes[-1] / sizes[0]) if sizes[0] < sizes[-1] else 1.0
        print(f"growth exponent {exponent:.3f} (linear is 1)")
        append = {
            "durable": appends(folder, arguments.appends, durable=True),
            "not_durable": appends(folder, arguments.appends * 10, durable=False),
        }
        for how, figures in append.items():
            print(
                f"append {how:>11}: {figures['events_per_s']:>8,.0f} facts/s  "
                f"p50 {figures['p50_ms']:.3f} ms  p99 {figures['p99_ms']:.3f} ms  longest {figures['longest_ms']:.3f} ms"
            )
    if arguments.json:
        document = {
            "benchmark": "recovery",
            "machine": machine(),
            "rebuild": [asdict(result) for result in results],
            "exponent": exponent,
            "append": append,
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
