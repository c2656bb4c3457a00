"""What Binance tells of an account's past, asked in the spans and pages it allows: trades, income, deposits and withdrawals.

A page that is full is followed by another; what cannot be asked completely is an error, never a shorter answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from modules.domain.errors import VenueUnreachable
from modules.domain.instrument import AssetClass
from modules.venues import ccxt_binance_rows as rows
from modules.venues.ccxt_binance_rows import NAME, parsed
from modules.venues.ccxt_dialect import Adapter
from modules.venues.protocol import Transferred

PAGE: Final = 1_000
DAY_MS: Final = 86_400_000
SPAN_MS: Final = {True: 7 * DAY_MS, False: DAY_MS}
"""The longest span one question about trades may cover: USD-M, spot."""
ASSETS_SPAN_MS: Final = 89 * DAY_MS
DEPOSITED: Final = (1, 6)
"""Done, and credited though not to be withdrawn yet: the wallet has it from then on."""
WITHDRAWN: Final = (0, 2, 4, 6)
"""Asked for, awaiting approval, on its way, done: the wallet is without it from the first on. (1, 3, 5: it came to nothing.)"""
CREDITED_LATE_MS: Final = DAY_MS
"""How long after a deposit was first seen, which is its date, it may be credited."""
WITHDRAWALS_MS: Final = 10_000
"""A question for withdrawals costs a tenth of what an account has in a minute: the answer of one is taken for so long."""
MOVES: Final = (("MAIN_UMFUTURE", -1), ("UMFUTURE_MAIN", 1), ("MAIN_FUNDING", -1), ("FUNDING_MAIN", 1))
"""What moves between the spot wallet and the futures and funding wallets, and its sign for the spot wallet."""
Ask = Callable[[dict[str, Any]], Awaitable[Any]]


async def trades(venue: Adapter, ask: Ask, model: type[rows.SpotTradeRow | rows.PerpTradeRow], market_id: str, at: int, *, perp: bool
                 ) -> Sequence[rows.SpotTradeRow | rows.PerpTradeRow]:
    """Every trade of one market at or after `at` (UTC ms). The newest page mostly has them all; else it is asked span by span."""
    found = await _page(venue, ask, model, {"symbol": market_id, "limit": PAGE})
    oldest = min((row.time for row in found), default=0)
    if len(found) < PAGE and not perp:
        oldest = 0  # that is all there ever was
    held = {row.id: row for row in found if row.time >= at}
    # USD-M's newest page goes back seven days only.
    now = venue.clock.now()
    missing = (oldest >= at and found) or (perp and at < now - SPAN_MS[perp] + DAY_MS)
    start = at if missing else now + 1
    while start <= now:
        end = start + SPAN_MS[perp] - 1
        page = await _page(venue, ask, model, {"symbol": market_id, "startTime": start, "endTime": end, "limit": PAGE})
        held |= {row.id: row for row in page}
        if len(page) < PAGE:
            start = end + 1
            continue
        newest = max(row.time for row in page)
        if newest <= start:
            raise VenueUnreachable(f"{NAME}: more trades of {market_id} in one millisecond than can be asked for")
        start = newest
    return [held[number] for number in sorted(held) if held[number].time >= at]


async def _page(venue: Adapter, ask: Ask, model: type[rows.SpotTradeRow | rows.PerpTradeRow], asked: dict[str, Any]
                ) -> list[rows.SpotTradeRow | rows.PerpTradeRow]:
    found = [parsed(model, raw, "trade") for raw in await venue.read(lambda: ask(dict(asked)))]
    if any(row.symbol != asked["symbol"] for row in found):
        raise VenueUnreachable(f"{NAME}: asked for one market's trades, was told another's")
    return found


async def income(venue: Adapter, at: int, kind: str | None) -> Sequence[rows.IncomeRow]:
    """The futures account's income at or after `at`, of one kind or all."""
    client, held, start = venue.private(), dict[tuple[str, int, str], rows.IncomeRow](), at
    while True:
        asked = {"startTime": start, "limit": PAGE} | ({"incomeType": kind} if kind else {})
        page = [parsed(rows.IncomeRow, raw, "income") for raw in await venue.read(partial(client.fapiPrivateGetIncome, asked))]
        if kind is not None and any(row.income_type != kind for row in page):
            raise VenueUnreachable(f"{NAME}: asked for {kind}, was told another income")
        held |= {(row.income_type, row.tran_id, row.symbol): row for row in page}
        if len(page) < PAGE:
            return [row for row in held.values() if row.time >= at]
        newest = max(row.time for row in page)
        if newest <= start:
            raise VenueUnreachable(f"{NAME}: more income in one millisecond than can be asked for")
        start = newest


