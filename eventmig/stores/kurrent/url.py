"""What a KurrentDB URL names: servers, and which of their streams are the store.

A URL is the client's own (`esdb://user:password@host:2113?Tls=true`, with
`kurrentdb://`, clusters and `+discover`), and may say more, which the client never
sees: `prefix`, `category`, `without`, `ledger`, `order`, `fence`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from eventmig.errors import ConfigError, Where

SCHEMES: Final = frozenset(
    scheme + discover for scheme in ("esdb", "kurrentdb", "kdb") for discover in ("", "+discover")
)
LEDGER_STREAM: Final = "eventmig-ledger"
FENCE_STREAM: Final = "eventmig-fence"
ROUTE_STREAM: Final = "eventmig-route"
_OWN: Final = (LEDGER_STREAM, FENCE_STREAM, ROUTE_STREAM)
"""The beginnings of the names of streams that are eventmig's own; never source or target."""

OPTIONS: Final = ("prefix", "category", "without", "ledger", "order", "fence")
"""What a URL may say for eventmig; the client never sees it."""
_PREFIX: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_CATEGORY: Final = re.compile(r"[^$\s,-][^\s,-]*")


class Order(StrEnum):
    """What order a job's target keeps over streams (within one it always holds)."""

    GLOBAL = "global"
    STREAM = "stream"


class Door(StrEnum):
    """What keeps writers out of the streams that a crossing leaves."""

    MARK = "mark"
    ACL = "acl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A KurrentDB store.

    - `uri` is for the client alone: the password is in it. `url` is for people.
    - `servers`: host:port, lower case, sorted.
    - `prefix` stands before every stream's name in KurrentDB, and is left out here.
    - `categories`: only streams of these are the store's; empty: of all.
    - `without`: streams whose names begin so are not the store's.
    - `ledger`: the SQL database for the ledger of jobs; None: a stream beside the target.
    """

    uri: str
    url: str
    servers: tuple[str, ...]
    prefix: str = ""
    categories: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    ledger: str | None = None
    order: Order = Order.GLOBAL
    fence: Door = Door.MARK

    @property
    def scope(self) -> str:
        """Which streams, in short; empty for all of them."""
        left_out = "".join(f" without {name}" for name in self.without)
        return self.prefix + ",".join(self.categories) + left_out

    @property
    def namespace(self) -> str:
        """Tells these streams from others of the same servers, and in a shared ledger."""
        return self.scope if self.ledger is None else f"{','.join(self.servers)}/{self.scope}"

    @property
    def ledger_stream(self) -> str:
        """The stream that holds the ledger where no database does."""
        return f"{LEDGER_STREAM}-{self.scope}" if self.scope else LEDGER_STREAM

    @property
    def fence_stream(self) -> str:
        """The stream that says whether applications are shut out of these."""
        return f"{FENCE_STREAM}-{self.scope}" if self.scope else FENCE_STREAM

    @property
    def route_stream(self) -> str:
        """The stream that says to applications which side of a job is live."""
        return f"{ROUTE_STREAM}-{self.scope}" if self.scope else ROUTE_STREAM

    @property
    def left_out(self) -> tuple[str, ...]:
        """How the names of streams begin that are never the store's."""
        return ("$", *_OWN, *self.without)

    @property
    def beginnings(self) -> tuple[str, ...]:
        """How the names of the store's streams begin in KurrentDB; empty: any way."""
        if self.categories:
            return tuple(f"{self.prefix}{category}-" for category in self.categories)
        return (self.prefix,) if self.prefix else ()

    def identity(self) -> str:
        """Equal exactly when servers, prefix, categories and what is left out are."""
        return f"kurrent:{','.join(self.servers)}/{self.scope}"

    def overlaps(self, other: Location) -> bool:
        """Whether a stream can belong to both."""
        if not set(self.servers) & set(other.servers):
            return False
        ours = [n for n in self.beginnings or ("",) if not n.startswith(other.left_out)]
        theirs = [n for n in other.beginnings or ("",) if not n.startswith(self.left_out)]
        return any(a.startswith(b) or b.startswith(a) for a in ours for b in theirs)

    def holds(self, name: str) -> bool:
        """Whether the stream that KurrentDB calls so belongs to the store."""
        if name.startswith(self.left_out):
            return False
        return not self.beginnings or name.startswith(self.beginnings)


