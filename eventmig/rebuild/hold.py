"""One rebuild of a read model or aggregate at a time.

Two locks, because either alone is not enough:

- a *session lock*, which the system releases when the process dies, so that a
  killed rebuild never stays "running": a lock file beside a SQLite file, an
  advisory lock on PostgreSQL. A second rebuild is refused at once.
- the *epoch* in the bookkeeping, checked by every transaction: where the session
  lock was lost (a dropped connection, a network file system that does not lock),
  the older process cannot write once the newer one has begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout
from sqlalchemy import Engine, text

from eventmig.errors import JobLockedError
from eventmig.rebuild.bookkeeping import Kind


@contextmanager
def held(engine: Engine, kind: Kind, names: Collection[str], task: str = "") -> Iterator[None]:
    """Hold the session locks of these subjects: for rebuilding them, or for another task.

    Raises `JobLockedError` at once when another process or thread holds one. A
    database in memory belongs to one process and has no session lock.
    """
    with ExitStack() as stack:
        for name in sorted(names):
            if engine.dialect.name == "postgresql":
                stack.enter_context(_advisory(engine, kind, name, task))
            elif (path := _file(engine)) is not None:
                stack.enter_context(_beside(path, kind, name, task))
        yield


def _file(engine: Engine) -> str | None:
    """The file of a SQLite database; None for one in memory."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("PRAGMA database_list")
        return next((str(row[2]) for row in rows if row[1] == "main" and row[2]), None)


@contextmanager
def _beside(path: str, kind: Kind, name: str, task: str) -> Iterator[None]:
    lock = FileLock(f"{path}.{_digest(kind, name, task)}.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise _refused(kind, name, task) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory(engine: Engine, kind: Kind, name: str, task: str) -> Iterator[None]:
    number = int(_digest(kind, name, task), 16) - (1 << 63)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        query = text("SELECT pg_try_advisory_lock(:number)")
        if not connection.execute(query, {"number": number}).scalar_one():
            raise _refused(kind, name, task)
        try:
            yield
        finally:
            if not connection.invalidated:
                connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})


def _digest(kind: Kind, name: str, task: str) -> str:
    parts = ["eventmig", kind.value, name, *filter(None, [task])]
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def _refused(kind: Kind, name: str, task: str) -> JobLockedError:
    return JobLockedError(
        f"the {kind.value.replace('_', ' ')} {name} is being {task or 'rebuilt'} by another "
        "process",
        remedy="wait for it to end (a killed one holds nothing), then run this command again",
    )
