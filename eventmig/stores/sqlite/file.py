"""Which file and tables a SQLite URL names, what is wrong with them, and connections.

Stands below the store: it looks at the file before SQLite does, so that a wrong
path, an empty file or a truncated one is named as what it is, and nothing is
ever created by a look. It knows no events.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from eventmig.errors import ConfigError, NotAStoreError, StoreDamagedError, Where

_MAGIC: Final = b"SQLite format 3\x00"
OPTIONS: Final = ("tables", "release")
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_RELEASE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")

_BUSY_SECONDS: Final = 30.0
_WRITER_SETTINGS: Final = (
    # A commit that returned survives a power cut. Measured beside NORMAL in
    # batches of 5,000: no difference beyond the noise, on disk and on tmpfs.
    "PRAGMA synchronous = FULL",
    "PRAGMA cache_size = -32768",  # KiB; also what a sort for an index may hold in memory
    # Where indexes are written as well: 40 MB of log before pages are written
    # twice (+20% on tmpfs, +30% on disk).
    "PRAGMA wal_autocheckpoint = 10000",
    "PRAGMA journal_size_limit = 67108864",  # a long import leaves no long log behind
)
_READER_SETTINGS: Final = ("PRAGMA cache_size = -8192", "PRAGMA query_only = ON")


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """What a SQLite URL names: a file, a table prefix (may be empty), a release or None."""

    url: str
    path: Path
    tables: str = ""
    release: str | None = None

    @property
    def namespace(self) -> str:
        """Tells these tables and streams from others in the same file; empty for the plain ones."""
        return self.tables + (f"@{self.release}" if self.release else "")

    def scope(self) -> str:
        """The same for every URL of this file and these tables, whatever the release."""
        return f"sqlite:{os.path.realpath(self.path)}?tables={self.tables}"

    def identity(self) -> str:
        """Equal exactly when file (symlinks resolved), tables and release are."""
        return f"{self.scope()}&release={self.release or ''}"

    def lock_path(self) -> Path:
        """The file beside the store that one job at a time holds."""
        parts = [part for part in (self.tables, self.release) if part]
        return Path(".".join([os.path.realpath(self.path), *parts, "lock"]))


def locate(url: URL) -> Location:
    """Read a SQLite URL; raises `ConfigError` for what it may not say."""
    shown = url.render_as_string(hide_password=True)

    def wrong(what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{what}: {shown}", where=Where(store=shown), remedy=remedy)

    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise wrong("a SQLite store is a file", "write sqlite:///history.db")
    if url.host:
        raise wrong(
            "a SQLite URL has no host",
            "write three slashes before a relative path, four before an absolute one",
        )
    if unknown := [name for name in url.query if name not in OPTIONS]:
        raise wrong(
            f"a SQLite URL has no option {', '.join(map(repr, unknown))}",
            f"it knows {' and '.join(OPTIONS)}, as in sqlite:///history.db?tables=v2_",
        )
    options = {name: url.query.get(name, "") for name in OPTIONS}
    tables, release = options["tables"], options["release"]
    if not isinstance(tables, str) or not isinstance(release, str):
        raise wrong("an option stands twice in the URL", "name it once")
    if tables and (not _PREFIX.fullmatch(tables) or tables.lower().startswith("sqlite_")):
        raise wrong(
            f"{tables!r} cannot begin a table's name",
            "use letters, digits and _ (at most 40), as in tables=v2_",
        )
    if release and not _RELEASE.fullmatch(release):
        raise wrong(
            f"{release!r} cannot be a release's name", "use letters, digits, '.', '_', '+' and '-'"
        )
    return Location(url=shown, path=Path(url.database), tables=tables, release=release or None)


def check_file(location: Location) -> None:
    """Refuse what is no whole SQLite file, by name, without opening it as one.

    Raises `NotAStoreError` or `StoreDamagedError`. Reads 100 bytes, unless this process
    has the file open already.
    """
    path, where = location.path, Where(store=location.url, file=str(location.path))
    remedy = "check the path; `eventmig import` makes a store from JSON Lines"
    if not path.exists():
        raise NotAStoreError(f"there is no file {path}", where=where, remedy=remedy)
    if not path.is_file():
        raise NotAStoreError(f"{path} is not a file", where=where, remedy=remedy)
    if is_open(path):
        return
    try:
        with path.open("rb") as file:
            header = file.read(100)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise NotAStoreError(
            f"{path} cannot be read: {error.strerror}",
            where=where,
            remedy="give this user read permission on the file and its folder",
        ) from error
    if not header:
        raise NotAStoreError(f"{path} is empty", where=where, remedy=remedy)
    if not header.startswith(_MAGIC[: len(header)]):
        raise NotAStoreError(f"{path} is not a SQLite database", where=where, remedy=remedy)
    # The header's page count holds if it is as new as the change counter
    # (sqlite.org/fileformat.html, 1.3.7); newer pages may lie in the log.
    page_size = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0
    whole = (65536 if page_size == 1 else page_size) * pages
    if len(header) < 100 or (size < whole and not _log_size(path)):
        raise StoreDamagedError(
            f"{path} is truncated: {size:,} of {whole:,} bytes",
            where=where,
            remedy="copy the file again from where it came, or restore it from a backup",
        )


def is_open(path: Path) -> bool:
    """Whether this process has the file open; True where nobody can tell.

    Then it must not be opened and closed beside SQLite: a `close` gives up all of a process's
    POSIX locks on the file, those of its SQLite connections too (sqlite.org/howtocorrupt.html,
    2.2), and another process takes the log away under them.
    """
    if os.name == "nt":
        return False
    wanted = path.stat()
    try:
        handles = os.listdir("/dev/fd")
    except OSError:
        return True
    for handle in handles:
        try:
            found = os.fstat(int(handle))
        except OSError:  # the one that listed them
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _log_size(path: Path) -> int:
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def connect_reader(location: Location) -> sqlite3.Connection:
    """A connection that cannot write, nor create the file.

    A database in WAL mode needs a `-shm` file beside it. Where nobody could
    make one (a read-only folder) and there is no log, nobody is writing either,
    so the file is read as immutable.
    """
    uri = Path(os.path.realpath(location.path)).as_uri()
    try:
        return _connect(f"{uri}?mode=ro", _READER_SETTINGS)
    except sqlite3.OperationalError as error:
        unopened = error.sqlite_errorcode & 0xFF in (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        )
        folder = Path(os.path.realpath(location.path)).parent
        if not unopened or os.access(folder, os.W_OK) or _log_size(location.path):
            raise
    return _connect(f"{uri}?mode=ro&immutable=1", _READER_SETTINGS)


def connect_writer(
    location: Location, *, create: bool = False, wal: bool = True
) -> sqlite3.Connection:
    """A connection that writes; with `create`, also one to a new file.

    Switches to WAL, unless the file is somebody else's (`wal` false).
    """
    uri = Path(os.path.realpath(location.path)).as_uri()
    connection = _connect(f"{uri}?mode={'rwc' if create else 'rw'}", _WRITER_SETTINGS)
    try:
        if wal and connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            _switch_to_wal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch, and wait for others that do the same: here SQLite itself does not wait."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.005)


def make_file(path: Path) -> bool:
    """Make an empty file; False where one is there, or none can be made (SQLite says why).

    Of several that make it at once, one is told so.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
    except OSError:
        return False
    return True


FileId = tuple[int, int]


def opened_file(path: Path) -> FileId | None:
    """The file at a path that this process has open; None: another stands there now, or none.

    As long as it is open, no other file has its id.
    """
    try:
        found = path.stat()
        return (found.st_dev, found.st_ino) if is_open(path) else None
    except FileNotFoundError:
        return None


def _connect(uri: str, settings: tuple[str, ...]) -> sqlite3.Connection:
    # isolation_level None: transactions begin where eventmig says BEGIN. Used by
    # one thread at a time (the store sees to that), not always by the same one.
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
    )
    try:
        for setting in settings:
            connection.execute(setting)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection
