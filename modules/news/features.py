"""A headline as numbers: words, word pairs and character sequences, and what a small lexicon of our own makes of its grammar.

The lexicon part is what carries over to domains nobody labeled for us: "cuts losses" is good, "inflation falls" is good, "ECB turns
dovish" is bad for EUR/USD and "weaker dollar" good for it, and what stands after "as" or "despite" counts apart from the main clause.
Pure functions, standard library only; the same code trains the model and reads headlines live.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, NamedTuple

TEXT_MAX: Final = 400
"""Characters of a headline that are read."""
TOKENS_MAX: Final = 60
DENSE: Final = (
    "main_positive", "main_negative", "rest_positive", "rest_negative", "first", "last", "phrases", "strong_positive", "strong_negative",
    "currency", "percent", "hedges", "neutral", "question", "nothing_polar", "both_polar", "composed", "quiet_neutral", "net_sign",
    "subject_move",
)
"""Names of the lexicon's numbers, in the order `dense` gives them."""



def word_set(text: str) -> frozenset[str]:
    """The words of a text, for tables that would else be columns of quotation marks."""
    return frozenset(text.split())


_URL: Final = re.compile(r"https?://\S*|www\.\S*|\S+\.\S+/\S*…|pic\.\S*")
_HANDLE: Final = re.compile(r"@\w+|#(?=\w)")
_CASHTAG: Final = re.compile(r"\$[A-Za-z][A-Za-z.]{0,6}\b|\([A-Z]{2,10}:\s?[A-Z.]{1,8}\)")
_PAIR: Final = re.compile(r"\b([a-z]{3})\s?/\s?([a-z]{3})\b|\b(eur|gbp|aud|nzd|usd|cad|chf)(usd|jpy|gbp|chf|aud|nzd|cad|cnh|inr|mxn)\b")
_TOKEN: Final = re.compile(r"[+\-−]?\$?\d[\d.,]*\s?(?:%|percent\b|pct\b)|\$?\d[\d.,]*(?:bn|mn|k|m|b)?\b|[a-z]+(?:['’][a-z]+)*|[?!;:]")
_APOSTROPHE_S: Final = re.compile(r"['’]s\b")
_CONNECTORS: Final = word_set("as amid after despite while on following ahead before but though although when since with for from")
_WHY: Final = word_set("on over")
_EXTREMES: Final = word_set("high highs low lows highest lowest")
BANKS: Final = {"fed": "USD", "fomc": "USD", "powell": "USD", "ecb": "EUR", "lagarde": "EUR", "boe": "GBP", "bailey": "GBP", "boj": "JPY",
                 "ueda": "JPY", "snb": "CHF", "rba": "AUD", "rbnz": "NZD", "boc": "CAD"}
_POLICY: Final = {"hawkish": 1, "dovish": -1, "hike": 1, "hikes": 1, "hiking": 1, "hiked": 1, "hawks": 1, "doves": -1, "cut": -1,
            "cuts": -1, "tightening": 1, "easing": -1}
_AGAINST_DOLLAR: Final = word_set("""gold silver bitcoin btc ether ethereum eth crypto cryptocurrency cryptocurrencies stocks oil
    wti nasdaq dow xau altcoins copper""")