def is_kurrent(url: str) -> bool:
    """Whether a URL's scheme is one of KurrentDB's."""
    return url.split("://", 1)[0].lower() in SCHEMES


def locate(url: str) -> Location:
    """Read a URL; raises `ConfigError` for what it may not say. The password is never shown."""
    shown = public(url)

    def wrong(what: str, remedy: str) -> ConfigError:
        return ConfigError(f"{what}: {shown}", where=Where(store=shown), remedy=remedy)

    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name in OPTIONS}
    if len(ours) < sum(name in OPTIONS for name, _ in pairs):
        raise wrong("an option stands twice in the URL", "name it once")
    prefix, ledger = ours.get("prefix", ""), ours.get("ledger")
    categories, without = (
        tuple(sorted(filter(None, ours.get(name, "").split(","))))
        for name in ("category", "without")
    )
    if prefix and (not _PREFIX.fullmatch(prefix) or prefix.startswith(_OWN)):
        raise wrong(
            f"{prefix!r} cannot begin the names of streams",
            "use letters, digits, '.', '_', '@', '+' and '-', as in prefix=r2.",
        )
    if bad := [name for name in categories if not _CATEGORY.fullmatch(name)]:
        raise wrong(
            f"{bad[0]!r} is no category", "a category is what stands before a stream's first '-'"
        )
    if ours.get("order", "global") not in {order.value for order in Order}:
        raise wrong(f"there is no order {ours['order']!r}", "say order=global or order=stream")
    if ours.get("fence", "mark") not in {door.value for door in Door}:
        raise wrong(f"there is no fence {ours['fence']!r}", "say fence=mark or fence=acl")
    servers = _servers(parts.netloc)
    if not servers:
        raise wrong("the URL names no server", "write esdb://HOST:2113")
    client = urlencode([(n, v) for n, v in pairs if n not in OPTIONS])
    return Location(
        uri=f"{parts.scheme}://{parts.netloc}" + (f"?{client}" if client else ""),
        url=shown,
        servers=servers,
        prefix=prefix,
        categories=categories,
        without=without,
        ledger=ledger,
        order=Order(ours.get("order", "global")),
        fence=Door(ours.get("fence", "mark")),
    )


def public(url: str) -> str:
    """A KurrentDB URL without its password, and without that of its ledger's database."""
    scheme, _, rest = url.partition("://")
    netloc, _, query = rest.partition("?")
    credentials, at, hosts = netloc.rpartition("@")
    user = credentials.split(":", 1)[0]
    options = [f"{n}={_shown(v) if n == 'ledger' else v}" for n, v in parse_qsl(query)]
    shown = f"{user}:***@" if ":" in credentials else credentials + at
    return f"{scheme}://{shown}{hosts}" + (f"?{'&'.join(options)}" if options else "")


def _shown(ledger: str) -> str:
    try:
        return make_url(ledger).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "***"


def with_ledger(url: str, ledger: Callable[[str], str]) -> str:
    """The URL with that of its ledger's database, if it names one, made another."""
    parts = urlsplit(url)
    pairs = [(n, ledger(v) if n == "ledger" else v) for n, v in parse_qsl(parts.query)]
    return f"{parts.scheme}://{parts.netloc}" + (f"?{urlencode(pairs)}" if pairs else "")


def _servers(netloc: str) -> tuple[str, ...]:
    hosts = netloc.rpartition("@")[2].rstrip("/").lower().split(",")
    named = (host.strip() for host in hosts)
    return tuple(sorted(host if ":" in host else f"{host}:2113" for host in named if host))


def lock_name(location: Location) -> str:
    """A file's name for the lock of a job on this target."""
    return f"eventmig-{quote(location.identity(), safe='')[:200]}.lock"
