"""Safeguards of live execution switched off one at a time: what `python -m benchmarks.simulation --mutants` must notice.

A simulation that finds nothing proves nothing unless it would have found something. Each mutant is one safeguard that somebody might break
by mistake; histories are played until one of them shows a violation. (Believing an order's absence at the first miss is not among them: the
fence, a cancel by client id, makes it harmless.)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from modules import Trade_Executor as trade_executor
from modules.domain.events import FundingBooked, OrderSent
from modules.domain.instrument import Instrument
from modules.domain.order import Fate, InDoubt, NotSent, Order, OrderState
from modules.domain.policies import Policies
from modules.domain.view import TradingState
from modules.execution import cover
from modules.execution.keeper import Keeper
from modules.execution.lifecycle import Lifecycle, Record
from modules.execution.wire import Wire
from modules.Kill_Switch import KillSwitch
from modules.Trade_Executor import TradeExecutor
from modules.venues.protocol import FundingPaid, Venue
from modules.Wallet_Sync import WalletSync
from tests import simulated_life


class Off(NamedTuple):
    """One thing that is replaced: in `where`, under `name`, by `mutant`."""

    where: object
    name: str
    mutant: object


async def _sent_unwritten(executor: TradeExecutor, venue: Venue, record: Record) -> None:
    if record.state is OrderState.INTENT:
        fate = await executor._wire.submit(venue, record, lambda: True)
        executor._journal.append(OrderSent(executor._clock.now(), record.order.client_order_id))
        executor._book_fate(record, fate)


async def _sent_again(wire: Wire, venue: Venue, order: Order) -> Fate:
    fate = await venue.submit(order)
    return NotSent("no answer") if isinstance(fate, InDoubt) else fate


async def _unheard(wallets: WalletSync, venue: Venue, since: int | None = None) -> int:
    return 0


def _funded(wallets: WalletSync, event: FundingPaid) -> None:
    wallets._journal.append(
        FundingBooked(event.at, event.venue, event.symbol, event.asset_class, event.amount, event.rate, event.venue_ref))


def _hasty() -> Policies:
    shipped = simulated_life.lenient()
    return shipped.model_copy(update={"execution": shipped.execution.model_copy(update={"difference_proof_s": 0.001})})


def _nothing(*_: object, **__: object) -> None: ...


MUTANTS: Final[dict[str, tuple[Off, ...]]] = {
    "orders leave before they are on record": (Off(TradeExecutor, "_send_order", _sent_unwritten),),
    "orders in doubt are sent again": (Off(Wire, "_submit", _sent_again),),
    "fills are booked as often as they are told": (Off(Lifecycle, "booked", lambda life, fill: False),),
    "differences are booked at once": (Off(simulated_life, "policies", _hasty),),
    "a halted class opens": (Off(KillSwitch, "state", lambda switch, asset_class: TradingState.ACTIVE),),
    "halts are not kept": (Off(KillSwitch, "_trading_halted", _nothing),),
    "sizes are not rounded": (Off(Instrument, "round_quantity_down", lambda instrument, quantity: quantity),),
    "no stop is placed, and nothing closes what has none": (Off(Keeper, "protect", _nothing), Off(Keeper, "back_up", _nothing)),
    "a stop is not made to fit what is held": (Off(cover, "fits", lambda working, quantity, price: True),),
    "what the owner closed by hand is not noticed": (Off(trade_executor, "divided_fill", lambda fill, position, owners: (None, fill)),),
    "funding is booked as often as it is told": (Off(WalletSync, "_take_funding", _funded),),
    "openings go on while it stops": (Off(TradeExecutor, "stop_opening", _nothing),),
    "what was on its way at a crash is forgotten": (Off(TradeExecutor, "recover", _nothing),),
    "orders beside ours are not looked at": (Off(TradeExecutor, "look_after", _unheard),),
    "nobody asks for what no stream told": (Off(WalletSync, "_hear", _unheard),),
}


def hunt(seeds: Sequence[int], hours: float, intensity: float) -> list[dict[str, Any]]:
    """Each mutant, and the first history that shows it: {"mutant", "noticed_by", "seed", "violation"}; noticed_by "" = none did."""
    found = []
    for name in MUTANTS:
        seen = noticed(name, seeds, hours, intensity)
        how = "noticed" if seen["noticed_by"] else "MISSED "
        print(f"  {how}  {name:<52} {seen['noticed_by']:<5} {seen['violation'][:90]}", flush=True)
        found.append(seen)
    return found


def noticed(name: str, seeds: Sequence[int], hours: float, intensity: float) -> dict[str, Any]:
    for seed in seeds:
        with ExitStack() as stack:
            for off in MUTANTS[name]:
                stack.enter_context(patch.object(off.where, off.name, off.mutant))
            history = simulated_life.played(seed, hours, intensity)
        if history.monitor.violations:
            law, what = history.monitor.violations[0]
            return {"mutant": name, "noticed_by": law, "seed": seed, "violation": what}
    return {"mutant": name, "noticed_by": "", "seed": None, "violation": ""}
