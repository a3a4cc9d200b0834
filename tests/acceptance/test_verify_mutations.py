"""The verifier is tested by mutation: whatever is done to a target, it finds and places it."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import pytest

from eventmig import Registry, commands, data_upcaster
from eventmig.errors import JobError, VerifyError
from eventmig.migrate.job import Phase
from eventmig.migrate.states import State
from eventmig.migrate.verify import Mismatch, Verification, chaining
from eventmig.migrate.verify.chaining import first_form
from eventmig.project import Project
from eventmig.stores.open import open_store
from tests.acceptance.support import contents, event, fill, history, project, read, sql, steps, url

BY_ID, BY_STREAM = "DROP INDEX events_by_id", "DROP INDEX events_by_stream"


@pytest.fixture
def its(tmp_path: Path) -> Project:
    """A project whose job is ready."""
    fill(tmp_path / "source.db", history())
    made = project(tmp_path, Registry(steps()), batch_size=9)
    assert commands.upcast(made).ready
    return made


@pytest.fixture
def target(its: Project) -> Path:
    return its.config.folder / "target.db"


def verified(its: Project, *, quick: bool = False) -> Verification:
    found = commands.verify(its, derive=not quick).verification
    assert found is not None
    return found


def test_an_untouched_target_is_right(its: Project, target: Path) -> None:
    before = contents(target)
    assert verified(its).right
    assert verified(its, quick=True).right
    assert contents(target) == before


# In the target of `history`, event 8 is the Opened v3 at basket position 1 of stream cart-1, and
# stream cart-0 has events 1 to 6 but for the two of pair-0.
OTHER = "(SELECT stream_id FROM streams WHERE name = 'cart-2')"
MUTATIONS: dict[str, tuple[list[str], str, bool]] = {
    # name: statements, the field or kind that must be named, whether hashes find it
    "drop": (["DELETE FROM events WHERE global_position = {at}"], "missing", True),
    "drop the last": (
        ["DELETE FROM events WHERE global_position = (SELECT max(global_position) FROM events)"],
        "missing",
        True,
    ),
    "data": (['UPDATE events SET data = \'{{"title":"b"}}\' {where}'], "data", True),
    "a digit": (["UPDATE events SET data = replace(data, '1', '1.0') {where}"], "data", True),
    "no JSON": (["UPDATE events SET data = '{{' {where}"], "data", True),
    "metadata": (["UPDATE events SET metadata = '{{}}' {where}"], "metadata", True),
    "metadata gone": (["UPDATE events SET metadata = NULL {where}"], "metadata", True),
    "time": (["UPDATE events SET recorded_at = recorded_at + 1 {where}"], "recorded_at", True),
    "type": (["UPDATE events SET type = 'Opend' {where}"], "type", True),
    "version": (["UPDATE events SET schema_version = 2 {where}"], "schema_version", True),
    "id": (["UPDATE events SET event_id = 'x' {where}"], "missing", True),
    "origin position": (["UPDATE events SET origin_position = 99 {where}"], "origins", True),
    "origin ordinal": (["UPDATE events SET origin_ordinal = 1 {where}"], "origins", True),
    "origin as if merged": (["UPDATE events SET origin_ordinal = NULL {where}"], "origins", True),
    "no origin": (["UPDATE events SET origin_position = NULL {where}"], "origins", True),
    "to another stream": (
        [f"UPDATE events SET stream_id = {OTHER}, stream_position = 99 {{where}}"],
        "stream",
        True,
    ),
    "to the end of another stream": (
        [
            f"UPDATE events SET stream_id = {OTHER}, stream_position = "
            f"(SELECT max(stream_position) + 1 FROM events WHERE stream_id = {OTHER}) {{where}}"
        ],
        "stream",
        True,
    ),
    "a hole": (["UPDATE events SET stream_position = 99 {where}"], "hole", True),
    "extra at the end of a stream": (
        [
            "INSERT INTO events SELECT max(global_position) + 1, stream_id, "
            "max(stream_position) + 1, 'extra', type, schema_version, data, metadata, "
            "recorded_at, origin_stream, origin_position, origin_ordinal FROM events "
            f"WHERE stream_id = {OTHER}"
        ],
        "unexpected",
        True,
    ),
    "duplicate under a new id": (
        [
            "INSERT INTO events SELECT (SELECT max(global_position) + 1 FROM events), stream_id, "
            "99, 'again', type, schema_version, data, metadata, recorded_at, origin_stream, "
            "origin_position, origin_ordinal FROM events {where}"
        ],
        "unexpected",
        True,
    ),
    "duplicate under its id": (
        [
            BY_ID,
            "UPDATE events SET event_id = (SELECT event_id FROM events WHERE global_position = "
            "{at} + 1) {where}",
        ],
        "unexpected",
        True,
    ),
    "swap two positions of a stream": (
        [
            BY_STREAM,
            "UPDATE events SET stream_position = CASE stream_position WHEN 1 THEN 2 ELSE 1 END "
            "WHERE stream_position IN (1, 2) "
            "AND stream_id = (SELECT stream_id FROM events {where})",
        ],
        "moved",
        True,
    ),
    "swap the places of two streams in the global order": (
        [
            "UPDATE events SET global_position = -1 WHERE global_position = {one}",
            "UPDATE events SET global_position = {one} WHERE global_position = {one} + 1",
            "UPDATE events SET global_position = {one} + 1 WHERE global_position = -1",
        ],
        "moved",
        False,
    ),
    "one event of a merge forgotten": (
        ["DELETE FROM origins WHERE number = 1 AND global_position = {merged}"],
        "origins",
        True,
    ),
    "spaces in an untouched event": (
        ["UPDATE events SET data = data || ' ' WHERE global_position = {untouched}"],
        "data",
        True,
    ),
    "a whole stream": (
        [
            f"DELETE FROM events WHERE stream_id = {OTHER}",
            f"DELETE FROM streams WHERE stream_id = {OTHER}",
        ],
        "missing",
        True,
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_it_finds_every_mutation_and_says_where(its: Project, target: Path, name: str) -> None:
    statements, named, by_hashes = MUTATIONS[name]
    events = read(target)
    victim = next(e for e in events if e.type == "Opened" and e.stream == "cart-1")
    beside = next(
        a
        for a, b in itertools.pairwise(events)
        if a.stream != b.stream and "Whole" not in (a.type, b.type)
    )
    numbers = {
        "at": victim.global_position,
        "where": f"WHERE global_position = {victim.global_position}",
        "one": beside.global_position,
        "merged": next(e.global_position for e in events if e.type == "Whole"),
        "untouched": next(e.global_position for e in events if e.type == "Untouched"),
    }
    sql(target, *(s.format(**numbers) for s in statements))

    found = verified(its)
    assert not found.right
    hits = [m for m in found.shown if named in (m.kind, m.field)]
    assert hits, found.shown
    assert all(m.stream for m in hits)
    assert all(m.stream_position is not None for m in hits)
    streams = {victim.stream, "cart-2", "pair-0", events[-1].stream, "cart-0"}
    assert hits[0].stream in streams
    assert all(str(m).startswith(f"{m.stream} at {m.stream_position}: ") for m in hits)
    assert by_hashes is not verified(its, quick=True).right
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chaining, "STREAMS_KEPT", 0)  # stream by stream, not along with the rest
        apart = verified(its)
    assert any(named in (m.kind, m.field) for m in apart.shown)
    by_comparison = [m for m in found.shown if m.kind not in ("hash", "moved")]
    assert [m for m in apart.shown if m.kind not in ("hash", "moved")] == by_comparison
    assert ("hash" in {m.kind for m in apart.shown}) is ("hash" in {m.kind for m in found.shown})


@pytest.mark.parametrize("name", ["data", "drop", "swap two positions of a stream"])
def test_what_a_verification_finds_it_does_not_forget(
    its: Project, target: Path, name: str
) -> None:
    """Hashes are recorded only where all was right: the next verification finds it again."""
    victim = next(e for e in read(target) if e.type == "Opened" and e.stream == "cart-1")
    numbers = {"at": victim.global_position, "where": f"WHERE event_id = '{victim.id}'"}
    sql(target, *(s.format(**numbers) for s in MUTATIONS[name][0]))
    first = verified(its)
    assert verified(its).shown == first.shown
    assert not verified(its, quick=True).right


@pytest.mark.parametrize("kept", [0, 100_000])
def test_what_changes_on_both_sides_is_found_by_its_hash(
    its: Project, target: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing derived anew can show it: both sides are equal."""
    monkeypatch.setattr(chaining, "STREAMS_KEPT", kept)
    victim = next(e for e in read(target) if e.type == "Untouched")
    for store in (its.config.folder / "source.db", target):
        sql(store, f"UPDATE events SET data = '[]' WHERE event_id = '{victim.id}'")
    for _ in range(2):  # and it is not recorded as right
        found = verified(its)
        assert {m.kind for m in found.shown} == {"hash"}
        assert {m.stream for m in found.shown} == {victim.stream}


