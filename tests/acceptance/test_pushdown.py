"""Batches inside the database: what comes out is what comes out of the way through Python."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventmig import Registry, commands, data_upcaster, drop_event, ops, schema, upcaster
from eventmig.commands import JobReport, Pushdown
from eventmig.errors import JobError, UpcastError
from eventmig.events import Event, NewEvent
from eventmig.migrate.states import State
from eventmig.stores.base import ANY, NONE, JobTarget
from eventmig.stores.open import open_store
from tests.acceptance.support import (
    contents,
    driver,
    event,
    fill,
    project,
    project_in_files,
    read,
)

METADATA = [None, b"{}", '{"é": "\u2028"}'.encode()]


class Address(msgspec.Struct, forbid_unknown_fields=True):
    city: str


@schema("Opened", version=3)
class Opened(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    cents: int
    currency: str
    address: Address | None = None
    n: float | int | None = None


def registry(*more: Any) -> Registry:
    return Registry(
        [
            upcaster(
                "Opened",
                1,
                ops.rename("name", "title"),
                ops.convert("sum", "text_to_hundredths"),
                ops.rename("sum", "cents"),
            ),
            upcaster("Opened", 2, ops.add("currency", "EUR"), ops.nest("city", under="address")),
            *more,
        ],
        schemas=[Opened],
    )


def opened(n: int, stream: str = "cart-1", **data: object) -> Event:
    values = {"name": f"é{n}", "sum": f"{n}.50", "n": n, "city": "Köln"} | data
    return event(stream, "Opened", values, metadata=METADATA[n % 3])


def some(count: int) -> list[Event]:
    return [
        opened(n, f"cart-{n % 5}") if n % 3 else event(f"cart-{n % 5}", "Free", b'{ "a" : 1.10 }')
        for n in range(count)
    ]


def upcast(folder: Path, steps: Registry, mode: Pushdown, **options: Any) -> JobReport:
    return commands.upcast(
        project(folder, steps, target=f"sqlite:///{mode}.db"), pushdown=mode, **options
    )


def both_ways(folder: Path, steps: Registry, **options: Any) -> JobReport:
    """Run the job both ways; the targets must be the same. Returns the pushed one's report."""
    report = upcast(folder, steps, Pushdown.ALWAYS, **options)
    upcast(folder, steps, Pushdown.NEVER, **options)
    assert contents(folder / "always.db") == contents(folder / "never.db")
    return report


