"""`python -m benchmarks.soak [--venue bybit|oanda|binance|all] [--hours H] [--speed X]`: a live daemon in the weather.

The daemon is the real process in mode live, the venue an emulator in a process of its own. For H hours of the market, which pass X times
as fast as the wall's, prices swing, the daemon trades, and a day's worth of faults a day comes over it (soak_weather.py): lost answers,
bans, hanging calls, cut, silent, deaf and garbled streams, late and repeated fills, a wrong clock, and the owner who trades, pays in and
out and cancels stops by hand. In the first half it is killed (`kill -9`), if it can be where a position has no stop yet, and started again;
the second half is where memory, descriptors, threads and tasks must not grow. At the end faults stop, it closes what it holds, and its
books must be the venue's to the last unit.

At X > 1 both processes live on a fast clock (tests/hurried.py); limits in seconds are stretched with it, the machine's own time-outs are
not. With --speed 1 nothing is touched. --census compares what the daemon's containers hold early and late in the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks import common, soak_verdict
from benchmarks.soak_verdict import Sample
from benchmarks.soak_weather import Weather
from modules.domain.sessions import parse_iso
from tests import hurried, mode_process
from tests.live_process import VENUES, Daemon, Emulator, installation

MONDAY: Final = "2026-11-16T06:00:00Z"
"""When a fast run begins: no macro event within the next day, forex open, and the night, the UTC day and three fundings ahead."""
SAMPLE_S: Final = 5.0
WORST_S: Final = 60.0
"""How long a kill waits for its worst moment: something was just bought and has no stop yet."""
CALM_S: Final = 90.0
"""What the end may take: doubts resolved, flat, books agreed."""
STUBBORN: Final = {"api_consecutive_failures_max": 1_000, "api_errors_max": 10_000, "api_error_share_max": "1", "orders_in_doubt_max": 100,
                   "slippage_events_max": 10_000}
"""In worse weather than any day's the kill switch would rightly trade no more. There it shall go on, and be right."""
REARM_LOOKS: Final = 3
"""A class halted for so many looks is re-armed, as its owner would."""


