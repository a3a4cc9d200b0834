"""Across and back: cut-over, reverse, cut over again, complete, by both ways to switch."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from eventmig import Registry, commands, data_upcaster, merge, ops, rename_type, upcaster
from eventmig.cli import render_lifecycle as render
from eventmig.errors import (
    CrossingError,
    FencedError,
    JobError,
    JobLostError,
    RebuildError,
    VerifyError,
)
from eventmig.events import Event, NewEvent
from eventmig.live import LiveStore, look_up
from eventmig.migrate import failpoints, ledger
from eventmig.migrate.crossing import CUT_OVER, cross, mend
from eventmig.migrate.sides import Sides, take_steps
from eventmig.migrate.states import Side, State, Switch
from eventmig.project import Project, public
from eventmig.stores.base import ANY
from eventmig.stores.open import open_store
from tests.acceptance.support import event, fill, project, sql
from tests.acceptance.test_postgres_jobs import fill as fill_at
from tests.unit.read_model_helpers import daily

OPENED_2 = NewEvent("Opened", b'{"title":"t"}', schema_version=2)
OPENED_1 = NewEvent("Opened", b'{"name":"t"}')


def registry() -> Registry:
    @data_upcaster("OneWay", 1)
    def one_way(data: dict[str, object]) -> dict[str, object]:
        return {"sum": 1}

    return Registry(
        [
            upcaster("Opened", 1, ops.rename("name", "title")),
            rename_type("Old", 1, to="New"),
            one_way,
        ]
    )


def history() -> list[Event]:
    return [
        event(f"cart-{n % 3}", type_, data)
        for n in range(4)
        for type_, data in (
            ("Opened", {"name": str(n)}),
            ("Old", {"n": n}),
            ("Plain", b'{ "x": 1.10 }'),
        )
    ]


@pytest.fixture(params=["file", "tables", "streams", "postgres", "postgres streams"])
def its(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A job into another file or schema, into other tables beside, and into the same tables."""
    if request.param.startswith("postgres"):
        url = request.getfixturevalue("postgres_url")
        fill_at(f"{url}&schema=one", history())
        same = {"target": f"{url}&schema=one&release=2", "naming": "{stream}-{release}"}
        other = {"target": f"{url}&schema=two"}
        how = same if "streams" in request.param else other
        return project(tmp_path, registry(), source=f"{url}&schema=one", **how)
    made = {
        "file": {},
        "tables": {"target": "sqlite:///source.db?tables=v2_"},
        "streams": {"target": "sqlite:///source.db?release=2", "naming": "{stream}-{release}"},
    }
    fill(tmp_path / "source.db", history())
    return project(tmp_path, registry(), **made[request.param])


def urls(its: Project) -> tuple[str, str]:
    return its.url("source", None, "2"), its.url("target", None, "2")


def live(its: Project) -> LiveStore:
    return LiveStore(*urls(its), kept_s=0)


def append(its: Project, stream: str, new: NewEvent) -> Event:
    with live(its) as store:
        return store.append(stream, [new], expected=ANY)[0]


def append_to(url: str, stream: str, new: NewEvent) -> None:
    """What an application does that knows nothing of sides."""
    store = open_store(url, mode="write")
    try:
        store.append(stream, [new], expected=ANY)  # type: ignore[attr-defined]
    finally:
        store.close()


def events(url: str) -> list[Event]:
    store = open_store(url)
    try:
        return [e for batch in store.read_all() for e in batch]
    finally:
        store.close()


def said(found: list[Event]) -> list[tuple[str, int, object]]:
    return [(e.type, e.schema_version, json.loads(e.data)) for e in found]


