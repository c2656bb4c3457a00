"""Facts to JSON bytes and back. Owns the wire form of everything the stores keep; refuses whatever would not read back as the same value.

Money is plain text, enums are their value, nested dataclasses are objects, tuples are arrays. A float that JSON has no number for is
the text "nan", "inf" or "-inf". A row that lacks a field which has a default by now decodes to that default; a field that this
program does not know means a newer program wrote it, and is refused.

Converters are chosen once per *shape* (the tuple of runtime types of a record's fields) and then looked up, so that the fields
which need no conversion cost nothing: code is neither generated nor evaluated.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Callable, Mapping, Set
from decimal import Decimal, InvalidOperation
from enum import Enum, StrEnum
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

from modules.domain.errors import JournalCorrupt
from modules.domain.events import Fact
from modules.domain.money import text

T = TypeVar("T")
Convert = Callable[[Any], Any]

REMEDY: Final = "Do not trade on it: restore the last backup of the journal, then reconcile with the venue."
_INT_MAX: Final = 2**63 - 1
_NOT_NUMBERS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# -- one value ---------------------------------------------------------------------------------------------------------


class _Step(NamedTuple):
    """How a value of one runtime type becomes the other side's. `convert` None = as it is. `exact` steps win over loose ones."""

    convert: Convert | None
    exact: bool = True


_Way = Callable[[Any, type], _Step | None]
"""(declared type, runtime type) -> step, or None if such a value does not belong there."""


def _int_out(value: int) -> int:
    if not -_INT_MAX <= value <= _INT_MAX:
        raise ValueError(f"an integer beyond 64 bits: {value}")
    return value


def _float_out(value: float) -> float | str:
    # float() because numpy's float64 is a float that orjson does not take.
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _decimal_out(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"not a finite amount: {value}")
    return text(value)


def _float_in(value: str) -> float:
    if value not in _NOT_NUMBERS:
        raise ValueError(f"not a number: {value!r}")
    return _NOT_NUMBERS[value]


@lru_cache(maxsize=65_536)  # ones, zeros, rates and a trade's own prices come again and again
def _decimal_in(value: str) -> Decimal:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"not an amount: {value!r}") from None
    if not amount.is_finite():
        raise ValueError(f"not a finite amount: {value!r}")
    return amount


def _out(declared: Any, seen: type) -> _Step | None:
    """Python to JSON. Strict, because a fact that reads back as another type makes replay differ from what happened."""
    if declared is float:
        return _Step(_float_out, exact=issubclass(seen, float)) if issubclass(seen, float) or seen is int else None
    if declared is Decimal:
        return _Step(_decimal_out) if issubclass(seen, Decimal) else None
    if declared is str:
        return _Step(None, exact=seen is str) if issubclass(seen, str) else None
    if declared is int:
        return _Step(_int_out) if seen is int else None
    if declared is bool or declared is types.NoneType or (isinstance(declared, type) and issubclass(declared, StrEnum)):
        return _Step(None) if seen is declared else None
    if dataclasses.is_dataclass(declared):
        return _Step(_record(cast(type, declared)).encode) if seen is declared else None
    return _collection(declared, seen, _out, tuple)


def _in(declared: Any, seen: type) -> _Step | None:
    """JSON to Python."""
    if declared is float:
        return {float: _Step(None), int: _Step(float, exact=False), str: _Step(_float_in, exact=False)}.get(seen)
    if declared is Decimal:
        return _Step(_decimal_in) if seen is str else None
    if declared in (str, int, bool, types.NoneType):
        return _Step(None) if seen is declared else None
    if isinstance(declared, type) and issubclass(declared, StrEnum):
        return _Step({member.value: member for member in declared}.__getitem__) if seen is str else None
    if dataclasses.is_dataclass(declared):
        return _Step(_record(cast(type, declared)).decode) if seen is dict else None
    return _collection(declared, seen, _in, list)