def test_hashes_of_the_first_form_are_compared_and_then_replaced(
    its: Project, target: Path
) -> None:
    made: dict[str, bytes] = {}
    for one in read(target):
        made[one.stream] = first_form(made.get(one.stream, b""), one)
    update = "UPDATE eventmig_stream_hashes SET hash = ? WHERE stream = ?"
    sql(target, *((update, (value, stream)) for stream, value in made.items()))
    change = "UPDATE events SET recorded_at = recorded_at {} 1 WHERE global_position = 1"
    sql(target, change.format("+"))
    assert not verified(its, quick=True).right
    assert "hash" in {m.kind for m in verified(its).shown}
    sql(target, change.format("-"))
    fill(its.config.folder / "source.db", [event("cart-1", "Opened", {"name": "late"})])
    assert commands.upcast(its).ready
    sizes = "SELECT DISTINCT length(hash) FROM eventmig_stream_hashes"
    connection = sqlite3.connect(target)
    assert connection.execute(sizes).fetchall() == [(33,)]
    connection.close()
    sql(target, change.format("+"))
    assert not verified(its, quick=True).right


def test_the_place_and_the_field_are_named(its: Project, target: Path) -> None:
    victim = next(e for e in read(target) if e.type == "Opened" and e.stream == "cart-1")
    sql(target, f"UPDATE events SET metadata = '{{}}' WHERE event_id = '{victim.id}'")
    wanted = Mismatch(
        kind="differs",
        stream=victim.stream,
        stream_position=victim.stream_position,
        global_position=victim.global_position,
        field="metadata",
        expected='{"who": "ada"}',
        found="{}",
    )
    found = verified(its)
    assert found.shown[0] == wanted
    assert {m.kind for m in found.shown[1:]} == {"hash"}


