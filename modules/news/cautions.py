"""Extraordinary headlines: an exchange hacked, withdrawals halted, a peg lost, a coin delisted. They close entries for some hours.

A caution only ever tightens, so one headline is enough, but not a question, a denial, a look back or good news about an old case; and
of sources that pass on what others wrote, two domains must tell it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from modules.domain.instrument import AssetClass
from modules.domain.policies import CautionPolicy
from modules.news import entities
from modules.news.mood import HOUR, Story
from modules.news.sources import SOURCES

_EXCHANGE: Final = (
    r"(?:(?<!stock )(?<!microsoft )exchange(?!s?[- ](?:traded|rates?|balances?|reserves?|outflows?|inflows?|servers?|supply)\b)|binance|"
    r"coinbase|kraken|bybit|okx|kucoin|bitfinex|bitstamp|gemini|huobi|htx|gate\.io|bitget|upbit|deribit|bitmex|crypto\.com|mexc|oanda|ftx|"
    r"bithumb|coincheck|dmm bitcoin|wazirx|nobitex|bitmart|poloniex|phemex|bingx|coinex|ascendex|bittrex|bitrue|lbank|whitebit|indodax|"
    r"coindcx|swissborg|hyperliquid|dydx|celsius|blockfi|voyager|genesis|cryptopia|liquid global)")
_STABLE: Final = r"(?:tether|usdt|usdc|dai|busd|ust|terrausd|stablecoin|fdusd|usde|pyusd|tusd|usdd)"
_UNDER_ONE: Final = r"\$?(?:1(?:\.0+)?|one dollar|0?\.\d+)(?![\d,]|\.\d|\s?(?:%|percent|bn|billion|mn?\b|million|trillion|trn))"
_RULES: Final = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in (
    ("withdrawals_halted", r"\b(?:halt|paus|suspend|freez|froze|stop|block|disabl)\w*\b.{0,40}\bwithdrawals?\b"
                           r"|\bwithdrawals?\b.{0,30}\b(?:halted|paused|suspended|frozen|stopped|blocked|disabled)\b"
                           rf"|\b{_EXCHANGE}\b.{{0,20}}\b(?:halt|paus|suspend|freez)\w*\b.{{0,20}}\bredemptions\b"),
    # What happened, as a verb: "the Bybit hack" alone is talked about for years.
    ("exchange_hack", rf"\b{_EXCHANGE}\b.{{0,60}}\b(?:hacked|exploited|drained(?! to)|compromised|robbed)\b"
                      rf"|\b{_EXCHANGE}\b.{{0,40}}\b(?:suffer\w*|confirms?|confirmed|reports?|reported|disclos\w+|reveals?|detects?|"
                      r"hit by|loses|lost|losing|victim|after|amid)\b.{0,40}"
                      r"\b(?:hack|exploit|(?<!data )breach|theft|heist|security incident|cyberattack)\b"
                      rf"|\b{_EXCHANGE} (?:hack|breach|exploit)\b.{{0,30}}\b(?:stolen|gone|drained|missing)\b"
                      rf"|\b(?:hackers?|attackers?|thieves|lazarus)\b.{{0,30}}\b(?:steal|stole|drain|siphon|take|took)\w*\b.{{0,60}}"
                      rf"\b{_EXCHANGE}\b"
                      rf"|\b(?:stolen|drained|siphoned|missing) from\b.{{0,30}}\b{_EXCHANGE}\b"
                      rf"|\b(?:hack|breach|exploit|heist) (?:of|at|on|hits|rocks|drains) (?:\w+ ){{0,3}}{_EXCHANGE}\b"),
    ("insolvency", rf"\b{_EXCHANGE}\b.{{0,60}}\b(?:(?:files?|filed|filing) for (?:\w+ )?"
                   r"(?:bankruptcy|chapter 11|insolvency|creditor protection)"
                   r"|(?:declare[sd]?|enters?|seeks?) (?:bankruptcy|insolvency|chapter 11|administration)"
                   r"|(?:is|goes|declared|becomes) (?:insolvent|bankrupt)|liquidators? appointed|collapses)\b"),
    ("depeg", rf"\b{_STABLE}\b.{{0,60}}\b(?:de-?peg\w*|los(?:es|t|ing) (?:its |the |us |dollar )*peg"
              r"|breaks? (?:its |the |dollar )*(?:buck|peg)"
              r"|(?:slips?|falls?|drops?|sinks?|slides?|dips?|trades?) (?:far |well )?below (?:its |the |us |dollar )*peg)"
              rf"|\b{_STABLE}\b.{{0,20}}\b(?:falls?|drops?|slips?|sinks?|slides?|dips?|plunges?|crashes|tumbles?|trades?)\b.{{0,20}}"
              rf"(?:\bbelow {_UNDER_ONE}|\b(?:to|at) \$?0?\.\d+(?![\d,]|\s?(?:%|percent))|\b(?:to|at) \d\d cents)"
              rf"|\bde-?peg\w*\b.{{0,40}}\b{_STABLE}\b"),
    ("delisting", r"\b(?:to |will )?de-?list(?:s|ed|ing)?\b"
                  rf"|\b{_EXCHANGE}\b.{{0,20}}\b(?:suspends?|halts?|ends?|stops?) (?:all )?(?:spot )?"
                  r"(?:trading|support|trading support) (?:in|of|for)\b"),
))
_ASKS: Final = re.compile(
    r"\?|^(?:is|are|was|were|did|does|do|has|have|can|will|should|how|why|what|where|when|who|could|might|would|if)\b", re.IGNORECASE)
_CALMS: Final = re.compile(
    r"\b(?:not|no|never|denies|deny|denied|rumou?rs?|false|fake|hoax|unaffected|resum\w+|restor\w+|recover\w*|returns?|returned|repaid|"
    r"foil\w*|prevent\w*|avert\w*|thwart\w*|debunk\w*|dismiss\w*|refut\w*|reject\w*|escap\w+|surviv\w+|rules? out|ruled out|reopen\w*|fud|"
    r"fears?|jitters|risks?|years? (?:ago|after|later|since)|anniversary|trial|sentenc\w+|lawsuit|court|convicted|arrest\w*|charged|"
    r"pleads?|the history|a history|history of|lessons|explain\w*|how to|what is|guide|could|might|would|if|regains?|re-?peg\w*|avoid\w*|"
    r"stablecoin bill|insurance|bounty|against delisting|simulat\w+|drill|test|launder\w*|links?|linked|moves?|moved|replenish\w*|"
    r"reimburs\w*|compensat\w*|estate|creditors)\b", re.IGNORECASE)
_YEAR: Final = re.compile(r"\b(?:in|of|from|since) (?:\w+ )?(20[0-9]{2})\b", re.IGNORECASE)
_CLAUSE: Final = re.compile(r"[;:,!]\s|\s[-–—|]\s")
_ELSEWHERE: Final = {
    "withdrawals_halted": re.compile(r"\b(?:banks?|staking|validators?|atms?|pensions?|troops?|oil|water)\b", re.IGNORECASE),
    "delisting": re.compile(r"\b(?:nyse|nasdaq|stock exchange|shares|stock|miners?|etfs?)\b", re.IGNORECASE),
}
"""Words of another trade: what was halted or taken off a list there is none of ours, unless an exchange of ours is named."""
_NAMED: Final = re.compile(rf"\b{_EXCHANGE}\b", re.IGNORECASE)
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
    kind = next((kind for kind, pattern in _RULES if (match := pattern.search(story.title)) is not None
                 and not _harmless(kind, story.title, match.span(), at)), None)
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


def _harmless(kind: str, title: str, told: tuple[int, int], at: int) -> bool:
    """Whether it only asks, or denies, calms or looks back where it tells; another clause ("..., CEO says funds not affected") does not."""
    if _ASKS.search(title):
        return True
    start = max((found.end() for found in _CLAUSE.finditer(title) if found.end() <= told[0]), default=0)
    end = min((found.start() for found in _CLAUSE.finditer(title) if found.start() >= told[1]), default=len(title))
    clause = title[start:end]
    year = datetime.fromtimestamp(at / 1000.0, UTC).year
    if _CALMS.search(clause) or any(int(found) < year for found in _YEAR.findall(clause)):
        return True
    elsewhere = _ELSEWHERE.get(kind)
    return elsewhere is not None and elsewhere.search(title) is not None and _NAMED.search(elsewhere.sub(" ", title)) is None
