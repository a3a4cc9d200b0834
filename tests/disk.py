"""A PostgreSQL database whose disk a test fills up and empties.

Its files lie on a file system in memory of a few megabytes. To mount one takes root; where this
user may not, the next best is a server that refuses by itself whatever would take room, with the
same SQLSTATE. The run's summary says which way the tests on full disks went.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psycopg

from tests.postgres import OwnServer

_BALLAST = "ballast"
_BLOCK = 4096
_ROW = 8192


class UnmountableError(Exception):
    """This user may not mount a file system; the text is what the system said."""


class Disk:
    """A small file system; `folder` is where it is mounted."""

    def __init__(self, megabytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eventmig-disk-"))
        self.folder.chmod(0o755)
        done = self._run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs")
        if done.returncode:
            self.folder.rmdir()
            raise UnmountableError(done.stderr.strip())

    def fill(self, leave: int = 0) -> None:
        """Fill it, but for so many bytes."""
        found = os.statvfs(self.folder)
        free = found.f_bavail * found.f_frsize - leave
        with (self.folder / _BALLAST).open("ab", buffering=0) as file:
            for _ in range(free // _BLOCK):
                file.write(bytes(_BLOCK))

    def make_room(self) -> None:
        """Take away what `fill` put there."""
        (self.folder / _BALLAST).unlink()

    def remove(self) -> None:
        """Unmount it; what is there is gone."""
        done = self._run("umount")
        assert done.returncode == 0, done.stderr
        self.folder.rmdir()

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*command, str(self.folder)], check=False, capture_output=True, text=True
            )
        except FileNotFoundError as error:
            return subprocess.CompletedProcess(command, 1, "", str(error))


class Database(Protocol):
    """A database on a disk of its own."""

    url: str

    def fill(self, leave: int = 0) -> None:
        """From now on there is room for so many bytes, and then no more."""
        ...

    def make_room(self) -> None:
        """End that."""
        ...


class Mounted:
    """A database on a small disk."""

    def __init__(self, url: str, disk: Disk) -> None:
        self.url = url
        self.fill = disk.fill
        self.make_room = disk.make_room


class MadeUp:
    """A database that refuses rows and tables as if its disk was full."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fill(self, leave: int = 0) -> None:
        self._run(
            "CREATE SCHEMA full_disk",
            "CREATE SEQUENCE full_disk.rows",
            f"""CREATE FUNCTION full_disk.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('full_disk.rows') > {leave // _ROW} THEN
                    RAISE 'could not extend a file' USING ERRCODE = '53100';
                END IF; RETURN NEW; END $$""",
            """DO $$ DECLARE t regclass; BEGIN
                FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND oid >= 16384 LOOP
                    EXECUTE format('CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON %s'
                        ' FOR EACH ROW EXECUTE FUNCTION full_disk.refuse()', t);
                END LOOP; END $$""",
            """CREATE FUNCTION full_disk.refuse_tables() RETURNS event_trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE 'could not make a file' USING ERRCODE = '53100'; END $$""",
            "CREATE EVENT TRIGGER full_disk ON ddl_command_start"
            " WHEN TAG IN ('CREATE TABLE', 'CREATE INDEX')"
            " EXECUTE FUNCTION full_disk.refuse_tables()",
        )

    def make_room(self) -> None:
        self._run("DROP EVENT TRIGGER full_disk", "DROP SCHEMA full_disk CASCADE")

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@contextmanager
def database_on_a_disk(server: OwnServer, megabytes: int) -> Iterator[tuple[Database, str]]:
    """A fresh database on a disk of this size, and how that is done."""
    try:
        disk = Disk(megabytes)
    except UnmountableError as error:
        with server.database() as url:
            yield MadeUp(url), f"made up by the server, for none can be mounted ({error})"
        return
    try:
        with _database_on(disk, server) as url:
            yield Mounted(url, disk), f"file systems of {megabytes} MB"
    finally:
        disk.remove()


@contextmanager
def _database_on(disk: Disk, server: OwnServer) -> Iterator[str]:
    """The URL of a fresh database whose files lie on this disk; the server's log does not."""
    space = disk.folder / "space"
    space.mkdir()
    owner = server.folder.stat()
    os.chown(space, owner.st_uid, owner.st_gid)
    server.run(f"CREATE TABLESPACE {{}} LOCATION '{space}'", disk.folder.name)
    try:
        name = f"{disk.folder.name}_db"
        server.run("CREATE DATABASE {} TEMPLATE template0 TABLESPACE {}", name, disk.folder.name)
        try:
            yield server.url_of(name)
        finally:
            server.run("DROP DATABASE {} WITH (FORCE)", name)
    finally:
        server.run("DROP TABLESPACE {}", disk.folder.name)
