"""Named conversions of one value: what a `convert` op applies, each with its way back.

A conversion refuses (`OpError`) what it could not take back, so that those
called exact are exact: `text_to_integer` takes "7", not "007".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.errors import CodecError, OpError

Change = Callable[[Value], Value]


@dataclass(frozen=True, slots=True)
class Conversion:
    """One value into another, and back.

    `forward` and `back` are pure; they raise `ValueError` (with a reason) for a
    value they cannot convert. `exact` claims `back(forward(x)) == x` for every x
    that `forward` accepts. `before` and `after` are JSON Schemas of the value.
    Null and absent members are left alone by the op, not by the conversion.
    """

    name: str
    forward: Change
    back: Change | None
    exact: bool
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def apply(self, value: Value) -> Value:
        """`forward`, with `OpError` for what it refuses."""
        try:
            return self.forward(value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise OpError(
                f"{self.name} cannot convert {_short(value)}: {error}",
                remedy="handle such values first (map_values, when), or write a function",
            ) from error

    def inverse(self) -> Conversion | None:
        """The conversion back, or None."""
        if self.back is None:
            return None
        return Conversion(
            name=self.name.removesuffix(" (back)")
            if self.name.endswith(" (back)")
            else f"{self.name} (back)",
            forward=self.back,
            back=self.forward,
            exact=self.exact,
            before=self.after,
            after=self.before,
        )

    def fingerprint(self) -> str:
        """By name for eventmig's own conversions, by code for a user's."""
        if self.name.removesuffix(" (back)") in NAMED:
            return self.name
        parts = [fingerprint.of_function(f) for f in (self.forward, self.back) if f]
        return fingerprint.of_value([self.name, self.exact, *parts])


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is of type {codec.kind(value)}, not string")
    return value


_in_plain_digits = re.compile(r"-?(0|[1-9][0-9]*)\Z").match
_DIGITS_OF_INT64 = 19


def _text_to_integer(value: Value) -> Value:
    text = _text(value)
    if not _in_plain_digits(text) or text == "-0":
        raise ValueError("it is not an integer in plain digits")
    return int(text) if len(text) < _DIGITS_OF_INT64 else codec.decode(text.encode())


def _integer_to_text(value: Value) -> Value:
    if codec.kind(value) != "integer":
        raise ValueError(f"it is of type {codec.kind(value)}, not integer")
    return codec.encode(value).decode()


def _text_to_number(value: Value) -> Value:
    text = _text(value)
    try:
        number = codec.decode(text.encode())
    except CodecError as error:
        raise ValueError("it is not a JSON number") from error
    if codec.kind(number) not in {"integer", "number"} or codec.encode(number) != text.encode():
        raise ValueError("it is not a number in JSON's spelling")
    return number


def _number_to_text(value: Value) -> Value:
    if codec.kind(value) not in {"integer", "number"}:
        raise ValueError(f"it is of type {codec.kind(value)}, not number")
    return codec.encode(value).decode()


def _json_text_to_value(value: Value) -> Value:
    text = _text(value)
    try:
        inner = codec.decode(text.encode())
    except CodecError as error:
        raise ValueError("it is not JSON text") from error
    if codec.encode(inner) != text.encode():
        raise ValueError("its JSON is not compact, and its spelling would be lost")
    return inner


def _value_to_json_text(value: Value) -> Value:
    return codec.encode(value).decode()


_TIME = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?)?"
    r"\s*(Z|[+-]\d\d(?::?\d\d)?)?\Z",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time(text: str) -> datetime:
    """An ISO-like time with any offset as an aware UTC datetime; no offset means UTC.

    Also takes `2012/03/10 22:00:00 -0800`. Raises `ValueError`.
    """
    found = _TIME.match(text.strip())
    if not found:
        raise ValueError("it is not a date and time such as 2012-03-10T22:00:00-08:00")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), tzinfo=UTC)
    moment += timedelta(
        seconds=int(second or 0), microseconds=int(((fraction or "") + "000000")[:6])
    )
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment += -offset if zone[0] == "+" else offset
    return moment


def _time_to_utc_text(value: Value) -> Value:
    moment = parse_time(_text(value)).replace(microsecond=0)
    return moment.isoformat(sep=" ").removesuffix("+00:00")


def _time_to_iso(value: Value) -> Value:
    moment = parse_time(_text(value))
    return moment.isoformat().replace("+00:00", "Z")


def _time_to_epoch_seconds(value: Value) -> Value:
    text = _text(value)
    seconds = (parse_time(text) - _EPOCH) // timedelta(seconds=1)
    if _epoch_seconds_to_time(seconds) != text:
        raise ValueError("only times like 2026-01-31T12:00:00Z can be taken back exactly")
    return seconds


def _epoch_seconds_to_time(value: Value) -> Value:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"it is of type {codec.kind(value)}, not integer")
    # Not strftime: its %Y has no leading zeros on some systems.
    return (_EPOCH + timedelta(seconds=value)).isoformat().replace("+00:00", "Z")


_with_two_places = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]{2}\Z").match


def _text_to_hundredths(value: Value) -> Value:
    text = _text(value)
    if not _with_two_places(text) or text == "-0.00":
        raise ValueError('it is not an amount with two decimals such as "12.50"')
    return int(text.replace(".", ""))


def _hundredths_to_text(value: Value) -> Value:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"it is of type {codec.kind(value)}, not integer")
    sign = "-" if value < 0 else ""
    return f"{sign}{abs(value) // 100}.{abs(value) % 100:02d}"


def _number_to_hundredths(value: Value) -> Value:
    if codec.kind(value) not in {"integer", "number"}:
        raise ValueError(f"it is of type {codec.kind(value)}, not number")
    number = Decimal(codec.encode(value).decode())
    if number.adjusted() > _MOST_DIGITS or int(number.as_tuple().exponent) < -_MOST_DIGITS:
        raise ValueError("it has too many digits for an amount")
    cents = Fraction(number) * 100  # not Decimal, whose product is rounded to 28 digits
    if cents.denominator != 1:
        raise ValueError("it has more than two decimals")
    return cents.numerator


_MOST_DIGITS = 1_000


def _hundredths_to_number(value: Value) -> Value:
    return _text_to_number(_hundredths_to_text(value))


def _boolean_to_text(value: Value) -> Value:
    if not isinstance(value, bool):
        raise ValueError(f"it is of type {codec.kind(value)}, not boolean")
    return "true" if value else "false"


def _text_to_boolean(value: Value) -> Value:
    text = _text(value)
    if text not in {"true", "false"}:
        raise ValueError('it is neither "true" nor "false"')
    return text == "true"


def _lower(value: Value) -> Value:
    return _text(value).lower()


def _capitalise(value: Value) -> Value:
    return _text(value).capitalize()


def _strip(value: Value) -> Value:
    return _text(value).strip()


_S, _I, _N, _B = ("string",), ("integer",), ("number",), ("boolean",)

NAMED: dict[str, Conversion] = {
    c.name: c
    for c in (
        Conversion("text_to_integer", _text_to_integer, _integer_to_text, True, _S, _I),
        Conversion("integer_to_text", _integer_to_text, _text_to_integer, True, _I, _S),
        Conversion("text_to_number", _text_to_number, _number_to_text, True, _S, _N),
        Conversion("number_to_text", _number_to_text, _text_to_number, True, _N, _S),
        Conversion("text_to_boolean", _text_to_boolean, _boolean_to_text, True, _S, _B),
        Conversion("boolean_to_text", _boolean_to_text, _text_to_boolean, True, _B, _S),
        Conversion("text_to_hundredths", _text_to_hundredths, _hundredths_to_text, True, _S, _I),
        Conversion("hundredths_to_text", _hundredths_to_text, _text_to_hundredths, True, _I, _S),
        Conversion(
            "number_to_hundredths", _number_to_hundredths, _hundredths_to_number, False, _N, _I
        ),
        Conversion("json_text_to_value", _json_text_to_value, _value_to_json_text, True, _S, ()),
        Conversion("value_to_json_text", _value_to_json_text, _json_text_to_value, True, (), _S),
        Conversion(
            "time_to_epoch_seconds", _time_to_epoch_seconds, _epoch_seconds_to_time, True, _S, _I
        ),
        Conversion("time_to_utc_text", _time_to_utc_text, None, False, _S, _S),
        Conversion("time_to_iso", _time_to_iso, None, False, _S, _S),
        Conversion("lower", _lower, None, False, _S, _S),
        Conversion("capitalise", _capitalise, None, False, _S, _S),
        Conversion("strip", _strip, None, False, _S, _S),
    )
}
"""eventmig's own conversions by name."""
