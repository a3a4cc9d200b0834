"""A store by its URL: the one place that knows which adapter a scheme means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from eventmig.errors import ConfigError, Where
from eventmig.stores.base import Mode
from eventmig.stores.engines import create_engine
from eventmig.stores.kurrent import url as kurrent_url
from eventmig.stores.layouts import OPTION, LayoutStore, open_layout
from eventmig.stores.sqlite.file import OPTIONS as SQLITE_OPTIONS
from eventmig.stores.sqlite.file import locate as locate_sqlite
from eventmig.stores.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from eventmig.stores.kurrent.store import KurrentStore
    from eventmig.stores.postgres.store import PostgresStore

_SQLITE = ("sqlite", "sqlite+pysqlite")
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


AnyStore: TypeAlias = "SqliteStore | PostgresStore | KurrentStore | LayoutStore"


def open_store(url: str, *, mode: Mode = "read") -> AnyStore:
    """Open the store a URL names; with the option `layout`, somebody else's tables.

    "read" and "write" need it to exist and never create anything; "create" makes
    what is missing (file, schema, tables). Raises `ConfigError` for a URL that names no
    kind of store or one whose driver is not installed, and what the store raises when it
    is opened.
    """
    if kurrent_url.is_kurrent(url):
        from eventmig.stores.kurrent.store import KurrentStore  # its driver is an extra

        return KurrentStore(kurrent_url.locate(url), mode=mode)
    described = _described(url)
    if described is not None:
        return open_layout(described, mode=mode)
    parsed = parse_url(url)
    if parsed.drivername in _SQLITE:
        return SqliteStore(locate_sqlite(parsed), mode=mode)
    with _driver_needed(parsed):
        from eventmig.stores.postgres.location import locate
        from eventmig.stores.postgres.store import PostgresStore
    return PostgresStore(locate(parsed), mode=mode)


def open_engine(url: str) -> Engine:
    """A SQLAlchemy engine for tables of the user's own, where a URL says; connects later.

    On PostgreSQL with `?schema=` as a store takes it. Raises `ConfigError`.
    """
    try:
        parsed = make_url(url)
        if OPTION in parsed.query:  # beside somebody else's events
            parsed = parsed.difference_update_query((OPTION, "table", "release"))
        if parsed.drivername in _SQLITE:  # a store's own options, beside its events
            parsed = parsed.difference_update_query(SQLITE_OPTIONS)
        if parsed.drivername not in _POSTGRES:
            return create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, ImportError) as error:
        raise ConfigError(
            f"this database cannot be used: {error}",
            remedy="write sqlite:///views.db or postgresql://USER@HOST/DATABASE, or install the "
            "driver of that database",
        ) from error
    with _driver_needed(parsed):
        from eventmig.stores.postgres.location import engine_at
    return engine_at(parsed)


@contextmanager
def _driver_needed(url: URL) -> Iterator[None]:
    """An extra is imported only where a URL asks for it."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"the driver of PostgreSQL is not installed ({error})",
            where=Where(store=url.render_as_string(hide_password=True)),
            remedy="pip install 'eventmig[postgres]'",
        ) from error


def _described(url: str) -> URL | None:
    """The URL, if it names a layout that this kind of database may have."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    kinds = ("sqlite", "postgresql", "postgres")
    if OPTION not in parsed.query or parsed.get_backend_name() not in kinds:
        return None
    return parsed


def parse_url(url: str) -> URL:
    """The URL, if its scheme is known; the password in it is never shown.

    Raises `ConfigError`.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        if "://" in url:
            raise ConfigError(
                "the store's URL cannot be read",
                remedy="write it as sqlite:///history.db (escape @ and : in passwords)",
            ) from error
        raise ConfigError(
            f"{url!r} is a path, not a store's URL",
            where=Where(store=url),
            remedy=f"write sqlite:///{url}",
        ) from error
    if parsed.drivername in _SQLITE + _POSTGRES:
        return parsed
    shown = parsed.render_as_string(hide_password=True)
    raise ConfigError(
        f"{parsed.drivername!r} is no kind of store eventmig knows: {shown}",
        where=Where(store=shown),
        remedy="write sqlite:///FILE, postgresql://USER@HOST/DATABASE or esdb://HOST:2113",
    )