_MOVE_REACH: Final = 6


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Valence per word and phrase, and the words that turn or frame it."""

    valence: Mapping[str, float]
    phrases: Mapping[str, Mapping[tuple[str, ...], float]]
    """First word -> whole phrase -> valence."""
    up: frozenset[str]
    down: frozenset[str]
    undo: frozenset[str]
    """Ends what is bad ("tosses the lawsuit"), moves nothing else."""
    bad_when_up: frozenset[str]
    ends_well: frozenset[str]
    """Bad as long as they last, whatever rises or falls beside them."""
    negators: frozenset[str]
    hedges: frozenset[str]
    neutral: frozenset[str]
    currency_of: Mapping[str, str]
    strength: Mapping[str, int]


class Polar(NamedTuple):
    """One word or phrase that leans, at token `place`."""

    place: int
    value: float
    kind: str
    """word, phrase, composed or currency."""


@cache
def lexicon() -> Lexicon:
    """Our own lexicon, as shipped beside this module."""
    raw = json.loads(files("modules.news").joinpath("data/lexicon.json").read_text(encoding="utf-8"))
    valence: dict[str, float] = {}
    for sign, group in ((1.0, raw["positive"]), (-1.0, raw["negative"])):
        for size in ("1", "2"):
            valence.update((word, sign * float(size)) for word in group[size].split() if "-" not in word)
    valence.update(dict.fromkeys(raw["zero"].split(), 0.0))    # words that look like inflections of leaning ones, and do not lean
    phrases: dict[str, dict[tuple[str, ...], float]] = {}
    hyphenated = [(word, sign * 1.5) for sign, key in ((1.0, "positive"), (-1.0, "negative")) for group in raw[key].values()
                  for word in group.split() if "-" in word]
    listed = [(text, sign * 1.5) for sign, key in ((1.0, "phrases_positive"), (-1.0, "phrases_negative")) for text in raw[key]]
    for text, value in (*hyphenated, *listed):
        words = tuple("num" if word.isdigit() else word for word in text.replace("-", " ").split())
        phrases.setdefault(words[0], {})[words] = value
    return Lexicon(
        valence, phrases, up=word_set(raw["up"]), down=word_set(raw["down"]), undo=word_set(raw["undo"]),
        bad_when_up=word_set(raw["bad_when_up"]), ends_well=word_set(raw["ends_well"]),
        negators=word_set(raw["negators"]), hedges=word_set(raw["hedges"]), neutral=word_set(raw["neutral"]),
        currency_of=BANKS | {word: code for code, words in raw["currencies"].items() for word in words.split()},
        strength={word: sign for sign, key in ((1, "up"), (-1, "down")) for word in raw["currency_strength"][key].split()} | _POLICY)


# -- words ---------------------------------------------------------------------------------------------------------------


class Tokens(NamedTuple):
    words: list[str]
    pair: tuple[str, str] | None
    """Base and quote of the first currency pair named."""


def clean(text: str) -> str:
    """Plain lower-case text without links, handles, tickers and markup."""
    plain = unicodedata.normalize("NFKC", html.unescape(text[: 2 * TEXT_MAX]))
    plain = _CASHTAG.sub(" ", _HANDLE.sub(" ", _URL.sub(" ", plain)))[:TEXT_MAX].lower()
    return _APOSTROPHE_S.sub("", plain.replace("’", "'"))


def tokens(text: str) -> Tokens:
    plain = clean(text)
    found = _PAIR.search(plain)
    pair = None
    if found is not None:
        base, quote = (found.group(1), found.group(2)) if found.group(1) else (found.group(3), found.group(4))
        pair = (base.upper(), quote.upper())
        plain = _PAIR.sub(" pair ", plain)
    words: list[str] = []
    for match in _TOKEN.finditer(plain):
        word = match.group()
        if word[0].isalpha() or word in "?!;:":
            words.append(word)
        elif word[-1] in "%t":
            words.append("pctup" if word[0] == "+" else "pctdown" if word[0] in "-−" else "pct")
        else:
            words.append("num")
        if len(words) >= TOKENS_MAX:
            break
    return Tokens(words, pair)


@lru_cache(maxsize=50_000)
def _forms(word: str) -> tuple[str, ...]:
    """The word and what it may be an inflection of, likeliest first."""
    forms = [word]
    for ending, least in (("ing", 5), ("ed", 4), ("es", 4), ("s", 3), ("d", 4), ("ly", 5), ("er", 5)):
        if word.endswith(ending) and len(word) >= least:
            stem = word[: -len(ending)]
            forms.append(stem)
            if ending in ("ing", "ed", "es"):
                forms.append(stem + "e")
            if ending in ("ing", "ed", "er") and len(stem) > 2 and stem[-1] == stem[-2]:
                forms.append(stem[:-1])
            if stem.endswith("i"):
                forms.append(stem[:-1] + "y")
    return tuple(forms)


class _Known(NamedTuple):
    valence: float
    move: int
    """+1 up, -1 down, 0 neither."""
    bad: bool
    undo: bool
    ends_well: bool


_known: dict[str, _Known] = {}
_KNOWN_MAX: Final = 50_000


def _look_up(word: str) -> _Known:
    """What the lexicon says of a word in any of its forms."""
    found = _known.get(word)
    if found is None:
        book = lexicon()
        forms = _forms(word)
        valence = next((book.valence[form] for form in forms if form in book.valence), 0.0)
        move = next((1 if form in book.up else -1 for form in forms if form in book.up or form in book.down), 0)
        found = _Known(valence, move, any(form in book.bad_when_up for form in forms[:2]), word in book.undo,
                       any(form in book.ends_well for form in forms[:2]))
        if len(_known) >= _KNOWN_MAX:
            _known.clear()
        _known[word] = found
    return found


# -- grammar -------------------------------------------------------------------------------------------------------------


def polars(found: Tokens) -> list[Polar]:
    """Everything in the headline that leans, in order: phrases first, then moves of bad things, currencies, single words."""
    book, words = lexicon(), found.words
    taken = [False] * len(words)
    result: list[Polar] = []
    for index, word in enumerate(words):
        for phrase, value in book.phrases.get(word, {}).items():
            end = index + len(phrase)
            if not taken[index] and tuple(words[index:end]) == phrase and not any(taken[index:end]):
                taken[index:end] = [True] * len(phrase)
                result.append(Polar(index, _turned(words, index, value), "phrase"))
                break
    known = [_look_up(word) for word in words]
    subject = _subject(found)
    for index, entry in enumerate(known):
        if taken[index]:
            continue
        code = book.currency_of.get(words[index])
        if code is not None and subject is not None:
            value = _currency(found, taken, index, code, subject)
            if value:
                result.append(Polar(index, value, "currency"))
            continue
        if entry.move or entry.undo:
            other = _bad_noun(known, taken, words, index, undo=entry.undo)
            if other is not None:
                taken[index] = taken[other] = True
                move = -1 if entry.undo and known[other].ends_well else entry.move or -1
                result.append(Polar(index, _turned(words, index, -1.2 * move), "composed"))
    result.extend(Polar(index, _turned(words, index, entry.valence), "word")
                  for index, entry in enumerate(known) if entry.valence and not taken[index])
    result.sort()
    return [_of_what(words, result, polar) for polar in result]


def _of_what(words: Sequence[str], leaning: Sequence[Polar], polar: Polar) -> Polar:
    """A high is bad news where the clause is about something bad ("unemployment rises to a four-year high"), and a low good news."""
    if polar.kind in ("phrase", "word") and any(word in _EXTREMES for word in words[polar.place : polar.place + 3]):
        for about in reversed(leaning):
            if about.kind == "composed" and about.place < polar.place and not any(
                    word in _CONNECTORS or word in "?!;:" for word in words[about.place + 1 : polar.place]):
                return polar._replace(value=math.copysign(polar.value, about.value))
    return polar


def _turned(words: Sequence[str], index: int, value: float) -> float:
    """A negator up to three words before takes most of it back and more."""
    negators = lexicon().negators
    return -0.6 * value if any(word in negators for word in words[max(0, index - 3) : index]) else value


def _bad_noun(known: Sequence[_Known], taken: Sequence[bool], words: Sequence[str], index: int, *, undo: bool) -> int | None:
    """The nearest thing within three words that is bad when it rises, or while it lasts: what this move, or end, is about. What something
    moves "on" or "over" is why, not what."""
    for other in (index - 1, index + 1, index + 2, index - 2, index + 3, index - 3):
        about = 0 <= other < len(known) and (known[other].bad or (undo and known[other].ends_well))
        if about and not taken[other] and other != index:
            between = words[min(index, other) + 1 : max(index, other)]
            if not any(word in _CONNECTORS or word in _WHY or word in "?!;:" for word in between):
                return other
    return None


def _subject(found: Tokens) -> str | None:
    """What the headline is about, as far as currencies matter: a pair, a currency, or something priced in dollars."""
    if found.pair is not None:
        return "pair"
    book = lexicon()
    for word in found.words:
        if word in _AGAINST_DOLLAR:
            return "XUSD"
        if word in book.currency_of and word not in BANKS:
            return book.currency_of[word]
    return None


def _currency(found: Tokens, taken: list[bool], index: int, code: str, subject: str) -> float:
    """Strength or weakness of a currency near its name, seen from the headline's subject. Marks the word that said so as used."""
    strength = lexicon().strength
    words = found.words
    for other in (index - 1, index + 1, index + 2, index - 2, index + 3, index + 4):
        if not 0 <= other < len(words) or taken[other] or other == index:
            continue
        if any(word in _CONNECTORS for word in words[min(index, other) + 1 : max(index, other)]):
            continue
        lean = next((strength[form] for form in _forms(words[other]) if form in strength), 0) or (
            _look_up(words[other]).move if words[index] not in BANKS and other > index else 0)
        if not lean:
            continue
        if subject == "pair" and found.pair is not None:
            side = 1 if code == found.pair[0] else -1 if code == found.pair[1] else 0
        else:
            side = 1 if code == subject else -1
        if side:
            taken[other] = True
            return _turned(words, other, float(side * lean))
    return 0.0