class Withdrawals:
    """What was told of withdrawals lately; one per account."""

    def __init__(self) -> None:
        self._asked_at = 0
        self._since = 0
        self._told: list[rows.WithdrawalRow] = []

    async def since(self, venue: Adapter, start: int, coin: str) -> Sequence[rows.WithdrawalRow]:
        now = venue.clock.now()
        if not 0 <= now - self._asked_at < WITHDRAWALS_MS or start < self._since:
            asked = {"coin": coin, "startTime": start, "limit": PAGE}
            raws = await venue.read(lambda: venue.private().sapiGetCapitalWithdrawHistory(dict(asked)))
            self._told = [parsed(rows.WithdrawalRow, raw, "withdrawal") for raw in raws]
            self._asked_at, self._since = now, start
        return self._told


async def deposits_and_withdrawals(venue: Adapter, at: int, coin: str, withdrawals: Withdrawals) -> list[Transferred]:
    """What came into the spot wallet (+) and left it (-): the chain, the futures wallet and the funding wallet. A deposit that was credited
    since may be dated up to a day before `at`; who hears of it twice knows it by its reference."""
    client = venue.private()
    if "sapi" not in client.urls["api"]:
        return []  # demo trading has none
    start = max(at, venue.clock.now() - ASSETS_SPAN_MS)
    asked = {"coin": coin, "startTime": max(at - CREDITED_LATE_MS, venue.clock.now() - ASSETS_SPAN_MS), "limit": PAGE}
    spot = AssetClass.SPOT
    found = []
    for raw in await venue.read(lambda: client.sapiGetCapitalDepositHisrec(dict(asked))):
        row = parsed(rows.DepositRow, raw, "deposit")
        if row.coin == coin and row.status in DEPOSITED and row.wallet_type == 0:
            found.append(Transferred(spot, row.amount, row.insert_time, f"deposit-{row.id}"))
    for gone in await withdrawals.since(venue, start, coin):
        when = int(datetime.strptime(gone.apply_time, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()) * 1_000
        if gone.coin == coin and gone.status in WITHDRAWN and gone.wallet_type == 0 and when >= at // 1_000 * 1_000:
            found.append(Transferred(spot, -(gone.amount + gone.transaction_fee), when, f"withdrawal-{gone.id}"))
    for kind, sign in MOVES:
        found += await _moves(venue, client, kind, sign, at, start, coin)
    return found


async def _moves(venue: Adapter, client: Any, kind: str, sign: int, at: int, start: int, coin: str) -> list[Transferred]:
    asked = {"type": kind, "startTime": start, "size": 100}
    reply = await venue.read(lambda: client.sapiGetAssetTransfer(dict(asked)))
    moves = [parsed(rows.MoveRow, raw, "transfer") for raw in reply.get("rows", ())]
    if len(moves) < min(reply["total"], 100) or reply["total"] > 100:
        raise VenueUnreachable(f"{NAME}: {reply['total']} transfers between wallets, {len(moves)} told")
    return [Transferred(AssetClass.SPOT, sign * row.amount, row.timestamp, f"{kind}-{row.tran_id}")
            for row in moves if row.asset == coin and row.status == "CONFIRMED" and row.timestamp >= at]
