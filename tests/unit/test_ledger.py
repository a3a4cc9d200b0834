"""The ledger: epochs, checkpoints, going back, and the states a job may follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from eventmig.errors import AccountingError, JobError, JobLostError, NewerLedgerError, Where
from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.crossing import CROSSINGS
from eventmig.migrate.ledger import Job, Quarantined
from eventmig.migrate.states import CROSSED, ENDED, FOLLOWS, State, check_transition, live_side
from eventmig.migrate.tally import Fate, Tally
from eventmig.stores.open import open_store


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    store = open_store(f"sqlite:///{tmp_path}/target.db", mode="create")
    with store.begin() as tx:
        assert not ledger.exists(tx.connection)
        ledger.create(tx.connection)
        ledger.create(tx.connection)
        yield tx.connection
    store.close()


def begun(connection: Connection, namespace: str = "") -> Job:
    return ledger.begin_job(
        connection,
        namespace=namespace,
        release="2",
        steps_done=["a", "b"],
        source="here",
        source_identity="sqlite:here",
        naming="{stream}",
        registry_fingerprint="f",
        source_until=100,
        target_position=7,
    )


def tally(copied: int, quarantined: int = 0) -> Tally:
    return Tally(read=copied + quarantined, copied=copied, quarantined=quarantined, written=copied)


def batch(connection: Connection, job: Job, until: int, target: int, made: Tally) -> Job:
    return ledger.checkpoint(connection, job, source_until=until, target_until=target, tally=made)


def test_a_job_reads_back_as_it_was_written(connection: Connection) -> None:
    job = begun(connection)
    assert job == ledger.active_job(connection, "")
    assert (job.state, job.epoch, job.source_position, job.target_position) == (
        State.PLANNED,
        1,
        0,
        7,
    )
    assert job.steps_done == ("a", "b")
    job = batch(connection, job, 10, 17, tally(10))
    assert job == ledger.active_job(connection, "")
    assert [t.state for t in ledger.transitions(connection, job)] == [State.PLANNED]
    assert ledger.active_job(connection, "other") is None


def test_namespaces_have_jobs_of_their_own(connection: Connection) -> None:
    one, two = begun(connection), begun(connection, "v2_")
    assert ledger.active_job(connection, "") == one
    assert ledger.active_job(connection, "v2_") == two
    assert ledger.jobs(connection) == [one, two]
    ledger.enter(connection, one, State.CANCELLED)
    assert ledger.active_job(connection, "") is None
    assert [j.job_id for j in ledger.jobs(connection)] == [one.job_id, two.job_id]


def test_who_was_taken_over_writes_nothing(connection: Connection) -> None:
    old = begun(connection)
    new = ledger.take_over(connection, old, registry_fingerprint="g")
    assert (new.epoch, new.registry_fingerprint) == (2, "g")
    for write in (
        lambda: batch(connection, old, 10, 17, tally(10)),
        lambda: ledger.enter(connection, old, State.BACKFILLING),
        lambda: ledger.extend(connection, old, source_until=200),
        lambda: ledger.rewind(connection, old, before=0),
        lambda: ledger.store_hashes(connection, old, {"s": (1, b"x")}),
        lambda: ledger.take_over(connection, old, registry_fingerprint="h"),
    ):
        with pytest.raises(JobLostError):
            write()
    assert list(ledger.batches(connection, new)) == []
    assert ledger.hashed_streams(connection, new) == 0
    batch(connection, new, 10, 17, tally(10))


def test_a_batch_that_does_not_add_up_is_refused(connection: Connection) -> None:
    job = begun(connection)
    for wrong in (Tally(read=2, copied=1), Tally(read=1, dropped=1)):
        with pytest.raises(AccountingError, match="fault in eventmig"):
            batch(connection, job, 10, 17, wrong)
    assert ledger.active_job(connection, "") == job


def test_extending_keeps_the_end_before(connection: Connection) -> None:
    job = ledger.extend(connection, begun(connection), source_until=150)
    assert (job.source_until, job.settled) == (150, 100)


def test_going_back_forgets_what_came_after(connection: Connection) -> None:
    job = begun(connection)
    event = Event(25, "s-1", 3, "id", "T", 1, b"{", None, 9)
    aside = Quarantined(event=event, what="w", remedy="r", where=Where(step="x", path="p"))
    job = batch(connection, job, 10, 17, tally(10))
    ledger.set_aside(connection, job, [aside])
    job = batch(connection, job, 30, 36, tally(19, 1))
    job = batch(connection, job, 40, 46, tally(10))
    ledger.store_hashes(connection, job, {"s-1": (3, b"hash"), "s-2": (1, b"other")})
    assert list(ledger.quarantined(connection, job)) == [aside]
    assert ledger.hashes(connection, job, ["s-1", "none"]) == {"s-1": (3, b"hash")}
    assert list(ledger.hashed_names(connection, job)) == [{"s-1": 3, "s-2": 1}]

    job = ledger.rewind(connection, job, before=25)
    assert (job.source_position, job.target_position, job.tally) == (10, 17, tally(10))
    assert [b.number for b in ledger.batches(connection, job)] == [1]
    assert list(ledger.quarantined(connection, job)) == []
    assert ledger.hashed_streams(connection, job) == 0
    job = batch(connection, job, 40, 47, tally(30))
    assert [
        (b.number, b.source_after, b.target_after) for b in ledger.batches(connection, job)
    ] == [
        (1, 0, 7),
        (2, 10, 17),
    ]
    job = ledger.rewind(connection, job, before=0)
    assert (job.source_position, job.target_position, job.tally, job.settled) == (0, 7, Tally(), 0)


def test_a_newer_ledger_is_left_alone(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE eventmig_ledger SET format = 2")
    for look in (ledger.exists, ledger.create):
        with pytest.raises(NewerLedgerError, match="format 2, and this eventmig knows 1"):
            look(connection)


def test_hashes_of_many_streams(connection: Connection) -> None:
    job = begun(connection)
    wanted = {f"s-{n}": (n, str(n).encode()) for n in range(1201)}
    ledger.store_hashes(connection, job, wanted)
    ledger.store_hashes(connection, job, {"s-7": (8, b"new")})
    wanted["s-7"] = (8, b"new")
    assert ledger.hashes(connection, job, wanted) == wanted
    assert ledger.hashed_streams(connection, job) == 1201
    assert sum(map(len, ledger.hashed_names(connection, job))) == 1201


def test_a_job_can_be_cancelled_until_its_cut_over_and_after_its_way_back() -> None:
    assert FOLLOWS.keys() == set(State)
    crossing = CROSSED | {State.CUTTING_OVER, State.NEEDS_OPERATOR}
    for state in State:
        check_transition(state, state)
        assert (FOLLOWS[state] == frozenset()) == (state in ENDED)
        assert (State.CANCELLED in FOLLOWS[state]) == (state not in crossing | ENDED)
    with pytest.raises(JobError, match="a job that is planned cannot become ready"):
        check_transition(State.PLANNED, State.READY)


def test_the_application_changes_sides_only_in_a_crossing() -> None:
    changes = {
        (before, after)
        for before in State
        for after in FOLLOWS[before]
        if None not in (sides := (live_side(before), live_side(after))) and sides[0] != sides[1]
    }
    assert changes == {(c.during, c.after) for c in CROSSINGS}


def test_only_a_verified_job_becomes_ready() -> None:
    assert [s for s in State if State.READY in FOLLOWS[s]] == [State.VERIFYING]


def test_tallies_add_up() -> None:
    one = Tally(read=3, dropped=2, copied=1, dropped_by={"x": 2})
    two = Tally(read=1, dropped=1, dropped_by={"y": 1})
    two.drop("x")
    two.count(Fate.MERGED)
    two.read = 3
    both = one + two
    both.check()
    assert both.dropped_by == {"x": 3, "y": 1}
    assert Tally.of(both.numbers(), both.dropped_by) == both
