"""The dated permission to trade real money: what it is bound to, its file, and what makes it void. Decides nothing about approval.

A certificate permits one strategy, in exactly this code and these parameters, on exactly these instruments of one class, under the costs
and rules that its numbers were computed with. One JSON file per certificate in state/certificates; the file carries a digest, so that a
truncated or edited one is one clear error and no permission.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from modules.domain.errors import BotError
from modules.domain.instrument import AssetClass
from modules.domain.policies import Policies
from modules.domain.settings import plain
from modules.domain.tightening import flattened, loosens

DAY_MS: Final = 86_400_000
VERSION: Final = 1
BYTES_MAX: Final = 1_000_000

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]

_EXACT: Final = ("costs.{class}.", "costs.latency_ms", "execution.break_even_at_r", "execution.trail_at_r", "execution.trail_distance_r",
                 "risk.holding_default_s", "risk.expected_r_per_confidence")
_EXACT_OF: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.SPOT: (), AssetClass.PERP: (),
    AssetClass.OPTION: ("costs.option_fee_cap", "costs.option_settlement_fee"), AssetClass.FOREX: ("costs.forex_financing_markup",),
}
"""Prefixes of policy keys that enter every simulated trade: any change makes other numbers."""
_CAPS: Final = ("sizing.risk_fraction_m", "sizing.position_cap_m", "sizing.daily_risk_budget", "sizing.leverage_max.{class}",
                "sizing.gross_notional_max.{class}", "risk.spread_bp_max.{class}", "risk.carry_", "news.windows.", "news.classes.")
_CAPS_OF: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.SPOT: ("risk.quote_volume_24h_min",),
    AssetClass.PERP: ("risk.quote_volume_24h_min", "risk.funding_rate_8h_max"),
    AssetClass.OPTION: ("risk.quote_volume_24h_min", "risk.option_", "risk.expiry_days_min"),
    AssetClass.FOREX: ("risk.spread_bp_majors_max", "risk.forex_majors", "risk.forex_deep_pairs", "risk.rollover_minutes",
                       "risk.forex_weekend_flat"),
}
"""Prefixes of policy keys that only decide which trades are taken: the same or tighter is what was validated, or less of it."""


class CertificateError(BotError):
    """This file permits nothing: unreadable, truncated, edited, of another version, or no certificate at all. One line, with its path."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the validated strategy looks like out of sample, for the demotion monitor. R = net result over the risk taken."""

    trades: Annotated[int, Field(ge=1)]
    """Out-of-sample trades the figures stand on."""
    trades_per_year: Annotated[float, Field(gt=0.0)]
    mean_r: float
    sd_r: Annotated[float, Field(gt=0.0)]
    drawdown_r: Annotated[float, Field(gt=0.0)]
    """99 % quantile of the deepest fall of the running sum of R, by block bootstrap over `drawdown_trades` trades."""
    drawdown_trades: Annotated[int, Field(ge=1)]
    slippage_bp: NotNegative
    """Modelled mean adverse slippage of a market or stop fill."""
    fill_ratio: Share
    """Share of the ordered entry quantity that fills."""
    win_rate: Share


@dataclass(frozen=True, slots=True)
class Certificate:
    """One permission. Times UTC ms; `policy` holds each bound policy value as JSON text; `metrics` all numbers of the verdict."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    strategy: Name
    asset_class: AssetClass
    instruments: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Those with enough out-of-sample trades; no other may be traded."""
    params: dict[str, float]
    code_hash: Digest
    data_hash: Digest
    policy: dict[str, str]
    data_from: int
    data_until: int
    issued_at: int
    revalidate_at: int
    expires_at: int
    confidence: Share
    """Lower 80 % bound of expected net R / 0.25, clipped (domain.md section 8): the ceiling on what may be believed live."""
    envelope: Envelope
    metrics: dict[str, float]
    seed: int
    trials: Annotated[int, Field(ge=1)]
    submissions: Annotated[int, Field(ge=1)]
    source: str = ""
    """Folder of the recorded history it was earned on: revalidation reads it again."""
    version: Annotated[int, Field(ge=1)] = VERSION

    @property
    def digest(self) -> str:
        """sha256, hex, over the canonical JSON of every field."""
        return hashlib.sha256(_canonical(self)).hexdigest()

    @property
    def file_name(self) -> str:
        return f"{self.strategy}-{self.asset_class.value}-{self.issued_at}.json"


_ADAPTER: Final = TypeAdapter(Certificate)