# -- numbers -------------------------------------------------------------------------------------------------------------


def dense(found: Tokens) -> list[float]:
    """The lexicon's numbers, in the order of DENSE; each about -1..1."""
    book, words = lexicon(), found.words
    leaning = polars(found)
    split = next((i for i, word in enumerate(words) if word in _CONNECTORS and i > 1), len(words))
    parts = [0.0, 0.0, 0.0, 0.0]
    phrases = currency = composed = 0.0
    strong = [0.0, 0.0]
    for index, value, kind in leaning:
        parts[(0 if index < split else 2) + (0 if value > 0.0 else 1)] += abs(value)
        if kind == "phrase":
            phrases += value
        elif kind == "currency":
            currency += value
        elif kind == "composed":
            composed += value
        if abs(value) >= 2.0:
            strong[0 if value > 0.0 else 1] = 1.0
    values = [value for _, value, _ in leaning]
    net = sum(values)
    percent = float("pctup" in words) - float("pctdown" in words)
    neutral = sum(1 for word in words if word in book.neutral)
    return [
        min(parts[0], 3.0) / 2.0, min(parts[1], 3.0) / 2.0, min(parts[2], 3.0) / 2.0, min(parts[3], 3.0) / 2.0,
        _sign(values[0]) if values else 0.0, _sign(values[-1]) if values else 0.0, _sign(phrases), *strong,
        max(-1.0, min(1.0, currency)), percent, min(sum(1 for word in words if word in book.hedges), 2) / 2.0,
        min(neutral, 3) / 3.0, float("?" in words), float(not values), float(min(values, default=0.0) < 0.0 < max(values, default=0.0)),
        _sign(composed), float(neutral > 0 and not values), _sign(net), float(first_move(words)),
    ]


def first_move(words: Sequence[str]) -> int:
    """+1 up, -1 down: the first word that says so in what the headline is about; 0 = none does."""
    for word in words[:_MOVE_REACH]:
        if word in _CONNECTORS:
            return 0
        if move := _look_up(word).move:
            return move
    return 0


def _sign(value: float) -> float:
    return 1.0 if value > 0.0 else -1.0 if value < 0.0 else 0.0


def grams(found: Tokens) -> Iterator[str]:
    """Words, word pairs (words marked with `!` after a negator), and character sequences of each word with its borders."""
    negators = lexicon().negators
    before, negated = "^", 0
    for word in found.words:
        negated = 3 if word in negators else max(0, negated - 1)
        marked = "!" + word if negated and word not in negators else word
        yield marked
        yield before + " " + word
        before = word
        yield from _pieces(word)


@lru_cache(maxsize=50_000)
def _pieces(word: str) -> tuple[str, ...]:
    """Beginnings and ending of a word: a rough stem, and what an unknown word has in common with known ones."""
    if len(word) < 5:
        return ()
    return ("<" + word[:4],) if len(word) < 6 else ("<" + word[:4], "<" + word[:5], word[-4:] + ">")