def test_every_batch_inside_the_database(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", some(60))
    report = both_ways(tmp_path, registry(), batch_size=25)
    assert report.pushed is not None
    assert (report.pushed.inside, report.pushed.through_python) == (3, 0)
    assert report.job.tally.copied == 20
    assert report.job.tally.upcast == 40
    assert report.ready
    assert json.loads(read(tmp_path / "always.db")[1].data) == {
        "title": "é1", "cents": 150, "n": 1, "currency": "EUR", "address": {"city": "Köln"}
    }  # fmt: skip


ODD = {
    "a number in another spelling": {"sum": "7"},
    "a key twice": b'{"name":"a","sum":"1.00","n":1,"n":2}',
    "half a character": b'{"name":"\\ud800","sum":"1.00"}',
    "not JSON": b"{",
    "a place that is taken": {"title": "there"},
    "what the model refuses": {"name": 7},
    "a member that the model does not know": {"x": 1},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_event_that_python_refuses_stops_the_job_with_its_error(
    tmp_path: Path, odd: bytes | dict[str, object]
) -> None:
    bad = event("cart-9", "Opened", odd) if isinstance(odd, bytes) else opened(9, "cart-9", **odd)
    fill(tmp_path / "source.db", [*some(25), bad, *some(5)])
    errors = []
    for mode in (Pushdown.ALWAYS, Pushdown.NEVER):
        with pytest.raises(UpcastError) as found:
            upcast(tmp_path, registry(), mode, batch_size=10)
        errors.append(str(found.value))
    assert errors[0] == errors[1]
    assert "cart-9" in errors[0]
    assert contents(tmp_path / "always.db") == contents(tmp_path / "never.db")


def test_what_is_set_aside_shifts_what_follows_and_ends_the_pushing(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [*some(25), opened(9, "cart-1", sum="x"), *some(25)])
    report = both_ways(tmp_path, registry(), batch_size=10, quarantine=True)
    assert report.pushed is not None
    assert (report.pushed.inside, report.pushed.through_python) == (2, 1)
    assert report.job.state is State.PAUSED


def test_what_only_python_can_do_goes_that_way_and_is_counted(tmp_path: Path) -> None:
    escaped = event("cart-2", "Opened", b'{"name":"\\ud83d\\ude00","sum":"1.00"}')
    fill(tmp_path / "source.db", [*some(12), escaped, *some(20)])
    report = both_ways(tmp_path, registry(), batch_size=10)
    assert report.pushed is not None
    assert (report.pushed.inside, report.pushed.through_python) == (3, 1)
    assert report.pushed.reasons == {"SQLite would read an event's data otherwise": 1}


def test_tables_in_the_same_file(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", some(30))
    same = project(tmp_path, registry(), target="sqlite:///source.db?tables=new_")
    report = commands.upcast(same, pushdown=Pushdown.ALWAYS, batch_size=10)
    assert report.pushed is not None
    assert report.pushed.inside == 3
    upcast(tmp_path, registry(), Pushdown.NEVER)
    assert read(tmp_path / "source.db", "?tables=new_") == read(tmp_path / "never.db")


@pytest.mark.parametrize("first", list(Pushdown))
def test_a_job_may_go_on_the_other_way(tmp_path: Path, first: Pushdown) -> None:
    source = tmp_path / "source.db"
    fill(source, some(23))
    target = project(tmp_path, registry())
    commands.upcast(target, pushdown=first, batch_size=10)
    fill(source, some(23))
    second = Pushdown.NEVER if first is Pushdown.ALWAYS else Pushdown.ALWAYS
    assert commands.upcast(target, pushdown=second, batch_size=10).ready
    upcast(tmp_path, registry(), Pushdown.NEVER)
    assert read(tmp_path / "target.db") == read(tmp_path / "never.db")


def renamed(data: dict[str, Any]) -> dict[str, Any]:
    """A function of a user."""
    return data


WHY_NOT: dict[str, tuple[Callable[[], Registry], dict[str, Any], str]] = {
    "a function": (
        lambda: registry(data_upcaster("Free", 1)(renamed)),
        {},
        r"Free v1: apply renamed: it is a function of yours",
    ),
    "a dropped event": (
        lambda: registry(drop_event("Free", 1, why="noise")),
        {},
        r"Free v1 → \(dropped\) does not leave one event one event",
    ),
    "a naming": (registry, {"naming": "{stream}-{release}"}, r"the naming .* other names"),
    "an op without SQL": (
        lambda: registry(upcaster("Free", 1, ops.convert("a", "time_to_iso"))),
        {},
        r"the conversion time_to_iso is not known in SQL",
    ),
}


@pytest.mark.parametrize(("steps", "options", "why"), WHY_NOT.values(), ids=WHY_NOT.keys())
def test_always_says_why_not(
    tmp_path: Path, steps: Callable[[], Registry], options: dict[str, Any], why: str
) -> None:
    fill(tmp_path / "source.db", some(5))
    with pytest.raises(JobError, match=why):
        upcast(tmp_path, steps(), Pushdown.ALWAYS, **options)


def test_on_sqlite_it_is_not_done_unasked(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", some(5))
    report = upcast(tmp_path, registry(), Pushdown.AUTO)
    assert report.pushed is not None
    assert report.pushed.why_not == "through Python it is faster"


histories = st.lists(
    st.builds(
        event,
        st.sampled_from(["cart-1", "cart-2", "straße 'x'"]),
        st.sampled_from(["Opened", "Free"]),
        st.sampled_from(
            [
                b'{"name":"a","sum":"1.00","n":1.10}',
                b'{"name":"a","sum":"-0.05","city":"x"}',
                b'{ "sum":"0.00", "name" : "\\u00e9" }',
                b'{"name":"\\"\\\\","sum":"1.00","address":{"city":"y"}}',
                b'{"name":"a","sum":"1.00","n":12345678901234567890}',
                b'{"name":"a\\u0000","sum":"1.00"}',
            ]
        ),
        version=st.sampled_from([1, 1, 1, 2]),
        metadata=st.sampled_from(METADATA),
    ),
    max_size=25,
)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(n) for n in range(1_000))  # type: ignore[return-value]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories, size=st.integers(1, 30))
def test_any_history_comes_out_the_same(
    folders: Iterator[Path], history: list[Event], size: int
) -> None:
    folder = next(folders)
    folder.mkdir()
    fill(folder / "source.db", history)
    both_ways(folder, registry(), batch_size=size, quarantine=True)


# in PostgreSQL ------------------------------------------------------------------------------


def fill_postgres(url: str, events: list[Event]) -> None:
    heads: dict[str, int] = {}
    with open_store(url, mode="create") as store, store.begin() as tx:
        for one in events:
            place = heads[one.stream] = heads.get(one.stream, 0) + 1
            tx.append_copied([one._replace(stream_position=place)])


def undone(store: JobTarget) -> None:
    """Take positions in a transaction that is rolled back."""
    with contextlib.suppress(ZeroDivisionError), store.begin() as tx:
        tx.append_copied([opened(1, "gone-1")._replace(stream_position=1)])
        raise ZeroDivisionError


def held(url: str) -> list[Event]:
    with open_store(url) as store:
        events = [e for batch in store.read_all() for e in batch]
    return [e._replace(global_position=n) for n, e in enumerate(events)]


def in_postgres(folder: Path, url: str, mode: Pushdown, **options: Any) -> JobReport:
    urls = {"source": f"{url}&schema=old", "target": f"{url}&schema={mode}"}
    return commands.upcast(project(folder, registry(), **urls), pushdown=mode, **options)


@pytest.mark.parametrize(("mode", "workers"), [(Pushdown.ALWAYS, 1), (Pushdown.AUTO, 2)])
def test_in_postgresql_every_batch_runs_inside(
    tmp_path: Path, postgres_url: str, mode: Pushdown, workers: int
) -> None:
    fill_postgres(f"{postgres_url}&schema=old", some(60))
    report = in_postgres(tmp_path, postgres_url, mode, batch_size=5, workers=workers)
    assert report.pushed is not None
    assert (report.pushed.inside, report.pushed.through_python) == (12, 0)
    assert report.ready
    in_postgres(tmp_path, postgres_url, Pushdown.NEVER, batch_size=25)
    assert held(f"{postgres_url}&schema={mode}") == held(f"{postgres_url}&schema=never")


def test_in_postgresql_one_worker_goes_through_python_unasked(
    tmp_path: Path, postgres_url: str
) -> None:
    fill_postgres(f"{postgres_url}&schema=old", some(10))
    report = in_postgres(tmp_path, postgres_url, Pushdown.AUTO, workers=1)
    assert report.pushed is not None
    assert (report.pushed.inside, report.pushed.through_python) == (0, 0)
    assert report.pushed.why_not == "with one worker it is faster through Python"


@pytest.mark.parametrize("workers", [1, 2])
def test_in_postgresql_both_ways_take_turns(
    tmp_path: Path, postgres_url: str, workers: int
) -> None:
    """The first batch gives streams keys of its own; positions have gaps; the source grows."""
    source = f"{postgres_url}&schema=old"
    fill_postgres(source, [opened(1, "z-1", sum="9" * 250 + ".00"), *some(30)])
    with open_store(source, mode="write") as store:
        undone(store)
        for n in range(30):
            store.append(f"a-{n % 3}", [NewEvent("Free", b"{}")], expected=ANY)
    report = in_postgres(tmp_path, postgres_url, Pushdown.ALWAYS, batch_size=10, workers=workers)
    assert report.pushed is not None
    assert report.pushed.through_python == 1
    assert report.pushed.inside >= 6
    with open_store(source, mode="write") as store:
        store.append("new-1", [NewEvent("Free", b"{}")], expected=NONE)
    assert in_postgres(tmp_path, postgres_url, Pushdown.ALWAYS).ready
    in_postgres(tmp_path, postgres_url, Pushdown.NEVER)
    assert held(f"{postgres_url}&schema=always") == held(f"{postgres_url}&schema=never")
    with open_store(f"{postgres_url}&schema=always", mode="write") as store:
        (stored,) = store.append("fresh-1", [NewEvent("Free", b"{}")], expected=NONE)
    assert held(f"{postgres_url}&schema=always")[-1].id == stored.id


@pytest.mark.parametrize("odd", [{"sum": "7"}, {"title": "there"}, {"name": 7}, {"x": 1}], ids=str)
def test_in_postgresql_errors_are_pythons(
    tmp_path: Path, postgres_url: str, odd: dict[str, object]
) -> None:
    events = [*some(12), opened(9, "cart-9", **odd), *some(12)]
    fill_postgres(f"{postgres_url}&schema=old", events)
    errors = []
    for mode in (Pushdown.ALWAYS, Pushdown.NEVER):
        workers = 2 if mode is Pushdown.ALWAYS else 1
        with pytest.raises(UpcastError) as found:
            in_postgres(tmp_path, postgres_url, mode, batch_size=5, workers=workers)
        errors.append(str(found.value))
    assert errors[0] == errors[1]
    assert held(f"{postgres_url}&schema=always") == held(f"{postgres_url}&schema=never")


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        ("&schema=old&data=text", "&schema=new", "not jsonb in both"),
        ("&schema=old", "&schema=new&data=bytea", "not jsonb in both"),
        ("&schema=old&release=1", "&schema=new", "several releases"),
        ("&schema=old", "", "different kinds of store"),
    ],
)
def test_in_postgresql_always_says_why_not(
    tmp_path: Path, postgres_url: str, source: str, target: str, why: str
) -> None:
    fill_postgres(postgres_url + source, some(3))
    urls = {"source": postgres_url + source}
    urls |= {"target": postgres_url + target} if target else {}
    with pytest.raises(JobError, match=why):
        commands.upcast(project(tmp_path, registry(), **urls), pushdown=Pushdown.ALWAYS)


# killed ---------------------------------------------------------------------------------------

MINE = """
from eventmig import Registry, ops, upcaster
registry = Registry([
    upcaster("Opened", 1, ops.rename("name", "title"), ops.convert("sum", "text_to_hundredths")),
])
"""

# One process that is forked for every run; a run is killed just before the n-th time that it
# talks to the server, over either connection.
DRIVER = """
import os, signal, sys
import psycopg
from eventmig import commands
from eventmig.project import Project
from tests.forks import forked

its = Project.open()
its.registry
wait = psycopg.Connection.wait

def run(target, kill_at):
    count = 0
    def traced(*args, **kwargs):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return wait(*args, **kwargs)
    psycopg.Connection.wait = traced
    report = commands.upcast(its, target=target, pushdown=commands.Pushdown(mode), workers=workers)
    os._exit(0 if report.ready and not report.pushed.through_python else 9)

target, mode, workers, kill_at, code = *sys.argv[1:3], int(sys.argv[3]), 60, -9
while code == -9:
    url = f"{target}&schema=at_{kill_at}"
    code = forked(run, url, kill_at)
    assert code in (0, -9), code
    assert code == 0 or forked(run, url, 0) == 0
    print(url)
    kill_at += 67
"""


@pytest.mark.parametrize(("mode", "workers"), [(Pushdown.ALWAYS, 2), (Pushdown.NEVER, 1)])
def test_killed_at_any_point_it_ends_as_if_it_had_not_been(
    tmp_path: Path, postgres_url: str, mode: Pushdown, workers: int
) -> None:
    """Inside the database, and through Python with the columns that never leave it."""
    fill_postgres(f"{postgres_url}&schema=old", some(40))
    config = f'registry = "steps_here:registry"\nsource = "{postgres_url}&schema=old"\n'
    folder = project_in_files(tmp_path / "its", registry=MINE, config=config + "batch_size = 4\n")
    done = driver(folder, DRIVER, postgres_url, mode, workers)
    assert done.returncode == 0, done.stderr
    *killed, undisturbed = done.stdout.split()
    assert len(killed) >= 3
    for url in killed:
        assert held(url) == held(undisturbed), url