def _canonical(certificate: Certificate) -> bytes:
    """As it reads back from its file: 96 in a float's place is 96.0 there too."""
    return json.dumps(asdict(_ADAPTER.validate_python(asdict(certificate))), sort_keys=True, separators=(",", ":")).encode()


def _first(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}"


def bound(policies: Policies, asset_class: AssetClass) -> dict[str, str]:
    """Policy key -> JSON text: exactly the values that change what a simulation of this class yields."""
    prefixes = tuple(p.replace("{class}", asset_class.value)
                     for p in (*_EXACT, *_EXACT_OF[asset_class], *_CAPS, *_CAPS_OF[asset_class]))
    return {key: json.dumps(plain(value), sort_keys=True) for key, value in flattened(policies).items()
            if key.startswith(prefixes) and key != f"costs.{asset_class.value}.leverage"}


def save(certificate: Certificate, folder: Path) -> Path:
    """Write it into `folder` (made if need be), whole or not at all. Raises CertificateError if its values permit no certificate."""
    try:
        content = json.dumps({"certificate": asdict(certificate), "digest": certificate.digest}, indent=2)
    except ValidationError as error:
        raise CertificateError(f"{certificate.file_name}: {_first(error)}") from None
    parse(content, certificate.file_name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / certificate.file_name
    temporary = path.with_suffix(f".{os.getpid()}.part")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(content + "\n")
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    return path


def load(path: Path) -> Certificate:
    """The certificate in one file. Raises CertificateError: one line that names the file and what is wrong with it."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise CertificateError(f"{path}: is no certificate: larger than {BYTES_MAX:,} bytes")
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CertificateError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CertificateError(f"{path}: is no certificate: not text") from None
    return parse(content, str(path))


def parse(content: str, origin: str) -> Certificate:
    """The certificate in a file's text; `origin` begins the error message. Raises CertificateError."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        raise CertificateError(f"{origin}: is damaged: not complete JSON; run `validate` again") from None
    if not isinstance(tree, dict) or set(tree) != {"certificate", "digest"}:
        raise CertificateError(f"{origin}: is no certificate of this program")
    version = tree["certificate"].get("version") if isinstance(tree["certificate"], dict) else None
    if version != VERSION:
        raise CertificateError(f"{origin}: is a certificate of version {version!r}, this program knows {VERSION}; run `validate` again")
    try:
        certificate = _ADAPTER.validate_python(tree["certificate"])
    except ValidationError as error:
        raise CertificateError(f"{origin}: {_first(error)}") from None
    if certificate.digest != tree["digest"]:
        raise CertificateError(f"{origin}: was changed after it was issued (its digest does not match); it permits nothing")
    if not certificate.issued_at <= certificate.revalidate_at <= certificate.expires_at or certificate.data_until > certificate.issued_at:
        raise CertificateError(f"{origin}: its dates contradict each other; it permits nothing")
    return certificate


def check(certificate: Certificate, *, code_hash: str, params: Mapping[str, float], policy: Mapping[str, str]) -> tuple[str, ...]:
    """Why this certificate is not one for what is about to trade: one line each, empty when it is. `policy` as `bound` gives it now."""
    faults = []
    if code_hash != certificate.code_hash:
        faults.append(f"the code changed (now {code_hash[:12]}, certified {certificate.code_hash[:12]})")
    if dict(params) != certificate.params:
        keys = sorted(k for k in params.keys() | certificate.params.keys() if params.get(k) != certificate.params.get(k))
        faults.append("parameters changed: " + ", ".join(f"{k} = {params.get(k)}, certified {certificate.params.get(k)}" for k in keys))
    prefixes = tuple(p.replace("{class}", certificate.asset_class.value) for p in (*_EXACT, *_EXACT_OF[certificate.asset_class]))
    for key in sorted(policy.keys() | certificate.policy.keys()):
        was, now = certificate.policy.get(key), policy.get(key)
        if was != now and (key.startswith(prefixes) or loosens(key, _value(was), _value(now))):
            faults.append(f"{key} is {now}, certified with {was}")
    return tuple(faults)


def _value(text: str | None) -> Any:
    """As the policy had it: numbers exact (money stands in quotes), lists as tuples."""
    if text is None:
        return None
    value = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    if isinstance(value, str):
        return Decimal(value)
    return tuple(value) if isinstance(value, list) else value


def days_left(certificate: Certificate, at: int) -> float:
    """Until it expires; 0 or less = expired."""
    return (certificate.expires_at - at) / DAY_MS
