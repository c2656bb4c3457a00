"""Extraordinary headlines: an exchange hacked, withdrawals halted, a peg lost, a coin delisted. They close entries for some hours.

A caution only ever tightens, so one headline is enough, but not a question, a denial, a look back or good news about an old case; and
of sources that pass on what others wrote, two domains must tell it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.policies import CautionPolicy
from modules.news import entities
from modules.news.mood import HOUR, Story
from modules.news.sources import SOURCES

_EXCHANGE: Final = (r"(?:exchange|binance|coinbase|kraken|bybit|okx|kucoin|bitfinex|bitstamp|gemini|huobi|htx|gate\.io|bitget|upbit|"
                    r"deribit|bitmex|crypto\.com|mexc|oanda)")
_STABLE: Final = r"(?:tether|usdt|usdc|dai|busd|ust|stablecoin|fdusd|usde)"
_RULES: Final = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in (
    ("withdrawals_halted", r"\b(?:halt|paus|suspend|freez|froze|stop|block|disabl)\w*\b.{0,40}\bwithdrawals?\b"
                           r"|\bwithdrawals?\b.{0,30}\b(?:halted|paused|suspended|frozen|stopped|blocked|disabled)\b"),
    ("exchange_hack", rf"\b{_EXCHANGE}\b.{{0,60}}\b(?:hack(?:ed|ers?|s)?|breach(?:ed)?|exploit(?:ed)?|stolen|drained|security incident)\b"
                      rf"|\b(?:hack(?:ed|ers?|s)?|breach|exploit|stolen|steal|drain(?:ed)?)\b.{{0,60}}\b{_EXCHANGE}\b"),
    ("insolvency", rf"\b{_EXCHANGE}\b.{{0,60}}\b(?:bankruptcy|insolven\w+|chapter 11|liquidators?)\b"),
    ("depeg", rf"\b{_STABLE}\b.{{0,60}}\b(?:de-?peg\w*|los(?:es|t|ing) (?:its |the |dollar )*peg|falls? below \$?(?:1|0\.9)"
              r"|breaks? (?:the )?buck)"
              rf"|\bde-?peg\w*\b.{{0,40}}\b{_STABLE}\b"),
    ("delisting", r"\b(?:to |will )?de-?list(?:s|ed|ing)?\b"),
))
_CALMS: Final = re.compile(
    r"\?|\b(?:not|no|never|denies|deny|denied|rumou?rs?|false|fake|hoax|unaffected|resum\w+|restor\w+|recover\w*|returns?|repaid|foil\w*|"
    r"prevent\w*|avert\w*|years? (?:ago|after|later|since)|anniversary|trial|sentenc\w+|lawsuit|court|convicted|pleads?|history|lessons|"
    r"explain\w*|how to|what is|guide|could|might|would|if|regains?|re-?peg\w*|avoid\w*|stablecoin bill|insurance|bounty|in 20[012]\d|"
    r"against delisting|simulat\w+|drill|test)\b", re.IGNORECASE)
_SECONDHAND: Final = tuple(source.name for source in SOURCES if source.secondhand)
_CRYPTO: Final = frozenset((AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION))


@dataclass(frozen=True, slots=True)
class Caution:
    """Entries are closed until `until` (UTC ms) for `assets`, or for all of `classes` where there are none."""

    kind: str
    headline: str
    domain: str
    at: int
    until: int
    classes: frozenset[AssetClass]
    assets: frozenset[str]

    @property
    def name(self) -> str:
        return f"caution {self.kind}: {self.headline}"[:300]

    def covers(self, asset_class: AssetClass, currencies: Sequence[str]) -> bool:
        return asset_class in self.classes and (not self.assets or any(code in self.assets for code in currencies))


def raised(story: Story | None, first_seen: int, known: Sequence[Caution], policy: CautionPolicy) -> Caution | None:
    """The caution that an item first seen then (UTC ms) calls for through its story, if none of those known has its headline."""
    if story is None or any(one.headline == story.title for one in known):
        return None
    found = caution(story, max(story.began, story.seen - HOUR), policy, _SECONDHAND)
    return found if found is not None and found.until >= first_seen else None


def caution(story: Story, at: int, policy: CautionPolicy, secondhand: Sequence[str]) -> Caution | None:
    """What `story` calls for; None if nothing. `secondhand` are feeds that pass on others' headlines."""
    if _CALMS.search(story.title):
        return None
    kind = next((kind for kind, pattern in _RULES if pattern.search(story.title)), None)
    if kind is None or not policy.hours.get(kind, 0):
        return None
    sources = {guid.partition("\n")[0] for guid in story.guids}
    if sources <= set(secondhand) and len(story.tellers) < policy.secondhand_domains_min:
        return None
    coins = frozenset(story.assets) - entities.CURRENCIES - {entities.MARKET}
    if kind == "delisting" and not coins:
        return None
    whole = kind in ("exchange_hack", "withdrawals_halted", "insolvency", "depeg")
    return Caution(kind, story.title, story.domain, at, at + int(float(policy.hours[kind]) * HOUR), _CRYPTO,
                   frozenset() if whole else coins)