class Soak:
    """One venue's run."""

    def __init__(self, options: argparse.Namespace, venue: str, folder: Path) -> None:
        self._options, self._venue, self._folder = options, venue, folder
        start = parse_iso(MONDAY) if options.speed > 1.0 else time.time_ns() // 1_000_000
        self._pace = hurried.pace(options.speed, start)
        self._real_s = options.hours * 3600.0 / options.speed
        self._samples: list[Sample] = []
        self._rearmed: Counter[str] = Counter()
        self._halted: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        self._lives, self._died, self._lags = 1, 0, list[float]()
        self._restarts: list[float] = []
        self._emulator = Emulator(venue, self._pace, options.seed, folder / "emulator.txt")
        self._daemon: Daemon

    def _say(self, words: str) -> None:
        print(f"  {self._venue} {words}", flush=True)

    async def run(self) -> dict[str, Any]:
        app = await asyncio.to_thread(installation, self._folder, self._venue, self._pace)
        if self._options.intensity > 1.0:
            mode_process.changed(app, "kill_switch", **STUBBORN)
        gauge = asyncio.create_task(self._machine(), name="machine")
        try:
            await self._emulator.start()
            self._daemon = Daemon(app, self._venue, self._emulator.url, self._pace, self._options.timeframe, self._options.census)
            self._daemon.start()
            await self._daemon.running()
            weather = Weather(self._venue, self._emulator, self._options.seed, self._options.speed, self._options.intensity)
            await self._hours(weather)
            return await self._ended(app, weather)
        finally:
            gauge.cancel()
            if hasattr(self, "_daemon"):
                self._daemon.end()
            await self._emulator.end()

    async def _machine(self) -> None:
        """How late a loop with nothing to do is woken on this machine: what of the daemon's lag is not the daemon's."""
        while True:
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self._lags.append((time.monotonic() - due) * 1000.0)

    # -- the run ----------------------------------------------------------------------------------------------------------

    async def _hours(self, weather: Weather) -> None:
        began = time.monotonic()
        kills = [began + self._real_s * share for share in (0.15, 0.35, 0.25, 0.4)[:self._options.kills]]
        looks = [began + self._real_s * share for share in (0.6, 0.97)] if self._options.census else []
        blowing = asyncio.create_task(weather.run(), name="weather")
        try:
            async with aiohttp.ClientSession() as session:
                while (now := time.monotonic()) - began < self._real_s:
                    if self._daemon.ended is not None:
                        self._died += 1
                        self._say(f"THE DAEMON ENDED BY ITSELF, code {self._daemon.ended}")
                        await self._again()
                    elif kills and now >= min(kills):
                        kills.remove(min(kills))
                        await self._worst_moment()
                        self._daemon.kill()
                        await self._again()
                    elif looks and now >= looks[0]:
                        looks.pop(0)
                        await asyncio.to_thread(self._daemon.census)
                    if blowing.done():
                        blowing.result()
                    await self._look(now - began, session)
                    await asyncio.sleep(min(SAMPLE_S, max(0.2, self._real_s / 20.0)))
        finally:
            blowing.cancel()
            await asyncio.gather(blowing, return_exceptions=True)

    async def _worst_moment(self) -> None:
        until = time.monotonic() + WORST_S
        while time.monotonic() < until and not await self._emulator.do("bare"):  # noqa: ASYNC110 - another process holds it
            await asyncio.sleep(0.02)

    async def _again(self) -> None:
        began = time.monotonic()
        await self._emulator.do("away", on=True)
        self._daemon.start()
        self._lives += 1
        for attempt in range(4):
            try:
                await self._daemon.running()
                break
            except RuntimeError:
                if attempt == 3 or self._daemon.ended is None:
                    raise
                self._died += 1
                self._daemon.start()
        self._restarts.append(round(time.monotonic() - began, 2))
        await self._emulator.do("away", on=False)

    async def _look(self, at_s: float, session: aiohttp.ClientSession) -> None:
        seen, metrics, status = self._daemon.measured(), await self._daemon.metrics(session), await self._daemon.ask("status")
        orders = len(await self._emulator.do("sent"))
        self._samples.append(Sample(
            at_s, orders, self._lives, seen["rss_mb"], seen["descriptors"], seen["threads"],
            metrics.get("trading_bot_asyncio_tasks", math.nan), seen["journal_mb"], metrics.get("trading_bot_loop_lag_p99_ms", math.nan)))
        for name, shown in (status or {"classes": {}})["classes"].items():
            self._halted[name] = self._halted[name] + 1 if shown["state"] == "HALTED" else 0
            if self._halted[name] >= REARM_LOOKS:
                self._rearmed[str(shown["halted_by"])] += 1
                await self._daemon.ask("reset-kill", asset_class=name, reason="the soak goes on")
        self._problems.update({str(problem).split(":")[0][:60] for problem in (status or {"problems": ["no answer"]})["problems"]})
        if len(self._samples) % 24 == 1:
            last = self._samples[-1]
            self._say(f"{at_s:5.0f} s  {orders} orders  RSS {last.rss_mb:.1f} MB  {last.descriptors:.0f} descriptors  "
                      f"{last.tasks:.0f} tasks  lag p99 {last.lag_p99_ms:.0f} ms")

    # -- the end ----------------------------------------------------------------------------------------------------------

    async def _ended(self, app: Path, weather: Weather) -> dict[str, Any]:
        cpu_s = self._daemon.measured()["cpu_s"]
        await self._emulator.do("clear")
        if self._daemon.ended is not None:
            self._died += 1
            await self._again()
        calm, settled, doubts = time.monotonic(), False, -1
        await self._daemon.ask("pause")
        while time.monotonic() - calm < CALM_S and not settled:
            await self._daemon.ask("flatten")
            await asyncio.sleep(1.0)
            status, theirs = await self._daemon.ask("status"), await self._emulator.do("state")
            doubts = len(status["in_doubt"]) if status is not None else -1
            held = sum(shown["open_positions"] for shown in status["classes"].values()) if status is not None else -1
            if doubts == held == theirs["resting"] == 0:
                settled = not await asyncio.to_thread(soak_verdict.differences, app, self._venue, theirs)
        code, seconds = await self._daemon.stop()
        theirs = await self._emulator.do("state")
        facts = soak_verdict.facts_of(app / "state" / "live" / "journal.sqlite")
        report = {
            "venue_name": self._venue, "hours": self._options.hours, "speed": self._options.speed, "seed": self._options.seed,
            "real_minutes": round(self._real_s / 60.0, 1), "lives": self._lives, "died": self._died, "restart_s": self._restarts,
            "calm_s": round(time.monotonic() - calm, 1), "settled": settled, "in_doubt_at_end": doubts,
            "stopped": (code, round(seconds, 2)), "cpu_s_last_life": round(cpu_s, 1), "faults": dict(weather.did.most_common()),
            "rearmed": dict(self._rearmed), "problems_seen": dict(self._problems.most_common(12)),
            "log": dict(Counter(f"{line['levelname']} {line.get('message', '')}"[:70] for line in self._daemon.log_lines()
                                if line.get("levelname") in ("WARNING", "ERROR", "CRITICAL")).most_common(25)),
            "venue": theirs, "journal": soak_verdict.told(facts, await self._emulator.do("fills")),
            "differences": soak_verdict.differences(app, self._venue, theirs), "slopes": soak_verdict.slopes(self._samples),
            "samples": [tuple(sample) for sample in self._samples], "machine_lag_p99_ms": round(common.percentile(self._lags, 0.99), 1),
            "census": self._daemon.grown() if self._options.census else None, "machine": common.machine(),
        }
        report["bars"] = [bar._asdict() for bar in soak_verdict.judged(report)]
        return report


