"""The rules of examples/gharchive one by one, on small records written here."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmig import codec
from eventmig.errors import UpcastError
from eventmig.events import Event
from examples.gharchive import __main__ as program
from examples.gharchive.compare import compare
from examples.gharchive.conversions import github_time, hash_email, json_text
from examples.gharchive.history import (
    BadLineError,
    events,
    recorded_at,
    records,
    stream_of,
    version_of,
)
from examples.gharchive.models import TIMELINE_RECORD, TYPE, UNIFIED, GithubEvent
from examples.gharchive.upcasters import UNIFIED_ORDER, registry

NO_EMAIL = hashlib.sha1(b"").hexdigest()

RECORD: dict[str, Any] = {
    "created_at": "2012-03-10T22:00:00-08:00",
    "payload": {"action": "started"},
    "public": True,
    "type": "WatchEvent",
    "url": "https://github.com/owner/name",
    "actor": "someone",
    "actor_attributes": {
        "type": "User",
        "login": "someone",
        "gravatar_id": "0123",
        "email": "a@example.org",
    },
    "repository": {
        "fork": False,
        "id": 7,
        "name": "name",
        "owner": "owner",
        "organization": "orga",
        "url": "https://github.com/owner/name",
    },
}


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def event(data: bytes, version: int = 1) -> Event:
    return Event(1, "repository-7", 1, "an-id", TYPE, version, data, None, 0)


def unified(record: dict[str, Any] | bytes) -> dict[str, Any]:
    """The record after the whole chain, by both readings, which must agree."""
    raw = record if isinstance(record, bytes) else json.dumps(record, ensure_ascii=False).encode()
    before = event(raw, version_of(codec.decode(raw)))
    (compiled,), (walked,) = registry.chains.upcast(before), registry.chains.walk(before)
    assert compiled.data == walked.data
    assert compiled.version == (TYPE, UNIFIED)
    result: dict[str, Any] = json.loads(compiled.data)
    return result


def changed(**members: Any) -> dict[str, Any]:
    """`unified` of the record with these members; `...` takes one out."""
    record = {k: v for k, v in (RECORD | members).items() if v is not ...}
    return unified(record)


def test_a_timeline_record_becomes_a_unified_one() -> None:
    assert list(changed().items()) == [
        ("payload", '{"action":"started"}'),
        ("public", True),
        ("repo", {"id": 7, "url": "https://github.com/owner/name", "name": "name"}),
        ("actor", {"login": "someone", "gravatar_id": "0123"}),
        ("created_at", "2012-03-11 06:00:00"),
        ("org", {"login": "orga"}),
        ("type", "WatchEvent"),
        (
            "other",
            '{"repository":{"fork":false,"owner":"owner","organization":"orga"},'
            f'"actor_attributes":{{"type":"User","email":"{sha1("a")}@example.org"}},'
            '"url":"https://github.com/owner/name"}',
        ),
    ]


def test_a_record_of_the_old_events_api_has_its_objects_already() -> None:
    user = {"gravatar_id": "0123", "id": 5, "url": "u", "avatar_url": "a", "login": "someone"}
    record = {
        "repo": {"id": 7, "url": "r", "name": "owner/name"},
        "type": "WatchEvent",
        "org": {**user, "id": 6, "login": "orga"},
        "public": True,
        "created_at": "2011-02-15T00:00:06Z",
        "payload": {},
        "actor": user,
        "id": "1132219608",
    }
    result = unified(record)
    assert tuple(result) == tuple(key for key in UNIFIED_ORDER if key != "other")
    assert list(result["actor"].items()) == [
        ("id", 5),
        ("login", "someone"),
        ("gravatar_id", "0123"),
        ("avatar_url", "a"),
        ("url", "u"),
    ]
    assert result["org"]["login"] == "orga"
    assert result["id"] == "1132219608"


def test_the_result_is_the_strict_model() -> None:
    raw = json.dumps(RECORD).encode()
    loaded = registry.load(event(raw))
    assert isinstance(loaded, GithubEvent)
    assert loaded.type == "WatchEvent"
    with pytest.raises(UpcastError, match="bool"):
        unified({**RECORD, "public": "yes"})


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ID = st.none() | st.integers() | TEXT


def objects(ids: Any = ID, **members: Any) -> Any:
    known = st.fixed_dictionaries({}, optional={"id": ids, **members})
    return st.builds(
        lambda more, described: more | described, st.dictionaries(TEXT, ANYTHING), known
    )


NULL_OR_TEXT = st.none() | TEXT
USERS = objects(login=NULL_OR_TEXT, gravatar_id=NULL_OR_TEXT, url=NULL_OR_TEXT, email=ANYTHING)
REPOSITORIES = objects(url=NULL_OR_TEXT, name=NULL_OR_TEXT, organization=NULL_OR_TEXT)
PAYLOADS = ANYTHING | objects(
    shas=st.lists(ANYTHING | st.lists(ANYTHING, max_size=3), max_size=3),
    commits=st.lists(ANYTHING | objects(author=ANYTHING | objects(email=ANYTHING)), max_size=3),
)
TIMES = st.datetimes().map(lambda time: time.replace(year=2012).isoformat()) | st.none()
RECORDS = objects(
    type=NULL_OR_TEXT,
    public=st.none() | st.booleans(),
    created_at=TIMES,
    payload=PAYLOADS,
    url=NULL_OR_TEXT,
    actor=NULL_OR_TEXT | USERS,
    actor_attributes=st.none() | USERS,
    org=NULL_OR_TEXT | USERS,
    repo=NULL_OR_TEXT | REPOSITORIES,
    repository=NULL_OR_TEXT | REPOSITORIES,
)


@given(RECORDS)
def test_any_timeline_record_becomes_a_unified_one(record: Any) -> None:
    TIMELINE_RECORD.validate(codec.encode_checked(record))
    result = unified(record)
    assert result.keys() <= set(UNIFIED_ORDER)
    json.loads(result["payload"])


# e-mail addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "hashed"),
    [
        ("a@b", sha1("a") + "@b"),
        (" a@b \n", sha1("a") + "@b"),
        ("a@b@c", sha1("a") + "@b"),
        ("a@@b", sha1("a") + "@"),
        ("aa@", sha1("aa") + "@"),
        ("@@@", NO_EMAIL + "@"),
        ("", NO_EMAIL),
        (" ", sha1(" ")),
        ("a@", sha1("a@")),
        ("somebody via github.com", sha1("somebody via github.com")),
        ("ä@x", sha1("ä") + "@x"),
        (sha1("a") + "@b", sha1("a") + "@b"),
        (5, sha1("5")),
    ],
)
def test_an_address_is_hashed(address: Any, hashed: str) -> None:
    assert hash_email(address) == hashed


def test_the_addresses_of_listed_commits_are_hashed_and_missing_ones_added() -> None:
    shas = [["s", "a@b", "m"], ["s"], [], None, "s", ["s", None], ["s", NO_EMAIL]]
    payload = changed(payload={"shas": shas, "commits": [{"author": {"email": "a@b"}}]})["payload"]
    assert json.loads(payload) == {
        "shas": [
            ["s", f"{sha1('a')}@b", "m"],
            ["s", NO_EMAIL],
            [None, NO_EMAIL],
            None,
            "s",
            ["s", NO_EMAIL],
            ["s", sha1(NO_EMAIL)],
        ],
        "commits": [{"author": {"email": "a@b"}}],
    }


def test_the_addresses_of_commit_objects_are_hashed_where_there_are_no_shas() -> None:
    authors = [{"email": "a@b", "name": "n"}, {"name": "n"}, {"email": None}, None]
    commits = [*({"author": author} for author in authors), {}, None]
    payload = changed(payload={"commits": commits})["payload"]
    assert json.loads(payload)["commits"] == [
        {"author": {"email": f"{sha1('a')}@b", "name": "n"}},
        {"author": {"name": "n", "email": NO_EMAIL}},
        {"author": {"email": NO_EMAIL}},
        {"author": None},
        {},
        None,
    ]


@pytest.mark.parametrize("payload", [{"shas": None}, {"shas": 3}, {"commits": 3}, [], "text", 5])
def test_a_payload_of_another_shape_is_left_as_it_is(payload: Any) -> None:
    assert json.loads(changed(payload=payload)["payload"]) == payload


# who and where -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "repo"),
    [
        ({"repository": ...}, None),
        ({"repository": ..., "repo": "o/n"}, {"name": "o/n"}),
        ({"repository": None, "repo": {"id": 1, "name": "n"}}, {"id": 1, "name": "n"}),
        ({"repository": {"id": 1, "url": None}, "repo": {"id": 2}}, {"id": 1}),
        ({"repository": {}, "repo": {"id": 2}}, None),
        ({"repository": "o/n"}, {"name": "o/n"}),
        ({"repository": ""}, None),
        ({"repository": 5}, None),
        ({"repository": {"repo": {"id": 3}, "id": 1}}, {"id": 1}),
    ],
)
def test_the_repository(members: dict[str, Any], repo: Any) -> None:
    assert changed(**members).get("repo") == repo


@pytest.mark.parametrize(
    ("members", "actor"),
    [
        ({"actor_attributes": ..., "actor": ...}, None),
        ({"actor_attributes": ..., "actor": None}, None),
        ({"actor_attributes": ...}, {"login": "someone"}),
        ({"actor_attributes": None, "actor": ""}, {"login": ""}),
        ({"actor_attributes": "?"}, {"login": "someone"}),
        ({"actor_attributes": ..., "actor": {"login": "x", "id": None}}, {"login": "x"}),
        ({"actor_attributes": {}}, None),
        ({"actor_attributes": {"login": "x", "id": 1}}, {"id": 1, "login": "x"}),
    ],
)
def test_the_actor(members: dict[str, Any], actor: Any) -> None:
    assert changed(**members).get("actor") == actor


@pytest.mark.parametrize(
    ("members", "org"),
    [
        ({"repository": {"id": 1}}, None),
        ({"repository": {"id": 1, "organization": ""}}, {"login": ""}),
        ({"repository": {"id": 1, "organization": None}}, {"login": None}),
        ({"repository": {"organization": "o"}, "org": {"login": "p"}}, {"login": "o"}),
        ({"repository": ..., "org": {"login": "p", "x": 1}}, {"login": "p"}),
        ({"repository": ..., "org": "p"}, {"login": "p"}),
        ({"repository": ..., "org": {}}, None),
    ],
)
def test_the_organization(members: dict[str, Any], org: Any) -> None:
    assert changed(**members).get("org") == org


def test_what_has_no_member_of_its_own_is_kept_in_other_in_order() -> None:
    result = unified(
        {
            "url": None,
            "org": {"login": "o", "extra": 1},
            "actor": {"login": "a", "kind": "b"},
            "repo": {"id": 1, "stars": 2, "pushed": None},
        }
    )
    assert result["other"] == (
        '{"repo":{"stars":2,"pushed":null},"actor":{"kind":"b"},"org":{"extra":1},"url":null}'
    )


def test_without_anything_left_there_is_no_other_and_unknown_members_go() -> None:
    result = unified({"payload": {}, "public": False, "other": {"mine": 1}, "unknown": [1]})
    assert result == {"payload": "{}", "public": False}


def test_missing_and_empty_members() -> None:
    assert unified({}) == {"payload": "null", "public": None}
    empty = {"payload": None, "public": None, "id": "", "type": [], "created_at": None}
    assert unified(empty) == {"payload": "null", "public": None}
    assert changed(id=5)["id"] == 5


def test_a_record_that_is_unified_already_is_not_touched() -> None:
    raw = json.dumps(changed(), indent=1).encode()
    assert version_of(json.loads(raw)) == UNIFIED
    (draft,) = registry.chains.upcast(event(raw, UNIFIED))
    assert draft.data is raw


# values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "utc"),
    [
        ("2012-03-10T22:00:00-08:00", "2012-03-11 06:00:00"),
        ("2012/03/10 22:00:00 -0800", "2012-03-11 06:00:00"),
        ("2012-03-10T22:00:00.999+05:30", "2012-03-10 16:30:00"),
        ("2012-03-10T22:00:00Z", "2012-03-10 22:00:00"),
        ("2012-03-10 22:00:00 UTC", "2012-03-10 22:00:00"),
        ("2012-03-10 22:00:00", "2012-03-10 22:00:00"),
        ("2012-3-1 2:05", "2012-03-01 02:05:00"),
        ("2012-03-10", "2012-03-10 00:00:00"),
        ("2012-06-30T23:59:60Z", "2012-07-01 00:00:00"),
        (1331445600, "2012-03-11 06:00:00"),
    ],
)
def test_a_time_becomes_utc(time: Any, utc: str) -> None:
    assert github_time(time) == utc
    assert changed(created_at=time)["created_at"] == utc


@pytest.mark.parametrize("time", ["yesterday", True, "2012-13-01", 1e30])
def test_what_is_no_time_stops_the_event_and_names_the_step(time: Any) -> None:
    with pytest.raises(UpcastError) as caught:
        changed(created_at=time)
    assert caught.value.where.step == f"{TYPE} v5 → v6"
    assert caught.value.where.path == "created_at"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r'"\u2028\u00e9\u007f</"', '"\u2028é\x7f</"'),
        (r'"\u001b\u0000\b\f\n\r\t\"\\"', r'"\u001B\u0000\b\f\n\r\t\"\\"'),
        ("1e20", "1.0e+20"),
        ("1.0e-05", "1.0e-05"),
        ("1e-7", "1.0e-07"),
        ("1.5e300", "1.5e+300"),
        ("123456.789", "123456.789"),
        ("1.10", "1.1"),
        ("-0.0", "-0.0"),
        ("-0", "0"),
        ("1e400", "1E+400"),
        ("0.12345678901234567890123", "0.12345678901234567890123"),
        ("123456789012345678901", "123456789012345678901"),
        ('{"b": [1, null, true, false], "a": {}}', '{"b":[1,null,true,false],"a":{}}'),
    ],
)
def test_json_text_is_spelled_as_the_archive_spells_it(written: str, text: str) -> None:
    assert json_text(codec.decode(written.encode())) == text
    assert unified(b'{"payload":' + written.encode() + b"}")["payload"] == text


# streams and ids -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "stream"),
    [
        ({"repository": {"id": 7, "name": "n", "owner": "o"}}, "repository-7"),
        ({"repo": {"id": 7, "name": "o/n"}}, "repository-7"),
        ({"repository": {"name": "n", "owner": "o"}}, "repository-o/n"),
        ({"repo": {"name": "o/n"}}, "repository-o/n"),
        ({"repo": {"name": "/"}, "payload": {"repo": "o/n"}}, "repository-o/n"),
        ({"type": "GistEvent", "payload": {"id": 9}, "actor": "a"}, "gist-9"),
        ({"type": "GistEvent", "payload": {"gist": {"id": "9"}}}, "gist-9"),
        ({"type": "GistEvent", "url": "https://gist.github.com/someone/9af"}, "gist-9af"),
        ({"type": "FollowEvent", "payload": {"target": {"login": "u"}}}, "user-u"),
        ({"actor": "a"}, "actor-a"),
        ({"actor": {"login": "a"}, "repo": {"name": "/"}}, "actor-a"),
        ({"actor_attributes": {"login": "b"}, "actor": "a"}, "actor-b"),
        ({"actor": None}, "unknown"),
    ],
)
def test_the_stream_of_a_record(record: Any, stream: str) -> None:
    assert stream_of(record) == stream


def test_events_carry_the_line_as_it_stands_and_an_id_of_their_own() -> None:
    lines = [b'{"id":"5", "x":1.10}', b'{"id":5}', b'{"actor":"a"}', b'{"actor":"a"}']
    made = list(events(records(lines, file="a")))
    assert [line.split(b'"data":')[1][:-1] for line in made] == lines
    first = json.loads(made[0])
    assert first["id"] == "5"
    assert first["metadata"] == {"line": 1}
    assert len({json.loads(line)["id"] for line in made}) == 4
    assert made == list(events(records(lines, file="b")))


def test_a_record_without_a_time_has_that_of_the_one_before() -> None:
    lines = [b"{}", json.dumps(RECORD).encode(), b'{"created_at":"yesterday"}']
    times = [json.loads(line)["recorded_at"] for line in events(records(lines, file="a"))]
    assert times == ["1970-01-01T00:00:00Z", "2012-03-11T06:00:00Z", "2012-03-11T06:00:00Z"]
    assert recorded_at({"created_at": "yesterday"}) is None


@pytest.mark.parametrize(
    ("line", "why"), [(b"{", "not JSON"), (b"[1]", "array"), (b"", "not JSON"), (b'"\xff"', "UTF")]
)
def test_a_bad_line_is_named(line: bytes, why: str) -> None:
    with pytest.raises(BadLineError, match=rf"hour\.gz, line 2: .*{why}"):
        list(records([b"{}", line], file="hour.gz"))


# the comparison ------------------------------------------------------------------------------


def test_a_comparison_counts_and_shows_the_place() -> None:
    wanted = [
        b'{"payload":"{\\"a\\":[1,2]}","public":true}',
        b'{"payload":"{}"}',
        b'{"payload":"{\\"a\\":1}"}',
        b'{"id":1}',
        b'{"id":1}',
    ]
    got = {
        1: [b'{"payload":"{\\"a\\":[1,3]}","public":1}'],
        2: [b'{"payload" : "{}"}'],
        3: [b'{"payload":"{\\"a\\": 1}"}'],
        4: [b'{"id":1}'],
    }
    result = compare(got, records(wanted, file="unified"))
    assert (result.events, result.matched, result.mismatched, result.identical) == (5, 2, 3, 1)
    assert [(d.line, d.path, d.got, d.want) for d in result.differences] == [
        (1, "payload.(text).a[1]", "3", "2"),
        (1, "public", "1", "true"),
        (3, "payload", '{"a": 1}', '{"a":1}'),
        (5, "(the whole record)", "0 events", "1 event"),
    ]


# the program ---------------------------------------------------------------------------------


def _write(path: Path, *lines: bytes) -> str:
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    return str(path)


def test_the_program_refuses_files_that_are_no_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = _write(tmp_path / "one.gz", b"{}"), _write(tmp_path / "two.gz", b"{}", b"{")
    assert program.main([one, two]) == 2
    assert "one.gz has 1 lines and two.gz has 2" in capsys.readouterr().err
    assert program.main([two, two]) == 2
    assert "two.gz, line 2: not JSON" in capsys.readouterr().err
    assert program.main([str(tmp_path / "none"), two]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "cut.gz").write_bytes(Path(one).read_bytes()[:-9])
    assert program.main([str(tmp_path / "cut.gz"), one]) == 2
    assert program.main([one, one, "--work", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err


def test_the_program_says_which_command_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = _write(tmp_path / "raw.gz", b'{"created_at":"yesterday"}')
    wanted = _write(tmp_path / "unified.gz", b'{"payload":"null","public":null}')
    assert program.main([raw, wanted, "--json"]) not in (0, 1)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "yesterday" in shown.err
    assert "v5 → v6" in shown.err
