"""Bytes to values and back, exactly.

Second station of the flow: pure. Numbers keep their digits (an `int` of any
length; a `Decimal` wherever a float would not print back as the same text), keys
keep their order, text is UTF-8. What cannot be carried is a `CodecError`, never
a silent change. Members nobody touches stay the bytes they were (`Raw`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Never, TypeAlias, cast

import msgspec
from msgspec import Raw
from pydantic_core import from_json

from eventmig.errors import CodecError, Where

Value: TypeAlias = "None | bool | int | float | Decimal | str | list[Value] | dict[str, Value]"
"""A JSON value as Python holds it, exactly."""

Members: TypeAlias = "dict[str, Value | Raw]"
"""A JSON object whose untouched members are still bytes."""


def _exact_float(text: str) -> float | Decimal:
    number = float(text)
    if repr(number) == text or _encoder.encode(number) == text.encode():  # 1e+22 or 1e22
        return number
    return Decimal(text)


AT_ONCE: Final = 200
"""Events whose data is parsed and encoded as lines: so many fit into a processor's cache."""

_decoder: Final = cast("msgspec.json.Decoder[Value]", msgspec.json.Decoder(float_hook=_exact_float))
_members_decoder: Final = cast(
    "msgspec.json.Decoder[Members]", msgspec.json.Decoder(dict[str, Raw])
)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_format: Final = msgspec.json.format
_canonical_encoder: Final = msgspec.json.Encoder(decimal_format="number", order="sorted")

_LONGEST_INT = 4_000


def _exact_int(text: str) -> int | Decimal:
    return int(text) if len(text) < _LONGEST_INT and text != "-0" else Decimal(text)


def _no_constant(text: str) -> Never:
    raise CodecError(f"{text} is not a JSON number", remedy=_REMEDY)


