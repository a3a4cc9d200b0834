"""What the shop's models share: their strictness, and the few spellings of old releases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from msgspec import Meta, Struct
from pydantic import Field

from eventmig import ops


class Data(Struct, frozen=True, forbid_unknown_fields=True):
    """The data of one event version. A member that no model names is an error, never lost.

    `x: str | UnsetType = UNSET` is a member that may be missing, which is not the
    same as null.
    """


# `Meta` is msgspec's, `Field` is pydantic's: each reads its own.
_AMOUNT = r"^(0|[1-9][0-9]{0,6})\.[0-9]{2}$"
OldAmount = Annotated[str, Meta(pattern=_AMOUNT), Field(pattern=_AMOUNT)]
"""Money as the first releases wrote it: "12.50". Today it is a number of cents."""

_YEAR_2100 = 4_102_444_800
OldTime = Annotated[int, Meta(ge=0, lt=_YEAR_2100), Field(ge=0, lt=_YEAR_2100)]
"""Seconds since 1970-01-01, UTC. Today a time is text: "2021-03-10T21:00:00Z"."""

OldCount = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,2}$")]
"""A count as text, straight from the web form: "2"."""


def _time(seconds: Any) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(time: Any) -> int:
    return int(datetime.fromisoformat(time).timestamp())


seconds_to_time = ops.conversion("seconds_to_time", _time, _seconds, exact=True)
"""An `OldTime` as text, and back."""

basket_not_cart = ops.rename("cart_id", "basket_id")
"""The shop says basket where the first releases said cart. Used by every basket event."""