def _collection(declared: Any, seen: type, way: _Way, sequence: type) -> _Step | None:
    """tuple[X, ...], tuple[X, Y] (a JSON array) and dict[str, X] (a JSON object)."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is tuple and seen is sequence:
        build: Callable[[Any], Any] = list if sequence is tuple else tuple
        if arguments[-1] is Ellipsis:
            each = _converter(arguments[0], way)
            return _Step(lambda values: build(map(each, values)))
        every = [_converter(argument, way) for argument in arguments]
        return _Step(lambda values: build(one(value) for one, value in zip(every, values, strict=True)))
    if origin is dict and arguments[0] is str and seen is dict:
        each = _converter(arguments[1], way)
        return _Step(lambda mapping: {key: each(value) for key, value in mapping.items()})
    if origin not in (tuple, dict):
        raise TypeError(f"facts cannot hold {declared}")
    return None


def _choose(declared: Any, seen: type, way: _Way) -> Convert | None:
    """The converter for a value of type `seen` in a place declared as `declared`. TypeError if it does not belong there."""
    members = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    steps = [step for step in (way(member, seen) for member in members) if step is not None]
    if not steps:
        raise TypeError(f"{seen.__name__} where {getattr(declared, '__name__', declared)} belongs")
    steps.sort(key=lambda step: not step.exact)
    return steps[0].convert if len(steps) == 1 or steps[0].convert is None else _first_that_fits(steps)


def _first_that_fits(steps: list[_Step]) -> Convert:
    def convert(value: Any) -> Any:
        for step in steps[:-1]:
            try:
                return value if step.convert is None else step.convert(value)
            except (ValueError, KeyError):
                continue
        last = steps[-1].convert
        return value if last is None else last(value)

    return convert


def _converter(declared: Any, way: _Way) -> Convert:
    """One function for any value that belongs in a place declared as `declared`."""
    known: dict[type, Convert | None] = {}

    def convert(value: Any) -> Any:
        seen = type(value)
        if seen not in known:
            known[seen] = _choose(declared, seen, way)
        step = known[seen]
        return value if step is None else step(value)

    return convert


# -- one dataclass -----------------------------------------------------------------------------------------------------


class _Record:
    """Both directions for one dataclass."""

    def __init__(self, cls: type) -> None:
        hints = get_type_hints(cls)
        self._cls = cls
        self._fields = [field for field in dataclasses.fields(cls) if field.init]
        self._names = [field.name for field in self._fields]
        self._declared = [hints[name] for name in self._names]
        self._attributes: Callable[[Any], tuple[Any, ...]] = _always_tuple(attrgetter, self._names)
        self._items: Callable[[Any], tuple[Any, ...]] = _always_tuple(itemgetter, self._names)
        self._plans_out: dict[tuple[type, ...], list[tuple[str, Convert]]] = {}
        self._plans_in: dict[tuple[type, ...], list[tuple[int, Convert]]] = {}
        self._make: Callable[..., Any] | None = None

    def encode(self, value: Any) -> dict[str, Any]:
        values = self._attributes(value)
        shape = tuple(map(type, values))
        plan = self._plans_out.get(shape)
        if plan is None:
            plan = self._plans_out[shape] = self._plan(shape, _out)
        raw = dict(zip(self._names, values, strict=True))
        for name, convert in plan:
            raw[name] = convert(raw[name])
        return raw

    def decode(self, raw: dict[str, Any]) -> Any:
        if len(raw) != len(self._names):
            raw = self._with_defaults(raw)
        try:
            values = self._items(raw)
        except KeyError:
            values = self._items(self._with_defaults(raw))
        shape = tuple(map(type, values))
        plan = self._plans_in.get(shape)
        if plan is None:
            plan = self._plans_in[shape] = [(self._names.index(name), convert) for name, convert in self._plan(shape, _in)]
        if plan:
            converted = list(values)
            for index, convert in plan:
                converted[index] = convert(values[index])
            values = tuple(converted)
        if self._make is None:
            self._make = _maker(self._cls, self._names)
        return self._make(*values)

    def _plan(self, shape: tuple[type, ...], way: _Way) -> list[tuple[str, Convert]]:
        """The fields of a record of this shape that need converting, and how. TypeError naming a field that cannot hold its value."""
        plan = []
        for name, declared, seen in zip(self._names, self._declared, shape, strict=True):
            try:
                convert = _choose(declared, seen, way)
            except TypeError as error:
                raise TypeError(f"{self._cls.__name__}.{name}: {error}") from None
            if convert is not None:
                plan.append((name, convert))
        return plan

    def _with_defaults(self, raw: dict[str, Any]) -> dict[str, Any]:
        """`raw` with the fields that it is too old to have, in their JSON form. ValueError on a field without default or an unknown one."""
        unknown = raw.keys() - set(self._names)
        if unknown:
            raise ValueError(f"{self._cls.__name__} has no field {', '.join(sorted(unknown))}: a newer version of this program wrote it")
        complete = dict(raw)
        for field, declared in zip(self._fields, self._declared, strict=True):
            if field.name in raw:
                continue
            if field.default is not dataclasses.MISSING:
                default = field.default
            elif field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            else:
                raise ValueError(f"{self._cls.__name__} lacks {field.name}")
            complete[field.name] = _converter(declared, _out)(default)
        return {name: complete[name] for name in self._names}


def _maker(cls: type, names: list[str]) -> Callable[..., Any]:
    """What makes a `cls` of its fields: a class of the same layout that is not frozen, whose instance is then told that it is a `cls`.

    (A frozen dataclass's __init__ makes one `object.__setattr__` call per field: 6.6 us against 1.2 for an Order, half a recovery.)
    The class itself where that is not the same thing: it does more in its __init__, or has no slots.
    """
    if hasattr(cls, "__post_init__") or "__slots__" not in vars(cls) or len(names) != len(dataclasses.fields(cls)):
        return cls
    thawed = dataclasses.make_dataclass(cls.__name__, [(name, object) for name in names], slots=True, eq=False, repr=False)

    def make(*values: Any) -> Any:
        made = thawed(*values)
        made.__class__ = cls
        return made

    return make


def _always_tuple(getter: Callable[..., Callable[[Any], Any]], names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = getter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)


_RECORDS: Final[dict[type, _Record]] = {}


def _record(cls: type) -> _Record:
    record = _RECORDS.get(cls)
    if record is None:
        record = _RECORDS[cls] = _Record(cls)
    return record


# -- facts -------------------------------------------------------------------------------------------------------------

_KIND_OF: Final[dict[type[Fact], bytes]] = {cls: cls.__name__.encode() for cls in get_args(Fact)}
_CLASS_OF: Final[dict[bytes, type[Fact]]] = {kind: cls for cls, kind in _KIND_OF.items()}


def encode(fact: Fact) -> tuple[bytes, bytes]:
    """(kind, payload). Raises TypeError or ValueError, before anything is written, on a value that would not read back the same."""
    cls = type(fact)
    kind = _KIND_OF.get(cls)
    if kind is None:
        raise TypeError(f"{cls.__name__} is not a fact (domain/events.py: Fact)")
    return kind, pack(fact)


def decode(kind: bytes, payload: bytes, row: int) -> Fact:
    """The fact of journal row `row`. Raises JournalCorrupt naming it."""
    cls = _CLASS_OF.get(kind)
    if cls is None:
        raise JournalCorrupt(f"journal row {row}: unknown kind {kind.decode(errors='backslashreplace')!r}. {REMEDY}")
    try:
        return unpack(cls, payload)
    except (ValueError, TypeError) as error:
        raise JournalCorrupt(f"journal row {row} ({kind.decode()}): {error}. {REMEDY}") from error


def pack(value: Any) -> bytes:
    """Any dataclass of supported fields as one JSON object. Raises TypeError or ValueError."""
    raw = _record(type(value)).encode(value)
    try:
        return orjson.dumps(raw)
    except orjson.JSONEncodeError:
        # Half a surrogate pair in hostile text: orjson refuses it, the standard library escapes it and reads it back unchanged.
        return json.dumps(raw, separators=(",", ":"), allow_nan=False).encode()


def unpack(cls: type[T], payload: bytes) -> T:
    """The inverse of `pack`. Raises ValueError or TypeError on anything that `pack` would not have written."""
    try:
        raw = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raw = json.loads(payload, parse_constant=_no_constant)
    if type(raw) is not dict:
        raise ValueError("not a JSON object")
    try:
        return cast(T, _record(cls).decode(raw))
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is not one of the listed values") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# -- output for people's scripts ---------------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """Plain dicts, lists, text and numbers for `json.dumps`: what `--json` prints. One-way, so unlike `pack` it takes any mix.

    Money becomes text, enums their value, dataclasses and NamedTuples objects, sets sorted lists, NaN and infinities null. Raises
    TypeError on anything else.
    """
    if value is None or isinstance(value, (bool, int)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return text(value) if value.is_finite() else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: to_json(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {_key(key): to_json(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((to_json(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _key(key: Any) -> str:
    plain = to_json(key)
    if not isinstance(plain, (str, int)) or isinstance(plain, bool):
        raise TypeError(f"no JSON object key for {type(key).__name__}")
    return str(plain)
