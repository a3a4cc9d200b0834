"""What the tests of read models and snapshots share: a source in memory, and its events."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine, Table, create_engine, select

from eventmig.chains import DataChain
from eventmig.events import CategoryCount, Event, Page, StreamHead, TypeCount, category_of
from eventmig.rebuild.sharing import Answer, Work
from eventmig.stores.base import Capability, DataRow


class MemorySource:
    """An `EventReader` over a list of events."""

    url = "memory://"
    first_position = 1
    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, events: Iterable[Event], name: str = "memory") -> None:
        self.events = list(events)
        self.name = name

    def read_all(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[Event]]:
        found = [
            event
            for event in self.events
            if event.global_position > after
            and (until is None or event.global_position <= until)
            and (types is None or event.type in types)
        ]
        for start in range(0, len(found), batch_size):
            yield found[start : start + batch_size]

    def read_data(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[list[DataRow]]:
        for batch in self.read_all(after=after, until=until, types=types, batch_size=batch_size):
            yield [(e.global_position, e.type, e.schema_version, e.data) for e in batch]

    def read_pages(
        self,
        *,
        after: int = 0,
        until: int | None = None,
        types: Collection[str] | None = None,
        batch_size: int = 5_000,
    ) -> Iterator[Page]:
        for batch in self.read_all(after=after, until=until, types=types, batch_size=batch_size):
            *columns, _ = zip(*batch, strict=True)
            yield Page._make(columns)

    def read_stream(
        self, stream: str, *, first: int | None = None, last: int | None = None
    ) -> Iterator[Event]:
        for event in self.events:
            at = event.stream_position
            if event.stream == stream and (first or 0) <= at and (last is None or at <= last):
                yield event

    def event(self, event_id: str) -> Event | None:
        return next((event for event in self.events if event.id == event_id), None)

    def heads(self, streams: Collection[str] | None = None) -> Iterator[StreamHead]:
        counts = Counter(event.stream for event in self.events)
        for stream, count in sorted(counts.items()):
            if streams is None or stream in streams:
                yield StreamHead(stream, 1, count, count)

    def categories(self) -> list[CategoryCount]:
        counts = Counter(category_of(event.stream) for event in self.events)
        return [CategoryCount(name, 0, count) for name, count in sorted(counts.items())]

    def type_counts(self, *, until: int | None = None) -> list[TypeCount]:
        counts = Counter(
            (event.type, event.schema_version)
            for event in self.events
            if until is None or event.global_position <= until
        )
        return [TypeCount(type_, version, n) for (type_, version), n in sorted(counts.items())]

    def head_position(self) -> int:
        return self.events[-1].global_position if self.events else 0

    def count(self, *, until: int | None = None, types: Collection[str] | None = None) -> int:
        counts = self.type_counts(until=until)
        return sum(count.count for count in counts if types is None or count.type in types)

    def identity(self) -> str:
        return self.name

    def close(self) -> None:
        pass


class Helpers:
    """Helpers in this process, which do these works, and answer when chance says so."""

    def __init__(
        self,
        works: Mapping[Work, Callable[[int, int], tuple[int, bytes] | None]],
        count: int,
        seed: int,
    ) -> None:
        self.count = count
        self.works = works
        self.kinds: Counter[Work] = Counter()
        self.ready_by_chance = 0.5
        self.rng = random.Random(seed)
        self.answers: deque[Answer] = deque()
        self.asked = 0

    def ready(self, helper: int) -> bool:
        return self.rng.random() < self.ready_by_chance

    def ask(self, helper: int, work: Work, name: str, after: int, until: int) -> int:
        self.asked += 1
        self.kinds[work] += 1
        reached, message = self.works[work](after, until) or (until, None)
        self.answers.append(Answer(helper, self.asked, reached, message))
        return self.asked

    def answer(self, *, wait: bool) -> Answer | None:
        if self.answers and (wait or self.rng.random() < 0.5):
            self.answers.rotate(self.rng.randrange(3))
            return self.answers.popleft()
        assert not wait, "nothing is under way"
        return None


def history(entries: Iterable[tuple[str, str, object]]) -> list[Event]:
    """Events in global order from (stream, type, data)."""
    positions: Counter[str] = Counter()
    events = []
    for number, (stream, type_, data) in enumerate(entries, 1):
        positions[stream] += 1
        events.append(
            Event(
                number,
                stream,
                positions[stream],
                f"event-{number}",
                type_,
                1,
                json.dumps(data).encode(),
                None,
                1_700_000_000_000_000 + number,
            )
        )
    return events


def same(events: Sequence[Event]) -> list[Event]:
    """No upcasting."""
    return list(events)


def same_data(type: str, schema_version: int) -> DataChain | None:
    """No upcasting, of data alone."""
    return DataChain(type)


def engine_at(path: Path) -> Engine:
    """A file database in WAL mode, as a store's is."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return engine


def rows_of(engine: Engine, table: Table) -> list[tuple[object, ...]]:
    """Every row of a table, in the order of its key."""
    with engine.connect() as connection:
        query = select(table).order_by(*table.primary_key.columns)
        return [tuple(row) for row in connection.execute(query)]


def names_in(engine: Engine, kind: str = "table") -> set[str]:
    """The names of tables, or of indexes, in a SQLite database."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'", (kind,)
        )
        return {row[0] for row in rows}
