"""Moods per asset from the headlines seen so far: one story once, one source capped, all of it fading. Owns the stories; decides nothing.

mood = evidence x sum over sources of min(share of all weight, cap) x its mean score, evidence = min(1, all weight / floor): a share that
the cap takes away and weight that is missing count as neutral, so no loud source and no lonely headline makes a mood. Everything is a
function of the items in their order and of `at`, so a recorded store replays to the same moods bit for bit.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.policies import MoodPolicy
from modules.news import entities, features
from modules.news.items import Item
from modules.news.sentiment import Sentiment

HOUR: Final = 3_600_000
MINUTE: Final = 60_000
STORIES_MAX: Final = 5_000
"""Kept at once: the oldest go first. Busy days bring some hundreds."""
_HYPE: Final = re.compile(
    r"\b(?:\d{2,}x|presale|pre-sale|giveaway|guaranteed|get rich|don't miss|last chance|next (?:big|100)|millionaires?|sponsored|"
    r"press release|airdrop alert|pump(?:ing)? (?:group|signal)s?|free (?:crypto|bitcoin|tokens?)|buy now|act now|hurry|price prediction|"
    r"to the moon|best (?:crypto|altcoins?|coins?) to buy)\b", re.IGNORECASE)
_STOP: Final = features.word_set("""a an the of to in on for and or as at by is are was with from after over amid its it this that be has
    have up""")


@dataclass(slots=True, eq=False)
class Story:
    """One piece of news, however often it is told. The first telling decides whose it is and how old."""

    began: int
    """When it started to fade: publication if that was earlier than our first sight of it."""
    seen: int
    domain: str
    title: str
    words: frozenset[str]
    assets: Mapping[str, float]
    score: float
    note: str
    """Why it counts for nothing or less; "" = it counts."""
    guids: set[str] = field(default_factory=set)
    tellers: set[str] = field(default_factory=set)
    number: int = 0
    """In the order of their beginning: the older of two that are as like comes first."""
    replaced: int | None = None
    """When its writer changed the headline: from then on the edited story counts in its place."""


class Contribution(NamedTuple):
    """A story's part in a mood."""

    title: str
    domain: str
    score: float
    weight: float
    seen: int


class Mood(NamedTuple):
    value: float
    domains: int
    stories: tuple[Contribution, ...]
    """Heaviest first."""


