"""A strategy is a pure step function over scalars. The live process calls it once per closed bar; validation compiles the very same one.

    state = init(params)
    state, intent = step(state, market, params)

`market`, `params` and the state are NamedTuples of floats, ints and bools (or fixed-length tuples of floats as ring buffers), so that Numba
can compile `step` unchanged. It sees only the bar at hand: looking ahead is impossible by construction. No clock, no randomness, no
globals but constants and other such functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from modules.domain.instrument import AssetClass
from modules.domain.market import NAN as NAN
from modules.domain.market import ChainSlice as ChainSlice
from modules.domain.signal import Intent, Structure


class Market(NamedTuple):
    """The market at one bar close. Prices in quote currency; NaN where the venue does not tell."""

    at: float
    """UTC ms of the close."""
    open: float
    high: float
    low: float
    close: float
    volume: float
    bid: float
    ask: float
    mark: float
    funding: float
    """Last settled rate normalized to 8 h, positive = longs pay; NaN for non-perps."""
    htf_open: float
    """Last *closed* bar of the strategy's higher timeframe; NaN before the first."""
    htf_high: float
    htf_low: float
    htf_close: float
    htf_ts: float
    """Its open time: changes exactly when a new one has closed."""
    ref_close: float
    """Close of the reference instrument (the class's leader, e.g. BTC) at or before this bar; NaN without one."""
    chain: ChainSlice


State = Any
Params = Any
Step = Callable[[State, Market, Params], tuple[State, Intent]]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A step function with what the daemon must know about it. Registered by name in `registry`."""

    name: str
    description: str
    asset_classes: tuple[AssetClass, ...]
    params: Params
    """Default parameters, a NamedTuple."""
    init: Callable[[Params], State]
    step: Step
    warmup: int
    """Bars of history it needs before its view means anything: it does not trade before."""
    space: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Parameter name -> values `optimize` and `validate` may try."""
    interval_ms: int | None = None
    """Bar length it wants; None = whatever the venue streams."""
    htf_multiple: int = 12
    """The higher timeframe, in bars."""
    structure: Structure = Structure.SINGLE
    days: float = 0.0
    """Option structures: wanted days to expiry."""
    delta: float = 0.0
    """Option structures: absolute delta of the (first) leg."""
    width: float = 0.0
    """Credit spread: distance of the protective leg as a fraction of spot."""
