"""What a PostgreSQL URL names, and connections to it.

    postgresql://USER@HOST:PORT/DATABASE?schema=NAME&tables=PREFIX&release=R&data=TYPE

Other options are libpq's own (`sslmode`, `connect_timeout`, `host` of a socket's folder,
…). The password never leaves this module but to the server: `Location.url` hides it, and
`scrubbed` takes it out of what a driver says.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args
from urllib.parse import unquote

import psycopg
from psycopg import sql
from sqlalchemy import URL, Engine
from sqlalchemy.pool import NullPool

from eventmig.errors import ConfigError, StoreError, StoreUnavailableError, Where
from eventmig.stores.engines import create_engine

DataType: TypeAlias = Literal["jsonb", "json", "text", "bytea"]
"""The type of the column that holds the events' data."""

_OPTIONS: Final = ("schema", "tables", "release", "data")
_LIBPQ: Final = frozenset(
    [
        "channel_binding",
        "connect_timeout",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "options",
        "passfile",
        "port",
        "require_auth",
        "service",
        "sslcert",
        "sslcertmode",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "sslsni",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    ]
)
_SECRETS: Final = frozenset(("password", "sslpassword"))
_PREFIX: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_RELEASE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_ENCODING: Final = "UTF8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """What a URL names: a database, a schema (None: the user's own), a table prefix (may be
    empty), a release or None, and the type of the data column (None: as it is, else jsonb).
    """

    url: str
    parameters: Mapping[str, str] = field(repr=False)
    schema: str | None = None
    tables: str = ""
    release: str | None = None
    data: DataType | None = None

    @property
    def namespace(self) -> str:
        """Tells these tables and streams from others in the same schema."""
        return self.tables + (f"@{self.release}" if self.release else "")

    def key(self, purpose: str, schema: str) -> int:
        """The advisory lock for a purpose on these tables and release: signed, 64 bits."""
        name = "\0".join(("eventmig", purpose, schema, self.tables, self.release or ""))
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)

    def scrubbed(self, text: str) -> str:
        """A driver's text, one line, without the password."""
        password = self.parameters.get("password")
        line = " ".join(text.split())
        return line.replace(password, "***") if password else line


