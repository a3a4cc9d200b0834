"""examples/gharchive on GitHub's real events: every record becomes what GH Archive made of it."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from eventmig.events import Event
from examples.gharchive import __main__ as program
from examples.gharchive.compare import compare
from examples.gharchive.history import events, records, stream_of, version_of
from examples.gharchive.models import TIMELINE_RECORD, TYPE, UNIFIED
from examples.gharchive.upcasters import registry

HOURS = ("2011-02-15-0", "2013-02-15-0")
NATIVE = (
    "2011-10-15.dual-form.first600",
    "2012-10-15.timeline-api",
    "2015-10-15.events-api",
)
Find = Callable[[str], Path]


def lines_of(path: Path) -> list[bytes]:
    return [line for line in gzip.decompress(path.read_bytes()).split(b"\n") if line]


def imported(lines: list[bytes]) -> list[Event]:
    """The lines as the stored events that they are before the job."""
    return [
        Event(n, stream_of(r.members), 1, str(n), TYPE, version_of(r.members), r.raw, None, 0)
        for n, r in enumerate(records(lines, file="raw"), 1)
    ]


@pytest.mark.parametrize("reading", ["upcast", "walk"])
@pytest.mark.parametrize("hour", HOURS)
def test_every_record_becomes_what_the_archive_made_of_it(
    real_history: Find, hour: str, reading: str
) -> None:
    pairs = real_history("gharchive") / "pairs"
    wanted = lines_of(pairs / f"{hour}.unified.jsonl.gz")
    read = getattr(registry.chains, reading)
    got: dict[int, list[bytes]] = {}
    for before in imported(lines_of(pairs / f"{hour}.raw.jsonl.gz")):
        drafts = read(before)
        assert [draft.version for draft in drafts] == [(TYPE, UNIFIED)]
        got[before.global_position] = [draft.data for draft in drafts]
    result = compare(got, records(wanted, file="unified"))
    assert result.differences == []
    assert (result.matched, result.identical) == (len(wanted), len(wanted))
    assert len(got) == len(wanted)


@pytest.mark.parametrize("hour", HOURS)
def test_a_unified_record_needs_no_step(real_history: Find, hour: str) -> None:
    lines = lines_of(real_history("gharchive") / "pairs" / f"{hour}.unified.jsonl.gz")
    for before in imported(lines):
        assert before.schema_version == UNIFIED
        (draft,) = registry.chains.upcast(before)
        assert draft.data is before.data
        registry.load(before)


@pytest.mark.parametrize("name", NATIVE)
def test_records_of_other_years_become_valid_unified_ones(real_history: Find, name: str) -> None:
    lines = lines_of(real_history("gharchive") / "native" / f"{name}.jsonl.gz")
    for before in imported(lines):
        TIMELINE_RECORD.validate(before.data)
        (compiled,), (walked,) = registry.chains.upcast(before), registry.chains.walk(before)
        assert compiled.data == walked.data
    ids = [json.loads(line)["id"] for line in events(records(lines, file=name))]
    assert len(set(ids)) == len(lines)


@pytest.mark.parametrize("hour", HOURS)
def test_nearly_every_event_is_in_the_stream_of_a_repository(real_history: Find, hour: str) -> None:
    lines = lines_of(real_history("gharchive") / "pairs" / f"{hour}.raw.jsonl.gz")
    streams = [before.stream for before in imported(lines)]
    of_repositories = sum(stream.startswith("repository-") for stream in streams)
    assert of_repositories / len(streams) > 0.9
    assert streams.count("unknown") / len(streams) < 0.01


def test_the_program_runs_the_whole_job(
    real_history: Find, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = real_history("gharchive") / "pairs"
    raw, unified = (pairs / f"{HOURS[0]}.{side}.jsonl.gz" for side in ("raw", "unified"))
    assert program.main([str(raw), str(unified), "--json", "--work", str(tmp_path / "work")]) == 0
    result = json.loads(capsys.readouterr().out)
    stored = imported(lines_of(raw))
    assert (result["events"], result["matched"], result["mismatched"]) == (1638, 1638, 0)
    assert result["differences"] == []
    streams = [event.stream for event in stored if event.stream.startswith("repository-")]
    by_repository = result["read_models"]["repository_activity"]
    assert by_repository["events"] == len(streams)
    assert by_repository["rows"] == len(set(streams))
    (stream, count), *_ = Counter(streams).most_common(1)
    assert by_repository["top"][0]["repository"] == stream.removeprefix("repository-")
    assert by_repository["top"][0]["events"] == count
    logins = [json.loads(event.data)["actor"].get("login") for event in stored]
    assert result["read_models"]["actor_activity"]["events"] == len([*filter(None, logins)])


def test_the_program_says_where_the_copy_is_not_what_it_should_be(
    real_history: Find, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pairs = real_history("gharchive") / "pairs"
    files = {side: tmp_path / f"{side}.jsonl" for side in ("raw", "unified")}
    for side, file in files.items():
        lines = lines_of(pairs / f"{HOURS[1]}.{side}.jsonl.gz")[:500]
        if side == "unified":
            lines[19] = lines[19].replace(b'"public":true', b'"public":false')
        file.write_bytes(b"\n".join(lines))
    assert program.main([str(files["raw"]), str(files["unified"])]) == 1
    shown = capsys.readouterr().out
    assert "mismatched         1" in shown
    assert ": public\n      got   true\n      want  false" in shown
