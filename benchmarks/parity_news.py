"""An invented recording of headlines and calendar snapshots for parity: moods that turn, cautions, releases added and moved.

`record` writes the same store for the same seed. The words are of headlines as they are written; what they say means nothing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from modules.domain.instrument import AssetClass, Instrument
from modules.news.items import Item
from modules.news.releases import Snapshot
from modules.news.store import NewsStore
from modules.venues.protocol import MacroEvent

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
COINS: Final = {"BTC": "Bitcoin", "ETH": "Ether", "ADA": "Cardano", "SOL": "Solana"}
DOMAINS: Final = ("alpha.example", "beta.example", "gamma.example", "delta.example", "epsilon.example")
BAD: Final = ("plunges", "crashes", "slumps", "tumbles", "falls sharply", "drops", "sinks")
GOOD: Final = ("surges", "rallies", "jumps", "soars", "climbs", "gains", "rises sharply")
WHO: Final = ("traders", "miners", "funds", "whales", "banks", "retail buyers", "options desks", "market makers", "analysts", "exporters")
DOES: Final = ("react", "rush in", "step back", "take notice", "reposition", "watch", "hurry", "trade", "turn", "gather")
WHERE: Final = ("in Asia", "in London", "before the weekend", "after the open", "on Monday", "overnight", "in thin trading", "at month end")
CAUTIONS: Final = ("Bybit exchange hacked, funds drained", "Kraken halts withdrawals", "Tether loses its dollar peg")


def record(path: Path, instrument: Instrument, start: int, end: int, seed: int) -> Path:
    """Headlines about `instrument` every half an hour or two from `start` to `end` (UTC ms), half a day of good news after half of bad (for
    currencies, which forget more slowly, five days after five)."""
    source, items, snapshots = random.Random(seed), list[Item](), list[Snapshot]()
    forex = instrument.asset_class is AssetClass.FOREX
    subject = f"{instrument.base}/{instrument.quote}" if forex else COINS[instrument.base]
    spell, at, number = (10 if forex else 1) * 12 * HOUR, start + 3 * HOUR, 0
    while at < end:
        verbs = BAD if (at - start) // spell % 2 == 0 else GOOD
        title = f"{subject} {source.choice(verbs)} as {source.choice(WHO)} {source.choice(DOES)} {source.choice(WHERE)}, {number} say"
        if not forex and source.random() < 0.003:
            title = f"{source.choice(CAUTIONS)}, {number} users say"
        domain = source.choice(DOMAINS)
        items.append(Item(at, domain, domain, str(number), title, at - source.randrange(30) * MINUTE))
        number += 1
        at += source.randrange(5 * MINUTE, (4 if forex else 1) * HOUR)
    for week in range(start, end, 7 * DAY):
        day = (week // DAY + 2) * DAY
        events = tuple(sorted(MacroEvent(day + hours * HOUR, kind, f"invented {kind}", currency, "feed") for hours, kind, currency in (
            (9, "HIGH", "EUR"), (13, "RATE_DECISION", "GBP"), (33, "HIGH", "USD"), (41, "HIGH", "JPY"), (57, "NFP", "USD"))))
        snapshots.append(Snapshot(week + HOUR, "weekly", week, week + 7 * DAY, False, events))
    store = NewsStore(path)
    store.add(items)
    for snapshot in snapshots:
        store.add_snapshot(snapshot)
    store.close()
    return path
