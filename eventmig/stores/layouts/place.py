"""What a store's URL with a layout names, and what a layout store asks of its database."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import URL, Connection

from eventmig.errors import ConfigError
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Dialect, Tail
from eventmig.stores.layouts.presets import resolve
from eventmig.stores.layouts.tables import Tables

OPTION: Final = "layout"
"""The option of a store's URL that makes it one of a described layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A database, and for PostgreSQL the schema (None: the user's own).

    `url` is what may be shown: without the password. `connect` has it.
    """

    url: str
    connect: URL
    schema: str | None = None

    @property
    def dialect(self) -> Dialect:
        """The kind of database."""
        return "sqlite" if self.connect.get_backend_name() == "sqlite" else "postgresql"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database, the layout of its events, and which of the streams are meant.

    `release` names the streams a job made beside others in the same table; None: all
    others.
    """

    address: Address
    layout: Layout
    release: str | None = None

    @property
    def url(self) -> str:
        """The URL, without a password."""
        return self.address.url

    @property
    def namespace(self) -> str:
        """Tells this table and these streams from others in the same database."""
        return self.layout.table + (f"@{self.release}" if self.release else "")


def locate(url: URL) -> Place:
    """Read a URL with the option `layout`; raises `ConfigError` for what it may not say."""
    own, options = _options(url)
    dialect: Dialect = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
    layout = resolve(options["layout"], dialect)
    if options["table"]:
        layout = layout.model_copy(update={"table": options["table"]})
    shown = url.update_query_dict({OPTION: layout.name})
    return Place(
        address=_address(shown, url.set(query=own), options),
        layout=layout,
        release=options["release"] or None,
    )


def address_of(url: URL) -> Address:
    """The database a URL names, whatever its tables. Raises `ConfigError`."""
    own, options = _options(url)
    return _address(url, url.set(query=own), options)


def _address(shown: URL, connect: URL, options: Mapping[str, str]) -> Address:
    text = shown.render_as_string(hide_password=True)
    return Address(url=text, connect=connect, schema=options["schema"] or None)


def _options(url: URL) -> tuple[dict[str, str | tuple[str, ...]], dict[str, str]]:
    """The options for the driver, and those for eventmig."""
    options = {OPTION: "", "table": "", "release": "", "schema": ""}
    own: dict[str, str | tuple[str, ...]] = {}
    for name, value in url.query.items():
        if name not in options:
            own[name] = value
        elif isinstance(value, str):
            options[name] = value
        else:
            raise ConfigError(f"the option {name} stands twice in the URL", remedy="name it once")
    if url.get_backend_name() == "sqlite" and (own or options["schema"]):
        raise ConfigError(
            f"a SQLite URL has no option {', '.join(own) or 'schema'}",
            remedy="it knows layout, table and release",
        )
    return own, options


class Database(Protocol):
    """One database with a layout's tables: connections, locks, identity."""

    def check(self) -> None:
        """Raise `NotAStoreError` or what else keeps it from being read."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection that cannot write: one snapshot for the block."""
        ...

    def begin(self) -> AbstractContextManager[Connection]:
        """A write transaction: committed at the end of the block, rolled back on an error."""
        ...

    def safe_position(self, tables: Tables, tail: Tail) -> int:
        """The highest global position that no open transaction can still precede."""
        ...

    def reserve(self, connection: Connection, tables: Tables, count: int) -> list[int]:
        """So many global positions for new rows, ascending, above all that are there."""
        ...

    def create(self, layout: Layout) -> bool:
        """Make the tables the layout says, if its table is not there; True if they were made."""
        ...

    def discard(self) -> None:
        """Take back what `create` made."""
        ...

    def lock(self, namespace: str) -> AbstractContextManager[None]:
        """Hold this namespace for one job; raises `JobLockedError` at once."""
        ...

    def held(self, namespace: str) -> bool:
        """Whether a process holds this namespace now."""
        ...

    def scope(self) -> str:
        """Equal for two URLs exactly when they name the same database (and schema)."""
        ...

    def close(self) -> None:
        """Close every connection; harmless twice."""
        ...
