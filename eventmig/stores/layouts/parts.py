"""The parts of a layout's description: each says where one part of an event is, or one rule.

Frozen values, as the whole (`description`) is. Nothing is opened here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar: TypeAlias = str | int | bool
Dialect: TypeAlias = Literal["sqlite", "postgresql"]


TIME: Final = "{time}"
"""A constant that stands for the event's recorded time."""


FROZEN: Final = ConfigDict(extra="forbid", frozen=True)
"""Every table of a description: no other keys, and nothing that changes."""


class _Part(BaseModel):
    model_config = FROZEN


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
