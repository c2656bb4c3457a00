"""The options half of the ccxt adapter: which coins' are looked at, their chains, contracts listed later, when a chain is too old.

A part of CcxtVenue, which holds its state; refuses nothing by itself. What an exchange says of its options is its dialect's to read
(ccxt_dialect.TellsChains).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from modules.domain.instrument import AssetClass, Instrument
from modules.domain.market import Chain
from modules.runtime.clock import Clock
from modules.venues.ccxt_dialect import Adapter, Chains, Dialect, TellsChains


class Optioned:
    name: str
    classes: tuple[AssetClass, ...]
    clock: Clock
    dialect: Dialect
    streamed: tuple[str, ...]
    chains: Chains
    kept: frozenset[str]
    data: Any
    trade: Any
    read: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
    known: Callable[[], Awaitable[Mapping[str, Instrument]]]
    _instruments: dict[str, Instrument]
    _heard: dict[str, int]
    """Coin -> when its options were last told of, UTC ms; at first, since when they are looked at."""
    _listed: Callable[[Iterable[Mapping[str, Any]]], dict[str, Instrument]]
    _keep: Callable[[dict[str, Instrument]], None]

    async def list_options(self, coin: str) -> None:
        """List what there is of a coin's options now; nothing else is asked for. Both clients know these markets from then on."""
        rows = await self.read(lambda: self.data.fetch_option_markets({"baseCoin": coin}))
        for client in filter(None, (self.data, self.trade)):
            client.markets.update({row["symbol"]: row for row in rows})
            client.markets_by_id.update({row["id"]: [row] for row in rows})
        self._keep({**self._instruments, **self._listed(rows)})

    @property
    def underlyings(self) -> Mapping[str, str]:
        """Of which coins options are looked at, and the streamed symbol that says where each stands: its perpetual, else its pair."""
        if AssetClass.OPTION not in self.classes:
            return {}
        found: dict[str, str] = {}
        for symbol in sorted(self.streamed, key=lambda name: ":" not in name):
            found.setdefault(symbol.partition("/")[0], symbol)
        coins = self.dialect.option_coins if isinstance(self.dialect, TellsChains) else ()
        return {coin: symbol for coin, symbol in found.items() if coin in coins}

    async def chain(self, underlying: str) -> Chain:
        """The options of `underlying` now, as far as they are looked at. Raises VenueError."""
        await self.known()
        assert isinstance(self.dialect, TellsChains)  # as __init__ saw to
        found = await self.dialect.chain(cast(Adapter, self), underlying, self.chains, self.kept)
        self._heard[underlying] = found.at
        return found

    def silent(self) -> Sequence[str]:
        """Coins whose options are looked at and whose chain was not heard for too long, in words."""
        ages = {coin: self._chain_age_s(coin) for coin in self.underlyings}
        return [f"options on {coin}: {self.name} has told no chain for {age:.0f} s" for coin, age in ages.items()
                if age > self.chains.believed_s]

    def unheard(self, coin: str) -> str:
        """Why nothing is opened on its options now; "" = its chain was heard."""
        age_s = self._chain_age_s(coin)
        return f"its chain was not heard for {age_s:.0f} s" if age_s > self.chains.believed_s else ""

    def _chain_age_s(self, coin: str) -> float:
        return (self.clock.now() - self._heard.setdefault(coin, self.clock.now())) / 1000.0

    def contract(self, symbol: str) -> Instrument | None:
        """The rules of a contract a chain told of."""
        return self._instruments.get(symbol)

    async def delivered(self, instrument: Instrument) -> Decimal | None:
        """The price an option's expiry was settled at; None = not told yet. Raises VenueError."""
        assert isinstance(self.dialect, TellsChains)  # as __init__ saw to
        return await self.dialect.delivered(cast(Adapter, self), instrument)
