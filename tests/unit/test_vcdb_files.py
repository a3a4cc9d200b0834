"""Reading chains, and comparing with reality, on small files written by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from eventmig import codec
from eventmig.codec import Value
from eventmig.errors import ImportLineError
from examples.vcdb.compare import Difference, differences
from examples.vcdb.history import as_import_lines, read_chains, veris_version


def chain(incident: str = "A-1", created: str = "2015-01-02T03:04:05Z", **versions: object) -> str:
    entries = [
        {"schema_version": version, "data": data}
        for version, data in (versions or {"1.3": {}, "1.3.7": {}}).items()
    ]
    return json.dumps({"incident": incident, "created": created, "versions": entries})


def test_plain_and_gzipped_files_and_all_spellings_of_a_version(tmp_path: Path) -> None:
    lines = [
        chain("B-2", "2016-01-01T00:00:00Z", **{"1_3_2": {"a": 1}, "1.3.7": {"a": 2}}),
        "",
        chain("A-1", **{"1.3": {"n": 0}, "1.3.1": {}, "1.3.7": {}}),
    ]
    text = "\n".join(lines).encode()
    (tmp_path / "plain.jsonl").write_bytes(text)
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(text))
    chains = list(read_chains(tmp_path / "plain.jsonl"))
    assert chains == list(read_chains(tmp_path / "packed.jsonl.gz"))
    assert [(c.line, c.first, c.stream) for c in chains] == [
        (1, "1.3.2", "incident-B-2"),
        (3, "1.3.0", "incident-A-1"),
    ]
    events = [json.loads(line) for line in as_import_lines(chains)]
    assert [(e["stream"], e["schema_version"], e["data"]) for e in events] == [
        ("incident-A-1", 1, {"n": 0}),
        ("incident-B-2", 3, {"a": 1}),
    ]
    assert events == [json.loads(line) for line in as_import_lines(chains)], "ids are derived"


def test_an_incident_told_twice_is_two_events_of_one_stream(tmp_path: Path) -> None:
    file = tmp_path / "chains.jsonl"
    file.write_text(f"{chain()}\n{chain()}\n")
    events = [json.loads(line) for line in as_import_lines(read_chains(file))]
    assert [e["stream_position"] for e in events] == [1, 2]
    assert len({e["id"] for e in events}) == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "array"),
        ("{}", "`incident`"),
        ('{"incident": "A", "created": "x", "versions": []}', "versions"),
        ('{"incident": "A", "created": "x", "versions": [1]}', "versions[0]"),
        (chain(created=""), "`created`"),
        (chain(**{"1.2": {}, "1.3.7": {}}), "1.2"),
        (chain(**{"1.3.0": {}, "1.3.5": {}}), "ends at 1.3.5"),
        (chain(**{"1.3.7": {}, "1.3.0": {}}), "does not come after"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "chains.jsonl"
    file.write_text(f"{chain()}\n{line}\n")
    with pytest.raises(ImportLineError) as caught:
        list(read_chains(file))
    assert reason in caught.value.what
    assert caught.value.where.line == 2
    assert caught.value.where.file == str(file)
    assert caught.value.remedy


def test_a_file_cut_off_in_its_compression_is_said_so(tmp_path: Path) -> None:
    file = tmp_path / "chains.jsonl.gz"
    lines = "".join(f"{chain(f'A-{n}')}\n" for n in range(2000)).encode()
    file.write_bytes(gzip.compress(lines)[:-200])
    with pytest.raises(ImportLineError, match="compression"):
        list(read_chains(file))
    with pytest.raises(ImportLineError, match="cannot be read"):
        list(read_chains(tmp_path / "absent.jsonl"))


def test_versions_are_spelt_one_way() -> None:
    assert [veris_version(v) for v in ("1.3", "1_3", "1.3.0", "1_3_2", " 1.3.7 ")] == [
        "1.3.0",
        "1.3.0",
        "1.3.0",
        "1.3.2",
        "1.3.7",
    ]
    for other in ("1.2", "1.3.8", "2", "", None, "1.3.1.1"):
        with pytest.raises(ImportLineError):
            veris_version(other)


@pytest.mark.parametrize(
    ("upcast", "real", "found"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": True}, [Difference("a", 1, True)]),
        ({"a": 1}, {"a": 1.0}, [Difference("a", 1, 1.0)]),
        ({"a": None}, {}, [Difference("a", None, "<absent>")]),
        (
            {"a": ["x", "y"]},
            {"a": ["y", "x"]},
            [Difference("a[0]", "x", "y"), Difference("a[1]", "y", "x")],
        ),
        ({"a": ["x"]}, {"a": ["x", "x"]}, [Difference("a", ["x"], ["x", "x"])]),
        ({"asset": {"hosting": ["x", "y"]}}, {"asset": {"hosting": ["y", "x"]}}, []),
        (
            {"asset": {"cloud": ["x", "y"]}},
            {"asset": {"cloud": ["y", "z"]}},
            [Difference("asset.cloud[0]", "x", "y"), Difference("asset.cloud[1]", "y", "z")],
        ),
    ],
)
def test_differences_path_by_path(upcast: Value, real: Value, found: list[Difference]) -> None:
    shown = differences(upcast, real)
    assert [d.path for d in shown] == [d.path for d in found]
    for ours, theirs in zip(shown, found, strict=True):
        assert codec.canonical(ours.upcast) == codec.canonical(theirs.upcast)
        assert codec.canonical(ours.real) == codec.canonical(theirs.real)


def test_the_list_in_the_note_has_no_order_and_the_rest_of_it_has() -> None:
    def note(text: str) -> Value:
        told = f"before. Following enumerations present before veris 1.3.3 removed: {text}."
        return {"asset": {"notes": told}}

    assert not differences(note("a, b"), note("b, a"))
    assert differences(note("a, b"), note("a"))
    assert differences({"asset": {"notes": "a, b."}}, {"asset": {"notes": "b, a."}})