def shown(report: dict[str, Any]) -> str:
    """A report for people."""
    grown, journal = report["slopes"], report["journal"]
    faults = report["faults"]
    lines = [f"{report['venue_name']}: {report['hours']:g} h of the market in {report['real_minutes']:g} min, seed {report['seed']}, "
             f"{report['lives']} lives, {sum(faults.values())} faults of {len(faults)} kinds",
             f"  {journal['orders']} orders, {journal['round_trips']} round trips, {journal['in_doubt']} in doubt, "
             f"halts {journal['halts']}, re-armed {report['rearmed']}, machine lag p99 {report['machine_lag_p99_ms']} ms",
             f"  second half: RSS {grown['rss_mb']} = {grown.get('rss_mb_per_hour')} MB/h, {grown.get('rss_mb_per_1000_orders')} MB per "
             f"1,000 orders; descriptors {grown['descriptors']}; tasks {grown['tasks']}; journal {grown['journal_mb']} MB"]
    bare = report["venue"]
    lines.append(f"  restarts {report['restart_s']} s; without a stop after one: {bare['bare_restart_s']} s from the process's birth, "
                 f"{bare['bare_up_s']} s from its first question on")
    lines += [f"  {'held ' if bar['held'] else 'MISSED'} {bar['what']}: {bar['measured']} (limit {bar['limit']})" for bar in report["bars"]]
    return "\n".join(lines)


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    venues = sorted(VENUES) if options.venue == "all" else options.venue.split(",")
    for venue in venues:
        (folder / venue).mkdir(parents=True)
    runs = [asyncio.create_task(Soak(options, venue, folder / venue).run(), name=venue) for venue in venues]
    await asyncio.wait(runs)  # one that breaks off keeps none of the others from its end
    for run in runs:
        if (error := run.exception()) is not None:
            print(f"{run.get_name()}: broke off: {error}", file=sys.stderr, flush=True)
    return {run.get_name(): run.result() for run in runs if run.exception() is None}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venue", default="bybit", help="bybit, oanda, binance, several with commas, or all, side by side")
    parser.add_argument("--hours", type=float, default=24.0, help="of the market")
    parser.add_argument("--speed", type=float, default=32.0, help="how many times as fast as the wall's clock; 1 = real time")
    parser.add_argument("--intensity", type=float, default=1.0, help="of the weather; 1 = a day's worth of faults a day")
    parser.add_argument("--kills", type=int, default=2, choices=range(5), help="in the first half")
    parser.add_argument("--timeframe", default="1m")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--census", action="store_true", help="what the daemon holds, early and late: it stops for a second each")
    parser.add_argument("--keep", type=Path, help="leave the installations here instead of in a temporary folder")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        reports = asyncio.run(soak(options, options.keep or Path(folder)))
    for report in reports.values():
        print(shown(report))
    if options.json is not None:
        document = {"benchmark": "soak", "machine": common.machine(), "venues": reports}
        options.json.write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
    complete = len(reports) == len(VENUES if options.venue == "all" else options.venue.split(","))
    return 0 if complete and all(bar["held"] for report in reports.values() for bar in report["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
