"""What a store's URL with a layout names, and what a layout store asks of its database."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from sqlalchemy import URL, Connection

from eventmig.errors import ConfigError, Where
from eventmig.stores.layouts.description import Dialect, Layout, Tail
from eventmig.stores.layouts.presets import resolve
from eventmig.stores.layouts.tables import Tables

OPTION: Final = "layout"
"""The option of a store's URL that makes it one of a described layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A database, the layout of its events, and which of the streams are meant.

    `release` names the streams a job made beside others in the same table; None: all
    others. `url` is without the password and with the layout's name alone.
    """

    url: str
    address: URL
    layout: Layout
    schema: str | None = None
    release: str | None = None

    @property
    def namespace(self) -> str:
        """Tells this table and these streams from others in the same database."""
        return self.layout.table + (f"@{self.release}" if self.release else "")


def locate(url: URL) -> Place:
    """Read a URL with the option `layout`; raises `ConfigError` for what it may not say."""
    options = {"layout": "", "table": "", "release": "", "schema": ""}
    own = {}
    for name, value in url.query.items():
        if name not in options:
            own[name] = value
        elif isinstance(value, str):
            options[name] = value
        else:
            raise ConfigError(f"the option {name} stands twice in the URL", remedy="name it once")
    dialect: Dialect = "sqlite" if url.get_backend_name() == "sqlite" else "postgresql"
    if dialect == "sqlite" and (own or options["schema"]):
        raise ConfigError(
            f"a SQLite URL has no option {', '.join(own) or 'schema'}",
            remedy="it knows layout, table and release",
        )
    layout = resolve(options["layout"], dialect)
    if options["table"]:
        layout = layout.model_copy(update={"table": options["table"]})
    shown = url.update_query_dict({OPTION: layout.name}).render_as_string(hide_password=True)
    return Place(
        url=shown,
        address=url.set(query=own),
        layout=layout,
        schema=options["schema"] or None,
        release=options["release"] or None,
    )


def where(place: Place) -> Where:
    """The store, for errors."""
    return Where(store=place.url)


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
