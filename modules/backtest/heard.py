"""What the news said at each bar: blackouts, cautions and moods, each from what had been seen by that instant and nothing later.

Owns no rule: windows are news.calendar's, corrections news.refresh's, cautions and moods those of the modules that News_Agent asks, in
the order in which it asks them. As in a replay no series of the calendar is ever exhausted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from modules.backtest.series import F64, I64, Series
from modules.domain.policies import Policies
from modules.news import cautions, refresh
from modules.news.calendar import Window
from modules.news.cautions import Caution
from modules.news.items import Item
from modules.news.mood import HOUR, Moods
from modules.news.sentiment import shipped
from modules.news.store import NewsStore
from modules.venues.protocol import MacroEvent

CLOSED: Final = np.inf
"""In place of a mood: entries are closed."""
FOREVER: Final = 1 << 62


def with_news(series: Mapping[str, Series], policies: Policies, events: Sequence[MacroEvent],
              store: NewsStore | None = None) -> dict[str, Series]:
    """The same series with their `news`: `events` close entries, as corrected by the calendar snapshots of `store`, whose headlines make
    moods and cautions. Where nothing was ever said about an instrument its series comes back as it was."""
    late = int(policies.costs.latency_ms)
    told = {symbol: np.full((len(one), 2), np.nan) for symbol, one in series.items()}
    if store is not None:
        raised = _moods(series, told, policies, store, late)
        for symbol, one in series.items():
            for caution, seen in raised:
                if caution.covers(one.asset_class, (one.instrument.base, one.instrument.quote)):
                    _close(told[symbol], one.at, late, max(caution.at, seen), caution.until)
    snapshots = list(store.snapshots()) if store is not None else []
    changes = [snapshot.fetched for snapshot in snapshots]
    for number, (begin, end) in enumerate(zip([-FOREVER, *changes], [*changes, FOREVER], strict=True)):
        if begin < end and any(one.at[0] < end and one.at[-1] + late >= begin for one in series.values()):
            known, _ = refresh.merge(events, {}, snapshots[:number], policies.news)
            _blackouts(series, told, known.windows, late, begin, end - 1)
    return {symbol: replace(one, news=told[symbol]) if not bool(np.isnan(told[symbol]).all()) else one for symbol, one in series.items()}


def _blackouts(series: Mapping[str, Series], told: Mapping[str, F64], windows: Iterable[Window], late: int, begin: int, end: int) -> None:
    """Close what `windows` close while this calendar was the known one: begin <= instant <= end."""
    for window in windows:
        opens, closes = max(window.opens, begin), min(window.closes, end)
        for symbol, one in series.items() if opens <= closes else ():
            if window.covers(one.asset_class, (one.instrument.base, one.instrument.quote)):
                _close(told[symbol], one.at, late, opens, closes)


def _close(told: F64, at: I64, late: int, opens: int, closes: int) -> None:
    """Both ends inclusive."""
    for column, delay in enumerate((0, late)):
        first, last = np.searchsorted(at, (opens - delay, closes - delay + 1))
        told[first:last, column] = CLOSED


def _moods(series: Mapping[str, Series], told: Mapping[str, F64], policies: Policies, store: NewsStore,
           late: int) -> list[tuple[Caution, int]]:
    """Write the mood at every bar that could have one; gives the cautions that were raised on the way, and when each was."""
    moods, raised = Moods(policies.news.mood, shipped()), list[tuple[Caution, int]]()
    items = store.items()
    item = next(items, None)
    if item is None:
        return raised
    asked = _asked(series, late, item.first_seen, float(policies.news.mood.item_age_h_max) * HOUR, store)
    for at, symbol, row, column in asked:
        while item is not None and item.first_seen <= at:
            item = _take(item, items, moods, raised, policies)
        mood = moods.value(series[symbol].instrument, at)
        if mood is not None:
            told[symbol][row, column] = mood
    while item is not None:
        item = _take(item, items, moods, raised, policies)
    return raised


def _take(item: Item, items: Iterator[Item], moods: Moods, raised: list[tuple[Caution, int]], policies: Policies) -> Item | None:
    """Take one headline in; the next one."""
    # A caution that is over no longer keeps its headline from raising another (News_Agent.tick).
    known = [one for one, _ in raised if one.until >= item.first_seen]
    found = cautions.raised(moods.take(item), item.first_seen, known, policies.news.cautions)
    if found is not None:
        raised.append((found, item.first_seen))
    return next(items, None)


def _asked(series: Mapping[str, Series], late: int, first: int, age: float, store: NewsStore) -> list[tuple[int, str, int, int]]:
    """(instant, symbol, row, column) in order of time, from the first headline on until the last one's age is up."""
    last = max((item.first_seen for item in store.items()), default=first)
    asked = []
    for symbol, one in series.items():
        for column, delay in enumerate((0, late)):
            begin, end = np.searchsorted(one.at + delay, (first, last + age + 1))
            asked += [(int(one.at[row]) + delay, symbol, row, column) for row in range(begin, end)]
    return sorted(asked)
