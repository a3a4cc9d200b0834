"""What a fork must not carry: an open SQLite database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.forks import fork, forked

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="this system does not tell which files are open"
)


@pytest.mark.parametrize("wal", [False, True])
def test_no_fork_carries_an_open_database(tmp_path: Path, wal: bool) -> None:
    file = tmp_path / "history.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
        connection.execute("CREATE TABLE t (x)")
        with pytest.raises(AssertionError, match=r"close before the fork: .*/history\.db"):
            fork()
    assert forked(os._exit, 3) == 3
