"""What can be wrong with a PostgreSQL store, named: the server, the user, the tables."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Connection, make_url

from eventmig.errors import (
    CapabilityError,
    ConfigError,
    EventmigError,
    NotAStoreError,
    ReadOnlyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from eventmig.events import Event, NewEvent
from eventmig.project import sql_engine
from eventmig.stores.open import open_store
from tests.postgres import WITH_PASSWORD, OwnServer, Server
from tests.proxy import Cut, Proxy

SECRET = "s3cret/pass@word"
NEW = [NewEvent("T", b"{}")]


@pytest.fixture
def store_url(postgres_url: str) -> str:
    """The URL of a store with one event."""
    with open_store(postgres_url, mode="create") as store:
        store.append("a", NEW, expected=None)
    return postgres_url


def sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def user(postgres_server: Server) -> Iterator[Callable[[str, str], str]]:
    """Makes a user with some privileges in a database; gives the URL to be that user."""
    made: list[str] = []

    def one(url: str, *grants: str) -> str:
        name = f"limited_{make_url(url).database}"
        postgres_server.run("CREATE ROLE {} LOGIN", name)
        made.append(url)
        sql(url, *(f"GRANT {grant} TO {name}" for grant in grants))
        return make_url(url).set(username=name).render_as_string(hide_password=False)

    yield one
    for url in made:
        name = f"limited_{make_url(url).database}"
        sql(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


# --- the URL and the server


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("postgresql://me:secret@host", "DATABASE"),
        ("postgresql://me:secret@host/db?table=v2_", "schema"),
        ("postgresql://me:secret@host/db?tables=v2-", "letters"),
        ("postgresql://me:secret@host/db?tables=a&tables=b", "once"),
        ("postgresql://me:secret@host/db?release=a/b", "letters"),
        ("postgresql://me:secret@host/db?data=xml", "jsonb"),
        (f"postgresql://me:secret@host/db?schema={'ü' * 32}", "63 bytes"),
        ("postgresql://me@host/db?password=secret", "PGPASSWORD"),
        ("postgresql://me@host/db?sslpassword=secret", "PGPASSWORD"),
    ],
)
def test_a_url_that_names_no_store(given: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        open_store(given)
    assert remedy in error.value.remedy
    assert "secret" not in str(error.value)


def test_a_wrong_password_is_not_repeated(own_postgres_server: OwnServer) -> None:
    own_postgres_server.run("CREATE ROLE {} LOGIN PASSWORD 'other'", WITH_PASSWORD)
    url = make_url(own_postgres_server.url).set(username=WITH_PASSWORD, password=SECRET)
    try:
        with pytest.raises(StoreUnavailableError, match="password authentication failed") as error:
            open_store(url.render_as_string(hide_password=False))
    finally:
        own_postgres_server.run("DROP ROLE {}", WITH_PASSWORD)
    assert SECRET not in told(error.value)
    assert "PGPASSWORD" in error.value.remedy


def test_read_models_stand_in_the_schema_that_their_url_names(postgres_url: str) -> None:
    sql(postgres_url, "CREATE SCHEMA views")
    with sql_engine(f"{postgres_url}&schema=views") as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE totals (n int)")
    sql(postgres_url, "SELECT n FROM views.totals")
    with (
        pytest.raises(ConfigError, match="no option 'tables'"),
        sql_engine(f"{postgres_url}&tables=t_"),
    ):
        pass


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        open_store("postgresql://me@/db?host=/nowhere&connect_timeout=2")


def test_a_database_that_is_not_there(postgres_server: Server) -> None:
    with pytest.raises(StoreUnavailableError, match='"not there" does not exist'):
        open_store(postgres_server.url_of("not there"), mode="create")


def test_a_database_in_another_encoding(postgres_server: Server) -> None:
    postgres_server.run("CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1'", "latin")
    try:
        with pytest.raises(StoreError, match="encoding is LATIN1"):
            open_store(postgres_server.url_of("latin"), mode="create")
    finally:
        postgres_server.run("DROP DATABASE {}", "latin")


def told(error: BaseException | None) -> str:
    """Everything an error and its causes would print."""
    text = ""
    while error is not None:
        text += f"{error!r} {error} "
        error = error.__cause__ or error.__context__
    return text


# --- the tables


def test_a_schema_or_tables_that_are_not_there(store_url: str) -> None:
    with pytest.raises(NotAStoreError, match="no schema other"):
        open_store(f"{store_url}&schema=other", mode="write")
    with pytest.raises(NotAStoreError, match="no event store with tables=t_"):
        open_store(f"{store_url}&tables=t_")
    with open_store(f"{store_url}&schema=s&tables=t_", mode="create"):
        pass
    with pytest.raises(NotAStoreError) as error:
        open_store(f"{store_url}&schema=s")
    assert "?tables=t_" in error.value.remedy


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("DROP TABLE origins", "lacks the table origins"),
        ("DROP SEQUENCE events_position", "events_position"),
        ("ALTER TABLE events ALTER recorded_at TYPE text", "recorded_at .* is text"),
        ("ALTER TABLE events DROP metadata", "metadata .* missing"),
        ("ALTER TABLE events ALTER data TYPE text[] USING NULL", "data .* is _text"),
        ("ALTER TABLE events ALTER metadata TYPE jsonb", "metadata .* is jsonb"),
    ],
)
def test_tables_that_eventmig_did_not_make_so(store_url: str, broken: str, message: str) -> None:
    sql(store_url, "ALTER TABLE events ALTER data DROP NOT NULL", broken)
    with pytest.raises(StoreDamagedError, match=message):
        open_store(store_url)


def test_another_type_of_data_than_it_was_made_with(store_url: str) -> None:
    with pytest.raises(ConfigError, match="is jsonb, not json"):
        open_store(f"{store_url}&data=json")


def test_a_store_of_a_newer_format(store_url: str) -> None:
    sql(store_url, "UPDATE eventmig_store SET format = 99")
    with pytest.raises(StoreError, match="format is 99"):
        open_store(store_url)


def test_holes_and_strays_are_damage(store_url: str) -> None:
    with open_store(store_url, mode="write") as store:
        store.append("b", NEW * 3, expected=None)
        sql(
            store_url,
            "DELETE FROM events WHERE stream_position = 2",
            "UPDATE events SET stream_id = 99 WHERE global_position = 1",
        )
        found = [damage.what for damage in store.preflight()]
    assert len(found) == 2
    assert "'b' has a hole: position 2 is missing" in found[0]
    assert "belong to no stream" in found[1]


def test_tables_that_go_while_the_store_is_open(store_url: str) -> None:
    with open_store(store_url, mode="write") as store:
        sql(store_url, "DROP TABLE events")
        with pytest.raises(StoreDamagedError, match=r"not as eventmig makes them.*events"):
            store.count()
        with pytest.raises(StoreDamagedError, match=r"not as eventmig makes them.*events"):
            store.append("a", NEW, expected=1)


# --- the user


def test_privileges_that_are_missing_are_named(
    store_url: str, user: Callable[[str, str], str]
) -> None:
    limited = user(store_url, "USAGE ON SCHEMA public")
    with pytest.raises(StoreError, match=r"may not read the table .*eventmig_store") as error:
        open_store(limited)
    assert "GRANT SELECT" in error.value.remedy
    name = make_url(limited).username
    sql(
        store_url,
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {name}",
    )
    with open_store(limited, mode="write") as store:
        assert store.count() == 1
        with pytest.raises(StoreError, match=r"lacks a privilege.*permission denied for table"):
            store.append("a", NEW, expected=1)
    with pytest.raises(StoreError, match=r"lacks a privilege.*permission denied for"):
        open_store(f"{limited}&schema=new", mode="create")


def test_a_session_that_may_not_write(store_url: str) -> None:
    url = f"{store_url}&options=-c default_transaction_read_only=on"
    with (
        open_store(url, mode="write") as store,
        pytest.raises(ReadOnlyError, match="takes no writes") as error,
    ):
        store.append("a", NEW, expected=1)
    assert "primary" in error.value.remedy


def test_a_store_opened_for_reading_is_not_written(store_url: str) -> None:
    with open_store(store_url) as store, pytest.raises(ReadOnlyError, match="reading only"):
        store.append("a", NEW, expected=1)


# --- what happens while it works


def refuse(url: str, state: str) -> None:
    """Let the server refuse every new event with this SQLSTATE."""
    sql(
        url,
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'made up' USING ERRCODE = '{state}'; END $$""",
        "CREATE TRIGGER refuse BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()",
    )


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        ("53100", StoreFullError, "no room left"),
        ("53200", StoreUnavailableError, "too little memory"),
        ("40P01", StoreError, "in the way"),
        ("55P03", StoreError, "in the way"),
        ("57P01", StoreUnavailableError, "was lost"),
        ("58030", StoreError, "read or write its files"),
        ("XX001", StoreDamagedError, "damaged"),
    ],
)
def test_what_the_server_says_is_told_apart(
    store_url: str, state: str, kind: type[EventmigError], message: str
) -> None:
    refuse(store_url, state)
    with open_store(store_url, mode="write") as store:
        with pytest.raises(kind, match=rf"{message}.*made up") as error:
            store.append("a", NEW, expected=1)
        assert type(error.value) is kind
        assert error.value.remedy
        assert store.count() == 1
        sql(store_url, "DROP TRIGGER refuse ON events")
        store.append("a", NEW, expected=1)
        assert [e.stream_position for e in store.read_stream("a")] == [1, 2]


