"""Throttles: what makes a job wait, and how long it rests. Any one wins, and says why.

The checks are functions without arguments that return the reason to wait, or nothing to
say; what they look at (a file, a query) is theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from eventmig.errors import ConfigError

Check = Callable[[], str]
"""The reason to wait now; empty: go on."""

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def first_reason(checks: Sequence[Check]) -> str:
    """The first reason to wait; empty where no check has one."""
    for check in checks:
        if reason := check():
            return reason
    return ""


def rest_after(worked_s: float, share: float) -> float:
    """How long to rest after so much work, so that work is this share of the time (seconds)."""
    return worked_s * (1 / share - 1)


def while_file(path: Path) -> Check:
    """Wait while this file is there."""
    return lambda: f"the file {path.name} is there" if path.exists() else ""


def outside_hours(hours: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Check:
    """Wait outside of these hours, such as `22:00-06:00` (UTC; the end is exclusive).

    Raises `ConfigError` for what is no such text.
    """
    found = _HOURS.fullmatch(hours)
    if found is None:
        raise ConfigError(
            f"throttle.hours = {hours!r} is no span of hours",
            remedy='write it as "22:00-06:00", in UTC',
        )
    first, last = (int(found[n]) * 60 + int(found[n + 1]) for n in (1, 3))

    def check() -> str:
        moment = now()
        minute = moment.hour * 60 + moment.minute
        inside = first <= minute < last if first <= last else minute >= first or minute < last
        return "" if inside else f"outside of {hours} (UTC)"

    return check


def above(what: str, measure: Callable[[], float], limit: float) -> Check:
    """Wait while a measured value is above a limit."""

    def check() -> str:
        value = measure()
        return f"{what} is {value:g}, above {limit:g}" if value > limit else ""

    return check
