"""What a layout says: which table holds the events, and which column is which part of one.

A `Layout` is a frozen value, read from a preset's file or from the configuration
(`[tool.eventmig.layouts.NAME]`). It says what cannot be seen in the database; column
types are read from the database itself. Runs nothing and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, model_validator

from eventmig.stores.layouts.parts import (
    FROZEN,
    TIME,
    Counter,
    Dialect,
    Guard,
    Heads,
    Identity,
    Join,
    Lost,
    Payload,
    Scalar,
    Stream,
    Tail,
    Time,
    Transaction,
    Type,
    Version,
)


class Layout(BaseModel):
    """How tables hold events: where each part of an event is, and the owner's rules.

    A column may be named `table.column` where `joins` has that table.
    """

    model_config = FROZEN

    name: str
    """What URLs call it: `?layout=NAME`."""
    system: str = ""
    """The library or server that owns such tables, and its versions."""
    dialect: Dialect
    """The kind of database."""
    table: str
    """The table of the events; a URL may name another one: `?table=…`."""
    joins: tuple[Join, ...] = ()
    """Tables that complete a row; empty for most."""
    where: dict[str, Scalar] = {}
    """Columns with one fixed value: only such rows are read, and written rows get it."""
    position: str
    """The column of the global position: an integer, unique (`rowid` too)."""
    first: Literal[0, 1] = 1
    """The lowest global position. With 0, eventmig's positions are the column's plus one."""
    transaction: Transaction | None = None
    """Where the order over streams is that of (transaction, `position`): the other half of it."""
    sequences: tuple[str, ...] = ()
    """Where the column does not say itself which sequence counts its positions: names, of which
    the first that is there is meant."""
    stream: Stream
    """The stream and the position in it."""
    id: Identity = Identity()
    """The event's id."""
    type: Type
    """The event type."""
    version: Version = Version()
    """The schema version."""
    data: Payload
    """The data."""
    metadata: Payload | None = None
    """The metadata; none where the tables have none."""
    time: Time | None = None
    """The recorded time; none where the tables have none (it is then 1970-01-01)."""
    passed_through: tuple[str, ...] = ()
    """Columns copied as they are. They stand in the metadata, as the member `$columns`."""
    elsewhere: dict[str, Scalar] = {}
    """Of `passed_through`: the value of a column for an event that comes from other tables and
    has none; NULL where nothing is said."""
    constants: dict[str, Scalar] = {}
    """Columns that are not read, with their value in a new row; `{time}` is the event's
    recorded time."""
    links: bool = False
    """Whether an event may have several rows in the table, which put it into several streams: the
    first is the event, the others are links, read and written as events of the type `$>`."""
    second: dict[str, str] = {}
    """Where the owner keeps a second row for each event in the same table: its columns that
    differ, each with the column of the first whose value it has."""
    heads: Heads | None = None
    """A table of stream heads to keep in step."""
    counter: Counter | None = None
    """A row that counts all events."""
    guard: Guard = Guard.NONE
    """What is locked while a job appends."""
    lock: str = ""
    """With `guard = "call"`: an SQL expression that takes the owner's lock until the transaction
    ends, as `pg_advisory_xact_lock(133742)`. With `{category}` or `{stream}` in it
    (`acquire_lock({category})`) it is called for each of a batch's, in order."""
    notify: str = ""
    """PostgreSQL: a channel that the owner's subscribers listen to: each batch that commits is
    notified there. `{table}` is the events' table."""
    tail: Tail
    """How the safe end of a live table is found."""
    snapshots: tuple[str, ...] = ()
    """Tables with snapshots: a target's must be empty, since old ones would be stale. `{stem}`
    is the events' table without `_events` at its end."""
    snapshot_form: Literal["", "eventsourcing"] = ""
    """The library whose form the snapshots have, where `rebuild --snapshots` can write them; they
    then name stream, position, type and state by the same columns as the events."""
    not_carried: tuple[str, ...] = ()
    """Tables with something about events that a copy would lose: they must be empty."""
    lost: tuple[Lost, ...] = ()
    """Rows of the owner's tables that a copy would lose: there must be none."""
    create: tuple[str, ...] = ()
    """Statements that make the tables in an empty target; `{table}` is the events' table and
    `{schema}` the schema, quoted; `{stem}` as in `snapshots`, to stand in double quotes. Without
    any, the owner makes the tables."""
    wal: bool = False
    """SQLite: whether the owner keeps its files in WAL mode: then a job makes new files so, too."""
    deletes: str = ""
    """PostgreSQL: a setting that is `on` while a job takes its events back, where the owner's
    triggers refuse to delete otherwise."""
    read_only: str = ""
    """Why a job cannot write such a store; empty where it can."""
    side_by_side: str = ""
    """How old and new events can live side by side."""
    proof: str = ""
    """Who read a migrated store back."""

    @model_validator(mode="after")
    def _consistent(self) -> Layout:
        named = self.version.place in ("column", "data", "metadata")
        if named != bool(self.version.name):
            raise ValueError(f"version.name does not fit version.place = {self.version.place!r}")
        if (self.version.place == "type") != (self.type.suffix is not None):
            raise ValueError('type.suffix goes with version.place = "type", and only with it')
        if self.version.place == "metadata" and self.metadata is None:
            raise ValueError('version.place = "metadata" needs metadata')
        if self.passed_through and self.metadata is None:
            raise ValueError("passed_through needs metadata, where the columns stand meanwhile")
        if self.heads is not None and len(self.heads.columns) != len(self.stream.columns):
            raise ValueError("heads.columns must be as many as stream.columns")
        if (self.guard is Guard.CALL) != bool(self.lock):
            raise ValueError('lock goes with guard = "call", and only with it')
        if "{category}" in self.lock and "{stream}" in self.lock:
            raise ValueError("lock is called for categories or for streams, not for both")
        if self.dialect == "sqlite" and (self.guard is not Guard.NONE or self.notify):
            raise ValueError("guard and notify are for PostgreSQL: SQLite has one writer at a time")
        if (self.tail is Tail.TRANSACTIONS) != (self.transaction is not None):
            raise ValueError('tail = "transactions" goes with transaction, and only with it')
        if self.dialect == "sqlite" and self.transaction is not None:
            raise ValueError("transaction is for PostgreSQL: SQLite has one writer at a time")
        if self.links and not self.link_column():
            raise ValueError("links go with an id that a joined table has for the event's column")
        if (self.links or self.stream.counted) and self.transaction is not None:
            raise ValueError("links and counted positions need an order by position alone")
        if not set(self.elsewhere) <= set(self.passed_through):
            raise ValueError("elsewhere names columns of passed_through, and no others")
        if self.joins and not self.read_only:
            self._check_joins()
        return self

    def _check_joins(self) -> None:
        of_streams = self.of_streams()
        if self.heads is not None and bool(self.heads.number) != (of_streams is not None):
            raise ValueError("heads.number goes with a join of the same table, and only with it")
        number = "" if self.heads is None else self.heads.number
        if of_streams is not None and list(of_streams.on) != [number]:
            raise ValueError("the join of the table of heads is on heads.number alone")
        elsewhere = {join.table for join in self.joins if join is not of_streams}
        for name in (*self.stream.columns, self.stream.position, self.position):
            if name.rpartition(".")[0] in elsewhere:
                raise ValueError(
                    f"{name!r} is in a joined table: a job cannot write that; make it the table "
                    "of heads, or say why the layout is read_only"
                )

    def of_streams(self) -> Join | None:
        """The join with a row for each stream, if there is one."""
        heads = "" if self.heads is None else self.heads.table
        return next((join for join in self.joins if join.table == heads), None)

    def number_column(self) -> str:
        """The column of an event with the number of its stream; empty where there is none."""
        join = self.of_streams()
        return "" if join is None or self.heads is None else join.on[self.heads.number]

    def link_column(self) -> str:
        """The column of a row with the id of its event; empty where the row has the id itself."""
        for join in self.joins:
            for its, own in join.on.items():
                if self.id.column == f"{join.table}.{its}":
                    return own
        return ""

    def row_time(self) -> str:
        """The column with a row's own time, which a link has; empty where there is none."""
        return next((name for name, value in self.constants.items() if value == TIME), "")

    def of_events(self) -> tuple[Join, ...]:
        """The joins with a row for each event."""
        return tuple(join for join in self.joins if join is not self.of_streams())

    def snapshot_tables(self) -> tuple[str, ...]:
        """The names of the tables with snapshots."""
        return tuple(name.replace("{stem}", self._stem()) for name in self.snapshots)

    def statements(self, quote: Callable[[str], str], schema: str = "") -> tuple[str, ...]:
        """The statements of `create`, with names quoted by the database's rule."""
        names = {
            "{table}": quote(self.table),
            "{schema}": quote(schema),
            "{stem}": self._stem().replace('"', '""'),
        }
        out = []
        for statement in self.create:
            for mark, name in names.items():
                statement = statement.replace(mark, name)
            out.append(statement)
        return tuple(out)

    def _stem(self) -> str:
        return self.table.removesuffix("_events")

    def columns(self) -> tuple[str, ...]:
        """Every column of the events' tables that it names, in order, each once."""
        named = (
            self.position,
            self.transaction.column if self.transaction else None,
            *self.stream.columns,
            self.stream.position,
            self.id.column,
            self.type.column,
            self.version.name if self.version.place == "column" else None,
            self.data.column,
            self.metadata.column if self.metadata else None,
            self.time.column if self.time else None,
            *self.passed_through,
            *self.where,
            *self.constants,
        )
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def category(self, stream: str) -> str:
        """The category of a stream, by this layout's rule."""
        match self.stream.category:
            case "dash":
                return stream.split("-", 1)[0]
            case "key":
                return stream.split(self.stream.separator, 1)[0]
        return ""
