"""Conditions and named conversions as SQL; see `ops.sql`. Pure."""

from __future__ import annotations

from collections.abc import Callable

from eventmig.conditions import (
    AllOf,
    AnyOf,
    Condition,
    Contains,
    IsKind,
    Not,
    OneOf,
    Present,
    StartsWith,
)
from eventmig.constants import Constant
from eventmig.conversions import NAMED, Conversion
from eventmig.ops.sql_dialect import Dialect, NoSql, both, case, either


def condition(asked: Condition, data: str, sql: Dialect) -> str:
    """Whether a condition holds for the data; NULL where SQL cannot tell."""
    match asked:
        case Present(path):
            return f"({sql.get(data, path)} IS NOT NULL)"
        case OneOf(path, values):
            found = sql.get(data, path)
            return both(f"{found} IS NOT NULL", _any_of(found, values, sql))
        case Contains(path, values, key):
            found = sql.get(data, path)
            below = () if key is None else (key,)

            def wanted(item: str) -> str:
                member = sql.get(item, below)
                return both(f"{member} IS NOT NULL", _any_of(member, values, sql))

            return case(
                (f"{found} IS NULL", "(1 = 0)"),
                (sql.is_kind(found, "array"), sql.some(found, wanted)),
                otherwise="(1 = 0)",
            )
        case StartsWith(path, prefix):
            found = sql.get(data, path)
            start = sql.string(prefix)
            text = sql.text(found)
            return case(
                (f"{found} IS NULL", "(1 = 0)"),
                (
                    sql.is_kind(found, "string"),
                    f"substr({text}, 1, length({start})) = {start}",
                ),
                otherwise="(1 = 0)",
            )
        case IsKind(path, kind):
            found = sql.get(data, path)
            return both(f"{found} IS NOT NULL", sql.is_kind(found, kind))
        case Not(inner):
            return f"(NOT {condition(inner, data, sql)})"
        case AllOf(inner):
            return both(*(condition(one, data, sql) for one in inner))
        case AnyOf(inner):
            return either(*(condition(one, data, sql) for one in inner))


def _any_of(found: str, values: tuple[Constant, ...], sql: Dialect) -> str:
    return either(*(sql.same(found, value) for value in values))


def conversion(wanted: Conversion, value: str, sql: Dialect) -> str:
    """What a conversion makes of a value that is there and not null; NULL where it must not.

    Raises `NoSql` for conversions that databases do not know.
    """
    if wanted.name in _CONVERSIONS and wanted == NAMED[wanted.name]:
        return _CONVERSIONS[wanted.name](value, sql)
    back = wanted.inverse()
    if back is not None and back.name in _BACK and back == NAMED[back.name]:
        return _CONVERSIONS[_BACK[back.name]](value, sql)
    if wanted.name.removesuffix(" (back)") in NAMED:
        raise NoSql(f"the conversion {wanted.name} is not known in SQL")
    raise NoSql(f"the conversion {wanted.name} is a function of yours")


def _of_text(value: str, sql: Dialect, change: Callable[[str], str]) -> str:
    """`change` of the text of a value; NULL where it is no string."""
    return case((sql.is_kind(value, "string"), sql.let(sql.text(value), change)))


def guarded(wanted: Conversion, value: str, sql: Dialect) -> tuple[str, str] | None:
    """Where a conversion can be done, and what it makes there; None: `conversion` says both."""
    texts = _OF_TEXT.get(wanted.name)
    if texts is None or wanted != NAMED[wanted.name]:
        return None
    fits, made = texts(sql)
    text = sql.text(value)
    return both(sql.is_kind(value, "string"), fits(text)), made(text)


def _fitting(name: str) -> Callable[[str, Dialect], str]:
    def convert(value: str, sql: Dialect) -> str:
        fits, made = _OF_TEXT[name](sql)
        return _of_text(value, sql, lambda t: case((fits(t), made(t))))

    return convert


TextChange = tuple[Callable[[str], str], Callable[[str], str]]
"""Which texts fit, and what becomes of them."""

