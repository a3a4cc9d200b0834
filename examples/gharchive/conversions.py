"""What the published converter does to single values, where eventmig has no conversion for it.

Used by the `convert` ops of `upcasters`. Pure. The converter was a Ruby program; what can be
seen of Ruby here (its white space, its floats, its escapes) is what the unified files show.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from eventmig import ops
from eventmig.codec import Value

_RUBY_SPACE = "\t\n\v\f\r "
_SHA1 = re.compile(r"[0-9a-fA-F]{40}\Z")


def hash_email(value: Value) -> Value:
    """An e-mail address with its local part as SHA-1; what is no address, as SHA-1 altogether.

    Of several `@` the first two cut: what stands between them is the domain. A local part that
    is a SHA-1 already stays.
    """
    if not isinstance(value, str):
        return _sha1(json_text(value))
    address = value.lstrip(_RUBY_SPACE).rstrip(_RUBY_SPACE + "\0")
    if len(address) < 3 or "@" not in address:
        return _sha1(value)
    # Ruby's split leaves out empty parts at the end: "@@@" has none at all.
    local, domain = [*address.rstrip("@").split("@"), ""][:2]
    return value if _SHA1.match(local) else f"{_sha1(local)}@{domain}"


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_ESCAPES = {chr(code): f"\\u{code:04X}" for code in range(0x20)}
_ESCAPES |= {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


def json_text(value: Value) -> str:
    r"""A value as compact JSON text, spelled as the converter spelled it.

    UTF-8 as it is (also U+2028 and U+007F), `/` without a backslash, `\u001B` in capitals,
    floats as Ruby writes them (`1.0e+20`). Digits that a float cannot hold are kept.
    """
    match value:
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case str():
            return _quoted(value)
        case dict():
            return "{" + ",".join(f"{_quoted(k)}:{json_text(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(map(json_text, value)) + "]"
    return _number(value)


def _quoted(text: str) -> str:
    return '"' + _ESCAPED.sub(lambda found: _ESCAPES[found.group()], text) + '"'


def _number(value: int | float | Decimal) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Decimal) and not value.as_tuple().exponent:  # a long integer, or -0
        return str(value) if value else "0"
    number = float(value)
    mantissa, e, exponent = repr(number).partition("e")
    if e and "." not in mantissa:
        mantissa += ".0"
    text = mantissa + e + exponent
    if isinstance(value, Decimal) and Decimal(text) != value:
        return str(value)
    return text


_TIME = re.compile(
    r"\s*(\d{4})[-/](\d\d?)[-/](\d\d?)(?:[T ]\s*(\d\d?):(\d\d)(?::(\d\d)(?:[.,]\d+)?)?)?"
    r"\s*(?:(Z|UTC|GMT)|([+-])(\d\d):?(\d\d)?)?\s*\Z",
    re.IGNORECASE,
)


def github_time(value: Value) -> Value:
    """A time in any spelling the archive has, as UTC: `2012-03-11 06:00:00`.

    Beside what eventmig's `time_to_utc_text` takes: `UTC` and `GMT`, months of one digit, times
    without seconds, and numbers (seconds since 1970). No offset means UTC; fractions are cut.
    Raises `ValueError` for anything else.
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _as_text(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(value)))
    found = _TIME.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("it is not a date and time such as 2012-03-10T22:00:00-08:00")
    year, month, day, hour, minute, second, _, sign, hours, minutes = found.groups()
    moment = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), tzinfo=UTC)
    moment += timedelta(seconds=int(second or 0))  # 60 in a leap second
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    return _as_text(moment + offset if sign == "-" else moment - offset)


def _as_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


HASH_EMAIL = ops.conversion("gharchive_hash_email", hash_email)
JSON_TEXT = ops.conversion("gharchive_json_text", json_text)
UTC_TEXT = ops.conversion("gharchive_time_to_utc_text", github_time)

NO_EMAIL = _sha1("")
"""What stands for a missing e-mail address: the SHA-1 of the empty text."""
