"""Who a headline is about: coins, currencies with a sign per leg, the crypto market as a whole; or nobody, where it cannot be told.

A name that is also a word ("near", "link", "cosmos") counts only with a crypto context. Central banks and countries stand for their
currency, with the sign of what their news does to it: hot inflation and hawkish words lift it. A headline that says opposite things
about two assets abstains.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modules.news import features
from modules.news.sentiment import Reading

MARKET: Final = "CRYPTO"
"""The crypto market as a whole."""
CURRENCIES: Final = frozenset(("USD", "EUR", "GBP", "JPY", "CHF", "AUD", "NZD", "CAD", "CNH", "MXN", "INR", "XAU", "XAG"))

_COINS: Final[Mapping[str, str]] = {name: code for code, names in {
    "BTC": "bitcoin btc xbt", "ETH": "ethereum ether eth", "XRP": "xrp ripple", "SOL": "solana", "ADA": "cardano", "DOGE": "dogecoin doge",
    "LTC": "litecoin ltc", "BCH": "bch", "BNB": "bnb", "DOT": "polkadot", "LINK": "chainlink", "TRX": "tron trx", "MATIC": "matic",
    "XLM": "xlm", "XMR": "monero xmr", "UNI": "uniswap", "AAVE": "aave", "SHIB": "shib", "TON": "toncoin", "ARB": "arbitrum",
    "FIL": "filecoin", "HBAR": "hedera hbar", "ALGO": "algorand", "APT": "aptos", "PEPE": "pepecoin", "ETC": "etc",
    "USDT": "tether usdt", "USDC": "usdc", "DAI": "dai", "VET": "vechain", "XTZ": "tezos", "ZEC": "zcash", "EOS": "eos", "MKR": "mkr",
    "LUNA": "luna", "FTT": "ftt", "CRO": "cro", "INJ": "injective", "SUI": "sui", "KAS": "kaspa", "TIA": "celestia",
}.items() for name in names.split()}
_IN_CONTEXT: Final[Mapping[str, str]] = {
    "avalanche": "AVAX", "avax": "AVAX", "near": "NEAR", "link": "LINK", "dot": "DOT", "cosmos": "ATOM", "atom": "ATOM", "polygon": "MATIC",
    "stellar": "XLM", "optimism": "OP", "sol": "SOL", "ada": "ADA", "uni": "UNI", "apt": "APT", "ton": "TON", "arb": "ARB", "fil": "FIL",
    "pepe": "PEPE", "maker": "MKR", "terra": "LUNA", "sei": "SEI", "etc": "ETC", "sui": "SUI", "dai": "DAI", "luna": "LUNA", "cro": "CRO",
    "eos": "EOS", "shib": "SHIB", "doge": "DOGE", "injective": "INJ", "ripple": "XRP",
}
"""Words that name a coin only where the headline speaks of crypto otherwise, or writes them as a ticker."""
_TWO_WORDS: Final[Mapping[tuple[str, str], str]] = {
    ("bitcoin", "cash"): "BCH", ("ethereum", "classic"): "ETC", ("shiba", "inu"): "SHIB", ("binance", "coin"): "BNB",
}
_ALONE_TOO_COMMON: Final = frozenset(("sui", "dai", "luna", "cro", "eos", "etc", "shib", "doge", "ripple"))
_CRYPTO_WORDS: Final = features.word_set("""crypto cryptocurrency cryptocurrencies token tokens blockchain altcoin altcoins defi nft nfts
    stablecoin stablecoins coin coins staking airdrop mainnet layer wallet wallets onchain binance coinbase kraken memecoin memecoins web3
    exchange validators dao protocol holders bulls bears whale whales tvl""")
_MARKET_WORDS: Final = features.word_set("crypto cryptocurrency cryptocurrencies altcoins altcoin")
_METALS: Final = {"gold": "XAU", "xau": "XAU", "bullion": "XAU", "silver": "XAG", "xag": "XAG"}
_COUNTRIES: Final[Mapping[str, str]] = {name: code for code, names in {
    "USD": "us american america united-states", "GBP": "uk britain british", "EUR": "eurozone german germany france french euro-area",
    "JPY": "japan japanese", "AUD": "australia australian", "NZD": "zealand", "CAD": "canada canadian", "CHF": "swiss switzerland",
}.items() for name in names.split()}
_DATA_WORDS: Final = features.word_set("""gdp pmi retail employment unemployment jobs payrolls nfp economy economic output factory
    industrial wage wages confidence trade exports jobless ism""")
_PRICE_WORDS: Final = features.word_set("inflation cpi ppi pce prices")
_TICKER: Final = re.compile(r"\$([A-Z]{2,6})\b|\b([A-Z]{2,6})\b(?=[-/]?USDT?\b|\s+(?:token|price|coin)\b)")
_POLICY_SIGN: Final = {"hawkish": 1, "dovish": -1, "hike": 1, "hikes": 1, "hiked": 1, "hiking": 1, "cut": -1, "cuts": -1, "tightening": 1,
                       "easing": -1, "hawks": 1, "doves": -1}
_HOT: Final = {"hot": 1, "hotter": 1, "sticky": 1, "cool": -1, "cools": -1, "cooler": -1, "soft": -1, "softer": -1, "undershoots": -1,
               "beats": 1, "misses": -1, "tops": 1, "above": 1, "below": -1}
SILENT: Final = 0.15
"""Readings closer to zero than this say nothing about whom they concern."""


@dataclass(frozen=True, slots=True)
class Tags:
    """Signed weight per asset; `abstains` says why there is none, "" = it does not."""

    assets: Mapping[str, float]
    abstains: str = ""


NOBODY: Final = Tags({})


def tag(title: str, reading: Reading, codes: tuple[str, ...] = ()) -> Tags:
    """Score per asset in [-1, 1] for one headline; `codes` are coins its source tagged."""
    found = features.tokens(title)
    coins = _coins(title, found.words, codes)
    currencies = _currencies(found, reading)
    if coins:
        if len(coins) > 1 and _contradicts(found, coins):
            return Tags({}, "says opposite things about " + ", ".join(sorted(coins)))
        return Tags(dict.fromkeys(sorted(coins), reading.score))
    if any(word in _MARKET_WORDS for word in found.words) and not found.pair:
        return Tags({MARKET: reading.score})
    if currencies is None:
        return Tags({}, "names several currencies without a pair")
    return Tags(currencies) if currencies else NOBODY


def _coins(title: str, words: list[str], codes: tuple[str, ...]) -> set[str]:
    """Coins named, in the order of certainty: the source's own tags, tickers, names, words that need a context."""
    coins = {code for code in codes if code not in CURRENCIES}
    known = set(_COINS.values()) | set(_IN_CONTEXT.values())
    coins |= {code for match in _TICKER.finditer(title) if (code := match.group(1) or match.group(2)) in known}
    context = bool(coins) or any(word in _CRYPTO_WORDS for word in words)
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
            continue
        pair = _TWO_WORDS.get((word, words[index + 1])) if index + 1 < len(words) else None
        if pair is not None:
            coins.add(pair)
            context = skip = True
        elif word in _COINS and word not in _ALONE_TOO_COMMON:
            coins.add(_COINS[word])
            context = True
    if context:
        for word in words:
            code = _IN_CONTEXT.get(word)
            if code is not None and (word not in _LOWER_CASE_WORDS or _written_as_name(title, word)):
                coins.add(code)
    return coins


