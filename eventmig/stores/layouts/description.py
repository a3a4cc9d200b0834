"""What a layout says: which table holds the events, and which column is which part of one.

A `Layout` is a frozen value, read from a preset's file or from the configuration
(`[tool.eventmig.layouts.NAME]`). It says what cannot be seen in the database; column
types are read from the database itself. Runs nothing and opens nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar: TypeAlias = str | int | bool
Dialect: TypeAlias = Literal["sqlite", "postgresql"]


TIME: Final = "{time}"
"""A constant that stands for the event's recorded time."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Tail(StrEnum):
    """How the last global position that no later commit can precede is found."""

    SINGLE = "single"
    """The database has one writer at a time (SQLite): the highest position is safe."""
    LOCKED = "locked"
    """The owner locks the table while it appends: the highest position is safe."""
    GAPLESS = "gapless"
    """The owner counts positions in a row it updates: the highest position is safe."""
    BARRIER = "barrier"
    """The table is locked in SHARE mode for a moment, which waits for open appends."""
    TRANSACTIONS = "transactions"
    """PostgreSQL: no lock. Events are read in the order of (`transaction`, `position`), up to the
    oldest transaction that is open on the server: none that ends later can come before it."""


class Guard(StrEnum):
    """What a job does, before it appends, to keep the owner's own writers in order."""

    NONE = "none"
    """Nothing: the database itself has one writer at a time, or nobody else writes here."""
    EXCLUSIVE = "exclusive"
    """PostgreSQL: `LOCK TABLE … IN EXCLUSIVE MODE`, until the batch commits."""
    CALL = "call"
    """PostgreSQL: what `lock` says, an advisory lock or a function of the owner's."""


class Stream(_Part):
    """Which columns name the stream, and how its positions count."""

    columns: tuple[str, ...] = Field(min_length=1)
    """The key columns; the stream's name is their values with `separator` between them."""
    separator: str = Field(default="-", min_length=1)
    """Between the values of several key columns. All values but the last must not hold it."""
    position: str
    """The column that counts the events of one stream."""
    first: Literal[0, 1] = 1
    """The position of a stream's first event."""
    counted: bool = False
    """Whether positions are counted, in the global order, instead of read: the column may be NULL,
    and is only written."""
    category: Literal["dash", "key", "none"] = "dash"
    """A stream's category: its name up to the first `-`; its first key column; or none."""
    own_category: bool = False
    """Whether new streams beside old ones need categories of their own, because consumers read
    by category."""
    left_out: tuple[str, ...] = ()
    """Streams that hold no events, as LIKE patterns (`%:snapshot-%`): not read, not copied."""


class Identity(_Part):
    """Where an event's id is. Without a column, it is UUIDv5 over stream and position."""

    column: str | None = None
    """The column of the id."""
    scope: Literal["table", "stream", "none"] = "table"
    """Where an id may stand only once."""


class Type(_Part):
    """Where the event type is."""

    column: str
    """The column of the type's name."""
    suffix: str | None = None
    """What stands between a type and its schema version where the column holds both: `_v`, `#`."""


class Version(_Part):
    """Where the schema version is."""

    place: Literal["none", "column", "data", "metadata", "type"] = "none"
    """In a column; a member of data or of metadata; behind the type; or nowhere."""
    name: str = ""
    """The column, or the member of data or metadata: a name, or a path (`about.version`)."""
    absent: int = Field(default=1, ge=1)
    """The schema version of an event that has none there."""
    text: bool = False
    """Whether a member is written as text (`"2"`) instead of a number."""


class Payload(_Part):
    """A column with JSON in it. Its type (text, blob, json, jsonb) is the database's."""

    column: str
    """The column."""
    codecs: tuple[Literal["zlib"], ...] = ()
    """How the JSON is packed, in the order of packing. Other packings are refused by name."""
    empty: str | None = None
    """For metadata: the text that stands for "none" where the column may not be NULL."""


class Time(_Part):
    """Where the recorded time is."""

    column: str | None = None
    """The column of the time."""
    member: str | None = None
    """A path in the data (`timestamp._data_`) with an ISO 8601 text, instead of a column."""
    encoding: Literal["native", "iso", "ms", "us"] = "native"
    """The database's own time type; ISO 8601 text; milli- or microseconds since 1970 (UTC).
    A time without a zone is UTC."""

    @model_validator(mode="after")
    def _one_place(self) -> Time:
        if (self.column is None) == (self.member is None):
            raise ValueError("a time has either a column or a member of the data")
        return self


class Transaction(_Part):
    """Which column holds the number of the transaction that wrote a row.

    Its type is `xid8`, an integer of 64 bits, or text with such a number. Rows are read by
    (this number, `position`): the two stand in one integer of 63 bits, the global position.
    """

    column: str
    """The column. Each row that a job writes gets the number of its own transaction."""
    bits: int = Field(default=28, ge=16, le=47)
    """How many of the 63 bits hold `position`; the others hold the transaction's number. What
    does not fit is refused by name. Another number means other positions: set it before a job."""


class Heads(_Part):
    """A table with one row per stream that the owner keeps in step."""

    table: str
    """The table."""
    columns: tuple[str, ...]
    """Its columns with the values of `stream.columns`, in the same order."""
    position: str
    """Its column with the last stream position."""
    constants: dict[str, Scalar] = {}
    """Other columns of a new row, with their values; `{category}` is the stream's category."""
    key_constants: tuple[str, ...] = ()
    """Those of them that belong to the table's key."""
    number: str = ""
    """Its column with the number that the database gives a stream, where events name their stream
    by it; `joins` then has this table, and says which column of an event that is."""


class Join(_Part):
    """Another table that a part of the event is in.

    It has a row for each event, written in the same transaction, before the event's own. Where it
    is the table of `heads`, it has one for each stream.
    """

    table: str
    """The table."""
    on: dict[str, str]
    """Its columns, with the column each is equal to."""


class Counter(_Part):
    """A row in which the owner counts all events. A job draws its positions from it, which keeps
    others from appending until it commits.
    """

    table: str
    """The table."""
    where: dict[str, Scalar]
    """The columns by which the row is found, with their values."""
    column: str
    """Its column with the last global position."""


class Lost(_Part):
    """Rows that say something about events which a copy would lose. There must be none."""

    what: str
    """What they are, after their number: `streams that are deleted`."""
    table: str
    """Their table."""
    condition: str
    """An SQL condition that is true for them."""
    column: str = ""
    """A column without which the table can have no such rows (older versions of it)."""
    remedy: str
    """What to do about them."""


class Layout(_Part):
    """How tables hold events: where each part of an event is, and the owner's rules.

    A column may be named `table.column` where `joins` has that table.
    """

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
