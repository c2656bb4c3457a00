"""`doctor`'s questions to each configured venue: can it be reached, is the key good for trading and nothing else, do our clocks agree.

Only asks; places no order. What cannot be asked is a warning with its reason, never a traceback; only what is known to be wrong fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, suppress
from decimal import Decimal
from typing import Any, Final

from modules import Logger_Config
from modules.cli.choosing import Asking
from modules.cli.doctor import EXPIRY_WARN_DAYS, FAIL, OK, WARN, Finding
from modules.domain.errors import ConfigurationError, VenueBusy, VenueDenied, VenueError
from modules.domain.instrument import AssetClass
from modules.domain.money import ZERO
from modules.domain.policies import Policies
from modules.domain.settings import Settings, VenueSettings
from modules.runtime.clock import WallClock
from modules.venues import factory
from modules.venues.ccxt_venue import CcxtVenue
from modules.venues.protocol import Venue

PATIENCE_S: Final = 30.0
"""For one question; loading all markets of an exchange takes a few seconds."""
DAY_MS: Final = 86_400_000
HEARTBEAT_S: Final = 8.0
"""How long to listen to a stream for the venue's time where nothing else tells it."""
DENIED: Final = ("look whether it is this venue's own key, whole, for this account number, not expired, not bound to another address, and "
                 "for this place (a key of production works on no playground, nor the other way round); else make a new one that may "
                 "trade and nothing else (docs/going-live.md)")
NETWORK: Final = "look at this machine's network, then at the venue's status page"


def examine(settings: Settings, policies: Policies, only: AssetClass | None = None) -> Iterator[Finding]:
    """Every venue of the settings (`only`: the one that trades this class), one after the other."""
    Logger_Config.configure(None)
    for name, venue in settings.venues.items():
        if only is None or only in venue.classes:
            yield from asyncio.run(_all(name, venue, settings.mode, policies))


async def _all(name: str, settings: VenueSettings, mode: str, policies: Policies) -> list[Finding]:
    return [finding async for finding in _questions(name, settings, mode, policies)]


async def _questions(name: str, settings: VenueSettings, mode: str, policies: Policies) -> AsyncIterator[Finding]:
    what, row = f"venues.{name}", factory.known(name)
    trading = mode == "live" or (settings.key_file is not None and row.live and not row.paper_only.keys() & set(settings.classes))
    faults = factory.faults(name, settings, trading=trading)
    symbols, about = ((), Finding(what, OK, "")) if faults else await _symbols(name, settings, policies)
    try:
        venue = factory.connect(name, settings, clock=WallClock(), policies=policies, trading=trading, symbols=symbols,
                                split=lambda total: dict.fromkeys(settings.classes, total))
    except ConfigurationError as error:
        for fault in error.faults:
            yield Finding(what, FAIL, fault.removeprefix(f"{what}: "), "correct the settings; `list-venues` says what each venue can do")
        return
    try:
        yield Finding(what, OK, _place(settings) + ("" if trading else "; no key: market data only, paper fills"))
        yield about
        if about.state != OK and about.what.endswith(" reachable"):
            return    # it cannot be reached: everything else would only wait for its time-out
        for asset_class in _idle(settings, symbols):
            yield Finding(f"{what} {asset_class.value}", WARN,
                          f"no {asset_class.value} instrument is among them, so that class will trade nothing",
                          "name one in symbols, loosen select, or take the class out of classes")
        if trading:
            async for finding in _account(name, venue, settings, live=mode == "live"):
                yield finding
        yield await _clock(what, venue, policies)
    finally:
        await venue.close()


def _idle(settings: VenueSettings, symbols: Sequence[str]) -> list[AssetClass]:
    """Classes without an instrument; options come with their perpetuals, and OANDA has one class."""
    kinds = {AssetClass.PERP if ":" in symbol else AssetClass.SPOT for symbol in symbols}
    return [one for one in settings.classes if one in (AssetClass.SPOT, AssetClass.PERP) and symbols and one not in kinds]


def _place(settings: VenueSettings) -> str:
    if settings.endpoint:
        return f"at {settings.endpoint}"
    return "testnet or practice: play money" if factory.place_of(settings) == factory.PLAYGROUND else "production"


async def _symbols(name: str, settings: VenueSettings, policies: Policies) -> tuple[tuple[str, ...], Finding]:
    """What is traded there, as the daemon asks it: by list or by rule."""
    what = f"venues.{name}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            choice = await Asking(name, settings, policies, WallClock()).symbols()
    except ConfigurationError as error:
        rule = settings.select is not None
        return (), Finding(f"{what}.{'select' if rule else 'symbols'}", FAIL, "; ".join(error.faults), (
            "loosen the rule: list-instruments --venue " + f"{name} --all says what it leaves out") if rule else
            "correct symbols; they are written like BTC/USDT, BTC/USDT:USDT (perpetual), EUR/USD")
    except (VenueError, TimeoutError) as error:
        return (), _unasked(f"{what} reachable", error)
    some = ", ".join(choice.symbols[:8]) + (", ..." if len(choice.symbols) > 8 else "")
    by = "by rule" if settings.select is not None else "of the settings" if settings.symbols else "of the usual ones"
    return choice.symbols, Finding(f"{what} reachable", OK, f"{len(choice.symbols)} instruments {by}: {some}")


