"""From a venue's name and settings to its adapter, and the table of what each venue is known to be able to do.

Opens no connection. Refuses what would fail later in the middle of trading: a class the venue has not, live trading where a capability
is missing (naming it), a key file that is not there. Market data needs no key, but OANDA's, which tells nobody anything without a token.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from modules.domain.errors import ConfigurationError
from modules.domain.instrument import AssetClass
from modules.domain.policies import ExecutionPolicy, Policies
from modules.domain.settings import VenueSettings
from modules.runtime import keyfile
from modules.runtime.clock import Clock
from modules.venues import ccxt_binance, ccxt_client, oanda_wire
from modules.venues.ccxt_bybit import BybitDialect
from modules.venues.ccxt_client import Credentials, Endpoint
from modules.venues.ccxt_data import DataDialect
from modules.venues.ccxt_dialect import Chains, Dialect
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.oanda_feed import GRANULARITY
from modules.venues.oanda_venue import OandaVenue
from modules.venues.protocol import Venue

Split = Callable[[Decimal], Mapping[AssetClass, Decimal]]
_UNITS: Final = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_CRYPTO: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.SPOT: ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "DOGE/USDT", "ADA/USDT", "LINK/USDT", "LTC/USDT"),
    AssetClass.PERP: ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT", "XRP/USDT:USDT", "DOGE/USDT:USDT", "ADA/USDT:USDT",
                      "LINK/USDT:USDT", "LTC/USDT:USDT"),
}
_OPTIONS: Final[Mapping[AssetClass, tuple[str, ...]]] = {AssetClass.OPTION: ("BTC/USDT:USDT", "ETH/USDT:USDT")}
"""Options have no list of their own: these are the perpetuals they come with."""


@dataclass(frozen=True, slots=True)
class VenueRow:
    """What is known of a venue. `missing` says in words what live trading there lacks; "" = certified: emulator, fault matrix, dialect."""

    classes: tuple[AssetClass, ...]
    missing: str
    testnet: Endpoint | None = None
    """Its own playground; None = it has none, or none that is known here."""
    symbols: Mapping[AssetClass, Sequence[str]] = field(default_factory=lambda: _CRYPTO)
    """The short list that is traded where none is given."""
    settlement: str = "USDT"
    needs_token: bool = False
    """Even for market data."""
    shared_wallet: bool = False
    """One wallet for all classes: each needs an allocation."""
    paper_only: Mapping[AssetClass, str] = field(default_factory=dict)
    """Classes that trade on paper at its prices, and what live trading of them lacks."""

    @property
    def live(self) -> bool:
        return not self.missing


CHAIN_AGES: Final = 3.0
"""So many times the pause between two questions for an option chain it is believed."""
EMULATOR: Final = "emulator"
PLAYGROUND: Final = "testnet"
PRODUCTION: Final = "production"
UNPROVEN: Final = ("nobody has shown that it can set and find orders by client order id, list trades by order and rest a stop order that "
                   "really is one")
KNOWN: Final[Mapping[str, VenueRow]] = {
    "bybit": VenueRow((AssetClass.SPOT, AssetClass.PERP, AssetClass.OPTION), "",
                      Endpoint("https://api-testnet.bybit.com", "wss://stream-testnet.bybit.com"), {**_CRYPTO, **_OPTIONS},
                      shared_wallet=True),
    "binance": VenueRow((AssetClass.SPOT, AssetClass.PERP), "", ccxt_binance.DEMO),
    "oanda": VenueRow(
        (AssetClass.FOREX,), "", Endpoint(oanda_wire.PRACTICE.rest, oanda_wire.PRACTICE.stream),
        {AssetClass.FOREX: ("EUR/USD", "GBP/USD", "USD/JPY", "AUD/USD", "USD/CAD", "USD/CHF", "NZD/USD", "EUR/GBP", "EUR/JPY")},
        "USD", needs_token=True),
    "deribit": VenueRow((AssetClass.PERP,), "ccxt can neither set nor find a client order id there, nor place a stop by triggerPrice"),
    "kraken": VenueRow((AssetClass.SPOT,), "ccxt cannot find an order there by client order id, and a triggerPrice becomes a market order"),
    "krakenfutures": VenueRow((AssetClass.PERP,), "ccxt can neither find nor cancel an order there by client order id"),
}
"""Other names are asked of ccxt: market data and paper only."""


def known(name: str) -> VenueRow:
    """The row of a venue; one that is not in the table may be used for market data, if ccxt knows it."""
    return KNOWN.get(name, VenueRow((AssetClass.SPOT, AssetClass.PERP), UNPROVEN))


def _timeframe(interval_ms: int) -> str:
    """300,000 -> "5m"."""
    unit = next(unit for unit in "dhm" if interval_ms % _UNITS[unit] == 0)
    return f"{interval_ms // _UNITS[unit]}{unit}"


def exchanges() -> frozenset[str]:
    """Every exchange ccxt has, by its files: importing it would take a second."""
    found = importlib.util.find_spec("ccxt")
    folders = () if found is None else found.submodule_search_locations or ()
    return frozenset(path.stem for folder in folders for path in (Path(folder) / "async_support").glob("[a-z]*.py"))


def interval_ms(timeframe: str) -> int:
    """"5m" -> 300,000."""
    return int(timeframe[:-1]) * _UNITS[timeframe[-1]]


def symbols_of(name: str, settings: VenueSettings) -> tuple[str, ...]:
    """What is streamed there: the fixed list of the settings, else the shipped short one of each class."""
    if settings.symbols:
        return settings.symbols
    listed = known(name).symbols
    return tuple(dict.fromkeys(symbol for asset_class in settings.classes for symbol in listed.get(asset_class, ())))


def _instead(name: str) -> str:
    near = () if name in KNOWN else difflib.get_close_matches(name, KNOWN, 1, 0.7)
    return f"Did you mean {near[0]}?" if near else "Paper on its data works (mode = \"paper\")"


def faults(name: str, settings: VenueSettings, *, trading: bool) -> list[str]:
    """Everything that speaks against `connect`, one line each; [] = nothing."""
    row, key = known(name), f"venues.{name}"
    found = [f"{key}.classes: {name} has no {asset_class.value} here; it has {', '.join(c.value for c in row.classes)}"
             for asset_class in settings.classes if asset_class not in row.classes]
    found += [f"{key}.classes: live trading of {asset_class.value} is refused: {why}. Paper on its data works (mode = \"paper\")"
              for asset_class, why in row.paper_only.items() if trading and asset_class in settings.classes]
    if AssetClass.OPTION in settings.classes and AssetClass.PERP not in settings.classes and AssetClass.OPTION in row.classes:
        found.append(f"{key}.classes: OPTION needs PERP beside it: options are traded by what the perpetuals of their underlyings do")
    if trading and not row.live:
        found.append(f"{key}: live trading is refused: {row.missing}. {_instead(name)}")
    if settings.key_file is None and (trading or row.needs_token):
        found.append(f"{key}.key_file: {'live trading' if trading else f'{name} tells prices to nobody without a token:'} needs the file "
                     "that holds its key")
    bare = [asset_class.value for asset_class in settings.classes if asset_class not in settings.allocate]
    if trading and row.shared_wallet and len(settings.classes) > 1 and bare:
        found.append(f"{key}.allocate: {', '.join(bare)}: classes that share one wallet need an amount each")
    if row.needs_token and not settings.account_id:
        found.append(f"{key}.account_id: the account's number is needed")
    if settings.testnet and row.testnet is None:
        found.append(f"{key}.testnet: {name} has none that is known here")
    if settings.practice and name != "oanda":
        found.append(f"{key}.practice: is OANDA's word and does nothing at {name}"
                     + ("" if row.testnet is None else "; say testnet = true"))
    if settings.endpoint and (settings.testnet or settings.practice) and not on_this_machine(settings.endpoint):
        found.append(f"{key}.endpoint: {settings.endpoint} would go before {'testnet' if settings.testnet else 'practice'} = true, and "
                     "may be real money; leave one of them out")
    if name == "oanda" and interval_ms(settings.timeframe) not in GRANULARITY:
        found.append(f"{key}.timeframe: oanda has no bars of {settings.timeframe}; it has "
                     f"{', '.join(_timeframe(ms) for ms in GRANULARITY if ms >= _UNITS['m'])}")
    return found


def on_this_machine(endpoint: str) -> bool:
    """An emulator's address, or a tunnel's."""
    return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")


def place_of(settings: VenueSettings) -> str:
    """Where these settings, if `faults` has none, lead: EMULATOR (at an address on this machine), PLAYGROUND or PRODUCTION."""
    if settings.endpoint:
        return EMULATOR if on_this_machine(settings.endpoint) else PRODUCTION
    return PLAYGROUND if settings.testnet or settings.practice else PRODUCTION


def prepare(names: Iterable[str]) -> None:
    """Load what the adapters of these venues stand on. `connect` would; but it takes long, so who has a loop to run asks a thread first."""
    if exchanges := [name for name in names if name != "oanda"]:
        ccxt_client.prepare(exchanges)


def connect(
    name: str, settings: VenueSettings, *, clock: Clock, policies: Policies, trading: bool, symbols: Sequence[str],
    seen_until: int | None = None, split: Split | None = None,
) -> Venue:
    """The adapter of one venue. `trading` False: market data only, no key is read but a token that data needs.

    `seen_until` (UTC ms): until when the journal knows this account, None = a new journal. `split(total)` divides one wallet's cash over
    the classes. Raises ConfigurationError with every fault at once.
    """
    if found := faults(name, settings, trading=trading):
        raise ConfigurationError(found)
    if name == "oanda":
        return _oanda(settings, clock, symbols, seen_until, policies.execution)
    endpoint = _endpoint(settings, known(name))
    credentials = None
    if trading and settings.key_file is not None:
        key, secret = keyfile.read_pair(settings.key_file, f"venues.{name}.key_file")
        credentials = Credentials(SecretStr(key), SecretStr(secret))
    fees = {asset_class: (policies.costs.of(asset_class).maker_fee, policies.costs.of(asset_class).taker_fee)
            for asset_class in settings.classes}
    return CcxtVenue(clock, classes=settings.classes, symbols=symbols, timeframe=settings.timeframe, fees=fees, credentials=credentials,
                     endpoint=endpoint, split=split, dialect=_dialect(name, settings, symbols, policies.execution),
                     audit_s=policies.execution.wallet_poll_s, silence_s_max=policies.execution.silence_s_max,
                     chains=chains_of(settings))


def chains_of(settings: VenueSettings) -> Chains:
    """How much is looked at of its options, how often, and for how long that is believed."""
    looked = settings.options
    return Chains(looked.days_max, looked.reach, looked.every_s, CHAIN_AGES * looked.every_s)


def _dialect(name: str, settings: VenueSettings, symbols: Sequence[str], policy: ExecutionPolicy) -> Dialect:
    if name == "bybit":
        coins = dict.fromkeys(symbol.partition("/")[0] for symbol in symbols if symbol.endswith(":USDT"))
        return BybitDialect(tuple(coins) if AssetClass.OPTION in settings.classes else (), Decimal(repr(settings.options.short_margin)))
    if name == "binance":
        return ccxt_binance.BinanceDialect(stop_slack=policy.stop_limit_slack)
    return DataDialect(name)


def _endpoint(settings: VenueSettings, row: VenueRow) -> Endpoint | None:
    if settings.endpoint:
        root = settings.endpoint.rstrip("/")
        return Endpoint(root, "ws" + root.removeprefix("http"))
    return row.testnet if settings.testnet else None


def _oanda(settings: VenueSettings, clock: Clock, symbols: Sequence[str], seen_until: int | None, policy: ExecutionPolicy) -> OandaVenue:
    assert settings.key_file is not None  # faults() saw to it
    token = SecretStr(keyfile.read(settings.key_file, "venues.oanda.key_file"))
    endpoint = oanda_wire.PRACTICE if settings.practice or settings.testnet else oanda_wire.PRODUCTION
    if settings.endpoint:
        endpoint = oanda_wire.Endpoint(settings.endpoint.rstrip("/"), settings.endpoint.rstrip("/"))
    length = interval_ms(settings.timeframe)
    return OandaVenue(endpoint, settings.account_id, token, clock, dict.fromkeys(symbols, length),
                      settle=settings.settlement or known("oanda").settlement, seen_until=seen_until,
                      pace=oanda_wire.Pace(audit_s=policy.wallet_poll_s, silence_s_max=policy.silence_s_max))
