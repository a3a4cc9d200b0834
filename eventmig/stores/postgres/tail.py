"""The safe tail: why `position > last` misses nothing here, and blocks nobody.

Positions come from a sequence, so a lower one can commit after a higher one. A writer
therefore announces, before it takes positions, below what they cannot lie:

    1. it locks the row of the stream (writers of one stream go one after the other);
    2. it reads the sequence's last value L;
    3. it takes a shared advisory lock, to the end of the transaction, whose key holds L;
    4. it takes its positions (all > L, or it refuses to go on) and inserts.

A reader asks, in this order and in statements of their own:

    a. the sequence's last value H;
    b. M, the lowest L among the advisory locks held on these tables (none: H);
    c. only then, in a new snapshot, for rows at positions up to min(H, M).

Any row p <= min(H, M) that is ever committed is seen by c: p was taken before a (p <= H), so
its writer held its lock before a; at b it still holds it (then M <= L < p, against p <= M), or
its transaction had ended, and a commit is visible before its locks are released. The shared
locks never wait for each other, and a transaction that did not write here holds none.

A position that a rolled back writer took stays empty for good. What was handed out but not
yet written to the log can be handed out again after a crash: a head is therefore always the
position of a committed event, never the sequence's.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg

_BITS: Final = 40
_MASK: Final = (1 << _BITS) - 1
_NAMESPACE_MASK: Final = (1 << 24) - 1

LAST_VALUE: Final = "SELECT pg_sequence_last_value(%(sequence)s::bigint::oid::regclass)"

# A key of 64 bits stands in two columns (objsubid 1 tells it from a pair of 32 bits); only
# shared locks, which few others take; the locks of prepared transactions stand here, too.
_LOWER_BOUNDS: Final = """SELECT classid::bigint << 32 | objid::bigint, pid, virtualtransaction
    FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND classid::bigint >> 8 = %(namespace)s"""

_ANNOUNCE: Final = "SELECT pg_advisory_xact_lock_shared(%(key)s)"

Cursor = psycopg.Cursor[Any]


def lock_key(table: int, last: int) -> int:
    """The key that says: a writer to this table (its oid) takes positions above `last`.

    24 bits of the oid, 40 of the position. Should two tables, or somebody else's locks,
    share the 24 bits, a reader waits longer than it must; it never reads too far.
    """
    key = (table & _NAMESPACE_MASK) << _BITS | (last & _MASK)
    return key - (1 << 64) if key >> 63 else key


def lower_bound(key: int, last: int) -> int:
    """What `lock_key` was made of: the position at or below `last` with these 40 bits."""
    return last - ((last - key) & _MASK)


def last_value(cursor: Cursor, sequence: int) -> int:
    """The sequence's last value; 0 before its first."""
    row = cursor.execute(LAST_VALUE, {"sequence": sequence}).fetchone()
    return int(row[0] or 0) if row else 0


def announce(cursor: Cursor, *, table: int, sequence: int) -> int:
    """Steps 2 and 3 of a writer; returns L."""
    last = last_value(cursor, sequence)
    cursor.execute(_ANNOUNCE, {"key": lock_key(table, last)})
    return last


def settled(cursor: Cursor, *, table: int, sequence: int) -> int:
    """Steps a and b of a reader: the position up to which nothing new can appear.

    The connection must be in autocommit, so that what it reads next has a new snapshot.
    """
    last = last_value(cursor, sequence)
    cursor.execute(_LOWER_BOUNDS, {"namespace": table & _NAMESPACE_MASK})
    return min((lower_bound(key, last) for key, *_ in cursor), default=last)


def holder(cursor: Cursor, *, table: int, sequence: int) -> tuple[int, int | None, str] | None:
    """Who keeps readers from going on: the position up to which they may, then the session
    (None: a prepared transaction) and virtual transaction as in `pg_locks`. None: nobody does.
    """
    last = last_value(cursor, sequence)
    cursor.execute(_LOWER_BOUNDS, {"namespace": table & _NAMESPACE_MASK})
    found = [(lower_bound(key, last), pid, virtual) for key, pid, virtual in cursor]
    return min(found, key=lambda one: one[0], default=None)
