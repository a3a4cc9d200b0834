"""A store by its URL: the one place that knows which adapter a scheme means."""

from __future__ import annotations

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eventmig.errors import ConfigError, Where
from eventmig.stores.layouts import OPTION, LayoutStore, open_layout
from eventmig.stores.sqlite import Mode, SqliteStore
from eventmig.stores.sqlite_file import locate

_PLANNED = {
    "postgresql": "PostgreSQL",
    "postgres": "PostgreSQL",
    "esdb": "KurrentDB",
    "kurrentdb": "KurrentDB",
}


def open_store(url: str, *, mode: Mode = "read") -> SqliteStore | LayoutStore:
    """Open the store a URL names; with the option `layout`, somebody else's tables.

    "read" and "write" need it to exist and never create anything; "create" makes
    what is missing (file, tables). Raises `ConfigError` for a URL that names no
    kind of store, and what the store raises when it is opened.
    """
    described = _described(url)
    if described is not None:
        return open_layout(described, mode=mode)
    return SqliteStore(locate(parse_url(url)), mode=mode)


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
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return parsed
    shown = parsed.render_as_string(hide_password=True)
    scheme = parsed.drivername.split("+")[0]
    if scheme in _PLANNED:
        raise ConfigError(
            f"{_PLANNED[scheme]} is not supported yet: {shown}",
            where=Where(store=shown),
            remedy="this version works on sqlite:///FILE; `eventmig import` brings a history in",
        )
    raise ConfigError(
        f"{parsed.drivername!r} is no kind of store eventmig knows: {shown}",
        where=Where(store=shown),
        remedy="write sqlite:///FILE (the one kind this version knows)",
    )
