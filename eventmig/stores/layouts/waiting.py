"""Waiting for a lock on a server so that it can be asked afterwards who has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

NOT_GIVEN: Final = "55P03"
"""SQLSTATE `lock_not_available` (PostgreSQL manual, appendix A)."""


class NotGivenError(Exception):
    """A lock was not given within the connection's `lock_timeout`; the cause is the driver's."""


@contextmanager
def waiting(connection: Connection) -> Iterator[None]:
    """Raise `NotGivenError` where the block waits too long; the transaction goes on then.

    The block runs in a savepoint. What it locks is held until the transaction ends.
    """
    try:
        with connection.begin_nested():
            yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != NOT_GIVEN:
            raise
        raise NotGivenError from error
