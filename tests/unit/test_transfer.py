"""Histories in and out as JSON Lines: exact, all or nothing, bad lines by number."""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventmig.errors import DataError, ImportLineError, StoreError
from eventmig.events import Event, NewEvent, Origin
from eventmig.mapping import BadRecordError, Mapping, parse_time
from eventmig.stores.base import all_events
from eventmig.stores.open import open_store
from eventmig.stores.sqlite.store import SqliteStore
from eventmig.transfer import ImportResult, export_jsonl, import_jsonl
from tests.conformance.values import moments, texts, utf8


def line(**changed: object) -> bytes:
    record = {
        "stream": "cart-1",
        "stream_position": 1,
        "id": "a",
        "type": "Opened",
        "schema_version": 1,
        "data": {},
        "recorded_at": "2024-01-01T00:00:00Z",
    } | changed
    return json.dumps({k: v for k, v in record.items() if v is not ...}).encode()


def new_store(tmp_path: Path, name: str = "new.db") -> SqliteStore:
    return open_store(f"sqlite:///{tmp_path}/{name}", mode="create")


def imported(
    tmp_path: Path, content: bytes, mapping: Mapping | None = None, name: str = "new.db"
) -> list[Event]:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    with new_store(tmp_path, name) as store:
        import_jsonl(str(path), store, mapping)
        return list(all_events(store.read_all()))


