"""The shop's upcasters and projections against the history that its first release left."""

from __future__ import annotations

import hashlib
import json
import os
import string
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, func, select

import projections
from eventmig import Event, errors
from eventmig.codec import canonical, decode, same
from eventmig.drafts import Draft, renumber
from eventmig.ops.base import Loss
from eventmig.ops.control import run
from eventmig.rebuild import Aggregate, ReadModel, rebuild_read_models
from eventmig.steps import Rewrite, Upcaster
from eventmig.stores.open import open_store
from examples.shop.history import generate, write
from projections.basket import Basket, basket
from projections.customer_list import customers
from projections.order import Order, order
from projections.order_overview import orders
from projections.sales_per_day import days
from upcasters import registry
from upcasters.payments import PaymentAuthorised

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 6_000

Upcast = Callable[[Event], list[Draft]]


@pytest.fixture(scope="module")
def history() -> list[Event]:
    return list(generate(EVENTS))


def event(type_: str, version: int, data: object, metadata: object = None) -> Event:
    stored = None if metadata is None else json.dumps(metadata).encode()
    return Event(1, "s-1", 1, "id-1", type_, version, json.dumps(data).encode(), stored, 0)


def stream(name: str, *facts: tuple[str, dict[str, Any]]) -> list[Event]:
    """A stored stream of version-1 events."""
    return [
        Event(n, name, n, f"id-{n}", type_, 1, json.dumps(data).encode(), None, n)
        for n, (type_, data) in enumerate(facts, 1)
    ]


def current(events: list[Event]) -> list[tuple[str, Any]]:
    """(type, data) of a stored stream as the current release sees it."""
    return [(e.type, decode(e.data)) for e in registry.upcast_stream(events)]


def essence(drafts: Iterable[Draft]) -> list[object]:
    return [
        (d.version, canonical(decode(d.data)), d.metadata, d.recorded_at, d.ordinal, d.split)
        for d in drafts
    ]


# --- the registry -------------------------------------------------------------------------------


def test_there_are_chains_up_to_version_4() -> None:
    assert len(registry.current) >= 8
    assert {t for t, v in registry.current.items() if v == 4} == {
        "CustomerRegistered",
        "ItemAdded",
        "OrderPlaced",
    }


def test_every_current_version_has_a_model_and_every_old_one_too() -> None:
    named = set(registry.current.items()) | set(registry.upcasters)

    assert named == set(registry.schemas)


def test_every_step_says_why_in_one_sentence() -> None:
    whys = [step.why for step in registry.upcasters.values()]
    whys += [step.why for step in (*registry.stream_steps, *registry.routes)]

    assert all(why.endswith(".") and "\n" not in why for why in whys)


# --- the history --------------------------------------------------------------------------------


def digest(events: Iterable[Event]) -> str:
    hashed = hashlib.sha256()
    for stored in events:
        hashed.update(repr(tuple(stored)).encode())
    return hashed.hexdigest()