def test_across_back_and_across_again(its: Project) -> None:
    old_url, new_url = urls(its)
    assert commands.upcast(its).ready
    append(its, "cart-1", NewEvent("Opened", b'{"name":"late"}'))  # still on the old side

    dry = commands.cutover(its, dry_run=True)
    assert dry.dry_run
    assert dry.lag_events == 1
    assert {(b.way.type, b.way.schema_version): b.way.loss for b in dry.ways} == {
        ("New", 1): "exact",
        ("OneWay", 2): "absent",
        ("Opened", 2): "exact",
        ("Plain", 1): "exact",
    }
    assert all(not b.problem for b in dry.ways)
    assert sum(b.tried for b in dry.ways) == 12

    done = commands.cutover(its)
    assert done.job.state is State.REVERSE_WINDOW
    assert 0 < done.stood_still_s < 10
    with pytest.raises(FencedError):
        append_to(old_url, "cart-1", OPENED_1)
    appended = append(its, "cart-1", OPENED_2)
    append(its, "cart-9", NewEvent("New", b'{"n":9}'))
    assert said(events(new_url))[-3:] == [
        ("Opened", 2, {"title": "late"}),
        ("Opened", 2, {"title": "t"}),
        ("New", 1, {"n": 9}),
    ]

    # Taken back: under the old names, in the old versions, with their origin.
    assert commands.keep_up_once(its).state is State.REVERSE_WINDOW
    back = events(old_url)[-2:]
    assert said(back) == [("Opened", 1, {"name": "t"}), ("Old", 1, {"n": 9})]
    assert [e.stream for e in back] == ["cart-1", "cart-9"]
    assert back[0].origins[0][:2] == (appended.stream, appended.stream_position)

    append(its, "cart-1", OPENED_2)
    reversed_ = commands.reverse(its)
    assert reversed_.job.state is State.REVERSED
    assert said(events(old_url))[-1] == ("Opened", 1, {"name": "t"})
    with pytest.raises(FencedError):
        append_to(new_url, "unheard-of", OPENED_2)

    append(its, "cart-1", NewEvent("Opened", b'{"name":"again"}'))
    again = commands.cutover(its)
    assert again.job.state is State.REVERSE_WINDOW
    new = events(new_url)
    assert said(new)[-1] == ("Opened", 2, {"title": "again"})
    assert len(new) == 12 + 1 + 3 + 1, "nothing twice"
    assert len(events(old_url)) == len(new)
    append(its, "cart-2", OPENED_2)
    checked = commands.verify(its)
    assert checked.verification is not None
    assert checked.verification.right, checked.verification.shown

    assert commands.complete(its).dropped is None
    with pytest.raises(JobError, match="completed"):
        commands.upcast(its)
    with pytest.raises(JobError, match="completed"):
        commands.reverse(its)
    ended = commands.complete(its, drop=True)
    assert (ended.job.state, ended.dropped) == (State.COMPLETED, len(new) + 1)
    append(its, "cart-2", OPENED_2)
    assert len(events(new_url)) == len(new) + 2


