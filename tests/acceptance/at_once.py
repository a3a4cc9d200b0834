"""Jobs that start at once for one target: processes of their own, let go in the same moment."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg

from eventmig import Registry, commands
from eventmig.errors import EventmigError, JobLockedError
from eventmig.migrate import failpoints, ledger
from eventmig.project import Project
from eventmig.stores.open import open_store
from tests.acceptance.support import project, steps
from tests.acceptance.test_postgres_jobs import clean_history, fill, held
from tests.forks import fork

LOCKED = 5
"""The exit code of a process that another one was before."""


def forked(work: Callable[[], object], reached: Callable[[str], None] | None = None) -> int:
    """A process that works, and tells failpoints to `reached`; its id.

    It ends with 0, with LOCKED where another holds the job, else with 1.
    """
    child = fork()
    if child:
        return child
    code = 9
    try:
        failpoints.handler = reached
        work()
        code = 0
    except JobLockedError:
        code = LOCKED
    except EventmigError as error:
        print(repr(error), file=sys.stderr)
        code = 1
    except BaseException as error:  # noqa: BLE001 - a fork ends here, whatever it was
        print(repr(error), file=sys.stderr)
    os._exit(code)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Gate:
    """Many processes wait before it, and all go through in one moment."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def wait(self) -> None:
        """Wait until it is opened. In a fork."""
        os.close(self._write)  # else who waits would keep it shut
        os.read(self._read, 1)

    def open(self) -> None:
        os.close(self._write)
        os.close(self._read)


class Races:
    """Rounds of jobs that start at once, each round for a target that is not there yet."""

    def __init__(self, folder: Path, database: str | None) -> None:
        """`database` is the URL of a PostgreSQL database; without, targets are files."""
        self.folder = folder
        self.database = database
        fill(f"sqlite:///{folder}/source.db", clean_history(7))
        self.its: Project = project(folder, Registry(steps()), batch_size=3)
        self._upcast("first")  # what that imports and compiles, forks have then
        gc.freeze()  # and none has to look through them
        self._alone: dict[bool, list[object]] = {}
        for whole, name in ((False, "begun"), (True, "whole")):
            assert self._race(name, 1, whole) == [0]
            self._alone[whole] = self._left(name)

    def target(self, name: str) -> str:
        if self.database is None:
            return f"sqlite:///{self.folder}/{name}.db"
        return f"{self.database}&schema={name}"

    def round(self, name: str, *, contenders: int = 2, whole: bool = True) -> None:
        """One race. Raises AssertionError unless one won, and all is as if it had been alone.

        Who wins keeps the job until all the others have ended; then it does all of it, or, but
        for `whole`, dies.
        """
        codes = self._race(name, contenders, whole)
        assert codes == [LOCKED] * (contenders - 1) + [0], (name, codes)
        assert self._left(name) == self._alone[whole], name

    def _race(self, name: str, contenders: int, whole: bool) -> list[int]:
        start, others_ended = Gate(), Gate()

        def work() -> None:
            start.wait()
            self._upcast(name)

        def hold(point: str) -> None:
            if point == "begin: after":
                others_ended.wait()
                if not whole:
                    os._exit(0)

        children = {forked(work, hold) for _ in range(contenders)}
        start.open()
        codes: list[int] = []
        while children:
            if len(children) == 1:
                others_ended.open()
            child, status = os.wait()
            children.remove(child)
            codes.append(os.waitstatus_to_exitcode(status))
        return codes

    def _upcast(self, name: str) -> None:
        commands.upcast(self.its, target=self.target(name), verify=False)

    def _left(self, name: str) -> list[object]:
        """What there is of a target: events, jobs, and its files or its schema's objects."""
        with open_store(self.target(name)) as store, store.reading() as connection:
            jobs: list[object] = [
                (job.epoch, job.state, job.tally.written) for job in ledger.jobs(connection)
            ]
            found = [*jobs, store.held()]
        found += held(self.target(name))
        if self.database is None:
            found += sorted(p.name.replace(name, "") for p in self.folder.glob(f"{name}.db*"))
            return found
        with psycopg.connect(self.database) as sql:
            made = sql.execute(
                "SELECT relkind::text || relname FROM pg_class"
                " WHERE relnamespace = %(schema)s::regnamespace ORDER BY 1",
                {"schema": name},
            )
            return found + made.fetchall()