class Moods:
    """Takes items in order of first sight, answers moods at any later instant."""

    def __init__(self, policy: MoodPolicy, model: Sentiment) -> None:
        self._policy = policy
        self._model = model
        self.stories: deque[Story] = deque()
        self._by_guid: dict[str, Story] = {}
        self._by_asset: dict[str, list[Story]] = {}
        self._words: dict[str, list[Story]] = {}
        self.refused: dict[str, int] = {}
        """Why items were not taken, and how many."""
        self.last_seen = 0
        self._judged = 0

    def adopt(self, policy: MoodPolicy) -> None:
        """The owner's new numbers, from the next item and the next question on."""
        self._policy = policy

    # -- taking in ---------------------------------------------------------------------------------------------------------

    def take(self, item: Item) -> Story | None:
        """The story this item begins, joins or edits; None if it may not count (too old, dated in the future, empty)."""
        policy, at = self._policy, item.first_seen
        self._forget(at)
        self.last_seen = max(self.last_seen, at)
        age_max = float(policy.item_age_h_max) * HOUR
        if not item.title:
            self._refuse("empty")
            return None
        if item.published is not None and item.published > at + float(policy.future_minutes_max) * MINUTE:
            self._refuse("dated in the future")
            return None
        if item.published is not None and at - item.published > age_max:
            self._refuse("too old")
            return None
        words = frozenset(word for word in features.tokens(item.title).words if word not in _STOP and len(word) > 1)
        known = self._by_guid.get(item.source + "\n" + item.guid)
        if known is not None:
            return self._edited(known, item, words) if known.domain == item.domain and known.title != item.title else known
        twin = self._twin(words, at)
        if twin is not None:
            twin.guids.add(item.source + "\n" + item.guid)
            twin.tellers.add(item.domain)
            self._by_guid[item.source + "\n" + item.guid] = twin
            return twin
        began = at if item.published is None else min(at, item.published)
        story = Story(began, at, item.domain, "", frozenset(), {}, 0.0, "")
        story.guids.add(item.source + "\n" + item.guid)
        story.tellers.add(item.domain)
        self._by_guid[item.source + "\n" + item.guid] = story
        self.stories.append(story)
        self._judge(story, item, words)
        return story

    def _edited(self, old: Story, item: Item, words: frozenset[str]) -> Story:
        """An edit changes what a story says from now on, neither its age nor what it had said before."""
        story = Story(old.began, item.first_seen, old.domain, "", frozenset(), {}, 0.0, "", set(old.guids), set(old.tellers))
        old.replaced = item.first_seen
        for guid in story.guids:
            self._by_guid[guid] = story
        self.stories.append(story)
        self._judge(story, item, words)
        return story

    def _judge(self, story: Story, item: Item, words: frozenset[str]) -> None:
        """Read a story's headline: whom it concerns and how."""
        reading = self._model.read(item.title)
        tags = entities.tag(item.title, reading, item.codes)
        score, note = reading.score, tags.abstains
        if looks_like_hype(item.title) and not note:
            note = "hype: its praise counts for nothing"
        silent = float(self._policy.silent_below)
        story.title, story.words, story.score, story.note = item.title, words, score, note
        self._judged += 1
        story.number = self._judged
        story.assets = {asset: 0.0 if abs(value) < silent or (note and value > 0.0) else value for asset, value in tags.assets.items()}
        for asset in story.assets:
            self._by_asset.setdefault(asset, []).append(story)
        for word in words:
            self._words.setdefault(word, []).append(story)

    def _unlink(self, story: Story) -> None:
        for index, keys in ((self._by_asset, story.assets), (self._words, story.words)):
            for key in keys:
                among = index[key]
                among.remove(story)
                if not among:
                    del index[key]

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _twin(self, words: frozenset[str], at: int) -> Story | None:
        """The first story of the window that shares enough words (Jaccard); None for headlines too short to compare."""
        if len(words) < 3:
            return None
        since, least = at - float(self._policy.story_window_h) * HOUR, float(self._policy.story_likeness)
        # Of n words a twin shares at least `needed`, so at least one of any n - needed + 1: the rarest have the fewest stories to compare.
        needed = max(1, math.ceil(least * len(words) - 1e-9))
        rarest = sorted(words, key=lambda word: (len(self._words.get(word, ())), word))[: len(words) - needed + 1]
        best: Story | None = None
        likeness = least
        compared: set[int] = set()
        for word in rarest:
            for story in reversed(self._words.get(word, ())):
                if story.seen < since:
                    break    # in order of first sight
                if id(story) in compared or story.replaced is not None:
                    continue
                compared.add(id(story))
                shared = len(story.words & words)
                found = shared / (len(story.words) + len(words) - shared)
                if found > likeness or (found == likeness and (best is None or (story.seen, story.number) < (best.seen, best.number))):
                    best, likeness = story, found
        return best

    def _forget(self, at: int) -> None:
        """Stories beyond every window go; so do the oldest of too many."""
        keep = max(float(self._policy.story_window_h), float(self._policy.item_age_h_max)) * HOUR
        while self.stories and (self.stories[0].seen < at - keep or len(self.stories) >= STORIES_MAX):
            old = self.stories.popleft()
            for guid in old.guids:
                if self._by_guid.get(guid) is old:
                    del self._by_guid[guid]
            self._unlink(old)

    # -- answering ---------------------------------------------------------------------------------------------------------

    def of(self, instrument: Instrument, at: int) -> Mood | None:
        """The mood about an instrument at `at`; None where too few independent sources spoke of it lately."""
        return self._mood(self._legs(instrument), instrument.asset_class, at)

    def value(self, instrument: Instrument, at: int) -> float | None:
        """`of`'s value, without the headlines behind it: for whoever asks at every bar."""
        found = self._mood(self._legs(instrument), instrument.asset_class, at, explained=False)
        return None if found is None else found.value

    def _legs(self, instrument: Instrument) -> Sequence[tuple[str, float]]:
        if instrument.asset_class is AssetClass.FOREX:
            return (instrument.base, 1.0), (instrument.quote, -1.0)
        return (instrument.base, 1.0), (entities.MARKET, float(self._policy.market_weight))

    def of_asset(self, asset: str, at: int) -> Mood | None:
        """The mood about a coin, a currency on its own, or entities.MARKET."""
        if asset in entities.CURRENCIES:
            return self._mood(((asset, 1.0),), AssetClass.FOREX, at)
        market = () if asset == entities.MARKET else ((entities.MARKET, float(self._policy.market_weight)),)
        return self._mood(((asset, 1.0), *market), AssetClass.SPOT, at)

    def _mood(self, legs: Sequence[tuple[str, float]], asset_class: AssetClass, at: int, *, explained: bool = True) -> Mood | None:
        policy = self._policy
        half_life = float(policy.half_life_h[asset_class]) * HOUR
        oldest = at - float(policy.item_age_h_max) * HOUR
        seen: set[int] = set()
        parts: dict[str, list[tuple[float, float]]] = {}
        contributions = []
        for asset, sign in legs:
            for story in self._recent(asset, oldest):
                if story.seen > at or story.began < oldest or id(story) in seen or (story.replaced is not None and story.replaced <= at):
                    continue
                seen.add(id(story))
                weight = 0.5 ** ((at - story.began) / half_life) * (abs(sign) if asset == entities.MARKET else 1.0)
                score = story.assets[asset] * (1.0 if sign > 0.0 else -1.0)
                parts.setdefault(story.domain, []).append((weight, score))
                if explained:
                    contributions.append(Contribution(story.title, story.domain, score, weight, story.seen))
        total = math.fsum(weight for part in parts.values() for weight, _ in part)
        if len(parts) < policy.domains_min or total < float(policy.weight_min):
            return None
        cap, evidence = float(policy.source_share_max), min(1.0, total / float(policy.weight_floor))
        value = 0.0
        for domain in sorted(parts):
            weight = math.fsum(w for w, _ in parts[domain])
            mean = math.fsum(w * s for w, s in parts[domain]) / weight
            value += min(weight / total, cap) * mean * evidence
        contributions.sort(key=lambda c: (-c.weight * abs(c.score), c.seen, c.title))
        return Mood(max(-1.0, min(1.0, value)), len(parts), tuple(contributions))

    def _recent(self, asset: str, since: float) -> Sequence[Story]:
        stories = self._by_asset.get(asset, [])
        return [story for story in stories if story.seen >= since]

    def assets(self) -> list[str]:
        """Everything somebody spoke about."""
        return sorted(asset for asset, stories in self._by_asset.items() if stories)


def looks_like_hype(title: str) -> bool:
    """Advertising, shouting and promises: their praise is worth nothing, their warnings still count."""
    letters = [c for c in title if c.isalpha()]
    shouting = len(letters) > 20 and sum(c.isupper() for c in letters) > 0.7 * len(letters)
    return shouting or title.count("!") >= 2 or _HYPE.search(title) is not None