@pytest.fixture(params=["sqlite", "postgres prefixes", "postgres schemas"])
def by_tables(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A job between two sets of tables of one database."""
    file = f"sqlite:///{tmp_path}/source.db"
    source, target = file, f"{file}?tables=v2_"
    if request.param != "sqlite":
        url = request.getfixturevalue("postgres_url")
        source, target = {
            "postgres prefixes": (f"{url}&schema=one", f"{url}&schema=one&tables=v2_"),
            "postgres schemas": (f"{url}&schema=one", f"{url}&schema=two"),
        }[request.param]
    fill_at(source, history())
    return project(tmp_path, registry(), source=source, target=target)


def test_by_tables_the_application_changes_nothing(by_tables: Project) -> None:
    its = by_tables
    plain, beside = urls(its)
    application = open_store(plain, mode="write")

    def add(new: NewEvent) -> None:
        application.append("cart-1", [new], expected=ANY)  # type: ignore[attr-defined]

    def releases() -> tuple[str | None, str | None]:
        found = [commands.current(its, store=url).release for url in (plain, beside)]
        return found[0], found[1]

    try:
        assert commands.upcast(its).ready
        assert releases() == (None, "2")
        add(OPENED_1)
        assert commands.cutover(its, switch=Switch.TABLES).job.state is State.REVERSE_WINDOW
        assert releases() == ("2", None)
        add(OPENED_2)
        add(OPENED_1)  # old code that is still running; readers upcast it
        assert said(events(plain))[-3:] == [
            ("Opened", 2, {"title": "t"}),
            ("Opened", 2, {"title": "t"}),
            ("Opened", 1, {"name": "t"}),
        ]
        assert commands.measure(its).lag_events == 2
        assert commands.source_of_rebuild(its, None) == its.config.url(str(its.config.source))
        commands.keep_up_once(its)
        assert commands.measure(its).lag_events == 0
        assert said(events(beside))[-2:] == [
            ("Opened", 1, {"name": "t"}),
            ("Opened", 1, {"name": "t"}),
        ]
        with pytest.raises(CrossingError, match="crosses by tables"):
            commands.cutover(its, switch=Switch.ROUTE)
        commands.reverse(its)
        assert releases() == (None, None)
        assert commands.source_of_rebuild(its, None) == its.config.url(str(its.config.source))
        with pytest.raises(FencedError):
            append_to(beside, "cart-1", OPENED_2)
        add(OPENED_1)
        commands.cutover(its)
        add(OPENED_2)
        assert len(events(plain)) == 12 + 5
        checked = commands.verify(its).verification
        assert checked is not None
        assert checked.right, checked.shown
        dropped = commands.complete(its, drop=True)
        assert dropped.dropped == 12 + 5
        assert commands.current(its, store=plain).release == "2"
        add(OPENED_2)
        # The next release is another job, from the tables that bear the plain name now.
        assert commands.status(its, target=its.config.source).job.state is State.COMPLETED
        kept = commands.history(its, target=its.config.source)
        assert [h.transitions[-1].state for h in kept if h.job.job_id == dropped.job.job_id] == [
            State.COMPLETED
        ]
        third = project(
            its.config.folder,
            registry(),
            release="3",
            lock=its.lock,
            source=its.config.source,
            target=its.config.target,
        )
        assert commands.upcast(third).ready
        assert releases() == ("2", "3")
        assert commands.cutover(third, switch=Switch.TABLES).job.state is State.REVERSE_WINDOW
        assert releases() == ("3", "2")
        add(OPENED_2)
        assert commands.reverse(third).job.state is State.REVERSED
        assert releases() == ("2", None)
        assert len(events(plain)) == 12 + 5 + 2
        commands.cutover(third)
        commands.complete(third)
        assert releases() == ("3", "2")
        assert commands.source_of_rebuild(third, None) == third.config.url(plain)
    finally:
        application.close()


def test_by_tables_with_a_stream_step(by_tables: Project) -> None:
    """What a side has behind it goes by its events, whatever name they have now."""
    old, new = urls(by_tables)
    pair = [event("pair-1", kind, {"key": 1}) for kind in ("First", "Second")]
    with open_store(old, mode="write") as store, store.begin() as tx:
        tx.append_copied([one._replace(stream_position=n) for n, one in enumerate(pair, 1)])
    merged = merge("pair", "First", "Second", into="Whole", streams="pair-*", by="key")
    its = project(
        by_tables.config.folder,
        Registry([upcaster("Opened", 1, ops.rename("name", "title")), merged]),
        source=old,
        target=new,
        read_models="sqlite:///views.db",
        projections="given:here",
    )
    its.__dict__["projections"] = (daily(),)
    commands.upcast(its)
    commands.cutover(its, switch=Switch.TABLES)
    append_to(old, "cart-1", OPENED_2)
    assert commands.keep_up_once(its).state is State.REVERSE_WINDOW
    assert commands.upcast(its).job.state is State.REVERSE_WINDOW
    found = commands.verify(its).verification
    assert found is not None
    assert found.right, found.shown
    assert commands.rebuild(its, all_=True).source == public(old)
    assert commands.diff_read_models(its, all_=True).equal
    with pytest.raises(RebuildError, match="has not been through pair"):
        commands.rebuild(its, all_=True, source=new)
    assert commands.reverse(its).job.state is State.REVERSED
    assert len(events(old)) == 12 + 2 + 1


@pytest.mark.parametrize("by_tables", ["sqlite", "postgres schemas"], indirect=True)
def test_complete_again_after_the_tables_changed_names_for_good(by_tables: Project) -> None:
    its = by_tables
    commands.upcast(its)
    commands.cutover(its, switch=Switch.TABLES)
    first = commands.complete(its)
    assert first.dropped is None
    again = commands.complete(its)
    assert (again.job.job_id, again.dropped) == (first.job.job_id, None)
    assert commands.complete(its, drop=True).dropped == 12
    assert commands.complete(its, drop=True).dropped == 0
    assert len(events(str(its.config.source))) == 12
    # Whoever has the old name now is no old side.
    with open_store(its.config.url(str(its.config.target)), mode="create") as other:
        other.append("cart-1", [OPENED_2], expected=ANY)
    with pytest.raises(CrossingError, match="not the old side"):
        commands.complete(its, drop=True)
    assert len(events(str(its.config.target))) == 1


def test_complete_again_after_the_old_side_was_dropped(tmp_path: Path) -> None:
    its = project(tmp_path, registry())
    fill(tmp_path / "source.db", history())
    commands.upcast(its)
    commands.cutover(its)
    first = commands.complete(its, drop=True)
    assert first.dropped == 12
    with pytest.raises(JobError, match="nothing to steer"):
        commands.steer(its, paused=True)
    assert commands.resume(its).state is State.COMPLETED
    again = commands.complete(its, drop=True)
    assert (again.job.job_id, again.job.state, again.dropped) == (
        first.job.job_id,
        State.COMPLETED,
        0,
    )


@pytest.mark.parametrize("by_tables", ["sqlite", "postgres schemas"], indirect=True)
def test_a_follower_ends_with_the_job_that_moved_with_its_tables(by_tables: Project) -> None:
    its = by_tables
    commands.upcast(its)
    commands.cutover(its, switch=Switch.TABLES)
    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(commands.keep_up, its)
        while not commands.measure(its).running:
            time.sleep(0.01)
        commands.complete(its, drop=True)
        assert follower.result(60).state is State.COMPLETED


@pytest.mark.parametrize("by_tables", ["postgres schemas"], indirect=True)
def test_tables_that_are_in_use_are_not_waited_for_longer_than_writers_may_wait(
    by_tables: Project, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, or a report, holds them; who is named in the reason."""
    its = by_tables
    plain, _ = urls(its)
    monkeypatch.setattr(Sides, "_still", lambda sides: 0.0)  # all of it is left for the tables
    commands.upcast(its)
    application = open_store(plain, mode="write")
    try:
        for cross, live, kind in (
            (commands.cutover, State.CATCHING_UP, OPENED_1),
            (commands.reverse, State.REVERSE_WINDOW, OPENED_2),
        ):
            switch = {"switch": Switch.TABLES} if cross is commands.cutover else {}
            with psycopg.connect(f"{postgres_url}&application_name=backup") as backup:
                backup.execute("SELECT count(*) FROM one.origins")
                with pytest.raises(CrossingError, match=r"in use for 0.3 s: session .*backup"):
                    cross(its, budget_s=0.3, **switch)
                job = commands.status(its).job
                assert job.state is live
                assert "fell back: the tables were in use" in job.reason
                application.append("cart-1", [kind], expected=ANY)  # type: ignore[attr-defined]
            cross(its, **switch)
        assert commands.status(its).job.state is State.REVERSED
        assert [e.schema_version for e in events(plain)[-2:]] == [1, 1]
    finally:
        application.close()


@pytest.mark.parametrize("by_tables", ["postgres prefixes"], indirect=True)
def test_what_would_not_follow_a_name_is_told_before_writers_wait(
    by_tables: Project, postgres_url: str
) -> None:
    its = by_tables
    commands.upcast(its)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE VIEW one.report AS SELECT type FROM one.events")
    for dry_run in (True, False):
        with pytest.raises(CrossingError, match=r"view or rule one.report hangs on"):
            commands.cutover(its, switch=Switch.TABLES, dry_run=dry_run)
    assert commands.status(its).job.state is State.READY


@pytest.mark.parametrize("its", ["tables"], indirect=True)
def test_what_would_stay_behind_in_a_file_is_told_before_writers_wait(
    its: Project, tmp_path: Path
) -> None:
    commands.upcast(its)
    table = "CREATE TABLE notes (n, at REFERENCES v2_events (global_position))"
    trigger = "CREATE TRIGGER count AFTER INSERT ON events BEGIN INSERT INTO seen VALUES (1); END"
    theirs, broken = (
        f"CREATE VIEW {name} AS SELECT 1 FROM {table}"
        for name, table in (("theirs", "v2_streams"), ("broken", "nowhere"))
    )
    hanging = {
        "view report hangs on the table events": "CREATE VIEW report AS SELECT type FROM Events",
        "view theirs hangs on the table v2_streams": theirs,
        "trigger count hangs on the table events": trigger,
        "foreign key of notes hangs on the table v2_events": table,
        "cannot change its name .error in view broken": broken,
    }
    sql(
        tmp_path / "source.db",
        "CREATE TABLE seen (n)",
        "CREATE VIEW count_seen AS SELECT * FROM seen",
    )
    for said, statement in hanging.items():
        sql(tmp_path / "source.db", statement)
        for dry_run in (True, False):
            with pytest.raises(CrossingError, match=said):
                commands.cutover(its, switch=Switch.TABLES, dry_run=dry_run)
        kind, name = statement.split()[1:3]
        sql(tmp_path / "source.db", f"DROP {kind} {name}")
    assert commands.status(its).job.state is State.READY
    commands.cutover(its, switch=Switch.TABLES)
    commands.reverse(its)


def test_an_event_without_a_way_back_makes_the_window_unsafe(its: Project, tmp_path: Path) -> None:
    commands.upcast(its)
    commands.cutover(its)
    append(its, "cart-1", NewEvent("OneWay", b'{"sum":7}', schema_version=2))
    append(its, "cart-1", OPENED_2)
    commands.keep_up_once(its)
    assert commands.measure(its).unsafe == 1
    with pytest.raises(CrossingError, match="1 event has no way back: 1 OneWay v2"):
        commands.reverse(its)
    assert commands.status(its).job.state is State.REVERSE_WINDOW
    left = tmp_path / "left.jsonl"
    assert commands.reverse(its, export=left).left_behind == 1
    assert json.loads(left.read_text())["data"] == {"sum": 7}
    assert said(events(urls(its)[0]))[-1] == ("Opened", 1, {"name": "t"})


@pytest.mark.parametrize("its", ["file", "tables"], indirect=True)
def test_the_same_command_again_finds_the_application_across(its: Project, tmp_path: Path) -> None:
    """As after an answer that was lost: nothing is done twice, and all of it is told again."""
    commands.upcast(its)
    first, again = commands.cutover(its), commands.cutover(its)
    assert (first.already, again.already) == (False, True)
    assert again.job.state is State.REVERSE_WINDOW
    assert again.stood_still_s == pytest.approx(first.stood_still_s, abs=1)
    if its.config.target == "sqlite:///target.db":
        append(its, "cart-1", NewEvent("OneWay", b'{"sum":7}', schema_version=2))
    left = tmp_path / "left.jsonl"
    first = commands.reverse(its, export=left)
    lines = left.read_text() if first.left_behind else ""
    left.unlink(missing_ok=True)
    again = commands.reverse(its, export=left)
    assert (first.already, again.already) == (False, True)
    assert again.left_behind == first.left_behind
    assert (left.read_text() if left.exists() else "") == lines
    assert not commands.cutover(its).already


TOLD = """
from pathlib import Path

def tell(given):
    with Path(__file__).with_name("told").open("a") as log:
        print(given["point"], given["already"], file=log)
"""


@pytest.mark.parametrize("point", ["switch: after", "open: after"])
def test_the_call_that_finishes_a_crossing_runs_its_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The hook of a call that was stopped behind its point of no return was not run."""
    (tmp_path / "our_hooks.py").write_text(TOLD)
    log = tmp_path / "told"

    def told() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    names = {"after_cutover": "our_hooks:tell", "after_reverse": "our_hooks:tell"}
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, registry(), hooks=names)
    commands.upcast(its)
    for crossing, name in ((commands.cutover, "cutover"), (commands.reverse, "reverse")):
        with monkeypatch.context() as stopped:
            stopped.setattr(failpoints, "handler", partial(_stop, point))
            with pytest.raises(KeyboardInterrupt):
                crossing(its)
        assert told() == []
        assert crossing(its).already
        assert told() == [f"after_{name} True"]
    assert not commands.cutover(its).already
    assert told() == ["after_cutover False"]


FAILING = """
def fail(given):
    raise LookupError(f"no route for {given['point']}")
"""


def test_a_hook_that_fails_behind_a_step_is_told_and_takes_nothing_back(tmp_path: Path) -> None:
    (tmp_path / "our_hooks.py").write_text(FAILING)
    names = dict.fromkeys(("after_cutover", "after_reverse", "completed"), "our_hooks:fail")
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, registry(), hooks=names)
    commands.upcast(its)
    across = commands.cutover(its)
    assert (across.job.state, across.already) == (State.REVERSE_WINDOW, False)
    back = commands.reverse(its)
    again = commands.reverse(its)
    assert (back.job.state, again.already) == (State.REVERSED, True)
    commands.cutover(its)
    completed = commands.complete(its)
    assert completed.job.state is State.COMPLETED
    for found, text in (
        (across, render.crossing(across)),
        (back, render.crossing(back)),
        (again, render.crossing(again)),
        (completed, render.completed(completed)),
    ):
        assert "raised LookupError: no route for" in found.hook_failed
        console = Console(width=80, record=True, file=io.StringIO())
        console.print(text)
        assert "again to run it again" in console.export_text()


def _stop(at: str, point: str) -> None:
    if point == at:
        raise KeyboardInterrupt


@pytest.mark.parametrize("its", ["file", "tables", "postgres"], indirect=True)
def test_what_it_cannot_finish_in_time_falls_back(its: Project) -> None:
    commands.upcast(its)
    append(its, "cart-1", OPENED_1)
    with pytest.raises(CrossingError, match="the budget is 0 s"):
        commands.cutover(its, budget_s=0)
    report = commands.status(its)
    assert report.job.state is State.CATCHING_UP
    assert "writers stood still" in report.job.reason
    append(its, "cart-1", OPENED_1)  # writers go on where they were
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW
    assert len(events(urls(its)[1])) == 14


def test_a_side_that_is_closed_and_changed_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, registry())
    commands.upcast(its)
    commands.cutover(its)
    sql(
        tmp_path / "source.db",
        "UPDATE eventmig_fences SET closed = 0",
        "INSERT INTO events SELECT global_position + 1, stream_id, 99, 'x', type, 1, data, NULL, 1,"
        " NULL, NULL, NULL FROM events ORDER BY global_position DESC LIMIT 1",
        "UPDATE eventmig_fences SET closed = 1",
    )
    commands.keep_up_once(its)
    assert commands.status(its).job.state is State.NEEDS_OPERATOR
    with pytest.raises(JobError, match="still holds events"):
        commands.resume(its)
    sql(tmp_path / "source.db", "DELETE FROM events WHERE event_id = 'x'")
    assert commands.resume(its).state is State.REVERSE_WINDOW
    assert commands.reverse(its).job.state is State.REVERSED


@pytest.mark.parametrize("its", ["file", "streams"], indirect=True)
def test_a_route_tells_side_names_and_epoch(its: Project) -> None:
    commands.upcast(its)
    new = open_store(urls(its)[1])
    try:
        assert (look_up(new).side, look_up(new).epoch) == (Side.OLD, 0)
        assert look_up(new).stream("cart-1") == "cart-1"
        commands.cutover(its)
        route = look_up(new)
        assert (route.side, route.epoch) == (Side.NEW, 1)
        assert route.stream("cart-1") == its.config.naming.replace("{stream}", "cart-1").replace(
            "{release}", "2"
        )
        commands.reverse(its)
        assert (look_up(new).side, look_up(new).epoch) == (Side.OLD, 2)
    finally:
        new.close()


@pytest.mark.parametrize("its", ["file"], indirect=True)
@pytest.mark.parametrize("end", [commands.cancel, commands.reverse])
def test_what_a_job_may_not_do_now(its: Project, end: Callable[[Project], object]) -> None:
    commands.upcast(its)
    if end is commands.cancel:
        commands.cutover(its)
    with pytest.raises(JobError):
        end(its)


@pytest.mark.parametrize("its", ["file", "tables", "postgres"], indirect=True)
def test_both_directions_are_proven_while_they_run(its: Project) -> None:
    """`verify --follow` beside whoever works: the copy, the window, and then a wrong event."""
    commands.upcast(its)
    rounds: list[int] = []

    def on_round(watched: commands.Watched) -> None:
        rounds.append(watched.found.target_events)
        if len(rounds) == 1:
            commands.cutover(its)
            append(its, "cart-1", OPENED_2)
            commands.keep_up_once(its)
        else:
            commands.complete(its)

    found = commands.watch_copies(its, share=1.0, on_round=on_round)
    assert found.job.state is State.COMPLETED
    assert rounds == [12, 13]
    assert found.found.right


def test_a_wrong_copy_is_found_while_it_runs(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, registry())
    commands.upcast(its)
    sql(tmp_path / "target.db", "UPDATE events SET type = 'Other' WHERE global_position = 5")
    with pytest.raises(VerifyError, match="type is Other"):
        commands.watch_copies(its)


@pytest.mark.parametrize("its", ["file", "postgres"], indirect=True)
@pytest.mark.parametrize("taken", [2, 4, 6])
def test_a_holder_that_was_only_stopped_changes_nothing_more(its: Project, taken: int) -> None:
    """Stopped amid a crossing and past its lock, overtaken, and continued."""
    commands.upcast(its)
    append(its, "cart-1", OPENED_1)
    with commands.holding.held(its) as (sides, target):
        stopped = cross(sides, CUT_OVER)
        for _ in range(taken):
            next(stopped)
        before = sides.job
        with target.begin() as tx:  # as a process does that believes it to be dead
            after = ledger.take_over(
                tx.connection, before, registry_fingerprint=before.registry_fingerprint
            )
        sides.forward.adopt(after)
        take_steps(mend(sides))
        append(its, "cart-1", OPENED_1)  # the door is open, and stays so
        sides.forward.adopt(before)
        with pytest.raises(JobLostError):
            list(stopped)
        append(its, "cart-1", OPENED_1)
    assert commands.cutover(its).job.state is State.REVERSE_WINDOW
    assert len(events(urls(its)[1])) == 12 + 3