_LOWER_CASE_WORDS: Final = features.word_set("""near link dot cosmos atom stellar optimism maker sol ada uni apt ton arb fil
    avalanche terra etc""")


def _written_as_name(title: str, word: str) -> bool:
    """A coin's ticker in capitals, or its name capitalized in a headline that is not in Title Case throughout."""
    if re.search(rf"\b{word.upper()}\b", title):
        return True
    letters = [part for part in re.findall(r"[A-Za-z]+", title) if len(part) > 3]
    titled = sum(1 for part in letters if part[0].isupper())
    return word not in ("near", "link", "dot", "etc") and word.capitalize() in title and (titled <= 0.7 * len(letters)
                                                                                           or word in ("avalanche", "cosmos", "stellar"))


def _contradicts(found: features.Tokens, coins: set[str]) -> bool:
    """Whether the parts of the headline lean both ways."""
    signs = {value > 0.0 for _, value, kind in features.polars(found) if kind != "currency"}
    return len(signs) > 1 and len(coins) > 1


def _currencies(found: features.Tokens, reading: Reading) -> dict[str, float] | None:
    """Signed legs; None = several currencies and no pair to say which way round."""
    if found.pair is not None:
        base, quote = found.pair
        legs = {base: reading.score, quote: -reading.score}
        return {code: value for code, value in legs.items() if code in CURRENCIES}
    words = found.words
    for word in words:
        if word in _METALS:
            return {_METALS[word]: reading.score}
    book = features.lexicon()
    money: list[str] = []
    banks: list[str] = []
    for word in words:
        code = book.currency_of.get(word)
        if code is not None:
            (banks if word in features.BANKS else money).append(code)
    if money:
        # The first currency is the subject; another one in a later clause only explains.
        return {money[0]: reading.score} if len(set(money)) <= 2 else None
    countries = [_COUNTRIES[word] for word in words if word in _COUNTRIES]
    if banks:
        lean = sum(_POLICY_SIGN.get(word, 0) for word in words)
        negated = any(word in book.negators or word in ("pause", "pauses", "dismisses") for word in words)
        return {banks[0]: _sign(lean) * max(abs(reading.score), SILENT * 2)} if lean and not negated and len(set(banks)) == 1 else {}
    if countries and len(set(countries)) == 1:
        if any(word in _PRICE_WORDS for word in words):
            lean = sum(_HOT.get(word, 0) for word in words) or features.first_move(words)
            return {countries[0]: _sign(lean) * max(abs(reading.score), SILENT * 2)} if lean else {}
        if any(word in _DATA_WORDS for word in words):
            return {countries[0]: reading.score}
    return {}


def _sign(value: float) -> float:
    return 1.0 if value > 0 else -1.0 if value < 0 else 0.0
