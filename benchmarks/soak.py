"""`python -m benchmarks.soak [--minutes M] [--seed S] [--json FILE]`: the daemon on the Bybit emulator with faults on.

Emulator and daemon share one process: the memory of both is in the figure, so its slope is an upper bound of the daemon's.
Memory is reported, not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from modules.domain.events import Filled
from tests.emulators import bybit as emulator
from tests.test_live_bybit import World

MINUTE_S = 2.0
"""How long a minute of the market lasts."""


async def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    chance, lags, samples, began = random.Random(seed), list[float](), list[tuple[float, float, int, int]](), time.monotonic()

    async def gauge() -> None:
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            lags.append((time.monotonic() - due) * 1000.0)

    async with emulator.serving() as venue:
        on = World(venue, folder)
        alive = await on.starts(clock_poll_s=600.0)
        task, bars = asyncio.create_task(gauge(), name="gauge"), 0
        while time.monotonic() - began < minutes * 60:
            on.price(chance.choice(["50000", "51000", "50900", "49900"]))
            on.minute()
            bars += 1
            match chance.choice(["lost", "busy", "drop", "garble", "", ""]):
                case "lost":
                    venue.faults.append(emulator.Fault("order/create", emulator.Reply(502, b"<html>"), chance.random() < 0.7))
                case "busy":
                    venue.faults.append(emulator.Fault("wallet-balance", emulator.coded(10006, "Too many visits!"), False))
                case "drop":
                    await venue.drop()
                case "garble":
                    venue.garble()
            for _ in range(int(MINUTE_S / 0.1)):
                on.tick()
                await asyncio.sleep(0.1)
            samples.append((time.monotonic() - began, common.memory_mb(), len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())))
        venue.faults.clear()
        agrees, until = False, time.monotonic() + 30
        while not agrees and time.monotonic() < until:
            on.tick()
            await asyncio.sleep(0.1)
            try:
                on.agree(alive)
                agrees = not alive.daemon.executor.in_doubt
            except AssertionError:
                continue
        task.cancel()
        fills = len(alive.of(Filled))
        await alive.die()
        warm = samples[len(samples) // 3:]
        return {"market_minutes": bars, "fills": fills, "agrees": agrees, "sent_twice": sum(n > 1 for n in on.sent().values()),
                "rss_mb": [warm[0][1], warm[-1][1]], "descriptors": [warm[0][2], warm[-1][2]], "tasks": [warm[0][3], warm[-1][3]],
                "lag_p50_ms": common.percentile(lags, 0.5), "lag_p99_ms": common.percentile(lags, 0.99), "machine": common.machine()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(soak(options.minutes, options.seed, Path(folder)))
    print(json.dumps(report, indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    first, last = report["descriptors"]
    fine = report["agrees"] and not report["sent_twice"] and report["lag_p99_ms"] < 250 and last <= first + 10
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
