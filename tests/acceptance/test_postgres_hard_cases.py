"""Whole jobs on PostgreSQL where the server, the user or the moment is against them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from eventmig import Registry, commands
from eventmig.cli.exits import ExitCode
from eventmig.errors import StoreError
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.job import Progress
from eventmig.migrate.states import State
from tests.acceptance.at_once import ended, forked
from tests.acceptance.support import cli, project, project_in_files, steps
from tests.acceptance.test_holders import everything
from tests.acceptance.test_postgres_jobs import clean_history, fill, held
from tests.acceptance.world import World
from tests.postgres import WITH_PASSWORD, OwnServer

KILLED = -signal.SIGKILL


# limits and privileges ---------------------------------------------------------------------------


def test_a_statement_timeout_amid_a_job(tmp_path: Path, postgres_url: str) -> None:
    """Somebody else's lock outlasts it: nothing of the batch is kept, and the job goes on later."""
    fill(f"sqlite:///{tmp_path}/source.db", clean_history(21))
    its = project(tmp_path, Registry(steps()), batch_size=3)
    commands.upcast(its, target=f"sqlite:///{tmp_path}/reference.db")
    target = f"{postgres_url}&schema=new"
    with ExitStack() as held_open:

        def lock(progress: Progress) -> None:
            if progress.done == 9:
                other = held_open.enter_context(psycopg.connect(postgres_url))
                other.execute("LOCK TABLE new.events IN SHARE MODE")

        with pytest.raises(StoreError, match="statement_timeout") as error:
            commands.upcast(
                its, target=f"{target}&options=-c statement_timeout=300ms", on_progress=lock
            )
        assert "the same command resumes" in error.value.remedy
        assert "the ledger could not be told" in error.value.__notes__[0]  # it waits for the lock
    report = commands.upcast(its, target=target)
    assert (report.resumed, report.ready, report.job.tally.read) == (True, True, 21)
    assert held(target) == held(f"sqlite:///{tmp_path}/reference.db")


def test_a_privilege_that_a_job_lacks_is_named_and_granted_it_goes_on(
    tmp_path: Path, own_postgres_server: OwnServer
) -> None:
    fill(f"sqlite:///{tmp_path}/source.db", clean_history(21))
    its = project(tmp_path, Registry(steps()), batch_size=3)
    with own_postgres_server.database() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE ROLE some_job LOGIN")
        target = make_url(url).set(username="some_job").update_query_dict({"schema": "new"})
        try:
            place = target.render_as_string(hide_password=False)
            with pytest.raises(StoreError, match="permission denied for database") as error:
                commands.upcast(its, target=place)
            assert "grant it" in error.value.remedy
            admin.execute("CREATE SCHEMA new AUTHORIZATION some_job")

            def revoke(progress: Progress) -> None:
                if progress.done == 9:
                    admin.execute("REVOKE INSERT ON new.events FROM some_job")

            with pytest.raises(StoreError, match="permission denied for table events"):
                commands.upcast(its, target=place, on_progress=revoke)
            admin.execute("GRANT INSERT ON new.events TO some_job")
            assert commands.upcast(its, target=place).ready
            commands.upcast(its, target=f"sqlite:///{tmp_path}/reference.db")
            assert held(place) == held(f"sqlite:///{tmp_path}/reference.db")
        finally:
            admin.execute("DROP OWNED BY some_job CASCADE")
            admin.execute("DROP ROLE some_job")


SECRET = "s3cret/pass@word"


@pytest.fixture
def with_password(own_postgres_server: OwnServer) -> Iterator[str]:
    """The URL of a database whose owner must give a password; the URL holds it."""
    with own_postgres_server.database() as url, psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {WITH_PASSWORD} LOGIN PASSWORD '{SECRET}'")
        admin.execute(f"CREATE SCHEMA new AUTHORIZATION {WITH_PASSWORD}")
        try:
            near = make_url(url).set(username=WITH_PASSWORD, password=SECRET)
            yield near.update_query_dict({"schema": "new"}).render_as_string(hide_password=False)
        finally:
            admin.execute(f"DROP OWNED BY {WITH_PASSWORD} CASCADE")
            admin.execute(f"DROP ROLE {WITH_PASSWORD}")


