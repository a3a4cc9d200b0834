"""The ledger: epochs, checkpoints, going back, and the states a job may follow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection

from eventmig.errors import AccountingError, JobError, JobLostError, NewerLedgerError, Where
from eventmig.events import Event
from eventmig.migrate import ledger
from eventmig.migrate.crossing import CROSSINGS
from eventmig.migrate.folding import RECENT, Folding, Span
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
    found = ledger.active_job(connection, "")
    assert found == replace(job, updated_at=found.updated_at if found else "")
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


def rounds(connection: Connection, job: Job, made: list[Span]) -> tuple[Job, Folding]:
    """Batches as a process commits them, folded as it goes."""
    folding = Folding()
    for span in made:
        job = batch(connection, job, span.until, job.target_position + span.events,
                    tally(span.events))  # fmt: skip
        for several in folding.wrote(span):
            ledger.fold(connection, job, after=several.after, until=several.until)
    return job, folding


def spans(count: int, *, first: int = 0, events: int = 10, data_bytes: int = 100) -> list[Span]:
    return [
        Span(after=n * events, until=(n + 1) * events, events=events, data_bytes=data_bytes)
        for n in range(first, first + count)
    ]


def tiled(connection: Connection, job: Job) -> list[ledger.Batch]:
    """The job's batches, which tile both sides and add up to the job's own sums."""
    found = list(ledger.batches(connection, job))
    for before, after in itertools.pairwise(found):
        assert before.number < after.number
        assert (before.source_until, before.target_until) == (
            after.source_after,
            after.target_after,
        )
    assert found[-1].source_until == job.source_position
    assert found[-1].target_until == job.target_position
    assert sum((b.tally for b in found), Tally()) == job.tally
    return found


def test_rounds_of_a_follower_become_few_rows(connection: Connection) -> None:
    job, _ = rounds(connection, begun(connection), spans(1_000, events=50))
    found = tiled(connection, job)
    assert len(found) < 50_000 / 5_000 + 2 * RECENT
    assert max(b.tally.read for b in found) == 5_000
    assert [b.number for b in found[-RECENT:]] == list(range(1_001 - RECENT, 1_001))


def test_rows_stay_small_enough_to_be_held_in_memory(connection: Connection) -> None:
    large = spans(300, data_bytes=3 << 20)
    job, _ = rounds(connection, begun(connection), large)
    assert max(b.tally.read for b in tiled(connection, job)) == 50  # of 5 rounds, 15 MiB
    alone = begun(connection, "alone")
    job, _ = rounds(connection, alone, spans(300, events=5_000))
    assert len(tiled(connection, job)) == 300


def test_what_is_proven_and_what_is_not_stay_apart(connection: Connection) -> None:
    job, folding = rounds(connection, begun(connection), spans(100))
    told = ledger.followed(connection, job)
    ledger.set_followed(connection, job, replace(told, verified_batch=40))
    for span in spans(60, first=100):
        job = batch(connection, job, span.until, job.target_position + 10, tally(10))
        for several in folding.wrote(span):
            ledger.fold(connection, job, after=several.after, until=several.until)
    found = tiled(connection, job)
    assert [b.number for b in found][:3] == [40, 64, 65]
    assert next(b.number for b in ledger.batches(connection, job, after=40)) == 64


def test_a_window_is_no_part_of_a_row(connection: Connection) -> None:
    job, _ = rounds(connection, begun(connection), spans(5))
    job = ledger.jump(connection, job, source_until=90, target_until=97, passed=3)
    for n in range(9, 12):
        job = batch(connection, job, 10 * n + 10, job.target_position + 10, tally(10))
    ledger.fold(connection, job, after=0, until=50)
    ledger.fold(connection, job, after=50, until=100)
    assert [b.number for b in tiled(connection, job)] == [5, 6, 7, 8, 9]
    assert ledger.windows(connection, job) == {6: 3}


def test_going_back_goes_back_over_a_whole_row(connection: Connection) -> None:
    job, _ = rounds(connection, begun(connection), spans(200))
    first = next(iter(ledger.batches(connection, job)))
    assert first.number > RECENT
    job = ledger.rewind(connection, job, before=15)
    assert (job.source_position, job.target_position, job.tally) == (0, 7, Tally())
    job, _ = rounds(connection, job, spans(3))
    assert len(tiled(connection, job)) == 3


def test_a_job_that_takes_turns_for_ever_notes_some(connection: Connection) -> None:
    job = begun(connection)
    for state in (State.BACKFILLING, State.VERIFYING, State.READY, State.CUTTING_OVER):
        job = ledger.enter(connection, job, state)
    for _ in range(600):
        for state in (State.CATCHING_UP, State.THROTTLED):
            job = ledger.enter(connection, job, state, "why")
    found = ledger.transitions(connection, job)
    assert len(found) < 1_010
    assert {t.state for t in found[:7]} >= {State.PLANNED, State.READY, State.CUTTING_OVER}
    assert ledger.announced(connection, job)
    assert [t.number for t in found[-500:]] == list(range(706, 1_206))


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
