"""Which events of a described store are opaque: their payload is not what the layout says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from eventmig.errors import DataError, StoreDamagedError
from eventmig.stores.base import EventReader

_AT_ONCE: Final = 200  # events read at a time
_SHOWN: Final = 20


def opaque(
    reader: EventReader, after: int, until: int, *, at_most: int
) -> Iterator[StoreDamagedError]:
    """Those of the first `at_most` events in these positions; no more than 20. Reads only.

    `after` is exclusive, `until` inclusive.
    """
    found = tried = 0
    while after < until and found < _SHOWN and tried < at_most:
        size = min(at_most - tried, _AT_ONCE)
        try:
            page = next(reader.read_pages(after=after, until=until, batch_size=size), None)
        except DataError as error:
            found += 1
            yield StoreDamagedError(error.what, where=error.where, remedy=error.remedy)
            after = max(after + 1, error.where.global_position or until)
        else:
            if page is None:
                return
            tried += len(page.ids)
            after = page.global_positions[-1]