def _no_duplicates(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise CodecError(
                    f"the key {key!r} stands twice in one JSON object",
                    where=Where(path=key),
                    remedy="a step that changes this event would drop one of the two; "
                    "mend the event, or leave its type without upcasters",
                )
            seen.add(key)
    return members


_strict_decoder: Final = json.JSONDecoder(
    parse_float=_exact_float,
    parse_int=_exact_int,
    parse_constant=_no_constant,
    object_pairs_hook=_no_duplicates,
)
_REMEDY = "the stored bytes are not JSON text; look at them with `eventmig show`"


def decode_strict(data: bytes | Raw) -> Value:
    """`decode` by other parsers than its own: the verifier's reading. Raises `CodecError`.

    What comes out is encoded again, and must spell what went in: so no key, digit or
    character was lost. Where it does not, the standard library's parser reads it, and
    hands every number and every object to functions of this module.
    """
    text = bytes(data)
    try:
        value = cast(Value, from_json(text, allow_inf_nan=False, cache_strings="keys"))
        if _spells(_encoder.encode(value), text):
            return value
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        pass
    return _decode_slowly(text)


def decode_strict_many(data: Sequence[bytes]) -> list[Value]:
    """`decode_strict` for several events' data, parsed as one list.

    Each of them must spell what went in, by itself. Best for up to `AT_ONCE` of them.
    """
    try:
        values = cast(
            "list[Value]",
            from_json(b"[%b]" % b",".join(data), allow_inf_nan=False, cache_strings="keys"),
        )
        lines = _encoder.encode_lines(values)
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return list(map(decode_strict, data))
    if lines == b"".join([b"%b\n" % text for text in data]):
        return values  # as many as there are lines, for no JSON of ours has a line break in it
    spelled = lines.split(b"\n")[:-1]
    if len(spelled) != len(data):
        return list(map(decode_strict, data))
    return [
        value if _spells(compact, text) else decode_strict(text)
        for value, compact, text in zip(values, spelled, data, strict=True)
    ]


def _decode_slowly(data: bytes) -> Value:
    """Bytes to a value by the slow, obvious road."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CodecError(
            f"the bytes are not UTF-8 (byte {error.start}: {error.reason})", remedy=_REMEDY
        ) from error
    try:
        value = _strict_decoder.decode(text)
    except RecursionError as error:
        raise CodecError(
            "the JSON is nested too deeply to be read",
            remedy="leave this event's type without upcasters: untouched events are copied byte "
            "for byte",
        ) from error
    except ValueError as error:
        raise CodecError(f"not JSON: {error}", remedy=_REMEDY) from error
    _refuse_lone_surrogates(text, value)
    return cast(Value, value)


def _refuse_lone_surrogates(text: str, value: Value) -> None:
    if "\\u" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError as error:
        raise CodecError(
            "a string holds a lone surrogate (half of a UTF-16 pair), which UTF-8 cannot carry",
            remedy="mend the event, or leave its type without upcasters: untouched events are "
            "copied byte for byte",
        ) from error


def compact(data: bytes) -> bytes:
    """JSON text without the spaces between its tokens."""
    return _format(data, indent=-1)


def decode(data: bytes | Raw) -> Value:
    """Bytes to a value, exactly; raises `CodecError` where they are no JSON.

    Refuses duplicate keys and lone surrogates: decoding would lose them.
    """
    try:
        value = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(bytes(data))
    if type(value) in _MAY_LOSE and not _spells(_encoder.encode(value), bytes(data)):
        return _decode_slowly(bytes(data))
    return value


_MAY_LOSE: Final = frozenset({dict, list, int})
"""What the fast parser may change: an object with a key twice, and `-0`."""


def _spells(compact: bytes, data: bytes) -> bool:
    """Whether `data` is `compact` but for spaces between its tokens.

    Then nothing was lost on the way from `data` to what `compact` was made of: a key
    that stands twice would be missing. Compact JSON is asked for first, then the
    spelling of `json.dumps` and of PostgreSQL's jsonb, then any other; other
    escapes or numbers than ours count as different.
    """
    return (
        compact == data
        or _format(compact, indent=0) == data
        or _format(compact, indent=-1) == _format(data, indent=-1)
    )


def decode_members(data: bytes) -> Members:
    """A JSON object's members, each still bytes; raises `CodecError`.

    Refuses duplicate keys and what is not UTF-8. Nothing below the top level is
    looked at: open a member with `decode` when its value is needed.
    """
    try:
        members = _members_decoder.decode(data)
        if not data.isascii():
            data.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        value = _decode_slowly(data)
        if isinstance(value, dict):
            return cast(Members, value)
        raise CodecError(
            f"the data is a JSON {kind(value)}, and ops work on objects",
            remedy="write this step as a function on data, or wrap the data first",
        ) from error
    compact = _encoder.encode(members)
    if compact != data and not _spells(compact, data):
        _decode_slowly(data)
    return members


def encode(value: Value | Members) -> bytes:
    """A value that came from `decode` or from ops, back to compact UTF-8 JSON.

    For values that user code made, use `encode_checked`.
    """
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise CodecError(
            f"JSON cannot carry this value: {error}", remedy="see `where` for the step that made it"
        ) from error


def encode_lines(values: Sequence[Value | Members]) -> bytes:
    """`encode` for several values at once, each ended by a newline."""
    try:
        return _encoder.encode_lines(values)
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        raise CodecError(
            f"JSON cannot carry one of these values: {error}", remedy="encode them one by one"
        ) from error


def encode_checked(value: object) -> bytes:
    """A value that user code made to JSON; `CodecError` names the member JSON cannot carry.

    NaN and infinities, bytes, sets, dates, keys that are no strings: all refused.
    """
    try:
        _check(value, "")
    except RecursionError as error:
        raise CodecError(
            "the value is nested too deeply, or holds itself", remedy=_PLAIN_VALUES
        ) from error
    return encode(cast(Value, value))


def canonical(value: Value) -> bytes:
    """One spelling per value: keys sorted, no spaces, numbers with their digits."""
    return _canonical_encoder.encode(value)


def same(left: object, right: object) -> bool:
    """JSON equality: numbers by value (1.10 is 1.1), `true` is not 1, lists in order."""
    if isinstance(left, str):
        return left == right
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, float) is not isinstance(right, float):
        return _written(left) == _written(right)
    return left == right


def _written(value: object) -> object:
    """A float as the decimal number that it is written as."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def kind(value: object) -> str:
    """The JSON Schema name of a value's type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, Decimal):  # the exponent is 0 for integers too long for `int`
        return "number" if value.as_tuple().exponent else "integer"
    return "array" if isinstance(value, list | tuple) else "object"


def _check(value: object, path: str) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float | Decimal):
        finite = math.isfinite(value) if isinstance(value, float) else value.is_finite()
        if not finite:
            _refuse(f"{value} is not a JSON number", path)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                _refuse(f"the key {key!r} is not a string", path)
            _check(item, f"{path}.{key}" if path else key)
    else:
        _refuse(f"JSON has no {type(value).__name__}", path)


def _refuse(what: str, path: str) -> Never:
    raise CodecError(
        what,
        where=Where(path=path or None),
        remedy=_PLAIN_VALUES,
    )


_PLAIN_VALUES = "let the step return only null, booleans, finite numbers, text, lists and dicts"
