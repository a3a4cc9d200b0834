"""Steps on whole streams and on the store, read like their specification."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventmig import (
    Draft,
    Event,
    Registry,
    Unfinished,
    merge,
    merge_streams,
    move_attribute,
    ops,
    rename_streams,
    reorder,
    route,
    stream_step,
    upcaster,
)
from eventmig.drafts import unchanged
from eventmig.errors import OpError, RegistryError, UpcastError
from eventmig.routes import Route
from eventmig.stream_steps import StreamStep
from eventmig.testing import event


def stream(*events: tuple[str, dict[str, Any]], name: str = "s-1") -> list[Event]:
    return [event(t, 1, d, stream=name, stream_position=n) for n, (t, d) in enumerate(events, 1)]


def after(step: StreamStep, *events: tuple[str, dict[str, Any]]) -> list[tuple[str, Any]]:
    made = step.apply([unchanged(e) for e in stream(*events)])
    return [(draft.type, draft.values()) for draft in made]


class TestMerge:
    paid = merge("paid", "Authorised", "Captured", into="Paid", streams="*", by="id")

    def test_one_of_each_with_the_same_key_becomes_one_where_the_last_stood(self) -> None:
        assert after(
            self.paid,
            ("Authorised", {"id": 1, "a": True}),
            ("Other", {}),
            ("Captured", {"id": 1, "c": True}),
        ) == [("Other", {}), ("Paid", {"id": 1, "a": True, "c": True})]

    def test_keys_are_told_apart(self) -> None:
        made = after(
            self.paid,
            ("Authorised", {"id": 1}),
            ("Authorised", {"id": 2}),
            ("Captured", {"id": 2}),
            ("Captured", {"id": 1}),
        )

        assert made == [("Paid", {"id": 2}), ("Paid", {"id": 1})]

    def test_what_is_unfinished_is_kept_unless_told_otherwise(self) -> None:
        lonely = ("Authorised", {"id": 1})
        kept = merge("m", "Authorised", "Captured", into="Paid", streams="*", by="id")
        dropped = merge(
            "m", "Authorised", "Captured", into="Paid", streams="*", unfinished=Unfinished.DROP
        )
        refused = merge(
            "m", "Authorised", "Captured", into="Paid", streams="*", unfinished=Unfinished.REFUSE
        )

        assert after(kept, lonely) == [lonely]
        assert after(dropped, lonely) == []
        with pytest.raises(OpError, match="Authorised has no matching Captured"):
            after(refused, lonely)

    def test_parts_that_disagree_are_refused_by_name(self) -> None:
        with pytest.raises(OpError, match="disagree about amount"):
            after(
                self.paid,
                ("Authorised", {"id": 1, "amount": 1}),
                ("Captured", {"id": 1, "amount": 2}),
            )

    def test_a_merged_event_names_all_its_origins_and_has_an_id_of_its_own(self) -> None:
        registry = Registry([self.paid])
        events = stream(("Authorised", {"id": 1}), ("Captured", {"id": 1}))

        (made,) = registry.upcast_stream(events)

        assert [origin.stream_position for origin in made.origins] == [1, 2]
        assert made.id not in {e.id for e in events}
        assert made.stream_position == 1
        assert registry.upcast_stream(events) == [made]


class TestMoveAttribute:
    def test_a_member_goes_to_the_next_event_of_its_key(self) -> None:
        step = move_attribute(
            "coupon", "coupon", source="Opened", target="Closed", streams="*", by="id"
        )

        assert after(
            step,
            ("Opened", {"id": 1, "coupon": "X"}),
            ("Closed", {"id": 2}),
            ("Closed", {"id": 1}),
        ) == [("Opened", {"id": 1}), ("Closed", {"id": 2}), ("Closed", {"id": 1, "coupon": "X"})]

    def test_it_stays_where_nobody_can_take_it(self) -> None:
        step = move_attribute("c", "coupon", source="Opened", target="Closed", streams="*")
        untaken = [("Opened", {"coupon": "X"}), ("Closed", {"coupon": "Y"})]

        assert after(step, *untaken) == untaken
        assert after(step, untaken[0]) == untaken[:1]

    def test_backwards(self) -> None:
        step = move_attribute(
            "c", "why", source="Closed", target="Opened", streams="*", backwards=True
        )

        assert after(step, ("Opened", {}), ("Closed", {"why": 1})) == [
            ("Opened", {"why": 1}),
            ("Closed", {}),
        ]


def test_reorder_puts_events_before_the_first_of_another_type() -> None:
    step = reorder("names first", move="Named", before="Opened", streams="*")

    assert after(step, ("A", {}), ("Opened", {}), ("B", {}), ("Named", {}), ("Opened", {})) == [
        ("A", {}),
        ("Named", {}),
        ("Opened", {}),
        ("B", {}),
        ("Opened", {}),
    ]


class TestByFunction:
    def test_it_sees_the_stream_after_the_upcasters(self) -> None:
        @stream_step("last wins", streams="s-*")
        def last_wins(drafts: list[Draft]) -> list[Draft]:
            return drafts[-1:]

        registry = Registry([upcaster("A", 1, ops.rename("x", "y")), last_wins])

        (made,) = registry.upcast_stream(stream(("A", {"x": 1}), ("A", {"x": 2})))

        assert (made.schema_version, made.data, made.stream_position) == (2, b'{"y":2}', 1)

    def test_what_it_makes_is_upcast_in_its_turn(self) -> None:
        @stream_step("rename", streams="*")
        def rename(drafts: list[Draft]) -> list[Draft]:
            return [d._replace(type="B", schema_version=1) for d in drafts]

        registry = Registry([upcaster("B", 1, ops.add("new", 1)), rename])

        (made,) = registry.upcast_stream(stream(("A", {})))

        assert (made.type, made.schema_version, made.data) == ("B", 2, b'{"new":1}')

    def test_an_event_from_nowhere_is_refused(self) -> None:
        @stream_step("invents", streams="*")
        def invents(drafts: list[Draft]) -> list[Draft]:
            return [*drafts, drafts[0]._replace(sources=())]

        with pytest.raises(UpcastError, match="no source in the stream") as caught:
            Registry([invents]).upcast_stream(stream(("A", {})))
        assert caught.value.where.step == "invents"

    def test_returning_nothing_is_refused(self) -> None:
        @stream_step("forgets", streams="*")
        def forgets(drafts: list[Draft]) -> list[Draft]:
            return None  # type: ignore[return-value]

        with pytest.raises(UpcastError, match="forgets returned nothing"):
            Registry([forgets]).upcast_stream(stream(("A", {})))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B", "C", "D"]),
            st.fixed_dictionaries({"id": st.integers(0, 2)}),
        ),
        max_size=12,
    )
)
def test_no_event_is_lost_or_doubled_by_the_declarative_steps(
    events: list[tuple[str, dict[str, int]]],
) -> None:
    steps = [
        merge("m", "A", "B", into="AB", streams="*", by="id"),
        reorder("r", move="C", before="D", streams="*", by="id"),
    ]
    drafts = [unchanged(e) for e in stream(*events)]
    for step in steps:
        drafts = step.apply(drafts)

    used = [source.stream_position for draft in drafts for source in draft.sources]
    assert sorted(used) == list(range(1, len(events) + 1))


class TestRoutes:
    def to(self, step: Route, name: str, type: str = "A", **data: object) -> str | None:
        return step.takes(unchanged(event(type, 1, data, stream=name)))  # type: ignore[arg-type]

    def test_renaming_streams(self) -> None:
        step = rename_streams("r", "cart-{id}", to="basket-{id}")

        assert self.to(step, "cart-7") == "basket-7"
        assert self.to(step, "order-7") is None

    def test_merging_streams(self) -> None:
        first, second = merge_streams("m", "a-{id}", "b-{id}", to="ab-{id}")

        assert self.to(first, "a-1") == self.to(second, "b-1") == "ab-1"

    def test_routing_by_data_and_type(self) -> None:
        step = route("r", "order-{id}", to="{data.at.region}-{id}", types=["Sent"])

        assert self.to(step, "order-1", "Sent", at={"region": "eu"}) == "eu-1"
        assert self.to(step, "order-1", "Other", at={"region": "eu"}) is None

    def test_only_where_a_condition_holds(self) -> None:
        step = route("r", "order-{id}", to="x-{id}", when=ops.present("x"))

        assert self.to(step, "order-1", x=None) == "x-1"
        assert self.to(step, "order-1") is None

    def test_data_that_lacks_the_member_is_an_error_that_names_it(self) -> None:
        step = route("by region", "order-{id}", to="{data.region}-{id}")

        with pytest.raises(OpError, match=r"needs data\.region, which is absent") as caught:
            self.to(step, "order-1")
        assert caught.value.where.step == "by region"

    def test_a_template_that_uses_what_the_pattern_lacks_is_refused_when_built(self) -> None:
        with pytest.raises(
            RegistryError, match=r"uses \{region\}, which .order-\{id\}. does not name"
        ):
            route("r", "order-{id}", to="{region}-{id}")
