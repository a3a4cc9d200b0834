"""Tables of PostgreSQL stores that change names, and who has them open meanwhile."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from eventmig.errors import ConflictError, CrossingError, FencedError, StoreError
from eventmig.events import Event, NewEvent, Origin
from eventmig.stores.base import ANY
from eventmig.stores.crossing import Exchanging, Fencing
from eventmig.stores.open import open_store
from eventmig.stores.postgres.store import PostgresStore
from tests.acceptance.support import event
from tests.postgres import Server

WAYS = {
    "prefixes": ("schema=one", "schema=one&tables=v2_"),
    "schemas": ("schema=one", "schema=two"),
    "names of all kinds": ('schema=1%25 "one"&tables=Old_', f"schema=two&tables={'n' * 40}"),
    "types of data": ("schema=one", "schema=one&tables=v2_&data=bytea"),
}
CATALOGUE = """
    WITH ours AS (
        SELECT oid, oid::regnamespace::text AS schema FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema')
    SELECT 'relation', schema, relname, relkind::text, coalesce(pg_get_indexdef(c.oid), '')
        FROM pg_class c JOIN ours ON ours.oid = relnamespace
        WHERE relname !~ '^eventmig_fences'
    UNION ALL SELECT 'constraint', schema, conname, conrelid::regclass::text,
            pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN ours ON ours.oid = connamespace
        WHERE conrelid::regclass::text !~ 'eventmig_fences$'
    UNION ALL SELECT 'identity', schema, c.oid::regclass::text, attname,
            pg_get_serial_sequence(c.oid::regclass::text, attname)
        FROM pg_class c JOIN ours ON ours.oid = relnamespace
        JOIN pg_attribute ON attrelid = c.oid AND attidentity <> ''
    ORDER BY 1, 2, 3, 4, 5"""


def old_events() -> list[Event]:
    return [event(f"s-{n % 3}", "Old", {"n": n}) for n in range(7)]


def new_events() -> list[Event]:
    """Other streams under the keys of the old ones, and lineage of every kind."""
    events = [event(f"s-{2 - n % 3}", "New", {"n": n}) for n in range(9)]
    origins: list[tuple[Origin, ...]] = [
        (),
        (Origin("s-1", 1, 0),),
        (Origin("before", 1, 0),),
        (Origin("s-9", 1, 0), Origin("s-0", 2, 0)),
    ]
    return [e._replace(origins=o) for e, o in zip(events, itertools.cycle(origins), strict=False)]


def fill(url: str, events: list[Event]) -> list[Event]:
    heads: dict[str, int] = {}
    with opened(url, "create") as store:
        with store.begin() as tx:
            for one in events:
                heads[one.stream] = heads.get(one.stream, 0) + 1
                tx.append_copied([one._replace(stream_position=heads[one.stream])])
        return read(store)


def opened(url: str, mode: str = "write") -> PostgresStore:
    store = open_store(url, mode=mode)  # type: ignore[arg-type]
    assert isinstance(store, PostgresStore)
    return store


def read(store: PostgresStore) -> list[Event]:
    return [e for batch in store.read_all() for e in batch]


class Pair:
    """Two sets of tables in one database, and the events each began with."""

    def __init__(self, url: str, way: str) -> None:
        self.url = url
        made = [f"{url}&{place}" for place in WAYS[way]]
        event.made = 0  # type: ignore[attr-defined]
        self.old, self.new = fill(made[0], old_events()), fill(made[1], new_events())
        self.plain, self.beside = (place.removesuffix("&data=bytea") for place in made)

    def exchange(self, *, wait_s: float = 20) -> None:
        with opened(self.plain) as one, opened(self.beside) as two:
            assert two.can_exchange(one)
            two.check_exchange(one)
            with two.begin() as tx:
                two.exchange(tx, one, wait_s=wait_s)
            # Those that exchanged go on, too.
            assert read(one) == self.held()
            assert two.head_position() == two.last_position() == len(read(two))

    def held(self) -> list[Event]:
        """What stands under the plain name, for one who comes anew."""
        with opened(self.plain, "read") as store:
            return read(store)

    def run(self, statement: str, *names: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            made = sql.SQL(statement).format(*map(sql.Identifier, names))  # type: ignore[arg-type]
            cursor = connection.execute(made)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def pair(request: pytest.FixtureRequest, postgres_url: str) -> Pair:
    return Pair(postgres_url, getattr(request, "param", "schemas"))


@pytest.mark.parametrize("pair", list(WAYS), indirect=True)
def test_either_set_is_as_if_it_had_been_made_under_its_name(pair: Pair) -> None:
    with psycopg.connect(pair.url, autocommit=True) as connection:
        before = connection.execute(CATALOGUE).fetchall()
        with opened(pair.plain) as application:  # open through both
            application.append("s-1", [NewEvent("Old", b"{}", id="seen")], expected=ANY)
            pair.old = read(application)
            pair.exchange()
            assert connection.execute(CATALOGUE).fetchall() == before
            assert read(application) == pair.new
            by_stream = application.read_streams(["s-0", "s-1", "s-2"])
            assert sorted(e for batch in by_stream for e in batch) == pair.new
            application.append("s-1", [NewEvent("New", b"{}", id="after")], expected=3)
            with pytest.raises(ConflictError):
                application.append("s-1", [NewEvent("Old", b"{}")], expected=4 + 1)
            pair.exchange()
            assert connection.execute(CATALOGUE).fetchall() == before
            assert read(application) == pair.old
            stored = application.append("s-1", [NewEvent("Old", b"{}")], expected=3)
            assert stored[0].global_position == len(pair.old) + 1


def test_the_fence_goes_with_the_tables(pair: Pair) -> None:
    with opened(pair.plain) as old, opened(pair.beside) as new:
        assert isinstance(old, Exchanging)
        assert isinstance(old, Fencing)
        assert not old.can_exchange(old)
        old.set_fence(closed=True, job_id="job", epoch=3, wait_s=1)
        with pytest.raises(FencedError):
            old.append("s-1", [NewEvent("Old", b"{}")], expected=ANY)
        pair.exchange()
        assert old.fence() is None
        fence = new.fence()
        assert fence is not None
        assert (fence.closed, fence.job_id, fence.epoch) == (True, "job", 3)
        old.append("s-1", [NewEvent("New", b"{}")], expected=ANY)
        with pytest.raises(FencedError):
            new.append("s-1", [NewEvent("Old", b"{}")], expected=ANY)
        with new.begin() as tx:
            assert new.drop_all(tx) == len(pair.old)
    fill(pair.beside, old_events())
    with opened(pair.beside) as third:
        assert third.fence() is None
        third.append("s-1", [NewEvent("Old", b"{}")], expected=ANY)


# those who have them open ------------------------------------------------------------------------

READS: dict[str, Callable[[PostgresStore], object]] = {
    "read_all": read,
    "read_pages": lambda store: [
        row for page in store.read_pages() for row in zip(*page, strict=True)
    ],
    "read_data": lambda store: [
        row for rows in store.read_data(types=["Old", "New"]) for row in rows
    ],
    "read_lines": lambda store: list(
        store.read_lines(after=0, until=7, types=None, members={}, batch_size=99)
    ),
    "read_stream": lambda store: list(store.read_stream("s-1")),
    "read_stream that is not there": lambda store: list(store.read_stream("s-4")),
    "event": lambda store: [store.event(f"{n:08x}-0000-4000-8000-000000000000") for n in (2, 12)],
    "examples": lambda store: store.examples("New", 1, 2),
    "heads": lambda store: list(store.heads()),
    "head_position": lambda store: (store.head_position(), store.last_position()),
}


@pytest.mark.parametrize("op", READS)
def test_a_read_is_of_one_set_whenever_they_change_names(pair: Pair, op: str) -> None:
    """Before its first statement, and before each one after it."""
    with opened(pair.plain, "read") as store:
        of_old = READS[op](store)
    pair.exchange()
    with opened(pair.plain, "read") as store:
        of_new = READS[op](store)
        asked, sent = store._rows, store._send
        for statement in range(1, 9):
            left = statement

            def ask(how: Callable[[str, Any], Any], text: str, bound: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    pair.exchange()
                return how(text, bound)

            store._rows = partial(ask, asked)  # type: ignore[method-assign]
            store._send = partial(ask, sent)  # type: ignore[method-assign]
            found = READS[op](store)
            store._rows, store._send = asked, sent  # type: ignore[method-assign]
            if op not in ("event", "head_position"):  # they ask twice
                assert found in (of_old, of_new), statement
            assert READS[op](store) == (of_new if pair.held() == pair.new else of_old)
            if left > 0:
                break
        assert left > 0, "there are more statements than were tried"


def test_a_reader_amid_its_batches_is_told(pair: Pair) -> None:
    with opened(pair.plain, "read") as store:
        batches = store.read_all(batch_size=2)
        assert next(batches) == pair.old[:2]
        pair.exchange()
        with pytest.raises(StoreError, match="changed names while they were read"):
            next(batches)
        assert read(store) == pair.new


def test_prepared_statements_of_other_programs_go_by_name(pair: Pair) -> None:
    with psycopg.connect(pair.url, autocommit=True) as connection:
        cursor = connection.cursor()

        def names() -> list[tuple[Any, ...]]:
            return cursor.execute(
                """SELECT s.name, e.event_id FROM one.events e JOIN one.streams s USING (stream_id)
                ORDER BY e.global_position""",
                prepare=True,
            ).fetchall()

        def append(id_: str) -> None:
            cursor.execute(
                """INSERT INTO one.events (global_position, stream_id, stream_position, recorded_at,
                    schema_version, event_id, type, data)
                SELECT nextval('one.events_position'), s.stream_id, 9, 1, 1, %s, 'Raw', '{}'
                FROM one.streams s WHERE s.name = 's-1'""",
                [id_],
                prepare=True,
            )

        assert names() == [(e.stream, e.id) for e in pair.old]
        append("raw-old")
        pair.exchange()
        append("raw-new")
        assert names()[:-1] == [(e.stream, e.id) for e in pair.new]
    with opened(pair.plain) as plain, opened(pair.beside) as beside:
        assert [(e.stream, e.id) for e in read(plain)[len(pair.new) :]] == [("s-1", "raw-new")]
        assert [(e.stream, e.id) for e in read(beside)[len(pair.old) :]] == [("s-1", "raw-old")]
        assert [e.global_position for e in read(plain)] == list(range(1, len(pair.new) + 2))
        assert not [e.what for e in plain.preflight() if "sequence" in e.what]


# who is in the way -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a reader", "a writer"])
def test_it_waits_so_long_and_then_says_for_whom(pair: Pair, kind: str) -> None:
    before = pair.run(CATALOGUE)
    with ExitStack() as stack:
        if kind == "a reader":
            reader = stack.enter_context(
                psycopg.connect(f"{pair.url}&application_name=report")  # a backup, a report
            )
            reader.execute("SELECT count(*) FROM two.streams")
            who = r"\(report\), in its transaction .* runs: SELECT count"
        else:
            writer = stack.enter_context(opened(pair.plain))
            stack.enter_context(writer.begin())
            who = r"\(eventmig\)"
        with pytest.raises(CrossingError, match=f"in use for 0.4 s: session [0-9]+ {who}"):
            pair.exchange(wait_s=0.4)
        assert pair.run(CATALOGUE) == before
        with opened(pair.plain) as old, opened(pair.beside) as new:
            assert read(old) == pair.old  # nobody waits behind it
            assert read(new) == pair.new
    pair.exchange()


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("CREATE VIEW one.recent AS SELECT type FROM one.events", "view or rule one.recent"),
        ("CREATE MATERIALIZED VIEW m AS SELECT type FROM two.events", "view or rule public.m"),
        (
            "CREATE FUNCTION f() RETURNS bigint LANGUAGE SQL BEGIN ATOMIC "
            "SELECT count(*) FROM one.streams; END",
            "function public.f",
        ),
        ("CREATE TABLE o (s bigint REFERENCES one.streams)", "foreign key o_s_fkey"),
        ("CREATE PUBLICATION p FOR TABLE one.events", "publication p"),
        ("CREATE POLICY mine ON one.events USING (true)", "policy mine"),
        (
            "CREATE TRIGGER tell AFTER INSERT ON one.events "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "trigger tell",
        ),
    ],
    ids=lambda value: value.split()[1].lower() if value.startswith("CREATE") else "",
)
def test_what_would_not_follow_the_name_is_refused(pair: Pair, what: str, kind: str) -> None:
    pair.run(what)
    with pytest.raises(CrossingError, match=f"the {kind}.* hangs on the table"):
        pair.exchange()
    if kind.startswith(("trigger", "policy")):
        pair.run(what.replace("one.", "two."))
    elif kind.startswith("publication"):
        pair.run("ALTER PUBLICATION p ADD TABLE two.events")
    else:
        return
    pair.exchange()


def test_a_name_that_is_taken_is_told(pair: Pair) -> None:
    pair.run("CREATE INDEX by_type ON one.events (type)")
    pair.exchange()  # an index of the user's own goes along
    assert pair.run("SELECT 'two.by_type'::regclass::oid")
    pair.run("CREATE TABLE one.by_type ()")
    with pytest.raises(CrossingError, match=r"by_type.*already exists"):
        pair.exchange()


@pytest.fixture
def role(postgres_server: Server) -> Iterator[str]:
    name = f"app_{uuid.uuid4().hex[:8]}"
    postgres_server.run("CREATE ROLE {} LOGIN", name)
    yield name
    postgres_server.run("DROP ROLE {}", name)


def test_who_was_granted_a_name_keeps_it(pair: Pair, role: str) -> None:
    pair.run("GRANT USAGE ON SCHEMA one TO {}", role)
    pair.run("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA one TO {}", role)
    pair.run("GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA one TO {}", role)
    pair.run("GRANT SELECT (type) ON one.events TO PUBLIC")
    url = make_url(pair.plain).set(username=role).render_as_string(hide_password=False)
    try:
        with opened(url) as application:
            application.append("s-1", [NewEvent("Old", b"{}")], expected=ANY)
            pair.exchange()
            application.append("s-1", [NewEvent("New", b"{}")], expected=ANY)
            assert application.count() == len(pair.new) + 1
            assert application.append("s-7", [NewEvent("New", b"{}")], expected=None)
            with (
                opened(pair.beside) as beside,
                pytest.raises(CrossingError, match="this user does not own eventmig_store"),
            ):
                application.check_exchange(beside)
        columns = "SELECT attacl::text FROM pg_attribute WHERE attrelid = '{}.events'::regclass"
        found = pair.run(f"{columns.replace('{}', 'one')} AND attname = 'type'")
        assert found[0][0].startswith("{=r/")
    finally:
        pair.run("DROP OWNED BY {}", role)