def refusal(tmp_path: Path, content: bytes, mapping: Mapping | None = None) -> ImportLineError:
    """The error of an import that must fail, having left nothing behind."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    with pytest.raises(ImportLineError) as error:
        import_jsonl(str(path), new_store(tmp_path), mapping)
    assert list(tmp_path.iterdir()) == [path]
    assert error.value.remedy
    return error.value


# --- the way there and back


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            texts,
            texts,
            utf8,
            st.none() | utf8,
            moments,
            st.lists(st.tuples(texts, moments, st.integers(0, 9)), max_size=3),
        ),
        max_size=12,
    ),
    name=st.sampled_from(["out.jsonl", "out.jsonl.gz"]),
)
def test_import_of_an_export_is_the_same_history(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, bytes, bytes | None, int, list[tuple[str, int, int]]]],
    name: str,
) -> None:
    folder = tmp_path_factory.mktemp("x")
    heads: dict[str, int] = {}
    events = []
    for n, (stream, type_, data, metadata, moment, origins) in enumerate(rows):
        heads[stream] = heads.get(stream, 0) + 1
        lineage = tuple(Origin(*origin) for origin in origins)
        events.append(
            Event(
                n + 1,
                stream,
                heads[stream],
                f"id{n}",
                type_,
                n + 1,
                data,
                metadata,
                moment,
                lineage,
            )
        )
    with new_store(folder, "one.db") as one, new_store(folder, "two.db") as two:
        with one.begin() as transaction:
            transaction.append_copied(events)
        path = str(folder / name)
        assert export_jsonl(one, path) == len(events)
        result = import_jsonl(path, two)
        assert result == ImportResult(events=len(events), streams=len(heads))
        assert list(all_events(two.read_all())) == events
        again = str(folder / f"again-{name}")
        export_jsonl(two, again)
        assert Path(again).read_bytes() == Path(path).read_bytes()


def test_data_is_cut_from_the_line_as_it_stands(tmp_path: Path) -> None:
    data = b'{ "b": 1.10, "a":12345678901234567890, "a" : "\\u00e4", "c":1e400}'
    content = line(data=...)[:-1] + b', "data":  ' + data + b" }\r\n"
    assert imported(tmp_path, content)[0].data == data


def test_bytes_a_line_cannot_hold_are_exported_as_base64(tmp_path: Path) -> None:
    stored = [b'{"a":\n1}', b" {}", b"null", b"not json", b'"\\ud800"']
    with new_store(tmp_path) as store:
        news = [NewEvent("T", data, metadata=data) for data in stored]
        store.append("s", news, expected=None)
        export_jsonl(store, str(tmp_path / "out.jsonl"))
    records = [json.loads(text) for text in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert all("data_base64" in r and "metadata_base64" in r and "data" not in r for r in records)


def test_an_export_replaces_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "x.jsonl"
    out.parent.mkdir()
    out.write_text("before")
    with new_store(tmp_path) as store:
        store.append("s", [NewEvent("T", b"{}")], expected=None)
        monkeypatch.setattr("eventmig.export.export_line", lambda event: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_jsonl(store, str(out))
        assert out.read_text() == "before"
        assert list(out.parent.iterdir()) == [out]
        with pytest.raises(StoreError, match="cannot be written"):
            export_jsonl(store, str(tmp_path / "no" / "x.jsonl"))


def test_an_export_goes_where_a_link_leads_and_takes_no_place_of_what_is_no_file(
    tmp_path: Path,
) -> None:
    link, real, pipe = tmp_path / "link.jsonl", tmp_path / "real.jsonl", tmp_path / "pipe"
    link.symlink_to(real)
    os.mkfifo(pipe)
    with new_store(tmp_path) as store:
        store.append("s", [NewEvent("T", b"{}")], expected=None)
        assert export_jsonl(store, str(link)) == 1
        for other in (pipe, tmp_path):
            with pytest.raises(StoreError, match="not a file"):
                export_jsonl(store, str(other))
    assert link.is_symlink()
    assert real.read_bytes().count(b"\n") == 1
    assert pipe.is_fifo()


# --- foreign records


def test_a_mapping_names_the_parts_of_foreign_records(tmp_path: Path) -> None:
    content = b"""
{"incident_id": 7, "at": "2013/02/15 00:00:39 -0800", "payload": {"action": "opened", "v": 2}}
{"incident_id": 7, "at": "2013-02-15T08:00:40.123456789Z", "payload": {"action": "closed"}}
"""
    mapping = Mapping(
        stream="incident-{incident_id}",
        id=None,
        type="Incident.{payload.action}",
        schema_version="payload.v",
        data=None,
        metadata="payload",
        recorded_at="at",
        stream_position=None,
    )
    first, second = imported(tmp_path, content, mapping)
    assert first.stream == "incident-7"
    assert (first.type, first.schema_version) == ("Incident.opened", 2)
    assert (second.type, second.schema_version) == ("Incident.closed", 1)
    assert first.data == content.splitlines()[1]
    assert first.metadata == b'{"action": "opened", "v": 2}'
    assert first.recorded_time.isoformat() == "2013-02-15T08:00:39+00:00"
    assert second.recorded_at - first.recorded_at == 1_123_456
    assert (first.stream_position, second.stream_position) == (1, 2)


@pytest.mark.parametrize(
    ("unit", "value", "microseconds"),
    [
        ("s", "1700000000.5", 1_700_000_000_500_000),
        ("ms", "1700000000123", 1_700_000_000_123_000),
        ("us", "-1", -1),
    ],
)
def test_times_as_numbers(tmp_path: Path, unit: str, value: str, microseconds: int) -> None:
    content = line(recorded_at=...)[:-1] + f', "recorded_at": {value}}}'.encode()
    mapping = Mapping(time_unit=unit)  # type: ignore[arg-type]
    assert imported(tmp_path, content, mapping)[0].recorded_at == microseconds


@pytest.mark.parametrize("text", ["2024-01-01", "2024-13-01T00:00Z", "soon", "2024-01-01T00:00"])
def test_times_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BadRecordError, match="time"):
        parse_time(text)


def test_a_time_without_offset_may_be_declared_utc() -> None:
    assert parse_time("1970-01-02", assume_utc=True) == 86_400_000_000


def test_missing_ids_are_the_same_in_every_import(tmp_path: Path) -> None:
    content = b"".join(line(id=..., stream_position=..., data={"n": n}) + b"\n" for n in (1, 2, 2))
    first = imported(tmp_path, content, name="one.db")
    assert [e.id for e in first] == [e.id for e in imported(tmp_path, content, name="two.db")]
    assert len({e.id for e in first}) == 3
    with pytest.raises(ImportLineError, match=r"line 1 is in the store already"):
        imported(tmp_path, content, name="one.db")


def test_a_second_file_continues_the_streams(tmp_path: Path) -> None:
    imported(tmp_path, line())
    events = imported(tmp_path, line(id="b", stream_position=2) + b"\n" + line(id="c", stream="x"))
    assert [(e.stream, e.stream_position) for e in events] == [
        ("cart-1", 1),
        ("cart-1", 2),
        ("x", 1),
    ]


def test_standard_input_gz_blank_lines_and_a_byte_order_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\xef\xbb\xbf" + line() + b"\r\n\n  \n" + line(id="b", stream_position=2)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    seen: list[int] = []
    with new_store(tmp_path) as store:
        assert import_jsonl("-", store, progress=seen.append).events == 2
    assert seen == [2]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(content))
    with new_store(tmp_path, "two.db") as store:
        assert import_jsonl(str(tmp_path / "x.jsonl.gz"), store).events == 2


# --- bad lines


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a":"\xff"}', "wrong UTF-8 at byte 7"),
        (b'{"a":"\0"}', "a NUL at byte 7"),
        (b'{"a":"\\ud800"}', "lone surrogate"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (line(stream=...), "no such field: stream"),
        (line(stream={}), "stream is not text or a number"),
        (line(stream=""), "the stream is empty"),
        (line(type="a\0"), "the type is empty or holds a NUL"),
        (line(data=...), "no such field: data"),
        (line(data=..., data_base64="%"), "data_base64 is not base64"),
        (line(schema_version=0), "schema version 0 is below 1"),
        (line(schema_version=1.5), "schema_version is not an integer"),
        (line(stream_position="x"), "stream_position is not an integer"),
        (line(recorded_at="yesterday"), "the time 'yesterday' cannot be read"),
        (line(recorded_at=...), "no such field: recorded_at"),
        (line(recorded_at=1e300), "out of range"),
        (line(origins=[1]), "origins is not a list"),
        (line(id="b", stream_position=1), "has position 1 already"),
        (line(id="b", stream_position=3), "a hole in the stream 'cart-1': position 3 follows 1"),
        (line(stream="x", stream_position=0), "below 1, where this store begins"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, bad: bytes, reason: str) -> None:
    error = refusal(tmp_path, line() + b"\n\n" + bad + b"\n")
    assert "line 3: " in str(error)
    assert reason in str(error)
    assert error.where.line == 3


def test_bad_lines_are_collected(tmp_path: Path) -> None:
    error = refusal(tmp_path, line() + b"\n" + b"{\n" * 3)
    assert [f"line {n}" in str(error) for n in (2, 3, 4)] == [True] * 3
    error = refusal(tmp_path, b"{\n" * 100)
    assert "the first 20 lines" in str(error)
    assert "line 21" not in str(error)


def test_an_id_in_two_lines_names_both(tmp_path: Path) -> None:
    content = line() + b"\n" + line(id="b", stream="x") + b"\n\n" + line(stream="y")
    assert "stands in line 1 and in line 4" in str(refusal(tmp_path, content))


def test_an_id_in_two_lines_of_a_store_that_has_events(tmp_path: Path) -> None:
    imported(tmp_path, line(id="before", stream="before"))
    with pytest.raises(ImportLineError, match="stands in line 1 and in line 2"):
        imported(tmp_path, line() + b"\n" + line(stream="y"))
    with pytest.raises(ImportLineError, match="of line 1 is in the store already"):
        imported(tmp_path, line(id="before"))
    with new_store(tmp_path) as store:
        assert store.count() == 1


def test_a_bad_line_after_a_full_batch_leaves_nothing(tmp_path: Path) -> None:
    good = b"".join(line(id=f"{n}", stream_position=n) + b"\n" for n in range(1, 6_001))
    assert "line 6001" in str(refusal(tmp_path, good + b"{"))


def test_a_failed_import_into_new_tables_leaves_the_others(tmp_path: Path) -> None:
    imported(tmp_path, line())
    (tmp_path / "bad.jsonl").write_bytes(b"{")
    url = f"sqlite:///{tmp_path}/new.db"
    with pytest.raises(ImportLineError):
        import_jsonl(str(tmp_path / "bad.jsonl"), open_store(f"{url}?tables=t_", mode="create"))
    with pytest.raises(StoreError):
        open_store(f"{url}?tables=t_")
    with open_store(url) as store:
        assert store.count() == 1


def test_a_file_that_breaks_off_or_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(line() * 100)[:-20])
    with pytest.raises(ImportLineError, match="breaks"):
        import_jsonl(str(path), new_store(tmp_path))
    path.write_bytes(line())
    with pytest.raises(ImportLineError, match="breaks"):
        import_jsonl(str(path), new_store(tmp_path))
    with pytest.raises(DataError, match="cannot be read"):
        import_jsonl(str(tmp_path / "no.jsonl"), new_store(tmp_path))
    assert list(tmp_path.iterdir()) == [path]