def test_a_missing_event_is_placed_where_it_stood(its: Project, target: Path) -> None:
    for victim in read(target):
        before = target.read_bytes()
        sql(target, "PRAGMA wal_checkpoint(TRUNCATE)")
        before = target.read_bytes()
        if victim.global_position % 4 == 1:
            sql(target, f"DELETE FROM events WHERE event_id = '{victim.id}'")
            (missing,) = [m for m in verified(its).shown if m.kind == "missing"]
            assert (missing.stream, missing.stream_position) == (
                victim.stream,
                victim.stream_position,
            )
            for beside in (f"{target}-wal", f"{target}-shm"):
                Path(beside).unlink(missing_ok=True)
            target.write_bytes(before)


def test_events_lost_by_the_source_are_found(its: Project) -> None:
    """Also those that a step drops, and of which the target therefore shows nothing."""
    sql(its.config.folder / "source.db", "DELETE FROM events WHERE type = 'Noise'")
    found = verified(its)
    assert {m.kind for m in found.shown} == {"count"}


def test_a_ledger_that_lost_batches_is_found(its: Project, target: Path) -> None:
    sql(target, "DELETE FROM eventmig_batches WHERE number = 1")
    assert {m.kind for m in verified(its).shown} >= {"count"}


def test_after_catching_up_the_whole_is_verified(its: Project, target: Path) -> None:
    more = [event("cart-1", "Opened", {"name": "late"}), event("new-1", "Opened", {"name": "n"})]
    fill(its.config.folder / "source.db", more)
    report = commands.upcast(its)
    assert report.verification is not None
    assert report.verification.target_events == report.job.tally.written
    assert verified(its).right
    assert verified(its, quick=True).right

    for at in (1, max(e.global_position for e in read(target))):
        sql(target, f"UPDATE events SET recorded_at = recorded_at + 1 WHERE global_position = {at}")
        assert not verified(its).right
        assert not verified(its, quick=True).right
        sql(target, f"UPDATE events SET recorded_at = recorded_at - 1 WHERE global_position = {at}")
    assert verified(its).right


def test_a_mutation_between_two_runs_is_found_by_the_second(its: Project, target: Path) -> None:
    sql(target, "UPDATE events SET data = '{}' WHERE global_position = 2")
    fill(its.config.folder / "source.db", [event("new-1", "Opened", {"name": "n"})])
    with pytest.raises(VerifyError, match=r"data is \{\}"):
        commands.upcast(its)
    assert commands.status(its).job.state is State.FAILED
    assert commands.cancel(its) > 0
    assert commands.upcast(its).ready


def test_an_upcaster_that_lies_about_being_pure_is_found(tmp_path: Path) -> None:
    """Beyond the first events of each type, which are upcast twice, it is the verifier's."""
    phases: set[Phase] = set()

    @data_upcaster("Free", 1)
    def restless(data: dict[str, int]) -> dict[str, int]:
        return {"late": Phase.VERIFYING in phases}

    fill(tmp_path / "source.db", [event("s-1", "Free", {}) for _ in range(9)])
    with pytest.raises(VerifyError, match=r's-1 at 9: data is \{"late":false\}, must be'):
        commands.upcast(
            project(tmp_path, Registry([restless]), batch_size=3),
            on_progress=lambda progress: phases.add(progress.phase),
        )


def test_it_verifies_the_release_that_was_copied(its: Project) -> None:
    other = project(its.config.folder, Registry(steps()), release="3")
    with pytest.raises(JobError, match="of release 2, not of 3"):
        commands.verify(other)


def test_all_mismatches_are_counted_and_the_first_shown(its: Project, target: Path) -> None:
    sql(target, "UPDATE events SET recorded_at = 1")
    found = verified(its)
    assert found.mismatches > len(found.shown) == 20


def test_hashes_are_written_by_the_holder_alone(its: Project, target: Path) -> None:
    store = open_store(url(target), mode="write")
    with store.lock(), pytest.raises(JobError, match="another job works"):
        commands.verify(its)
    store.close()
