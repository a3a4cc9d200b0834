"""What a store object remembers of streams between its write transactions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

NAMES_KEPT: Final = 200_000
_UNKNOWN: Final = -1


class StreamCache:
    """Keys of streams by name, last positions by key.

    Bounded: at most about 200,000 names of either kind; a head costs 8 bytes a
    stream. Emptied whenever a transaction was undone, and when `data_version` is another: what
    another connection committed may change it (SQLite), or it is of other tables (PostgreSQL).
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.ids: dict[str, int] = {}
        self.origin_ids: dict[str, int] = {}
        self.data_version = _UNKNOWN
        self.forget_heads()

    def forget_heads(self) -> None:
        """Forget the last positions: streams grew, or may have, without being looked at."""
        self.heads = array("q")
        self.all_heads_known = False

    def set_heads(self, stream_ids: Sequence[int], positions: Sequence[int]) -> None:
        """Note the last positions of streams, by key; of a key given twice, the later one."""
        known = self.heads
        missing = max(stream_ids, default=0) + 1 - len(known)
        if missing > 0:
            known.extend([_UNKNOWN] * missing)
        for key, position in zip(stream_ids, positions, strict=True):
            known[key] = position

    def unknown_heads(self, stream_ids: Sequence[int]) -> list[int]:
        """Those of these streams whose last positions are not known."""
        known = self.heads
        if max(stream_ids, default=0) < len(known):
            return [key for key in stream_ids if known[key] == _UNKNOWN]
        count = len(known)
        return [key for key in stream_ids if key >= count or known[key] == _UNKNOWN]
