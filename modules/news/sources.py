"""The feeds we know: what each gives, where it is, how often it may be asked. Settings switch them off or redirect them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Shape(StrEnum):
    XML = "xml"
    CRYPTOPANIC = "cryptopanic"
    WEEKLY = "weekly"
    ICS = "ics"

    @property
    def is_calendar(self) -> bool:
        return self in (Shape.WEEKLY, Shape.ICS)


@dataclass(frozen=True, slots=True)
class Source:
    name: str
    shape: Shape
    endpoint: str
    every_s: float
    domain: str
    """Who writes what comes from here, unless the items say."""
    secondhand: bool = False
    """Passes on what others wrote."""
    silent_h: float = 0.0
    """Hours without a new headline after which an answering source counts as silent; 0 = it has no rhythm to judge by."""


SOURCES: Final = (
    Source("coindesk", Shape.XML, "https://www.coindesk.com/arc/outboundfeeds/rss/", 120.0, "coindesk.com", silent_h=72.0),
    Source("cointelegraph", Shape.XML, "https://cointelegraph.com/rss", 120.0, "cointelegraph.com", silent_h=72.0),
    Source("investinglive", Shape.XML, "https://investinglive.com/feed/news/", 120.0, "investinglive.com", silent_h=72.0),
    Source("fxstreet", Shape.XML, "https://www.fxstreet.com/rss/news", 120.0, "fxstreet.com", silent_h=72.0),
    Source("fed", Shape.XML, "https://www.federalreserve.gov/feeds/press_all.xml", 300.0, "federalreserve.gov"),
    Source("bls", Shape.XML, "https://www.bls.gov/feed/bls_latest.rss", 300.0, "bls.gov"),
    Source("cryptopanic", Shape.CRYPTOPANIC, "https://cryptopanic.com/api/developer/v2/posts/", 300.0, "cryptopanic.com", True, 72.0),
    Source("forexfactory", Shape.WEEKLY, "https://nfs.faireconomy.media/ff_calendar_thisweek.json", 3600.0, "forexfactory.com"),
    Source("bls_calendar", Shape.ICS, "https://www.bls.gov/schedule/news_release/bls.ics", 21600.0, "bls.gov"),
)
"""CryptoPanic is asked only with a token (settings: news.cryptopanic_token_file)."""
NAMES: Final = frozenset(source.name for source in SOURCES)