def test_a_password_is_nowhere_but_where_it_was_given(
    tmp_path: Path,
    with_password: str,
    own_postgres_server: OwnServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = project_in_files(tmp_path / "job")
    fill(f"sqlite:///{folder}/source.db", clean_history(21))
    given = ("--target", with_password)
    said = [cli(folder, "upcast", "--json", *given), cli(folder, "history", *given)]
    assert [done.returncode for done in said] == [ExitCode.DONE] * 2, said
    wrong = cli(folder, "status", "--target", with_password.replace(":s3cret", ":0ther"))
    assert wrong.returncode == ExitCode.STOPPED
    its = project(folder, Registry(steps()))
    commands.cutover(its, target=with_password)
    # From there to a file: now it is the source, which the ledger names.
    onward = project(folder, Registry(steps()), release="3", lock=its.lock)
    commands.upcast(onward, source=with_password, target=f"sqlite:///{folder}/onward.db")
    everywhere = [text for done in (*said, wrong) for text in (done.stdout, done.stderr)]
    everywhere += [record.getMessage() for record in caplog.records]
    everywhere += [path.read_bytes().decode(errors="replace") for path in folder.glob("*.db*")]
    admin = make_url(with_password).set(username="postgres", password=None)
    with psycopg.connect(own_postgres_server.url_of(str(admin.database))) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'new'")
        for (table,) in tables.fetchall():
            rows = connection.execute(f'SELECT t::text FROM new."{table}" t'.encode())
            everywhere += [row for (row,) in rows]
    assert len(everywhere) > 50
    assert any(f"{WITH_PASSWORD}:***@" in text for text in everywhere)
    for secret in (SECRET, "s3cret"):
        assert [text for text in everywhere if secret in text] == []


# kills -------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, postgres_url: str) -> World:
    return World(tmp_path, urls=(f"{postgres_url}&schema=one", f"{postgres_url}&schema=two"))


@pytest.mark.parametrize("point", ["cancel: before", "cancel: after"])
def test_killed_while_it_is_cancelled(world: World, point: str) -> None:
    world.upcast()
    for work in (world.cutover, world.reverse):
        work()
    assert world.forked(lambda: commands.cancel(world.project), kill_at=point) == KILLED
    if point.endswith("before"):
        assert commands.cancel(world.project) == 60
    assert held(world.urls[1]) == []
    world.upcast()  # the target is free for another job
    world.cutover()
    assert [len(held(url)) for url in world.urls] == [60, 60]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_while_an_operator_resumes_it(
    world: World, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upcast()
    world.cutover()
    with psycopg.connect(world.urls[0].split("&schema")[0], autocommit=True) as behind:
        behind.execute("ALTER TABLE one.events DISABLE TRIGGER ALL")
        behind.execute(
            "INSERT INTO one.events (global_position, stream_id, stream_position, event_id, type,"
            " schema_version, data, recorded_at) SELECT global_position + 1, stream_id, 99, 'x',"
            " 'T', 1, '{}', 1 FROM one.events ORDER BY global_position DESC LIMIT 1"
        )
        behind.execute("ALTER TABLE one.events ENABLE TRIGGER ALL")
        world.keep_up()
        assert world.state() is State.NEEDS_OPERATOR
        behind.execute("DELETE FROM one.events WHERE event_id = 'x'")

    def resume() -> None:
        enter = ledger.enter

        def dying(*args: object, **how: object) -> object:
            if after:
                enter(*args, **how)  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        monkeypatch.setattr(ledger, "enter", dying)
        commands.resume(world.project)

    assert ended(forked(resume)) == KILLED
    assert world.state() is State.NEEDS_OPERATOR  # it dies within the transaction
    assert commands.resume(world.project).state is State.REVERSE_WINDOW
    world.reverse()
    assert [len(held(url)) for url in world.urls] == [60, 60]


def test_a_mend_that_is_killed_leaves_nothing_that_the_next_one_does_not_mend(
    world: World,
) -> None:
    """Killed amid a reverse, and whoever goes on is killed at each of its points, too."""
    world.upcast()
    world.cutover()
    assert world.forked(world.reverse, kill_at="prepare: after") == KILLED
    for point in ("fall back: before", "fall back: after", "reopen: before", "reopen: after"):
        assert world.forked(world.reverse, kill_at=point) == KILLED, point
    before = everything(world)
    assert before
    world.reverse()
    assert world.state() is State.REVERSED
    assert [len(held(url)) for url in world.urls] == [60, 60]


# other batches -----------------------------------------------------------------------------------


def test_killed_between_any_batches_and_resumed_with_others(
    tmp_path: Path, postgres_url: str
) -> None:
    """Whatever was written up to a kill, batches of any other size go on from there."""
    fill(f"sqlite:///{tmp_path}/source.db", clean_history(21))
    its = project(tmp_path, Registry(steps()))
    commands.upcast(its, target=f"sqlite:///{tmp_path}/alone.db")
    target = f"{postgres_url}&schema=new"

    def dying(name: str) -> None:
        if name == "batch: after":
            os.kill(os.getpid(), signal.SIGKILL)

    sizes: list[int] = []
    code = KILLED
    while code != 0:
        sizes.append((3, 1, 5, 2)[len(sizes) % 4])
        upcast = partial(commands.upcast, its, target=target, batch_size=sizes[-1])
        code = ended(forked(upcast, dying))
        assert code in (0, KILLED)
    assert len(sizes) > 6
    assert failpoints.handler is None
    assert held(target) == held(f"sqlite:///{tmp_path}/alone.db")