def test_a_statement_that_takes_too_long(store_url: str) -> None:
    with psycopg.connect(store_url) as other:
        other.execute("LOCK TABLE events")
        limited = f"{store_url}&options=-c statement_timeout=200ms"
        with (
            open_store(limited, mode="write") as store,
            pytest.raises(StoreError, match="cancelled a statement") as error,
        ):
            store.append("a", NEW, expected=1)
        assert "statement_timeout" in error.value.remedy
        other.rollback()


def test_a_lock_of_others_is_not_waited_for_for_ever(store_url: str) -> None:
    """30 seconds, as on SQLite; an option of the URL says otherwise."""
    with open_store(store_url, mode="write") as store, store.begin() as tx:
        assert tx.connection.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    with psycopg.connect(store_url) as other:
        other.execute("LOCK TABLE events")
        limited = f"{store_url}&options=-c lock_timeout=100ms"
        with (
            open_store(limited, mode="write") as store,
            pytest.raises(StoreError, match="another transaction was in the way"),
        ):
            store.append("a", NEW, expected=1)
        other.rollback()


def test_the_server_is_told_to_notice_clients_that_are_gone(store_url: str) -> None:
    """By a socket of the machine itself, as here, it has no use for that; who set it is told."""
    given = "options=-c tcp_keepalives_idle=7"
    for url, source in ((store_url, "session"), (f"{store_url}&{given}", "client")):
        with open_store(url, mode="write") as store, store.begin() as tx:
            found = tx.connection.exec_driver_sql(
                "SELECT source FROM pg_settings WHERE name = 'tcp_keepalives_idle'"
            )
            assert found.scalar() == source