_OF_TEXT: dict[str, Callable[[Dialect], TextChange]] = {
    "text_to_integer": lambda sql: (sql.plain_integer, sql.from_digits),
    "text_to_number": lambda sql: (sql.plain_number, sql.from_digits),
    "text_to_hundredths": lambda sql: (sql.is_hundredths, sql.hundredths_of_text),
}


def _integer_to_text(value: str, sql: Dialect) -> str:
    digits = sql.digits(value)
    return case((both(sql.is_kind(value, "integer")), sql.from_text(digits)))


def _of_number(value: str, sql: Dialect, change: Callable[[str], str]) -> str:
    """`change` of a number's plain text; NULL where it is no number, or not written plainly."""
    return case(
        (
            sql.is_kind(value, "number"),
            sql.let(sql.digits(value), lambda t: case((sql.plain_number(t), change(t)))),
        )
    )


def _number_to_text(value: str, sql: Dialect) -> str:
    return _of_number(value, sql, sql.from_text)


def _text_to_boolean(value: str, sql: Dialect) -> str:
    true, false = Constant.of(True), Constant.of(False)
    return _of_text(
        value,
        sql,
        lambda t: case(
            (f"{t} = 'true'", sql.constant(true)), (f"{t} = 'false'", sql.constant(false))
        ),
    )


def _boolean_to_text(value: str, sql: Dialect) -> str:
    return case(
        (sql.same(value, Constant.of(True)), sql.constant(Constant.of("true"))),
        (sql.same(value, Constant.of(False)), sql.constant(Constant.of("false"))),
    )


def _hundredths_to_text(value: str, sql: Dialect) -> str:
    text = sql.from_hundredths(sql.digits(value))
    return case(
        (
            sql.is_kind(value, "integer"),
            sql.let(text, lambda t: case((f"{t} IS NOT NULL", sql.from_text(t)))),
        )
    )


def _number_to_hundredths(value: str, sql: Dialect) -> str:
    return _of_number(value, sql, sql.hundredths_of_number)


def _hundredths_to_number(value: str, sql: Dialect) -> str:
    text = sql.from_hundredths(sql.digits(value))
    return case((sql.is_kind(value, "integer"), sql.let(text, sql.from_digits)))


def _lower(value: str, sql: Dialect) -> str:
    return _of_text(value, sql, lambda t: case((sql.is_ascii(t), sql.from_text(f"lower({t})"))))


def _capitalise(value: str, sql: Dialect) -> str:
    def change(text: str) -> str:
        made = f"upper(substr({text}, 1, 1)) || lower(substr({text}, 2))"
        return case((sql.is_ascii(text), sql.from_text(f"({made})")))

    return _of_text(value, sql, change)


def _strip(value: str, sql: Dialect) -> str:
    return _of_text(value, sql, lambda t: sql.from_text(sql.trim(t)))


_CONVERSIONS: dict[str, Callable[[str, Dialect], str]] = {
    **{name: _fitting(name) for name in _OF_TEXT},
    "integer_to_text": _integer_to_text,
    "number_to_text": _number_to_text,
    "text_to_boolean": _text_to_boolean,
    "boolean_to_text": _boolean_to_text,
    "hundredths_to_text": _hundredths_to_text,
    "number_to_hundredths": _number_to_hundredths,
    "hundredths_to_number": _hundredths_to_number,
    "lower": _lower,
    "capitalise": _capitalise,
    "strip": _strip,
}
"""Those that databases know; `hundredths_to_number` is the way back of `number_to_hundredths`."""

_BACK = {
    "text_to_integer": "integer_to_text",
    "integer_to_text": "text_to_integer",
    "text_to_number": "number_to_text",
    "number_to_text": "text_to_number",
    "text_to_boolean": "boolean_to_text",
    "boolean_to_text": "text_to_boolean",
    "text_to_hundredths": "hundredths_to_text",
    "hundredths_to_text": "text_to_hundredths",
    "number_to_hundredths": "hundredths_to_number",
}
"""Which conversion is the way back of which."""

KNOWN = tuple(name for name in NAMED if name in _CONVERSIONS)
"""The conversions that a database can do, by name."""
