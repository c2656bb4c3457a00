"""Where and how to run, typed. What the owner decides is in policies.py; config.py reads both. Secrets are files or SecretStr."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, model_validator

from modules.domain.instrument import AssetClass
from modules.domain.policies import Money

DRY_RUN_WALLET: Final = Decimal(1000)
DEMO_WALLETS: Final = {
    AssetClass.SPOT: Decimal(950), AssetClass.PERP: Decimal(4900), AssetClass.OPTION: Decimal(15000), AssetClass.FOREX: Decimal(25000),
}
"""What the demo starts with: one class in each phase."""


def _not_true(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("is not a number")
    return value


def _split(value: object) -> object:
    """Lists may be written "a, b" in the environment."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _classes(value: object) -> object:
    names = _split(value)
    return [name.upper() if isinstance(name, str) else name for name in names] if isinstance(names, list) else names


def _expanded(path: Path) -> Path:
    return path.expanduser()


Whole = Annotated[int, BeforeValidator(_not_true)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
File = Annotated[Path, AfterValidator(_expanded)]
Symbols = Annotated[tuple[str, ...], BeforeValidator(_split)]


def _meaningful(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """What could never match anything would bar nothing, and nobody would notice."""
    for pattern in patterns:
        if not re.fullmatch(r"[^\s,]{1,100}", pattern) or not set(pattern) & set("/*?[.("):
            raise ValueError(f"{pattern!r} is no symbol (DOGE/USDT) and no pattern (DOGE/*)")
        try:
            re.compile(pattern)
        except re.error as error:
            if set(pattern) & set("()|\\^$+{}"):    # else a shell pattern, like */USDT
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    return patterns


Patterns = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_meaningful)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SelectSettings(Section):
    """Which of a venue's instruments are traded, by rule, per class: chosen anew every day, and put on record.

    What is held, rests or leads its class stays watched until it is flat, and opens nothing meanwhile. A restart goes on with the day's
    choice. A measure the venue does not tell is unknown, and unknown never passes. Forex has no volume: there the narrowest spreads are
    taken.
    """

    number_assets: Annotated[Whole, Field(ge=1, le=500)] = 20
    """How many of each class, those with the highest 24 h quote volume first."""
    min_value: Annotated[Money, Field(ge=0)] = Decimal(10_000_000)
    """Quote volume of the last 24 h in USD, at least; not asked of forex."""
    max_spread_ratio: Annotated[float, BeforeValidator(_not_true), Field(gt=0, le=1)] = 0.002
    """(ask - bid) / ask, at most."""
    min_days_listed: Annotated[Whole, Field(ge=0, le=3650)] = 30
    """Days since its first daily candle; 0 = not asked. Not asked of forex."""
    refresh_period: Annotated[Whole, Field(ge=3_600, le=30 * 86_400)] = 86_400
    """Seconds that a choice stands."""
    quote_currencies: Symbols = ("USDT", "USDC", "USD")
    """Of spot and perpetuals; forex pairs may have any."""
    pair_whitelist: Patterns = ()
    """Symbols, shell patterns (BTC/*) or regular expressions (BTC/.*); empty = all."""
    pair_blacklist: Patterns = ("USDC/*", "USDT/*", "FDUSD/*", "TUSD/*", "USDE/*", "USD1/*", "USDP/*", "BUSD/*", "PYUSD/*", "DAI/*",
                               "*[235][LS]/*")
    """As above, and it wins. The default leaves out dollars against dollars and leveraged tokens; a list of your own replaces it."""


class OptionsSettings(Section):
    """What is looked at of a venue's options: it lists hundreds that nobody here would trade. What is held is always looked at."""

    days_max: Annotated[float, BeforeValidator(_not_true), Field(gt=0, le=400)] = 45.0
    """Expiries up to so many days away."""
    reach: Annotated[float, BeforeValidator(_not_true), Field(gt=0, le=1)] = 0.25
    """Strikes up to this share of the index away from it."""
    every_s: Annotated[float, BeforeValidator(_not_true), Field(ge=1, le=60)] = 10.0
    """How often a chain is asked for; one that was not heard for three times as long trades nothing."""
    short_margin: Annotated[float, BeforeValidator(_not_true), Field(ge=0, le=1)] = 0.15
    """What the account ties up of an option that is sold, as a share of its strike, beside the premium: the class must have so much free
    before a spread is opened, whatever the spread can lose. Bybit takes up to 15 % without portfolio margin."""


class VenueSettings(Section):
    """One exchange or broker account."""

    classes: Annotated[tuple[AssetClass, ...], BeforeValidator(_classes), Field(min_length=1)]
    key_file: File | None = None
    allocate: dict[AssetClass, Annotated[Money, Field(gt=0)]] = {}
    account_id: str = ""
    practice: bool = False
    testnet: bool = False
    """The venue's own playground (testnet; OANDA: practice) with keys of its own. `endpoint` goes before it."""
    endpoint: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""
    """Another address than the venue's own, scheme, host and port; "" = its own. Plain http on loopback only."""
    symbols: Symbols = ()
    """What is traded and streamed there, ccxt unified (BTC/USDT, BTC/USDT:USDT, EUR/USD); none given = the venue's shipped short list."""
    timeframe: Annotated[str, Field(pattern=r"^[1-9][0-9]?[mhd]$")] = "5m"
    """Length of the bars that decisions are made on: 1m, 5m, 1h ..."""
    settlement: Annotated[str, Field(pattern=r"^[A-Z]{0,8}$")] = ""
    """Currency of its sub-ledgers; "" = the venue's usual one."""
    select: SelectSettings | None = None
    """Choose its instruments by rule; without this section, by `symbols`."""
    options: OptionsSettings = OptionsSettings()
    """Where OPTION is one of its classes: how much of each chain is looked at. Options come with their underlyings' perpetuals."""

    @model_validator(mode="after")
    def _allocated(self) -> VenueSettings:
        if stray := [asset_class.value for asset_class in self.allocate if asset_class not in self.classes]:
            raise ValueError(f"allocate names {', '.join(stray)}, which is not in classes")
        return self


Level = Literal["on", "silent", "off"]
NOTICES: Final[dict[str, Level]] = {
    "kill": "on", "entry_fill": "on", "exit_fill": "on", "exit": "on", "entry": "silent", "warning": "on", "startup": "on",
    "status": "silent", "blackout": "silent", "command": "silent", "summary": "on", "heartbeat": "silent",
}
"""Kinds of messages and how each is sent unless `telegram.notification_settings` says otherwise."""


class TelegramSettings(Section):
    token_file: File | None = None
    token: SecretStr | None = None
    """For the environment only; else `token_file`."""
    chat_id: Whole = 0
    """Where it talks; `doctor --telegram` shows it. 0 = not known yet: then it does not start."""
    user_ids: Annotated[tuple[Whole, ...], BeforeValidator(_split)] = ()
    """Who may command; nobody by default."""
    notification_settings: dict[str, Level] = {}
    """Kind -> on, silent (no sound) or off; NOTICES has the defaults. What concerns a kill cannot be turned off."""
    command_age_s: Annotated[Whole, Field(ge=5, le=3_600)] = 60
    """A command older than this is ignored, unless it stops something."""
    code_valid_s: Annotated[Whole, Field(ge=10, le=600)] = 60
    heartbeat_h: Annotated[float, BeforeValidator(_not_true), Field(ge=0, le=168)] = 24.0
    """Hours between two signs of life; 0 = none."""
    summary_hour: Annotated[Whole, Field(ge=0, le=23)] = 0
    """UTC hour of the daily summary; on Mondays the weekly one comes with it."""
    outbox_max: Annotated[Whole, Field(ge=10, le=10_000)] = 200
    """Messages kept while Telegram does not take them; beyond it the least important are dropped and counted, never one about a kill."""
    base_url: str = ""
    """Another Bot API server than Telegram's own; "" = https://api.telegram.org."""

    @model_validator(mode="after")
    def _complete(self) -> TelegramSettings:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("needs exactly one of token_file and token (BOT__TELEGRAM__TOKEN)")
        if unknown := sorted(set(self.notification_settings) - set(NOTICES)):
            raise ValueError(f"notification_settings has no {', '.join(unknown)}; there are {', '.join(NOTICES)}")
        if self.notification_settings.get("kill") == "off":
            raise ValueError("notification_settings.kill cannot be off: a halt is always told")
        return self

    def level(self, kind: str) -> Level:
        """How messages of this kind are sent."""
        return self.notification_settings.get(kind, NOTICES[kind])


class MqttSettings(Section):
    host: Annotated[str, Field(min_length=1)]
    port: Port = 1883
    namespace: Word = "trading_bot"
    instance_id: Word | None = None
    """None = the daemon's."""
    username: str = ""
    password_file: File | None = None
    password: SecretStr | None = None
    tls: bool = False
    ca_file: File | None = None
    """Who may sign the broker's certificate; None = the system's authorities."""
    heartbeat_s: Annotated[float, BeforeValidator(_not_true), Field(gt=0, le=3_600)] = 10.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """From which level on log lines are published."""

    @model_validator(mode="after")
    def _one_password(self) -> MqttSettings:
        if self.password is not None and self.password_file is not None:
            raise ValueError("give password_file or password, not both")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file needs tls = true")
        return self


class HttpSettings(Section):
    enabled: bool = False
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Port = 8080


class NewsSettings(Section):
    """Headlines and calendar feeds; the shipped macro calendar is always in force."""

    enabled: bool = False
    off: Symbols = ()
    """Sources not to be asked, by name."""
    endpoints: dict[Word, str] = {}
    """Other addresses than the sources' own."""
    cryptopanic_token_file: File | None = None
    cryptopanic_token: SecretStr | None = None
    """For the environment only; without a token CryptoPanic is not asked."""

    @model_validator(mode="after")
    def _one_token(self) -> NewsSettings:
        if self.cryptopanic_token is not None and self.cryptopanic_token_file is not None:
            raise ValueError("give cryptopanic_token_file or cryptopanic_token, not both")
        return self


class DemoSettings(Section):
    seed: Annotated[Whole, Field(ge=0)] = 7
    speed: Annotated[float, BeforeValidator(_not_true), Field(gt=0)] = 600.0
    """Market seconds per second."""
    days: Annotated[Whole, Field(ge=1, le=3650)] = 30


class Settings(Section):
    """Where and how to run. Holds no limit that an owner's policy sets, except to tighten it."""

    mode: Literal["demo", "paper", "live"] = "demo"
    instance_id: Word = "bot"
    state_dir: File = Path("state")
    log_dir: File = Path("logs")
    policy_dir: File = Path("policies")
    venues: dict[Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")], VenueSettings] = {}
    telegram: TelegramSettings | None = None
    mqtt: MqttSettings | None = None
    http: HttpSettings = HttpSettings()
    demo: DemoSettings = DemoSettings()
    news: NewsSettings = NewsSettings()
    dry_run_wallet: dict[AssetClass, Annotated[Money, Field(gt=0)]] = {}
    """Paper and demo money; classes not named get 1,000 (in the demo: DEMO_WALLETS)."""
    strategies: dict[AssetClass, Symbols] = {}
    """Names per class; a class not named runs all shipped strategies that fit it."""
    pair_whitelist: Patterns = ()
    """Symbols, shell patterns (BTC/*) or regular expressions (BTC/.*); empty = all."""
    pair_blacklist: Patterns = ()
    max_open_trades: Annotated[Whole, Field(ge=0)] | None = None
    """Tightens the policy's; it can never loosen it."""

    @model_validator(mode="after")
    def _complete(self, info: ValidationInfo) -> Settings:
        """Validation's context may be a list: then what clashes is told there and let be, so that the rest can be looked at too."""
        owners: dict[AssetClass, str] = {}
        faults: list[str] = []
        for name, venue in self.venues.items():
            for asset_class in venue.classes:
                if asset_class in owners:
                    faults.append(f"venues.{owners[asset_class]} and venues.{name} both name {asset_class.value}; a class has one venue")
                owners[asset_class] = name
        if self.mode == "live" and not self.venues:
            faults.append("mode live needs at least one [venues.NAME] section with classes")
        if self.mode == "paper" and not self.venues:
            object.__setattr__(self, "venues", {"bybit": VenueSettings(classes=(AssetClass.SPOT, AssetClass.PERP))})
        if self.mode == "live" and (without := [name for name, venue in self.venues.items() if venue.key_file is None]):
            faults.append(f"mode live needs key_file in venues.{', venues.'.join(without)}")
        if faults:
            if not isinstance(info.context, list):
                raise ValueError("; and ".join(faults))
            info.context.append("; and ".join(faults))
        wallets = DEMO_WALLETS if self.mode == "demo" else dict.fromkeys(AssetClass, DRY_RUN_WALLET)
        object.__setattr__(self, "dry_run_wallet", wallets | self.dry_run_wallet)    # frozen, but not finished before this
        return self

    def tradable(self, symbol: str) -> bool:
        """Whether white- and blacklist let `symbol` (ccxt unified) be traded; the blacklist wins."""
        if matches(symbol, self.pair_blacklist):
            return False
        return not self.pair_whitelist or matches(symbol, self.pair_whitelist)

    def public(self) -> dict[str, Any]:
        """What show-config prints: JSON types only, secrets as ***."""
        shown: dict[str, Any] = plain(self.model_dump())
        return shown


def matches(symbol: str, patterns: Collection[str]) -> bool:
    """Whether one of `patterns` means `symbol`: its name, a shell pattern (BTC/*), or a regular expression as in freqtrade (BTC/.*)."""
    return any(fnmatchcase(symbol, pattern) or _is(symbol, pattern) for pattern in patterns)


def _is(symbol: str, pattern: str) -> bool:
    try:
        return re.fullmatch(pattern, symbol) is not None
    except re.error:
        return False  # a shell pattern that is no expression


def plain(value: object) -> Any:
    """JSON types only, secrets as ***; equal values give equal text: 0.10 is 0.1."""
    match value:
        case SecretStr():
            return "***"
        case Decimal():
            return format(value.normalize(), "f") if -40 < value.adjusted() < 40 else str(value)
        case Enum():
            return value.value
        case Mapping():
            return {str(plain(key)): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case Path():
            return str(value)
        case str() if "://" in value:
            return re.sub(r"//[^/@]*@", "//***@", value)
    return value
