"""The server of the tests is a real one, and what it loses when it crashes is what was open."""

from __future__ import annotations

import psycopg
import pytest

from tests.postgres import OwnServer


def test_a_crash_keeps_what_was_committed_and_nothing_else(own_postgres_server: OwnServer) -> None:
    with own_postgres_server.database() as url:
        open_work = psycopg.connect(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE t (n int)")
            connection.execute("INSERT INTO t VALUES (1)")
        open_work.execute("INSERT INTO t VALUES (2)")
        own_postgres_server.stop_hard()
        with pytest.raises(psycopg.OperationalError):
            open_work.commit()
        open_work.close()
        own_postgres_server.start()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
