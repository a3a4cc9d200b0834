r"""What a text, `json` or `jsonb` column would refuse or change, named by event and member.

`jsonb` stores values, not text: it drops key order and spaces (which JSON gives no meaning),
but also all but one of the members that share a name, and the sign of -0.0; it refuses
\u0000, lone surrogates and numbers its `numeric` cannot hold. `json` keeps the text and
refuses only what is no JSON. The server finds what it refuses; what it would change is looked
for here, before a batch is sent. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec

# -0, -0.0, -0e5 and the like; a match may lie inside a string, a miss is sure.
_MINUS_ZERO: Final = re.compile(rb"-0(?:\.0*)?(?:[eE][-+]?[0-9]+)?\s*(?:[,\]}\n]|\Z)")

# A number with one of four digits or more; a match may lie inside a string, a miss is sure.
_LONG_EXPONENT: Final = re.compile(rb"(?:[\[:,\s]|\A)-?[0-9.]+[eE][-+]?[0-9]{4}")

_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)
_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_format: Final = msgspec.json.format

# numeric's limits (postgresql.org/docs, 8.1.2): digits before and after the point.
_WHOLE_DIGITS: Final = 131_072
_FRACTION_DIGITS: Final = 16_383

_Members: TypeAlias = "list[tuple[str, object]]"


def storable(name: str) -> bool:
    """Whether PostgreSQL's text could hold this: no NUL, no lone surrogate."""
    return "\0" not in name and name.encode(errors="replace").decode() == name


class _Object:
    """An object with all its members, also those that share a name."""

    def __init__(self, pairs: _Members) -> None:
        self.pairs = pairs


class _Constant(str):
    """NaN, Infinity: what Python's parser takes and JSON does not know."""

    __slots__ = ()


def compact(text: bytes) -> bytes:
    """What `jsonb` prints without the spaces it puts between tokens: most events of a type then
    have one spelling, whichever store they come from.
    """
    return _format(text, indent=-1)


def signed_zeros(data: Sequence[bytes]) -> bool:
    """Whether `jsonb` would change one of these texts that have no key twice in an object."""
    if _MINUS_ZERO.search(b"\n".join(data)) is None:
        return False
    return any(_MINUS_ZERO.search(text) and misfit(text, binary=True) for text in data)


def changed_by_jsonb(data: Sequence[bytes], joined: bytes) -> int | None:
    """The index of the first text that `jsonb` would silently change (or refuse), or None.

    What it would only refuse need not be found. `joined` is the texts, a newline after each.
    """
    signed = _MINUS_ZERO.search(joined) is not None
    for index, text in enumerate(data):
        suspect = _may_change(text) or (signed and _MINUS_ZERO.search(text))
        if suspect and misfit(text, binary=True):
            return index
    return None


def _may_change(text: bytes) -> bool:
    """Whether a member could be lost; no is sure.

    A text that is only its own value spelled again, but for spaces, has every name once in
    its object. Other spellings (escapes, exponents) are looked at member by member.
    """
    try:
        spelled = _encoder.encode(_decoder.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return True
    if spelled == text or _format(spelled, indent=0) == text:  # as `jsonb` has it
        return False
    try:
        json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return True
    return False


def _once(pairs: _Members) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError


def fits_jsonb(text: bytes) -> bool:
    """Whether a `jsonb` column takes this text and hands its values back: no `misfit`."""
    return _is_plain(text) or misfit(text, binary=True) is None


def _is_plain(text: bytes) -> bool:
    """Whether it is sure at a glance that nothing in a text is a misfit.

    Each name stands once (see `_may_change`); a number that `numeric` cannot hold is longer,
    or has a long exponent; NUL and halves of surrogate pairs are spelled as escapes.
    """
    if len(text) > _FRACTION_DIGITS - 1_000 or b"\\u" in text:
        return False
    if _LONG_EXPONENT.search(text) or _MINUS_ZERO.search(text):
        return False
    try:
        spelled = _encoder.encode(_decoder.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return spelled == text or _format(spelled, indent=0) == text


def misfit(text: bytes, *, binary: bool) -> tuple[str, str] | None:
    """The first member that a column of type `json` (`binary`: `jsonb`) cannot hold as it is:
    its path ("" for the whole text) and what is wrong. None where nothing is found.
    """
    try:
        value = json.loads(
            text.decode(),
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=_Constant,
            object_pairs_hook=_Object,
        )
        return next(_misfits(value, binary=binary), None)
    except RecursionError:
        return "", "is nested too deeply"
    except ValueError as error:
        return "", f"is no JSON ({error})"


def _misfits(value: object, path: str = "", *, binary: bool) -> Iterator[tuple[str, str]]:
    """Everything in a value that does not fit, in order."""
    if isinstance(value, _Constant):
        yield path, f"is no JSON number ({value})"
    elif isinstance(value, str):
        if binary and (what := _text(value)):
            yield path, f"holds {what}"
    elif isinstance(value, Decimal):
        if binary and not value and value.is_signed():
            yield path, "is -0, which would lose its sign"
        elif binary and _too_long(value):
            yield path, "has more digits than PostgreSQL's `numeric` holds"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _misfits(item, f"{path}[{index}]", binary=binary)
    elif isinstance(value, _Object):
        seen: set[str] = set()
        for name, item in value.pairs:
            place = f"{path}.{name}" if path else name
            if binary and (what := _text(name)):
                yield ascii(place)[1:-1], f"has {what} in its name"
            if binary and name in seen:
                yield place, "stands twice in one object, and one of the two would be lost"
            seen.add(name)
            yield from _misfits(item, place, binary=binary)


def _text(value: str) -> str:
    if "\0" in value:
        return "\\u0000 (NUL)"
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        return "a lone surrogate (half of a UTF-16 pair)"
    return ""


def _too_long(number: Decimal) -> bool:
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return len(digits) + exponent > _WHOLE_DIGITS or -exponent > _FRACTION_DIGITS
