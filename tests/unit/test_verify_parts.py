"""The parts of a verification that are pure: sharing, findings put in order, the hash."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmig.events import Event, Held, Origin
from eventmig.migrate.verify import chaining
from eventmig.migrate.verify.chaining import Along, Chaining, Links, chained, digests, first_form
from eventmig.migrate.verify.findings import SHOWN, InOrder, Mismatch, Verification
from eventmig.migrate.verify.sharing import Sharing


class Helper:
    """Answers in order; what is there at a moment is a matter of luck."""

    def __init__(self, luck: random.Random) -> None:
        self.luck = luck
        self.waiting: deque[int] = deque()
        self.most = 0

    def ask(self, unit: int) -> Answer:
        self.waiting.append(unit)
        self.most = max(self.most, len(self.waiting))
        return Answer(self, unit)


class Answer:
    def __init__(self, helper: Helper, unit: int) -> None:
        self.helper, self.unit = helper, unit

    def there(self) -> bool:
        assert self.helper.waiting[0] == self.unit
        return self.helper.luck.random() < 0.5

    def result(self) -> str:
        assert self.helper.waiting.popleft() == self.unit
        return f"theirs {self.unit}"


@given(st.integers(0, 12), st.integers(0, 99), st.booleans(), st.booleans())
def test_each_unit_is_done_once(count: int, seed: int, helped: bool, early: bool) -> None:
    helper = Helper(random.Random(seed))
    sharing = Sharing(range(count), lambda n: f"mine {n}", helper.ask if helped else None)
    if early:
        sharing.begin()
    found = dict(sharing.results())
    assert sorted(found) == list(range(count))
    assert all(result.split()[1] == str(number) for number, result in found.items())
    theirs = [result for result in found.values() if result.startswith("theirs")]
    assert len(theirs) >= (min(count, 2) if helped else 0)
    assert helper.most <= 2
    assert not helper.waiting


def test_the_helper_is_asked_before_this_process_begins() -> None:
    """So that it can work while this process does something else first."""
    helper = Helper(random.Random(0))
    sharing = Sharing(range(5), str, helper.ask)
    sharing.begin()
    assert list(helper.waiting) == [0, 1]


@given(st.permutations(range(5)))
def test_findings_stand_in_the_order_of_the_parts(order: list[int]) -> None:
    def part(number: int) -> Verification:
        found = Verification(source_events=1, target_events=2)
        for n in range(6):
            found.add(Mismatch(kind="missing", stream=f"{number}.{n}"))
        return found

    together = InOrder()
    for number in order:
        together.include(number, part(number))
    found = together.found
    assert (found.mismatches, found.source_events, found.target_events) == (30, 5, 10)
    names = [f"{number}.{n}" for number in range(5) for n in range(6)]
    assert [mismatch.stream for mismatch in found.shown] == names[:SHOWN]


@pytest.mark.parametrize(
    ("previous", "metadata", "origins", "digest"),
    [
        (
            b"",
            b"{}",
            (Origin("a", 7, 0),),
            "ed07ee80fb5604f98dfe4264d4b98487b525ae1fea732dae312bb692db8e7238",
        ),
        (b"p" * 32, None, (), "e3d8991d7cdecc3cd88c3b5d193a3261cc3bf524d4baca88edcc8a8f4be92296"),
        (
            b"p" * 32,
            b"",
            (Origin("a", 7, 0), Origin("b", 8, 1)),
            "c62435740123438f6057e812d50ba45e8e6404a60eab02c4f26dd9bb77461f04",
        ),
    ],
)
def test_hashes_recorded_long_ago_stay_right(
    previous: bytes, metadata: bytes | None, origins: tuple[Origin, ...], digest: str
) -> None:
    event = Event(5, "s", 3, "id", "T", 2, '{"é":1.10}'.encode(), metadata, 99, origins)
    assert first_form(previous, event).hex() == digest


@pytest.mark.parametrize(
    ("previous", "metadata", "origins", "digest"),
    [
        (
            b"",
            b"{}",
            (Origin("a", 7, 0),),
            "02f73c1bd3032587a870cfbba7f41a32209998ad08b66f697cd8906bb78a0980fe",
        ),
        (
            b"\x02" + b"p" * 32,
            None,
            (),
            "022f9d9eec8258ad36ccc43c854a355cf60c305ae261827859f1bad4bed1aa1376",
        ),
        (
            b"\x02" + b"p" * 32,
            b"",
            (Origin("a", 7, 0), Origin("b", 8, 1)),
            "02ed59fa07ce052f87a4e59feaa6c7ccf3033f90e752b4ae19bbbca51ab57a70af",
        ),
    ],
)
def test_hashes_over_digests_stay_right(
    previous: bytes, metadata: bytes | None, origins: tuple[Origin, ...], digest: str
) -> None:
    event = Event(5, "s", 3, "id", "T", 2, '{"é":1.10}'.encode(), metadata, 99, origins)
    (made,) = digests(Held.of([event]))
    assert chained(previous, made).hex() == digest


def history() -> list[Event]:
    """Events of three streams that grow side by side."""
    return [
        Event(n + 1, f"s{n % 3}", n // 3 + 1, f"id{n}", "T", 1, b"{}", None, n) for n in range(12)
    ]


@given(st.permutations(range(4)))
def test_hashes_do_not_depend_on_which_part_comes_in_first(order: list[int]) -> None:
    events = history()
    wanted: dict[str, tuple[int, bytes]] = {}
    for event in events:
        _, before = wanted.get(event.stream, (0, b""))
        (digest,) = digests(Held.of([event]))
        wanted[event.stream] = (event.stream_position, chained(before, digest))
    along = Along(1, {})
    for number in order:
        some = events[number * 3 : number * 3 + 3]
        along.add(number, [Links.of(Held.of(some[:1])), Links.of(Held.of(some[1:]))])
    hashed = along.end()
    assert hashed.hashes == wanted
    assert hashed.found.right
    assert hashed.found.streams_hashed == 3


@pytest.mark.parametrize("bound", ["STREAMS_KEPT", "_EVENTS_WAITING"])
def test_chaining_along_gives_up_before_it_holds_too_much(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaining, bound, 2)
    along = Along(1, {})
    first = 0 if bound == "STREAMS_KEPT" else 1  # what comes before it is still missing
    along.add(first, [Links.of(Held.of(history()[:2]))])
    assert not along.given_up
    along.add(first + 1, [Links.of(Held.of(history()[2:]))])
    assert along.given_up


def test_an_order_that_is_not_that_of_the_stream_is_found() -> None:
    events = history()
    chaining_ = Chaining(1, {})
    chaining_.add(Links.of(Held.of([events[3], events[0]])))
    (found,) = chaining_.found.shown
    assert (found.kind, found.stream, found.stream_position, found.global_position) == (
        "moved",
        "s0",
        1,
        1,
    )