def test_a_server_that_stops_and_comes_back(own_postgres_server: OwnServer) -> None:
    with own_postgres_server.database() as url, open_store(url, mode="create") as store:
        store.append("a", NEW, expected=None)
        held = store.lock()
        held.__enter__()
        own_postgres_server.stop_hard()
        try:
            with pytest.raises(StoreUnavailableError):
                store.append("a", NEW, expected=1)
            with pytest.raises(StoreUnavailableError):
                store.count()
        finally:
            own_postgres_server.start()
        assert store.count() == 1  # reading connects anew
        with pytest.raises(StoreUnavailableError, match="held this target was lost"):
            store.append("a", NEW, expected=1)
        held.__exit__(None, None, None)
        store.append("a", NEW, expected=1)
        assert [e.stream_position for e in store.read_stream("a")] == [1, 2]


@pytest.mark.parametrize("within", ["lock", "begin", "reading"])
def test_a_connection_that_is_cut_is_one_error_and_no_noise(
    store_url: str, within: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(store_url) as proxy, open_store(proxy.near(store_url), mode="write") as store:

        def cut_off() -> None:
            if within == "lock":
                proxy.cut(1, Cut.BEFORE)
                store.lock().__enter__()
            with store.reading() if within == "reading" else store.begin() as tx:
                connection = tx if isinstance(tx, Connection) else tx.connection
                connection.exec_driver_sql("SELECT 1")
                proxy.cut_all()
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(StoreUnavailableError, match="connection to the server was lost"):
            cut_off()
        gc.collect()
    assert [record for record in caplog.records if record.name.startswith("sqlalchemy")] == []


def test_a_number_that_its_column_cannot_hold(store_url: str) -> None:
    event = Event(0, "b", 1, "x", "T", 2**31, b"{}", None, 0)
    with open_store(store_url, mode="write") as store:
        with pytest.raises(EventmigError, match="32 bits"), store.begin() as tx:
            tx.append_copied([event])
        with pytest.raises(EventmigError, match="1,024 fit"):
            store.append("n" * 1_025, NEW, expected=None)
        store.append("n" * 1_024, NEW, expected=None)


def test_a_replica_is_read_but_not_followed_or_written(
    own_postgres_server: OwnServer,
) -> None:
    with own_postgres_server.database() as url:
        with open_store(url, mode="create") as store:
            store.append("a", NEW, expected=None)
            here = store.identity()
        replica = own_postgres_server.replica()
        try:
            there = replica.url_of(str(make_url(url).database))
            with open_store(there) as store:
                assert store.identity() == here
                assert [e.stream for batch in store.read_all(until=1) for e in batch] == ["a"]
                with pytest.raises(CapabilityError, match="no safe head") as error:
                    store.head_position()
                assert "primary" in error.value.remedy
            with pytest.raises(ReadOnlyError, match="replica"):
                open_store(there, mode="write")
            with pytest.raises(ReadOnlyError, match="takes no writes"):
                open_store(f"{there}&schema=new", mode="create")
        finally:
            replica.remove()
