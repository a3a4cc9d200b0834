"""Two spellings are compared as they stand first; what differs is found all the same.

The verifier takes equal bytes for equal, reads by a parser that rounds, and compares whole
columns: each case here is one that a shortcut like those could miss.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eventmig import Registry, commands, ops, upcaster
from eventmig.project import Project
from tests.acceptance.support import event, fill, project, read, sql

VALUES = (
    b'"n":1.10,"z":-0.0,"m":-0,"big":12345678901234567890,"yes":true,"one":1,"whole":2.0,'
    b'"far":1e400,"text":"\xc3\xa9","list":[1,2],"inner":{"a":1,"b":2}'
)
DATA = b'{"old":1,' + VALUES + b"}"

OTHER_VALUES = {
    "a digit less": ('"n":1.10', '"n":1.1'),
    "a digit more": ('"n":1.10', '"n":1.100'),
    "the sign of a zero": ('"z":-0.0', '"z":0.0'),
    "the sign of an integer zero": ('"m":-0,', '"m":0,'),
    "the last of many digits": ("67890", "67891"),
    "as a float": ("12345678901234567890", "12345678901234567000.0"),
    "true is not 1": ('"yes":true', '"yes":1'),
    "1 is not true": ('"one":1', '"one":true'),
    "1 is not 1.0": ('"one":1', '"one":1.0'),
    "2.0 is not 2": ('"whole":2.0', '"whole":2'),
    "a number that no float holds": ("1e400", "1e401"),
    "the order of a list": ("[1,2]", "[2,1]"),
    "another letter": ("é", "è"),
    "a member less": (',"b":2', ""),
    "a member more": ('"b":2', '"b":2,"c":null'),
    "a member twice": ('"n":1.10', '"n":1.10,"n":1.10'),
    "a member twice, in an object within": ('"b":2', '"b":2,"b":2'),
    "no JSON any more": ('"n":1.10', '"n":01.10'),
}
SAME_VALUES = {
    "spaces": ('"n":1.10', '"n": 1.10'),
    "the order of the members": ('"n":1.10,"z":-0.0', '"z":-0.0,"n":1.10'),
    "a letter as an escape": ("é", "\\u00e9"),
}


def _project(folder: Path) -> Project:
    return project(folder, Registry([upcaster("Changed", 1, ops.rename("old", "new"))]))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that is ready; its target has an event that changed, at 1, and one that did not."""
    folder = tmp_path_factory.mktemp("ready")
    fill(folder / "source.db", [event("s-1", type_, DATA) for type_ in ("Changed", "Same")])
    assert commands.upcast(_project(folder)).ready
    assert [e.data for e in read(folder / "target.db")] == [b'{"new":1,' + VALUES + b"}", DATA]
    return folder


@pytest.fixture
def its(ready: Path, tmp_path: Path) -> Project:
    shutil.copytree(ready, tmp_path / "here")
    return _project(tmp_path / "here")


def found_after(its: Project, column: str, change: tuple[str, str]) -> list[tuple[str, str, int]]:
    """What a verification finds once both events are respelled, where no hash gives it away."""
    target = its.config.folder / "target.db"
    before = read(target)
    respell = f"UPDATE events SET {column} = replace({column}, ?, ?)"
    sql(target, "DELETE FROM eventmig_stream_hashes", (respell, change))
    assert all(one != other for one, other in zip(before, read(target), strict=True))
    verified = commands.verify(its).verification
    assert verified is not None
    assert verified.mismatches == len(verified.shown)
    return [(m.kind, m.field, m.stream_position or 0) for m in verified.shown]


@pytest.mark.parametrize("change", [*OTHER_VALUES.values()], ids=[*OTHER_VALUES])
def test_another_value_is_found(its: Project, change: tuple[str, str]) -> None:
    found = found_after(its, "data", change)
    assert found == [("differs", "data", 1), ("differs", "data", 2)]


@pytest.mark.parametrize("change", [*SAME_VALUES.values()], ids=[*SAME_VALUES])
def test_another_spelling_is_right_where_the_event_changed_and_only_there(
    its: Project, change: tuple[str, str]
) -> None:
    assert found_after(its, "data", change) == [("differs", "data", 2)]


def test_metadata_stay_byte_for_byte(its: Project) -> None:
    found = found_after(its, "metadata", (": ", ":"))
    assert found == [("differs", "metadata", 1), ("differs", "metadata", 2)]
