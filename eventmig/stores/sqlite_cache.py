"""What a store object remembers of streams between its write transactions."""

from __future__ import annotations

from array import array
from typing import Final

from eventmig.stores.sqlite_schema import FIRST_POSITION

NAMES_KEPT: Final = 200_000
_UNKNOWN: Final = -1


class StreamCache:
    """Keys of streams by name, last positions by key.

    Bounded: at most about 200,000 names of either kind; a head costs 8 bytes a
    stream. Emptied whenever another connection committed (`data_version`) or a
    transaction was undone.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.ids: dict[str, int] = {}
        self.origin_ids: dict[str, int] = {}
        self.heads = array("q")
        self.all_heads_known = False
        self.data_version = _UNKNOWN

    def set_heads(self, heads: dict[int, int]) -> None:
        """Note the last positions of streams, by key."""
        known = self.heads
        missing = max(heads, default=0) + 1 - len(known)
        if missing > 0:
            known.extend([_UNKNOWN] * missing)
        for key, position in heads.items():
            known[key] = position

    def head(self, stream_id: int) -> int | None:
        """A stream's last position, or None where it is not known."""
        if stream_id < len(self.heads) and self.heads[stream_id] != _UNKNOWN:
            return self.heads[stream_id]
        return FIRST_POSITION - 1 if self.all_heads_known else None
