"""What a rebuild remembers: its generations, its checkpoint, and who may write.

The tables, and every statement on them. A read model or an aggregate is a
*subject*; each rebuild of it makes a *generation* of its rows:

    building ──swap──▶ live ──next swap──▶ kept ──next swap──▶ (dropped)
        │                ▲                   │
        └──▶ (dropped)   └────rollback───────┘

Every transaction of a rebuild begins with `Hold.fence`: an UPDATE that finds its
row only while this process's epoch is the newest. It takes the write lock
(SQLite: of the database; PostgreSQL: of the row) before anything is read, so
that a process that lost its hold writes nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    case,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateTable

from eventmig.errors import JobLostError, RebuildError
from eventmig.rebuild.statements import insert_into


class Kind(StrEnum):
    """What is rebuilt."""

    READ_MODEL = "read_model"
    AGGREGATE = "aggregate"


class State(StrEnum):
    """What a generation's rows are."""

    BUILDING = "building"
    LIVE = "live"
    KEPT = "kept"


metadata = MetaData()

rebuilds = Table(
    "eventmig_rebuilds",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("epoch", BigInteger, nullable=False),
)

generations = Table(
    "eventmig_generations",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("fingerprint", String(40), nullable=False),
    Column("release", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("events_read", BigInteger, nullable=False),
    Column("events_folded", BigInteger, nullable=False),
    Column("tables", Text, nullable=False),
    Column("swapped_at", DateTime),
)

snapshots = Table(
    "eventmig_snapshots",
    metadata,
    Column("aggregate", String(200), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("stream", Text, primary_key=True),
    # 0: at the stream's head; k: after its k × every-th handled event.
    Column("slot", Integer, primary_key=True, autoincrement=False),
    Column("stream_position", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("events_folded", BigInteger, nullable=False),
    Column("fingerprint", String(40), nullable=False),
    Column("state", Text, nullable=False),
)


quarantine = Table(
    "eventmig_rebuild_quarantine",
    metadata,
    Column("kind", String(20), primary_key=True),
    Column("name", String(200), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("global_position", BigInteger, primary_key=True, autoincrement=False),
    Column("stream", Text, nullable=False),
    Column("stream_position", BigInteger, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("handler", Text),
    Column("key", Text),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A stored event that a rebuild could not apply, and why.

    `handler` and `key` (of the row) are None where it did not come to one.
    """

    global_position: int
    stream: str
    stream_position: int
    event_id: str
    type: str
    schema_version: int
    reason: str
    handler: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTable:
    """One table of a generation: its live name, and what brings its indexes back.

    `columns` and `indexes` are those it had when it went live.
    """

    name: str
    schema: str | None = None
    restore: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One building of a subject's rows, by the subject's code of this version and fingerprint.

    `position`: the last global position folded into it (0: none). `events_read`
    counts stored events, `events_folded` those a handler was given.
    """

    number: int
    state: State
    fingerprint: str
    release: str
    source: str
    version: int = 0
    position: int = 0
    events_read: int = 0
    events_folded: int = 0
    tables: tuple[KeptTable, ...] = ()


class Writing(Protocol):
    """Who may write rows of one subject: a rebuild its own, a follower the live ones."""

    @property
    def kind(self) -> Kind: ...

    @property
    def name(self) -> str: ...

    @property
    def alone(self) -> bool:
        """Whether nobody else, the application included, writes these rows."""
        ...

    def fence(self, connection: Connection) -> None:
        """Begin a transaction's writes; raises `JobLostError` when somebody else took over."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The right to write one subject's generations, until somebody else takes it."""

    kind: Kind
    name: str
    epoch: int
    alone: ClassVar[bool] = True

    def fence(self, connection: Connection) -> None:
        """Begin a transaction's writes; raises `JobLostError` when another process took over."""
        mine = _at(rebuilds, self.kind, self.name)
        found = connection.execute(
            update(rebuilds).where(*mine, rebuilds.c.epoch == self.epoch).values(epoch=self.epoch)
        )
        if found.rowcount != 1:
            raise JobLostError(
                f"another process took over the rebuild of {self.name}; "
                "this one wrote nothing more",
                remedy="let the other one end; its result replaces this one's",
            )


@dataclass(slots=True, kw_only=True)
class LiveHold:
    """The right to bring live rows on from `position`, as long as nobody else did.

    Its holder sets `position` after each commit. A swap, a rollback and another follower
    all change what `fence` looks for.
    """

    kind: Kind
    name: str
    number: int
    position: int
    alone: ClassVar[bool] = False

    def fence(self, connection: Connection) -> None:
        """Begin a transaction's writes; raises `JobLostError` when the rows are others by now."""
        found = connection.execute(
            update(generations)
            .where(
                *_numbered(self, self.number),
                generations.c.state == State.LIVE.value,
                generations.c.position == self.position,
            )
            .values(position=self.position)
        )
        if found.rowcount != 1:
            raise JobLostError(
                f"the live rows of {self.name} were swapped or brought on by another process; "
                "this one wrote nothing",
                remedy="go on from where they are now: run the same command again",
            )


def take(connection: Connection, kind: Kind, name: str) -> Hold:
    """Become the one writer of a subject (writes; makes the tables where they are not there)."""
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    row = {"kind": kind.value, "name": name, "epoch": 0}
    connection.execute(
        insert_into(rebuilds, connection.dialect).values(row).on_conflict_do_nothing()
    )
    mine = _at(rebuilds, kind, name)
    connection.execute(update(rebuilds).where(*mine).values(epoch=rebuilds.c.epoch + 1))
    epoch = connection.execute(select(rebuilds.c.epoch).where(*mine)).scalar_one()
    return Hold(kind=kind, name=name, epoch=epoch)


def is_there(connection: Connection) -> bool:
    """Whether anything was ever rebuilt in this database (reads)."""
    return inspect(connection).has_table(generations.name)


def generation(connection: Connection, kind: Kind, name: str, state: State) -> Generation | None:
    """The subject's generation in this state, or None (reads)."""
    query = select(generations).where(
        *_at(generations, kind, name), generations.c.state == state.value
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _generation(row)


def all_generations(connection: Connection, kind: Kind) -> list[tuple[str, Generation]]:
    """Every generation of every subject of a kind, with the subject's name (reads)."""
    query = select(generations).where(generations.c.kind == kind.value)
    rows = connection.execute(query.order_by(generations.c.name, generations.c.generation))
    return [(row.name, _generation(row)) for row in rows]


def next_number(connection: Connection, kind: Kind, name: str) -> int:
    """The number of the subject's next generation, from 1 (reads)."""
    query = select(func.max(generations.c.generation)).where(*_at(generations, kind, name))
    return (connection.execute(query).scalar() or 0) + 1


def add(connection: Connection, hold: Hold, made: Generation) -> None:
    """Record a new generation."""
    connection.execute(
        insert(generations).values(
            kind=hold.kind.value,
            name=hold.name,
            generation=made.number,
            state=made.state.value,
            version=made.version,
            fingerprint=made.fingerprint,
            release=made.release,
            source=made.source,
            position=made.position,
            events_read=made.events_read,
            events_folded=made.events_folded,
            tables=_text(made.tables),
        )
    )


_OUTDATED = "#outdated: "


def outdated_source(identity: str, why: str) -> str:
    """What stands for a source whose name other tables have now."""
    return f"{identity}{_OUTDATED}{why}"


def is_outdated(made_of: str, identity: str = "") -> bool:
    """Whether a generation was made of tables that had this source's name before others got it.

    Without `identity`: of any source's.
    """
    return f"{identity}{_OUTDATED}" in made_of


def rename_sources(connection: Connection, renamed: Mapping[str, str]) -> list[str]:
    """Say of generations that were made of one source that they were made of another.

    Old identity → new identity, each looked up as it is before. Returns the names of those that
    are live and outdated now, ordered. For when the tables of a source change names; needs
    no hold, for it writes what no rebuild does.
    """
    where = generations.c.source.in_(renamed)
    live = select(generations.c.name, generations.c.source).where(
        where, generations.c.state == State.LIVE.value
    )
    found = connection.execute(live).all()
    changed = case(dict(renamed), value=generations.c.source, else_=generations.c.source)
    connection.execute(update(generations).where(where).values(source=changed))
    return sorted({name for name, source in found if is_outdated(renamed[source])})


def sources(connection: Connection) -> set[str]:
    """The identities of all that generations were made of (reads)."""
    return set(connection.execute(select(generations.c.source)).scalars())


def remove(connection: Connection, hold: Hold, number: int) -> None:
    """Forget a generation, and what was set aside in it."""
    connection.execute(delete(quarantine).where(*_numbered(hold, number, quarantine)))
    connection.execute(delete(generations).where(*_numbered(hold, number)))


def checkpoint(connection: Connection, hold: Writing, at: Generation) -> None:
    """Record how far a generation is built, in the transaction of its rows.

    Raises `RebuildError` where other tables have the source's name by now (`rename_sources`):
    its positions mean other events.
    """
    found = connection.execute(
        update(generations)
        .where(*_numbered(hold, at.number), generations.c.source == at.source)
        .values(position=at.position, events_read=at.events_read, events_folded=at.events_folded)
    )
    if found.rowcount != 1:
        raise RebuildError(
            f"the events that {hold.name} was made of bear another name now: a cut-over, or its "
            "reverse, changed the tables' names; nothing of what was read since was written",
            remedy="run the same command again: a rebuild begins anew with what bears the name now",
        )


def set_aside(connection: Connection, hold: Writing, number: int, event: SetAside) -> None:
    """Put an event into the quarantine of a generation."""
    row = {"kind": hold.kind.value, "name": hold.name, "generation": number} | asdict(event)
    connection.execute(insert(quarantine).values(row))


def count_quarantined(connection: Connection, kind: Kind, name: str, number: int) -> int:
    """How many events are in the quarantine of a generation (reads)."""
    theirs = (*_at(quarantine, kind, name), quarantine.c.generation == number)
    query = select(func.count()).select_from(quarantine).where(*theirs)
    return int(connection.execute(query).scalar_one())


def quarantined(connection: Connection, hold: Hold, number: int) -> list[SetAside]:
    """The events in the quarantine of a generation, in global order (reads)."""
    names = [field.name for field in fields(SetAside)]
    query = select(*(quarantine.c[name] for name in names))
    rows = connection.execute(
        query.where(*_numbered(hold, number, quarantine)).order_by(quarantine.c.global_position)
    )
    return [SetAside(**row._mapping) for row in rows]


def lock_live(connection: Connection, hold: Hold) -> None:
    """Have whoever keeps the live rows up to date wait for the end of this transaction."""
    live = (*_at(generations, hold.kind, hold.name), generations.c.state == State.LIVE.value)
    connection.execute(update(generations).where(*live).values(state=State.LIVE.value))


def become(
    connection: Connection,
    hold: Hold,
    number: int,
    state: State,
    tables: Sequence[KeptTable] | None = None,
) -> None:
    """Record a generation's new state, and what its tables are now."""
    values: dict[str, Any] = {"state": state.value}
    if state is State.LIVE:
        values["swapped_at"] = func.current_timestamp()
    if tables is not None:
        values["tables"] = _text(tables)
    connection.execute(update(generations).where(*_numbered(hold, number)).values(values))


def _at(table: Table, kind: Kind, name: str) -> tuple[Any, ...]:
    return (table.c.kind == kind.value, table.c.name == name)


def _numbered(hold: Writing, number: int, table: Table = generations) -> tuple[Any, ...]:
    return (*_at(table, hold.kind, hold.name), table.c.generation == number)


def _text(tables: Sequence[KeptTable]) -> str:
    return json.dumps([asdict(table) for table in tables])


def _generation(row: Row[Any]) -> Generation:
    tables = [
        KeptTable(
            name=table["name"],
            schema=table["schema"],
            restore=tuple(table["restore"]),
            columns=tuple(table["columns"]),
            indexes=tuple(table["indexes"]),
        )
        for table in json.loads(row.tables)
    ]
    return Generation(
        number=row.generation,
        state=State(row.state),
        version=row.version,
        fingerprint=row.fingerprint,
        release=row.release,
        source=row.source,
        position=row.position,
        events_read=row.events_read,
        events_folded=row.events_folded,
        tables=tuple(tables),
    )