def test_the_same_seed_gives_the_same_events_in_every_process() -> None:
    script = (
        "from examples.shop.history import generate\n"
        "from tests.unit.test_shop_domain import digest\n"
        "print(digest(generate(5_000)))"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert digest(generate(5_000)) == digest(generate(5_000)) == other.stdout.strip()
    assert digest(generate(5_000)) != digest(generate(5_000, seed=2))


def test_it_is_one_history_of_interleaved_streams(history: list[Event]) -> None:
    heads: Counter[str] = Counter()
    for stored in history:
        heads[stored.stream] += 1
        assert stored.stream_position == heads[stored.stream]

    assert [e.global_position for e in history] == list(range(1, EVENTS + 1))
    assert [e.recorded_at for e in history] == sorted(e.recorded_at for e in history)
    assert len({e.id for e in history}) == EVENTS
    changes = sum(a.stream != b.stream for a, b in pairwise(history))
    assert changes > EVENTS / 3


def test_it_holds_every_old_version_and_what_nobody_registered(history: list[Event]) -> None:
    stored = {(e.type, e.schema_version) for e in history}

    assert stored == {*registry.upcasters, ("StockCounted", 1)}


def test_every_stored_event_fits_the_model_of_its_version(history: list[Event]) -> None:
    for stored in history:
        if stored.type != "StockCounted":
            registry.schemas[stored.type, stored.schema_version].validate(stored.data)


def test_it_is_written_into_a_new_store_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    told: list[int] = []

    assert write(url, 5_500, progress=told.append) == 5_500

    assert told == [5_000, 5_500]
    with open_store(url) as store:
        assert [e for batch in store.read_all() for e in batch] == list(generate(5_500))
    with pytest.raises(errors.StoreError, match="events in this store already"):
        write(url, 10)


# --- event by event -----------------------------------------------------------------------------


def test_every_event_upcasts_to_what_its_model_accepts(history: list[Event]) -> None:
    for stored in history:
        for draft in registry.chains.upcast(stored):
            assert registry.current.get(draft.type, 1) == draft.schema_version
            if draft.type != "StockCounted":
                registry.schemas[draft.version].validate(draft.data)


def test_the_fast_and_the_slow_reading_agree(history: list[Event]) -> None:
    for stored in history:
        fast, slow = registry.chains.upcast(stored), registry.chains.walk(stored)
        assert essence(fast) == essence(slow)


def test_what_nobody_registered_keeps_every_byte(history: list[Event]) -> None:
    counted = [e for e in history if e.type == "StockCounted"]

    assert registry.upcast_batch(counted) == counted


EXACT = [
    step
    for step in registry.upcasters.values()
    if step.to is not None
    and (back := registry.downcaster(step.to)) is not None
    and back.to == step.source
    and back.loss is Loss.EXACT
]


def there_and_back(step: Upcaster, stored: Event) -> None:
    """down(up(x)) == x, on the data of one event of the step's own version."""
    assert isinstance(step.outcome, Rewrite)
    assert step.to is not None
    back = registry.downcaster(step.to)
    assert back is not None
    before = decode(stored.data)
    after = run(step.outcome.ops, before, stored)
    assert same(run(back.ops, after, stored), before)


@pytest.mark.parametrize("step", EXACT, ids=lambda step: step.name)
def test_what_claims_an_exact_way_back_has_one(step: Upcaster, history: list[Event]) -> None:
    tried = [e for e in history if (e.type, e.schema_version) == step.source]

    for stored in tried:
        there_and_back(step, stored)
    assert tried


@given(cents=st.integers(0, 10**9 - 1), quantity=st.integers(1, 999))
def test_money_keeps_every_penny(cents: int, quantity: int) -> None:
    price = f"{cents // 100}.{cents % 100:02d}"
    line = {"sku": "a", "title": "b", "qty": str(quantity), "price": price}
    added = event("ItemAdded", 1, {"cart_id": "b1", **line})

    item = registry.load(added)

    assert (item.quantity, item.unit_price_cents, item.currency) == (quantity, cents, "GBP")
    assert item.list_price_cents == cents
    there_and_back(registry.upcasters["ItemAdded", 1], added)
    second = event("ItemAdded", 2, {"cart_id": "b1", "sku": "a", "title": "b", "quantity": 1})
    second = second._replace(data=second.data[:-1] + f', "price": "{price}"}}'.encode())
    there_and_back(registry.upcasters["ItemAdded", 2], second)


@pytest.mark.parametrize(
    "price", ["12.5", "12,50", "1e3", "-0.00", "012.50", "12.500", "", " 1.00"]
)
def test_money_in_another_spelling_is_refused_by_name(price: str) -> None:
    data = {"cart_id": "b1", "sku": "a", "title": "b", "quantity": 1, "price": price}

    with pytest.raises(errors.UpcastError, match="price") as caught:
        registry.upcast(event("ItemAdded", 2, data))
    assert caught.value.where.step == "ItemAdded v2 → v3"


@given(st.integers(-999, 999).filter(bool))
def test_a_label_and_its_number(by: int) -> None:
    there_and_back(
        registry.upcasters["QuantityChanged", 1],
        event("QuantityChanged", 1, {"cart_id": "b1", "sku": "a", "change": f"{by:+d}"}),
    )


texts = st.text(alphabet=string.printable + "äłü東🎁", max_size=8)
order_lines = st.lists(
    st.fixed_dictionaries(
        {
            "sku": texts,
            "title": texts,
            "quantity": st.integers(),
            "unit_price_cents": st.integers(),
        }
    ),
    max_size=4,
)


@given(lines=order_lines, total=st.integers())
def test_shipping_is_taken_apart_and_put_together(lines: list[Any], total: int) -> None:
    ids = {"order_id": "o1", "basket_id": "b1", "customer_id": "c1"}
    sums = {"lines": lines, "total_cents": total, "delivery": "express", "channel": "app"}
    stored = event("OrderPlaced", 3, ids | sums)

    there_and_back(registry.upcasters["OrderPlaced", 3], stored)
    assert registry.load(stored).total_cents == total


@given(digits=st.none() | st.from_regex(r"[0-9]{4}", fullmatch=True), payer=st.none() | texts)
def test_stars_come_back(digits: str | None, payer: str | None) -> None:
    old = {
        "payment_id": "p1",
        "order_id": "o1",
        "authorised_cents": 1,
        "method": "card",
        "card": None if digits is None else {"number": f"**** **** **** {digits}"},
        "payer": payer,
    }
    stored = event("PaymentAuthorised", 2, old)

    there_and_back(registry.upcasters["PaymentAuthorised", 2], stored)
    loaded = registry.load(stored)
    assert isinstance(loaded, PaymentAuthorised)
    assert (loaded.card_ends_with, loaded.payer) == (digits, payer)


def test_a_customer_of_long_ago() -> None:
    stored = event(
        "CustomerRegistered",
        1,
        {
            "customer_id": "c1",
            "name": "José García Márquez",
            "mail": "jose@example.org",
            "fax": "",
            "street": "Park Row 1",
            "zip": "LS1 5HD",
            "city": "Leeds",
        },
    )

    assert decode(registry.upcast(stored)[0].data) == {
        "customer_id": "c1",
        "given_name": "José",
        "family_name": "García Márquez",
        "email": "jose@example.org",
        "phones": [],
        "address": {
            "street": "Park Row 1",
            "postcode": "LS1 5HD",
            "city": "Leeds",
            "country": "GB",
        },
        "channel": "web",
    }


def test_the_channel_comes_from_the_metadata() -> None:
    data = {
        "order_id": "o1",
        "cart_id": "b1",
        "customer": {"customer_id": "c1", "name": "Björk"},
        "lines": [],
        "total_cents": 395,
    }

    with_channel = registry.load(event("OrderPlaced", 2, data, {"channel": "app"}))
    without = registry.load(event("OrderPlaced", 2, data))

    assert (with_channel.channel, without.channel) == ("app", "web")
    assert (without.delivery, without.shipping_cents) == ("standard", 395)


@pytest.mark.parametrize(
    ("form", "facts"),
    [
        ({}, []),
        ({"phone": "1"}, ["PhoneChanged"]),
        (
            {"email": "e", "phone": "1", "address": {"street": "s", "zip": "z", "city": "c"}},
            ["AddressChanged", "PhoneChanged", "EmailChanged"],
        ),
    ],
)
def test_a_form_becomes_what_was_changed_in_it(form: dict[str, Any], facts: list[str]) -> None:
    stored = event("CustomerDetailsChanged", 1, {"customer_id": "c1", **form})

    assert [e.type for e in registry.upcast(stored)] == facts


def test_preferences_become_one_fact_each() -> None:
    stored = event(
        "PreferencesSaved", 1, {"customer_id": "c1", "newsletter": "N", "lang": "deutsch"}
    )

    assert [(e.type, decode(e.data)) for e in registry.upcast(stored)] == [
        ("NewsletterCancelled", {"customer_id": "c1"}),
        ("LanguageChosen", {"customer_id": "c1", "language": "de"}),
    ]


def test_page_views_are_dropped() -> None:
    assert registry.upcast(event("CartTouched", 1, {"cart_id": "b1", "page": "/"})) == []


@pytest.mark.parametrize(
    ("carriers", "tracking", "expected"),
    [(["DHL"], "77", {"carrier": "DHL", "tracking": "77"}), ([], "", {"carrier": None})],
)
def test_what_is_fetched_is_not_tracked(
    carriers: list[str], tracking: str, expected: dict[str, Any]
) -> None:
    ids = {"order_id": "o1", "shipment_id": "s1"}
    stored = event("ParcelSent", 1, ids | {"carriers": carriers, "tracking": tracking})

    (sent,) = registry.upcast(stored)

    assert sent.type == "ShipmentDispatched"
    assert decode(sent.data) == ids | expected


# --- stream by stream ---------------------------------------------------------------------------


def test_a_gift_that_came_late_is_there_before_check_out() -> None:
    cart = {"cart_id": "b1"}
    events = stream(
        "cart-b1",
        ("CartOpened", cart),
        ("CartCheckedOut", cart | {"order_id": "o1"}),
        ("GiftAdded", cart | {"sku": "G-901"}),
    )

    assert [type_ for type_, _ in current(events)] == [
        "BasketOpened",
        "GiftAdded",
        "BasketCheckedOut",
    ]


def test_a_coupon_is_used_at_check_out() -> None:
    opened = ("CartOpened", {"cart_id": "b1", "coupon": "TEA4TWO"})
    out = ("CartCheckedOut", {"cart_id": "b1", "order_id": "o1"})
    typed = ("CartCheckedOut", {"cart_id": "b1", "order_id": "o1", "coupon": "WELCOME"})

    assert current(stream("cart-b1", opened, out)) == [
        ("BasketOpened", {"basket_id": "b1"}),
        ("BasketCheckedOut", {"basket_id": "b1", "order_id": "o1", "coupon": "TEA4TWO"}),
    ]
    assert current(stream("cart-b1", opened))[0][1]["coupon"] == "TEA4TWO"
    assert [d["coupon"] for _, d in current(stream("cart-b1", opened, typed))] == [
        "TEA4TWO",
        "WELCOME",
    ]


def test_what_is_cancelled_after_it_was_sent_is_returned() -> None:
    cancelled = ("OrderCancelled", {"order_id": "o1", "reason": 1, "by": "customer"})
    sent = (
        "ParcelSent",
        {"order_id": "o1", "shipment_id": "s1", "carriers": ["DHL"], "tracking": ""},
    )

    assert current(stream("order-o1", sent, cancelled))[1] == (
        "OrderReturned",
        {"order_id": "o1", "reason": "changed_mind"},
    )
    assert current(stream("order-o1", cancelled, sent))[0][0] == "OrderCancelled"


def test_a_payment_is_taken_once_it_is_captured() -> None:
    ids = {"payment_id": "p1", "order_id": "o1"}
    authorised = ("PaymentAuthorised", ids | {"amount": "12.50", "method": "paypal"})
    captured = ("PaymentCaptured", ids | {"amount": "12.50", "captured": 1_615_000_000})

    events = stream("payment-p1", authorised, authorised, captured)

    assert current(events) == [
        (
            "PaymentAuthorised",
            ids
            | {
                "authorised_cents": 1250,
                "method": "paypal",
                "card_ends_with": None,
                "payer": None,
            },
        ),
        (
            "PaymentTaken",
            ids
            | {
                "amount_cents": 1250,
                "method": "paypal",
                "card_ends_with": None,
                "payer": None,
                "captured_at": "2021-03-06T03:06:40Z",
            },
        ),
    ]


# --- the whole history --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upcast(history: list[Event]) -> list[Event]:
    """The history as a job leaves it, made here without one."""
    pipeline = registry.at(registry.freeze("2"))
    streams: dict[str, list[Event]] = defaultdict(list)
    for stored in history:
        streams[stored.stream].append(stored)
    due = []
    for events in streams.values():
        made = pipeline.stream(events)
        walked = pipeline.stream(events, walk=True)
        assert essence(d.draft for d in made) == essence(d.draft for d in walked)
        due += made
    due.sort(key=lambda d: d.position)
    placed = [(pipeline.target_stream(d.draft), d.draft) for d in due]
    heads = dict.fromkeys({name for name, _ in placed}, 0)
    events = renumber(placed, heads, keep_source_ids=True)
    return [e._replace(global_position=n) for n, e in enumerate(events, 1)]


def test_every_event_of_the_new_history_fits_its_model(upcast: list[Event]) -> None:
    for made in upcast:
        if made.type != "StockCounted":
            registry.schemas[made.type, made.schema_version].validate(made.data)
    assert len({e.id for e in upcast}) == len(upcast)


def test_streams_go_where_the_store_steps_send_them(upcast: list[Event]) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for made in upcast:
        where[made.stream.split("-")[0]].add(made.type)

    assert set(where) == {"basket", "customer", "order", "payment", "shipment", "stock"}
    assert where["shipment"] == {"ShipmentDispatched", "ShipmentDelivered"}
    assert "LanguageChosen" in where["customer"]
    assert where["order"] == {"OrderPlaced", "OrderNoted", "OrderCancelled", "OrderReturned"}


def folded(aggregate: Aggregate[Any], upcast: list[Event]) -> dict[str, Any]:
    states: dict[str, Any] = {}
    for made in upcast:
        if aggregate.covers(made.stream):
            states[made.stream] = aggregate.apply(states.get(made.stream), made)
    return states


def test_what_is_in_the_basket_is_what_is_ordered(upcast: list[Event]) -> None:
    baskets: dict[str, Basket] = folded(basket, upcast)
    ordered: dict[str, Order] = folded(order, upcast)
    goods = {
        placed.basket_id: placed
        for made in upcast
        if made.type == "OrderPlaced"
        for placed in [registry.load(made)]
    }

    assert len(goods) == len(ordered) > 100
    for placed in goods.values():
        state = baskets[f"basket-{placed.basket_id}"]
        assert state.order_id == placed.order_id
        assert state.total_cents == placed.goods_cents
        assert ordered[f"order-{placed.order_id}"].quantities == state.quantities
    assert {state.state for state in ordered.values()} == {"open", "cancelled", "returned"}


@pytest.fixture(scope="module")
def views(upcast: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Iterable[Connection]:
    """The shop's read models, rebuilt from the new history."""
    folder = tmp_path_factory.mktemp("views")
    engine = create_engine(f"sqlite:///{folder / 'views.db'}")
    with open_store(f"sqlite:///{folder / 'history.db'}", mode="create") as store:
        with store.begin() as transaction:
            transaction.append_copied([e._replace(origins=()) for e in upcast])
        rebuild_read_models(
            [p for p in projections.projections if isinstance(p, ReadModel)],
            source=store,
            upcast=registry.upcast_batch,
            engine=engine,
            release="2",
        )
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_sales_per_day_adds_up(views: Connection, upcast: list[Event]) -> None:
    placed = [registry.load(e) for e in upcast if e.type == "OrderPlaced"]

    count, goods, shipping = views.execute(
        select(
            func.sum(days.c.orders), func.sum(days.c.goods_cents), func.sum(days.c.shipping_cents)
        )
    ).one()

    assert count == len(placed)
    assert goods + shipping == sum(order.total_cents for order in placed)
    assert set(views.scalars(select(days.c.channel).distinct())) == {"web", "app", "shop"}


def test_the_overview_joins_customer_payment_and_shipments(
    views: Connection, upcast: list[Event]
) -> None:
    found = views.execute(select(orders)).all()

    assert len(found) == sum(e.type == "OrderPlaced" for e in upcast)
    assert all(row.customer and row.city for row in found)
    states = Counter(row.state for row in found)
    assert {"delivered", "cancelled", "returned"} <= set(states)
    assert set(states) <= {"placed", "sent", "delivered", "cancelled", "returned"}
    assert all(row.delivered == row.shipments > 0 for row in found if row.state == "delivered")
    assert all(row.paid_cents in {0, row.total_cents} for row in found)


def test_the_list_of_customers_is_of_those_who_stayed(
    views: Connection, upcast: list[Event]
) -> None:
    types = Counter(e.type for e in upcast)
    rows = views.execute(select(customers)).all()

    assert len(rows) == types["CustomerRegistered"] - types["AccountClosed"]
    assert {row.language for row in rows} == {"en", "de", "fr"}
    assert any(row.newsletter for row in rows)
    assert any(row.phone is None for row in rows)
