"""What a cut-over asks of a store: to shut writers out, to say which side is live, to let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from eventmig.stores.base import EventReader, TargetTransaction


class Fence(NamedTuple):
    """What a store's fence says: whether applications are shut out, by which job, since when.

    `epoch` is that of the job's last holder who opened or closed it; `at` is in
    microseconds since the Unix epoch (UTC).
    """

    closed: bool
    job_id: str
    epoch: int
    at: int


@runtime_checkable
class Fencing(Protocol):
    """A store that can shut its applications out.

    The fence lasts until it is opened, whatever dies. It is the store's own: also who
    appends by SQL of their own stands before it.
    """

    def set_fence(self, *, closed: bool, job_id: str, epoch: int, wait_s: float) -> None:
        """Close or open the fence, in one transaction; harmless where it is so already.

        Once it is closed no append is under way: open transactions are waited out, at most
        `wait_s` seconds. Raises `JobLostError` where a later holder of this job has set it,
        `CrossingError` where another job closed it or the wait was too long.
        """
        ...

    def fence(self) -> Fence | None:
        """The fence as it is now; None where there never was one. Reads only."""
        ...

    def last_position(self) -> int:
        """The last global position there is; 0 for an empty store. Reads only.

        Exact where nobody appends but the caller; elsewhere a lower one may still appear.
        """
        ...

    def check_fence(self, tx: TargetTransaction, *, job_id: str, epoch: int) -> None:
        """Raise `JobLostError` unless this holder closed the fence last; within `tx`."""
        ...

    def pass_fence(self, tx: TargetTransaction) -> None:
        """Let this transaction append though the fence is closed: it is a job's own."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A store where somebody may still append before its last event when its fence is closed, or
    opened again: a transaction that is open, and has not appended yet.
    """

    def settled(self) -> bool:
        """Whether nobody can append before the last event any more. Reads only."""
        ...


class PublishedRoute(NamedTuple):
    """Where the applications of a job belong, for those that do not ask the ledger.

    `epoch` is the number of crossings so far, `final` whether there can be no other. `side`
    is `old` or `new`; `release` the job's. `naming` has the place `{stream}` for a stream's
    name in the application, and is what clients of the live store itself call it; `store` is
    that store's identity.
    """

    job_id: str
    epoch: int
    final: bool
    side: str
    release: str
    naming: str
    store: str


@runtime_checkable
class Publishing(Protocol):
    """A store with a place for the route that applications can read and subscribe to."""

    def publish(self, route: PublishedRoute) -> None:
        """Publish a route, once: not where it, or a later one of its job, was published."""
        ...

    def stored_name(self, stream: str) -> str:
        """What clients of the store itself call a stream (or a template of names). Pure."""
        ...


@runtime_checkable
class Exchanging(Protocol):
    """A store whose tables can change names with others of the same database.

    Who has either of them open finds the other's events from then on, without opening it anew.
    """

    @property
    def schema(self) -> str | None:
        """Where in the database the tables are, and the ledger beside them; None: there is one."""
        ...

    def can_exchange(self, other: EventReader) -> bool:
        """Whether `other` is another set of tables in the same database."""
        ...

    def check_exchange(self, other: EventReader) -> None:
        """Raise `CrossingError` for what would not follow the names. Reads only."""
        ...

    def exchange(self, tx: TargetTransaction, other: EventReader, *, wait_s: float) -> None:
        """Give each set of tables the other's names, fences included, within `tx`.

        Nothing is copied or rebuilt. Who uses the tables is waited for, at most `wait_s`
        seconds; then `CrossingError` is raised, and nothing was changed.
        """
        ...


@runtime_checkable
class Carrying(Protocol):
    """A store whose streams have metadata of their own, which a copy of events leaves behind."""

    def carry_metadata(self, source: EventReader, named: Callable[[str], str]) -> int:
        """Give this store's streams the metadata of the source's; returns how many got some.

        `named` is a stream's name here. What a stream has here already stays.
        """
        ...


@runtime_checkable
class Dropping(Protocol):
    """A store that can be dropped."""

    def drop_all(self, tx: TargetTransaction) -> int:
        """Drop what belongs to this store alone, within `tx`; returns how many events it held.

        Streams of a release in shared tables go; the tables stay.
        """
        ...