async def _account(name: str, venue: Venue, settings: VenueSettings, *, live: bool) -> AsyncIterator[Finding]:
    what = f"venues.{name}"
    try:
        async with asyncio.timeout(PATIENCE_S):
            await venue.check()
    except VenueDenied as denied:
        yield Finding(f"{what} account", FAIL, str(denied), f"where it names a right or a setting, change that at the venue; else {DENIED}")
        return
    except (VenueError, TimeoutError) as error:
        yield _unasked(f"{what} account", error)
        return
    yield Finding(f"{what} account", OK, f"{_rights(name, settings)}; account and position mode are right")
    if isinstance(venue, CcxtVenue):
        async for finding in _key(what, venue):
            yield finding
    async for finding in _wallet(what, venue, settings, live=live):
        yield finding


def _rights(name: str, settings: VenueSettings) -> str:
    """What is known of what a stolen key could do, and no more."""
    if name == "oanda":
        return "the token is good; its rights are not told, but nothing that a v20 token may ask for pays money out"
    if name == "binance" and factory.place_of(settings) == factory.PLAYGROUND:
        return "the key is good; its rights are not told on the playground, where there is no money"
    return "the key trades and can neither withdraw nor transfer"


async def _key(what: str, venue: CcxtVenue) -> AsyncIterator[Finding]:
    """Whether a stolen key would work elsewhere, and until when ours works, where the venue tells."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            facts = await venue.key_facts()
    except (VenueError, TimeoutError) as error:
        yield _unasked(f"{what} key", error)
        return
    if facts.addresses is None:
        yield Finding(f"{what} key's addresses", OK, "the venue does not tell whether the key is bound to an address")
    elif facts.addresses:
        yield Finding(f"{what} key's addresses", OK, "the key works from its own addresses only")
    else:
        yield Finding(f"{what} key's addresses", WARN, "the key works from any address, so a stolen one does too",
                      "bind it to this machine's address on the venue's key page")
    if facts.expires_at is not None:
        days = (facts.expires_at - venue.clock.now()) / DAY_MS
        soon = days < EXPIRY_WARN_DAYS
        yield Finding(f"{what} key's end", WARN if soon else OK, f"the key expires in {days:.0f} days", "make a new one before: an expired "
                      "key halts its classes, and nothing but the stops at the venue protects what is open" if soon else "")


async def _wallet(what: str, venue: Venue, settings: VenueSettings, *, live: bool) -> AsyncIterator[Finding]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            wallet = await venue.wallet()
    except (VenueError, TimeoutError) as error:
        yield _unasked(f"{what} wallet", error)
        return
    parts = list(wallet.classes.values())
    if not parts:
        yield Finding(f"{what} wallet", WARN, "shows nothing", "fund the account")
        return
    cash, currency = max(part.cash for part in parts), parts[0].currency
    claimed = sum(settings.allocate.values(), ZERO)
    state, remedy = OK, ""
    if cash <= ZERO:
        state, remedy = WARN, f"deposit {currency}: without it nothing can be opened"
    elif len(settings.classes) > 1 and set(settings.allocate) != set(settings.classes):
        state, remedy = (FAIL if live else WARN), (f"two classes share this wallet: say allocate = {{ ... }} for "
                                                   f"{', '.join(c.value for c in settings.classes)}")
    elif claimed > cash:
        state, remedy = WARN, f"allocate claims {claimed} {currency}: every class is scaled down; deposit, or allocate less"
    yield Finding(f"{what} wallet", state, f"{_amount(cash)} {currency}, {len(wallet.open_orders)} orders of ours at work", remedy)


def _amount(value: Decimal) -> str:
    return f"{value:,.2f}"


async def _clock(what: str, venue: Venue, policies: Policies) -> Finding:
    name, limit_s = f"{what} clock", policies.risk.clock_offset_s_max
    try:
        async with asyncio.timeout(PATIENCE_S):
            offset = await venue.clock_offset_ms()
            if offset is None:
                offset = await _overheard(venue)
    except (VenueError, TimeoutError) as error:
        return _unasked(name, error)
    if offset is None:
        return Finding(name, WARN, "the venue did not tell its time", "ask again while its market is open")
    state = FAIL if abs(offset) > limit_s * 1000 else OK
    return Finding(name, state, f"{offset:+,} ms from the venue's; at most {limit_s:g} s is allowed", "" if state == OK else
                   "run a time service: timedatectl set-ntp true")


async def _overheard(venue: Venue) -> int | None:
    """The offset that the venue's own stream brings with it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(HEARTBEAT_S), aclosing(_stream(venue)) as heard:
            async for _ in heard:
                if await venue.clock_offset_ms() is not None:
                    break
    return await venue.clock_offset_ms()


async def _stream(venue: Venue) -> AsyncGenerator[Any, None]:
    async for batch in venue.market_events():
        yield batch


def _unasked(what: str, error: Exception) -> Finding:
    if isinstance(error, VenueDenied):
        return Finding(what, FAIL, str(error), DENIED)
    if isinstance(error, VenueBusy):
        return Finding(what, WARN, f"the venue wants no questions now: {error}", "wait a few minutes")
    return Finding(what, WARN, f"cannot be asked: {error or 'no answer in time'}", NETWORK)
