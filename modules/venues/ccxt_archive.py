"""A crypto exchange's past through ccxt: candles, mark candles, funding rates, 24 h figures. Public data, no key.

Knows no venue's dialect but what ccxt says a venue can. May refuse: candles and rates that cannot be, by leaving them out and counting.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass, Instrument
from modules.venues.archive import FUNDING_HOURS, Kind, Page, Row, settled, settlement_hours
from modules.venues.ccxt_gate import sane_bar
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.selection import Statistic, usd_volume

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
CANDLES: Final = 500
"""Per question where ccxt does not say what the venue allows."""
CANDLES_MAX: Final = 1_000
RATES: Final = 100
DAYS_ASKED: Final = 200
"""Daily candles per question when looking for the first."""
QUESTIONS_MAX: Final = 40
"""20 years of days: before that there was no exchange."""
METHODS: Final = {Kind.BARS: "fetchOHLCV", Kind.MARK: "fetchMarkOHLCV", Kind.FUNDING: "fetchFundingRateHistory"}


class CcxtArchive:
    """Over an adapter's own data client, so that its gate, its limiter and its bans hold here too."""

    def __init__(self, venue: CcxtVenue) -> None:
        self.name = venue.name
        self._venue = venue
        self._client = venue.data

    async def offered(self) -> Sequence[Instrument]:
        return list((await self._venue.known()).values())

    def tells(self, kind: Kind, instrument: Instrument, interval_ms: int) -> bool:
        if kind is Kind.FINANCING or (kind is not Kind.BARS and instrument.asset_class is not AssetClass.PERP):
            return False
        known = self._client.has.get(METHODS[kind])
        return bool(known) and (kind is Kind.FUNDING or self._timeframe(interval_ms) is not None)

    def _timeframe(self, interval_ms: int) -> str | None:
        """ccxt's name of a bar length; None if the venue has none of it."""
        named = self._client.timeframes or {}
        return next((name for name in named if int(self._client.parse_timeframe(name)) * 1_000 == interval_ms and name[-1] != "M"), None)

    def _limit(self, kind: Kind, instrument: Instrument) -> int:
        """Rows per question, as ccxt states the venue's limit."""
        market = ("swap", "linear") if instrument.asset_class is AssetClass.PERP else ("spot", None)
        allowed = self._client.feature_value_by_type(*market, METHODS[kind], "limit")
        usual = RATES if kind is Kind.FUNDING else CANDLES
        return min(int(allowed), CANDLES_MAX) if isinstance(allowed, int) and allowed > 0 else usual

    def step_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return (instrument.funding_interval_h or FUNDING_HOURS) * HOUR_MS if kind is Kind.FUNDING else interval_ms

    def span_ms(self, kind: Kind, instrument: Instrument, interval_ms: int) -> int:
        return self._limit(kind, instrument) * self.step_ms(kind, instrument, interval_ms)

    async def first(self, instrument: Instrument, since: int) -> int:
        """By daily candles, from `since` on, two hundred a question."""
        start = since // DAY_MS * DAY_MS
        for _ in range(QUESTIONS_MAX):
            if start > self._venue.clock.now() or not self.tells(Kind.BARS, instrument, DAY_MS):
                return since
            page = await self.page(Kind.BARS, instrument, DAY_MS, start, start + DAYS_ASKED * DAY_MS)
            if page.rows:
                return max(since, int(page.rows[0][0]))
            start += DAYS_ASKED * DAY_MS
        return since

    async def page(self, kind: Kind, instrument: Instrument, interval_ms: int, since: int, until: int) -> Page:
        limit = max(1, min(self._limit(kind, instrument), -(-(until - since) // self.step_ms(kind, instrument, interval_ms))))
        if kind is Kind.FUNDING:
            ask = partial(self._client.fetch_funding_rate_history, instrument.symbol, since, self._limit(kind, instrument),
                          {"until": until - 1})
            return self._rates(await self._venue.read(ask), instrument, since, until)
        timeframe = self._timeframe(interval_ms)
        method = self._client.fetch_mark_ohlcv if kind is Kind.MARK else self._client.fetch_ohlcv
        rows = await self._venue.read(partial(method, instrument.symbol, timeframe, since, limit, {"until": until - 1}))
        return _candles(kind, rows, interval_ms, since, until, self._venue.clock.now())

    def _rates(self, rows: Any, instrument: Instrument, since: int, until: int) -> Page:
        if not isinstance(rows, list):
            raise VenueUnreachable(f"{self.name}: funding rates are no list")
        found: dict[int, float] = {}
        refused = 0
        for row in rows:
            at, rate = (row.get("timestamp"), row.get("fundingRate")) if isinstance(row, dict) else (None, None)
            if not isinstance(at, int) or not isinstance(rate, int | float) or not -1.0 < rate < 1.0:
                refused += 1
                continue
            at = settled(at)
            if since <= at < until:
                found[at] = float(rate)
        times = sorted(found)
        hours = settlement_hours(times, instrument.funding_interval_h or FUNDING_HOURS)
        return Page([(at, found[at], hour, math.nan) for at, hour in zip(times, hours, strict=True)], refused)

    async def close(self) -> None:
        await self._venue.close()


def _candles(kind: Kind, rows: Any, interval_ms: int, since: int, until: int, now: int) -> Page:
    """Closed candles of the span, oldest first; those that cannot be are counted."""
    if not isinstance(rows, list):
        raise VenueUnreachable("candles are no list")
    found: dict[int, Row] = {}
    refused, later = 0, list[int]()
    for row in rows:
        if kind is Kind.MARK and isinstance(row, list) and len(row) >= 5:
            row = [*row[:5], 0.0]  # a mark has no volume
        try:
            bar = sane_bar(row, interval_ms)
        except VenueUnreachable:
            refused += 1
            continue
        if bar.ts >= until:
            later.append(bar.ts)
        elif since <= bar.ts <= now - interval_ms:
            found[bar.ts] = tuple(bar[:5]) if kind is Kind.MARK else (*bar, math.nan, math.nan)
    return Page([found[at] for at in sorted(found)], refused, min(later) if later and not found else None)


# -- what the venue says now ------------------------------------------------------------------------------------------------


async def statistics(venue: CcxtVenue) -> Sequence[Statistic]:
    """24 h volume, bid and ask of everything offered, from the venue's own list of tickers. Raises VenueError."""
    known = await venue.known()
    rows: dict[str, Statistic] = {}
    for asset_class in venue.classes:
        symbols = [symbol for symbol, one in known.items() if one.asset_class is asset_class]
        if not symbols:
            continue
        kind = {"type": "spot"} if asset_class is AssetClass.SPOT else {"type": "swap", "subType": "linear"}
        tickers = await _tickers(venue, venue.data.fetch_tickers, kind)
        # Some lists of 24 h figures (Binance's perpetuals) leave out bid and ask: then they are asked for by themselves.
        told = [symbol for symbol in symbols if symbol in tickers]
        spreadless = all(math.isnan(_price(tickers[symbol].get("bid"))) for symbol in told)
        quoted = await _tickers(venue, venue.data.fetch_bids_asks, kind) if spreadless and venue.data.has.get("fetchBidsAsks") else tickers
        for symbol in told:
            created = venue.data.markets[symbol].get("created")
            rows[symbol] = _statistic(symbol, known[symbol], tickers[symbol], quoted.get(symbol, {}), created)
    return list(rows.values())


async def _tickers(venue: CcxtVenue, method: Callable[..., Awaitable[Any]], kind: dict[str, str]) -> dict[str, dict[str, Any]]:
    found = await venue.read(partial(method, None, kind))
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise VenueUnreachable(f"{venue.name}: tickers are no list")
    return found


def _statistic(symbol: str, instrument: Instrument, ticker: dict[str, Any], quoted: dict[str, Any], created: object) -> Statistic:
    return Statistic(symbol, usd_volume(instrument.quote, ticker.get("quoteVolume")), _price(quoted.get("bid")), _price(quoted.get("ask")),
                     created if isinstance(created, int) and created > 0 else None)


def _price(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else math.nan


async def listed_before(venue: CcxtVenue, symbol: str, at: int) -> int | None:
    """Open of a daily candle at or before `at`, among the week before it; None = it has none there. Raises VenueError."""
    archive, instrument = CcxtArchive(venue), (await venue.known()).get(symbol)
    if instrument is None or not archive.tells(Kind.BARS, instrument, DAY_MS):
        return None
    day = at // DAY_MS * DAY_MS
    page = await archive.page(Kind.BARS, instrument, DAY_MS, day - 7 * DAY_MS, day + DAY_MS)
    return int(page.rows[0][0]) if page.rows else None