def locate(url: URL) -> Location:
    """Read a PostgreSQL URL; raises `ConfigError` for what it may not say."""
    if secret := sorted(_SECRETS.intersection(url.query)):
        raise ConfigError(
            f"a PostgreSQL URL has no option {secret[0]}",
            remedy="write postgresql://USER:PASSWORD@HOST/DATABASE, or use PGPASSWORD or ~/.pgpass",
        )
    shown = url.render_as_string(hide_password=True)

    def wrong(what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{what}: {shown}", where=Where(store=shown), remedy=remedy)

    options: dict[str, str] = {}
    for name, value in url.query.items():
        if not isinstance(value, str):
            raise wrong("an option stands twice in the URL", "name it once")
        if name not in _OPTIONS and name not in _LIBPQ:
            raise wrong(
                f"a PostgreSQL URL has no option {name!r}",
                f"it knows {', '.join(_OPTIONS)}, and those of libpq (sslmode, …)",
            )
        options[name] = value
    if not url.database:
        raise wrong("the URL names no database", "write postgresql://USER@HOST/DATABASE")
    schema, tables, release, data = (options.pop(name, "") for name in _OPTIONS)
    if "\0" in schema or len(schema.encode()) > 63:
        raise wrong(f"{schema!r} cannot name a schema", "use at most 63 bytes, as in schema=events")
    if tables and not _PREFIX.fullmatch(tables):
        raise wrong(
            f"{tables!r} cannot begin a table's name",
            "use letters, digits and _ (at most 40), as in tables=v2_",
        )
    if release and not _RELEASE.fullmatch(release):
        raise wrong(
            f"{release!r} cannot be a release's name", "use letters, digits, '.', '_', '+' and '-'"
        )
    kinds = get_args(DataType)
    if data and data not in kinds:
        raise wrong(f"{data!r} is no type for the data column", f"use {', '.join(kinds)}")
    given = {
        "host": url.host and unquote(url.host),  # a socket's folder may stand there, as %2Frun…
        "port": None if url.port is None else str(url.port),
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
    }
    return Location(
        url=shown,
        parameters={**{k: str(v) for k, v in given.items() if v is not None}, **options},
        schema=schema or None,
        tables=tables,
        release=release or None,
        data=data or None,  # type: ignore[arg-type]  # one of its values: checked above
    )


_NOTICE_DEAD_CLIENTS: Final = {
    "tcp_keepalives_idle": "60s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "6",
}
"""Two minutes after a client's machine is gone, the server ends what it had open, and lets go of
its locks. By default that takes more than two hours (postgresql.org/docs, connection settings).
"""


def connect(
    location: Location, *, read_only: bool = False, patience_s: int = 0
) -> psycopg.Connection:
    """A connection in autocommit, its schema first and alone on the search path.

    It waits so many seconds for a lock of others (0: as long as the server lets it). What the
    URL says of such settings (`options`) goes before.

    Raises `StoreUnavailableError` where the server does not let us in, `StoreError` for a
    database that is not in UTF-8.
    """
    parameters = {
        "application_name": "eventmig",
        "keepalives_idle": "60",
        **location.parameters,
    }
    try:
        connection = psycopg.connect(**parameters, client_encoding="utf8", autocommit=True)  # type: ignore[arg-type]
    except psycopg.Error as error:
        raise StoreUnavailableError(
            f"the PostgreSQL server refused, or does not answer: {location.scrubbed(str(error))}",
            where=Where(store=location.url),
            remedy="check that it runs, and host, port, database, user and password "
            "(in the URL, PGPASSWORD or ~/.pgpass); then run the same command again",
        ) from None  # the driver's error may quote what it was given
    try:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != _ENCODING:
            raise StoreError(
                f"the database's encoding is {encoding}, not {_ENCODING}",
                where=Where(store=location.url),
                remedy="make a database with ENCODING 'UTF8': JSON text is UTF-8",
            )
        _set(connection, location, read_only=read_only, patience_s=patience_s)
    except BaseException:
        connection.close()
        raise
    return connection


def _set(
    connection: psycopg.Connection, location: Location, *, read_only: bool, patience_s: int
) -> None:
    """The session's settings, all with one statement; those that the URL names stay as they are."""
    wanted = dict(_NOTICE_DEAD_CLIENTS)
    if patience_s:
        wanted["lock_timeout"] = f"{patience_s}s"
    if read_only:
        wanted["default_transaction_read_only"] = "on"
    if location.schema is not None:
        wanted["search_path"] = sql.Identifier(location.schema).as_string(connection)
    given = location.parameters.get("options", "")
    settings = [
        (name, value)
        for name, value in wanted.items()
        if name in ("search_path", "default_transaction_read_only") or f"{name}=" not in given
    ]
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) t (name, value)",
        [*map(list, zip(*settings, strict=True))],
    )


def engine_at(url: URL) -> Engine:
    """A SQLAlchemy engine for other tables in the schema that a URL names.

    Raises `ConfigError` for options that only an event store has. Connections raise what
    `connect` does.
    """
    location = locate(url)
    if only := [name for name in ("tables", "release", "data") if name in url.query]:
        raise ConfigError(
            f"the URL of read models has no option {only[0]!r}: {location.url}",
            where=Where(store=location.url),
            remedy="name a database and, if need be, a schema (?schema=…)",
        )

    def connected() -> psycopg.Connection:
        connection = connect(location)
        connection.autocommit = False
        return connection

    named = url.set(drivername="postgresql+psycopg")
    return create_engine(named, creator=connected, poolclass=NullPool, hide_parameters=True)
