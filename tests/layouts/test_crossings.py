"""Across and back in tables that the eventsourcing library owns and appends to."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventmig import Registry, commands, data_downcaster, data_upcaster
from eventmig.commands.holding import held
from eventmig.errors import (
    CapabilityError,
    CrossingError,
    FencedError,
    JobLostError,
)
from eventmig.live import fenced, look_up
from eventmig.migrate.crossing import CUT_OVER, Step, cross
from eventmig.migrate.states import Side, State
from eventmig.project import Project
from eventmig.routes import rename_streams
from eventmig.stores.layouts.fence import FencedLayoutStore
from eventmig.stores.open import open_store
from tests.acceptance.support import event, project, sql
from tests.layouts.library import postgres, refused_till, sqlite, till
from tests.layouts.test_message_db import append, layout, make

RUNG = "till:Sale.Rung"
REFUSED = "eventmig: applications may not append here now"


@data_upcaster(RUNG, 1)
def in_cents(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"cents": int(data.pop("price").replace(".", ""))}


@data_downcaster(RUNG, 2, exact=True)
def as_text(data: dict[str, Any]) -> dict[str, Any]:
    cents = data.pop("cents")
    return data | {"price": f"{cents // 100}.{cents % 100:02d}"}


Tills = tuple[Project, dict[str, str], dict[str, str]]


@pytest.fixture(params=["sqlite", "postgres"])
def its(request: pytest.FixtureRequest, tmp_path: Path) -> Tills:
    """A job from a till's history; the library's settings for the old side and for the new."""
    if request.param == "sqlite":
        old, new = sqlite(tmp_path / "till.db"), sqlite(tmp_path / "new.db")
        till(tmp_path, "write", 1, **old | {"CREATE_TABLE": "yes"})
        files = (f"sqlite:///{tmp_path}/{name}.db?layout=eventsourcing" for name in ("till", "new"))
        source, target = files
    else:
        url = request.getfixturevalue("postgres_url")
        old, new = postgres(url), postgres(url, "v2")
        till(tmp_path, "write", 1, **old | {"CREATE_TABLE": "yes"})
        option = "&" if "?" in url else "?"
        source = f"{url}{option}layout=eventsourcing&table=till_events"
        target = f"{source}&schema=v2"
    registry = Registry([in_cents, as_text])
    return project(tmp_path, registry, source=source, target=target), old, new


def side(its: Project) -> Side:
    with closing(open_store(its.url("target", None, "2"))) as target:
        return look_up(target).side


def test_the_library_is_shut_out_taken_across_and_taken_back(its: Tills, tmp_path: Path) -> None:
    moved, old, new = its
    urls = moved.url("source", None, "2"), moved.url("target", None, "2")
    assert commands.upcast(moved).ready
    assert till(tmp_path, "add", 1, **old).split()[1] == "13"
    assert side(moved) is Side.OLD
    dry = commands.cutover(moved, dry_run=True)
    assert (dry.dry_run, dry.lag_events) == (True, 1)
    assert {w.way.type: w.way.loss for w in dry.ways if w.way.type == RUNG} == {RUNG: "exact"}

    done = commands.cutover(moved)
    assert done.job.state is State.REVERSE_WINDOW
    assert 0 < done.stood_still_s < 10
    assert side(moved) is Side.NEW
    assert list(map(fenced, urls)) == [True, False]
    assert REFUSED in refused_till(tmp_path, "add", 1, **old)
    assert till(tmp_path, "add", 2, **new).split()[1] == "14"

    # What the new side got is taken back, and the old code reads it.
    commands.keep_up_once(moved)
    assert till(tmp_path, "read", 1, **old) == till(tmp_path, "read", 2, **new)
    assert till(tmp_path, "add", 2, **new).split()[1] == "15"
    back = commands.reverse(moved)
    assert back.job.state is State.REVERSED
    assert list(map(fenced, urls)) == [False, True]
    assert REFUSED in refused_till(tmp_path, "add", 2, **new)
    assert till(tmp_path, "add", 1, **old).split()[1] == "16"

    assert commands.cutover(moved).job.state is State.REVERSE_WINDOW
    assert till(tmp_path, "read", 1, **old) == till(tmp_path, "read", 2, **new)
    checked = commands.verify(moved).verification
    assert checked is not None
    assert checked.right, checked.shown
    with pytest.raises(CrossingError, match="cannot be dropped"):
        commands.complete(moved, drop=True)
    assert commands.status(moved).job.state is State.REVERSE_WINDOW  # nothing was ended
    assert commands.complete(moved).job.state is State.COMPLETED
    with pytest.raises(CrossingError, match="cannot be dropped by eventmig"):
        commands.complete(moved, drop=True)
    assert till(tmp_path, "add", 2, **new).split()[1] == "17"
    assert REFUSED in refused_till(tmp_path, "add", 1, **old)


STEPS = tuple(Step)[: tuple(Step).index(Step.PUBLISH)]


@pytest.mark.parametrize("its", ["sqlite"], indirect=True)
@pytest.mark.parametrize("at", STEPS)
def test_a_crossing_that_died_at_any_step_is_mended(its: Tills, tmp_path: Path, at: Step) -> None:
    """What died is a generator that is not gone on with: each step is one transaction."""
    moved, old, new = its
    commands.upcast(moved)
    till(tmp_path, "add", 1, **old)
    with held(moved) as (sides, _):
        for step in cross(sides, CUT_OVER):
            if step is at:
                break
        steps_done = STEPS.index(at)
    assert fenced(moved.url("source", None, "2")) is (steps_done > STEPS.index(Step.CLOSE))
    done = commands.cutover(moved)
    assert done.job.state is State.REVERSE_WINDOW
    assert till(tmp_path, "add", 2, **new).split()[1] == "14"
    commands.keep_up_once(moved)
    assert till(tmp_path, "read", 1, **old) == till(tmp_path, "read", 2, **new)


def opened(url: str) -> FencedLayoutStore:
    store = open_store(url, mode="write")
    assert isinstance(store, FencedLayoutStore)
    return store


def close(
    store: FencedLayoutStore, job: str = "job", epoch: int = 1, *, closed: bool = True
) -> None:
    store.set_fence(closed=closed, job_id=job, epoch=epoch, wait_s=0.2)


@pytest.mark.parametrize("its", ["sqlite", "postgres"], indirect=True)
def test_a_fence_is_set_by_its_last_holder_and_passed_by_jobs(its: Tills) -> None:
    moved, _, _ = its
    state = {"timestamp": {"_type_": "datetime_iso", "_data_": "1970-01-01T00:00:00+00:00"}}
    one = event("00000000-0000-4000-8000-000000000001", "till:Sale.Opened", state, metadata=None)
    with closing(opened(moved.url("source", None, "2"))) as store:
        assert store.fence() is None
        before = store.last_position()
        close(store, epoch=2)
        close(store, epoch=2)
        for closed in (True, False):
            with pytest.raises(JobLostError):
                close(store, epoch=1, closed=closed)
            with pytest.raises(CrossingError, match="closed by another job"):
                close(store, "other", 9, closed=closed)
        at = one._replace(stream_position=1, recorded_at=0)
        with pytest.raises(FencedError, match="may not append"), store.begin() as tx:
            tx.append_copied([at])
        with store.begin() as tx:
            store.pass_fence(tx)
            assert tx.append_copied([at]) > before
        with pytest.raises(FencedError), store.begin() as tx:
            tx.append_copied([at._replace(stream_position=2)])
        with store.begin() as tx:
            store.check_fence(tx, job_id="job", epoch=2)
            with pytest.raises(JobLostError):
                store.check_fence(tx, job_id="job", epoch=3)
        close(store, epoch=3, closed=False)
        with store.begin() as tx:
            tx.append_copied([at._replace(stream_position=2)])


@pytest.fixture
def messages(postgres_url: str) -> str:
    """The URL of a Message DB with one message, for psycopg."""
    make(postgres_url)
    append(postgres_url, "order-1", 0)
    return postgres_url


def test_what_is_no_event_passes(messages: str) -> None:
    """Consumers of the old side go on writing how far they are."""
    with closing(opened(layout(messages))) as store:
        close(store)
        append(messages, "order:position-billing", 0)
        with pytest.raises(psycopg.Error, match=REFUSED) as refused:
            append(messages, "order-1", 1)
        assert refused.value.sqlstate == "EVM01"
        assert store.last_position() == 1


def test_open_appends_are_waited_out_and_named_when_they_last(messages: str) -> None:
    with closing(opened(layout(messages))) as store, psycopg.connect(messages) as writer:
        insert = (
            "INSERT INTO message_store.messages (stream_name, position, type, data)"
            " VALUES ('order-1', 1, 'Late', '{}')"
        )
        writer.execute(insert)
        with pytest.raises(CrossingError, match=r"still open after 0\.2 s: session \d+ "):
            close(store)
        assert store.fence() is None
        closing_ = threading.Thread(
            target=lambda: store.set_fence(closed=True, job_id="job", epoch=1, wait_s=30)
        )
        closing_.start()
        closing_.join(0.1)
        assert closing_.is_alive()
        writer.commit()
        closing_.join(30)
        assert store.last_position() == 2


@pytest.mark.parametrize("where", ["the same table", "a view"])
def test_what_cannot_be_fenced_is_told_before_anything_is_done(
    messages: str, tmp_path: Path, where: str
) -> None:
    if where == "a view":
        with psycopg.connect(messages) as connection:
            connection.execute(
                "CREATE VIEW message_store.seen AS SELECT * FROM message_store.messages"
            )
        source = layout(messages, more="&table=seen")
        target, steps = f"sqlite:///{tmp_path}/new.db", []
    else:
        source, target = layout(messages), layout(messages, more="&release=2")
        steps = [rename_streams("orders", "order-{id}", to="orderV2-{id}")]
    moved = project(tmp_path, Registry(steps), source=source, target=target)
    assert commands.upcast(moved).ready
    for dry_run in (True, False):
        with pytest.raises(CapabilityError, match="writers"):
            commands.cutover(moved, dry_run=dry_run)
    assert commands.status(moved).job.state is State.READY
    append(messages, "order-1", 1)


def test_a_trigger_that_vanished_with_its_row_is_put_again(tmp_path: Path) -> None:
    till(tmp_path, "write", 1, **sqlite(tmp_path / "till.db", create=True))
    with closing(opened(f"sqlite:///{tmp_path}/till.db?layout=eventsourcing")) as store:
        close(store)
        sql(tmp_path / "till.db", 'DROP TRIGGER "eventmig_fence_stored_events"')
        close(store)
        assert REFUSED in refused_till(tmp_path, "add", 1, **sqlite(tmp_path / "till.db"))


def test_a_side_that_is_only_read_is_followed_and_has_no_fence(tmp_path: Path) -> None:
    old = sqlite(tmp_path / "till.db", create=True)
    till(tmp_path, "write", 1, **old)
    moved = project(
        tmp_path,
        Registry([in_cents, as_text]),
        source=f"sqlite:///{tmp_path}/till.db?layout=ours",
        layouts={"ours": {"preset": "eventsourcing", "read_only": "our rule"}},
    )
    commands.upcast(moved)
    till(tmp_path, "add", 1, **old)
    assert commands.keep_up_once(moved).source_position == 79
    with pytest.raises(CapabilityError, match="cannot shut its writers out"):
        commands.cutover(moved)
    till(tmp_path, "add", 1, **old)
