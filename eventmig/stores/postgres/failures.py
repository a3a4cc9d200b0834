"""PostgreSQL's errors as eventmig's: the one place where they are told apart.

By SQLSTATE (postgresql.org/docs, appendix A), never by message text, which the server
translates. An error with no rule here passes unchanged: it is a bug, not a state of the
store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError

from eventmig.errors import (
    DataError,
    EventmigError,
    FencedError,
    ReadOnlyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    Where,
)
from eventmig.stores import fences
from eventmig.stores.postgres.location import Location

_Rule = tuple[type[EventmigError], str, str]

_GONE: Final[_Rule] = (
    StoreUnavailableError,
    "the connection to the server was lost",
    "see that the server runs, then run the same command again: what was committed is kept, "
    "what was not is done anew",
)
_BUSY: Final[_Rule] = (
    StoreError,
    "another transaction was in the way",
    "let the other writer finish (nothing of the batch was kept), then run it again",
)
_OTHER_TABLES: Final[_Rule] = (
    StoreDamagedError,
    "the tables are not as eventmig makes them",
    "restore them from a backup, or name the schema and tables of the store (?schema=…&tables=…)",
)

# By whole SQLSTATE first, then by its class (the first two characters).
_RULES: Final[dict[str, _Rule]] = {
    "08": _GONE,
    "25P03": _GONE,  # idle_in_transaction_session_timeout
    "57P01": _GONE,
    "57P02": _GONE,
    "57P03": _GONE,
    "57P05": _GONE,
    "53": (
        StoreUnavailableError,
        "the server has too little memory or too few connections",
        "give it more, or stop what else uses it (nothing of the batch was kept), then run it "
        "again",
    ),
    "53100": (
        StoreFullError,
        "there is no room left for the store on the server's disk",
        "free some space there (nothing of the batch was kept), then run it again",
    ),
    "42501": (
        StoreError,
        "this user lacks a privilege",
        "grant it (the page on PostgreSQL lists what is needed), or name another user",
    ),
    "25006": (
        ReadOnlyError,
        "the server takes no writes here: it is a replica, or the session is read-only",
        "name the primary server (target_session_attrs=read-write finds it among several hosts)",
    ),
    "57014": (
        StoreError,
        "the server cancelled a statement: a statement_timeout, or an administrator",
        "raise the limit for this user (ALTER ROLE … SET statement_timeout), or make batches "
        "smaller; nothing of the batch was kept, the same command resumes",
    ),
    "55P03": _BUSY,
    "40": _BUSY,
    "42P01": _OTHER_TABLES,
    "42703": _OTHER_TABLES,
    "42804": _OTHER_TABLES,
    "42846": _OTHER_TABLES,
    "42883": _OTHER_TABLES,
    "3F000": _OTHER_TABLES,
    fences.SQLSTATE: (
        FencedError,
        fences.WHAT,
        "ask again which side is live (`eventmig.live`), and append there",
    ),
    "XX001": (
        StoreDamagedError,
        "the server finds its files damaged",
        "restore the database from a backup",
    ),
    "XX002": (
        StoreDamagedError,
        "the server finds an index damaged",
        "rebuild the index (REINDEX), and find out what damaged it",
    ),
    "58": (
        StoreError,
        "the server could not read or write its files",
        "check its disk (nothing of the batch was kept), then run it again",
    ),
    "54": (
        DataError,
        "an event is larger, or nested deeper, than PostgreSQL can hold",
        "keep such data outside of the event and store a reference to it",
    ),
}


def from_driver(error: psycopg.Error, location: Location) -> EventmigError | None:
    """What a driver's error means for this store, or None where no rule knows it."""
    state = error.sqlstate
    if state is not None:
        rule = _RULES.get(state) or _RULES.get(state[:2])
    else:  # made by the client: it has no server any more, or it was used wrongly
        rule = _GONE if isinstance(error, psycopg.OperationalError) else None
    if rule is None:
        return None
    kind, what, remedy = rule
    said = error.diag.message_primary or str(error)
    return kind(
        f"{what} ({location.scrubbed(said)})", where=Where(store=location.url), remedy=remedy
    )


@contextmanager
def translated(location: Location) -> Iterator[None]:
    """Raise the store's errors in place of the driver's and SQLAlchemy's inside the block."""
    try:
        yield
    except psycopg.Error as error:
        meant = from_driver(error, location)
        if meant is None:
            raise
        raise meant from error
    except DBAPIError as error:
        meant = from_driver(error.orig, location) if isinstance(error.orig, psycopg.Error) else None
        if meant is None:
            raise
        raise meant from error
