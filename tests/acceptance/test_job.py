"""The governing property: reading the copy equals upcasting the reading of the source.

The reference here is slow and obvious: every stream whole, step by step, then one sort and one
count. It shares with the job only the single steps and the ids.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig import Draft, Registry, commands, drop_event, ops, rename_streams, upcaster
from eventmig.config import Config
from eventmig.errors import JobError
from eventmig.events import Event, Origin, merged_id, part_id
from eventmig.migrate.states import State
from eventmig.project import Project
from eventmig.release import Lock
from tests.acceptance.every_step import REGISTRY
from tests.acceptance.support import contents, event, fill, history, project, read, steps, url

# histories ---------------------------------------------------------------------------------------


numbers = st.sampled_from(["1", "1.10", "-0", "12345678901234567890", "1e400", "1E2", "0.1"])
spaces = st.sampled_from(["", " ", "\n  "])
texts = st.sampled_from(['""', '"a"', '"\\u00e9é"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\/"'])
untouchable = st.sampled_from(
    [
        b'{ "a" : 1.10 ,"a":2}',
        b'{"a":1e400}',
        b'{"a":"\\ud800"}',
        b"null",
        b"[1,2 , 3]",
        b"not JSON",
        b"",
        b'"\\u0000"',
        '{"é":"\u2028"}'.encode(),
    ]
)


@st.composite
def objects(draw: st.DrawFn, **members: st.SearchStrategy[str]) -> bytes:
    """A JSON object in some spelling; a member may be missing where its strategy draws ''."""
    space = draw(spaces)
    found = [(name, draw(strategy)) for name, strategy in members.items()]
    inner = f",{space}".join(f'"{name}":{space}{text}' for name, text in found if text)
    return f"{{{space}{inner}{space}}}".encode()


maybe = st.one_of(st.just(""), numbers, texts)
few = st.sampled_from(["1", "2"])
lists = st.lists(few, max_size=3).map(lambda items: f"[{', '.join(items)}]")
KINDS: dict[tuple[str, int], st.SearchStrategy[bytes]] = {
    ("Free", 1): untouchable,
    ("Free", 9): untouchable,
    ("Opened", 1): objects(name=texts, n=few),
    ("Opened", 2): objects(title=texts, n=few),
    ("Opened", 3): objects(title=texts, n=few, currency=texts),
    ("Counted", 1): objects(n=numbers, other=maybe),
    ("Counted", 2): untouchable,
    ("Listed", 1): objects(items=lists),
    ("Old", 1): objects(x=maybe),
    ("New", 2): untouchable,
    ("Who", 1): objects(x=maybe),
    ("Noise", 1): untouchable,
    ("Both", 1): objects(left=few, right=maybe),
    ("First", 1): objects(key=few, a=maybe),
    ("Second", 1): objects(key=few, b=maybe),
    ("Start", 1): objects(s=maybe),
    ("End", 1): objects(e=maybe),
    ("Noted", 1): objects(note=texts),
    ("Item", 1): objects(i=few),
}
metadatas = st.sampled_from(
    [None, b"{}", b'{"who": "ada", "x":1.10}', b'{"causation_id":"c", "correlation_id": "d"}']
)
STREAMS = ["cart-1", "cart-2", "pair-1", "pair-2", "odd-1", "plain", "ünï-1"]


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    made = []
    for _ in range(draw(st.integers(0, 25))):
        stream = draw(st.sampled_from(STREAMS))
        kind = draw(st.sampled_from(sorted(KINDS)))
        made.append(
            event(
                stream,
                kind[0],
                draw(KINDS[kind]),
                version=kind[1],
                metadata=draw(metadatas),
                at=draw(st.integers(-(10**15), 10**15)),
            )
        )
    return made


# the reference -----------------------------------------------------------------------------------


def reference(source: list[Event], registry: Registry, *, keep_ids: bool = True) -> list[Event]:
    """What a copy of these events must read as."""
    streams: dict[str, list[Event]] = defaultdict(list)
    for one in source:
        streams[one.stream].append(one)
    due: list[tuple[int, int, Draft, int]] = []
    for name, events in streams.items():
        drafts = [draft for one in events for draft in registry.chains.walk(one)]
        for step in registry.stream_steps:
            if step.fits(name):
                drafts = step.change.apply(drafts)
        latest = 0
        seen: Counter[tuple[int, ...]] = Counter()
        for index, draft in enumerate(drafts):
            origins = tuple(s.global_position for s in draft.sources)
            latest = max(latest, origins[-1])
            due.append((latest, index, draft, seen[origins]))
            seen[origins] += 1
    out: list[Event] = []
    last: Counter[str] = Counter()
    for _, _, draft, ordinal in sorted(due, key=lambda one: one[:2]):
        ids = [s.id for s in draft.sources]
        id_ = merged_id(ids, ordinal) if len(ids) > 1 else part_id(ids[0], ordinal)
        if len(ids) == 1 and ordinal == 0 and keep_ids:
            id_ = ids[0]
        stream = next(
            (to for r in registry.routes if (to := r.takes(draft)) is not None), draft.stream
        )
        last[stream] += 1
        out.append(
            Event(
                len(out) + 1,
                stream,
                last[stream],
                id_,
                draft.type,
                draft.schema_version,
                draft.data,
                draft.metadata,
                draft.recorded_at,
                tuple(Origin(s.stream, s.stream_position, ordinal) for s in draft.sources),
            )
        )
    return out


def values(data: bytes) -> object:
    """JSON with the digits of its numbers, so that 1.10 is not 1.1."""
    return json.loads(data, parse_float=lambda text: str(Decimal(text)), parse_int=str)


def assert_same(found: list[Event], wanted: list[Event], untouched: set[bytes]) -> None:
    assert [e._replace(data=b"") for e in found] == [e._replace(data=b"") for e in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        if theirs.data in untouched:
            assert ours.data == theirs.data
        else:
            assert values(ours.data) == values(theirs.data)


@contextmanager
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="eventmig-job-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@given(history=histories(), batch_size=st.integers(1, 9))
@settings(max_examples=30)
def test_the_copy_reads_as_the_source_upcast(history: list[Event], batch_size: int) -> None:
    with folder() as tmp:
        source = fill(tmp / "source.db", history)
        report = commands.upcast(project(tmp, REGISTRY), batch_size=batch_size)
        found = read(tmp / "target.db")

        assert report.ready
        assert report.verification is not None
        assert report.verification.right
        assert_same(found, reference(source, REGISTRY), {e.data for e in source})
        tally = report.job.tally
        assert tally.read == len(source)
        assert tally.written == len(found)
        tally.check()
        assert read(tmp / "source.db") == source


@given(history=histories(), batch_size=st.integers(1, 9))
@settings(max_examples=4)
def test_a_second_process_makes_the_same(history: list[Event], batch_size: int) -> None:
    with folder() as tmp:
        source = fill(tmp / "source.db", history)
        urls = {"source": "sqlite:///source.db", "target": "sqlite:///target.db"}
        config = Config(folder=tmp, registry="tests.acceptance.every_step:REGISTRY", **urls)
        its = Project(config, given_lock=Lock((REGISTRY.freeze("2"),)))
        assert commands.upcast(its, batch_size=batch_size, workers=2).ready
        assert_same(read(tmp / "target.db"), reference(source, REGISTRY), {e.data for e in source})


@given(first=histories(), second=histories(), batch_size=st.integers(1, 9))
@settings(max_examples=12)
def test_caught_up_in_two_runs_it_is_the_same_as_in_one(
    first: list[Event], second: list[Event], batch_size: int
) -> None:
    """Where no stream step looks ahead: what is written stays as it was written."""
    registry = Registry([s for s in steps() if not hasattr(s, "streams")])
    known = {"Opened", "Old", "Noise", "Both", "Free"}
    with folder() as tmp:
        fill(tmp / "source.db", [e for e in first if e.type in known])
        its = project(tmp, registry)
        assert commands.upcast(its, batch_size=batch_size).ready
        source = fill(tmp / "source.db", [e for e in second if e.type in known])
        report = commands.upcast(its, batch_size=batch_size)

        assert report.ready
        assert_same(read(tmp / "target.db"), reference(source, registry), {e.data for e in source})


# the ways to name a target -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "naming"),
    [
        ("?tables=v2_", "{stream}"),
        ("?release=2", "{stream}-{release}"),
        ("?release=2", "{release}{stream}"),
    ],
)
def test_a_target_in_the_file_of_the_source(tmp_path: Path, query: str, naming: str) -> None:
    source = fill(tmp_path / "source.db", history())
    registry = Registry(steps())
    target = url(tmp_path / "source.db", query)
    report = commands.upcast(project(tmp_path, registry), target=target, naming=naming)

    assert report.ready
    found = read(tmp_path / "source.db", query)
    wanted = reference(source, registry, keep_ids="tables" in query)
    named = [e._replace(stream=naming.format(stream=e.stream, release=2)) for e in wanted]
    first = found[0].global_position - 1
    assert_same(
        [e._replace(global_position=e.global_position - first) for e in found],
        named,
        {e.data for e in source},
    )
    assert read(tmp_path / "source.db") == source
    again = commands.upcast(project(tmp_path, registry), target=target, naming=naming)
    assert again.ready
    assert read(tmp_path / "source.db", query) == found


def test_streams_that_do_not_fit_into_memory_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "source.db", history(60))
    monkeypatch.setattr("eventmig.transform._KEPT_EVENTS", 1)
    registry = Registry(steps())
    assert commands.upcast(project(tmp_path, registry), batch_size=4).ready
    assert_same(read(tmp_path / "target.db"), reference(source, registry), {e.data for e in source})


def test_cancelled_it_is_gone_and_begins_anew(tmp_path: Path) -> None:
    source = fill(tmp_path / "source.db", history())
    its = project(tmp_path, Registry(steps()), target="sqlite:///source.db?release=2")
    naming = "{stream}-{release}"
    commands.upcast(its, naming=naming)
    first = read(tmp_path / "source.db", "?release=2")

    assert commands.cancel(its) == len(first)
    assert read(tmp_path / "source.db", "?release=2") == []
    assert read(tmp_path / "source.db") == source
    with pytest.raises(JobError, match="no job"):
        commands.status(its)
    assert commands.upcast(its, naming=naming).ready
    assert read(tmp_path / "source.db", "?release=2") == first
    assert [h.job.state for h in commands.history(its)] == [State.CANCELLED, State.READY]


def test_it_is_cancelled_without_any_upcasters(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    commands.upcast(project(tmp_path, Registry(steps())))
    assert commands.cancel(project(tmp_path, Registry([]))) > 0


def test_an_empty_source_is_ready_and_grows(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [])
    its = project(tmp_path, Registry(steps()))
    assert commands.upcast(its).ready
    source = fill(tmp_path / "source.db", history())
    assert commands.upcast(its).ready
    assert_same(
        read(tmp_path / "target.db"), reference(source, Registry(steps())), {e.data for e in source}
    )


def test_a_second_release_from_the_target_of_the_first(tmp_path: Path) -> None:
    """Stream and store steps the source has behind it are not taken again."""
    fill(tmp_path / "source.db", history())
    first = [*steps(), rename_streams("carts", "cart-{id}", to="cart-x{id}")]
    before = project(tmp_path, Registry(first))
    commands.upcast(before)
    middle = read(tmp_path / "target.db")
    second = Registry([*first, upcaster("Whole", 1, ops.add("seen", True))])
    its = project(
        tmp_path,
        second,
        release="3",
        lock=before.lock,
        source="sqlite:///target.db",
        target="sqlite:///third.db",
    )
    report = commands.upcast(its)

    assert report.job.steps_done == ("carts", "pair")
    found = read(tmp_path / "third.db")
    assert [(e.stream, e.stream_position) for e in found] == [
        (e.stream, e.stream_position) for e in middle
    ]
    assert all(b'"seen":true' in e.data for e in found if e.type == "Whole")
    assert all(e.id == m.id for e, m in zip(found, middle, strict=True))


def test_an_unfinished_target_is_no_source(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    registry = Registry(steps())
    commands.upcast(project(tmp_path, registry), verify=False)
    its = project(tmp_path, registry, source="sqlite:///target.db", target="sqlite:///third.db")
    with pytest.raises(JobError, match="backfilling, not ready"):
        commands.upcast(its)
    assert not (tmp_path / "third.db").exists()


def test_upcast_twice_is_harmless(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, Registry(steps()))
    assert commands.upcast(its).ready
    before = contents(tmp_path / "target.db")
    assert commands.upcast(its).ready
    assert contents(tmp_path / "target.db") == before


def test_a_target_that_somebody_else_filled_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    fill(tmp_path / "target.db", history(5))
    before = contents(tmp_path / "target.db")
    with pytest.raises(JobError, match="no job wrote"):
        commands.upcast(project(tmp_path, Registry(steps())))
    assert contents(tmp_path / "target.db") == before


def test_a_target_belongs_to_one_release_source_and_naming(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    fill(tmp_path / "other.db", history())
    registry = Registry(steps())
    its = project(tmp_path, registry)
    commands.upcast(its)
    before = contents(tmp_path / "target.db")
    for other, more in [
        (project(tmp_path, registry, release="3"), {}),
        (its, {"source": url(tmp_path / "other.db")}),
        (its, {"naming": "{stream}-x"}),
    ]:
        with pytest.raises(JobError, match="belongs to another job"):
            commands.upcast(other, **more)
    assert contents(tmp_path / "target.db") == before


def test_changed_upcasters_do_not_go_on_with_what_others_wrote(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    commands.upcast(project(tmp_path, Registry(steps())), verify=False)
    changed = Registry([*steps()[1:], upcaster("Opened", 1, ops.rename("name", "titel"))])
    with pytest.raises(JobError, match="upcasters changed"):
        commands.upcast(project(tmp_path, changed))


def test_steps_written_since_do_not_stop_a_job_to_an_older_release(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    old = project(tmp_path, Registry(steps()))
    commands.upcast(old)
    newer = Registry(
        [*steps(), upcaster("Opened", 3, ops.add("more", 1)), drop_event("Untouched", 1, why="x")]
    )
    source = fill(tmp_path / "source.db", [event("plain", "Untouched", b"{}")])
    its = project(tmp_path, newer)
    report = commands.upcast(
        type(its)(its.config, given_registry=newer, given_lock=old.lock), release="2"
    )
    assert report.ready
    assert_same(
        read(tmp_path / "target.db"), reference(source, Registry(steps())), {e.data for e in source}
    )


def test_a_merge_that_new_events_would_change_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("pair-1", "First", {"key": 1})])
    its = project(tmp_path, Registry(steps()))
    commands.upcast(its)
    before = contents(tmp_path / "target.db", ledger=False)
    fill(tmp_path / "source.db", [event("pair-1", "Second", {"key": 1})])
    for _ in range(2):  # and it stays refused
        with pytest.raises(Exception, match="already written of this stream"):
            commands.upcast(its)
        assert contents(tmp_path / "target.db", ledger=False) == before


def test_names_of_streams_may_look_like_templates(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", [event("a-{release}", "T", {}), event("a-2", "T", {})])
    its = project(tmp_path, Registry([]), naming="{stream}-{release}")
    commands.upcast(its)
    assert [e.stream for e in read(tmp_path / "target.db")] == ["a-{release}-2", "a-2-2"]


def test_what_a_program_has_frozen_stays_so(tmp_path: Path) -> None:
    fill(tmp_path / "source.db", history())
    its = project(tmp_path, Registry(steps()))
    gc.freeze()
    frozen = gc.get_freeze_count()
    commands.upcast(its)
    assert gc.get_freeze_count() == frozen
    gc.unfreeze()
    commands.verify(its)
    assert gc.get_freeze_count() == 0
    gc.freeze()  # as it was
