"""SQLite files that are no store, damaged ones, and those that cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from eventmig.errors import (
    ConfigError,
    DataError,
    NotAStoreError,
    ReadOnlyError,
    StoreDamagedError,
    StoreError,
    StoreFullError,
)
from eventmig.events import Event, NewEvent
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.store import Mode, SqliteStore


def url(path: Path, query: str = "") -> str:
    return f"sqlite:///{path}{query}"


def filled(path: Path, events: int = 3) -> Path:
    with open_store(url(path), mode="create") as store:
        store.append("s", [NewEvent("T", b'{"pad":"' + b"x" * 500 + b'"}')] * events, expected=None)
    return path


def as_sql(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def damages(path: Path) -> list[StoreDamagedError]:
    with open_store(url(path)) as store:
        return list(store.preflight())


# --- what is not a store


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("id,type\n1,Opened\n" * 20)


def other_database(path: Path) -> None:
    as_sql(path, "CREATE TABLE events (id INTEGER)")


def missing(path: Path) -> None:
    pass


@pytest.mark.parametrize("make", [folder, empty, text, other_database, missing])
@pytest.mark.parametrize("mode", ["read", "write"])
def test_what_is_no_store_is_named_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], mode: Mode
) -> None:
    path = tmp_path / "x.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(NotAStoreError) as error:
        open_store(url(path), mode=mode)
    assert str(path) in str(error.value)
    assert error.value.remedy
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [p for p in tmp_path.iterdir() if p != path] == []


@pytest.mark.parametrize("make", [folder, text])
def test_create_does_not_write_over_what_is_no_store(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "x.db"
    make(path)
    with pytest.raises(NotAStoreError):
        open_store(url(path), mode="create")


def test_create_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotAStoreError, match="no folder"):
        open_store(url(tmp_path / "no" / "x.db"), mode="create")


def test_other_tables_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    open_store(url(path, "?tables=v2_"), mode="create").close()
    with pytest.raises(NotAStoreError, match=r"\?tables=v2_"):
        open_store(url(path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    as_sql(path, "UPDATE eventmig_store SET format = 99")
    with pytest.raises(StoreError, match=r"newer eventmig.*99"):
        open_store(url(path), mode="write")


def test_a_store_that_lacks_a_table_is_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    as_sql(path, "DROP TABLE origins")
    with pytest.raises(StoreDamagedError, match="origins"):
        open_store(url(path))


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("shop.db", "sqlite:///shop.db"),
        ("sqlite://", "sqlite:///history.db"),
        ("sqlite:///:memory:", "sqlite:///history.db"),
        ("sqlite://host/x.db", "three slashes"),
        ("sqlite:///x.db?table=v2_", "tables"),
        ("sqlite:///x.db?tables=v2-", "letters"),
        ("sqlite:///x.db?tables=sqlite_", "letters"),
        ("sqlite:///x.db?tables=a&tables=b", "once"),
        ("sqlite:///x.db?release=a/b", "letters"),
        ("redis://me:secret@host", "sqlite:///"),
        ("sqlite://me:secret@host:port/x", "escape"),
    ],
)
def test_a_url_that_names_no_store(given: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as error:
        open_store(given)
    assert remedy in error.value.remedy
    assert "secret" not in str(error.value)


def test_the_same_events_have_the_same_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "x.db")
    (tmp_path / "link.db").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    names = ["sqlite:///x.db", "sqlite:///./link.db", url(path), "sqlite+pysqlite:///x.db"]
    identities = set()
    for name in [*names, "sqlite:///x.db?release=r"]:
        with open_store(name) as store:
            identities.add(store.identity())
    assert len(identities) == 2


# --- damage


def test_a_truncated_file(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db", events=200)
    whole = path.read_bytes()
    for size in (50, 4096, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreDamagedError, match="truncated"):
            open_store(url(path))


def test_a_damaged_page_is_found_before_the_job(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db", events=400)
    whole = bytearray(path.read_bytes())
    for page in range(8, len(whole) // 4096):
        whole[page * 4096 : page * 4096 + 16] = b"\xa5" * 16
    path.write_bytes(whole)
    assert damages(path)
    with open_store(url(path)) as store, pytest.raises(StoreDamagedError):
        list(store.read_all())


def test_holes_and_repeated_positions_are_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db", events=6)
    assert damages(path) == []
    as_sql(path, "DELETE FROM events WHERE stream_position IN (1, 3, 4)")
    found = damages(path)
    assert [(d.where.stream, d.where.stream_position) for d in found] == [("s", 2), ("s", 5)]
    assert "position 1 is missing" in str(found[0])
    assert "position 3 to 4 is missing" in str(found[1])
    as_sql(
        path,
        "DROP INDEX events_by_stream",
        "UPDATE events SET stream_position = 2 WHERE stream_position = 5",
    )
    assert "more than one event at position 2" in str(damages(path)[1])


def test_events_of_no_stream_are_named(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    as_sql(path, "DELETE FROM streams")
    assert "belong to no stream" in str(damages(path)[0])


# --- what cannot be written


def test_a_store_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    with open_store(url(filled(tmp_path / "x.db"))) as store, pytest.raises(ReadOnlyError):
        store.append("s", [NewEvent("T", b"{}")], expected=ANY)


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    before = path.read_bytes()
    with open_store(url(path)) as store:
        assert store.count() == 3
        with store.reading() as connection, pytest.raises(Exception, match=r"readonly|read-only"):
            connection.exec_driver_sql("DELETE FROM events")
    assert path.read_bytes() == before


def as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a process that may not write what root (or this user) made read-only."""
    drop = "import os\nif os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
    names = "import sys\nfrom eventmig.stores.open import open_store\nimport eventmig.errors\n"
    return subprocess.run(
        [sys.executable, "-c", names + drop + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    path = filled(tmp_path / "deep" / "x.db")
    path.chmod(0o444)
    path.parent.chmod(0o555)
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o555)
    return path


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_read_only_folder_is_read(read_only: Path, journal: str) -> None:
    if journal == "delete":
        read_only.parent.chmod(0o755)
        read_only.chmod(0o644)
        as_sql(read_only, "PRAGMA journal_mode = delete")
        read_only.chmod(0o444)
        read_only.parent.chmod(0o555)
    done = as_nobody(
        """
        with open_store(sys.argv[1]) as store:
            print(sum(map(len, store.read_all())), os.listdir(os.path.dirname(sys.argv[2])))
        """,
        url(read_only),
        read_only,
    )
    assert done.stdout.strip() == "3 ['x.db']", done.stderr


def test_a_read_only_store_is_not_written(read_only: Path) -> None:
    before = read_only.read_bytes()
    done = as_nobody(
        """
        from eventmig.events import NewEvent
        for work in (lambda s: s.append("s", [NewEvent("T", b"{}")], expected=3),
                     lambda s: s.lock().__enter__()):
            with open_store(sys.argv[1], mode="write") as store:
                try:
                    work(store)
                except eventmig.errors.ReadOnlyError as error:
                    print("refused:", error.remedy)
        """,
        url(read_only),
    )
    assert done.stdout.count("refused: give this user") == 2, done.stderr
    assert read_only.read_bytes() == before


# --- a full disk


def one_megabyte(n: int) -> list[Event]:
    data = b'"' + b"x" * 10_000 + b'"'
    return [Event(0, f"s{n}", i, f"{n}-{i}", "T", 1, data, None, i) for i in range(1, 101)]


def append_until_full(store: SqliteStore) -> int:
    for n in range(100):
        try:
            with store.begin() as transaction:
                transaction.append_copied(one_megabyte(n))
        except StoreFullError:
            return n
    raise AssertionError("the disk did not fill up")


def test_a_full_disk_keeps_whole_batches_only(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    with open_store(url(path), mode="write") as store:
        with store.begin() as transaction:
            transaction.connection.exec_driver_sql("PRAGMA max_page_count = 2000")
        whole = append_until_full(store)
        assert whole > 0
        assert store.count() == 3 + 100 * whole
        assert list(store.preflight()) == []
        store.append("s", [NewEvent("T", b"{}")], expected=3)


def test_a_file_size_limit_keeps_whole_batches_only(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    code = """
        import resource
        from tests.unit.test_sqlite_faults import append_until_full
        with open_store(sys.argv[1], mode="write") as store:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
            print(append_until_full(store))
        """
    names = "import sys\nfrom eventmig.stores.open import open_store\n"
    done = subprocess.run(
        [sys.executable, "-c", names + textwrap.dedent(code), url(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with open_store(url(path)) as store:
        assert store.count() == 3 + 100 * int(done.stdout)
        assert list(store.preflight()) == []


def test_an_event_too_big_for_sqlite(tmp_path: Path) -> None:
    with open_store(url(tmp_path / "x.db"), mode="create") as store:
        with store.begin() as transaction:
            driver = transaction.connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000)
        with pytest.raises(DataError, match="larger than SQLite"):
            store.append("s", [NewEvent("T", b"x" * 2_000)], expected=None)


def test_a_100_megabyte_event_is_carried(tmp_path: Path) -> None:
    data = b'"' + b"x" * 100_000_000 + b'"'
    with open_store(url(tmp_path / "x.db"), mode="create") as store:
        store.append("s", [NewEvent("T", data), NewEvent("T", b"{}")], expected=None)
        pages = [[len(e.data) for e in page] for page in store.read_all()]
        assert pages == [[100_000_002], [2]]


def test_a_second_look_does_not_give_up_the_locks(tmp_path: Path) -> None:
    """Closing any handle of a file ends a process's POSIX locks on it, those of SQLite too."""
    path = tmp_path / "x.db"
    with open_store(url(path), mode="create") as store:
        store.append("s", [NewEvent("T", b"{}")], expected=None)
        open_store(url(path)).close()
        other = f"import sqlite3; c = sqlite3.connect({str(path)!r}); "
        other += "c.execute('SELECT count(*) FROM events').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", other], check=True)
        assert path.with_name("x.db-wal").exists(), "taken away as if nobody had it open"
        store.append("s", [NewEvent("T", b"{}")], expected=1)


# --- taking back what opening made


def test_discard_takes_back_a_new_file(tmp_path: Path) -> None:
    store = open_store(url(tmp_path / "x.db"), mode="create")
    store.discard()
    assert list(tmp_path.iterdir()) == []


def test_discard_takes_back_new_tables_only(tmp_path: Path) -> None:
    path = filled(tmp_path / "x.db")
    store = open_store(url(path, "?tables=v2_"), mode="create")
    store.discard()
    with pytest.raises(NotAStoreError):
        open_store(url(path, "?tables=v2_"))
    with open_store(url(path), mode="write") as old:
        old.discard()
        assert old.count() == 3


def test_discard_keeps_what_has_events(tmp_path: Path) -> None:
    store = open_store(url(tmp_path / "x.db"), mode="create")
    store.append("s", [NewEvent("T", b"{}")], expected=None)
    store.discard()
    with open_store(url(tmp_path / "x.db")) as again:
        assert again.count() == 1
